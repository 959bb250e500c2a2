"""What is measured beside each other: Visavis, stock python-socketio and Node, as processes of their own."""

import asyncio
import hashlib
import hmac
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio as redis

from rig import Worker, get_guest
from visavis.adapters.valkey import PrivateValkey
from visavis.describe import contract_hash

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
GENEROUS = {
    "VISAVIS_BUCKET_SIZE": "1000000",
    "VISAVIS_BUCKET_PER_SECOND": "1000000",
    "VISAVIS_GUESTS_PER_WINDOW": "10000000",
    "VISAVIS_MAX_CONNECTIONS": "50000",
    # Partners find each other by an interest that only they have.
    "VISAVIS_WIDEN_INTERESTS_MS": "3600000",
    "VISAVIS_FILES_URL": "none",
    "VISAVIS_LOG_LEVEL": "warning",
}
AT_ONCE = 50
"""Guests asked for at once."""


def cpu_seconds(pid: int) -> float:
    """What a process has taken of the processors, in user and system mode, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    """A process's share of the memory it has in use (PSS): what several share counts once."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(pid)


class Subject(ABC):
    """Some servers on one Redis, and the clients that may connect to them."""

    name = ""

    def __init__(self, folder: Path, workers: int, *, shared: bool) -> None:
        """`shared`: with a Redis between the workers, which a single one may not need."""
        self._folder = folder
        self._count = workers
        self._shared = shared
        self._valkey = PrivateValkey()
        self.ports: list[int] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._between: list[int] = []

    async def start(self) -> None:
        """Start everything; afterwards `ports` are listened on."""
        if self._shared:
            await self._valkey.start()
            client = redis.Redis.from_url(self._valkey.url)
            self._between = [(await client.info("server"))["process_id"]]
            await client.aclose()
        for _ in range(self._count):
            await self._start_one()

    @abstractmethod
    async def _start_one(self) -> None:
        """Start one more server, and add its port."""

    async def stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        if self._shared:
            await self._valkey.stop()

    @property
    def pids(self) -> list[int]:
        """The workers, and what lies between them."""
        return [process.pid for process in self._processes] + self._between

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)

    def memory(self) -> int:
        """Of the workers alone."""
        return sum(resident_bytes(process.pid) for process in self._processes)

    async def clients(self, count: int, *, look: bool) -> list[str]:
        """Lines for the load generator: `count` clients, partners on different workers if there are several.

        Without `look` they only connect.
        """
        lines = []
        for number in range(count):
            pair, side = divmod(number, 2)
            port = self.ports[_place(pair, side, len(self.ports))]
            lines.append(f"{port}\t40{json.dumps(self._introduction(number))}\t{self._request(pair) if look else ''}")
        return lines

    def _introduction(self, number: int) -> dict[str, str]:
        name = f"client{number}"
        return {"token": f"{name}.{hmac.new(b'bench', name.encode(), hashlib.sha256).hexdigest()}"}

    def _request(self, pair: int) -> str:
        return "420" + json.dumps(["match:find", {"pair": f"pair-{pair}"}])

    async def _spawn(self, *command: str, **environment: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
        )
        self._processes.append(process)
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), 30)
        self.ports.append(int(said))


def _place(pair: int, side: int, workers: int) -> int:
    """Partners sit apart, and every worker has as many partners on each of the others."""
    if workers == 1:
        return 0
    first = pair % workers
    return first if side == 0 else (first + 1 + pair // workers % (workers - 1)) % workers


class Visavis(Subject):
    """The product: its real gateway, guests, matching and limits."""

    name = "visavis"

    async def _start_one(self) -> None:
        worker = Worker(self._folder / f"worker{len(self.ports)}", **GENEROUS, **self._environment())
        await worker.start()
        assert worker.process is not None
        self._processes.append(worker.process)
        self.ports.append(worker.port)

    def _environment(self) -> dict[str, str]:
        return {"REDIS_URL": self._valkey.url} if self._shared else {}

    async def clients(self, count: int, *, look: bool) -> list[str]:
        self._tokens: list[str] = []
        while len(self._tokens) < count:
            some = range(min(AT_ONCE, count - len(self._tokens)))
            made = await asyncio.gather(*(get_guest(f"http://127.0.0.1:{self.ports[0]}") for _ in some))
            self._tokens += [guest["token"] for guest in made]
        return await super().clients(count, look=look)

    def _introduction(self, number: int) -> dict[str, str]:
        return {"token": self._tokens[number], "contract": contract_hash()}

    def _request(self, pair: int) -> str:
        return "420" + json.dumps(["match:find", {"mode": "text", "interests": [f"pair {pair}"]}])


class Stock(Subject):
    """python-socketio as it comes, on uvloop, with a fast JSON library and its own Redis manager."""

    name = "python-socketio"

    async def _start_one(self) -> None:
        redis = {"REDIS_URL": self._valkey.url} if self._shared else {}
        await self._spawn(sys.executable, str(HERE / "peers" / "stock.py"), PORT="0", **redis)


class Node(Subject):
    """Node's socket.io, with its native helpers and its sharded Redis adapter."""

    name = "node socket.io"

    async def _start_one(self) -> None:
        redis = {"REDIS_URL": self._valkey.url} if self._shared else {}
        await self._spawn("node", str(HERE / "peers" / "socketio.mjs"), PORT="0", **redis)


class Load:
    """The load generator's process."""

    def __init__(self, program: Path, mode: str, seconds: float, rate: float = 0) -> None:
        self._command = [str(program), mode, str(seconds), str(rate)]

    async def connect(self, clients: Sequence[str]) -> float:
        """Have everybody there; returns the seconds it took."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._tell("\n".join(clients) + "\n\n")
        told: dict[str, float] = await self._hear()
        return told["seconds"]

    async def run(self) -> None:
        """Let it work; returns when its time is up, with messages still on their way."""
        self._tell("go\n")
        await self._hear()

    async def outcome(self) -> dict[str, float]:
        found: dict[str, float] = await self._hear()
        await self._process.wait()
        return found

    async def end(self) -> None:
        """Hang up on everybody."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def _hear(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 600)
        if not line:
            raise RuntimeError("the load generator ended early; it says why above")
        told: dict[str, float] = json.loads(line)
        return told
