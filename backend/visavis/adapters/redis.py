"""Redis: seats, the waiting pool, leases and limits, and the directed bus between workers.

Hides keys, scripts and reconnecting. Every change that must not be seen half done is one Lua script
(`lua/`, each put behind the prelude); scripts reload by themselves after SCRIPT FLUSH. Redis going away
shows as StateUnavailable; what the bus loses meanwhile is healed by its users.

Keys, all under `v:`, all with a TTL or named reason:
  guest:{id}          hash: epoch, worker, away, conversation, stays, pool, ticket (session TTL, sliding); `stays`
                      is an ended conversation that the guest has not gone from yet
  conversation:{id}   hash: state, members, record, call, call_version, gone, files_until (session TTL while live, after
                      its end an hour, or as long as it has files); `gone` are members who went from it for good
  at:{worker}         set: guests connected there (session TTL)
  worker:{worker}     the lease itself (lease TTL)
  workers             sorted set: worker by expiry (members leave when found expired)
  stats               hash: worker's statistics (fields leave with the worker)
  waiting:{mode}      sorted set: guest by arrival (members leave with the connection or its worker)
  tickets:{mode}      hash: guest's ticket (as above)
  round:{mode}        who runs the pool's round (2 s)
  met:{guest}         sorted set: recent partners (TTL of the setting)
  limit:{name}        counters (their window)
  recorders           sorted set: recorder by expiry (members leave when found expired)
  recorder:{id}       hash: places, load (lease TTL)
  made:{recorder}     hash: recording by the time it got its place there (TTL of a day, from the recorder's last beat)
  file:{id}           hash: guest, conversation, name, bytes, voice, expires_at, phase, offset, parts, count, since,
                      tries, problem, limit, shared, checked_by (TTL of an hour more than it is kept)
  files               sorted set: file by when it is due, by the workers' clocks (members leave with the file's bytes)
  files_of:{guest}    sorted set: file:bytes by expiry (TTL of the last)
  files_in:{talk}     set: files of a conversation (TTL of an hour more than the last)
  begun:{guest}       list: when uploads were begun, newest first (TTL of a minute)
  checking:{file}     who checks the file (lease TTL)
  sweeping            who sweeps (TTL until the next sweep)
  metrics:{worker}    its metrics, compressed (TTL of 15 s)
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import OutOfMemoryError, RedisError

from visavis.contract import Mode, Refused, SharedFile
from visavis.core import tasks
from visavis.core.identity import Guest, new_id
from visavis.core.matching import Ticket
from visavis.core.ports import (
    Beat,
    Connected,
    Dropped,
    Member,
    Meter,
    Proposal,
    Record,
    StateFull,
    StateUnavailable,
    Touched,
    Upload,
    Workers,
)
from visavis.core.tally import Unread

log = logging.getLogger(__name__)

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
_LOOKS = 3
"""Times the bus's listener looks in vain before it takes the link for deaf."""

_pack = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(Record)
_shared = msgspec.msgpack.Decoder(SharedFile)


class _Waiting(msgspec.Struct, frozen=True, array_like=True):
    ticket: Ticket
    member: Member


_waiting = msgspec.msgpack.Decoder(_Waiting)


def _scripts(client: "redis.Redis") -> dict[str, AsyncScript]:
    """Every script, behind the prelude; one is sent to Redis when it is first called."""
    prelude = (_LUA / "prelude.lua").read_text(encoding="utf-8")
    made: dict[str, AsyncScript] = {}
    for path in _LUA.glob("*.lua"):
        if path.stem != "prelude":
            flags = " flags=allow-oom" if path.stem in _ALLOW_OOM else ""
            made[path.stem] = client.register_script(f"#!lua{flags}\n{prelude}\n{path.read_text(encoding='utf-8')}")
    return made


def connect(url: str) -> "redis.Redis":
    """A client for commands: bounded pool that waits, short time-outs, no pickle anywhere."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=2,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), 2),
        retry_on_error=[redis.BusyLoadingError],
    )
    # Owned by the client, which closes it with itself.
    return redis.Redis.from_pool(pool)


_CANARY = b"\xc1"
"""Begins no note: MessagePack has no such type."""


def _canary() -> bytes:
    """When it was sent; it comes back to the same clock."""
    return _CANARY + repr(time.monotonic()).encode()


def _workers(flat: Sequence[bytes]) -> Workers:
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


class _Asking:
    """Asks Redis, counts what goes wrong and times what does not."""

    def __init__(self, meter: Meter | None) -> None:
        meter = meter or Unread()
        self._answers = meter.durations("redis")
        self._away = meter.tally("redis_errors", kind="away")
        self._full = meter.tally("redis_errors", kind="full")

    async def __call__(self, command: Awaitable[Any]) -> Any:
        """The answer. Raises StateFull, StateUnavailable."""
        began = time.monotonic()
        try:
            answer = await command
        except OutOfMemoryError as error:
            self._full.n += 1
            raise StateFull from error
        except (RedisError, OSError, TimeoutError) as error:
            self._away.n += 1
            raise StateUnavailable(f"{type(error).__name__}: {error}") from error
        self._answers.add(time.monotonic() - began)
        return answer


class State:
    """Seats, Lease and Pool of `core.ports`, for one worker."""

    def __init__(
        self,
        client: "redis.Redis",
        worker: str,
        *,
        session_ms: int,
        lease_ms: int,
        recent_ms: int,
        meter: Meter | None = None,
    ) -> None:
        self._redis = client
        self._worker = worker
        self._session_ms = session_ms
        self._lease_ms = lease_ms
        self._recent_ms = recent_ms
        self._token = new_id()
        self._scripts = _scripts(client)
        self._ask = _Asking(meter)

    async def _run(self, script: str, *args: str | int | bytes) -> Any:
        return await self._ask(self._scripts[script](args=args))

    async def ping(self) -> None:
        """Prove that Redis answers."""
        await self._ask(self._redis.ping())

    # ------------------------------------------------------------------ seats

    async def create(self, guest: Guest) -> None:
        key = f"v:guest:{guest.id}"

        async def begin() -> None:
            async with self._redis.pipeline(transaction=True) as batch:
                batch.hset(key, "epoch", 0)
                batch.pexpire(key, self._session_ms)
                await batch.execute()

        await self._ask(begin())

    async def connect(self, guest: Guest, claim: Record | None) -> Connected:
        claimed: tuple[str, str, bytes] = ("", "", b"")
        if claim is not None:
            claimed = (claim.id, " ".join(m.guest for m in claim.members), _pack(claim))
        epoch, before, record, places, version, call = await self._run(
            "connect", guest.id, self._worker, self._lease_ms, self._session_ms, *claimed
        )
        return Connected(
            epoch, before.decode(), _record.decode(record) if record else None, _workers(places), version, call
        )

    async def disconnect(self, guest: str, epoch: int) -> Workers | None:
        places = await self._run("disconnect", guest, self._worker, epoch)
        return None if places is None else _workers(places)

    async def touch(self, guests: Sequence[tuple[str, int]]) -> list[Touched]:
        if not guests:
            return []
        flat: list[str | int] = [value for pair in guests for value in pair]
        answers = await self._run("touch", self._worker, self._lease_ms, self._session_ms, *flat)
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
        state, record = await self._ask(self._redis.hmget(f"v:conversation:{conversation}", "state", "record"))
        if record is None or (live and state != b"live"):
            return None
        return _record.decode(record)

    async def call(self, conversation: str) -> bytes | None:
        found: bytes | None = await self._ask(self._redis.hget(f"v:conversation:{conversation}", "call"))
        return found

    async def swap_call(self, conversation: str, before: int, after: int, state: bytes) -> bytes | None:
        outcome: bytes = await self._run("call", conversation, before, after, state)
        if outcome == b"lost":
            raise StateUnavailable("Redis has forgotten the conversation")
        if outcome == b"over":
            raise Refused("not_in_conversation")
        return None if outcome == b"ok" else outcome

    async def recent(self, guest: str) -> list[str]:
        met = await self._ask(self._redis.zrange(f"v:met:{guest}", -100, -1))
        return [one.decode() for one in met]

    # ------------------------------------------------------------------ lease

    async def beat(self, stats: bytes) -> Beat:
        reborn, dead, flat = await self._run("beat", self._worker, self._lease_ms, stats)
        return Beat(
            {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)},
            [worker.decode() for worker in dead],
            bool(reborn),
        )

    async def reap(self, worker: str) -> list[tuple[str, str, Workers]]:
        found: list[tuple[str, str, Workers]] = []
        left = 1
        while left:
            left, answers = await self._run("reap", worker, REAPED_AT_ONCE)
            found += [
                (guest.decode(), conversation.decode(), _workers(places)) for guest, conversation, places in answers
            ]
        return found

    async def resign(self) -> None:
        async def leave() -> None:
            async with self._redis.pipeline(transaction=True) as batch:
                batch.zrem("v:workers", self._worker)
                batch.hdel("v:stats", self._worker)
                batch.delete(f"v:worker:{self._worker}")
                await batch.execute()

        await self._ask(leave())

    # ------------------------------------------------------------------ pool

    async def enter(self, mode: Mode, ticket: Ticket, member: Member, epoch: int) -> tuple[str, int]:
        packed = _pack(_Waiting(ticket, member))
        outcome, since = await self._run(
            "enter", ticket.guest, self._worker, self._lease_ms, epoch, mode, ticket.id, packed
        )
        return outcome.decode(), int(since)

    async def leave(self, guest: str) -> None:
        await self._run("leave", guest)

    async def hold(self, mode: Mode) -> bool:
        held = await self._ask(self._redis.set(f"v:round:{mode}", self._token, nx=True, px=ROUND_LEASE_MS))
        return bool(held)

    async def release(self, mode: Mode) -> None:
        await self._run("release", mode, self._token)

    async def waiting(self, mode: Mode) -> tuple[list[Ticket], dict[str, Member], int]:
        time, *flat = await self._run("waiting", mode, TICKETS_READ)
        tickets: list[Ticket] = []
        members: dict[str, Member] = {}
        for i in range(0, len(flat), 3):
            if flat[i + 2]:
                found = _waiting.decode(flat[i + 2])
                tickets.append(msgspec.structs.replace(found.ticket, since=int(flat[i + 1])))
                members[found.ticket.guest] = found.member
        return tickets, members, int(time)

    async def claim(self, mode: Mode, proposals: Sequence[Proposal]) -> list[Workers | None]:
        outcomes: list[Workers | None] = []
        for start in range(0, len(proposals), CLAIMED_AT_ONCE):
            some = proposals[start : start + CLAIMED_AT_ONCE]
            args: list[str | bytes] = []
            for proposal in some:
                args += [proposal.record.id, _pack(proposal.record)]
                for member, ticket in zip(proposal.record.members, proposal.tickets, strict=True):
                    args += [member.guest, ticket]
            answers = await self._run("claim", self._session_ms, self._recent_ms, mode, *args)
            for proposal, places in zip(some, answers, strict=True):
                if places is None:
                    outcomes.append(None)
                else:
                    guests = [member.guest for member in proposal.record.members]
                    outcomes.append({g: place.decode() for g, place in zip(guests, places, strict=True)})
        return outcomes

    # ------------------------------------------------------------------ limits

    async def allow(self, name: str, limit: int, window_ms: int) -> int:
        """Count one against a limit shared by all workers; 0 if within it, else ms until it starts afresh."""
        return int(await self._run("allow", name, limit, window_ms))


class DirectedBus:
    """Notes between workers over pub/sub: each worker listens on a channel of its own, and only there.

    All notes of one turn of the event loop go out in one pipeline, a message per worker. A canary that the
    worker sends to itself every second tells a deaf link from a quiet one: after `silence` seconds without
    it the listener reconnects, and `healthy` is False meanwhile.
    """

    def __init__(
        self,
        client: "redis.Redis",
        worker: str,
        *,
        beat: float = 1.0,
        silence: float = 3.0,
        most_unsent: int = 16_000_000,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or Unread()
        self._lag = meter.durations("bus_lag")
        self._sent = meter.tally("bus_notes_sent")
        self._dropped = meter.tally("bus_notes_dropped")
        self._reconnects = meter.tally("bus_reconnects")
        self._redis = client
        self._worker = worker
        self._beat = beat
        self._silence = silence
        self._most_unsent = most_unsent
        self._unsent: dict[str, list[bytes]] = {}
        self._unsent_bytes = 0
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.healthy = False

    @property
    def dropped(self) -> int:
        """Notes that were not sent, or lost with the link."""
        return int(self._dropped.n)

    @staticmethod
    def _channel(worker: str) -> str:
        return f"v:bus:{worker}"

    async def start(self, receive: Callable[[bytes], None], healed: Callable[[], None]) -> None:
        """Begin to listen; returns once the channel is heard, raises StateUnavailable if it is not.

        `receive` gets each note; `healed` is called whenever the channel is heard again.
        """
        loop = asyncio.get_running_loop()
        listening = asyncio.Event()
        self._tasks = [
            loop.create_task(self._listen(listening, receive, healed)),
            loop.create_task(self._speak()),
            loop.create_task(self._sing()),
        ]
        try:
            await asyncio.wait_for(listening.wait(), self._silence)
        except TimeoutError:
            await self.stop()
            raise StateUnavailable("the bus is not heard") from None

    async def stop(self) -> None:
        """Send what is unsent, then stop."""
        if self._unsent and not self._tasks[1].done():
            try:
                await asyncio.wait_for(self._flush(), 1)
            except (RedisError, OSError, TimeoutError):
                log.warning("bus_notes_lost_at_stop")
        await tasks.end(self._tasks)

    def send(self, worker: str, note: bytes) -> None:
        if self._unsent_bytes + len(note) > self._most_unsent:
            self._dropped.n += 1
            return
        self._sent.n += 1
        self._unsent.setdefault(worker, []).append(note)
        self._unsent_bytes += len(note)
        self._wanted.set()

    async def _flush(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, {}, 0
        try:
            async with self._redis.pipeline(transaction=False) as batch:
                for worker, notes in unsent.items():
                    batch.publish(self._channel(worker), _pack(notes))
                await batch.execute()
        except BaseException:
            self._dropped.n += sum(map(len, unsent.values()))
            raise

    async def _speak(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._flush()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("bus_notes_lost", extra={"why": type(error).__name__})
            except Exception:
                log.exception("bus_notes_lost")

    async def _sing(self) -> None:
        while True:
            self.send(self._worker, _canary())
            await asyncio.sleep(self._beat)

    async def _listen(
        self, listening: asyncio.Event, receive: Callable[[bytes], None], healed: Callable[[], None]
    ) -> None:
        decoder = msgspec.msgpack.Decoder(list[bytes])
        while True:
            ears = self._redis.pubsub()
            try:
                await asyncio.wait_for(ears.subscribe(self._channel(self._worker)), self._silence)
                # Counted in looks, not by the clock: that runs on while this process sleeps, and its mail waits.
                looks = _LOOKS
                while looks:
                    message = await ears.get_message(timeout=self._silence / _LOOKS)
                    if message is None:
                        looks -= 1
                        continue
                    looks = _LOOKS
                    if message["type"] != "message":
                        self.send(self._worker, _canary())
                        continue
                    if not self.healthy:
                        self.healthy = True
                        listening.set()
                        healed()
                    for note in decoder.decode(message["data"]):
                        if note[:1] == _CANARY:
                            self._lag.add(time.monotonic() - float(note[1:]))
                        else:
                            receive(note)
                log.warning("bus_silent")
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("bus_lost", extra={"why": type(error).__name__})
            except Exception:
                log.exception("bus_note_failed")
            finally:
                self.healthy = False
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    await asyncio.wait_for(ears.aclose(), 1)  # type: ignore[no-untyped-call]  # untyped upstream
            self._reconnects.n += 1
            await asyncio.sleep(0.1)


class Recorders:
    """Recorders and RecorderLease of `core.ports`: which recorders there are, and who has a place at them."""

    def __init__(
        self, client: "redis.Redis", recorder: str = "", *, lease_ms: int = 5000, meter: Meter | None = None
    ) -> None:
        """`recorder` is the one whose lease this is; workers have none."""
        self._redis = client
        self._recorder = recorder
        self._lease_ms = lease_ms
        self._scripts = _scripts(client)
        self._ask = _Asking(meter)

    async def claim(self, recording: str) -> str | None:
        found: bytes | None = await self._ask(self._scripts["recorder_claim"](args=[recording]))
        return None if found is None else found.decode()

    async def release(self, recorder: str, recording: str) -> None:
        await self._ask(self._redis.hdel(f"v:made:{recorder}", recording))

    async def makes(self, recorder: str, recording: str) -> bool:
        return bool(await self._ask(self._redis.hexists(f"v:made:{recorder}", recording)))

    async def loads(self) -> dict[str, bytes]:
        names = [name.decode() for name in await self._ask(self._redis.zrange("v:recorders", 0, -1))]

        async def read() -> list[bytes | None]:
            async with self._redis.pipeline(transaction=False) as batch:
                for name in names:
                    batch.hget(f"v:recorder:{name}", "load")
                answers: list[bytes | None] = await batch.execute()
                return answers

        loads = await self._ask(read()) if names else []
        return {name: load for name, load in zip(names, loads, strict=True) if load is not None}

    async def beat(self, places: int, load: bytes, running: Sequence[str]) -> list[str]:
        args: list[str | int | bytes] = [self._recorder, self._lease_ms, places, load, *running]
        withdrawn = await self._ask(self._scripts["recorder_beat"](args=args))
        return [recording.decode() for recording in withdrawn]

    async def done(self, recording: str) -> None:
        await self.release(self._recorder, recording)

    async def resign(self) -> None:
        async def leave() -> None:
            async with self._redis.pipeline(transaction=True) as batch:
                batch.zrem("v:recorders", self._recorder)
                batch.delete(f"v:recorder:{self._recorder}")
                await batch.execute()

        await self._ask(leave())

    async def worker_of(self, guest: str) -> str:
        found: bytes | None = await self._ask(self._redis.hget(f"v:guest:{guest}", "worker"))
        return found.decode() if found else ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis tells of itself. Sizes are bytes, times seconds."""

    version: str
    name: str
    role: str
    replicas: int
    seconds_up: int
    memory: int
    most_memory: int
    """0 is no limit."""
    policy: str
    commands_per_second: int
    clients: int
    evicted: int
    saves: bool
    """It writes snapshots or a log to a disk."""
    last_save_failed: bool
    took: float
    """The median way there and back."""
    clock_off: float
    """Its clock's lead over this machine's, known to half of `took`."""


class Watch:
    """What an operator looks at: how Redis is, and what workers and recorders leave of themselves. Changes nothing."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client
        self._ask = _Asking(None)

    async def told(self, pings: int = 1) -> Told:
        """Ask it. Raises StateUnavailable."""
        ways: list[tuple[float, float]] = []
        for _ in range(pings):
            began, at = time.perf_counter(), time.time()
            seconds, micro = await self._ask(self._redis.time())
            took = time.perf_counter() - began
            ways.append((took, seconds + micro / 1_000_000 - at - took / 2))
        took, clock_off = sorted(ways)[len(ways) // 2]
        info: dict[str, Any] = await self._ask(self._redis.info("everything"))
        return Told(
            version=str(info.get("valkey_version") or info.get("redis_version", "0")),
            name="Valkey" if "valkey_version" in info else "Redis",
            role=str(info.get("role", "")),
            replicas=int(info.get("connected_slaves", 0)),
            seconds_up=int(info.get("uptime_in_seconds", 0)),
            memory=int(info.get("used_memory", 0)),
            most_memory=int(info.get("maxmemory", 0)),
            policy=str(info.get("maxmemory_policy", "")),
            commands_per_second=int(info.get("instantaneous_ops_per_sec", 0)),
            clients=int(info.get("connected_clients", 0)),
            evicted=int(info.get("evicted_keys", 0)),
            saves=bool(info.get("aof_enabled")) or bool(info.get("rdb_last_save_time") and info.get("rdb_saves")),
            last_save_failed="err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")),
            took=took,
            clock_off=clock_off,
        )

    async def workers(self) -> dict[str, tuple[float, bytes]]:
        """Each worker's share, and the seconds for which its lease still holds. Raises StateUnavailable."""

        async def read() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as batch:
                batch.time()
                batch.zrange("v:workers", 0, -1, withscores=True)
                batch.hgetall("v:stats")
                answers: list[Any] = await batch.execute()
                return answers

        (seconds, micro), leases, shares = await self._ask(read())
        now = seconds + micro / 1_000_000
        return {name.decode(): (until / 1000 - now, shares.get(name, b"{}")) for name, until in leases}


class Ledger:
    """Ledger of `core.ports`: what all workers know of files."""

    def __init__(self, client: "redis.Redis", meter: Meter | None = None) -> None:
        self._redis = client
        self._scripts = _scripts(client)
        self._ask = _Asking(meter)

    async def _run(self, script: str, *args: str | int | bytes) -> Any:
        return await self._ask(self._scripts[script](args=args))

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
        found: dict[bytes, bytes] = await self._ask(self._redis.hgetall(f"v:file:{file}"))
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
        async def leave() -> None:
            async with self._redis.pipeline(transaction=True) as batch:
                batch.zrem("v:files", file)
                batch.delete(f"v:file:{file}", f"v:checking:{file}")
                await batch.execute()

        await self._ask(leave())

    async def open(self, file: str, guest: str, conversation: str, now: int) -> SharedFile | None:
        found: bytes | None = await self._run("file_open", file, guest, conversation, now)
        return None if found is None else _shared.decode(found)

    async def due(self, now: int, most: int) -> list[str]:
        found = await self._ask(self._redis.zrangebyscore("v:files", "-inf", now, start=0, num=most))
        return [one.decode() for one in found]

    async def sweeps(self, ms: int) -> bool:
        return bool(await self._run("file_sweep", ms))


class Board:
    """Board of `core.ports`: the metrics of each worker, for all."""

    def __init__(self, client: "redis.Redis", meter: Meter | None = None) -> None:
        self._redis = client
        self._ask = _Asking(meter)

    async def leave(self, name: str, text: bytes, ms: int) -> None:
        await self._ask(self._redis.set(f"v:metrics:{name}", text, px=ms))

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        async def look() -> list[bytes | None]:
            async with self._redis.pipeline(transaction=False) as batch:
                for name in names:
                    batch.get(f"v:metrics:{name}")
                found: list[bytes | None] = await batch.execute()
                return found

        texts = await self._ask(look()) if names else []
        return {name: text for name, text in zip(names, texts, strict=True) if text is not None}
