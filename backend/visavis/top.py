"""A live view of all workers and their Redis, in a terminal.

Hides where the numbers come from: every worker leaves its own in Redis with each beat (`core.liveness.Stats`), and
rates are worked out from what a worker said some seconds ago. It reads, and changes nothing; Redis may go away and
come back under it.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import signal as signals
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, get_args

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from visavis.adapters.redis import Recorders, Told, Watch, connect
from visavis.contract import Mode
from visavis.core.liveness import Stats, read_share
from visavis.core.ports import StateUnavailable
from visavis.core.recorder import RecorderLoad
from visavis.settings import Settings

MODES: tuple[Mode, ...] = get_args(Mode)
EVERY = 1.0
"""Seconds from one look to the next."""
PATIENCE = 5.0
"""Seconds after which a look that hangs counts as no answer."""
REMEMBERED = 6
"""Looks that rates are worked out over: workers speak once a second, at times of their own."""
GONE_SECONDS = 30.0
"""For which a worker that has left is still shown."""
STALLED = 0.25
"""Seconds of standstill that guests feel."""


class Worker(msgspec.Struct):
    """What is shown of a worker."""

    worker: str
    state: str
    """ready, draining, silent (its lease has run out), gone, or `no` and the part that is away for it."""
    address: str
    machine: str
    version: str
    up_seconds: float
    guests: int
    connections: int
    conversations: int
    calls: int
    messages_per_second: float | None
    stall_ms: float
    memory: int
    cpu_percent: float | None


class Totals(msgspec.Struct):
    """Everybody together."""

    guests: int
    waiting: dict[str, int]
    conversations: int
    calls: int
    messages_per_second: float | None
    recorders: int
    recordings: int
    recording_places: int


class View(msgspec.Struct):
    """One look. Without Redis, `problem` says so, and the rest is what was seen last."""

    problem: str
    workers: list[Worker]
    totals: Totals
    redis: list[Told]


class Watcher:
    """Looks, and remembers what rates need."""

    def __init__(self, url: str, cells: int = 1) -> None:
        self._client = connect(url, cells)
        self._watch = Watch(self._client)
        self._recorders = Recorders(self._client)
        self._said: dict[str, collections.deque[tuple[float, Stats]]] = {}
        self._gone: dict[str, tuple[float, Worker]] = {}
        self._workers: dict[str, Worker] = {}
        self._away_since: float | None = None
        self.view = View("", [], Totals(0, {}, 0, 0, None, 0, 0, 0), [])

    async def close(self) -> None:
        await self._client.aclose()

    async def look(self) -> View:
        """The view now. Redis being away is a view, too."""
        try:
            async with asyncio.timeout(PATIENCE):
                told, shares, loads = await asyncio.gather(
                    self._watch.told(), self._watch.workers(), self._recorders.loads()
                )
        except (StateUnavailable, TimeoutError) as error:
            self._away_since = self._away_since or time.monotonic()
            away = time.monotonic() - self._away_since
            why = str(error) or "it hangs"
            self.view = msgspec.structs.replace(self.view, problem=f"Redis does not answer, for {away:.0f} s: {why}")
            return self.view
        self._away_since = None
        self._remember({name: (left, read_share(share)) for name, (left, share) in shares.items()})
        self.view = View("", self._shown(), self._totals(loads), told)
        return self.view

    def _remember(self, shares: dict[str, tuple[float, Stats]]) -> None:
        now = time.monotonic()
        for name in self._workers.keys() - shares.keys():
            self._gone[name] = now, _as_gone(self._workers[name])
            del self._said[name]
        self._gone = {
            name: (since, worker)
            for name, (since, worker) in self._gone.items()
            if name not in shares and now - since < GONE_SECONDS
        }
        self._workers = {}
        for name, (left, share) in shares.items():
            said = self._said.setdefault(name, collections.deque(maxlen=REMEMBERED))
            said.append((now, share))
            self._workers[name] = _worker(name, left, said)

    def _shown(self) -> list[Worker]:
        gone = [worker for _, worker in self._gone.values()]
        return sorted([*self._workers.values(), *gone], key=lambda one: (one.machine, len(one.address), one.address))

    def _totals(self, loads: dict[str, bytes]) -> Totals:
        shares = [said[-1][1] for said in self._said.values()]
        waiting: collections.Counter[str] = collections.Counter()
        for share in shares:
            waiting.update(share.searching)
        recorders = [load for load in map(_read_load, loads.values()) if load is not None]
        rates = (worker.messages_per_second for worker in self._workers.values())
        known = [rate for rate in rates if rate is not None]
        return Totals(
            guests=sum(share.online for share in shares),
            waiting=dict(waiting),
            conversations=sum(share.conversations for share in shares),
            calls=sum(share.calls for share in shares),
            messages_per_second=sum(known) if known else None,
            recorders=len(recorders),
            recordings=sum(load.running for load in recorders),
            recording_places=sum(load.places for load in recorders),
        )


def _worker(name: str, left: float, said: Sequence[tuple[float, Stats]]) -> Worker:
    (then, before), (now, share) = said[0], said[-1]
    process, passed = share.process, now - then
    known = passed > EVERY / 2 and bool(process.address)
    state = "ready"
    if left <= 0:
        state = "silent"
    elif process.draining:
        state = "draining"
    elif process.unwell:
        state = f"no {','.join(process.unwell)}"
    return Worker(
        worker=name,
        state=state,
        address=process.address or name,
        machine=process.machine,
        version=process.version or "older",
        up_seconds=max(0.0, time.time() - process.started_at / 1000) if process.started_at else 0.0,
        guests=share.online,
        connections=process.connections,
        conversations=share.conversations,
        calls=share.calls,
        messages_per_second=(share.messages - before.messages) / passed if known else None,
        stall_ms=process.stall * 1000,
        memory=process.memory,
        cpu_percent=(process.cpu - before.process.cpu) / passed * 100 if known else None,
    )


def _as_gone(worker: Worker) -> Worker:
    return msgspec.structs.replace(
        worker, state="gone", connections=0, guests=0, conversations=0, calls=0, messages_per_second=None, stall_ms=0.0,
        memory=0, cpu_percent=None,
    )  # fmt: skip


def _read_load(load: bytes) -> RecorderLoad | None:
    try:
        return msgspec.json.decode(load, type=RecorderLoad)
    except msgspec.MsgspecError:
        return None


# --------------------------------------------------------------------------- drawing


STATES = {"ready": "green", "draining": "yellow", "silent": "bold red", "gone": "dim"}

# Heading, how it is read, whether it is a number, and from which width of the terminal on it is shown.
COLUMNS: tuple[tuple[str, Any, bool, int], ...] = (
    ("machine", lambda w: w.machine, False, 110),
    ("worker", lambda w: w.address, False, 0),
    ("state", lambda w: Text(w.state, STATES.get(w.state, "bold red")), False, 0),
    ("up", lambda w: _lasting(w.up_seconds), True, 50),
    ("conns", lambda w: f"{w.connections}", True, 36),
    ("guests", lambda w: f"{w.guests}", True, 100),
    ("talks", lambda w: f"{w.conversations}", True, 100),
    ("calls", lambda w: f"{w.calls}", True, 100),
    ("msg/s", lambda w: _rate(w.messages_per_second), True, 40),
    ("stall", lambda w: Text(f"{w.stall_ms:.0f} ms", "bold red" if w.stall_ms > STALLED * 1000 else ""), True, 60),
    ("memory", lambda w: _size(w.memory), True, 70),
    ("CPU", lambda w: "-" if w.cpu_percent is None else f"{w.cpu_percent:.0f} %", True, 50),
    ("version", lambda w: w.version, False, 110),
)


def draw(view: View, width: int, height: int | None) -> RenderableType:
    """The view for a terminal of this size; without a height, all of it."""
    totals, redis = view.totals, view.redis
    counts = collections.Counter(worker.state.partition(" ")[0] for worker in view.workers)
    states = ", ".join(f"{count} {state if state != 'no' else 'unwell'}" for state, count in sorted(counts.items()))
    waiting = ", ".join(f"{totals.waiting[mode]} for {mode}" for mode in MODES if totals.waiting.get(mode)) or "nobody"
    places = f", {totals.recordings} of {totals.recording_places} places taken" if totals.recorders else ""
    said = [
        ("Workers", states or "none"),
        (
            "People",
            f"{totals.guests} here, {totals.conversations} conversations, {totals.calls} calls, "
            f"{_rate(totals.messages_per_second)} messages/s",
        ),
        ("Waiting", waiting),
        ("Recorders", f"{totals.recorders or 'none'}{places}"),
    ]
    if redis:
        most = sum(server.most_memory for server in redis)
        limit = f" of {_size(most)}" if most else ""
        many = f"{len(redis)} servers, " if len(redis) > 1 else ""
        used = f"{many}{_size(sum(server.memory for server in redis))}{limit}"
        commands = sum(server.commands_per_second for server in redis)
        away = max(server.took for server in redis) * 1000
        said.append(("Redis", f"{used}, {commands} commands/s, {away:.1f} ms away"))
    lines = [Text.assemble((f"{name:11}", "bold"), text) for name, text in said]
    if height is not None:
        # The workers matter most.
        lines = lines[: max(0, height - 6)]
    if view.problem:
        lines.append(Text(view.problem, "bold red"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    room = None if height is None else max(2, height - len(lines) - 3)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", width=width)
    for name, _, number, least in COLUMNS:
        if width >= least:
            table.add_column(name, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
    shown = view.workers if room is None or len(view.workers) <= room else view.workers[: room - 1]
    for worker in shown:
        style = "dim" if worker.state == "gone" or view.problem else ""
        table.add_row(*(read(worker) for _, read, _, least in COLUMNS if width >= least), style=style)
    parts: list[RenderableType] = [*lines, Text(""), table]
    if len(shown) < len(view.workers):
        parts.append(Text(f"and {len(view.workers) - len(shown)} more", "dim"))
    if height is not None:
        parts.append(Text("q ends it", "dim"))
    return Group(*parts)


def _lasting(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


# --------------------------------------------------------------------------- the command


def main(argv: Sequence[str]) -> int:
    """Watch until told to end; returns 0, 2 if there is nothing to watch, and with --once 1 if Redis is away."""
    parser = argparse.ArgumentParser(prog="visavis top", description="Watch the workers on REDIS_URL, live; q ends it.")
    parser.add_argument("--once", action="store_true", help="one table, and no more; so it is without a terminal")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each look")
    asked = parser.parse_args(argv)
    settings, _ = Settings.read(os.environ)
    if not settings.redis_url:
        sys.stderr.write(
            "visavis: REDIS_URL is not set. A worker without one has a private Valkey, which nobody else can watch.\n"
        )
        return 2
    try:
        watcher = Watcher(settings.redis_url, settings.cells)
    except ValueError as error:
        sys.stderr.write(f"visavis: REDIS_URL: {error}\n")
        return 2
    return asyncio.run(_main(watcher, asked))


async def _main(watcher: Watcher, asked: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signals.SIGINT, signals.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    console = Console(highlight=False, emoji=False, markup=False)
    try:
        if asked.once or not (asked.json or console.is_terminal):
            return await _once(watcher, asked, console, stop)
        if asked.json:
            await _every_second(watcher, stop, _say)
        else:
            await _live(watcher, console, stop)
        return 0
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does. Python would try once more, and complain, as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        await watcher.close()


async def _once(watcher: Watcher, asked: argparse.Namespace, console: Console, stop: asyncio.Event) -> int:
    view = await watcher.look()
    # Rates need two looks, with a beat of every worker between them.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), 2 * EVERY)
    view = await watcher.look()
    if asked.json:
        _say(view)
    elif view.problem and not view.redis:
        sys.stderr.write(f"visavis: {view.problem}\n")
    else:
        console.print(draw(view, console.width, None))
    return 1 if view.problem else 0


def _say(view: View) -> None:
    sys.stdout.write(msgspec.json.encode(view).decode() + "\n")
    sys.stdout.flush()


async def _live(watcher: Watcher, console: Console, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(view: View) -> None:
            live.update(draw(view, *console.size), refresh=True)

        # A terminal that changes its size is drawn anew at once.
        loop.add_signal_handler(signals.SIGWINCH, lambda: show(watcher.view))
        async with _keys(stop):
            show(watcher.view)
            await _every_second(watcher, stop, show)


async def _every_second(watcher: Watcher, stop: asyncio.Event, show: Callable[[View], object]) -> None:
    while not stop.is_set():
        began = time.monotonic()
        looking = asyncio.ensure_future(watcher.look())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            looking.cancel()
            await asyncio.wait({looking})
            return
        show(looking.result())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), max(0.0, began + EVERY - time.monotonic()))


@contextlib.asynccontextmanager
async def _keys(stop: asyncio.Event) -> AsyncIterator[None]:
    """Keys are read as they are pressed; q ends it. Ctrl-C stays a signal."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # noqa: PLC0415  # not everywhere
    import tty  # noqa: PLC0415

    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()

    def pressed() -> None:
        if b"q" in os.read(keyboard, 1024).lower():
            stop.set()

    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, pressed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
