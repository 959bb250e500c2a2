"""Blocking and reporting: what a guest can do about a partner, during a conversation or soon after it."""

import time

from visavis.contract import Block, Done, Refused, Report, Reported
from visavis.core.collections import BLOCKS, REPORTS
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import new_id
from visavis.core.ports import DocumentStore, Duplicate, Member, Record, Seats, StoreUnavailable

RETRY_MS = 2000


class Safety:
    """Lasting blocks, and reports for moderators."""

    def __init__(self, conversations: Conversations, seats: Seats, documents: DocumentStore) -> None:
        self._conversations = conversations
        self._seats = seats
        self._documents = documents

    async def block(self, peer: Peer, asked: Block) -> Done:
        """Keep the two browsers apart for good, and end the conversation as if the guest had left."""
        record, others = await self._others(peer, asked.conversation_id)
        # Safe first, then for good: without the store the two are parted all the same, and the refusal says
        # that it has to be asked again to last.
        peer.blocked.update(other.device for other in others)
        await self._conversations.end(record.id, peer.guest.id, "left")
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
        """Store the reporter's words and the messages the reporter chose; nothing else of the conversation."""
        record, others = await self._others(peer, asked.conversation_id)
        report_id = new_id()
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
                    "status": "open",
                },
            )
        except StoreUnavailable:
            raise Refused("unavailable", retryInMs=RETRY_MS) from None
        return Reported(report_id=report_id)

    async def _others(self, peer: Peer, conversation: str) -> tuple[Record, list[Member]]:
        record = await self._seats.record(conversation)
        if record is None or record.seat_of(peer.guest.id) is None:
            raise Refused("not_in_conversation")
        return record, [m for m in record.members if m.guest != peer.guest.id]


def _now() -> int:
    return time.time_ns() // 1_000_000
