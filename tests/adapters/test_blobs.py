"""What the storage for files promises, asked of every storage there is; then each storage's own misfortunes."""

import asyncio
import contextlib
import os
import stat
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from adapters.buckets import FullStorage, Moto, small_disk
from faults import Link
from rig import PATIENCE, missing
from visavis.adapters import s3
from visavis.adapters.disk import DiskBlobs
from visavis.adapters.s3 import S3Blobs
from visavis.core.identity import new_id
from visavis.core.ports import Blobs, StorageFull, StorageUnavailable

KIB, MIB = 1024, 1024 * 1024
PIECE = 256 * KIB
Another = Callable[[], Awaitable[Blobs]]


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """A server for all tests that leave it alive."""
    server = Moto(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.kill()


def bucket_of(moto: Moto, spool: Path, url: str = "", endpoint: str = "") -> S3Blobs:
    """A store in a bucket of its own, or in the one of `url`."""
    if not url:
        url = f"s3://test-{uuid.uuid4().hex}/some/prefix"
        moto.make_bucket(url.split("/")[2])
    return S3Blobs(url, spool, endpoint=endpoint or moto.url, region="us-east-1", key="k", secret="s" * 40)


@pytest.fixture(params=["disk", "s3"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Another]:
    """Stores of each kind on one fresh, empty storage, as workers of one machine have them."""
    opened: list[Blobs] = []
    url = f"s3://test-{uuid.uuid4().hex}/some/prefix"
    if request.param == "s3":
        request.getfixturevalue("moto").make_bucket(url.split("/")[2])

    async def another() -> Blobs:
        blobs: Blobs
        if request.param == "disk":
            blobs = DiskBlobs(tmp_path / "blobs")
        else:
            blobs = bucket_of(request.getfixturevalue("moto"), tmp_path / "spool", url)
        opened.append(blobs)
        await blobs.open()
        return blobs

    yield another
    for blobs in opened:
        await blobs.close()


@pytest.fixture
async def blobs(another: Another) -> Blobs:
    return await another()


def spooled(blobs: Blobs, content: bytes) -> Path:
    """A finished file of the spool."""
    path = blobs.spool / uuid.uuid4().hex
    path.write_bytes(content)
    return path


async def keep(blobs: Blobs, name: str, content: bytes) -> None:
    path = spooled(blobs, content)
    await blobs.put(name, path)
    assert not path.exists()


async def whole(blobs: Blobs, name: str, start: int = 0, end: int | None = None) -> bytes:
    pieces = [piece async for piece in blobs.read(name, start, end)]
    assert all(0 < len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


def rss() -> int:
    """Bytes of memory this process has now."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * KIB
    raise AssertionError(field)


def forget_peak() -> None:
    """Let the peak of this process's memory count from now on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        missing("needs /proc/self/clear_refs")


# ------------------------------------------------------------------------------------------- one blob


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 5 * MIB, 5 * MIB + 1, 12 * MIB + 7])
async def test_a_blob_comes_back_as_it_was_put_in(blobs: Blobs, size: int) -> None:
    """Byte for byte, in pieces of at most 256 KiB, whatever its size; its file in the spool is gone."""
    content = os.urandom(size)
    await keep(blobs, "files/0wner_-a/main", content)
    assert await blobs.size("files/0wner_-a/main") == size
    assert await whole(blobs, "files/0wner_-a/main") == content


async def test_a_part_of_a_blob_can_be_read(blobs: Blobs) -> None:
    """From the start up to, not including, the end; what lies behind its end is nothing, and no error."""
    content = os.urandom(2 * PIECE + 100)
    await keep(blobs, "files/owner/main", content)
    for start, end in [
        (0, 1),
        (0, None),
        (5, None),
        (1, PIECE),
        (PIECE - 1, PIECE + 1),
        (PIECE, 2 * PIECE + 100),
        (100, 10 * PIECE),
        (len(content) - 1, len(content)),
        (7, 7),
        (9, 7),
        (len(content), None),
        (len(content) + 5, len(content) + 9),
        (0, 0),
    ]:
        assert await whole(blobs, "files/owner/main", start, end) == content[start:end], (start, end)


async def test_what_is_not_there_is_said_before_the_first_piece(blobs: Blobs) -> None:
    """Of a blob that never was, with or without a range, and of another part of an owner."""
    await keep(blobs, "files/owner/main", b"x")
    for name in ("files/nobody/main", "files/owner/thumb", "other/owner/main"):
        assert await blobs.size(name) is None
        for start, end in ((0, None), (0, 5), (3, None)):
            with pytest.raises(KeyError):
                await anext(blobs.read(name, start, end))
        with pytest.raises(KeyError):
            await blobs.copy(name, "evidence/owner/main")
    assert await blobs.size("evidence/owner/main") is None


async def test_a_blob_put_twice_is_the_second(blobs: Blobs) -> None:
    """Whole, also where the second is shorter."""
    await keep(blobs, "files/owner/main", b"first" * 1000)
    await keep(blobs, "files/owner/main", b"second")
    assert await whole(blobs, "files/owner/main") == b"second"


async def test_a_copy_outlives_what_it_was_copied_from(blobs: Blobs) -> None:
    """And is another's: removing one leaves the other."""
    content = os.urandom(MIB)
    await keep(blobs, "files/owner/main", content)
    await blobs.copy("files/owner/main", "evidence/report/1.jpg")
    await blobs.remove("files/owner")
    assert await blobs.size("files/owner/main") is None
    assert await whole(blobs, "evidence/report/1.jpg") == content
    await blobs.remove("evidence/report")
    assert await blobs.size("evidence/report/1.jpg") is None


async def test_removing_an_owner_removes_all_of_it_and_nobody_else(blobs: Blobs) -> None:
    """Not those whose names begin so; removing what is not there does no harm."""
    others = ("a", "abc", "ab-", "ab.c", "Ab", "abcdefgh", "abcdefghi")
    for owner in ("ab", "abcdefg", *others):
        for part in ("main", "thumb", "poster.webp"):
            await keep(blobs, f"files/{owner}/{part}", owner.encode())
    await keep(blobs, "evidence/ab/main", b"kept")
    for owner in ("ab", "abcdefg", "ab", "nobody"):
        await blobs.remove(f"files/{owner}")
    for part in ("main", "thumb", "poster.webp"):
        assert await blobs.size(f"files/ab/{part}") is None
        assert await blobs.size(f"files/abcdefg/{part}") is None
        for owner in others:
            assert await whole(blobs, f"files/{owner}/{part}") == owner.encode()
    assert await whole(blobs, "evidence/ab/main") == b"kept"


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a", "a/b", "a/b/c/d", "/a/b/c", "a//c", "a/b/", "a/b/c/"),
        *("../b/c", "a/../c", "a/b/..", "a/b/.", "./b/c", "a/.b/c", "a/b/.c", ".a/b/c", "a/b/..."),
        *("a/b/c\0", "a/b/c\n", "a/b\n/c", "a/b/c d", "a/b/ü", "a/b/%2e%2e", "a/b/c\\d", "a/b/c:d", "a/b/*"),
        "a/b/" + "c" * 101,
    ],
)
async def test_a_name_that_no_server_makes_is_refused(blobs: Blobs, name: str) -> None:
    """By every method, and the file in the spool is gone nevertheless."""
    path = spooled(blobs, b"x")
    with pytest.raises(ValueError, match="no name of a blob"):
        await blobs.put(name, path)
    assert not path.exists()
    with pytest.raises(ValueError, match="no name of a blob"):
        await blobs.size(name)
    with pytest.raises(ValueError, match="no name of a blob"):
        await anext(blobs.read(name))
    await keep(blobs, "files/owner/main", b"x")
    for source, target in ((name, "files/owner/thumb"), ("files/owner/main", name)):
        with pytest.raises(ValueError, match="no name of a blob"):
            await blobs.copy(source, target)
    if name != "a/b":
        with pytest.raises(ValueError, match="no name of a blob"):
            await blobs.remove(name)
    if name != "a":
        with pytest.raises(ValueError, match="no name of a blob"):
            await blobs.old(name, 1)


async def test_dots_in_an_owner_lead_nowhere(blobs: Blobs) -> None:
    """An owner may be called anything of letters, digits, `-`, `_` and dots, as short as one character."""
    owners = ("a", "-", "_", "a.", "a..", "a...", "ab.", "ab..", "ab..cd", "abc.", "-._-", "a" * 100)
    for owner in owners:
        await keep(blobs, f"files/{owner}/main", owner.encode())
    for owner in owners:
        assert await whole(blobs, f"files/{owner}/main") == owner.encode()
    assert sorted(await blobs.old("files", -2)) == sorted(f"files/{owner}" for owner in owners)
    for owner in owners:
        await blobs.remove(f"files/{owner}")
    assert await blobs.old("files", -2) == []


async def test_another_worker_finds_what_this_one_keeps(another: Another) -> None:
    """And removes it."""
    one, other = await another(), await another()
    await keep(one, "files/owner/main", b"hello")
    assert await whole(other, "files/owner/main") == b"hello"
    await other.remove("files/owner")
    assert await one.size("files/owner/main") is None


async def test_a_storage_that_is_there_says_so(blobs: Blobs) -> None:
    """Ping answers, opening again does no harm, and what is left is a number where it is known."""
    await blobs.ping()
    await blobs.open()
    free = await blobs.free()
    assert free is None or free > 0


# ------------------------------------------------------------------------------------------- age


async def test_owners_are_old_when_their_newest_blob_is(blobs: Blobs) -> None:
    """Also by a copy, which is as young as its copying; by folder; counted in seconds."""
    assert await blobs.old("files", 0) == []
    for name in ("files/old/main", "files/old/thumb", "files/renewed/main", "evidence/old/main"):
        await keep(blobs, name, b"x")
    # S3 knows seconds.
    await asyncio.sleep(3.1)
    await keep(blobs, "files/renewed/thumb", b"x")
    await keep(blobs, "files/young/main", b"x")
    await blobs.copy("files/old/main", "files/copied/main")
    assert await blobs.old("files", 2) == ["files/old"]
    assert await blobs.old("evidence", 2) == ["evidence/old"]
    assert await blobs.old("files", 60) == []
    assert await blobs.old("nowhere", 0) == []


async def test_age_counts_from_the_putting(blobs: Blobs) -> None:
    """Not from when the file was made, which may have waited in the spool."""
    path = spooled(blobs, b"x")
    os.utime(path, (1, 1))
    await blobs.put("files/owner/main", path)
    assert await blobs.old("files", 60) == []


async def test_at_most_a_thousand_are_old_at_once(blobs: Blobs) -> None:
    """And once those are removed, the others are."""
    owners = [f"{number:04}" for number in range(1003)]
    for some in range(0, len(owners), 50):
        await asyncio.gather(*(keep(blobs, f"files/{owner}/main", b"") for owner in owners[some : some + 50]))
    first = await blobs.old("files", -2)
    assert len(first) == len(set(first)) == 1000
    for some in range(0, len(first), 50):
        await asyncio.gather(*(blobs.remove(owner) for owner in first[some : some + 50]))
    assert len(await blobs.old("files", -2)) == 3


# ------------------------------------------------------------------------------------------- many at once


async def test_a_blob_is_whole_or_not_there_whatever_others_do(another: Another) -> None:
    """Workers put, read, copy and remove the same owner's blobs at the same time."""
    workers = [await another() for _ in range(3)]
    contents = [bytes([number]) * (300_000 + number) for number in range(3)]
    # moto's threads stumble over each other on one object, and it says 500.
    forgiven = (StorageUnavailable,) if isinstance(workers[0], S3Blobs) else ()
    deadline = time.monotonic() + 3
    read = 0

    async def put(blobs: Blobs, content: bytes) -> None:
        while time.monotonic() < deadline:
            with contextlib.suppress(*forgiven):
                await keep(blobs, "files/owner/main", content)

    async def look(blobs: Blobs) -> None:
        nonlocal read
        while time.monotonic() < deadline:
            try:
                assert await whole(blobs, "files/owner/main") in contents
                read += 1
                await blobs.copy("files/owner/main", "files/owner/thumb")
                assert await whole(blobs, "files/owner/thumb") in contents
            except KeyError:
                pass
            except StorageUnavailable:
                assert isinstance(blobs, S3Blobs)

    async def remove(blobs: Blobs) -> None:
        while time.monotonic() < deadline:
            with contextlib.suppress(*forgiven):
                await blobs.remove("files/owner")
                await blobs.old("files", 60)
            await asyncio.sleep(0.002)

    await asyncio.gather(
        *(put(blobs, content) for blobs, content in zip(workers, contents, strict=True)),
        *(look(blobs) for blobs in workers),
        *(remove(blobs) for blobs in workers[:2]),
    )
    assert read > 10
    await workers[0].remove("files/owner")
    assert await workers[1].size("files/owner/main") is None


async def test_a_blob_that_is_removed_while_it_is_read_is_whole_or_breaks_off(blobs: Blobs) -> None:
    """Never other bytes, and never fewer without an error."""
    content = os.urandom(12 * MIB)
    await keep(blobs, "files/owner/main", content)
    pieces = blobs.read("files/owner/main")
    got = await anext(pieces)
    await blobs.remove("files/owner")
    await keep(blobs, "files/owner/main", bytes(12 * MIB))
    try:
        async for piece in pieces:
            got += piece
        assert got == content
    except StorageUnavailable:
        assert got == content[: len(got)]


async def test_a_hundred_puts_at_once_take_little_memory(blobs: Blobs) -> None:
    """Of 5 MB each; the files wait where they are."""
    paths = [spooled(blobs, os.urandom(5_000_000)) for _ in range(100)]
    await keep(blobs, "files/warm/main", os.urandom(5_000_000))
    forget_peak()
    before = rss()
    # Few names: moto would keep them all in its memory.
    await asyncio.gather(*(blobs.put(f"files/{number % 5}/main", path) for number, path in enumerate(paths)))
    assert _status("VmHWM") - before < 50 * MIB
    assert not any(path.exists() for path in paths)
    assert await blobs.size("files/4/main") == 5_000_000


async def test_a_hundred_readers_at_once_take_little_memory(blobs: Blobs) -> None:
    """Each is slow, and has asked for a large blob."""
    await keep(blobs, "files/owner/main", bytes(12 * MIB))
    forget_peak()
    before = rss()

    async def look() -> int:
        read = 0
        async for piece in blobs.read("files/owner/main"):
            read += len(piece)
            await asyncio.sleep(0.01)
            if read > 2 * MIB:
                break
        return read

    assert min(await asyncio.gather(*(look() for _ in range(100)))) > 2 * MIB
    assert _status("VmHWM") - before < 80 * MIB


async def test_a_reader_may_go_at_any_time(blobs: Blobs) -> None:
    """Before the first piece, after it, in the middle of one: nothing stays open."""
    await keep(blobs, "files/owner/main", bytes(3 * MIB))
    await whole(blobs, "files/owner/main")

    async def look(after: float) -> None:
        async for _ in blobs.read("files/owner/main"):
            await asyncio.sleep(after)

    for round_ in range(30):
        tasks = [asyncio.create_task(look(number / 10_000)) for number in range(5)]
        await asyncio.sleep(round_ / 5_000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pieces = blobs.read("files/owner/main")
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
    if isinstance(blobs, DiskBlobs):
        async with asyncio.timeout(PATIENCE):
            while any(f"{blobs.spool.parent}/" in target for target in _open_files()):
                await asyncio.sleep(0.01)
    assert len(await whole(blobs, "files/owner/main")) == 3 * MIB


def _open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return found


async def test_a_put_that_nobody_waits_for_leaves_no_file_in_the_spool(blobs: Blobs) -> None:
    """The blob is there whole or not at all."""
    content = os.urandom(6 * MIB)
    for number in range(12):
        path = spooled(blobs, content)
        task = asyncio.create_task(blobs.put(f"files/{number}/main", path))
        await asyncio.sleep(number / 300)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            while path.exists():
                await asyncio.sleep(0.01)
        size = await blobs.size(f"files/{number}/main")
        assert size in (None, len(content))


async def test_a_path_that_is_not_there_is_said(blobs: Blobs) -> None:
    """As a storage that cannot do it, not as a blob that was kept."""
    with pytest.raises(StorageUnavailable):
        await blobs.put("files/owner/main", blobs.spool / "never")
    assert await blobs.size("files/owner/main") is None


# ------------------------------------------------------------------------------------------- the disk's misfortunes


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[DiskBlobs]:
    """A fresh, empty folder of blobs."""
    blobs = DiskBlobs(tmp_path / "blobs")
    await blobs.open()
    yield blobs
    await blobs.close()


async def test_nobody_else_may_look_into_the_folder(disk: DiskBlobs) -> None:
    """Folders are for this user alone, and so are files, whatever they were in the spool."""
    path = spooled(disk, b"x")
    path.chmod(0o644)
    await disk.put("files/owner/main", path)
    await disk.copy("files/owner/main", "evidence/owner/main")
    found = [disk.spool.parent, *disk.spool.parent.rglob("*")]
    assert len(found) > 8
    for one in found:
        assert stat.S_IMODE(one.stat().st_mode) == (0o700 if one.is_dir() else 0o600), one


async def test_no_folder_grows_large_and_none_stays_empty(disk: DiskBlobs) -> None:
    """Owners lie in folders by their first characters, which go with the last of them."""
    root = disk.spool.parent
    await keep(disk, "files/abcdef/main", b"x")
    await keep(disk, "files/abcdxy/main", b"x")
    assert (root / "files/ab/abcdef/main").read_bytes() == b"x"
    await disk.remove("files/abcdef")
    assert (root / "files/ab/abcdxy").exists()
    await disk.remove("files/abcdxy")
    assert sorted(path.name for path in root.rglob("*")) == ["files", "spool"]


async def test_no_symbolic_link_is_followed(disk: DiskBlobs, tmp_path: Path) -> None:
    """Whether it stands for a blob, an owner's folder or a folder above: nothing is read, written or removed there."""
    root, elsewhere = disk.spool.parent, tmp_path / "elsewhere"
    await keep(disk, "files/abcdef/main", b"x")
    (elsewhere / "zzcdef").mkdir(parents=True)
    secret = elsewhere / "zzcdef/secret"
    secret.write_bytes(b"secret")

    async def hidden(name: str) -> None:
        assert await disk.size(name) is None
        with pytest.raises(KeyError):
            await whole(disk, name)
        with pytest.raises(KeyError):
            await disk.copy(name, "evidence/owner/main")

    (root / "files/ab/abcdef/link").symlink_to(secret)
    await hidden("files/abcdef/link")
    # In its place, not through it.
    await keep(disk, "files/abcdef/link", b"mine")
    assert secret.read_bytes() == b"secret"

    for link, target in (
        (root / "files/ab/abcdow", elsewhere / "zzcdef"),
        (root / "files/zz", elsewhere),
        (root / "linked", root / "files"),
    ):
        link.symlink_to(target)
    for name in ("files/abcdow/secret", "files/zzcdef/secret", "linked/abcdef/main"):
        await hidden(name)
        with pytest.raises(StorageUnavailable):
            await keep(disk, name.replace("secret", "new"), b"x")
        await disk.remove(name.rpartition("/")[0])
    assert await disk.old("linked", -2) == []
    assert await disk.old("files", -2) == ["files/abcdef"]
    assert [path.name for path in elsewhere.rglob("*")] == ["zzcdef", "secret"]
    # Nor in the spool.
    link = disk.spool / "link"
    link.symlink_to(secret)
    with pytest.raises(StorageUnavailable):
        await disk.put("files/abcdef/thumb", link)
    assert not link.is_symlink()
    assert secret.read_bytes() == b"secret"


async def test_what_is_no_file_is_no_blob(disk: DiskBlobs) -> None:
    """A pipe is not waited for, and a folder not read."""
    await keep(disk, "files/abcdef/main", b"x")
    os.mkfifo(disk.spool.parent / "files/ab/abcdef/pipe")
    (disk.spool.parent / "files/ab/abcdef/folder").mkdir()
    for part in ("pipe", "folder"):
        assert await asyncio.wait_for(disk.size(f"files/abcdef/{part}"), 2) is None
        with pytest.raises(KeyError):
            await asyncio.wait_for(whole(disk, f"files/abcdef/{part}"), 2)


async def test_the_spool_is_no_folder_of_blobs(disk: DiskBlobs) -> None:
    """What is on its way cannot be had, nor removed, as if it were a blob."""
    for asked in (disk.size("spool/a/b"), disk.remove("spool/a"), disk.old("spool", 0)):
        with pytest.raises(ValueError, match="no name of a blob"):
            await asked


async def test_a_spool_on_another_disk_is_copied_from(disk: DiskBlobs, tmp_path: Path) -> None:
    """As whole as a rename, and as private."""
    content = os.urandom(700_000)
    with small_disk(tmp_path / "small") as small:
        path = small / "upload"
        path.write_bytes(content)
        await disk.put("files/abcdef/main", path)
        assert not path.exists()
    assert await whole(disk, "files/abcdef/main") == content
    kept = disk.spool.parent / "files/ab/abcdef/main"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in kept.parent.iterdir()] == ["main"]


async def test_a_full_disk_says_so_and_keeps_nothing_half(tmp_path: Path) -> None:
    """What is there is still read, removing makes room, and then there is room again."""
    with small_disk(tmp_path / "small") as small:
        disk = DiskBlobs(small / "blobs")
        await disk.open()
        fits, too_much = os.urandom(600_000), os.urandom(900_000)
        (tmp_path / "fits").write_bytes(fits)
        (tmp_path / "too-much").write_bytes(too_much)
        await disk.put("files/fits/main", tmp_path / "fits")
        before = sorted(small.rglob("*"))
        free = await disk.free()
        assert free is not None
        assert 200_000 < free < 500_000
        with pytest.raises(StorageFull):
            await disk.put("files/toomuch/main", tmp_path / "too-much")
        assert not (tmp_path / "too-much").exists()
        with pytest.raises(StorageFull):
            await disk.copy("files/fits/main", "evidence/fits/main")
        evidence = small / "blobs/evidence"
        assert sorted(small.rglob("*")) == sorted([*before, evidence])
        assert await disk.free() == free
        assert await whole(disk, "files/fits/main") == fits
        await disk.ping()
        # To the last byte: a worker can still start.
        (small / "filler").write_bytes(bytes(free))
        await disk.open()
        assert await disk.free() == 0
        await disk.remove("files/fits")
        (small / "filler").unlink()
        (tmp_path / "too-much").write_bytes(too_much)
        await disk.put("files/toomuch/main", tmp_path / "too-much")
        assert await whole(disk, "files/toomuch/main") == too_much
        await disk.close()


async def test_a_disk_without_room_for_another_name_is_full(tmp_path: Path) -> None:
    """When files are many rather than large: no folder can be made, and none stays behind."""
    with small_disk(tmp_path / "small", "1m,nr_inodes=12") as small:
        disk = DiskBlobs(small / "blobs")
        await disk.open()
        await keep(disk, "files/abcdef/main", b"x")
        paths = [disk.spool / str(number) for number in range(4)]
        for path in paths:
            path.write_bytes(b"x")
        before = sorted(path for path in small.rglob("*") if path.parent != disk.spool)
        with pytest.raises(StorageFull):
            await disk.put("files/zzzzzz/main", paths[0])
        assert sorted(path for path in small.rglob("*") if path.parent != disk.spool) == before
        await disk.close()


async def test_a_disk_that_became_read_only_is_unavailable(tmp_path: Path) -> None:
    """As the kernel does to one that fails: nothing can be kept, and ping says so."""
    with small_disk(tmp_path / "small") as small:
        disk = DiskBlobs(small / "blobs")
        await disk.open()
        await keep(disk, "files/owner/main", b"x")
        waiting = spooled(disk, b"x")
        process = await asyncio.create_subprocess_exec("mount", "-o", "remount,ro", small)
        assert await process.wait() == 0
        with pytest.raises(StorageUnavailable):
            await disk.ping()
        with pytest.raises(StorageUnavailable):
            await disk.put("files/owner/thumb", waiting)
        with pytest.raises(StorageUnavailable):
            await disk.open()
        assert await whole(disk, "files/owner/main") == b"x"
        await disk.close()


async def test_a_folder_that_is_away_is_unavailable_and_comes_back(disk: DiskBlobs, tmp_path: Path) -> None:
    """That its blobs are not there is not said of a folder that is not there."""
    await keep(disk, "files/owner/main", b"x")
    root = disk.spool.parent
    root.rename(tmp_path / "away")
    path = tmp_path / "upload"
    path.write_bytes(b"x")
    for asked in (
        disk.ping(),
        disk.size("files/owner/main"),
        whole(disk, "files/owner/main"),
        disk.put("files/owner/main", path),
        disk.copy("files/owner/main", "files/owner/thumb"),
        disk.remove("files/owner"),
        disk.old("files", 0),
        disk.free(),
    ):
        with pytest.raises(StorageUnavailable):
            await asked
    assert not path.exists()
    (tmp_path / "away").rename(root)
    assert await whole(disk, "files/owner/main") == b"x"


async def test_what_a_crash_left_half_is_no_blob_and_grows_old(disk: DiskBlobs) -> None:
    """Nor is an empty folder; both go with their owner."""
    await keep(disk, "files/abcdef/main", b"x")
    owner = disk.spool.parent / "files/ab/abcdef"
    (owner / ".0123456789abcdef").write_bytes(b"half")
    (owner / "main").unlink()
    (owner.parent / "abcdzz").mkdir()
    (owner.parent.parent / "empty").mkdir()
    assert await disk.old("files", 60) == []
    for path in (owner / ".0123456789abcdef", owner, owner.parent / "abcdzz"):
        os.utime(path, (1, 1))
    assert sorted(await disk.old("files", 60)) == ["files/abcdef", "files/abcdzz"]
    assert not (owner.parent.parent / "empty").exists()
    for old in await disk.old("files", 60):
        await disk.remove(old)
    assert not (disk.spool.parent / "files/ab").exists()


async def test_owners_of_a_large_storage_are_soon_looked_through(
    disk: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The few that are old are found among many, without looking into the others."""
    root = disk.spool.parent / "files"
    await keep(disk, "files/old/main", b"x")
    for path in (root / "ol/old/main", root / "ol/old"):
        os.utime(path, (1, 1))
    for _ in range(10_000):
        owner = new_id()
        (root / owner[:2] / owner).mkdir(parents=True)
    looked = 0

    def counted(*_: object) -> float:
        nonlocal looked
        looked += 1
        return 0.0

    monkeypatch.setattr(disk, "_newest", counted)
    assert await disk.old("files", 60) == ["files/old"]
    assert looked == 1


async def test_looking_for_what_is_old_takes_no_writers_place(disk: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow it is, and however many look; it ends after a while with what it has found."""
    for name in ("ab", "cd", "ef"):
        await keep(disk, f"files/{name}/main", b"x")
    goes_on = threading.Event()
    with monkeypatch.context() as slow:
        slow.setattr(disk, "_newest", lambda *_: goes_on.wait(20) and 0.0)
        slow.setattr("visavis.adapters.disk._OLD_WITHIN", 0.1)
        looking = [asyncio.create_task(disk.old("files", -2)) for _ in range(8)]
        await asyncio.sleep(0.2)
        await asyncio.wait_for(keep(disk, "files/owner/main", b"x"), 2)
        goes_on.set()
        assert len((await asyncio.gather(*looking))[0]) == 1


async def test_a_volume_that_came_late_gets_its_spool(disk: DiskBlobs) -> None:
    """It is empty, and the service runs already."""
    disk.spool.rmdir()
    await disk.ping()
    assert stat.S_IMODE(disk.spool.stat().st_mode) == 0o700


async def test_a_disk_that_hangs_holds_up_nothing_but_itself(disk: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that wait leave the readers, the event loop and its own threads alone, and are given up."""
    await keep(disk, "files/owner/main", b"x")
    stuck = threading.Event()
    monkeypatch.setattr("visavis.adapters.disk.os.fsync", lambda _: stuck.wait(20))
    monkeypatch.setattr("visavis.adapters.disk._WRITE_PATIENCE", 2)
    paths = [spooled(disk, b"y") for _ in range(20)]
    puts = [asyncio.create_task(disk.put("files/owner/main", path)) for path in paths]
    await asyncio.sleep(0.1)
    assert await whole(disk, "files/owner/main") == b"x"
    await asyncio.to_thread(time.sleep, 0)
    assert not any(put.done() for put in puts)
    assert {type(said) for said in await asyncio.gather(*puts, return_exceptions=True)} == {StorageUnavailable}
    stuck.set()
    async with asyncio.timeout(PATIENCE):
        while any(path.exists() for path in paths):
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------- S3's misfortunes


@pytest.mark.parametrize("url", ["", "s3://", "s3:///prefix", "http://bucket/x", "bucket", "s3://b/../x", "s3://b/p?q"])
def test_an_address_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    """When it is built, with what it was in the message."""
    with pytest.raises(ValueError, match="not s3://bucket/prefix"):
        S3Blobs(url, tmp_path, endpoint="", region="us-east-1", key="", secret="")


async def test_prefixes_of_a_bucket_are_apart(moto: Moto, tmp_path: Path) -> None:
    """Also where one begins as the other does, and one has none."""
    bucket = f"s3://test-{uuid.uuid4().hex}"
    moto.make_bucket(bucket.split("/")[2])
    stores = [bucket_of(moto, tmp_path, bucket + prefix) for prefix in ("", "/a", "/ab/", "/a/b")]
    for number, blobs in enumerate(stores):
        await blobs.open()
        await keep(blobs, "files/owner/main", bytes([number]))
    await stores[1].remove("files/owner")
    for number, blobs in enumerate(stores):
        assert await blobs.old("files", -2) == ([] if number == 1 else ["files/owner"])
        assert number == 1 or await whole(blobs, "files/owner/main") == bytes([number])


async def test_a_bucket_that_is_not_there_is_unavailable(moto: Moto, tmp_path: Path) -> None:
    """Not an empty one."""
    blobs = bucket_of(moto, tmp_path, "s3://no-such-bucket/prefix")
    path = tmp_path / "upload"
    path.write_bytes(b"x")
    for asked in (
        blobs.open(),
        blobs.ping(),
        blobs.put("files/a/b", path),
        blobs.old("files", 0),
        blobs.remove("files/a"),
    ):
        with pytest.raises(StorageUnavailable):
            await asked
    assert not path.exists()


@pytest.mark.parametrize("how", ["dark", "refused"])
async def test_a_storage_that_is_away_is_noticed_in_seconds(moto: Moto, tmp_path: Path, how: str) -> None:
    """By every method at once, however many wait; and it works again by itself."""
    link = await Link(moto.port).start()
    blobs = bucket_of(moto, tmp_path / "spool", endpoint=f"http://127.0.0.1:{link.port}")
    await blobs.open()
    await keep(blobs, "files/owner/main", b"x")
    await asyncio.sleep(s3._FRESH)
    if how == "dark":
        link.darken()
    else:
        link.cut_after(0)
    paths = [spooled(blobs, bytes(6 * MIB)) for _ in range(31)]
    began = time.monotonic()
    said = await asyncio.gather(
        blobs.ping(),
        blobs.size("files/owner/main"),
        whole(blobs, "files/owner/main"),
        blobs.copy("files/owner/main", "files/owner/thumb"),
        blobs.remove("files/owner"),
        blobs.old("files", 0),
        *(blobs.put("files/owner/main", path) for path in paths[:30]),
        return_exceptions=True,
    )
    took = time.monotonic() - began
    assert [type(one) for one in said] == [StorageUnavailable] * len(said)
    assert not any(path.exists() for path in paths[:30])
    link.mend()
    link.lighten(old_links=False)
    await blobs.ping()
    await blobs.put("files/owner/main", paths[30])
    assert await blobs.size("files/owner/main") == 6 * MIB
    await blobs.close()
    await link.stop()
    assert took < 8


async def test_a_put_into_silence_is_given_up(moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience, with nothing in the spool."""
    monkeypatch.setattr(s3, "_WRITE_PATIENCE", 1.0)
    monkeypatch.setattr(s3, "_SLOWEST", MIB * 100)
    link = await Link(moto.port).start()
    blobs = bucket_of(moto, tmp_path / "spool", endpoint=f"http://127.0.0.1:{link.port}")
    await blobs.open()
    path = spooled(blobs, bytes(20 * MIB))
    link.darken()
    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(blobs.put("files/owner/main", path), 4)
    assert not path.exists()
    link.lighten(old_links=False)
    assert await blobs.size("files/owner/main") is None
    await link.stop()


async def test_a_blob_that_breaks_off_is_no_whole_one(
    moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that falls silent in the middle ends the reading with an error, after its patience."""
    monkeypatch.setattr(s3, "_PATIENCE", 1.0)
    link = await Link(moto.port).start()
    blobs = bucket_of(moto, tmp_path / "spool", endpoint=f"http://127.0.0.1:{link.port}")
    await blobs.open()
    await keep(blobs, "files/owner/main", bytes(20 * MIB))
    pieces = blobs.read("files/owner/main")
    await anext(pieces)
    link.darken()
    with pytest.raises(StorageUnavailable):
        async for _ in pieces:
            pass
    await link.stop()


@pytest.mark.parametrize(
    ("status", "code"),
    [(507, "XMinioStorageFull"), (507, "InsufficientStorage"), (403, "QuotaExceeded"), (500, "InsufficientCapacity")],
)
@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_a_storage_without_room_says_so(tmp_path: Path, status: int, code: str, size: int) -> None:
    """In the words of any of those that can be full, at once, whether sent in parts or whole."""
    full = await FullStorage(status, code).start()
    blobs = S3Blobs("s3://bucket/p", tmp_path / "s", endpoint=full.url, region="us-east-1", key="k", secret="s")
    # What is there can be served.
    await blobs.open()
    path = spooled(blobs, bytes(size))
    asked = len(full.asked)
    with pytest.raises(StorageFull):
        await blobs.put("files/owner/main", path)
    # A hiccup would look the same, so it is tried again, a little: whoever uploads waits.
    tried = Counter(full.asked[asked:])
    assert max(tried.values()) <= 3
    assert not path.exists()
    await full.stop()


async def test_any_other_refusal_is_a_storage_that_is_unavailable(tmp_path: Path) -> None:
    """Wrong credentials, say: at opening, in the log's reach, not at the first guest's file."""
    refusing = await FullStorage(403, "SignatureDoesNotMatch").start()
    blobs = S3Blobs("s3://bucket/p", tmp_path / "s", endpoint=refusing.url, region="us-east-1", key="k", secret="s")
    with pytest.raises(StorageUnavailable, match="SignatureDoesNotMatch"):
        await blobs.open()
    await refusing.stop()


@pytest.mark.parametrize("number", [416, 507])
async def test_a_number_in_a_name_is_no_answer_of_the_storage(tmp_path: Path, number: int) -> None:
    """What cannot be read now is neither at its end nor without room, wherever in a file or a bucket it lies."""
    dead = await FullStorage(503, "SlowDown", dead=True).start()
    url = f"s3://bucket-{number}/p/{number}"
    blobs = S3Blobs(url, tmp_path, endpoint=dead.url, region="us-east-1", key="k", secret="s")
    name = f"parts/file.{number}.id"
    with pytest.raises(StorageUnavailable, match="503"):
        await whole(blobs, f"{name}/part")
    with pytest.raises(StorageUnavailable, match="503"):
        await blobs.size(f"{name}/part")
    with pytest.raises(StorageUnavailable, match="503"):
        await blobs.remove(name)
    with pytest.raises(StorageUnavailable, match="503"):
        await blobs.put(f"{name}/part", spooled(blobs, b"x"))
    await dead.stop()


@pytest.mark.parametrize("after", ["416.2ms", "507.9ms"])
def test_how_long_an_answer_took_does_not_matter(after: str) -> None:
    """The library tells the time as well, in the same words."""
    asked = f"Error performing GET http://s/b/x in {after}"
    meant = s3._meant(OSError(f"{asked} - Server returned non-2xx status code: 503 Service Unavailable: "))
    assert type(meant) is StorageUnavailable
