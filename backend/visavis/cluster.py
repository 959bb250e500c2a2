"""N workers behind nginx on one machine, with all they need: Visavis as it runs in production, to try it out.

Hides what is started in which order and with what environment, that a worker that ends is started anew, and that
nothing of it is left when this ends. Only workers are started anew; without any of the other parts it ends.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import resource
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.status import Status

from visavis.adapters import children, nginx, turn
from visavis.adapters.certificate import self_signed
from visavis.adapters.nginx import NginxFailed, PrivateNginx
from visavis.adapters.private_recorder import PrivateRecorder, RecorderFailed
from visavis.adapters.turn import PrivateTurn, TurnFailed
from visavis.adapters.valkey import PrivateValkey, ValkeyFailed
from visavis.core import tasks
from visavis.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 60.0
STOPS_WITHIN = 10.5
"""Seconds for a worker to hand its guests over and go; gunicorn itself insists after nine."""
LASTING = 5.0
"""A worker that ran for less than this many seconds failed, and is not started again at once."""
LOOK = 1.0
"""Seconds between looks at how the workers are."""
_COMMANDS = ("top", "check", "drain --all")
PATIENCE = aiohttp.ClientTimeout(total=2)


_SETTING = re.compile(r"VISAVIS_|REDIS_URL|MONGO_URL")


class CannotRun(Exception):
    """What is missing or in the way, and what to do, a line each."""


class _Worker:
    """One gunicorn at its port, started again whenever it ends."""

    def __init__(self, port: int, environment: Mapping[str, str], folder: Path) -> None:
        self.port = port
        self.log = folder / f"worker-{port}.log"
        self.ready = False
        self.lobby: dict[str, Any] = {}
        """What it says of who is here, on all workers."""
        self.failed = 0
        """How often in a row it ended by itself soon after it had begun."""
        self._environment = {**environment, "VISAVIS_PORT": str(port)}
        self._process: asyncio.subprocess.Process | None = None
        self._news = asyncio.Condition()
        self._stopping = False

    async def keep(self) -> None:
        """Run it until `stop`."""
        for delay in itertools.chain((0, 1, 2, 5), itertools.repeat(10)):
            if self.failed:
                await asyncio.sleep(delay)
            while not self._stopping:
                started = time.monotonic()
                await self._start()
                assert self._process is not None
                await self._process.wait()
                await self._say(ready=False)
                asked = self._process.returncode == 0
                if not asked and time.monotonic() - started < LASTING:
                    self.failed += 1
                    await self._say(ready=False)
                    break
                self.failed = 0
            if self._stopping:
                return

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Find out how it is."""
        ready, process = False, self._process
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(f"http://127.0.0.1:{self.port}/ready") as response:
                ready = response.status == 200
            async with session.get(f"http://127.0.0.1:{self.port}/api/info") as response:
                self.lobby = (await response.json())["lobby"]
        # Not what one said that has ended meanwhile.
        if process is not None and process is self._process and process.returncode is None:
            if ready:
                self.failed = 0
            await self._say(ready=ready)

    async def become_ready(self) -> None:
        """Wait until it is. Raises CannotRun if it fails instead."""
        async with self._news:
            await self._news.wait_for(lambda: self.ready or self.failed or self._stopping)
        if self.failed:
            raise CannotRun(f"The worker at port {self.port} does not start. {self._last_words()}\nSee {self.log}")

    async def renew(self) -> None:
        """Have it hand its guests over to the others and begin anew. Raises CannotRun if it does not come back."""
        if self._process is not None and self._process.returncode is None:
            await _end(self._process)
            await self._say(ready=False)
        await self.become_ready()

    async def stop(self) -> None:
        """Have it let its guests go, and end it."""
        self._stopping = True
        if self._process is not None:
            await _end(self._process)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            _kill(self._process)

    async def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "gunicorn", "-c", str(ROOT / "ecosystem" / "gunicorn.conf.py")],
                cwd=ROOT,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C reaches the whole terminal group; guests are to be told first.
                start_new_session=True,
                preexec_fn=children.before_exec,
            )

    async def _say(self, *, ready: bool) -> None:
        async with self._news:
            self.ready = ready
            self._news.notify_all()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-200:]
        said = [line for line in lines if line.startswith("visavis: ")]
        return (said or lines or [""])[-1]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, and insist when it had its time."""
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOPS_WITHIN)
        _kill(process)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """With what it started."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


class Cluster:
    """Everything, as one: started in order, kept running, ended in the reverse order."""

    def __init__(self, asked: argparse.Namespace, environment: Mapping[str, str]) -> None:
        """Raises SettingsError."""
        self._asked = asked
        self._settings = s = Settings.from_environment(environment)
        self._environment = dict(environment)
        self._folder = Path(s.data_dir).absolute() / "cluster"
        self._ends = AsyncExitStack()
        self._rolling = asyncio.Lock()
        self.workers: list[_Worker] = []
        self.environment_file = self._folder / "env"
        """What `visavis top`, `check` and `drain` need to find it, for a shell; there while it runs."""
        self.lost = ""
        """The part that ended by itself, without which it cannot go on."""
        self._loss = asyncio.Event()
        self._stopping = False
        self.address = s.origins.split()[0] if s.origins else f"https://localhost:{asked.port}"

    async def start(self) -> None:
        """Start every part and wait until it serves. Raises CannotRun; what was started before is ended then."""
        try:
            await self._start()
        except BaseException as error:
            await self.stop()
            if isinstance(error, (NginxFailed, ValkeyFailed, TurnFailed, RecorderFailed)):
                raise CannotRun(f"{type(error).__name__}: {error}") from None
            raise

    async def stop(self) -> None:
        """Workers let their guests go, then everything ends; within 15 seconds."""
        self._stopping = True
        await self._ends.aclose()

    async def broken(self) -> None:
        """Wait until a part that is not started anew has ended by itself; `lost` names it then."""
        await self._loss.wait()

    async def roll(self) -> None:
        """Renew one worker after the other. Raises CannotRun if one does not come back: the others stay as they are."""
        async with self._rolling:
            for worker in self.workers:
                await worker.renew()

    def kill(self) -> None:
        """End the workers at once; `stop` has little left to do then."""
        for worker in self.workers:
            worker.kill()

    def status(self) -> str:
        """How it is, in a line."""
        ready = [worker for worker in self.workers if worker.ready]
        lobby = ready[0].lobby if ready else {}
        line = (
            f"{len(ready)} of {len(self.workers)} workers ready, "
            f"{lobby.get('online', 0)} guests, {lobby.get('waiting', 0)} waiting"
        )
        failing = [str(worker.port) for worker in self.workers if worker.failed]
        return line + (f"; does not start: {', '.join(failing)}, see {self._folder}" if failing else "")

    async def look(self) -> None:
        """Find out how every worker is."""
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            await asyncio.gather(*(worker.look(session) for worker in self.workers))

    async def _start(self) -> None:
        s, asked, ends = self._settings, self._asked, self._ends.push_async_callback
        ports = range(asked.first_port, asked.first_port + asked.workers)
        here = list(_addresses(beyond=bool(asked.names)))
        client = Path(s.web_dir) if s.web_dir else ROOT / "web" / "dist"
        problems = [
            *self._missing(client),
            *_taken(here, [asked.port, asked.plain_port]),
            *_taken(["127.0.0.1"], ports),
        ]
        if problems:
            raise CannotRun("\n".join(problems))
        self._folder.mkdir(parents=True, exist_ok=True)
        certificate = self._folder.parent / "tls"
        self_signed(certificate, asked.names)
        environment = {
            "VISAVIS_LOG_LEVEL": "warning",
            "VISAVIS_ORIGINS": " ".join(_origins(asked.port, asked.names)),
            **self._environment,
            "VISAVIS_DATA_DIR": str(self._folder.parent),
            "VISAVIS_HOST": "127.0.0.1",
            # The first worker's, for who looks from another shell: at no port that is none of ours.
            "VISAVIS_PORT": str(ports[0]),
            "VISAVIS_TRUST_FORWARDED": "true",
        }
        if not s.redis_url:
            valkey = PrivateValkey()
            await valkey.start()
            ends(valkey.stop)
            self._miss("Valkey", valkey)
            environment["REDIS_URL"] = valkey.url
        relayed = s.turn_urls != "none"
        if not s.turn_urls:
            coturn = PrivateTurn()
            await coturn.start()
            ends(coturn.stop)
            self._miss("coturn", coturn)
            environment |= {"VISAVIS_TURN_URLS": " ".join(coturn.urls), "VISAVIS_TURN_SECRETS": coturn.secret}
        recorders = [PrivateRecorder(environment) for _ in range(asked.recorders if relayed else 0)]
        for recorder in recorders:
            await recorder.start()
            ends(recorder.stop)
            self._miss("the recorder", recorder)
        self._write_environment(environment)

        front = PrivateNginx(
            self._folder / "nginx",
            port=asked.port,
            plain_port=asked.plain_port,
            workers=ports,
            certificate=certificate,
            client=client,
            addresses=here,
        )
        self.workers = [_Worker(port, environment, self._folder) for port in ports]
        keeping = [asyncio.create_task(worker.keep()) for worker in self.workers]
        looking = asyncio.create_task(self._watch())
        ends(tasks.end, [looking, *keeping])
        # Ended after the workers, so that guests hear from them to the last.
        ends(front.stop)
        ends(self._end_workers, recorders)
        try:
            async with asyncio.timeout(READY_WITHIN):
                await asyncio.gather(*(worker.become_ready() for worker in self.workers))
        except TimeoutError:
            raise CannotRun(f"The workers are not ready after {READY_WITHIN:.0f} s. See {self._folder}") from None
        await front.start()
        self._miss("nginx", front)

    def _miss(self, name: str, part: PrivateValkey | PrivateTurn | PrivateRecorder | PrivateNginx) -> None:
        """Notice when it ends by itself."""

        async def watch() -> None:
            await part.ended()
            if not self._stopping and not self.lost:
                self.lost = name
                self._loss.set()

        self._ends.push_async_callback(tasks.end, [asyncio.create_task(watch())])

    def _write_environment(self, environment: Mapping[str, str]) -> None:
        named = {key: environment[key] for key in sorted(environment) if _SETTING.match(key)}
        self.environment_file.unlink(missing_ok=True)
        # Secrets are among it.
        with os.fdopen(os.open(self.environment_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"export {key}={shlex.quote(value)}\n" for key, value in named.items())
        self._ends.callback(self.environment_file.unlink, missing_ok=True)

    async def _end_workers(self, recorders: Sequence[PrivateRecorder]) -> None:
        # What is being recorded is finished while guests are told.
        await asyncio.gather(*(part.dismiss() for part in recorders), *(worker.stop() for worker in self.workers))

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK if all(worker.ready for worker in self.workers) else LOOK / 10)

    def _missing(self, client: Path) -> Iterator[str]:
        if not nginx.available():
            yield "nginx is missing. On Debian: apt install nginx libnginx-mod-http-brotli-static"
        if not self._settings.turn_urls and not turn.available():
            yield (
                "coturn is missing, the relay that calls go through. On Debian: apt install coturn. To do without, "
                "so that guests who call see each other's address: VISAVIS_TURN_URLS=none"
            )
        if not (client / "index.html").exists():
            yield f"The client is not built: there is no {client / 'index.html'}. scripts/cluster builds it."


def _origins(port: int, names: Sequence[str]) -> list[str]:
    return [
        f"https://{f'[{name}]' if ':' in name else name}:{port}" for name in ("localhost", "127.0.0.1", "::1", *names)
    ]


def _addresses(*, beyond: bool) -> Iterator[str]:
    """Where nginx listens: for this machine alone, or for all who reach it; over IPv6 too where there is any."""
    yield "0.0.0.0" if beyond else "127.0.0.1"  # noqa: S104  # only where asked for
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return
    yield "::" if beyond else "::1"


def _taken(addresses: Sequence[str], ports: Sequence[int]) -> Iterator[str]:
    """Ports that cannot be listened at, and what to do."""
    for port in ports:
        for address in addresses:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if ":" in address:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind((address, port))
                except PermissionError:
                    yield f"Port {port} is for root alone. Choose one from 1024 on; see scripts/cluster --help"
                    break
                except OSError:
                    yield f"Port {port} is in use by another program. End that, or choose one: scripts/cluster --help"
                    break


def main(argv: Sequence[str]) -> int:
    """Run until interrupted; returns 0 then, 1 if a part ended by itself, and 2 if it cannot run."""
    parser = argparse.ArgumentParser(
        prog="scripts/cluster",
        description="Run workers behind nginx on this machine, with Valkey, coturn and a recorder, until Ctrl-C. "
        "SIGHUP renews one worker after the other. Settings (docs/settings.md) go to the workers.",
    )
    parser.add_argument("workers", nargs="?", type=int, default=3, help="how many; default: 3")
    parser.add_argument("--port", type=int, default=8443, help="for https; default: 8443")
    parser.add_argument("--plain-port", type=int, default=8080, help="for http, which leads to https; default: 8080")
    parser.add_argument("--first-port", type=int, default=3001, help="of the first worker; default: 3001")
    parser.add_argument("--recorders", type=int, default=1, help="how many; default: 1")
    parser.add_argument(
        "--name",
        dest="names",
        action="append",
        default=[],
        help="a name or address others reach this machine by, such as 192.168.1.5; it listens to them then",
    )
    asked = parser.parse_args(argv)
    if asked.workers < 1 or asked.recorders < 0:
        parser.error("at least one worker, and no less than no recorder")
    # nginx and the workers need a file for each connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        return asyncio.run(_run(Cluster(asked, os.environ), console))
    except (CannotRun, SettingsError) as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"visavis: {error}")
        return 2


async def _run(cluster: Cluster, console: Console) -> int:
    loop, stop, roll = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            # Asked twice: whoever does so will not wait.
            cluster.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    loop.add_signal_handler(signal.SIGHUP, roll.set)
    starting = asyncio.ensure_future(cluster.start())
    asked = asyncio.ensure_future(stop.wait())
    console.print("Starting")
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    await starting
    async with contextlib.AsyncExitStack() as ends:
        beside = (_roll_when(roll, cluster, console), _stop_when_broken(stop, cluster))
        ends.push_async_callback(tasks.end, [asyncio.create_task(one) for one in beside])
        console.print(f"Visavis is ready at {cluster.address}")
        console.print(
            "Its certificate is self-signed unless you put your own there: browsers ask once whether to go on."
        )
        console.print("From another shell, in this folder:")
        python = shlex.quote(os.path.relpath(sys.executable))
        told = f". {shlex.quote(os.path.relpath(cluster.environment_file))}; export PYTHONPATH=backend"
        console.print(f"  {told}\n" + "\n".join(f"  {python} -m visavis {word}" for word in _COMMANDS))
        async for line in _lines(cluster, stop, console):
            console.print(line)
        if cluster.lost:
            console.print(f"{cluster.lost[0].upper()}{cluster.lost[1:]} ended by itself, and nothing works without.")
        console.print("Stopping")
        await cluster.stop()
    console.print("Stopped")
    return 1 if cluster.lost else 0


async def _lines(cluster: Cluster, stop: asyncio.Event, console: Console) -> AsyncIterator[str]:
    """How it is: in one line that changes on a terminal, elsewhere each time that it became another."""
    said = ""
    with Status("", console=console) if console.is_terminal else contextlib.nullcontext() as live:
        while not stop.is_set():
            status = cluster.status()
            if live is not None:
                live.update(status)
            elif status != said:
                yield status
            said = status
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK)


async def _stop_when_broken(stop: asyncio.Event, cluster: Cluster) -> None:
    await cluster.broken()
    stop.set()


async def _roll_when(asked: asyncio.Event, cluster: Cluster, console: Console) -> None:
    while True:
        await asked.wait()
        asked.clear()
        console.print("Renewing one worker after the other")
        try:
            await cluster.roll()
        except CannotRun as error:
            console.print(f"{error}\nThe others stay as they are.")
        else:
            console.print("All workers are new")
