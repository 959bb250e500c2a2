"""What the tests of a whole service share: one Valkey, one service on it, and guests who leave when a test ends.

A worker takes most of a second to start, so tests share one as long as they leave it as they found it. The guests
of a test speak a language of their own, so that nobody from another test is ever matched with them.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import timetable
from crowd import Crowd
from rig import Service, Worker
from topologies import Cluster
from visavis.adapters.valkey import PrivateValkey

_tongues = ("".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    timetable.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> timetable.Timetable | None:
    return timetable.Timetable(config, log) if config.getoption("dist") == "loadfile" else None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey() -> AsyncIterator[PrivateValkey]:
    """A Valkey for tests that leave it alive."""
    server = PrivateValkey()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    """A Cluster of three for tests that leave it whole."""
    made = Cluster()
    try:
        yield await made.start()
    finally:
        await made.stop()


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
def transport(request: pytest.FixtureRequest) -> str:
    """What carries a test's connections; a test that is marked `both` runs over each in turn."""
    named: str = getattr(request, "param", "fast")
    return named


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stock_service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Another like the shared one, carried by python-engineio."""
    running = Service(
        tmp_path_factory.mktemp("stock"),
        VISAVIS_TRANSPORT="stock",
        VISAVIS_BUCKET_SIZE="100000",
        VISAVIS_BUCKET_PER_SECOND="100000",
    )
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def carried(transport: str, request: pytest.FixtureRequest) -> Service:
    """The shared service of this transport."""
    found: Service = request.getfixturevalue("service" if transport == "fast" else "stock_service")
    return found


@pytest.fixture
def worker(carried: Service) -> Worker:
    """The shared worker."""
    return carried.workers[0]


@pytest_asyncio.fixture(loop_scope="session")
async def worker_with(carried: Service) -> AsyncIterator[Callable[..., Awaitable[Worker]]]:
    """Adds workers with settings of their own to the shared service, for one test."""
    added: list[Worker] = []

    async def add(**environment: str) -> Worker:
        made = await carried.add(**environment)
        added.append(made)
        return made

    yield add
    for one in added:
        await one.stop()
        carried.workers.remove(one)


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
