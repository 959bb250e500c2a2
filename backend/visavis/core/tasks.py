"""Background tasks that run until they are ended, and how long the event loop they share stands still."""

import asyncio
import collections
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

log = logging.getLogger(__name__)

LOOK = 0.02
"""Seconds between looks at the event loop's clock."""
REMEMBERED = 500
"""Looks remembered: some ten seconds."""


class Standstill:
    """How long at most the event loop stood still of late: everybody on this worker waits while it does."""

    def __init__(self) -> None:
        self._late: collections.deque[float] = collections.deque([0.0], REMEMBERED)
        self._next: asyncio.TimerHandle | None = None

    @property
    def seconds(self) -> float:
        """The longest of the last ten seconds or so."""
        return max(self._late)

    def start(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK

        def look() -> None:
            self._late.append(loop.time() - due)
            self.start()

        self._next = loop.call_at(due, look)

    async def stop(self) -> None:
        """Look no more."""
        if self._next is not None:
            self._next.cancel()


class Errands:
    """Work under way that nobody waits for before the end. Failures of the kinds named are noted; others are logged."""

    def __init__(self, noted: str = "", *kinds: type[Exception]) -> None:
        self._noted = noted
        self._kinds = kinds
        self._running: set[asyncio.Task[None]] = set()

    def send(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it. Never waits."""
        task = asyncio.get_running_loop().create_task(self._run(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except self._kinds:
            log.info(self._noted)
        except Exception:
            log.exception("errand_failed")

    async def settle(self) -> None:
        """Wait for what is under way; used when stopping."""
        await asyncio.gather(*self._running, return_exceptions=True)


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until all have ended.

    Once is not enough: before Python 3.12, `asyncio.wait_for` loses a cancellation that comes in the same
    turn as its result, and the Redis client waits in it for every command.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)
