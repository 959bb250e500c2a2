"""Three workers behind nginx, as operators run them, and people in browsers who never see that there are three."""

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
CLOSES = """
(() => {
  window.__closes = [];
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) { super(...args); this.addEventListener("close", ({ code }) => window.__closes.push(code)); }
  };
})();
"""
"""Keeps the close code of every websocket of the page."""
AWAY = """
(link) => {
  window.__away = 0;
  let since = null;
  new MutationObserver(() => {
    const now = performance.now();
    if (link.dataset.link !== "online") { since ??= now; return; }
    window.__away = Math.max(window.__away, now - (since ?? now));
    since = null;
  }).observe(link, { attributes: true, attributeFilter: ["data-link"] });
}
"""
"""Keeps for how many milliseconds at most the page showed that it was not connected."""


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


async def test_a_large_file_goes_through_nginx(somebody: Arrive, front: Front) -> None:
    """25 MB in parts, each to the same worker, and out again at one address; nothing of it lies in nginx's folders."""
    a, b = await somebody(front.open.url), await somebody(front.open.url)
    for person in (a, b):
        await person.enter("barges")
    await front.set_apart(a, b)
    await meet(a, b)
    since = len(front.open.logged())
    content = b"%PDF-1.7\n" + bytes(range(256)) * 97_600 + b"%%EOF\n"
    await a.by("attach-input").set_input_files(
        [{"name": "thick.pdf", "mimeType": "application/pdf", "buffer": content}]
    )
    await a.by("tray-send").click()
    await expect(b.by("file-document")).to_be_visible(timeout=60_000)
    async with b.page.expect_download() as started:
        await b.by("file-document").get_by_test_id("file-download").click()
    assert (await (await started.value).path()).read_bytes() == content

    async def written() -> bool:
        return any(line["route"].startswith("/files/") for line in front.open.logged()[since:])

    await until(written, 10, "the download is in the log")
    parts = [line for line in front.open.logged()[since:] if line["method"] == "PATCH"]
    assert len(parts) >= 6
    assert {line["status"] for line in parts} == {204}
    assert len({line["worker"] for line in parts}) == 1
    kept = [path for path in (front.open.folder / ".cache" / "nginx").rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"access.log", "pid"}


async def test_all_workers_are_restarted_under_a_call(
    cameras: dict[Voice, Browser], somebody: Arrive, front: Front
) -> None:
    """One after the other: pictures move on, no websocket breaks off, and what both write arrives once, in order."""
    assert front.service is not None
    callers = Callers(cameras, front.service)
    try:
        a, b = [await callers.arrive(voice, front.open.url) for voice in cameras]
        for caller in (a, b):
            await caller.context.add_init_script(CLOSES)
        await settle(front, a, b, "websocket")
        await a.invite()
        await b.accept()
        for caller in (a, b):
            await caller.sees_phase("live")
            await caller.gets("framesDecoded", 3)
            await caller.watch_phases()

        async def moves_on() -> None:
            # Looked at seldom: what counts the frames costs a machine without a graphics card more than one frame.
            before = [(await caller.stats())["framesDecoded"] for caller in (a, b)]
            await asyncio.sleep(2)
            for caller, frames in zip((a, b), before, strict=True):
                await until(lambda caller=caller, frames=frames: advanced(caller, frames), 10, "it stands still")  # type: ignore[misc]

        await restarted_under(front, a, b, somebody, moves_on)
        for caller in (a, b):
            closes = await caller.page.evaluate("window.__closes")
            # Once for each time that its worker was restarted.
            assert closes
            assert 1006 not in closes
            assert set(await caller.phases()) <= {"live"}
    finally:
        await callers.close()


async def test_all_workers_are_restarted_under_two_who_can_only_poll(somebody: Arrive, front: Front) -> None:
    """One after the other: what both write arrives once and in order, and nobody lives away from home afterwards."""
    a, b = await somebody(front.narrow.url), await somebody(front.narrow.url)
    await settle(front, a, b, "polling")

    async def nothing() -> None:
        await asyncio.sleep(0.5)

    await restarted_under(front, a, b, somebody, nothing)
    since = len(front.narrow.logged())
    await converse(a, b, 1)
    assert not any("," in line["worker"] for line in front.narrow.logged()[since:])


async def settle(front: Front, a: Person, b: Person, transport: str) -> None:
    """Have two in a conversation, on two workers."""
    for person in (a, b):
        await person.enter("tides")
    await front.set_apart(a, b, transport)
    await meet(a, b)


async def restarted_under(
    front: Front, a: Person, b: Person, somebody: Arrive, meanwhile: Callable[[], Awaitable[None]]
) -> None:
    """Restart every worker while both write; neither sees for more than a moment that a connection is coming back."""
    for person in (a, b):
        await person.by("link").evaluate(AWAY)
    moment = await coming_anew(a.url, somebody)
    done = asyncio.Event()
    writing = [asyncio.create_task(write(person, done)) for person in (a, b)]
    renewing = asyncio.create_task(front.renew())
    try:
        while not renewing.done():
            await meanwhile()
        await renewing
    finally:
        done.set()
        last = await asyncio.gather(*writing)
    for person, other, mine in ((a, b, last[0]), (b, a, last[1])):
        await other.hears(f"message {mine}.")
        await person.sees_delivery(f"message {mine}.", "delivered", "read")
        shown = await other.page.locator('[data-testid="message"][data-mine="false"] p.said').all_inner_texts()
        assert shown == [f"message {number}." for number in range(mine + 1)]
    away = [await person.page.evaluate("window.__away") for person in (a, b)]
    assert max(away) < 1500 + moment, (away, moment)


async def advanced(caller: Caller, frames: float) -> bool:
    """Whether more of the other's picture was seen than this."""
    return bool((await caller.stats())["framesDecoded"] > frames)


async def coming_anew(url: str, somebody: Arrive) -> float:
    """Milliseconds that a page takes from nothing to its connection on this machine as busy as it is."""
    person = await somebody(url)
    await person.enter("clocks")
    started = time.monotonic()
    await person.page.reload()
    await expect(person.by("link")).to_have_attribute("data-link", "online", timeout=30_000)
    await person.page.close()
    return (time.monotonic() - started) * 1000


async def write(person: Person, done: asyncio.Event) -> int:
    """Say one numbered message after the other until told; returns the last number."""
    for number in itertools.count():
        await person.say(f"message {number}.")
        if done.is_set():
            return number
        await asyncio.sleep(1)
    raise AssertionError
