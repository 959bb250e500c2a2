"""WebSocket frames by hand, and what a server has to make of them, read the slow and plain way.

Source: RFC 6455. Shares no code with either of the carriers, so that both can be held against it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG = 1000, 1002, 1007, 1009
MASK = b"\x37\xfa\x21\x3d"


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    declared: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame, right or wrong.

    `declared` is the length it claims, `width` how many bytes that takes after the second (0, 2, 8; else the fewest).
    """
    length = len(payload) if declared is None else declared
    if width is None:
        width = 0 if length < 126 else 2 if length < 1 << 16 else 8
    first = final << 7 | reserved << 4 | kind
    second = (mask is not None) << 7 | {0: length, 2: 126, 8: 127}[width]
    head = bytes((first, second)) + (length.to_bytes(width, "big") if width else b"")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close(code: int | None, reason: bytes = b"") -> bytes:
    """A client's CLOSE frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


@dataclass
class Outcome:
    """What becomes of a connection after some bytes of its client's."""

    messages: list[str | bytes] = field(default_factory=list)
    """Those that were complete and right, in order."""
    pongs: list[bytes] = field(default_factory=list)
    idle: int = field(default=0, compare=False)
    """Frames that say nothing: pings, pongs, and fragments of nothing that end nothing."""
    code: int | None = None
    """What the server closes with; none while the connection goes on."""


def understood(stream: bytes, most: int) -> Outcome:
    """What a server has to make of a client's frames, if a message has to be smaller than `most` bytes."""
    outcome = Outcome()
    kind, parts = None, b""
    while True:
        if len(stream) < 2:
            return outcome
        final, reserved, opcode = stream[0] >> 7, stream[0] >> 4 & 7, stream[0] & 15
        masked, length = stream[1] >> 7, stream[1] & 127
        width = {126: 2, 127: 8}.get(length, 0)
        head = 2 + width + 4 * masked
        control = opcode in (CLOSE, PING, PONG)
        known = control or opcode in (CONTINUATION, TEXT, BINARY)
        if reserved or not known or not masked or (control and (not final or length > 125)):
            return _failed(outcome, PROTOCOL_ERROR)
        if (opcode == CONTINUATION) != (kind is not None) and not control:
            return _failed(outcome, PROTOCOL_ERROR)
        if len(stream) < head:
            return outcome
        if width:
            length = int.from_bytes(stream[2 : 2 + width], "big")
        if not control and len(parts) + length >= most:
            return _failed(outcome, TOO_BIG)
        if len(stream) < head + length:
            return outcome
        mask = stream[head - 4 : head]
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(stream[head : head + length]))
        stream = stream[head + length :]
        outcome.idle += opcode in (PING, PONG) or not (control or final or payload)
        if opcode == PING:
            outcome.pongs.append(payload)
        elif opcode == CLOSE:
            return _failed(outcome, _answer(payload))
        elif opcode != PONG:
            kind = opcode if kind is None else kind
            parts += payload
            if final:
                try:
                    outcome.messages.append(parts.decode() if kind == TEXT else parts)
                except UnicodeDecodeError:
                    return _failed(outcome, INVALID_TEXT)
                kind, parts = None, b""


def _failed(outcome: Outcome, code: int) -> Outcome:
    outcome.code = code
    return outcome


def _answer(payload: bytes) -> int:
    """What a CLOSE frame is answered with."""
    if not payload:
        return NORMAL
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in (*range(1000, 1004), *range(1007, 1015)) or 3000 <= code < 5000):
        return PROTOCOL_ERROR
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return INVALID_TEXT
    return code


@dataclass
class Said:
    """A frame of the server's."""

    kind: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """Of a CLOSE frame."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else None


class Line:
    """A WebSocket opened by hand over a socket of one's own, for whatever bytes."""

    def __init__(self, url: str, sid: str = "", *, early: bytes = b"", window: int = 0) -> None:
        """`early` goes out in one piece with the request; `window` bytes are all that arrives without being read."""
        at = urlsplit(url)
        self._at = (at.hostname or "", at.port or 80)
        query = "EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        self._request = (
            f"GET /socket.io/?{query} HTTP/1.1\r\nHost: {at.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode() + early
        self._window = window
        self.status = 0

    async def __aenter__(self) -> Self:
        plain = socket.socket()
        plain.setblocking(False)
        if self._window:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(plain, self._at)
            self._reader, self._writer = await asyncio.open_connection(sock=plain)
        except BaseException:
            plain.close()
            raise
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)

    async def send_all(self, chunks: Iterable[bytes]) -> None:
        """Each as a segment of its own, as far as the network leaves it one; errors mean that the server hung up."""
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                self._writer.write(chunk)
                await self._writer.drain()
                await asyncio.sleep(0)

    def say(self, packet: str) -> None:
        """A packet in a frame of its own."""
        self._writer.write(frame(TEXT, packet.encode()))

    def hang_up(self) -> None:
        """Say that nothing more comes, as a process that ends does."""
        self._writer.write_eof()

    def break_off(self) -> None:
        """Reset the connection, whatever is under way."""
        plain = self._writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hear(self, timeout: float = 5) -> Said | None:
        """The server's next frame; None at the end of the connection."""
        try:
            async with asyncio.timeout(timeout):
                first, length = await self._reader.readexactly(2)
                if length > 125:
                    length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
                payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        assert first & 0xF0 == 0x80, "whole frames without extensions"
        return Said(first & 15, payload)

    async def hear_text(self, *starts: str, timeout: float = 5) -> str:
        """The next packet that starts with one of these, skipping what else there is. Answers no pings."""
        while (said := await self.hear(timeout)) is not None:
            if said.kind == TEXT and (text := said.payload.decode()).startswith(starts):
                return text
        raise ConnectionError

    async def rest(self, timeout: float = 5) -> list[Said]:
        """All frames until the connection ends, which it does sooner once a CLOSE has been answered."""
        heard = []
        while (said := await self.hear(timeout)) is not None:
            heard.append(said)
            if said.kind == CLOSE:
                self.send(close(None))
        return heard
