"""What the document store promises, asked of every store there is; then each store's own misfortunes."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.stores import COLLECTIONS, NOTES, Another, Clock, Nx
from faults import Link
from rig import missing
from visavis.adapters.mongo import MongoStore
from visavis.adapters.sqlite import SqliteStore
from visavis.core import documents
from visavis.core.collections import BLOCKS, REPORTS
from visavis.core.ports import Collection, Document, DocumentStore, Duplicate, Index, StoreUnavailable
from visavis.core.schema import Schema

HOSTILE: Any = {"$ne": 1}


async def ids(store: DocumentStore, *values: Any, **how: Any) -> list[str]:
    return [d.id for d in (await store.find(NOTES, "shelf", values, **how)).documents]


async def found(store: DocumentStore, text: str, **how: Any) -> list[str]:
    return [d.id for d in await store.search(NOTES, text, **how)]


# ------------------------------------------------------------------------------------------- one document


async def test_a_document_comes_back_as_it_was_put_in(store: DocumentStore) -> None:
    """What is inserted is read back unchanged, as version 1."""
    report = {
        "at": 1_800_000_000_000,
        "reporter": "a",
        "reported": "b",
        "words": "he said “no” \\ 'x' \"y\" 😀\n\t\0 %_*",
        "messages": [
            {"id": "m1", "mine": False, "text": "hi", "at": 1},
            {"id": "m2", "mine": True, "text": "", "at": 2},
        ],
        "status": "open",
    }
    await store.insert(REPORTS, "r1", report)
    assert await store.get(REPORTS, "r1") == Document("r1", 1, report)
    assert await store.get(REPORTS, "r2") is None
    assert await store.get(BLOCKS, "r1") is None


@pytest.mark.parametrize(
    "value",
    [
        [None, True, False, 0, 1, -1, 1.0, -0.5, 1e300, 2**63 - 1, -(2**63)],
        [[], {}, "", [[]], [{}], {"": {"": []}}],
        [[1, [2, [3, {"a": [{"b": None}]}]]], {"x y": "z", "1": 2, "é": "é", "e\u0301": "e\u0301"}],
        ["true", "null", "1", "1.0", "[1]", '{"$ne": 1}', "2024-01-01T00:00:00Z", "5f5f5f5f5f5f5f5f5f5f5f5f"],
        ["$ne", "$where", "a.b", "\0", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "\u202e"],
    ],
)
async def test_any_json_shaped_value_is_kept_exactly(store: DocumentStore, value: Any) -> None:
    """Types, order, emptiness and odd characters survive, in an insert and in a replacement."""
    await store.insert(NOTES, "n", {"v": value})
    first = await store.get(NOTES, "n")
    assert first is not None
    assert repr(first.data) == repr({"v": value})
    assert await store.replace(NOTES, "n", {"again": [value]}, version=1)
    second = await store.get(NOTES, "n")
    assert second is not None
    assert repr(second.data) == repr({"again": [value]})


@pytest.mark.parametrize(
    "data",
    [
        {"a": {"$ne": 1}},
        {"$set": {"a": 1}},
        {"a": [{"b.c": 1}]},
        {"a\0": 1},
        {1: "a"},
        {"a": 2**63},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": "\ud800"},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {"owner": {"a": 1}},
        {"owner": True},
        {"owner": 1.0},
        {"owner": ["a"]},
        {"owner": "a\0b"},
        {"a": "x" * documents.LARGEST},
        {"a": json.loads("[" * 40 + "]" * 40)},
    ],
    ids=lambda data: repr(data)[:24].encode("ascii", "replace").decode(),
)
async def test_what_cannot_be_kept_exactly_is_refused(store: DocumentStore, data: Any) -> None:
    """A key that MongoDB would read as an operator, a number no store can hold: ValueError, and nothing is stored."""
    with pytest.raises(ValueError, match=r".+"):
        await store.insert(NOTES, "n", data)
    assert await store.get(NOTES, "n") is None
    await store.insert(NOTES, "n", {"a": "before"})
    with pytest.raises(ValueError, match=r".+"):
        await store.replace(NOTES, "n", data, version=1)
    assert await store.get(NOTES, "n") == Document("n", 1, {"a": "before"})


async def test_the_largest_document_is_kept_and_searched(store: DocumentStore) -> None:
    """A document at the limit, all of it search words, is no trouble for either store."""
    body = " ".join(f"{n:x}" for n in range(0x10000, 0x10000 + (documents.LARGEST - 40) // 6))
    await store.insert(NOTES, "n", {"body": body})
    assert await found(store, "10000 10fff") == ["n"]


async def test_an_id_or_a_value_asked_for_is_never_an_operator(store: DocumentStore) -> None:
    """A mapping where a value belongs is refused, and a string that looks like one is a string."""
    await store.insert(NOTES, "n1", {"owner": "a", "kind": 1})
    await store.insert(NOTES, "n2", {"owner": '{"$ne": 1}', "kind": 1})
    for asked in (
        lambda: store.get(NOTES, HOSTILE),
        lambda: store.delete(NOTES, HOSTILE),
        lambda: store.insert(NOTES, HOSTILE, {}),
        lambda: store.replace(NOTES, HOSTILE, {}, version=1),
        lambda: store.find(NOTES, "shelf", [HOSTILE]),
        lambda: store.find(NOTES, "shelf", ["a", HOSTILE]),
        lambda: store.find(NOTES, "shelf", [["a"]]),
        lambda: store.find(NOTES, "shelf", "a"),
    ):
        with pytest.raises(ValueError, match=r".+"):
            await asked()
    assert await ids(store, '{"$ne": 1}') == ["n2"]
    assert await ids(store, "$ne") == []
    assert await store.get(NOTES, '{"$ne": 1}') is None


async def test_an_id_can_be_taken_once(store: DocumentStore, another: Another) -> None:
    """Of many who insert the same id at once, on two workers, one succeeds; the others are told."""
    other = await another()
    results = await asyncio.gather(
        *((store, other)[n % 2].insert(NOTES, "n", {"by": n}) for n in range(10)), return_exceptions=True
    )
    assert [r for r in results if r is None] == [None]
    assert all(isinstance(r, Duplicate) for r in results if r is not None)
    kept = await other.get(NOTES, "n")
    assert kept is not None
    assert kept.data == {"by": results.index(None)}


async def test_a_unique_index_admits_each_pair_once(store: DocumentStore) -> None:
    """A second block of the same person by the same person is a Duplicate, the way back is not."""
    await store.insert(BLOCKS, "1", {"blocker": "a", "blocked": "b", "at": 1})
    await store.insert(BLOCKS, "2", {"blocker": "b", "blocked": "a", "at": 2})
    with pytest.raises(Duplicate):
        await store.insert(BLOCKS, "3", {"blocker": "a", "blocked": "b", "at": 3})
    with pytest.raises(Duplicate):
        await store.replace(BLOCKS, "2", {"blocker": "a", "blocked": "b", "at": 3}, version=1)
    with pytest.raises(ValueError, match="blocked"):
        await store.insert(BLOCKS, "4", {"blocker": "a"})
    assert [d.id for d in (await store.find(BLOCKS, "pair", ["a", "b"])).documents] == ["1"]
    assert await store.get(BLOCKS, "2") == Document("2", 1, {"blocker": "b", "blocked": "a", "at": 2})
    assert await store.delete(BLOCKS, "1")
    await store.insert(BLOCKS, "3", {"blocker": "a", "blocked": "b", "at": 3})


async def test_a_replacement_needs_the_version_that_was_read(store: DocumentStore, another: Another) -> None:
    """Of many who replace the same version at once, one succeeds; the version grows by one."""
    other = await another()
    await store.insert(NOTES, "n", {"by": None})
    results = await asyncio.gather(
        *((store, other)[n % 2].replace(NOTES, "n", {"by": n}, version=1) for n in range(10))
    )
    assert results.count(True) == 1
    assert await store.get(NOTES, "n") == Document("n", 2, {"by": results.index(True)})
    assert not await store.replace(NOTES, "n", {}, version=1)
    assert not await store.replace(NOTES, "n", {}, version=3)
    assert not await store.replace(NOTES, "never", {}, version=1)
    assert await store.get(NOTES, "never") is None


async def test_a_deleted_document_is_gone(store: DocumentStore) -> None:
    """Delete says whether there was something to delete, and leaves nothing to find."""
    await store.insert(NOTES, "n", {"owner": "a", "body": "word"})
    assert await store.delete(NOTES, "n")
    assert not await store.delete(NOTES, "n")
    assert await store.get(NOTES, "n") is None
    assert await ids(store, "a") == []
    assert await found(store, "word") == []


async def test_documents_outlive_the_store_that_wrote_them(store: DocumentStore, another: Another) -> None:
    """What one worker wrote, another reads, also after the first has gone."""
    await store.insert(NOTES, "n", {"owner": "a"})
    other = await another()
    assert await ids(other, "a") == ["n"]
    await store.close()
    assert await ids(other, "a") == ["n"]


# ------------------------------------------------------------------------------------------- finding


async def test_find_compares_exactly(store: DocumentStore) -> None:
    """Numbers are not strings, case counts, and None stands for a field that is None or not there."""
    for name, owner in {"one": 1, "text": "1", "a": "a", "upper": "A", "none": None, "big": 2**63 - 1}.items():
        await store.insert(NOTES, name, {"owner": owner, "kind": 1})
    await store.insert(NOTES, "absent", {"kind": 1})
    assert await ids(store, 1) == ["one"]
    assert await ids(store, "1") == ["text"]
    assert await ids(store, "a") == ["a"]
    assert await ids(store, 2**63 - 1) == ["big"]
    assert await ids(store, 2**63 - 2) == []
    assert await ids(store, None) == ["none", "absent"]
    assert await ids(store, None, 1) == ["none", "absent"]


async def test_a_prefix_of_an_index_will_do(store: DocumentStore) -> None:
    """Two values, one or none: all in insertion order."""
    for n, (owner, kind) in enumerate([("a", 2), ("b", 1), ("a", 1), ("a", 2)]):
        await store.insert(NOTES, str(n), {"owner": owner, "kind": kind})
    assert await ids(store, "a", 2) == ["0", "3"]
    assert await ids(store, "a") == ["0", "2", "3"]
    assert await ids(store) == ["0", "1", "2", "3"]
    assert await ids(store, newest_first=True) == ["3", "2", "1", "0"]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_join_without_gaps_or_repeats(store: DocumentStore, newest_first: bool) -> None:
    """Following the cursor gives every document once, while others are inserted, deleted and replaced."""
    for n in range(7):
        await store.insert(NOTES, f"n{n}", {"owner": "a"})
    seen: list[str] = []
    cursor = None
    for turn in range(10):
        page = await store.find(NOTES, "shelf", ["a"], limit=3, cursor=cursor, newest_first=newest_first)
        seen += [d.id for d in page.documents]
        cursor = page.cursor
        if cursor is None:
            break
        if turn == 0:
            await store.insert(NOTES, "late", {"owner": "a"})
            await store.delete(NOTES, seen[-1])
            await store.replace(NOTES, seen[0], {"owner": "a", "new": True}, version=1)
    expected = [f"n{n}" for n in range(7)]
    assert seen == (expected[::-1] if newest_first else [*expected, "late"])


async def test_a_last_full_page_has_no_cursor(store: DocumentStore) -> None:
    """The cursor is there if and only if there is more."""
    for n in range(4):
        await store.insert(NOTES, str(n), {"owner": "a"})
    first = await store.find(NOTES, "shelf", ["a"], limit=2)
    assert first.cursor is not None
    assert (await store.find(NOTES, "shelf", ["a"], limit=2, cursor=first.cursor)).cursor is None
    assert (await store.find(NOTES, "shelf", ["b"])).cursor is None


async def test_insertion_order_is_the_same_for_all_workers(store: DocumentStore, another: Another) -> None:
    """Documents of two workers stand in the order in which they were inserted, whatever their ids."""
    other = await another()
    names = ["z", "a", "m", "b", "y", "c"]
    for n, name in enumerate(names):
        await (store, other)[n % 2].insert(NOTES, name, {"owner": "a"})
    assert await ids(store, "a") == names
    assert await ids(other, "a", newest_first=True) == names[::-1]


async def test_the_index_follows_a_replacement(store: DocumentStore) -> None:
    """A replaced document is found by what it now says, in its old place."""
    for name in ("1", "2", "3"):
        await store.insert(NOTES, name, {"owner": "a", "body": "old"})
    await store.replace(NOTES, "2", {"owner": "b", "body": "new"}, version=1)
    assert await ids(store, "a") == ["1", "3"]
    assert await ids(store, "b") == ["2"]
    assert await ids(store) == ["1", "2", "3"]
    assert await found(store, "old") == ["3", "1"]
    assert await found(store, "new") == ["2"]


async def test_an_index_declared_later_finds_what_was_there_before(store: DocumentStore, another: Another) -> None:
    """A new release with one more index needs no migration."""
    await store.insert(NOTES, "n", {"owner": "a", "colour": "red"})
    notes = Collection("notes", indexes=(*NOTES.indexes, Index("colour", ("colour",))), text=NOTES.text)
    newer = await another([notes])
    assert [d.id for d in (await newer.find(notes, "colour", ["red"])).documents] == ["n"]


async def test_mistakes_are_told_apart_from_empty_results(store: DocumentStore) -> None:
    """A collection or an index nobody declared, a cursor nobody gave, an impossible limit: ValueError."""
    stranger = Collection("stranger", indexes=(Index("a", ("a",)),))
    for asked in (
        lambda: store.insert(stranger, "n", {}),
        lambda: store.get(stranger, "n"),
        lambda: store.find(stranger, "a", ["x"]),
        lambda: store.find(NOTES, "owner", ["x"]),
        lambda: store.find(NOTES, "shelf", ["x", 1, 2]),
        lambda: store.find(NOTES, "shelf", ["x"], cursor="1 OR 1=1"),
        lambda: store.find(NOTES, "shelf", ["x"], cursor="9" * 30),
        lambda: store.find(NOTES, "shelf", ["x"], limit=0),
        lambda: store.search(BLOCKS, "x"),
        lambda: store.search(NOTES, "x", limit=-1),
        lambda: store.get(NOTES, ""),
        lambda: store.get(NOTES, "\ud800"),
        lambda: store.find(NOTES, "shelf", ["\ud800"]),
        lambda: store.insert(NOTES, "n", {}, expires_at=-1),
        lambda: store.insert(NOTES, "n", {}, expires_at=10**18),
    ):
        with pytest.raises(ValueError, match=r".+"):
            await asked()


# ------------------------------------------------------------------------------------------- searching


async def test_search_finds_documents_with_every_word(store: DocumentStore) -> None:
    """All words, whole, in any order, case and field; also deep inside a field; newest first."""
    await store.insert(NOTES, "1", {"body": "The quick brown fox", "other": "unseen"})
    await store.insert(NOTES, "2", {"body": "QUICK!", "thread": [{"text": "a brown-ish thing"}, {"text": "fox"}]})
    await store.insert(NOTES, "3", {"body": "quickly"})
    await store.insert(NOTES, "4", {})
    assert await found(store, "quick") == ["2", "1"]
    assert await found(store, "FOX quick, brown; quick") == ["2", "1"]
    assert await found(store, "quick the") == ["1"]
    assert await found(store, "unseen") == []
    assert await found(store, "quick", limit=1) == ["2"]
    assert await found(store, "") == []
    assert await found(store, " ?! ") == []


async def test_search_folds_writing(store: DocumentStore) -> None:
    """Case and composition do not matter in any script; Chinese and Japanese are found without spaces."""
    await store.insert(NOTES, "german", {"body": "Straße Ärger"})
    await store.insert(NOTES, "hindi", {"body": "हिन्दी में"})
    await store.insert(NOTES, "japanese", {"body": "東京タワーへ行く"})
    await store.insert(NOTES, "wide", {"body": "\uff21\uff22\uff23 \ufb01n"})
    assert await found(store, "STRASSE a\u0308rger") == ["german"]
    assert await found(store, "हिन्दी") == ["hindi"]
    assert await found(store, "हन") == []
    assert await found(store, "東京") == ["japanese"]
    assert await found(store, "abc fin") == ["wide"]


@pytest.mark.parametrize(
    "text",
    ['fox" OR "1"="1', "fox*", "f%", "f_x", "NEAR(fox dog)", "body:fox OR", "{body}: fox", "-nothing", "^fox dog", "'"],
)
async def test_search_has_no_syntax(store: DocumentStore, text: str) -> None:
    """What would be an operator, a wildcard or a quote to a database is words and spaces here."""
    await store.insert(NOTES, "n", {"body": "a fox"})
    assert await found(store, text) == (["n"] if text == "fox*" else [])


async def test_search_takes_a_very_long_question(store: DocumentStore) -> None:
    """Its first hundred words are what counts."""
    many = [f"w{n}" for n in range(3000)]
    await store.insert(NOTES, "n", {"body": " ".join(many[:100])})
    assert await found(store, " ".join(many)) == ["n"]
    assert await found(store, " ".join(many[1:])) == []


def test_making_words_is_linear() -> None:
    """A run of 100,000 combining marks, which takes seconds to normalise as a whole, takes none here."""
    began = time.process_time()
    assert len(documents.words("\u0301\u0327" * 50_000)) == 1
    assert time.process_time() - began < 0.5


# ------------------------------------------------------------------------------------------- expiry


async def test_an_expired_document_is_gone_for_every_read(store: DocumentStore, clock: Clock) -> None:
    """From the instant of expiry nothing finds, replaces or deletes it; one without expiry stays."""
    await store.insert(NOTES, "lasting", {"owner": "a", "body": "word"})
    await store.insert(NOTES, "passing", {"owner": "a", "body": "word"}, expires_at=clock() + 600_000)
    assert await store.get(NOTES, "passing") is not None
    assert await ids(store, "a") == ["lasting", "passing"]
    assert await found(store, "word") == ["passing", "lasting"]
    clock.move(minutes=11)
    assert await store.get(NOTES, "passing") is None
    assert await ids(store, "a") == ["lasting"]
    assert await found(store, "word") == ["lasting"]
    assert not await store.replace(NOTES, "passing", {}, version=1)
    assert not await store.delete(NOTES, "passing")
    assert await store.get(NOTES, "lasting") is not None


async def test_expiry_is_exact_to_the_millisecond(
    another: Another, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there in the millisecond before, and not in the one that it expires in."""
    instant = clock() + 600_000
    store = await another()
    await store.insert(NOTES, "n", {}, expires_at=instant)
    monkeypatch.setattr(Clock, "__call__", lambda self: instant - 1)
    assert await store.get(NOTES, "n") is not None
    monkeypatch.setattr(Clock, "__call__", lambda self: instant)
    assert await store.get(NOTES, "n") is None


async def test_what_has_expired_does_not_stand_in_the_way(store: DocumentStore, clock: Clock) -> None:
    """Its id and its place in a unique index are free, though nobody has swept."""
    await store.insert(NOTES, "n", {"body": "old"}, expires_at=clock() + 600_000)
    await store.insert(BLOCKS, "1", {"blocker": "a", "blocked": "b"}, expires_at=clock() + 600_000)
    await store.insert(BLOCKS, "2", {"blocker": "x", "blocked": "y"})
    clock.move(minutes=11)
    await store.insert(NOTES, "n", {"body": "new"})
    assert await store.get(NOTES, "n") == Document("n", 1, {"body": "new"})
    assert await found(store, "old") == []
    assert await store.replace(BLOCKS, "2", {"blocker": "a", "blocked": "b"}, version=1)


async def test_a_replacement_sets_the_expiry_anew(store: DocumentStore, clock: Clock) -> None:
    """It can lengthen a document's life, end it, or lift the expiry by giving none."""
    for name in ("longer", "lifted"):
        await store.insert(NOTES, name, {}, expires_at=clock() + 600_000)
    await store.insert(NOTES, "shorter", {})
    assert await store.replace(NOTES, "longer", {}, version=1, expires_at=clock() + 1_200_000)
    assert await store.replace(NOTES, "lifted", {}, version=1)
    assert await store.replace(NOTES, "shorter", {}, version=1, expires_at=clock() + 600_000)
    clock.move(minutes=11)
    assert await ids(store) == ["longer", "lifted"]
    clock.move(minutes=11)
    assert await ids(store) == ["lifted"]


async def test_a_sweep_removes_what_has_expired_and_counts_it(store: DocumentStore, clock: Clock) -> None:
    """Across all collections; a second sweep finds nothing."""
    for n in range(3):
        await store.insert(NOTES, f"n{n}", {"body": "word"}, expires_at=clock() + 600_000)
    await store.insert(BLOCKS, "b", {"blocker": "a", "blocked": "b"}, expires_at=clock() + 600_000)
    await store.insert(NOTES, "lasting", {})
    assert await store.sweep() == 0
    clock.move(minutes=11)
    assert await store.sweep() == 4
    assert await store.sweep() == 0
    assert await ids(store) == ["lasting"]


# ------------------------------------------------------------------------------------------- the store is away

Faulty = Callable[[], Awaitable[Any]]


def every_method(store: DocumentStore) -> list[Faulty]:
    return [
        store.ping,
        lambda: store.insert(NOTES, "new", {"body": "word"}),
        lambda: store.get(NOTES, "n"),
        lambda: store.find(NOTES, "shelf", ["a"]),
        lambda: store.replace(NOTES, "n", {}, version=1),
        lambda: store.delete(NOTES, "n"),
        lambda: store.search(NOTES, "word"),
        store.sweep,
    ]


@contextmanager
def about_a_second() -> Iterator[None]:
    """Twice as long is still about a second, on a machine with other things to do."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 2


async def refused_in_a_second(*calls: Faulty) -> list[str]:
    """All of these calls, made at once, raise StoreUnavailable; gives their messages."""
    with about_a_second():
        results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    assert [type(r) for r in results] == [StoreUnavailable] * len(calls), results
    return [str(r) for r in results]


async def working_again(store: DocumentStore, id: str) -> None:
    """Within three seconds of its cause going away the store works, by itself, for reads and writes."""
    deadline = time.monotonic() + 3
    while True:
        try:
            await store.insert(NOTES, id, {"owner": "again"})
        except StoreUnavailable:
            assert time.monotonic() < deadline
        else:
            break
    assert id in await ids(store, "again")


# ------------------------------------------------------------------------------------------- SQLite's misfortunes


@asynccontextmanager
async def sqlite_store(path: Path, *, upkeep: float = 1.0) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, COLLECTIONS, upkeep=upkeep)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a file system of that size there; gives what resizes it. Skips where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "visavis-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("mounting a small disk takes root")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_sqlite_makes_its_folders_and_a_private_file(tmp_path: Path) -> None:
    """Parents are made; nobody but the owner can read the file or what SQLite keeps beside it."""
    path = tmp_path / "a" / "b" / "documents.db"
    async with sqlite_store(path) as store:
        await store.open()
        await store.insert(NOTES, "n", {})
        beside = {"", "-wal", "-shm", "-used"}
        assert {f.name for f in path.parent.iterdir()} == {f"documents.db{name}" for name in beside}
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_sqlite_makes_an_existing_file_private(tmp_path: Path) -> None:
    """A file that others could read, from a careless copy say, is closed to them."""
    path = tmp_path / "documents.db"
    path.touch(0o644)
    async with sqlite_store(path) as store:
        await store.open()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_sqlite_keeps_nothing_of_a_deleted_document(tmp_path: Path) -> None:
    """Neither its text nor the words it was found by are left in the file, whether deleted or expired."""
    path = tmp_path / "documents.db"
    async with sqlite_store(path) as store:
        for n in range(20):
            await store.insert(NOTES, f"n{n}", {"body": f"compromising{n} " * 100}, expires_at=1 if n % 2 else None)
            await store.delete(NOTES, f"n{n}")
        await store.sweep()
    assert {file.name for file in tmp_path.iterdir()} == {"documents.db", "documents.db-used"}
    assert b"compromising" not in path.read_bytes()


async def test_sqlite_leaves_no_thread_behind(tmp_path: Path) -> None:
    """One thread while open, none after; closing twice, or without opening, is no error; a closed store is away."""
    before = threading.active_count()
    async with sqlite_store(tmp_path / "documents.db") as store:
        await store.open()
        await asyncio.gather(*(store.ping() for _ in range(20)))
        assert threading.active_count() == before + 1
        await store.close()
        assert threading.active_count() == before
        await refused_in_a_second(*every_method(store))
    async with sqlite_store(tmp_path / "never.db"):
        pass
    assert threading.active_count() == before


async def test_sqlite_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Workers that start together on a file that is not there yet all succeed, and see each other's writes."""
    stores = [SqliteStore(tmp_path / "documents.db", COLLECTIONS, timeout=10) for _ in range(8)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(*(store.insert(NOTES, str(n), {"owner": "a"}) for n, store in enumerate(stores)))
        assert sorted(await ids(stores[0], "a")) == [str(n) for n in range(8)]
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_sqlite_locked_by_another_process(tmp_path: Path) -> None:
    """Writes are refused in a second, however many wait; reads go on; afterwards all is well, nothing half done."""
    path = tmp_path / "documents.db"
    async with sqlite_store(path) as store:
        await store.insert(NOTES, "n", {"owner": "a"})
        with locked_by_another_process(path):
            calls = [lambda n=n: store.insert(NOTES, f"n{n}", {"owner": "a"}) for n in range(20)]
            messages = await refused_in_a_second(store.ping, store.sweep, *calls)
            assert messages[0] in {"documents.db: locked by another process", "documents.db did not answer in time"}
            assert await ids(store, "a") == ["n"]
            assert await store.get(NOTES, "n") is not None
        await working_again(store, "later")
        assert await ids(store, "a") == ["n"]


async def test_sqlite_locked_when_it_opens(tmp_path: Path) -> None:
    """The same at the start: refused in a second, and the first call after the lock is gone opens the store."""
    path = tmp_path / "documents.db"
    with locked_by_another_process(path):
        async with sqlite_store(path) as store:
            await refused_in_a_second(store.open)
    async with sqlite_store(path) as store:
        with locked_by_another_process(path):
            await refused_in_a_second(store.open)
        await working_again(store, "later")


async def test_sqlite_opens_late_rather_than_not_at_all(tmp_path: Path) -> None:
    """While guests are refused, a worker that starts waits for the lock, and has what it needs once that is gone."""
    path = tmp_path / "documents.db"
    async with sqlite_store(path, upkeep=30) as starting, sqlite_store(path) as store:
        with locked_by_another_process(path):
            brought_up = asyncio.create_task(Schema(COLLECTIONS, ()).bring_up(starting))
            for _ in range(2):
                await refused_in_a_second(lambda: store.insert(NOTES, "n", {}))
            assert not brought_up.done()
        await brought_up
        await working_again(starting, "later")


async def test_sqlite_on_a_full_disk(tmp_path: Path) -> None:
    """A write without room is refused and leaves no trace; reads go on; with room again, writes do too."""
    with small_disk(tmp_path / "disk", 600) as resize:
        async with sqlite_store(tmp_path / "disk" / "documents.db") as store:
            await store.open()
            written: list[str] = []

            async def fill() -> None:
                for n in range(100):
                    await store.insert(NOTES, str(n), {"owner": "a", "body": f"word{n}", "fill": "x" * 30_000})
                    written.append(str(n))

            with pytest.raises(StoreUnavailable, match="no space left"):
                await fill()
            assert written
            await refused_in_a_second(lambda: store.insert(NOTES, "more", {"fill": "x" * 200_000}))
            assert await ids(store, "a") == written
            assert await found(store, f"word{len(written)}") == []
            resize(3000)
            await working_again(store, "later")
            assert await ids(store, "a") == written


async def test_sqlite_beyond_its_page_limit(tmp_path: Path) -> None:
    """The same without a disk of our own: SQLite itself says full."""
    async with sqlite_store(tmp_path / "documents.db") as store:
        await store.open()

        def limit(pages: int) -> None:
            assert store._connection is not None
            store._connection.execute(f"PRAGMA max_page_count = {pages}")

        await asyncio.wrap_future(store._thread.submit(limit, 40))
        with pytest.raises(StoreUnavailable, match="no space left"):
            await store.insert(NOTES, "n", {"fill": "x" * 300_000})
        assert await store.get(NOTES, "n") is None
        await asyncio.wrap_future(store._thread.submit(limit, 1000))
        await store.insert(NOTES, "n", {"fill": "x" * 300_000})


async def test_sqlite_on_a_disk_that_cannot_hold_it(tmp_path: Path) -> None:
    """A folder that cannot be made is the same kind of news."""
    (tmp_path / "file").write_text("")
    async with sqlite_store(tmp_path / "file" / "documents.db") as store:
        messages = await refused_in_a_second(store.open, *every_method(store))
        assert messages[0].startswith("documents.db: ")


async def test_sqlite_file_deleted_under_it(tmp_path: Path) -> None:
    """Nothing is written to a file that has lost its name, nor to a new, empty one; put back, it serves again."""
    path = tmp_path / "documents.db"
    async with sqlite_store(path) as store:
        await store.insert(NOTES, "n", {"owner": "a"})
    async with sqlite_store(path) as store:
        assert await ids(store, "a") == ["n"]
        path.rename(tmp_path / "backup.db")
        messages = await refused_in_a_second(*every_method(store))
        assert set(messages) == {"documents.db has been deleted: put it back, or restart"}
        assert not path.exists()
        shutil.copy(tmp_path / "backup.db", path)
        await working_again(store, "later")
        assert await ids(store, "a") == ["n"]


async def test_sqlite_file_replaced_under_it(tmp_path: Path) -> None:
    """A backup moved into the file's place is what the next call reads and writes."""
    for name in ("documents", "backup"):
        async with sqlite_store(tmp_path / f"{name}.db") as store:
            await store.insert(NOTES, name, {"owner": "a"})
    async with sqlite_store(tmp_path / "documents.db") as store:
        assert await ids(store, "a") == ["documents"]
        (tmp_path / "backup.db").replace(tmp_path / "documents.db")
        assert await ids(store, "a") == ["backup"]
        await store.insert(NOTES, "later", {"owner": "a"})
    async with sqlite_store(tmp_path / "documents.db") as store:
        assert await ids(store, "a") == ["backup", "later"]


@pytest.mark.parametrize("damage", ["header", "middle"])
async def test_sqlite_file_damaged(tmp_path: Path, damage: str) -> None:
    """A file that is no database, or no longer a whole one, is said to be so; repaired, it serves again."""
    path = tmp_path / "documents.db"
    async with sqlite_store(path) as store:
        for n in range(50):
            await store.insert(NOTES, f"n{n}", {"owner": "a", "fill": "x" * 3000})
    good = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"this is not a database at all".ljust(4096) + good[4096:])
    else:
        path.write_bytes(good[:4096] + b"\xa5" * (len(good) - 4096))
    async with sqlite_store(path) as store:
        messages = await refused_in_a_second(lambda: store.find(NOTES, "shelf", []), lambda: store.get(NOTES, "n1"))
        assert set(messages) <= {"documents.db: not a database", "documents.db: damaged"}
        path.write_bytes(good)
        await working_again(store, "later")
        assert len(await ids(store, "a", limit=100)) == 50


async def test_sqlite_uses_its_indexes(tmp_path: Path) -> None:
    """No declared question reads a whole table, or sorts what an index has in order."""
    path = tmp_path / "documents.db"
    plans: list[str] = []
    async with sqlite_store(path) as store:
        await store.open()
        answered = store._rows

        async def explained(sql: str, parameters: Any) -> list[Any]:
            with closing(sqlite3.connect(path)) as db:
                plans.append(" / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)))
            return await answered(sql, parameters)

        store._rows = explained  # type: ignore[method-assign]
        await store.find(NOTES, "shelf", ["a", "b"], cursor="5")
        await store.find(REPORTS, "reported", ["a"], newest_first=True)
        await store.get(NOTES, "a")
        await store.search(NOTES, "a b")
    assert plans[:2] == [
        "SEARCH notes USING INDEX notes_by_owner_kind (<expr>=? AND <expr>=? AND rowid>?)",
        "SEARCH reports USING INDEX reports_by_reported (<expr>=?)",
    ]
    assert not [plan for plan in plans if "SCAN notes" in plan]


# ------------------------------------------------------------------------------------------- MongoDB's misfortunes


@asynccontextmanager
async def mongo_store(url: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(url, "visavis_test_faults", COLLECTIONS)
    try:
        yield store
    finally:
        with about_a_second():
            await store.close()


async def test_mongo_not_there_at_the_start(own_nx: Nx) -> None:
    """Opening is refused in a second, and so is all else; when the server comes, the store needs no second opening."""
    async with mongo_store(own_nx.url) as store:
        await refused_in_a_second(store.open)
        await refused_in_a_second(*every_method(store))
        own_nx.start()
        await working_again(store, "n")
        with pytest.raises(Duplicate):
            await store.insert(NOTES, "n", {})


async def test_mongo_killed_and_started_again(own_nx: Nx) -> None:
    """Every method is refused in a second while the server is gone; what was written before is there after."""
    own_nx.start()
    async with mongo_store(own_nx.url) as store:
        await store.open()
        await store.insert(NOTES, "n", {"owner": "a"})
        own_nx.kill()
        await refused_in_a_second(lambda: store.get(NOTES, "n"))
        await refused_in_a_second(*every_method(store))
        own_nx.start()
        await working_again(store, "later")
        assert await ids(store, "a") == ["n"]


@pytest.mark.parametrize("old_links", [True, False])
async def test_mongo_behind_a_link_gone_dark(link: Link, old_links: bool) -> None:
    """A connection that is open and silent is noticed in a second, by many callers at once.

    Then all is well by itself, also if the connections made before never speak again.
    """
    async with mongo_store(f"mongodb://127.0.0.1:{link.port}/") as store:
        await store.open()
        await store.insert(NOTES, f"dark {old_links}", {"owner": str(old_links)})
        link.darken()
        await refused_in_a_second(lambda: store.get(NOTES, "dark"))
        await refused_in_a_second(*[lambda: store.get(NOTES, "dark")] * 50, *every_method(store))
        await refused_in_a_second(*(store.ping for _ in range(3)))
        link.lighten(old_links=old_links)
        await working_again(store, f"light {old_links}")
        assert await ids(store, str(old_links)) == [f"dark {old_links}"]


@pytest.mark.parametrize("old_links", [True, False])
async def test_mongo_dark_from_the_start(link: Link, old_links: bool) -> None:
    """A server that accepts connections and never speaks is away, too, until it does, there or on new ones."""
    link.darken()
    async with mongo_store(f"mongodb://127.0.0.1:{link.port}/") as store:
        await refused_in_a_second(store.open, store.ping)
        link.lighten(old_links=old_links)
        await working_again(store, f"first light {old_links}")


async def test_mongo_messages_tell_no_secrets(own_nx: Nx) -> None:
    """Neither the connection string nor what was to be stored is in an error's message."""
    url = own_nx.url.replace("mongodb://", "mongodb://someone:password@")
    async with mongo_store(url) as store:
        assert await refused_in_a_second(store.ping) == ["MongoDB: ServerSelectionTimeoutError"]


async def test_mongo_has_the_indexes_that_were_declared(nx: Nx) -> None:
    """Each declared index, the order's, the sweep's and the search's are in the database."""
    async with mongo_store(nx.url) as store:
        await store.open()
        notes, blocks = [
            {tuple(field for field, _ in index["key"]) for index in indexes.values()}
            for indexes in [await store._database[name].index_information() for name in ("notes", "blocks")]
        ]
    assert {("seq",), ("expires_at",), ("expires",), ("words", "seq"), ("data.owner", "data.kind", "seq")} <= notes
    assert {("data.blocker", "seq"), ("data.blocked", "seq"), ("data.blocker", "data.blocked")} <= blocks
