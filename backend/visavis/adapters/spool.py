"""Files on their way through this machine: written piece by piece, and forgotten after a while if nobody came back.

Hides names, permissions and threads.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from aiofiles.threadpool import wrap

from visavis.core.identity import new_id
from visavis.core.ports import StorageFull, StorageUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskSpool:
    """Fulfils `Spool` in a folder that it may share with others of its kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def free(self) -> int:
        with _said():
            return shutil.disk_usage(self._folder).free

    async def write(self, pieces: AsyncIterator[bytes]) -> tuple[Path, int]:
        path = self._folder / new_id()
        size = 0
        try:
            # Opened at once: who is cancelled while a thread opens a file never gets to close it.
            with _said(), open(path, "xb", opener=_private) as opened:  # noqa: ASYNC230  # as said above
                file = wrap(opened)
                async for piece in pieces:
                    await file.write(piece)
                    size += len(piece)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        return path, size

    async def folder(self) -> Path:
        path = self._folder / new_id()
        with _said():
            path.mkdir(mode=0o700)
        return path

    async def size(self, path: Path) -> int:
        with _said():
            return path.stat().st_size

    async def remove(self, path: Path) -> None:
        await asyncio.to_thread(_remove, path)

    async def sweep(self, seconds: float) -> int:
        with _said():
            return await asyncio.to_thread(self._sweep, time.time() - seconds)

    def _sweep(self, before: float) -> int:
        removed = 0
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    _remove(path)
                    removed += 1
        return removed


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise (StorageFull if error.errno in _FULL else StorageUnavailable)(repr(error)) from error
