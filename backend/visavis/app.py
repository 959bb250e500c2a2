"""The composition root: every part is built here, by constructor, and lives and ends here."""

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from aiohttp import web

from visavis import VERSION, contract, describe, logs
from visavis.adapters import machine, turn
from visavis.adapters.disk import DiskBlobs
from visavis.adapters.metrics import Metrics, together
from visavis.adapters.mongo import MongoStore
from visavis.adapters.private_recorder import PrivateRecorder, RecorderFailed
from visavis.adapters.redis import (
    Board,
    Counters,
    DirectedBus,
    Keyspace,
    Ledger,
    Recorders,
    State,
    Watch,
    connect,
    living,
)
from visavis.adapters.scanner import Clamd
from visavis.adapters.shelf import Folder
from visavis.adapters.spool import DiskSpool
from visavis.adapters.sqlite import SqliteStore
from visavis.adapters.tokens import Device, SecretsInvalid, TokenRefused, Tokens, kept_secrets, read_secrets
from visavis.adapters.turn import PrivateTurn
from visavis.adapters.valkey import PrivateValkey, ValkeyFailed
from visavis.adapters.workshop import LimitedWorkshop
from visavis.contract import Connect, IceServer, IceServers, LobbyState, Mode, Refreshed, RefreshSession, Refused
from visavis.core import collections, notes, tasks
from visavis.core.archive import Archive
from visavis.core.bulletin import Bulletin
from visavis.core.calling import CallBook, Calling
from visavis.core.conversations import Conversations, Peer
from visavis.core.files import Files, Rules
from visavis.core.identity import Guest, new_id
from visavis.core.limits import Limits, Rule, rules
from visavis.core.liveness import Liveness, Lobby, Vitals
from visavis.core.matching import Policy
from visavis.core.matchmaking import Matchmaker
from visavis.core.ports import (
    Blobs,
    DocumentStore,
    Record,
    Scanner,
    ScannerUnavailable,
    StateUnavailable,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
    Upkeep,
)
from visavis.core.recordings import Recordings
from visavis.core.safety import Evidence, Safety
from visavis.core.schema import CannotUse, Schema
from visavis.doors import engine
from visavis.doors.carrying import Carrier
from visavis.doors.engine import Engine
from visavis.doors.front import BACKLOG, Front, Opening, listeners
from visavis.doors.gateway import Gateway, Handler, encode_push
from visavis.doors.http import Http, Remembered
from visavis.doors.sources import Sources
from visavis.settings import Settings, SettingsError, variable, without

if TYPE_CHECKING:
    from visavis.adapters.tracing import Traces

log = logging.getLogger(__name__)

MODES: tuple[Mode, ...] = ("text", "voice", "video")
"""In the order they are offered."""
GUEST_SECONDS = 1.0
"""For how long the document store may let a guest wait."""
COMMAND_SECONDS = 10.0
"""And an operator's command, which would rather wait for a busy disk than fail."""
LINGER_SECONDS = 1.0
"""For which the rest of a refused body is read, so that its sender gets to see the answer."""
READ_AHEAD_BYTES = 16_384
"""Of a body that is read piece by piece: with many uploads at once it counts as often."""
NOT_STARTED = 3
"""Exit status that gunicorn knows as a worker that did not start: it ends as well, instead of trying for ever."""
RECORDERS_SAY = {
    "running": "Recordings under way, on all recorders.",
    "places": "Recordings that all recorders could make at once.",
    "cpu": "Cores that recording takes.",
}
NEEDED = frozenset({"redis", "bus", "accepting"})
"""Parts without which no guest can be served."""
ROOT = Path(__file__).resolve().parents[2]


class CannotServe(Exception):
    """The settings or surroundings do not let the server start; says what to do."""


WILL_NOT_START = (
    SettingsError,
    SecretsInvalid,
    CannotServe,
    CannotUse,
    ValkeyFailed,
    StateUnavailable,
    StoreUnavailable,
)
"""What a person can do something about, and is told in a line."""


class Visavis:
    """One worker: a whole deployment by itself, or one of many on a shared Redis."""

    def __init__(self, settings: Settings, process: int) -> None:
        """`process` is the one to end if this worker is to end."""
        self.settings = settings
        self._process = process
        self.worker = new_id()
        self.address = ""
        self._ends = AsyncExitStack()
        self._stopping = False
        self._started_at = time.time_ns() // 1_000_000
        self._asked: dict[str, bool] = {}
        """How those parts were that have to be asked."""
        self._free: dict[str, float] = {}
        self._memory: dict[str, tuple[int, int]] = {}
        """Bytes left for files."""

    async def serve(self) -> None:
        """Start, and listen; afterwards guests are served at `address`."""
        listener = _listen(self.settings.host, self.settings.port)
        runner = await self.start(listener.getsockname()[1])
        await runner.setup()
        for one in listeners(listener):
            await web.SockSite(runner, one, backlog=BACKLOG).start()

    async def start(self, port: int) -> web.AppRunner:
        """Build and start every part, in order; whoever listens at `port` sets the runner up, and cleans it up.

        If one part fails, those started before it are ended again.
        """
        try:
            return await self._start(port)
        except BaseException:
            await self._ends.aclose()
            raise

    async def stop(self) -> None:
        """Ask clients to go elsewhere, then end every part in the reverse order; done within 10 seconds."""
        self._stopping = True
        await self._ends.aclose()

    async def _start(self, port: int) -> web.AppRunner:
        s = self.settings
        ends = self._ends.push_async_callback
        self._listens = f"[{s.host}]:{port}" if ":" in s.host else f"{s.host}:{port}"
        origins = s.origins.split() or _own_origins(s.host, port)
        self.address = origins[0]
        data_dir = Path(s.data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)

        redis_url = s.redis_url
        if not redis_url:
            valkey = PrivateValkey()
            await valkey.start()
            ends(valkey.stop)
            redis_url = valkey.url

        keys = read_secrets(s.secrets) if s.secrets else kept_secrets(data_dir / "secrets")
        self._metrics = metrics = Metrics()
        traces = self._traces()
        self._tokens = tokens = Tokens(keys, s.session_seconds)
        self._documents = documents = document_store(s, data_dir, metrics, timeout=GUEST_SECONDS)
        ends(documents.close)
        await Schema().bring_up(documents, s.migration_seconds)
        places = redis_at(s, redis_url, metrics)
        ends(places.aclose)
        self._watch = Watch(places)
        state = State(
            places,
            self.worker,
            session_ms=s.session_seconds * 1000,
            lease_ms=s.lease_ms,
            recent_ms=s.recent_seconds * 1000,
        )
        self._bus = bus = DirectedBus(places, self.worker, meter=metrics)
        modes = tuple(mode for mode in MODES if mode in s.modes.split())
        self._turn = await self._turn_servers()
        self.relay = self._turn is not None
        book = CallBook(self._ice_servers, metrics, relay=self.relay)
        self._conversations = conversations = Conversations(
            self.worker, state, bus, tokens, encode_push, self._lobby_state, book, int(s.grace_seconds * 1000), metrics
        )
        self._calling = calling = Calling(
            conversations,
            book,
            state,
            metrics,
            bus,
            Recorders(places, self.worker),
            worker=self.worker,
            ring_ms=int(s.ring_seconds * 1000),
        )
        self._lobby = lobby = Lobby(conversations, encode_push, s.popular_min_guests, self._vitals)
        matchmaker = Matchmaker(
            self.worker,
            conversations,
            state,
            state,
            documents,
            Policy(widen_interests_after=s.widen_interests_ms, widen_languages_after=s.widen_languages_ms),
            modes,
            metrics,
        )
        self._files = files = await self._shared_files(data_dir, Ledger(places), metrics)
        limits = Limits(
            Counters(places, self.worker),
            limit_rules(s),
            metrics,
            connections=s.connections_per_address,
            networks=s.addresses_per_network,
            living=lambda: lobby.workers,
            connected=state.connected,
        )
        # The same on all workers; changing the first secret begins every count of an address anew.
        sources = Sources(next(iter(keys.values())), trust_forwarded=s.trust_forwarded)
        safety = Safety(conversations, state, documents, files, metrics)
        self._liveness = liveness = Liveness(state, conversations, matchmaker, lobby, calling, documents, self._parts)
        contract_hash = describe.contract_hash()
        handlers: dict[type[contract.Wire], Handler] = {
            contract.FindMatch: matchmaker.find,
            contract.CancelMatch: matchmaker.cancel,
            contract.SendMessage: conversations.say,
            contract.SendReceipt: conversations.receipt,
            contract.SendTyping: conversations.typing,
            contract.Leave: conversations.leave,
            contract.InviteToCall: calling.invite,
            contract.AcceptCall: calling.accept,
            contract.EndCall: calling.end,
            contract.SetCall: calling.set,
            contract.RefreshIceServers: calling.servers,
            contract.SendSignal: calling.signal,
            contract.CallExperience: calling.experience,
            contract.OfferToRecorder: calling.offer_to_recorder,
            contract.OpenFile: self._open_file,
            contract.Block: safety.block,
            contract.Report: safety.report,
            contract.RefreshSession: self._refresh,
        }
        if traces is not None:
            # Wrapped only if they are wanted: without, nothing is in the way.
            for event, request in contract.REQUESTS.items():
                handlers[request.type] = traces.request(event, handlers[request.type])
            matchmaker.one_round = traces.around("match round", matchmaker.one_round)  # type: ignore[method-assign]
            places.run = traces.script(places.run)  # type: ignore[method-assign]
            for name in ("insert", "get", "find", "replace", "delete"):
                setattr(documents, name, traces.within(f"documents {name}", getattr(documents, name)))
        self._gateway = gateway = Gateway(
            conversations,
            handlers,
            self._authenticate,
            contract_hash,
            limits,
            sources,
            carrier := _carrier(s, origins),
            patience=s.ping_interval + s.ping_timeout,
            max_connections=s.max_connections,
            max_strangers=s.max_strangers,
            strangers_per_address=s.strangers_per_address,
            bucket_size=s.bucket_size,
            bucket_per_second=s.bucket_per_second,
            meter=metrics,
        )
        self._bulletin = Bulletin(Board(places), self.worker, metrics.text, together, self._processes)
        http = Http(
            seats=state,
            recall=self._recall,
            issue=self._issue,
            limits=limits,
            sources=sources,
            lobby=self._lobby_state,
            parts=self._parts,
            needed=NEEDED,
            modes=modes,
            relay=self.relay,
            recording=lambda: calling.recordable,
            recordings=Recordings(documents, Folder(Path(s.recordings_dir or data_dir / "recordings"))),
            files=files,
            authorize=self._authorize,
            meter=metrics,
            middlewares=() if traces is None else (traces.http,),
            metrics=metrics.text,
            workers_metrics=self._bulletin.everybody,
            metrics_token=s.metrics_token,
            alone=not s.origins,
            minimum_age=s.minimum_age,
            contract_hash=contract_hash,
            openapi=describe.openapi(),
            web_dir=Path(s.web_dir) if s.web_dir else ROOT / "web" / "dist",
        )

        recorder = None
        if self._turn is not None and not s.redis_url and s.private_recorder:
            recorder = await self._start_recorder(redis_url, data_dir)
        self._standstill = standstill = tasks.Standstill()
        standstill.start()
        ends(standstill.stop)
        self._show(metrics, matchmaker, calling, contract_hash)
        await liveness.start()
        ends(liveness.stop)
        await limits.start()
        ends(limits.stop)
        await bus.start(self._hear, liveness.hurry)
        ends(bus.stop)
        ends(conversations.settle)
        ends(calling.settle)
        if files is not None:
            await files.start()
            ends(files.stop)
        self._bulletin.start()
        ends(self._bulletin.stop)
        application = http.application()
        gateway.attach(application)
        # With traces, each request is to be seen whole.
        serve = carrier.serve if isinstance(carrier, Engine) and traces is None else None
        runner = _Runner(self.stop, application, serve)
        ends(runner.hang_up)
        ends(matchmaker.stop)
        ends(http.let_go)
        ends(self._drain)
        if recorder is not None:
            # What is being recorded is finished while guests are asked to go elsewhere.
            ends(recorder.dismiss)
        log.info("serving", extra={"worker": self.worker, "port": port})
        return runner

    # ------------------------------------------------------------------ what only the root can join

    def _traces(self) -> "Traces | None":
        s = self.settings
        if not s.traces_url:
            return None
        try:
            # Only who sends traces needs what makes them.
            from visavis.adapters.tracing import Traces  # noqa: PLC0415  # as said above
        except ImportError as error:
            raise CannotServe(
                f"{variable('traces_url')} is set, but {error.name} is missing: pip install 'visavis[tracing]'"
            ) from None
        if not s.traces_url.startswith(("http://", "https://")):
            raise CannotServe(f"{variable('traces_url')}: use an address such as http://host:4318")
        traces = Traces(s.traces_url, s.traces_ratio, version=VERSION, name=self._listens)
        self._ends.push_async_callback(asyncio.to_thread, traces.close)
        return traces

    def _processes(self) -> dict[str, str]:
        """What lives and leaves its metrics, by the name they go by."""
        return {**self._lobby.workers, **{one: f"recorder:{one[:8]}" for one in self._calling.recorders}}

    def _hear(self, data: bytes) -> None:
        note = notes.decode(data)
        if isinstance(note, notes.Stop):
            log.info("asked_to_stop")
            os.kill(self._process, signal.SIGTERM)
        else:
            self._conversations.receive(note)

    async def _drain(self) -> None:
        """Hand the guests over to other workers, if there are any."""
        await self._liveness.look_around()
        others, connections = self._lobby.open_workers - 1, self._gateway.connections
        log.info("draining", extra={"worker": self.worker, "connections": connections, "others": others})
        if others > 0:
            self._conversations.hand_over()
        hung_up = await self._gateway.drain(elsewhere=others > 0)
        log.info("drained", extra={"worker": self.worker, "hung_up": hung_up})

    def _show(self, metrics: Metrics, matchmaker: Matchmaker, calling: Calling, contract_hash: str) -> None:
        """What is looked at when the metrics are read."""
        lobby = self._lobby
        python = ".".join(map(str, sys.version_info[:3]))
        metrics.info("build", "What runs here.", version=VERSION, contract=contract_hash, python=python)
        metrics.gauges("connections", "Open connections, by transport.", "transport", self._gateway.transports)
        most = self.settings.max_connections
        metrics.gauge("connections_limit", "Connections this worker takes before it answers `busy`.", lambda: most)
        metrics.gauge("guests", "Guests who are here.", lambda: lobby.mine.online)
        metrics.gauge(
            "conversations", "Conversations; over all workers, each counts once.", lambda: lobby.mine.conversations
        )
        metrics.gauge("calls", "Calls that were taken; over all workers, each counts once.", lambda: lobby.mine.calls)
        pool = ("mode", "cell")
        metrics.table("waiting", "Guests of this worker who wait for a match, by pool.", pool, matchmaker.waiting)
        metrics.table(
            "waiting_oldest_seconds", "How long the one of them has waited who came first.", pool, matchmaker.oldest
        )
        metrics.gauge(
            "event_loop_stall_seconds",
            "Longest that this worker's event loop stood still in the last ten seconds.",
            lambda: self._standstill.seconds,
        )
        metrics.gauge("ready", "Whether guests can be served here.", self._ready)
        metrics.gauges("part_up", "Whether each part is well, as of the last look.", "part", self._parts_now)
        metrics.gauges(
            "files_free_bytes",
            "Room for files: where they pass through, and where they lie.",
            "place",
            lambda: self._free,
        )
        metrics.gauges(
            "redis_memory_bytes",
            "Memory that each Redis uses, as of the last look.",
            "server",
            lambda: {server: used for server, (used, _) in self._memory.items()},
        )
        metrics.gauges(
            "redis_memory_limit_bytes",
            "Memory that each Redis may use, of those that have a limit.",
            "server",
            lambda: {server: most for server, (_, most) in self._memory.items() if most},
        )
        metrics.gauge("relay", "Whether calls go through a relay.", lambda: self.relay)
        metrics.gauge("recorders", "Living recorders.", lambda: len(calling.recorders))
        for name, about in RECORDERS_SAY.items():
            metrics.gauge(f"recorders_{name}", about, lambda name=name: calling.recorders_say(name))  # type: ignore[misc]

    def _ready(self) -> bool:
        parts = self._parts_now()
        return all(parts[name] for name in NEEDED)

    async def _open_file(self, peer: Peer, asked: contract.OpenFile) -> contract.FileAddress:
        if self._files is None:
            raise Refused("no_such_file")
        return await self._files.open(peer, asked)

    async def _shared_files(self, data_dir: Path, ledger: Ledger, metrics: Metrics) -> Files | None:
        self._blobs = blobs = storage(self.settings, data_dir)
        try:
            self._scanner = Clamd(self.settings.scanner_url) if self.settings.scanner_url else None
        except ValueError as error:
            raise CannotServe(f"VISAVIS_SCANNER_URL: {error}") from None
        if blobs is None:
            return None
        try:
            await blobs.open()
        except (StorageFull, StorageUnavailable) as error:
            # Guests can talk without; until it is back, whoever sends a file is told.
            log.warning("files_away", extra={"why": str(error)[:500]})
        self._ends.push_async_callback(blobs.close)
        return sharing(self.settings, blobs, ledger, self._tokens, metrics, self._scanner)

    async def _turn_servers(self) -> turn.TurnServers | None:
        s = self.settings
        self._turn_urls, self._turn_secrets = s.turn_urls, s.turn_secrets
        if s.turn_urls == "none":
            return None
        if not s.turn_urls:
            if not turn.available():
                return None
            private = PrivateTurn()
            try:
                await private.start()
            except turn.TurnFailed as error:
                # Guests can talk without; that calls share addresses is said at start and asked of them.
                log.warning("private_turn_failed", extra={"why": str(error)[-500:]})
                return None
            self._ends.push_async_callback(private.stop)
            self._keep_running("turnserver", private)
            self._turn_urls, self._turn_secrets = " ".join(private.urls), private.secret
        if not self._turn_secrets:
            raise CannotServe("VISAVIS_TURN_URLS needs VISAVIS_TURN_SECRETS: the secret the TURN servers were given")
        return turn.TurnServers(tuple(self._turn_urls.split()), tuple(self._turn_secrets.split()), s.turn_seconds)

    async def _start_recorder(self, redis_url: str, data_dir: Path) -> PrivateRecorder | None:
        own = {
            "REDIS_URL": redis_url,
            "VISAVIS_DATA_DIR": str(data_dir),
            "VISAVIS_TURN_URLS": self._turn_urls,
            "VISAVIS_TURN_SECRETS": self._turn_secrets,
        }
        recorder = PrivateRecorder({**without(os.environ, *own), **own})
        try:
            await recorder.start()
        except RecorderFailed as error:
            log.warning("private_recorder_failed", extra={"why": str(error)})
            return None
        self._ends.push_async_callback(recorder.stop)
        self._keep_running("recorder", recorder)
        return recorder

    def _keep_running(self, name: str, part: PrivateTurn | PrivateRecorder) -> None:
        """Start a child process anew whenever it ends by itself."""

        async def keep() -> None:
            while True:
                await part.ended()
                if self._stopping:
                    return
                log.error("private_part_ended", extra={"part": name})
                for delay in itertools.chain((0, 1, 2, 5), itertools.repeat(15)):
                    await part.stop()
                    await asyncio.sleep(delay)
                    try:
                        await part.start()
                        break
                    except (turn.TurnFailed, RecorderFailed, OSError):
                        log.exception("private_part_failed", extra={"part": name})

        self._ends.push_async_callback(tasks.end, [asyncio.get_running_loop().create_task(keep())])

    def _ice_servers(self, guest: str) -> IceServers:
        if self._turn is None:
            return IceServers(servers=(), expires_in_ms=0)
        username, credential, expires_at = self._turn.credentials(guest)
        return IceServers(
            servers=(IceServer(urls=self._turn.urls, username=username, credential=credential),),
            expires_in_ms=max(0, expires_at - time.time_ns() // 1_000_000),
        )

    def _lobby_state(self) -> LobbyState:
        return self._lobby.state

    def _authorize(self, token: str) -> Guest:
        try:
            return self._tokens.guest(token)
        except TokenRefused as refused:
            raise Refused("session_expired" if refused.expired else "token_invalid") from None

    def _authenticate(self, asked: Connect) -> tuple[Guest, Record | None]:
        guest = self._authorize(asked.token)
        claim = self._tokens.unseal(asked.claim, guest.id, self.settings.session_seconds) if asked.claim else None
        return guest, claim

    async def _refresh(self, peer: Peer, asked: RefreshSession) -> Refreshed:
        token, expires_at = self._tokens.for_guest(peer.guest)
        return Refreshed(token=token, expires_at=expires_at)

    def _recall(self, token: str) -> Remembered | None:
        try:
            device = self._tokens.device(token)
        except TokenRefused:
            return None
        return Remembered(device.id, device.adult, device.rules)

    def _issue(self, guest: Guest, remembered: Remembered) -> tuple[str, int, str]:
        token, expires_at = self._tokens.for_guest(guest)
        device = self._tokens.for_device(Device(remembered.device, remembered.adult, remembered.rules))
        return token, expires_at, device

    def _vitals(self) -> Vitals:
        parts = {**self._asked, "bus": self._bus.healthy}
        return Vitals(
            address=self._listens,
            machine=socket.gethostname(),
            version=VERSION,
            started_at=self._started_at,
            connections=self._gateway.connections,
            stall=round(self._standstill.seconds, 3),
            memory=machine.memory(),
            cpu=round(time.process_time(), 2),
            draining=self._gateway.draining,
            unwell=tuple(sorted(name for name, well in parts.items() if not well)),
        )

    async def _parts(self) -> dict[str, bool]:
        self._asked = asked = {"documents": await _well(self._documents)}
        for name, part in (("files", self._blobs), ("scanner", self._scanner)):
            if part is not None:
                asked[name] = await _well(part)
        self._free, self._memory = await asyncio.gather(_room(self._files), _memory(self._watch))
        return {name: bool(well) for name, well in self._parts_now().items()}

    def _parts_now(self) -> dict[str, float]:
        """Each part, those that have to be asked as of when they were."""
        return {
            "accepting": not self._gateway.draining,
            "bus": self._bus.healthy,
            "redis": self._liveness.healthy,
            **self._asked,
        }


async def _well(part: DocumentStore | Blobs | Scanner) -> bool:
    try:
        await asyncio.wait_for(part.ping(), 1.5)
    except (StoreUnavailable, StorageFull, StorageUnavailable, ScannerUnavailable, TimeoutError):
        return False
    return True


async def _room(files: Files | None) -> dict[str, float]:
    try:
        return await asyncio.wait_for(files.room(), 1.5) if files is not None else {}
    except (StorageUnavailable, TimeoutError):
        return {}


async def _memory(redis: Watch) -> dict[str, tuple[int, int]]:
    try:
        return await asyncio.wait_for(redis.memory(), 1.5)
    except (StateUnavailable, TimeoutError):
        return {}


Serve = Callable[[asyncio.Transport, Opening], bool]


class _Fronted:
    """aiohttp's server, with somebody in front of it who looks at the first bytes of each connection."""

    def __init__(self, server: Any, serve: Serve, silent: set[Front]) -> None:
        self._server = server
        self._serve = serve
        self._silent = silent

    def __call__(self) -> Front:
        return Front(self._serve, self._server, self._silent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


class _Runner(web.AppRunner):
    """What answers requests. Cleaning it up, which whoever listens does last, ends the whole worker."""

    def __init__(
        self, stop: Callable[[], Awaitable[None]], application: web.Application, serve: Serve | None = None
    ) -> None:
        """`serve` is what may take a connection over by its first bytes."""
        super().__init__(
            application,
            access_log=None,
            shutdown_timeout=1,
            lingering_time=LINGER_SECONDS,
            read_bufsize=READ_AHEAD_BYTES,
        )
        self._stop = stop
        self._serve = serve
        self.silent: set[Front] = set()
        """Connections that have not said anything yet, of which aiohttp does not know."""

    @property
    def server(self) -> Any:
        """What makes the protocols of new connections, for whoever listens."""
        server = super().server
        return server if server is None or self._serve is None else _Fronted(server, self._serve, self.silent)

    async def cleanup(self) -> None:
        await self._stop()

    async def shutdown(self) -> None:
        """Called when nobody listens any more, and before aiohttp ends the connections it has."""
        for front in list(self.silent):
            front.close()
        await super().shutdown()

    async def hang_up(self) -> None:
        """Listen no more, and end the connections there are."""
        await super().cleanup()


async def application() -> web.AppRunner:
    """The worker that gunicorn runs (ecosystem/gunicorn.conf.py), by the settings in the environment."""
    try:
        settings = Settings.from_environment(os.environ)
        logs.configure(settings.log_level)
        return await Visavis(settings, os.getppid()).start(settings.port)
    except WILL_NOT_START as error:
        print(f"visavis: {error}", file=sys.stderr)  # noqa: T201  # for whoever started it
        sys.exit(NOT_STARTED)


def storage(s: Settings, data_dir: Path) -> Blobs | None:
    """Where files lie, by the settings; None for no files. Raises CannotServe."""
    if s.files_url == "none":
        return None
    if s.files_url.startswith("s3://"):
        try:
            # Only who uses it pays for its client.
            from visavis.adapters.s3 import S3Blobs  # noqa: PLC0415  # as said above

            return S3Blobs(
                s.files_url,
                data_dir / "spool",
                endpoint=s.s3_endpoint,
                region=s.s3_region,
                key=s.s3_key,
                secret=s.s3_secret,
            )
        except ValueError as error:
            raise CannotServe(f"VISAVIS_FILES_URL: {error}") from None
    return DiskBlobs(Path(s.files_url or data_dir / "files"))


def sharing(
    s: Settings, blobs: Blobs, ledger: Ledger, tokens: Tokens, metrics: Metrics, scanner: Scanner | None
) -> Files:
    """What is done with files, by the settings."""
    kinds = tuple(kind for kind in get_args(contract.FileKind) if kind in s.file_kinds.split())
    rules = Rules(
        file_bytes=s.file_bytes,
        files_per_minute=s.files_per_minute,
        files_bytes_together=s.files_bytes_together,
        file_seconds=s.file_seconds,
        file_kinds=kinds,
        file_address_seconds=s.file_address_seconds,
        file_checks_at_once=s.file_checks_at_once,
        upload_seconds=s.upload_seconds,
        files_free_bytes=s.files_free_bytes,
        evidence_seconds=s.evidence_seconds,
        file_sweep_seconds=s.file_sweep_seconds,
    )
    workshop = LimitedWorkshop(s.file_checks_at_once, s.file_pixels)
    return Files(ledger, blobs, DiskSpool(blobs.spool), workshop, scanner, tokens, metrics, rules)


def limit_rules(s: Settings) -> dict[str, Rule]:
    """How much of what in which time, by the settings."""
    return rules(
        guest={
            "api": s.api_per_window,
            "requests": s.requests_per_minute,
            "finds": s.finds_per_minute,
            "reports": s.reports_per_hour,
            "transfers": s.transfers_per_minute,
        },
        address={
            "guests": s.guests_per_window,
            # What a guest may is counted with the uploads themselves.
            "uploads": s.files_per_minute * s.people_per_address,
            "upload_bytes": s.upload_bytes_per_hour,
            "handshakes": s.handshakes_per_minute,
        },
        people_per_address=s.people_per_address,
        addresses_per_network=s.addresses_per_network,
    )


@asynccontextmanager
async def evidence(settings: Settings) -> AsyncIterator[Evidence]:
    """What moderators need of a deployment, by its settings. Raises CannotServe."""
    s = settings
    data_dir = Path(s.data_dir)
    blobs = storage(s, data_dir)
    if blobs is None:
        raise CannotServe("VISAVIS_FILES_URL says that there are no files")
    async with AsyncExitStack() as ends:
        documents = document_store(s, data_dir)
        ends.push_async_callback(documents.close)
        await Schema().read_mark(documents)
        await blobs.open()
        ends.push_async_callback(blobs.close)
        ledger = None
        if s.redis_url:
            places = redis_at(s, s.redis_url)
            ends.push_async_callback(places.aclose)
            ledger = Ledger(places)
        yield Evidence(documents, blobs, ledger)


def redis_at(s: Settings, url: str, metrics: Metrics | None = None) -> Keyspace:
    """Where the workers' keys are. Raises CannotServe."""
    try:
        return connect(url, s.cells, metrics)
    except ValueError as error:
        raise CannotServe(f"REDIS_URL: {error}") from None


def document_store(
    s: Settings, data_dir: Path, metrics: Metrics | None = None, *, timeout: float = COMMAND_SECONDS
) -> Upkeep:
    """What must last, by the settings; `timeout`: seconds until StoreUnavailable."""
    if s.mongo_url:
        return MongoStore(s.mongo_url, s.mongo_database, collections.ALL, timeout=timeout, meter=metrics)
    return SqliteStore(_sqlite(data_dir), collections.ALL, timeout=timeout, meter=metrics)


@asynccontextmanager
async def archive(settings: Settings, *, files: bool, new: bool) -> AsyncIterator[Archive]:
    """What backups and restores need of a deployment, by its settings; `new`: it may have been empty until now.

    Raises CannotServe.
    """
    s = settings
    data_dir = Path(s.data_dir)
    if not new and not s.mongo_url and not _sqlite(data_dir).exists():
        raise CannotServe(f"there is no {_sqlite(data_dir)}: see VISAVIS_DATA_DIR, or MONGO_URL")
    async with AsyncExitStack() as ends:
        documents = document_store(s, data_dir)
        ends.push_async_callback(documents.close)
        blobs = storage(s, data_dir) if files else None
        if blobs is not None:
            ends.push_async_callback(blobs.close)
            await blobs.open()
        spool = DiskSpool(blobs.spool) if blobs is not None else None
        yield Archive(documents, Schema(), blobs, spool, evidence_seconds=s.evidence_seconds)


async def bring_up(settings: Settings) -> None:
    """Bring the document store up to the schema. Raises CannotUse, StoreUnavailable."""
    documents = document_store(settings, Path(settings.data_dir))
    try:
        await Schema().bring_up(documents, settings.migration_seconds)
    finally:
        await documents.close()


async def workers_running(settings: Settings) -> int:
    """How many workers there are on this Redis; 0 without one: a private one is not to be seen."""
    if not settings.redis_url:
        return 0
    keys = redis_at(settings, settings.redis_url)
    try:
        return await living(keys)
    finally:
        await keys.aclose()


def _carrier(s: Settings, origins: Collection[str]) -> Carrier:
    """How connections are carried, by the settings."""
    kind: Callable[..., Carrier] = Engine
    if why := engine.unusable():
        log.warning("fast_transport_unusable", extra={"why": why})
    if why or s.transport == "stock":
        # Its library is in nobody's way who does not use it.
        from visavis.doors.stock import Stock  # noqa: PLC0415  # see above

        kind = Stock
    return kind(
        origins=tuple(origins),
        ping_interval=s.ping_interval,
        ping_timeout=s.ping_timeout,
        max_frame_bytes=s.max_frame_bytes,
        max_queue_bytes=s.max_queue_bytes,
    )


def _sqlite(data_dir: Path) -> Path:
    return data_dir / "visavis.sqlite"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _own_origins(host: str, port: int) -> list[str]:
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise CannotServe(
            "listening beyond this machine needs VISAVIS_ORIGINS: the address people open, such as https://example.org"
        )
    return [f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
