"""One of two workers dies under a conversation: nothing that showed as delivered is lost, and both are back soon."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from people import Arrive, meet
from rig import Nginx, Service, free_port, missing


@pytest_asyncio.fixture(loop_scope="session")
async def pair_of_workers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Service, Nginx]]:
    if shutil.which("nginx") is None:
        missing("nginx is missing")
    folder = tmp_path_factory.mktemp("pair")
    nginx = Nginx(folder / "nginx")
    service = await Service(folder / "data", **nginx.settings()).start(0)
    for _ in range(2):
        await service.add(VISAVIS_PORT=str(free_port()))
    await nginx.start(service.workers)
    yield service, nginx
    await nginx.stop()
    await service.stop()


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_killed_worker_loses_nothing(
    somebody: Arrive, pair_of_workers: tuple[Service, Nginx], victim: int
) -> None:
    """Both talk while a worker is killed; within 5 s both are here again, and every message is shown once, in order."""
    service, nginx = pair_of_workers
    a, b = await somebody(nginx.url), await somebody(nginx.url)
    await a.enter("storms")
    await b.enter("storms")
    await meet(a, b)
    for number in range(3):
        await a.say(f"before {number}")
        await b.say(f"likewise {number}")
    await a.sees_delivery("before 2", "delivered", "read")
    await b.sees_delivery("likewise 2", "delivered", "read")

    killing = asyncio.create_task(service.workers[victim].kill())
    killed_at = time.monotonic()
    for number in range(3, 8):
        await a.say(f"before {number}")
        await b.say(f"likewise {number}")
    await killing
    for person in (a, b):
        await expect(person.by("link")).to_have_attribute("data-link", "online")
        await expect(person.by("presence")).not_to_have_text("Reconnecting…")
    await a.hears("likewise 7")
    await b.hears("before 7")
    back_after = time.monotonic() - killed_at
    assert back_after < 5

    for person, said, heard in ((a, "before", "likewise"), (b, "likewise", "before")):
        await person.sees_delivery(f"{said} 7", "delivered", "read")
        shown = await person.page.locator('[data-testid="message"][data-mine="false"] p.said').all_inner_texts()
        numbers = [text for text in shown if heard in text]
        assert numbers == [f"{heard} {n}" for n in range(8)]
