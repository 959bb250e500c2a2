"""Workers, Redis and the document store die, sleep and come back while people talk: what each of the two sees of it."""

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio as redis

from crowd import Crowd
from faults import MortalValkey, within
from rig import PATIENCE, Guest, Service, Worker, get_guest
from sharing import Sharer
from visavis.core.identity import new_id
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE = 3.0
AddWorker = Callable[..., Awaitable[Worker]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service whose first worker outlives every test; each test adds the one it harms."""
    running = await Service(tmp_path_factory.mktemp("two")).start()
    yield running
    await running.stop()


@pytest.fixture
def survivor(two: Service) -> Worker:
    return two.workers[0]


@pytest_asyncio.fixture(loop_scope="session")
async def victim(two: Service) -> AsyncIterator[Worker]:
    added = await two.add()
    yield added
    await added.stop()
    two.workers.remove(added)


@pytest_asyncio.fixture(loop_scope="session")
async def people(victim: Worker, survivor: Worker, tongue: str) -> AsyncIterator[Crowd]:
    """Guests who hang up before the worker ends, which would wait for them."""
    gathered = Crowd(survivor.url, tongue)
    yield gathered
    await gathered.leave()


async def across(people: Crowd, victim: Worker) -> tuple[Guest, Guest, str]:
    """Two guests in a conversation, the second on the worker that will be harmed."""
    a, b = await people.arrive(), await people.arrive(victim.url)
    return a, b, await people.meet(a, b)


async def chat(a: Guest, b: Guest, conversation: str, seq: int) -> None:
    """A word each way, with receipts and typing."""
    for one, other in ((a, b), (b, a)):
        assert "ok" in await one.say(conversation, seq, f"word {seq}")
        assert (await other.next("chat:message"))["seq"] == seq
        await other.ask("chat:receipt", {"conversationId": conversation, "delivered": seq, "read": seq})
        assert (await one.next("chat:receipt"))["read"] == seq
        await one.ask("chat:typing", {"conversationId": conversation, "typing": True})
        assert (await other.next("chat:typing"))["typing"]


# --------------------------------------------------------------------------- two workers


async def test_two_workers_are_one_service(people: Crowd, survivor: Worker, victim: Worker) -> None:
    """Matched across them, talking across them, changing places, leaving; both count everybody."""
    a, b, conversation = await across(people, victim)
    await chat(a, b, conversation, 1)
    await b.vanish()
    assert (await a.next("conversation:partner"))["state"] == "away"
    assert (await b.connect(survivor.url))["conversation"]["id"] == conversation
    assert (await a.next("conversation:partner"))["state"] == "here"
    await chat(a, b, conversation, 2)
    await a.hang_up()
    await b.next("conversation:partner", lambda push: push["state"] == "away")
    assert (await a.connect(victim.url))["conversation"]["partner"]["state"] == "here"
    await b.next("conversation:partner", lambda push: push["state"] == "here")
    await chat(a, b, conversation, 3)
    await a.ask("conversation:leave", {"conversationId": conversation})
    assert (await b.next("conversation:ended"))["reason"] == "left"


async def test_moving_to_the_other_worker_ends_the_connection_to_the_first(
    people: Crowd, survivor: Worker, victim: Worker
) -> None:
    """The same guest twice, on two workers: the newest wins, and messages go there alone."""
    created = await get_guest(victim.url)
    async with Wire(victim.url) as old, Wire(survivor.url) as new:
        await old.open(auth_of(created))
        await old.ask("match:find", {"mode": "text", "languages": [people.tongue]})
        partner = await people.arrive()
        await people.find(partner)
        conversation = (await old.push("match:found"))["conversation"]["id"]
        await new.open(auth_of(created))
        await old.push("session:replaced")
        assert await old.closed() == 1000
        assert (await new.push("session:state"))["conversation"]["id"] == conversation
        await partner.say(conversation, 1, "here?")
        assert (await new.push("chat:message"))["seq"] == 1


async def test_a_hundred_guests_on_two_workers_all_meet(people: Crowd, survivor: Worker, victim: Worker) -> None:
    """Both workers hold rounds on one pool; nobody is matched twice or left."""
    urls = [survivor.url, victim.url] * 50
    guests = await asyncio.gather(*(people.arrive(url) for url in urls))
    await asyncio.gather(*(people.find(guest) for guest in guests))
    found = [(await guest.next("match:found"))["conversation"]["id"] for guest in guests]
    assert all(found.count(one) == 2 for one in found)
    assert len([name for guest in guests for name, _ in guest.pushes if name == "match:found"]) == 100


# --------------------------------------------------------------------------- a worker dies


async def test_a_killed_worker_costs_a_conversation_five_seconds_at_most(
    people: Crowd, survivor: Worker, victim: Worker
) -> None:
    """The partner is told, the guest comes back through the other worker, and what was not delivered is sent again."""
    a, b, conversation = await across(people, victim)
    await chat(a, b, conversation, 1)
    async with within(5):
        await victim.kill()
        message = new_id()
        # Accepted, and lost on the way: nobody has a receipt for it.
        assert "ok" in await a.say(conversation, 2, "are you there?", message)
        assert (await a.next("conversation:partner"))["state"] == "away"
    async with within(5):
        state = await b.connect(survivor.url)
        assert state["conversation"]["id"] == conversation
        await a.next("conversation:partner", lambda push: push["state"] == "here")
        assert "ok" in await a.say(conversation, 2, "are you there?", message)
        heard = await b.next("chat:message", lambda push: push["seq"] == 2)
        assert heard["id"] == message
    await chat(a, b, conversation, 3)


async def test_a_guest_who_comes_back_before_the_death_is_noticed_loses_nothing(
    people: Crowd, survivor: Worker, victim: Worker
) -> None:
    """At once, on the other worker; the partner is told that it is time to send again, and need not wait."""
    a, b, conversation = await across(people, victim)
    await victim.kill()
    async with within(2):
        assert (await b.connect(survivor.url))["conversation"]["id"] == conversation
        assert (await a.next("conversation:partner"))["state"] == "here"
        await chat(a, b, conversation, 1)


async def test_those_who_searched_on_a_killed_worker_are_no_ghosts(people: Crowd, victim: Worker) -> None:
    """Once the death is noticed, whoever comes is matched with the living; before, at worst is told of it."""
    ghosts = [await people.arrive(victim.url) for _ in range(2)]
    await people.find(ghosts[0])
    await victim.kill()
    early, a, b = [await people.arrive() for _ in range(3)]
    await people.find(early)
    async with within(5):
        # Matched with the ghost in the seconds in which nobody could know, or still waiting.
        await asyncio.sleep(LEASE + 1.2)
        met = [push["conversation"]["partner"]["profile"] for name, push in early.pushes if name == "match:found"]
        if met:
            assert met == [ghosts[0].created["profile"]]
            assert (await early.next("conversation:partner"))["state"] == "away"
            await people.find(a)
        await people.find(b)
    found = await b.next("match:found")
    living = a if met else early
    assert found["conversation"]["partner"]["profile"] == living.created["profile"]


async def test_a_worker_that_sleeps_past_its_lease_wakes_up_to_the_truth(
    people: Crowd, survivor: Worker, victim: Worker
) -> None:
    """Its guest who stayed is taken back, the one who went elsewhere is replaced, and nobody is matched twice."""
    a, b, conversation = await across(people, victim)
    c, d, other = await across(people, victim)
    waiting = await people.arrive(victim.url)
    await people.find(waiting, languages=["q" + people.tongue[:2]])
    victim.signal(signal.SIGSTOP)
    try:
        async with within(LEASE + 2):
            assert (await a.next("conversation:partner"))["state"] == "away"
            assert (await c.next("conversation:partner"))["state"] == "away"
        # d finds another way in; b stays where it is.
        moved = Guest(survivor.url, d.created)
        people.guests.append(moved)
        assert (await moved.connect())["conversation"]["id"] == other
        await c.next("conversation:partner", lambda push: push["state"] == "here")
    finally:
        victim.signal(signal.SIGCONT)
    async with within(5):
        await d.next("session:replaced")
        await a.next("conversation:partner", lambda push: push["state"] == "here")
    await chat(a, b, conversation, 1)
    await chat(c, moved, other, 1)
    late = await people.arrive()
    await late.find(languages=["q" + people.tongue[:2]])
    assert (await waiting.next("match:found"))["conversation"]["partner"]["profile"] == late.created["profile"]
    assert (await late.next("match:found"))["conversation"]["partner"]["profile"] == waiting.created["profile"]
    found = [name for guest in (a, b, c, d, moved, waiting, late) for name, _ in guest.pushes if name == "match:found"]
    assert len(found) == 6


# --------------------------------------------------------------------------- Redis dies


async def test_redis_restarts_empty_and_nobody_loses_anything(tmp_path: Path, tongue: str) -> None:
    """Conversations go on across workers, searching guests meet, those who were away find their seats again."""
    mortal = await MortalValkey().start()
    workers = [await Worker(tmp_path, REDIS_URL=mortal.url).start() for _ in range(2)]
    people = Crowd(workers[0].url, tongue)
    try:
        a, b = await people.arrive(workers[0].url), await people.arrive(workers[1].url)
        conversation = await people.meet(a, b)
        c, d = await people.arrive(workers[0].url), await people.arrive(workers[0].url)
        other = await people.meet(c, d)
        e, f = await people.arrive(workers[0].url), await people.arrive(workers[1].url)
        await people.find(e)
        await mortal.kill()
        # On one worker nothing is noticed at all.
        assert "ok" in await c.say(other, 1, "undisturbed")
        assert (await d.next("chat:message"))["seq"] == 1
        assert (await people.find(f))["error"]["code"] == "unavailable"
        # d drops while there is nobody to tell.
        await d.vanish()
        await d.next("disconnect")
        await mortal.start()
        async with within(8):
            async with asyncio.timeout(PATIENCE):
                while "error" in await people.find(f):
                    await asyncio.sleep(0.1)
            await e.next("match:found")
            await f.next("match:found")
            assert (await d.connect(workers[1].url, claim=d.claim))["conversation"]["id"] == other
            await c.next("conversation:partner", lambda push: push["state"] == "here")
            await chat(c, d, other, 2)
            message = new_id()
            heard = asyncio.create_task(b.next("chat:message"))
            while not heard.done():
                # As the client does: again until there is a receipt.
                await a.say(conversation, 1, "back?", message)
                await asyncio.wait([heard], timeout=0.3)
            assert (await heard)["id"] == message
        for name, push in (*a.pushes, *b.pushes, *c.pushes):
            assert name != "conversation:ended", push
        await a.ask("conversation:leave", {"conversationId": conversation})
        assert (await b.next("conversation:ended"))["reason"] == "left"
    finally:
        await people.leave()
        await asyncio.gather(*(worker.stop() for worker in workers))
        await mortal.stop()


async def test_who_drops_while_redis_refuses_to_listen_is_not_taken_for_here(tmp_path: Path, tongue: str) -> None:
    """Redis forgets nothing and takes note of nothing for a while; afterwards the partner is told, and no ghost met."""
    mortal = await MortalValkey().start()
    worker = await Worker(tmp_path, REDIS_URL=mortal.url).start()
    raw = redis.Redis.from_url(mortal.url)
    people = Crowd(worker.url, tongue)
    try:
        a, b, _ = await people.pair()
        searching = await people.arrive()
        await people.find(searching)
        await raw.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
        await asyncio.gather(a.vanish(), searching.vanish())
        async with within(5), asyncio.timeout(PATIENCE):
            # Once for both, if they went together.
            while "seat_update_postponed" not in [line["event"] for line in worker.logged()]:
                await asyncio.sleep(0.02)
        await raw.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")
        async with within(3):
            assert (await b.next("conversation:partner"))["state"] == "away"
        late = await people.arrive()
        await people.find(late)
        with pytest.raises(TimeoutError):
            await late.next("match:found", timeout=0.5)
    finally:
        await people.leave()
        await raw.aclose()
        await worker.stop()
        await mortal.stop()


# --------------------------------------------------------------------------- the document store dies


async def test_a_broken_document_store_stops_reports_and_nothing_else(tmp_path: Path, tongue: str) -> None:
    """Locked or gone: whoever needs it is told within two seconds, and everybody meets and talks."""
    running = await Service(tmp_path).start()
    people = Crowd(running.workers[0].url, tongue)
    path = tmp_path / "visavis.sqlite"
    try:
        a, b, conversation = await people.pair()
        report = {"conversationId": conversation, "reason": "spam"}
        assert "ok" in await a.ask("safety:report", report)

        async def without_store(seq: int) -> None:
            async with within(2):
                refused = (await a.ask("safety:report", report))["error"]
            assert refused["code"] == "unavailable"
            assert refused["retryInMs"] > 0
            await chat(a, b, conversation, seq)
            async with within(4):
                c, d, parting = await people.pair()
            # A block parts the two at once; that it is not yet for good, it says.
            assert (await c.ask("safety:block", {"conversationId": parting}))["error"]["code"] == "unavailable"
            await d.next("conversation:ended")

        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        await without_store(1)
        lock.execute("ROLLBACK")
        lock.close()
        assert "ok" in await a.ask("safety:report", report)
        hidden = path.rename(tmp_path / "hidden.sqlite")
        await without_store(2)
        hidden.rename(path)
        assert "ok" in await a.ask("safety:report", report)
        started = time.monotonic()
        assert "ok" in await a.ask("safety:block", {"conversationId": conversation})
        assert time.monotonic() - started < 2
        await b.next("conversation:ended")
    finally:
        await people.leave()
        await running.stop()


# --------------------------------------------------------------------------- files


async def test_an_upload_goes_on_through_one_death_of_a_worker_after_the_other(tmp_path: Path, tongue: str) -> None:
    """Whoever of three is killed in the middle of a part: no byte is lost, doubled or out of place in the end."""
    running = await Service(tmp_path, VISAVIS_FILE_SWEEP_SECONDS="0.5").start(3)
    people = Crowd(running.workers[0].url, tongue)
    fate = random.Random(7)
    killed = 0
    try:
        a = await people.arrive(running.workers[0].url)
        b = await people.arrive(running.workers[0].url)
        sharer = Sharer(a, await people.meet(a, b), running.workers[1].url)
        data = b"".join(b"line %07d\n" % n for n in range(200_000))
        file = await sharer.begun(len(data), "numbered.txt")

        async def piecewise(rest: bytes) -> AsyncIterator[bytes]:
            for start in range(0, len(rest), 20_000):
                yield rest[start : start + 20_000]
                await asyncio.sleep(0.01)

        async with asyncio.timeout(90):
            offset = 0
            while offset < len(data):
                # The guests' own worker lives; the others come and go.
                worker = fate.choice(running.workers[1:])
                sharer.url = worker.url
                patch = asyncio.create_task(sharer.patch(file, offset, piecewise(data[offset : offset + 400_000])))
                if killed < 6:
                    await asyncio.sleep(fate.uniform(0.02, 0.25))
                    await worker.kill()
                    killed += 1
                    running.workers.remove(worker)
                    await running.add()
                await asyncio.gather(patch, return_exceptions=True)
                sharer.url = running.workers[0].url
                offset = await sharer.offset(file)
            state = await sharer.checked(file)
        assert killed == 6
        assert (state["phase"], state["file"]["bytes"]) == ("ready", len(data))
        assert (await Sharer(b, sharer.conversation).fetch(await sharer.address(file) + "/main"))[2] == data
    finally:
        await people.leave()
        await running.stop()
