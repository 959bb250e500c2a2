"""The document store's schema: its version, and the migrations that bring the documents of an older one up to date.

The version stands for the collections as `core/collections.py` declares them and for the shapes of their documents. It
is written into the store's mark, with the oldest version of the program that can still work on it. Whoever changes
either adds a `Migration` below, also if only an index changes.

Workers are restarted one after the other, so the old program runs on the store while the new one migrates it, and may
be started on it again. Hence two releases for a change that the old program would not survive. *Expand*: the new
program reads both shapes, the migration has `oldest` at the version before. *Contract*, once no older program runs: a
migration with `oldest` at its own version brings over what is left, and the old shape may be forgotten.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from visavis.core import collections
from visavis.core.ports import Collection, Duplicate, Stored, Upkeep

log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds for which a worker waits for another that migrates."""

Change = Callable[[dict[str, Any]], dict[str, Any]]


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """One step to the next version of the schema."""

    about: str
    """What it does, for operators."""
    oldest: int
    """The oldest version whose program can work on the store afterwards."""
    changes: Mapping[str, Change] = {}
    """By collection: the document's new data from the old. What was changed already comes back as it is: a migration
    that was cut short begins anew, and old workers may write old documents behind it.
    """
    rewrites: tuple[str, ...] = ()
    """Collections of which other fields are searched now: their documents are written anew, changed or not."""


MIGRATIONS: tuple[Migration, ...] = ()
"""The first leads to version 2. Never remove one: an old backup may need it."""


class CannotUse(Exception):
    """The store must not be used as it is. The message begins with a code and says what to do."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What a store says about itself."""

    version: int = 1
    """Also of a store that says nothing: it is older than versions."""
    oldest: int = 1
    restoring: bool = False
    """A restore was begun and did not finish: what the store holds is nothing."""

    def plain(self) -> dict[str, Any]:
        """As the store keeps it."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told


class Schema:
    """The collections, and the migrations that led to them."""

    def __init__(
        self, declared: Sequence[Collection] = collections.ALL, migrations: Sequence[Migration] = MIGRATIONS
    ) -> None:
        self.collections = tuple(declared)
        self._migrations = tuple(migrations)
        self.version = 1 + len(self._migrations)
        self.mark = Mark(self.version, self._migrations[-1].oldest if self._migrations else 1)
        """Of a store that is as it should be."""

    async def bring_up(self, store: Upkeep, patience: float = PATIENCE) -> None:
        """Migrate the store, if it has to be and nobody else does; else wait for that one.

        Raises CannotUse, StoreUnavailable.
        """
        await store.open()
        if await self._is_up(store):
            return
        try:
            async with store.alone(patience):
                if not await self._is_up(store):
                    await self._migrate(store)
        except TimeoutError:
            raise CannotUse(
                "migration_under_way",
                f"another process has been migrating the document store for {patience:.0f} seconds or more; "
                "see what it logs, and start this one again when it is done",
            ) from None

    async def read_mark(self, store: Upkeep, *, also_newer: bool = True) -> Mark:
        """What the store says about itself. Raises CannotUse, StoreUnavailable."""
        mark = msgspec.convert(await store.mark() or {}, Mark)
        if mark.restoring:
            raise CannotUse(
                "restore_unfinished",
                "a restore into this document store is under way or was cut short, and what it holds now is not whole; "
                "wait for its end, or run `visavis restore` again",
            )
        if mark.version > self.version and (mark.oldest > self.version or not also_newer):
            raise CannotUse(
                "schema_newer",
                f"the document store has schema {mark.version}, and this program knows schemas up to {self.version}; "
                f"run a release that knows schema {mark.version}, or restore a backup made before the upgrade with "
                "`visavis restore --replace`",
            )
        return mark

    def changed(self, collection: str, data: dict[str, Any], version: int) -> dict[str, Any]:
        """A document of that version as it is in this one."""
        for migration in self._migrations[version - 1 :]:
            change = migration.changes.get(collection)
            if change is not None:
                data = _settled(change, data)
        return data

    async def _is_up(self, store: Upkeep) -> bool:
        mark = await self.read_mark(store)
        if mark.version > self.version:
            # Its indexes are those that the newer program needs.
            log.warning("schema_newer", extra={"schema": mark.version, "program": self.version})
            return True
        return await store.mark() == self.mark.plain() and not await store.fit_indexes(change=False)

    async def _migrate(self, store: Upkeep) -> None:
        mark = await self.read_mark(store)
        for version, migration in enumerate(self._migrations[mark.version - 1 :], mark.version + 1):
            told = {"schema": version, "about": migration.about}
            log.warning("migration_begun", extra=told)
            changed = 0
            for collection in self.collections:
                changed += await self._bring_over(store, collection, migration)
            await self._write_down(store, Mark(version, migration.oldest))
            log.warning("migration_done", extra={**told, "documents": changed})
        try:
            for said in await store.fit_indexes():
                log.warning("index_changed", extra={"index": said})
        except Duplicate as refused:
            raise CannotUse(
                "not_unique",
                f"documents that are there do not allow an index that must be unique ({refused}); "
                "remove or change one of each two that are alike",
            ) from None
        await self._write_down(store, self.mark)

    async def _write_down(self, store: Upkeep, mark: Mark) -> None:
        before = await store.mark()
        if before != mark.plain() and not await store.swap_mark(before, mark.plain()):
            raise CannotUse("migration_under_way", "another process migrates the document store; start this one again")

    async def _bring_over(self, store: Upkeep, collection: Collection, migration: Migration) -> int:
        """Change what has to be changed; returns how many documents that was."""
        change = migration.changes.get(collection.name)
        anew = collection.name in migration.rewrites
        changed = 0
        again = change is not None or anew
        while again:
            again = False
            async with store.snapshot() as snapshot, aclosing(snapshot.documents(collection)) as pages:
                async for page in pages:
                    new = [(one, _settled(change, one.data) if change else one.data) for one in page]
                    due = [
                        Stored(one.id, one.version, one.expires_at, data)
                        for one, data in new
                        if anew or _text(data) != _text(one.data)
                    ]
                    done = await store.rewrite(collection, due)
                    changed += done
                    # Somebody else wrote or removed one of them meanwhile: look again.
                    again |= done < len(due) and change is not None
        return changed


def _settled(change: Change, data: dict[str, Any]) -> dict[str, Any]:
    """The changed data. Raises ValueError for a change that would change them once more."""
    once = _text(change(json.loads(_text(data))))
    if _text(change(json.loads(once))) != once:
        raise ValueError("a migration must leave what it changed as it is")
    settled: dict[str, Any] = json.loads(once)
    return settled


def _text(data: dict[str, Any]) -> str:
    # Values that are equal to Python, such as 1 and True, are not the same.
    return json.dumps(data)
