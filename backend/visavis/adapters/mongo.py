"""The document store in MongoDB: for several machines, with its replica sets and sharding.

Hides: the driver, its many ways of saying that the server is away, and the shape in which documents are kept:
{_id, seq, version, expires_at, expires, words, data}, in the MongoDB collection of its own name, written whole. `seq`
is the insertion order, from one counter per collection in `_sequences`; reads go by `expires_at`, in milliseconds,
and MongoDB's own sweep, once a minute, by the date `expires`; `words` is what `search` matches, made by
`core.documents`.

Only plain filters are used, and every value in them stands behind an operator of ours, so that it cannot be read as
one. Names follow the MongoDB manual's "TTL Indexes", "Multikey Indexes" and PyMongo's "Client Side Operation Timeout".
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo import AsyncMongoClient, IndexModel, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError, PyMongoError

from visavis.core import documents
from visavis.core.ports import Collection, Document, Duplicate, Page, StoreUnavailable

T = TypeVar("T")
_Stored = dict[str, Any]

_SHOWN: Final = {"seq": 1, "version": 1, "data": 1}


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
    ) -> None:
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
        """Connect and create the indexes. After StoreUnavailable, later calls try again."""
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

    def _in(self, collection: Collection) -> AsyncCollection[_Stored]:
        if collection not in self._collections:
            raise ValueError(f"this store was not given the collection {collection.name!r}")
        return self._database[collection.name]

    def _unexpired(self) -> _Stored:
        return {"expires_at": {"$gt": self._clock()}}

    def _stored(
        self, collection: Collection, id: str, data: Mapping[str, Any], version: int, expires_at: int | None
    ) -> _Stored:
        """The document as it is kept, but for its `seq`."""
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

    async def _next(self, collection: Collection) -> int:
        """The next place in the collection's insertion order, the same for all workers whatever their clocks say."""
        counter = await self._database["_sequences"].find_one_and_update(
            {"_id": collection.name}, {"$inc": {"last": 1}}, upsert=True, return_document=ReturnDocument.AFTER
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

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, within the timeout however many questions to the server it takes."""
        try:
            with pymongo.timeout(self._timeout):
                # The driver counts its own time, but not that of looking up names or of a busy event loop.
                async with asyncio.timeout(self._timeout * 1.2):
                    if not self._ready:
                        await self._create_indexes()
                        self._ready = True
                    return await work()
        except DuplicateKeyError:
            # The driver's message holds the values.
            raise Duplicate from None
        except (PyMongoError, TimeoutError) as error:
            raise StoreUnavailable(f"MongoDB: {type(error).__name__}") from error

    async def _create_indexes(self) -> None:
        """Make those that are missing. A changed index has a new name; its old one stays."""
        for collection in self._collections:
            indexes = [
                IndexModel([("seq", pymongo.ASCENDING)], name="seq"),
                IndexModel([("expires_at", pymongo.ASCENDING)], name="expires_at"),
                IndexModel([("expires", pymongo.ASCENDING)], name="expires", expireAfterSeconds=0),
            ]
            if collection.text:
                indexes.append(IndexModel([("words", pymongo.ASCENDING), ("seq", pymongo.ASCENDING)], name="words"))
            for index in collection.indexes:
                keys = [(f"data.{field}", pymongo.ASCENDING) for field in index.fields]
                if not index.unique:
                    keys.append(("seq", pymongo.ASCENDING))
                kind = "unique" if index.unique else "by"
                indexes.append(IndexModel(keys, name=f"{kind}_{'_'.join(index.fields)}", unique=index.unique))
            await self._database[collection.name].create_indexes(indexes)


async def _nothing() -> None:
    """What `open` asks for, beyond being ready."""


def _document(stored: _Stored) -> Document:
    return Document(stored["_id"], stored["version"], stored["data"])
