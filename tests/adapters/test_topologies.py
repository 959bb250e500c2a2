"""Redis by Sentinels and as a Cluster, on real processes: who has which key, and what happens when that changes."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as redis
from redis.exceptions import MovedError

from faults import MortalValkey
from topologies import SERVICE, Cluster, Sentinels, until
from visavis.adapters.redis import Counters, DirectedBus, Keyspace, State, connect
from visavis.adapters.topology import LOOK_LEAST, Servers, client
from visavis.contract import Profile
from visavis.core.identity import Guest, new_id
from visavis.core.ports import Connected, Count, StateUnavailable

pytestmark = pytest.mark.asyncio(loop_scope="session")

CELLS = 6
SECONDS = 30
"""For a failover, on a busy machine; alone it takes two."""


def worker(keys: Keyspace, name: str = "one") -> State:
    return State(keys, name, session_ms=600_000, lease_ms=60_000, recent_ms=0)


def new_guest(keys: Keyspace, cell: int = 0) -> Guest:
    return Guest(keys.new_id(cell), new_id(), Profile(name="Amber Fox", hue=15))


async def come(state: State, guest: Guest) -> Connected:
    await state.create(guest)
    return await state.connect(guest, None)


class Ears:
    """A bus, and what came over it."""

    def __init__(self, keys: Keyspace, name: str = "one") -> None:
        self.bus = DirectedBus(keys, name)
        self.name = name
        self.heard: list[bytes] = []
        self.healed: list[int] = []

    async def start(self) -> "Ears":
        await self.bus.start(self.heard.append, self.healed.append)
        return self

    async def hears(self, about: str) -> None:
        """Send to oneself until it arrives, as healing does."""
        async with asyncio.timeout(SECONDS):
            note = new_id().encode()
            while note not in self.heard:
                self.bus.send(self.name, note, about)
                await asyncio.sleep(0.05)


# --------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1", "begin it with redis"),
        ("127.0.0.1:6379", "begin it with redis"),
        ("redis+swarm://127.0.0.1", "begin it with redis"),
        ("unix+cluster:///socket", "begin it with redis"),
        ("redis://:secret@127.0.0.1:port/0", "ort"),
        ("redis+sentinel://:secret@127.0.0.1:26379", "which primary"),
        ("redis+sentinel://127.0.0.1:26379,/main", "host:port"),
        ("redis+cluster://:secret@127.0.0.1:0", "host:port"),
        ("redis+cluster://127.0.0.1:7000,nowhere:x", "host:port"),
        ("redis+cluster://127.0.0.1:7000/3", "no other database"),
        ("redis+sentinel://127.0.0.1/main/two", "database"),
        ("redis+cluster://:secret@127.0.0.1?colour=blue", "option"),
        ("redis://:secret@127.0.0.1?colour=blue", "option"),
    ],
)
async def test_an_address_that_cannot_be_one_says_what_is_wrong_and_no_password(url: str, said: str) -> None:
    """Before anything is connected to."""
    with pytest.raises(ValueError, match=said) as refused:
        connect(url)
    assert "secret" not in str(refused.value)


async def test_equal_shares_of_the_slots_have_equal_shares_of_the_cells(cluster: Cluster) -> None:
    """Three servers of a Cluster have two of six cells each."""
    for cells in (3, 6, 16, 64):
        keys = connect(cluster.url, cells)
        slots = [await cluster.slot(keys.prefix(cell)) for cell in range(cells)]
        assert [slot * cells // 16384 for slot in slots] == list(range(cells))
        await keys.aclose()


# --------------------------------------------------------------------------- Sentinels


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched() -> AsyncIterator[Sentinels]:
    made = Sentinels()
    try:
        yield await made.start()
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def keys(watched: Sentinels) -> AsyncIterator[Keyspace]:
    made = connect(watched.url)
    yield made
    await made.aclose()


async def test_what_sentinels_name_is_asked_and_no_replica(watched: Sentinels, keys: Keyspace) -> None:
    """Whichever of them is asked first, and though some of those that are named do not exist."""
    state = worker(keys)
    guest = new_guest(keys)
    await come(state, guest)
    assert await (await watched.primary()).raw.exists(f"v:{{c0}}:guest:{guest.id}")
    gone = connect(watched.url.replace("redis+sentinel://", "redis+sentinel://127.0.0.1:1,127.0.0.1:2,"))
    assert (await worker(gone, "two").touch([(guest.id, 1)]))[0].state == "replaced"
    await gone.aclose()
    unknown = connect(watched.url.replace(f"/{SERVICE}", "/nobody"))
    with pytest.raises(StateUnavailable):
        await worker(unknown).ping()
    await unknown.aclose()


async def test_a_primary_that_hands_over_is_left_though_it_lives_on(watched: Sentinels, keys: Keyspace) -> None:
    """It takes itself for the primary yet, and what it takes is lost: nobody but the Sentinels can tell."""
    state = worker(keys)
    ears = await Ears(keys).start()
    guest = new_guest(keys)
    await come(state, guest)
    old = await watched.primary()
    await old.ask("WAIT", 1, 5000)
    await watched.hand_over()
    new = next(server for server in watched.servers if server is not old)
    async with asyncio.timeout(SECONDS):
        epoch = -1
        while int(await new.raw.hget(f"v:{{c0}}:guest:{guest.id}", "epoch") or 0) != epoch:
            with contextlib.suppress(StateUnavailable):
                epoch = (await state.connect(guest, None)).epoch
            await asyncio.sleep(0.05)
    await ears.hears(guest.id)
    await watched.settled(old)
    await ears.bus.stop()


async def test_a_new_primary_is_found_when_the_old_one_dies(watched: Sentinels, keys: Keyspace) -> None:
    """By commands and by the bus, without being told; what the replica had is there, and scripts are sent anew."""
    state = worker(keys)
    guest = new_guest(keys)
    epoch = (await come(state, guest)).epoch
    ears = await Ears(keys).start()
    old = await watched.primary()
    await old.ask("WAIT", 1, 5000)
    await old.kill()
    with pytest.raises(StateUnavailable):
        await state.ping()
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                (touched,) = await state.touch([(guest.id, epoch)])
                break
            except StateUnavailable:
                await asyncio.sleep(0.05)
    assert touched.state == "ok"
    await ears.hears(guest.id)
    assert ears.bus.healthy
    assert len(ears.healed) == 2
    new = await watched.primary()
    assert new is not old
    await ears.bus.stop()


async def test_one_server_behind_a_name_that_became_a_replica_is_connected_to_anew() -> None:
    """A managed Redis gives one address, and moves it: what is connected stays with the old server until it is cut."""
    server = await MortalValkey().start()
    raw, one = redis.Redis.from_url(server.url), connect(server.url)
    try:
        state = worker(one)
        await state.beat(b"{}")
        connected = int((await raw.info("stats"))["total_connections_received"])
        await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StateUnavailable, match="ReadOnly"):
            await state.beat(b"{}")
        assert int((await raw.info("stats"))["total_connections_received"]) > connected
        await raw.execute_command("REPLICAOF", "NO", "ONE")
        await state.beat(b"{}")
    finally:
        await one.aclose()
        await raw.aclose()
        await server.stop()


async def test_many_who_find_a_replica_do_not_cut_each_others_new_connections() -> None:
    """What one has opened anew, another whose error is of before leaves alone: there are answers to come on it."""
    server = await MortalValkey().start()
    raw, one = redis.Redis.from_url(server.url), connect(server.url)
    try:
        state = worker(one)
        await state.beat(b"{}")
        await raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        connected = int((await raw.info("stats"))["total_connections_received"])
        asking = []
        for _ in range(30):
            asking.append(asyncio.create_task(state.beat(b"{}")))
            await asyncio.sleep(0.002)
        for failed in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(failed, StateUnavailable)
            assert "ReadOnly" in str(failed)
        # Each asks three times, all together on a few connections.
        assert int((await raw.info("stats"))["total_connections_received"]) - connected < 10
    finally:
        await one.aclose()
        await raw.aclose()
        await server.stop()


class _Pointer:
    """Names one of two servers, and then the other: what a failover looks like at the worst possible moment."""

    def __init__(self, *ports: int) -> None:
        self._ports = list(ports)
        self._named: tuple[str, int] | None = None

    def address(self, key: str) -> tuple[str, int] | None:
        return self._named

    async def look(self) -> set[tuple[str, int]]:
        self._named = ("127.0.0.1", self._ports.pop(0))
        return {self._named}

    def moved(self, error: MovedError) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def test_nothing_stays_connected_to_a_server_that_went_out_of_use_before_it_was_asked() -> None:
    """Whoever was on the way there is told so, and finds the other one."""
    old, new = await MortalValkey().start(), await MortalValkey().start()
    raw = redis.Redis.from_url(old.url)
    servers = Servers(None, _Pointer(old.port, new.port), lambda at: client(f"redis://{at[0]}:{at[1]}", retries=0))
    try:
        node = await servers.owner("key")
        while await servers.owner("key") is node:
            await asyncio.sleep(LOOK_LEAST)
            await servers.look_again()
        with pytest.raises(redis.ConnectionError, match="another server"):
            await servers.run(node, [("PING",)])
        async with asyncio.timeout(SECONDS):
            while len(await raw.client_list()) > 1:
                await asyncio.sleep(0.02)
        assert await servers.run(await servers.owner("key"), [("PING",)]) == [b"PONG"]
    finally:
        await servers.aclose()
        await raw.aclose()
        await old.stop()
        await new.stop()


# --------------------------------------------------------------------------- a Cluster


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shards() -> AsyncIterator[Cluster]:
    """One with replicas, which tests may break and have to mend."""
    made = Cluster(replicas=True)
    try:
        yield await made.start()
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def places(shards: Cluster) -> AsyncIterator[Keyspace]:
    made = connect(shards.url, CELLS)
    yield made
    await made.aclose()


async def test_every_cell_is_on_one_server_and_every_server_has_some(shards: Cluster, places: Keyspace) -> None:
    """Guests, their conversations and files; a claim from before the number of cells was changed is worth nothing."""
    state = worker(places)
    owners = []
    for cell in range(CELLS):
        await state.beat(b"{}", cell)
        guest = new_guest(places, cell)
        assert state.cell(guest.id) == zlib.crc32(guest.id.encode()) % CELLS == cell
        await come(state, guest)
        owner = await shards.owner(places.prefix(cell))
        owners.append(owner)
        assert await owner.raw.exists(f"{places.prefix(cell)}guest:{guest.id}")
        assert await owner.raw.exists(f"{places.prefix(cell)}at:one")
    assert sorted(map(owners.count, {one.port: one for one in owners}.values())) == [2, 2, 2]


async def test_a_cell_may_move_to_another_server_while_guests_are_in_it(shards: Cluster, places: Keyspace) -> None:
    """All its keys at once, as Valkey 9 and Redis 8.4 do it: nothing is lost, and the bus follows."""
    state = worker(places)
    guest = new_guest(places)
    epoch = (await come(state, guest)).epoch
    ears = await Ears(places).start()
    before = await shards.owner(places.prefix(0))
    await shards.move(places.prefix(0))
    assert await shards.owner(places.prefix(0)) is not before
    assert (await state.touch([(guest.id, epoch)]))[0].state == "ok"
    await ears.hears(guest.id)
    await ears.bus.stop()


async def test_a_cell_that_is_moved_key_by_key_is_unavailable_until_it_has_arrived(
    shards: Cluster, places: Keyspace
) -> None:
    """A script that found half of a cell would believe that there is no more: so it does not run, here or there."""
    state = worker(places)
    guest = new_guest(places)
    epoch = (await come(state, guest)).epoch
    source, target, slot = await shards.begin_to_move(places.prefix(0))
    try:
        for ask in (state.touch([(guest.id, epoch)]), state.connect(guest, None), state.record(places.new_id(0))):
            with pytest.raises(StateUnavailable, match="Ask"):
                await ask
        assert not await target.raw.dbsize() or not [
            key async for key in target.raw.scan_iter(match=f"{places.prefix(0)}*")
        ]
    finally:
        await shards.finish_move(source, target, slot)
    assert (await state.touch([(guest.id, epoch)]))[0].state == "ok"


async def test_a_replica_that_takes_over_is_found_and_the_other_cells_notice_nothing(
    shards: Cluster, places: Keyspace
) -> None:
    """Commands and the bus alike."""
    state = worker(places)
    guests = [new_guest(places, cell) for cell in range(CELLS)]
    epochs = [(await come(state, guest)).epoch for guest in guests]
    ears = await Ears(places).start()
    old = await shards.owner(places.prefix(3))
    await old.ask("WAIT", 1, 5000)
    theirs = [cell for cell in range(CELLS) if await shards.owner(places.prefix(cell)) is old]
    await old.kill()
    others = [cell for cell in range(CELLS) if cell not in theirs]
    for cell in others:
        assert (await state.touch([(guests[cell].id, epochs[cell])]))[0].state == "ok"
        await ears.hears(guests[cell].id)
    assert ears.bus.healthy
    for cell in theirs:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    (touched,) = await state.touch([(guests[cell].id, epochs[cell])])
                    break
                except StateUnavailable:
                    await asyncio.sleep(0.05)
        assert touched.state == "ok"
        await ears.hears(guests[cell].id)
    assert sorted(set(ears.healed) & set(others)) == sorted(others)
    assert max(map(ears.healed.count, others)) == 1
    await ears.bus.stop()
    await old.start()
    await until(lambda: shards.well(old))


async def test_without_a_replica_only_the_cells_of_a_dead_server_are_away(places: Keyspace) -> None:
    """New guests get ids that belong to the others; who belongs there is told, quickly, and is not there after it."""
    broken = Cluster()
    await broken.start()
    keys = connect(broken.url, CELLS)
    try:
        state = worker(keys)
        ears = await Ears(keys).start()
        for cell in range(CELLS):
            await state.beat(b"{}", cell)
        dead = await broken.owner(keys.prefix(0))
        theirs = [cell for cell in range(CELLS) if await broken.owner(keys.prefix(cell)) is dead]
        assert len(theirs) == 2
        await dead.kill()
        for cell in range(CELLS):
            guest = new_guest(keys, cell)
            if cell in theirs:
                with pytest.raises(StateUnavailable):
                    await come(state, guest)
                with pytest.raises(StateUnavailable):
                    await state.beat(b"{}", cell)
            else:
                await state.beat(b"{}", cell)
                await come(state, guest)
                await ears.hears(guest.id)
        assert ears.bus.healthy
        assert {state.cell(state.new_guest()) for _ in range(200)} == set(range(CELLS)) - set(theirs)
        # What cannot be counted stops nobody.
        counted = await Counters(keys, "one").count([Count(new_id(), 1, 1, 60_000) for _ in range(30)])
        assert {said.wait_ms for said in counted} == {0}
        # Nor is it given back where it was not.
        assert {said.counted for said in counted} == {True, False}
        await dead.start()
        for cell in theirs:
            await ears.hears(keys.new_id(cell))
            await until(lambda cell=cell: _beats(state, cell))  # type: ignore[misc]
        assert {state.cell(state.new_guest()) for _ in range(400)} == set(range(CELLS))
        await ears.bus.stop()
    finally:
        await keys.aclose()
        await broken.stop()


async def _beats(state: State, cell: int) -> bool:
    try:
        await state.beat(b"{}", cell)
    except StateUnavailable:
        return False
    return True


async def test_counters_are_single_keys_wherever_they_lie(shards: Cluster, places: Keyspace) -> None:
    """Those of many guests are on all servers of a Cluster, are counted in one call, and for all workers."""
    one, two = Counters(places, "one"), Counters(places, "two")
    asked = [Count(new_id(), 1, 2, 60_000) for _ in range(30)]
    for counters, left in ((one, 1), (two, 0)):
        assert [(said.wait_ms, said.left) for said in await counters.count(asked)] == [(0, left)] * 30
    assert all(said.wait_ms > 0 for said in await one.count(asked))
    on = [await server.raw.keys("v:limit:*") for server in [*shards.primaries, *shards.replicas]]
    assert sum(map(bool, on)) >= 3
