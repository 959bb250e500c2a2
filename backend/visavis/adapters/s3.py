"""Blobs as objects of a bucket, in Amazon's S3 or anything that speaks its protocol.

A blob is the object `prefix/folder/owner/part`. It is read range by range, as fast as somebody takes it. What is sent
is cut into parts of 5 MiB, the least that S3 takes, and few are in memory at a time, however many puts wait. What a
crash cut short stays in the bucket unseen: give it a lifecycle rule that aborts incomplete multipart uploads.

A storage that is away is noticed within a few seconds: nothing large is sent before it has answered something
small. One that goes silent in the middle of a put is given half a minute, and more for a large blob.

Hides: obstore, and what S3's errors mean.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from visavis.core.ports import StorageFull, StorageUnavailable

if TYPE_CHECKING:  # the library has these for checking only
    from obstore import GetOptions
    from obstore.store import S3Config, S3Credential

_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
_PIECE = 256 * 1024
_RANGE = 512 * 1024
"""Asked for at a time: a slow reader holds as much in memory, and no connection."""
_PART = 5 * 1024 * 1024
_PUTS_AT_ONCE = 2
_ASKED_AT_ONCE = 32
_OLD_AT_ONCE = 1000
_PATIENCE, _WRITE_PATIENCE = 5.0, 30.0
_SLOWEST = 250_000
"""Bytes per second under which a storage counts as away."""
_FRESH = 2.0
"""Seconds for which an answer shows that the storage is there, and silence that it is away."""
_STATUS = re.compile(r"\bnon-2xx status code: (\d{3})\b")
_CODE = re.compile(r"<Code>\s*([A-Za-z]+)\s*</Code>")
"""In an error of the library, which has words only: names of blobs, which have neither spaces nor brackets, and times
are among them.
"""
_FULL = re.compile(r"507|.*(InsufficientStorage|StorageFull|QuotaExceeded|InsufficientCapacity).*")
"""How storages say that there is no room: MinIO, Ceph and others; Amazon's never is full."""
_NOTHING = re.compile(r"416|InvalidRange")

T = TypeVar("T")


def _parts(name: str, count: int) -> str:
    """The name, if it is one that the server makes. Raises ValueError."""
    parts = name.split("/")
    if len(parts) != count or not all(_COMPONENT.fullmatch(part) for part in parts):
        raise ValueError(f"no name of a blob: {name!r}")
    return name


class _NothingThere(StorageUnavailable):
    """The blob has no bytes from there on."""


def _meant(error: Exception) -> Exception:
    """What an error of the library says, in the port's words."""
    said = str(error)
    answers = [*_STATUS.findall(said), *_CODE.findall(said)]
    meant: type[Exception] = StorageUnavailable
    if any(_FULL.fullmatch(answer) for answer in answers):
        meant = StorageFull
    elif any(_NOTHING.fullmatch(answer) for answer in answers):
        meant = _NothingThere
    return meant(f"{type(error).__name__}: {said}"[:500])


class S3Blobs:
    """Fulfils `Blobs` in a bucket. Names that no server makes are a ValueError.

    `url` is `s3://bucket` or `s3://bucket/prefix`. `endpoint` is the storage's address, over plain HTTP if it begins
    so; empty: Amazon's. An empty `key`: credentials from the surroundings (AWS_* variables, the container's or the
    machine's role). Raises ValueError for any other `url`.
    """

    def __init__(self, url: str, spool: Path, *, endpoint: str, region: str, key: str, secret: str) -> None:
        where = urlsplit(url)
        prefix = where.path.strip("/")
        if where.scheme != "s3" or not where.netloc or where.query or where.fragment or ".." in prefix.split("/"):
            raise ValueError(f"not s3://bucket/prefix: {url!r}")

        def credentials() -> "S3Credential":
            return {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}

        # Not every storage has the request that deletes many at once, and an owner has few blobs.
        config: S3Config = {"region": region, "disable_bulk_delete": True}
        if endpoint:
            config["endpoint"] = endpoint.rstrip("/")
        self.spool = spool
        self._store = S3Store(
            where.netloc,
            prefix=prefix or None,
            config=config,
            credential_provider=credentials if key else None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=2),
                # For one request, which carries a part at most. What is small is given less, below.
                "timeout": timedelta(seconds=60),
            },
            retry_config={
                "max_retries": 2,
                "retry_timeout": timedelta(seconds=4),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
        )
        # Waiting for one's turn counts as waiting for the storage.
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._puts = asyncio.Semaphore(_PUTS_AT_ONCE)
        self._heard = self._silent = float("-inf")
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await asyncio.to_thread(self._prepare_spool)
        try:
            # It has no name that a blob can have. What is there can be served from a full storage.
            with suppress(StorageFull):
                await self._ask(lambda: obstore.put_async(self._store, "probe", b"visavis", use_multipart=False))
            await self._ask(lambda: obstore.delete_async(self._store, "probe"))
        except FileNotFoundError as error:
            raise _meant(error) from error

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=_PATIENCE)

    async def ping(self) -> None:
        await self._page(obstore.list(self._store, "probe", chunk_size=1))

    async def free(self) -> int | None:
        return None

    async def put(self, name: str, path: Path) -> None:
        # One that nobody waits for any more is ended properly, or its parts would stay in the bucket.
        putting = asyncio.create_task(self._put(name, path))
        self._running.add(putting)
        putting.add_done_callback(self._ended)
        await asyncio.shield(putting)

    async def size(self, name: str) -> int | None:
        _parts(name, 3)
        try:
            return (await self._ask(lambda: obstore.head_async(self._store, name)))["size"]
        except FileNotFoundError:
            return None

    async def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        _parts(name, 3)
        if end is not None and start >= end and await self.size(name) is None:
            raise KeyError(name)
        options: GetOptions = {}
        while end is None or start < end:
            options["range"] = (start, min(start + _RANGE, end if end is not None else start + _RANGE))
            try:
                found = await self._ask(lambda: obstore.get_async(self._store, name, options=options))
                content = memoryview(await self._ask(found.bytes_async))
            except FileNotFoundError as error:
                raise (_meant(error) if "if_match" in options else KeyError(name)) from None
            except _NothingThere:
                if "if_match" in options:  # it was longer a moment ago
                    raise
                return
            for at in range(0, len(content), _PIECE):
                yield bytes(content[at : at + _PIECE])
            start += len(content)
            end = min(end or found.meta["size"], found.meta["size"])
            # The rest of the same bytes, or an error.
            options["if_match"] = found.meta["e_tag"]

    async def copy(self, name: str, to: str) -> None:
        _parts(to, 3)
        # Asked first, so that a storage that is away is noticed soon.
        if await self.size(name) is None:
            raise KeyError(name)
        try:
            await self._ask(lambda: obstore.copy_async(self._store, name, to, overwrite=True), _WRITE_PATIENCE)
        except FileNotFoundError:
            raise KeyError(name) from None

    async def remove(self, owner: str) -> None:
        # The library ends the prefix with a slash: it is this owner, not all that begin so.
        pages = obstore.list(self._store, _parts(owner, 2), chunk_size=_OLD_AT_ONCE)
        while page := await self._page(pages):
            for blob in page:
                with suppress(FileNotFoundError):
                    await self._ask(partial(obstore.delete_async, self._store, blob["path"]))

    async def old(self, folder: str, seconds: float) -> list[str]:
        before = datetime.now(UTC) - timedelta(seconds=seconds)
        pages = obstore.list(self._store, _parts(folder, 1), chunk_size=_OLD_AT_ONCE)
        found: list[str] = []
        # S3 lists by name, so that the blobs of an owner follow each other.
        owner, newest = "", before
        while page := await self._page(pages):
            for blob in page:
                whose = blob["path"].rpartition("/")[0]
                if whose != owner:
                    if owner and newest < before:
                        found.append(owner)
                        if len(found) == _OLD_AT_ONCE:
                            return found
                    owner, newest = whose, blob["last_modified"]
                newest = max(newest, blob["last_modified"])
        return [*found, owner] if owner and newest < before else found

    # ----------------------------------------------------------------------- asking

    async def _ask(self, ask: Callable[[], Awaitable[T]], patience: float | None = None) -> T:
        """The answer. Raises FileNotFoundError, StorageFull, StorageUnavailable."""
        try:
            async with asyncio.timeout(_PATIENCE if patience is None else patience), self._asking:
                # The library begins with the call, not with the waiting.
                answer = await ask()
        except (FileNotFoundError, StopAsyncIteration):  # an answer as well; the latter ends a listing
            self._heard = time.monotonic()
            raise
        except (BaseError, OSError) as error:  # a TimeoutError is one
            raise _meant(error) from error
        self._heard = time.monotonic()
        return answer

    async def _page(self, pages: Any) -> list[Any]:
        """What comes next of a listing; empty at its end."""
        try:
            return list(await self._ask(pages.__anext__))
        except StopAsyncIteration:
            return []
        except FileNotFoundError as error:
            # A listing without results is empty: it is the bucket that is not there.
            raise _meant(error) from error

    def _ended(self, put: asyncio.Task[None]) -> None:
        self._running.discard(put)
        if not put.cancelled():
            put.exception()

    async def _put(self, name: str, path: Path) -> None:
        try:
            _parts(name, 3)
            async with self._puts:
                await self._look()
                patience = _WRITE_PATIENCE + (await asyncio.to_thread(path.stat)).st_size / _SLOWEST
                await self._ask(
                    lambda: obstore.put_async(self._store, name, path, chunk_size=_PART, max_concurrency=1), patience
                )
        except FileNotFoundError as error:
            # The path, or the bucket.
            raise _meant(error) from error
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _look(self) -> None:
        """Make sure that the storage is there. Raises StorageUnavailable, for all who wait as soon as for one."""
        now = time.monotonic()
        if now - self._heard <= _FRESH:
            return
        if now - self._silent <= _FRESH:
            raise StorageUnavailable("silent")
        try:
            await self.ping()
        except StorageUnavailable:
            self._silent = time.monotonic()
            raise

    def _prepare_spool(self) -> None:
        try:
            self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailable(repr(error)) from error
        if not os.access(self.spool, os.W_OK | os.X_OK):
            raise StorageUnavailable(f"not writable: {self.spool}")
