"""The Socket.IO door: authenticates once at connect, then decodes, limits, dispatches and acknowledges.

The only file that knows python-socketio and python-engineio, and the only place where their weak spots
are answered: events are parsed here and never reach the library's own handlers (so reserved names cannot
run them), binary packets are refused, every request is acknowledged, requests of one client run in order,
and what a client does not read is bounded in bytes. Private names of the two libraries that this leans
on: AsyncServer._handle_eio_message, ._engineio_server_class, engineio's AsyncServer._async and
AsyncSocket.queue; the versions are pinned and the tests drive each.
"""

import asyncio
import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import engineio
import msgspec
import socketio
from aiohttp import web
from engineio.async_drivers import aiohttp as engineio_aiohttp
from engineio.packet import MESSAGE, Packet
from engineio.payload import Payload
from socketio.exceptions import ConnectionRefusedError as Refusal

from visavis.contract import EVENT_OF, REQUESTS, Connect, Refused, SessionMove, Wire
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import Guest, new_id
from visavis.core.ports import Record, StateUnavailable

log = logging.getLogger(__name__)

Handler = Callable[[Peer, Any], "Wire | Awaitable[Wire]"]

MOST_PACKETS = 64
"""Packets in one polling body; the official client never holds back that many."""
PATIENCE = 100
"""Refusals for haste, in a row, after which a client is cut."""

_EVENT = re.compile(r"2(\d{0,15})(\[.*)", re.DOTALL)
_BINARY = re.compile(r"[56]\d*-(?:/[^,]*,)?(\d{1,15})?")
_call = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_json = msgspec.json.Encoder()
_connect = msgspec.json.Decoder(Connect)
_decoders = {event: msgspec.json.Decoder(request.type) for event, request in REQUESTS.items()}
_names = {struct: msgspec.json.encode(event) for struct, event in EVENT_OF.items()}


def encode_push(push: Wire) -> bytes:
    """A push as the Socket.IO event that goes out: `2["name",{...}]`."""
    return b"2[%b,%b]" % (_names[type(push)], _json.encode(push))


class _Bucket:
    """Token bucket: `size` at once, `per_second` afterwards."""

    __slots__ = ("_level", "_size", "_per_second", "_at", "refused")

    def __init__(self, size: float, per_second: float) -> None:
        self._size = self._level = size
        self._per_second = per_second
        self._at = time.monotonic()
        self.refused = 0

    def take(self, cost: float) -> int:
        """Take tokens; 0 if there were enough, else ms until there are."""
        now = time.monotonic()
        self._level = min(self._size, self._level + (now - self._at) * self._per_second)
        self._at = now
        if self._level >= cost:
            self._level -= cost
            self.refused = 0
            return 0
        self.refused += 1
        return int((cost - self._level) / self._per_second * 1000) + 1


class _WeighedQueue(asyncio.Queue[Packet | None]):
    """What waits to be read by one client, with its weight in bytes."""

    weight = 0

    def _put(self, item: Packet | None) -> None:
        super()._put(item)
        self.weight += _weigh(item)

    def _get(self) -> Packet | None:
        item: Packet | None = super()._get()
        self.weight -= _weigh(item)
        return item


def _weigh(packet: Packet | None) -> int:
    return 64 + len(packet.data) if packet is not None and isinstance(packet.data, (str, bytes)) else 64


class _WebSocket(engineio_aiohttp.WebSocket):  # type: ignore[misc]  # untyped upstream
    """aiohttp's WebSocket without compression: messages are small, and each deflate context costs 100 kB."""

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        self._sock = web.WebSocketResponse(max_msg_size=self.server.max_http_buffer_size, compress=False)
        await self._sock.prepare(environ["aiohttp.request"])
        self.environ = environ
        await self.handler(self)
        return self._sock


class _Body:
    """A polling body that was read already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, size: int) -> bytes:
        return self._body[:size]


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # untyped upstream
    """Engine.IO with weighed queues, honest answers to large polling bodies, and one poll at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._async: dict[str, Any] = {
            **engineio_aiohttp._async,  # noqa: SLF001  # see the module's docstring
            "websocket": _WebSocket,
            "translate_request": _environ,
        }
        self._polling: set[str] = set()

    def create_queue(self, *args: Any, **kwargs: Any) -> _WeighedQueue:
        return _WeighedQueue()

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        sid = request.query.get("sid", "")
        if request.method == "POST":
            body = await _read(request, self.max_http_buffer_size)
            if body is None or body.count(b"\x1e") >= MOST_PACKETS:
                # The library would answer 200 to too many packets and deliver none.
                return web.json_response(Refused("too_large", limit=self.max_http_buffer_size).as_error(), status=413)
            request["polled"] = body
        elif request.query.get("transport") == "polling" and sid:
            if sid in self._polling:
                # Two polls on one session: one of them is not the client's.
                if sid in self.sockets:
                    await self.sockets[sid].close(wait=False, abort=True)
                return web.json_response(Refused("bad_request").as_error(), status=400)
            self._polling.add(sid)
            try:
                return await super().handle_request(request)  # type: ignore[no-any-return]
            finally:
                self._polling.discard(sid)
        return await super().handle_request(request)  # type: ignore[no-any-return]


async def _read(request: web.Request, most: int) -> bytes | None:
    if (request.content_length or 0) > most:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _environ(request: web.Request) -> dict[str, Any]:
    environ: dict[str, Any] = engineio_aiohttp.translate_request(request)
    if "polled" in request:
        environ["wsgi.input"] = _Body(request["polled"])
        environ["CONTENT_LENGTH"] = str(len(request["polled"]))
    return environ


class _Server(socketio.AsyncServer):  # type: ignore[misc]  # untyped upstream
    """Socket.IO whose events go to the gateway; connecting and disconnecting stay the library's."""

    gateway: "Gateway"

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        kind = data[:1] if isinstance(data, str) else "b"
        if kind == "2":
            await self.gateway.on_event(eio_sid, data)
        elif kind in {"0", "1"}:
            # A second CONNECT on a connection would be a second guest behind one socket.
            if (kind == "0") != self.gateway.knows(eio_sid):
                await super()._handle_eio_message(eio_sid, data)
        elif kind in "56b" and kind:
            self.gateway.on_binary(eio_sid, data)
        # Acknowledgements of pushes are not asked for; anything else has no meaning here.


class _Connection:
    """One client's connection: the Line of its peer."""

    __slots__ = ("socket", "transport", "bucket", "peer", "_most_bytes", "_cut")

    def __init__(self, socket: Any, transport: Any, bucket: _Bucket, most_bytes: int) -> None:
        self.socket = socket
        self.transport = transport
        self.bucket = bucket
        self.peer: Peer | None = None
        self._most_bytes = most_bytes
        self._cut = False

    def push(self, frame: bytes) -> None:
        self.send(frame.decode())

    def send(self, text: str) -> None:
        if self.socket.closed or self._cut:
            return
        self.socket.queue.put_nowait(Packet(MESSAGE, text))
        if self.socket.queue.weight > self._most_bytes:
            log.warning("slow_reader_cut")
            self.cut()

    def cut(self) -> None:
        """Break the connection off, whatever is unsent."""
        self._cut = True
        task = asyncio.get_running_loop().create_task(self.socket.close(wait=False, abort=True))
        _closing.add(task)
        task.add_done_callback(_closing.discard)
        # A writer stuck on a full socket is freed only by breaking the socket.
        if self.socket.upgraded and self.transport is not None:
            self.transport.abort()
        self.socket.queue.put_nowait(None)

    def close(self, last_words: Wire | None = None) -> None:
        if self.socket.closed or self._cut:
            return
        if last_words is not None:
            self.push(encode_push(last_words))
        # Socket.IO DISCONNECT: tells the client that it was meant, so it does not come back by itself.
        self.send("1")
        task = asyncio.get_running_loop().create_task(self.socket.close(wait=False))
        _closing.add(task)
        task.add_done_callback(_closing.discard)
        self.socket.queue.put_nowait(None)


_closing: set[asyncio.Task[None]] = set()


class Gateway:
    """Connections in, typed requests to their handlers, acknowledgements and pushes out."""

    def __init__(
        self,
        conversations: Conversations,
        routes: Mapping[type[Wire], Handler],
        authenticate: Callable[[Connect], tuple[Guest, Record | None]],
        contract_hash: str,
        *,
        origins: Collection[str],
        ping_interval: float,
        ping_timeout: float,
        max_frame_bytes: int,
        max_queue_bytes: int,
        max_connections: int,
        bucket_size: float,
        bucket_per_second: float,
    ) -> None:
        declared = {request.type for request in REQUESTS.values()}
        if set(routes) != declared:
            names = sorted(t.__name__ for t in set(routes) ^ declared)
            raise RuntimeError(f"routes and contract differ: {', '.join(names)}")
        self._conversations = conversations
        self._handlers = {event: routes[request.type] for event, request in REQUESTS.items()}
        self._authenticate = authenticate
        self._contract_hash = contract_hash
        self._max_frame_bytes = max_frame_bytes
        self._max_queue_bytes = max_queue_bytes
        self._max_connections = max_connections
        self._bucket_size = bucket_size
        self._bucket_per_second = bucket_per_second
        self._connections: dict[str, _Connection] = {}
        self.draining = False
        Payload.max_decode_packets = MOST_PACKETS
        self._server = _Server(
            async_mode="aiohttp",
            async_handlers=False,
            cors_allowed_origins=list(origins),
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_http_buffer_size=max_frame_bytes,
            http_compression=False,
            logger=False,
            engineio_logger=False,
            monitor_clients=True,
        )
        self._server.gateway = self
        self._server.on("connect", self._on_connect)
        self._server.on("disconnect", self._on_disconnect)

    def attach(self, app: web.Application) -> None:
        """Serve /socket.io/ in this application."""
        for method in ("GET", "POST", "OPTIONS"):
            app.router.add_route(method, "/socket.io/", self._server.eio.handle_request)

    # ------------------------------------------------------------------ connecting

    def knows(self, eio_sid: str) -> bool:
        """Whether this connection has been made, or is being made."""
        return eio_sid in self._connections

    async def _on_connect(self, sid: str, environ: dict[str, Any], auth: Any) -> None:
        eio_sid = self._server.manager.eio_sid_from_sid(sid, "/")
        try:
            guest, claim = self._admit(auth)
            socket = self._server.eio.sockets[eio_sid]
            request = environ["aiohttp.request"]
            connection = _Connection(
                socket,
                request.transport,
                _Bucket(self._bucket_size, self._bucket_per_second),
                self._max_queue_bytes,
            )
            self._connections[eio_sid] = connection
            try:
                peer = await self._conversations.connect(guest, connection, claim)
            except StateUnavailable:
                raise Refused("unavailable", retryInMs=_soon()) from None
            connection.peer = peer
            if socket.closed:
                # It hung up while Redis was asked.
                self._conversations.disconnect(peer)
                raise Refused("bad_request")
        except Refused as refused:
            self._connections.pop(eio_sid, None)
            raise Refusal(refused.code, {"code": refused.code, **refused.data}) from None
        # Said after the library's own CONNECT packet, which goes out when this handler returns.
        asyncio.get_running_loop().call_soon(self._conversations.welcome, peer)

    def _admit(self, auth: Any) -> tuple[Guest, Record | None]:
        if self.draining or len(self._connections) >= self._max_connections:
            raise Refused("busy", retryInMs=_soon())
        try:
            asked = _connect.decode(msgspec.json.encode(auth))
        except (msgspec.MsgspecError, RecursionError):
            raise Refused("token_invalid") from None
        if asked.contract != self._contract_hash:
            raise Refused("stale_client", contract=self._contract_hash)
        return self._authenticate(asked)

    def _on_disconnect(self, sid: str, reason: str) -> None:
        eio_sid = self._server.manager.eio_sid_from_sid(sid, "/")
        connection = self._connections.pop(eio_sid, None)
        if connection is not None and connection.peer is not None:
            self._conversations.disconnect(connection.peer)

    # ------------------------------------------------------------------ requests

    async def on_event(self, eio_sid: str, text: str) -> None:
        """One event packet: answer it, whatever it is."""
        connection = self._connections.get(eio_sid)
        if connection is None or connection.peer is None:
            return
        frame = _EVENT.fullmatch(text)
        if frame is None:
            return
        ack_id = frame[1]
        answer: dict[str, Any]
        try:
            answer = {"ok": await self._dispatch(connection, connection.peer, frame[2])}
        except Refused as refused:
            answer = refused.as_error()
        except StateUnavailable:
            answer = Refused("unavailable", retryInMs=_soon()).as_error()
        except Exception:
            error_id = new_id()
            log.exception("request_failed", extra={"error_id": error_id})
            answer = Refused("internal", errorId=error_id).as_error()
        if ack_id:
            connection.send(f"3{ack_id}[{_json.encode(answer).decode()}]")
        if connection.bucket.refused >= PATIENCE:
            log.warning("flooder_cut")
            connection.cut()

    async def _dispatch(self, connection: _Connection, peer: Peer, call: str) -> Wire:
        try:
            event, body = _call.decode(call)
        except (msgspec.MsgspecError, RecursionError):
            self._spend(connection, 1)
            raise Refused("bad_request") from None
        request = REQUESTS.get(event)
        if request is None:
            self._spend(connection, 1)
            raise Refused("unknown_event")
        self._spend(connection, request.cost)
        try:
            asked = _decoders[event].decode(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused("bad_request", detail=str(error)[:200]) from None
        done = self._handlers[event](peer, asked)
        return await done if inspect.isawaitable(done) else done

    def _spend(self, connection: _Connection, cost: float) -> None:
        if wait := connection.bucket.take(cost):
            raise Refused("rate_limited", retryInMs=wait)

    def on_binary(self, eio_sid: str, data: str | bytes) -> None:
        """A binary packet or attachment: refused before anything is put together."""
        connection = self._connections.get(eio_sid)
        if connection is None:
            return
        if isinstance(data, str) and (header := _BINARY.match(data)) and header[1]:
            connection.send(f"3{header[1]}[{_json.encode(Refused('binary_refused').as_error()).decode()}]")
        connection.bucket.take(1)
        if connection.bucket.refused >= PATIENCE:
            connection.cut()

    # ------------------------------------------------------------------ stopping

    async def drain(self, within: float) -> None:
        """Ask every client to connect again, spread over some time, and close what is left."""
        self.draining = True
        connections = list(self._connections.values())
        for connection in connections:
            connection.push(encode_push(SessionMove(in_ms=50 + secrets.randbelow(850))))
        deadline = time.monotonic() + within
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for connection in list(self._connections.values()):
            connection.close()
        await asyncio.gather(*_closing, return_exceptions=True)
        await self._server.shutdown()


def _soon() -> int:
    return 300 + secrets.randbelow(1200)
