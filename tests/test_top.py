"""The live view as operators run it, a process of its own: in a terminal, and without one."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio

from crowd import Crowd
from faults import MortalValkey
from rig import PATIENCE, ROOT, Service, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")


def environment(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VISAVIS_", "REDIS_", "COLUMNS"))}
    return {**kept, "PYTHONPATH": str(ROOT / "backend"), "TERM": "xterm", **({"REDIS_URL": url} if url else {})}


async def top(url: str, *arguments: str) -> tuple[int, str, str]:
    """A run without a terminal: exit status, what it printed, what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "visavis", "top", *arguments],
        env=environment(url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


class Terminal:
    """A terminal of so many columns and lines, in which the view runs."""

    def __init__(self, url: str, width: int = 80, height: int = 24) -> None:
        self._url = url
        self._size = width, height
        self._news = asyncio.Event()
        self.shown = ""
        """Everything that was sent to it."""

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        self.resize(*self._size)
        self._before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "visavis", "top"],
            env=environment(self._url), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        self._news.set()

    async def shows(self, text: str, since: int = 0) -> int:
        """Wait until it shows something that it had not shown before; returns how much it has shown then."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.shown[since:]:
                self._news.clear()
                await self._news.wait()
        return len(self.shown)

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    async def ends(self) -> int:
        """Its exit status; the terminal must be as it was before."""
        status = await asyncio.wait_for(self.process.wait(), 10)
        await self.shows("\x1b[?1049l")
        assert termios.tcgetattr(self._theirs)[3] == self._before[3]
        return status


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    running = await Service(tmp_path_factory.mktemp("three")).start(3)
    yield running
    await running.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def people(three: Service, tongue: str) -> AsyncIterator[Crowd]:
    gathered = Crowd(three.workers[0].url, tongue)
    yield gathered
    await gathered.leave()


async def view(three: Service) -> dict[str, Any]:
    status, out, complaints = await top(three.valkey.url, "--once", "--json")
    assert (status, complaints) == (0, "")
    (line,) = out.splitlines()
    seen: dict[str, Any] = json.loads(line)
    return seen


async def test_whoever_has_read_enough_hears_no_complaint(three: Service) -> None:
    """As with `| head -1`: the next line goes nowhere, and that is the end of it."""
    ours, theirs = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "visavis", "top", "--json"],
        env=environment(three.valkey.url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    with os.fdopen(ours) as reader:
        assert json.loads(await asyncio.to_thread(reader.readline))
    assert process.stderr is not None
    complaints = await process.stderr.read()
    assert (await process.wait(), complaints) == (0, b"")


async def test_it_shows_every_worker_and_what_all_of_them_carry(three: Service, people: Crowd) -> None:
    """By their addresses, with the rate at which they take messages, once they were watched for a moment."""
    a, b = await people.arrive(), await people.arrive(three.workers[1].url)
    talk = await people.meet(a, b, mode="voice")
    await people.find(await people.arrive(three.workers[2].url), mode="text")

    async def chat() -> None:
        seq = 0
        while True:
            seq += 1
            await a.say(talk, seq, "on and on")
            # As fast as a guest may for long.
            await asyncio.sleep(0.15)

    chatting = asyncio.create_task(chat())
    try:
        seen = await view(three)
    finally:
        chatting.cancel()
        await asyncio.wait({chatting})
    assert seen["problem"] == ""
    addresses = {worker["address"]: worker for worker in seen["workers"]}
    assert set(addresses) == {f"127.0.0.1:{worker.port}" for worker in three.workers}
    assert {worker["state"] for worker in seen["workers"]} == {"ready"}
    assert all(worker["memory"] > 10_000_000 for worker in seen["workers"])
    assert all(worker["up_seconds"] < 600 for worker in seen["workers"])
    busy = addresses[f"127.0.0.1:{three.workers[0].port}"]
    assert busy["messages_per_second"] > 2
    assert busy["cpu_percent"] > 0
    totals = seen["totals"]
    assert (totals["guests"], totals["conversations"], totals["calls"]) == (3, 1, 1)
    assert totals["waiting"] == {"text": 1}
    assert seen["redis"][0]["memory"] > 0


async def test_without_a_terminal_it_prints_one_plain_table(three: Service) -> None:
    """For a mail, or another program: no colours, nothing that moves a cursor."""
    status, out, complaints = await top(three.valkey.url)
    assert (status, complaints) == (0, "")
    assert "\x1b" not in out
    for worker in three.workers:
        assert f"127.0.0.1:{worker.port}" in out


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (30, 6)])
async def test_it_fits_a_terminal_of_any_size_and_ends_with_q(three: Service, width: int, height: int) -> None:
    """The terminal is as it was before: out of the other screen, and echoing."""
    async with Terminal(three.valkey.url, width, height) as terminal:
        await terminal.shows("127.0.0.1:")
        await terminal.shows("ready")
        if width >= 80:
            for worker in three.workers:
                await terminal.shows(f"127.0.0.1:{worker.port}")
        terminal.press("x")
        terminal.press("q")
        assert await terminal.ends() == 0


async def test_ctrl_c_ends_it_just_as_well(three: Service) -> None:
    """Without a trace of an exception."""
    async with Terminal(three.valkey.url) as terminal:
        await terminal.shows("ready")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.ends() == 0
        assert "Traceback" not in terminal.shown


async def test_a_worker_that_dies_is_shown_as_gone(three: Service) -> None:
    """For a while, so that somebody who looks later sees that there was one."""
    victim = await three.add()
    async with Terminal(three.valkey.url) as terminal:
        seen = await terminal.shows(f"127.0.0.1:{victim.port}")
        await victim.kill()
        three.workers.remove(victim)
        await terminal.shows("gone", seen)


async def test_it_says_that_redis_is_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    """The last numbers stay on the screen meanwhile."""
    valkey = await MortalValkey().start()
    worker = await Worker(tmp_path, REDIS_URL=valkey.url).start()
    try:
        async with Terminal(valkey.url, 100, 24) as terminal:
            seen = await terminal.shows("ready")
            await valkey.kill()
            seen = await terminal.shows("Redis does not answer", seen)
            await terminal.shows(f"127.0.0.1:{worker.port}", seen)
            await valkey.start()
            # Drawn without the sentence, which stands above the table.
            async with asyncio.timeout(PATIENCE):
                while "Redis does not answer" in terminal.shown[seen:]:
                    seen = await terminal.shows("CPU", len(terminal.shown))
            assert f"127.0.0.1:{worker.port}" in terminal.shown[seen - 3000 :]
            terminal.press("q")
            assert await terminal.ends() == 0
    finally:
        await worker.stop()
        await valkey.stop()


async def test_without_a_redis_it_says_so_and_what_is_meant(three: Service) -> None:
    """A private one is nobody's to watch; one that is not there is a failure, not an empty table."""
    status, out, complaints = await top("", "--once")
    assert (status, out) == (2, "")
    assert "REDIS_URL" in complaints
    status, out, complaints = await top("redis://:hidden-word@127.0.0.1:1/0", "--once")
    assert (status, out) == (1, "")
    assert "Redis does not answer" in complaints
    assert "hidden-word" not in complaints
