"""Files on their way through a machine: whole or not there, however their writing ends."""

import asyncio
import gc
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults import open_files_of
from visavis.adapters import spool as adapter
from visavis.adapters.spool import DiskSpool
from visavis.core.ports import StorageUnavailable


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


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def test_what_is_written_is_there(tmp_path: Path) -> None:
    """All of it, for nobody else to read, until it is removed."""
    spool = DiskSpool(tmp_path)
    path, size = await spool.write(pieces(b"a" * 100_000, b"", b"bc"))
    assert path.read_bytes() == b"a" * 100_000 + b"bc"
    assert size == await spool.size(path) == 100_002
    assert path.stat().st_mode & 0o777 == 0o600
    (await spool.folder() / "made").write_bytes(b"x")
    assert await spool.sweep(3600) == 0
    assert await spool.sweep(-3600) == 2
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    """A volume may be mounted when the service runs already; where there is no volume, nothing is made."""
    spool = DiskSpool(tmp_path / "volume" / "spool")

    async def write() -> None:
        await spool.write(pieces(b"x"))

    async def sweep() -> None:
        await spool.sweep(1)

    for use in (write, spool.folder, spool.free, sweep):
        with pytest.raises(StorageUnavailable):
            await use()
        assert not (tmp_path / "volume").exists()
        (tmp_path / "volume").mkdir()
        await use()
        assert (tmp_path / "volume" / "spool").stat().st_mode & 0o777 == 0o700
        shutil.rmtree(tmp_path / "volume")


async def test_a_disk_that_hangs_does_not_hold_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that asks it waits apart, and not for ever; what was begun meanwhile leaves nothing."""
    monkeypatch.setattr(adapter, "_PATIENCE", 0.2)
    spool = DiskSpool(tmp_path)
    kept, _ = await spool.write(pieces(b"x"))
    goes_on = threading.Event()

    def hanging(*_: object, **__: object) -> None:
        goes_on.wait(20)
        raise OSError

    with monkeypatch.context() as hung:
        hung.setattr(os, "open", hanging)
        hung.setattr(Path, "mkdir", hanging)
        hung.setattr(Path, "stat", hanging)
        hung.setattr(shutil, "disk_usage", hanging)
        asked = [spool.write(pieces(b"x")), spool.folder(), spool.size(kept), spool.free()]
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StorageUnavailable] * 4
        goes_on.set()
        await asyncio.sleep(0.1)
    assert list(tmp_path.iterdir()) == [kept]
