"""What is measured, and how a round of it goes. A record is the rounds of each subject, nothing worked out yet."""

import asyncio
import re
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Load
from bench.subjects import (
    TICK,
    Node,
    NodeBare,
    NodeNewer,
    NodeWithoutHelpers,
    Stock,
    Subject,
    Visavis,
    VisavisOnAsyncio,
    VisavisOnFreePython313,
    VisavisOnFreePython314,
    VisavisOnPython312,
    VisavisOnPython313,
    VisavisOnPython314,
    VisavisOnStock,
    busy_seconds,
    cpu_seconds,
)
from visavis.adapters.turn import PrivateTurn
from visavis.core.matching import match_round
from visavis.simulate import POOL_TIME, Crowd, Workload

Round = dict[str, float]
Record = dict[str, list[Round]]
"""The rounds of each subject; where one was measured in several ways, under `its name|how`."""

SATURATED, FIXED = "saturated", "fixed rate"
TIMES_FIXED = 3
"""Measurements at the fixed rate in each round: what a shared machine does to a 99th percentile differs from one to the
next by more than the subjects do."""
EACH, IN_ALL = "as many for each worker", "as many in all"
BUSY = 0.9
"""The load generator's share of its processor from which on it may have been the limit."""
DISTURBED = 0.1
"""The share of the servers' processor that others had, from which on a round says little about latency."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How much is measured, and where: servers run on the processor of this process, the load on `processor`."""

    program: Path
    processor: int
    only: Sequence[str] = ()
    """Names of subjects; none: all."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why subjects could not be measured, filled in as it is found out."""
    failed: list[str] = field(default_factory=list)
    """What went wrong, the same way."""
    rounds: int = 3
    seconds: float = 4.0
    """Of each piece of work that is measured."""
    bus_seconds: float = 2.5
    """The same where there are twelve of them to a round."""
    warm: float = 2.5
    """Seconds of work before, for caches and compilers; as many for each process, since they share a processor."""
    settle: float = 2.0
    """Seconds of quiet after everybody has come."""
    clients: int = 400
    rate: float = 2000.0
    """Messages a second, where it is fixed."""
    slow_rate: float = 200.0
    """The same for those who could not keep up with it."""
    workers: Sequence[int] = (1, 2, 8)
    """With one, partners are on the same worker; with more, never."""
    each: int = 50
    """Clients for each of these workers."""
    idle: Sequence[int] = (2_000, 10_000)
    waiting: Sequence[int] = (100, 1_000, 10_000)

    def load(self, *, later: bool = False) -> Load:
        return Load(self.program, self.processor, later=later)


# --------------------------------------------------------------------------- rounds


async def _in_turns(
    bench: Bench, kinds: Sequence[type[Subject]], measure: Callable[[type[Subject]], Awaitable[Record]]
) -> Record:
    """Rounds of every subject, one after the other, another first in each round; one that fails lacks that round."""
    present = []
    for kind in kinds:
        if bench.only and kind.name not in bench.only:
            continue
        if why := kind.absent():
            bench.left_out[kind.name] = why
            print(f"{kind.name} is left out: {why}", flush=True)
        else:
            present.append(kind)
    record: Record = {}
    for number in range(bench.rounds if present else 0):
        first = number % len(present)
        for kind in [*present[first:], *present[:first]]:
            print(f"round {number + 1}: {kind.name}", flush=True)
            try:
                found = await measure(kind)
            except Exception as error:  # noqa: BLE001
                # The others are measured whatever has become of one.
                traceback.print_exc()
                _shout(f"{kind.name} failed in round {number + 1}")
                bench.failed.append(f"{kind.name}: {error}")
            else:
                for key, some in found.items():
                    record.setdefault(key, []).extend(some)
    # In the order of the subjects, not of their first round.
    return {key: record[key] for kind in present for key in record if key.split("|")[0] == kind.name}


@asynccontextmanager
async def _started(kind: type[Subject], workers: int, *, shared: bool) -> AsyncIterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as folder:
        subject = kind(Path(folder), workers, shared=shared)
        try:
            await subject.start()
            yield subject
        finally:
            await subject.stop()


@asynccontextmanager
async def _loaded(bench: Bench, clients: Sequence[str], *, later: bool = False) -> AsyncIterator[Load]:
    load = bench.load(later=later)
    try:
        await load.connect(clients)
        await asyncio.sleep(bench.settle)
        yield load
    finally:
        await load.end()


async def _work(subject: Subject, load: Load, seconds: float, rate: float, how: str) -> Round:
    """`rate` messages a second in all; 0: as many as go."""
    before, all_before = subject.cpu(), busy_seconds()
    await load.work(seconds, rate)
    spent, all_spent = max(subject.cpu() - before, TICK), busy_seconds() - all_before
    found = await load.outcome()
    if found["refused"]:
        raise RuntimeError(f"{found['refused']:.0f} messages were refused, {how}")
    messages = min(found["delivered_within"], found["acked_within"])
    if not messages:
        raise RuntimeError(f"nothing was delivered, {how}")
    outcome = {
        "rate": rate,
        "per_cpu_second": messages / spent,
        "us_each": spent / messages * 1e6,
        "per_second": messages / found["seconds"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "lost": found["sent"] - min(found["delivered"], found["acked"]),
        "servers_busy": spent / found["seconds"],
        "others_busy": max(0.0, all_spent - spent) / found["seconds"],
        "load_busy": found["busy"],
    }
    print(
        f"  {how}: {outcome['per_cpu_second']:,.0f} a CPU second, {outcome['per_second']:,.0f}/s, "
        f"p50 {outcome['p50_ms']:.2f} p99 {outcome['p99_ms']:.2f} ms, "
        f"servers {outcome['servers_busy']:.0%} busy, lost {outcome['lost']:.0f}",
        flush=True,
    )
    _warn(outcome)
    return outcome


def _warn(found: Round) -> None:
    if found["others_busy"] > DISTURBED:
        _shout(f"others had {found['others_busy']:.0%} of the servers' processor")
    if found["load_busy"] > BUSY:
        _shout(f"the load generator was {found['load_busy']:.0%} busy: it may have been the limit")


def _shout(text: str) -> None:
    print(f"!!! {text}", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------- messages


async def _talk(bench: Bench, kinds: Sequence[type[Subject]], workers: int) -> Record:
    async def measure(kind: type[Subject]) -> Record:
        async with AsyncExitStack() as ending:
            subject = await ending.enter_async_context(_started(kind, workers, shared=workers > 1))
            clients = await subject.clients(bench.clients, look=True)
            load = await ending.enter_async_context(_loaded(bench, clients))
            await _work(subject, load, bench.warm * workers, 0, "warming up")
            rate = bench.slow_rate if workers > 1 and issubclass(kind, Stock) else bench.rate
            return {
                f"{kind.name}|{SATURATED}": [await _work(subject, load, bench.seconds, 0, SATURATED)],
                f"{kind.name}|{FIXED}": [
                    await _work(subject, load, bench.seconds, rate, FIXED) for _ in range(TIMES_FIXED)
                ],
            }

    return await _in_turns(bench, kinds, measure)


async def relay(bench: Bench) -> Record:
    """Partners in one process."""
    return await _talk(bench, [Visavis, VisavisOnStock, Stock, Node, NodeWithoutHelpers, NodeNewer, NodeBare], 1)


async def across(bench: Bench) -> Record:
    """Partners in two processes, with one Valkey between them, whose CPU counts."""
    return await _talk(bench, [Visavis, Stock, Node, NodeNewer], 2)


async def versions(bench: Bench) -> Record:
    """Visavis alone, on what else it could run on."""
    kinds = [
        *(Visavis, VisavisOnAsyncio, VisavisOnPython312, VisavisOnPython313, VisavisOnPython314),
        *(VisavisOnFreePython313, VisavisOnFreePython314),
    ]
    return await _talk(bench, kinds, 1)


async def bus(bench: Bench) -> Record:
    """What a message costs between ever more workers; `idle_cores` is what they take with nothing to do."""
    # Messages a second for each worker, and in all.
    rates: dict[type[Subject], tuple[float, float]] = {Visavis: (125.0, 1000.0), Stock: (12.0, 100.0)}

    async def measure(kind: type[Subject]) -> Record:
        outcome = {}
        each, in_all = rates[kind]
        for workers in bench.workers:
            async with AsyncExitStack() as ending:
                subject = await ending.enter_async_context(_started(kind, workers, shared=True))
                clients = await subject.clients(bench.each * workers, look=True)
                load = await ending.enter_async_context(_loaded(bench, clients))
                before = subject.cpu()
                await asyncio.sleep(bench.bus_seconds)
                idle = (subject.cpu() - before) / bench.bus_seconds
                for how, rate in ((EACH, each * workers), (IN_ALL, in_all), (SATURATED, 0.0)):
                    found = await _work(subject, load, bench.bus_seconds, rate, f"{workers} workers, {how}")
                    more = found["us_each"] - idle / found["per_second"] * 1e6
                    outcome[f"{kind.name}|{how}|{workers}"] = [{**found, "idle_cores": idle, "us_more": more}]
        return outcome

    return await _in_turns(bench, list(rates), measure)


# --------------------------------------------------------------------------- connections


async def idle(bench: Bench) -> Record:
    """What a server's memory grows by with so many connections, what holding them takes, and how fast they come."""

    async def measure(kind: type[Subject]) -> Record:
        outcome = {}
        async with AsyncExitStack() as ending:
            subject = await ending.enter_async_context(_started(kind, 1, shared=False))
            # What the first clients bring with them, code and caches, belongs to the server.
            async with _loaded(bench, await subject.clients(50, look=False)):
                pass
            clients = await subject.clients(max(bench.idle), look=False)
            await asyncio.sleep(bench.settle)
            empty, empty_redis, there = subject.memory(), subject.redis_memory(), 0
            await subject.tidy()
            empty_tidy = subject.memory()
            loads: list[Load] = []
            for count in sorted(bench.idle):
                loads.append(bench.load())
                ending.push_async_callback(loads[-1].end)
                before, all_before = subject.cpu(), busy_seconds()
                came = await loads[-1].connect(clients[there:count])
                spent, all_spent = max(subject.cpu() - before, TICK), busy_seconds() - all_before
                await asyncio.sleep(bench.settle)
                before = subject.cpu()
                await asyncio.sleep(bench.seconds)
                resting = subject.cpu() - before
                grown = subject.memory() - empty
                for load in loads:
                    load.check()
                await subject.tidy()
                found = {
                    "kb_each": grown / count / 1000,
                    "tidy_kb_each": (subject.memory() - empty_tidy) / count / 1000,
                    "redis_kb_each": (subject.redis_memory() - empty_redis) / count / 1000,
                    "empty_mb": empty / 1e6,
                    "connects_per_second": (count - there) / came["seconds"],
                    "connects_per_cpu_second": (count - there) / spent,
                    "idle_cores": resting / bench.seconds,
                    "servers_busy": spent / came["seconds"],
                    "others_busy": max(0.0, all_spent - spent) / came["seconds"],
                    "load_busy": came["busy"],
                }
                there = count
                outcome[f"{kind.name}|{count}"] = [found]
                print(
                    f"  {count} connections: {found['kb_each']:.1f} kB each ({found['tidy_kb_each']:.1f} tidied, "
                    f"{found['redis_kb_each']:.1f} Redis), "
                    f"{found['connects_per_second']:,.0f} connects a second, "
                    f"{found['connects_per_cpu_second']:,.0f} a CPU second, servers {found['servers_busy']:.0%} busy, "
                    f"then {found['idle_cores']:.1%} of a core",
                    flush=True,
                )
                _warn(found)
        return outcome

    return await _in_turns(bench, [Visavis, Stock, Node, NodeNewer, NodeBare], measure)


# --------------------------------------------------------------------------- matching


MOST_MEETING = 1_000
"""Guests whom a server has ask for their partners at once: guests are not made fast enough for more."""


async def matching(bench: Bench) -> Record:
    """A round over a pool of so many, and a server that as many ask at once; nobody else here does the like."""

    async def measure(kind: type[Subject]) -> Record:
        outcome = {}
        match_round(Crowd(Workload(), "bench/warm").pool(100), POOL_TIME)
        for waiting in bench.waiting:
            pool = Crowd(Workload(), f"bench/{waiting}").pool(waiting)
            before = time.process_time()
            pairs = len(match_round(pool, POOL_TIME))
            spent = time.process_time() - before
            found = {"round_ms": spent * 1000, "pairs": pairs, "pairs_per_cpu_second": pairs / spent}
            if waiting <= MOST_MEETING:
                async with AsyncExitStack() as ending:
                    subject = await ending.enter_async_context(_started(kind, 1, shared=False))
                    clients = await subject.clients(waiting, look=True)
                    load = await ending.enter_async_context(_loaded(bench, clients, later=True))
                    before = subject.cpu()
                    found["met_ms"] = await load.meet() * 1000
                    found["met_cpu_ms"] = (subject.cpu() - before) * 1000
            outcome[f"{kind.name}|{waiting}"] = [found]
            met = f"; all had met after {found['met_ms']:.0f} ms" if "met_ms" in found else ""
            print(f"  {waiting} waiting: a round takes {found['round_ms']:.1f} ms, {pairs} pairs{met}", flush=True)
        return outcome

    return await _in_turns(bench, [Visavis], measure)


# --------------------------------------------------------------------------- the relay for calls


async def turn(bench: Bench) -> Record:
    """CPU of coturn, as shipped, for packets of 1,000 bytes between clients that both relay, as in a call."""
    rounds = []
    for number in range(bench.rounds):
        server = PrivateTurn()
        await server.start()
        try:
            before = cpu_seconds(server.pid)
            command = f"-y -m 20 -n {bench.seconds * 200:.0f} -l 1000 -z 5 -p {server.port} -W {server.secret}".split()
            process = await asyncio.create_subprocess_exec(
                "turnutils_uclient", *command, server.address, stdout=asyncio.subprocess.PIPE
            )
            said = (await process.communicate())[0].decode()
            spent = cpu_seconds(server.pid) - before
        finally:
            await server.stop()
        sent, received = (int(found) for found in re.findall(r"tot_(?:send|recv)_msgs=(\d+)", said)[-2:])
        rounds.append({"us_each": spent / received * 1e6, "lost": sent - received})
        print(f"round {number + 1}: {rounds[-1]['us_each']:.1f} us a packet, lost {sent - received}", flush=True)
    return {"coturn": rounds}
