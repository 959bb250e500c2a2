"""Seats, leases, the pool and the bus on a real Valkey: what two workers may believe at the same time, and what not.

What is about keys and scripts runs on one Valkey with one cell, and again in one of the cells of a Cluster of three.
"""

import asyncio
import contextlib
import itertools
import os
import random
import re
import time
import zlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from faults import Link, MortalValkey, open_files_of, within
from rig import PATIENCE, ROOT
from topologies import Cluster
from visavis.adapters import redis as adapter
from visavis.adapters.redis import DirectedBus, State, connect
from visavis.adapters.valkey import PrivateValkey
from visavis.contract import Profile, Why
from visavis.core import tasks
from visavis.core.identity import Guest, new_id
from visavis.core.matching import Ticket
from visavis.core.ports import (
    Connected,
    Count,
    Member,
    Present,
    Proposal,
    Queue,
    Record,
    StateFull,
    StateUnavailable,
    Upload,
)

LEASE_MS = 60_000
SESSION_MS = 600_000
CELLS = 6
TEXT = Queue("text", 0)


class Workers:
    """As many workers as a test asks for, on one empty Valkey or Cluster. All are in the first cell."""

    def __init__(self, url: str, cells: int = 1) -> None:
        self._url = url
        self._cells = cells
        self.everywhere = {} if cells == 1 else {"target_nodes": RedisCluster.PRIMARIES}
        self.keyspaces = [connect(url, cells)]
        self.raw: redis.Redis = (
            redis.Redis.from_url(url)
            if cells == 1
            else RedisCluster.from_url(url.replace("redis+cluster", "redis").partition(",")[0])
        )

    def keys(self, url: str = "") -> adapter.Keyspace:
        """A way to the keys that no other worker uses."""
        self.keyspaces.append(connect(url or self._url, self._cells))
        return self.keyspaces[-1]

    def key(self, name: str) -> str:
        return self.keyspaces[0].prefix(0) + name

    def add(self, name: str = "", *, lease_ms: int = LEASE_MS, recent_ms: int = 600_000, url: str = "") -> State:
        return State(self.keys(url), name or new_id(), session_ms=SESSION_MS, lease_ms=lease_ms, recent_ms=recent_ms)

    async def started(self, name: str = "", *, lease_ms: int = LEASE_MS, recent_ms: int = 600_000) -> State:
        state = self.add(name, lease_ms=lease_ms, recent_ms=recent_ms)
        await state.beat(b"{}")
        return state

    async def stop(self) -> None:
        for one in [*self.keyspaces, self.raw]:
            await one.aclose()

    async def everything(self) -> dict[bytes, bytes]:
        """Every key with its whole value."""
        return {key: await self.raw.dump(key) async for key in self.raw.scan_iter(count=1000)}


@pytest.fixture
async def single(valkey: PrivateValkey) -> AsyncIterator[Workers]:
    made = Workers(valkey.url)
    await made.raw.flushall()
    yield made
    await made.stop()


@pytest.fixture(params=["single", "cluster"])
async def workers(request: pytest.FixtureRequest, valkey: PrivateValkey, cluster: Cluster) -> AsyncIterator[Workers]:
    made = Workers(valkey.url) if request.param == "single" else Workers(cluster.url, CELLS)
    await made.raw.flushall()
    yield made
    await made.stop()


def id_here() -> str:
    """A new id that belongs to the first cell, also of several."""
    while zlib.crc32((made := new_id()).encode()) % CELLS:
        pass
    return made


def new_guest() -> Guest:
    return Guest(id_here(), new_id(), Profile(name="Amber Fox", hue=15))


def record_of(*guests: Guest) -> Record:
    members = tuple(Member(g.id, g.device, g.profile) for g in guests)
    return Record(id_here(), "text", members, Why(interests=(), languages=("en",)), 1)


async def enter(state: State, guest: Guest, epoch: int) -> str:
    """Have a connected guest wait; returns the ticket's id."""
    ticket = Ticket(
        id=new_id(),
        guest=guest.id,
        worker="",
        interests=("jazz",),
        languages=("en",),
        aliases=(guest.id, guest.device),
        avoid=frozenset(),
        since=0,
    )
    outcome, _ = await state.enter(TEXT, ticket, Member(guest.id, guest.device, guest.profile), epoch)
    assert outcome == "ok"
    return ticket.id


async def come(state: State) -> tuple[Guest, int]:
    """A new guest, connected; returns the connection's epoch as well."""
    guest = new_guest()
    await state.create(guest)
    return guest, (await state.connect(guest, None)).epoch


async def waits(state: State) -> tuple[Guest, int, str]:
    """A new guest who waits: the guest, the epoch, the ticket's id."""
    guest, epoch = await come(state)
    return guest, epoch, await enter(state, guest, epoch)


async def seat(state: State, other: State | None = None) -> tuple[Record, tuple[Guest, int], tuple[Guest, int]]:
    """Two new guests in a conversation, each on its worker."""
    (a, epoch_a, ticket_a), (b, epoch_b, ticket_b) = await waits(state), await waits(other or state)
    record = record_of(a, b)
    (places,) = await state.claim(TEXT, [Proposal(record, (ticket_a, ticket_b))])
    assert places is not None
    return record, (a, epoch_a), (b, epoch_b)


# --------------------------------------------------------------------------- coming and going


async def test_each_connection_has_a_higher_epoch_and_displaces_the_one_before(workers: Workers) -> None:
    """The old worker learns nothing from its own late farewell."""
    one, two = await workers.started("one"), await workers.started("two")
    guest, first = await come(one)
    found = await two.connect(guest, None)
    assert found.epoch > first
    assert found.displaced == "one"
    assert await one.disconnect([(guest.id, first)]) == [None]
    assert (await two.touch([(guest.id, found.epoch)]))[0].state == "ok"
    assert (await one.touch([(guest.id, first)]))[0].state == "replaced"


async def test_a_connection_whose_answer_was_lost_is_told_apart_from_a_replaced_one(workers: Workers) -> None:
    """Redis has an epoch that the worker never heard of, but that was given to this very worker: it asks again."""
    one, two = await workers.started("one"), await workers.started("two")
    guest, known = await come(one)
    await one.connect(guest, None)
    assert (await one.touch([(guest.id, known)]))[0].state == "missing"
    await two.connect(guest, None)
    assert (await one.touch([(guest.id, known)]))[0].state == "replaced"


async def test_a_connection_whose_answer_was_lost_can_be_ended_without_knowing_it(workers: Workers) -> None:
    """Its epoch is unknown, its worker is not. One on another worker stays."""
    one, two = await workers.started("one"), await workers.started("two")
    _, (a, _), (b, epoch_b) = await seat(one)
    await one.connect(a, None)
    await two.connect(b, None)
    assert await one.disconnect([(a.id, 0), (b.id, 0), (b.id, epoch_b)]) == [{b.id: "two"}, None, None]
    assert (await two.connect(b, None)).workers == {a.id: ""}


async def test_a_seat_waits_for_its_guest(workers: Workers) -> None:
    """Away for the others, and found again by a connection on another worker."""
    one, two = await workers.started("one"), await workers.started("two")
    record, (a, epoch), (b, _) = await seat(one)
    assert await one.disconnect([(a.id, epoch)]) == [{b.id: "one"}]
    assert (await one.touch([(b.id, (await one.connect(b, None)).epoch)]))[0].workers == {a.id: ""}
    found = await two.connect(a, None)
    assert found.record == record
    assert found.workers == {b.id: "one"}


async def test_an_ended_conversation_has_no_seats_and_is_remembered_for_a_while(workers: Workers) -> None:
    """Its record serves reports; nobody can sit down in it again, also not with a claim."""
    one = await workers.started("one")
    record, (a, _), (b, _) = await seat(one)
    assert await one.end(record.id, id_here()) is None
    assert await one.end(record.id, a.id) == {b.id: "one"}
    assert await one.end(record.id, b.id) is None
    assert await one.record(record.id) == record
    assert await one.record(record.id, live=True) is None
    assert (await one.connect(b, record)).record is None


async def test_a_conversation_is_given_up_only_after_its_member_was_away_that_long(workers: Workers) -> None:
    """By Redis's clock, whatever the asking worker believes."""
    one = await workers.started("one")
    record, (a, epoch), (b, _) = await seat(one)
    assert await one.end(record.id, a.id, away_for=0) is None, "is here"
    await one.disconnect([(a.id, epoch)])
    assert await one.end(record.id, a.id, away_for=60_000) is None, "not for so long"
    assert await one.end(record.id, a.id, away_for=0) == {b.id: "one"}


async def test_a_claim_brings_a_conversation_back_after_redis_lost_everything(workers: Workers) -> None:
    """Whoever returns first finds the other away; the second finds the first."""
    one, two = await workers.started("one"), await workers.started("two")
    record, (a, epoch), (b, _) = await seat(one, two)
    await workers.raw.flushall()
    assert (await one.touch([(a.id, epoch)]))[0].state == "missing"
    await one.beat(b"{}")
    await two.beat(b"{}")
    first = await one.connect(a, record)
    assert (first.record, first.workers) == (record, {b.id: ""})
    second = await two.connect(b, record)
    assert (second.record, second.workers) == (record, {a.id: "one"})


async def test_an_epoch_is_not_given_out_again_after_redis_lost_everything(workers: Workers) -> None:
    """Else an old connection on one worker and a new one on another would take the guest from each other for ever."""
    one, two = await workers.started("one"), await workers.started("two")
    guest, old = await come(one)
    await workers.raw.flushall()
    for state in (one, two):
        await state.beat(b"{}")
    new = (await two.connect(guest, None)).epoch
    assert (await one.touch([(guest.id, old)]))[0].state == "replaced"
    assert (await two.touch([(guest.id, new)]))[0].state == "ok"


async def test_a_conversation_brought_back_does_not_count_on_who_has_gone_elsewhere(workers: Workers) -> None:
    """The other member left it before Redis forgot, and sits in another one now: away here, and given up."""
    one = await workers.started("one")
    old, (a, _), (b, _) = await seat(one)
    await workers.raw.flushall()
    await one.beat(b"{}")
    epoch = (await one.connect(a, None)).epoch
    ticket = await enter(one, a, epoch)
    c, _, other = await waits(one)
    assert (await one.claim(TEXT, [Proposal(record_of(a, c), (ticket, other))]))[0]
    found = await one.connect(b, old)
    assert (found.record, found.workers) == (old, {a.id: ""})
    assert await one.end(old.id, a.id, away_for=600_000) == {b.id: "one"}
    assert (await one.touch([(a.id, epoch)]))[0].workers == {c.id: "one"}


async def test_a_conversation_that_redis_lost_can_be_ended_and_not_brought_back(workers: Workers) -> None:
    """Who leaves before anybody was missed has left, also for the partner's claim; without its record, nothing ends."""
    one, two = await workers.started("one"), await workers.started("two")
    record, (a, _), (b, _) = await seat(one, two)
    await workers.raw.flushall()
    await one.beat(b"{}")
    assert await one.end(record.id, a.id) is None
    assert await workers.raw.keys(workers.key("conversation:*")) == []
    assert await one.end(record.id, a.id, lost=record) == {b.id: ""}
    assert (await two.connect(b, record)).record is None
    assert await two.record(record.id) == record
    assert 0 < await workers.raw.pttl(workers.key(f"conversation:{record.id}")) <= 3_600_000


async def test_a_lost_script_is_loaded_again(workers: Workers) -> None:
    """SCRIPT FLUSH is no news to anybody."""
    one = await workers.started("one")
    guest, epoch = await come(one)
    await workers.raw.script_flush()
    assert (await one.touch([(guest.id, epoch)]))[0].state == "ok"


# --------------------------------------------------------------------------- the pool


async def test_waiting_again_keeps_the_place_in_time(workers: Workers) -> None:
    """A guest who changes the wishes does not go to the end of the queue; the old ticket is worth nothing."""
    one = await workers.started("one")
    guest, epoch, old = await waits(one)
    before, _, _ = await one.waiting(TEXT)
    await asyncio.sleep(0.01)
    new = await enter(one, guest, epoch)
    after, members, now = await one.waiting(TEXT)
    assert [t.id for t in after] == [new]
    assert after[0].since == before[0].since < now
    assert members[guest.id].device == guest.device
    other, _, ticket = await waits(one)
    assert await one.claim(TEXT, [Proposal(record_of(guest, other), (old, ticket))]) == [None]


async def test_a_replaced_connection_cannot_begin_to_wait(workers: Workers) -> None:
    """Also on the same worker: its request was still on the way when the newer connection came."""
    one = await workers.started("one")
    guest, old = await come(one)
    new = (await one.connect(guest, None)).epoch
    ticket = Ticket(new_id(), guest.id, "one", (), (), (guest.id,), frozenset(), 0)
    member = Member(guest.id, guest.device, guest.profile)
    assert await one.enter(TEXT, ticket, member, old) == ("replaced", 0)
    assert (await one.waiting(TEXT))[0] == []
    assert (await one.enter(TEXT, ticket, member, new))[0] == "ok"


async def test_who_cannot_be_met_is_not_matched(workers: Workers) -> None:
    """Gone, cancelled, on a dead worker, in a conversation, or the same guest twice."""
    one, brief = await workers.started("one"), await workers.started("brief", lease_ms=500)
    here, here_epoch, here_ticket = await waits(one)

    async def refused(guest: Guest, ticket: str) -> bool:
        proposal = Proposal(record_of(here, guest), (here_ticket, ticket))
        return await one.claim(TEXT, [proposal]) == [None]

    gone, epoch, ticket = await waits(one)
    await one.disconnect([(gone.id, epoch)])
    assert await refused(gone, ticket)
    cancelled, _, ticket = await waits(one)
    await one.leave(cancelled.id)
    assert await refused(cancelled, ticket)
    stranded, _, ticket = await waits(brief)
    await workers.raw.delete(workers.key("worker:brief"))
    assert await refused(stranded, ticket)
    assert await refused(here, here_ticket)
    _, (seated, _), _ = await seat(one)
    assert await refused(seated, ticket)
    tickets, _, _ = await one.waiting(TEXT)
    assert [t.id for t in tickets] == [here_ticket]
    assert (await one.touch([(here.id, here_epoch)]))[0].searching


async def test_a_ticket_whose_session_ran_out_is_proposed_once_and_never_again(workers: Workers) -> None:
    """Its worker died with all others, and nobody cleared up after it before the session's time was over."""
    one = await workers.started("one")
    (here, _, here_ticket), (gone, _, ticket) = await waits(one), await waits(one)
    await workers.raw.delete(workers.key(f"guest:{gone.id}"))
    assert await one.claim(TEXT, [Proposal(record_of(here, gone), (here_ticket, ticket))]) == [None]
    assert [t.id for t in (await one.waiting(TEXT))[0]] == [here_ticket]
    assert await workers.raw.hkeys(workers.key("tickets:text")) == [here.id.encode()]


async def test_two_rounds_that_propose_the_same_guests_cannot_both_win(workers: Workers) -> None:
    """However often two workers race: every ticket is used at most once, and everyone has exactly one partner."""
    one, two = await workers.started("one"), await workers.started("two")
    chance = random.Random(7)
    for _ in range(12):
        people = [await waits(chance.choice((one, two))) for _ in range(16)]

        def proposals(people: list[tuple[Guest, int, str]] = people) -> list[Proposal]:
            shuffled = chance.sample(people, len(people))
            return [
                Proposal(record_of(a, b), (ticket_a, ticket_b))
                for (a, _, ticket_a), (b, _, ticket_b) in zip(shuffled[::2], shuffled[1::2], strict=True)
            ]

        asked = [(state, [proposal]) for state in (one, two, one, two) for proposal in proposals()]
        chance.shuffle(asked)
        answers = await asyncio.gather(*(state.claim(TEXT, some) for state, some in asked))
        won = [some[0] for (_, some), answer in zip(asked, answers, strict=True) if answer[0] is not None]
        matched = [member.guest for proposal in won for member in proposal.record.members]
        assert len(matched) == len(set(matched))
        for proposal in won:
            for member in proposal.record.members:
                seat_of = await workers.raw.hget(workers.key(f"guest:{member.guest}"), "conversation")
                assert seat_of.decode() == proposal.record.id


async def test_nobody_is_ever_in_two_conversations(workers: Workers) -> None:
    """Guests skip, leave, reconnect and are matched from eight sides at once; every live seat is where Redis says."""
    states = [await workers.started(f"w{n}", recent_ms=0) for n in range(2)]
    guests = [new_guest() for _ in range(8)]
    for guest in guests:
        await states[0].create(guest)
    chance = random.Random(11)
    began: set[str] = set()

    async def side(guest: Guest) -> None:
        state = chance.choice(states)
        epoch = (await state.connect(guest, None)).epoch
        for _ in range(60):
            act = chance.randrange(4)
            if act == 0:
                state = chance.choice(states)
                epoch = (await state.connect(guest, None)).epoch
            elif act == 1:
                (touched,) = await state.touch([(guest.id, epoch)])
                if touched.conversation:
                    await state.end(touched.conversation, guest.id)
            elif act == 2:
                with contextlib.suppress(AssertionError):
                    await enter(state, guest, epoch)
            tickets, members, _ = await state.waiting(TEXT)
            pairs = list(itertools.combinations(tickets, 2))
            for a, b in chance.sample(pairs, min(3, len(pairs))):
                record = Record(
                    id_here(), "text", (members[a.guest], members[b.guest]), Why(interests=(), languages=()), 1
                )
                if (await state.claim(TEXT, [Proposal(record, (a.id, b.id))]))[0] is not None:
                    began.add(record.id)

    async def watch() -> None:
        while True:
            # One script, so that it sees one instant.
            seen = await workers.raw.eval(
                """local seen = {}
                for _, key in ipairs(redis.call('KEYS', KEYS[1] .. 'conversation:*')) do
                  if redis.call('HGET', key, 'state') == 'live' then
                    seen[#seen + 1] = redis.call('HGET', key, 'members')
                  end
                end
                return seen""",
                1,
                workers.key(""),
            )
            seated = [guest for members in seen for guest in members.split()]
            assert len(seated) == len(set(seated))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(side, guests))
    assert not watching.done(), watching.exception()
    await tasks.end([watching])
    assert len(began) > 20


async def test_one_worker_at_a_time_holds_the_round(workers: Workers) -> None:
    """Only the holder can give it back, and it runs out by itself."""
    one, two = await workers.started("one"), await workers.started("two")
    assert await one.hold(TEXT)
    assert not await two.hold(TEXT)
    await two.release(TEXT)
    assert not await two.hold(TEXT)
    await one.release(TEXT)
    assert await two.hold(TEXT)
    assert 0 < await workers.raw.pttl(workers.key("round:text")) <= adapter.ROUND_LEASE_MS


# --------------------------------------------------------------------------- leases


async def test_a_silent_worker_is_found_dead_once_and_its_guests_are_away(workers: Workers) -> None:
    """One of the living is told, clears up, and the tickets of the dead are gone."""
    one, brief = await workers.started("one"), await workers.started("brief", lease_ms=500)
    record, (a, _), (b, _) = await seat(brief, one)
    await waits(brief)
    assert (await one.beat(b"{}")).dead == []
    async with within(5), asyncio.timeout(PATIENCE):
        while not (dead := (await one.beat(b"{}")).dead):
            await asyncio.sleep(0.05)
    assert dead == ["brief"]
    assert (await one.beat(b"{}")).dead == []
    assert await one.reap("brief") == [(a.id, record.id, {b.id: "one"})]
    assert await one.reap("brief") == []
    assert (await one.waiting(TEXT))[0] == []
    assert "brief" not in (await one.beat(b"{}")).stats


async def test_a_worker_that_was_only_asleep_takes_its_guests_back(workers: Workers) -> None:
    """Unless they have connected elsewhere meanwhile."""
    one, brief = await workers.started("one"), await workers.started("brief", lease_ms=500)
    record, (stays, epoch), (moves, other) = await seat(brief)
    await workers.raw.delete(workers.key("worker:brief"))
    await workers.raw.zadd(workers.key("workers"), {"brief": 1})
    assert (await one.beat(b"{}")).dead == ["brief"]
    await one.reap("brief")
    await one.connect(moves, None)
    assert (await brief.beat(b"{}")).reborn
    assert not (await brief.beat(b"{}")).reborn
    back, replaced = await brief.touch([(stays.id, epoch), (moves.id, other)])
    assert (back.state, back.conversation, back.workers) == ("back", record.id, {moves.id: "one"})
    assert replaced.state == "replaced"


async def test_a_worker_that_asks_lives_before_its_first_beat(workers: Workers) -> None:
    """Redis came back empty: who connects or waits again is here, and can be met, whichever worker is the first."""
    one, two = workers.add("one"), workers.add("two")
    record, *_ = await seat(one, two)
    assert len(record.members) == 2
    (a, epoch), _ = await come(one), await come(two)
    await workers.raw.delete(workers.key("worker:one"))
    ticket = await enter(one, a, epoch)
    b, epoch_b, other = await waits(two)
    await workers.raw.delete(workers.key("worker:two"))
    await two.touch([(b.id, epoch_b)])
    assert await two.claim(TEXT, [Proposal(record_of(a, b), (ticket, other))]) == [{a.id: "one", b.id: "two"}]
    assert (await one.beat(b"{}")).reborn


async def test_a_worker_that_resigned_is_nobodys_dead(workers: Workers) -> None:
    """It leaves neither a lease nor statistics."""
    one, two = await workers.started("one"), await workers.started("two")
    await two.resign()
    beat = await one.beat(b"{}")
    assert beat.dead == []
    assert set(beat.stats) == {"one"}


# --------------------------------------------------------------------------- limits


async def test_memory_that_ran_out_is_told_apart_and_leaves_nothing_half_done(workers: Workers) -> None:
    """What would grow is refused whole; leaving, parting and touching still work."""
    one = await workers.started("one")
    record, (a, epoch), (b, _) = await seat(one)
    (c, epoch_c, ticket_c), (d, _, ticket_d) = await waits(one), await waits(one)
    before = await workers.everything()
    await workers.raw.config_set("maxmemory", 1, **workers.everywhere)
    try:
        with pytest.raises(StateFull):
            await one.claim(TEXT, [Proposal(record_of(c, d), (ticket_c, ticket_d))])
        with pytest.raises(StateFull):
            await one.connect(new_guest(), None)
        with pytest.raises(StateFull):
            await one.create(new_guest())
        with pytest.raises(StateFull):
            await adapter.Counters(workers.keys(), "one").count([Count("guests:x", 1, 3, 1000)])
        assert await workers.everything() == before
        await workers.raw.delete(workers.key("worker:one"))
        await one.beat(b"{}")
        assert (await one.touch([(a.id, epoch)]))[0].workers == {b.id: "one"}
        assert await one.end(record.id, a.id) == {b.id: "one"}
        await one.leave(d.id)
        assert await one.disconnect([(c.id, epoch_c)]) == [{}]
    finally:
        await workers.raw.config_set("maxmemory", 0, **workers.everywhere)
    assert (await one.waiting(TEXT))[0] == []


async def test_every_key_is_documented_and_ends_by_itself(workers: Workers) -> None:
    """After a busy run; those without a time to live are the ones the module says leave in another way."""
    one, two = await workers.started("one"), await workers.started("two")
    record, (a, epoch), _ = await seat(one, two)
    await one.disconnect([(a.id, epoch)])
    for _ in range(2):
        # Connected and gone in the wrong order, alone on its worker.
        epochs = [(await two.connect(a, record)).epoch for _ in range(2)]
        await two.disconnect([(a.id, epochs[0])])
    await seat(one)
    ended, (b, _), _ = await seat(two)
    await two.end(ended.id, b.id)
    await waits(one)
    await one.hold(TEXT)
    counters = adapter.Counters(workers.keys(), "one")
    await counters.count([Count("x", 1, 3, 10_000)])
    await counters.present([Present("x", 1)], 10_000)
    await one.touch([(a.id, 1), (b.id, 1)])
    await one.reap("two")
    recorder = adapter.Recorders(workers.keys(), "recorder")
    await recorder.beat(1, b"{}", [])
    assert await recorder.claim("recording") == "recorder"
    ledger = adapter.Ledger(workers.keys())
    third, (c, _), _ = await seat(one)
    for file in (id_here(), id_here()):
        upload = Upload(file=file, guest=c.id, conversation=third.id, name="n", bytes=1, voice=False, expires_at=60_000)
        await ledger.begin(upload, 0, 1, 10, 100)
        await ledger.append(file, 0, 1, f"parts/{file}", now=0, give_up_at=1, check_at=1, most=9)
        assert await ledger.check(file, "token", 60_000) == 1
    await ledger.sweeps(60_000)
    board = adapter.Board(workers.keys())
    await board.leave("one", b"text", 15_000)
    assert await board.read(["one", "two"]) == {"one": b"text"}

    documented = dict(re.findall(r"^  (\w+)(?::\{\w+\})? +(.*)$", adapter.__doc__ or "", re.MULTILINE))
    without_end = {name for name, about in documented.items() if "TTL" not in about and "(" in about} - {
        "round",
    }
    assert without_end == {"workers", "stats", "waiting", "tickets", "recorders", "files"}
    seen = set()
    async for key in workers.raw.scan_iter(count=1000):
        prefix, name = re.sub(r"\{.*?\}:", "", key.decode()).split(":")[:2]
        assert prefix == "v"
        assert name in documented, key
        seen.add(name)
        if name not in without_end:
            assert await workers.raw.pttl(key) > 0, key
    assert seen == set(documented)
    table = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(?:v:)?(\w+)", table, re.MULTILINE)) == seen


# --------------------------------------------------------------------------- Redis away


async def test_a_server_that_is_gone_shows_as_unavailable_and_back_as_before(single: Workers) -> None:
    """Within moments either way; nothing has to be restarted."""
    mortal = await MortalValkey().start()
    try:
        state = single.add("one", url=mortal.url)
        await state.beat(b"{}")
        await mortal.kill()
        for ask in (state.ping(), state.beat(b"{}"), state.record(new_id()), state.connect(new_guest(), None)):
            with pytest.raises(StateUnavailable):
                await ask
        await mortal.start()
        assert (await state.beat(b"{}")).reborn
    finally:
        await mortal.stop()


# --------------------------------------------------------------------------- the bus


def nothing(cell: int) -> None:
    """What a test does on healing that does not ask about it."""


async def test_notes_arrive_in_order_at_their_worker_alone(workers: Workers) -> None:
    """Two thousand of them, small and large, from two senders."""
    buses = [DirectedBus(workers.keys(), f"w{n}") for n in range(3)]
    about = id_here()
    heard: list[list[bytes]] = [[], [], []]
    for bus, ears in zip(buses, heard, strict=True):
        await bus.start(ears.append, nothing)
    sent: dict[int, list[bytes]] = {0: [], 1: []}
    for number in range(1000):
        for sender in (0, 1):
            note = b"%d %d " % (sender, number) + b"x" * (number % 7 * 1000)
            sent[sender].append(note)
            buses[sender].send("w2", note, about)
        if number % 50 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        while len(heard[2]) < 2000:
            await asyncio.sleep(0.01)
    for sender in (0, 1):
        assert [note for note in heard[2] if note.startswith(b"%d " % sender)] == sent[sender]
    assert heard[0] == heard[1] == []
    for bus in buses:
        await bus.stop()


async def test_a_link_gone_dark_is_noticed_and_heals(single: Workers) -> None:
    """Open, yet silent: not ready within five seconds, and hearing again soon after the light returns."""
    mortal = await MortalValkey().start()
    link = await Link(mortal.port).start()
    ears = DirectedBus(single.keys(f"redis://127.0.0.1:{link.port}"), "ears")
    mouth = DirectedBus(single.keys(mortal.url), "mouth")
    heard: list[bytes] = []
    healed: list[float] = []
    loop = asyncio.get_running_loop()
    try:
        await ears.start(heard.append, lambda _: healed.append(loop.time()))
        await mouth.start(heard.append, nothing)
        assert ears.healthy
        link.darken()
        async with within(5), asyncio.timeout(PATIENCE):
            while ears.healthy:
                await asyncio.sleep(0.02)
        assert mouth.healthy
        mouth.send("ears", b"lost", "")
        await asyncio.sleep(0.5)
        assert not ears.healthy
        link.lighten()
        async with within(5), asyncio.timeout(PATIENCE):
            while not ears.healthy:
                await asyncio.sleep(0.02)
        assert len(healed) == 2
        mouth.send("ears", b"found", "")
        async with within(2), asyncio.timeout(PATIENCE):
            while b"found" not in heard:
                await asyncio.sleep(0.01)
    finally:
        for bus in (ears, mouth):
            await bus.stop()
        await link.stop()
        await mortal.stop()


async def test_mail_that_came_while_the_worker_slept_is_read_when_it_wakes(
    single: Workers,
) -> None:
    """For longer than the silence it would not bear awake: the link is not deaf, nobody looked."""
    ears = DirectedBus(single.keys(), "ears", beat=0.1, silence=0.3)
    heard: list[bytes] = []
    healed: list[None] = []
    await ears.start(heard.append, lambda _: healed.append(None))
    for number in range(3):
        await single.raw.spublish(single.key("bus:ears"), msgspec.msgpack.encode([b"%d" % number]))
        time.sleep(0.5)
        async with within(2), asyncio.timeout(PATIENCE):
            while len(heard) <= number:
                await asyncio.sleep(0.01)
    assert heard == [b"0", b"1", b"2"]
    assert len(healed) == 1
    await ears.stop()


async def test_a_bus_stops_at_once_whatever_is_under_way(workers: Workers) -> None:
    """A cancellation that comes as something arrives is not lost."""
    keys = workers.keys()
    for _ in range(30):
        bus = DirectedBus(keys, "one", beat=0.001)
        await bus.start(lambda note: None, nothing)
        bus.send("two", b"x", id_here())
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await bus.stop()


async def test_fifty_broken_connections_leave_no_file_descriptor_behind(single: Workers) -> None:
    """The listener's and the commands' alike."""
    mortal = await MortalValkey().start()
    keys = single.keys(mortal.url)
    state = State(keys, "one", session_ms=SESSION_MS, lease_ms=LEASE_MS, recent_ms=0)
    bus = DirectedBus(keys, "one", beat=0.02)
    try:
        await bus.start(lambda note: None, nothing)
        raw = redis.Redis.from_url(mortal.url)

        async def cut(times: int) -> None:
            for _ in range(times):
                await raw.client_kill_filter(_type="normal", skipme=True)
                await raw.client_kill_filter(_type="pubsub", skipme=True)
                await state.beat(b"{}")
                async with within(5), asyncio.timeout(PATIENCE):
                    # The listener has to have noticed first.
                    while len(await raw.pubsub_shardchannels()) < 1:
                        await asyncio.sleep(0.005)

        await cut(3)
        before = open_files_of(os.getpid())
        await cut(50)
        async with within(5), asyncio.timeout(PATIENCE):
            while not bus.healthy or open_files_of(os.getpid()) > before + 3:
                await asyncio.sleep(0.02)
        await raw.aclose()
    finally:
        await bus.stop()
        await mortal.stop()


async def test_what_is_not_sent_is_bounded(single: Workers) -> None:
    """A worker that cannot reach Redis drops notes and counts them, instead of growing."""
    bus = DirectedBus(single.keys(), "one", most_unsent=1000)
    for _ in range(5):
        bus.send("two", b"x" * 300, "")
    assert bus.dropped == 2


async def test_the_found_seat_is_what_the_port_promises(workers: Workers) -> None:
    """The first connection of a new guest displaces nobody and has no seat."""
    one = await workers.started("one")
    guest = new_guest()
    await one.create(guest)
    found = await one.connect(guest, None)
    assert found == Connected(found.epoch, "", None, {})
