"""Workers on a Redis that Sentinels watch, and on a Cluster: who talks goes on talking while servers die."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chaos.test_healing import arrives, both_ways, until_ready
from crowd import Crowd
from rig import Guest, Service, TurnedAway, Worker, get_guest
from topologies import Cluster, Sentinels
from visavis.adapters.redis import connect

pytestmark = pytest.mark.asyncio(loop_scope="session")

CELLS = 6
SECONDS = 30
"""For a failover, on a busy machine; alone it takes two or three."""


class Deployment(Service):
    """Two workers on a Redis of some topology."""

    def __init__(self, folder: Path, redis: Sentinels | Cluster, **environment: str) -> None:
        super().__init__(folder, VISAVIS_RECENT_SECONDS="0", **environment)
        self.redis = redis

    async def start(self, workers: int = 2) -> "Deployment":
        await self.redis.start()
        self.valkey.url = self.redis.url
        await asyncio.gather(*(self.add() for _ in range(workers)))
        return self

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        await self.redis.stop()


def id_of(guest: Guest) -> str:
    """A guest's id, from the token."""
    body = guest.created["token"].split(".")[1]
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return str(told["sub"])


async def find(crowd: Crowd, guest: Guest) -> None:
    """Search, as often as it takes."""
    async with asyncio.timeout(SECONDS):
        while "ok" not in (answer := await crowd.find(guest)):
            assert answer["error"]["code"] in ("unavailable", "busy"), answer
            await asyncio.sleep(0.1)


async def come_in(crowd: Crowd, url: str) -> Guest:
    """Enter, as often as it takes: a worker learns from a beat into which cells nobody new can be put."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await crowd.arrive(url)
            except TurnedAway as refused:
                if "unavailable" not in str(refused):
                    raise
                await asyncio.sleep(0.1)


# --------------------------------------------------------------------------- Sentinels


@pytest_asyncio.fixture(loop_scope="session")
async def watched(tmp_path: Path) -> AsyncIterator[Deployment]:
    made = Deployment(tmp_path, Sentinels())
    try:
        yield await made.start()
    finally:
        await made.stop()


async def test_a_conversation_outlives_the_death_of_the_primary(watched: Deployment, tongue: str) -> None:
    """Across two workers: it goes on within seconds of the failover, though the replica had never heard of it."""
    one, two = watched.workers
    crowd = Crowd(one.url, tongue)
    sentinels = watched.redis
    assert isinstance(sentinels, Sentinels)
    early, late = await crowd.arrive(), await crowd.arrive(two.url)
    kept = await crowd.meet(early, late)
    primary = await sentinels.primary()
    await primary.ask("WAIT", 1, 5000)
    # From now on the replica learns nothing; what comes about is lost with the primary.
    replica = next(server for server in sentinels.servers if server is not primary)
    await replica.ask("CONFIG", "SET", "repl-timeout", 60)
    async with sentinels.deaf(replica):
        a, b = await crowd.arrive(), await crowd.arrive(two.url)
        lost = await crowd.meet(a, b)
        searching = await crowd.arrive()
        await crowd.find(searching)
        await primary.kill()
    await asyncio.gather(
        arrives(early, late, kept, SECONDS),
        arrives(late, early, kept, SECONDS),
        arrives(a, b, lost, SECONDS),
        arrives(b, a, lost, SECONDS),
    )
    assert await sentinels.primary() is replica
    for worker in watched.workers:
        await until_ready(worker, True, SECONDS)
    # Both seats are known to the new primary: one is taken again on the other worker, and who searched still does.
    await b.hang_up()
    assert (await b.connect(one.url, claim=b.claim))["conversation"]["id"] == lost
    await arrives(a, b, lost, SECONDS)
    other = await crowd.arrive(two.url)
    await find(crowd, other)
    found = await other.next("match:found", timeout=SECONDS)
    assert (await searching.next("match:found", timeout=SECONDS))["conversation"]["id"] == found["conversation"]["id"]
    assert "conversation:ended" not in [name for guest in (early, late, a, b) for name, _ in guest.pushes]
    await crowd.leave()


# --------------------------------------------------------------------------- a Cluster


@pytest_asyncio.fixture(loop_scope="session")
async def shared_out(tmp_path: Path) -> AsyncIterator[Deployment]:
    made = Deployment(tmp_path, Cluster(), VISAVIS_CELLS=str(CELLS))
    try:
        yield await made.start()
    finally:
        await made.stop()


async def statuses(workers: list[Worker], path: str) -> list[int]:
    async with aiohttp.ClientSession() as http:
        return [(await http.get(f"{worker.url}{path}")).status for worker in workers]


async def test_guests_of_a_cluster_meet_within_their_cells_and_only_those_of_a_dead_server_notice(
    shared_out: Deployment, tongue: str
) -> None:
    """Others talk, across workers, search and come in; when the server is back, empty, its guests go on as well."""
    one, two = shared_out.workers
    cluster = shared_out.redis
    assert isinstance(cluster, Cluster)
    crowd = Crowd(one.url, tongue)
    keys = connect(cluster.url, CELLS)
    dead = await cluster.owner(keys.prefix(0))
    theirs = {cell for cell in range(CELLS) if await cluster.owner(keys.prefix(cell)) is dead}
    assert len(theirs) == 2
    # Of one cell on each server: two guests on each worker, of whom one each will talk.
    cells = [0, *sorted(set(range(CELLS)) - theirs)[::2]]
    seats: dict[tuple[int, int], list[Guest]] = {(cell, n): [] for cell in cells for n in (0, 1)}
    while any(len(guests) < 2 for guests in seats.values()):
        guest = Guest(one.url, await get_guest(one.url))
        places = [seats[place] for place in seats if place[0] == keys.cell(id_of(guest)) and len(seats[place]) < 2]
        if places:
            places[0].append(guest)
    for (_, n), guests in seats.items():
        for guest in guests:
            crowd.guests.append(guest)
            await guest.connect((one, two)[n].url)
    for guests in seats.values():
        await crowd.find(guests[0])
    talks: dict[int, str] = {}
    for cell in cells:
        a, b = seats[cell, 0][0], seats[cell, 1][0]
        talks[cell] = (await a.next("match:found"))["conversation"]["id"]
        assert (await b.next("match:found"))["conversation"]["id"] == talks[cell], "met across cells"
        assert keys.cell(talks[cell]) == cell
        await both_ways(a, b, talks[cell])

    await dead.kill()
    for cell in cells[1:]:
        await both_ways(seats[cell, 0][0], seats[cell, 1][0], talks[cell])
        a, b = seats[cell, 0][1], seats[cell, 1][1]
        await find(crowd, a)
        await find(crowd, b)
        found = await a.next("match:found")
        await both_ways(a, b, found["conversation"]["id"])
    assert (await crowd.find(seats[0, 0][1]))["error"]["code"] == "unavailable"
    # Nobody is sent away: what is said waits until it is back.
    assert seats[0, 0][0].connected
    assert seats[0, 1][0].connected
    assert await statuses([one, two], "/ready") == [200, 200]
    newcomers = [await come_in(crowd, worker.url) for worker in (one, two) for _ in range(4)]
    assert not {keys.cell(id_of(guest)) for guest in newcomers} & theirs

    await dead.start()
    a, b = seats[0, 0][0], seats[0, 1][0]
    await asyncio.gather(arrives(a, b, talks[0], SECONDS), arrives(b, a, talks[0], SECONDS))
    a, b = seats[0, 0][1], seats[0, 1][1]
    await find(crowd, a)
    await find(crowd, b)
    await a.next("match:found", timeout=SECONDS)
    await b.next("match:found", timeout=SECONDS)
    ended = [name for guests in seats.values() for guest in guests for name, _ in guest.pushes]
    assert "conversation:ended" not in ended
    await keys.aclose()
    await crowd.leave()
