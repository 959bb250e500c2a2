"""Three workers behind nginx, as operators run them, and people in browsers who never see that there are three."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from callers import Caller, Voice, until
from calling import Callers, relayed
from people import Arrive, Person, meet
from rig import Nginx, Production, Service, Worker, free_port, http, missing
from visavis.adapters import nginx as adapter
from visavis.adapters.turn import PrivateTurn

TOKEN = "m" * 40
WATCH = """
(() => {
  window.__closes = [];
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) { super(...args); this.addEventListener("close", ({ code }) => window.__closes.push(code)); }
  };
})();
"""
"""Keeps the close code of every websocket of the page."""


class Front:
    """Three workers, and the two ways to them: with websockets, and through something that lets none pass."""

    def __init__(self, folder: Path) -> None:
        self.open = Nginx(folder / "open")
        self.narrow = Nginx(folder / "narrow", more="if ($http_upgrade) { return 403; }")
        self.service: Service | None = None
        self._folder = folder

    async def start(self, turn: PrivateTurn) -> None:
        origins = {"VISAVIS_ORIGINS": f"{self.open.url} {self.narrow.url}", "VISAVIS_TRUST_FORWARDED": "true"}
        settings = relayed(turn, VISAVIS_METRICS_TOKEN=TOKEN, **origins)
        self.service = await Service(self._folder / "data", Production, **settings).start(0)
        await asyncio.gather(*(self.service.add(VISAVIS_PORT=str(free_port())) for _ in range(3)))
        for nginx in (self.open, self.narrow):
            await nginx.start(self.service.workers)

    async def stop(self) -> None:
        for nginx in (self.open, self.narrow):
            await nginx.stop()
        assert self.service is not None
        await self.service.stop()

    async def connections(self, transport: str) -> list[int]:
        """How many each worker has."""
        assert self.service is not None

        async def of(worker: Worker) -> int:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with http() as session, session.get(worker.url + "/metrics", headers=headers) as response:
                text = await response.text()
                found = re.search(rf'^visavis_connections{{transport="{transport}"}} ([0-9]+)', text, re.MULTILINE)
                assert found
                return int(found[1])

        return list(await asyncio.gather(*(of(worker) for worker in self.service.workers)))

    async def set_apart(self, a: Person, b: Person, transport: str = "websocket") -> None:
        """Have two, who are the only ones here, on two workers."""

        async def both() -> bool:
            return sum(await self.connections(transport)) == 2

        for _ in range(20):
            await until(both, 15, "both are connected")
            if max(await self.connections(transport)) == 1:
                return
            # Another connection, another key, another worker: mostly.
            await b.page.reload()
            await expect(b.screen("lobby")).to_be_visible()
            await expect(b.by("link")).to_have_attribute("data-link", "online")
        raise AssertionError("twenty keys led to one worker")

    async def renew(self) -> None:
        """Restart one worker after the other, as systemd does."""
        assert self.service is not None
        for index in range(3):
            worker = self.service.workers[index]
            assert await worker.stop() == 0
            await worker.start()
            await until(lambda worker=worker: ready(worker), 30, "it is ready again")  # type: ignore[misc]


async def ready(worker: Worker) -> bool:
    with contextlib.suppress(OSError):
        async with http() as session, session.get(worker.url + "/ready") as response:
            return response.status == 200
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def front(turn: PrivateTurn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    if not adapter.available():
        missing("nginx is missing")
    front = Front(tmp_path_factory.mktemp("front"))
    await front.start(turn)
    yield front
    await front.stop()


async def converse(a: Person, b: Person, rounds: int) -> None:
    for number in range(rounds):
        await a.say(f"ping {number}.")
        await b.hears(f"ping {number}.")
        await b.say(f"pong {number}.")
        await a.hears(f"pong {number}.")


async def test_two_on_two_workers_meet_and_talk(somebody: Arrive, front: Front) -> None:
    """By websocket, over HTTP/2 up to it, with nothing loaded from anywhere else."""
    a, b = await somebody(front.open.url), await somebody(front.open.url)
    for person in (a, b):
        await person.enter("bridges")
    await front.set_apart(a, b)
    await meet(a, b)
    await converse(a, b, 3)
    assert await front.connections("polling") == [0, 0, 0]
    protocols = await a.page.evaluate("performance.getEntriesByType('resource').map((one) => one.nextHopProtocol)")
    assert set(protocols) - {""} == {"h2"}


async def test_two_who_can_only_poll_talk_across_workers(somebody: Arrive, front: Front) -> None:
    """Where no websocket passes: every request of a session reaches its worker, and they notice nothing."""
    a, b = await somebody(front.narrow.url), await somebody(front.narrow.url)
    for person in (a, b):
        await person.enter("ferries")
    await front.set_apart(a, b, "polling")
    await meet(a, b)
    since = len(front.narrow.logged())
    await converse(a, b, 6)
    assert await front.connections("websocket") == [0, 0, 0]
    lines = [line for line in front.narrow.logged()[since:] if line["route"] == "/socket.io/"]
    # 403 is what the way says to a websocket that is tried once more.
    polled = [line for line in lines if line["status"] != 403]
    assert len(polled) > 12
    assert {line["status"] for line in polled} == {200}
    assert len({line["worker"] for line in polled}) == 2
    assert not any("," in line["worker"] for line in polled), "a request had to be passed on"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_all_workers_are_restarted_under_a_conversation(somebody: Arrive, front: Front, transport: str) -> None:
    """One after the other while both write: each message is shown once and in order, and no connection breaks off."""
    nginx = front.open if transport == "websocket" else front.narrow
    a, b = await somebody(nginx.url), await somebody(nginx.url)
    await restarted_under(front, a, b, transport)


async def test_all_workers_are_restarted_under_a_call(cameras: dict[Voice, Browser], front: Front) -> None:
    """The picture goes on while its two members change workers three times and write to each other."""
    assert front.service is not None
    callers = Callers(cameras, front.service)
    try:
        a, b = await callers.arrive(url=front.open.url), await callers.arrive(list(cameras)[1], url=front.open.url)
        await restarted_under(front, a, b, "websocket")
    finally:
        await callers.close()


async def restarted_under(front: Front, a: Person, b: Person, transport: str) -> None:
    """Two meet, call each other if they can, and write; meanwhile every worker is restarted."""
    for person in (a, b):
        await person.context.add_init_script(WATCH)
        await person.enter("tides")
    await front.set_apart(a, b, transport)
    await meet(a, b)
    if isinstance(a, Caller) and isinstance(b, Caller):
        await a.invite()
        await b.accept()
        for caller in (a, b):
            await caller.sees_phase("live")
            await caller.gets("framesDecoded", 3)
            await caller.watch_phases()
    for person in (a, b):
        # Measured in the page, from the change to what is shown and back.
        await person.by("link").evaluate(
            """(link) => {
              window.__away = 0; let since = null;
              const look = () => {
                const now = performance.now();
                if (link.dataset.link !== "online") { since ??= now; return; }
                window.__away = Math.max(window.__away, now - (since ?? now));
                since = null;
              };
              new MutationObserver(look).observe(link, { attributes: true, attributeFilter: ["data-link"] });
            }"""
        )
    done = asyncio.Event()

    async def write(person: Person, word: str) -> int:
        for number in itertools.count():
            await person.say(f"{word} {number}.")
            if done.is_set():
                return number
            await asyncio.sleep(0.25)
        raise AssertionError

    writing = [asyncio.create_task(write(a, "tick")), asyncio.create_task(write(b, "tock"))]
    try:
        renewing = asyncio.create_task(front.renew())
        while not renewing.done():
            if isinstance(a, Caller) and isinstance(b, Caller):
                # Again and again: the picture moves on.
                await asyncio.gather(a.gets("framesDecoded", 3), b.gets("framesDecoded", 3))
            await asyncio.wait((renewing,), timeout=0.5)
        await renewing
    finally:
        done.set()
        last = await asyncio.gather(*writing)

    for person, other, said, heard in ((a, b, "tick", "tock"), (b, a, "tock", "tick")):
        mine, theirs = (last[0], last[1]) if person is a else (last[1], last[0])
        await person.hears(f"{heard} {theirs}.")
        await person.sees_delivery(f"{said} {mine}.", "delivered", "read")
        shown = await other.page.locator('[data-testid="message"][data-mine="false"] p.said').all_inner_texts()
        assert shown == [f"{said} {number}." for number in range(mine + 1)]
        closes = await person.page.evaluate("window.__closes")
        assert 1006 not in closes or transport == "polling", closes
        assert await person.page.evaluate("window.__away") < 1500
        if isinstance(person, Caller):
            assert set(await person.phases()) <= {"live"}
