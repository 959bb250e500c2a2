"""What a call is and how it changes: the call, the consent ladder and the recording, as one state machine.

Nothing here waits, sends or stores: every function takes a state and what one member does, and gives the next
state or refuses. The state holds what each member agrees to; what is in force is always worked out from both, so
there is no sequence of events in which one of them decides for two.
"""

import base64
import hashlib

import msgspec

from visavis import contract
from visavis.contract import CallOver, CallState, IceServers, Media, Mode, Refused, Rung

RUNGS: tuple[Rung, ...] = ("text", "voice", "blurred", "clear")
_HEIGHT = {rung: height for height, rung in enumerate(RUNGS)}

BEGINS_AT: dict[Mode, Rung] = {"text": "text", "voice": "voice", "video": "blurred"}
"""What looking for a stranger in a mode agrees to."""


def is_video(rung: Rung) -> bool:
    """Whether video may be sent on this rung, blurred or clear."""
    return _HEIGHT[rung] >= _HEIGHT["blurred"]


class Consent(msgspec.Struct, frozen=True):
    """That every member of a call agreed to this one recording. Only `Call.consent` makes it."""

    recording: str
    conversation: str
    by: tuple[int, ...]
    """Their seat numbers."""


class Party(msgspec.Struct, frozen=True):
    """One member's part: what they agree to, and what they say they send."""

    rung: Rung = "text"
    direct: bool = False
    recording: bool = False
    media: Media = Media()


class Recording(msgspec.Struct, frozen=True):
    """A recording under way; `recorder` is the one that makes it, empty while none has been found."""

    id: str
    recorder: str = ""
    rolling: bool = False
    """Something is being recorded already."""


class Call(msgspec.Struct, frozen=True):
    """A call; `parties` by seat number. `relay`: its media need not be direct."""

    id: str
    caller: int | None
    parties: tuple[Party, Party]
    relay: bool
    answered: bool = False
    recording: Recording | None = None

    @property
    def rung(self) -> Rung:
        """What both agree to."""
        return RUNGS[min(_HEIGHT[party.rung] for party in self.parties)]

    @property
    def direct(self) -> bool:
        return all(party.direct for party in self.parties)

    @property
    def open(self) -> bool:
        """Whether media may flow at all."""
        return self.answered and self.rung != "text" and (self.relay or self.direct)

    @property
    def video(self) -> bool:
        """Whether video may flow, blurred or clear."""
        return self.open and is_video(self.rung)

    @property
    def meant_as_video(self) -> bool:
        """Whether anybody asked for more than sound."""
        return any(is_video(party.rung) for party in self.parties)

    def may_offer(self, seat: int) -> bool:
        """Whether this member may offer before the other has answered: media needs the answer, which has to wait.

        So an invitation that is accepted is a connection a moment later.
        """
        return not self.answered and self.caller == seat and (self.relay or self.parties[seat].direct)

    def consent(self, conversation: str) -> Consent | None:
        """The consent of both to the recording under way, if there is one."""
        if self.recording is None or not self.open or not all(party.recording for party in self.parties):
            return None
        return Consent(self.recording.id, conversation, tuple(range(len(self.parties))))


class State(msgspec.Struct, frozen=True):
    """How a conversation's call stands; `version` counts its changes."""

    version: int = 0
    call: Call | None = None
    over: CallOver | None = None


def begin(conversation: str, mode: Mode, *, relay: bool) -> State:
    """The state of a conversation in which nothing has happened yet: the same whoever asks, so it need not be kept."""
    rung = BEGINS_AT[mode]
    if rung == "text":
        return State()
    digest = hashlib.sha256(b"call:" + conversation.encode()).digest()[:16]
    party = Party(rung=rung, media=Media(microphone=True, camera=rung == "blurred"))
    call = Call(
        id=base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        caller=None,
        parties=(party, party),
        relay=relay,
        answered=True,
    )
    return State(call=call)


# --------------------------------------------------------------------------- what members do


def invite(state: State, seat: int, asked: contract.InviteToCall, call_id: str, *, relay: bool) -> State:
    """Invite the other member. If that one has invited too, each has accepted the other's invitation."""
    party = _joining(asked, relay=relay)
    call = state.call
    if call is not None and (call.answered or call.caller == seat):
        return state
    if call is not None:
        return _with(state, _put(msgspec.structs.replace(call, answered=True), seat, party))
    parties = (party, Party()) if seat == 0 else (Party(), party)
    return _with(state, Call(id=call_id, caller=seat, parties=parties, relay=relay))


def accept(state: State, seat: int, asked: contract.AcceptCall) -> State:
    """Take an invitation."""
    call = _current(state, asked.call_id)
    party = _joining(asked, relay=call.relay)
    if call.answered or call.caller == seat:
        return state
    return _with(state, _put(msgspec.structs.replace(call, answered=True), seat, party))


def end(state: State, seat: int, asked: contract.EndCall) -> State:
    """Decline, take back or hang up, as the call stands. A call that is over already stays as it ended."""
    call = state.call
    if call is None or call.id != asked.call_id:
        return state
    unanswered = "cancelled" if call.caller == seat else "declined"
    return _over(state, call, asked.reason if call.answered else unanswered, seat)


def missed(state: State, call_id: str) -> State:
    """Nobody answered in time."""
    call = state.call
    if call is None or call.id != call_id or call.answered:
        return state
    return _over(state, call, "missed", None)


def change(state: State, seat: int, asked: contract.SetCall, recording_id: str, *, recordable: bool) -> State:
    """Change one's own part. A consent taken back is in force from this state on."""
    call = _current(state, asked.call_id)
    party = call.parties[seat]
    if asked.rung == "text":
        raise Refused("bad_request", detail="below the voice rung there is no call: end it")
    if party.rung == "text":
        # Invited, and has not answered.
        raise Refused("not_agreed")
    if asked.recording and not recordable:
        raise Refused("recording_unavailable")
    call = _put(
        call,
        seat,
        Party(
            rung=party.rung if asked.rung is None else asked.rung,
            direct=party.direct if asked.direct is None else asked.direct,
            recording=party.recording if asked.recording is None else asked.recording,
            media=party.media if asked.media is None else asked.media,
        ),
    )
    if asked.recording and not call.open:
        raise Refused("not_agreed")
    if asked.recording is False or not call.open:
        # Whoever ends it ends it for both: going on takes both consents anew.
        call = _unrecorded(call)
    elif call.recording is None and all(p.recording for p in call.parties):
        call = msgspec.structs.replace(call, recording=Recording(recording_id))
    return state if call == state.call else _with(state, call)


def lost(state: State) -> State:
    """End the call for both: how it stands cannot be told for certain, and consent is not to be guessed."""
    return (
        _over(state, state.call, "failed", None)
        if state.call is not None
        else State(state.version + 1, None, state.over)
    )


def presumes(known: State, said: State, seat: int) -> bool:
    """Whether a state has this member agree to more than the member is known to: only the member can have said so."""
    before, after = known.call, said.call
    if before is None or after is None or before.id != after.id:
        return False
    mine, told = before.parties[seat], after.parties[seat]
    return (
        _HEIGHT[told.rung] > _HEIGHT[mine.rung]
        or (told.direct and not mine.direct)
        or (told.recording and not mine.recording)
    )


# --------------------------------------------------------------------------- what the recorder does


def recorder_found(state: State, recording_id: str, recorder: str) -> State:
    """A recorder took the recording on."""
    call = state.call
    if call is None or call.recording is None or call.recording.id != recording_id or call.recording.recorder:
        return state
    return _with(state, msgspec.structs.replace(call, recording=Recording(recording_id, recorder)))


def recording_rolls(state: State, recording_id: str) -> State:
    """The recorder has begun to record."""
    call = state.call
    if call is None or call.recording is None or call.recording.id != recording_id or call.recording.rolling:
        return state
    rolling = msgspec.structs.replace(call.recording, rolling=True)
    return _with(state, msgspec.structs.replace(call, recording=rolling))


def recording_over(state: State, recording_id: str) -> State:
    """The recording ended, whyever."""
    call = state.call
    if call is None or call.recording is None or call.recording.id != recording_id:
        return state
    return _with(state, _unrecorded(call))


# --------------------------------------------------------------------------- as a member sees it


def view(conversation: str, state: State, seat: int, ice: IceServers) -> CallState:
    """The state as the member in `seat` is told it, with ICE servers of that member's own."""
    call = state.call
    told = None
    if call is not None:
        told = contract.Call(
            id=call.id,
            phase="active" if call.answered else "ringing",
            caller=call.caller,
            rung=call.rung,
            direct=call.direct,
            open=call.open,
            # Who invites offers, while it rings already.
            polite=seat % 2 == 1 if call.caller is None else seat != call.caller,
            mine=_party(call.parties[seat]),
            theirs=_party(call.parties[1 - seat]),
            recording=(
                contract.Recording(id=call.recording.id, phase="on" if call.recording.rolling else "starting")
                if call.recording is not None
                else None
            ),
            ice=ice,
        )
    return CallState(conversation_id=conversation, version=state.version, call=told, over=state.over)


def _party(party: Party) -> contract.Party:
    return contract.Party(rung=party.rung, direct=party.direct, recording=party.recording, media=party.media)


# --------------------------------------------------------------------------- small things


def _joining(asked: contract.InviteToCall | contract.AcceptCall, *, relay: bool) -> Party:
    if asked.rung == "text":
        raise Refused("bad_request", detail="a call is at least a voice call")
    if not relay and not asked.direct:
        raise Refused("direct_needed")
    return Party(rung=asked.rung, direct=asked.direct, media=asked.media)


def _current(state: State, call_id: str) -> Call:
    if state.call is None or state.call.id != call_id:
        raise Refused("no_such_call")
    return state.call


def _put(call: Call, seat: int, party: Party) -> Call:
    a, b = call.parties
    return msgspec.structs.replace(call, parties=(party, b) if seat == 0 else (a, party))


def _unrecorded(call: Call) -> Call:
    a, b = (msgspec.structs.replace(party, recording=False) for party in call.parties)
    return msgspec.structs.replace(call, parties=(a, b), recording=None)


def _with(state: State, call: Call) -> State:
    return State(state.version + 1, call, state.over)


def _over(state: State, call: Call, reason: str, by: int | None) -> State:
    over = msgspec.convert(
        {"id": call.id, "reason": reason, "by": by, "caller": call.caller, "video": call.meant_as_video}, CallOver
    )
    return State(state.version + 1, None, over)


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(State)


def pack(state: State) -> bytes:
    """As it is kept and sent between workers."""
    return _packer.encode(state)


def unpack(packed: bytes) -> State:
    """The reverse; raises msgspec.MsgspecError for anything else."""
    return _unpacker.decode(packed)
