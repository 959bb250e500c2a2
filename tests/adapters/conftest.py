"""Real document stores for the tests: SQLite files, nx-27017 as a process of its own, MongoDB where MONGO_URL says."""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from adapters.stores import COLLECTIONS, Another, Clock, Nx
from faults import Link
from visavis.adapters.mongo import MongoStore
from visavis.adapters.sqlite import SqliteStore
from visavis.core.ports import Collection, Upkeep
from visavis.core.schema import Schema


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def nx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nx]:
    """A server for all tests that leave it alive."""
    server = Nx(tmp_path_factory.mktemp("nx"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_nx(tmp_path: Path) -> Iterator[Nx]:
    """A server for one test to start and kill."""
    server = Nx(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def link(nx: Nx) -> AsyncIterator[Link]:
    """The way to that server, which can go dark."""
    link = await Link(nx.port).start()
    yield link
    await link.stop()


@pytest.fixture(params=["sqlite", "nx", *(["mongodb"] if os.environ.get("MONGO_URL") else [])])
async def another(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Another]:
    """Stores of each kind on one fresh, empty database."""
    make: Callable[[Sequence[Collection]], Upkeep]
    database = f"visavis_test_{uuid.uuid4().hex}"
    url = ""
    # The suite's question is what the stores do, not how fast this machine is.
    patience = 10.0
    if request.param == "sqlite":

        def make(collections: Sequence[Collection]) -> Upkeep:
            return SqliteStore(tmp_path / "documents.db", collections, timeout=patience, clock=clock)
    else:
        url = request.getfixturevalue("nx").url if request.param == "nx" else os.environ["MONGO_URL"]

        def make(collections: Sequence[Collection]) -> Upkeep:
            return MongoStore(url, database, collections, timeout=patience, clock=clock)

    opened: list[Upkeep] = []

    async def another(collections: Sequence[Collection] = COLLECTIONS, schema: Schema | None = None) -> Upkeep:
        store = make(collections)
        opened.append(store)
        await (schema or Schema(collections, ())).bring_up(store)
        return store

    yield another
    for store in opened:
        await store.close()
    if url:
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
        await client.drop_database(database)
        await client.close()


@pytest.fixture
async def store(another: Another) -> Upkeep:
    return await another()
