"""Searching through the whole server: who meets whom, when it widens, who is counted, and who is no longer there."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from crowd import Crowd
from faults import within
from rig import Guest, Worker, get_guest
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]


async def unmatched(*guests: Guest, seconds: float = 0.4) -> None:
    """Nobody of these is matched for some rounds."""
    await asyncio.sleep(seconds)
    for guest in guests:
        with pytest.raises(TimeoutError):
            await guest.next("match:found", timeout=0)


async def test_two_who_fit_meet_at_once(crowd: Crowd) -> None:
    """Well within a second."""
    a, b = await crowd.arrive(), await crowd.arrive()
    async with within(1):
        await crowd.meet(a, b)


async def test_the_answer_says_since_when_and_how_the_search_widens(crowd: Crowd) -> None:
    """What the screen tells is true: these are the server's own steps."""
    a = await crowd.arrive()
    searching = (await crowd.find(a, interests=["jazz"]))["ok"]
    assert searching["steps"] == [
        {"afterMs": 0, "accepts": "interests"},
        {"afterMs": 600, "accepts": "language"},
        {"afterMs": 10_000, "accepts": "anyone"},
    ]
    assert (await crowd.find(a, interests=[]))["ok"]["since"] == searching["since"]


async def test_interests_are_insisted_on_for_a_while(worker_with: WorkerWith, crowd: Crowd) -> None:
    """Not before the time, and soon after it."""
    picky = await worker_with(VISAVIS_WIDEN_INTERESTS_MS="1200")
    a, b = await crowd.arrive(picky.url), await crowd.arrive(picky.url)
    await crowd.find(a, interests=["jazz"])
    await crowd.find(b, interests=["chess"])
    await unmatched(a, b, seconds=0.8)
    async with within(2):
        found = await a.next("match:found")
    assert found["conversation"]["why"] == {"interests": [], "languages": [crowd.tongue]}


async def test_a_language_is_insisted_on_for_a_while(worker_with: WorkerWith, crowd: Crowd) -> None:
    """Then anyone will do, and the reason names none."""
    quick = await worker_with(VISAVIS_WIDEN_LANGUAGES_MS="1200")
    a, b = await crowd.arrive(quick.url), await crowd.arrive(quick.url)
    await crowd.find(a)
    await crowd.find(b, languages=["zz" + crowd.tongue[0]])
    await unmatched(a, b, seconds=0.8)
    async with within(2):
        found = await a.next("match:found")
    assert found["conversation"]["why"]["languages"] == []


async def test_skipping_leads_to_somebody_else(crowd: Crowd) -> None:
    """Two who just met do not meet again for a while, however long both wait."""
    a, b, conversation = await crowd.pair()
    await a.ask("conversation:leave", {"conversationId": conversation})
    await b.next("conversation:ended")
    await crowd.find(a)
    await crowd.find(b)
    await unmatched(a, b)
    c = await crowd.arrive()
    await crowd.find(c)
    await c.next("match:found")


async def test_a_cancelled_search_finds_nobody(crowd: Crowd) -> None:
    """And one that never ran can be cancelled."""
    a, b = await crowd.arrive(), await crowd.arrive()
    assert "ok" in await a.ask("match:cancel")
    await crowd.find(a)
    assert "ok" in await a.ask("match:cancel")
    await crowd.find(b)
    await unmatched(a, b)


async def test_who_dropped_out_is_not_matched_as_a_ghost(worker: Worker, crowd: Crowd) -> None:
    """Whether the connection was closed, broken or replaced; the search ends with it."""
    gone, broken, replaced = [await crowd.arrive() for _ in range(3)]
    for guest in (gone, broken, replaced):
        await crowd.find(guest)
        if guest is gone:
            await gone.hang_up()
        elif guest is broken:
            await broken.vanish()
        else:
            async with Wire(worker.url) as wire:
                await wire.open(auth_of(replaced.created))
                state = await wire.push("session:state")
                assert state["conversation"] is None
                b = await crowd.arrive()
                await crowd.find(b)
                await unmatched(b)
                await b.ask("match:cancel")
            continue
        await guest.next("disconnect")
        b = await crowd.arrive()
        await crowd.find(b)
        await unmatched(b)
        await b.ask("match:cancel")
        assert (await guest.connect())["conversation"] is None


async def test_one_cannot_search_from_a_conversation(crowd: Crowd) -> None:
    """The refusal names it."""
    a, b, conversation = await crowd.pair()
    refused = (await crowd.find(a))["error"]
    assert refused == {"code": "in_conversation", "conversationId": conversation}
    assert "ok" in await a.say(conversation, 1, "never mind")
    await b.next("chat:message")


async def test_a_mode_that_is_not_served_is_refused(
    crowd: Crowd, worker_with: Callable[..., Awaitable[Worker]]
) -> None:
    """By name; one that does not exist is no request at all."""
    a = await crowd.arrive((await worker_with(VISAVIS_MODES="text voice")).url)
    assert (await crowd.find(a, mode="video"))["error"] == {"code": "mode_unavailable", "mode": "video"}
    assert (await crowd.find(a, mode="smell"))["error"]["code"] == "bad_request"


async def test_a_hundred_who_come_at_once_all_meet(worker: Worker, tongue: str) -> None:
    """Nobody twice, nobody with oneself, nobody left."""
    search = f'42["match:find",{{"mode":"text","languages":["{tongue}"]}}]'
    async with contextlib.AsyncExitStack() as leaving:
        # No whole clients: a hundred of those cost more than the worker does.
        wires = [await leaving.enter_async_context(Wire(worker.url)) for _ in range(100)]
        for wire in wires:
            await wire.open(auth_of(await get_guest(worker.url)))
        async with within(10):
            await asyncio.gather(*(wire.send(search) for wire in wires))
            found = await asyncio.gather(*(wire.push("match:found") for wire in wires))
    conversations = [push["conversation"]["id"] for push in found]
    assert all(conversations.count(one) == 2 for one in conversations)


async def test_what_several_have_picked_is_offered_to_others(crowd: Crowd) -> None:
    """From two guests on, spelled the way interests are compared; gone again with them."""
    watcher = await crowd.arrive()
    a, b = await crowd.arrive(), await crowd.arrive()
    interest = f"unicycling {crowd.tongue}"
    await crowd.find(a, interests=[interest.upper()], languages=["xx" + crowd.tongue[1]])
    await crowd.find(b, interests=[interest], languages=["xy" + crowd.tongue[1]])
    offered = {"interest": interest, "guests": 2}
    await watcher.next("lobby:state", lambda lobby: offered in lobby["popular"])
    await a.hang_up()
    await watcher.next("lobby:state", lambda lobby: all(p["interest"] != interest for p in lobby["popular"]))


async def test_the_lobby_counts_who_is_here_and_who_waits(apart: Worker, tongue: str) -> None:
    """Arrivals, searches and departures show within a few seconds; those in a conversation are left in peace."""
    crowd = Crowd(apart.url, tongue)
    watcher = await crowd.arrive()

    async def shown(online: int, waiting: int) -> None:
        await watcher.next("lobby:state", lambda lobby: (lobby["online"], lobby["waiting"]) == (online, waiting), 4)

    await shown(1, 0)
    a = await crowd.arrive()
    await crowd.find(a)
    await shown(2, 1)
    b = await crowd.arrive()
    await crowd.find(b)
    await a.next("match:found")
    await shown(3, 0)
    told = len([name for name, _ in a.pushes if name == "lobby:state"])
    c = await crowd.arrive()
    await shown(4, 0)
    assert len([name for name, _ in a.pushes if name == "lobby:state"]) == told
    for guest in (a, b, c):
        await guest.hang_up()
    await shown(1, 0)
    await watcher.hang_up()
