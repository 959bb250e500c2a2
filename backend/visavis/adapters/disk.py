"""Blobs as files in a folder, which all workers of one machine, or of one network file system, share.

A blob lies at `folder/ab/owner/part`, where `ab` are the first characters of its owner: a few thousand folders, so that
none grows large and all are soon looked through. It gets its name by a rename, when it is complete; what is still being
written has a name that no blob can have. Its bytes are synced to the disk before that, the folders are not: after a
power cut the newest blobs may be gone, but none is torn. No symbolic link below the folder is followed.

Several processes may do anything at the same time. A folder that was just made may be gone again, when another
process found it empty; then it is made once more.

Hides: paths, file descriptors, threads. Everything that may wait for the disk runs in threads of its own, apart from
those that the event loop lends to everyone; a disk that hangs holds up nothing else.
"""

import asyncio
import errno
import os
import random
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from visavis.core.ports import StorageFull, StorageUnavailable

_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_SPOOL = "spool"
_PIECE = 256 * 1024
_OLD_AT_ONCE = 1000
_OLD_WITHIN = 30.0
"""Seconds after which looking for what is old is left for another time."""
_ATTEMPTS = 50
_READ_PATIENCE, _WRITE_PATIENCE = 10.0, 60.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_BLOB = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Not there, or a symbolic link where a folder or file should be."""

T = TypeVar("T")


def _parts(name: str, count: int) -> list[str]:
    """The components of a name. Raises ValueError if one of them is none that the server makes."""
    parts = name.split("/")
    if len(parts) != count or parts[0] == _SPOOL or not all(_COMPONENT.fullmatch(part) for part in parts):
        raise ValueError(f"no name of a blob: {name!r}")
    return parts


def _shard(folder: str, owner: str) -> list[str]:
    """The folders down to an owner's, its own not among them."""
    return [folder, owner[:2].replace(".", "_").ljust(2, "_")]


def _open_folder(name: str | Path, within: int | None = None) -> int:
    links = 0 if within is None else os.O_NOFOLLOW
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | links, dir_fd=within)


def _names(handle: int) -> list[str]:
    """What lies in an open folder."""
    with os.scandir(handle) as entries:
        return [entry.name for entry in entries]


def _changed(handle: int) -> Iterator[tuple[str, float]]:
    """What lies in an open folder, and when it was changed."""
    with os.scandir(handle) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime


def _open_blob(name: str | Path, within: int | None = None) -> int:
    """A regular file. Raises OSError, FileNotFoundError for anything else that has this name."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise FileNotFoundError(errno.ENOENT, "not a regular file")


class _Reading:
    """A blob held open: no thread reads after it was closed, when the number may mean another file."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self._closed = False
        self.bytes = os.fstat(handle).st_size

    def piece(self, start: int, end: int) -> bytes:
        with self._lock:
            return b"" if self._closed else os.pread(self._handle, min(_PIECE, end - start), start)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._handle)


class DiskBlobs:
    """Fulfils `Blobs` in a folder. Names that no server makes are a ValueError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.spool = folder / _SPOOL
        # Writing waits for the disk much longer than reading, which should not wait for it.
        self._readers = ThreadPoolExecutor(4, "blobs-read")
        self._writers = ThreadPoolExecutor(4, "blobs-write")
        # Looking through everything takes nobody's place.
        self._lookers = ThreadPoolExecutor(1, "blobs-look")

    async def open(self) -> None:
        await self._do(self._writers, self._open)

    async def close(self) -> None:
        for threads in (self._readers, self._writers, self._lookers):
            threads.shutdown(wait=False)

    async def ping(self) -> None:
        await self._do(self._readers, self._ping)

    async def free(self) -> int | None:
        return await self._do(self._readers, self._free)

    async def put(self, name: str, path: Path) -> None:
        await self._do(self._writers, self._put, name, path)

    async def size(self, name: str) -> int | None:
        return await self._do(self._readers, self._size, name)

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        blob = await self._do(self._readers, self._reading, name, unwanted=self._let_go)
        try:
            end = blob.bytes if end is None else min(end, blob.bytes)
            while start < end:
                piece = await self._do(self._readers, blob.piece, start, end)
                if not piece:
                    raise StorageUnavailable(f"{name} became shorter")
                start += len(piece)
                yield piece
        finally:
            self._let_go(blob)

    async def copy(self, name: str, to: str) -> None:
        await self._do(self._writers, self._copy, name, to)

    async def remove(self, owner: str) -> None:
        await self._do(self._writers, self._remove, owner)

    async def old(self, folder: str, seconds: float) -> list[str]:
        return await self._do(self._lookers, self._old, folder, seconds)

    # ----------------------------------------------------------------------- threads

    async def _do(
        self,
        threads: ThreadPoolExecutor,
        function: Callable[..., T],
        *given: object,
        unwanted: Callable[[T], None] | None = None,
    ) -> T:
        """The function's result, from a thread; it runs to its end even if nobody waits any more.

        `unwanted` gets a result that came too late.
        """
        try:
            running = threads.submit(function, *given)
        except RuntimeError as error:
            raise StorageUnavailable("closed") from error
        waited = asyncio.wrap_future(running)
        try:
            async with asyncio.timeout(_READ_PATIENCE if threads is self._readers else _WRITE_PATIENCE):
                return await asyncio.shield(waited)
        except BaseException as error:
            if unwanted is not None:
                running.add_done_callback(lambda late: self._drop(late, unwanted))
            if isinstance(error, OSError):  # a TimeoutError is one
                raise (StorageFull if error.errno in _FULL else StorageUnavailable)(repr(error)) from error
            raise

    @staticmethod
    def _drop(late: Future[T], unwanted: Callable[[T], None]) -> None:
        if not late.cancelled() and late.exception() is None:
            unwanted(late.result())

    def _let_go(self, blob: _Reading) -> None:
        """Close it without waiting for a thread that still reads."""
        try:
            self._readers.submit(blob.close)
        except RuntimeError:  # the threads have ended
            blob.close()

    # ----------------------------------------------------------------------- folders

    @contextmanager
    def _inside(self, folders: list[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder that is reached through these, none of them a link. Raises OSError."""
        try:
            handle = _open_folder(self._folder)
        except OSError as error:
            # Then nothing can be said about any blob.
            raise StorageUnavailable(str(error)) from error
        try:
            for folder in folders:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=handle)
                below = _open_folder(folder, handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)

    def _prune(self, folders: list[str]) -> None:
        """Remove these nested folders as far as they are empty, the innermost first; the outermost stays."""
        for depth in range(len(folders) - 1, 0, -1):
            try:
                with self._inside(folders[:depth]) as above:
                    os.rmdir(folders[depth], dir_fd=above)
            except OSError as error:
                if error.errno not in _NO_BLOB:
                    return

    def _keep(self, name: str, keep: Callable[[str, int], None]) -> None:
        """Let `keep` give a file the name's last part in its owner's folder, which others may remove meanwhile."""
        folder, owner, part = _parts(name, 3)
        folders = [*_shard(folder, owner), owner]
        for attempt in range(_ATTEMPTS):
            try:
                with self._inside(folders, make=True) as handle:
                    keep(part, handle)
                return
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
            except OSError:
                self._prune(folders)
                raise

    # ----------------------------------------------------------------------- what the threads do

    def _open(self) -> None:
        for folder in (self._folder, self.spool):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = self.spool / f".{secrets.token_hex(8)}"
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            probe.unlink()
        except OSError as error:
            # What is there can be served from a full disk; `put` will say it.
            if error.errno not in _FULL:
                raise

    def _ping(self) -> None:
        for folder in (self._folder, self.spool):
            try:
                os.close(_open_folder(folder))
            except FileNotFoundError:
                # A volume may have been mounted since the start, and be empty; where there is none, this fails as well.
                if folder != self.spool:
                    raise
                folder.mkdir(mode=0o700, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable", str(folder))
            if os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, "read-only", str(folder))

    def _free(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _put(self, name: str, path: Path) -> None:
        try:
            source = _open_blob(path)
            try:
                os.fchmod(source, 0o600)
                # Its age counts from now on, however long it lay in the spool.
                os.utime(source)
                os.fsync(source)
                self._keep(name, lambda part, within: self._move(source, path, part, within))
            finally:
                os.close(source)
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    def _move(self, source: int, path: Path, part: str, within: int) -> None:
        try:
            os.replace(path, part, dst_dir_fd=within)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._write(source, part, within)

    def _write(self, source: int, part: str, within: int) -> None:
        """The source's bytes as `part` of an owner's folder, at once or not at all. Raises OSError."""
        partial = f".{secrets.token_hex(8)}"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=within)
        try:
            with open(handle, "wb", buffering=0) as target, open(os.dup(source), "rb", buffering=0) as whole:  # noqa: PTH123  # descriptors have no path
                whole.seek(0)
                shutil.copyfileobj(whole, target, _PIECE)
                os.fsync(target.fileno())
            os.rename(partial, part, src_dir_fd=within, dst_dir_fd=within)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial, dir_fd=within)
            raise

    def _find(self, name: str) -> int:
        """A descriptor of the blob. Raises KeyError."""
        folder, owner, part = _parts(name, 3)
        try:
            with self._inside([*_shard(folder, owner), owner]) as handle:
                return _open_blob(part, handle)
        except OSError as error:
            if error.errno in _NO_BLOB:
                raise KeyError(name) from None
            raise

    def _size(self, name: str) -> int | None:
        try:
            handle = self._find(name)
        except KeyError:
            return None
        try:
            return os.fstat(handle).st_size
        finally:
            os.close(handle)

    def _reading(self, name: str) -> _Reading:
        return _Reading(self._find(name))

    def _copy(self, name: str, to: str) -> None:
        _parts(to, 3)
        source = self._find(name)
        try:
            self._keep(to, lambda part, within: self._write(source, part, within))
        finally:
            os.close(source)

    def _remove(self, name: str) -> None:
        folder, owner = _parts(name, 2)
        folders = [*_shard(folder, owner), owner]
        try:
            with self._inside(folders) as handle:
                for entry in _names(handle):
                    with suppress(FileNotFoundError):
                        os.unlink(entry, dir_fd=handle)
        except OSError as error:
            if error.errno not in _NO_BLOB:
                raise
        self._prune(folders)

    def _old(self, folder: str, seconds: float) -> list[str]:
        _parts(folder, 1)
        before = time.time() - seconds
        until = time.monotonic() + _OLD_WITHIN
        found: list[str] = []
        # In any order: workers that look at once begin elsewhere, and what is left for another time has its turn.
        for first in self._listed([folder]):
            if time.monotonic() > until:
                break
            shard = [folder, first]
            try:
                with self._inside(shard) as handle:
                    empty = True
                    for owner, changed in _changed(handle):
                        empty = False
                        # A folder is as young as what was put there last: nobody looks into most.
                        if changed >= before or not _COMPONENT.fullmatch(owner) or _shard(folder, owner) != shard:
                            continue
                        if self._newest(owner, handle) < before:
                            found.append(f"{folder}/{owner}")
                            if len(found) == _OLD_AT_ONCE:
                                return found
                if empty:
                    self._prune(shard)
            except OSError as error:
                if error.errno not in _NO_BLOB:
                    raise
        return found

    def _listed(self, folders: list[str]) -> list[str]:
        try:
            with self._inside(folders) as handle:
                return random.sample(listed := _names(handle), len(listed))
        except OSError as error:
            if error.errno in _NO_BLOB:
                return []
            raise

    @staticmethod
    def _newest(owner: str, within: int) -> float:
        """When the newest of an owner's blobs was put there; infinity if this is no owner's folder."""
        try:
            handle = _open_folder(owner, within)
        except OSError:
            return float("inf")
        try:
            newest = 0.0
            with os.scandir(handle) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
            # One that is empty is as old as its emptiness.
            return newest or os.fstat(handle).st_mtime
        finally:
            os.close(handle)
