"""An update changes the contract between page and server: for its length, some workers refuse what others take."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from playwright.async_api import expect

from people import Arrive, meet
from rig import PATIENCE, ROOT, Nginx, Service, Worker, free_port, http, missing
from visavis.adapters import nginx as adapter

OTHER = 'from visavis import contract\ncontract.ERRORS["added_since"] = (400, "Nothing this page ever heard of.")\n'
"""Makes a worker one of another release: there is a code more that it may answer with."""
KEYS = """
(() => {
  const drawn = crypto.getRandomValues.bind(crypto);
  crypto.getRandomValues = (array) => {
    if (window.__key && array.length === window.__key.length) { array.set(window.__key); return array; }
    return drawn(array);
  };
})();
"""
"""Has the page draw the key of its next connection as it is told, which is what says to which worker that leads."""


@dataclass(frozen=True)
class Halfway:
    """Two workers behind nginx, in the middle of an update: only one of them is of the page's release."""

    nginx: Nginx
    same: Worker
    other: Worker
    key: bytes
    """Leads to `same`, if that is there."""


@pytest_asyncio.fixture(loop_scope="session")
async def halfway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Halfway]:
    if not adapter.available():
        missing("nginx is missing")
    folder = tmp_path_factory.mktemp("halfway")
    (folder / "sitecustomize.py").write_text(OTHER)
    nginx = Nginx(folder / "nginx")
    service = Service(folder / "data", VISAVIS_GRACE_SECONDS="120", **nginx.settings())
    await service.start(0)
    same = await service.add(VISAVIS_PORT=str(free_port()))
    path = f"{folder}:{ROOT / 'backend'}"
    other = await service.add(VISAVIS_PORT=str(free_port()), PYTHONPATH=path)
    await nginx.start(service.workers)
    key = await leading_to(same, nginx)
    # People come before the update begins: a page that reloads under their hands is not what is looked at here.
    await other.stop()
    yield Halfway(nginx, same, other, key)
    await nginx.stop()
    await service.stop()


async def leading_to(worker: Worker, nginx: Nginx) -> bytes:
    """A connection's key by which nginx comes to this worker, as its log says."""
    async with http() as session:
        for n in range(1, 256):
            key = bytes([n] * 8)
            said = len(nginx.logged())
            async with session.get(f"{nginx.url}/socket.io/?EIO=4&transport=polling&k={key.hex()}") as response:
                assert response.status == 200
            async with asyncio.timeout(PATIENCE):
                while len(nginx.logged()) == said:
                    await asyncio.sleep(0.02)
            if nginx.logged()[-1]["worker"].endswith(f":{worker.port}"):
                return key
    raise AssertionError("no key leads there")


async def contract_of(worker: Worker) -> str:
    async with http() as session, session.get(worker.url + "/api/info") as response:
        return str((await response.json())["contract"])


async def test_a_page_finds_the_worker_of_its_release(somebody: Arrive, halfway: Halfway) -> None:
    """Both are told that nothing has to be done; their conversation waits, and goes on when their worker is back."""
    a, b = await somebody(halfway.nginx.url), await somebody(halfway.nginx.url)
    for person in (a, b):
        await person.context.add_init_script(KEYS)
        await person.enter("scaffolds")
    await meet(a, b)
    await a.say("Is it you?")
    await b.hears("Is it you?")

    await halfway.other.start()
    assert await contract_of(halfway.same) != await contract_of(halfway.other)
    assert await halfway.same.stop() == 0
    for person in (a, b):
        await expect(person.by("link")).to_contain_text("is being updated")
        await expect(person.screen("conversation")).to_be_visible()
        # Each attempt draws a key anew, and half of them would lead to the wrong one of the two.
        await person.page.evaluate("(key) => { window.__key = key; }", list(halfway.key))
    await halfway.same.start()
    for person in (a, b):
        await expect(person.by("link")).to_have_attribute("data-link", "online")
    await b.say("It is.")
    await a.hears("It is.")
    await b.hears("Is it you?")
