"""The rules of shared files on a real Valkey and a real folder: tests move the clock, and the workshop waits."""

import asyncio
import os
import time
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from hypothesis import given
from hypothesis import strategies as st

from rig import PATIENCE
from visavis.adapters.disk import DiskBlobs
from visavis.adapters.metrics import Metrics
from visavis.adapters.redis import Ledger, State, connect
from visavis.adapters.spool import DiskSpool
from visavis.adapters.tokens import Tokens
from visavis.adapters.valkey import PrivateValkey
from visavis.contract import MAX_FILE_NAME, BeginUpload, OpenFile, Profile, Refused, UploadState, Why
from visavis.core import files as rules_of
from visavis.core.conversations import Peer
from visavis.core.files import LONGEST_NAME, Files, Rules, tidy
from visavis.core.identity import Guest, new_id
from visavis.core.ports import (
    Found,
    Member,
    Record,
    ScannerUnavailable,
    StorageFull,
    StorageUnavailable,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Workshop:
    """Passes every file on as it is, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.began = asyncio.Event()
        self.seen: list[bytes] = []
        self.refusal: Exception | None = None

    async def examine(self, path: Path, name: str, folder: Path, *, voice: bool) -> Found:
        self.seen.append(path.read_bytes())
        self.began.set()
        await self.may.wait()
        if self.refusal is not None:
            raise self.refusal
        main, thumb = folder / "main", folder / "thumb"
        main.write_bytes(path.read_bytes())
        thumb.write_bytes(b"small")
        return Found(kind="voice" if voice else "document", type="text/plain", main=main, suffix="", thumb=thumb)


class Scanner:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[bool | Exception] = []
        self.asked = 0

    async def clean(self, path: Path) -> bool:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ping(self) -> None:
        return


class House:
    """Workers, two guests in a conversation, and everything files need."""

    def __init__(self, url: str, folder: Path) -> None:
        self.redis = redis.Redis.from_url(url)
        self.keys = connect(url)
        self.folder = folder
        self.blobs = DiskBlobs(folder)
        self.tokens = Tokens({"k1": b"k" * 40}, 7200)
        self.state = State(self.keys, "worker", session_ms=7_200_000, lease_ms=60_000, recent_ms=0)
        self.now = time.time_ns() // 1_000_000
        self.made: list[Files] = []
        self.a, self.b = self.guest(), self.guest()
        self.conversation = ""

    async def start(self) -> "House":
        await self.blobs.open()
        self.conversation = await self.meet(self.a, self.b)
        return self

    async def stop(self) -> None:
        for files in self.made:
            await files.stop()
        await self.blobs.close()
        await self.keys.aclose()
        await self.redis.aclose()

    def guest(self) -> Guest:
        return Guest(new_id(), new_id(), Profile(name="Amber Fox", hue=15))

    async def meet(self, *guests: Guest) -> str:
        members = tuple(Member(g.id, g.device, g.profile) for g in guests)
        record = Record(new_id(), "text", members, Why(interests=(), languages=("en",)), 1)
        for guest in guests:
            await self.state.connect(guest, record)
        return record.id

    def worker(self, workshop: Workshop | None = None, scanner: Scanner | None = None, **changed: Any) -> Files:
        """One more worker."""
        told: dict[str, Any] = {
            "file_bytes": 1000,
            "files_per_minute": 100,
            "files_bytes_together": 5000,
            "file_seconds": 86_400,
            "file_kinds": ("document", "voice"),
            "file_address_seconds": 600,
            "file_checks_at_once": 2,
            "upload_seconds": 3600,
            "files_free_bytes": 0,
            "evidence_seconds": 7_776_000,
            "file_sweep_seconds": 0.01,
        }
        rules = Rules(**{**told, **changed})
        spool = DiskSpool(self.blobs.spool)
        files = Files(
            Ledger(self.keys), self.blobs, spool, workshop or Workshop(), scanner, self.tokens, Metrics(), rules,
            lambda: self.now,
        )  # fmt: skip
        self.made.append(files)
        return files

    async def begin(self, files: Files, size: int, name: str = "a.txt", guest: Guest | None = None) -> str:
        asked = BeginUpload(conversation_id=self.conversation, name=name, bytes=size)
        return (await files.begin(guest or self.a, asked)).file_id

    async def upload(self, files: Files, data: bytes = b"hello") -> str:
        """A file whose last byte has just arrived."""
        file = await self.begin(files, len(data))
        assert await files.append(self.a, file, 0, pieces(data)) == len(data)
        return file

    async def ready(self, files: Files, data: bytes = b"hello") -> str:
        file = await self.upload(files, data)
        assert (await settled(files, self.a, file)).phase == "ready"
        return file

    async def sees(self, files: Files, guest: Guest, file: str) -> bool:
        """Whether a guest gets at the bytes."""

        class Line:
            def push(self, frame: bytes) -> None: ...

            def close(self, last_words: Any = None) -> None: ...

        try:
            opened = await files.open(Peer(guest, Line()), OpenFile(conversation_id=self.conversation, file_id=file))
            served = await files.find(opened.base.removeprefix("/files/"), "main")
            return bool([piece async for piece in files.read(served, 0, served.bytes)])
        except Refused as refused:
            if refused.code != "no_such_file":
                raise
            return False

    async def dies(self, files: Files) -> None:
        """A worker goes without a word."""

        async def silent(*_: str) -> None:
            return

        files._give_back = silent  # type: ignore[method-assign]
        await files.stop()

    async def sweep(self, files: Files) -> None:
        """As if the next one were due."""
        await self.redis.delete("v:sweeping")
        await files.sweep()

    def lying(self) -> list[str]:
        """What there is on the disk, apart from empty folders."""
        # By a walk that does not mind folders that go meanwhile.
        found = (Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def settled(files: Files, guest: Guest, file: str) -> UploadState:
    async with asyncio.timeout(PATIENCE):
        while (state := await files.state(guest, file)).phase == "checking":
            pass
    return state


async def refusal(work: Any) -> Refused:
    with pytest.raises(Refused) as raised:
        await work
    return raised.value


@pytest.fixture
async def house(valkey: PrivateValkey, tmp_path: Path) -> AsyncIterator[House]:
    # What another test left to be swept is not this one's.
    raw = redis.Redis.from_url(valkey.url)
    await raw.delete("v:{c0}:files", "v:sweeping")
    await raw.aclose()
    made = await House(valkey.url, tmp_path / "files").start()
    yield made
    await made.stop()


# --------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\report.pdf", "report.pdf"),
        ("..", "file"),
        ("/", "file"),
        ("", "file"),
        (" \t\n", "file"),
        (".htaccess", "htaccess"),
        ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie: x=1.txt"),
        ('a"; filename="b.exe', "a; filename=b.exe"),
        ("cod\u202egpj.exe", "codgpj.exe"),
        ("\u2066x\u2069.png", "x.png"),
        ("nul\0l.txt", "null.txt"),
        ("\ud800.txt", "txt"),
        ("cafe\u0301.jpg", "café.jpg"),
        ("👩\u200d🚀.jpg", "👩\u200d🚀.jpg"),
        ("日本語.txt", "日本語.txt"),
        ("x" * 500 + ".jpeg", "x" * (MAX_FILE_NAME - 5) + ".jpeg"),
        ("💩" * 500 + ".jpeg", "💩" * ((LONGEST_NAME - 5) // 4) + ".jpeg"),
        ("a." + "b" * 500, "a." + "b" * (MAX_FILE_NAME - 2)),
    ],
)
def test_a_name_is_what_comes_after_the_last_folder_without_tricks(told: str, kept: str) -> None:
    """And it keeps its ending, so that it opens with what it should."""
    assert tidy(told) == kept


@given(st.text(st.characters(), max_size=1000))
def test_every_name_is_one_that_can_be_shown_and_saved(told: str) -> None:
    """Whatever a device calls its files."""
    name = tidy(told)
    assert 1 <= len(name) <= MAX_FILE_NAME
    assert len(name.encode()) <= LONGEST_NAME
    assert name == unicodedata.normalize("NFC", name)
    assert not set(name) & set("/\\\"'`<>\r\n\0\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069")
    assert name == name.strip(" .")
    assert tidy(name) == name


# --------------------------------------------------------------------------- uploading


async def test_a_file_goes_the_whole_way_and_leaves_nothing_of_its_making(house: House) -> None:
    """Its parts are gone, the spool is empty, and what was made of it is there."""
    files = house.worker()
    file = await house.begin(files, 5)
    assert await files.append(house.a, file, 0, pieces(b"he")) == 2
    assert await files.append(house.a, file, 2, pieces(b"l", b"lo")) == 5
    state = await settled(files, house.a, file)
    assert (state.phase, state.offset) == ("ready", 5)
    assert state.file is not None
    assert state.file.expires_at == house.now + DAY_MS
    assert house.tokens.shared(state.seal or "", house.conversation, house.a.id) == state.file
    assert [name.split("/")[0] for name in house.lying()] == ["files", "files"]
    assert await house.sees(files, house.a, file)
    assert await house.sees(files, house.b, file)
    assert not await house.sees(files, house.guest(), file)


async def test_of_two_that_append_at_once_one_wins_and_the_other_leaves_nothing(house: House) -> None:
    """Whoever is told that it is stored can rely on it, and nobody else is told so."""
    one, two = house.worker(), house.worker()
    file = await house.begin(one, 10)
    outcomes = await asyncio.gather(
        *(worker.append(house.a, file, 0, pieces(data)) for worker, data in ((one, b"aaaaa"), (two, b"bbbbb"))),
        return_exceptions=True,
    )
    assert outcomes.count(5) == 1
    lost = next(outcome for outcome in outcomes if outcome != 5)
    assert isinstance(lost, Refused)
    assert (lost.code, lost.data) == ("offset_mismatch", {"offset": 5})
    assert len(house.lying()) == 1


async def test_more_than_was_announced_is_not_stored(house: House) -> None:
    """Nor is a part that says another offset than the one that stands."""
    files = house.worker()
    file = await house.begin(files, 5)
    assert (await refusal(files.append(house.a, file, 0, pieces(b"123", b"456")))).code == "file_too_large"
    assert (await refusal(files.append(house.a, file, 3, pieces(b"45")))).data == {"offset": 0}
    assert await files.progress(house.a, file) == (0, 5)
    assert house.lying() == []


async def test_an_upload_is_its_guests_alone(house: House) -> None:
    """Not even the partner learns that it exists."""
    files = house.worker()
    file = await house.begin(files, 5)
    for ask in (
        files.progress(house.b, file),
        files.append(house.b, file, 0, pieces(b"hello")),
        files.state(house.b, file),
        files.take_back(house.b, file),
    ):
        assert (await refusal(ask)).code == "no_such_file"
    asked = BeginUpload(conversation_id=house.conversation, name="x", bytes=1)
    assert (await refusal(files.begin(house.guest(), asked))).code == "not_in_conversation"


async def test_the_limits_are_exact_also_for_a_hundred_at_once(house: House) -> None:
    """Not a byte more together, and not an upload more in a minute."""
    files = house.worker(files_bytes_together=50)
    outcomes = await asyncio.gather(*(house.begin(files, 10) for _ in range(100)), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, Refused)]
    assert len(refused) == 95
    assert {(one.code, one.data["limit"]) for one in refused} == {("too_many_files", 50)}
    await files.take_back(house.a, next(one for one in outcomes if isinstance(one, str)))
    await house.begin(files, 10)
    assert (await refusal(house.begin(files, 1))).code == "too_many_files"
    hasty = house.worker(files_per_minute=7)
    outcomes = await asyncio.gather(*(house.begin(hasty, 1, guest=house.b) for _ in range(30)), return_exceptions=True)
    refused = [one for one in outcomes if isinstance(one, Refused)]
    assert len(refused) == 23
    assert {one.code for one in refused} == {"rate_limited"}
    assert all(0 < one.data["retryInMs"] <= 60_000 for one in refused)


async def test_sizes_are_exact(house: House) -> None:
    """None, one, the most, one more."""
    files = house.worker()
    assert (await refusal(house.begin(files, 0))).code == "file_empty"
    assert (await refusal(house.begin(files, 1001))).data == {"limit": 1000}
    for size in (1, 1000):
        await house.ready(files, b"x" * size)


async def test_a_full_storage_is_said_and_leaves_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a part in the spool nor one in the ledger; later it goes on."""
    files = house.worker()
    file = await house.begin(files, 5)

    async def full(name: str, path: Path) -> None:
        path.unlink()
        raise StorageFull

    with monkeypatch.context() as patched:
        patched.setattr(house.blobs, "put", full)
        assert (await refusal(files.append(house.a, file, 0, pieces(b"hello")))).code == "storage_full"
    assert house.lying() == []
    assert await files.append(house.a, file, 0, pieces(b"hello")) == 5
    assert (await refusal(house.begin(house.worker(files_free_bytes=1 << 60), 5))).code == "storage_full"


# --------------------------------------------------------------------------- the end of a file


async def test_a_file_is_gone_after_its_time_though_nobody_swept(house: House) -> None:
    """For everybody, at the millisecond, by the clock of the one who is asked; and its bytes count no more."""
    files = house.worker(files_bytes_together=5)
    file = await house.ready(files)
    house.now += DAY_MS - 1
    assert await house.sees(files, house.b, file)
    assert (await refusal(house.begin(files, 1))).code == "too_many_files"
    house.now += 1
    assert not await house.sees(files, house.b, file)
    assert (await refusal(files.state(house.a, file))).code == "no_such_file"
    assert house.lying() != []
    await house.begin(files, 5)
    await house.sweep(files)
    assert house.lying() == []


async def test_an_address_that_was_given_leads_nowhere_after_the_time_of_the_file(house: House) -> None:
    """Each request asks anew."""
    files = house.worker()
    file = await house.ready(files)
    assert await house.sees(files, house.b, file)
    token = house.tokens.let_in(rules_of.Pass(file, house.b.id, house.conversation), 600)
    assert (await files.find(token, "main")).bytes == 5
    house.now += DAY_MS
    for variant in ("main", "thumb", "download"):
        assert (await refusal(files.find(token, variant))).code == "no_such_file"


async def test_an_upload_nobody_goes_on_with_is_swept(house: House) -> None:
    """An hour after its last part, not after its first; and then its bytes may be used for another."""
    files = house.worker(files_bytes_together=10)
    file = await house.begin(files, 10)
    house.now += HOUR_MS - 1
    await files.append(house.a, file, 0, pieces(b"12345"))
    house.now += HOUR_MS - 1
    await house.sweep(files)
    assert await files.progress(house.a, file) == (5, 10)
    house.now += 2
    await house.sweep(files)
    assert (await refusal(files.progress(house.a, file))).code == "no_such_file"
    assert house.lying() == []
    await house.begin(files, 10)


async def test_taken_back_it_is_gone_for_all_at_once(house: House) -> None:
    """Ready or not."""
    files = house.worker(files_bytes_together=5)
    file = await house.ready(files)
    await files.take_back(house.a, file)
    assert not await house.sees(files, house.b, file)
    assert not await house.sees(files, house.a, file)
    assert (await refusal(files.take_back(house.a, file))).code == "no_such_file"
    await house.sweep(files)
    assert house.lying() != [], "a report may still name it"
    house.now += HOUR_MS
    await house.sweep(files)
    assert house.lying() == []
    file = await house.begin(files, 5)
    await files.append(house.a, file, 0, pieces(b"123"))
    await files.take_back(house.a, file)
    assert house.lying() == []
    assert (await refusal(files.append(house.a, file, 3, pieces(b"45")))).code == "no_such_file"


@pytest.mark.parametrize("part", [False, True], ids=["left", "blocked"])
async def test_who_has_gone_from_the_conversation_gets_nothing_more(house: House, part: bool) -> None:
    """Whoever leaves; after a block, both."""
    files = house.worker()
    file = await house.ready(files)
    await house.state.end(house.conversation, house.b.id, part=part)
    assert not await house.sees(files, house.b, file)
    assert await house.sees(files, house.a, file) is not part


async def test_when_all_have_gone_the_bytes_go_with_the_next_sweep(house: House) -> None:
    """Also those of an upload that still runs, which can add nothing; what was shared, once no report can name it."""
    files = house.worker()
    file = await house.ready(files)
    running = await house.begin(files, 10)
    await files.append(house.a, running, 0, pieces(b"12345"))
    await house.state.end(house.conversation, house.a.id)
    await house.sweep(files)
    assert await house.sees(files, house.b, file)
    # Its page is closed: said by leaving what has ended.
    await house.state.end(house.conversation, house.b.id)
    assert not await house.sees(files, house.b, file)
    assert (await refusal(files.append(house.a, running, 5, pieces(b"67890")))).code == "no_such_file"
    await house.sweep(files)
    assert [name.split("/")[0] for name in house.lying()] == ["files", "files"], "main and thumb, for a report"
    house.now += HOUR_MS + 1000
    await house.sweep(files)
    assert house.lying() == []
    assert await house.redis.zcard("v:{c0}:files") == 0


async def test_a_lost_connection_leaves_nothing(house: House) -> None:
    """Whose connection did not come back in time may look again later."""
    files = house.worker()
    file = await house.ready(files)
    await house.state.disconnect([(house.b.id, (await house.state.connect(house.b, None)).epoch)])
    assert await house.state.end(house.conversation, house.b.id, away_for=0) is not None
    assert await house.sees(files, house.b, file)


async def test_an_ended_conversation_is_known_as_long_as_it_has_files(house: House) -> None:
    """And an hour without; or nobody could say who may have them."""
    files = house.worker()
    await house.ready(files)
    await house.state.end(house.conversation, house.a.id)
    assert await house.redis.pttl(f"v:{{c0}}:conversation:{house.conversation}") > DAY_MS - 60_000
    without = await house.meet(house.guest(), c := house.guest())
    await house.state.end(without, c.id)
    assert await house.redis.pttl(f"v:{{c0}}:conversation:{without}") <= HOUR_MS


async def test_what_redis_has_lost_is_gone_and_swept(house: House) -> None:
    """A claim brings the conversation back, not its files."""
    files = house.worker()
    file = await house.ready(files)
    half = await house.begin(files, 10)
    await files.append(house.a, half, 0, pieces(b"12345"))
    record = await house.state.record(house.conversation)
    for key in await house.redis.keys("v:*"):
        if house.conversation.encode() in key or key.split(b":")[2].startswith(b"file"):
            await house.redis.delete(key)
    assert (await house.state.connect(house.b, record)).record == record
    assert not await house.sees(files, house.b, file)
    assert (await refusal(files.state(house.a, file))).code == "no_such_file"
    await house.sweep(files)
    assert len(house.lying()) == 3, "they might be of use yet, for all the sweep knows"
    aged(house, 3600 * 2 + 60)
    await house.sweep(files)
    assert [name.split("/")[0] for name in house.lying()] == ["files", "files"]
    aged(house, 3600 * 25 + 60)
    await house.sweep(files)
    assert house.lying() == []


def aged(house: House, seconds: float) -> None:
    """Everything on the disk is this old."""
    for path in house.folder.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


async def test_the_sweep_leaves_a_slow_upload_its_parts(house: House) -> None:
    """However old the first of them is."""
    files = house.worker()
    file = await house.begin(files, 10)
    await files.append(house.a, file, 0, pieces(b"12345"))
    aged(house, 3600 * 3)
    await house.sweep(files)
    await files.append(house.a, file, 5, pieces(b"67890"))
    assert (await settled(files, house.a, file)).phase == "ready"


async def test_one_worker_sweeps_at_a_time_and_storage_that_is_away_is_no_reason_to_stop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be removed is removed later."""
    files = house.worker(file_sweep_seconds=60)
    file = await house.ready(files)

    async def away(*asked: Any) -> None:
        raise StorageUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(house.blobs, "remove", away)
        await files.take_back(house.a, file)
        assert not await house.sees(files, house.b, file)
        house.now += HOUR_MS
        await house.sweep(files)
    assert house.lying() != []
    await files.sweep()
    assert house.lying() != [], "it is not anybody's turn"
    await house.sweep(files)
    assert house.lying() == []
    await house.redis.delete("v:sweeping")
    again = house.worker()
    with monkeypatch.context() as patched:
        patched.setattr(house.blobs, "old", away)
        await again.start()
        await asyncio.sleep(0.1)
    other = await house.ready(again)
    house.now += DAY_MS
    async with asyncio.timeout(PATIENCE):
        while house.lying():
            await asyncio.sleep(0.02)
    assert not await house.sees(again, house.a, other)


# --------------------------------------------------------------------------- checking


@pytest.mark.parametrize("by", ["who asks", "the sweep"])
async def test_a_check_is_taken_over_from_a_worker_that_died(
    house: House, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """By whoever is asked next, or by the sweep; while it lived, it alone was at it."""
    monkeypatch.setattr(rules_of, "LEASE_MS", 400)
    monkeypatch.setattr(rules_of, "RENEW", 0.1)
    monkeypatch.setattr(rules_of, "OFFER_AGAIN", 0.1)
    stuck, sound = Workshop(), Workshop()
    stuck.may.clear()
    dying, living = house.worker(stuck), house.worker(sound)
    file = await house.upload(dying)
    await asyncio.wait_for(stuck.began.wait(), 5)
    house.now += 1000
    for _ in range(6):
        await house.sweep(living)
        await asyncio.sleep(0.1)
    assert sound.seen == []
    await house.dies(dying)
    if by == "the sweep":
        async with asyncio.timeout(PATIENCE):
            while not sound.seen:
                house.now += 15_000
                await house.sweep(living)
                await asyncio.sleep(0.05)
    assert (await settled(living, house.a, file)).phase == "ready"
    assert sound.seen == [b"hello"]
    assert not [name for name in house.lying() if name.startswith(("parts", "spool"))]


async def test_a_file_that_no_worker_survives_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would take down one after the other."""
    monkeypatch.setattr(rules_of, "LEASE_MS", 50)
    monkeypatch.setattr(rules_of, "OFFER_AGAIN", 0.1)
    stuck = Workshop()
    stuck.may.clear()
    first = house.worker(stuck)
    file = await house.upload(first)
    for n in range(3):
        await asyncio.wait_for(stuck.began.wait(), 5)
        await house.dies(house.made[-1])
        await asyncio.sleep(0.1)
        stuck.began.clear()
        if n < 2:
            house.worker(stuck)._check_soon(file)
    state = await settled(house.worker(), house.a, file)
    assert (state.phase, state.problem) == ("refused", "file_unreadable")
    assert len(stuck.seen) == 3


async def test_a_worker_that_stops_gives_its_checks_back(house: House) -> None:
    """At once, however often, and none of it is the file's fault."""
    stuck = Workshop()
    stuck.may.clear()
    file = await house.upload(house.worker(stuck))
    for _ in range(rules_of.MOST_TRIES + 1):
        await asyncio.wait_for(stuck.began.wait(), 5)
        stuck.began.clear()
        await house.made[-1].stop()
        house.worker(stuck)._check_soon(file)
    stuck.may.set()
    async with asyncio.timeout(5):
        assert (await settled(house.made[-1], house.a, file)).phase == "ready"


async def test_who_has_lost_the_lease_of_a_check_removes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has made the file ready meanwhile: the refusal of the first comes too late to matter."""
    monkeypatch.setattr(rules_of, "RENEW", 60)
    monkeypatch.setattr(rules_of, "LEASE_MS", 200)
    slow = Workshop()
    slow.may.clear()
    slow.refusal = Refused("file_unreadable")
    late, other = house.worker(slow), house.worker()
    file = await house.upload(late)
    await asyncio.wait_for(slow.began.wait(), 5)
    await asyncio.sleep(0.3)
    assert (await settled(other, house.a, file)).phase == "ready"
    slow.may.set()
    await asyncio.gather(*late._checks.values())
    assert await house.sees(other, house.b, file)
    assert (await other.state(house.a, file)).phase == "ready"


async def test_a_part_that_is_added_twice_counts_once(house: House) -> None:
    """As when the answer was lost on the way and the client of Redis asks again."""
    ledger = Ledger(house.keys)
    file = await house.begin(house.worker(), 10)
    told = {"now": house.now, "give_up_at": house.now + 1000, "check_at": house.now + 1000, "most": 64}
    for _ in range(2):
        assert await ledger.append(file, 0, 5, "parts/one", **told) == (5, True)
    assert await ledger.append(file, 0, 5, "parts/two", **told) == (5, False)
    upload = await ledger.upload(file)
    assert upload is not None
    assert upload.parts == ("parts/one",)


async def test_an_upload_in_countless_small_pieces_begins_anew(house: House) -> None:
    """So many as a bad network makes are taken; a file for each byte is not."""
    files = house.worker()
    file = await house.begin(files, 1000)
    for at in range(rules_of.MOST_PARTS):
        assert await files.append(house.a, file, at, pieces(b"x")) == at + 1
    assert (await refusal(files.append(house.a, file, rules_of.MOST_PARTS, pieces(b"x")))).code == "no_such_file"


async def test_a_refused_file_leaves_no_bytes_and_says_why(house: House) -> None:
    """It counts for nothing, and nobody can say it."""
    workshop = Workshop()
    workshop.refusal = Refused("picture_too_large", limit=7)
    files = house.worker(workshop, files_bytes_together=5)
    file = await house.upload(files)
    state = await settled(files, house.a, file)
    assert (state.phase, state.problem, state.limit) == ("refused", "picture_too_large", 7)
    assert (state.seal, state.file) == (None, None)
    assert house.lying() == []
    assert not await house.sees(files, house.b, file)
    await house.begin(files, 5)
    house.now += HOUR_MS
    await house.sweep(files)
    assert (await refusal(files.state(house.a, file))).code == "no_such_file"


async def test_a_kind_that_is_not_taken_here_is_refused(house: House) -> None:
    """Also if the workshop knows what to do with it."""
    files = house.worker(file_kinds=("voice",))
    state = await settled(files, house.a, await house.upload(files))
    assert (state.phase, state.problem) == ("refused", "kind_refused")
    assert house.lying() == []


async def test_nothing_is_handed_out_before_the_scanner_has_called_it_clean(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scanner that is away holds files back; what it finds something in is gone."""
    monkeypatch.setattr(rules_of, "SCAN_PAUSES", (0.05,) * 3)
    monkeypatch.setattr(rules_of, "OFFER_AGAIN", 0.1)
    scanner, workshop = Scanner(), Workshop()
    scanner.answers = [ScannerUnavailable()]
    files = house.worker(workshop, scanner)
    file = await house.upload(files)
    async with asyncio.timeout(PATIENCE):
        while scanner.asked < 3:
            await asyncio.sleep(0.02)
    assert not await house.sees(files, house.b, file)
    assert workshop.seen == [], "it is looked at whole, before it is taken apart"
    scanner.answers = [True]
    assert (await settled(files, house.a, file)).phase == "ready"
    scanner.answers = [False]
    state = await settled(files, house.a, found := await house.upload(files, b"EICAR"))
    assert (state.phase, state.problem) == ("refused", "file_infected")
    assert not await house.sees(files, house.b, found)
    assert b"EICAR" not in workshop.seen
    scanner.answers = [ScannerUnavailable()]
    monkeypatch.setattr(rules_of, "PATIENCE_MS", 0)
    state = await settled(files, house.a, await house.upload(files))
    assert (state.phase, state.problem) == ("refused", "unavailable")
    assert len(house.lying()) == 2


async def test_a_check_waits_for_a_storage_that_is_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is done when it is back; after ten minutes it is refused instead."""
    monkeypatch.setattr(rules_of, "OFFER_AGAIN", 0.1)
    monkeypatch.setattr(rules_of, "NEWS_SECONDS", 0.5)
    workshop = Workshop()
    workshop.refusal = StorageUnavailable()
    files = house.worker(workshop)
    file = await house.upload(files)
    for _ in range(2):
        assert (await files.state(house.a, file)).phase == "checking"
    assert len(workshop.seen) > 4
    workshop.refusal = None
    assert (await settled(files, house.a, file)).phase == "ready"
    workshop.refusal = StorageUnavailable()
    file = await house.upload(files)
    house.now += 600_000
    state = await settled(files, house.a, file)
    assert (state.phase, state.problem) == ("refused", "unavailable")


async def test_no_more_are_checked_at_once_than_the_setting_says(house: House) -> None:
    """The others wait in line."""
    workshop = Workshop()
    workshop.may.clear()
    files = house.worker(workshop)
    uploaded = [await house.upload(files, b"x" * n) for n in range(1, 6)]
    await asyncio.sleep(0.3)
    assert len(workshop.seen) == 2
    workshop.may.set()
    for file in uploaded:
        assert (await settled(files, house.a, file)).phase == "ready"


async def test_a_file_taken_back_while_it_is_checked_does_not_come_back(house: House) -> None:
    """Whatever the check put there is removed."""
    workshop = Workshop()
    workshop.may.clear()
    files = house.worker(workshop)
    file = await house.upload(files)
    await asyncio.wait_for(workshop.began.wait(), 5)
    await files.take_back(house.a, file)
    workshop.may.set()
    async with asyncio.timeout(PATIENCE):
        while files._checks:
            await asyncio.sleep(0.02)
    assert house.lying() == []
    assert not await house.sees(files, house.b, file)


# --------------------------------------------------------------------------- evidence


async def test_what_a_report_keeps_outlives_the_file_and_not_its_own_time(house: House) -> None:
    """Whose it was is said; what is gone, or was never shared there, is said to be missing."""
    files = house.worker(evidence_seconds=1000)
    mine, back, gone = [await house.ready(files, data) for data in (b"mine", b"back", b"gone")]
    await files.take_back(house.a, gone)
    house.now += HOUR_MS
    await house.sweep(files)
    await files.take_back(house.a, back)
    kept = await files.keep(house.conversation, house.a.id, [mine, back, gone, new_id()])
    assert [one.kept for one in kept] == [True, True, False, False], "what was taken back just now is no escape"
    assert (kept[0].mine, kept[0].bytes, kept[0].kind) == (True, 4, "document")
    assert not (await files.keep(new_id(), house.a.id, [mine]))[0].kept
    assert all(one.kept for one in await files.keep(house.conversation, house.a.id, [mine, back]))
    house.now += DAY_MS
    await house.sweep(files)
    assert [piece async for piece in house.blobs.read(f"kept/{mine}/main")] == [b"mine"]
    assert [name.split("/")[0] for name in house.lying()] == ["kept", "kept"], "once each, whoever names it how often"
    aged(house, 1001)
    await house.sweep(files)
    assert house.lying() == []
