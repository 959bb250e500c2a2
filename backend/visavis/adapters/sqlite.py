"""The document store in one SQLite file: the embedded default, right for one machine and several workers on it.

Hides: SQL, the thread that SQLite's blocking calls run on, waiting for other processes' locks, and what becomes
of a full disk, a file that was deleted under us or one that is no database.

Each collection is a table of whole documents as JSON, with an index on the JSON path of every indexed field, and,
if it is searched, a table of the words in its documents. That second table does what FTS5 would do, with the words
that `core.documents` makes, so that both stores find the same; there is no query syntax to be smuggled in.
"""

import asyncio
import fcntl
import json
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from visavis.core import documents
from visavis.core.ports import Collection, Document, Duplicate, Meter, Page, Stored, StoreInUse, StoreUnavailable
from visavis.core.tally import Unread

T = TypeVar("T")

# What SQLite reports when the file, the disk or another process is at fault, and not our SQL.
_AWAY: Final = {
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_LOCKED: "locked by another process",
    sqlite3.SQLITE_FULL: "no space left",
    sqlite3.SQLITE_IOERR: "input or output failed",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written to",
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_PROTOCOL: "locked by another process",
    sqlite3.SQLITE_NOMEM: "no memory left",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "not a database",
}
# After these the connection is as good as before.
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}

_UNEXPIRED: Final = "(expires_at IS NULL OR expires_at > ?)"
_LONG: Final = 3600.0
"""Seconds for what must look at every document."""


def try_out(folder: Path) -> None:
    """Have two users of a file in this folder see what each other writes, by way of a log. Raises StoreUnavailable."""
    try:
        with tempfile.TemporaryDirectory(prefix="visavis-check-", dir=folder) as made:
            one, other = (sqlite3.connect(Path(made) / "trial.sqlite", timeout=1) for _ in range(2))
            with closing(one), closing(other):
                if one.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                    raise StoreUnavailable("it cannot keep a write-ahead log there")
                one.execute("CREATE TABLE trial (word TEXT)")
                with one:
                    one.execute("INSERT INTO trial VALUES ('there')")
                if other.execute("SELECT word FROM trial").fetchall() != [("there",)]:
                    raise StoreUnavailable("what one user of the file writes, another does not see")
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(str(error)) from error


class SqliteStore:
    """A DocumentStore in the file `path`, which only its owner can read; missing folders are made.

    `timeout`: seconds until StoreUnavailable; `upkeep`: the same for what no guest waits for, which is opening the
    store and asking about it as a whole: on a busy machine a worker had rather start late than not at all. `clock`: ms
    since the epoch, for expiry.

    A write that raised StoreUnavailable has not taken place, except when the disk itself hung. A file that is
    deleted while the store is open is not made anew, so that nobody writes to an empty store for want of the
    real one: put it back, or restart.

    Beside the file lie two that hold nothing: `-used`, locked in common by every process that has the store open, and
    `-alone`. The locks end with their processes, however those end.
    """

    def __init__(
        self,
        path: Path,
        collections: Sequence[Collection],
        *,
        timeout: float = 1.0,
        upkeep: float = 10.0,
        clock: Callable[[], int] = documents.milliseconds,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or Unread()
        self._answers = meter.durations("document")
        self._errors = meter.tally("document_errors")
        for name in (n for c in collections for n in (c.name, *(f for i in c.indexes for f in i.fields), *c.text)):
            # These become parts of SQL statements, which cannot be parameters.
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"not a name for a collection or a field: {name!r}")
        self._path = path
        self._collections = tuple(collections)
        self._timeout = timeout
        self._upkeep = upkeep
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._closed = False
        # Below: touched by that thread alone.
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._used: int | None = None

    async def open(self) -> None:
        """Make the file and the tables that are missing. After StoreUnavailable, later calls try again."""
        await self._run(_nothing, within=self._upkeep)

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._closed:
            return
        self._closed = True
        ending = self._thread.submit(self._let_go)
        await asyncio.wait({asyncio.wrap_future(ending)}, timeout=self._timeout)
        self._thread.shutdown(wait=ending.done())

    async def ping(self) -> None:
        """Prove that the file can be read and that its lock for writing can be had."""
        await self._run(_nothing, write=True)

    async def insert(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, expires_at: int | None = None
    ) -> None:
        """Add a document as version 1. Raises Duplicate, StoreUnavailable."""
        table = self._table(collection)
        row = (documents.checked_id(id), documents.expiry(expires_at), documents.as_json(collection, data))

        def work(db: sqlite3.Connection) -> None:
            # What has expired must not stand in the way of a new document with the same id.
            self._drop_expired(db, table)
            added = db.execute(f"INSERT INTO {table} (id, version, expires_at, data) VALUES (?, 1, ?, ?)", row)
            _keep_words(db, collection, added.lastrowid, data)

        await self._run(work, write=True)

    async def get(self, collection: Collection, id: str) -> Document | None:
        """The document, or None. Raises StoreUnavailable."""
        sql = f"SELECT seq, id, version, data FROM {self._table(collection)} WHERE id = ? AND {_UNEXPIRED}"
        rows = await self._rows(sql, (documents.checked_id(id), self._clock()))
        return _document(rows[0]) if rows else None

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
        """Documents whose indexed fields equal `values`, in insertion order. Raises StoreUnavailable."""
        asked = documents.asked(collection, index, values)
        after = documents.position(cursor)
        documents.at_least_one(limit)
        conditions = [f"{_value(field)} IS ?" for field, _ in asked] + [_UNEXPIRED]
        parameters: list[Any] = [value for _, value in asked] + [self._clock()]
        if after is not None:
            conditions.append("seq < ?" if newest_first else "seq > ?")
            parameters.append(after)
        rows = await self._rows(
            f"SELECT seq, id, version, data FROM {self._table(collection)} WHERE {' AND '.join(conditions)}"
            f" ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ?",
            (*parameters, limit + 1),
        )
        return Page(
            [_document(row) for row in rows[:limit]],
            str(rows[limit - 1][0]) if len(rows) > limit else None,
        )

    async def replace(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, version: int, expires_at: int | None = None
    ) -> bool:
        """Put `data` and this expiry in place if the version still is `version`; say whether it was.

        Raises Duplicate for a value that is another document's in a unique index, StoreUnavailable.
        """
        table = self._table(collection)
        new = (documents.expiry(expires_at), documents.as_json(collection, data))
        old = (documents.checked_id(id), version)

        def work(db: sqlite3.Connection) -> bool:
            self._drop_expired(db, table)
            found = db.execute(
                f"UPDATE {table} SET version = version + 1, expires_at = ?, data = ?"
                " WHERE id = ? AND version = ? RETURNING seq",
                new + old,
            ).fetchone()
            if found is not None:
                _keep_words(db, collection, found[0], data)
            return found is not None

        return await self._run(work, write=True)

    async def delete(self, collection: Collection, id: str) -> bool:
        """Remove the document; say whether there was one. Raises StoreUnavailable."""
        sql = f"DELETE FROM {self._table(collection)} WHERE id = ? AND {_UNEXPIRED}"
        parameters = (documents.checked_id(id), self._clock())
        return await self._run(lambda db: db.execute(sql, parameters).rowcount > 0, write=True)

    async def search(self, collection: Collection, text: str, *, limit: int = 20) -> list[Document]:
        """Documents whose text fields contain every word of `text`, newest first. Raises StoreUnavailable."""
        table = self._table(collection)
        if not collection.text:
            raise ValueError(f"{collection.name} has no text fields")
        documents.at_least_one(limit)
        # As one parameter, however many words there are.
        words = json.dumps(documents.words(text)[: documents.QUESTION])
        rows = await self._rows(
            f"SELECT seq, id, version, data FROM {table} WHERE {_UNEXPIRED} AND seq IN"
            f" (SELECT seq FROM {table}_words WHERE word IN (SELECT value FROM json_each(?))"
            "   GROUP BY seq HAVING count(*) = json_array_length(?))"
            " ORDER BY seq DESC LIMIT ?",
            (self._clock(), words, words, limit),
        )
        return [_document(row) for row in rows]

    async def sweep(self) -> int:
        """Remove what has expired; returns how many. Raises StoreUnavailable."""
        return await self._run(
            lambda db: sum(self._drop_expired(db, collection.name) for collection in self._collections), write=True
        )

    # ------------------------------------------------------------------------------------------ upkeep

    async def mark(self) -> dict[str, Any] | None:
        """What was last written down about the store as a whole."""
        rows = await self._run(lambda db: db.execute("SELECT mark FROM _visavis").fetchall(), within=self._upkeep)
        return json.loads(rows[0][0]) if rows else None

    async def swap_mark(self, before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
        """Write that down if it still is `before`; say whether it was."""

        def work(db: sqlite3.Connection) -> bool:
            if before is None:
                return db.execute("INSERT OR IGNORE INTO _visavis VALUES (1, ?)", (json.dumps(after),)).rowcount > 0
            swapped = (json.dumps(after), json.dumps(before))
            return db.execute("UPDATE _visavis SET mark = ? WHERE mark = ?", swapped).rowcount > 0

        return await self._run(work, write=True, within=self._upkeep)

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[None]:
        """Be the only one in such a block. Raises TimeoutError, StoreUnavailable."""
        await self.open()
        until = time.monotonic() + patience
        handle = self._sidecar("alone")
        try:
            while not _locked(handle, fcntl.LOCK_EX):
                if time.monotonic() >= until:
                    raise TimeoutError
                await asyncio.sleep(0.1)
            yield
        finally:
            os.close(handle)

    async def fit_indexes(self, *, change: bool = True) -> list[str]:
        """Make the indexes those that are declared; says what was, or would be, changed."""
        if not change:
            return [said for _, said in await self._run(self._unfitting, within=self._upkeep)]
        return await self._run(self._fit, write=True, within=_LONG)

    async def rewrite(self, collection: Collection, documents: Sequence[Stored]) -> int:
        """Put these in place of what has the same id and still the same version; returns how many."""
        table = self._table(collection)
        rows = [_row(collection, stored) for stored in documents]

        def work(db: sqlite3.Connection) -> int:
            done = 0
            for stored, (name, version, expires_at, text) in zip(documents, rows, strict=True):
                found = db.execute(
                    f"UPDATE {table} SET version = version + 1, expires_at = ?, data = ?"
                    " WHERE id = ? AND version = ? RETURNING seq",
                    (expires_at, text, name, version),
                ).fetchone()
                if found is not None:
                    _keep_words(db, collection, found[0], stored.data)
                    done += 1
            return done

        return await self._run(work, write=True, within=_LONG)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["_Snapshot"]:
        """Read everything as it is now, in one transaction, which hinders nobody."""
        async with self._apart() as apart:
            snapshot = _Snapshot(apart, self._clock())
            await snapshot.begin()
            yield snapshot

    @asynccontextmanager
    async def renewed(self, meanwhile: dict[str, Any], after: dict[str, Any]) -> AsyncIterator["_Renewal"]:
        """Replace everything in one transaction. Raises StoreInUse, StoreUnavailable."""
        await self.open()
        assert self._used is not None, "the store is open"
        if not _locked(self._used, fcntl.LOCK_EX):
            # Asking in vain may have cost the lock that was there.
            _locked(self._used, fcntl.LOCK_SH)
            raise StoreInUse(f"{self._path.name} is in use: stop the workers and the recorder first")
        try:
            async with self._apart() as apart:
                await apart.do(self._empty)
                yield _Renewal(apart)
                await apart.do(lambda db: _finish(db, after))
        finally:
            _locked(self._used, fcntl.LOCK_SH)

    @asynccontextmanager
    async def _apart(self) -> AsyncIterator["_Apart"]:
        """A connection in a thread of its own, for what takes long."""
        await self.open()
        apart = _Apart(self._path)
        try:
            yield apart
        finally:
            await apart.close()

    def _empty(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("BEGIN IMMEDIATE")
        for collection in self._collections:
            db.execute(f"DELETE FROM {collection.name}")
        self._fit(db)

    def _unfitting(self, db: sqlite3.Connection) -> list[tuple[str, str]]:
        """Statements that make the indexes fit, in this order, each with what it does."""
        found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        removed, added = [], []
        for collection in self._collections:
            declared = _indexes(collection)
            ours = re.compile(rf"{collection.name}_(?:by|unique)_.+")
            on_it = db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", (collection.name,)
            )
            for (name,) in on_it.fetchall():
                if ours.fullmatch(name) and declared.get(name) != found[name]:
                    removed.append((f"DROP INDEX {name}", f"removed {name}"))
                    del found[name]
            added += [(sql, f"added {name}") for name, sql in declared.items() if name not in found]
        return removed + added

    def _fit(self, db: sqlite3.Connection) -> list[str]:
        unfitting = self._unfitting(db)
        for statement, said in unfitting:
            try:
                db.execute(statement)
            except sqlite3.IntegrityError:
                raise Duplicate(said) from None
        return [said for _, said in unfitting]

    def _table(self, collection: Collection) -> str:
        if collection not in self._collections:
            raise ValueError(f"this store was not given the collection {collection.name!r}")
        return collection.name

    def _drop_expired(self, db: sqlite3.Connection, table: str) -> int:
        return db.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (self._clock(),)).rowcount

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return await self._run(lambda db: db.execute(sql, parameters).fetchall())

    # ------------------------------------------------------------------------------------------ the thread

    async def _run(
        self, work: Callable[[sqlite3.Connection], T], *, write: bool = False, within: float | None = None
    ) -> T:
        """Have the thread do `work`, as one transaction if it writes, within the timeout."""
        began = time.monotonic()
        try:
            done = await self._in_time(work, write, within or self._timeout)
        except StoreUnavailable:
            self._errors.n += 1
            raise
        if within is None:
            self._answers.add(time.monotonic() - began)
        return done

    async def _in_time(self, work: Callable[[sqlite3.Connection], T], write: bool, within: float) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # Waiting for a lock ends first, then the time to commit, and last the caller's patience: so the caller
        # learns what happened, and nothing is written that was reported as refused.
        now = time.monotonic()
        locked, deadline = now + within * 0.8, now + within
        try:
            async with asyncio.timeout(within * 1.2):
                running = asyncio.get_running_loop().run_in_executor
                return await running(self._thread, self._work, work, write, locked, deadline)
        except TimeoutError:
            raise StoreUnavailable(f"{self._path.name} did not answer in time") from None

    def _work(self, work: Callable[[sqlite3.Connection], T], write: bool, locked: float, deadline: float) -> T:
        try:
            db = self._connect(locked)
            _wait_until(db, locked)
            if not write:
                return work(db)
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            if time.monotonic() >= deadline:
                raise StoreUnavailable(f"{self._path.name} did not answer in time")
            db.execute("COMMIT")
            return result
        except sqlite3.IntegrityError:
            raise Duplicate from None
        except sqlite3.Error as error:
            if _kind(error) not in _PASSING:
                self._disconnect()
            if _kind(error) not in _AWAY:
                raise
            raise _away(self._path, error) from error
        except OSError as error:
            raise StoreUnavailable(f"{self._path.name}: {error.strerror}") from error
        finally:
            self._roll_back()

    def _connect(self, deadline: float) -> sqlite3.Connection:
        """The connection, to the file that is at our path now."""
        if time.monotonic() >= deadline:
            raise StoreUnavailable(f"{self._path.name} is too busy")
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._use()
            # SQLite gives its -wal and -shm files the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._disconnect()
            raise StoreUnavailable(f"{self._path.name} has been deleted: put it back, or restart") from None
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self._disconnect()
            self._path.chmod(0o600)
            db = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            try:
                self._prepare(db, deadline)
            except BaseException:
                db.close()
                raise
            self._connection, self._file = db, file
        return self._connection

    def _prepare(self, db: sqlite3.Connection, deadline: float) -> None:
        _wait_until(db, deadline)
        while db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            try:
                db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                # Two processes that change it at once make SQLite give up at once, whatever its timeout.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)
        # Durable through a power cut; and what was deleted is overwritten, not only forgotten.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA foreign_keys = ON")
        _wait_until(db, deadline)
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE IF NOT EXISTS _visavis (id INTEGER PRIMARY KEY CHECK (id = 1), mark TEXT NOT NULL)")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for collection in self._collections:
            # The indexes of a table that is there already may be those of a newer program: `fit_indexes` is for those.
            if collection.name not in tables:
                db.execute(_table_of(collection))
                for statement in _indexes(collection).values():
                    db.execute(statement)
            if collection.text and f"{collection.name}_words" not in tables:
                for statement in _words_of(collection):
                    db.execute(statement)
        db.execute("COMMIT")

    def _use(self) -> None:
        """Say that the store is in use, for as long as this one is open."""
        if self._used is None:
            handle = self._sidecar("used")
            if not _locked(handle, fcntl.LOCK_SH):
                os.close(handle)
                raise StoreUnavailable(f"{self._path.name} is being restored by another process")
            self._used = handle

    def _sidecar(self, name: str) -> int:
        return os.open(self._path.with_name(f"{self._path.name}-{name}"), os.O_RDWR | os.O_CREAT, 0o600)

    def _let_go(self) -> None:
        self._disconnect()
        used, self._used = self._used, None
        if used is not None:
            os.close(used)

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _nothing(_db: sqlite3.Connection) -> None:
    """What `open` and `ping` have done, beyond connecting and locking."""


class _Apart:
    """A connection with a thread of its own. What it had begun and not finished when it is closed is undone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-apart")
        self._connection: sqlite3.Connection | None = None

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns. Raises Duplicate, StoreUnavailable."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._do, work))

    async def close(self) -> None:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._close))
        self._thread.shutdown(wait=False)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            return work(self._connection)
        except sqlite3.IntegrityError:
            raise Duplicate from None
        except sqlite3.Error as error:
            if _kind(error) not in _AWAY:
                raise
            raise _away(self._path, error) from error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _Snapshot:
    """Fulfils `Snapshot`."""

    consistent = True

    def __init__(self, apart: _Apart, now: int) -> None:
        self._apart = apart
        self._now = now

    async def begin(self) -> None:
        # A transaction stands at the instant of its first look.
        await self._apart.do(lambda db: (db.execute("BEGIN"), db.execute("SELECT count(*) FROM _visavis").fetchone()))

    async def documents(self, collection: Collection) -> AsyncGenerator[list[Stored], None]:
        sql = f"SELECT id, version, expires_at, data FROM {collection.name} WHERE {_UNEXPIRED} ORDER BY seq"
        cursor = await self._apart.do(lambda db: db.execute(sql, (self._now,)))
        try:
            while page := await self._apart.do(lambda _: _page(cursor)):
                yield page
        finally:
            await self._apart.do(lambda _: cursor.close())


class _Renewal:
    """Fulfils `Renewal`, within one transaction."""

    def __init__(self, apart: _Apart) -> None:
        self._apart = apart

    async def add(self, collection: Collection, documents: Sequence[Stored]) -> None:
        rows = [_row(collection, stored) for stored in documents]

        def work(db: sqlite3.Connection) -> None:
            for stored, row in zip(documents, rows, strict=True):
                added = db.execute(
                    f"INSERT OR REPLACE INTO {collection.name} (id, version, expires_at, data) VALUES (?, ?, ?, ?)", row
                )
                _keep_words(db, collection, added.lastrowid, stored.data)

        await self._apart.do(work)


def _page(cursor: sqlite3.Cursor) -> list[Stored]:
    page: list[Stored] = []
    size = 0
    while size < documents.PAGE and (row := cursor.fetchone()) is not None:
        size += len(row[3])
        page.append(Stored(row[0], row[1], row[2], json.loads(row[3])))
    return page


def _row(collection: Collection, stored: Stored) -> tuple[str, int, int | None, str]:
    return (
        documents.checked_id(stored.id),
        stored.version,
        documents.expiry(stored.expires_at),
        documents.as_json(collection, stored.data),
    )


def _finish(db: sqlite3.Connection, mark: dict[str, Any]) -> None:
    db.execute("INSERT OR REPLACE INTO _visavis VALUES (1, ?)", (json.dumps(mark),))
    db.execute("COMMIT")


def _locked(handle: int, how: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(handle, how | fcntl.LOCK_NB)
        return True
    return False


def _kind(error: sqlite3.Error) -> int:
    # Extended codes keep the kind in their low byte.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _away(path: Path, error: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(f"{path.name}: {_AWAY[_kind(error)]}")


def _table_of(collection: Collection) -> str:
    return (
        f"CREATE TABLE {collection.name} (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
        " version INTEGER NOT NULL, expires_at INTEGER, data TEXT NOT NULL)"
    )


def _indexes(collection: Collection) -> dict[str, str]:
    """Each index by its name, as the statement that makes it, which is also how SQLite remembers it."""
    table = collection.name
    statements = {
        f"{table}_expires_at": f"CREATE INDEX {table}_expires_at ON {table} (expires_at) WHERE expires_at IS NOT NULL"
    }
    for index in collection.indexes:
        name = f"{table}_{'unique' if index.unique else 'by'}_{'_'.join(index.fields)}"
        # Every index ends with the row's number, `seq`, so that pages come out of it in order.
        statements[name] = (
            f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {name}"
            f" ON {table} ({', '.join(_value(field) for field in index.fields)})"
        )
    return statements


def _words_of(collection: Collection) -> list[str]:
    table = collection.name
    return [
        f"CREATE TABLE {table}_words (word TEXT NOT NULL, seq INTEGER NOT NULL"
        f" REFERENCES {table} (seq) ON DELETE CASCADE, PRIMARY KEY (word, seq)) WITHOUT ROWID",
        f"CREATE INDEX {table}_words_seq ON {table}_words (seq)",
    ]


def _value(field: str) -> str:
    return f"json_extract(data, '$.{field}')"


def _keep_words(db: sqlite3.Connection, collection: Collection, seq: int | None, data: Mapping[str, Any]) -> None:
    if collection.text:
        db.execute(f"DELETE FROM {collection.name}_words WHERE seq = ?", (seq,))
        db.executemany(
            f"INSERT INTO {collection.name}_words (word, seq) VALUES (?, ?)",
            [(word, seq) for word in documents.words_of(collection, data)],
        )


def _document(row: tuple[int, str, int, str]) -> Document:
    return Document(row[1], row[2], json.loads(row[3]))


def _wait_until(db: sqlite3.Connection, deadline: float) -> None:
    """Let statements wait for other processes' locks until then."""
    db.execute(f"PRAGMA busy_timeout = {max(0, round((deadline - time.monotonic()) * 1000))}")
