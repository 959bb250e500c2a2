"""Workers are stopped and started again, as for an upgrade, while people talk: nobody notices, and nothing is lost."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import redis.asyncio as redis

from crowd import Crowd
from faults import within
from residents import Resident
from rig import PATIENCE, Production, Service, Worker, arrive, get_guest
from sharing import Sharer
from wire import Polls, Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAIRS = 12
CLEAN = {1000, 1012}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Three workers as in production, on one Valkey; a test leaves them running."""
    running = await Service(tmp_path_factory.mktemp("three"), Production).start(3)
    yield running
    await running.stop()


async def ready(worker: Worker) -> int:
    async with aiohttp.ClientSession() as session, session.get(worker.url + "/ready") as response:
        return response.status


async def restart(worker: Worker) -> float:
    """As systemd does; returns how long it took from the signal until it had nothing left to do, in seconds.

    By its own log: how long an interpreter then takes to end is the machine's affair, which may have others to run.
    """
    known = len(worker.logged())
    assert await worker.stop() == 0
    said = {line["event"].split(" (")[0]: line["timestamp"] for line in worker.logged()[known:]}
    await worker.start()
    async with asyncio.timeout(PATIENCE):
        while await ready(worker) != 200:
            await asyncio.sleep(0.05)
    asked, gone = (datetime.fromisoformat(said[event]) for event in ("Handling signal: term", "Worker exiting"))
    return (gone - asked).total_seconds()


# --------------------------------------------------------------------------- everybody talks on


async def test_three_workers_restarted_one_after_another_under_load(three: Service, tongue: str) -> None:
    """Every word arrives once and in order; nobody's connection just breaks, and nobody is ever shown as away."""
    urls = [worker.url for worker in three.workers]
    residents = [
        # Two of three do as they are told; the third is hung up on, and comes back as any client does.
        Resident(urls, await get_guest(urls[n % 3]), tongue, n, moves=n % 3 != 2)
        for n in range(2 * PAIRS)
    ]
    talking = True

    async def talk(one: Resident) -> None:
        for n in itertools.count(1):
            if not talking:
                return
            await one.say(f"{n}")
            await asyncio.sleep(0.25)

    try:
        pairs = list(zip(residents[::2], residents[1::2], strict=True))
        for n, (one, other) in enumerate(pairs):
            await one.arrive(urls[n % 3])
            await other.arrive(urls[(n + n // 3) % 3])
            await one.find()
            await other.find()
            await one.seated()
            await other.seated()
        async with asyncio.TaskGroup() as group:
            for one in residents:
                group.create_task(talk(one))
            await asyncio.sleep(1)
            took = [await restart(worker) for worker in three.workers]
            await asyncio.sleep(1)
            talking = False
        await asyncio.gather(*(one.settled() for one in residents))
    finally:
        await asyncio.gather(*(one.leave() for one in residents))
    # gunicorn would have ended by force what took nine.
    assert max(took) < 8.5
    for one, other in pairs:
        assert (one.heard, other.heard) == (other.said, one.said)
    for one in residents:
        assert set(one.closes) <= CLEAN
        assert one.ended == []
        assert "away" not in one.presence
    movers = [one for one in residents if one.moves]
    # Each was on one worker at least when it stopped, and left before it was shown the door.
    assert all(one.closes for one in residents)
    assert sum(one.moved for one in movers) >= len(movers)
    for worker in three.workers:
        assert not [line for line in worker.logged() if line["level"] in ("warning", "error", "critical")]


async def test_a_worker_that_came_a_moment_ago_is_one_to_move_to(tmp_path: Path) -> None:
    """Of two that are renewed, the second is stopped as soon as the first is back, before a beat has told it so."""
    pair = await Service(tmp_path).start(1)
    try:
        guest = await arrive(pair.workers[0].url)
        await pair.add()
        stopping = asyncio.create_task(pair.workers[0].stop())
        await guest.next("session:move")
        await guest.hang_up()
        assert await stopping == 0
    finally:
        await pair.stop()


async def test_a_search_goes_on_elsewhere(three: Service, tongue: str) -> None:
    """Who waits when the worker stops meets whoever comes."""
    one = Resident([w.url for w in three.workers], await get_guest(three.workers[0].url), tongue, 1, moves=True)
    people = Crowd(three.workers[1].url, tongue)
    await one.arrive(three.workers[0].url)
    await one.find()
    try:
        await restart(three.workers[0])
        assert one.moved == 1
        await one.find()
        await people.find(await people.arrive())
        await one.seated()
    finally:
        await one.leave()
        await people.leave()


# --------------------------------------------------------------------------- what each sees of it


async def test_first_it_is_not_ready_and_takes_nobody_in_while_those_inside_go_on(three: Service, tongue: str) -> None:
    """New connections are answered 503 for a proxy to take another worker; requests of the others are answered."""
    stopping, other = three.workers[0], three.workers[1]
    people = Crowd(other.url, tongue)
    try:
        async with Wire(stopping.url) as inside, Polls(stopping.url) as polling:
            await inside.open(auth_of(await get_guest(stopping.url)))
            await polling.open(auth_of(await get_guest(stopping.url)))
            stopping.signal(signal.SIGTERM)
            await inside.push("session:move")
            assert await ready(stopping) == 503
            for address in (f"{stopping.url}/socket.io/?EIO=4&transport=polling", polling.address[:-4] + "none"):
                async with aiohttp.ClientSession() as session, session.get(address) as refused:
                    assert refused.status == 503
                    assert (await refused.json())["error"]["code"] == "busy"
            with pytest.raises(aiohttp.WSServerHandshakeError) as told:
                async with Wire(stopping.url):
                    pass
            assert told.value.status == 503
            assert "ok" in await inside.ask("session:refresh", {})
            assert await polling.post('421["session:refresh",{}]') == 200
            assert "token" in await polling.receive("431")
            # It is not kept for the next request either, which has to go elsewhere.
            async with aiohttp.ClientSession() as session, session.get(stopping.url + "/health") as response:
                assert response.headers["Connection"] == "close"
            assert await inside.closed(timeout=8) == 1012
    finally:
        await people.leave()
        assert await stopping.stop() == 0
        await stopping.start()


async def test_a_poll_that_waits_returns_and_one_between_polls_hears_of_it(three: Service) -> None:
    """Both are told by a CLOSE packet, not by a broken connection."""
    stopping = three.workers[0]
    created = [await get_guest(stopping.url) for _ in range(2)]
    try:
        async with Polls(stopping.url) as waits, Polls(stopping.url) as pauses:
            for polls, guest in zip((waits, pauses), created, strict=True):
                await polls.open(auth_of(guest))
                await polls.receive('42["session:state"')
            stopping.signal(signal.SIGTERM)
            await waits.receive('42["session:move"', timeout=8)
            while (told := await waits.poll())[1][-1] != "1":
                assert told[0] == 200
            assert told[0] == 200
            status, packets = await pauses.poll()
            assert (status, packets[-1]) == (200, "1")
            assert any(packet.startswith('42["session:move"') for packet in packets)
    finally:
        assert await stopping.stop() == 0
        await stopping.start()


async def test_one_who_only_tries_a_websocket_is_closed_cleanly_too(three: Service) -> None:
    """In the middle of an upgrade from polling."""
    stopping = three.workers[0]
    try:
        async with Polls(stopping.url) as polls:
            await polls.open(auth_of(await get_guest(stopping.url)))
            async with Wire(stopping.url, sid=polls.sid) as probe:
                await probe.send("2probe")
                await probe.receive("3probe")
                stopping.signal(signal.SIGTERM)
                assert await probe.closed(timeout=9) == 1012
    finally:
        assert await stopping.stop() == 0
        await stopping.start()


async def test_a_request_under_way_is_answered_before_the_connection_closes(tmp_path: Path) -> None:
    """Redis takes its time, and the worker, which is the only one and has nobody to move to, waits for it."""
    alone = await Service(tmp_path, Production).start()
    raw = redis.Redis.from_url(alone.valkey.url)
    worker = alone.workers[0]
    try:
        async with Wire(worker.url) as one:
            await one.open(auth_of(await get_guest(worker.url)))
            await one.push("session:state")
            # Cancelling asks Redis, which is stopped for a moment that begins before the worker hears of its end.
            await raw.execute_command("CLIENT", "PAUSE", "1700")
            asked = asyncio.create_task(one.ask("match:cancel", {}))
            await asyncio.sleep(0.05)
            worker.signal(signal.SIGTERM)
            assert "ok" in await asked
            assert await one.closed() == 1012
        assert await worker.stop() == 0
    finally:
        await raw.aclose()
        await alone.stop()


async def test_a_worker_without_guests_or_without_another_stops_at_once(three: Service, tmp_path: Path) -> None:
    """There is nobody to wait for, or nowhere to go."""
    async with within(4):
        assert await three.workers[2].stop() == 0
    await three.workers[2].start()
    alone = await Service(tmp_path).start()
    try:
        async with Wire(alone.workers[0].url) as one:
            await one.open(auth_of(await get_guest(alone.workers[0].url)))
            async with within(2):
                stopping = asyncio.create_task(alone.workers[0].stop())
                assert await one.closed() == 1012
                assert await stopping == 0
    finally:
        await alone.stop()


# --------------------------------------------------------------------------- files


async def test_an_upload_under_way_goes_on_elsewhere_from_where_it_was_cut(three: Service, tongue: str) -> None:
    """What came of a part before the worker went is kept; tus asks how much, and sends the rest to another."""
    stopping, other = three.workers[0], three.workers[1]
    people = Crowd(other.url, tongue)
    data = bytes(range(256)) * 4000
    try:
        a, _, conversation = await people.pair()
        sharer = Sharer(a, conversation, stopping.url)
        file = await sharer.begun(len(data), "numbers.txt")

        async def slowly() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 4000):
                yield data[start : start + 4000]
                await asyncio.sleep(0.1)

        part = asyncio.create_task(sharer.patch(file, 0, slowly()))
        await asyncio.sleep(1)
        assert await stopping.stop() == 0
        status, headers, _ = await part
        sharer.url = other.url
        offset = await sharer.offset(file)
        assert (status, int(headers["Upload-Offset"])) == (204, offset)
        assert 4000 <= offset < len(data)
        status, headers, _ = await sharer.patch(file, offset, data[offset:])
        assert (status, int(headers["Upload-Offset"])) == (204, len(data))
    finally:
        await people.leave()
        await stopping.start()
