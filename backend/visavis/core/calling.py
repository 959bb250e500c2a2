"""Calls between seated members: who invites, what is agreed, and the way for their peer connections' signals.

The state machine is `calls`; here its states are kept in Redis one after the other, told to both members and acted
upon: a ring that ends, a recorder that is sent for. Signals take the way of messages, past no store.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from visavis.contract import (
    AcceptCall,
    CallExperience,
    CallState,
    Candidate,
    Description,
    Done,
    EndCall,
    IceServers,
    InviteToCall,
    OfferToRecorder,
    RecordingOver,
    RefreshIceServers,
    Refused,
    SendSignal,
    SetCall,
    Signal,
    Signalled,
)
from visavis.core import calls, notes, sdp, tasks
from visavis.core.conversations import Conversations, Peer, Seat
from visavis.core.identity import new_id
from visavis.core.ports import Bus, Meter, Record, Recorders, Seats, StateUnavailable
from visavis.core.recorder import RecorderLoad

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
LOOKS_FOR_RECORDER_MS = 300
MOST_DESCRIBED = 40
DESCRIBED_SECONDS = 10.0
"""Descriptions a member may send in so many seconds."""
TRIES = 5
RECORDED = ("saved", "empty", "failed")
"""How a recording can end, as RecorderLoad has it."""
"""Times a change is worked out anew because another came first."""


class CallBook:
    """What a call is told as; `ice` gives a guest relays of its own. Its changes go on to `calling`, once there is."""

    def __init__(self, ice: Callable[[str], IceServers], meter: Meter, *, relay: bool) -> None:
        self._ice = ice
        self._meter = meter
        self.relay = relay
        self.calling: Calling | None = None

    def begin(self, record: Record) -> calls.State:
        return calls.begin(record.id, record.mode, relay=self.relay)

    def met(self, record: Record) -> None:
        call = self.begin(record).call
        if call is not None:
            self._meter.count("calls_started", origin="match", media="video" if call.meant_as_video else "voice")

    def view(self, record: Record, state: calls.State, guest: str) -> CallState:
        seat = record.seat_of(guest)
        assert seat is not None
        ice = self._ice(guest) if state.call is not None else IceServers(servers=(), expires_in_ms=0)
        return calls.view(record.id, state, seat, ice)

    def servers(self, guest: str) -> IceServers:
        """Fresh credentials."""
        return self._ice(guest)

    def changed(self, peer: Peer, seat: Seat, before: calls.State) -> None:
        if self.calling is not None:
            self.calling.changed(peer, seat, before)

    def contradicted(self, peer: Peer, seat: Seat) -> None:
        if self.calling is not None:
            self.calling.contradicted(peer, seat)

    def recorded(self, peer: Peer, note: notes.Recorded) -> None:
        if self.calling is not None:
            self.calling.recorded(peer, note)


class Calling:
    """The requests about calls, and what follows from them."""

    def __init__(
        self,
        conversations: Conversations,
        book: CallBook,
        seats: Seats,
        meter: Meter,
        bus: Bus,
        recorders: Recorders,
        *,
        worker: str,
        ring_ms: int,
    ) -> None:
        self._conversations = conversations
        self._book = book
        self._seats = seats
        self._meter = meter
        self._bus = bus
        self._recorders = recorders
        self._worker = worker
        self._ring_ms = ring_ms
        # A change that does not come about is made anew by whoever asks next.
        self._errands = tasks.Errands("call_change_postponed", StateUnavailable, Refused)
        self.recorders: dict[str, bytes] = {}
        """The living recorders, and what they say of themselves."""
        self._loads: dict[str, RecorderLoad] = {}
        """What each said last, also of those that are gone: one that Redis had only lost comes back."""
        self._recorded = {outcome: meter.tally("recordings", outcome=outcome) for outcome in RECORDED}
        self._missing: set[str] = set()
        """Recordings that no recorder was found to make at the last look."""
        book.calling = self

    # ------------------------------------------------------------------ what members ask

    async def invite(self, peer: Peer, asked: InviteToCall) -> CallState:
        """Ring at the partner's."""
        call_id = new_id()
        return await self._change(
            peer,
            asked.conversation_id,
            lambda state, seat: calls.invite(state, seat, asked, call_id, relay=self._book.relay),
        )

    async def accept(self, peer: Peer, asked: AcceptCall) -> CallState:
        """Answer the ring."""
        return await self._change(peer, asked.conversation_id, lambda state, seat: calls.accept(state, seat, asked))

    async def end(self, peer: Peer, asked: EndCall) -> CallState:
        """Hang up, decline or take back."""
        return await self._change(peer, asked.conversation_id, lambda state, seat: calls.end(state, seat, asked))

    async def set(self, peer: Peer, asked: SetCall) -> CallState:
        """Climb the ladder, descend it, mute, or consent to a recording."""
        recording_id = new_id()
        return await self._change(
            peer,
            asked.conversation_id,
            lambda state, seat: calls.change(state, seat, asked, recording_id, recordable=self.recordable),
        )

    def servers(self, peer: Peer, asked: RefreshIceServers) -> IceServers:
        """Newer credentials; only for somebody in a call."""
        self._call(self._conversations.seated(peer, asked.conversation_id), asked.call_id)
        return self._book.servers(peer.guest.id)

    def signal(self, peer: Peer, asked: SendSignal) -> Done:
        """Pass on what was agreed to; drop candidates that were not."""
        seat = self._conversations.seated(peer, asked.conversation_id)
        call = self._call(seat, asked.call_id)
        early = call.may_offer(seat.number)
        if not call.open and not early:
            raise Refused("not_agreed")
        if isinstance(asked.signal, Description):
            self._spare(seat)
        # What a caller offers while it rings is for the other to take or to refuse.
        video = calls.is_video(call.parties[seat.number].rung) if early else call.video
        signal = self._allowed(asked.signal, relay_only=early or not call.direct, video=video)
        if signal is not None:
            self._conversations.push_others(
                seat,
                Signalled(
                    conversation_id=asked.conversation_id,
                    call_id=asked.call_id,
                    session=asked.session,
                    to=asked.to,
                    signal=signal,
                ),
            )
        return _DONE

    def _allowed(self, signal: Signal, *, relay_only: bool, video: bool) -> Signal | None:
        match signal:
            case Description(type=kind, sdp=text):
                return Description(type=kind, sdp=sdp.clean(text, relay_only=relay_only, video=video))
            case Candidate(candidate=text):
                kept = sdp.candidate(text, relay_only=relay_only)
                if kept is None:
                    self._meter.count("candidates_dropped")
                    return None
                return Candidate(candidate=kept, mid=signal.mid, line=signal.line, ufrag=signal.ufrag)
            case _:
                return signal

    @staticmethod
    def _spare(seat: Seat) -> None:
        """Each description makes the other side's browser work: no browser makes many. Raises Refused."""
        now = time.monotonic()
        seat.described = tuple(at for at in seat.described if now - at < DESCRIBED_SECONDS)
        if len(seat.described) >= MOST_DESCRIBED:
            raise Refused("rate_limited", retryInMs=int((seat.described[0] + DESCRIBED_SECONDS - now) * 1000) + 1)
        seat.described += (now,)

    def experience(self, peer: Peer, asked: CallExperience) -> Done:
        """Count how the call went: a connection and a failure once for each member and call."""
        seat = self._conversations.seated(peer, asked.conversation_id)
        call, over = seat.call.call, seat.call.over
        if asked.call_id not in (call.id if call else None, over.id if over else None):
            raise Refused("no_such_call")
        if asked.what != "restarted":
            seat.told = frozenset(told for told in seat.told if told[0] == asked.call_id)
            if (asked.call_id, asked.what) in seat.told:
                return _DONE
            seat.told |= {(asked.call_id, asked.what)}
        match asked.what:
            case "connected":
                self._meter.count("calls_connected", path=asked.path)
                if asked.first_frame_ms is not None:
                    self._meter.observe("call_first_frame", asked.first_frame_ms / 1000)
            case "failed":
                self._meter.count("call_failures", cause=asked.cause or "other")
            case "restarted":
                self._meter.count("ice_restarts", cause=asked.cause or "other")
        return _DONE

    @property
    def recordable(self) -> bool:
        """Whether a call could be recorded: the recorder is as unknown to the guests as they are to each other."""
        return self._book.relay and bool(self.recorders)

    def recorders_say(self, what: str) -> float:
        """A number of all living recorders together, by its name in RecorderLoad."""
        said = [msgspec.json.decode(load, type=RecorderLoad) for load in self.recorders.values()]
        return sum(float(getattr(load, what)) for load in said)

    def offer_to_recorder(self, peer: Peer, asked: OfferToRecorder) -> Done:
        """Pass a description on to the recorder of a recording that both agreed to."""
        seat = self._conversations.seated(peer, asked.conversation_id)
        call = seat.call.call
        if call is None or call.recording is None or call.recording.id != asked.recording_id:
            raise Refused("not_agreed")
        if not call.recording.recorder:
            raise Refused("unavailable", retryInMs=LOOKS_FOR_RECORDER_MS)
        offered = notes.Offered(
            recording=call.recording.id,
            guest=peer.guest.id,
            worker=self._worker,
            session=asked.session,
            sdp=sdp.clean(asked.sdp, relay_only=True, video=call.video),
        )
        self._bus.send(call.recording.recorder, notes.encode(offered), asked.conversation_id)
        return _DONE

    @staticmethod
    def _call(seat: Seat, call_id: str) -> calls.Call:
        call = seat.call.call
        if call is None or call.id != call_id:
            raise Refused("no_such_call")
        return call

    # ------------------------------------------------------------------ changing

    async def _change(
        self, peer: Peer, conversation: str, transition: Callable[[calls.State, int], calls.State]
    ) -> CallState:
        seat = self._conversations.seated(peer, conversation)
        await self._advance(peer, seat, transition)
        if peer.seat is not seat:
            raise Refused("not_in_conversation")
        return self._book.view(seat.record, seat.call, peer.guest.id)

    async def _advance(self, peer: Peer, seat: Seat, transition: Callable[[calls.State, int], calls.State]) -> bool:
        """Bring the call forward; says whether this changed it."""
        if peer.seat is not seat:
            return False
        state = seat.call
        stands = state.version
        for _ in range(TRIES):
            after = transition(state, seat.number)
            if after.version == state.version:
                return False
            packed = calls.pack(after)
            other = await self._seats.swap_call(seat.record.id, stands, after.version, packed)
            if peer.seat is not seat:
                return False
            # What was asked again, because the first answer was lost, finds itself.
            if other is None or other == packed:
                self._count(state, after)
                self._conversations.call_is(peer, seat, after)
                self._follow(peer, seat, state, after)
                return True
            found = calls.unpack(other) if other else self._book.begin(seat.record)
            stands = found.version
            if found.version <= seat.call.version and found != seat.call:
                # Redis came back with something older than what is known here.
                found = msgspec.structs.replace(found, version=seat.call.version)
                transition = _end_what_is_lost
            state = found
        raise Refused("busy", retryInMs=200)

    def _count(self, before: calls.State, after: calls.State) -> None:
        call = after.call
        if call is not None and call.answered and (before.call is None or not before.call.answered):
            self._meter.count("calls_started", origin="invitation", media="video" if call.meant_as_video else "voice")
        if after.over is not None and after.over is not before.over:
            self._meter.count("calls_ended", reason=after.over.reason)

    # ------------------------------------------------------------------ recording

    def _follow(self, peer: Peer, seat: Seat, before: calls.State, after: calls.State) -> None:
        was, now = _recording(before), _recording(after)
        if now is not None and (was is None or now.id != was.id):
            self._errands.send(self._send_for_recorder(peer, seat, now.id))

    def _dismiss(self, recording: calls.Recording, conversation: str) -> None:
        if recording.recorder:
            self._bus.send(recording.recorder, notes.encode(notes.Finish(recording=recording.id)), conversation)
            # Should the note be lost, the recorder finds its place gone.
            self._errands.send(self._recorders.release(recording.recorder, recording.id))

    async def _send_for_recorder(self, peer: Peer, seat: Seat, recording_id: str) -> None:
        try:
            recorder = await self._recorders.claim(recording_id)
        except StateUnavailable:
            recorder = None
        if not recorder:
            await self._give_up_recording(peer, seat, recording_id, "failed" if recorder is None else "full")
            return
        found = recorder
        if peer.seat is not seat or not await self._advance(
            peer, seat, lambda state, _: calls.recorder_found(state, recording_id, found)
        ):
            await self._recorders.release(recorder, recording_id)
            return
        self._conversations.tell_call(peer, seat)
        call, record = seat.call.call, seat.record
        consent = call.consent(record.id) if call is not None else None
        if consent is None or consent.recording != recording_id:
            # Taken back in this instant: whoever did it has dismissed the recorder.
            return
        begin = notes.Begin(
            recording=recording_id,
            conversation=record.id,
            consent=consent,
            members=tuple((m.guest, m.device, number) for number, m in enumerate(record.members)),
            at=time.time_ns() // 1_000_000,
        )
        self._bus.send(recorder, notes.encode(begin), record.id)

    async def _give_up_recording(self, peer: Peer, seat: Seat, recording_id: str, outcome: str) -> None:
        if peer.seat is seat and await self._advance(
            peer, seat, lambda state, _: calls.recording_over(state, recording_id)
        ):
            self._conversations.tell_call(peer, seat)
            for member in seat.record.members:
                self._conversations.post(
                    seat, notes.Recorded(member.guest, seat.record.id, recording_id, outcome), member.guest
                )

    def recorded(self, peer: Peer, note: notes.Recorded) -> None:
        """A recorder, or another worker, says how it stands with a recording."""
        seat = peer.seat
        rolls = note.outcome == "on"
        if not rolls:
            # Also to somebody who has left the conversation since: the recording is theirs as well.
            self._conversations.tell(
                peer,
                RecordingOver(
                    conversation_id=note.conversation,
                    recording_id=note.recording,
                    outcome=msgspec.convert(note.outcome, _Outcome),
                    expires_at=note.expires_at or None,
                ),
            )
        if seat is not None and seat.record.id == note.conversation:
            follow = calls.recording_rolls if rolls else calls.recording_over
            self._errands.send(self._take_note(peer, seat, lambda state, _: follow(state, note.recording)))

    async def _take_note(self, peer: Peer, seat: Seat, transition: Callable[[calls.State, int], calls.State]) -> None:
        if await self._advance(peer, seat, transition):
            self._conversations.tell_call(peer, seat)

    def _count_recordings(self) -> None:
        """Add up what each recorder has made since the last look: a sum over those who live falls as they go."""
        for name, said in self.recorders.items():
            load = msgspec.json.decode(said, type=RecorderLoad)
            before = self._loads.get(name, load)
            for outcome, tally in self._recorded.items():
                tally.n += max(0, getattr(load, outcome) - getattr(before, outcome))
            self._loads[name] = load

    async def look_after_recorders(self) -> None:
        """Learn which recorders live, and end for the guests what a dead one recorded."""
        self.recorders = await self._recorders.loads()
        self._count_recordings()
        missing = set()
        for peer in list(self._conversations.peers.values()):
            seat = peer.seat
            recording = _recording(seat.call) if seat is not None else None
            if seat is None or recording is None:
                continue
            if recording.recorder in self.recorders and await self._recorders.makes(recording.recorder, recording.id):
                continue
            # Once may be a recorder that is being looked for, or a Redis that has just lost everything.
            if recording.id not in self._missing:
                missing.add(recording.id)
                continue
            try:
                await self._give_up_recording(peer, seat, recording.id, "failed")
            except Refused:
                # The conversation is over, and so is its call.
                continue
        self._missing = missing

    # ------------------------------------------------------------------ what follows

    def changed(self, peer: Peer, seat: Seat, before: calls.State) -> None:
        """A seat's call is another, or the seat was just taken or given up."""
        was, now = _recording(before), _recording(seat.call)
        if was is not None and (now is None or now.id != was.id):
            # By whichever worker hears of it: a recorder that was dismissed twice is dismissed.
            self._dismiss(was, seat.record.id)
        if peer.seat is not seat:
            return
        call = seat.call.call
        ringing = call is not None and not call.answered
        if not ringing and seat.ring is not None:
            seat.ring.cancel()
            seat.ring = None
        elif call is not None and ringing and seat.ring is None:
            seat.ring = asyncio.get_running_loop().call_later(self._ring_ms / 1000, self._rang_out, peer, seat, call.id)

    def contradicted(self, peer: Peer, seat: Seat) -> None:
        """Ends the call: two stories of who agreed to what are one too many."""
        log.warning("call_contradicted")
        self._errands.send(self._take_note(peer, seat, _end_what_is_lost))

    def _rang_out(self, peer: Peer, seat: Seat, call_id: str) -> None:
        seat.ring = None
        self._errands.send(self._miss(peer, seat, call_id))

    async def _miss(self, peer: Peer, seat: Seat, call_id: str) -> None:
        try:
            await self._take_note(peer, seat, lambda state, _: calls.missed(state, call_id))
        except StateUnavailable:
            call = seat.call.call
            if call is not None and call.id == call_id and peer.seat is seat and seat.ring is None:
                seat.ring = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._rang_out, peer, seat, call_id)

    async def settle(self) -> None:
        """Wait for what is under way; used when stopping."""
        await self._errands.settle()


_DONE = Done()
_Outcome = Literal["saved", "full", "empty", "failed"]


def _end_what_is_lost(state: calls.State, seat: int) -> calls.State:
    return calls.lost(state)


def _recording(state: calls.State) -> calls.Recording | None:
    return state.call.recording if state.call is not None else None
