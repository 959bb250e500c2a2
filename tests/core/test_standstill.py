"""How long the event loop stood still is noticed, and forgotten again."""

import asyncio
import time

import pytest

from rig import PATIENCE
from visavis.core import tasks


async def test_a_loop_that_stands_still_is_noticed_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it was, and only as long as it is among the last looks."""
    monkeypatch.setattr(tasks, "REMEMBERED", 5)
    watch = tasks.Standstill()
    watch.start()
    await asyncio.sleep(0.1)
    time.sleep(0.3)
    await asyncio.sleep(0.03)
    assert 0.25 < watch.seconds < 5
    async with asyncio.timeout(PATIENCE):
        while watch.seconds > 0.25:
            await asyncio.sleep(0.05)
    await watch.stop()
