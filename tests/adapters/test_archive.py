"""Backups, made of one document store and brought back into the same or the other, and what can go wrong with them."""

import asyncio
import fcntl
import itertools
import json
import os
import pty
import resource
import signal
import sys
import termios
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyrage
import pytest

from adapters.stores import Clock, Nx
from crowd import Crowd
from rig import ROOT, Service, Worker
from sharing import Sharer
from visavis.adapters import age
from visavis.adapters.disk import DiskBlobs
from visavis.adapters.mongo import MongoStore
from visavis.adapters.spool import DiskSpool
from visavis.adapters.sqlite import SqliteStore
from visavis.core.archive import Archive, Contents
from visavis.core.collections import ALL, BLOCKS, REPORTS
from visavis.core.ports import ArchiveDamaged, Stored, StoreInUse, StoreUnavailable, Upkeep
from visavis.core.schema import CannotUse, Mark, Migration, Schema

ME = pyrage.x25519.Identity.generate()
DAY = 86_400_000
KINDS = ["sqlite", "nx"]
WAYS = list(itertools.product(KINDS, KINDS))


class House:
    """A document store, and files kept with reports."""

    def __init__(self, kind: str, folder: Path, url: str, clock: Clock) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.environment = {"VISAVIS_DATA_DIR": str(folder)}
        self._store: Callable[[], Upkeep] = lambda: SqliteStore(folder / "visavis.sqlite", ALL, timeout=10, clock=clock)
        if kind == "nx":
            database = f"visavis_test_{uuid.uuid4().hex}"
            self.environment |= {"MONGO_URL": url, "VISAVIS_MONGO_DATABASE": database}
            self._store = lambda: MongoStore(url, database, ALL, timeout=10, clock=clock)
        self._clock = clock

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Upkeep]:
        store = self._store()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def archive(self, schema: Schema | None = None) -> AsyncIterator[Archive]:
        async with self.store() as store, self.blobs() as blobs:
            spool = DiskSpool(blobs.spool)
            yield Archive(store, schema or Schema(), blobs, spool, evidence_seconds=90 * 86_400, clock=self._clock)

    @asynccontextmanager
    async def blobs(self) -> AsyncIterator[DiskBlobs]:
        blobs = DiskBlobs(self.folder / "files")
        await blobs.open()
        try:
            yield blobs
        finally:
            await blobs.close()

    async def fill(self, **documents: list[Stored]) -> None:
        async with self.store() as store:
            await Schema().bring_up(store)
            async with store.renewed(Mark().plain(), Mark().plain()) as renewal:
                for name, listed in documents.items():
                    for start in range(0, len(listed), 500):
                        await renewal.add(next(c for c in ALL if c.name == name), listed[start : start + 500])

    async def keep(self, file: str, content: bytes) -> None:
        async with self.blobs() as blobs:
            path = blobs.spool / file
            path.write_bytes(content)
            await blobs.put(f"kept/{file}/main", path)

    async def kept(self, file: str) -> bytes | None:
        async with self.blobs() as blobs:
            if await blobs.size(f"kept/{file}/main") is None:
                return None
            async with aclosing(blobs.read(f"kept/{file}/main")) as pieces:
                return b"".join([piece async for piece in pieces])

    async def all(self) -> dict[str, list[Stored]]:
        """Everything the store holds, in its order."""
        async with self.store() as store:
            await store.open()
            async with store.snapshot() as snapshot:
                return {
                    collection.name: [one async for page in snapshot.documents(collection) for one in page]
                    for collection in ALL
                }

    async def back_up(self, schema: Schema | None = None) -> tuple[bytes, Contents]:
        """What a backup is before it is encrypted."""
        written = bytearray()

        async def write(data: bytes) -> None:
            written.extend(data)

        async with self.archive(schema) as archive:
            contents = await archive.back_up(write, unheard)
        return bytes(written), contents

    async def bring_back(self, plain: bytes, schema: Schema | None = None) -> Contents:
        async with self.archive(schema) as archive:
            checked = await archive.check(reading(plain), unheard)
            return await archive.bring_back(reading(plain), checked, unheard)

    async def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The command as an operator would give it: its status and what it said."""
        process = await self.started(*arguments, **environment)
        said, _ = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def started(self, *arguments: str, limit: int = 0, **environment: str) -> asyncio.subprocess.Process:
        given = {k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_") and k != "MONGO_URL"}
        # Largest file that the process may write.
        limited: dict[str, Any] = (
            {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))} if limit else {}
        )
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "visavis", *arguments,
            env={**given, "PYTHONPATH": str(ROOT / "backend"), **self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            **limited,
        )  # fmt: skip

    async def at_terminal(self, answers: dict[str, str], *arguments: str) -> str:
        """The command in a terminal, where somebody answers its questions; gives what is seen there."""
        master, ours = pty.openpty()

        def settle() -> None:
            os.setsid()
            fcntl.ioctl(ours, termios.TIOCSCTTY, 0)

        given = {k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_") and k != "MONGO_URL"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "visavis", *arguments, stdin=ours, stdout=ours, stderr=ours, preexec_fn=settle,
            env={**given, "PYTHONPATH": str(ROOT / "backend"), **self.environment},
        )  # fmt: skip
        os.close(ours)
        seen, due = "", dict(answers)
        with suppress(OSError):  # the end, for a terminal
            while piece := await asyncio.to_thread(os.read, master, 4096):
                seen += piece.decode()
                for question in [one for one in due if one in seen]:
                    os.write(master, due.pop(question).encode() + b"\n")
        os.close(master)
        await process.wait()
        assert not due, seen
        return seen


def unheard(doing: str, size: int) -> None:
    """Progress that nobody watches."""


def reading(plain: bytes) -> Callable[[int], Awaitable[bytes]]:
    left = memoryview(plain)

    async def read(size: int) -> bytes:
        nonlocal left
        piece, left = bytes(left[:size]), left[size:]
        return piece

    return read


def now() -> int:
    return time.time_ns() // 1_000_000


def report(number: int, *files: str, at: int = 0, **more: Any) -> Stored:
    listed = [{"id": file, "kept": True, "kind": "text", "name": "n"} for file in files]
    data = {"at": at or now(), "reporter": "a", "reported": "b", "reason": "hate", "words": f"words {number}"}
    return Stored(f"r{number}", 1, None, {**data, "messages": [], "files": listed, "status": "open", **more})


def blocks(count: int) -> list[Stored]:
    return [Stored(f"b{n}", 1, None, {"blocker": "a", "blocked": f"{n}", "at": n}) for n in range(count)]


@pytest.fixture
def house(tmp_path: Path, nx: Nx, clock: Clock) -> Callable[..., House]:
    """Makes deployments that have nothing in common."""
    count = itertools.count()
    return lambda kind="sqlite": House(kind, tmp_path / f"house{next(count)}", nx.url, clock)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    path.write_text(f"# created: today\n{ME}\n")
    return path


TO_ME = ("--recipient", str(ME.to_public()))


# ------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize(("source", "target"), WAYS)
async def test_everything_comes_back(source: str, target: str, house: Callable[..., House], clock: Clock) -> None:
    """Ids, versions, order, expiry, odd values and files, from either store into either; what has expired does not."""
    old, new = house(source), house(target)
    odd = {"": [None, True, 1.0, -0.5, 1e300, 2**63 - 1, -(2**63), "\0\u2028\ufeff😀", {}, []], "é": "e\u0301"}
    reports = [report(2, "f1", odd=odd), report(1, "f2", "f1"), report(3, words="x" * 400_000), report(0, "gone")]
    reports[1] = Stored("r1", 7, None, reports[1].data)
    recordings = [
        Stored("short", 2, now() + DAY, {"device": "d", "recording": "1"}),
        Stored("long", 1, now() + 9 * DAY, {"device": "d", "recording": "2"}),
        Stored("old", 1, now() - 1, {"device": "d", "recording": "3"}),
    ]
    await old.fill(reports=reports, blocks=blocks(1200)[::-1], recordings=recordings)
    await old.keep("f1", b"one" * 200_000)
    await old.keep("f2", b"")
    await old.keep("unnamed", b"of no report")
    plain, contents = await old.back_up()
    assert {name: one.count for name, one in contents.manifest.documents.items()} == {
        "reports": 4, "blocks": 1200, "recordings": 2,
    }  # fmt: skip
    assert (contents.manifest.kept.count, contents.manifest.missing) == (2, 1)
    clock.move(minutes=2 * 24 * 60)
    restored = await new.bring_back(plain)
    assert restored.expired == 1
    there = await new.all()
    assert {name: found for name, found in there.items() if found} == {
        "reports": reports, "blocks": blocks(1200)[::-1], "recordings": recordings[1:2],
    }  # fmt: skip
    assert [repr(one.data) for one in there["reports"]] == [repr(one.data) for one in reports]
    assert [await new.kept(file) for file in ("f1", "f2", "unnamed", "gone")] == [b"one" * 200_000, b"", None, None]
    async with new.store() as store:
        # It is up to the schema, and goes on as a store does.
        assert await store.mark() == Schema().mark.plain()
        assert await store.fit_indexes(change=False) == []
        await store.insert(BLOCKS, "later", {"blocker": "a", "blocked": "later"})
        page = await store.find(BLOCKS, "blocker", ["a"], newest_first=True, limit=2)
        assert [one.id for one in page.documents] == ["later", "b0"]
        assert [one.id for one in await store.search(REPORTS, "words 1")] == ["r1"]
        assert await store.replace(REPORTS, "r1", reports[0].data, version=7)


async def test_a_backup_of_sqlite_is_of_one_instant(house: Callable[..., House]) -> None:
    """While others write: what depends on something else never comes without it, however late it is read."""
    old, new = house(), house()
    await old.fill(reports=[report(n, words="x" * 3000) for n in range(2000)])
    writing = True

    async def write() -> int:
        async with old.store() as store:
            for n in itertools.count(10_000):
                if not writing:
                    return n
                await store.insert(REPORTS, f"r{n}", {"at": n})
                await store.insert(BLOCKS, f"b{n}", {"blocker": "a", "blocked": f"{n}"})
        return 0

    writer = asyncio.create_task(write())
    try:
        async with old.store() as store:
            await store.open()
            while await store.get(BLOCKS, "b10005") is None:
                await asyncio.sleep(0)
        plain, contents = await old.back_up()
    finally:
        writing = False
    assert await writer > 10_010
    assert contents.head.consistent
    await new.bring_back(plain)
    there = await new.all()
    reported = {one.id[1:] for one in there["reports"]}
    assert len(there["blocks"]) >= 6
    assert {one.id[1:] for one in there["blocks"]} <= reported
    assert len(reported) - 2000 - len(there["blocks"]) <= 1


async def test_a_backup_of_a_lone_mongodb_says_that_it_is_not(house: Callable[..., House]) -> None:
    """It holds all that was there before it began and after it ended; one of an id, also of what was made anew."""
    old, new = house("nx"), house()
    await old.fill(blocks=blocks(3000))
    async with old.store() as store:
        written = bytearray()

        async def write(data: bytes) -> None:
            if not written:
                # Once its pages have begun, they go on to the end.
                await store.delete(BLOCKS, "b0")
                await store.insert(BLOCKS, "b0", {"blocker": "a", "blocked": "0", "at": -1})
                await store.delete(BLOCKS, "b2999")
            written.extend(data)

        async with old.archive() as archive:
            contents = await archive.back_up(write, unheard)
    assert not contents.head.consistent
    await new.bring_back(bytes(written))
    there = (await new.all())["blocks"]
    assert [one.id for one in there] == [*(f"b{n}" for n in range(1, 2999)), "b0"]


@pytest.mark.parametrize("target", KINDS)
async def test_what_is_in_the_way_of_another_gives_way(target: str, house: Callable[..., House]) -> None:
    """An id, or a value of a unique index, that is in a backup twice: the later one is the one that was true."""
    new = house(target)
    twice = [*blocks(5), Stored("b1", 2, None, {"blocker": "x", "blocked": "y"})]
    twice.append(Stored("again", 1, None, {"blocker": "a", "blocked": "3"}))
    await new.fill(blocks=twice)
    there = (await new.all())["blocks"]
    assert [one.id for one in there] == ["b0", "b2", "b4", "b1", "again"]
    async with new.store() as store:
        assert [one.id for one in (await store.find(BLOCKS, "pair", ["a", "3"])).documents] == ["again"]
        assert (await store.find(BLOCKS, "pair", ["a", "1"])).documents == []


@pytest.mark.parametrize("target", KINDS)
async def test_an_old_backup_is_brought_up_to_the_schema(target: str, house: Callable[..., House]) -> None:
    """On its way in. One of a newer schema is refused."""
    old, new = house(), house(target)
    await old.fill(reports=[report(1)], blocks=blocks(3))
    plain, _ = await old.back_up()
    later = Schema(ALL, [Migration(about="b", oldest=1, changes={"blocks": lambda data: {**data, "kind": "plain"}})])
    await new.bring_back(plain, later)
    assert [one.data["kind"] for one in (await new.all())["blocks"]] == ["plain"] * 3
    async with new.store() as store:
        assert await store.mark() == Mark(2, 1).plain()
    newest, _ = await new.back_up(later)
    with pytest.raises(CannotUse, match="schema_newer: the backup has schema 2, and this program knows"):
        await old.bring_back(newest)
    # And so is making one with a program that does not know all there is.
    with pytest.raises(CannotUse, match="schema_newer: "):
        await new.back_up()


async def test_what_was_kept_long_enough_does_not_come_back(house: Callable[..., House]) -> None:
    """Ninety days after the last report of it, a file is gone, whatever an old backup holds."""
    old, new = house(), house()
    reports = [report(1, "old", "again", at=now() - 91 * DAY), report(2, "again", at=now() - 89 * DAY)]
    await old.fill(reports=reports)
    for file in ("old", "again"):
        await old.keep(file, file.encode())
    plain, _ = await old.back_up()
    assert (await new.bring_back(plain)).expired == 1
    assert [await new.kept("old"), await new.kept("again")] == [None, b"again"]


# ------------------------------------------------------------------------------------------- what is not good


async def damages(plain: bytes) -> AsyncIterator[tuple[str, bytes]]:
    """What somebody could make of a backup who can encrypt for its recipient."""
    import io
    import tarfile

    def made(change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(plain)) as old, tarfile.open(fileobj=out, mode="w", format=0) as new:
            for member in old:
                file = old.extractfile(member)
                assert file is not None
                for name, content in change(member.name, file.read()):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    new.addfile(entry, io.BytesIO(content))
        # As a backup ends, without tar's filling up.
        whole = out.getvalue().rstrip(b"\0")
        return whole + bytes(-len(whole) % 512) + bytes(1024)

    unchanged = made(lambda name, content: [(name, content)])
    yield "unchanged", unchanged
    lines = "documents/blocks/000001.jsonl"
    for name, new in {
        "a document less": lambda text: text.split(b"\n", 1)[1],
        "another value": lambda text: text.replace(b'"blocked":"1"', b'"blocked":"9"'),
        "no document": lambda text: text + b"[]\n",
        "an operator": lambda text: text.replace(b'"blocked":"1"', b'"$ne":"1"'),
        "a number no store holds": lambda text: text.replace(b'"at":1}', b'"at":99999999999999999999}'),
        "what a unique index needs": lambda text: text.replace(b'"blocker":"a",', b"", 1),
        "no id": lambda text: text.replace(b'"id":"b1"', b'"id":""'),
    }.items():
        yield name, made(lambda entry, text, new=new: [(entry, new(text) if entry == lines else text)])
    for entry in ("../../evil", "/etc/passwd", "documents/../x/000001.jsonl", "kept/../main", "kept/a/other", "x"):
        yield (
            entry,
            made(lambda name, text, entry=entry: [(entry, b"x"), (name, text)] if name == lines else [(name, text)]),
        )
    yield (
        "a file more",
        made(lambda name, text: [("kept/f/main", b"x"), (name, text)] if name == lines else [(name, text)]),
    )
    yield "too large", made(lambda name, text: [(name, text + b" " * 3_000_000 if name == lines else text)])
    yield "no manifest", made(lambda name, text: [] if name == "manifest.json" else [(name, text)])
    yield "no head", made(lambda name, text: [] if name == "visavis.json" else [(name, text)])
    yield "another format", made(lambda name, text: [(name, text.replace(b'"format":1', b'"format":2'))])
    yield (
        "more behind it",
        made(lambda name, text: [(name, text), ("x", b"")] if name == "manifest.json" else [(name, text)]),
    )
    yield "more after its end", unchanged + b"x"
    for size in (0, 1, 511, 512, 1000, len(unchanged) // 2, len(unchanged) - 1025, len(unchanged) - 1):
        yield f"{size} bytes", unchanged[:size]
    yield "nothing like it", b"hello" * 1000


async def test_an_archive_that_was_made_wrong_changes_nothing(house: Callable[..., House]) -> None:
    """Whoever can write one that can be read: it is looked through to its end before anything else is done."""
    old, new = house(), house()
    await old.fill(reports=[report(1)], blocks=blocks(4))
    plain, _ = await old.back_up()
    before = await new.all()
    seen = 0
    async for name, damaged in damages(plain):
        if name == "unchanged":
            async with new.archive() as archive:
                await archive.check(reading(damaged), unheard)
            continue
        with pytest.raises(ArchiveDamaged) as refused:
            await new.bring_back(damaged)
        assert str(refused.value).endswith("."), name
        assert await new.all() == before, name
        seen += 1
    assert seen > 25


async def test_a_byte_changed_or_missing_anywhere_is_noticed(house: Callable[..., House], tmp_path: Path) -> None:
    """In the head, in the middle and in the last bytes of what was encrypted."""
    old, new = house(), house()
    await old.fill(reports=[report(1, "f")], blocks=blocks(2000))
    await old.keep("f", os.urandom(200_000))
    path = tmp_path / "backup"
    async with old.archive() as archive, age.sealed(path, [ME.to_public()]) as write:
        await archive.back_up(write, unheard)
    good = path.read_bytes()
    places = {*range(0, 300, 7), *range(300, len(good), len(good) // 40), *range(len(good) - 20, len(good))}
    wrong = [good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :] for place in sorted(places)]
    wrong += [good[:place] for place in sorted(places)] + [good + b"\0", good + good]
    damaged = tmp_path / "damaged"
    async with new.archive() as archive:
        for content in [good, *wrong]:
            damaged.write_bytes(content)
            try:
                async with age.opened(damaged, [ME]) as read:
                    await archive.check(read, unheard)
            except ArchiveDamaged:
                assert content != good
            else:
                assert content == good
    with pytest.raises(ArchiveDamaged, match="does not fit"):
        async with age.opened(path, [pyrage.x25519.Identity.generate()]) as read:
            await read(1)


async def test_a_passphrase_opens_what_it_closed(house: Callable[..., House], tmp_path: Path) -> None:
    """By the command; a wrong one, a damaged lock, and none at all are each said in a sentence, and change nothing."""
    old, new = house(), house()
    await old.fill(blocks=blocks(10))
    path = tmp_path / "backup"
    (tmp_path / "secret").write_text("correct horse battery staple\n")
    right = {"VISAVIS_BACKUP_PASSPHRASE_FILE": str(tmp_path / "secret")}
    wrong = {"VISAVIS_BACKUP_PASSPHRASE": "correct horse battery stable"}
    assert (await old.run("backup", str(path)))[0] == 2
    status, said = await old.run("backup", str(path), VISAVIS_BACKUP_PASSPHRASE="short")
    assert (status, said) == (2, "visavis: A passphrase has at least 12 characters.\n")
    assert not list(tmp_path.glob("backup*"))
    nowhere = tmp_path / "nowhere"
    status, said = await old.run("backup", str(nowhere / "backup"), **right)
    assert (status, said) == (2, f"visavis: there is no folder {nowhere}: make it, or name another\n")
    status, said = await old.run("backup", str(path), **right)
    assert status == 0, said
    assert path.stat().st_mode & 0o777 == 0o600
    good = path.read_bytes()
    status, said = await new.run("restore", str(path), **wrong)
    assert (status, said) == (2, "visavis: The passphrase is wrong, or the archive is damaged at its beginning.\n")
    for place in (0, 40, 120, 300, good.index(b"-----END") + 34):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        status, said = await new.run("restore", str(path), **right)
        assert (status, said.count("\n"), said[:9]) == (2, 1, "visavis: "), said
    path.write_bytes(good)
    status, said = await new.run("restore", str(path))
    assert (status, "VISAVIS_BACKUP_PASSPHRASE" in said) == (2, True)
    assert not any((await new.all()).values())
    status, said = await new.run("restore", str(path), **right)
    assert status == 0, said
    assert await new.all() == await old.all()


# ------------------------------------------------------------------------------------------- the commands


async def test_a_store_that_holds_something_is_replaced_only_on_purpose(
    house: Callable[..., House], tmp_path: Path, identity: Path
) -> None:
    """Asked for and confirmed; `--verify` changes nothing and needs no store; a file that exists stays as it is."""
    old, new = house(), house("nx")
    await old.fill(blocks=blocks(10))
    await new.fill(blocks=blocks(3), recordings=[Stored("r", 1, None, {"device": "d", "recording": "1"})])
    path = tmp_path / "backup"
    status, said = await old.run("backup", str(path), *TO_ME)
    assert (status, said.startswith(f"{path}: 10 documents and 0 files, ")) == (0, True), said
    status, said = await old.run("backup", str(path), *TO_ME)
    assert (status, "is there already" in said) == (2, True)
    status, said = await house().run("restore", str(path), "--verify", "--identity", str(identity))
    assert (status, "all of it is good" in said) == (0, True)
    before = await new.all()
    for arguments, word in {(): "3 blocks, 1 recordings", ("--replace",): "--yes"}.items():
        status, said = await new.run("restore", str(path), "--identity", str(identity), *arguments)
        assert (status, word in said) == (2, True), said
        assert await new.all() == before
    status, said = await new.run("restore", str(path), "--identity", str(identity), "--replace", "--yes")
    assert status == 0, said
    assert await new.all() == await old.all()
    status, said = await house().run("backup", str(tmp_path / "none"), *TO_ME)
    assert (status, "there is no" in said) == (2, True)
    assert not list(tmp_path.glob("none*"))


async def test_a_terminal_is_asked(house: Callable[..., House], tmp_path: Path, identity: Path) -> None:
    """For a passphrase, twice and unseen; and before anything is replaced, which one word alone allows."""
    old, new = house(), house()
    await old.fill(blocks=blocks(10))
    await new.fill(blocks=blocks(3))
    before = await new.all()
    secret = "correct horse battery staple"
    path = tmp_path / "backup"
    asked = {"Passphrase: ": secret, "same again: ": "another"}
    assert "not the same" in await old.at_terminal(asked, "backup", str(path))
    asked["same again: "] = secret
    said = await old.at_terminal(asked, "backup", str(path))
    assert ("10 documents" in said, secret in said) == (True, False)
    for answer, outcome in {"yes": "nothing was changed", "replace": "Restored: 10 documents and"}.items():
        assert await new.all() == before
        said = await new.at_terminal(
            {"Passphrase: ": secret, "3 blocks. Type `replace`": answer}, "restore", str(path), "--replace"
        )
        assert outcome in said
    assert await new.all() == await old.all()


async def test_a_link_in_the_way_is_not_followed(house: Callable[..., House], tmp_path: Path) -> None:
    """In a folder that others write to as well, what is called partial may be theirs."""
    old = house()
    await old.fill(blocks=blocks(1))
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "backup.partial").symlink_to(tmp_path / "precious")
    status, _ = await old.run("backup", str(tmp_path / "backup"), *TO_ME)
    assert (status, (tmp_path / "precious").read_text()) == (2, "precious")


async def test_a_full_disk_leaves_nothing_behind(house: Callable[..., House], tmp_path: Path) -> None:
    """And is said in a line."""
    old = house()
    await old.fill(reports=[report(n, words=uuid.uuid4().hex * 100) for n in range(1000)])
    process = await old.started("backup", str(tmp_path / "backup"), *TO_ME, limit=1_000_000)
    said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (2, "visavis: [Errno 27] File too large\n")
    assert not list(tmp_path.glob("backup*"))


async def test_a_restore_does_not_pull_the_store_from_under_workers(
    house: Callable[..., House], tmp_path: Path, identity: Path
) -> None:
    """One that has the SQLite file open, or a lease in the Redis that is named: nothing is changed."""
    old, alone, shared = house(), house(), house("nx")
    await old.fill(blocks=blocks(10))
    path = tmp_path / "backup"
    assert (await old.run("backup", str(path), *TO_ME))[0] == 0
    restore = ("restore", str(path), "--identity", str(identity), "--replace", "--yes")
    worker = await Worker(alone.folder).start()
    service = await Service(shared.folder, **shared.environment).start()
    try:
        status, said = await alone.run(*restore)
        assert (status, "in use: stop the workers" in said) == (2, True), said
        assert not any((await alone.all()).values())
        status, said = await shared.run(*restore, REDIS_URL=service.valkey.url)
        assert (status, "1 workers are running" in said) == (2, True), said
        await service.workers[0].kill()
        assert not any((await shared.all()).values())
    finally:
        await worker.stop()
        await service.stop()
    for house_ in (alone, shared):
        status, said = await house_.run(*restore)
        assert status == 0, said
        assert len((await house_.all())["blocks"]) == 10


async def test_nobody_opens_a_sqlite_file_that_is_being_restored(house: Callable[..., House]) -> None:
    """A worker that starts in the middle is told why; afterwards it starts, on what was restored."""
    new = house()
    await new.fill(blocks=blocks(3))
    async with new.store() as store, new.store() as worker:
        async with store.renewed(Mark().plain(), Mark().plain()) as renewal:
            await renewal.add(BLOCKS, blocks(5))
            with pytest.raises(StoreUnavailable, match=r"^visavis.sqlite is being restored by another process$"):
                await worker.open()
        assert len((await worker.find(BLOCKS, "blocker", ["a"])).documents) == 5
        with pytest.raises(StoreInUse):
            await store.renewed(Mark().plain(), Mark().plain()).__aenter__()


async def test_a_store_is_migrated_by_command_and_a_newer_one_refused(house: Callable[..., House]) -> None:
    """With the code and what to do, in one line, and a status that is not zero; so is every other way in."""
    new = house()
    status, said = await new.run("migrate")
    assert (status, said) == (0, "The document store is up to date.\n")
    async with new.store() as store:
        assert await store.mark() == Schema().mark.plain()
        assert await store.swap_mark(Schema().mark.plain(), Mark(7, 6).plain())
    for command in (("migrate",), ("serve",), ("evidence", "list"), ("backup", str(new.folder / "b"), *TO_ME)):
        status, said = await new.run(*command, VISAVIS_PORT="0", VISAVIS_TURN_URLS="none")
        assert (status, said.count("\n")) == (2, 1), said
        assert said.startswith("visavis: schema_newer: the document store has schema 7, and this program knows ")


@pytest.mark.parametrize("target", KINDS)
async def test_a_report_and_its_evidence_survive_a_move(
    target: str, house: Callable[..., House], tmp_path: Path, identity: Path, tongue: str
) -> None:
    """Backed up while a worker serves, restored elsewhere: moderators read it there, and guests meet there."""
    old, new = house(), house(target)
    running = await Service(old.folder).start()
    people = Crowd(running.workers[0].url, tongue)
    path = tmp_path / "backup"
    try:
        guests = [await people.arrive(None), await people.arrive(None)]
        conversation = await people.meet(*guests)
        a, b = (Sharer(guest, conversation) for guest in guests)
        bad = await a.ready(b"very bad words\n", "bad.txt")
        asked = {"conversationId": conversation, "reason": "hate", "words": "look", "files": [bad["id"]]}
        reported = (await b.guest.ask("safety:report", asked))["ok"]
        await b.guest.ask("safety:block", {"conversationId": conversation})
        status, said = await old.run("backup", str(path), *TO_ME)
        assert status == 0, said
        assert (await people.arrive(None)).connected
    finally:
        await people.leave()
        await running.stop()
    status, said = await new.run("restore", str(path), "--identity", str(identity))
    assert status == 0, said
    moved = await Service(new.folder, **new.environment).start()
    people = Crowd(moved.workers[0].url, tongue)
    try:
        assert await people.meet(await people.arrive(None), await people.arrive(None))
        status, said = await new.run("evidence", "list")
        listed = json.loads(said)
        assert (status, listed["report"], listed["files"][0]["id"]) == (0, reported["reportId"], bad["id"])
        out = tmp_path / "evidence.txt"
        status, said = await new.run("evidence", "save", listed["report"], bad["id"], str(out), "--by", "me")
        assert status == 0, said
        assert out.read_bytes() == b"very bad words\n"
    finally:
        await people.leave()
        await moved.stop()
    assert len((await new.all())["blocks"]) == 1


# ------------------------------------------------------------------------------------------- killed in the middle


async def killed_when(process: asyncio.subprocess.Process, due: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await due():
            assert process.returncode is None, "it ended before it could be killed"
            await asyncio.sleep(0.001)
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL


async def test_a_backup_killed_in_the_middle_is_not_there(house: Callable[..., House], tmp_path: Path) -> None:
    """Only something that is called partial, which the next backup of that name overwrites."""
    old = house()
    await old.fill(reports=[report(1, *(f"f{n}" for n in range(20)))])
    for n in range(20):
        await old.keep(f"f{n}", os.urandom(5_000_000))
    path, partial = tmp_path / "backup", tmp_path / "backup.partial"

    async def begun() -> bool:
        return partial.exists() and partial.stat().st_size > 5_000_000

    await killed_when(await old.started("backup", str(path), *TO_ME), begun)
    assert not path.exists()
    assert 5_000_000 < partial.stat().st_size < 95_000_000
    status, said = await old.run("backup", str(path), *TO_ME)
    assert status == 0, said
    assert not partial.exists()


@pytest.mark.parametrize("target", KINDS)
async def test_a_restore_killed_in_the_middle_is_never_taken_for_whole(
    target: str, house: Callable[..., House], tmp_path: Path, identity: Path
) -> None:
    """SQLite: all is as before. MongoDB: nobody may use it until it has been done again, which needs no --replace."""
    old, new = house(), house(target)
    await old.fill(reports=[report(n, words=f"{uuid.uuid4().hex} " * 50) for n in range(6000)])
    await new.fill(blocks=blocks(7))
    before = await new.all()
    path = tmp_path / "backup"
    assert (await old.run("backup", str(path), *TO_ME))[0] == 0
    wal = new.folder / "visavis.sqlite-wal"
    restore = ("restore", str(path), "--identity", str(identity))
    async with new.store() as store:

        async def begun() -> bool:
            if target == "sqlite":
                return wal.exists() and wal.stat().st_size > 2_000_000
            return Mark(1, 1, restoring=True).plain() == await store.mark() and bool(
                (await store.find(REPORTS, "status", [], limit=1)).documents
            )

        await killed_when(await new.started(*restore, "--replace", "--yes"), begun)
    async with new.store() as store:
        if target == "sqlite":
            await Schema().bring_up(store)
            assert await new.all() == before
            restore = (*restore, "--replace", "--yes")
        else:
            with pytest.raises(CannotUse, match=r"restore_unfinished: .* run `visavis restore` again"):
                await Schema().bring_up(store)
            status, said = await new.run("evidence", "list")
            assert (status, "restore_unfinished" in said) == (2, True)
    status, said = await new.run(*restore)
    assert status == 0, said
    assert await new.all() == await old.all()


# ------------------------------------------------------------------------------------------- memory


async def test_an_archive_does_not_sit_in_memory(house: Callable[..., House], tmp_path: Path, identity: Path) -> None:
    """Neither documents nor files, neither there nor back: the whole process stays far below the archive's size."""
    old, new = house(), house("nx")
    files = [f"f{n}" for n in range(8)]
    await old.fill(reports=[report(0, *files), *(report(n, words="x" * 60_000) for n in range(1, 2000))])
    for file in files:
        await old.keep(file, os.urandom(25_000_000))
    path = tmp_path / "backup"
    for house_, command in (
        (old, ("backup", str(path), *TO_ME)),
        (new, ("restore", str(path), "--identity", str(identity))),
    ):
        process = await house_.started(*command)
        highest = 0
        while process.returncode is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            highest = max(
                [highest, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))]
            )
            await asyncio.sleep(0.05)
        said, _ = await process.communicate()
        assert process.returncode == 0, said
        print(command[0], highest / 1000, "MB at most, of", path.stat().st_size / 1e6)
        assert path.stat().st_size > 300_000_000
        assert 10_000 < highest < 180_000
