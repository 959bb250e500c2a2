"""What the rules need from outside, as small Protocols: adapters fulfil them, tests run on the real ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec


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


class DocumentStore(Protocol):
    """What must last: accounts, groups, reports, blocks. Never a stranger's words.

    Documents are JSON-shaped mappings. Expiry times are milliseconds since the epoch; an expired
    document is gone for every read from that instant, whether or not it was swept.
    Every method raises StoreUnavailable within about a second if the store is away.
    """

    async def open(self) -> None:
        """Connect and create every declared index."""

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
        """Documents whose indexed fields equal `values` (a prefix of the index's fields will do), in insertion order."""

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
