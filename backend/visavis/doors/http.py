"""The HTTP door: guests, health, and the built client, all with the same security headers.

Hides how files are served (hashed assets for ever, everything else asked for again) and how a refusal
becomes a response.
"""

import asyncio
import contextlib
import datetime
import hmac
import logging
import re
import time
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from aiohttp import ClientError, http_exceptions, web
from aiohttp.typedefs import Middleware

from visavis.contract import (
    ERRORS,
    ROUTES,
    RULES_VERSION,
    BeginUpload,
    CreateGuest,
    Done,
    GuestCreated,
    Health,
    LobbyState,
    Mode,
    Refused,
    ServerInfo,
    Wire,
)
from visavis.core.files import Files
from visavis.core.identity import Guest, check_entry, new_id, new_profile
from visavis.core.limits import NOWHERE, Limits
from visavis.core.ports import Meter, Seats, StateFull, StateUnavailable, StorageFull, StorageUnavailable
from visavis.core.recordings import Recordings
from visavis.doors.sources import Sources

log = logging.getLogger(__name__)

MOST_BODY = 16_384
SILENCE_SECONDS = 20.0
"""A body of which nothing comes for this long has ended."""
ENDING_SECONDS = 5.0
"""For which an upload's earlier connection is waited for, when its guest goes on with another."""
HANDED_OVER_AT_ONCE = 8
"""Uploads that write down what has come at once."""
PATCH_SECONDS = 600.0
"""A part of an upload ends after this long, whatever of it has come."""
FETCH_SECONDS = 3600.0
"""For which a file is handed out at most; whoever is slower asks for the rest."""
TUS_VERSION = "1.0.0"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LIMITS_OF: dict[str, tuple[str, ...]] = {
    "get_info": ("api",),
    # Those who come for the first time are counted as well, once it is known that they do.
    "create_guest": ("api",),
    "list_recordings": ("api",),
    "delete_recording": ("api",),
    "get_openapi": ("api",),
    # A file is many requests, which are counted apart; beginning one counts for more, as its size is known.
    "begin_upload": ("transfers",),
    "get_upload": ("transfers",),
    "head_upload": ("transfers",),
    "patch_upload": ("transfers",),
    "delete_upload": ("transfers",),
    "get_file": ("transfers",),
    "get_recording": ("transfers",),
    # Asked by machines that watch over this one; they must not be told to wait.
    "get_metrics": (),
    "get_worker_metrics": (),
    "get_health": (),
    "get_ready": (),
}
"""What each route counts against."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; manifest-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), picture-in-picture=(self), "
        "clipboard-write=(self), geolocation=(), payment=(), usb=(), serial=(), midi=(), accelerometer=(), "
        "gyroscope=(), magnetometer=()"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On everything. nginx, which serves the client's files itself, has them from here: `describe.nginx_headers`."""
TRANSPORT_SECURITY = "max-age=63072000"
"""Strict-Transport-Security, on what came by https. Of the name itself: what lies below it is not ours to bind."""

_json = msgspec.json.Encoder()
_create_guest = msgspec.json.Decoder(CreateGuest)
_begin_upload = msgspec.json.Decoder(BeginUpload)
_OFFSET = re.compile(r"[0-9]{1,15}")
_RANGE = re.compile(r"bytes=(?:([0-9]{1,15})-([0-9]{1,15})?|-([0-9]{1,15}))")
"""One range; of several, or in other units, RFC 9110 lets a server send the whole."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Remembered(msgspec.Struct, frozen=True):
    """What is known of a browser before it asks: its id, and what it answered once."""

    device: str
    adult: bool
    rules: int


class Http:
    """The REST routes and the static files."""

    def __init__(
        self,
        *,
        seats: Seats,
        recall: Callable[[str], Remembered | None],
        issue: Callable[[Guest, Remembered], tuple[str, int, str]],
        limits: Limits,
        sources: Sources,
        lobby: Callable[[], LobbyState],
        parts: Callable[[], Awaitable[dict[str, bool]]],
        needed: frozenset[str],
        modes: tuple[Mode, ...],
        relay: bool,
        recording: Callable[[], bool],
        recordings: Recordings,
        files: Files | None,
        authorize: Callable[[str], Guest],
        meter: Meter,
        middlewares: Sequence[Middleware],
        metrics: Callable[[], bytes],
        workers_metrics: Callable[[], Awaitable[bytes]],
        metrics_token: str,
        alone: bool,
        minimum_age: int,
        contract_hash: str,
        openapi: dict[str, Any],
        web_dir: Path,
    ) -> None:
        self._seats = seats
        self._recall = recall
        self._issue = issue
        self._limits = limits
        self._sources = sources
        self._lobby = lobby
        self._parts = parts
        self._needed = needed
        self._modes = modes
        self._relay = relay
        self._recording = recording
        self._recordings = recordings
        self._files = files
        self._turns = asyncio.Semaphore(HANDED_OVER_AT_ONCE)
        self._arriving: dict[str, list[tuple[web.Request, asyncio.Event]]] = {}
        """The parts of each upload that are on their way to this worker."""
        self._authorize = authorize
        self._meter = meter
        self._middlewares = middlewares
        self._refused = {code: meter.tally("refusals", door="http", code=code) for code in ERRORS}
        self._served = meter.tally("file_bytes_served")
        self._declared = {route.path for route in ROUTES}
        self._metrics = metrics
        self._workers_metrics = workers_metrics
        self._metrics_token = metrics_token
        self._alone = alone
        self._minimum_age = minimum_age
        self._contract_hash = contract_hash
        self._openapi = _json.encode(openapi)
        self._web_dir = web_dir

    def application(self) -> web.Application:
        """The aiohttp application with every route bound and the files of the client."""
        app = web.Application(middlewares=[self._logged, *self._middlewares, _refusals], client_max_size=MOST_BODY)
        declared = {(route.method, route.path) for route in ROUTES}
        for route in ROUTES:
            handler = self._limited(route.name, getattr(self, route.name))
            app.router.add_route(route.method, route.path, handler)
            if route.method == "GET" and ("HEAD", route.path) not in declared:
                # RFC 9110: whatever can be had can be asked about, as players and monitors do.
                app.router.add_route("HEAD", route.path, handler)
        app.router.add_get("/", self._file("index.html", "no-cache"))
        if self._web_dir.is_dir():
            for path in self._web_dir.iterdir():
                if path.is_file() and path.suffix not in (".br", ".gz") and not path.name.startswith("."):
                    app.router.add_get(f"/{path.name}", self._file(path.name, "no-cache"))
            for path in (self._web_dir / "assets").glob("*"):
                if path.suffix not in (".br", ".gz"):
                    app.router.add_get(
                        f"/assets/{path.name}",
                        self._file(f"assets/{path.name}", "public, max-age=31536000, immutable"),
                    )
        app.on_response_prepare.append(_secure)
        return app

    def _limited(self, name: str, handler: Handler) -> Handler:
        """A route that counts against its limits before anything is done."""
        costs = dict.fromkeys(LIMITS_OF[name], 1)
        if not costs:
            return handler

        async def limited(request: web.Request) -> web.StreamResponse:
            source = self._sources.of(request)
            guest = self._guest_or_nobody(request)
            if "transfers" in costs:
                self._limits.spend("transfers", 1, guest, source)
            else:
                await self._limits.take(costs, guest, source)
            return await handler(request)

        return limited

    def _file(self, name: str, caching: str) -> Handler:
        path = self._web_dir / name

        async def serve(request: web.Request) -> web.StreamResponse:
            if not path.is_file():
                raise Refused("not_found", hint="the client is not built")
            return web.FileResponse(path, headers={"Cache-Control": caching})

        return serve

    @web.middleware
    async def _logged(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give a request its id, and say and count what became of it."""
        request_id = new_id()
        started = time.monotonic()
        status = 500
        # Each request has a context of its own, also where a proxy brings those of many through one connection.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = await handler(request)
            status = response.status
            if not response.prepared:
                response.headers["X-Request-Id"] = request_id
            return response
        finally:
            resource = request.match_info.route.resource
            route = resource.canonical if resource else "none"
            seconds = time.monotonic() - started
            refused = request.get("refused")
            self._count(route, status, refused, seconds)
            log.log(
                # The transport asks often and says little; files are many.
                logging.INFO if request.path.startswith("/api/") else logging.DEBUG,
                "request",
                extra={
                    "method": request.method,
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                    **({"code": refused} if refused else {}),
                },
            )

    def _count(self, route: str, status: int, refused: str | None, seconds: float) -> None:
        if route in self._declared:
            self._meter.observe("http_request", seconds, route=route)
        elif route != "/socket.io/":
            # The client's own files, and whatever else is asked for.
            route = "static" if status < 400 else "none"
        self._meter.count("http_requests", route=route, status=str(status))
        if refused is not None:
            self._refused[refused].n += 1

    # ------------------------------------------------------------------ routes

    async def get_info(self, request: web.Request) -> web.Response:
        return _reply(
            ServerInfo(
                lobby=self._lobby(),
                minimum_age=self._minimum_age,
                rules=RULES_VERSION,
                modes=self._modes,
                relay=self._relay,
                recording=self._recording(),
                files=self._files.limits if self._files else None,
                contract=self._contract_hash,
            )
        )

    async def create_guest(self, request: web.Request) -> web.Response:
        try:
            asked = _create_guest.decode(await request.read())
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused("bad_request", detail=str(error)[:200]) from None
        known = self._recall(asked.device) if asked.device else None
        check_entry(
            asked,
            known_adult=known is not None and known.adult,
            known_rules=known.rules if known else 0,
            minimum_age=self._minimum_age,
            today=datetime.datetime.now(datetime.UTC).date(),
        )
        if known is None:
            await self._limits.take({"guests": 1}, "", self._sources.of(request))
        remembered = Remembered(known.device if known else new_id(), True, RULES_VERSION)
        guest = Guest(self._seats.new_guest(), remembered.device, new_profile())
        await self._seats.create(guest)
        token, expires_at, device = self._issue(guest, remembered)
        return _reply(
            GuestCreated(token=token, expires_at=expires_at, device=device, profile=guest.profile), status=201
        )

    async def get_openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type="application/json")

    async def get_health(self, request: web.Request) -> web.Response:
        return _reply(Health(ok=True, parts={}))

    async def get_ready(self, request: web.Request) -> web.Response:
        parts = await self._parts()
        ok = all(well for part, well in parts.items() if part in self._needed)
        return _reply(Health(ok=ok, parts=parts), status=200 if ok else 503)

    async def list_recordings(self, request: web.Request) -> web.Response:
        return _reply(await self._recordings.list_for(self._guest(request).device))

    async def get_recording(self, request: web.Request) -> web.StreamResponse:
        path, made_at = await self._recordings.file_for(self._guest(request).device, request.match_info["id"])
        day = datetime.datetime.fromtimestamp(made_at / 1000, datetime.UTC).date().isoformat()
        return web.FileResponse(
            path,
            headers={
                "Cache-Control": "private, no-store",
                "Content-Disposition": f'attachment; filename="visavis-{day}.mp4"',
                "Content-Type": "video/mp4",
            },
        )

    async def delete_recording(self, request: web.Request) -> web.Response:
        await self._recordings.delete(self._guest(request).device, request.match_info["id"])
        return _reply(Done())

    # ------------------------------------------------------------------ files: the bytes come by tus 1.0.0

    async def begin_upload(self, request: web.Request) -> web.Response:
        guest = self._guest(request)
        if self._files is None:
            raise Refused("not_found")
        try:
            asked = _begin_upload.decode(await request.read())
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused("bad_request", detail=str(error)[:200]) from None
        if 0 < asked.bytes <= self._files.limits.bytes:
            await self._limits.take({"uploads": 1, "upload_bytes": asked.bytes}, guest.id, self._sources.of(request))
        return _reply(await self._files.begin(guest, asked), status=201)

    async def get_upload(self, request: web.Request) -> web.Response:
        guest = self._guest(request)
        return _reply(await self._sharing().state(guest, request.match_info["id"]))

    async def head_upload(self, request: web.Request) -> web.Response:
        guest, files, file = self._guest(request), self._sharing(), request.match_info["id"]
        offset, size = await files.progress(guest, file)
        if await self._end_earlier(file):
            offset, size = await files.progress(guest, file)
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(size), "Cache-Control": "no-store"}
        return web.Response(headers=headers)

    async def patch_upload(self, request: web.Request) -> web.Response:
        guest = self._guest(request)
        offset = request.headers.get("Upload-Offset", "")
        strange = "Content-Encoding" in request.headers or request.content_type != "application/offset+octet-stream"
        if strange or not _OFFSET.fullmatch(offset):
            raise Refused("bad_request")
        files, file = self._sharing(), request.match_info["id"]
        if request.content_length is not None:
            # Seen beforehand, so that it is not stored first.
            _, size = await files.progress(guest, file)
            if int(offset) + request.content_length > size:
                raise Refused("file_too_large", limit=size)
            if request.content_length > files.limits.chunk_bytes:
                raise Refused("too_large", limit=files.limits.chunk_bytes)
        if file in self._arriving:
            # Nobody sends the same twice at once; the later connection is the one that lives.
            await files.progress(guest, file)
            await self._end_earlier(file)
        arriving = self._arriving.setdefault(file, [])
        this = (request, ended := asyncio.Event())
        arriving.append(this)
        try:
            async with contextlib.aclosing(self._pieces(request)) as pieces:
                stands = await files.append(guest, file, int(offset), pieces)
        finally:
            ended.set()
            arriving[:] = [one for one in arriving if one is not this]
            if not arriving:
                self._arriving.pop(file, None)
        return web.Response(status=204, headers={"Upload-Offset": str(stands), "Cache-Control": "no-store"})

    async def _end_earlier(self, file: str) -> bool:
        """End connections that bring bytes of this upload, which may not have noticed that they were given up.

        Says whether there were any: what came of them counts.
        """
        arriving = self._arriving.get(file, [])[:]
        for earlier, ended in arriving:
            if earlier.transport is not None:
                earlier.transport.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), ENDING_SECONDS)
        return bool(arriving)

    async def let_go(self) -> None:
        """This worker stops: end the uploads under way. What came counts, and their senders are told how much."""
        for parts in self._arriving.values():
            for request, _ in parts:
                request.content.set_exception(ConnectionResetError())

    async def _pieces(self, request: web.Request) -> AsyncGenerator[bytes, None]:
        """A body as it comes, until its end, a broken connection or a long silence."""
        until = time.monotonic() + PATCH_SECONDS
        while True:
            try:
                async with asyncio.timeout(min(SILENCE_SECONDS, until - time.monotonic())):
                    first = await request.content.read(1)
            except (OSError, ClientError, http_exceptions.HttpProcessingError, web.RequestPayloadError):
                return
            if not first:
                return
            # Who has something to hand over gets a turn; who waits for the network holds neither a turn nor a byte.
            async with self._turns:
                yield first + request.content.read_nowait(-1)

    async def delete_upload(self, request: web.Request) -> web.Response:
        guest = self._guest(request)
        await self._sharing().take_back(guest, request.match_info["id"])
        return web.Response(status=204)

    async def get_file(self, request: web.Request) -> web.StreamResponse:
        files = self._sharing()
        served = await files.find(request.match_info["pass"], request.match_info["variant"])
        # Where it comes from was counted before; only its address says for whom it is.
        self._limits.spend("transfers", 1, served.guest, NOWHERE)
        etag = f'"{served.tag}"'
        headers = {
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-store",
            # Whatever it is, as a page of its own it may do nothing.
            "Content-Security-Policy": "default-src 'none'; sandbox; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'",
            "Content-Disposition": _disposition(served.name) if served.attachment else "inline",
            "Content-Type": served.type,
            "ETag": etag,
        }
        start, end, status = 0, served.bytes, 200
        if request.headers.get("If-Range", etag) == etag and (
            asked := _RANGE.fullmatch(request.headers.get("Range", ""))
        ):
            start, end = _asked_for(asked, served.bytes)
            if start >= end:
                return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{served.bytes}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{served.bytes}"
            status = 206
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        async with contextlib.aclosing(files.read(served, start, end)) as pieces:
            await self._hand_out(request, response, pieces, end - start)
        return response

    async def _hand_out(
        self, request: web.Request, response: web.StreamResponse, pieces: AsyncIterator[bytes], left: int
    ) -> None:
        """Answer with `left` bytes. Raises Refused if there are none of them."""
        try:
            piece = await anext(pieces)
        except (KeyError, StopAsyncIteration):
            raise Refused("no_such_file") from None
        try:
            await response.prepare(request)
            async with asyncio.timeout(FETCH_SECONDS):
                await response.write(piece)
                left -= len(piece)
                self._served.n += len(piece)
                async for piece in pieces:
                    await response.write(piece)
                    left -= len(piece)
                    self._served.n += len(piece)
            if left:
                raise StorageUnavailable("a blob became shorter")
            await response.write_eof()
        except (OSError, StorageUnavailable):
            # What was promised cannot be given any more; only a broken connection says so.
            if request.transport is not None:
                request.transport.abort()

    def _sharing(self) -> Files:
        if self._files is None:
            raise Refused("no_such_file")
        return self._files

    def _guest(self, request: web.Request) -> Guest:
        """Who asks. Raises Refused."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused("token_invalid")
        return self._authorize(token.strip())

    async def get_metrics(self, request: web.Request) -> web.Response:
        if not self._may_measure(request):
            raise Refused("not_found")
        return web.Response(body=self._metrics(), headers={"Content-Type": METRICS_TYPE, "Cache-Control": "no-store"})

    async def get_worker_metrics(self, request: web.Request) -> web.Response:
        if not self._may_measure(request):
            raise Refused("not_found")
        text = await self._workers_metrics()
        return web.Response(body=text, headers={"Content-Type": METRICS_TYPE, "Cache-Control": "no-store"})

    def _guest_or_nobody(self, request: web.Request) -> str:
        """Whose limits a request counts against, beside its address's: nobody's, if it does not say well who asks."""
        try:
            return self._guest(request).id
        except Refused:
            return ""

    def _may_measure(self, request: web.Request) -> bool:
        if self._metrics_token:
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            return hmac.compare_digest(given, f"Bearer {self._metrics_token}".encode())
        # Behind a proxy on this machine everybody connects from it, whether or not it says for whom.
        proxied = any(name in request.headers for name in ("X-Forwarded-For", "Forwarded", "Via"))
        return self._alone and not proxied and request.remote in ("127.0.0.1", "::1")


def _reply(said: Wire, status: int = 200) -> web.Response:
    return web.Response(
        body=_json.encode(said),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _disposition(name: str) -> str:
    """To be saved under this name (RFC 6266): in plain letters for old clients, then exactly (RFC 8187)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9 ._()\[\]+=@~-]", "_", plain).strip(" .") or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _asked_for(asked: re.Match[str], size: int) -> tuple[int, int]:
    """The first byte of a range and the one after its last; none are left between them if it is beyond the end."""
    first, last, suffix = asked.groups()
    if suffix is not None:
        return (max(0, size - int(suffix)), size) if int(suffix) else (size, size)
    return int(first), size if last is None else min(size, int(last) + 1)


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)
    if request.path.startswith("/api/files/"):
        response.headers["Tus-Resumable"] = TUS_VERSION
    if request.secure or request.headers.get("X-Forwarded-Proto") == "https":
        response.headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    headers = {"Cache-Control": "no-store"}
    try:
        return await handler(request)
    except Refused as error:
        refused = error
    except StateFull:
        refused = Refused("busy", retryInMs=1000)
    except (StateUnavailable, StorageUnavailable):
        refused = Refused("unavailable", retryInMs=1000)
    except StorageFull:
        refused = Refused("storage_full")
    except web.HTTPNotFound:
        refused = Refused("not_found")
    except web.HTTPMethodNotAllowed as error:
        refused = Refused("method_not_allowed")
        headers["Allow"] = error.headers["Allow"]
    except web.HTTPRequestEntityTooLarge:
        refused = Refused("too_large", limit=MOST_BODY)
    except (web.HTTPException, asyncio.CancelledError):
        raise
    except Exception:
        error_id = new_id()
        log.exception("request_failed", extra={"error_id": error_id})
        refused = Refused("internal", errorId=error_id)
    request["refused"] = refused.code
    if refused.code == "offset_mismatch":
        headers["Upload-Offset"] = str(refused.data["offset"])
    if "retryInMs" in refused.data:
        headers["Retry-After"] = str(-(-int(refused.data["retryInMs"]) // 1000))
    return web.Response(
        body=_json.encode(refused.as_error()),
        status=refused.status,
        content_type="application/json",
        headers=headers,
    )
