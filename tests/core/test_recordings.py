"""Saved recordings: whose they are and for how long, on a real store and real files."""

import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from adapters.stores import Clock
from visavis.adapters.shelf import Folder
from visavis.adapters.sqlite import SqliteStore
from visavis.contract import Refused
from visavis.core import collections
from visavis.core.identity import new_id
from visavis.core.ports import DocumentStore
from visavis.core.recordings import Recordings, Saved

MINE, THEIRS, NOBODYS = "mine", "theirs", "nobodys"


class Library:
    """A store whose clock can be moved, and a folder."""

    def __init__(self, store: DocumentStore, folder: Path, clock: Clock) -> None:
        self.store, self.folder, self.clock = store, folder, clock
        self.shelf = Folder(folder)
        self.shelf.open()
        self.recordings = Recordings(store, self.shelf, patience=0.2)

    async def put(self, *, kept_minutes: float = 60) -> str:
        """A recording of two browsers; returns its id."""
        recording = new_id()
        (self.folder / f"{recording}.mp4").write_bytes(b"film")
        at = self.clock()
        saved = Saved(recording, at, at + round(kept_minutes * 60_000), 4, 7)
        assert await self.recordings.save(saved, (MINE, THEIRS))
        return recording

    def age(self, recording: str, seconds: float) -> None:
        then = time.time() - seconds
        os.utime(self.folder / f"{recording}.mp4", (then, then))


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    clock = Clock()
    store = SqliteStore(tmp_path / "documents.sqlite", collections.ALL, clock=clock)
    await store.open()
    yield Library(store, tmp_path / "recordings", clock)
    await store.close()


async def refusal(asked: Awaitable[object]) -> str:
    with pytest.raises(Refused) as refused:
        await asked
    return refused.value.code


async def test_both_browsers_have_it_and_nobody_else(library: Library) -> None:
    """To others it is as if it did not exist."""
    recording = await library.put()
    for device in (MINE, THEIRS):
        (listed,) = (await library.recordings.list_for(device)).recordings
        assert (listed.id, listed.bytes, listed.seconds) == (recording, 4, 7)
        path, _ = await library.recordings.file_for(device, recording)
        assert path.read_bytes() == b"film"
    assert (await library.recordings.list_for(NOBODYS)).recordings == ()
    assert await refusal(library.recordings.file_for(NOBODYS, recording)) == "not_found"
    assert await refusal(library.recordings.delete(NOBODYS, recording)) == "not_found"
    assert await refusal(library.recordings.file_for(MINE, new_id())) == "not_found"


async def test_the_newest_comes_first(library: Library) -> None:
    """As the list is read."""
    made = [await library.put() for _ in range(3)]
    assert [one.id for one in (await library.recordings.list_for(MINE)).recordings] == made[::-1]


async def test_either_deletes_it_for_both(library: Library) -> None:
    """The file, and that there was one."""
    recording = await library.put()
    kept = await library.put()
    await library.recordings.delete(THEIRS, recording)
    for device in (MINE, THEIRS):
        assert [one.id for one in (await library.recordings.list_for(device)).recordings] == [kept]
        assert await refusal(library.recordings.file_for(device, recording)) == "not_found"
    assert [path.stem for path in library.folder.iterdir()] == [kept]


async def test_an_expired_one_is_gone_before_it_is_swept(library: Library) -> None:
    """And the sweep removes the file, but none that somebody may still have."""
    short, long = await library.put(kept_minutes=1), await library.put(kept_minutes=10)
    library.clock.move(2)
    assert await refusal(library.recordings.file_for(MINE, short)) == "not_found"
    assert [one.id for one in (await library.recordings.list_for(MINE)).recordings] == [long]
    assert library.shelf.path(short) is not None
    library.age(short, 3600)
    library.age(long, 3600)
    assert await library.recordings.sweep() == 1
    assert [path.stem for path in library.folder.iterdir()] == [long]


async def test_a_file_that_is_just_being_stored_is_not_swept(library: Library) -> None:
    """Its documents may come any moment; if they never do, it goes as well."""
    orphan = new_id()
    (library.folder / f"{orphan}.mp4").write_bytes(b"film")
    assert await library.recordings.sweep() == 0
    library.age(orphan, 3600)
    assert await library.recordings.sweep() == 1


async def test_what_cannot_be_stored_is_not_kept(library: Library) -> None:
    """A file that nobody could ever be given."""
    await library.store.close()
    recording = new_id()
    (library.folder / f"{recording}.mp4").write_bytes(b"film")
    assert not await library.recordings.save(Saved(recording, 0, 1, 4, 7), (MINE, THEIRS))
    assert list(library.folder.iterdir()) == []
    assert await refusal(library.recordings.list_for(MINE)) == "unavailable"
    assert await refusal(library.recordings.file_for(MINE, recording)) == "unavailable"


async def test_saving_twice_is_saving_once(library: Library) -> None:
    """As happens when the store's answer is lost."""
    recording = await library.put()
    at = library.clock()
    assert await library.recordings.save(Saved(recording, at, at + 60_000, 4, 7), (MINE, THEIRS))
    assert len((await library.recordings.list_for(MINE)).recordings) == 1


@pytest.mark.parametrize("name", ["../documents", "a/b", "", ".", "x" * 22 + "/..", "x" * 23, "\0" * 22])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Only an id is a name."""
    (tmp_path / "documents.mp4").write_bytes(b"other")
    shelf = Folder(tmp_path / "recordings")
    shelf.open()
    assert shelf.path(name) is None
    shelf.remove(name)
    assert (tmp_path / "documents.mp4").exists()


def test_what_was_never_finished_is_swept_at_the_start_unless_it_is_being_written(tmp_path: Path) -> None:
    """Where the file system has no unnamed files, an unfinished one is hidden, and locked by who writes it."""
    from visavis.adapters import recorder

    written = recorder.Unnamed(tmp_path, "written.mp4", hidden=True)
    abandoned = tmp_path / ".abandoned.mp4.partial"
    abandoned.write_bytes(b"film")
    Folder(tmp_path).open()
    assert {path.name for path in tmp_path.iterdir()} == {".written.mp4.partial"}
    os.write(written._handle, b"film")
    assert written.name() == 4
    written.close()
    assert {path.name for path in tmp_path.iterdir()} == {"written.mp4"}
    dropped = recorder.Unnamed(tmp_path, "dropped.mp4", hidden=True)
    dropped.close()
    assert {path.name for path in tmp_path.iterdir()} == {"written.mp4"}
