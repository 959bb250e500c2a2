"""How a document store comes up to the program's schema, asked of both: indexes, migrations, who may do it when."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adapters.stores import Another, Nx
from rig import ROOT
from visavis.adapters.mongo import MongoStore
from visavis.adapters.sqlite import SqliteStore
from visavis.core.ports import Collection, Document, Duplicate, Index, Stored, StoreUnavailable, Upkeep
from visavis.core.schema import CannotUse, Mark, Migration, Schema

THINGS = Collection("things", indexes=(Index("colour", ("colour",)),), text=("body",))
AFTERWARDS = Collection("things", indexes=(Index("hue", ("hue",)),), text=("title",))


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    """`colour` becomes `hue`."""
    return {("hue" if key == "colour" else key): value for key, value in data.items()}


TO_HUE = Migration(about="colour is called hue", oldest=1, changes={"things": renamed}, rewrites=("things",))
OLD = Schema([THINGS], ())
NEW = Schema([AFTERWARDS], [TO_HUE])


async def stored(store: Upkeep, collection: Collection) -> list[Stored]:
    async with store.snapshot() as snapshot:
        return [one async for page in snapshot.documents(collection) for one in page]


async def fill(store: Upkeep, count: int) -> None:
    for n in range(count):
        data = {"colour": f"c{n % 3}", "body": f"old {n}", "title": f"new {n}"}
        await store.insert(THINGS, f"t{n}", data, expires_at=None if n % 2 else 4_000_000_000_000 + n)


# ------------------------------------------------------------------------------------------- indexes


async def test_indexes_become_those_that_are_declared(another: Another) -> None:
    """Added, removed and changed between unique and not, with data there; what one no longer declares holds no more."""
    first = Collection("things", indexes=(Index("one", ("a",), unique=True), Index("two", ("b", "c"))))
    store = await another([first])
    for n in range(5):
        await store.insert(first, f"t{n}", {"a": n, "b": n, "b_c": n})
    assert await store.fit_indexes(change=False) == []
    # Two that would be called the same: the fields b and c, and the field b_c.
    second = Collection(
        "things", indexes=(Index("one", ("a",)), Index("two", ("b_c",)), Index("new", ("b",), unique=True))
    )
    later = await another([second], Schema([second], [Migration(about="indexes", oldest=1)]))
    assert await later.fit_indexes(change=False) == []
    await later.insert(second, "same a", {"a": 1, "b": 7})
    assert [d.id for d in (await later.find(second, "two", [3])).documents] == ["t3"]
    with pytest.raises(Duplicate):
        await later.insert(second, "same b", {"a": 8, "b": 7})


async def test_a_store_of_the_release_before_versions_is_version_1(tmp_path: Path, nx: Nx) -> None:
    """It has no mark; it gets one, and its documents and indexes stay as they are."""
    path = tmp_path / "documents.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("""
            CREATE TABLE IF NOT EXISTS things (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
              version INTEGER NOT NULL, expires_at INTEGER, data TEXT NOT NULL);
            CREATE INDEX IF NOT EXISTS things_expires_at ON things (expires_at) WHERE expires_at IS NOT NULL;
            CREATE INDEX IF NOT EXISTS things_by_colour ON things (json_extract(data, '$.colour'));
            CREATE TABLE IF NOT EXISTS things_words (word TEXT NOT NULL, seq INTEGER NOT NULL
              REFERENCES things (seq) ON DELETE CASCADE, PRIMARY KEY (word, seq)) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS things_words_seq ON things_words (seq);
            INSERT INTO things (id, version, data) VALUES ('t', 3, '{"colour": "red"}');
        """)
    store = SqliteStore(path, [THINGS])
    try:
        await store.open()
        assert await store.mark() is None
        assert await store.fit_indexes(change=False) == []
        await OLD.bring_up(store)
        assert await store.mark() == Mark(1, 1).plain()
        assert await store.get(THINGS, "t") == Document("t", 3, {"colour": "red"})
    finally:
        await store.close()


async def test_a_unique_index_that_the_documents_do_not_allow_is_said_so(another: Another) -> None:
    """By a code, the index's name and what to do; the store serves the old program as before."""
    store = await another([THINGS], OLD)
    await store.insert(THINGS, "1", {"colour": "red"})
    await store.insert(THINGS, "2", {"colour": "red"})
    unique = Collection("things", indexes=(Index("colour", ("colour",), unique=True),), text=("body",))
    with pytest.raises(CannotUse, match=r"not_unique: .*unique_colour.*remove or change") as refused:
        await another([unique], Schema([unique], [Migration(about="one of each", oldest=1)]))
    assert refused.value.code == "not_unique"
    await store.insert(THINGS, "3", {"colour": "red"})
    assert [d.id for d in (await store.find(THINGS, "colour", ["red"])).documents] == ["1", "2", "3"]


# ------------------------------------------------------------------------------------------- migrations


async def test_documents_are_brought_over(another: Another) -> None:
    """All of them, found by what they say now, in their order and until their expiry; one step after the other."""
    store = await another([THINGS], OLD)
    await fill(store, 20)
    assert await store.mark() == Mark(1, 1).plain()
    before = await stored(store, THINGS)
    shout = Migration(about="loud", oldest=3, changes={"things": lambda d: {**d, "hue": d["hue"].upper()}})
    later = await another([AFTERWARDS], Schema([AFTERWARDS], [TO_HUE, shout]))
    after = await stored(later, AFTERWARDS)
    assert [(one.id, one.expires_at) for one in after] == [(one.id, one.expires_at) for one in before]
    assert after[1] == Stored("t1", 3, None, {"hue": "C1", "body": "old 1", "title": "new 1"})
    assert [d.id for d in (await later.find(AFTERWARDS, "hue", ["C1"], limit=2)).documents] == ["t1", "t4"]
    assert [d.id for d in await later.search(AFTERWARDS, "new 7")] == ["t7"]
    assert await later.search(AFTERWARDS, "old") == []
    assert await later.mark() == Mark(3, 3).plain()


async def test_what_needs_no_change_is_not_written(another: Another) -> None:
    """Its version stays, so that nobody who has read it is refused."""
    store = await another([THINGS], OLD)
    await store.insert(THINGS, "old", {"colour": "red"})
    await store.insert(THINGS, "new", {"hue": "red"})
    plain = Migration(about="colour is called hue", oldest=1, changes={"things": renamed})
    later = await another([AFTERWARDS], Schema([AFTERWARDS], [plain]))
    assert await later.get(AFTERWARDS, "new") == Document("new", 1, {"hue": "red"})
    assert await later.get(AFTERWARDS, "old") == Document("old", 2, {"hue": "red"})


async def test_one_migrates_while_the_others_wait(another: Another) -> None:
    """Of several workers that start at once, each finds a store that is up to date, and each document written once."""
    store = await another([THINGS], OLD)
    await fill(store, 30)
    workers = await asyncio.gather(*(another([AFTERWARDS], NEW) for _ in range(5)))
    for worker in workers:
        assert {one.version for one in await stored(worker, AFTERWARDS)} == {2}
    assert await store.mark() == NEW.mark.plain()


async def test_workers_may_start_at_once_on_nothing(another: Another) -> None:
    """On a database that is not there yet, nobody trips over what another makes."""
    workers = await asyncio.gather(*(another([AFTERWARDS], NEW) for _ in range(6)))
    await asyncio.gather(*(one.insert(AFTERWARDS, f"t{n}", {"hue": "red"}) for n, one in enumerate(workers)))
    assert len((await workers[0].find(AFTERWARDS, "hue", ["red"])).documents) == 6
    assert await workers[5].mark() == NEW.mark.plain()
    assert await workers[5].fit_indexes(change=False) == []


async def test_an_old_worker_may_write_meanwhile(another: Another) -> None:
    """What it replaces while the migration reads is brought over as it then is, and nothing of it is lost."""
    store = await another([THINGS], OLD)
    await fill(store, 10)
    writing = 0

    def change(data: dict[str, Any]) -> dict[str, Any]:
        # In the middle of the migration, and in a thread of its own, so that it is over before the change.
        nonlocal writing
        if data.get("body") == "old 5" and not writing:
            writing = 1
            asyncio.run_coroutine_threadsafe(rewritten(), loop)
        return renamed(data)

    async def rewritten() -> None:
        nonlocal writing
        assert await store.replace(THINGS, "t9", {"colour": "late", "body": "late"}, version=1)
        writing = 2

    class Slowly:
        """The same store, whose pages wait until the old worker has written."""

        def __getattr__(self, name: str) -> Any:
            return getattr(newer, name)

        async def rewrite(self, collection: Collection, documents: list[Stored]) -> int:
            while writing == 1:
                await asyncio.sleep(0.01)
            return await newer.rewrite(collection, documents)

    loop = asyncio.get_running_loop()
    newer = await another([THINGS], OLD)
    schema = Schema([THINGS], [Migration(about="hue", oldest=1, changes={"things": change})])
    await schema.bring_up(Slowly())  # type: ignore[arg-type]
    assert writing == 2
    assert await newer.get(THINGS, "t9") == Document("t9", 3, {"hue": "late", "body": "late"})
    assert [one.id for one in await stored(newer, THINGS) if "colour" in one.data] == []


async def test_who_waits_too_long_says_so(another: Another) -> None:
    """With a code and what to do; and nothing was changed by it."""
    store = await another([THINGS], OLD)
    await fill(store, 1)
    waiting = await another([THINGS], OLD)
    hue = Schema([THINGS], [Migration(about="hue", oldest=1, changes={"things": renamed})])
    async with store.alone(5):
        with pytest.raises(CannotUse, match=r"migration_under_way: .* start this one again"):
            await hue.bring_up(waiting, patience=0.5)
    assert (await waiting.get(THINGS, "t0")) == Document("t0", 1, {"colour": "c0", "body": "old 0", "title": "new 0"})
    await hue.bring_up(waiting, patience=5)


async def test_a_newer_store_is_refused_unless_it_says_that_it_bears_us(another: Another) -> None:
    """Expand: the old program may start again, and leaves the indexes alone. Contract: it may not."""
    store = await another([THINGS], OLD)
    expanded = Collection("things", indexes=(*THINGS.indexes, Index("hue", ("hue",))), text=THINGS.text)
    expand = Migration(about="hue as well", oldest=1)
    await another([expanded], Schema([expanded], [expand]))
    again = await another([THINGS], OLD)
    await again.insert(THINGS, "t", {"colour": "red"})
    newer = await another([expanded], Schema([expanded], [expand]))
    assert await newer.fit_indexes(change=False) == []
    contract = Migration(about="hue only", oldest=3, changes={"things": renamed})
    await another([AFTERWARDS], Schema([AFTERWARDS], [expand, contract]))
    with pytest.raises(
        CannotUse, match=r"schema_newer: .* schema 3, and this program knows schemas up to 1; run"
    ) as no:
        await another([THINGS], OLD)
    assert no.value.code == "schema_newer"
    assert await store.mark() == Mark(3, 3).plain()


async def test_a_store_whose_restore_was_cut_short_is_refused(another: Another) -> None:
    """Half of a backup must not look like all there is."""
    store = await another([THINGS], OLD)
    assert await store.swap_mark(await store.mark(), {**Mark(1, 1).plain(), "restoring": True})
    with pytest.raises(CannotUse, match="restore_unfinished: "):
        await another([THINGS], OLD)


MIGRATOR = """
import asyncio, os, signal, sys
sys.path[:0] = [{tests!r}, {backend!r}]
from adapters.test_migrations import AFTERWARDS, NEW, renamed
from visavis.adapters.mongo import MongoStore
from visavis.adapters.sqlite import SqliteStore
from visavis.core.schema import Migration, Schema
from pathlib import Path

def change(data):
    if data["body"] == "old 700":
        os.kill(os.getpid(), signal.SIGKILL)
    return renamed(data)

async def main(kind, where, database):
    store = SqliteStore(Path(where), [AFTERWARDS]) if kind == "sqlite" else MongoStore(where, database, [AFTERWARDS])
    await Schema([AFTERWARDS], [Migration(about="dies", oldest=1, changes={{"things": change}})]).bring_up(store)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["sqlite", "nx"])
async def test_a_migration_killed_in_the_middle_is_finished_by_the_next(kind: str, tmp_path: Path, nx: Nx) -> None:
    """Some documents are new by then and some are old; the lock of the dead does not hold for long."""
    path, database = tmp_path / "documents.db", f"visavis_test_{os.getpid()}_{kind}"
    store: Upkeep = SqliteStore(path, [THINGS]) if kind == "sqlite" else MongoStore(nx.url, database, [THINGS])
    newer: Upkeep = SqliteStore(path, [AFTERWARDS]) if kind == "sqlite" else MongoStore(nx.url, database, [AFTERWARDS])
    try:
        await OLD.bring_up(store)
        async with store.renewed(Mark().plain(), Mark().plain()) as renewal:
            padding = "x" * 3000
            for start in range(0, 1000, 100):
                things = [
                    Stored(f"t{n}", 1, None, {"colour": "red", "body": f"old {n}", "title": padding})
                    for n in range(start, start + 100)
                ]
                await renewal.add(THINGS, things)
        script = MIGRATOR.format(tests=str(ROOT / "tests"), backend=str(ROOT / "backend"))
        where = str(path) if kind == "sqlite" else nx.url
        died = await asyncio.create_subprocess_exec(sys.executable, "-c", script, kind, where, database)
        assert await died.wait() == -signal.SIGKILL
        half = await stored(store, THINGS)
        assert 0 < len([one for one in half if "hue" in one.data]) < 700
        assert await store.mark() == Mark(1, 1).plain()
        await NEW.bring_up(newer, patience=30)
        assert [one.id for one in await stored(newer, AFTERWARDS)] == [f"t{n}" for n in range(1000)]
        assert {tuple(one.data) for one in await stored(newer, AFTERWARDS)} == {("hue", "body", "title")}
    finally:
        await store.close()
        await newer.close()


async def test_mongo_a_lease_lost_ends_the_block(nx: Nx) -> None:
    """Who was taken for dead, and was only slow, must not go on beside its successor."""
    store = MongoStore(nx.url, f"visavis_test_{os.getpid()}_lease", [THINGS])
    try:
        with pytest.raises(StoreUnavailable, match="somebody else"):  # noqa: PT012  # the block is what is ended
            async with store.alone(5):
                await store._database["_visavis"].delete_one({"_id": "lease"})
                await store._database["_visavis"].insert_one({"_id": "lease", "life": "another 0"})
                await asyncio.sleep(60)
        assert await store._lease() == "another 0"
    finally:
        await store.close()
