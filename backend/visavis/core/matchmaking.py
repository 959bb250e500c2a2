"""Searching: puts guests into the waiting pool and runs the rounds that pair them.

Hides the lease, the debounce and the widening: a round runs soon after a ticket arrives, and again when
waiting tickets widen. Whom to pair is `matching`'s to decide; a claim in Redis makes it so.
"""

import asyncio
import contextlib
import contextvars
import logging
import time

from visavis.contract import CancelMatch, Done, FindMatch, Mode, Refused, Searching, SearchStep
from visavis.core import tasks
from visavis.core.collections import BLOCKS
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import new_id
from visavis.core.matching import Pair, Policy, Ticket, measured_round, next_widening, normalise_interest
from visavis.core.ports import (
    DocumentStore,
    Member,
    Meter,
    Pool,
    Proposal,
    Queue,
    Record,
    Seats,
    StateUnavailable,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

DEBOUNCE = 0.1
"""Seconds between the rounds of a pool."""
RETRY = 0.5
"""Seconds after which a round that could not be held is tried again."""
MOST_BLOCKED = 400
"""Blocked devices that a ticket keeps away from, the newest; the cost of a round grows with them."""
THREAD_FROM = 100
"""Tickets from which a round is computed in a thread, to keep the event loop free."""
COMPARE = 10.0
"""Seconds between rounds that are held against the optimum, where that is work."""


class Matchmaker:
    """Finds every waiting guest the partner that fits best."""

    def __init__(
        self,
        worker: str,
        conversations: Conversations,
        pool: Pool,
        seats: Seats,
        documents: DocumentStore,
        policy: Policy,
        modes: tuple[Mode, ...],
        meter: Meter,
    ) -> None:
        self._worker = worker
        self._conversations = conversations
        self._pool = pool
        self._seats = seats
        self._documents = documents
        self._policy = policy
        self._modes = modes
        self._meter = meter
        self._compared = -COMPARE
        self._tickets: dict[str, tuple[Queue, Ticket]] = {}
        self._since: dict[str, float] = {}
        """When each of them began to wait, by this worker's clock."""
        self._rounds: dict[Queue, asyncio.Task[None]] = {}
        self._wanted: dict[Queue, asyncio.Event] = {}

    async def find(self, peer: Peer, asked: FindMatch) -> Searching:
        """Begin to wait, or change what one waits for."""
        if asked.mode not in self._modes:
            raise Refused("mode_unavailable", mode=asked.mode)
        if peer.seat is not None:
            raise Refused("in_conversation", conversationId=peer.seat.record.id)
        interests = tuple(dict.fromkeys(filter(None, map(normalise_interest, asked.interests))))
        ticket = Ticket(
            id=new_id(),
            guest=peer.guest.id,
            worker=self._worker,
            interests=interests,
            languages=tuple(dict.fromkeys(asked.languages)),
            aliases=(peer.guest.id, peer.guest.device),
            avoid=await self._avoided(peer),
            since=0,
        )
        try:
            since = await self._enter(peer, self._pool.queue(peer.guest.id, asked.mode), ticket)
        except StateUnavailable:
            # The guest is told that no search runs, so none may go on by itself later.
            peer.searching = None
            raise
        peer.interests = interests
        steps = [SearchStep(after_ms=0, accepts="interests")] if interests else []
        if ticket.languages:
            steps.append(
                SearchStep(after_ms=self._policy.widen_interests_after if interests else 0, accepts="language")
            )
        anyone_after = max(
            self._policy.widen_interests_after if interests else 0,
            self._policy.widen_languages_after if ticket.languages else 0,
        )
        steps.append(SearchStep(after_ms=anyone_after, accepts="anyone"))
        return Searching(since=since, steps=tuple(steps))

    async def cancel(self, peer: Peer, asked: CancelMatch) -> Done:
        """Stop waiting."""
        peer.searching = None
        self._tickets.pop(peer.guest.id, None)
        self._since.pop(peer.guest.id, None)
        await self._pool.leave(peer.guest.id)
        return Done()

    async def resume(self, peer: Peer) -> None:
        """Enter again with a ticket that Redis has lost."""
        known = self._tickets.get(peer.guest.id)
        if known is not None:
            with contextlib.suppress(Refused):
                # Met somebody meanwhile, or is elsewhere: then the search is over.
                await self._enter(peer, *known)

    async def _enter(self, peer: Peer, queue: Queue, ticket: Ticket) -> int:
        if not peer.searching or peer.guest.id not in self._since:
            self._since[peer.guest.id] = time.monotonic()
        peer.searching = queue.mode
        self._tickets[peer.guest.id] = (queue, ticket)
        guest = peer.guest
        member = Member(guest.id, guest.device, guest.profile)
        outcome, since = await self._pool.enter(queue, ticket, member, peer.epoch)
        if outcome == "missing":
            await self._conversations.restore(peer)
            outcome, since = await self._pool.enter(queue, ticket, member, peer.epoch)
        if outcome != "ok":
            peer.searching = None
            raise Refused("in_conversation" if outcome == "in_conversation" else "session_expired")
        self._want_round(queue)
        return since

    async def _avoided(self, peer: Peer) -> frozenset[str]:
        """Recent partners and blocked devices. Without the store, the blocks this connection knows of hold."""
        try:
            cursor = None
            while True:
                page = await self._documents.find(
                    BLOCKS, "blocker", (peer.guest.device,), limit=200, newest_first=True, cursor=cursor
                )
                peer.blocked = peer.blocked.union(str(d.data["blocked"]) for d in page.documents)
                cursor = page.cursor
                if cursor is None or len(peer.blocked) >= MOST_BLOCKED:
                    break
        except StoreUnavailable:
            log.warning("blocks_not_read")
        return peer.blocked.union(await self._seats.recent(peer.guest.id))

    # ------------------------------------------------------------------ rounds

    def _want_round(self, queue: Queue) -> None:
        self._wanted.setdefault(queue, asyncio.Event()).set()
        if queue not in self._rounds or self._rounds[queue].done():
            # Whoever happens to come first has no more to do with the rounds than anybody else.
            nobody = contextvars.Context()
            self._rounds[queue] = asyncio.get_running_loop().create_task(self._run(queue), context=nobody)

    def _waits_here(self, queue: Queue) -> bool:
        for guest in list(self._tickets):
            peer = self._conversations.peers.get(guest)
            if peer is None or not peer.searching:
                del self._tickets[guest]
        for guest in self._since.keys() - self._tickets.keys():
            del self._since[guest]
        return any(waits_in == queue for waits_in, _ in self._tickets.values())

    def waiting(self) -> dict[tuple[str, ...], float]:
        """Guests of this worker who wait, by mode and cell."""
        return {pool: len(since) for pool, since in self._waits().items()}

    def oldest(self) -> dict[tuple[str, ...], float]:
        """Seconds that the one of them has waited who has waited longest, by mode and cell; 0 if nobody does."""
        now = time.monotonic()
        return {pool: max((now - one for one in since), default=0.0) for pool, since in self._waits().items()}

    def _waits(self) -> dict[tuple[str, ...], list[float]]:
        """Since when, by mode and cell; where nobody waits, of each mode the first cell alone."""
        waits: dict[tuple[str, ...], list[float]] = {(mode, "0"): [] for mode in self._modes}
        for guest, since in self._since.items():
            peer, ticket = self._conversations.peers.get(guest), self._tickets.get(guest)
            if peer is not None and ticket is not None and peer.searching == ticket[0].mode:
                waits.setdefault((ticket[0].mode, str(ticket[0].cell)), []).append(since)
        return waits

    async def _run(self, queue: Queue) -> None:
        """Run rounds for as long as somebody on this worker waits."""
        wanted = self._wanted[queue]
        while self._waits_here(queue):
            wanted.clear()
            pause: float = RETRY
            try:
                if await self._pool.hold(queue):
                    try:
                        widening = await self.one_round(queue)
                    finally:
                        await self._pool.release(queue)
                    pause = 5.0 if widening is None else max(0.0, widening / 1000)
                else:
                    pause = DEBOUNCE
            except StateUnavailable:
                log.warning("round_postponed")
            except Exception:
                log.exception("round_failed")
            await asyncio.sleep(DEBOUNCE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wanted.wait(), max(0.0, pause - DEBOUNCE))

    async def one_round(self, queue: Queue) -> int | None:
        """Pair who waits, holding the queue's lease; gives the milliseconds until waiting alone lets more be paired."""
        tickets, members, now = await self._pool.waiting(queue)
        if len(tickets) < 2:
            return None
        read_at = time.monotonic()
        pairs = await self._pairs(tickets, now)
        if pairs:
            started_at = time.time_ns() // 1_000_000
            proposals = [
                Proposal(
                    record=Record(
                        id=self._pool.new_conversation(queue),
                        mode=queue.mode,
                        members=(members[pair.a.guest], members[pair.b.guest]),
                        why=pair.why,
                        started_at=started_at,
                    ),
                    tickets=(pair.a.id, pair.b.id),
                )
                for pair in pairs
            ]
            claimed = await self._pool.claim(queue, proposals)
            later = time.monotonic() - read_at
            for pair, proposal, workers in zip(pairs, proposals, claimed, strict=True):
                if workers is not None:
                    self._conversations.seat(proposal.record, workers)
                    self._meter.count("matches", mode=queue.mode)
                    for ticket in (pair.a, pair.b):
                        self._meter.observe("match", max(0, now - ticket.since) / 1000 + later, step=_step(pair))
                else:
                    # One of the two had gone; the other may still fit somebody.
                    self._wanted[queue].set()
                    self._meter.count("match_claims_lost")
        paired = {t.guest for pair in pairs for t in (pair.a, pair.b)}
        return next_widening([t for t in tickets if t.guest not in paired], now, self._policy)

    async def _pairs(self, tickets: list[Ticket], now: int) -> list[Pair]:
        """The best pairs. How good they are is told for every small round, and for a large one now and then."""
        began = time.monotonic()
        large = len(tickets) > self._policy.exact_limit
        compare = not large or began - self._compared > COMPARE
        if large and compare:
            self._compared = began
        if len(tickets) >= THREAD_FROM:
            made = await asyncio.to_thread(measured_round, tickets, now, self._policy, compare=compare)
        else:
            made = measured_round(tickets, now, self._policy, compare=compare)
        method = "exact" if made.exact else "blocks"
        self._meter.count("match_rounds", method=method)
        self._meter.observe("match_round", time.monotonic() - began, method=method)
        if compare:
            self._meter.tally("match_weight", method=method).n += made.weight
            self._meter.tally("match_weight_best", method=method).n += made.best
        return made.pairs

    async def stop(self) -> None:
        """End the rounds; waiting tickets go with their guests' connections."""
        await tasks.end(self._rounds.values())


def _step(pair: Pair) -> str:
    """What brought the two together."""
    return "interests" if pair.why.interests else "language" if pair.why.languages else "anyone"
