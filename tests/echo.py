"""Either carrier alone, with nobody on top of it but an echo: for tests of carriers, and for the protocol's own suite.

`PYTHONPATH=backend python tests/echo.py fast` serves what the suite of the Engine.IO protocol expects to find at
port 3000; see docs/protocol.md.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from visavis.contract import Refused
from visavis.doors.carrying import Carrier, Session
from visavis.doors.stock import Stock

try:
    from visavis.doors.engine import Engine
except ImportError:
    Engine = Stock

CARRIERS: dict[str, Callable[..., Carrier]] = {"fast": Engine, "stock": Stock}


class Heard:
    """What one session's client said; a `Receiver` that says it back."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.messages: list[str | None] = []
        self.was_behind = False
        self.ends = 0
        self.work: Callable[[str | None], Awaitable[None] | None] = lambda message: None
        """What is to be waited for with each message."""

    def packet(self, message: bytes | None) -> Awaitable[None] | None:
        assert not self.ends, "heard after the end"
        text = None if message is None else message.decode()
        self.messages.append(text)
        if message is not None:
            self.session.send(message)
        return self.work(text)

    def behind(self) -> None:
        self.was_behind = True

    def gone(self) -> None:
        self.ends += 1


class Echo:
    """A `Host` for everybody."""

    carrier: Carrier

    def __init__(self) -> None:
        self.sessions: list[Heard] = []
        self.url = ""

    def crowded(self, request: web.Request) -> Refused | None:
        return None

    def opened(self, session: Session, request: web.Request) -> Heard:
        heard = Heard(session)
        self.sessions.append(heard)
        return heard

    @property
    def open(self) -> int:
        return sum(not heard.ends for heard in self.sessions)


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return web.json_response(refused.as_error(), status=refused.status)


@contextlib.asynccontextmanager
async def echo(transport: str, *, port: int = 0, **settings: Any) -> AsyncIterator[Echo]:
    """Serve by this carrier, at /socket.io/ and at /engine.io/."""
    carrier = CARRIERS[transport](
        **{
            "origins": ("http://localhost:3000",),
            "ping_interval": 15.0,
            "ping_timeout": 10.0,
            "max_frame_bytes": 65_536,
            "max_queue_bytes": 1_000_000,
            **settings,
        }
    )
    host = Echo()
    host.carrier = carrier
    app = web.Application(middlewares=[_refusals])
    carrier.attach(app, host)
    for route in list(app.router.routes()):
        app.router.add_route(route.method, "/engine.io/", route.handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield host
    finally:
        await carrier.stop()
        await runner.cleanup()


async def main(transport: str) -> None:
    async with echo(transport, port=3000, ping_interval=0.3, ping_timeout=0.2, max_frame_bytes=1_000_000) as host:
        sys.stdout.write(f"{transport} at {host.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
