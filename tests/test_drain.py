"""`visavis drain` as operators run it: a process of its own that has workers go, one after another."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from rig import ROOT, Production, Service, Worker, get_guest
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def drain(*arguments: str, redis: str = "") -> tuple[int, str, str]:
    """Exit status, what it printed, what it complained of."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VISAVIS_", "REDIS_"))}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "visavis", "drain", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT / "backend"), **({"REDIS_URL": redis} if redis else {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


@pytest_asyncio.fixture(loop_scope="session")
async def pair(tmp_path: Path) -> AsyncIterator[Service]:
    """One worker under gunicorn, one that listens itself."""
    running = Service(tmp_path, Production)
    await running.start()
    running.workers.append(await Worker(tmp_path, REDIS_URL=running.valkey.url).start())
    yield running
    await running.stop()


async def test_all_go_one_after_another_and_each_is_replaced_before_the_next_goes(tmp_path: Path) -> None:
    """Something starts each again, as systemd would; never is more than one of them away."""
    three = await Service(tmp_path, Production).start(3)
    statuses: list[int | None] = []
    most_away = 0

    async def keep(worker: Worker) -> None:
        while True:
            assert worker.process is not None
            statuses.append(await worker.process.wait())
            await worker.start()

    async def watch() -> None:
        nonlocal most_away
        while True:
            away = 0
            async with aiohttp.ClientSession() as session:
                for worker in three.workers:
                    try:
                        async with session.get(worker.url + "/ready") as response:
                            away += response.status != 200
                    except aiohttp.ClientError:
                        away += 1
            most_away = max(most_away, away)
            await asyncio.sleep(0.05)

    kept = [asyncio.create_task(keep(worker)) for worker in three.workers]
    watching = asyncio.create_task(watch())
    try:
        async with Wire(three.workers[0].url) as guest:
            await guest.open(auth_of(await get_guest(three.workers[0].url)))
            closed = asyncio.create_task(guest.closed(timeout=80))
            status, said, complaints = await drain("--all", redis=three.valkey.url)
            assert (status, complaints) == (0, "")
            assert said.count("is asked to go") == said.count("in its place") == 3
            assert await closed == 1012
        assert statuses == [0, 0, 0]
        assert most_away == 1
    finally:
        for task in [watching, *kept]:
            task.cancel()
        await asyncio.gather(watching, *kept, return_exceptions=True)
        await three.stop()


async def test_where_nothing_starts_another_it_stops_after_the_first(pair: Service) -> None:
    """And says what to do; so a cluster is never drained away by mistake."""
    first, second = sorted(pair.workers, key=lambda worker: (len(worker.url), worker.url))
    status, said, complaints = await drain("--all", "--replaced-within", "3", redis=pair.valkey.url)
    assert status == 1
    assert said.count("is asked to go") == 1
    assert "gone after" in said
    assert "--for-good" in complaints
    assert first.process is not None
    assert await asyncio.wait_for(first.process.wait(), 5) == 0
    assert second.process is not None
    assert second.process.returncode is None


async def test_workers_are_named_by_address_or_port_and_may_go_for_good(pair: Service) -> None:
    """The one that listens itself ends as the one under gunicorn does."""
    for worker in pair.workers:
        assert worker.process is not None
        name = worker.url.removeprefix("http://")
        if worker is pair.workers[1]:
            name = name.rpartition(":")[2]
        assert (await drain(name, "--for-good", redis=pair.valkey.url))[0] == 0
        assert await asyncio.wait_for(worker.process.wait(), 20) == 0
    assert (await drain("--all", redis=pair.valkey.url))[:2] == (0, "there is no worker\n")


async def test_what_makes_no_sense_is_said(pair: Service) -> None:
    """A name nobody has, nothing to do, no Redis, no such process."""
    status, _, complaints = await drain("3999x", redis=pair.valkey.url)
    assert status == 1
    assert all(worker.url.removeprefix("http://") in complaints for worker in pair.workers)
    assert (await drain(redis=pair.valkey.url))[0] == 2
    assert (await drain("--all", "3001", redis=pair.valkey.url))[0] == 2
    assert "REDIS_URL" in (await drain("--all"))[2]
    assert "Redis does not answer" in (await drain("--all", redis="redis://127.0.0.1:1"))[2]
    assert "there is no process" in (await drain("--pid", str(2**22 + 1)))[2]
    for worker in pair.workers:
        assert worker.process is not None
        assert worker.process.returncode is None


async def test_a_process_is_waited_for_and_one_that_hangs_is_told(pair: Service) -> None:
    """By its id, without Redis."""
    going, hanging = pair.workers
    assert going.process is not None
    assert hanging.process is not None
    status, said, _ = await drain("--pid", str(going.process.pid))
    assert status == 0
    assert "is gone after" in said
    assert await asyncio.wait_for(going.process.wait(), 5) == 0
    hanging.signal(signal.SIGSTOP)
    status, _, complaints = await drain("--pid", str(hanging.process.pid), "--within", "1")
    assert status == 1
    assert "still there after 1 s" in complaints
    with contextlib.suppress(ProcessLookupError):
        hanging.signal(signal.SIGCONT)
    assert await asyncio.wait_for(hanging.process.wait(), 10) == 0
