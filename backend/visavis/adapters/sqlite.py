"""The document store in one SQLite file: the embedded default, right for one machine and several workers on it.

Hides: SQL, the thread that SQLite's blocking calls run on, waiting for other processes' locks, and what becomes
of a full disk, a file that was deleted under us or one that is no database.

Each collection is a table of whole documents as JSON, with an index on the JSON path of every indexed field, and,
if it is searched, a table of the words in its documents. That second table does what FTS5 would do, with the words
that `core.documents` makes, so that both stores find the same; there is no query syntax to be smuggled in.
"""

import asyncio
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from visavis.core import documents
from visavis.core.ports import Collection, Document, Duplicate, Page, StoreUnavailable

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


class SqliteStore:
    """A DocumentStore in the file `path`, which only its owner can read; missing folders are made.

    `timeout`: seconds until StoreUnavailable. `clock`: ms since the epoch, for expiry.

    A write that raised StoreUnavailable has not taken place, except when the disk itself hung. A file that is
    deleted while the store is open is not made anew, so that nobody writes to an empty store for want of the
    real one: put it back, or restart.
    """

    def __init__(
        self,
        path: Path,
        collections: Sequence[Collection],
        *,
        timeout: float = 1.0,
        clock: Callable[[], int] = documents.milliseconds,
    ) -> None:
        for name in (n for c in collections for n in (c.name, *(f for i in c.indexes for f in i.fields), *c.text)):
            # These become parts of SQL statements, which cannot be parameters.
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"not a name for a collection or a field: {name!r}")
        self._path = path
        self._collections = tuple(collections)
        self._timeout = timeout
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._closed = False
        # Below: touched by that thread alone.
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def open(self) -> None:
        """Make the file, its tables and indexes as needed. After StoreUnavailable, later calls try again."""
        await self._run(_nothing)

    async def close(self) -> None:
        """Close the file and end the thread."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._disconnect)
        await asyncio.wait({asyncio.wrap_future(closing)}, timeout=self._timeout)
        self._thread.shutdown(wait=closing.done())

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

    def _table(self, collection: Collection) -> str:
        if collection not in self._collections:
            raise ValueError(f"this store was not given the collection {collection.name!r}")
        return collection.name

    def _drop_expired(self, db: sqlite3.Connection, table: str) -> int:
        return db.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (self._clock(),)).rowcount

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        return await self._run(lambda db: db.execute(sql, parameters).fetchall())

    # ------------------------------------------------------------------------------------------ the thread

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Have the thread do `work`, as one transaction if it writes, within the timeout."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # Waiting for a lock ends first, then the time to commit, and last the caller's patience: so the caller
        # learns what happened, and nothing is written that was reported as refused.
        deadline = time.monotonic() + self._timeout
        try:
            async with asyncio.timeout(self._timeout * 1.2):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work, write, deadline)
        except TimeoutError:
            raise StoreUnavailable(f"{self._path.name} did not answer in time") from None

    def _work(self, work: Callable[[sqlite3.Connection], T], write: bool, deadline: float) -> T:
        try:
            for_locks = deadline - self._timeout * 0.2
            db = self._connect(for_locks)
            _wait_until(db, for_locks)
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
            # Extended codes keep the kind in their low byte.
            kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if kind not in _PASSING:
                self._disconnect()
            if kind not in _AWAY:
                raise
            raise StoreUnavailable(f"{self._path.name}: {_AWAY[kind]}") from error
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
        for collection in self._collections:
            for statement in _schema(collection):
                db.execute(statement)
        db.execute("COMMIT")

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


def _schema(collection: Collection) -> list[str]:
    """Statements that make what the collection lacks. A changed index has a new name; its old one stays."""
    table = collection.name
    statements = [
        f"CREATE TABLE IF NOT EXISTS {table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
        " version INTEGER NOT NULL, expires_at INTEGER, data TEXT NOT NULL)",
        f"CREATE INDEX IF NOT EXISTS {table}_expires_at ON {table} (expires_at) WHERE expires_at IS NOT NULL",
    ]
    for index in collection.indexes:
        kind = "unique" if index.unique else "by"
        # Every index ends with the row's number, `seq`, so that pages come out of it in order.
        statements.append(
            f"CREATE {'UNIQUE ' if index.unique else ''}INDEX IF NOT EXISTS {table}_{kind}_{'_'.join(index.fields)}"
            f" ON {table} ({', '.join(_value(field) for field in index.fields)})"
        )
    if collection.text:
        statements += [
            f"CREATE TABLE IF NOT EXISTS {table}_words (word TEXT NOT NULL, seq INTEGER NOT NULL"
            f" REFERENCES {table} (seq) ON DELETE CASCADE, PRIMARY KEY (word, seq)) WITHOUT ROWID",
            f"CREATE INDEX IF NOT EXISTS {table}_words_seq ON {table}_words (seq)",
        ]
    return statements


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
