"""The document store in MongoDB: for several machines, with its replica sets and sharding.

Hides: the driver, its many ways of saying that the server is away, and the shape in which documents are kept:
{_id, seq, version, expires_at, expires, words, data}, in the MongoDB collection of its own name, written whole. `seq`
is the insertion order, from one counter per collection in `_sequences`; reads go by `expires_at`, in milliseconds,
and MongoDB's own sweep, once a minute, by the date `expires`; `words` is what `search` matches, made by
`core.documents`. `_visavis` holds the mark of the whole store and the lease of who is alone with it.

Only plain filters are used, and every value in them stands behind an operator of ours, so that it cannot be read as
one. Names follow the MongoDB manual's "TTL Indexes", "Multikey Indexes" and PyMongo's "Client Side Operation Timeout".
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo import AsyncMongoClient, IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, DuplicateKeyError, PyMongoError

from visavis.core import documents
from visavis.core.identity import new_id
from visavis.core.ports import Collection, Document, Duplicate, Meter, Page, Stored, StoreUnavailable
from visavis.core.tally import Unread

T = TypeVar("T")
_Stored = dict[str, Any]

_SHOWN: Final = {"seq": 1, "version": 1, "data": 1}
_WHOLE: Final = {**_SHOWN, "expires_at": 1}

_DUPLICATE: Final = 11000

_LONG: Final = 3600.0
"""Seconds for what must look at every document."""
_PATIENT: Final = 30.0
"""Seconds for a page of many documents."""
_BEAT: Final = 1.0
"""Seconds between the signs of life of who is alone with the store."""
_LAPSE: Final = 10.0
"""Seconds without one, by the clock of who waits, after which that one is taken for dead."""
_FEW, _MANY = 16, 1000
"""Documents asked for at once, the first time and at most."""


class Server(msgspec.Struct, frozen=True):
    """What a MongoDB tells of itself; `took`: seconds there and back."""

    version: str
    replica_set: str
    members: int
    took: float


async def ask(url: str, database: str, seconds: float = 5.0) -> Server:
    """Ask the server that takes writes, and have it take one. Raises StoreUnavailable, ValueError for the url."""
    try:
        client: AsyncMongoClient[_Stored] = AsyncMongoClient(
            url, w="majority", serverSelectionTimeoutMS=round(seconds * 1000)
        )
    except PyMongoError as error:
        raise ValueError(str(error)) from None
    try:
        with pymongo.timeout(seconds):
            told = await client.admin.command("hello")
            version = (await client.admin.command("buildInfo"))["version"]
            began = time.perf_counter()
            await client.admin.command("ping")
            took = time.perf_counter() - began
            trial = client[database]["_check"]
            await trial.insert_one({"_id": (name := secrets.token_hex(8))})
            await trial.delete_one({"_id": {"$eq": name}})
    except PyMongoError as error:
        raise StoreUnavailable(str(error).split(", Timeout:")[0]) from error
    finally:
        await client.close()
    return Server(version, told.get("setName", ""), len(told.get("hosts", ())), took)


class MongoStore:
    """A DocumentStore in the `database` that the connection string `url` leads to.

    `timeout`: seconds until StoreUnavailable. `clock`: ms since the epoch, for expiry.

    A write that raised StoreUnavailable may have taken place: the answer is what was lost.
    """

    def __init__(
        self,
        url: str,
        database: str,
        collections: Sequence[Collection],
        *,
        timeout: float = 1.0,
        clock: Callable[[], int] = documents.milliseconds,
        meter: Meter | None = None,
    ) -> None:
        meter = meter or Unread()
        self._answers = meter.durations("document")
        self._errors = meter.tally("document_errors")
        self._client: AsyncMongoClient[_Stored] = AsyncMongoClient(
            url,
            appname="visavis",
            w="majority",
            # The driver's monitor must give up a dead connection as soon as a caller would.
            connectTimeoutMS=round(timeout * 1000),
        )
        self._database = self._client[database]
        self._collections = tuple(collections)
        self._timeout = timeout
        self._clock = clock
        self._ready = False

    async def open(self) -> None:
        """Connect, and make the collections that are missing. After StoreUnavailable, later calls try again."""
        await self._ask(_nothing)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def ping(self) -> None:
        """Prove that a server which takes writes answers."""
        await self._ask(lambda: self._database.command("ping"))

    async def insert(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, expires_at: int | None = None
    ) -> None:
        """Add a document as version 1. Raises Duplicate, StoreUnavailable."""
        stored = self._stored(collection, id, data, 1, expires_at)

        async def work() -> None:
            stored["seq"] = await self._next(collection)
            await self._past_expired(collection, lambda: self._in(collection).insert_one(stored))

        await self._ask(work)

    async def get(self, collection: Collection, id: str) -> Document | None:
        """The document, or None. Raises StoreUnavailable."""
        query = {"_id": {"$eq": documents.checked_id(id)}, **self._unexpired()}
        found = await self._ask(lambda: self._in(collection).find_one(query, _SHOWN))
        return None if found is None else _document(found)

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
        query: _Stored = {f"data.{field}": {"$eq": v} for field, v in documents.asked(collection, index, values)}
        query |= self._unexpired()
        after = documents.position(cursor)
        documents.at_least_one(limit)
        if after is not None:
            query["seq"] = {"$lt" if newest_first else "$gt": after}
        found = await self._list(collection, query, limit + 1, newest_first)
        return Page(
            [_document(stored) for stored in found[:limit]],
            str(found[limit - 1]["seq"]) if len(found) > limit else None,
        )

    async def replace(
        self, collection: Collection, id: str, data: Mapping[str, Any], *, version: int, expires_at: int | None = None
    ) -> bool:
        """Put `data` and this expiry in place if the version still is `version`; say whether it was.

        Raises Duplicate for a value that is another document's in a unique index, StoreUnavailable.
        """
        stored = self._stored(collection, id, data, version + 1, expires_at)
        query: _Stored = {"_id": {"$eq": id}, "version": {"$eq": version}, **self._unexpired()}

        async def work() -> bool:
            kept = self._in(collection)
            old = await kept.find_one(query, {"seq": 1})
            if old is None:
                return False
            # Its place in the order stays. It is asked for again, since the document may have been deleted and
            # another inserted with its id meanwhile.
            stored["seq"] = query["seq"] = old["seq"]
            write = await self._past_expired(collection, lambda: kept.replace_one(query, stored))
            return write.matched_count > 0

        return await self._ask(work)

    async def delete(self, collection: Collection, id: str) -> bool:
        """Remove the document; say whether there was one. Raises StoreUnavailable."""
        query = {"_id": {"$eq": documents.checked_id(id)}, **self._unexpired()}
        return (await self._ask(lambda: self._in(collection).delete_one(query))).deleted_count > 0

    async def search(self, collection: Collection, text: str, *, limit: int = 20) -> list[Document]:
        """Documents whose text fields contain every word of `text`, newest first. Raises StoreUnavailable."""
        if not collection.text:
            raise ValueError(f"{collection.name} has no text fields")
        documents.at_least_one(limit)
        words = documents.words(text)[: documents.QUESTION]
        if not words:
            return []
        found = await self._list(collection, {"words": {"$all": words}, **self._unexpired()}, limit, True)
        return [_document(stored) for stored in found]

    async def sweep(self) -> int:
        """Remove what has expired, if MongoDB has not; returns how many. Raises StoreUnavailable."""

        async def work() -> int:
            return sum([await self._drop_expired(collection) for collection in self._collections])

        return await self._ask(work)

    # ------------------------------------------------------------------------------------------ upkeep

    async def mark(self) -> dict[str, Any] | None:
        """What was last written down about the store as a whole."""
        found = await self._ask(lambda: self._database["_visavis"].find_one({"_id": "mark"}))
        return None if found is None else json.loads(found["mark"])

    async def swap_mark(self, before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
        """Write that down if it still is `before`; say whether it was."""
        return await self._swap("mark", "mark", None if before is None else json.dumps(before), json.dumps(after))

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[None]:
        """Be the only one in such a block, by a lease that is renewed all the time.

        Raises TimeoutError, StoreUnavailable.
        """
        me = new_id()
        await self._take_lease(me, patience)
        block = asyncio.timeout(None)
        try:
            async with block:
                renewing = asyncio.create_task(self._renew_lease(me, block))
                try:
                    yield
                finally:
                    renewing.cancel()
                    await asyncio.wait({renewing})
                    with suppress(StoreUnavailable):
                        await self._give_lease_back(me)
        except TimeoutError:
            if not block.expired():
                raise
            raise StoreUnavailable("MongoDB: somebody else had to be taken for the one who is alone with it") from None

    async def fit_indexes(self, *, change: bool = True) -> list[str]:
        """Make the indexes those that are declared; says what was, or would be, changed."""
        said: list[str] = []
        for collection in self._collections:
            said += await self._ask(partial(self._fit, collection, change), within=_LONG)
        return said

    async def rewrite(self, collection: Collection, documents: Sequence[Stored]) -> int:
        """Put these in place of what has the same id and still the same version; returns how many."""
        done = 0
        for one in documents:
            done += await self.replace(collection, one.id, one.data, version=one.version, expires_at=one.expires_at)
        return done

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["_Snapshot"]:
        """Read everything: as it is now where MongoDB can, which is in a replica set or a sharded cluster."""
        hello = await self._ask(lambda: self._database.command("hello"))
        unexpired = self._unexpired()
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            yield _Snapshot(self, unexpired, None)
            return
        async with self._client.start_session(snapshot=True) as session:
            yield _Snapshot(self, unexpired, session)

    @asynccontextmanager
    async def renewed(self, meanwhile: dict[str, Any], after: dict[str, Any]) -> AsyncIterator["_Renewal"]:
        """Replace everything; `meanwhile` stays the mark of a store where that was not finished.

        Raises StoreUnavailable.
        """
        if not await self.swap_mark(await self.mark(), meanwhile):
            raise StoreUnavailable("MongoDB: another process is changing the store")
        for collection in self._collections:
            await self._ask(partial(self._in(collection).delete_many, {}), within=_LONG)
        await self.fit_indexes()
        yield _Renewal(self)
        if not await self.swap_mark(meanwhile, after):
            raise StoreUnavailable("MongoDB: another process is changing the store")

    async def _swap(self, what: str, field: str, before: str | None, after: str) -> bool:
        """Write a value of `_visavis` if it still is `before`, or not there yet; say whether it was."""
        kept = self._database["_visavis"]
        changed = {"_id": what, field: after}

        async def work() -> bool:
            if before is not None:
                return (await kept.replace_one({"_id": what, field: {"$eq": before}}, changed)).matched_count > 0
            try:
                await kept.insert_one(changed)
            except DuplicateKeyError:
                return False
            return True

        return await self._ask(work)

    async def _lease(self) -> str | None:
        found = await self._ask(lambda: self._database["_visavis"].find_one({"_id": "lease"}))
        return None if found is None else found["life"]

    async def _take_lease(self, me: str, patience: float) -> None:
        """Raises TimeoutError, StoreUnavailable."""
        until = time.monotonic() + patience
        seen, since = await self._lease(), time.monotonic()
        while True:
            lapsed = seen is None or time.monotonic() - since > _LAPSE
            if lapsed and await self._swap("lease", "life", seen, f"{me} 0"):
                return
            if time.monotonic() >= until:
                raise TimeoutError
            await asyncio.sleep(0.2)
            life = await self._lease()
            if life != seen:
                seen, since = life, time.monotonic()

    async def _give_lease_back(self, me: str) -> None:
        life = await self._lease()
        if life is not None and life.startswith(f"{me} "):
            mine = {"_id": "lease", "life": {"$eq": life}}
            await self._ask(lambda: self._database["_visavis"].delete_one(mine))

    async def _renew_lease(self, me: str, block: asyncio.Timeout) -> None:
        """Show that we live, until we cannot: then end the block, as another may have begun."""
        beat, shown = 0, time.monotonic()
        while True:
            await asyncio.sleep(_BEAT)
            with suppress(StoreUnavailable):
                if await self._swap("lease", "life", f"{me} {beat}", f"{me} {beat + 1}"):
                    beat, shown = beat + 1, time.monotonic()
                elif (life := await self._lease()) == f"{me} {beat + 1}":
                    beat, shown = beat + 1, time.monotonic()  # it was the answer that was lost
                elif life != f"{me} {beat}":
                    break
            if time.monotonic() - shown > _LAPSE * 0.7:
                break
        block.reschedule(asyncio.get_running_loop().time())

    async def _page(
        self, collection: Collection, query: _Stored, limit: int, session: AsyncClientSession | None
    ) -> list[_Stored]:
        def work() -> Awaitable[list[_Stored]]:
            found = self._in(collection).find(query, _WHOLE, limit=limit, session=session)
            return found.sort("seq", pymongo.ASCENDING).to_list()

        return await self._ask(work, within=_PATIENT)

    async def _add(self, collection: Collection, documents: Sequence[Stored]) -> None:
        """Insert these behind all others; one that is in the way of another gives way to it."""
        kept = self._in(collection)
        stored = [self._stored(collection, d.id, d.data, d.version, d.expires_at) for d in documents]

        async def work() -> None:
            last = await self._next(collection, len(stored))
            for seq, one in enumerate(stored, last - len(stored) + 1):
                one["seq"] = seq
            try:
                await kept.insert_many(stored)
            except BulkWriteError as error:
                if any(failed["code"] != _DUPLICATE for failed in error.details["writeErrors"]):
                    raise
                for one in stored:
                    for query in _same(collection, one):
                        await kept.delete_many(query)
                    await kept.insert_one(one)

        await self._ask(work, within=_PATIENT)

    def _in(self, collection: Collection) -> AsyncCollection[_Stored]:
        if collection not in self._collections:
            raise ValueError(f"this store was not given the collection {collection.name!r}")
        return self._database[collection.name]

    def _unexpired(self) -> _Stored:
        return {"expires_at": {"$gt": self._clock()}}

    def _stored(
        self, collection: Collection, id: str, data: Mapping[str, Any], version: int, expires_at: int | None
    ) -> _Stored:
        """The document as it is stored here, but for its `seq`."""
        expiry = documents.expiry(expires_at)
        stored: _Stored = {
            "_id": documents.checked_id(id),
            "version": version,
            # A number for all, so that one plain comparison finds what has not expired.
            "expires_at": documents.NEVER if expiry is None else expiry,
            "data": json.loads(documents.as_json(collection, data)),
        }
        if expiry is not None:
            stored["expires"] = DatetimeMS(expiry)
        if collection.text:
            stored["words"] = documents.words_of(collection, data)
        return stored

    async def _list(self, collection: Collection, query: _Stored, limit: int, newest_first: bool) -> list[_Stored]:
        def work() -> Awaitable[list[_Stored]]:
            found = self._in(collection).find(query, _SHOWN, limit=limit)
            return found.sort("seq", pymongo.DESCENDING if newest_first else pymongo.ASCENDING).to_list()

        return await self._ask(work)

    async def _next(self, collection: Collection, count: int = 1) -> int:
        """A place at the end of the collection's insertion order, the same for all workers whatever their clocks say.

        Of `count` places in a row, the last.
        """
        counter = await self._database["_sequences"].find_one_and_update(
            {"_id": collection.name}, {"$inc": {"last": count}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        assert counter is not None, "asked for it as it is after the upsert"
        return int(counter["last"])

    async def _past_expired(self, collection: Collection, write: Callable[[], Awaitable[T]]) -> T:
        """Write; what has expired but was not swept must not stand in the way."""
        try:
            return await write()
        except DuplicateKeyError:
            if not await self._drop_expired(collection):
                raise
            return await write()

    async def _drop_expired(self, collection: Collection) -> int:
        expired = {"expires_at": {"$lte": self._clock()}}
        return (await self._in(collection).delete_many(expired)).deleted_count

    # ------------------------------------------------------------------------------------------ the driver

    async def _ask(self, work: Callable[[], Awaitable[T]], *, within: float | None = None) -> T:
        """Do `work`, within the timeout however many questions to the server it takes."""
        usual, within = within is None, within or self._timeout
        began = time.monotonic()
        try:
            with pymongo.timeout(within):
                # The driver counts its own time, but not that of looking up names or of a busy event loop.
                async with asyncio.timeout(within * 1.2):
                    if not self._ready:
                        await self._create_collections()
                        self._ready = True
                    done = await work()
        except DuplicateKeyError:
            # The driver's message holds the values.
            raise Duplicate from None
        except (PyMongoError, TimeoutError) as error:
            self._errors.n += 1
            raise StoreUnavailable(f"MongoDB: {type(error).__name__}") from error
        if usual:
            self._answers.add(time.monotonic() - began)
        return done

    async def _create_collections(self) -> None:
        """Those that are missing, with their indexes. Of others they may be a newer program's: see `fit_indexes`."""
        there = set(await self._database.list_collection_names())
        for collection in self._collections:
            if collection.name not in there:
                await self._database[collection.name].create_indexes(list(_indexes(collection).values()))

    async def _fit(self, collection: Collection, change: bool) -> list[str]:
        """Of one collection, make the indexes those that are declared, if that is to be changed; says what."""
        kept = self._database[collection.name]
        declared = _indexes(collection)
        # By their keys, since nx-27017 gives them names of its own.
        found = {
            tuple((field, direction) for field, direction in index["key"]): (name, _options(index))
            for name, index in (await kept.index_information()).items()
            if name != "_id_"
        }
        wrong = {
            keys
            for keys, (_, options) in found.items()
            if keys not in declared or options != _options(declared[keys].document)
        }
        missing = [keys for keys in declared if keys not in found or keys in wrong]
        # Two of the same keys or the same name exclude each other.
        names = {declared[keys].document["name"] for keys in missing}
        in_the_way = [keys for keys in wrong if keys in declared or found[keys][0] in names]
        if change:
            for keys in in_the_way:
                await kept.drop_index(found[keys][0])
            try:
                if missing:
                    await kept.create_indexes([declared[keys] for keys in missing])
            except PyMongoError as error:
                if getattr(error, "code", None) != _DUPLICATE and "UNIQUE" not in str(error):
                    raise
                raise Duplicate(f"{collection.name}: {', '.join(sorted(names))}") from None
            for keys in wrong.difference(in_the_way):
                await kept.drop_index(found[keys][0])
        removed = sorted(f"removed {collection.name} {found[keys][0]}" for keys in wrong)
        return removed + sorted(f"added {collection.name} {name}" for name in names)


class _Snapshot:
    """Fulfils `Snapshot`; without a session of MongoDB's for one instant, page by page as things are by then."""

    def __init__(self, store: MongoStore, unexpired: _Stored, session: AsyncClientSession | None) -> None:
        self._store = store
        self._unexpired = unexpired
        self._session = session
        self.consistent = session is not None

    async def documents(self, collection: Collection) -> AsyncGenerator[list[Stored], None]:
        last, limit = -1, _FEW
        while True:
            query = {"seq": {"$gt": last}, **self._unexpired}
            found = await self._store._page(collection, query, limit, self._session)  # noqa: SLF001  # of this file
            if not found:
                return
            last = found[-1]["seq"]
            texts = [json.dumps(one["data"]) for one in found]
            size = sum(len(text) for text in texts)
            limit = max(1, min(_MANY, limit * 2, documents.PAGE * len(found) // size))
            # The driver's numbers are of a kind of its own.
            yield [
                Stored(
                    one["_id"],
                    int(one["version"]),
                    None if one["expires_at"] == documents.NEVER else int(one["expires_at"]),
                    json.loads(text),
                )
                for one, text in zip(found, texts, strict=True)
            ]


class _Renewal:
    """Fulfils `Renewal`."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store

    async def add(self, collection: Collection, documents: Sequence[Stored]) -> None:
        await self._store._add(collection, documents)  # noqa: SLF001  # of this file


_Keys = tuple[tuple[str, Any], ...]


def _indexes(collection: Collection) -> dict[_Keys, IndexModel]:
    """Each index by its keys."""
    up = pymongo.ASCENDING
    indexes: dict[_Keys, IndexModel] = {}

    def add(name: str, *fields: str, **options: Any) -> None:
        keys = tuple((field, up) for field in fields)
        indexes[keys] = IndexModel(list(keys), name=name, **options)

    add("seq", "seq")
    add("expires_at", "expires_at")
    add("expires", "expires", expireAfterSeconds=0)
    if collection.text:
        add("words", "words", "seq")
    for index in collection.indexes:
        fields = [f"data.{field}" for field in index.fields]
        if index.unique:
            add(f"unique_{'_'.join(index.fields)}", *fields, unique=True)
        else:
            add(f"by_{'_'.join(index.fields)}", *fields, "seq")
    return indexes


def _options(index: Mapping[str, Any]) -> tuple[bool, Any]:
    return bool(index.get("unique")), index.get("expireAfterSeconds")


def _same(collection: Collection, stored: _Stored) -> list[_Stored]:
    """Queries for what cannot be there together with this document."""
    unique = [index for index in collection.indexes if index.unique]
    return [
        {"_id": {"$eq": stored["_id"]}},
        *({f"data.{field}": {"$eq": stored["data"].get(field)} for field in index.fields} for index in unique),
    ]


async def _nothing() -> None:
    """What `open` asks for, beyond being ready."""


def _document(stored: _Stored) -> Document:
    return Document(stored["_id"], stored["version"], stored["data"])
