"""The recorder: makes the recordings that workers ask for, each with the consent of both, and gives them to both.

Hides that each is a process of its own, and what may go wrong with it. A recording ends when a worker says so, when
its place in Redis is given back (so a withdrawal is heard even if its note was lost), when Redis cannot be asked for
some seconds, when all media have stopped, or when it is as long as one may be.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from visavis.contract import RecorderAnswered, Wire
from visavis.core import notes, tape, tasks
from visavis.core.ports import Bus, RecorderLease, StateUnavailable, StoreUnavailable
from visavis.core.recordings import Recordings, Saved

log = logging.getLogger(__name__)

BEAT = 0.5
"""Seconds between renewals of the lease, and between looks at which recordings have lost their place."""
SWEEP = 600.0
DEAF_FOR = 5.0
"""Seconds without Redis after which everything is ended: nobody could say that a consent was taken back."""
FINISHES_WITHIN = 30.0
ON_AGAIN = 4
"""Seconds after which it is said again that something is being recorded."""
EARLY = 64
"""Offers kept that came before their recording's beginning."""


class Tape(Protocol):
    """One recording's process."""

    def say(self, message: tape.ToTape) -> None:
        """Tell it something. Never waits."""

    async def hear(self) -> tape.FromTape | None:
        """The next thing it says; None when it has gone."""

    async def end(self) -> None:
        """Have it gone. An unfinished recording leaves nothing."""


class RecorderLoad(msgspec.Struct):
    """What a recorder tells workers about itself, for their metrics: no recording, no guest."""

    places: int
    running: int = 0
    begun: int = 0
    saved: int = 0
    empty: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Of recordings made."""
    cpu: float = 0.0
    """Cores that the running ones take."""
    stalled: float = 0.0
    """Longest that one of their event loops stood still in its last second, in seconds."""


class _Making:
    """A recording being made."""

    __slots__ = ("begin", "tape", "stopping", "workers", "rolling", "rolls")

    def __init__(self, begin: notes.Begin) -> None:
        self.begin = begin
        self.tape: Tape | None = None
        self.stopping: asyncio.TimerHandle | None = None
        self.workers: dict[str, str] = {}
        self.rolling = tape.Rolling(0.0, 0.0, 0.0)
        self.rolls = 0


class Recorder:
    """Makes up to `places` recordings at once."""

    def __init__(
        self,
        *,
        places: int,
        lease: RecorderLease,
        bus: Bus,
        recordings: Recordings,
        load: Callable[[tape.Load], Awaitable[Tape]],
        relays: Callable[[str], tuple[tape.Ice, ...]],
        encode: Callable[[Wire], bytes],
        folder: str,
        longest_seconds: float,
        kept_ms: int,
        largest: int,
        room: Callable[[], bool],
    ) -> None:
        """`relays` gives the relays with credentials for a name; `encode` makes a push as it goes out to a client.

        While there is no `room`, no further recording is taken on.
        """
        self._places = places
        self._lease = lease
        self._bus = bus
        self._recordings = recordings
        self._load_tape = load
        self._relays = relays
        self._encode = encode
        self._folder = folder
        self._longest = longest_seconds
        self._kept_ms = kept_ms
        self._largest = largest
        self._room = room
        self._making: dict[str, _Making] = {}
        self._early: collections.deque[notes.Offered] = collections.deque(maxlen=EARLY)
        self._finished: collections.deque[str] = collections.deque(maxlen=1024)
        self._works: set[asyncio.Task[None]] = set()
        self._beats: list[asyncio.Task[None]] = []
        self._beaten = 0.0
        self.load = RecorderLoad(places)

    async def start(self) -> None:
        """Take the lease and begin. Raises StateUnavailable if Redis is away."""
        await self._beat()
        loop = asyncio.get_running_loop()
        self._beats = [loop.create_task(work()) for work in (self._beat_on, self._doubt_on, self._sweep_on)]

    async def stop(self) -> None:
        """Take no more, and finish what is being made."""
        await tasks.end(self._beats)
        try:
            await self._lease.resign()
        except StateUnavailable:
            log.info("recorder_left_unsaid")
        for making in list(self._making.values()):
            self._finish(making)
        if self._works:
            await asyncio.wait(self._works, timeout=FINISHES_WITHIN)
        await tasks.end(self._works)

    def receive(self, note: notes.ForRecorder) -> None:
        """Act on a note."""
        making = self._making.get(note.recording)
        match note:
            case notes.Begin():
                if making is None:
                    self._begin(note)
            case notes.Offered():
                if making is None:
                    self._early.append(note)
                else:
                    self._offer(making, note)
            case notes.Finish():
                if making is not None:
                    self._finish(making)
                elif note.recording not in self._finished:
                    # It may overtake the beginning, which comes from another worker.
                    self._finished.append(note.recording)
                    self._spawn(self._leave(note.recording))

    # ------------------------------------------------------------------ one recording

    def _begin(self, note: notes.Begin) -> None:
        if note.recording in self._finished:
            return
        if not agreed(note):
            log.error("recording_without_consent")
            self._finished.append(note.recording)
            self._spawn(self._leave(note.recording))
            return
        making = _Making(note)
        self._making[note.recording] = making
        self._spawn(self._make(making))

    async def _make(self, making: _Making) -> None:
        note = making.begin
        outcome, expires_at = "failed", 0
        try:
            if len(self._making) > self._places:
                outcome = "full"
            else:
                self.load.begun += 1
                ended = await self._follow(making)
                outcome = ended.outcome
                if outcome == "saved":
                    expires_at = _now() + self._kept_ms
                    saved = Saved(note.recording, note.at, expires_at, ended.bytes, round(ended.seconds))
                    devices = dict.fromkeys(device for _, device, _ in note.members)
                    if not await self._recordings.save(saved, tuple(devices)):
                        outcome = "failed"
                self.load.seconds += ended.seconds
        except Exception:
            log.exception("recording_failed")
        finally:
            if making.stopping is not None:
                making.stopping.cancel()
            del self._making[note.recording]
            self._finished.append(note.recording)
        if outcome in ("saved", "empty", "failed"):
            setattr(self.load, outcome, getattr(self.load, outcome) + 1)
        log.info("recording_ended", extra={"outcome": outcome})
        await self._tell(making, outcome, expires_at if outcome == "saved" else 0)
        await self._leave(note.recording)

    async def _leave(self, recording: str) -> None:
        try:
            await self._lease.done(recording)
        except StateUnavailable:
            log.info("recording_place_kept")

    async def _follow(self, making: _Making) -> tape.Ended:
        """Have a process make it, and hear how it goes until it ends."""
        note = making.begin
        left_first = sorted(note.members, key=lambda member: member[2])
        making.tape = running = await self._load_tape(
            tape.Load(
                note.recording,
                tuple(guest for guest, _, _ in left_first),
                self._folder,
                self._longest,
                self._largest,
            )
        )
        try:
            if making.stopping is not None:
                running.say(tape.Stop())
            for early in [one for one in self._early if one.recording == note.recording]:
                self._early.remove(early)
                self._offer(making, early)
            while (said := await running.hear()) is not None:
                match said:
                    case tape.Answer():
                        self._answer(making, said)
                    case tape.Rolling():
                        making.rolling = said
                        # Said again, should it have got lost; who knows it already does nothing.
                        if making.rolls % ON_AGAIN == 0:
                            await self._tell(making, "on")
                        making.rolls += 1
                    case tape.Ended():
                        return said
            return tape.Ended("failed", 0, 0)
        finally:
            await running.end()

    def _offer(self, making: _Making, note: notes.Offered) -> None:
        if note.guest not in {guest for guest, _, _ in making.begin.members}:
            log.error("recording_offer_by_a_stranger")
        elif making.tape is None:
            self._early.append(note)
        elif making.stopping is None:
            making.workers[note.guest] = note.worker
            ice = self._relays(f"{note.recording}:{note.guest}")
            making.tape.say(tape.Offer(note.guest, note.worker, note.session, note.sdp, ice))

    def _answer(self, making: _Making, said: tape.Answer) -> None:
        push = RecorderAnswered(
            conversation_id=making.begin.conversation,
            recording_id=making.begin.recording,
            session=said.session,
            sdp=said.sdp,
        )
        self._bus.send(said.worker, notes.encode(notes.Deliver(said.guest, self._encode(push))), said.guest)

    def _finish(self, making: _Making) -> None:
        if making.stopping is not None:
            return
        if making.tape is not None:
            making.tape.say(tape.Stop())
        making.stopping = asyncio.get_running_loop().call_later(FINISHES_WITHIN, self._insist, making)

    def _insist(self, making: _Making) -> None:
        log.error("recording_would_not_end")
        if making.tape is not None:
            self._spawn(making.tape.end())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def _tell(self, making: _Making, outcome: str, expires_at: int = 0) -> None:
        note = making.begin
        for guest, _, _ in note.members:
            try:
                # Where the guest is by now.
                worker = await self._lease.worker_of(guest)
            except StateUnavailable:
                worker = making.workers.get(guest, "")
            if worker:
                told = notes.Recorded(guest, note.conversation, note.recording, outcome, expires_at)
                self._bus.send(worker, notes.encode(told), guest)

    # ------------------------------------------------------------------ beats

    async def _beat(self) -> None:
        running = list(self._making)
        self.load.running = len(running)
        self.load.cpu = round(sum(making.rolling.cpu for making in self._making.values()), 3)
        self.load.stalled = max((making.rolling.stalled for making in self._making.values()), default=0.0)
        withdrawn = await self._lease.beat(self._places if self._room() else 0, msgspec.json.encode(self.load), running)
        self._beaten = time.monotonic()
        for recording in withdrawn:
            if (making := self._making.get(recording)) is not None:
                self._finish(making)

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self._beat()
            except StateUnavailable:
                log.warning("recorder_without_redis")
            except Exception:
                log.exception("recorder_beat_failed")

    async def _doubt_on(self) -> None:
        """End everything while Redis does not answer; a beat that waits for it cannot."""
        while True:
            await asyncio.sleep(BEAT)
            if time.monotonic() - self._beaten > DEAF_FOR:
                for making in list(self._making.values()):
                    self._finish(making)

    async def _sweep_on(self) -> None:
        while True:
            try:
                await self._recordings.sweep()
            except (StoreUnavailable, OSError):
                log.info("recordings_sweep_postponed")
            except Exception:
                log.exception("recordings_sweep_failed")
            await asyncio.sleep(SWEEP)


def agreed(note: notes.Begin) -> bool:
    """Whether the consent is one of all members, to this recording of this conversation."""
    seats = {seat for _, _, seat in note.members}
    return (
        len(seats) == len(note.members) >= 2
        and note.consent.recording == note.recording
        and note.consent.conversation == note.conversation
        and set(note.consent.by) == seats
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
