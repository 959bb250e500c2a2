"""Two workers on one Redis that lose sight of each other, and of what they knew: in the end both believe the same."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import redis.asyncio as redis
import socketio

from crowd import Crowd
from faults import Link, MortalValkey, within
from rig import PATIENCE, ROOT, Guest, Service, Worker, get_guest
from visavis.core.identity import new_id
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]
_counted = itertools.count(1)


# --------------------------------------------------------------------------- two workers, one Redis


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mortal() -> AsyncIterator[MortalValkey]:
    """The Valkey under the workers; who stops or kills it starts it again."""
    server = await MortalValkey().start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(mortal: MortalValkey, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Two workers that outlive every test here; strangers may meet again at once, so that a few make many matches."""
    running = Service(
        tmp_path_factory.mktemp("workers"),
        VISAVIS_BUCKET_SIZE="100000",
        VISAVIS_BUCKET_PER_SECOND="100000",
        VISAVIS_RECENT_SECONDS="0",
    )
    running.valkey = mortal
    for _ in range(2):
        await running.add()
    yield running
    for worker in running.workers:
        await worker.stop()


@pytest.fixture
def other(service: Service) -> Worker:
    """The second of the two workers."""
    return service.workers[1]


async def told(guest: Guest, state: str, timeout: float = 5) -> dict[str, Any]:
    """Wait until a guest is told that the partner is `here` or `away`."""
    return await guest.next("conversation:partner", lambda push: push["state"] == state, timeout)


async def passes(speaker: Guest, listener: Guest, conversation: str) -> None:
    """Something said once arrives at the other."""
    words = f"number {next(_counted)}"
    assert "ok" in await speaker.say(conversation, 1, words)
    await listener.next("chat:message", lambda push: push["body"]["text"] == words, 2)


async def arrives(speaker: Guest, listener: Guest, conversation: str, within_seconds: float) -> None:
    """Something said, and said again as clients do until its receipt comes, arrives at the other."""
    words, message_id = f"number {next(_counted)}", new_id()
    heard = asyncio.create_task(
        listener.next("chat:message", lambda push: push["id"] == message_id, timeout=within_seconds)
    )
    while not heard.done():
        await speaker.say(conversation, 1, words, message_id)
        await asyncio.wait({heard}, timeout=0.1)
    assert (await heard)["body"]["text"] == words


async def both_ways(a: Guest, b: Guest, conversation: str) -> None:
    await passes(a, b, conversation)
    await passes(b, a, conversation)


async def ready(worker: Worker) -> tuple[int, dict[str, bool]]:
    """What a worker answers to whom asks whether guests can be served: the status, and each part's state."""
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/ready") as response:
        return response.status, (await response.json())["parts"]


async def until_ready(worker: Worker, wanted: bool, timeout: float) -> dict[str, bool]:
    """Wait for a worker to report that it is ready, or that it is not; returns the state of its parts then."""
    async with asyncio.timeout(timeout):
        while True:
            status, parts = await ready(worker)
            if (status == 200) is wanted:
                return parts
            await asyncio.sleep(0.05)


def process_of(server: MortalValkey) -> asyncio.subprocess.Process:
    assert server._process is not None
    return server._process


# --------------------------------------------------------------------------- between workers


async def test_the_newest_connection_of_a_guest_wins_on_whatever_worker(crowd: Crowd, other: Worker) -> None:
    """The old one is told that it was replaced; the partner is told once more that the guest is here."""
    a, b = await crowd.arrive(), await crowd.arrive()
    conversation = await crowd.meet(a, b)
    newer = Guest(other.url, b.created)
    crowd.guests.append(newer)
    assert (await newer.connect())["conversation"]["id"] == conversation
    await b.next("session:replaced", timeout=2)
    await b.next("disconnect", timeout=2)
    await told(a, "here", 2)
    await both_ways(a, newer, conversation)
    assert "away" not in [push.get("state") for _, push in a.pushes]


async def test_a_guest_who_comes_twice_at_once_has_one_connection_and_never_meets_itself(
    crowd: Crowd, worker: Worker, other: Worker
) -> None:
    """Two tabs on two workers at the same instant, both searching: one stays, and a stranger meets that one."""
    created = await get_guest(worker.url)
    for _ in range(8):
        tabs = [Guest(worker.url, created), Guest(other.url, created)]
        stranger = await crowd.arrive()

        async def come(tab: Guest) -> None:
            with contextlib.suppress(TimeoutError, socketio.exceptions.SocketIOError):
                await tab.connect()
                await asyncio.wait_for(crowd.find(tab), 1)

        await asyncio.gather(*map(come, tabs))
        async with within(5), asyncio.timeout(PATIENCE):
            while not (replaced := [t for t in tabs if "session:replaced" in [name for name, _ in t.pushes]]):
                await asyncio.sleep(0.02)
        assert len(replaced) == 1
        (stays,) = (tab for tab in tabs if tab not in replaced)
        await crowd.find(stays)
        await crowd.find(stranger)
        found = await stranger.next("match:found", timeout=2)
        assert found["conversation"]["partner"]["profile"] == created["profile"]
        await stays.next("match:found", timeout=2)
        await both_ways(stranger, stays, found["conversation"]["id"])
        for tab in tabs:
            assert [push["conversation"]["id"] for name, push in tab.pushes if name == "match:found"] == (
                [found["conversation"]["id"]] if tab is stays else []
            )
        await stays.ask("conversation:leave", {"conversationId": found["conversation"]["id"]})
        await asyncio.gather(*(tab.hang_up() for tab in tabs))


@pytest.mark.parametrize("seed", [3, 5])
async def test_eight_sides_that_skip_leave_and_search_at_once_are_never_in_two_conversations(
    crowd: Crowd, worker: Worker, other: Worker, seed: int
) -> None:
    """Nobody is told of a match while in a conversation; at the end everyone talks with one who talks with them."""
    chance = random.Random(seed)
    guests = [await crowd.arrive(place.url) for place in (worker, other) * 4]

    def current(guest: Guest) -> str | None:
        seated = None
        for name, push in guest.pushes:
            if name == "match:found":
                seated = push["conversation"]["id"]
            elif name in ("conversation:ended", "left") and push["conversationId"] == seated:
                seated = None
            elif name == "session:state":
                seated = push["conversation"] and push["conversation"]["id"]
        return seated

    async def skip(guest: Guest) -> None:
        act = chance.choice(("skip", "skip", "skip", "cancel", "move"))
        if act == "move":
            await guest.connect(chance.choice((worker, other)).url, claim=guest.claim)
        elif act == "cancel":
            await guest.ask("match:cancel")
        elif (conversation := current(guest)) is not None:
            # Written down before it is asked: the next match may come before the answer.
            guest.pushes.append(("left", {"conversationId": conversation}))
            assert "ok" in await guest.ask("conversation:leave", {"conversationId": conversation})
        answer = await crowd.find(guest)
        assert "ok" in answer or answer["error"]["code"] == "in_conversation"

    for _ in range(15):
        await asyncio.gather(*map(skip, guests))
    for guest in guests:
        seated = None
        for name, push in guest.pushes:
            if name == "match:found":
                assert seated is None, f"matched while in a conversation, seed {seed}"
                seated = push["conversation"]["id"]
            elif name in ("conversation:ended", "left") and push["conversationId"] == seated:
                seated = None
            elif name == "session:state":
                seated = push["conversation"] and push["conversation"]["id"]
    async with within(5), asyncio.timeout(PATIENCE):
        while any(current(guest) is None for guest in guests):
            for guest in guests:
                if current(guest) is None:
                    await crowd.find(guest)
            await asyncio.sleep(0.05)
    sides: dict[str, list[Guest]] = {}
    for guest in guests:
        sides.setdefault(str(current(guest)), []).append(guest)
    assert [len(side) for side in sides.values()] == [2] * 4, f"seed {seed}"
    for conversation, (a, b) in sides.items():
        await both_ways(a, b, conversation)


# --------------------------------------------------------------------------- a worker dies


async def test_what_a_worker_took_to_its_grave_arrives_when_it_is_sent_again(
    crowd: Crowd, worker_with: WorkerWith, other: Worker
) -> None:
    """Accepted, not yet delivered: the partner's return asks for it again, and one copy is shown."""
    doomed = await worker_with()
    a, b = await crowd.arrive(), await crowd.arrive(doomed.url)
    conversation = await crowd.meet(a, b)
    doomed.signal(signal.SIGSTOP)
    message_id = new_id()
    assert "ok" in await a.say(conversation, 1, "is anybody there", message_id)
    await doomed.kill()
    await b.connect(other.url)
    await told(a, "here", 2)
    assert "chat:message" not in [name for name, _ in b.pushes]
    assert "ok" in await a.say(conversation, 1, "is anybody there", message_id)
    heard = await b.next("chat:message", timeout=2)
    assert (heard["id"], heard["seq"]) == (message_id, 1)
    assert [name for name, _ in b.pushes].count("chat:message") == 1


async def test_what_the_senders_worker_took_to_its_grave_arrives_when_it_is_sent_again(
    crowd: Crowd, worker_with: WorkerWith, other: Worker
) -> None:
    """Every copy bears the same id, so that the receiver shows one."""
    doomed = await worker_with()
    a, b = await crowd.arrive(doomed.url), await crowd.arrive()
    conversation = await crowd.meet(a, b)
    ids = [new_id() for _ in range(20)]
    for number, message_id in enumerate(ids):
        await a.say(conversation, number + 1, f"{number}", message_id)
    await doomed.kill()
    await a.connect(other.url)
    for number, message_id in enumerate(ids):
        await a.say(conversation, number + 1, f"{number}", message_id)
    await a.say(conversation, 21, "the end")
    await b.next("chat:message", lambda push: push["seq"] == 21, 2)
    copies = [(push["id"], push["seq"]) for name, push in b.pushes if name == "chat:message"][:-1]
    assert set(copies) == {(message_id, number + 1) for number, message_id in enumerate(ids)}


# --------------------------------------------------------------------------- a worker stalls


async def test_a_worker_that_slept_past_its_lease_takes_back_who_stayed_and_lets_go_who_moved(
    crowd: Crowd, worker_with: WorkerWith, worker: Worker
) -> None:
    """Meanwhile its guests are away, its searching guest is met by nobody; afterwards each has one partner."""
    sleepy = await worker_with()
    a, stays = await crowd.arrive(), await crowd.arrive(sleepy.url)
    talk = await crowd.meet(a, stays)
    b, moves = await crowd.arrive(), await crowd.arrive(sleepy.url)
    other_talk = await crowd.meet(b, moves)
    searches, seeker = await crowd.arrive(sleepy.url), await crowd.arrive()
    await crowd.find(searches)
    sleepy.signal(signal.SIGSTOP)
    async with within(5):
        assert (await told(a, "away"))["conversationId"] == talk
        assert (await told(b, "away"))["conversationId"] == other_talk
    moved = Guest(worker.url, moves.created)
    crowd.guests.append(moved)
    assert (await moved.connect(claim=moves.claim))["conversation"]["id"] == other_talk
    await told(b, "here", 1)
    await crowd.find(seeker)
    await both_ways(b, moved, other_talk)
    assert not any(name == "match:found" for name, _ in seeker.pushes)
    sleepy.signal(signal.SIGCONT)
    await told(a, "here")
    await moves.next("session:replaced")
    await both_ways(a, stays, talk)
    await both_ways(b, moved, other_talk)
    found = await seeker.next("match:found", timeout=5)
    await searches.next("match:found", timeout=5)
    await both_ways(seeker, searches, found["conversation"]["id"])
    for guest in (a, b, stays, moves, seeker, searches):
        assert [name for name, _ in guest.pushes].count("match:found") == 1
        assert "conversation:ended" not in [name for name, _ in guest.pushes]


# --------------------------------------------------------------------------- a worker is stopped


async def test_every_websocket_of_a_stopped_worker_is_closed_cleanly(worker_with: WorkerWith) -> None:
    """Whether its client goes when it is told, or stays until it is put out; nobody sees 1006."""
    leaving = await worker_with()
    async with Wire(leaving.url) as obedient, Wire(leaving.url) as stubborn:
        for wire in (obedient, stubborn):
            await wire.open(auth_of(await get_guest(leaving.url)))
            await wire.push("session:state")
        ended = asyncio.create_task(leaving.stop())
        async with within(10):
            for wire in (obedient, stubborn):
                await wire.push("session:move")
            await obedient.socket.close()
            assert obedient.socket.close_code == 1000
            assert await stubborn.closed(10) == 1012
            assert await ended == 0


async def test_who_searches_on_a_stopped_worker_is_met_only_after_moving(
    crowd: Crowd, worker_with: WorkerWith, other: Worker
) -> None:
    """The search ends with the connection and begins with the next; nobody is matched with a guest on the way."""
    leaving = await worker_with()
    mover, seeker = await crowd.arrive(leaving.url), await crowd.arrive()
    await crowd.find(mover)
    ended = asyncio.create_task(leaving.stop())
    await mover.next("session:move", timeout=2)
    await mover.connect(other.url)
    await crowd.find(seeker)
    await crowd.find(mover)
    found = await seeker.next("match:found", timeout=2)
    await both_ways(seeker, mover, found["conversation"]["id"])
    assert await ended == 0


# --------------------------------------------------------------------------- Redis goes away


async def test_a_conversation_outlives_a_redis_that_lost_everything(
    crowd: Crowd, mortal: MortalValkey, other: Worker
) -> None:
    """Across two workers: delivering again within 2 seconds of its return, and every seat is known again."""
    a, b = await crowd.arrive(), await crowd.arrive(other.url)
    conversation = await crowd.meet(a, b)
    c, d = await crowd.arrive(), await crowd.arrive()
    local = await crowd.meet(c, d)
    await mortal.kill()
    await both_ways(c, d, local)
    assert "ok" in await a.say(conversation, 1, "into the void")
    await mortal.start()
    async with within(2):
        await asyncio.gather(arrives(a, b, conversation, 2), arrives(b, a, conversation, 2))
    await both_ways(c, d, local)
    # Both seats are known to Redis again: one is taken again elsewhere, one given up.
    await b.hang_up()
    assert (await b.connect(claim=b.claim))["conversation"]["id"] == conversation
    await asyncio.gather(arrives(a, b, conversation, 2), arrives(b, a, conversation, 2))
    await a.ask("conversation:leave", {"conversationId": conversation})
    assert (await b.next("conversation:ended", timeout=2))["reason"] == "left"
    assert "conversation:ended" not in [name for guest in (a, c, d) for name, _ in guest.pushes]


async def test_a_search_outlives_a_redis_that_lost_everything(
    crowd: Crowd, mortal: MortalValkey, other: Worker
) -> None:
    """Who waited before the loss waits after it, and is met by who comes next."""
    patient = await crowd.arrive()
    await crowd.find(patient)
    await mortal.kill()
    await mortal.start()
    late = await crowd.arrive(other.url)
    assert "ok" in await crowd.find(late)
    found = await late.next("match:found", timeout=3)
    await patient.next("match:found", timeout=3)
    await both_ways(patient, late, found["conversation"]["id"])


async def test_a_search_may_begin_before_redis_knows_the_guest_again(crowd: Crowd, mortal: MortalValkey) -> None:
    """Nobody is told that the session has expired, since it has not."""
    a, b = await crowd.arrive(), await crowd.arrive()
    await mortal.kill()
    await mortal.start()
    for guest in (a, b):
        async with within(2), asyncio.timeout(PATIENCE):
            while "ok" not in (answer := await crowd.find(guest)):
                assert answer["error"]["code"] == "unavailable", answer
                await asyncio.sleep(0.02)
    found = await a.next("match:found", timeout=4)
    await b.next("match:found", timeout=4)
    await both_ways(a, b, found["conversation"]["id"])


async def test_guests_whose_connections_broke_while_redis_was_away_are_back_by_their_claims(
    crowd: Crowd, mortal: MortalValkey, worker: Worker, other: Worker
) -> None:
    """Redis forgot, and both come back on the other's worker: they sit in the same conversation again."""
    a, b = await crowd.arrive(), await crowd.arrive(other.url)
    conversation = await crowd.meet(a, b)
    await mortal.kill()
    await a.hang_up()
    await b.hang_up()
    await mortal.start()
    assert (await a.connect(other.url, claim=a.claim))["conversation"]["id"] == conversation
    assert (await b.connect(worker.url, claim=b.claim))["conversation"]["id"] == conversation
    await asyncio.gather(arrives(a, b, conversation, 2), arrives(b, a, conversation, 2))


async def test_leaving_while_redis_has_forgotten_the_conversation_still_ends_it(
    crowd: Crowd, mortal: MortalValkey, other: Worker
) -> None:
    """The partner is told soon, instead of waiting for somebody who does not come back."""
    a, b = await crowd.arrive(), await crowd.arrive(other.url)
    conversation = await crowd.meet(a, b)
    await mortal.kill()
    await mortal.start()
    async with within(5), asyncio.timeout(PATIENCE):
        while "ok" not in await a.ask("conversation:leave", {"conversationId": conversation}):
            await asyncio.sleep(0.02)
    assert (await b.next("conversation:ended", timeout=3))["reason"] == "left"
    for guest in (a, b):
        answer = await crowd.find(guest)
        assert "ok" in answer, answer
    assert (await b.next("match:found", timeout=4))["conversation"]["id"] != conversation


async def test_a_frozen_redis_is_noticed_within_5_seconds_and_heals(
    crowd: Crowd, mortal: MortalValkey, worker: Worker, other: Worker
) -> None:
    """Not ready meanwhile; conversations within a worker go on, those across heal, and none ends."""
    a, b = await crowd.arrive(), await crowd.arrive(other.url)
    conversation = await crowd.meet(a, b)
    c, d = await crowd.arrive(), await crowd.arrive()
    local = await crowd.meet(c, d)
    process_of(mortal).send_signal(signal.SIGSTOP)
    try:
        async with within(5):
            parts, _ = await asyncio.gather(until_ready(worker, False, 5), until_ready(other, False, 5))
        assert not (parts["bus"] and parts["redis"])
        await both_ways(c, d, local)
    finally:
        process_of(mortal).send_signal(signal.SIGCONT)
    async with within(5):
        await asyncio.gather(until_ready(worker, True, 5), until_ready(other, True, 5))
        await asyncio.gather(arrives(a, b, conversation, 5), arrives(b, a, conversation, 5))
    await both_ways(c, d, local)
    assert "conversation:ended" not in [name for guest in (a, b, c, d) for name, _ in guest.pushes]


async def test_a_worker_whose_link_to_redis_goes_dark_is_not_ready_until_it_is_back(
    crowd: Crowd, mortal: MortalValkey, tmp_path: Path
) -> None:
    """Its guest is away for the partner elsewhere, then here again on the same connection."""
    link = await Link(mortal.port).start()
    behind = Worker(tmp_path, REDIS_URL=f"redis://127.0.0.1:{link.port}")
    try:
        await behind.start()
        a, b = await crowd.arrive(), await crowd.arrive(behind.url)
        conversation = await crowd.meet(a, b)
        link.darken()
        async with within(5):
            await asyncio.gather(until_ready(behind, False, 5), told(a, "away"))
        link.lighten()
        async with within(5):
            await asyncio.gather(until_ready(behind, True, 5), told(a, "here"))
            await asyncio.gather(arrives(a, b, conversation, 5), arrives(b, a, conversation, 5))
        assert "conversation:ended" not in [name for name, _ in (*a.pushes, *b.pushes)]
    finally:
        await behind.stop()
        await link.stop()


# --------------------------------------------------------------------------- time


async def test_a_partner_who_does_not_come_back_is_lost_after_the_grace_time_and_not_before(
    crowd: Crowd, worker_with: WorkerWith, other: Worker
) -> None:
    """Counted by Redis from the moment the connection was gone; nobody can sit down again afterwards."""
    brief = await worker_with(VISAVIS_GRACE_SECONDS="1")
    a, b = await crowd.arrive(brief.url), await crowd.arrive(other.url)
    conversation = await crowd.meet(a, b)
    loop = asyncio.get_running_loop()
    await b.hang_up()
    gone = loop.time()
    await told(a, "away", 2)
    ended = await a.next("conversation:ended", timeout=6)
    assert ended == {"conversationId": conversation, "reason": "lost"}
    assert loop.time() - gone >= 0.95
    assert (await b.connect(claim=b.claim))["conversation"] is None


async def test_workers_whose_clocks_differ_by_five_minutes_serve_the_same_guests(
    crowd: Crowd, mortal: MortalValkey, worker_with: WorkerWith, tmp_path: Path
) -> None:
    """Tokens, seats, claims and the grace time: one worker ahead, one behind."""
    ahead, behind = await worker_with(**clock(tmp_path, 150)), await worker_with(**clock(tmp_path, -150))
    a, b = await crowd.arrive(ahead.url), await crowd.arrive(behind.url)
    conversation = await crowd.meet(a, b)
    await both_ways(a, b, conversation)
    for guest, place in ((a, behind), (b, ahead)):
        await guest.hang_up()
        assert (await guest.connect(place.url))["conversation"]["id"] == conversation
    await told(a, "here", 2)
    await both_ways(a, b, conversation)
    await a.hang_up()
    await b.hang_up()
    async with redis.Redis.from_url(mortal.url) as raw:
        await raw.flushall()
    for guest, place in ((a, ahead), (b, behind)):
        state = await guest.connect(place.url, claim=(b if guest is a else a).claim)
        assert state["conversation"] is None, "another guest's claim is worth nothing"
        await guest.hang_up()
    assert (await a.connect(behind.url, claim=a.claim))["conversation"]["id"] == conversation
    assert (await b.connect(ahead.url, claim=b.claim))["conversation"]["id"] == conversation
    await asyncio.gather(arrives(a, b, conversation, 2), arrives(b, a, conversation, 2))


def clock(folder: Path, seconds: int) -> dict[str, str]:
    """What makes a worker's own clock wrong by some seconds: every way in which Python reads the time of day."""
    place = folder / f"clock{seconds}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(f"""
import datetime, time
seconds, nanoseconds, day = time.time, time.time_ns, datetime.datetime
time.time = lambda: seconds() + {seconds}
time.time_ns = lambda: nanoseconds() + {seconds} * 10**9
class Wrong(day):
    @classmethod
    def now(cls, tz=None):
        return day.now(tz) + datetime.timedelta(seconds={seconds})
datetime.datetime = Wrong
""")
    return {"PYTHONPATH": os.pathsep.join((str(place), str(ROOT / "backend")))}
