"""Which recorders there are, and who has a place at them: on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from visavis.adapters.redis import Recorders, connect
from visavis.adapters.valkey import PrivateValkey
from visavis.core.identity import new_id


class Register:
    """One Valkey, as its recorders and the workers see it."""

    def __init__(self, url: str) -> None:
        self.raw = redis.Redis.from_url(url)
        self.keys = connect(url)
        self.workers = Recorders(self.keys)

    async def recorder(self, name: str, places: int = 4, lease_ms: int = 5000) -> Recorders:
        lease = Recorders(self.keys, name, lease_ms=lease_ms)
        assert await lease.beat(places, name.encode(), []) == []
        return lease


@pytest.fixture
async def register() -> AsyncIterator[Register]:
    server = PrivateValkey()
    await server.start()
    made = Register(server.url)
    yield made
    await made.keys.aclose()
    await made.raw.aclose()
    await server.stop()


async def test_the_least_busy_recorder_gets_it(register: Register) -> None:
    """And keeps it, however often it is asked for."""
    await register.recorder("a", places=3)
    await register.recorder("b", places=3)
    ids = [new_id() for _ in range(6)]
    given = [await register.workers.claim(recording) for recording in ids]
    assert sorted(map(str, given)) == ["a", "a", "a", "b", "b", "b"]
    assert sorted(map(str, given[:2])) == ["a", "b"]
    assert [await register.workers.claim(recording) for recording in ids] == given
    assert await register.workers.claim(new_id()) == ""


async def test_without_recorders_there_is_none_to_ask(register: Register) -> None:
    """Never there, gone for good, or silent for longer than its lease."""
    assert await register.workers.claim(new_id()) is None
    going = await register.recorder("going")
    await register.recorder("silent", lease_ms=100)
    assert await register.workers.loads() == {"going": b"going", "silent": b"silent"}
    await going.resign()
    await asyncio.sleep(0.15)
    assert await register.workers.claim(new_id()) is None
    assert await register.workers.loads() == {}


async def test_a_place_given_back_is_heard_with_the_next_beat(register: Register) -> None:
    """And is somebody else's at once."""
    lease = await register.recorder("a", places=2)
    kept, withdrawn = new_id(), new_id()
    for recording in (kept, withdrawn):
        assert await register.workers.claim(recording) == "a"
    await register.workers.release("a", withdrawn)
    assert await register.workers.claim(new_id()) == "a"
    assert await lease.beat(2, b"", [kept, withdrawn]) == [withdrawn]


async def test_a_redis_that_lost_everything_takes_nothing_back(register: Register) -> None:
    """Nobody withdrew: the places are taken anew, and can be given back again."""
    lease = await register.recorder("a", places=1)
    recording = new_id()
    assert await register.workers.claim(recording) == "a"
    await register.raw.flushall()
    assert await lease.beat(1, b"", [recording]) == []
    assert await register.workers.claim(new_id()) == ""
    await register.workers.release("a", recording)
    assert await lease.beat(1, b"", [recording]) == [recording]


async def test_a_place_whose_beginning_was_never_heard_of_becomes_free(register: Register) -> None:
    """Half a minute later: its worker died in between."""
    lease = await register.recorder("a", places=1)
    lost = new_id()
    assert await register.workers.claim(lost) == "a"
    assert await lease.beat(1, b"", []) == []
    assert await register.workers.claim(new_id()) == ""
    await register.raw.hincrby("v:{recorders}:made:a", lost, -31_000)
    assert await lease.beat(1, b"", []) == []
    assert await register.workers.claim(new_id()) == "a"
