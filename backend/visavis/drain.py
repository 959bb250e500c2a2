"""Has workers hand their guests over and go: one by its process id, or any of them, one after another, over Redis.

A worker that is asked does what it does at SIGTERM. Whatever looks after it (systemd, Kubernetes, scripts/cluster)
starts another one in its place, and the next worker is asked only once that one serves: so there is always somewhere
to go.
"""

import argparse
import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

import msgspec

from visavis.adapters.redis import DirectedBus, Keyspace, Watch, connect
from visavis.core import notes
from visavis.core.identity import new_id
from visavis.core.liveness import Vitals, read_share
from visavis.core.ports import StateUnavailable
from visavis.settings import Settings, SettingsError

WITHIN = 15.0
"""Seconds for a worker to go; it takes ten at most."""
REPLACED_WITHIN = 60.0
LOOK = 0.2


class CannotDrain(Exception):
    """Why it does not go on, and what to do."""


class Living(msgspec.Struct, frozen=True):
    """A worker that holds a lease."""

    worker: str
    process: Vitals

    @property
    def ready(self) -> bool:
        # Of what may be away, guests cannot do without this; without Redis, its share would not be there.
        return not self.process.draining and "bus" not in self.process.unwell

    def is_called(self, name: str) -> bool:
        """By its id, its address with or without its machine, or its port."""
        address = self.process.address
        return name in (self.worker, address, f"{self.process.machine}/{address}", address.rpartition(":")[2])

    def __str__(self) -> str:
        return f"{self.process.machine}/{self.process.address} ({self.worker})"


class Rolling:
    """Drains workers over Redis."""

    def __init__(self, keys: Keyspace, *, within: float, replaced_within: float | None) -> None:
        """`replaced_within` is how long to wait for another worker in the place of each; None: for none."""
        self._watch = Watch(keys)
        self._bus = DirectedBus(keys, new_id())
        self._within = within
        self._replaced_within = replaced_within

    async def living(self) -> list[Living]:
        """Raises StateUnavailable."""
        shares = await self._watch.workers()
        return sorted(
            (Living(worker, read_share(share).process) for worker, (left, share) in shares.items() if left > 0),
            key=lambda one: (one.process.machine, len(one.process.address), one.process.address),
        )

    async def named(self, names: Sequence[str]) -> list[Living]:
        """The workers of these names, all if there are none. Raises CannotDrain."""
        living = await self.living()
        shown = "".join(f"\n  {one}" for one in living) or " none"
        if not names:
            if not living:
                _say("there is no worker")
            return living
        chosen: list[Living] = []
        for name in names:
            found = [one for one in living if one.is_called(name)]
            if len(found) != 1:
                raise CannotDrain(f"{len(found) or 'no'} workers are called {name}. Those that live:{shown}")
            chosen += found
        return chosen

    async def roll(self, workers: Sequence[Living]) -> None:
        """One after another. Raises CannotDrain at the first that does not go, or is not replaced."""
        await self._bus.start(_ignore, _ignore)
        try:
            for one in workers:
                await self._drain(one)
        finally:
            await self._bus.stop()

    async def _drain(self, one: Living) -> None:
        before = {other.worker for other in await self.living()}
        if one.worker not in before:
            _say(f"{one} has gone meanwhile")
            return
        _say(f"{one} is asked to go")
        began = time.monotonic()
        self._bus.send(one.worker, notes.encode(notes.Stop()), one.worker)
        while any(other.worker == one.worker for other in await self.living()):
            if time.monotonic() - began > self._within:
                raise CannotDrain(
                    f"{one} is still there after {self._within:g} s. Look at its log, or at `visavis top`; if it "
                    "hangs, end its process: its guests come back to the others within seconds."
                )
            await asyncio.sleep(LOOK)
        _say(f"  gone after {time.monotonic() - began:.1f} s")
        if self._replaced_within is None:
            return
        while not (new := [other for other in await self.living() if other.worker not in before and other.ready]):
            if time.monotonic() - began > self._replaced_within:
                raise CannotDrain(
                    f"No worker has come in the place of {one} within {self._replaced_within:g} s, so no other was "
                    "asked to go. Start it again, or see why what looks after it does not. Where nothing does, or it "
                    "is not to come back, say so: --for-good."
                )
            await asyncio.sleep(LOOK)
        _say(f"  {new[0]} in its place after {time.monotonic() - began:.1f} s")


def end(pid: int, within: float) -> None:
    """Ask a process of this machine, and wait until it is gone. Raises CannotDrain."""
    try:
        process = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        raise CannotDrain(f"there is no process {pid}") from None
    try:
        began = time.monotonic()
        signal.pidfd_send_signal(process, signal.SIGTERM)
        gone, _, _ = select.select([process], [], [], within)
        if not gone:
            raise CannotDrain(f"process {pid} is still there after {within:g} s. Look at its log; if it hangs, end it.")
        _say(f"process {pid} is gone after {time.monotonic() - began:.1f} s")
    except PermissionError:
        raise CannotDrain(f"process {pid} belongs to another user: become that user, or root") from None
    finally:
        os.close(process)


def _ignore(heard: object) -> None:
    """Nobody answers: what became of it shows in Redis."""


def _say(text: str) -> None:
    print(text, flush=True)


async def _roll(names: Sequence[str], within: float, replaced_within: float | None) -> None:
    settings = Settings.from_environment(os.environ)
    if not settings.redis_url:
        raise CannotDrain("REDIS_URL says where the workers are, and is not set; or name a process: --pid")
    try:
        keys = connect(settings.redis_url, settings.cells)
    except ValueError as error:
        raise CannotDrain(f"REDIS_URL: {error}") from None
    try:
        rolling = Rolling(keys, within=within, replaced_within=replaced_within)
        await rolling.roll(await rolling.named(names))
    except StateUnavailable as error:
        raise CannotDrain(f"Redis does not answer: {error}") from None
    finally:
        await keys.aclose()


def main(argv: Sequence[str]) -> int:
    """Returns 0 when all have gone, 1 when one did not, and 2 if it was asked for something that makes no sense."""
    parser = argparse.ArgumentParser(
        prog="visavis drain",
        description="Have workers hand their guests over and go. Workers on REDIS_URL go one after another, each once "
        "another one serves in the place of the one before.",
    )
    parser.add_argument("workers", nargs="*", metavar="WORKER", help="by id, host:port, machine/host:port or port")
    parser.add_argument("--all", action="store_true", help="every worker on REDIS_URL, one after another")
    parser.add_argument("--pid", type=int, help="the process of this machine that has this id instead")
    parser.add_argument("--within", type=float, default=WITHIN, help="seconds for each to go; default: 15")
    parser.add_argument(
        "--replaced-within", type=float, default=REPLACED_WITHIN, help="seconds for another to serve; default: 60"
    )
    parser.add_argument("--for-good", action="store_true", help="do not wait for others in their place")
    asked = parser.parse_args(argv)
    if (asked.pid is not None) + asked.all + bool(asked.workers) != 1:
        parser.error("name workers, or --all, or one process by --pid")
    try:
        if asked.pid is not None:
            end(asked.pid, asked.within)
        else:
            asyncio.run(_roll(asked.workers, asked.within, None if asked.for_good else asked.replaced_within))
    except SettingsError as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 2
    except CannotDrain as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 1
    return 0
