"""Files on their way through this machine: written piece by piece, and forgotten after a while if nobody came back.

The folder is made again when it is not there, as on a volume that was mounted late; what it lies in is not. Whatever
may wait for the disk runs in threads of its own, apart from those that the event loop lends to everyone.

Hides names, permissions and threads.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from visavis.core.identity import new_id
from visavis.core.ports import StorageFull, StorageUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATIENCE = 30.0

T = TypeVar("T")


class _Writing:
    """A new file held open: no thread writes after it was closed, when the number may mean another file."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        self._lock = threading.Lock()
        self._closed = False

    def piece(self, piece: bytes) -> None:
        with self._lock:
            left = memoryview(piece)
            while left and not self._closed:
                left = left[os.write(self._handle, left) :]

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._handle)


class DiskSpool:
    """Fulfils `Spool` in a folder that it may share with others of its kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(8, "spool")

    async def free(self) -> int:
        return await self._do(self._inside, lambda: shutil.disk_usage(self._folder).free)

    async def write(self, pieces: AsyncIterator[bytes]) -> tuple[Path, int]:
        path = self._folder / new_id()
        size = 0
        # It is made and written to its end by threads, whoever is cancelled meanwhile.
        making = self._threads.submit(self._inside, lambda: _Writing(path))
        try:
            with _said():
                file = await _patiently(making)
                async for piece in pieces:
                    await self._do(file.piece, piece)
                    size += len(piece)
                    # Not to be kept while the next one is waited for.
                    del piece
                # A disk on the network may say only now that it is full.
                await self._do(file.close)
        except BaseException:
            # Threads take work in the order given, so that nobody waits for what no thread has begun.
            dropping = self._threads.submit(_drop, making, path)
            await asyncio.wait({asyncio.wrap_future(dropping)}, timeout=_PATIENCE)
            raise
        return path, size

    async def folder(self) -> Path:
        path = self._folder / new_id()
        await self._do(self._inside, lambda: path.mkdir(mode=0o700))
        return path

    async def size(self, path: Path) -> int:
        return await self._do(lambda: path.stat().st_size)

    async def remove(self, path: Path) -> None:
        removing = self._threads.submit(_remove, path)
        await asyncio.wait({asyncio.wrap_future(removing)}, timeout=_PATIENCE)

    async def sweep(self, seconds: float) -> int:
        return await self._do(self._sweep, time.time() - seconds)

    async def _do(self, function: Callable[..., T], *given: object) -> T:
        """The function's result, from a thread; it runs to its end even if nobody waits any more."""
        with _said():
            return await _patiently(self._threads.submit(function, *given))

    def _inside(self, do: Callable[[], T]) -> T:
        """Its result, in a folder that is there."""
        try:
            return do()
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return do()

    def _sweep(self, before: float) -> int:
        removed = 0
        for path in self._inside(lambda: list(self._folder.iterdir())):
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    _remove(path)
                    removed += 1
        return removed


async def _patiently(running: Future[T]) -> T:
    """What comes of it. Raises TimeoutError, an OSError."""
    async with asyncio.timeout(_PATIENCE):
        return await asyncio.shield(asyncio.wrap_future(running))


def _drop(making: Future[_Writing], path: Path) -> None:
    """Let nothing stay of a file that is, or will be, made."""
    with contextlib.suppress(OSError):
        making.result().close()
    _remove(path)


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
