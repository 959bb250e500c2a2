"""The rules of seats without a network: what is said to whom, in which order, and whose answer comes too late."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from rig import PATIENCE
from visavis.adapters.metrics import Metrics
from visavis.contract import (
    Ended,
    IceServers,
    LobbyState,
    MatchFound,
    Message,
    PartnerPresence,
    Profile,
    Refused,
    SendMessage,
    SendReceipt,
    SendTyping,
    SessionReplaced,
    SessionState,
    TextBody,
    Why,
    Wire,
)
from visavis.core import calls, conversations, notes
from visavis.core.calling import CallBook
from visavis.core.conversations import Conversations, Peer
from visavis.core.identity import Guest, new_id
from visavis.core.ports import Connected, Member, Record, StateUnavailable, Touched, Workers

HERE, THERE = "here", "there"


class Seats:
    """Redis as a few dictionaries. An answer can be held back, and Redis can be away."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.ended: set[str] = set()
        self.places: Workers = {}
        self.epochs: dict[str, int] = {}
        self.away = False
        self.held: deque[asyncio.Event] = deque()
        self.lose_answers = 0
        """So many connections are taken note of, without an answer."""
        self.calls: dict[str, tuple[int, bytes]] = {}
        self.knows_calls = False
        """Otherwise it has lost how every call stands."""

    def hold(self) -> asyncio.Event:
        """The next answer is ready, and arrives when the event is set."""
        self.held.append(asyncio.Event())
        return self.held[-1]

    async def _answer(self, answer: Any) -> Any:
        if self.away:
            raise StateUnavailable
        if self.held:
            await self.held.popleft().wait()
        return answer

    def _of(self, guest: str) -> Record | None:
        live = (r for r in self.records.values() if r.id not in self.ended and r.seat_of(guest) is not None)
        return next(live, None)

    def _others(self, record: Record | None, guest: str) -> Workers:
        if record is None:
            return {}
        return {m.guest: self.places.get(m.guest, "") for m in record.members if m.guest != guest}

    def cell(self, guest: str) -> int:
        return 0

    def new_guest(self) -> str:
        return new_id()

    async def create(self, guest: Guest) -> None:
        await self._answer(None)

    async def connect(self, guest: Guest, claim: Record | None) -> Connected:
        if self.away:
            raise StateUnavailable
        before = self.places.get(guest.id, "")
        self.epochs[guest.id] = self.epochs.get(guest.id, 0) + 1
        self.places[guest.id] = HERE
        if self.lose_answers:
            self.lose_answers -= 1
            raise StateUnavailable
        record = self._of(guest.id)
        found: Connected = await self._answer(
            Connected(self.epochs[guest.id], before, record, self._others(record, guest.id))
        )
        return found

    async def disconnect(self, guests: Sequence[tuple[str, int]]) -> list[Workers | None]:
        if self.away:
            raise StateUnavailable
        answers: list[Workers | None] = []
        for guest, epoch in guests:
            gone = self.places.get(guest) == HERE and epoch in (0, self.epochs[guest])
            if gone:
                self.places[guest] = ""
            answers.append(self._others(self._of(guest), guest) if gone else None)
        found: list[Workers | None] = await self._answer(answers)
        return found

    async def touch(self, guests: Sequence[tuple[str, int]]) -> list[Touched]:
        answers = []
        for guest, epoch in guests:
            record = self._of(guest)
            state = "missing" if guest not in self.epochs else "ok" if self.epochs[guest] == epoch else "replaced"
            call = self.calls.get(record.id, (0, b""))[0] if record and self.knows_calls else -1
            answers.append(Touched(guest, state, record.id if record else "", False, self._others(record, guest), call))
        touched: list[Touched] = await self._answer(answers)
        return touched

    async def call(self, conversation: str) -> bytes | None:
        return self.calls.get(conversation, (0, None))[1]

    async def swap_call(self, conversation: str, before: int, after: int, state: bytes) -> bytes | None:
        stands, other = self.calls.get(conversation, (before, b""))
        if stands != before:
            return other
        self.calls[conversation] = (after, state)
        return None

    async def end(
        self,
        conversation: str,
        by: str,
        *,
        away_for: int | None = None,
        lost: Record | None = None,
        part: bool = False,
    ) -> Workers | None:
        if self.away:
            raise StateUnavailable
        record = self.records.get(conversation)
        if record is None or conversation in self.ended or (away_for is not None and self.places.get(by)):
            return None
        self.ended.add(conversation)
        others: Workers = await self._answer(self._others(record, by))
        return others

    async def record(self, conversation: str, *, live: bool = False) -> Record | None:
        found = self.records.get(conversation)
        if live and conversation in self.ended:
            found = None
        record: Record | None = await self._answer(found)
        return record

    async def recent(self, guest: str) -> list[str]:
        return []


class Bus:
    """Remembers what was sent where."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, notes.AnyNote]] = []

    def send(self, worker: str, note: bytes, about: str) -> None:
        self.sent.append((worker, notes.decode(note)))


class Line:
    """A client that remembers what it was told."""

    def __init__(self, frames: dict[bytes, Wire]) -> None:
        self._frames = frames
        self.told: list[Wire] = []
        self.closed = False

    def push(self, frame: bytes) -> None:
        self.told.append(self._frames[frame])

    def close(self, last_words: Wire | None = None) -> None:
        if last_words is not None:
            self.told.append(last_words)
        self.closed = True


class Sealer:
    def seal(self, record: Record, guest: str) -> str:
        return f"{record.id} {guest}"


class House:
    """The part under test, with its surroundings."""

    def __init__(self, grace_ms: int = 30_000) -> None:
        self.seats = Seats()
        self.bus = Bus()
        self._frames: dict[bytes, Wire] = {}
        lobby = LobbyState(online=0, waiting=0, popular=())
        self.metrics = Metrics()
        book = CallBook(lambda guest: IceServers(servers=(), expires_in_ms=0), self.metrics, relay=True)
        self.rules = Conversations(
            HERE, self.seats, self.bus, Sealer(), self._encode, lambda: lobby, book, grace_ms, self.metrics
        )

    def _encode(self, push: Wire) -> bytes:
        frame = b"%d" % len(self._frames)
        self._frames[frame] = push
        return frame

    def line(self) -> Line:
        return Line(self._frames)

    async def arrive(self, guest: Guest | None = None) -> tuple[Peer, Line]:
        """A guest, connected and welcomed."""
        line = self.line()
        peer = await self.rules.connect(guest or new_guest(), line, None)
        self.rules.welcome(peer)
        return peer, line

    def seat(self, *guests: Guest, places: Workers | None = None) -> Record:
        """Begin a conversation in Redis, and tell those who are here."""
        members = tuple(Member(g.id, g.device, g.profile) for g in guests)
        record = Record(new_id(), "text", members, Why(interests=(), languages=()), 1)
        self.seats.records[record.id] = record
        self.seats.places.update(places or {})
        self.rules.seat(record, {guest.id: self.seats.places[guest.id] for guest in guests})
        return record


def new_guest() -> Guest:
    return Guest(new_id(), new_id(), Profile(name="Amber Fox", hue=15))


def message(conversation: str, seq: int = 1) -> SendMessage:
    return SendMessage(conversation_id=conversation, id=new_id(), seq=seq, body=TextBody(text="hello"))


async def settled() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def house() -> House:
    return House()


# --------------------------------------------------------------------------- talking


async def test_what_is_said_goes_to_the_other_member_alone(house: House) -> None:
    """Here in memory, elsewhere as one note to that worker."""
    (a, line_a), (b, line_b), (_, line_c) = [await house.arrive() for _ in range(3)]
    record = house.seat(a.guest, b.guest)
    house.rules.say(a, message(record.id))
    assert isinstance(line_b.told[-1], Message)
    assert not any(isinstance(push, Message) for push in (*line_a.told, *line_c.told))
    assert house.bus.sent == []
    d = new_guest()
    far = house.seat((await house.arrive())[0].guest, d, places={d.id: THERE})
    speaker = house.rules.peers[far.members[0].guest]
    house.rules.say(speaker, message(far.id))
    to, note = house.bus.sent[-1]
    assert to == THERE
    assert isinstance(note, notes.Deliver)
    assert note.guest == d.id


async def test_a_comparison_that_is_older_than_a_move_takes_nobody_away(house: House) -> None:
    """Redis was asked before a member came back and answers after the news of it; the next comparison counts again."""
    a, line = await house.arrive()
    b = new_guest()
    record = house.seat(a.guest, b, places={b.id: ""})
    answer = house.seats.hold()
    comparing = asyncio.create_task(house.rules.reconcile([a]))
    await settled()
    house.rules.receive(notes.Moved(a.guest.id, record.id, b.id, THERE))
    answer.set()
    await comparing
    assert a.seat is not None
    assert a.seat.workers == {b.id: THERE}
    assert [push.state for push in line.told if isinstance(push, PartnerPresence)] == ["here"]
    await house.rules.reconcile([a])
    assert a.seat.workers == {b.id: ""}


async def test_a_comparison_that_is_older_than_a_change_ends_no_call(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was asked before a consent and answers after it; a call that really went backwards is contradicted."""
    contradicted: list[Peer] = []
    monkeypatch.setattr(CallBook, "contradicted", lambda self, peer, seat: contradicted.append(peer))
    (a, _), (b, _) = [await house.arrive() for _ in range(2)]
    record = house.seat(a.guest, b.guest)
    assert a.seat is not None
    house.seats.knows_calls = True
    house.seats.calls[record.id] = (1, calls.pack(calls.State(version=1)))
    house.rules.call_is(a, a.seat, calls.State(version=1))
    answer = house.seats.hold()
    comparing = asyncio.create_task(house.rules.reconcile([a, b]))
    await settled()
    house.seats.calls[record.id] = (2, calls.pack(calls.State(version=2)))
    house.rules.call_is(a, a.seat, calls.State(version=2))
    answer.set()
    await comparing
    assert contradicted == []
    house.seats.calls[record.id] = (1, calls.pack(calls.State(version=1)))
    await house.rules.reconcile([a])
    assert contradicted == [a]


@pytest.mark.parametrize("act", ["say", "receipt", "typing"])
async def test_without_a_seat_nothing_can_be_said(house: House, act: str) -> None:
    """Neither before, nor in another's conversation, nor after leaving."""
    (a, _), (b, _), (c, _) = [await house.arrive() for _ in range(3)]
    record = house.seat(a.guest, b.guest)
    asked: dict[str, Callable[[Peer], Any]] = {
        "say": lambda peer: house.rules.say(peer, message(record.id)),
        "receipt": lambda peer: house.rules.receipt(peer, SendReceipt(conversation_id=record.id, delivered=1, read=0)),
        "typing": lambda peer: house.rules.typing(peer, SendTyping(conversation_id=record.id, typing=True)),
    }
    with pytest.raises(Refused, match="not_in_conversation"):
        asked[act](c)
    asked[act](a)
    await house.rules.end(record.id, a.guest.id, "left")
    for peer in (a, b):
        with pytest.raises(Refused, match="not_in_conversation"):
            asked[act](peer)


# --------------------------------------------------------------------------- coming


async def test_the_state_is_told_first_whatever_came_before(house: House) -> None:
    """Notes that overtook it are kept, and told after it in their order."""
    guest, (b, _) = new_guest(), await house.arrive()
    line = house.line()
    peer = await house.rules.connect(guest, line, None)
    record = house.seat(guest, b.guest)
    house.rules.say(b, message(record.id, 1))
    house.rules.say(b, message(record.id, 2))
    assert line.told == []
    house.rules.welcome(peer)
    assert [type(push) for push in line.told] == [SessionState, MatchFound, Message, Message]
    assert [push.seq for push in line.told if isinstance(push, Message)] == [1, 2]


async def test_the_newest_connection_wins(house: House) -> None:
    """The old one is told and closed, and its farewell changes nothing."""
    guest, (b, line_b) = new_guest(), await house.arrive()
    old, old_line = await house.arrive(guest)
    record = house.seat(guest, b.guest)
    _, new_line = await house.arrive(guest)
    assert isinstance(old_line.told[-1], SessionReplaced)
    assert old_line.closed
    house.rules.disconnect(old)
    await settled()
    house.rules.say(b, message(record.id))
    assert isinstance(new_line.told[-1], Message)
    assert not any(isinstance(push, PartnerPresence) and push.state == "away" for push in line_b.told)


async def test_a_note_of_an_older_displacement_displaces_nobody(house: House) -> None:
    """Only a higher epoch takes a guest away."""
    peer, line = await house.arrive()
    for epoch in (0, peer.epoch):
        house.rules.receive(notes.Displaced(peer.guest.id, epoch))
        assert not line.closed
    house.rules.receive(notes.Displaced(peer.guest.id, peer.epoch + 1))
    assert isinstance(line.told[-1], SessionReplaced)
    assert line.closed
    assert peer.guest.id not in house.rules.peers


async def test_a_guest_whom_redis_does_not_know_is_not_taken_in(house: House) -> None:
    """It is told to come again, and nothing of it stays."""
    house.seats.away = True
    guest = new_guest()
    with pytest.raises(StateUnavailable):
        await house.rules.connect(guest, house.line(), None)
    assert guest.id not in house.rules.peers


# --------------------------------------------------------------------------- going


async def test_a_departure_that_could_not_be_noted_is_noted_later(house: House) -> None:
    """Else the guest would be here for everybody for as long as the session lasts."""
    (a, _), (b, line_b) = await house.arrive(), await house.arrive()
    house.seat(a.guest, b.guest)
    house.seats.away = True
    house.rules.disconnect(a)
    await settled()
    assert house.seats.places[a.guest.id] == HERE
    house.seats.away = False
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == ""
    assert isinstance(line_b.told[-1], PartnerPresence)
    assert line_b.told[-1].state == "away"
    told = len(line_b.told)
    house.rules.mark_departed(0)
    await settled()
    assert len(line_b.told) == told


async def test_a_departure_noted_late_does_not_undo_a_return(house: House) -> None:
    """The guest was back before Redis was."""
    (a, _), (b, line_b) = await house.arrive(), await house.arrive()
    house.seat(a.guest, b.guest)
    house.seats.away = True
    house.rules.disconnect(a)
    await settled()
    house.seats.away = False
    await house.arrive(a.guest)
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == HERE
    assert [push.state for push in line_b.told if isinstance(push, PartnerPresence)] == ["here"]


@pytest.mark.parametrize("heard", [False, True], ids=["never came to Redis", "its answer was lost"])
async def test_a_return_that_is_refused_leaves_nobody_here(house: House, *, heard: bool) -> None:
    """Redis may even know of the new one."""
    (a, _), (b, line_b) = await house.arrive(), await house.arrive()
    house.seat(a.guest, b.guest)
    if heard:
        house.seats.lose_answers = 1
    else:
        house.seats.away = True
    with pytest.raises(StateUnavailable):
        await house.rules.connect(a.guest, house.line(), None)
    house.rules.disconnect(a)
    house.seats.away = False
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == ""
    if not heard:
        assert isinstance(line_b.told[-1], PartnerPresence)
        assert line_b.told[-1].state == "away"


@pytest.mark.parametrize("heard", [False, True], ids=["never came to Redis", "its answer was lost"])
async def test_a_return_that_is_refused_leaves_the_former_connection_alone(house: House, *, heard: bool) -> None:
    """While Redis is away who talks goes on talking, whatever the same guest tries in another window."""
    (a, line_a), (b, line_b) = await house.arrive(), await house.arrive()
    record = house.seat(a.guest, b.guest)
    house.seats.away, house.seats.lose_answers = not heard, int(heard)
    with pytest.raises(StateUnavailable):
        await house.rules.connect(a.guest, house.line(), None)
    assert not line_a.closed
    assert not any(isinstance(push, SessionReplaced) for push in line_a.told)
    house.rules.say(b, message(record.id))
    assert isinstance(line_a.told[-1], Message)
    house.rules.say(a, message(record.id))
    assert isinstance(line_b.told[-1], Message)
    house.seats.away = False
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == HERE


async def test_what_comes_while_a_return_is_refused_is_heard_by_the_former_connection(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knew yet that it would be refused. If that connection has ended by then, nobody is here."""
    (a, line_a), (b, line_b) = await house.arrive(), await house.arrive()
    record = house.seat(a.guest, b.guest)
    for number, leaves in enumerate((False, True), 1):
        refused = asyncio.Event()

        async def connect(guest: Guest, claim: Record | None, refused: asyncio.Event = refused) -> Connected:
            await refused.wait()
            raise StateUnavailable

        monkeypatch.setattr(house.seats, "connect", connect)
        coming = asyncio.create_task(house.rules.connect(a.guest, house.line(), None))
        await settled()
        house.rules.say(b, message(record.id, number))
        if leaves:
            house.rules.disconnect(a)
        refused.set()
        with pytest.raises(StateUnavailable):
            await coming
    heard = [push.seq for push in line_a.told if isinstance(push, Message)]
    assert heard == [1]
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == ""
    assert isinstance(line_b.told[-1], PartnerPresence)
    assert line_b.told[-1].state == "away"


@pytest.mark.parametrize("answered", [True, False], ids=["Redis answers", "its answer is lost"])
async def test_of_three_connections_at_once_the_last_stays(
    house: House, monkeypatch: pytest.MonkeyPatch, *, answered: bool
) -> None:
    """The one in the middle is closed before it is told where it stands, and the first when Redis was asked."""
    (a, first), connect, now = await house.arrive(), house.seats.connect, asyncio.Event()

    async def late(guest: Guest, claim: Record | None) -> Connected:
        found = await connect(guest, claim)
        await now.wait()
        if not answered:
            raise StateUnavailable
        return found

    monkeypatch.setattr(house.seats, "connect", late)
    second, third = house.line(), house.line()
    coming = asyncio.create_task(house.rules.connect(a.guest, second, None))
    await settled()
    monkeypatch.setattr(house.seats, "connect", connect)
    answer = house.seats.hold()
    last = asyncio.create_task(house.rules.connect(a.guest, third, None))
    await settled()
    assert second.closed
    answer.set()
    peer = await last
    now.set()
    with contextlib.nullcontext() if answered else pytest.raises(StateUnavailable):
        await coming
    assert (first.closed, third.closed) == (True, False)
    assert house.rules.peers[a.guest.id] is peer


async def test_a_refused_return_does_not_undo_the_next(house: House) -> None:
    """Whoever is back meanwhile is here, whatever became of the attempt before."""
    (a, _), (b, _) = await house.arrive(), await house.arrive()
    house.seat(a.guest, b.guest)
    house.seats.lose_answers = 1
    with pytest.raises(StateUnavailable):
        await house.rules.connect(a.guest, house.line(), None)
    await house.arrive(a.guest)
    house.rules.mark_departed(0)
    await settled()
    assert house.seats.places[a.guest.id] == HERE


async def test_who_hangs_up_twice_while_the_worker_stops_is_away_all_the_same(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second absence is waited for by itself; the first ends without a fault."""
    monkeypatch.setattr(conversations, "HAND_OVER_SECONDS", 0.05)
    guest = new_guest()
    first, _ = await house.arrive(guest)
    house.rules.hand_over()
    house.rules.disconnect(first)
    await settled()
    second, _ = await house.arrive(guest)
    house.rules.disconnect(second)
    await house.rules.settle()
    assert house.seats.places[guest.id] == ""
    assert caplog.messages == []


async def test_the_grace_time_ends_a_conversation_with_one_who_does_not_come_back() -> None:
    """Not before it is over; told as lost."""
    house = House(grace_ms=200)
    (a, _), (b, line_b) = await house.arrive(), await house.arrive()
    record = house.seat(a.guest, b.guest)
    house.rules.disconnect(a)
    await asyncio.sleep(0.1)
    assert not any(isinstance(push, Ended) for push in line_b.told)
    await until(lambda: Ended(conversation_id=record.id, reason="lost") in line_b.told)
    assert b.seat is None


async def test_the_grace_time_stops_when_the_member_returns() -> None:
    """Also when the return is all this worker hears of it."""
    house = House(grace_ms=100)
    (a, _), (b, line_b) = await house.arrive(), await house.arrive()
    record = house.seat(a.guest, b.guest)
    house.rules.disconnect(a)
    await settled()
    house.seats.places[a.guest.id] = THERE
    house.rules.receive(notes.Moved(b.guest.id, record.id, a.guest.id, THERE))
    await asyncio.sleep(0.3)
    assert not any(isinstance(push, Ended) for push in line_b.told)
    assert [p.state for p in line_b.told if isinstance(p, PartnerPresence)] == ["away", "here"]


# --------------------------------------------------------------------------- healing


async def test_a_lost_note_is_made_up_for(house: House) -> None:
    """A match, a move and an end that nobody was told of are told after the comparison."""
    (a, line_a), (b, _) = await house.arrive(), await house.arrive()
    members = tuple(Member(p.guest.id, p.guest.device, p.guest.profile) for p in (a, b))
    record = Record(new_id(), "text", members, Why(interests=(), languages=()), 1)
    house.seats.records[record.id] = record
    await house.rules.reconcile([a])
    assert isinstance(line_a.told[-1], MatchFound)
    house.seats.places[b.guest.id] = ""
    await house.rules.reconcile([a])
    assert isinstance(line_a.told[-1], PartnerPresence)
    house.seats.ended.add(record.id)
    await house.rules.reconcile([a])
    assert Ended(conversation_id=record.id, reason="left") in line_a.told
    assert a.seat is None


async def during(answer: asyncio.Event, work: Coroutine[Any, Any, Any], change: Callable[[], Any]) -> None:
    """Let something change while an answer is on its way."""
    working = asyncio.create_task(work)
    await settled()
    changed = change()
    if asyncio.iscoroutine(changed):
        await changed
    answer.set()
    await working


async def test_an_answer_from_before_a_match_does_not_end_it(house: House) -> None:
    """It says that there is no conversation, which was true when it was given."""
    (a, line_a), (b, _) = await house.arrive(), await house.arrive()
    await during(house.seats.hold(), house.rules.reconcile([a]), lambda: house.seat(a.guest, b.guest))
    assert a.seat is not None
    assert isinstance(line_a.told[-1], MatchFound)


async def test_an_answer_from_before_an_end_does_not_seat_anybody_again(house: House) -> None:
    """Neither in the conversation that is over, nor in place of the one that followed."""
    (a, line_a), (b, _), (c, _) = [await house.arrive() for _ in range(3)]
    first = house.seat(a.guest, b.guest)

    async def move_on() -> None:
        await house.rules.end(first.id, a.guest.id, "left")
        house.seat(a.guest, c.guest)

    await during(house.seats.hold(), house.rules.reconcile([a]), move_on)
    assert a.seat is not None
    assert a.seat.record.id != first.id
    assert [type(p) for p in line_a.told if not isinstance(p, LobbyState)] == [SessionState, MatchFound, MatchFound]


async def test_an_answer_about_an_older_connection_does_not_close_the_new_one(house: House) -> None:
    """It was replaced, by this very one."""
    guest = new_guest()
    old, _ = await house.arrive(guest)
    await during(house.seats.hold(), house.rules.reconcile([old]), lambda: house.arrive(guest))
    peer = house.rules.peers[guest.id]
    assert peer is not old
    assert isinstance(peer.line, Line)
    assert not peer.line.closed


async def test_a_connection_is_not_taken_for_replaced_by_its_own_registration(house: House) -> None:
    """Redis has the new epoch already, and its answer is still on the way when another comparison is answered."""
    peer, line = await house.arrive()
    answer = house.seats.hold()
    registering = asyncio.create_task(house.rules.restore(peer))
    await asyncio.sleep(0)
    assert house.seats.epochs[peer.guest.id] > peer.epoch
    await house.rules.reconcile([peer])
    assert not line.closed
    answer.set()
    await registering
    await house.rules.reconcile([peer])
    assert house.rules.peers[peer.guest.id] is peer


async def test_a_session_that_redis_lost_is_made_again(house: House) -> None:
    """With the same connection; its epoch is Redis's new one."""
    peer, line = await house.arrive()
    house.seats.epochs.clear()
    house.seats.places.clear()
    await house.rules.reconcile([peer])
    assert house.seats.places[peer.guest.id] == HERE
    assert not line.closed
    await house.rules.reconcile([peer])
    assert not line.closed


async def test_a_dead_worker_s_guests_are_told_away(house: House) -> None:
    """To their partners here and elsewhere."""
    (a, line_a), b = await house.arrive(), new_guest()
    record = house.seat(a.guest, b, places={b.id: THERE})
    house.rules.mourn([(b.id, record.id, {a.guest.id: HERE}), (new_id(), new_id(), {new_id(): "third"})])
    assert isinstance(line_a.told[-1], PartnerPresence)
    assert line_a.told[-1].state == "away"
    assert house.bus.sent[-1][0] == "third"
