"""`scripts/cluster`: a whole deployment on one machine, from its first word to the last process it started."""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from rig import PATIENCE, ROOT, arrive, free_port, get_guest, http, missing
from visavis.adapters import nginx, turn

pytestmark = pytest.mark.asyncio(loop_scope="session")


def free_ports(count: int) -> int:
    """The first of as many free ports in a row."""
    while True:
        first = random.randrange(33_000, 60_000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def processes(data_dir: Path) -> dict[int, str]:
    """Whatever runs with this data folder in its environment, whoever its parent is now."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and str(data_dir).encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


class Script:
    """One run of it; its output is kept in `said`."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.data_dir = folder / "data"
        self.port, self.plain_port, self.first_port = free_port(), free_port(), free_ports(2)
        self.url = f"https://localhost:{self.port}"
        self.said = ""
        ports = ["--port", str(self.port), "--plain-port", str(self.plain_port), "--first-port", str(self.first_port)]
        self._words = [sys.executable, "-m", "visavis", "cluster", "2", *ports, *options]
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_")},
            "PYTHONPATH": str(ROOT / "backend"),
            "VISAVIS_DATA_DIR": str(self.data_dir),
            **environment,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> "Script":
        self.process = await asyncio.create_subprocess_exec(
            *self._words, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return self

    async def says(self, pattern: str, within: float = 40) -> None:
        """Read until a line has this."""
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended: {self.said}"
                self.said += line
                if re.search(pattern, line):
                    return

    async def ends(self, number: signal.Signals | None = None, within: float = 15) -> int:
        """Signal it, and wait for its end; returns the exit status."""
        assert self.process is not None
        assert self.process.stdout is not None
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(within):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    def left(self) -> dict[int, str]:
        return processes(self.data_dir)

    def parts(self, program: str) -> list[int]:
        """Its children that are this program, whatever has become of their environment."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and self.process is not None and parent(int(folder.name)) == self.process.pid:
                    found += [int(folder.name)] if program in (folder / "cmdline").read_text() else []
        return found

    def gunicorns(self) -> set[int]:
        """The processes that look after workers."""
        assert self.process is not None
        return {pid for pid, line in self.left().items() if "gunicorn" in line and parent(pid) == self.process.pid}


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


@pytest_asyncio.fixture(loop_scope="session")
async def script(tmp_path: Path) -> AsyncIterator[Script]:
    for name, part in (("nginx", nginx), ("turnserver", turn)):
        if not part.available():
            missing(f"{name} is missing")
    one = await Script(tmp_path).start()
    try:
        yield one
    finally:
        assert one.process is not None
        if one.process.returncode is None:
            one.process.kill()
        for pid in one.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_it_serves_renews_its_workers_and_leaves_nothing_behind(script: Script) -> None:
    """Guests over https meet across workers; on SIGHUP each worker is another, and at the end no process is left."""
    await script.says(re.escape(f"ready at {script.url}"))
    await script.says("2 of 2 workers ready")
    async with http() as session, session.get(script.url + "/api/info") as response:
        info = await response.json()
        assert (info["relay"], info["recording"]) == (True, True)
    a, b = await arrive(script.url), await arrive(script.url)
    for guest in (a, b):
        await guest.find()
    found = await a.next("match:found")
    conversation = found["conversation"]["id"]
    before = script.gunicorns()
    assert len(before) == 2

    assert script.process is not None
    script.process.send_signal(signal.SIGHUP)
    await script.says("All workers are new")
    after = script.gunicorns()
    assert len(after) == 2
    assert before.isdisjoint(after)
    # Both come back to their conversation, as their browser would.
    for guest in (a, b):
        state = await guest.connect(claim=guest.claim)
        assert state["conversation"]["id"] == conversation
    assert "ok" in await a.say(conversation, 1, "still here")
    await b.next("chat:message")

    killed = next(iter(after))
    os.killpg(killed, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while len(script.gunicorns() - {killed}) < 2:
            await asyncio.sleep(0.05)
    await get_guest(script.url)

    started = time.monotonic()
    assert await script.ends(signal.SIGTERM) == 0
    assert time.monotonic() - started < 15
    assert script.said.rstrip().endswith("Stopped")
    assert script.left() == {}


async def test_what_it_started_does_not_outlive_it(script: Script) -> None:
    """Not even if it is killed, which it cannot notice."""
    await script.says("ready at")
    assert len(script.left()) > 6
    await script.ends(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while script.left():
            await asyncio.sleep(0.05)


async def test_an_interruption_while_it_starts_ends_it_as_well(script: Script) -> None:
    """Whatever is half way up comes down again."""
    await script.says("Starting")
    async with asyncio.timeout(PATIENCE):
        while not script.gunicorns():
            await asyncio.sleep(0.01)
    assert await script.ends(signal.SIGINT) == 0
    assert script.left() == {}


@pytest.mark.parametrize(
    ("name", "program"), [("Nginx", "nginx: master"), ("Valkey", "valkey"), ("Coturn", "turnserver")]
)
async def test_it_does_not_go_on_without_one_of_its_parts(script: Script, name: str, program: str) -> None:
    """It says which one has ended, ends the others, and leaves with a status that a script can see."""
    await script.says("ready at")
    [pid] = script.parts(program)
    os.kill(pid, signal.SIGKILL)
    await script.says(f"{name} ended by itself")
    assert await script.ends() == 1
    assert script.left() == {}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", script.port)


async def test_the_commands_it_names_work_as_they_stand(script: Script) -> None:
    """In a shell that knows nothing else; what they read is for nobody else, and gone at the end."""
    await script.says("drain --all")
    lines_said = script.said.splitlines()
    export, *commands = lines_said[lines_said.index("From another shell, in this folder:") + 1 :]
    await script.says("2 of 2 workers ready")
    environment = script.data_dir / "cluster" / "env"
    assert environment.stat().st_mode & 0o777 == 0o600
    before = script.gunicorns()
    for command in commands:
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"{export}; {command}{' --once' if command.endswith('top') else ''}"),
            env={name: os.environ[name] for name in ("PATH", "HOME")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            said, _ = await shell.communicate()
        told = said.decode()
        if command.endswith("check"):
            # It warns of the machine's own wants, and of the certificate that nobody has signed.
            assert shell.returncode < 2, told
            assert "leads to a worker, WebSocket and all" in told, told
            assert "relays between two guests" in told, told
            assert f"A worker already answers on 127.0.0.1 port {script.first_port}." in told, told
        else:
            assert shell.returncode == 0, (command, told)
    assert before.isdisjoint(script.gunicorns())
    assert await script.ends(signal.SIGTERM) == 0
    assert not environment.exists()


def lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip())


async def test_it_says_what_is_missing_or_in_the_way(tmp_path: Path) -> None:
    """All of it at once, each in a line with what to do; and starts nothing."""
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    bare = await Script(tmp_path, PATH=str(nowhere)).start()
    with socket.create_server(("127.0.0.1", bare.port)), socket.create_server(("127.0.0.1", bare.first_port + 1)):
        assert await bare.ends() == 2
    said = bare.said
    assert "nginx is missing. On Debian: apt install nginx" in said
    assert "coturn is missing" in said
    assert "apt install coturn" in said
    for port in (bare.port, bare.first_port + 1):
        assert f"Port {port} is in use by another program." in said
    assert "Traceback" not in said
    assert len(list(lines(said))) == 5
    assert bare.left() == {}


async def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """In the worker's own words; the others and all else are ended."""
    for name, part in (("nginx", nginx), ("turnserver", turn)):
        if not part.available():
            missing(f"{name} is missing")
    broken = await Script(tmp_path, VISAVIS_SECRETS="k1:short").start()
    assert await broken.ends(within=60) == 2
    assert "does not start" in broken.said
    assert "32" in broken.said
    assert "Traceback" not in broken.said
    assert broken.left() == {}
