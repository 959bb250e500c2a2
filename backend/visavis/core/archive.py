"""Backups: everything the document store holds and the files that were kept with reports, as one stream of bytes.

The stream is a tar archive (POSIX 1003.1-1988, "ustar"), so that it can be read without this program:

    visavis.json                 what it is, of which schema, and when it was made
    documents/NAME/000001.jsonl  documents of a collection, a JSON line each, in insertion order
    kept/FILE/main               the files that reports name
    manifest.json                how much of everything, and its SHA-256: without it, the archive is not whole

Written and read from beginning to end, a megabyte at a time, whatever its size; only the names of the files are held
in memory. A restore reads it twice: nothing is changed before all of it has been found good.
"""

import hashlib
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from visavis.core import documents
from visavis.core.collections import REPORTS
from visavis.core.ports import ArchiveDamaged, Blobs, Collection, Spool, StorageUnavailable, Stored, Upkeep
from visavis.core.safety import evidence_of
from visavis.core.schema import CannotUse, Mark, Schema

Write = Callable[[bytes], Awaitable[None]]
Read = Callable[[int], Awaitable[bytes]]
"""So many bytes; fewer only at the end."""
Moved = Callable[[str, int], None]
"""Told what is being done, and the bytes that were."""

FORMAT = 1
PATIENCE = 30.0
"""Seconds for which a restore waits for another or for a migration; one that was killed is known to be dead by then."""
_HEAD, _MANIFEST = "visavis.json", "manifest.json"
_BLOCK = 512
_PIECE = 256 * 1024
_LARGEST = documents.PAGE + 2 * documents.LARGEST
"""Bytes of an entry that is read as a whole. A page ends with the document that fills it."""
_OURS = re.compile(r"documents/([a-z][a-z0-9_]*)/(\d{6,})\.jsonl|kept/([A-Za-z0-9_-]{1,100})/main")

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True):
    """What a backup begins with. `made`: ms since the epoch. `consistent`: all documents are of one instant."""

    visavis: str
    format: int
    schema: int
    made: int
    consistent: bool
    files: bool


class Sum(msgspec.Struct):
    """How much of one kind there is; `sha256` is of the bytes of all entries of that kind, one after the other."""

    count: int = 0
    bytes: int = 0
    sha256: str = ""


class Manifest(msgspec.Struct):
    """What a backup ends with. `missing`: files that a report names and that were no longer there."""

    documents: dict[str, Sum]
    kept: Sum
    missing: int = 0


class Contents(msgspec.Struct, frozen=True):
    """What is in a backup, all of which has been read. `expired`: documents and files that a restore leaves out."""

    head: Head
    manifest: Manifest
    expired: int = 0


class Archive:
    """Makes backups of a deployment, and brings them back."""

    def __init__(
        self,
        store: Upkeep,
        schema: Schema,
        blobs: Blobs | None,
        spool: Spool | None,
        *,
        evidence_seconds: int,
        clock: Callable[[], int] = documents.milliseconds,
    ) -> None:
        self._store = store
        self._schema = schema
        self._blobs = blobs
        self._spool = spool
        self._evidence_ms = evidence_seconds * 1000
        self._clock = clock
        self._known = {collection.name: collection for collection in schema.collections}

    async def back_up(self, write: Write, moved: Moved) -> Contents:
        """Write everything, while others use the store.

        Raises CannotUse, StoreUnavailable, StorageUnavailable, and what `write` raises.
        """
        await self._store.open()
        # Read first: what a migration changes from now on comes back from it as it is.
        mark = await self._schema.read_mark(self._store, also_newer=False)
        out = _Writer(write, moved, self._clock())
        files: dict[str, None] = {}
        async with self._store.snapshot() as snapshot:
            head = Head("backup", FORMAT, mark.version, out.made, snapshot.consistent, self._blobs is not None)
            await out.whole(_HEAD, msgspec.json.encode(head))
            for collection in self._schema.collections:
                pages = 0
                async with aclosing(snapshot.documents(collection)) as found:
                    async for page in found:
                        pages += 1
                        await out.page(collection.name, pages, page)
                        if collection == REPORTS:
                            files.update((file, None) for one in page for file in evidence_of(one.data))
        if self._blobs is not None:
            for file in files:
                await self._write_file(out, self._blobs, file)
        manifest = out.manifest()
        await out.whole(_MANIFEST, msgspec.json.encode(manifest))
        await write(bytes(2 * _BLOCK))
        return Contents(head, manifest)

    async def check(self, read: Read, moved: Moved) -> Contents:
        """Read everything, and change nothing. Raises ArchiveDamaged, CannotUse."""
        return await self._go_through(read, moved, None)

    async def holds(self) -> dict[str, int]:
        """How many documents of each collection the store holds now, if any. Raises StoreUnavailable."""
        await self._store.open()
        held: dict[str, int] = {}
        async with self._store.snapshot() as snapshot:
            for collection in self._schema.collections:
                async with aclosing(snapshot.documents(collection)) as pages:
                    count = sum([len(page) async for page in pages])
                if count:
                    held[collection.name] = count
        return held

    async def unfinished(self) -> bool:
        """Whether a restore was cut short, so that what the store holds is nothing."""
        await self._store.open()
        return msgspec.convert(await self._store.mark() or {}, Mark).restoring

    async def bring_back(self, read: Read, checked: Contents, moved: Moved) -> Contents:
        """Put the backup in place of all that the store holds, if it is the one that was checked.

        Raises ArchiveDamaged, CannotUse, StoreInUse, StoreUnavailable, StorageUnavailable, StorageFull.
        """
        await self._store.open()
        try:
            async with self._store.alone(PATIENCE):
                mark = msgspec.convert(await self._store.mark() or {}, Mark)
                meanwhile = msgspec.structs.replace(mark, restoring=True).plain()
                async with self._store.renewed(meanwhile, self._schema.mark.plain()) as renewal:
                    restored = await self._go_through(read, moved, renewal.add)
                    if restored.manifest != checked.manifest:
                        raise ArchiveDamaged("The archive was changed while it was being restored.")
                    return restored
        except TimeoutError:
            raise CannotUse(
                "migration_under_way", "another process migrates this document store, or restores into it"
            ) from None

    # ----------------------------------------------------------------------- files

    async def _write_file(self, out: "_Writer", blobs: Blobs, file: str) -> None:
        name = f"kept/{file}/main"
        size = await blobs.size(name)
        try:
            if size is None:
                raise KeyError(name)
            async with aclosing(blobs.read(name, 0, size)) as pieces:
                # The first piece shows that it is there; then the entry can begin.
                await out.file(name, size, pieces)
        except KeyError:
            # Kept for long enough, and swept.
            out.missing += 1

    # ----------------------------------------------------------------------- reading

    async def _go_through(
        self, read: Read, moved: Moved, add: Callable[[Collection, list[Stored]], Awaitable[None]] | None
    ) -> Contents:
        """Read and check everything; with `add`, put it in its place."""
        source = _Reader(read, moved, "checking" if add is None else "restoring")
        head = await self._head(source)
        now = self._clock()
        sums: dict[str, Sum] = {}
        hashes: dict[str, Any] = {}
        reported: dict[str, int] = {}
        expired = 0
        while (entry := await source.next()) and entry[0] != _MANIFEST:
            name, size = entry
            ours = _OURS.fullmatch(name)
            if ours is None:
                raise ArchiveDamaged(f"The archive holds something that no backup holds: {name[:100]!r}.")
            kind = ours[1] or "kept"
            total = sums.setdefault(kind, Sum())
            digest = hashes.setdefault(kind, hashlib.sha256())
            total.bytes += size
            if ours[1]:
                text = await source.whole(size)
                digest.update(text)
                found = self._page(head, ours[1], text)
                total.count += len(found)
                lasting = [one for one in found if one.expires_at is None or one.expires_at > now]
                expired += len(found) - len(lasting)
                if ours[1] == REPORTS.name:
                    _note(lasting, reported)
                if add is not None and lasting and ours[1] in self._known:
                    await add(self._known[ours[1]], lasting)
            else:
                total.count += 1
                # What was kept for long enough does not come back.
                keep = reported.get(ours[3], 0) + self._evidence_ms > now
                expired += not keep
                await self._read_file(source, name, size, digest, place=keep and add is not None)
        manifest = await self._manifest(source, entry)
        for kind, total in sums.items():
            total.sha256 = hashes[kind].hexdigest()
        if {**manifest.documents, **({"kept": manifest.kept} if manifest.kept.count else {})} != sums:
            raise ArchiveDamaged("The archive does not hold what its manifest says.")
        return Contents(head, manifest, expired)

    async def _head(self, source: "_Reader") -> Head:
        entry = await source.next()
        if entry is None or entry[0] != _HEAD:
            raise ArchiveDamaged("This is not a backup of Visavis.")
        head = _decoded(await source.whole(entry[1]), Head)
        if head.visavis != "backup" or head.format != FORMAT:
            raise ArchiveDamaged(f"This program reads backups of format {FORMAT}, and this one has {head.format}.")
        if head.schema > self._schema.version or head.schema < 1:
            raise CannotUse(
                "schema_newer",
                f"the backup has schema {head.schema}, and this program knows schemas up to {self._schema.version}; "
                "restore it with the release that made it, or a later one",
            )
        return head

    async def _manifest(self, source: "_Reader", entry: tuple[str, int] | None) -> Manifest:
        if entry is None:
            raise ArchiveDamaged("The archive is not whole: its manifest is missing.")
        manifest = _decoded(await source.whole(entry[1]), Manifest)
        if await source.next() is not None or not await source.ended():
            raise ArchiveDamaged("Something follows the end of the archive.")
        return manifest

    def _page(self, head: Head, name: str, text: bytes) -> list[Stored]:
        """The documents of a page, as they are in our schema. Raises ArchiveDamaged."""
        collection = self._known.get(name)
        found = []
        for line in text.splitlines():
            one = _decoded(line, Stored)
            try:
                changed = Stored(one.id, one.version, one.expires_at, self._schema.changed(name, one.data, head.schema))
                documents.checked_id(one.id)
                documents.expiry(one.expires_at)
                # Another release had more collections: what they held has no place here.
                if collection is not None:
                    documents.as_json(collection, changed.data)
            except (ValueError, KeyError, TypeError) as error:
                raise ArchiveDamaged(f"The archive holds a document of {name} that cannot be: {error}.") from None
            found.append(changed)
        return found

    async def _read_file(self, source: "_Reader", name: str, size: int, digest: Any, *, place: bool) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in source.pieces(size):
                digest.update(piece)
                yield piece

        if not place or self._blobs is None or self._spool is None:
            async for _ in pieces():
                pass
            return
        path, _ = await self._spool.write(pieces())
        await self._blobs.put(name, path)


class _Writer:
    """Writes the entries of an archive, and keeps the sums."""

    def __init__(self, write: Write, moved: Moved, made: int) -> None:
        self._write = write
        self._moved = moved
        self.made = made
        self.missing = 0
        self._bytes = 0
        self._sums: dict[str, Sum] = {}
        self._hashes: dict[str, Any] = {}

    async def whole(self, name: str, content: bytes) -> None:
        await self._write(self._header(name, len(content)) + content + _padding(len(content)))
        self._bytes += len(content)

    async def page(self, collection: str, number: int, page: list[Stored]) -> None:
        content = b"".join(msgspec.json.encode(one) + b"\n" for one in page)
        self._count(collection, len(page), len(content)).update(content)
        await self.whole(f"documents/{collection}/{number:06}.jsonl", content)
        self._moved(f"documents of {collection}", self._bytes)

    async def file(self, name: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        """Raises KeyError before anything is written, if the pieces do."""
        first = await anext(aiter(pieces), b"")
        digest = self._count("kept", 1, size)
        await self._write(self._header(name, size))
        left = size
        piece: bytes = first
        while piece:
            left -= len(piece)
            digest.update(piece)
            await self._write(piece)
            self._bytes += len(piece)
            self._moved("files kept with reports", self._bytes)
            piece = await anext(aiter(pieces), b"")
        if left:
            raise StorageUnavailable(f"{name} changed while it was read")
        await self._write(_padding(size))

    def manifest(self) -> Manifest:
        for kind, total in self._sums.items():
            total.sha256 = self._hashes[kind].hexdigest()
        kept = self._sums.pop("kept", Sum())
        return Manifest(self._sums, kept, self.missing)

    def _count(self, kind: str, count: int, size: int) -> Any:
        total = self._sums.setdefault(kind, Sum())
        total.count += count
        total.bytes += size
        return self._hashes.setdefault(kind, hashlib.sha256())

    def _header(self, name: str, size: int) -> bytes:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, 0o600, self.made // 1000
        return entry.tobuf(tarfile.USTAR_FORMAT)


class _Reader:
    """Reads the entries of an archive, one by one."""

    def __init__(self, read: Read, moved: Moved, doing: str) -> None:
        self._read = read
        self._moved = moved
        self._doing = doing
        self._bytes = 0

    async def next(self) -> tuple[str, int] | None:
        """The name and size of the next entry, whose bytes are to be read then; None at the end."""
        header = await self._exactly(_BLOCK)
        if not any(header):
            if any(await self._exactly(_BLOCK)):
                raise ArchiveDamaged("The archive is damaged.")
            return None
        try:
            entry = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError):
            raise ArchiveDamaged("This is not a backup of Visavis, or it is damaged.") from None
        if entry.type != tarfile.REGTYPE or entry.size < 0:
            raise ArchiveDamaged("The archive holds something that no backup holds.")
        return entry.name, entry.size

    async def whole(self, size: int) -> bytes:
        if size > _LARGEST:
            raise ArchiveDamaged("The archive holds something that is larger than a backup makes it.")
        return b"".join([piece async for piece in self.pieces(size)])

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        left = size
        while left:
            piece = await self._exactly(min(left, _PIECE))
            left -= len(piece)
            self._moved(self._doing, self._bytes)
            yield piece
        await self._exactly(len(_padding(size)))

    async def ended(self) -> bool:
        return not await self._read(1)

    async def _exactly(self, size: int) -> bytes:
        found = await self._read(size)
        self._bytes += len(found)
        if len(found) < size:
            raise ArchiveDamaged("The archive is cut short.")
        return found


def _note(reports: list[Stored], reported: dict[str, int]) -> None:
    """Remember when the files of reports were last reported."""
    try:
        for one in reports:
            for file in evidence_of(one.data):
                reported[file] = max(reported.get(file, 0), int(one.data["at"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArchiveDamaged("The archive holds a report that cannot be.") from None


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _decoded(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError:
        raise ArchiveDamaged("The archive is damaged.") from None
