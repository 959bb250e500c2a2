"""The worker's pulse: renews its lease, clears up after dead workers, compares seats, and says who is here.

Everything that must happen without anybody asking happens from here, each on its own beat.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from visavis.contract import LobbyState, Popular, Wire
from visavis.core import tasks
from visavis.core.calling import Calling
from visavis.core.conversations import Conversations, Peer, Seat
from visavis.core.matchmaking import Matchmaker
from visavis.core.ports import DocumentStore, Lease, StateUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between renewals of the lease."""
COMPARE = 2.0
"""Seconds between comparisons of the seats and searches with Redis."""
COMPARE_IDLE = 60.0
"""The same for guests who only sit in the lobby."""
RECORDERS = 1.0
"""Seconds between looks at which recorders live."""
SWEEP = 600.0
"""Seconds between sweeps of expired documents."""
LOOK = 5.0
"""Seconds between looks at how every part is."""
LOOK_AROUND = 1.0
"""Seconds that a worker which stops gives Redis to say who else is there."""
BATCH = 20
"""Guests compared in one call: while two hundred are looked at, what others say waits for some milliseconds."""
MOST_CALLS = 100
"""For all of them: of a crowd more are compared at once, or one round would last into the next."""
TELL = 1.9
"""Least seconds between two pushes of who is here."""
TOLD_PER_SECOND = 1000
"""Guests who are told who is here, at most: of a crowd, less often."""
TOLD_AT_ONCE = 50
"""Of them so many in one turn of the event loop: what others say must not wait for a crowd."""
OFFERED = 24
"""Popular interests offered at most."""


class Vitals(msgspec.Struct, frozen=True):
    """How the process of a worker is. As with Stats, a field may be missing or unknown, but never change its type."""

    address: str = ""
    """Where it listens, `host:port`."""
    machine: str = ""
    version: str = ""
    started_at: int = 0
    """Milliseconds since 1970, by its own clock."""
    connections: int = 0
    """Also of those who have not said yet who they are."""
    stall: float = 0.0
    """Longest that its event loop stood still in the last seconds, in seconds."""
    memory: int = 0
    """Bytes in memory."""
    cpu: float = 0.0
    """Seconds of computing since its start."""
    draining: bool = False
    unwell: tuple[str, ...] = ()
    """Parts that are not well."""


class Stats(msgspec.Struct, frozen=True):
    """What a worker tells the others about itself: numbers and popular interests, no guest.

    Workers of two versions read each other's during an upgrade: every field has a default, none changes its type.
    """

    online: int = 0
    waiting: int = 0
    interests: dict[str, int] = {}
    searching: dict[str, int] = {}
    """Those who wait, by mode."""
    conversations: int = 0
    """Those whose first member who is not away is here: over all workers, each counts once."""
    calls: int = 0
    """The same, with a call that was taken."""
    messages: int = 0
    """Accepted since its start."""
    process: Vitals = Vitals()


def read_share(share: bytes) -> Stats:
    """What a worker told. One that cannot be read counts as nothing: it must not stop the others' beats."""
    try:
        return msgspec.json.decode(share, type=Stats)
    except msgspec.MsgspecError:
        return Stats()


class Lobby:
    """Who is here, on all workers together."""

    def __init__(
        self,
        conversations: Conversations,
        encode: Callable[[Wire], bytes],
        popular_min: int,
        vitals: Callable[[], Vitals],
    ) -> None:
        self._conversations = conversations
        self._vitals = vitals
        self._encode = encode
        self._popular_min = popular_min
        self.state = LobbyState(online=0, waiting=0, popular=())
        self.open_workers = 0
        """Those that took guests in at the last beat, with this one."""
        self.mine = Stats()
        """This worker's share, as it was told last."""
        self.workers: dict[str, str] = {}
        """The living workers: where each listens, by its id."""
        self._next = 0.0
        """When those who are here may be told again."""
        self._frame = b""

    def share(self) -> bytes:
        """This worker's share, as of now."""
        peers = self._conversations.peers.values()
        picked: Counter[str] = Counter()
        searching: Counter[str] = Counter()
        counted: list[Seat] = []
        # Everybody who is connected, every second: they are gone through once.
        for peer in peers:
            for interest in peer.interests:
                picked[interest] += 1
            if peer.searching:
                searching[peer.searching] += 1
            if peer.seat is not None and peer.seat.counts:
                counted.append(peer.seat)
        self.mine = Stats(
            online=len(peers),
            waiting=searching.total(),
            interests=dict(picked.most_common(100)),
            searching=dict(searching),
            conversations=len(counted),
            calls=sum(seat.call.call is not None and seat.call.call.answered for seat in counted),
            messages=self._conversations.said,
            process=self._vitals(),
        )
        return msgspec.json.encode(self.mine)

    def update(self, shares: dict[str, bytes]) -> None:
        """Add up everyone's shares, and tell those who are not in a conversation if something changed."""
        told = {worker: read_share(share) for worker, share in shares.items()}
        stats = list(told.values())
        self.workers = {
            worker: f"{share.process.machine}:{share.process.address.rpartition(':')[2]}"
            for worker, share in told.items()
        }
        self.open_workers = sum(not share.process.draining for share in stats)
        picked: Counter[str] = Counter()
        for share in stats:
            picked.update(share.interests)
        popular = sorted(
            ((guests, interest) for interest, guests in picked.items() if guests >= self._popular_min),
            key=lambda found: (-found[0], found[1]),
        )
        state = LobbyState(
            online=sum(s.online for s in stats),
            waiting=sum(s.waiting for s in stats),
            popular=tuple(Popular(interest=interest, guests=guests) for guests, interest in popular[:OFFERED]),
        )
        if state != self.state and time.monotonic() >= self._next:
            self.state = state
            self._frame = self._encode(state)
            idle = [peer for peer in self._conversations.peers.values() if peer.seat is None]
            self._next = time.monotonic() + max(TELL, len(idle) / TOLD_PER_SECOND)
            self._tell(idle, self._frame)

    def _tell(self, left: list[Peer], frame: bytes) -> None:
        """Tell those who are left, some now and others in the next turns, unless there is something newer by then."""
        if frame is not self._frame:
            return
        for peer in left[-TOLD_AT_ONCE:]:
            if peer.seat is None and peer.welcomed and self._conversations.peers.get(peer.guest.id) is peer:
                peer.line.push(frame)
        del left[-TOLD_AT_ONCE:]
        if left:
            asyncio.get_running_loop().call_soon(self._tell, left, frame)


class _Pulse:
    """What this worker knows of its lease in one cell."""

    def __init__(self) -> None:
        self.healthy = False
        self.missed_notes = False
        self.hurried = asyncio.Event()
        self.dead: list[str] = []
        """Workers to clear up after."""
        self.reborn = False
        """The lease had run out, and nobody was told since who is here."""
        self.compare = False
        """Seats and searches may differ from what Redis has."""
        self.disordered = asyncio.Event()
        """One of these."""


class Liveness:
    """Runs the beats until stopped, those of each cell by themselves: one that does not answer holds up no other."""

    def __init__(
        self,
        lease: Lease,
        conversations: Conversations,
        matchmaker: Matchmaker,
        lobby: Lobby,
        calling: Calling,
        documents: DocumentStore,
        look: Callable[[], Awaitable[object]],
    ) -> None:
        """`look` asks every part how it is, for the statistics."""
        self._lease = lease
        self._conversations = conversations
        self._matchmaker = matchmaker
        self._lobby = lobby
        self._calling = calling
        self._documents = documents
        self._look = look
        self._tasks: list[asyncio.Task[None]] = []
        self._pulses = [_Pulse() for _ in range(lease.cells)]

    @property
    def healthy(self) -> bool:
        """Whether Redis answered the last beats, of half of the cells at least.

        Were one cell enough to be unwell, then all workers would be with it, and nobody left to serve the others. A
        worker that reaches only few is more likely cut off itself.
        """
        return sum(pulse.healthy for pulse in self._pulses) * 2 >= len(self._pulses)

    async def start(self) -> None:
        """Take the lease and begin. Raises StateUnavailable if Redis is away."""
        cells = range(len(self._pulses))
        beats = await asyncio.gather(*(self._beat(cell) for cell in cells), return_exceptions=True)
        for failed in beats:
            if failed is not None and (not self.healthy or not isinstance(failed, StateUnavailable)):
                raise failed
        with contextlib.suppress(StateUnavailable):
            await self._calling.look_after_recorders()
        again: list[tuple[float | None, Callable[[], Awaitable[object]], asyncio.Event | None]] = [
            (RECORDERS, self._calling.look_after_recorders, None),
            (SWEEP, self._sweep, None),
            (LOOK, self._look, None),
        ]
        for cell in cells:
            again += [
                (BEAT, partial(self._beat, cell), self._pulses[cell].hurried),
                (None, partial(self._clear_up, cell), self._pulses[cell].disordered),
                (COMPARE, partial(self._compare_active, cell), None),
                (COMPARE_IDLE, partial(self._compare_idle, cell), None),
            ]
        self._tasks = [asyncio.get_running_loop().create_task(self._every(*one)) for one in again]

    async def stop(self) -> None:
        """End the beats and give the lease back."""
        await tasks.end(self._tasks)
        try:
            await self._lease.resign()
        except StateUnavailable:
            log.info("lease_left_to_expire")

    async def look_around(self) -> None:
        """Beat once more before going: a worker to move to may have come since the last beat, or gone."""
        with contextlib.suppress(StateUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_AROUND):
                await self._beat(0)

    def hurry(self, cell: int) -> None:
        """Renew the cell's lease and compare now: the bus was away, and notes were lost, perhaps all of Redis."""
        self._pulses[cell].missed_notes = True
        self._pulses[cell].hurried.set()

    async def _every(
        self, seconds: float | None, work: Callable[[], Awaitable[object]], hurried: asyncio.Event | None = None
    ) -> None:
        """Work every so many seconds, and when hurried; without a time, when hurried only."""
        hurried = hurried or asyncio.Event()
        while True:
            hurried.clear()
            started = time.monotonic()
            try:
                await work()
            except (StateUnavailable, StoreUnavailable):
                pass
            except Exception:
                log.exception("beat_failed")
            with contextlib.suppress(TimeoutError):
                left = None if seconds is None else max(0.0, started + seconds - time.monotonic())
                await asyncio.wait_for(hurried.wait(), left)

    async def _beat(self, cell: int) -> None:
        """Renew the lease, and wait for nothing else: what there is to clear up may take longer than it lasts."""
        pulse = self._pulses[cell]
        try:
            beat = await self._lease.beat(self._lobby.share() if cell == 0 else b"", cell)
        except StateUnavailable:
            pulse.healthy = False
            raise
        pulse.healthy = True
        if cell == 0:
            self._lobby.update(beat.stats)
        self._conversations.mark_departed(cell)
        for worker in beat.dead:
            log.warning("worker_died", extra={"worker": worker})
        pulse.dead += beat.dead
        pulse.reborn |= beat.reborn
        # After the lease: a guest is only seen on a worker that holds one.
        pulse.compare |= beat.reborn or pulse.missed_notes
        pulse.missed_notes = False
        if pulse.dead or pulse.compare:
            pulse.disordered.set()

    async def _clear_up(self, cell: int) -> None:
        """Do what a beat found to be done. What fails is tried again after the next beat."""
        pulse = self._pulses[cell]
        while pulse.dead:
            self._conversations.mourn(await self._lease.reap(pulse.dead[0], cell))
            del pulse.dead[0]
        if pulse.compare:
            reborn, pulse.reborn, pulse.compare = pulse.reborn, False, False
            try:
                await self._compare(self._conversations.of_cell(cell), reborn=reborn)
            except StateUnavailable:
                pulse.reborn, pulse.compare = pulse.reborn or reborn, True
                raise

    async def _compare_active(self, cell: int) -> None:
        peers = self._conversations.of_cell(cell)
        await self._compare([peer for peer in peers if peer.seat is not None or peer.searching])

    async def _compare_idle(self, cell: int) -> None:
        peers = self._conversations.of_cell(cell)
        await self._compare([peer for peer in peers if peer.seat is None and not peer.searching])

    async def _compare(self, peers: list[Peer], *, reborn: bool = False) -> None:
        some = max(BATCH, -(-len(peers) // MOST_CALLS))
        for start in range(0, len(peers), some):
            for peer in await self._conversations.reconcile(peers[start : start + some], reborn=reborn):
                await self._matchmaker.resume(peer)

    async def _sweep(self) -> None:
        await self._documents.sweep()
