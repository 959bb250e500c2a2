"""Files on their way through a machine: whole or not there, however their writing ends."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults import open_files_of
from visavis.adapters.spool import DiskSpool


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 50_000
        await asyncio.sleep(0)


async def test_what_is_given_up_at_any_moment_leaves_nothing_and_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file in the folder nor a handle that only the collector closes."""
    spool = DiskSpool(tmp_path)
    left_open: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: left_open.append(told.exc_value))
    handles = open_files_of(os.getpid())
    for moment in range(200):
        writing = asyncio.create_task(spool.write(endless()))
        await asyncio.sleep(moment * 0.00001)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    gc.collect()
    assert left_open == []
    assert list(tmp_path.iterdir()) == []
    assert open_files_of(os.getpid()) <= handles
