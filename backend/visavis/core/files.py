"""Files that guests share: from the announcement over the bytes and the check to the last byte removed.

Hides where bytes lie and who does what: any worker takes the next part of an upload, one checks it when it is whole,
any hands it out. What the ledger knows of a file decides whether it is there and for whom, at every single request; it
is gone from the instant it expires, was taken back, or the last member has left, whether or not its bytes were swept.
A worker may die anywhere: what it was checking another takes over, and what it stored and nobody knows of is swept.
"""

import asyncio
import logging
import re
import time
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

import msgspec

from visavis.contract import (
    MAX_FILE_NAME,
    BeginUpload,
    FileAddress,
    FileKind,
    FileLimits,
    OpenFile,
    Refused,
    SharedFile,
    UploadBegun,
    UploadState,
)
from visavis.core import tasks
from visavis.core.conversations import Peer
from visavis.core.identity import Guest, new_id
from visavis.core.ports import (
    Blobs,
    Ledger,
    Meter,
    Pass,
    Passes,
    Scanner,
    ScannerUnavailable,
    Spool,
    StateUnavailable,
    StorageFull,
    StorageUnavailable,
    Upload,
    Workshop,
)

log = logging.getLogger(__name__)

CHUNK_BYTES = 4_000_000
MOST_PARTS = 64
"""Parts of an upload, and one more for each PART_BYTES that have arrived. One is a PATCH, or what arrived of it."""
PART_BYTES = 16_384
NEWS_SECONDS = 15.0
"""For which an answer waits while a file is checked."""
LOOK = 0.15
"""Seconds between looks for such news."""
OFFER_AGAIN = 2.0
"""Seconds between attempts to take over a check that somebody waits for."""
LEASE_MS = 15_000
"""A worker that is silent this long about a check has died of something."""
RENEW = 4.0
MOST_TRIES = 3
"""A file that this many workers did not survive is not tried on another."""
PATIENCE_MS = 600_000
"""A file that could not be checked for this long is refused."""
REMEMBERED_MS = 3_600_000
"""For which it can be asked why a file was refused."""
SCAN_PAUSES = (1.0, 2.0)
"""Seconds between attempts to reach the scanner before others get their turn; then the file is looked at later."""
MOST_GROWTH = 4
"""What is made of a file may be so many times as large, and GROWTH_BYTES more."""
GROWTH_BYTES = 4_000_000
LOOSE_SECONDS = 3600
"""What lies about this much longer than it could be of use is removed, whoever it belonged to."""
DUE_AT_ONCE = 1000
KEEP_SECONDS = 8.0
"""For which a report waits for the copies of files that are attached to it."""
LONGEST_NAME = 255
"""Bytes of a name: no file system takes more."""

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shared, and for how long: the settings of the same names."""

    file_bytes: int
    files_per_minute: int
    files_bytes_together: int
    file_seconds: int
    file_kinds: tuple[FileKind, ...]
    file_address_seconds: int
    file_checks_at_once: int
    upload_seconds: int
    files_free_bytes: int
    evidence_seconds: int
    file_sweep_seconds: float


class Served(msgspec.Struct, frozen=True):
    """A file, or its smaller picture, about to be handed out. `tag` changes with its bytes."""

    blob: str
    bytes: int
    type: str
    name: str
    attachment: bool
    tag: str
    guest: str
    """To whom."""


class Kept(msgspec.Struct, frozen=True):
    """A file attached to a report, as the report says it; `kept` is whether it was still there."""

    id: str
    kept: bool
    kind: str = ""
    name: str = ""
    type: str = ""
    bytes: int = 0
    mine: bool = False


def _clock() -> int:
    return time.time_ns() // 1_000_000


class Files:
    """All that is done with files."""

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        spool: Spool,
        workshop: Workshop,
        scanner: Scanner | None,
        passes: Passes,
        meter: Meter,
        rules: Rules,
        clock: Callable[[], int] = _clock,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._spool = spool
        self._workshop = workshop
        self._scanner = scanner
        self._passes = passes
        self._meter = meter
        self._upload_bytes = meter.tally("upload_bytes")
        self._rules = rules
        self._clock = clock
        self._slots = asyncio.Semaphore(rules.file_checks_at_once)
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._errands = tasks.Errands("file_check_not_given_back", StateUnavailable)
        self.limits = FileLimits(
            bytes=rules.file_bytes,
            per_minute=rules.files_per_minute,
            bytes_together=rules.files_bytes_together,
            seconds=rules.file_seconds,
            kinds=rules.file_kinds,
            chunk_bytes=CHUNK_BYTES,
        )

    async def start(self) -> None:
        """Begin to sweep, again and again."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep_for_ever())

    async def stop(self) -> None:
        """End what runs; a check that was under way is taken over by another worker."""
        await tasks.end([*([self._sweeping] if self._sweeping else []), *self._checks.values()])
        await self._errands.settle()

    # ------------------------------------------------------------------ uploading

    async def begin(self, guest: Guest, asked: BeginUpload) -> UploadBegun:
        """Take note of an upload to come.

        Raises Refused: file_empty, file_too_large, storage_full, not_in_conversation, rate_limited, too_many_files.
        """
        if asked.bytes < 1:
            raise Refused("file_empty")
        if asked.bytes > self._rules.file_bytes:
            raise Refused("file_too_large", limit=self._rules.file_bytes)
        await self._look_for_room()
        now = self._clock()
        upload = Upload(
            file=self._ledger.new_file(asked.conversation_id),
            guest=guest.id,
            conversation=asked.conversation_id,
            name=tidy(asked.name),
            bytes=asked.bytes,
            voice=asked.voice,
            expires_at=now + self._rules.file_seconds * 1000,
        )
        rules = self._rules
        await self._ledger.begin(
            upload, now, self._given_up_at(now), rules.files_per_minute, rules.files_bytes_together
        )
        self._meter.count("uploads_begun")
        return UploadBegun(file_id=upload.file, url=f"/api/files/{upload.file}")

    async def progress(self, guest: Guest, file: str) -> tuple[int, int]:
        """Bytes that have arrived, and bytes in all. Raises Refused."""
        upload = await self._own(guest, file)
        return upload.offset, upload.bytes

    async def append(self, guest: Guest, file: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Add what `pieces` bring, as far as they come; gives the offset that stands then.

        Nothing of it is added if they are more than was announced or may come at once, or if something else was added
        meanwhile.
        Raises Refused: no_such_file, offset_mismatch, file_too_large, storage_full.
        """
        upload = await self._own(guest, file)
        if upload.phase != "uploading" or upload.offset != offset:
            raise Refused("offset_mismatch", offset=upload.offset)
        await self._look_for_room()

        async def announced() -> AsyncIterator[bytes]:
            left = upload.bytes - offset
            most = min(left, CHUNK_BYTES)
            async for piece in pieces:
                most -= len(piece)
                if most < 0:
                    refused = Refused("file_too_large", limit=upload.bytes)
                    raise refused if left <= CHUNK_BYTES else Refused("too_large", limit=CHUNK_BYTES)
                yield piece
                # Not to be kept while the next one is waited for.
                del piece

        part = f"parts/{file}.{offset}.{new_id()}"
        try:
            path, size = await self._spool.write(announced())
            if not size:
                await self._spool.remove(path)
                return offset
            await self._blobs.put(f"{part}/part", path)
        except StorageFull:
            raise Refused("storage_full") from None
        now = self._clock()
        appended = await self._ledger.append(
            file,
            offset,
            size,
            part,
            now=now,
            give_up_at=self._given_up_at(now),
            check_at=now + LEASE_MS,
            most=MOST_PARTS + offset // PART_BYTES,
        )
        if appended is None or not appended[1]:
            await self._blobs.remove(part)
        if appended is None:
            raise Refused("no_such_file")
        stands, ours = appended
        if not ours:
            raise Refused("offset_mismatch", offset=stands)
        self._upload_bytes.n += size
        if stands == upload.bytes:
            self._check_soon(file)
        return stands

    async def state(self, guest: Guest, file: str) -> UploadState:
        """How an upload stands; while it is checked, the answer waits a while for news. Raises Refused."""
        began = offered = time.monotonic()
        while True:
            upload = await self._own(guest, file)
            now = time.monotonic()
            if upload.phase != "checking" or now - began > NEWS_SECONDS:
                break
            if now == began or now - offered > OFFER_AGAIN:
                offered = now
                # Whoever began to check it may have died since.
                self._check_soon(file)
            await asyncio.sleep(LOOK)
        if upload.phase == "ready" and upload.shared is not None:
            seal = self._passes.seal_file(upload.shared, upload.conversation, guest.id)
            return UploadState(phase="ready", offset=upload.offset, seal=seal, file=upload.shared)
        if upload.phase == "refused":
            limit = upload.limit if upload.limit >= 0 else None
            return UploadState(phase="refused", offset=upload.offset, problem=upload.problem, limit=limit)
        return UploadState(phase="checking" if upload.phase == "checking" else "uploading", offset=upload.offset)

    async def take_back(self, guest: Guest, file: str) -> None:
        """Give an upload up, or take a file away from everybody. Raises Refused."""
        await self._own(guest, file)
        dropped = await self._ledger.drop(file, self._clock(), owner=guest.id)
        if dropped == "stays":
            raise Refused("no_such_file")
        if not isinstance(dropped, str):
            await self._clear(file, dropped)

    async def _own(self, guest: Guest, file: str) -> Upload:
        upload = await self._ledger.upload(file) if _ID.fullmatch(file) else None
        gone = upload is None or upload.phase == "gone" or upload.expires_at <= self._clock()
        if upload is None or gone or upload.guest != guest.id:
            raise Refused("no_such_file")
        return upload

    async def room(self) -> dict[str, float]:
        """Bytes left on the disk that uploads pass through and, where that is known, in the storage."""
        left = {"spool": await self._spool.free(), "storage": await self._blobs.free()}
        return {place: free for place, free in left.items() if free is not None}

    async def _look_for_room(self) -> None:
        if any(free < self._rules.files_free_bytes for free in (await self.room()).values()):
            raise Refused("storage_full")

    def _given_up_at(self, now: int) -> int:
        return now + self._rules.upload_seconds * 1000

    # ------------------------------------------------------------------ checking

    def _check_soon(self, file: str) -> None:
        if file not in self._checks:
            self._checks[file] = task = asyncio.get_running_loop().create_task(self._check(file))
            task.add_done_callback(lambda _: self._checks.pop(file, None))

    async def _check(self, file: str) -> None:
        """Check a file that is complete, unless another worker does."""
        token = new_id()
        try:
            async with self._slots:
                tries = await self._ledger.check(file, token, LEASE_MS)
                upload = await self._ledger.upload(file) if tries else None
                if upload is not None:
                    await self._settle(upload, token, await self._outcome(upload, token, tries))
        except asyncio.CancelledError:
            # This worker stops, which is no fault of the file's: another may go on at once.
            self._errands.send(self._give_back(file, token))
            raise
        except (StateUnavailable, StorageUnavailable) as error:
            # The sweep comes back to it, or whoever asks for it next.
            log.info("file_check_postponed", extra={"why": type(error).__name__})
        except Exception:
            log.exception("file_check_failed")

    async def _give_back(self, file: str, token: str) -> None:
        await self._ledger.checked(file, token, None, 0)

    async def _outcome(self, upload: Upload, token: str, tries: int) -> SharedFile | Refused | None:
        """What members get, or why they get nothing; None if that cannot be found out now."""
        if tries > MOST_TRIES:
            log.error("file_check_given_up")
            return Refused("file_unreadable")
        working = asyncio.get_running_loop().create_task(self._examine(upload))
        renewed = time.monotonic()
        try:
            while not (await asyncio.wait({working}, timeout=RENEW))[0]:
                try:
                    if not await self._ledger.check(upload.file, token, LEASE_MS):
                        return None
                    renewed = time.monotonic()
                except StateUnavailable:
                    if time.monotonic() - renewed > LEASE_MS / 1000:
                        # Somebody else may be at it.
                        return None
            return working.result()
        except Refused as refused:
            return refused
        except StorageFull:
            return Refused("storage_full")
        except (StorageUnavailable, ScannerUnavailable, TimeoutError) as error:
            log.warning("file_check_postponed", extra={"why": type(error).__name__})
            return None if self._clock() - upload.since < PATIENCE_MS else Refused("unavailable")
        finally:
            await _ended(working)

    async def _settle(self, upload: Upload, token: str, outcome: SharedFile | Refused | None) -> None:
        now = self._clock()
        due = now + REMEMBERED_MS if isinstance(outcome, Refused) else upload.expires_at
        said = await self._ledger.checked(upload.file, token, outcome, due)
        if said == "ok" and outcome is not None:
            self._meter.count("files_uploaded", outcome=outcome.code if isinstance(outcome, Refused) else "ready")
            if isinstance(outcome, Refused):
                # Not before: who is no longer in charge of it has nothing to remove.
                await self._blobs.remove(f"files/{upload.file}")
            await self._remove_parts(upload.parts)
        elif said == "gone":
            await self._blobs.remove(f"files/{upload.file}")
            await self._remove_parts(upload.parts)

    async def _examine(self, upload: Upload) -> SharedFile:
        path: Path | None = None
        folder = await self._spool.folder()
        try:
            path, size = await self._spool.write(self._joined(upload.parts))
            if size != upload.bytes:
                raise Refused("file_unreadable")
            await self._scan(path)
            found = await self._workshop.examine(path, upload.name, folder, voice=upload.voice)
            if found.kind not in self._rules.file_kinds:
                raise Refused("kind_refused", kind=found.kind)
            made = await self._spool.size(found.main)
            if made > MOST_GROWTH * upload.bytes + GROWTH_BYTES:
                raise Refused("file_unreadable")
            shared = SharedFile(
                id=upload.file,
                kind=found.kind,
                name=_named(upload.name, found.suffix),
                type=found.type,
                bytes=made,
                expires_at=upload.expires_at,
                width=found.width,
                height=found.height,
                seconds=found.seconds,
                waveform=found.waveform,
                blur=found.blur,
                thumb=found.thumb is not None,
            )
            try:
                # Whatever came out of the file, it goes to members only as the contract has it.
                shared = msgspec.convert(msgspec.to_builtins(shared), SharedFile)
            except msgspec.ValidationError as error:
                raise Refused("file_unreadable") from error
            if found.thumb is not None:
                await self._blobs.put(f"files/{upload.file}/thumb", found.thumb)
            await self._blobs.put(f"files/{upload.file}/main", found.main)
            return shared
        except KeyError:
            # A part is gone, and will not come back.
            raise Refused("unavailable") from None
        finally:
            await self._spool.remove(folder)
            if path is not None:
                await self._spool.remove(path)

    async def _joined(self, parts: Sequence[str]) -> AsyncIterator[bytes]:
        for part in parts:
            async for piece in self._blobs.read(f"{part}/part"):
                yield piece

    async def _scan(self, path: Path) -> None:
        """Hold a file back until the scanner has looked at it. Raises Refused."""
        if self._scanner is None:
            return
        for pause in (*SCAN_PAUSES, None):
            try:
                if not await self._scanner.clean(path):
                    raise Refused("file_infected")
                return
            except ScannerUnavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    # ------------------------------------------------------------------ handing out

    async def open(self, peer: Peer, asked: OpenFile) -> FileAddress:
        """An address at which this guest can fetch a file for a while. Raises Refused."""
        now = self._clock()
        file = await self._ledger.open(asked.file_id, peer.guest.id, asked.conversation_id, now)
        if file is None:
            raise Refused("no_such_file")
        seconds = self._rules.file_address_seconds
        given = self._passes.let_in(Pass(asked.file_id, peer.guest.id, asked.conversation_id), seconds)
        return FileAddress(base=f"/files/{given}", expires_in_ms=min(seconds * 1000, file.expires_at - now))

    async def find(self, token: str, variant: str) -> Served:
        """What an address leads to, if it still does. Raises Refused."""
        given = self._passes.admits(token)
        file = await self._ledger.open(given.file, given.guest, given.conversation, self._clock()) if given else None
        if given is None or file is None:
            raise Refused("no_such_file")
        if variant == "thumb" and file.thumb:
            blob = f"files/{file.id}/thumb"
            size = await self._blobs.size(blob)
            if size is None:
                raise Refused("no_such_file")
            return Served(blob, size, "image/webp", file.name, False, f"{file.id}-thumb", given.guest)
        if variant not in ("main", "download"):
            raise Refused("no_such_file")
        attachment = variant == "download" or file.kind == "document"
        blob, tag = f"files/{file.id}/main", f"{file.id}-main"
        return Served(blob, file.bytes, file.type, file.name, attachment, tag, given.guest)

    def read(self, served: Served, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from `start` up to, not including, `end`. Raises KeyError before the first if they are gone."""
        return self._blobs.read(served.blob, start, end)

    # ------------------------------------------------------------------ evidence

    async def keep(self, conversation: str, guest: str, files: Collection[str]) -> list[Kept]:
        """Copy those of the files that are still there, for moderators to look at; `guest` is the reporter.

        A file is kept once, however many reports name it, and also if it was taken back or everybody has left, as long
        as a report is taken.
        """
        kept = {file: Kept(file, kept=False) for file in files}

        async def keep(file: str) -> None:
            upload = await self._ledger.upload(file)
            if upload is None or upload.conversation != conversation or upload.phase not in ("ready", "gone"):
                return
            shared = upload.shared
            if shared is None or upload.expires_at <= self._clock():
                return
            there = False
            try:
                if await self._blobs.size(f"kept/{file}/main") is None:
                    await self._look_for_room()
                    await self._blobs.copy(f"files/{file}/main", f"kept/{file}/main")
                there = True
            except KeyError:
                pass
            finally:
                mine = upload.guest == guest
                kept[file] = Kept(file, there, shared.kind, shared.name, shared.type, shared.bytes, mine)

        copying = [asyncio.get_running_loop().create_task(keep(file)) for file in kept]
        if copying:
            _, late = await asyncio.wait(copying, timeout=KEEP_SECONDS)
            for copy in late:
                await _ended(copy)
            for copy in copying:
                if not copy.cancelled() and (error := copy.exception()) is not None:
                    # The report matters more than what goes with it.
                    log.warning("evidence_not_kept", extra={"why": type(error).__name__})
        return list(kept.values())

    # ------------------------------------------------------------------ sweeping

    async def sweep(self) -> None:
        """Remove what is due, what belongs to nobody, and what was kept long enough; see to forgotten checks.

        Raises StateUnavailable, StorageUnavailable: then the next one goes on with it.
        """
        await self._spool.sweep(LOOSE_SECONDS)
        # Shorter than the pause, so that the next look, by whichever worker, finds it free.
        if not await self._ledger.sweeps(max(1, round(self._rules.file_sweep_seconds * 900))):
            return
        now = self._clock()
        for file in await self._ledger.due(now, DUE_AT_ONCE):
            dropped = await self._ledger.drop(file, now)
            if dropped == "check":
                self._check_soon(file)
            elif not isinstance(dropped, str):
                await self._clear(file, dropped)
        for owner in await self._blobs.old("files", self._rules.file_seconds + LOOSE_SECONDS):
            await self._blobs.remove(owner)
        for owner in await self._blobs.old("parts", self._rules.upload_seconds + LOOSE_SECONDS):
            upload = await self._ledger.upload(owner.removeprefix("parts/").partition(".")[0])
            if upload is None or owner not in upload.parts:
                await self._blobs.remove(owner)
        for owner in await self._blobs.old("kept", self._rules.evidence_seconds):
            await self._blobs.remove(owner)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._rules.file_sweep_seconds)
            try:
                await self.sweep()
            except (StateUnavailable, StorageFull, StorageUnavailable) as error:
                log.info("file_sweep_postponed", extra={"why": type(error).__name__})
            except Exception:
                log.exception("file_sweep_failed")

    async def _clear(self, file: str, parts: Sequence[str]) -> None:
        """Remove the bytes of a file that nobody can get at any more; if that fails, the sweep does it."""
        try:
            await self._blobs.remove(f"files/{file}")
            await self._remove_parts(parts)
            await self._ledger.forget(file)
        except (StateUnavailable, StorageFull, StorageUnavailable) as error:
            log.info("file_removal_postponed", extra={"why": type(error).__name__})

    async def _remove_parts(self, parts: Sequence[str]) -> None:
        for part in parts:
            await self._blobs.remove(part)


async def _ended(task: "asyncio.Task[SharedFile] | asyncio.Task[None]") -> None:
    """Cancel a task, and wait until it has let go of everything."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1)


# --------------------------------------------------------------------------- names

_SEPARATORS = re.compile(r"[/\\]")
_QUOTES = re.compile("[\"'`<>]")
_ENDING = re.compile(r"\.[^.\s]{1,20}\Z")
_JOINERS = "\u200c\u200d"
"""Without which some scripts, and some emoji, are not what they were."""


def tidy(name: str) -> str:
    """A file's name as it may be shown and saved under: what comes after the last folder, in at most MAX_FILE_NAME
    characters and LONGEST_NAME bytes, its ending kept, without anything that is not seen or turns the line around.
    """
    last = _SEPARATORS.split(name)[-1]
    kinds = [(letter, unicodedata.category(letter)) for letter in last]
    seen = "".join(
        " " if kind[0] == "Z" else letter
        for letter, kind in kinds
        if letter in _JOINERS or kind not in ("Cc", "Cf", "Cs", "Co")
    )
    whole = unicodedata.normalize("NFC", _QUOTES.sub("", seen))
    return _cut(" ".join(whole.split()).strip(". " + _JOINERS), "") or "file"


def _named(name: str, suffix: str) -> str:
    """The name, with this ending if it has another."""
    if not suffix or name.lower().endswith(suffix.lower()):
        return name
    return _cut(_ENDING.sub("", name) + suffix, suffix)


def _cut(name: str, suffix: str) -> str:
    found = _ENDING.search(name)
    ending = suffix or (found[0] if found else "")
    stem = name[: len(name) - len(ending)] if ending else name
    stem = stem[: MAX_FILE_NAME - len(ending)]
    stem = stem.encode()[: LONGEST_NAME - len(ending.encode())].decode(errors="ignore")
    return (stem.rstrip(". ") or "file") + ending if stem or ending else ""
