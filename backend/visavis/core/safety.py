"""Blocking and reporting: what a guest can do about a partner, during a conversation or soon after it.

And what moderators do with the files that were attached to a report.
"""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from visavis.contract import Block, Done, Refused, Report, Reported
from visavis.core.collections import BLOCKS, EVIDENCE_ACCESS, REPORTS
from visavis.core.conversations import Conversations, Peer
from visavis.core.files import Files, Kept
from visavis.core.identity import new_id
from visavis.core.ports import Blobs, DocumentStore, Duplicate, Ledger, Member, Meter, Record, Seats, StoreUnavailable

RETRY_MS = 2000


class Safety:
    """Lasting blocks, and reports for moderators."""

    def __init__(
        self,
        conversations: Conversations,
        seats: Seats,
        documents: DocumentStore,
        files: Files | None,
        meter: Meter,
    ) -> None:
        self._conversations = conversations
        self._seats = seats
        self._documents = documents
        self._files = files
        self._meter = meter

    async def block(self, peer: Peer, asked: Block) -> Done:
        """Keep the two browsers apart for good, and end the conversation as if the guest had left."""
        record, others = await self._others(peer, asked.conversation_id)
        self._meter.count("blocks")
        # Safe first, then for good: without the store the two are parted all the same, and the refusal says
        # that it has to be asked again to last.
        peer.blocked = peer.blocked.union(other.device for other in others)
        await self._conversations.end(record.id, peer.guest.id, "left", part=True)
        for other in others:
            try:
                await self._documents.insert(
                    BLOCKS,
                    new_id(),
                    {"blocker": peer.guest.device, "blocked": other.device, "at": _now()},
                )
            except Duplicate:
                continue
            except StoreUnavailable:
                raise Refused("unavailable", retryInMs=RETRY_MS) from None
        return Done()

    async def report(self, peer: Peer, asked: Report) -> Reported:
        """Store the reporter's words and the messages and files the reporter chose; nothing else of what was said."""
        record, others = await self._others(peer, asked.conversation_id)
        report_id = new_id()
        # Before the report says that they are there.
        kept = await self._files.keep(record.id, peer.guest.id, asked.files) if self._files else []
        try:
            await self._documents.insert(
                REPORTS,
                report_id,
                {
                    "at": _now(),
                    "conversation": record.id,
                    "reporter": peer.guest.device,
                    "reported": others[0].device,
                    "reason": asked.reason,
                    "words": asked.words,
                    "messages": [{"id": m.id, "mine": m.mine, "text": m.text, "at": m.at} for m in asked.messages],
                    "files": [_told(file) for file in kept],
                    "status": "open",
                },
            )
        except StoreUnavailable:
            # What was kept is found by the report when it is sent again.
            raise Refused("unavailable", retryInMs=RETRY_MS) from None
        self._meter.count("reports", reason=asked.reason)
        for file in kept:
            self._meter.count("evidence", outcome="kept" if file.kept else "gone")
        return Reported(report_id=report_id, files=sum(file.kept for file in kept))

    async def _others(self, peer: Peer, conversation: str) -> tuple[Record, list[Member]]:
        record = await self._seats.record(conversation)
        if record is None or record.seat_of(peer.guest.id) is None:
            raise Refused("not_in_conversation")
        return record, [m for m in record.members if m.guest != peer.guest.id]


class Evidence:
    """The files attached to reports, for moderators. Who reached for one is written down before it is given."""

    def __init__(self, documents: DocumentStore, blobs: Blobs, ledger: Ledger | None) -> None:
        self._documents = documents
        self._blobs = blobs
        self._ledger = ledger

    async def reports(self, report: str = "") -> list[dict[str, Any]]:
        """The open reports that have files, or the named one: report, at, reason, files. Raises StoreUnavailable."""
        found: list[tuple[str, dict[str, Any]]] = []
        if report:
            document = await self._documents.get(REPORTS, report)
            found = [(document.id, document.data)] if document else []
        else:
            cursor = None
            while True:
                page = await self._documents.find(REPORTS, "status", ("open",), cursor=cursor)
                found += [(document.id, document.data) for document in page.documents]
                cursor = page.cursor
                if cursor is None:
                    break
        return [
            {"report": name, "at": data["at"], "reason": data["reason"], "files": data["files"]}
            for name, data in found
            if data.get("files")
        ]

    async def read(self, report: str, file: str, by: str) -> AsyncIterator[bytes] | None:
        """A kept file's bytes, or None if there is no such file. Raises StoreUnavailable, StorageUnavailable."""
        name = f"kept/{file}/main"
        listed = [one for found in await self.reports(report) for one in found["files"]]
        if not any(one["id"] == file and one["kept"] for one in listed) or await self._blobs.size(name) is None:
            return None
        await self._note("save", by, report, file)
        return self._blobs.read(name)

    async def withdraw(self, file: str, by: str) -> bool:
        """Take a shared file away from the members it was shared with; says whether it was there.

        What was kept for a report stays. Raises StoreUnavailable, StateUnavailable.
        """
        await self._note("withdraw", by, "", file)
        there = await self._blobs.size(f"files/{file}/main") is not None
        upload = await self._ledger.upload(file) if self._ledger else None
        if self._ledger and upload:
            # The sweep removes what is left of it, and forgets it.
            await self._ledger.drop(file, _now(), owner=upload.guest)
        # Without the ledger there is still an entry, which leads to nothing.
        await self._blobs.remove(f"files/{file}")
        return there

    async def _note(self, what: str, by: str, report: str, file: str) -> None:
        told = {"at": _now(), "by": by, "what": what, "report": report, "file": file}
        await self._documents.insert(EVIDENCE_ACCESS, new_id(), told)


def evidence_of(report: Mapping[str, Any]) -> list[str]:
    """The files that were kept with a report: of each, the blob `kept/{file}/main`."""
    return [file["id"] for file in report.get("files", ()) if file["kept"]]


def _told(file: Kept) -> dict[str, Any]:
    return msgspec.to_builtins(file) if file.kind else {"id": file.id, "kept": False}


def _now() -> int:
    return time.time_ns() // 1_000_000
