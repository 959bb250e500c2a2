"""What the tests of a whole service share: one Valkey, one service on it, and guests who leave when a test ends.

A worker takes most of a second to start, so tests share one as long as they leave it as they found it. The guests
of a test speak a language of their own, so that nobody from another test is ever matched with them.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rig import Guest, Service, Worker, get_guest, meet
from visavis.adapters.valkey import PrivateValkey

_tongues = ("".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey() -> AsyncIterator[PrivateValkey]:
    """A Valkey for tests that leave it alive."""
    server = PrivateValkey()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One worker with a generous bucket; tests may add workers of their own to its Valkey."""
    running = Service(
        tmp_path_factory.mktemp("service"), VISAVIS_BUCKET_SIZE="100000", VISAVIS_BUCKET_PER_SECOND="100000"
    )
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def worker(service: Service) -> Worker:
    """The shared worker."""
    return service.workers[0]


@pytest_asyncio.fixture(loop_scope="session")
async def worker_with(service: Service) -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """Adds workers with settings of their own to the shared service, for one test."""
    added: list[Worker] = []

    async def add(**environment: str) -> Worker:
        made = await service.add(**environment)
        added.append(made)
        return made

    yield add
    for one in added:
        await one.stop()
        service.workers.remove(one)


@pytest_asyncio.fixture(loop_scope="session")
async def apart(tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker with a Valkey of its own, for a test that counts or reads everything."""
    running = await Service(tmp_path).start()
    yield running.workers[0]
    await running.stop()


@pytest.fixture
def data_dir(service: Service) -> Path:
    """The folder of the shared service's document store."""
    return service.workers[0].data_dir


class Crowd:
    """Guests of one test."""

    def __init__(self, url: str, tongue: str) -> None:
        self._url = url
        self.tongue = tongue
        self.guests: list[Guest] = []

    async def arrive(self, url: str | None = None, device: str | None = None, **options: Any) -> Guest:
        """A new guest, connected; from a browser that is remembered, if its device token is given."""
        url = url or self._url
        guest = Guest(url, await get_guest(url, device), **options)
        self.guests.append(guest)
        await guest.connect()
        return guest

    async def find(self, guest: Guest, **wishes: Any) -> dict[str, Any]:
        """Search among the guests of this test."""
        return await guest.find(**{"languages": [self.tongue], **wishes})

    async def meet(self, a: Guest, b: Guest, **wishes: Any) -> str:
        """Have two guests of this test find each other; returns the conversation's id."""
        return await meet(a, b, **{"languages": [self.tongue], **wishes})

    async def pair(self, **wishes: Any) -> tuple[Guest, Guest, str]:
        """Two new guests in a conversation."""
        a, b = await self.arrive(), await self.arrive()
        return a, b, await self.meet(a, b, **wishes)

    async def leave(self) -> None:
        await asyncio.gather(*(guest.hang_up() for guest in self.guests))


@pytest.fixture
def tongue() -> str:
    """A language that nobody else speaks."""
    return next(_tongues)


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(worker: Worker, tongue: str) -> AsyncIterator[Crowd]:
    """Where a test's guests come from; they hang up when it ends."""
    gathered = Crowd(worker.url, tongue)
    yield gathered
    await gathered.leave()
