"""What the rules need from outside, as small Protocols: adapters fulfil them, tests run on the real ones."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from visavis.contract import FileKind, Mode, Profile, Refused, SharedFile, Why
from visavis.core.identity import Guest
from visavis.core.matching import Ticket
from visavis.core.tally import Durations, Tally


class Index(msgspec.Struct, frozen=True):
    """One index of a collection: equality on `fields` in this order, then insertion order."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False


class Collection(msgspec.Struct, frozen=True):
    """A kind of document: its indexes, and the text fields that `search` looks through."""

    name: str
    indexes: tuple[Index, ...] = ()
    text: tuple[str, ...] = ()


class Document(msgspec.Struct, frozen=True):
    """A stored document: `version` counts from 1 and grows with each replacement."""

    id: str
    version: int
    data: dict[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Some documents and, if there are more, the cursor to go on from."""

    documents: list[Document]
    cursor: str | None


class StoreUnavailable(Exception):
    """The document store did not answer in time, or cannot be written to."""


class Duplicate(Exception):
    """A document with this id, or this value in a unique index, exists already."""


class ArchiveDamaged(Exception):
    """A backup cannot be read, or is not what it says; the message is a sentence for people."""


class DocumentStore(Protocol):
    """What must last: accounts, groups, reports, blocks. Never a stranger's words.

    Documents are JSON-shaped mappings. Expiry times are milliseconds since the epoch; an expired
    document is gone for every read from that instant, whether or not it was swept.
    Every method raises StoreUnavailable within about a second if the store is away.
    """

    async def open(self) -> None:
        """Connect, and make the collections that are missing, with their indexes."""

    async def close(self) -> None:
        """Let go of connections and files."""

    async def ping(self) -> None:
        """Prove that the store answers."""

    async def insert(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, expires_at: int | None = None
    ) -> None:
        """Add a document as version 1. Raises Duplicate."""

    async def get(self, collection: Collection, id: str) -> Document | None:
        """The document, or None."""

    async def find(
        self,
        collection: Collection,
        index: str,
        values: Sequence[Any],
        *,
        limit: int = 50,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Documents whose indexed fields equal `values` (or a prefix of them), in insertion order."""

    async def replace(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, version: int, expires_at: int | None = None
    ) -> bool:
        """Put `data` in place of the document if its version still is `version`; say whether it did."""

    async def delete(self, collection: Collection, id: str) -> bool:
        """Remove the document; say whether there was one."""

    async def search(self, collection: Collection, text: str, *, limit: int = 20) -> list[Document]:
        """Documents whose text fields contain every word of `text` (case-insensitive), newest first."""

    async def sweep(self) -> int:
        """Remove what has expired; returns how many."""


class Stored(msgspec.Struct, frozen=True):
    """A document with all that a backup keeps of it. `expires_at`: ms since the epoch."""

    id: str
    version: int
    expires_at: int | None
    data: dict[str, Any]


class StoreInUse(Exception):
    """Somebody else uses the store, who would not survive that everything in it is replaced."""


class Snapshot(Protocol):
    """What a document store holds."""

    consistent: bool
    """Whether everything is of one instant. If not, what is written meanwhile may be in it or not."""

    def documents(self, collection: Collection) -> AsyncGenerator[list[Stored], None]:
        """What has not expired, in insertion order, in pages of about a megabyte. Raises StoreUnavailable."""


class Renewal(Protocol):
    """What is to be in a document store instead of all that is in it now."""

    async def add(self, collection: Collection, documents: Sequence[Stored]) -> None:
        """Put these behind those that were added before. One that is in the way of another gives way to it."""


class Upkeep(DocumentStore, Protocol):
    """What starting, backups and restores need of a document store beyond what everybody does.

    These may take long: each says StoreUnavailable only if nothing moves any more.
    """

    async def mark(self) -> dict[str, Any] | None:
        """What was last written down about the store as a whole; None if nothing ever was."""

    async def swap_mark(self, before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
        """Write that down if it still is `before`; say whether it was."""

    def alone(self, patience: float) -> AbstractAsyncContextManager[None]:
        """Be the only one, among all processes, who is in such a block on this store.

        Raises TimeoutError if another was all the time, in seconds; StoreUnavailable if the block lost its right.
        """

    async def fit_indexes(self, *, change: bool = True) -> list[str]:
        """Make the indexes those that are declared, no more and no less; says what was or, without `change`, would be.

        Documents stay as they are. Raises Duplicate for a unique index that they do not allow.
        """

    async def rewrite(self, collection: Collection, documents: Sequence[Stored]) -> int:
        """Put these in place of what has the same id and still the same version; returns how many."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Read everything, while others read and write."""

    def renewed(self, meanwhile: dict[str, Any], after: dict[str, Any]) -> AbstractAsyncContextManager[Renewal]:
        """Replace everything, `after` becoming the mark. Raises StoreInUse where it can be seen that it is.

        A block that fails, or is killed, leaves all as it was; where that cannot be done, `meanwhile` is the mark from
        its beginning on.
        """


# --------------------------------------------------------------------------- seats, as all workers see them


class Member(msgspec.Struct, frozen=True):
    """One guest's part in a conversation: the seat number is the place in the record's members."""

    guest: str
    device: str
    profile: Profile


class Record(msgspec.Struct, frozen=True):
    """What makes a conversation: kept in Redis while it lasts, and sealed into each member's claim."""

    id: str
    mode: Mode
    members: tuple[Member, ...]
    why: Why
    started_at: int

    def seat_of(self, guest: str) -> int | None:
        """The guest's seat number, or None for someone who is not a member."""
        for number, member in enumerate(self.members):
            if member.guest == guest:
                return number
        return None


Workers = dict[str, str]
"""Where guests are: guest to worker; the empty string is a guest who is away."""


class Connected(msgspec.Struct, frozen=True):
    """What connecting found: `epoch` grows with each of the guest's connections, `displaced` had the one before."""

    epoch: int
    displaced: str
    record: Record | None
    workers: Workers
    call_version: int = -1
    """-1 if Redis has lost how the call stands."""
    call: bytes = b""
    """The packed state of the conversation's call; empty if nothing has happened to it yet."""
    spent: bool = False
    """Whether `requests` of this guest have been counted of late, on whichever worker."""


class Touched(msgspec.Struct, frozen=True):
    """A guest's state as Redis has it.

    `ok`: as this worker believes; `back`: had been given up, and was taken back; `replaced`: connected
    elsewhere since; `missing`: Redis has forgotten, or has an epoch that this worker never heard of.
    """

    guest: str
    state: str
    conversation: str
    searching: bool
    workers: Workers
    call: int = -1
    """The version of the conversation's call; -1 if Redis has none."""


class Proposal(msgspec.Struct, frozen=True):
    """Two waiting guests who should meet: their tickets' ids and the conversation they would have."""

    record: Record
    tickets: tuple[str, ...]


class Beat(msgspec.Struct, frozen=True):
    """What renewing the lease brought: everyone's statistics, and workers found dead, this one's to clear up."""

    stats: dict[str, bytes]
    dead: list[str]
    reborn: bool
    """This worker's own lease had run out."""


class StateUnavailable(Exception):
    """Redis did not answer."""


class StateFull(StateUnavailable):
    """Redis answered that it has no memory left; nothing was changed."""


class Seats(Protocol):
    """Guests, their connections and seats, shared by all workers. Methods raise StateUnavailable."""

    def cell(self, guest: str) -> int:
        """The part of the deployment the guest belongs to: only guests of one cell meet, and they share its fate."""

    def new_guest(self) -> str:
        """An id for a new guest, in a cell that Redis answered for."""

    async def create(self, guest: Guest) -> None:
        """Begin a guest session."""

    async def connect(self, guest: Guest, claim: Record | None) -> Connected:
        """The guest is here now; the newest connection wins. A claim restores a seat that Redis lost."""

    async def connected(self, guest: str) -> bool:
        """Whether the guest has a connection, perhaps to a worker that is gone and not yet missed."""

    async def disconnect(self, guests: Sequence[tuple[str, int]]) -> list[Workers | None]:
        """Connections are gone, for (guest, epoch) pairs of one cell; epoch 0 is whichever this worker has last.

        Gives each one's other members' whereabouts, or None if a newer connection has taken over.
        """

    async def touch(self, guests: Sequence[tuple[str, int]]) -> list[Touched]:
        """Renew sessions and compare, for (guest, epoch) pairs of one cell; those given up meanwhile are taken back."""

    async def end(
        self,
        conversation: str,
        by: str,
        *,
        away_for: int | None = None,
        lost: Record | None = None,
        part: bool = False,
    ) -> Workers | None:
        """End the conversation; with `away_for`, only if `by` has been away that many ms.

        With `lost`, its record, it ends even if Redis has lost it, and no claim brings it back. Its files are not for
        `by` any more, unless `away_for` is given; with `part`, for no member. That holds if it had ended before, too.
        Gives the other members' whereabouts, or None if it did not end now.
        """

    async def record(self, conversation: str, *, live: bool = False) -> Record | None:
        """A conversation; unless `live`, for an hour after its end as well."""

    async def call(self, conversation: str) -> bytes | None:
        """The packed state of the conversation's call."""

    async def swap_call(self, conversation: str, before: int, after: int, state: bytes) -> bytes | None:
        """Let a call's state follow version `before`; None if it does, else the state that stands instead.

        Raises Refused if the conversation is over, StateUnavailable if Redis has forgotten it.
        """

    async def recent(self, guest: str) -> list[str]:
        """Guests met a while ago or less."""


class Lease(Protocol):
    """A worker's life sign, one in each cell. Methods raise StateUnavailable."""

    @property
    def cells(self) -> int:
        """How many there are."""

    async def beat(self, stats: bytes, cell: int = 0) -> Beat:
        """Renew the lease and leave this worker's statistics; learn everyone's, and who died.

        Statistics are left and learned with the first cell alone.
        """

    async def reap(self, worker: str, cell: int = 0) -> list[tuple[str, str, Workers]]:
        """Mark a dead worker's guests away; for each seated one: guest, conversation, the others' whereabouts."""

    async def resign(self) -> None:
        """Give the leases back."""


class Queue(NamedTuple):
    """Who may be matched with each other, if nothing else is between them."""

    mode: Mode
    cell: int


class Pool(Protocol):
    """Waiting tickets by queue. Times are Redis's, in ms. Methods raise StateUnavailable."""

    def queue(self, guest: str, mode: Mode) -> Queue:
        """The queue a guest waits in."""

    def new_conversation(self, queue: Queue) -> str:
        """An id for a conversation of guests from this queue."""

    async def enter(self, queue: Queue, ticket: Ticket, member: Member, epoch: int) -> tuple[str, int]:
        """Wait, on the guest's connection of that epoch. An earlier ticket keeps its place.

        Returns ("ok", since), or ("in_conversation" | "replaced" | "missing", 0): as with `touch`, Redis may have
        forgotten the guest.
        """

    async def leave(self, guest: str) -> None:
        """Stop waiting, if the guest waits."""

    async def hold(self, queue: Queue) -> bool:
        """Take the short lease that lets one worker at a time run the queue's round."""

    async def release(self, queue: Queue) -> None:
        """Give that lease back."""

    async def waiting(self, queue: Queue) -> tuple[list[Ticket], dict[str, Member], int]:
        """The oldest tickets, who holds them, and the time."""

    async def claim(self, queue: Queue, proposals: Sequence[Proposal]) -> list[Workers | None]:
        """Seat each pair whose tickets both still wait; for each, where its members are, or None."""


class Count(msgspec.Struct, frozen=True):
    """Something to count under a name, in a window that slides: at most `most` in any stretch of `window_ms`.

    `take` counts it if it fits; `add` counts it, as it was done already; `back` makes a `take` undone.
    """

    name: str
    """What is counted, and for whom: what ends in `:guest:` and an id is kept with what else is known of that guest."""
    cost: int
    most: int
    window_ms: int
    how: Literal["take", "add", "back"] = "take"


class Counted(msgspec.Struct, frozen=True):
    """How a counter stands: what is left, and ms until so much fits; for what was added, until anything does."""

    wait_ms: int
    left: int
    counted: bool = True
    """False where it could not be counted, and is let through."""


class Present(msgspec.Struct, frozen=True):
    """How many connections this worker has from a place."""

    place: str
    connections: int


class Counters(Protocol):
    """What all workers count together, by Redis's time. Methods raise StateUnavailable."""

    async def take(self, asked: Sequence[Count]) -> list[Counted]:
        """Count all of these or, if one has to wait, none; none twice, so that some may be lost.

        On a Cluster they are counted one after the other, and undone when a later one does not fit: for a moment others
        may find less left. So what few share comes first. The answers end with the one that has to wait.
        """

    async def count(self, asked: Sequence[Count]) -> list[Counted]:
        """Count each of these, each for itself, in one round trip; none twice, so that some may be lost."""

    async def present(self, told: Sequence[Present], kept_ms: int) -> list[dict[str, int]]:
        """Leave this worker's numbers, which hold for `kept_ms`; gives for each place what other workers said."""

    async def enter(
        self, asked: Sequence[Count], told: Sequence[Present], kept_ms: int
    ) -> tuple[list[Counted], list[dict[str, int]]]:
        """Both in one round trip."""


class Bus(Protocol):
    """The way to other workers: what is lost on it is healed by receipts and by `touch`."""

    def send(self, worker: str, note: bytes, about: str) -> None:
        """Hand a note over for sending, in order per worker for what it is about: a guest, or their conversation.

        Never waits.
        """


class Meter(Protocol):
    """Counts for operators: names and labels are those of the metrics, never a guest."""

    def tally(self, name: str, **labels: str) -> Tally:
        """What is counted under this name and these labels, to be bound once by whoever counts often."""

    def durations(self, name: str, **labels: str) -> Durations:
        """The same for what takes time."""

    def count(self, name: str, **labels: str) -> None:
        """One more of what is rare."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """One more duration of what is rare."""


class Board(Protocol):
    """Where each process leaves its metrics for the others to read out. Methods raise StateUnavailable."""

    async def leave(self, name: str, text: bytes, ms: int) -> None:
        """Leave a text in place of the last; it is gone after this long."""

    async def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """The texts that are there."""


class Sealer(Protocol):
    """Makes claims that only this service can make or read."""

    def seal(self, record: Record, guest: str) -> str:
        """A token that restores this guest's seat."""

    def shared(self, seal: str, conversation: str, guest: str) -> SharedFile | None:
        """The file that was found good for this guest to say in this conversation, by its seal."""


# --------------------------------------------------------------------------- recordings


class Recorders(Protocol):
    """The recorders there are, as workers see them. Methods raise StateUnavailable."""

    async def claim(self, recording: str) -> str | None:
        """A place for the recording at the least busy recorder; asking again gives the same one.

        Returns the recorder's address on the bus; empty if all are full, None if there is none.
        """

    async def release(self, recorder: str, recording: str) -> None:
        """Give the place back: a recorder that still makes this recording stops within a second."""

    async def makes(self, recorder: str, recording: str) -> bool:
        """Whether the recording has its place there."""

    async def loads(self) -> dict[str, bytes]:
        """What each living recorder last said of itself."""


class RecorderLease(Protocol):
    """A recorder's life sign. Methods raise StateUnavailable."""

    async def beat(self, places: int, load: bytes, running: Sequence[str]) -> list[str]:
        """Renew the lease; gives those of the running recordings that have no place here any more."""

    async def done(self, recording: str) -> None:
        """A recording has ended by itself: its place is free."""

    async def resign(self) -> None:
        """Give the lease back."""

    async def worker_of(self, guest: str) -> str:
        """The worker a guest is connected to; empty if away."""


class Shelf(Protocol):
    """Where finished recordings lie, as files named by the recording's id."""

    def path(self, recording: str) -> Path | None:
        """The file, if it is there."""

    def remove(self, recording: str) -> None:
        """Remove the file, if it is there."""

    def old(self, seconds: float) -> list[str]:
        """The recordings whose files are older than this."""


# --------------------------------------------------------------------------- files


class StorageFull(Exception):
    """There is no room left for another blob; nothing of it was kept."""


class StorageUnavailable(Exception):
    """The storage for blobs did not answer."""


class Blobs(Protocol):
    """Where bytes of files lie, shared by all workers.

    A name is `folder/owner/part`, each made by the server of letters, digits, `-`, `_` and `.`. A blob is there
    whole or not at all. Methods raise StorageUnavailable; those that write, StorageFull as well.
    """

    spool: Path
    """A folder on this machine for what is on its way; whatever lies there for an hour is forgotten."""

    async def open(self) -> None:
        """Prepare and prove that it can be written to."""

    async def close(self) -> None:
        """Let go of connections."""

    async def ping(self) -> None:
        """Prove that the storage answers."""

    async def free(self) -> int | None:
        """Bytes that are left, where that is known."""

    async def put(self, name: str, path: Path) -> None:
        """Keep a finished file of the spool under this name. The path is gone afterwards, whatever happened."""

    async def size(self, name: str) -> int | None:
        """Its bytes, or None if there is no such blob."""

    def read(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to, not including, `end`, in pieces of at most 256 KiB.

        Raises KeyError before the first piece if there is no such blob. Close it where it may not be read to its end.
        """

    async def copy(self, name: str, to: str) -> None:
        """Keep the same bytes under another name as well. Raises KeyError if there is no such blob."""

    async def remove(self, owner: str) -> None:
        """Remove every blob of `folder/owner`."""

    async def old(self, folder: str, seconds: float) -> list[str]:
        """Owners, as `folder/owner`, none of whose blobs is younger than this; at most a thousand."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file from the first word of it until it is gone. Times are milliseconds since the epoch."""

    file: str
    guest: str
    conversation: str
    name: str
    bytes: int
    """As announced."""
    voice: bool
    expires_at: int
    phase: str = "uploading"
    """As the contract's UploadState has it, or `gone`: nobody may know it any more, its bytes are being removed."""
    offset: int = 0
    parts: tuple[str, ...] = ()
    """Owners of the blobs that make it, in order, until it was checked."""
    since: int = 0
    """When the last byte was there."""
    problem: str = ""
    limit: int = -1
    shared: SharedFile | None = None


Dropped = tuple[str, ...] | Literal["stays", "check", "held"]
"""See Ledger.drop."""


class Ledger(Protocol):
    """What all workers know of files. `now` is the asking worker's clock, in ms. Methods raise StateUnavailable."""

    def new_file(self, conversation: str) -> str:
        """An id for a file of this conversation."""

    async def begin(self, upload: Upload, now: int, give_up_at: int, per_minute: int, together: int) -> None:
        """Announce an upload, of a guest who has a seat in its conversation.

        Raises Refused: not_in_conversation, rate_limited, too_many_files.
        """

    async def upload(self, file: str) -> Upload | None:
        """What is known of it."""

    async def append(
        self, file: str, offset: int, size: int, part: str, *, now: int, give_up_at: int, check_at: int, most: int
    ) -> tuple[int, bool] | None:
        """Add a part of `size` bytes if the upload still stands at `offset` and has fewer than `most` parts.

        Gives the offset that stands now and whether the part is in it, also if it is added twice; None if there is no
        such upload any more, or if it has as many parts and must begin anew.
        With the last byte, the upload's phase is `checking`.
        """

    async def check(self, file: str, token: str, lease_ms: int) -> int:
        """Take on the check of a file, or renew the lease on it; `token` is the worker's own for this check.

        Gives how many times it was taken on, this time included; 0 if it is not to be checked, or somebody else does.
        """

    async def checked(
        self, file: str, token: str, outcome: SharedFile | Refused | None, due: int
    ) -> Literal["ok", "lost", "gone"]:
        """The outcome of a check; None gives it back undone. `due` is when the file must be removed.

        `lost`: another worker has taken it on; `gone`: there is no such file any more.
        """

    async def drop(self, file: str, now: int, *, owner: str = "") -> Dropped:
        """From now on there is no such file, if `owner` has it or, without one, if it is due.

        Gives its parts, whose blobs remain to be removed; `check` for one that is due for its check; `held` for one
        that had been shared, whose blobs stay until no report can name it any more.
        """

    async def forget(self, file: str) -> None:
        """All its blobs are removed."""

    async def open(self, file: str, guest: str, conversation: str, now: int) -> SharedFile | None:
        """The file, if it is ready and has not expired, and the guest has not gone from its conversation."""

    async def due(self, now: int, most: int) -> list[str]:
        """Files about which something is to be done, as far as Redis answers; at most so many in each cell."""

    async def sweeps(self, ms: int) -> bool:
        """Whether it is for this worker to sweep, and for nobody else in this time."""


class Pass(msgspec.Struct, frozen=True):
    """What an address opens, to whom, and as a member of which conversation."""

    file: str
    guest: str
    conversation: str


class Passes(Protocol):
    """Makes and reads the tokens of files."""

    def seal_file(self, file: SharedFile, conversation: str, guest: str) -> str:
        """A token with which this guest, and nobody else, can say the file in this conversation."""

    def let_in(self, given: Pass, seconds: int) -> str:
        """A token for an address."""

    def admits(self, token: str) -> Pass | None:
        """What it opens; None if it is not ours, or has expired."""


class Spool(Protocol):
    """Files on their way, on this machine. Methods that write raise StorageFull; all raise StorageUnavailable."""

    async def free(self) -> int:
        """Bytes left on its disk."""

    async def write(self, pieces: AsyncIterator[bytes]) -> tuple[Path, int]:
        """Write the pieces to a new file, one by one; nothing of it stays if they fail. Gives it and its bytes."""

    async def folder(self) -> Path:
        """A new folder."""

    async def size(self, path: Path) -> int:
        """A file's bytes."""

    async def remove(self, path: Path) -> None:
        """Remove a file, or a folder with everything in it, if it is there."""

    async def sweep(self, seconds: float) -> int:
        """Remove what is older; returns how many."""


class Found(msgspec.Struct, frozen=True):
    """What taking a file apart found, and made of it. Paths are in the folder that was given.

    `main` is what members get: never the original of a picture; video and sound without what they say of where and
    with what they were made.
    """

    kind: FileKind
    type: str
    main: Path
    suffix: str
    """What a download's name should end with, with the dot; empty: as it was called."""
    thumb: Path | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    waveform: str | None = None
    blur: str | None = None


class Workshop(Protocol):
    """Takes files apart, in a process with few rights, little memory and little time."""

    async def examine(self, path: Path, name: str, folder: Path, *, voice: bool) -> Found:
        """Find out by its content what a file is, and make of it, in `folder`, what members get.

        Raises Refused: kind_refused, file_unreadable, picture_too_large; TimeoutError if the machine was too busy.
        """


class ScannerUnavailable(Exception):
    """The scanner did not answer, or not in words it should."""


class Scanner(Protocol):
    """Looks for harmful content."""

    async def clean(self, path: Path) -> bool:
        """Whether nothing was found. Raises ScannerUnavailable, or Refused with file_too_large."""

    async def ping(self) -> None:
        """Prove that it answers. Raises ScannerUnavailable."""
