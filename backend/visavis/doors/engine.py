"""Sessions carried the fast way: our own Engine.IO 4, with frames straight from the socket to the gateway and back.

Sources: the Engine.IO protocol, version 4, and RFC 6455. What makes it fast: nothing is queued or handed to a task on
the way. A WebSocket's transport is taken from aiohttp once it has been opened, and frames are read and written in the
event loop's own callbacks; what one turn of the loop says to a client is written in one piece, since writing costs as
much as all the rest; one timer looks after everybody's pings. Requests of one client run in order: while one waits for
something, the next wait in line, and when they become many, their socket is not read.

Compression is never agreed to: messages are small, each deflate context costs 100 kB, what is compressed together with
a secret can give it away (BREACH), and bodies are to become encrypted, which nothing compresses.

What this leans on in aiohttp beside its documentation, all of it in `_take_over`: a request's `protocol` (a public
name) lets go of everything when its `connection_lost` is called, closes only a `transport` that it still has, and
keeps what came behind an upgrade in `_message_tail`. `unusable` says at the start whether the installed one is known.
"""

import asyncio
import base64
import contextvars
import hashlib
import logging
import secrets
import struct
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from visavis.contract import Refused
from visavis.doors.carrying import (
    HEARD_SECONDS,
    INVALID_TEXT,
    MOST_PACKETS,
    NORMAL,
    PROBE_SECONDS,
    PROTOCOL_ERROR,
    SERVICE_RESTART,
    TOO_BIG,
    Asking,
    Host,
    Receiver,
    name_in_log,
    opens_websocket,
    read,
    turned_away,
)
from visavis.doors.front import Opening

log = logging.getLogger(__name__)

PROBED_POLL_SECONDS = 0.1
"""For how long a poll waits meanwhile."""
TICK = 0.002
"""Seconds between looks at whose ping is due, at least."""

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SEPARATOR = b"\x1e"
_PLAIN = "text/plain; charset=UTF-8"
# The head of a text frame of up to 125 bytes that carries an Engine.IO message: FIN and TEXT, its length, and the 4.
_HEADS = [bytes((0x81, size, 0x34)) for size in range(126)]
_longer = struct.Struct(">BBHB").pack
"""And that of a longer one, of less than 64 kB."""


def unusable() -> str:
    """Why this cannot be used with the aiohttp that is installed; nothing if it can."""
    if tuple(map(int, aiohttp.__version__.split(".")[:2])) < (3, 14):
        return f"aiohttp {aiohttp.__version__} is older than 3.14"
    if not hasattr(web.RequestHandler, "_message_tail"):
        return f"aiohttp {aiohttp.__version__} keeps what comes behind an upgrade elsewhere"
    return ""


class Session:
    """One client's session, whatever carries it: a `carrying.Session`."""

    __slots__ = (
        *("sid", "name", "closed", "line", "receiver", "posting", "_engine", "_out", "_weight", "_poll", "_probe"),
        *("_probed", "_waiting", "_waiting_bytes", "_idle", "_ponged", "_pings"),
    )

    def __init__(self, engine: "Engine") -> None:
        made = secrets.token_urlsafe(33)
        self.sid = made[:22]
        """Only its client knows it."""
        self.name = made[22:]
        self.closed = False
        self.line: _Line | None = None
        """Its WebSocket, if it is carried by one."""
        self.receiver: Receiver | None = None
        self.posting = False
        """A body of its client's is being read or answered."""
        self._engine = engine
        self._out: list[bytes] | None = None
        """Packets for the next poll; None if there are none."""
        self._weight = 0
        self._poll: _Poll | None = None
        self._probe: _Line | None = None
        """A WebSocket that its client has opened beside its polls."""
        self._probed = False
        """It is about to go over to that."""
        self._waiting: deque[bytes | None] | None = None
        """Messages that came while an earlier one was being answered; None while none is."""
        self._waiting_bytes = 0
        self._idle: asyncio.Event | None = None
        self._ponged = True
        self._pings = 0

    @property
    def websocket(self) -> bool:
        return self.line is not None

    # ------------------------------------------------------------------ what the gateway says

    def send(self, message: bytes) -> None:
        line = self.line
        if line is not None:
            line.message(message)
        elif not self.closed:
            self._say(b"4" + message)

    def close(self, *, told: bool) -> None:
        if self.closed:
            # Its client has gone, and what that said last is not to be heard either.
            self._end()
            return
        line, probe = self.line, self._probe
        # A client that polls and was told why gets no CLOSE: it would come with what was said last, and the official
        # client, which acts on a CLOSE at once and on messages a moment later, would never hear that.
        if line is not None or not told:
            self._say(b"1")
        if self._out:
            self._engine.keep_unheard(self)
        self._end()
        for one in (line, probe):
            if one is not None:
                one.close(SERVICE_RESTART if self._engine.draining else NORMAL)

    def abort(self) -> None:
        line, probe = self.line, self._probe
        self._end()
        for one in (line, probe):
            if one is not None:
                one.abort()

    def overflow(self) -> None:
        """Its client leaves too much unread."""
        if self.receiver is not None:
            self.receiver.behind()
        self.abort()

    # ------------------------------------------------------------------ what its client says

    def hear(self, packet: bytes) -> bool:
        """Act on an Engine.IO packet; False if it is none that a client may say."""
        kind = packet[:1]
        if kind == b"4":
            self.message(packet[1:])
        elif packet == b"3":
            if self._ponged:
                # Nobody asked; as with `_idle_talk`.
                self.message(None)
            self._ponged = True
        elif packet == b"1":
            line, probe = self.line, self._probe
            self._part()
            if line is not None:
                line.close(NORMAL)
            if probe is not None:
                probe.abort()
        else:
            return False
        return True

    def message(self, message: bytes | None) -> None:
        """Hand a message to the receiver, after those that are under way."""
        if self._waiting is not None:
            if self.closed:
                # Said after the goodbye.
                return
            self._waiting.append(message)
            self._waiting_bytes += len(message or b"") + 64
            if self._waiting_bytes > self._engine.max_frame_bytes and self.line is not None:
                self.line.hold()
        elif self.receiver is not None:
            under_way = self.receiver.packet(message)
            if under_way is not None:
                self._waiting = deque()
                self._engine.spawn(self._work(under_way), self.name)

    async def _work(self, under_way: Awaitable[None]) -> None:
        """Go on with what has to be waited for, and with what came meanwhile."""
        waiting = self._waiting
        assert waiting is not None
        try:
            await under_way
            while waiting and self.receiver is not None:
                message = waiting.popleft()
                self._waiting_bytes -= len(message or b"") + 64
                more = self.receiver.packet(message)
                if more is not None:
                    await more
        finally:
            self._waiting, self._waiting_bytes = None, 0
            if self.closed:
                self._end()
            if self._idle is not None:
                self._idle.set()
                self._idle = None
            if self.line is not None:
                self.line.go_on()

    async def settled(self) -> None:
        """Wait until all that came has been answered."""
        while self._waiting is not None:
            if self._idle is None:
                self._idle = asyncio.Event()
            await self._idle.wait()

    def ping(self) -> int:
        """Ask whether the client is there, unless it has yet to answer the last time; gives the question's number."""
        if self._ponged:
            self._ponged = False
            self._pings += 1
            self._say(b"2")
        return self._pings

    def owes(self, ping: int) -> bool:
        """Whether that question is unanswered."""
        return not self._ponged and self._pings == ping

    def _shut(self) -> None:
        """Nothing more is said, nor taken in."""
        if not self.closed:
            self.closed = True
            self._engine.forget(self)
            self.line, self._probe, self._probed = None, None, False
            self._wake()

    def _part(self) -> None:
        """Its client has gone: what that said before is heard to the end, as long as nobody closes or aborts it."""
        self._shut()
        if self._waiting is None:
            self._end()

    def _end(self) -> None:
        """It is over at once, whatever is still to be heard."""
        self._shut()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.gone()

    def lost(self, line: "_Line") -> None:
        """A WebSocket of its is gone."""
        if line is self.line:
            self._part()
        elif line is self._probe:
            # Tried out in vain: it goes on polling.
            self._probe, self._probed = None, False

    # ------------------------------------------------------------------ polling

    def _say(self, packet: bytes) -> None:
        if self.line is not None:
            self.line.text(packet)
            return
        if self._out is None:
            self._out = []
        self._out.append(packet)
        self._weight += len(packet) + 64
        self._wake()
        if self._weight > self._engine.max_queue_bytes:
            self.overflow()

    def _wake(self) -> None:
        if self._poll is not None:
            self._poll.wake()

    async def poll(self, request: web.Request) -> bytes:
        """What there is to say, as soon as there is something. Raises Refused."""
        if self._poll is not None and self._poll.heard:
            # Two polls on one session: one of them is not the client's. The one that waits is told.
            self.close(told=False)
            raise Refused("bad_request")
        waited = not self._out and not self.closed and self.line is None
        if waited:
            poll = _Poll(request)
            self._wake()
            self._poll = poll
            await poll.wait(PROBED_POLL_SECONDS if self._probed else None)
            if self._poll is poll:
                self._poll = None
            if not poll.heard:
                # Nobody is there to be told: what there is to say is for the next one.
                raise Refused("bad_request")
        out, self._out, self._weight = self._out, None, 0
        self._engine.unheard_of.pop(self.sid, None)
        if out:
            return _SEPARATOR.join(out)
        if waited or self.line is not None or self._probed:
            # Engine.IO NOOP: lets the client end its polling.
            return b"6"
        raise Refused("bad_request")

    # ------------------------------------------------------------------ changing to a WebSocket

    def offer(self, line: "_Line") -> None:
        """Its client has opened a WebSocket, in place of one it may have opened before."""
        earlier, self._probe, self._probed = self._probe, line, False
        if earlier is not None:
            earlier.abort()

    def probe(self, line: "_Line") -> bool:
        """Its client tries that out; no client does so twice. A poll that waits is let go."""
        if line is not self._probe or self._probed:
            return False
        self._probed = True
        line.text(b"3probe")
        self._wake()
        return True

    def upgrade(self, line: "_Line") -> bool:
        """Its client has gone over to the WebSocket it tried out."""
        if self.closed or line is not self._probe or not self._probed:
            return False
        self.line, self._probe, self._probed = line, None, False
        out, self._out, self._weight = self._out, None, 0
        for packet in out or ():
            line.text(packet)
        self._wake()
        return True


class _Poll:
    """A poll that waits for something to be said."""

    __slots__ = ("_request", "_woken")

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._woken = asyncio.get_running_loop().create_future()

    @property
    def heard(self) -> bool:
        """Whether somebody is still there to have the answer."""
        return self._request.transport is not None

    def wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self.wake) if seconds is not None else None
        await self._woken
        if timer is not None:
            timer.cancel()


class _Line(asyncio.Protocol):
    """A WebSocket, from its opening on: reads frames, checks them, and writes text."""

    __slots__ = (
        *("_session", "_transport", "_engine", "_unwritten", "_rest", "_parts", "_binary"),
        *("_closing", "_held", "_timer", "_carries"),
    )

    def __init__(self, session: Session, transport: asyncio.Transport, engine: "Engine", *, carries: bool) -> None:
        self._session: Session | None = session
        self._transport: asyncio.Transport | None = transport
        """None once nothing more is to be read or written."""
        self._engine = engine
        self._unwritten: list[bytes] = []
        """Frames said in this turn of the loop."""
        self._rest = b""
        """The beginning of a frame whose end has not come."""
        self._parts: bytearray | None = None
        """Of a message that comes in fragments."""
        self._binary = False
        """Of what kind that is."""
        self._closing = False
        """We have said that it is over, and wait for the other side to say so."""
        self._held = False
        self._timer: asyncio.TimerHandle | None = None
        self._carries = carries
        """It carries the session; else it is only tried out."""
        engine.lines.add(self)
        # More than that, and `pause_writing` is called.
        transport.set_write_buffer_limits(high=engine.max_queue_bytes)
        if not carries:
            self._timer = asyncio.get_running_loop().call_later(PROBE_SECONDS, self.abort)

    # ------------------------------------------------------------------ writing

    def message(self, message: bytes) -> None:
        """An Engine.IO message in a text frame."""
        size = len(message) + 1
        if size < 126:
            self.raw(_HEADS[size] + message)
        elif size < 65_536:
            self.raw(_longer(0x81, 126, size, 0x34) + message)
        else:
            self.text(b"4" + message)

    def text(self, text: bytes) -> None:
        """Any text frame."""
        self.raw(_head(_TEXT, len(text)) + text)

    def raw(self, frame: bytes) -> None:
        """Bytes as they go out."""
        if self._closing or self._transport is None:
            return
        unwritten = self._unwritten
        if not unwritten:
            self._engine.write_soon(self)
        unwritten.append(frame)

    def flush(self) -> None:
        """Write what was said in this turn."""
        unwritten = self._unwritten
        if unwritten and self._transport is not None:
            self._transport.write(unwritten[0] if len(unwritten) == 1 else b"".join(unwritten))
        unwritten.clear()

    def pause_writing(self) -> None:
        """The client does not read."""
        if self._session is not None and self._carries:
            self._session.overflow()
        else:
            self.abort()

    def close(self, code: int) -> None:
        """Say that it is over, and hang up once that has been heard, or after a moment."""
        if self._transport is None or self._closing:
            return
        self.raw(_head(_CLOSE, 2) + code.to_bytes(2, "big"))
        self._closing = True
        self.go_on()
        self._abort_in(HEARD_SECONDS)

    def abort(self) -> None:
        """Break it off."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _fail(self, code: int) -> None:
        """Say why, and hang up once the other side has, or after a moment: what it says until then is for nobody.

        To hang up at once would be to reset the connection if anything more came, and that takes away the reason.
        """
        self.raw(_head(_CLOSE, 2) + code.to_bytes(2, "big"))
        self.flush()
        self.go_on()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.write_eof()
            self._abort_in(HEARD_SECONDS, transport)
        self._leave()

    def _abort_in(self, seconds: float, transport: asyncio.Transport | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        end = self.abort if transport is None else transport.abort
        self._timer = asyncio.get_running_loop().call_later(seconds, end)

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.lost(self)

    # ------------------------------------------------------------------ reading

    def hold(self) -> None:
        """Read no more until `go_on`: the client is ahead of its answers."""
        if not self._held and self._transport is not None:
            self._held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        if self._held and self._transport is not None:
            self._held = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        while size - at >= 2 and self._transport is not None:
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            start = at + 6
            if length > 125:
                wide = 2 if length == 126 else 8
                start += wide
                if size - at < 2 + wide:
                    break
                length = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
            if first & 0x70 or not second & 0x80:
                # Reserved bits, of extensions nobody agreed to; or a client's frame that is not masked.
                return self._fail(PROTOCOL_ERROR)
            if length >= self._engine.max_frame_bytes or (first & 0x08 and length > 125):
                # Before any of it is kept.
                return self._fail(PROTOCOL_ERROR if first & 0x08 else TOO_BIG)
            end = start + length
            if end > size:
                break
            at = end
            # Four bytes of mask, over and over, as one long number.
            mask = data[start - 4 : start] * ((length + 3) >> 2)
            masked = int.from_bytes(data[start:end], "little")
            payload = (masked ^ int.from_bytes(mask[:length], "little")).to_bytes(length, "little")
            if first == 0x81 and self._parts is None:
                self._take(payload)
            else:
                self._other(first, payload)
        self._rest = data[at:] if at < size and self._transport is not None else b""
        return None

    def _take(self, text: bytes) -> None:
        """A whole text message."""
        session = self._session
        if not text.isascii() and not _is_text(text):
            self._fail(INVALID_TEXT)
        elif session is None:
            # It is closing, and waits for the other side's CLOSE.
            pass
        elif self._carries:
            if not session.hear(text):
                self._fail(PROTOCOL_ERROR)
        elif self._closing:
            # The session has another; this one was never to carry it.
            pass
        elif text == b"2probe" and session.probe(self):
            pass
        elif text == b"5" and session.upgrade(self):
            self._carries = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        else:
            self._fail(PROTOCOL_ERROR)

    def _other(self, first: int, payload: bytes) -> None:
        """A control frame, a fragment, or what is binary."""
        final, kind = first & 0x80, first & 0x0F
        if kind >= _CLOSE:
            if not final:
                return self._fail(PROTOCOL_ERROR)
            return self._control(kind, payload)
        if kind > _BINARY or (kind == 0) != (self._parts is not None):
            return self._fail(PROTOCOL_ERROR)
        if self._parts is None:
            self._parts, self._binary = bytearray(), kind == _BINARY
        self._parts += payload
        if len(self._parts) >= self._engine.max_frame_bytes:
            return self._fail(TOO_BIG)
        if not final:
            if not payload:
                self._idle_talk()
            return None
        whole, self._parts = bytes(self._parts), None
        if not self._binary:
            self._take(whole)
        elif not self._carries:
            self._fail(PROTOCOL_ERROR)
        elif self._session is not None:
            self._session.message(None)
        return None

    def _control(self, kind: int, payload: bytes) -> None:
        if kind == _PING:
            self.raw(_head(_PONG, len(payload)) + payload)
            self._idle_talk()
        elif kind == _PONG:
            self._idle_talk()
        elif kind == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else NORMAL
            if len(payload) == 1 or not _may_be_said(code):
                self._fail(PROTOCOL_ERROR)
            elif not _is_text(payload[2:]):
                self._fail(INVALID_TEXT)
            else:
                self._fail(code)
        else:
            self._fail(PROTOCOL_ERROR)

    def _idle_talk(self) -> None:
        """What no browser says counts as a message without meaning, so that nobody says it often."""
        if self._session is not None:
            self._session.message(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._engine.lines.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._leave()


def _head(kind: int, size: int) -> bytes:
    """The head of a whole frame (RFC 6455, 5.2)."""
    if size < 126:
        return bytes((0x80 | kind, size))
    if size < 65_536:
        return bytes((0x80 | kind, 126, size >> 8, size & 0xFF))
    return bytes((0x80 | kind, 127)) + size.to_bytes(8, "big")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_be_said(code: int) -> bool:
    """Whether a client may give this code (RFC 6455, 7.4)."""
    return (1000 <= code < 1015 and code not in {1004, 1005, 1006}) or 3000 <= code < 5000


class Engine:
    """A `Carrier`: opens sessions, looks after their pings, and hands what they carry to their receivers."""

    def __init__(
        self,
        *,
        origins: tuple[str, ...],
        ping_interval: float,
        ping_timeout: float,
        max_frame_bytes: int,
        max_queue_bytes: int,
    ) -> None:
        """Times are in seconds; `max_frame_bytes` bounds what a client says at once, `max_queue_bytes` what it leaves
        unread.
        """
        self._origins = origins
        self._interval = ping_interval
        self._timeout = ping_timeout
        self.max_frame_bytes = max_frame_bytes
        self.max_queue_bytes = max_queue_bytes
        self._host: Host | None = None
        self._sessions: dict[str, Session] = {}
        self.unheard_of: dict[str, Session] = {}
        """Closed ones whose clients have yet to fetch the news, by polling."""
        self.lines: set[_Line] = set()
        """Every WebSocket, also one that is only tried out."""
        self.draining = False
        self._unwritten: list[_Line] = []
        self._due: deque[tuple[float, str]] = deque()
        """When to ping which session; in order, since all wait equally long."""
        self._late: deque[tuple[float, str, int]] = deque()
        """When to look for the answer to which ping."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, app: web.Application, host: Host) -> None:
        self._host = host
        app.router.add_route("*", "/socket.io/", self._handle)

    @property
    def unheard(self) -> bool:
        return bool(self.lines or self.unheard_of)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Have something done for the connection of that name in the log."""
        context = contextvars.copy_context()
        context.run(name_in_log, name)
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def write_soon(self, line: _Line) -> None:
        """Have a line flushed at the end of this turn of the loop."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(line)

    def _write(self) -> None:
        lines, self._unwritten = self._unwritten, []
        for line in lines:
            try:
                line.flush()
            except Exception:
                # One that fails must not keep the others from being written.
                log.exception("not_written")
                line.abort()

    def forget(self, session: Session) -> None:
        """It has ended."""
        self._sessions.pop(session.sid, None)

    def keep_unheard(self, session: Session) -> None:
        """Its client may still fetch what was said last."""
        self.unheard_of[session.sid] = session
        asyncio.get_running_loop().call_later(HEARD_SECONDS, self.unheard_of.pop, session.sid, None)

    # ------------------------------------------------------------------ requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Any request to /socket.io/. Raises Refused."""
        query = request.query
        transport, sid = query.get("transport"), query.get("sid", "")
        session = self._sessions.get(sid) or self.unheard_of.get(sid)
        if refused := turned_away(request, origins=self._origins, known=session is not None, draining=self.draining):
            raise refused
        if request.method == "OPTIONS":
            return _allowed(request, web.Response())
        if not sid:
            return self._begin(request, websocket=transport == "websocket")
        if session is None or (session.websocket and transport == "polling"):
            raise Refused("bad_request")
        name_in_log(session.name)
        if session.closed and (transport == "websocket" or request.method == "POST"):
            raise Refused("bad_request")
        if transport == "websocket":
            if not _may_upgrade(request):
                raise Refused("bad_request")
            line = self._take_over(request, session, carries=False)
            if session.websocket:
                # It has one already. Opened all the same: a browser learns nothing of a refusal.
                line.close(PROTOCOL_ERROR)
            else:
                session.offer(line)
            return _Switched()
        if request.method == "POST":
            return await self._hear(request, session)
        return _allowed(request, _text(await session.poll(request)))

    def serve(self, transport: asyncio.Transport, opening: Opening) -> bool:
        """Begin a session on a connection of its own that asks for that; False if there is any reason not to."""
        assert self._host is not None, "attached"
        if (
            turned_away(opening, origins=self._origins, known=False, draining=self.draining)
            or self._host.crowded(opening)
            or not opens_websocket(opening)
        ):
            return False
        session, hello = self._open(opening, upgrades=b"")
        session.line = self._upgrade(transport, session, opening, carries=True)
        session.line.text(hello)
        return True

    def _begin(self, request: web.Request, *, websocket: bool) -> web.StreamResponse:
        assert self._host is not None, "attached"
        if request.method != "GET":
            raise Refused("bad_request")
        if refused := self._host.crowded(request):
            raise refused
        if websocket and not _may_upgrade(request):
            raise Refused("bad_request")
        session, hello = self._open(request, upgrades=b"" if websocket else b'"websocket"')
        name_in_log(session.name)
        if not websocket:
            return _allowed(request, _text(hello))
        session.line = self._take_over(request, session, carries=True)
        session.line.text(hello)
        return _Switched()

    def _open(self, request: Asking, *, upgrades: bytes) -> tuple[Session, bytes]:
        """A new session, and Engine.IO's first packet on it."""
        assert self._host is not None, "attached"
        session = Session(self)
        hello = b'0{"sid":"%b","upgrades":[%b],"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}' % (
            session.sid.encode(),
            upgrades,
            round(self._interval * 1000),
            round(self._timeout * 1000),
            self.max_frame_bytes,
        )
        self._sessions[session.sid] = session
        session.receiver = self._host.opened(session, request)
        self._due.append((time.monotonic() + self._interval, session.sid))
        if self._timer is None:
            self._tick()
        return session, hello

    async def _hear(self, request: web.Request, session: Session) -> web.StreamResponse:
        if session.posting:
            # Two bodies at once: nobody could tell which comes first.
            session.abort()
            raise Refused("bad_request")
        session.posting = True
        try:
            return await self._hear_body(request, session)
        finally:
            session.posting = False

    async def _hear_body(self, request: web.Request, session: Session) -> web.StreamResponse:
        body = await read(request, self.max_frame_bytes)
        if body is None or body.count(_SEPARATOR) >= MOST_PACKETS:
            raise Refused("too_large", limit=self.max_frame_bytes)
        packets = body.split(_SEPARATOR)
        if not _is_text(body) or not all(_may_be_polled(packet) for packet in packets):
            session.abort()
            raise Refused("bad_request")
        for packet in packets:
            if packet.startswith(b"b"):
                session.message(None)
            else:
                session.hear(packet)
        await session.settled()
        return _allowed(request, _text(b"ok"))

    def _take_over(self, request: web.Request, session: Session, *, carries: bool) -> _Line:
        """Take a transport from aiohttp, and open a WebSocket on it."""
        protocol, transport = request.protocol, request.transport
        assert transport is not None, "looked at by _may_upgrade"
        line = self._upgrade(transport, session, request, carries=carries)
        # For aiohttp the connection is gone; it lets go of all that belonged to it, but does not close it.
        protocol.transport = None
        protocol.connection_lost(None)
        return line

    def _upgrade(self, transport: asyncio.Transport, session: Session, request: Asking, *, carries: bool) -> _Line:
        """Open a WebSocket (RFC 6455, 4.2.2)."""
        key = request.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        line = _Line(session, transport, self, carries=carries)
        transport.set_protocol(line)
        # Not aiohttp's own way, which would leave its parts behind for as long as this stays; and with what comes next.
        line.raw(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        return line

    # ------------------------------------------------------------------ pings

    def _tick(self) -> None:
        """Ping whose turn it is, end those who have not answered in time, and look again when there is a reason."""
        now = time.monotonic()
        try:
            self._ping(now)
        finally:
            self._timer = None
            if self._due or self._late:
                next_one = min(first[0][0] for first in (self._due, self._late) if first)
                self._timer = asyncio.get_running_loop().call_later(max(TICK, next_one - now), self._tick)

    def _ping(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            _, sid, ping = self._late.popleft()
            session = self._sessions.get(sid)
            if session is not None and session.owes(ping):
                session.abort()
        while self._due and self._due[0][0] <= now:
            _, sid = self._due.popleft()
            session = self._sessions.get(sid)
            if session is not None:
                self._late.append((now + self._timeout, sid, session.ping()))
                self._due.append((now + self._interval, sid))

    # ------------------------------------------------------------------ stopping

    async def stop(self) -> None:
        for session in list(self._sessions.values()):
            session.abort()
        for line in list(self.lines):
            line.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._tasks:
            await asyncio.wait(self._tasks)


class _Switched(web.StreamResponse):
    """For aiohttp, which would answer: everything has been said."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to say."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to end."""


def _may_upgrade(request: web.Request) -> bool:
    """Whether a request opens a WebSocket on a transport that can be taken."""
    return (
        opens_websocket(request)
        and request.transport is not None
        and not request.transport.is_closing()
        # Whoever speaks before the door is open is no WebSocket client.
        and not request.protocol._message_tail  # noqa: SLF001  # see the module's docstring
    )


def _allowed(request: web.Request, response: web.Response) -> web.Response:
    """For a page of another origin that may connect."""
    origin = request.headers.get("Origin")
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Vary"] = "Origin"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "OPTIONS, GET, POST"
            response.headers["Access-Control-Allow-Headers"] = request.headers.get(
                "Access-Control-Request-Headers", "Content-Type"
            )
    return response


def _text(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": _PLAIN, "Cache-Control": "no-store"})


def _may_be_polled(packet: bytes) -> bool:
    return packet in {b"1", b"3"} or packet[:1] in {b"4", b"b"}
