"""What a worker leaves every few seconds for the others to read out: one scrape behind a load balancer sees all.

Each leaves the text of its metrics, compressed and for a short while, so that a dead worker's vanishes by itself.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping

from visavis.core import tasks
from visavis.core.ports import Board, StateUnavailable

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two texts."""
KEPT_MS = 15_000
"""For how long a text counts."""
LARGEST = 10_000_000
"""Bytes of a worker's text; what is larger is none."""


class Bulletin:
    """This worker's metrics, and everybody's."""

    def __init__(
        self,
        board: Board,
        worker: str,
        text: Callable[[], bytes],
        together: Callable[[Mapping[str, bytes]], bytes],
        living: Callable[[], Mapping[str, str]],
    ) -> None:
        """`text` gives this worker's metrics, `living` the name of each living one by its id."""
        self._board = board
        self._worker = worker
        self._text = text
        self._together = together
        self._living = living
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to leave texts."""
        self._tasks = [asyncio.get_running_loop().create_task(self._leave_for_ever())]

    async def stop(self) -> None:
        """Leave no more."""
        await tasks.end(self._tasks)

    async def everybody(self) -> bytes:
        """The metrics of all living workers in one text, this one's as of now. Raises StateUnavailable."""
        names = dict(self._living())
        own = names.pop(self._worker, "this")
        found = {
            names[worker]: text
            for worker, left in (await self._board.read(tuple(names))).items()
            if (text := _unpacked(left)) is not None
        }
        # Last: of two that go by one name, as during a restart, the one that answers counts.
        return await asyncio.to_thread(self._together, {**found, own: self._text()})

    async def _leave_for_ever(self) -> None:
        while True:
            try:
                await self._board.leave(self._worker, zlib.compress(self._text(), 1), KEPT_MS)
            except StateUnavailable:
                log.debug("metrics_not_left")
            except Exception:
                log.exception("metrics_not_left")
            await asyncio.sleep(EVERY)


def _unpacked(left: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(left, LARGEST)
    except zlib.error:
        return None
