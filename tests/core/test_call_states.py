"""The state machine of a call: whatever two members do, in whatever order, nobody decides for the other."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from visavis.contract import AcceptCall, EndCall, IceServers, InviteToCall, Media, Refused, SetCall
from visavis.core import calls
from visavis.core.calls import State
from visavis.core.identity import new_id

TALK = new_id()
RUNGS = ("voice", "blurred", "clear")
NO_ICE = IceServers(servers=(), expires_in_ms=0)


def invited(by: int = 0, rung: Any = "blurred", *, relay: bool = True, direct: bool = False) -> State:
    asked = InviteToCall(conversation_id=TALK, rung=rung, direct=direct)
    return calls.invite(State(), by, asked, new_id(), relay=relay)


def accepted(state: State, rung: Any = "blurred", *, direct: bool = False) -> State:
    call = state.call
    assert call is not None
    assert call.caller is not None
    asked = AcceptCall(conversation_id=TALK, call_id=call.id, rung=rung, direct=direct)
    return calls.accept(state, 1 - call.caller, asked)


def changed(state: State, seat: int, *, recordable: bool = True, **change: Any) -> State:
    assert state.call is not None
    asked = SetCall(conversation_id=TALK, call_id=state.call.id, **change)
    return calls.change(state, seat, asked, new_id(), recordable=recordable)


def ended(state: State, seat: int) -> State:
    assert state.call is not None
    return calls.end(state, seat, EndCall(conversation_id=TALK, call_id=state.call.id))


# --------------------------------------------------------------------------- inviting


def test_an_invitation_lets_nothing_flow_until_it_is_accepted() -> None:
    """It rings at the other's; media is closed, whatever the caller agreed to."""
    state = invited(0, "clear")
    assert state.call is not None
    assert not state.call.open
    assert state.call.rung == "text"
    told = calls.view(TALK, state, 1, NO_ICE)
    assert told.call is not None
    assert (told.call.phase, told.call.caller, told.call.theirs.rung, told.call.mine.rung) == (
        "ringing",
        0,
        "clear",
        "text",
    )
    call = accepted(state, "voice").call
    assert call is not None
    assert call.open
    assert call.rung == "voice"
    assert not call.video


def test_two_who_invite_at_once_are_in_a_call() -> None:
    """Each invitation accepts the other, on the lower of the two rungs, and there is one call."""
    first = invited(0, "clear")
    both = calls.invite(first, 1, InviteToCall(conversation_id=TALK, rung="voice"), new_id(), relay=True)
    assert both.call is not None
    assert first.call is not None
    assert both.call.id == first.call.id
    assert both.call.open
    assert both.call.rung == "voice"


def test_inviting_or_accepting_again_changes_nothing() -> None:
    """A request sent twice after a lost answer does no harm."""
    first = invited(0)
    again = calls.invite(first, 0, InviteToCall(conversation_id=TALK, rung="clear"), new_id(), relay=True)
    assert again is first
    active = accepted(first)
    assert accepted(active) is active
    assert calls.invite(active, 0, InviteToCall(conversation_id=TALK, rung="clear"), new_id(), relay=True) is active


@pytest.mark.parametrize(
    ("who", "when", "reason"),
    [(0, "ringing", "cancelled"), (1, "ringing", "declined"), (0, "active", "hung_up"), (1, "active", "hung_up")],
)
def test_an_end_says_how_it_ended(who: int, when: str, reason: str) -> None:
    """And by whom; ending again keeps what was said."""
    state = invited(0)
    if when == "active":
        state = accepted(state)
    over = ended(state, who)
    assert over.call is None
    assert over.over is not None
    assert (over.over.reason, over.over.by, over.over.caller, over.over.video) == (reason, who, 0, True)
    assert state.call is not None
    assert calls.end(over, 1 - who, EndCall(conversation_id=TALK, call_id=state.call.id)) is over


def test_a_ring_that_nobody_answers_is_missed_and_an_answered_one_is_not() -> None:
    """The timer may come late: it does nothing to a call that began, or to another one."""
    state = invited(1)
    assert state.call is not None
    missed = calls.missed(state, state.call.id)
    assert missed.over is not None
    assert missed.over.reason == "missed"
    active = accepted(state)
    assert calls.missed(active, state.call.id) is active
    assert calls.missed(state, new_id()) is state


def test_what_is_about_another_call_is_refused() -> None:
    """A late request must not touch the call that runs now."""
    state = accepted(invited(0))
    for do in (
        lambda: calls.accept(state, 1, AcceptCall(conversation_id=TALK, call_id=new_id(), rung="clear")),
        lambda: calls.change(
            state, 1, SetCall(conversation_id=TALK, call_id=new_id(), rung="clear"), new_id(), recordable=True
        ),
    ):
        with pytest.raises(Refused, match="no_such_call"):
            do()
    assert calls.end(state, 1, EndCall(conversation_id=TALK, call_id=new_id())) is state


# --------------------------------------------------------------------------- the ladder


def test_each_step_up_takes_both_and_each_step_down_one() -> None:
    """Voice, blurred, clear and back."""
    state = accepted(invited(0, "voice"), "voice")
    for rung, before in (("blurred", "voice"), ("clear", "blurred")):
        state = changed(state, 0, rung=rung)
        assert state.call is not None
        assert state.call.rung == before
        state = changed(state, 1, rung=rung)
        assert state.call is not None
        assert state.call.rung == rung
    state = changed(state, 1, rung="voice")
    assert state.call is not None
    assert state.call.rung == "voice"
    assert not state.call.video


def test_direct_takes_both_and_is_gone_with_one() -> None:
    """The last step, at any rung."""
    state = changed(accepted(invited(0)), 0, direct=True)
    assert state.call is not None
    assert not state.call.direct
    state = changed(state, 1, direct=True)
    assert state.call is not None
    assert state.call.direct
    state = changed(state, 0, direct=False)
    assert state.call is not None
    assert not state.call.direct
    assert state.call.open


def test_without_a_relay_nothing_opens_before_both_agreed_to_connect_directly() -> None:
    """Asked with the invitation; taken back, it closes the call's media."""
    with pytest.raises(Refused, match="direct_needed"):
        invited(0, relay=False)
    state = invited(0, relay=False, direct=True)
    with pytest.raises(Refused, match="direct_needed"):
        accepted(state)
    state = accepted(state, direct=True)
    assert state.call is not None
    assert state.call.open
    state = changed(state, 1, direct=False)
    assert state.call is not None
    assert not state.call.open
    matched = calls.begin(TALK, "video", relay=False)
    assert matched.call is not None
    assert not matched.call.open


@pytest.mark.parametrize(("mode", "rung"), [("voice", "voice"), ("video", "blurred")])
def test_a_match_in_a_mode_of_calls_begins_with_one(mode: Any, rung: str) -> None:
    """The same whoever asks, so that two workers agree without a word; video is blurred."""
    state = calls.begin(TALK, mode, relay=True)
    assert state == calls.begin(TALK, mode, relay=True)
    assert state.call is not None
    assert state.call.open
    assert state.call.rung == rung
    assert calls.begin(TALK, "text", relay=True) == State()


def test_who_was_invited_has_no_part_before_answering() -> None:
    """Nor can a rung be below voice: that would be a call ended."""
    state = invited(0)
    with pytest.raises(Refused, match="not_agreed"):
        changed(state, 1, media=Media(camera=True))
    with pytest.raises(Refused, match="bad_request"):
        changed(state, 0, rung="text")
    with pytest.raises(Refused, match="bad_request"):
        invited(0, "text")


@pytest.mark.parametrize("caller", [0, 1])
def test_exactly_one_of_two_is_polite(caller: int) -> None:
    """So that of two offers that collide, one yields; the caller does not, who offers while it rings."""
    for state in (invited(caller), accepted(invited(caller))):
        told = [calls.view(TALK, state, seat, NO_ICE).call for seat in (caller, 1 - caller)]
        assert [call.polite for call in told if call is not None] == [False, True]
    matched = calls.begin(TALK, "video", relay=True)
    told = [calls.view(TALK, matched, seat, NO_ICE).call for seat in (0, 1)]
    assert sorted(call.polite for call in told if call is not None) == [False, True]


def test_only_the_caller_may_offer_while_it_rings() -> None:
    """And without a relay only somebody who agreed to be direct could have called at all."""
    ringing = invited(1).call
    assert ringing is not None
    assert [ringing.may_offer(seat) for seat in (0, 1)] == [False, True]
    active = accepted(invited(1)).call
    assert active is not None
    assert not any(active.may_offer(seat) for seat in (0, 1))


# --------------------------------------------------------------------------- recording


def test_a_recording_takes_both_and_ends_with_either() -> None:
    """And asking again after one stopped it takes both anew."""
    state = accepted(invited(0))
    state = changed(state, 0, recording=True)
    assert state.call is not None
    assert state.call.consent(TALK) is None
    assert state.call.recording is None
    state = changed(state, 1, recording=True)
    assert state.call is not None
    consent = state.call.consent(TALK)
    assert consent is not None
    assert state.call.recording is not None
    assert (consent.recording, consent.conversation, consent.by) == (state.call.recording.id, TALK, (0, 1))
    stopped = changed(state, 0, recording=False)
    assert stopped.call is not None
    assert stopped.call.recording is None
    assert not any(party.recording for party in stopped.call.parties)
    assert changed(stopped, 0, recording=True).call.recording is None  # type: ignore[union-attr]


def test_a_recorder_that_comes_too_late_finds_nothing_to_record() -> None:
    """Whoever withdrew in the meantime is not recorded, nor is another recording taken for it."""
    state = changed(changed(accepted(invited(0)), 0, recording=True), 1, recording=True)
    assert state.call is not None
    assert state.call.recording is not None
    late = state.call.recording.id
    stopped = changed(state, 1, recording=False)
    assert calls.recorder_found(stopped, late, "recorder") is stopped
    again = changed(changed(stopped, 0, recording=True), 1, recording=True)
    assert calls.recorder_found(again, late, "recorder") is again
    assert calls.recording_over(again, late) is again


def test_where_nothing_can_be_recorded_nobody_can_ask() -> None:
    """Said at once, not when the partner has consented."""
    with pytest.raises(Refused, match="recording_unavailable"):
        changed(accepted(invited(0)), 0, recording=True, recordable=False)
    with pytest.raises(Refused, match="not_agreed"):
        changed(invited(0), 0, recording=True)


@given(st.builds(State, version=st.integers(0, 9)))
def test_a_state_survives_being_kept(state: State) -> None:
    """Packed for Redis and back."""
    assert calls.unpack(calls.pack(state)) == state
    running = changed(accepted(invited(0)), 0, recording=True)
    assert calls.unpack(calls.pack(running)) == running


def test_a_state_that_presumes_more_than_a_member_agreed_to_is_noticed() -> None:
    """Only the member itself can have said so; less is always believed, and so is another call."""
    known = changed(accepted(invited(0)), 1, rung="voice")
    for more in ({"rung": "clear"}, {"direct": True}):
        said = changed(known, 1, **more)
        assert calls.presumes(known, said, 1)
        assert not calls.presumes(known, said, 0)
        assert not calls.presumes(said, known, 1)
    assert not calls.presumes(known, accepted(invited(1, "clear"), "clear"), 1)


def test_a_call_of_which_nothing_is_certain_ends_for_both() -> None:
    """Nobody hung up, and nobody is said to have."""
    over = calls.lost(accepted(invited(0)))
    assert over.call is None
    assert over.over is not None
    assert (over.over.reason, over.over.by) == ("failed", None)
    assert calls.lost(State(4)).version == 5


# --------------------------------------------------------------------------- any sequence of events


class TwoClients(RuleBasedStateMachine):
    """Two clients do anything at all; beside them, each one's own wishes are written down by themselves."""

    wishes: list[dict[str, Any]]

    @initialize(relay=st.booleans(), mode=st.sampled_from(["text", "voice", "video"]))
    def meet(self, relay: bool, mode: Any) -> None:
        self.relay = relay
        self.state = calls.begin(TALK, mode, relay=relay)
        self.ids = [new_id()]
        rung = {"text": None, "voice": "voice", "video": "blurred"}[mode]
        self.wishes = [{"rung": rung, "direct": False, "recording": False} for _ in (0, 1)]
        self._follow()

    def _follow(self) -> None:
        if self.state.call is None:
            self.wishes = [{"rung": None, "direct": False, "recording": False} for _ in (0, 1)]
        else:
            self.ids.append(self.state.call.id)

    def _take(self, after: State) -> bool:
        assert after is self.state or after.version == self.state.version + 1
        moved = after is not self.state
        self.state = after
        return moved

    @rule(seat=st.integers(0, 1), rung=st.sampled_from(RUNGS), direct=st.booleans())
    def invite(self, seat: int, rung: Any, direct: bool) -> None:
        asked = InviteToCall(conversation_id=TALK, rung=rung, direct=direct)
        try:
            moved = self._take(calls.invite(self.state, seat, asked, new_id(), relay=self.relay))
        except Refused:
            return
        if moved:
            self.wishes[seat] = {"rung": rung, "direct": direct, "recording": False}
        self._follow()

    @rule(seat=st.integers(0, 1), rung=st.sampled_from(RUNGS), direct=st.booleans(), which=st.integers(0, 9))
    def accept(self, seat: int, rung: Any, direct: bool, which: int) -> None:
        asked = AcceptCall(conversation_id=TALK, call_id=self.ids[-1 - which % len(self.ids)], rung=rung, direct=direct)
        try:
            moved = self._take(calls.accept(self.state, seat, asked))
        except Refused:
            return
        if moved:
            self.wishes[seat] = {"rung": rung, "direct": direct, "recording": False}
        self._follow()

    @rule(
        seat=st.integers(0, 1),
        rung=st.none() | st.sampled_from(RUNGS),
        direct=st.none() | st.booleans(),
        recording=st.none() | st.booleans(),
        which=st.integers(0, 9),
    )
    def set(self, seat: int, rung: Any, direct: bool | None, recording: bool | None, which: int) -> None:
        call_id = self.ids[-1 - which % len(self.ids)]
        asked = SetCall(conversation_id=TALK, call_id=call_id, rung=rung, direct=direct, recording=recording)
        try:
            self._take(calls.change(self.state, seat, asked, new_id(), recordable=True))
        except Refused:
            return
        wish = self.wishes[seat]
        for name, value in (("rung", rung), ("direct", direct), ("recording", recording)):
            if value is not None:
                wish[name] = value
        if recording is False:
            self.wishes[1 - seat]["recording"] = False
        self._follow()

    @rule(seat=st.integers(0, 1), which=st.integers(0, 9))
    def end(self, seat: int, which: int) -> None:
        asked = EndCall(conversation_id=TALK, call_id=self.ids[-1 - which % len(self.ids)])
        self._take(calls.end(self.state, seat, asked))
        self._follow()

    @rule(which=st.integers(0, 9))
    def ring_out(self, which: int) -> None:
        self._take(calls.missed(self.state, self.ids[-1 - which % len(self.ids)]))
        self._follow()

    @rule()
    def recorder_comes(self) -> None:
        if self.state.call is not None and self.state.call.recording is not None:
            self._take(calls.recorder_found(self.state, self.state.call.recording.id, "r"))

    @rule()
    def recorder_dies(self) -> None:
        if self.state.call is not None and self.state.call.recording is not None:
            self._take(calls.recording_over(self.state, self.state.call.recording.id))
            for wish in self.wishes:
                wish["recording"] = False

    @invariant()
    def no_media_beyond_what_both_wished(self) -> None:
        call = self.state.call
        if call is None:
            return
        rungs = [wish["rung"] for wish in self.wishes]
        if call.open:
            assert None not in rungs
            assert self.relay or all(wish["direct"] for wish in self.wishes)
        if call.video:
            assert all(rung in ("blurred", "clear") for rung in rungs)
        if call.rung == "clear":
            assert rungs == ["clear", "clear"]
        if call.direct:
            assert all(wish["direct"] for wish in self.wishes)

    @invariant()
    def no_recording_without_both(self) -> None:
        call = self.state.call
        if call is not None and (call.recording is not None or call.consent(TALK) is not None):
            assert all(wish["recording"] for wish in self.wishes)
            assert call.open


TestTwoClients = TwoClients.TestCase
TestTwoClients.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
