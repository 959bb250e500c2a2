"""The Socket.IO door: authenticates once at connect, then decodes, limits, dispatches and acknowledges.

The only file that knows python-socketio and python-engineio, and the only place where their weak spots
are answered: packets are parsed here and events never reach the library's own handlers (so reserved names
cannot run them), what is no packet ends the connection, binary packets are refused, every packet is
counted and every request acknowledged, requests of one client run in order, and what a client does not
read is bounded in bytes. Private names of the two libraries that this leans on: AsyncServer._handle_connect,
._handle_disconnect, ._handle_eio_*, ._engineio_server_class, engineio's AsyncServer._async, that its
websockets are run by a method of their AsyncSocket, and AsyncSocket.queue; the versions are pinned and the
tests drive each.
"""

import asyncio
import contextlib
import inspect
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from typing import Any

import engineio
import msgspec
import socketio
import structlog
from aiohttp import WSCloseCode, web
from engineio.async_drivers import aiohttp as engineio_aiohttp
from engineio.packet import CLOSE, MESSAGE, Packet
from engineio.payload import Payload
from socketio.exceptions import ConnectionRefusedError as Refusal

from visavis.contract import ERRORS, EVENT_OF, REQUESTS, Connect, Refused, SessionMove, Wire
from visavis.core import tasks
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import Guest, new_id
from visavis.core.limits import COME_BACK_MS, TAKEN_BY, Bucket, Limits, Source
from visavis.core.ports import Meter, Record, StateFull, StateUnavailable
from visavis.core.tally import Tally
from visavis.doors.sources import Sources

log = logging.getLogger(__name__)

Handler = Callable[[Peer, Any], "Wire | Awaitable[Wire]"]

MOST_PACKETS = 64
"""Packets in one polling body; the official client never holds back that many."""
PATIENCE = 100
"""Refusals for haste after which a client is cut; each request in time makes up for one."""
MOVED_PER_SECOND = 4000
"""Clients a stopping worker asks to connect elsewhere, at most."""
MOVING_SECONDS = (0.5, 2.0)
"""For how long at least and at most it asks them to begin."""
ARRIVING_SECONDS = 1.0
"""How long those who began last may take to get there."""
HEARD_SECONDS = 1.0
"""For how long a closed connection may still hear of it."""
SERVICE_RESTART = 1012
"""WebSocket close code (IANA's registry): whoever gets it does well to connect again."""

_PACKET = re.compile(r"4[0-6]|[13]\Z")
"""What a client may send over either transport: Socket.IO packets, CLOSE and PONG."""
_UPGRADING = {"2probe", "5"}
_EVENT = re.compile(r"2([0-9]{0,15})(\[.*)", re.DOTALL)
_BINARY = re.compile(r"[56][0-9]*-(?:/[^,]*,)?([0-9]{1,15})?")
_call = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_json = msgspec.json.Encoder()
_connect = msgspec.json.Decoder(Connect)
_decoders = {event: msgspec.json.Decoder(request.type) for event, request in REQUESTS.items()}
_names = {struct: msgspec.json.encode(event) for struct, event in EVENT_OF.items()}


def encode_push(push: Wire) -> bytes:
    """A push as the Socket.IO event that goes out: `2["name",{...}]`."""
    return b"2[%b,%b]" % (_names[type(push)], _json.encode(push))


class _WeighedQueue(asyncio.Queue[Packet | None]):
    """What waits to be read by one client, with its weight in bytes."""

    weight = 0
    words = 0
    """Packets; what is none marks the end."""

    def _put(self, item: Packet | None) -> None:
        super()._put(item)
        self.weight += _weigh(item)
        self.words += item is not None

    def _get(self) -> Packet | None:
        item: Packet | None = super()._get()
        self.weight -= _weigh(item)
        self.words -= item is not None
        return item


def _weigh(packet: Packet | None) -> int:
    return 64 + len(packet.data) if packet is not None and isinstance(packet.data, (str, bytes)) else 64


class _WebSocket(engineio_aiohttp.WebSocket):  # type: ignore[misc]  # untyped upstream
    """aiohttp's WebSocket without compression: messages are small, and each deflate context costs 100 kB."""

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        request = environ["aiohttp.request"]
        socket = self.handler.__self__
        self._sock = web.WebSocketResponse(
            max_msg_size=self.server.max_http_buffer_size, compress=False, timeout=HEARD_SECONDS
        )
        await self._sock.prepare(request)
        self.environ = environ
        # What to break when this client is cut: after an upgrade, not the transport it first came by.
        socket.transport = request.transport
        self.server.websockets.add(self)
        try:
            await self.handler(self)
        finally:
            self.server.websockets.discard(self)
            if not socket.upgraded:
                # A probe that broke off; the library would answer polls with nothing for ever.
                socket.upgrading = False
        return self._sock

    async def close(self) -> None:
        await self._sock.close(code=SERVICE_RESTART if self.server.draining else WSCloseCode.OK)

    async def wait(self) -> str | bytes:
        data: str | bytes = await super().wait()
        if isinstance(data, str) and not _PACKET.match(data) and data not in _UPGRADING:
            # The library fails over it and leaves the client half connected; this ends the connection.
            raise OSError("not a packet")
        return data


class _Body:
    """A polling body that was read already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, size: int) -> bytes:
        return self._body[:size]


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # untyped upstream
    """Engine.IO with weighed queues, honest answers to large polling bodies, and one poll at a time."""

    gateway: "Gateway"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._async: dict[str, Any] = {
            **engineio_aiohttp._async,  # noqa: SLF001  # see the module's docstring
            "websocket": _WebSocket,
            "translate_request": _environ,
        }
        self._polling: set[str] = set()
        self.websockets: set[_WebSocket] = set()
        """Also of those who are still trying one out."""
        self.draining = False
        self._background: set[asyncio.Task[None]] = set()

    def start_background_task(self, target: Any, *args: Any, **kwargs: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = super().start_background_task(target, *args, **kwargs)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def shutdown(self) -> None:
        await super().shutdown()
        # Pings that sleep: not every event loop is rid of them at its end without a complaint.
        await tasks.end(self._background)

    def create_queue(self, *args: Any, **kwargs: Any) -> _WeighedQueue:
        return _WeighedQueue()

    @property
    def unheard(self) -> bool:
        """Whether a client whose connection was closed has yet to hear of it."""
        return bool(self.websockets) or any(
            socket.closed and not socket.upgraded and socket.queue.words for socket in self.sockets.values()
        )

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        sid = request.query.get("sid", "")
        if (refused := self._turned_away(sid, request)) is not None:
            raise refused
        socket = self.sockets.get(sid)
        _name_in_log(socket)
        if socket is not None and socket.closed:
            # The library fails over a closed one, and would keep from its client why it was closed.
            del self.sockets[sid]
        else:
            socket = None
        if request.method == "POST":
            body = await _read(request, self.max_http_buffer_size)
            # The library would answer 200 to too many packets, or to one it cannot read, and deliver none.
            if body is None or body.count(b"\x1e") >= MOST_PACKETS:
                raise Refused("too_large", limit=self.max_http_buffer_size)
            request["polled"] = _readable(body)
            if request["polled"] is None:
                await self._end(sid)
                raise Refused("bad_request")
        elif request.query.get("transport") == "polling" and sid:
            if sid in self._polling:
                # Two polls on one session: one of them is not the client's.
                await self._end(sid)
                raise Refused("bad_request")
            if socket is not None:
                return await self._last_words(socket, request)
            self._polling.add(sid)
            try:
                return await super().handle_request(request)  # type: ignore[no-any-return]
            finally:
                self._polling.discard(sid)
        return await super().handle_request(request)  # type: ignore[no-any-return]

    def _turned_away(self, sid: str, request: web.Request) -> Refused | None:
        if request.headers.get("Origin", self.cors_allowed_origins[0]) not in self.cors_allowed_origins:
            return Refused("origin_refused")
        if "j" in request.query:
            # JSONP is for browsers of long ago, and would let foreign pages read polls.
            return Refused("bad_request")
        if sid and sid not in self.sockets and "X-Elsewhere" in request.headers:
            # nginx asks on: the session may have begun at another worker, while this one was away (nginx.conf).
            return Refused("not_found")
        if sid not in self.sockets and self.draining:
            # Not known here, and not going to be: a proxy asks the next worker, where it may well be.
            return Refused("busy", retryInMs=_soon())
        if not sid:
            return self.gateway.crowded(request)
        return None

    async def _last_words(self, socket: Any, request: web.Request) -> web.StreamResponse:
        """What a closed connection still has to say to a client that was not polling when it closed."""
        if socket.queue.empty() or socket.upgraded:
            raise Refused("bad_request")
        return await self._make_response(self._ok(await socket.poll()), _environ(request))  # type: ignore[no-any-return]

    async def _end(self, sid: str) -> None:
        socket = self.sockets.get(sid)
        if socket is not None and not socket.upgraded:
            await socket.close(wait=False, abort=True)
            del self.sockets[sid]


def _readable(body: bytes) -> bytes | None:
    """The body if it consists of packets, without what is in binary ones, since those are refused anyway."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        return None
    if not all(packet.startswith("b") or _PACKET.match(packet) for packet in packets):
        return None
    return "\x1e".join("b" if packet.startswith("b") else packet for packet in packets).encode()


def _name_in_log(socket: Any) -> None:
    """Whatever is logged from here on, in this context and those begun in it, names the connection.

    A websocket is read in the context in which it was opened, so a packet costs nothing.
    """
    name = getattr(socket, "connection_id", None)
    if name is not None:
        structlog.contextvars.bind_contextvars(connection_id=name)


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
    """Socket.IO whose packets go to the gateway; joining and leaving a namespace stay the library's."""

    gateway: "Gateway"

    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        self.gateway.on_open(eio_sid, environ["aiohttp.request"])

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        await self.gateway.on_packet(eio_sid, data)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        await super()._handle_eio_disconnect(eio_sid, reason)
        self.gateway.on_gone(eio_sid)

    async def join(self, eio_sid: str, packet: str) -> None:
        """Act on a CONNECT packet; what it presents is left for the gateway to read."""
        namespace, presented = "/", packet[1:]
        if presented.startswith("/"):
            namespace, _, presented = presented.partition(",")
        await self._handle_connect(eio_sid, namespace, presented)

    async def part(self, eio_sid: str) -> None:
        """Act on a DISCONNECT packet."""
        await self._handle_disconnect(eio_sid, "/")


class _Connection:
    """One client's connection, from its first byte: the Line of its peer, once it said who it is."""

    __slots__ = (
        *("socket", "bucket", "peer", "introduced", "told_to_move", "_patience", "_timer", "_most_bytes", "_cut"),
        *("source", "entered", "_spawn", "_slow", "_answering", "_closing", "_closed"),
    )

    def __init__(
        self,
        socket: Any,
        source: Source,
        bucket: Bucket,
        most_bytes: int,
        patience: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        slow: Tally,
    ) -> None:
        self.socket = socket
        self.source = source
        self.entered = False
        """It counts among its address's connections."""
        self.bucket = bucket
        self.peer: Peer | None = None
        self.introduced = False
        """From the packet on that says who it is."""
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._most_bytes = most_bytes
        self._cut = False
        self._spawn = spawn
        self._slow = slow
        self.told_to_move = False
        self._answering = 0
        """Requests under way; by polling, there can be more than one."""
        self._closing: Callable[[], None] | None = None
        """What is still to be said at the end, once the request under way is answered."""
        self._closed = False

    def await_introduction(self) -> None:
        """Hang up if the client does not say in time who it is; pings alone are no reason to stay."""
        self.peer = None
        self.introduced = False
        self.settle()
        self._timer = asyncio.get_running_loop().call_later(self._patience, self.close)

    def settle(self) -> None:
        """Stop waiting for an introduction."""
        if self._timer is not None:
            self._timer.cancel()

    def push(self, frame: bytes) -> None:
        self.send(frame.decode())

    def send(self, text: str) -> None:
        if self.socket.closed or self._cut:
            return
        self.socket.queue.put_nowait(Packet(MESSAGE, text))
        if self.socket.queue.weight > self._most_bytes:
            log.warning("slow_reader_cut")
            self._slow.n += 1
            self.cut()

    def acknowledge(self, ack_id: str, answer: dict[str, Any]) -> None:
        self.send(f"3{ack_id}[{_json.encode(answer).decode()}]")

    def cut(self) -> None:
        """Break the connection off, whatever is unsent."""
        if self._cut:
            return
        self._cut = True
        self._spawn(self.socket.close(wait=False, abort=True))
        # A writer stuck on a full socket is freed only by breaking the socket.
        transport = getattr(self.socket, "transport", None)
        if transport is not None:
            transport.abort()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is under way: its answer is said before the connection closes."""
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            if self._closing is not None:
                self._close(self._closing)

    def close(self, last_words: Wire | None = None) -> None:
        if last_words is not None:
            self.push(encode_push(last_words))
        self._close(self._dismiss)

    def leave(self) -> None:
        """Close because the worker stops: for any client that is a lost connection, after which it comes back."""
        self._close(self._go)

    def _close(self, say: Callable[[], None]) -> None:
        if self._answering:
            self._closing = self._closing or say
        elif not (self._closed or self.socket.closed or self._cut):
            self._closed = True
            say()
            self._spawn(self.socket.close(wait=False, abort=True))

    def _dismiss(self) -> None:
        # Socket.IO DISCONNECT: tells the client that it was meant, so it does not come back by itself.
        self.send("1")
        if self.socket.upgraded:
            # Not to one who polls: it would come with what was said last, and the official client, which acts on a
            # CLOSE at once and on messages a moment later, would never hear that.
            self._go()

    def _go(self) -> None:
        # Before the library puts in the mark of the end, after which nobody reads.
        self.socket.queue.put_nowait(Packet(CLOSE))


class Gateway:
    """Connections in, typed requests to their handlers, acknowledgements and pushes out."""

    def __init__(
        self,
        conversations: Conversations,
        routes: Mapping[type[Wire], Handler],
        authenticate: Callable[[Connect], tuple[Guest, Record | None]],
        contract_hash: str,
        limits: Limits,
        sources: Sources,
        *,
        origins: Collection[str],
        ping_interval: float,
        ping_timeout: float,
        max_frame_bytes: int,
        max_queue_bytes: int,
        max_connections: int,
        max_strangers: int,
        strangers_per_address: int,
        bucket_size: float,
        bucket_per_second: float,
        meter: Meter,
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
        self._limits = limits
        self._sources = sources
        self._max_connections = max_connections
        self._max_strangers = max_strangers
        self._strangers_per_address = strangers_per_address
        self._strangers: dict[str, int] = {}
        """Connections that have not said yet who they are, by the address they come from."""
        self._patience = ping_interval + ping_timeout
        self._bucket_size = bucket_size
        self._bucket_per_second = bucket_per_second
        self._opened = meter.tally("connections_opened")
        self._slow = meter.tally("connections_cut", reason="slow_reader")
        self._flooders = meter.tally("connections_cut", reason="flood")
        self._asked = {event: meter.tally("requests", event=event) for event in REQUESTS}
        self._refused = {code: meter.tally("refusals", door="socket", code=code) for code in ERRORS}
        self._connections: dict[str, _Connection] = {}
        self._closing = tasks.Errands()
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
        self._server.gateway = self._server.eio.gateway = self
        self._server.on("connect", self._on_connect)
        self._server.on("disconnect", self._on_disconnect)

    @property
    def connections(self) -> int:
        """Transports that are open."""
        return len(self._connections)

    def transports(self) -> dict[str, float]:
        """Open connections by how they came, or have been upgraded to."""
        websockets = sum(connection.socket.upgraded for connection in self._connections.values())
        return {"websocket": websockets, "polling": len(self._connections) - websockets}

    def attach(self, app: web.Application) -> None:
        """Serve /socket.io/ in this application."""
        for method in ("GET", "POST", "OPTIONS"):
            app.router.add_route(method, "/socket.io/", self._server.eio.handle_request)
        app.on_response_prepare.append(self._let_go)

    async def _let_go(self, request: web.Request, response: web.StreamResponse) -> None:
        """While draining, no connection is kept for another request: that one has to go elsewhere."""
        if self.draining and response.status != 101:
            response.force_close()
            response.headers["Connection"] = "close"

    # ------------------------------------------------------------------ connecting

    def crowded(self, request: web.Request) -> Refused | None:
        """Why nobody more is let in of whom it is not known who they are.

        A page cannot read why a websocket was refused. Whoever comes in time to say who they are gets to know it in
        words; this holds off those who never do.
        """
        if self._strangers.get(self._sources.of(request).address, 0) >= self._strangers_per_address:
            return Refused("address_full", retryInMs=COME_BACK_MS)
        if sum(self._strangers.values()) >= self._max_strangers:
            return Refused("busy", retryInMs=COME_BACK_MS)
        return None

    def _count_stranger(self, connection: _Connection, more: int) -> None:
        address = connection.source.address
        if left := self._strangers.pop(address, 0) + more:
            self._strangers[address] = left

    def _leave(self, connection: _Connection) -> None:
        """It counts no longer among its address's connections."""
        if connection.entered:
            connection.entered = False
            self._limits.leave(connection.source)

    def on_open(self, eio_sid: str, request: web.Request) -> None:
        """A transport was opened, by nobody knows whom."""
        self._opened.n += 1
        # A name of its own for the log: the library's is what its client shows to be let on.
        socket = self._server.eio.sockets[eio_sid]
        socket.connection_id = new_id()
        _name_in_log(socket)
        self._connections[eio_sid] = connection = _Connection(
            socket,
            self._sources.of(request),
            Bucket(self._bucket_size, self._bucket_per_second),
            self._max_queue_bytes,
            self._patience,
            self._closing.send,
            self._slow,
        )
        self._count_stranger(connection, 1)
        connection.await_introduction()

    def on_gone(self, eio_sid: str) -> None:
        """A transport was closed."""
        connection = self._connections.pop(eio_sid, None)
        if connection is not None:
            connection.settle()
            self._leave(connection)
            if connection.peer is None:
                self._count_stranger(connection, -1)
            # Lets the writer end, and a poll that waits return: the library would have it wait for a ping.
            connection.socket.queue.put_nowait(None)

    async def _on_connect(self, sid: str, environ: dict[str, Any], presented: str | None) -> None:
        connection = self._connections[self._server.manager.eio_sid_from_sid(sid, "/")]
        connection.introduced = True
        try:
            guest, claim = self._admit(connection, presented)
            try:
                await self._limits.enter(guest.id, connection.source)
                connection.entered = True
                peer = await self._conversations.connect(guest, connection, claim)
            except StateUnavailable as error:
                raise _away(error) from None
            if connection.socket.closed:
                # It hung up while Redis was asked.
                self._conversations.disconnect(peer)
                raise Refused("bad_request")
        except Refused as refused:
            connection.introduced = False
            self._leave(connection)
            self._refused[refused.code].n += 1
            raise Refusal(refused.code, {"code": refused.code, **refused.data}) from None
        connection.peer = peer
        connection.settle()
        self._count_stranger(connection, -1)
        # Said after the library's own CONNECT packet, which goes out when this handler returns.
        asyncio.get_running_loop().call_soon(self._conversations.welcome, peer)

    def _admit(self, connection: _Connection, presented: str | None) -> tuple[Guest, Record | None]:
        if self.draining or len(self._connections) > self._max_connections:
            raise Refused("busy", retryInMs=_soon())
        try:
            asked = _connect.decode(presented or "")
        except (msgspec.MsgspecError, RecursionError):
            self._limits.spend("handshakes", 1, "", connection.source)
            raise Refused("token_invalid") from None
        if asked.contract != self._contract_hash:
            raise Refused("stale_client", contract=self._contract_hash)
        try:
            return self._authenticate(asked)
        except Refused:
            # Who gets in is counted when entering.
            self._limits.spend("handshakes", 1, "", connection.source)
            raise

    def _on_disconnect(self, sid: str, reason: str) -> None:
        connection = self._connections[self._server.manager.eio_sid_from_sid(sid, "/")]
        if connection.peer is not None:
            self._conversations.disconnect(connection.peer)
            self._count_stranger(connection, 1)
        self._leave(connection)
        connection.await_introduction()

    # ------------------------------------------------------------------ requests

    async def on_packet(self, eio_sid: str, data: str | bytes | list[Any]) -> None:
        """One Socket.IO packet; whatever it is, it counts."""
        connection = self._connections.get(eio_sid)
        if connection is None:
            return
        kind = data[:1] if isinstance(data, str) else "b"
        event = _EVENT.fullmatch(data) if isinstance(data, str) and connection.peer is not None else None
        if event is not None:
            await self._answer(connection, event[1], event[2])
        else:
            connection.bucket.take(1)
            if kind == "0" and isinstance(data, str) and not connection.introduced:
                # A second CONNECT would be a second guest behind one socket.
                await self._server.join(eio_sid, data)
            elif data in ("1", "1/,"):
                await self._server.part(eio_sid)
            elif isinstance(data, str) and (header := _BINARY.match(data)) and header[1]:
                # Refused before anything is put together; its attachments go unread.
                connection.acknowledge(header[1], Refused("binary_refused").as_error())
                self._refused["binary_refused"].n += 1
            # Acknowledgements of pushes are not asked for; anything else has no meaning here.
        if connection.bucket.refused >= PATIENCE:
            log.warning("flooder_cut")
            self._flooders.n += 1
            connection.cut()

    async def _answer(self, connection: _Connection, ack_id: str, call: str) -> None:
        assert connection.peer is not None
        answer: dict[str, Any]
        with connection.answering():
            try:
                answer = {"ok": await self._dispatch(connection, connection.peer, call)}
            except Refused as refused:
                answer = refused.as_error()
            except StateUnavailable as error:
                answer = _away(error).as_error()
            except Exception:
                error_id = new_id()
                log.exception("request_failed", extra={"error_id": error_id})
                answer = Refused("internal", errorId=error_id).as_error()
            if "error" in answer:
                self._refused[answer["error"]["code"]].n += 1
            if ack_id:
                connection.acknowledge(ack_id, answer)

    async def _dispatch(self, connection: _Connection, peer: Peer, call: str) -> Wire:
        try:
            event, body = _call.decode(call)
        except (msgspec.MsgspecError, RecursionError):
            self._spend(connection, peer, 1)
            raise Refused("bad_request") from None
        request = REQUESTS.get(event)
        if request is None:
            self._spend(connection, peer, 1)
            raise Refused("unknown_event")
        self._asked[event].n += 1
        self._spend(connection, peer, request.cost)
        try:
            asked = _decoders[event].decode(body)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused("bad_request", detail=str(error)[:200]) from None
        if limit := TAKEN_BY.get(request.type):
            await self._limits.take({limit: 1}, peer.guest.id, connection.source)
        done = self._handlers[event](peer, asked)
        return await done if inspect.isawaitable(done) else done

    def _spend(self, connection: _Connection, peer: Peer, cost: float) -> None:
        """First by what one connection may, then by what everybody counts together."""
        if wait := connection.bucket.take(cost):
            raise Refused("rate_limited", retryInMs=wait)
        self._limits.spend("requests", cost, peer.guest.id, connection.source)

    # ------------------------------------------------------------------ stopping

    async def drain(self, *, elsewhere: bool) -> int:
        """Let every client go: first those who move by themselves, if there is an `elsewhere`, then the rest.

        Takes five seconds at most; says how many did not move. Nobody's socket just breaks, no request that came goes
        unanswered, and from the beginning on whoever is new is sent elsewhere.
        """
        self.draining = self._server.eio.draining = True
        if elsewhere:
            least, most = MOVING_SECONDS
            moving = min(most, max(least, len(self._connections) / MOVED_PER_SECOND))
            until = time.monotonic() + moving + ARRIVING_SECONDS
            while self._connections and time.monotonic() < until:
                self._ask_to_move(moving)
                await asyncio.sleep(0.05)
        left = list(self._connections.values())
        for connection in left:
            connection.leave()
        until = time.monotonic() + HEARD_SECONDS
        while (self._connections or self._server.eio.unheard) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._closing.settle()
        await asyncio.gather(*(websocket.close() for websocket in self._server.eio.websockets))
        await self._server.shutdown()
        return len(left)

    def _ask_to_move(self, moving: float) -> None:
        """Ask those who have not been asked yet, each to begin at a moment of its own."""
        for connection in list(self._connections.values()):
            if connection.peer is not None and not connection.told_to_move:
                connection.told_to_move = True
                connection.push(encode_push(SessionMove(in_ms=secrets.randbelow(round(moving * 1000)))))
            elif not connection.introduced:
                connection.leave()


def _away(error: StateUnavailable) -> Refused:
    return Refused("busy" if isinstance(error, StateFull) else "unavailable", retryInMs=_soon())


def _soon() -> int:
    return 300 + secrets.randbelow(1200)
