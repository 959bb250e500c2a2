"""What is measured, and how a round of it goes. A record is the rounds of each subject, nothing worked out yet."""

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Load
from bench.subjects import (
    Node,
    NodeBare,
    NodeWithoutHelpers,
    Stock,
    Subject,
    Visavis,
    VisavisOnStock,
    busy_seconds,
    cpu_seconds,
)
from visavis.adapters.turn import PrivateTurn

Round = dict[str, float]
Record = dict[str, list[Round]]
"""The rounds of each subject; where one was measured in several ways, under `its name|how`."""

BUSY = 0.9
"""The load generator's share of its processor from which on it may have been the limit."""
DISTURBED = 0.1
"""The share of the servers' processor that others had, from which on a round says little about latency."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How much is measured, and where: servers run on the processor of this process, the load on `processor`."""

    program: Path
    processor: int
    rounds: int = 3
    seconds: float = 6.0
    """Of each piece of work that is measured."""
    warm: float = 2.0
    """Seconds of work before, for caches and compilers."""
    settle: float = 2.0
    """Seconds of quiet after everybody has come."""
    clients: int = 400
    rate: float = 2000.0
    """Messages a second, where it is fixed."""
    slow_rate: float = 200.0
    """The same for those who could not keep up with it."""
    clients_each: int = 50
    """For each worker, where there are 1, 2 or 8."""
    idle: Sequence[int] = field(default=(2_000, 10_000))
    waiting: Sequence[int] = field(default=(100, 1_000, 10_000))

    def load(self) -> Load:
        return Load(self.program, self.processor)


@asynccontextmanager
async def _started(kind: type[Subject], workers: int, *, shared: bool) -> AsyncIterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as folder:
        subject = kind(Path(folder), workers, shared=shared)
        try:
            await subject.start()
            yield subject
        finally:
            await subject.stop()


def _present(kinds: Sequence[type[Subject]]) -> list[type[Subject]]:
    for kind in kinds:
        if why := kind.absent():
            print(f"{kind.name} is left out: {why}", flush=True)
    return [kind for kind in kinds if not kind.absent()]


def _turns(kinds: Sequence[type[Subject]], number: int) -> list[type[Subject]]:
    """One after the other, another first in each round."""
    first = number % len(kinds)
    return [*kinds[first:], *kinds[:first]]


async def _work(subject: Subject, load: Load, seconds: float, rate: float) -> Round:
    """`rate` messages a second in all; 0: as many as go."""
    before, all_before = subject.cpu(), busy_seconds()
    await load.work(seconds, rate)
    spent, all_spent = subject.cpu() - before, busy_seconds() - all_before
    found = await load.outcome()
    if found["refused"]:
        raise RuntimeError(f"{subject.name} refused {found['refused']:.0f} messages")
    messages = min(found["delivered_within"], found["acked_within"])
    if not messages:
        raise RuntimeError(f"{subject.name} delivered nothing")
    return {
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


def _say(number: int, subject: Subject, how: str, found: Round) -> None:
    print(
        f"round {number + 1}: {subject.name}, {how}: {found['per_cpu_second']:,.0f} a CPU second, "
        f"{found['per_second']:,.0f}/s, p50 {found['p50_ms']:.2f} p99 {found['p99_ms']:.2f} ms, "
        f"servers {found['servers_busy']:.0%} busy, lost {found['lost']:.0f}",
        flush=True,
    )
    if found["others_busy"] > DISTURBED:
        print(f"!!! others had {found['others_busy']:.0%} of the servers' processor", file=sys.stderr)
    if found["load_busy"] > BUSY:
        print(f"!!! the load generator was {found['load_busy']:.0%} busy: it may have been the limit", file=sys.stderr)
    sys.stderr.flush()


SATURATED, FIXED = "saturated", "fixed rate"


async def _talk(bench: Bench, kinds: Sequence[type[Subject]], workers: int) -> Record:
    record: Record = {}
    kinds = _present(kinds)
    for number in range(bench.rounds):
        for kind in _turns(kinds, number):
            async with _started(kind, workers, shared=workers > 1) as subject:
                load = bench.load()
                try:
                    await load.connect(await subject.clients(bench.clients, look=True))
                    await asyncio.sleep(bench.settle)
                    await _work(subject, load, bench.warm, 0)
                    slow = workers > 1 and issubclass(kind, Stock)
                    for how, rate in ((SATURATED, 0.0), (FIXED, bench.slow_rate if slow else bench.rate)):
                        found = await _work(subject, load, bench.seconds, rate)
                        record.setdefault(f"{kind.name}|{how}", []).append({**found, "rate": rate})
                        _say(number, subject, how, found)
                finally:
                    await load.end()
    return record


async def relay(bench: Bench) -> Record:
    """Partners in one process."""
    return await _talk(bench, [Visavis, VisavisOnStock, Stock, Node, NodeWithoutHelpers, NodeBare], 1)


async def across(bench: Bench) -> Record:
    """Partners in two processes, with one Valkey between them, whose CPU counts."""
    return await _talk(bench, [Visavis, Node, Stock], 2)


# --------------------------------------------------------------------------- workers


WORKERS = (1, 2, 8)
"""With one, partners are on the same worker; with more, never."""
GROWING: dict[type[Subject], tuple[float, float]] = {Visavis: (125.0, 1000.0), Stock: (12.0, 100.0)}
"""Messages a second for each worker, and in all."""
EACH, IN_ALL = "as much for each worker", "as much in all"


async def bus(bench: Bench) -> Record:
    """What a message costs between ever more workers; `idle_cores` is what they take with nothing to do."""
    record: Record = {}
    for number in range(bench.rounds):
        for workers in WORKERS:
            for kind, (each, in_all) in GROWING.items():
                async with _started(kind, workers, shared=True) as subject:
                    load = bench.load()
                    try:
                        clients = max(bench.clients_each * workers, 2 * workers * (workers - 1))
                        await load.connect(await subject.clients(clients, look=True))
                        await asyncio.sleep(bench.settle)
                        before = subject.cpu()
                        await asyncio.sleep(bench.seconds)
                        idle = (subject.cpu() - before) / bench.seconds
                        for how, rate in ((EACH, each * workers), (IN_ALL, in_all), (SATURATED, 0.0)):
                            found = await _work(subject, load, bench.seconds, rate)
                            found |= {"rate": rate, "idle_cores": idle}
                            found["us_more"] = found["us_each"] - idle / found["per_second"] * 1e6
                            record.setdefault(f"{kind.name}|{how}|{workers}", []).append(found)
                            _say(number, subject, f"{workers} workers, {how}", found)
                    finally:
                        await load.end()
    return record


# --------------------------------------------------------------------------- idle connections


async def idle(bench: Bench) -> Record:
    """What a server's memory grows by with so many connections, what that takes, and how fast they come."""
    record: Record = {}
    kinds = _present([Visavis, VisavisOnStock, Stock, Node, NodeBare])
    for number in range(bench.rounds):
        for kind in _turns(kinds, number):
            async with _started(kind, 1, shared=False) as subject:
                # What the first clients bring with them, code and caches, belongs to the server.
                first = bench.load()
                await first.connect(await subject.clients(200, look=False))
                await first.end()
                clients = await subject.clients(max(bench.idle), look=False)
                await asyncio.sleep(bench.settle)
                loads: list[Load] = []
                empty, empty_redis, there = subject.memory(), subject.redis_memory(), 0
                try:
                    for count in sorted(bench.idle):
                        loads.append(bench.load())
                        spent, disturbed = subject.cpu(), busy_seconds()
                        came = await loads[-1].connect(clients[there:count])
                        spent, disturbed = subject.cpu() - spent, busy_seconds() - disturbed
                        await asyncio.sleep(bench.settle)
                        resting = subject.cpu()
                        await asyncio.sleep(bench.seconds)
                        found = {
                            "kb_each": (subject.memory() - empty) / count / 1000,
                            "redis_kb_each": (subject.redis_memory() - empty_redis) / count / 1000,
                            "empty_mb": empty / 1e6,
                            "connects_per_second": (count - there) / came["seconds"],
                            "connects_per_cpu_second": (count - there) / spent,
                            "idle_cores": (subject.cpu() - resting) / bench.seconds,
                            "servers_busy": spent / came["seconds"],
                            "others_busy": max(0.0, disturbed - spent) / came["seconds"],
                            "load_busy": came["busy"],
                        }
                        there = count
                        record.setdefault(f"{kind.name}|{count}", []).append(found)
                        print(
                            f"round {number + 1}: {kind.name}, {count} connections: {found['kb_each']:.1f} kB each, "
                            f"{found['redis_kb_each']:.1f} of it Redis, {found['connects_per_second']:,.0f} connects a "
                            f"second, {found['connects_per_cpu_second']:,.0f} a CPU second, "
                            f"servers {found['servers_busy']:.0%} busy, idle {found['idle_cores']:.1%} of a core",
                            flush=True,
                        )
                finally:
                    for load in loads:
                        await load.end()
    return record


# --------------------------------------------------------------------------- the relay for calls


async def turn(bench: Bench) -> Record:
    """CPU of coturn, as shipped, for packets of 1,000 bytes between clients that both relay, as in a call."""
    record: Record = {}
    for number in range(bench.rounds):
        server = PrivateTurn()
        await server.start()
        try:
            before = cpu_seconds(server.pid)
            command = f"-y -m 20 -n {int(bench.seconds * 200)} -l 1000 -z 5 -p {server.port} -W {server.secret}".split()
            process = await asyncio.create_subprocess_exec(
                "turnutils_uclient", *command, server.address, stdout=asyncio.subprocess.PIPE
            )
            said = (await process.communicate())[0].decode()
            spent = cpu_seconds(server.pid) - before
        finally:
            await server.stop()
        sent, received = (int(found) for found in re.findall(r"tot_(?:send|recv)_msgs=(\d+)", said)[-2:])
        found = {"us_each": spent / received * 1e6, "received": received, "lost": sent - received}
        record.setdefault("coturn", []).append(found)
        print(f"round {number + 1}: {found['us_each']:.1f} us a packet, lost {found['lost']:.0f}", flush=True)
    return record
