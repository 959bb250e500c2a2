"""Saved recordings: whose they are, how long they are kept, and that they are gone afterwards.

A recording belongs to the browsers of its two guests, and to nobody else; each can list, fetch and delete it, the
last for both. Its documents decide whether it is there: from the moment they expire it is not, whether or not the
file has been swept.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from visavis.contract import Refused, SavedRecording, SavedRecordings
from visavis.core.collections import RECORDINGS
from visavis.core.ports import DocumentStore, Duplicate, Shelf, StoreUnavailable

log = logging.getLogger(__name__)

LISTED = 100
RETRY_MS = 2000
PATIENCE = 30.0
"""Seconds for which saving is tried while the document store is away."""
UNCLAIMED = 600.0
"""Seconds after which a file without documents is removed: by then they were stored, or never will be."""

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Saved(msgspec.Struct, frozen=True):
    """One recording, as its documents have it. Times are milliseconds since the epoch."""

    recording: str
    at: int
    expires_at: int
    bytes: int
    seconds: int


class Recordings:
    """The recordings that were saved."""

    def __init__(self, documents: DocumentStore, shelf: Shelf, patience: float = PATIENCE) -> None:
        self._documents = documents
        self._shelf = shelf
        self._patience = patience

    async def list_for(self, device: str) -> SavedRecordings:
        """A browser's recordings, newest first. Raises Refused."""
        try:
            page = await self._documents.find(RECORDINGS, "device", (device,), limit=LISTED, newest_first=True)
        except StoreUnavailable:
            raise Refused("unavailable", retryInMs=RETRY_MS) from None
        found = [msgspec.convert(document.data, Saved) for document in page.documents]
        return SavedRecordings(
            recordings=tuple(
                SavedRecording(
                    id=one.recording,
                    made_at=one.at,
                    expires_at=one.expires_at,
                    bytes=one.bytes,
                    seconds=one.seconds,
                )
                for one in found
            )
        )

    async def file_for(self, device: str, recording: str) -> tuple[Path, int]:
        """A recording's file and when it began. Raises Refused, as if there were none, for anybody else's."""
        saved = await self._saved(device, recording)
        path = self._shelf.path(recording)
        if path is None:
            raise Refused("not_found")
        return path, saved.at

    async def delete(self, device: str, recording: str) -> None:
        """Delete a recording for both of its browsers. Raises Refused, as if there were none, for anybody else's."""
        await self._saved(device, recording)
        try:
            page = await self._documents.find(RECORDINGS, "recording", (recording,))
            for document in page.documents:
                await self._documents.delete(RECORDINGS, document.id)
        except StoreUnavailable:
            raise Refused("unavailable", retryInMs=RETRY_MS) from None
        await asyncio.to_thread(self._shelf.remove, recording)

    async def save(self, saved: Saved, devices: Sequence[str]) -> bool:
        """Give a finished file to its browsers; if that cannot be stored the file is removed, and False returned."""
        until = time.monotonic() + self._patience
        while True:
            try:
                for device in devices:
                    await self._give(saved, device)
                return True
            except StoreUnavailable:
                if time.monotonic() > until:
                    break
                await asyncio.sleep(0.5)
        log.error("recording_not_stored")
        await asyncio.to_thread(self._shelf.remove, saved.recording)
        return False

    async def sweep(self) -> int:
        """Remove the files that no browser has any more; returns how many."""
        removed = 0
        for recording in await asyncio.to_thread(self._shelf.old, UNCLAIMED):
            page = await self._documents.find(RECORDINGS, "recording", (recording,), limit=1)
            if not page.documents:
                await asyncio.to_thread(self._shelf.remove, recording)
                removed += 1
        return removed

    async def _give(self, saved: Saved, device: str) -> None:
        data = {**msgspec.to_builtins(saved), "device": device}
        try:
            await self._documents.insert(RECORDINGS, _key(saved.recording, device), data, expires_at=saved.expires_at)
        except Duplicate:
            return

    async def _saved(self, device: str, recording: str) -> Saved:
        if not _ID.fullmatch(recording):
            raise Refused("not_found")
        try:
            document = await self._documents.get(RECORDINGS, _key(recording, device))
        except StoreUnavailable:
            raise Refused("unavailable", retryInMs=RETRY_MS) from None
        if document is None:
            raise Refused("not_found")
        return msgspec.convert(document.data, Saved)


def _key(recording: str, device: str) -> str:
    return f"{recording}:{device}"
