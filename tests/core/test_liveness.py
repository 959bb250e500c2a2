"""The beats of a worker on a real Valkey: what keeps it alive for the others, whatever else there is to do."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from faults import Link, MortalValkey
from visavis.adapters.redis import DirectedBus, Keyspace, Recorders, State, connect
from visavis.adapters.sqlite import SqliteStore
from visavis.contract import IceServers, LobbyState, Why, Wire
from visavis.core import collections, liveness
from visavis.core.calling import CallBook, Calling
from visavis.core.conversations import Conversations
from visavis.core.identity import Guest, new_id, new_profile
from visavis.core.liveness import TOLD_AT_ONCE, Liveness, Lobby, Stats, Vitals
from visavis.core.matching import Policy
from visavis.core.matchmaking import Matchmaker
from visavis.core.ports import Member, Record
from visavis.core.tally import Unread

DEPARTURES = 2000
LEASE_MS = 3000
SLOW = 0.01
"""Seconds: all departures, one after the other, would take several leases."""


class Line:
    """A client, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def push(self, frame: bytes) -> None:
        self.heard.append(frame)

    def close(self, last_words: Wire | None = None) -> None:
        pass


class Sealer:
    def seal(self, record: Record, guest: str) -> str:
        return ""


def state(keys: Keyspace, worker: str) -> State:
    return State(keys, worker, session_ms=600_000, lease_ms=LEASE_MS, recent_ms=1000)


class Worker:
    """The parts of a worker that are without a door."""

    def __init__(self, keys: Keyspace, folder: Path) -> None:
        self.id = new_id()
        self.state = state(keys, self.id)
        self._bus = DirectedBus(keys, self.id)
        self._documents = SqliteStore(folder / "documents.sqlite", collections.ALL)
        nobody = LobbyState(online=0, waiting=0, popular=())
        book = CallBook(lambda guest: IceServers(servers=(), expires_in_ms=0), Unread(), relay=False)
        self.conversations = Conversations(
            self.id, self.state, self._bus, Sealer(), lambda push: b"", lambda: nobody, book, 30_000, Unread()
        )
        calling = Calling(
            *(self.conversations, book, self.state, Unread(), self._bus, Recorders(keys, self.id)),
            worker=self.id,
            ring_ms=30_000,
        )
        matchmaker = Matchmaker(
            *(self.id, self.conversations, self.state, self.state, self._documents, Policy(), ("text",), Unread())
        )
        self.lobby = Lobby(self.conversations, lambda push: b"%d" % getattr(push, "online", -1), 2, Vitals)
        self.liveness = Liveness(
            self.state,
            self.conversations,
            matchmaker,
            self.lobby,
            calling,
            self._documents,
            self._nothing,
        )

    async def _nothing(self) -> None:
        pass

    async def start(self) -> None:
        await self._bus.start(lambda data: None, self.liveness.hurry)
        await self.liveness.start()

    async def stop(self) -> None:
        await self.liveness.stop()
        await self.conversations.settle()
        await self._bus.stop()
        await self._documents.close()


@pytest.fixture
async def mortal() -> AsyncIterator[MortalValkey]:
    server = await MortalValkey().start()
    yield server
    await server.stop()


async def test_a_worker_whose_guests_all_leave_while_redis_is_away_and_then_slow_is_never_taken_for_dead(
    mortal: MortalValkey, tmp_path: Path
) -> None:
    """Clearing up takes as long as it takes; the lease does not wait for it."""
    link = await Link(mortal.port).start()
    near, far = connect(mortal.url), connect(f"redis://127.0.0.1:{link.port}")
    worker, other = Worker(far, tmp_path), state(near, "other")
    dead: list[str] = []

    async def guests() -> int:
        key = f"{near.prefix(0)}at:{worker.id}"
        count: int = await near.ask(key, lambda node: node.scard(key))
        return count

    try:
        await worker.start()
        peers = [
            await worker.conversations.connect(Guest(new_id(), new_id(), new_profile()), Line(), None)
            for _ in range(DEPARTURES)
        ]
        link.cut_after(0)
        for peer in peers:
            worker.conversations.disconnect(peer)
        await worker.conversations.settle()
        assert await guests() == DEPARTURES
        link.delay = SLOW
        link.mend()
        while await guests():
            dead += (await other.beat(b"{}")).dead
            await asyncio.sleep(0.05)
        assert dead == []
        assert not (await worker.state.beat(b"{}")).reborn
        assert worker.liveness.healthy
    finally:
        await worker.stop()
        await near.aclose()
        await far.aclose()
        await link.stop()


async def test_a_crowd_is_told_who_is_here_a_few_at_a_time(mortal: MortalValkey, tmp_path: Path) -> None:
    """So that nobody's words wait for it; who left or sat down meanwhile is not told, and newer numbers overtake."""
    keys = connect(mortal.url)
    worker = Worker(keys, tmp_path)
    rules, lobby = worker.conversations, worker.lobby

    def told(frame: bytes) -> list[int]:
        return [line.heard.count(frame) for line in lines]

    def here(online: int) -> dict[str, bytes]:
        return {"one": msgspec.json.encode(Stats(online=online))}

    lines = [Line() for _ in range(3 * TOLD_AT_ONCE)]
    try:
        await worker.state.beat(b"")
        peers = [await rules.connect(Guest(new_id(), new_id(), new_profile()), line, None) for line in lines]
        for peer in peers[1:]:
            rules.welcome(peer)
        lobby.update(here(7))
        assert sum(told(b"7")) == TOLD_AT_ONCE
        rules.disconnect(peers[2])
        members = tuple(Member(peer.guest.id, peer.guest.device, peer.guest.profile) for peer in peers[3:5])
        record = Record(new_id(), "text", members, Why(interests=(), languages=()), 1)
        rules.seat(record, {member.guest: worker.id for member in members})
        await settled()
        assert told(b"7") == [0, 1, 0, 0, 0] + [1] * (len(lines) - 5)
        # Two seconds have not passed.
        lobby.update(here(8))
        await settled()
        assert sum(told(b"8")) == 0
        for online in (9, 10):
            lobby._next = 0.0
            lobby.update(here(online))
        await settled()
        assert sum(told(b"9")) == TOLD_AT_ONCE
        assert told(b"10") == told(b"7")
    finally:
        await rules.settle()
        await keys.aclose()


async def test_the_larger_the_crowd_the_less_often_it_is_told(
    mortal: MortalValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has better things to do than to count for everybody."""
    monkeypatch.setattr(liveness, "TOLD_PER_SECOND", 2)
    keys = connect(mortal.url)
    worker = Worker(keys, tmp_path)
    rules = worker.conversations
    try:
        await worker.state.beat(b"")
        for _ in range(20):
            rules.welcome(await rules.connect(Guest(new_id(), new_id(), new_profile()), Line(), None))
        worker.lobby.update({"one": msgspec.json.encode(Stats(online=20))})
        assert 9 < worker.lobby._next - time.monotonic() <= 10
    finally:
        await rules.settle()
        await keys.aclose()


async def settled() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)
