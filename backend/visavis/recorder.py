"""The recorder's composition root: a process of its own, beside the workers, on their Redis and document store."""

import logging
from contextlib import AsyncExitStack
from pathlib import Path

from visavis import VERSION
from visavis.adapters import tape as process
from visavis.adapters.metrics import Metrics, together
from visavis.adapters.mongo import MongoStore
from visavis.adapters.redis import Board, DirectedBus, Recorders, connect
from visavis.adapters.shelf import Folder
from visavis.adapters.sqlite import SqliteStore
from visavis.adapters.turn import TurnServers
from visavis.core import collections, notes
from visavis.core.bulletin import Bulletin
from visavis.core.identity import new_id
from visavis.core.ports import Upkeep
from visavis.core.recorder import Recorder
from visavis.core.recordings import Recordings
from visavis.core.schema import Schema
from visavis.core.tape import Ice
from visavis.doors.gateway import encode_push
from visavis.settings import Settings

log = logging.getLogger(__name__)

LARGEST = 1 << 30
"""Bytes of the longest recording: an hour at the highest rate is about half."""


class CannotRecord(Exception):
    """The settings or surroundings do not let the recorder start; says what to do."""


class RecorderProcess:
    """One recorder: any number of them share the work of a deployment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = new_id()
        self._ends = AsyncExitStack()

    async def start(self) -> None:
        """Build and start every part, in order; those started before one that fails are ended again."""
        try:
            await self._start()
        except BaseException:
            await self._ends.aclose()
            raise

    async def stop(self) -> None:
        """Finish what is being recorded, and end."""
        await self._ends.aclose()

    async def _start(self) -> None:
        s = self.settings
        ends = self._ends.push_async_callback
        if s.turn_urls in ("", "none") or not s.turn_secrets:
            raise CannotRecord(
                "recording needs a relay: set VISAVIS_TURN_URLS and VISAVIS_TURN_SECRETS as for the workers"
            )
        if not s.redis_url:
            raise CannotRecord("the recorder needs REDIS_URL: the Redis of the workers it records for")
        data_dir = Path(s.data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(s.recordings_dir) if s.recordings_dir else data_dir / "recordings"
        shelf = Folder(folder)
        try:
            shelf.open()
        except OSError as error:
            raise CannotRecord(f"cannot keep recordings in {folder}: {error.strerror or error}") from error
        metrics = Metrics()
        documents: Upkeep
        if s.mongo_url:
            documents = MongoStore(s.mongo_url, s.mongo_database, collections.ALL, meter=metrics)
        else:
            documents = SqliteStore(data_dir / "visavis.sqlite", collections.ALL, meter=metrics)
        ends(documents.close)
        await Schema().bring_up(documents, s.migration_seconds)
        try:
            places = connect(s.redis_url, s.cells, metrics)
        except ValueError as error:
            raise CannotRecord(f"REDIS_URL: {error}") from None
        ends(places.aclose)
        bus = DirectedBus(places, self.id, meter=metrics)
        self._turn = TurnServers(tuple(s.turn_urls.split()), tuple(s.turn_secrets.split()), s.turn_seconds)
        recorder = Recorder(
            places=s.recordings_at_once,
            lease=Recorders(places, self.id),
            bus=bus,
            recordings=Recordings(documents, shelf),
            load=process.load,
            relays=self._relays,
            encode=encode_push,
            folder=str(folder),
            longest_seconds=s.recording_seconds,
            kept_ms=s.recording_kept_seconds * 1000,
            largest=LARGEST,
            room=lambda: shelf.free() >= s.recordings_free_bytes,
        )
        # Heard before it can be found.
        await bus.start(lambda note: recorder.receive(notes.decode_for_recorder(note)), lambda _: None)
        ends(bus.stop)
        await recorder.start()
        ends(recorder.stop)
        # It listens nowhere: whoever wants its metrics asks a worker for those of all.
        metrics.info("build", "What runs here.", version=VERSION)
        bulletin = Bulletin(Board(places), self.id, metrics.text, together, dict)
        bulletin.start()
        ends(bulletin.stop)
        log.info("recording", extra={"recorder": self.id})

    def _relays(self, name: str) -> tuple[Ice, ...]:
        username, credential, _ = self._turn.credentials(name)
        return tuple(Ice(url, username, credential) for url in self._turn.urls)
