"""What workers tell each other of themselves, and that workers of two versions read it during an upgrade."""

from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from callers import until
from crowd import Crowd
from rig import Service
from visavis import VERSION
from visavis.adapters.redis import State, connect
from visavis.core.identity import new_id
from visavis.core.liveness import Stats, read_share

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Before(msgspec.Struct, frozen=True):
    """What the first release told, and how it reads what others tell."""

    online: int
    waiting: int
    interests: dict[str, int]


class Other:
    """A worker of another version: it holds a lease and tells what that version tells."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._state = State(self._client, new_id(), session_ms=60_000, lease_ms=60_000, recent_ms=0)

    async def tell(self, share: bytes) -> list[bytes]:
        """Beat once; gives what everybody tells."""
        return list((await self._state.beat(share)).stats.values())

    async def leave(self) -> None:
        await self._state.resign()
        await self._client.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    running = await Service(tmp_path_factory.mktemp("two")).start(2)
    yield running
    await running.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def other(two: Service) -> AsyncIterator[Other]:
    one = Other(two.valkey.url)
    yield one
    await one.leave()


@pytest_asyncio.fixture(loop_scope="session")
async def people(two: Service, tongue: str) -> AsyncIterator[Crowd]:
    gathered = Crowd(two.workers[0].url, tongue)
    yield gathered
    await gathered.leave()


async def stats(other: Other) -> list[Stats]:
    """What the two workers tell, by address."""
    told = [read_share(share) for share in await other.tell(b"{}")]
    return sorted((one for one in told if one.process.address), key=lambda one: one.process.address)


async def online_everywhere(two: Service, wanted: int) -> bool:
    """Whether every worker comes to say that so many are here."""
    async with aiohttp.ClientSession() as http:

        async def said() -> bool:
            infos = [await (await http.get(f"{worker.url}/api/info")).json() for worker in two.workers]
            return all(info["lobby"]["online"] == wanted for info in infos)

        await until(said, 10, f"not {wanted} online everywhere")
    return True


async def test_every_worker_tells_how_it_is_and_what_it_carries(two: Service, other: Other, people: Crowd) -> None:
    """A conversation across two workers counts once, as does its call; so do messages, where they were accepted."""
    a, b = await people.arrive(), await people.arrive(two.workers[1].url)
    talk = await people.meet(a, b, mode="voice")
    for seq in (1, 2, 3):
        await a.say(talk, seq, "hello")
    seeker = await people.arrive()
    await people.find(seeker, mode="video")

    async def counted() -> bool:
        told = await stats(other)
        return [
            sum(one.online for one in told),
            sum(one.conversations for one in told),
            sum(one.calls for one in told),
            sum(one.messages for one in told),
            sum(one.searching.get("video", 0) for one in told),
            sum(one.waiting for one in told),
        ] == [3, 1, 1, 3, 1, 1]

    await until(counted, 10, "not everybody was counted once")
    for worker, told in zip(sorted(two.workers, key=lambda one: one.port), await stats(other), strict=True):
        assert told.process.address == f"127.0.0.1:{worker.port}"
        assert told.process.version == VERSION
        assert told.process.connections >= told.online
        assert told.process.memory > 10_000_000
        assert told.process.cpu > 0
        assert told.process.started_at > 1_700_000_000_000
        assert not told.process.draining
        assert told.process.unwell == ()


@pytest.mark.parametrize(
    ("share", "online"),
    [
        (b'{"online":40,"waiting":2,"interests":{"chess":30}}', 40),
        (b'{"online":40,"interests":{"chess":30},"later":{"deep":[1]},"process":{"unheard":1}}', 40),
        (b'{"online":40,"process":"in other words"}', 0),
        (b"\xc1 not even JSON", 0),
    ],
)
async def test_a_worker_of_another_version_is_counted_and_stops_nobody(
    two: Service, other: Other, people: Crowd, share: bytes, online: int
) -> None:
    """Older ones lack what newer ones tell, and the other way round; one nobody understands counts for nothing."""
    await people.arrive()
    await other.tell(share)
    assert await online_everywhere(two, online + 1)
    # And again, so that what was heard first was not the last.
    await people.arrive(two.workers[1].url)
    assert await online_everywhere(two, online + 2)
    ours = [one for one in await other.tell(share) if one != share]
    assert [msgspec.json.decode(one, type=Before).online for one in ours] == [1, 1]
