"""Redis: seats, the waiting pool, leases and limits, and the directed bus between workers.

Hides keys, scripts, cells and reconnecting. Every change that must not be seen half done is one Lua script (`lua/`,
each put behind the prelude); a script is sent anew to a server that has lost it. Redis going away shows as
StateUnavailable; what the bus loses meanwhile is healed by its users. Which server has a key is `topology`'s to know.

A *cell* is a part of the guests, with the conversations and files they have with each other. All keys of a cell begin
with its hash tag, so that a script finds them on one server; KEYS[1] is what they begin with. Without a Redis Cluster
there is one cell, `v:{c0}:`.

Keys of a cell, all with a TTL or named reason:
  guest:{id}          hash: epoch, worker, away, conversation, stays, pool, ticket (session TTL, sliding); `stays`
                      is an ended conversation that the guest has not gone from yet
  conversation:{id}   hash: state, members, record, call, call_version, gone, files_until (session TTL while live, after
                      its end an hour, or as long as it has files); `gone` are members who went from it for good
  at:{worker}         set: guests connected there (session TTL)
  worker:{worker}     the lease itself (lease TTL)
  workers             sorted set: worker by expiry (members leave when found expired)
  stats               hash: worker's statistics, in the first cell only (fields leave with the worker)
  waiting:{mode}      sorted set: guest by arrival (members leave with the connection or its worker)
  tickets:{mode}      hash: guest's ticket (as above)
  round:{mode}        who runs the pool's round (2 s)
  met:{guest}         sorted set: recent partners (TTL of the setting)
  file:{id}           hash: guest, conversation, name, bytes, voice, expires_at, phase, offset, parts, count, since,
                      tries, problem, limit, shared, checked_by (TTL of an hour more than it is kept)
  files               sorted set: file by when it is due, by the workers' clocks (members leave with the file's bytes)
  files_of:{guest}    sorted set: file:bytes by expiry (TTL of the last)
  files_in:{talk}     set: files of a conversation (TTL of an hour more than the last)
  limit:{name}        hash: sixteenth of the window by what was counted in it, for a guest of the cell (TTL of the
                      window and a sixteenth)
  begun:{guest}       list: when uploads were begun, newest first (TTL of a minute)
  checking:{file}     who checks the file (lease TTL)

Keys of the recorders, which begin with `v:{recorders}:`:
  recorders           sorted set: recorder by expiry (members leave when found expired)
  recorder:{id}       hash: places, load (lease TTL)
  made:{recorder}     hash: recording by the time it got its place there (TTL of a day, from the recorder's last beat)

Keys that stand alone, wherever they come to lie, as `v:` and:
  limit:{name}        the same for what is counted by address or network
  present:{place}     hash: worker by its connections from there and until when its word holds (TTL of the last)
  sweeping            who sweeps (TTL until the next sweep)
  metrics:{worker}    its metrics, compressed (TTL of 15 s)
"""

import asyncio
import hashlib
import logging
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import hiredis
import msgspec
import redis.asyncio as redis
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisError

from visavis.adapters.topology import Servers, Taken, Word, packed, servers
from visavis.contract import Mode, Refused, SharedFile
from visavis.core import tasks
from visavis.core.identity import Guest, new_id
from visavis.core.matching import Ticket
from visavis.core.ports import (
    Beat,
    Connected,
    Count,
    Counted,
    Dropped,
    Member,
    Meter,
    Present,
    Proposal,
    Queue,
    Record,
    StateFull,
    StateUnavailable,
    Touched,
    Upload,
    Workers,
)
from visavis.core.tally import Unread

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_LUA = Path(__file__).parent / "lua"
# A script that frees memory or only marks things must run when memory is full, and so must the lease, without
# which everybody would be away; the others are refused whole before they begin: nothing is left half done.
_ALLOW_OOM = {
    *("beat", "call", "disconnect", "end", "leave", "reap", "release", "touch"),
    *("file_drop", "file_sweep", "recorder_beat"),
}

ROUND_LEASE_MS = 2000
TICKETS_READ = 10_000
CLAIMED_AT_ONCE = 100
REAPED_AT_ONCE = 200
STALE = 2.5
"""Seconds after which a note that could not be sent is not sent any more."""

_pack = msgspec.msgpack.Encoder().encode
_notes = msgspec.msgpack.Decoder(list[bytes])
_record = msgspec.msgpack.Decoder(Record)
_shared = msgspec.msgpack.Decoder(SharedFile)


class _Waiting(msgspec.Struct, frozen=True, array_like=True):
    ticket: Ticket
    member: Member


_waiting = msgspec.msgpack.Decoder(_Waiting)


SLOTS = 16384
"""Of a Redis Cluster."""
SOON = 1.0
"""Seconds that one of several servers has for scripts that go to many."""
OF_LATE = 3.0
"""Seconds within which some server answers each worker, if any does: each cell is asked every second."""


class Keyspace:
    """Where every key is: the cell of an id, what the keys of a cell begin with, and the servers that have them."""

    def __init__(self, at: Servers, cells: int, meter: Meter | None) -> None:
        meter = meter or Unread()
        self._answers = meter.durations("redis")
        self._away = meter.tally("redis_errors", kind="away")
        self._full = meter.tally("redis_errors", kind="full")
        self._answered = 0.0
        """When a server last did."""
        self._servers = at
        self.cells = cells
        self._prefixes = [f"v:{{{tag}}}:" for tag in _tags(cells)]
        self.recorders = "v:{recorders}:"
        prelude = (_LUA / "prelude.lua").read_text(encoding="utf-8")
        self._scripts: dict[str, tuple[str, str]] = {}
        for path in _LUA.glob("*.lua"):
            if path.stem != "prelude":
                flags = " flags=allow-oom" if path.stem in _ALLOW_OOM else ""
                text = f"#!lua{flags}\n{prelude}\n{path.read_text(encoding='utf-8')}"
                # Redis's own name for it.
                self._scripts[path.stem] = (text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def cell(self, id: str) -> int:
        """The cell of a guest, a conversation or a file."""
        return zlib.crc32(id.encode()) % self.cells if self.cells > 1 else 0

    def prefix(self, cell: int) -> str:
        """What the keys of a cell begin with."""
        return self._prefixes[cell]

    def of(self, id: str) -> str:
        """What the keys of this id's cell begin with."""
        return self._prefixes[self.cell(id)]

    def new_id(self, cell: int) -> str:
        """A new id that falls into this cell."""
        while self.cell(made := new_id()) != cell:
            pass
        return made

    async def run(self, script: str, key: str, *args: str | int | bytes) -> Any:
        """Run a script where `key` is, its KEYS[1]: a prefix, or the only key it uses.

        Raises StateUnavailable, StateFull.
        """
        return await self._run(script, [key], args, once=False)

    async def run_on_all(self, script: str, keys: Sequence[str], *args: str | int) -> Any:
        """Run a script for all of these keys, which one server has; nothing is tried again that may have been done.

        Raises StateUnavailable, StateFull.
        """
        return await self._run(script, keys, args, once=True)

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[Word], *, once: bool) -> Any:
        text, name = self._scripts[script]

        async def call(node: "redis.Redis") -> Any:
            (answer,) = await self._servers.run(node, [("EVALSHA", name, len(keys), *keys, *args)])
            if isinstance(answer, NoScriptError):
                (answer,) = await self._servers.run(node, [("EVAL", text, len(keys), *keys, *args)])
            if isinstance(answer, RedisError):
                raise answer
            return answer

        return await self.ask(keys[0], call, once=once)

    async def run_each(self, calls: Sequence[tuple[str, str, Sequence[str | int]]], *, once: bool) -> list[Any]:
        """Run scripts, each with its only key and its arguments: one round trip to each server that has some.

        None is the answer of a server that is away while others answer. With `once`, nothing is tried again that may
        have been done. Raises StateUnavailable, StateFull.
        """
        answers: list[Any] = [None] * len(calls)

        async def run(some: Sequence[int]) -> None:
            async def call(node: "redis.Redis") -> list[Any]:
                named = [(self._scripts[script][1], key, args) for script, key, args in (calls[n] for n in some)]
                return await self._servers.run(node, [("EVALSHA", name, 1, key, *args) for name, key, args in named])

            for n, answer in zip(some, await self.ask(calls[some[0]][1], call, once=once), strict=True):
                # Where the script is not known, or the key no longer is: nothing was done, and `run` knows what to do.
                script, key, args = calls[n]
                again = isinstance(answer, RedisError)
                answers[n] = await self._run(script, [key], args, once=once) if again else answer

        async def run_soon(some: list[int]) -> None:
            try:
                async with asyncio.timeout(SOON):
                    await run(some)
            except TimeoutError:
                raise StateUnavailable("it takes too long") from None

        if self.cells == 1:
            if calls:
                await run(range(len(calls)))
            return answers
        parts = await self._servers.together([key for _, key, _ in calls])
        for failed in await asyncio.gather(*map(run_soon, parts), return_exceptions=True):
            if failed is not None and (isinstance(failed, StateFull) or not self._others_answer(failed)):
                raise failed
        return answers

    def _others_answer(self, failed: BaseException) -> bool:
        """Whether what one server did not do is no reason to stop: its own guests notice, and others go on."""
        of_late = time.monotonic() - self._answered < OF_LATE
        return isinstance(failed, StateUnavailable) and self.cells > 1 and of_late

    async def ask(self, key: str, command: Callable[["redis.Redis"], Awaitable[Any]], *, once: bool = False) -> Any:
        """What a command about this key, and others with its hash tag, gives. Raises StateUnavailable, StateFull.

        With `once`, it is not tried again if it may have been carried out.
        """
        began = time.monotonic()
        try:
            answer = await self._servers.ask(key, command, once=once)
        except StateFull:
            self._full.n += 1
            raise
        except StateUnavailable:
            self._away.n += 1
            raise
        self._answered = time.monotonic()
        self._answers.add(self._answered - began)
        return answer

    @property
    def servers(self) -> Servers:
        """Where they are, for who listens."""
        return self._servers

    async def aclose(self) -> None:
        """Let go of every connection."""
        await self._servers.aclose()


def connect(url: str, cells: int = 1, meter: Meter | None = None) -> Keyspace:
    """The keys behind a REDIS_URL. Raises ValueError, which says what is wrong with it."""
    return Keyspace(servers(url, cells), cells, meter)


async def _as_far_as_possible(*questions: Coroutine[Any, Any, Answer]) -> list[Answer | None]:
    """The answers, None where there is none. Raises StateUnavailable only if there are none at all."""
    answers: list[Answer | None] = []
    failures: list[BaseException] = []
    for found in await asyncio.gather(*questions, return_exceptions=True):
        if isinstance(found, BaseException):
            if not isinstance(found, StateUnavailable) or len(failures) + 1 == len(questions):
                raise found
            failures.append(found)
            answers.append(None)
        else:
            answers.append(found)
    return answers


def _tags(cells: int) -> list[str]:
    """A hash tag for each cell, in slots that are as far from each other as can be: servers get equal shares.

    It says how many cells there are: workers that disagree see nothing of each other, rather than half of it.
    """
    if cells == 1:
        return ["c0"]
    tags = []
    for cell in range(cells):
        first, end = cell * SLOTS // cells, (cell + 1) * SLOTS // cells
        tags.append(
            next(tag for n in range(SLOTS * 100) if first <= key_slot((tag := f"c{cell}/{cells}.{n}").encode()) < end)
        )
    return tags


_CANARY = b"\xc1"
"""Begins no note: MessagePack has no such type."""


def _canary() -> bytes:
    """When it was sent; it comes back to the same clock."""
    return _CANARY + repr(time.monotonic()).encode()


async def living(keys: Keyspace) -> int:
    """How many workers hold a lease. Raises StateUnavailable."""
    leases = f"{keys.prefix(0)}workers"

    async def look(node: "redis.Redis") -> int:
        seconds, _ = await node.time()
        count: int = await node.zcount(leases, seconds * 1000, "+inf")
        return count

    count: int = await keys.ask(leases, look)
    return count


def _workers(flat: Sequence[bytes]) -> Workers:
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


class State:
    """Seats, Lease and Pool of `core.ports`, for one worker."""

    def __init__(self, keys: Keyspace, worker: str, *, session_ms: int, lease_ms: int, recent_ms: int) -> None:
        self._keys = keys
        self._worker = worker
        self._session_ms = session_ms
        self._lease_ms = lease_ms
        self._recent_ms = recent_ms
        self._token = new_id()
        self._up = [True] * keys.cells
        """Which cells took the last beat."""

    @property
    def cells(self) -> int:
        return self._keys.cells

    async def _run(self, script: str, about: str, *args: str | int | bytes) -> Any:
        return await self._keys.run(script, self._keys.of(about), about, *args)

    async def ping(self) -> None:
        """Prove that Redis answers."""
        await self._keys.ask(self._keys.prefix(0), lambda node: node.ping())

    # ------------------------------------------------------------------ seats

    def cell(self, guest: str) -> int:
        return self._keys.cell(guest)

    def new_guest(self) -> str:
        made = new_id()
        while any(self._up) and not self._up[self.cell(made)]:
            made = new_id()
        return made

    async def create(self, guest: Guest) -> None:
        key = f"{self._keys.of(guest.id)}guest:{guest.id}"

        async def begin(node: "redis.Redis") -> None:
            async with node.pipeline(transaction=True) as batch:
                batch.hset(key, "epoch", 0)
                batch.pexpire(key, self._session_ms)
                await batch.execute()

        await self._keys.ask(key, begin)

    async def connect(self, guest: Guest, claim: Record | None) -> Connected:
        claimed: tuple[str, str, bytes] = ("", "", b"")
        # One from before the number of cells was changed can be kept nowhere.
        if claim is not None and len({self.cell(one) for one in (claim.id, *(m.guest for m in claim.members))}) == 1:
            claimed = (claim.id, " ".join(m.guest for m in claim.members), _pack(claim))
        epoch, before, record, places, version, call, spent = await self._run(
            "connect", guest.id, self._worker, self._lease_ms, self._session_ms, *claimed
        )
        found = _record.decode(record) if record else None
        return Connected(epoch, before.decode(), found, _workers(places), version, call, bool(spent))

    async def connected(self, guest: str) -> bool:
        key = f"{self._keys.of(guest)}guest:{guest}"
        return bool(await self._keys.ask(key, lambda node: node.hget(key, "worker")))

    async def disconnect(self, guests: Sequence[tuple[str, int]]) -> list[Workers | None]:
        if not guests:
            return []
        flat: list[str | int] = [value for pair in guests for value in pair]
        answers = await self._keys.run("disconnect", self._keys.of(guests[0][0]), self._worker, *flat)
        return [None if places is None else _workers(places) for places in answers]

    async def touch(self, guests: Sequence[tuple[str, int]]) -> list[Touched]:
        if not guests:
            return []
        flat: list[str | int] = [value for pair in guests for value in pair]
        prefix = self._keys.of(guests[0][0])
        answers = await self._keys.run("touch", prefix, self._worker, self._lease_ms, self._session_ms, *flat)
        return [
            Touched(guest, state.decode(), conversation.decode(), bool(searching), _workers(places), int(call))
            for (guest, _), (state, conversation, searching, places, call) in zip(guests, answers, strict=True)
        ]

    async def end(
        self,
        conversation: str,
        by: str,
        *,
        away_for: int | None = None,
        lost: Record | None = None,
        part: bool = False,
    ) -> Workers | None:
        kept = (" ".join(m.guest for m in lost.members), _pack(lost)) if lost else ("", b"")
        goes = "all" if part else "by" if away_for is None else ""
        places = await self._run("end", conversation, by, "" if away_for is None else away_for, *kept, goes)
        return None if places is None else _workers(places)

    async def record(self, conversation: str, *, live: bool = False) -> Record | None:
        key = f"{self._keys.of(conversation)}conversation:{conversation}"
        state, record = await self._keys.ask(key, lambda node: node.hmget(key, "state", "record"))
        if record is None or (live and state != b"live"):
            return None
        return _record.decode(record)

    async def call(self, conversation: str) -> bytes | None:
        key = f"{self._keys.of(conversation)}conversation:{conversation}"
        found: bytes | None = await self._keys.ask(key, lambda node: node.hget(key, "call"))
        return found

    async def swap_call(self, conversation: str, before: int, after: int, state: bytes) -> bytes | None:
        outcome: bytes = await self._run("call", conversation, before, after, state)
        if outcome == b"lost":
            raise StateUnavailable("Redis has forgotten the conversation")
        if outcome == b"over":
            raise Refused("not_in_conversation")
        return None if outcome == b"ok" else outcome

    async def recent(self, guest: str) -> list[str]:
        key = f"{self._keys.of(guest)}met:{guest}"
        met = await self._keys.ask(key, lambda node: node.zrange(key, -100, -1))
        return [one.decode() for one in met]

    # ------------------------------------------------------------------ lease

    async def beat(self, stats: bytes, cell: int = 0) -> Beat:
        # In one place, or nobody could read them at once.
        told = stats if cell == 0 else b""
        try:
            reborn, dead, flat = await self._keys.run(
                "beat", self._keys.prefix(cell), self._worker, self._lease_ms, told
            )
        except StateUnavailable:
            self._up[cell] = False
            raise
        self._up[cell] = True
        return Beat(
            {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)},
            [worker.decode() for worker in dead],
            bool(reborn),
        )

    async def reap(self, worker: str, cell: int = 0) -> list[tuple[str, str, Workers]]:
        found: list[tuple[str, str, Workers]] = []
        left = 1
        while left:
            left, answers = await self._keys.run("reap", self._keys.prefix(cell), worker, REAPED_AT_ONCE)
            found += [
                (guest.decode(), conversation.decode(), _workers(places)) for guest, conversation, places in answers
            ]
        return found

    async def resign(self) -> None:
        async def leave(prefix: str) -> None:
            async def forget(node: "redis.Redis") -> None:
                async with node.pipeline(transaction=True) as batch:
                    batch.zrem(f"{prefix}workers", self._worker)
                    batch.hdel(f"{prefix}stats", self._worker)
                    batch.delete(f"{prefix}worker:{self._worker}")
                    await batch.execute()

            await self._keys.ask(prefix, forget)

        left = [leave(self._keys.prefix(cell)) for cell in range(self.cells)]
        for outcome in await asyncio.gather(*left, return_exceptions=True):
            if outcome is not None:
                raise outcome

    # ------------------------------------------------------------------ pool

    def queue(self, guest: str, mode: Mode) -> Queue:
        return Queue(mode, self.cell(guest))

    def new_conversation(self, queue: Queue) -> str:
        return self._keys.new_id(queue.cell)

    async def enter(self, queue: Queue, ticket: Ticket, member: Member, epoch: int) -> tuple[str, int]:
        packed = _pack(_Waiting(ticket, member))
        outcome, since = await self._run(
            "enter", ticket.guest, self._worker, self._lease_ms, epoch, queue.mode, ticket.id, packed
        )
        return outcome.decode(), int(since)

    async def leave(self, guest: str) -> None:
        await self._run("leave", guest)

    async def hold(self, queue: Queue) -> bool:
        key = f"{self._keys.prefix(queue.cell)}round:{queue.mode}"
        return bool(await self._keys.ask(key, lambda node: node.set(key, self._token, nx=True, px=ROUND_LEASE_MS)))

    async def release(self, queue: Queue) -> None:
        await self._keys.run("release", self._keys.prefix(queue.cell), queue.mode, self._token)

    async def waiting(self, queue: Queue) -> tuple[list[Ticket], dict[str, Member], int]:
        time, *flat = await self._keys.run("waiting", self._keys.prefix(queue.cell), queue.mode, TICKETS_READ)
        tickets: list[Ticket] = []
        members: dict[str, Member] = {}
        for i in range(0, len(flat), 3):
            if flat[i + 2]:
                found = _waiting.decode(flat[i + 2])
                tickets.append(msgspec.structs.replace(found.ticket, since=int(flat[i + 1])))
                members[found.ticket.guest] = found.member
        return tickets, members, int(time)

    async def claim(self, queue: Queue, proposals: Sequence[Proposal]) -> list[Workers | None]:
        outcomes: list[Workers | None] = []
        for start in range(0, len(proposals), CLAIMED_AT_ONCE):
            some = proposals[start : start + CLAIMED_AT_ONCE]
            args: list[str | bytes] = []
            for proposal in some:
                args += [proposal.record.id, _pack(proposal.record)]
                for member, ticket in zip(proposal.record.members, proposal.tickets, strict=True):
                    args += [member.guest, ticket]
            prefix = self._keys.prefix(queue.cell)
            answers = await self._keys.run("claim", prefix, self._session_ms, self._recent_ms, queue.mode, *args)
            for proposal, places in zip(some, answers, strict=True):
                if places is None:
                    outcomes.append(None)
                else:
                    guests = [member.guest for member in proposal.record.members]
                    outcomes.append({g: place.decode() for g, place in zip(guests, places, strict=True)})
        return outcomes


class Counters:
    """Counters of `core.ports`: a key of its own for each, which a cluster may keep anywhere but for a guest's."""

    def __init__(self, keys: Keyspace, worker: str) -> None:
        self._keys = keys
        self._worker = worker

    async def take(self, asked: Sequence[Count]) -> list[Counted]:
        if self._keys.servers.scattered:
            return await self._take_in_turn(asked)
        args = [arg for one in asked for arg in _as_asked(one)]
        flat = [int(n) for n in await self._keys.run_on_all("count", [self._key(one) for one in asked], *args)]
        return [Counted(wait_ms, left) for wait_ms, left in zip(flat[::2], flat[1::2], strict=True)]

    async def _take_in_turn(self, asked: Sequence[Count]) -> list[Counted]:
        """No script sees all of them: each is counted by itself, and undone if one that comes later does not fit."""
        answers: list[Counted] = []
        for one in asked:
            answers += await self.count([one])
            if answers[-1].wait_ms:
                done = [before for before, answer in zip(asked, answers[:-1], strict=False) if answer.counted]
                with suppress(StateUnavailable):
                    await self.count([msgspec.structs.replace(before, how="back") for before in done])
                break
        return answers

    async def count(self, asked: Sequence[Count]) -> list[Counted]:
        return (await self.enter(asked, (), 0))[0]

    async def present(self, told: Sequence[Present], kept_ms: int) -> list[dict[str, int]]:
        answers = await self._keys.run_each(self._presences(told, kept_ms), once=False)
        return [_by_worker(answer) for answer in answers]

    async def enter(
        self, asked: Sequence[Count], told: Sequence[Present], kept_ms: int
    ) -> tuple[list[Counted], list[dict[str, int]]]:
        calls: list[tuple[str, str, Sequence[str | int]]] = [("count", self._key(one), _as_asked(one)) for one in asked]
        # Once: an answer that got lost does not make anybody pay twice.
        answers = await self._keys.run_each(calls + self._presences(told, kept_ms), once=True)
        # Not counted where the server is away, or it would stop the guests of all others as well.
        counted = [
            Counted(0, one.most, counted=False) if answer is None else Counted(int(answer[0]), int(answer[1]))
            for one, answer in zip(asked, answers, strict=False)
        ]
        return counted, [_by_worker(answer) for answer in answers[len(asked) :]]

    def _key(self, one: Count) -> str:
        guest = one.name.partition(":guest:")[2]
        return f"{self._keys.of(guest) if guest else 'v:'}limit:{one.name}"

    def _presences(self, told: Sequence[Present], kept_ms: int) -> list[tuple[str, str, Sequence[str | int]]]:
        return [("present", f"v:present:{one.place}", (self._worker, one.connections, kept_ms)) for one in told]


def _as_asked(one: Count) -> tuple[str | int, ...]:
    return one.cost, one.most, one.window_ms, one.how


def _by_worker(answer: Sequence[Any] | None) -> dict[str, int]:
    """Connections by worker, as a flat list has them; none where the server is away."""
    flat = answer or ()
    return {worker.decode(): int(said) for worker, said in zip(flat[::2], flat[1::2], strict=True)}


class DirectedBus:
    """Notes between workers over sharded pub/sub: each worker listens on channels of its own, and only there.

    There is one channel for each cell, on the cell's own server: what is not to be heard with a server that is away
    is about nobody but the guests it has. All notes of one turn of the event loop go out in one message per worker and
    cell. A canary that the worker sends to itself every second tells a deaf link from a quiet one: after `silence`
    seconds without it the listener reconnects.
    """

    def __init__(
        self,
        keys: Keyspace,
        worker: str,
        *,
        beat: float = 1.0,
        silence: float = 3.0,
        most_unsent: int = 16_000_000,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or Unread()
        self._keys = keys
        self._silence = silence
        common = _Common(meter, most_unsent)
        self._lines = [
            _Line(keys.servers, keys.prefix(cell), worker, beat, silence, common) for cell in range(keys.cells)
        ]
        self._common = common

    @property
    def healthy(self) -> bool:
        """Whether this worker is heard, in half of the cells at least: see Liveness."""
        return sum(line.healthy for line in self._lines) * 2 >= len(self._lines)

    @property
    def dropped(self) -> int:
        """Notes that were not sent, or lost with the link."""
        return int(self._common.dropped.n)

    async def start(self, receive: Callable[[bytes], None], healed: Callable[[int], None]) -> None:
        """Begin to listen; returns once the channels are heard, raises StateUnavailable if most are not.

        `receive` gets each note; `healed` is called with a cell whenever its channel is heard again.
        """
        listening = [line.start(receive, partial(healed, cell)) for cell, line in enumerate(self._lines)]
        waiting = [asyncio.create_task(event.wait()) for event in listening]
        await asyncio.wait(waiting, timeout=self._silence)
        await tasks.end(waiting)
        if not self.healthy:
            await self.stop()
            raise StateUnavailable("the bus is not heard")

    async def stop(self) -> None:
        """Send what is unsent, then stop."""
        await asyncio.gather(*(line.stop() for line in self._lines))

    def send(self, worker: str, note: bytes, about: str) -> None:
        self._lines[self._keys.cell(about)].send(worker, note)


class _Common:
    """What the lines of a bus share: its counts, and the bytes they may yet keep unsent."""

    def __init__(self, meter: Meter, room: int) -> None:
        self.room = self.most = room
        self.lag = meter.durations("bus_lag")
        self.sent = meter.tally("bus_notes_sent")
        self.dropped = meter.tally("bus_notes_dropped")
        self.reconnects = meter.tally("bus_reconnects")


class _Line:
    """The bus of one cell: a connection of its own, in both directions."""

    def __init__(self, at: Servers, prefix: str, worker: str, beat: float, silence: float, common: _Common) -> None:
        self._servers = at
        self._prefix = prefix
        self._worker = worker
        self._beat = beat
        self._silence = silence
        self._common = common
        self._unsent: dict[str, list[bytes]] = {}
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._link: _Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.healthy = False

    def _channel(self, worker: str) -> bytes:
        return f"{self._prefix}bus:{worker}".encode()

    def start(self, receive: Callable[[bytes], None], healed: Callable[[], None]) -> asyncio.Event:
        """Begin to listen; the event is set once the channel is heard."""
        listening = asyncio.Event()
        self._tasks = [asyncio.get_running_loop().create_task(self._keep(listening, receive, healed))]
        return listening

    async def stop(self) -> None:
        """Send what is unsent, then stop."""
        self._flush()
        if self._unsent:
            log.warning("bus_notes_lost_at_stop")
        await tasks.end(self._tasks)

    def send(self, worker: str, note: bytes) -> None:
        if len(note) > self._common.room:
            self._common.dropped.n += 1
            return
        self._common.sent.n += 1
        if not self._unsent:
            self._unsent_since = time.monotonic()
            if self._link is not None:
                # At the end of this turn of the event loop, with whatever else it brings.
                asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.setdefault(worker, []).append(note)
        self._unsent_bytes += len(note)
        self._common.room -= len(note)

    def _flush(self) -> None:
        link = self._link
        if link is None or not self._unsent:
            return
        self._common.room += self._unsent_bytes
        unsent, self._unsent, self._unsent_bytes = self._unsent, {}, 0
        if time.monotonic() - self._unsent_since > STALE or link.unsent > self._common.most:
            # What was to be said then would not be true now; or the server has stopped reading.
            self._common.dropped.n += sum(map(len, unsent.values()))
            return
        for worker, notes in unsent.items():
            link.publish(self._channel(worker), _pack(notes), len(notes))

    async def _keep(
        self, listening: asyncio.Event, receive: Callable[[bytes], None], healed: Callable[[], None]
    ) -> None:
        """Keep a link, and when it is lost find another."""

        def hear(notes: list[bytes]) -> None:
            if not self.healthy:
                self.healthy = True
                listening.set()
                healed()
            for note in notes:
                if note[:1] == _CANARY:
                    self._common.lag.add(time.monotonic() - float(note[1:]))
                    continue
                try:
                    receive(note)
                except Exception:
                    log.exception("bus_note_failed")

        while True:
            error: Exception | None = None
            try:
                await self._carry(hear)
                log.warning("bus_silent")
            except (RedisError, OSError, TimeoutError) as lost:
                error = lost
                log.warning("bus_lost", extra={"why": type(error).__name__})
            except Exception:
                log.exception("bus_failed")
            self._common.reconnects.n += 1
            await self._servers.learn(error or TimeoutError(), 0.1)

    async def _carry(self, hear: Callable[[list[bytes]], None]) -> None:
        """Carry notes, both ways. Returns once nothing has been heard for too long; raises what ended the link."""
        node = await self._servers.owner(self._prefix)
        async with asyncio.timeout(self._silence):
            link = await _Link.open(node, self._channel(self._worker), hear)
        self._link = link
        stopping = False
        try:
            self._flush()
            quiet = 0.0
            # Counted in beats, not by the clock: that runs on while this process sleeps, and its mail waits.
            while quiet < self._silence:
                quiet += self._beat
                link.heard = False
                self.send(self._worker, _canary())
                await asyncio.wait((link.lost,), timeout=self._beat)
                if link.lost.done():
                    raise link.lost.result()
                if link.heard:
                    quiet = 0.0
                if await self._servers.owner(self._prefix) is not node:
                    raise redis.ConnectionError("another server has the channel")
        except asyncio.CancelledError:
            stopping = True
            raise
        finally:
            self._flush()
            self._link, self.healthy = None, False
            self._common.dropped.n += link.close(stopping=stopping)


class _Link(Taken):
    """A connection to the server that has a channel: hears it, and publishes. RESP3 lets one connection do both."""

    def __init__(self, hear: Callable[[list[bytes]], None]) -> None:
        super().__init__()
        self._hear = hear
        self._asked: deque[int] = deque()
        """How many notes each message has that the server has not confirmed."""
        self.heard = False
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """What ended it."""

    @classmethod
    async def open(cls, node: "redis.Redis", channel: bytes, hear: Callable[[list[bytes]], None]) -> "_Link":
        """Connect, and listen on the channel from then on. Raises RedisError or OSError."""
        link = cls(hear)
        await link.take(node)
        assert link._transport is not None
        link._transport.write(packed("HELLO", "3") + packed("SSUBSCRIBE", channel))
        link._asked.append(0)
        return link

    @property
    def unsent(self) -> int:
        """Bytes that the server has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def publish(self, channel: bytes, message: bytes, notes: int) -> None:
        self._asked.append(notes)
        if self._transport is not None:
            self._transport.write(packed("SPUBLISH", channel, message))

    def close(self, *, stopping: bool) -> int:
        """Let go of it; gives how many notes were not confirmed to have left the server.

        What is unwritten is written only if it is the worker that stops: a link gone dark would keep it for ever.
        """
        if self._transport is not None:
            (self._transport.close if stopping else self._transport.abort)()
        return sum(self._asked)

    def hear(self, said: Any) -> None:
        if isinstance(said, hiredis.PushNotification):
            if said[0] == b"smessage":
                self.heard = True
                try:
                    notes = _notes.decode(said[2])
                except msgspec.MsgspecError:
                    log.warning("bus_message_strange")
                else:
                    self._hear(notes)
            elif said[0] == b"sunsubscribe":
                self.end(redis.ConnectionError("the channel has gone to another server"))
        elif isinstance(said, RedisError):
            self.end(said)
        elif self._asked:
            self._asked.popleft()

    def end(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        if self._transport is not None:
            self._transport.close()


class Recorders:
    """Recorders and RecorderLease of `core.ports`: which recorders there are, and who has a place at them."""

    def __init__(self, keys: Keyspace, recorder: str = "", *, lease_ms: int = 5000) -> None:
        """`recorder` is the one whose lease this is; workers have none."""
        self._keys = keys
        self._prefix = keys.recorders
        self._recorder = recorder
        self._lease_ms = lease_ms

    async def claim(self, recording: str) -> str | None:
        found: bytes | None = await self._keys.run("recorder_claim", self._prefix, recording)
        return None if found is None else found.decode()

    async def release(self, recorder: str, recording: str) -> None:
        key = f"{self._prefix}made:{recorder}"
        await self._keys.ask(key, lambda node: node.hdel(key, recording))

    async def makes(self, recorder: str, recording: str) -> bool:
        key = f"{self._prefix}made:{recorder}"
        return bool(await self._keys.ask(key, lambda node: node.hexists(key, recording)))

    async def loads(self) -> dict[str, bytes]:
        everyone = f"{self._prefix}recorders"
        names = [name.decode() for name in await self._keys.ask(everyone, lambda node: node.zrange(everyone, 0, -1))]

        async def read(node: "redis.Redis") -> list[bytes | None]:
            async with node.pipeline(transaction=False) as batch:
                for name in names:
                    batch.hget(f"{self._prefix}recorder:{name}", "load")
                answers: list[bytes | None] = await batch.execute()
                return answers

        loads = await self._keys.ask(self._prefix, read) if names else []
        return {name: load for name, load in zip(names, loads, strict=True) if load is not None}

    async def beat(self, places: int, load: bytes, running: Sequence[str]) -> list[str]:
        withdrawn = await self._keys.run(
            "recorder_beat", self._prefix, self._recorder, self._lease_ms, places, load, *running
        )
        return [recording.decode() for recording in withdrawn]

    async def done(self, recording: str) -> None:
        await self.release(self._recorder, recording)

    async def resign(self) -> None:
        async def leave(node: "redis.Redis") -> None:
            async with node.pipeline(transaction=True) as batch:
                batch.zrem(f"{self._prefix}recorders", self._recorder)
                batch.delete(f"{self._prefix}recorder:{self._recorder}")
                await batch.execute()

        await self._keys.ask(self._prefix, leave)

    async def worker_of(self, guest: str) -> str:
        key = f"{self._keys.of(guest)}guest:{guest}"
        found: bytes | None = await self._keys.ask(key, lambda node: node.hget(key, "worker"))
        return found.decode() if found else ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a server tells of itself. Sizes are bytes, times seconds."""

    address: str
    version: str
    name: str
    cluster: bool
    role: str
    replicas: int
    memory: int
    most_memory: int
    """0 is no limit."""
    policy: str
    commands_per_second: int
    evicted: int
    saves: bool
    """It writes snapshots or a log to a disk."""
    last_save_failed: bool
    took: float
    """The quickest way there and back."""
    clock_off: float
    """Its clock's lead over this machine's, known to half of `took`."""


async def _told(pings: int, node: "redis.Redis") -> Told:
    ways: list[tuple[float, float]] = []
    for _ in range(pings):
        began, at = time.perf_counter(), time.time()
        seconds, micro = await node.time()
        took = time.perf_counter() - began
        ways.append((took, seconds + micro / 1_000_000 - at - took / 2))
    # The quickest says most of the way, and of the clock; the others had to wait, perhaps for this process itself.
    took, clock_off = min(ways)
    info: dict[str, Any] = await node.info("everything")
    return Told(
        address=_address(node),
        version=str(info.get("valkey_version") or info.get("redis_version", "0")),
        name="Valkey" if "valkey_version" in info else "Redis",
        cluster=bool(info.get("cluster_enabled")),
        role=str(info.get("role", "")),
        replicas=int(info.get("connected_slaves", 0)),
        memory=int(info.get("used_memory", 0)),
        most_memory=int(info.get("maxmemory", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        commands_per_second=int(info.get("instantaneous_ops_per_sec", 0)),
        evicted=int(info.get("evicted_keys", 0)),
        saves=bool(info.get("aof_enabled")) or bool(info.get("rdb_saves")),
        last_save_failed="err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")),
        took=took,
        clock_off=clock_off,
    )


async def _memory(node: "redis.Redis") -> tuple[str, tuple[int, int]]:
    info: dict[str, Any] = await node.info("memory")
    return _address(node), (int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))


def _address(node: "redis.Redis") -> str:
    there = node.connection_pool.connection_kwargs
    return str(there.get("path") or f"{there.get('host')}:{there.get('port')}")


class Watch:
    """What an operator looks at: how Redis is, and what workers and recorders leave of themselves. Changes nothing."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys
        self._prefix = keys.prefix(0)
        self._prefixes = [*(keys.prefix(cell) for cell in range(keys.cells)), keys.recorders]

    async def told(self, pings: int = 1) -> list[Told]:
        """Ask every server that has a cell, or the recorders. Raises StateUnavailable."""
        told = await asyncio.gather(*(self._keys.ask(prefix, partial(_told, pings)) for prefix in self._prefixes))
        return [one for _, one in sorted({server.address: server for server in told}.items())]

    async def memory(self) -> dict[str, tuple[int, int]]:
        """The bytes that each of the same servers uses, and may use at most, 0 without a limit; by address.

        Raises StateUnavailable.
        """
        told = await asyncio.gather(*(self._keys.ask(prefix, _memory) for prefix in self._prefixes))
        return dict(sorted(told))

    async def counted(self, name: str) -> bool:
        """Whether something was counted under this name of late. Raises StateUnavailable."""
        key = f"v:limit:{name}"
        return bool(await self._keys.ask(key, lambda node: node.exists(key)))

    async def workers(self) -> dict[str, tuple[float, bytes]]:
        """Each worker's share, and the seconds for which its lease still holds. Raises StateUnavailable."""

        async def read(node: "redis.Redis") -> list[Any]:
            async with node.pipeline(transaction=False) as batch:
                batch.time()
                batch.zrange(f"{self._prefix}workers", 0, -1, withscores=True)
                batch.hgetall(f"{self._prefix}stats")
                answers: list[Any] = await batch.execute()
                return answers

        (seconds, micro), leases, shares = await self._keys.ask(self._prefix, read)
        now = seconds + micro / 1_000_000
        return {name.decode(): (until / 1000 - now, shares.get(name, b"{}")) for name, until in leases}


class Ledger:
    """Ledger of `core.ports`: what all workers know of files."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    async def _run(self, script: str, file: str, *args: str | int | bytes) -> Any:
        return await self._keys.run(script, self._keys.of(file), file, *args)

    def new_file(self, conversation: str) -> str:
        return self._keys.new_id(self._keys.cell(conversation))

    async def begin(self, upload: Upload, now: int, give_up_at: int, per_minute: int, together: int) -> None:
        u = upload
        outcome, wait = await self._run(
            "file_begin", u.file, u.guest, u.conversation, u.name.encode(), u.bytes, int(u.voice),
            now, u.expires_at, give_up_at, per_minute, together,
        )  # fmt: skip
        match outcome:
            case b"rate_limited":
                raise Refused("rate_limited", retryInMs=max(1, int(wait)))
            case b"too_many_files":
                raise Refused("too_many_files", limit=together)
            case b"not_in_conversation":
                raise Refused("not_in_conversation")

    async def upload(self, file: str) -> Upload | None:
        key = f"{self._keys.of(file)}file:{file}"
        found: dict[bytes, bytes] = await self._keys.ask(key, lambda node: node.hgetall(key))
        if b"phase" not in found or b"guest" not in found:
            return None
        return Upload(
            file=file,
            guest=found[b"guest"].decode(),
            conversation=found[b"conversation"].decode(),
            name=found[b"name"].decode(),
            bytes=int(found[b"bytes"]),
            voice=found[b"voice"] == b"1",
            expires_at=int(found[b"expires_at"]),
            phase=found[b"phase"].decode(),
            offset=int(found[b"offset"]),
            parts=tuple(found.get(b"parts", b"").decode().split()),
            since=int(found.get(b"since", b"0")),
            problem=found.get(b"problem", b"").decode(),
            limit=int(found.get(b"limit", b"-1")),
            shared=_shared.decode(found[b"shared"]) if found.get(b"shared") else None,
        )

    async def append(
        self, file: str, offset: int, size: int, part: str, *, now: int, give_up_at: int, check_at: int, most: int
    ) -> tuple[int, bool] | None:
        stands, ours = await self._run("file_commit", file, offset, size, part, now, give_up_at, check_at, most)
        return None if stands < 0 else (int(stands), bool(ours))

    async def check(self, file: str, token: str, lease_ms: int) -> int:
        return int(await self._run("file_check", file, token, lease_ms))

    async def checked(
        self, file: str, token: str, outcome: SharedFile | Refused | None, due: int
    ) -> Literal["ok", "lost", "gone"]:
        told: tuple[str, str, int, bytes]
        if outcome is None:
            told = ("checking", "", -1, b"")
        elif isinstance(outcome, Refused):
            told = ("refused", outcome.code, int(outcome.data.get("limit", -1)), b"")
        else:
            told = ("ready", "", -1, _pack(outcome))
        said: Literal["ok", "lost", "gone"] = (await self._run("file_checked", file, token, *told, due)).decode()
        return said

    async def drop(self, file: str, now: int, *, owner: str = "") -> Dropped:
        found: bytes | None = await self._run("file_drop", file, owner, now)
        if found is None:
            return "stays"
        if found == b"held":
            return "held"
        return "check" if found == b"check" else tuple(found.decode().split())

    async def forget(self, file: str) -> None:
        prefix = self._keys.of(file)

        async def leave(node: "redis.Redis") -> None:
            async with node.pipeline(transaction=True) as batch:
                batch.zrem(f"{prefix}files", file)
                batch.delete(f"{prefix}file:{file}", f"{prefix}checking:{file}")
                await batch.execute()

        await self._keys.ask(prefix, leave)

    async def open(self, file: str, guest: str, conversation: str, now: int) -> SharedFile | None:
        found: bytes | None = await self._run("file_open", file, guest, conversation, now)
        return None if found is None else _shared.decode(found)

    async def due(self, now: int, most: int) -> list[str]:
        async def of(cell: int) -> list[bytes]:
            key = f"{self._keys.prefix(cell)}files"
            found: list[bytes] = await self._keys.ask(
                key, lambda node: node.zrangebyscore(key, "-inf", now, start=0, num=most)
            )
            return found

        found = await _as_far_as_possible(*(of(cell) for cell in range(self._keys.cells)))
        return [one.decode() for some in found for one in some or ()]

    async def sweeps(self, ms: int) -> bool:
        return bool(await self._keys.run("file_sweep", "v:sweeping", ms))


class Board:
    """Board of `core.ports`: the metrics of each worker, for all."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys

    async def leave(self, name: str, text: bytes, ms: int) -> None:
        key = f"v:metrics:{name}"
        await self._keys.ask(key, lambda node: node.set(key, text, px=ms))

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        async def look(key: str) -> bytes | None:
            found: bytes | None = await self._keys.ask(key, lambda node: node.get(key))
            return found

        texts = await _as_far_as_possible(*(look(f"v:metrics:{name}") for name in names))
        return {name: text for name, text in zip(names, texts, strict=True) if text is not None}
