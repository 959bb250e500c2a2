"""What a Socket.IO session is carried by: the boundary between the gateway and the two ways of carrying it.

`engine` is the fast one, `stock` the plain one on python-engineio; the gateway cannot tell them apart. Both speak
Engine.IO 4 over long polling and WebSockets, and both hand on messages: what Engine.IO's MESSAGE packets hold.
"""

import re
import secrets
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

import structlog
from aiohttp import web
from multidict import MultiMapping

from visavis.contract import Refused

MOST_PACKETS = 64
"""Packets in one polling body; the official client never holds back that many."""
HEARD_SECONDS = 1.0
"""For how long a closed connection may still hear of it."""
PROBE_SECONDS = 10.0
"""For how long a client may try out a WebSocket before it goes over to it."""
NORMAL, PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG, SERVICE_RESTART = 1000, 1002, 1007, 1009, 1012
"""WebSocket close codes (RFC 6455, and IANA's registry): after the last, a client does well to connect again."""

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


class Asking(Protocol):
    """So much of a request as is looked at before a session begins."""

    @property
    def method(self) -> str: ...

    @property
    def query(self) -> Mapping[str, str]: ...

    @property
    def headers(self) -> MultiMapping[str]: ...

    @property
    def remote(self) -> str | None:
        """The address it comes from."""

    def get(self, key: Any) -> Any:
        """What was found out about it before."""

    def __setitem__(self, key: Any, found: Any) -> None: ...


class Session(Protocol):
    """One client's session, whatever carries it."""

    name: str
    """What the log calls it."""

    @property
    def closed(self) -> bool:
        """Whether it has ended; what is sent then is lost."""

    @property
    def websocket(self) -> bool:
        """Whether a WebSocket carries it, from the beginning or by now."""

    def send(self, message: bytes) -> None:
        """Say a message. Never waits; a client that leaves too much unread is `Receiver.behind`."""

    def close(self, *, told: bool) -> None:
        """End it in good order, after what has been sent. `told`: the client knows why.

        Else it is said to it as a loss, after which it comes back.
        """

    def abort(self) -> None:
        """Break it off, whatever is unsent."""


class Receiver(Protocol):
    """Whoever hears what a session's client says."""

    def packet(self, message: bytes | None) -> Awaitable[None] | None:
        """A message of text, in UTF-8; None for what has no meaning and counts all the same.

        What is to be awaited holds back the messages after it.
        """

    def behind(self) -> None:
        """The client has more to read than it may; the session is about to be broken off."""

    def gone(self) -> None:
        """The session has ended. Said once, and last."""


class Host(Protocol):
    """Whoever takes the sessions in."""

    def crowded(self, request: Asking) -> Refused | None:
        """Why no session may begin."""

    def opened(self, session: Session, request: Asking) -> Receiver:
        """A session has begun."""


class Carrier(Protocol):
    """Serves /socket.io/."""

    draining: bool
    """Whether the worker is about to stop: no session begins, and WebSockets close with SERVICE_RESTART."""

    def attach(self, app: web.Application, host: Host) -> None:
        """Serve it in this application."""

    @property
    def unheard(self) -> bool:
        """Whether a client whose session was closed has yet to hear of it."""

    async def stop(self) -> None:
        """End what is left, and wait for what is under way."""


def turned_away(request: Asking, *, origins: tuple[str, ...], known: bool, draining: bool) -> Refused | None:
    """Why a request to /socket.io/ is not for this worker to serve; `known`: its session is here."""
    if request.headers.get("Origin", origins[0]) not in origins:
        return Refused("origin_refused")
    if "j" in request.query:
        # JSONP is for browsers of long ago, and would let foreign pages read polls.
        return Refused("bad_request")
    if request.method != "OPTIONS" and (
        request.method not in {"GET", "POST"}
        or request.query.get("EIO") != "4"
        or request.query.get("transport") not in {"polling", "websocket"}
    ):
        return Refused("bad_request")
    if known:
        return None
    if "sid" in request.query and "X-Elsewhere" in request.headers:
        # nginx asks on: the session may have begun at another worker, while this one was away (nginx.conf).
        return Refused("not_found")
    if draining:
        # Not known here, and not going to be: a proxy asks the next worker, where it may well be.
        return Refused("busy", retryInMs=soon())
    return None


def opens_websocket(request: Asking) -> bool:
    """Whether a request is the opening of a WebSocket (RFC 6455, 4.2.1)."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in {word.strip().lower() for word in headers.get("Connection", "").split(",")}
        and headers.get("Sec-WebSocket-Version") == "13"
        and _KEY.fullmatch(headers.get("Sec-WebSocket-Key", "")) is not None
    )


def soon() -> int:
    """Milliseconds after which it may be tried again; not the same for everybody."""
    return 300 + secrets.randbelow(1200)


def name_in_log(name: str) -> None:
    """Whatever is logged from here on, in this context and those begun in it, names the connection."""
    structlog.contextvars.bind_contextvars(connection_id=name)


async def read(request: web.Request, most: int) -> bytes | None:
    """The body; None if it is longer than `most` bytes."""
    if (request.content_length or 0) > most:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)
