"""Sessions carried by python-engineio: the plain way, for when the fast one cannot be used or is not wanted.

The only file of the service that knows python-engineio, and the only place where its weak spots are answered: packets
it cannot read end the session instead of leaving it half open, a polling body is honestly refused or read whole, what
a client does not read is bounded in bytes, and who was closed while not polling still hears why. Private names of the
library that this leans on: AsyncServer._async, ._make_response, ._ok, that its websockets are run by a method of their
AsyncSocket, AsyncSocket.queue and .check_ping_timeout; the version is pinned and the tests drive each.
"""

import asyncio
import logging
import re
from typing import Any

import engineio
from aiohttp import web
from engineio.async_drivers import aiohttp as engineio_aiohttp
from engineio.packet import CLOSE, MESSAGE, NOOP, Packet
from engineio.payload import Payload

from visavis.contract import Refused
from visavis.core import tasks
from visavis.core.identity import new_id
from visavis.doors.carrying import (
    HEARD_SECONDS,
    MOST_PACKETS,
    NORMAL,
    PROBE_SECONDS,
    PROTOCOL_ERROR,
    SERVICE_RESTART,
    Host,
    Receiver,
    name_in_log,
    opens_websocket,
    read,
    turned_away,
)

log = logging.getLogger(__name__)

_PACKET = re.compile(r"4|[13]\Z")
"""What a client may send over either transport: MESSAGE, CLOSE and PONG."""
_UPGRADING = {"2probe", "5"}
_POLLED = web.RequestKey("polled", bytes)


class _WeighedQueue(asyncio.Queue[Packet | None]):
    """What waits to be read by one client, with its weight in bytes."""

    weight = 0
    messages = 0
    words = 0
    """Packets; what is none marks the end."""

    def _put(self, item: Packet | None) -> None:
        super()._put(item)
        self.weight += _weigh(item)
        self.words += item is not None
        self.messages += item is not None and item.packet_type == MESSAGE

    def _get(self) -> Packet | None:
        item: Packet | None = super()._get()
        self.weight -= _weigh(item)
        self.words -= item is not None
        self.messages -= item is not None and item.packet_type == MESSAGE
        return item


def _weigh(packet: Packet | None) -> int:
    return 64 + len(packet.data) if packet is not None and isinstance(packet.data, (str, bytes)) else 64


class _WebSocket(engineio_aiohttp.WebSocket):  # type: ignore[misc]  # untyped upstream
    """aiohttp's WebSocket without compression, for the reasons in `engine`."""

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
        # Whoever goes on trying it out holds a socket for nothing.
        timer = asyncio.get_running_loop().call_later(PROBE_SECONDS, self._give_up, socket, request.transport)
        try:
            await self.handler(self)
        finally:
            timer.cancel()
            self.server.websockets.discard(self)
            if not socket.upgraded:
                # A probe that broke off; the library would answer polls with nothing for ever.
                socket.upgrading = False
        return self._sock

    @staticmethod
    def _give_up(socket: Any, transport: asyncio.Transport | None) -> None:
        if not socket.upgraded and transport is not None:
            transport.abort()

    async def send(self, message: str | bytes) -> None:
        # The library says NOOP, which ends a poll, over the websocket too.
        if message != "6":
            await super().send(message)

    async def close(self) -> None:
        await self._sock.close(code=SERVICE_RESTART if self.server.draining else NORMAL)

    async def wait(self) -> str | bytes:
        data: str | bytes = await super().wait()
        upgrading = not self.handler.__self__.upgraded and data in _UPGRADING
        if isinstance(data, str) and not _PACKET.match(data) and not upgrading:
            # The library fails over it and leaves the client half connected; this ends the connection.
            raise OSError("not a packet")
        return data


class _Body:
    """A polling body that was read already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, size: int) -> bytes:
        return self._body[:size]


class _Session:
    """One of python-engineio's, as the gateway sees it."""

    __slots__ = ("name", "receiver", "_socket", "_engine", "_done", "_broken")

    def __init__(self, socket: Any, engine: "_Engine") -> None:
        self.name = new_id()
        self.receiver: Receiver | None = None
        self._socket = socket
        self._engine = engine
        self._done = False
        """Nothing more is said."""
        self._broken = False

    @property
    def closed(self) -> bool:
        return bool(self._socket.closed)

    @property
    def websocket(self) -> bool:
        return bool(self._socket.upgraded)

    def send(self, message: bytes) -> None:
        if self._socket.closed or self._done:
            return
        self._socket.queue.put_nowait(Packet(MESSAGE, message.decode()))
        if self._socket.queue.weight > self._engine.max_queue_bytes:
            if self.receiver is not None:
                self.receiver.behind()
            self.abort()

    def close(self, *, told: bool) -> None:
        if self._socket.closed or self._done:
            return
        self._done = True
        # A client that polls and was told why gets no CLOSE: it would come with what was said last, and the official
        # client, which acts on a CLOSE at once and on messages a moment later, would never hear that.
        if not told or self._socket.upgraded:
            # Before the library puts in the mark of the end, after which nobody reads.
            self._socket.queue.put_nowait(Packet(CLOSE))
        self._engine.start_background_task(self._socket.close, wait=False, abort=True)

    def abort(self) -> None:
        if self._broken:
            return
        self._done = self._broken = True
        self._engine.start_background_task(self._socket.close, wait=False, abort=True)
        # A writer stuck on a full socket is freed only by breaking the socket.
        transport = getattr(self._socket, "transport", None)
        if transport is not None:
            transport.abort()

    def ended(self) -> None:
        """Lets the writer end, and a poll that waits return: the library would have it wait for a ping."""
        self._socket.queue.put_nowait(None)


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # untyped upstream
    """python-engineio with weighed queues, honest answers to large polling bodies, and one poll at a time."""

    def __init__(self, max_queue_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self._async: dict[str, Any] = {
            **engineio_aiohttp._async,  # noqa: SLF001  # see the module's docstring
            "websocket": _WebSocket,
            "translate_request": _environ,
        }
        self.max_queue_bytes = max_queue_bytes
        self._polling: set[str] = set()
        self._posting: set[str] = set()
        self.websockets: set[_WebSocket] = set()
        """Also of those who are still trying one out."""
        self.draining = False
        self.host: Host | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._sessions: dict[str, _Session] = {}
        self.on("connect", self._on_connect)
        self.on("message", self._on_message)
        self.on("disconnect", self._on_disconnect)

    def start_background_task(self, target: Any, *args: Any, **kwargs: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = super().start_background_task(target, *args, **kwargs)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def shutdown(self) -> None:
        await super().shutdown()
        # Pings that sleep: not every event loop is rid of them at its end without a complaint.
        await tasks.end(self._background)

    def _ok(self, packets: Any = None, headers: Any = None, jsonp_index: Any = None) -> Any:
        answer = super()._ok(packets, headers, jsonp_index)
        # The library confirms by "OK", the protocol by "ok".
        return answer if packets is not None else {**answer, "response": b"ok"}

    def create_queue(self, *args: Any, **kwargs: Any) -> _WeighedQueue:
        return _WeighedQueue()

    @property
    def unheard(self) -> bool:
        return bool(self.websockets) or any(
            socket.closed and not socket.upgraded and socket.queue.words for socket in self.sockets.values()
        )

    # ------------------------------------------------------------------ what becomes of sessions

    async def _on_connect(self, sid: str, environ: dict[str, Any]) -> None:
        assert self.host is not None, "attached"
        self._sessions[sid] = session = _Session(self.sockets[sid], self)
        name_in_log(session.name)
        session.receiver = self.host.opened(session, environ["aiohttp.request"])

    async def _on_message(self, sid: str, data: object) -> None:
        session = self._sessions.get(sid)
        if session is not None and session.receiver is not None:
            # What happens to be JSON the library decodes unasked; of Socket.IO's packets, none is.
            message = data.encode() if isinstance(data, str) else None if isinstance(data, bytes) else b""
            work = session.receiver.packet(message)
            if work is not None:
                await work

    async def _on_disconnect(self, sid: str, reason: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is not None and session.receiver is not None:
            receiver, session.receiver = session.receiver, None
            receiver.gone()
            session.ended()

    # ------------------------------------------------------------------ requests

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        sid = request.query.get("sid", "")
        known = sid in self.sockets
        refused = turned_away(request, origins=tuple(self.cors_allowed_origins), known=known, draining=self.draining)
        if refused is None and not sid and self.host is not None:
            refused = self.host.crowded(request)
        websocket = request.query.get("transport") == "websocket"
        if refused is None and websocket and not opens_websocket(request):
            # The library would open a session all the same.
            refused = Refused("bad_request")
        if refused is not None:
            raise refused
        if session := self._sessions.get(sid):
            name_in_log(session.name)
        socket = self.sockets.get(sid)
        if socket is not None and websocket and (socket.upgrading or socket.upgraded):
            return await _turn_down(request)
        if socket is not None and socket.closed:
            # The library fails over a closed one, and would keep from its client why it was closed.
            del self.sockets[sid]
        else:
            socket = None
        if request.method == "POST":
            return await self._hear(sid, request)
        if request.query.get("transport") == "polling" and sid:
            return await self._poll(sid, socket, request)
        return await super().handle_request(request)  # type: ignore[no-any-return]

    async def _hear(self, sid: str, request: web.Request) -> web.StreamResponse:
        body = await read(request, self.max_http_buffer_size)
        # The library would answer 200 to too many packets, or to one it cannot read, and deliver none.
        if body is None or body.count(b"\x1e") >= MOST_PACKETS:
            raise Refused("too_large", limit=self.max_http_buffer_size)
        readable = _readable(body)
        if readable is None or sid in self._posting:
            # What cannot be read; or two bodies at once, of which nobody could tell which comes first.
            await self._end(sid)
            raise Refused("bad_request")
        request[_POLLED] = readable
        self._posting.add(sid)
        try:
            return await super().handle_request(request)  # type: ignore[no-any-return]
        finally:
            self._posting.discard(sid)

    async def _poll(self, sid: str, closed: Any, request: web.Request) -> web.StreamResponse:
        if sid in self._polling:
            # Two polls on one session: one of them is not the client's. The one that waits is told.
            await self._end(sid, Packet(CLOSE))
            raise Refused("bad_request")
        if closed is not None:
            return await self._last_words(closed, request)
        if (socket := self.sockets.get(sid)) is not None and not await socket.check_ping_timeout():
            # The library looks for those only now and then.
            raise Refused("bad_request")
        self._polling.add(sid)
        try:
            answer: web.Response = await super().handle_request(request)
        finally:
            self._polling.discard(sid)
        return answer if answer.body else await self._say(Packet(NOOP), request=request)

    async def _last_words(self, socket: Any, request: web.Request) -> web.StreamResponse:
        """What a closed connection still has to say to a client that was not polling when it closed."""
        if not socket.queue.messages or socket.upgraded:
            raise Refused("bad_request")
        return await self._say(*await socket.poll(), request=request)

    async def _say(self, *packets: Packet, request: web.Request) -> web.StreamResponse:
        return await self._make_response(self._ok(list(packets)), _environ(request))  # type: ignore[no-any-return]

    async def _end(self, sid: str, last_words: Packet | None = None) -> None:
        socket = self.sockets.get(sid)
        if socket is not None and not socket.upgraded:
            if last_words is not None:
                socket.queue.put_nowait(last_words)
            await socket.close(wait=False, abort=True)
            del self.sockets[sid]


class Stock:
    """A `Carrier`, by python-engineio."""

    def __init__(
        self,
        *,
        origins: tuple[str, ...],
        ping_interval: float,
        ping_timeout: float,
        max_frame_bytes: int,
        max_queue_bytes: int,
    ) -> None:
        Payload.max_decode_packets = MOST_PACKETS
        self._engine = _Engine(
            max_queue_bytes,
            async_mode="aiohttp",
            async_handlers=False,
            cors_allowed_origins=list(origins),
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_http_buffer_size=max_frame_bytes,
            http_compression=False,
            logger=False,
            monitor_clients=True,
        )

    @property
    def draining(self) -> bool:
        return self._engine.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._engine.draining = draining

    @property
    def unheard(self) -> bool:
        return self._engine.unheard

    def attach(self, app: web.Application, host: Host) -> None:
        self._engine.host = host
        app.router.add_route("*", "/socket.io/", self._engine.handle_request)

    async def stop(self) -> None:
        await asyncio.gather(*(websocket.close() for websocket in self._engine.websockets))
        await self._engine.shutdown()


async def _turn_down(request: web.Request) -> web.StreamResponse:
    """Close a second websocket of a session. Opened all the same: a browser learns nothing of a refusal."""
    second = web.WebSocketResponse(compress=False, timeout=HEARD_SECONDS)
    await second.prepare(request)
    await second.close(code=PROTOCOL_ERROR)
    return second


def _readable(body: bytes) -> bytes | None:
    """The body if it consists of packets, without what is in binary ones, since those are refused anyway."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        return None
    if not all(packet.startswith("b") or _PACKET.match(packet) for packet in packets):
        return None
    return "\x1e".join("b" if packet.startswith("b") else packet for packet in packets).encode()


def _environ(request: web.Request) -> dict[str, Any]:
    environ: dict[str, Any] = engineio_aiohttp.translate_request(request)
    if _POLLED in request:
        environ["wsgi.input"] = _Body(request[_POLLED])
        environ["CONTENT_LENGTH"] = str(len(request[_POLLED]))
    return environ
