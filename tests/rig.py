"""Real parts for tests: workers as processes, a Valkey of one's own, guests with official protocols.

Everything listens on free ports of this machine and ends with the test that started it, by process id.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest
import socketio

from visavis.adapters.certificate import self_signed
from visavis.adapters.nginx import PrivateNginx
from visavis.adapters.scanner import Clamd
from visavis.adapters.valkey import PrivateValkey
from visavis.contract import RULES_VERSION
from visavis.core.identity import new_id
from visavis.core.ports import ScannerUnavailable
from visavis.describe import contract_hash

ROOT = Path(__file__).resolve().parents[1]
SECRETS = "t1:" + "s" * 40
UNLIMITED = {
    f"VISAVIS_{name}": "1000000"
    for name in (
        *("PEOPLE_PER_ADDRESS", "API_PER_WINDOW", "REQUESTS_PER_MINUTE", "FINDS_PER_MINUTE", "REPORTS_PER_HOUR"),
        *("TRANSFERS_PER_MINUTE", "GUESTS_PER_WINDOW", "CONNECTIONS_PER_ADDRESS", "HANDSHAKES_PER_MINUTE"),
        *("STRANGERS_PER_ADDRESS", "MAX_STRANGERS"),
    )
} | {"VISAVIS_UPLOAD_BYTES_PER_HOUR": "1000000000000"}
"""Everybody in a test comes from one address, and is in a hurry."""
PATIENCE = 30.0
"""Seconds after which what a test waits for is taken not to come. It says nothing about how soon that should be: the
machine may be busy. `faults.within` is for promises."""


both = pytest.mark.parametrize("transport", ["fast", "stock"], indirect=True)
"""A test that is to hold over each carrier of connections, ours and python-engineio."""
START = 180.0
"""The same for a worker's start, which is seconds of computing for one that has a processor to itself."""


def missing(what: str) -> NoReturn:
    """Skip what cannot be tested here; with CI=true, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def promtool() -> str:
    """Prometheus's own checker."""
    return shutil.which("promtool") or missing("no promtool")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Worker:
    """One `visavis serve` process."""

    python = sys.executable

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_")},
            "PYTHONPATH": str(ROOT / "backend"),
            "VISAVIS_DATA_DIR": str(data_dir),
            "VISAVIS_PORT": "0",
            "VISAVIS_SECRETS": SECRETS,
            **UNLIMITED,
            # A test of calls brings a relay of its own, which outlives the worker.
            "VISAVIS_TURN_URLS": "none",
            **environment,
        }
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.log = data_dir / f"{new_id()}.log"

    async def start(self) -> "Worker":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.python,
                "-m",
                "visavis",
                "serve",
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        said = ""
        while "ready at" not in said and (line := await asyncio.wait_for(self.process.stdout.readline(), START)):
            said += line.decode()
        if "ready at" not in said:
            await self.process.wait()
            raise AssertionError(f"the worker did not start: {said}{self.log.read_text()}")
        self.port = int(self._environment["VISAVIS_PORT"]) or int(said.rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self._reap()

    async def stop(self) -> int:
        """As an operator would; returns the exit status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return await self._reap()

    async def _reap(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        await asyncio.wait_for(self.process.stdout.read(), PATIENCE)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)

    def logged(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Production(Worker):
    """One worker as operators run it: by gunicorn, on a port it is told."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.port = int(environment.setdefault("VISAVIS_PORT", str(free_port())))
        super().__init__(data_dir, **environment)
        self.url = f"http://127.0.0.1:{self.port}"

    async def start(self) -> "Production":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                str(ROOT / "ecosystem" / "gunicorn.conf.py"),
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            async with asyncio.timeout(START), aiohttp.ClientSession() as session:
                while self.process.returncode is None:
                    try:
                        async with session.get(self.url + "/health") as response:
                            assert response.status == 200
                            return self
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        raise AssertionError(f"the worker did not start: {self.log.read_text()}")

    def child(self) -> int:
        """The process that serves; the other one looks after it."""
        assert self.process is not None
        [pid] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pid)


class Service:
    """Several workers on one Valkey and one document store."""

    def __init__(self, folder: Path, kind: type[Worker] = Worker, **environment: str) -> None:
        self._folder = folder
        self._kind = kind
        self._environment = environment
        self.valkey = PrivateValkey()
        self.workers: list[Worker] = []

    async def start(self, workers: int = 1) -> "Service":
        await self.valkey.start()
        for _ in range(workers):
            await self.add()
        return self

    async def add(self, **environment: str) -> Worker:
        worker = self._kind(self._folder, REDIS_URL=self.valkey.url, **{**self._environment, **environment})
        await worker.start()
        self.workers.append(worker)
        return worker

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        await self.valkey.stop()


def http(address: str | None = None, **options: Any) -> aiohttp.ClientSession:
    """A client that takes the certificate of a test for good, perhaps with an address of its own in 127.0.0.0/8."""
    local = (address, 0) if address else None
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False, local_addr=local), **options)


def from_address(address: str | None) -> dict[str, str]:
    """What a proxy would say of a request from there."""
    return {"X-Forwarded-For": address} if address else {}


class TurnedAway(AssertionError):
    """No guest was made; says what the answer was."""


async def get_guest(url: str, device: str | None = None, *, address: str | None = None) -> dict[str, Any]:
    """Ask for a guest over HTTP. Raises TurnedAway."""
    body = {"device": device} if device else {"birthDate": "1990-05-17", "rules": RULES_VERSION}
    async with (
        http(headers=from_address(address)) as session,
        session.post(f"{url}/api/guests", json=body) as response,
    ):
        created: dict[str, Any] = await response.json()
        if response.status != 201:
            raise TurnedAway(created)
        return created


class Guest:
    """A client without a screen: asks, and remembers every push in order."""

    def __init__(
        self, url: str, created: dict[str, Any], transports: list[str] | None = None, *, address: str | None = None
    ) -> None:
        self.url = url
        self.created = created
        self.address = address
        self.transports = transports or ["websocket"]
        self.pushes: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Condition()
        self._read = 0
        self.claim: str | None = None
        self.connected = False
        self._sio = self._client()

    def _client(self) -> socketio.AsyncClient:
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, ssl_verify=False)
        sio.on("*", self._on_push)
        sio.on("disconnect", self._on_disconnect)
        return sio

    async def _on_push(self, event: str, push: dict[str, Any]) -> None:
        async with self._news:
            if event == "match:found":
                self.claim = push["conversation"]["claim"]
            self.pushes.append((event, push))
            self._news.notify_all()

    async def _on_disconnect(self, reason: str) -> None:
        async with self._news:
            self.connected = False
            self.pushes.append(("disconnect", {"reason": reason}))
            self._news.notify_all()

    async def connect(self, url: str | None = None, **auth: Any) -> dict[str, Any]:
        """Connect, to another worker if one is named; returns the session:state."""
        self.url = url or self.url
        if self._sio.connected or self._sio.eio.state != "disconnected":
            await self._sio.disconnect()
        self._sio = self._client()
        asked = {"token": self.created["token"], "contract": contract_hash(), **auth}
        headers = from_address(self.address)
        await self._sio.connect(self.url, headers, auth=asked, transports=self.transports, wait_timeout=PATIENCE)
        self.connected = True
        return await self.next("session:state")

    async def ask(self, event: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; returns its acknowledgement."""
        answer: dict[str, Any] = await self._sio.call(event, request or {}, timeout=PATIENCE)
        return answer

    async def next(
        self, event: str, where: Callable[[dict[str, Any]], bool] = lambda push: True, timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """The next push of this name, skipping others."""
        async with asyncio.timeout(timeout), self._news:
            while True:
                while self._read < len(self.pushes):
                    name, push = self.pushes[self._read]
                    self._read += 1
                    if name == event and where(push):
                        return push
                await self._news.wait()

    async def find(self, **wishes: Any) -> dict[str, Any]:
        return await self.ask("match:find", {"mode": "text", "languages": ["en"], **wishes})

    async def say(self, conversation: str, seq: int, text: str, message_id: str | None = None) -> dict[str, Any]:
        return await self.ask(
            "chat:message",
            {
                "conversationId": conversation,
                "id": message_id or new_id(),
                "seq": seq,
                "body": {"kind": "text", "text": text},
            },
        )

    async def hang_up(self) -> None:
        """Drop the connection without leaving."""
        await self._sio.disconnect()

    async def vanish(self) -> None:
        """Break the socket without a word, as a lost network does."""
        await self._sio.eio.http.close()


async def arrive(url: str, **options: Any) -> Guest:
    """A new guest, connected."""
    guest = Guest(url, await get_guest(url), **options)
    await guest.connect()
    return guest


async def meet(a: Guest, b: Guest, **wishes: Any) -> str:
    """Have two guests find each other; returns the conversation's id."""
    for guest in (a, b):
        asked = await guest.find(**wishes)
        assert "ok" in asked, asked
    found = await a.next("match:found")
    other = await b.next("match:found")
    assert found["conversation"]["id"] == other["conversation"]["id"]
    conversation: str = found["conversation"]["id"]
    return conversation


class Nginx:
    """A real nginx in front of workers, with the configuration at the top level: one address for all of them."""

    def __init__(self, folder: Path, more: str = "") -> None:
        """`more` is put into the server that takes https."""
        self.folder = folder / "nginx"
        self._more = more
        self._certificate = folder / "tls"
        self.port, self.plain_port, self.proxied_port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._nginx: PrivateNginx | None = None

    async def start(self, workers: list[Worker], client: Path = ROOT / "web" / "dist") -> "Nginx":
        """At `proxied_port` it believes who says first, by PROXY protocol, from which address a connection comes."""
        self_signed(self._certificate)
        self._nginx = PrivateNginx(
            self.folder,
            port=self.port,
            plain_port=self.plain_port,
            workers=[worker.port for worker in workers],
            certificate=self._certificate,
            client=client,
            more=f"listen 127.0.0.1:{self.proxied_port} ssl http2 proxy_protocol;\n"
            f"set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;\n{self._more}",
        )
        await self._nginx.start()
        return self

    def settings(self) -> dict[str, str]:
        """What workers behind it are told."""
        return {"VISAVIS_ORIGINS": self.url, "VISAVIS_TRUST_FORWARDED": "true"}

    def logged(self) -> list[dict[str, Any]]:
        """Its access log so far."""
        assert self._nginx is not None
        return [json.loads(line) for line in self._nginx.access_log.read_text().splitlines()]

    async def stop(self) -> None:
        assert self._nginx is not None
        await self._nginx.stop()


class ScannerDaemon:
    """A real clamd with a database of one signature, that of the test file; it takes so much of a stream."""

    def __init__(self, folder: Path, largest: int, *, tcp: bool = False) -> None:
        self._folder = folder
        self._largest = largest
        self._port = free_port() if tcp else 0
        self.url = f"tcp://127.0.0.1:{self._port}" if tcp else f"unix:{folder / 'clamd.sock'}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, finds: bytes) -> "ScannerDaemon":
        """Returns once it answers."""
        program = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin")
        if program is None:
            missing("clamd is missing")
        folder = self._folder
        (folder / "signatures").mkdir(parents=True)
        (folder / "signatures" / "test.ndb").write_text(f"Eicar-Test:0:*:{finds.hex()}\n")
        tcp = f"TCPSocket {self._port}\nTCPAddr 127.0.0.1\n"
        listens = tcp if self._port else f"LocalSocket {folder / 'clamd.sock'}\n"
        (folder / "clamd.conf").write_text(
            f"Foreground yes\n{listens}DatabaseDirectory {folder / 'signatures'}\n"
            f"TemporaryDirectory {folder}\nStreamMaxLength {self._largest}\nLogFile {folder / 'clamd.log'}\n"
        )
        self._process = process = await asyncio.create_subprocess_exec(
            *[program, "--config-file", str(folder / "clamd.conf")],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ScannerUnavailable):
                    await Clamd(self.url).ping()
                    return self
                assert process.returncode is None, (folder / "clamd.log").read_text()
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
