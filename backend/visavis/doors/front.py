"""The first bytes of a connection: the opening of a session over a WebSocket is served at once, all else is aiohttp's.

Opening is what a worker does most when another is restarted and thousands come over. aiohttp makes two tasks, a parser,
a request and its way through the application of each, and all of that is given up a moment later. So a connection's
first bytes are looked at here: if they are one whole, plain request for a new session over a WebSocket, of a kind that
every client sends, and nothing speaks against it, it is served. If anything is unusual or to be refused, aiohttp gets
the connection with those bytes, as if it had had it from the beginning, and says why.

Source: RFC 9112; what is read here is a small part of what it allows.
"""

import asyncio
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from multidict import CIMultiDict

BACKLOG = 4096
"""Connections that may wait to be taken in; the system may allow fewer."""
TAKEN_IN = 4
"""At once, of those."""

_MOST = 8192
"""Bytes of an opening; aiohttp reads longer ones."""
_SILENT_SECONDS = 10.0
"""After which a connection that says nothing is aiohttp's, which knows how long it may be."""
_LINE = re.compile(rb"GET /socket\.io/\?([A-Za-z0-9=&._~-]+) HTTP/1\.1")
_HEADER = re.compile(rb"([A-Za-z0-9-]+):[ \t]*([\x20-\x7e]*?)[ \t]*")
_BODY = ("Content-Length", "Transfer-Encoding", "Expect", "Trailer", "TE")


def listeners(listening: socket.socket) -> list[socket.socket]:
    """What to listen with: the same socket, TAKEN_IN times.

    In a turn of the loop libuv takes in one connection for each socket that it watches. When thousands come at once,
    each would have a turn for itself: four to a turn share a question to Redis, and take a third less of the processor.
    On Windows, where there is no libuv beneath, the same socket cannot be watched twice.
    """
    if sys.platform == "win32":
        return [listening]
    return [listening, *(listening.dup() for _ in range(TAKEN_IN - 1))]


class Opening:
    """A request to open a session over a WebSocket: so much of aiohttp's as is asked of one."""

    method = "GET"

    def __init__(self, query: dict[str, str], headers: CIMultiDict[str], remote: str) -> None:
        self.query = query
        self.headers = headers
        self.remote = remote
        self._found: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """What was found out about it."""
        return self._found.get(key)

    def __setitem__(self, key: Any, found: Any) -> None:
        self._found[key] = found


class Front(asyncio.Protocol):
    """A connection that has not said anything yet."""

    __slots__ = ("_serve", "_otherwise", "_silent", "_transport", "_timer")

    def __init__(
        self,
        serve: Callable[[asyncio.Transport, Opening], bool],
        otherwise: Callable[[], asyncio.Protocol],
        silent: "set[Front]",
    ) -> None:
        """`serve` takes a connection over, or says that it does not; `otherwise` makes aiohttp's protocol.

        It is among the `silent` ones until then.
        """
        self._serve = serve
        self._otherwise = otherwise
        self._silent = silent
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclass of it
        self._silent.add(self)
        self._timer = asyncio.get_running_loop().call_later(_SILENT_SECONDS, self._hand_over, b"")

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        opening = read_opening(data, transport.get_extra_info("peername"))
        if opening is not None and self._serve(transport, opening):
            self._let_go()
        else:
            self._hand_over(data)

    def eof_received(self) -> bool:
        """Who says nothing more has said nothing at all."""
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._let_go()

    def close(self) -> None:
        """Hang up: nothing was asked for."""
        if self._transport is not None:
            self._transport.close()

    def _let_go(self) -> None:
        self._silent.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hand_over(self, data: bytes) -> None:
        transport = self._transport
        self._let_go()
        if transport is not None and not transport.is_closing():
            protocol = self._otherwise()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            if data:
                protocol.data_received(data)


def read_opening(data: bytes, peer: Any) -> Opening | None:
    """The opening that these bytes are, if they are one, whole and plain."""
    if len(data) > _MOST or not data.endswith(b"\r\n\r\n"):
        return None
    first, *lines = data[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        return None
    query: dict[str, str] = {}
    for field in line[1].decode().split("&"):
        name, _, value = field.partition("=")
        if name in query:
            return None
        query[name] = value
    if query.get("EIO") != "4" or query.get("transport") != "websocket" or "sid" in query:
        return None
    headers: CIMultiDict[str] = CIMultiDict()
    for one in lines:
        header = _HEADER.fullmatch(one)
        if header is None:
            # A blank line is the end, and another request begins behind it; or it is not what browsers send.
            return None
        headers.add(header[1].decode(), header[2].decode())
    if len(headers.getall("Host", ())) != 1 or any(name in headers for name in _BODY):
        return None
    return Opening(query, headers, str(peer[0]) if isinstance(peer, (tuple, list)) and peer else "")
