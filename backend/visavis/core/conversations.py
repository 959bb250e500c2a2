"""Conversations, and the guests of this worker who have seats in them.

Hides where anyone is: a member may be on this worker, on another, or away for a moment. Saying
something looks up the seat here, in memory, and forwards; only sitting down and getting up ask Redis.
What Redis holds is the truth about seats; `reconcile` compares with it, so that a lost note, a paused
worker or an emptied Redis heals.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from visavis.contract import (
    Accepted,
    CallState,
    Conversation,
    DeletionBody,
    Done,
    Ended,
    FileBody,
    LobbyState,
    MatchFound,
    Message,
    Mode,
    Partner,
    PartnerPresence,
    ReactionBody,
    Receipt,
    Refused,
    SendMessage,
    SendReceipt,
    SendTyping,
    SessionReplaced,
    SessionState,
    SharedFileBody,
    TextBody,
    Typing,
    Wire,
)
from visavis.contract import Leave as LeaveRequest
from visavis.core import calls, notes, tasks
from visavis.core.identity import Guest
from visavis.core.ports import Bus, Meter, Record, Sealer, Seats, StateUnavailable, Workers
from visavis.core.tally import Tally

log = logging.getLogger(__name__)

HAND_OVER_SECONDS = 2.5
"""A guest whose worker stops may take this long to another before anybody is told of an absence."""
DEPARTED_AT_ONCE = 200
"""Guests whose departure is told to Redis in one call."""
LOOK_AGAIN_MS = 2000
"""Pause before asking Redis again whether an absent member's time has run out."""

_NONE: frozenset[Any] = frozenset()
"""One for all who have none: each new one would be 216 bytes, for everybody connected."""


class Line(Protocol):
    """A guest's connection, as the door gives it."""

    def push(self, frame: bytes) -> None:
        """Send an encoded push. Never waits."""

    def close(self, last_words: Wire | None = None) -> None:
        """Say something if there is something to say, then hang up."""


class CallBook(Protocol):
    """What the conversations need to know of calls."""

    def begin(self, record: Record) -> calls.State:
        """The call's state in a new conversation."""

    def met(self, record: Record) -> None:
        """A conversation has come about."""

    def view(self, record: Record, state: calls.State, guest: str) -> CallState:
        """The state as that member is told it."""

    def changed(self, peer: "Peer", seat: "Seat", before: calls.State) -> None:
        """A seat's call is another than before, or the seat is just taken or given up."""

    def contradicted(self, peer: "Peer", seat: "Seat") -> None:
        """What is known of a seat's call and what is said of it cannot both be so."""

    def recorded(self, peer: "Peer", note: notes.Recorded) -> None:
        """News of a recording."""


class Seat:
    """One guest's seat, as this worker sees it."""

    __slots__ = ("record", "number", "workers", "grace", "call", "ring", "told", "described", "timed", "timed_at")

    def __init__(self, record: Record, number: int, workers: Workers, call: calls.State) -> None:
        self.record = record
        self.number = number
        self.workers = workers
        """Where the other members are; the empty string is away."""
        self.call = call
        self.ring: asyncio.TimerHandle | None = None
        """Runs while the call rings."""
        self.told: frozenset[tuple[str, str]] = _NONE
        """What this member's client has told of which call, to be counted once."""
        self.described: tuple[float, ...] = ()
        """When this member sent session descriptions of late."""
        self.grace: dict[str, asyncio.TimerHandle] = {}
        """Runs for each member who is away."""
        self.timed = 0
        """The sequence number of the item whose receipt is waited for, since `timed_at`; 0 for none."""
        self.timed_at = 0.0

    @property
    def counts(self) -> bool:
        """Whether this member stands for the conversation where they are counted: the first who is not away."""
        before = self.record.members[: self.number]
        return not before or not any(self.workers.get(member.guest) for member in before)

    def stop_waiting(self) -> None:
        for timer in self.grace.values():
            timer.cancel()
        self.grace.clear()
        if self.ring is not None:
            self.ring.cancel()
            self.ring = None


class Peer:
    """A guest connected to this worker."""

    __slots__ = (
        "guest",
        "line",
        "cell",
        "epoch",
        "registering",
        "spent",
        "gone",
        "unsure",
        "seat",
        "searching",
        "blocked",
        "interests",
        "early",
    )

    def __init__(self, guest: Guest, line: Line, cell: int = 0) -> None:
        self.guest = guest
        self.line = line
        self.cell = cell
        """Only guests of one cell meet, and they share its fate."""
        self.epoch = 0
        """0 until Redis has taken note of the connection."""
        self.registering = 0
        """How often Redis is being told of it just now: the epoch may be another already."""
        self.seat: Seat | None = None
        self.searching: Mode | None = None
        self.blocked: frozenset[str] = _NONE
        """Devices this guest's browser has blocked, as far as is known here."""
        self.interests: tuple[str, ...] = ()
        """What the guest last searched with, counted for what is popular here."""
        self.spent = False
        """The guest has spent something of late, here or elsewhere."""
        self.gone = False
        """The connection has ended."""
        self.unsure = False
        """Redis may have heard of a later connection here, of which nothing came."""
        self.early: list[notes.AnyNote] | None = []
        """Notes that came before the client was told where it stands; None from then on."""

    @property
    def welcomed(self) -> bool:
        """Whether the client was told where it stands."""
        return self.early is None


class Conversations:
    """Who sits where, and what they say to each other."""

    def __init__(
        self,
        worker: str,
        seats: Seats,
        bus: Bus,
        sealer: Sealer,
        encode: Callable[[Wire], bytes],
        lobby: Callable[[], LobbyState],
        book: CallBook,
        grace_ms: int,
        meter: Meter,
    ) -> None:
        self._worker = worker
        self._seats = seats
        self._bus = bus
        self._sealer = sealer
        self._encode = encode
        self._lobby = lobby
        self._book = book
        self._grace_ms = grace_ms
        self.peers: dict[str, Peer] = {}
        self._departed: dict[tuple[str, int], Peer] = {}
        """Gone from here, by guest and epoch, which Redis has yet to take note of: for others they are still here."""
        self._marking: set[int] = set()
        """Cells that are being told so."""
        self._handing_over = False
        self._expected: dict[str, asyncio.Event] = {}
        """Guests who hung up while this worker stops, until another one has them."""
        self._errands = tasks.Errands("seat_update_postponed", StateUnavailable)
        self._meter = meter
        self._said = {
            body: [meter.tally("messages", kind=kind, partner=partner) for partner in ("elsewhere", "here", "away")]
            for body, kind in _KINDS.items()
        }
        self._uncounted = (Tally(), Tally(), Tally())
        self._delivery = meter.durations("delivery")
        self._left: dict[str, float] = {}
        """Guests who dropped from a seat here of late, and when, the earliest first."""

    # ------------------------------------------------------------------ coming and going

    async def connect(self, guest: Guest, line: Line, claim: Record | None) -> Peer:
        """Take a guest in: the newest connection wins, and a seat still held is taken again.

        While Redis is away nobody is taken in, and an earlier connection here goes on.
        """
        peer = Peer(guest, line, self._seats.cell(guest.id))
        previous = self.peers.get(guest.id)
        self.peers[guest.id] = peer
        if previous is not None and not previous.epoch:
            # Redis has yet to answer about it: it was never told where it stands, and is not to be.
            self._drop(previous)
        try:
            await self._register(peer, claim)
        except StateUnavailable:
            if self.peers.get(guest.id) is peer:
                self._give_back(peer, previous)
            elif previous is not None:
                # One that came later goes on with the guest, whatever becomes of it.
                self._drop(previous)
            raise
        if previous is not None:
            self._drop(previous)
        return peer

    def _give_back(self, peer: Peer, previous: Peer | None) -> None:
        """Redis could not be told of a connection, or its answer was lost."""
        guest = peer.guest.id
        if previous is not None and previous.epoch and not previous.gone:
            # If Redis has heard of the newer one, the next comparison says so, and tells it of this one again.
            self.peers[guest], previous.unsure = previous, True
            for note in peer.early or ():
                self.receive(note)
            return
        del self.peers[guest]
        # Redis believes that the previous one is here, or even this one: only the answer may have been lost.
        for one in (previous, peer):
            if one is not None:
                self._departed[guest, one.epoch] = one

    def welcome(self, peer: Peer) -> None:
        """Tell a client where its guest stands: the first thing said on a connection."""
        seat = peer.seat
        self.tell(
            peer,
            SessionState(
                profile=peer.guest.profile,
                conversation=self._describe(peer, seat) if seat else None,
                lobby=self._lobby(),
            ),
        )
        early, peer.early = peer.early, None
        for note in early or ():
            self.receive(note)

    async def _register(self, peer: Peer, claim: Record | None) -> None:
        peer.registering += 1
        try:
            found = await self._seats.connect(peer.guest, claim)
        finally:
            peer.registering -= 1
        if self.peers.get(peer.guest.id) is not peer:
            return
        again = peer.epoch > 0
        peer.epoch, peer.spent, peer.unsure = found.epoch, found.spent, False
        if found.displaced and found.displaced != self._worker:
            self._post(found.displaced, notes.Displaced(peer.guest.id, found.epoch))
        if again:
            await self._compare(peer, found.record.id if found.record else "", found.workers, found.call_version)
        elif found.record is not None:
            here = self._left.pop(peer.guest.id, None) is not None or found.displaced == self._worker
            kind = "claim" if found.call_version < 0 else "same_worker" if here else "other_worker"
            self._meter.count("resumes", kind=kind)
            self._sit(peer, found.record, found.workers, self._call_of(found.record, found.call_version, found.call))
        self._tell_members(peer, found.workers, self._worker)

    def _call_of(self, record: Record, version: int, packed: bytes) -> calls.State:
        """How a call stands that Redis has, or has not: what it has lost was perhaps not agreed to any more."""
        if packed:
            return calls.unpack(packed)
        return self._book.begin(record) if version == 0 else calls.State()

    def disconnect(self, peer: Peer) -> None:
        """A connection ended without leaving: the seat is kept for a while."""
        peer.gone = True
        if self.peers.get(peer.guest.id) is not peer:
            return
        del self.peers[peer.guest.id]
        if peer.seat is not None:
            peer.seat.stop_waiting()
            self._left[peer.guest.id] = time.monotonic()
        self._errands.send(self._expect_elsewhere(peer) if self._handing_over else self._depart(peer))

    def hand_over(self) -> None:
        """This worker stops: who hangs up from now on comes back elsewhere, and is away only if that takes long."""
        self._handing_over = True

    async def _expect_elsewhere(self, peer: Peer) -> None:
        there = self._expected[peer.guest.id] = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(there.wait(), HAND_OVER_SECONDS)
        # Who came back for a moment is expected a second time.
        if self._expected.get(peer.guest.id) is there:
            del self._expected[peer.guest.id]
        await self._depart(peer)

    async def _depart(self, peer: Peer) -> None:
        self._departed[peer.guest.id, 0 if peer.unsure else peer.epoch] = peer
        await self._mark_cell(peer.cell)

    def of_cell(self, cell: int) -> list[Peer]:
        """The guests here who belong to a cell."""
        return [peer for peer in self.peers.values() if peer.cell == cell]

    def mark_departed(self, cell: int) -> None:
        """Say again who has gone from a cell, if it could not be said at the time. Never waits."""
        if self._departed:
            self._errands.send(self._mark_cell(cell))
        long_ago = time.monotonic() - 2 * self._grace_ms / 1000
        while self._left and next(iter(self._left.values())) < long_ago:
            del self._left[next(iter(self._left))]

    async def _mark_cell(self, cell: int) -> None:
        """Tell Redis who has gone, many at a time: perhaps all go at once. Those after the first find it busy."""
        if cell in self._marking:
            return
        self._marking.add(cell)
        try:
            while gone := [one for one in self._departed.items() if one[1].cell == cell]:
                for start in range(0, len(gone), DEPARTED_AT_ONCE):
                    await self._mark_away(gone[start : start + DEPARTED_AT_ONCE])
        finally:
            self._marking.discard(cell)

    async def _mark_away(self, gone: Sequence[tuple[tuple[str, int], Peer]]) -> None:
        # Where no epoch is known, the guest's next connection would be taken for the one that failed.
        asked = [(guest, epoch) for (guest, epoch), _ in gone if epoch or guest not in self.peers]
        answers = dict(zip(asked, await self._seats.disconnect(asked), strict=True))
        for known, peer in gone:
            if self._departed.get(known) is peer:
                del self._departed[known]
            workers = answers.get(known)
            if workers and peer.seat is not None:
                self._tell_members(peer, workers, "")

    def _drop(self, peer: Peer) -> None:
        """The guest is connected elsewhere now."""
        if peer.seat is not None:
            peer.seat.stop_waiting()
        peer.line.close(SessionReplaced())

    def _tell_members(self, peer: Peer, workers: Workers, worker: str) -> None:
        seat = peer.seat
        if seat is None:
            return
        for member, place in workers.items():
            if place:
                self._post(place, notes.Moved(member, seat.record.id, peer.guest.id, worker))

    # ------------------------------------------------------------------ talking

    @property
    def said(self) -> int:
        """Items accepted so far."""
        return int(sum(tally.n for tallies in self._said.values() for tally in tallies))

    def say(self, peer: Peer, said: SendMessage) -> Accepted:
        """Pass an item on to the other members who are here. Those away get it when it is sent again."""
        seat = self.seated(peer, said.conversation_id)
        at = time.time_ns() // 1_000_000
        body = self._opened(peer, said) if isinstance(said.body, FileBody) else said.body
        told = self.push_others(
            seat,
            Message(conversation_id=said.conversation_id, seat=seat.number, id=said.id, seq=said.seq, body=body, at=at),
            tallies=self._said[type(said.body)],
        )
        if told and not seat.timed:
            seat.timed, seat.timed_at = said.seq, time.monotonic()
        return Accepted(at=at)

    def _opened(self, peer: Peer, said: SendMessage) -> SharedFileBody:
        """A file by its seal. One that is gone since is passed on all the same: the stream has no gaps."""
        assert isinstance(said.body, FileBody)
        file = self._sealer.shared(said.body.seal, said.conversation_id, peer.guest.id)
        if file is None:
            raise Refused("no_such_file")
        return SharedFileBody(file=file, text=said.body.text, reply_to=said.body.reply_to)

    def receipt(self, peer: Peer, said: SendReceipt) -> Done:
        """Pass on how far this client has received and shown."""
        seat = self.seated(peer, said.conversation_id)
        self.push_others(
            seat,
            Receipt(conversation_id=said.conversation_id, seat=seat.number, delivered=said.delivered, read=said.read),
            delivered=said.delivered,
        )
        return _DONE

    def typing(self, peer: Peer, said: SendTyping) -> Done:
        """Pass on that typing began or stopped."""
        seat = self.seated(peer, said.conversation_id)
        self.push_others(seat, Typing(conversation_id=said.conversation_id, seat=seat.number, typing=said.typing))
        return _DONE

    async def leave(self, peer: Peer, said: LeaveRequest) -> Done:
        """Get up for good; the others are told."""
        await self.end(said.conversation_id, peer.guest.id, "left")
        return _DONE

    async def end(
        self, conversation: str, by: str, reason: str, *, away_for: int | None = None, part: bool = False
    ) -> bool:
        """End a conversation in one member's name; says whether it ended just now.

        Who leaves has no part in its files any more, also after it ended; with `part`, nobody has.
        """
        mover = self.peers.get(by) if away_for is None else None
        seat = mover.seat if mover is not None else None
        lost = seat.record if seat is not None and seat.record.id == conversation else None
        workers = await self._seats.end(conversation, by, away_for=away_for, lost=lost, part=part)
        if workers is not None:
            self._meter.count("conversations_ended", reason=_reason(reason))
        if mover is not None and mover.seat is not None and mover.seat.record.id == conversation:
            self._stand_up(mover)
        for member, place in (workers or {}).items():
            if place:
                self._post(place, notes.Over(member, conversation, reason))
        return workers is not None

    def seated(self, peer: Peer, conversation: str) -> Seat:
        """The peer's seat in this conversation. Raises Refused."""
        seat = peer.seat
        if seat is None or seat.record.id != conversation:
            raise Refused("not_in_conversation")
        return seat

    def push_others(self, seat: Seat, push: Wire, *, delivered: int = 0, tallies: Sequence[Tally] = ()) -> bool:
        """Hand a push to the other members who are not away; says whether there are any.

        With `delivered`, it is a receipt up to that number. `tallies` are of members elsewhere, here and away.
        """
        tallies = tallies or self._uncounted
        frame = b""
        for member, place in seat.workers.items():
            if not place:
                tallies[2].n += 1
                continue
            frame = frame or self._encode(push)
            if place == self._worker:
                tallies[1].n += 1
                self._deliver(member, frame, delivered)
            else:
                tallies[0].n += 1
                self._bus.send(place, notes.encode(notes.Deliver(member, frame, delivered)), member)
        return frame != b""

    def _deliver(self, guest: str, frame: bytes, delivered: int) -> None:
        """Hand a push to a guest of this worker, if that is who is here."""
        peer = self.peers.get(guest)
        if peer is None:
            return
        if peer.early is not None:
            peer.early.append(notes.Deliver(guest, frame, delivered))
            return
        peer.line.push(frame)
        if delivered and peer.seat is not None:
            self._arrived(peer.seat, delivered)

    # ------------------------------------------------------------------ notes

    def seat(self, record: Record, workers: Workers) -> None:
        """Tell the members of a new conversation that they have met."""
        self._book.met(record)
        for member, place in workers.items():
            if place:
                others = {guest: where for guest, where in workers.items() if guest != member}
                self._post(place, notes.Seated(member, record, others))

    def call_is(self, peer: Peer, seat: Seat, state: calls.State) -> None:
        """A member here changed the call: the client learns it from its answer, the other members from a note."""
        self._take_call(peer, seat, state, own=True)
        for member, place in seat.workers.items():
            if place:
                self._post(place, notes.Called(member, seat.record.id, state))

    def _hear_call(self, peer: Peer, note: notes.Called) -> None:
        seat = peer.seat
        if seat is not None and seat.record.id == note.conversation and self._take_call(peer, seat, note.state):
            self.tell_call(peer, seat)

    def tell_call(self, peer: Peer, seat: Seat) -> None:
        """Tell a member here how the call stands."""
        self.tell(peer, self._book.view(seat.record, seat.call, peer.guest.id))

    def _take_call(self, peer: Peer, seat: Seat, state: calls.State, *, own: bool = False) -> bool:
        if state.version <= seat.call.version:
            return False
        if not own and calls.presumes(seat.call, state, seat.number):
            self._book.contradicted(peer, seat)
            return False
        before, seat.call = seat.call, state
        self._book.changed(peer, seat, before)
        return True

    def post(self, seat: Seat, note: notes.AnyNote, member: str) -> None:
        """Send a note about a member of this seat's conversation to where that member is."""
        place = seat.workers.get(member, self._worker)
        if place:
            self._post(place, note)

    def _post(self, worker: str, note: notes.AnyNote) -> None:
        if worker == self._worker:
            self.receive(note)
        else:
            self._bus.send(worker, notes.encode(note), note.guest)

    def receive(self, note: notes.AnyNote) -> None:  # noqa: C901, PLR0912  # a branch for each kind of note
        """Act on a note about a guest of this worker; one about somebody who is gone is dropped."""
        if isinstance(note, notes.Deliver):
            # Nearly all of them.
            self._deliver(note.guest, note.frame, note.delivered)
            return
        peer = self.peers.get(note.guest)
        if peer is None:
            if isinstance(note, notes.Displaced) and note.guest in self._expected:
                self._expected[note.guest].set()
            return
        if peer.early is not None:
            peer.early.append(note)
            return
        match note:
            case notes.Seated():
                if peer.seat is None or peer.seat.record.id != note.record.id:
                    seat = self._sit(peer, note.record, note.workers, note.call)
                    self.tell(peer, MatchFound(conversation=self._describe(peer, seat)))
            case notes.Moved():
                if peer.seat is not None and peer.seat.record.id == note.conversation:
                    self._member_moved(peer, peer.seat, note.member, note.worker)
            case notes.Over():
                if peer.seat is not None and peer.seat.record.id == note.conversation:
                    self._stand_up(peer)
                    self.tell(peer, Ended(conversation_id=note.conversation, reason=_reason(note.reason)))
            case notes.Called():
                self._hear_call(peer, note)
            case notes.Recorded():
                self._book.recorded(peer, note)
            case notes.Displaced():
                if note.epoch > peer.epoch:
                    del self.peers[note.guest]
                    self._drop(peer)

    def _arrived(self, seat: Seat, delivered: int) -> None:
        if 0 < seat.timed <= delivered:
            self._delivery.add(time.monotonic() - seat.timed_at)
            seat.timed = 0

    # ------------------------------------------------------------------ seats

    def _sit(self, peer: Peer, record: Record, workers: Workers, call: calls.State | None = None) -> Seat:
        number = record.seat_of(peer.guest.id)
        assert number is not None
        if peer.seat is not None:
            peer.seat.stop_waiting()
        peer.searching = None
        peer.seat = seat = Seat(record, number, {}, self._book.begin(record) if call is None else call)
        for member in record.members:
            if member.guest != peer.guest.id:
                seat.workers[member.guest] = workers.get(member.guest, "")
                if not seat.workers[member.guest]:
                    # How long already, Redis knows.
                    self._wait_for(peer, seat, member.guest, LOOK_AGAIN_MS)
        self._book.changed(peer, seat, calls.State())
        return seat

    def _stand_up(self, peer: Peer) -> None:
        if peer.seat is not None:
            seat, peer.seat = peer.seat, None
            seat.stop_waiting()
            before, seat.call = seat.call, calls.State()
            self._book.changed(peer, seat, before)
            # Who is here was not told to somebody in a conversation.
            self.tell(peer, self._lobby())

    def _member_moved(self, peer: Peer, seat: Seat, member: str, worker: str) -> None:
        before = seat.workers.get(member)
        if before is None:
            return
        seat.workers[member] = worker
        number = seat.record.seat_of(member)
        assert number is not None
        if worker:
            timer = seat.grace.pop(member, None)
            if timer is not None:
                timer.cancel()
            # Said on every arrival, also when the departure went unnoticed: it asks the client to send again.
            self.tell(peer, PartnerPresence(conversation_id=seat.record.id, seat=number, state="here"))
        elif before:
            self._wait_for(peer, seat, member)
            self.tell(peer, PartnerPresence(conversation_id=seat.record.id, seat=number, state="away"))

    def _wait_for(self, peer: Peer, seat: Seat, member: str, delay_ms: int | None = None) -> None:
        if (running := seat.grace.pop(member, None)) is not None:
            running.cancel()
        delay = (self._grace_ms if delay_ms is None else delay_ms) / 1000 + 0.05
        seat.grace[member] = asyncio.get_running_loop().call_later(
            delay, lambda: self._errands.send(self._give_up_on(peer, seat, member))
        )

    async def _give_up_on(self, peer: Peer, seat: Seat, member: str) -> None:
        if peer.seat is not seat or self.peers.get(peer.guest.id) is not peer:
            return
        try:
            ended = await self.end(seat.record.id, member, "lost", away_for=self._grace_ms)
        except StateUnavailable:
            ended = False
        if not ended and peer.seat is seat and not seat.workers.get(member):
            # Back by now, or away again since a shorter time, or Redis is away: look again.
            self._wait_for(peer, seat, member, LOOK_AGAIN_MS)

    def _describe(self, peer: Peer, seat: Seat) -> Conversation:
        other, profile = next((n, m.profile) for n, m in enumerate(seat.record.members) if m.guest != peer.guest.id)
        return Conversation(
            id=seat.record.id,
            mode=seat.record.mode,
            seat=seat.number,
            partner=Partner(
                seat=other,
                profile=profile,
                state="here" if seat.workers.get(seat.record.members[other].guest) else "away",
            ),
            why=seat.record.why,
            started_at=seat.record.started_at,
            claim=self._sealer.seal(seat.record, peer.guest.id),
            call=self._book.view(seat.record, seat.call, peer.guest.id),
        )

    # ------------------------------------------------------------------ healing

    async def reconcile(self, peers: Sequence[Peer], *, reborn: bool = False) -> list[Peer]:
        """Renew sessions and mend what differs from Redis; returns the peers whose search Redis has lost.

        They are all of one cell.

        After this worker was `reborn`, others are told who is here: nobody saw its guests while it had no lease.
        """
        asked = {p.guest.id: (p, p.epoch, p.seat, _Known.of(p.seat)) for p in peers if p.epoch}
        lost: list[Peer] = []
        for touched in await self._seats.touch([(guest, epoch) for guest, (_, epoch, _, _) in asked.items()]):
            peer, epoch_then, seat_then, then = asked[touched.guest]
            # What changed while the answer travelled is newer than the answer.
            if self.peers.get(touched.guest) is not peer or peer.seat is not seat_then:
                continue
            if peer.registering or peer.epoch != epoch_then:
                continue
            if touched.state == "replaced":
                del self.peers[touched.guest]
                self._drop(peer)
            elif touched.state == "missing":
                await self.restore(peer)
            else:
                await self._compare(peer, touched.conversation, touched.workers, touched.call, then)
                await self._compare_call(peer, touched.conversation, touched.call, then)
                if reborn or touched.state == "back":
                    self._tell_members(peer, touched.workers, self._worker)
            if peer.searching and not touched.searching and peer.seat is None:
                lost.append(peer)
        return lost

    async def restore(self, peer: Peer) -> None:
        """Tell Redis of a guest it has forgotten, and of the guest's seat."""
        await self._register(peer, peer.seat.record if peer.seat else None)

    async def _compare(
        self, peer: Peer, conversation: str, workers: Workers, call_version: int, then: "_Known | None" = None
    ) -> None:
        seat = peer.seat
        if seat is not None and seat.record.id == conversation:
            for member, place in workers.items():
                known = seat.workers.get(member)
                if known != place and (then is None or known == then.workers.get(member)):
                    self._member_moved(peer, seat, member, place)
        elif conversation:
            record = await self._seats.record(conversation, live=True)
            packed = await self._seats.call(conversation) if call_version > 0 else None
            if record is not None and record.seat_of(peer.guest.id) is not None and peer.seat is seat:
                call = self._call_of(record, call_version, packed or b"")
                self.receive(notes.Seated(peer.guest.id, record, workers, call))
        elif seat is not None:
            self.receive(notes.Over(peer.guest.id, seat.record.id, "left"))

    async def _compare_call(self, peer: Peer, conversation: str, version: int, then: "_Known") -> None:
        """Compare with Redis, which had `version` some time after this worker knew what it knew `then`."""
        seat = peer.seat
        if seat is None or seat.record.id != conversation:
            return
        if version > seat.call.version:
            found = await self._seats.call(conversation)
            if found is not None:
                self.receive(notes.Called(peer.guest.id, conversation, calls.unpack(found)))
        elif version < 0 and seat.call != calls.State():
            # Redis has lost it; if others put back what they know first, the difference shows next time.
            state = seat.call
            await self._seats.swap_call(conversation, state.version, state.version, calls.pack(state))
        elif 0 <= version < then.call:
            # Something older was put back. Which consents still hold, nobody can tell any more.
            self._book.contradicted(peer, seat)

    def mourn(self, reaped: Sequence[tuple[str, str, Workers]]) -> None:
        """A worker died: tell the partners of its guests that they are away."""
        for guest, conversation, workers in reaped:
            for member, place in workers.items():
                if place:
                    self._post(place, notes.Moved(member, conversation, guest, ""))

    # ------------------------------------------------------------------ small things

    def tell(self, peer: Peer, push: Wire) -> None:
        """Push something to a client here."""
        peer.line.push(self._encode(push))

    async def settle(self) -> None:
        """Wait for what is under way; used when stopping."""
        for peer in self.peers.values():
            if peer.seat is not None:
                peer.seat.stop_waiting()
        await self._errands.settle()


_DONE = Done()

_KINDS: dict[type[Wire], str] = {TextBody: "text", ReactionBody: "reaction", DeletionBody: "deletion", FileBody: "file"}


class _Known(msgspec.Struct, frozen=True):
    """What this worker knew of a seat when it asked Redis."""

    workers: Workers
    call: int

    @classmethod
    def of(cls, seat: Seat | None) -> "_Known":
        return cls({}, 0) if seat is None else cls(dict(seat.workers), seat.call.version)


def _reason(reason: str) -> Any:
    return "lost" if reason == "lost" else "left"
