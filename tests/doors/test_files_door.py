"""Files over HTTP and sockets: real workers, a real folder, guests who behave and guests who do not."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from adapters.buckets import Moto
from crowd import Crowd
from faults import Link, MortalValkey, memory_of, within
from rig import PATIENCE, ROOT, SECRETS, Service, Worker, missing
from sharing import Sharer, picture
from visavis.adapters.tokens import Tokens, read_secrets
from visavis.core.identity import new_id
from visavis.core.ports import Pass

Add = Callable[..., Awaitable[Worker]]
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def pair(crowd: Crowd, url: str = "") -> tuple[Sharer, Sharer]:
    """Two guests in a conversation, both at this worker."""
    a, b = await crowd.arrive(url or None), await crowd.arrive(url or None)
    conversation = await crowd.meet(a, b)
    return Sharer(a, conversation), Sharer(b, conversation)


def lying(folder: Path) -> list[str]:
    """What there is of files on the disk, by the last parts of their names."""
    # Folders come and go meanwhile.
    return sorted(name for _, _, names in os.walk(folder / "files") for name in names)


async def error(answer: tuple[int, Any, bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["error"]["code"]


# --------------------------------------------------------------------------- the whole way


async def test_a_picture_goes_from_one_guest_to_the_other(crowd: Crowd) -> None:
    """It is said with words, shown small and large, and saved under its name; whoever sent it sees it as well."""
    a, b = await pair(crowd)
    state = await a.upload(picture(64, 48), "Ünser Bild.png")
    assert state["phase"] == "ready"
    said = await a.say(state["seal"], "look")
    assert "ok" in said
    heard = (await b.guest.next("chat:message"))["body"]
    assert heard == {"kind": "file", "file": state["file"], "text": "look", "replyTo": None}
    file = heard["file"]
    assert (file["kind"], file["width"], file["height"], file["thumb"]) == ("picture", 64, 48, True)
    assert abs(file["expiresAt"] - time.time() * 1000 - 86_400_000) < 60_000
    for one in (a, b):
        base = await one.address(file["id"])
        status, headers, body = await one.fetch(f"{base}/main")
        assert (status, len(body), headers["Content-Type"]) == (200, file["bytes"], file["type"])
        assert headers["Content-Disposition"] == "inline"
        assert (await one.fetch(f"{base}/thumb"))[0] == 200
        headers = (await one.fetch(f"{base}/download"))[1]
        assert headers["Content-Disposition"] == (
            "attachment; filename=\"Unser Bild.webp\"; filename*=UTF-8''%C3%9Cnser%20Bild.webp"
        )


async def test_what_is_served_can_do_nothing_and_is_kept_by_nobody(crowd: Crowd) -> None:
    """No cache, no guessing of types, no page that runs it, no cookie; and no other origin gets it."""
    a, b = await pair(crowd)
    file = await a.ready()
    base = await b.address(file["id"])
    for variant in ("main", "thumb", "download"):
        _, headers, _ = await b.fetch(f"{base}/{variant}", Origin="https://evil.example")
        assert headers["Cache-Control"] == "private, no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; sandbox;")
        assert "Set-Cookie" not in headers
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("ending", ["html", "svg", "js", "xml"])
async def test_what_could_run_is_only_ever_saved(crowd: Crowd, ending: str) -> None:
    """As bytes of no type, or as plain text, or not at all."""
    a, b = await pair(crowd)
    evil = {
        "html": b"<!doctype html><html><script>alert(1)</script></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "js": b"alert(document.domain)\n",
        "xml": b'<?xml version="1.0"?><x xmlns="http://www.w3.org/1999/xhtml"><script>alert(1)</script></x>',
    }[ending]
    state = await a.upload(evil, f"evil.{ending}")
    if state["phase"] == "refused":
        assert state["problem"] == "kind_refused"
        return
    base = await b.address(state["file"]["id"])
    for variant in ("main", "download"):
        status, headers, _ = await b.fetch(f"{base}/{variant}")
        assert status == 200
        assert headers["Content-Type"].split(";")[0] in ("application/octet-stream", "text/plain")
        assert headers["Content-Disposition"].startswith("attachment;")


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "..\\..\\evil.txt",
        'x"; filename="evil.exe',
        "a\r\nX-Injected: 1.txt",
        "moc.elpmaxe\u202etxt.exe.txt",
        "文件\u2066.txt",
        "%2e%2e%2f.txt",
        "x" * 900,
        "..",
        "💩" * 200 + ".txt",
    ],
)
async def test_a_name_is_never_a_path_nor_a_header(crowd: Crowd, data_dir: Path, name: str) -> None:
    """What is on the disk has names of the server's; what is in a header ends where it should."""
    a, b = await pair(crowd)
    before = {path for path in data_dir.rglob("*") if path.is_file() and path.suffix != ".log"}
    file = await a.ready(b"some plain words\n", name)

    def made_since() -> list[Path]:
        return [
            path
            for path in data_dir.rglob("*")
            if path.is_file() and path not in before and "sqlite" not in path.name and path.suffix != ".log"
        ]

    # What was uploaded goes once it has been made anew, a moment after the sender was told.
    async with asyncio.timeout(PATIENCE):
        while "part" in {path.name for path in made_since()}:
            await asyncio.sleep(0.05)
    made = made_since()
    assert {path.name for path in made} <= {"main", "thumb"}
    assert {path.parent.name for path in made} == {file["id"]}
    _, headers, _ = await b.fetch(await b.address(file["id"]) + "/download")
    told = headers["Content-Disposition"]
    assert told.isascii()
    assert told.count('"') == 2
    assert re.fullmatch(r"attachment; filename=\"[A-Za-z0-9 ._;=@-]+\"; filename\*=UTF-8''[A-Za-z0-9._~%-]+", told)
    assert "X-Injected" not in headers


async def test_parts_of_a_file_can_be_asked_for(crowd: Crowd) -> None:
    """As players do (RFC 9110): one range at a time; what is beyond the end is said to be."""
    a, b = await pair(crowd)
    data = bytes(range(32, 127)) * 30
    file = await a.ready(data, "letters.txt")
    size = file["bytes"]
    url = await b.address(file["id"]) + "/main"
    status, headers, whole = await b.fetch(url)
    assert (status, headers["Accept-Ranges"], len(whole)) == (200, "bytes", size)
    etag = headers["Etag"]
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=0-{size * 2}", 0, size),
        (f"bytes=-{size * 2}", 0, size),
    ):
        for given in ({"Range": asked}, {"Range": asked, "If-Range": etag}):
            status, headers, body = await b.fetch(url, **given)
            assert (status, body) == (206, whole[start:end]), asked
            assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in (f"bytes={size}-", "bytes=-0", "bytes=9-3"):
        status, headers, body = await b.fetch(url, Range=asked)
        assert (status, body, headers["Content-Range"]) == (416, b"", f"bytes */{size}"), asked
    for given in (
        {"Range": "bytes=0-1,3-4"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=a-b"},
        {"Range": "bytes=0-1", "If-Range": '"another"'},
    ):
        status, _, body = await b.fetch(url, **given)
        assert (status, body) == (200, whole)
    status, headers, body = await b.fetch(url, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(size), b"")


# --------------------------------------------------------------------------- limits


async def test_sizes_are_taken_to_the_byte(crowd: Crowd, worker_with: Add) -> None:
    """None is refused, as is one more than the most."""
    small = await worker_with(VISAVIS_FILE_BYTES="5000")
    a, _ = await pair(crowd, small.url)
    assert (await a.begin(0))[1] == {"error": {"code": "file_empty"}}
    assert (await a.begin(5001)) == (413, {"error": {"code": "file_too_large", "limit": 5000}})
    assert (await a.ready(b"word " * 1000, "words.txt"))["bytes"] == 5000
    async with aiohttp.ClientSession() as session, session.get(f"{small.url}/api/info") as response:
        limits = (await response.json())["files"]
    assert (limits["bytes"], limits["seconds"], limits["perMinute"]) == (5000, 86_400, 10)
    assert limits["kinds"] == ["picture", "video", "audio", "voice", "document"]


async def test_ten_uploads_a_minute_and_so_many_bytes_together(crowd: Crowd, worker_with: Add) -> None:
    """The eleventh has to wait, and is told for how long."""
    a, b = await pair(crowd)
    begun = await asyncio.gather(*(a.begin(1) for _ in range(12)))
    assert sorted(status for status, _ in begun) == [201] * 10 + [429] * 2
    refused = [said["error"] for status, said in begun if status == 429]
    assert all(one["code"] == "rate_limited" and 0 < one["retryInMs"] <= 60_000 for one in refused)
    narrow = await worker_with(VISAVIS_FILES_BYTES_TOGETHER="1000")
    b.url = narrow.url
    assert (await b.begin(1000))[0] == 201
    assert await b.begin(1) == (409, {"error": {"code": "too_many_files", "limit": 1000}})


async def test_a_server_without_files_says_so(crowd: Crowd, worker_with: Add) -> None:
    """Every address leads nowhere."""
    bare = await worker_with(VISAVIS_FILES_URL="none")
    a, _ = await pair(crowd, bare.url)
    async with aiohttp.ClientSession() as session, session.get(f"{bare.url}/api/info") as response:
        assert (await response.json())["files"] is None
    assert (await a.begin(1)) == (404, {"error": {"code": "not_found"}})
    assert (await a.json("GET", f"/api/files/{new_id()}"))[0] == 404
    assert not await a.sees(new_id())


# --------------------------------------------------------------------------- uploading (tus 1.0.0)


async def test_the_protocol_of_uploads_is_kept(crowd: Crowd) -> None:
    """Offsets, lengths and refusals as tus 1.0.0 has them."""
    a, b = await pair(crowd)
    file = await a.begun(10)
    status, headers, _ = await a.http("HEAD", f"/api/files/{file}")
    assert (status, headers["Upload-Offset"], headers["Upload-Length"]) == (200, "0", "10")
    assert (headers["Tus-Resumable"], headers["Cache-Control"]) == ("1.0.0", "no-store")
    status, headers, body = await a.patch(file, 0, b"12345")
    assert (status, headers["Upload-Offset"], headers["Tus-Resumable"], body) == (204, "5", "1.0.0", b"")
    status, headers, body = await a.patch(file, 0, b"12345")
    assert (status, headers["Upload-Offset"]) == (409, "5")
    assert json.loads(body) == {"error": {"code": "offset_mismatch", "offset": 5}}
    assert await error(await a.patch(file, 5, b"123456")) == (413, "file_too_large")
    assert await error(await a.patch(file, 5, _slowly(b"123", b"456"))) == (413, "file_too_large")
    assert await error(await a.patch(file, 5, b"1", **{"Content-Type": "text/plain"})) == (400, "bad_request")
    assert await error(await a.patch(file, 5, b"1", **{"Upload-Offset": "-5"})) == (400, "bad_request")
    assert await a.offset(file) == 5
    for ask in (
        b.http("HEAD", f"/api/files/{file}"),
        b.patch(file, 5, b"12345"),
        b.http("DELETE", f"/api/files/{file}"),
        b.http("GET", f"/api/files/{file}"),
        a.http("GET", "/api/files/not-an-id"),
    ):
        assert (await ask)[0] == 404
    status, _, _ = await a.http("HEAD", f"/api/files/{file}", Authorization="Bearer x")
    assert status == 401
    assert (await a.http("DELETE", f"/api/files/{file}"))[0] == 204
    assert (await a.http("HEAD", f"/api/files/{file}"))[0] == 404


async def _slowly(*pieces: bytes, pause: float = 0.0, then: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause)
    if then is not None:
        raise then


async def test_a_cut_connection_loses_nothing_that_arrived_and_any_worker_goes_on(
    crowd: Crowd, worker_with: Add
) -> None:
    """Half of the bytes through one worker, the rest through another, the check wherever it is asked for."""
    other = await worker_with()
    a, b = await pair(crowd)
    data = b"line of text\n" * 80_000
    file = await a.begun(len(data), "long.txt")
    half = len(data) // 2
    cut = _slowly(data[:half], pause=0.3, then=ConnectionResetError())
    with pytest.raises((aiohttp.ClientError, OSError)):
        await a.patch(file, 0, cut, **{"Content-Length": str(len(data))})
    a.url = other.url
    async with asyncio.timeout(PATIENCE):
        while not (arrived := await a.offset(file)):
            await asyncio.sleep(0.05)
    assert 0 < arrived <= half
    assert half - arrived <= 200_000, "what the socket had not handed over yet"
    assert (await a.patch(file, arrived, data[arrived:]))[0] == 204
    state = await a.checked(file)
    assert (state["phase"], state["file"]["bytes"]) == ("ready", len(data))
    assert (await b.fetch(await b.address(file) + "/main"))[2] == data


async def test_a_connection_that_went_dark_holds_up_nobody(crowd: Crowd, worker: Worker) -> None:
    """As after a change of network: who asks how far it is goes on at once from there, with all that arrived."""
    a, b = await pair(crowd)
    data = b"line of text\n" * 40_000
    file = await a.begun(len(data), "long.txt")
    dark = await Link(worker.port).start()
    try:
        phone = Sharer(a.guest, a.conversation, f"http://127.0.0.1:{dark.port}")
        lost = asyncio.create_task(
            phone.patch(
                file, 0, _slowly(data[:200_000], data[200_000:], pause=30), **{"Content-Length": str(len(data))}
            )
        )
        await asyncio.sleep(0.5)
        dark.darken()
        async with within(3):
            assert await a.offset(file) == 200_000
            assert (await a.patch(file, 200_000, data[200_000:]))[0] == 204
        lost.cancel()
    finally:
        await dark.stop()
    assert (await a.checked(file))["phase"] == "ready"
    assert (await b.fetch(await b.address(file) + "/main"))[2] == data


async def test_of_two_patches_at_once_one_is_told_to_go_on_elsewhere(crowd: Crowd, worker_with: Add) -> None:
    """On two workers; what is put together is what the winner sent."""
    other = await worker_with()
    a, b = await pair(crowd)
    twin = Sharer(a.guest, a.conversation, other.url)
    first, second = b"a" * 50_000 + b"\n", b"b" * 50_000 + b"\n"
    file = await a.begun(len(first), "letters.txt")
    outcomes = await asyncio.gather(
        a.patch(file, 0, _slowly(first[:-1], first[-1:], pause=0.2)),
        twin.patch(file, 0, _slowly(second[:-1], second[-1:], pause=0.2)),
    )
    assert sorted(status for status, _, _ in outcomes) == [204, 409]
    sent = first if outcomes[0][0] == 204 else second
    assert (await a.checked(file))["phase"] == "ready"
    assert (await b.fetch(await b.address(file) + "/main"))[2] == sent


async def test_a_body_of_which_nothing_comes_ends(crowd: Crowd) -> None:
    """After twenty seconds; what came of it is kept."""
    a, _ = await pair(crowd)
    file = await a.begun(10)
    begun = time.monotonic()
    status, headers, _ = await a.patch(file, 0, _slowly(b"123", b"4567890", pause=40))
    assert (status, headers["Upload-Offset"]) == (204, "3")
    assert 18 < time.monotonic() - begun < 30
    assert await a.offset(file) == 3


async def test_a_large_upload_takes_no_memory(crowd: Crowd, worker_with: Add) -> None:
    """Thirty megabytes go through a worker that grows by far less."""
    own = await worker_with(VISAVIS_FILE_BYTES="40000000")
    assert own.process is not None
    a, _ = await pair(crowd, own.url)
    await a.ready()
    before = memory_of(own.process.pid)
    piece = b"x" * 99 + b"\n"
    data = piece * 300_000
    file = await a.begun(len(data), "long.txt")
    assert (await a.patch(file, 0, io.BytesIO(data)))[0] == 413, "so much only piece by piece"
    for at in range(0, len(data), 4_000_000):
        assert (await a.patch(file, at, io.BytesIO(data[at : at + 4_000_000])))[0] == 204
    await a.checked(file, 60)
    assert memory_of(own.process.pid) - before < 15_000_000


async def test_aborted_uploads_leave_no_orphan_after_a_sweep(tmp_path: Path, tongue: str) -> None:
    """Those that were cut, those that were given up, and those that were refused."""
    running = await Service(tmp_path, VISAVIS_UPLOAD_SECONDS="1", VISAVIS_FILE_SWEEP_SECONDS="0.3").start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, _ = await pair(people)
        cut, deleted = await a.begun(100_000), await a.begun(10)
        half = _slowly(b"x" * 50_000, pause=0.2, then=ConnectionResetError())
        with pytest.raises((aiohttp.ClientError, OSError)):
            await a.patch(cut, 0, half, **{"Content-Length": "100000"})
        await a.patch(deleted, 0, b"12345")
        assert (await a.http("DELETE", f"/api/files/{deleted}"))[0] == 204
        refused = await a.upload(b"\x7fELF\x02\x01\x01" + bytes(500), "program")
        assert (refused["phase"], refused["problem"]) == ("refused", "kind_refused")
        async with asyncio.timeout(PATIENCE):
            while lying(tmp_path):
                await asyncio.sleep(0.1)
        assert (await a.http("HEAD", f"/api/files/{cut}"))[0] == 404
    finally:
        await people.leave()
        await running.stop()


async def test_a_full_disk_refuses_files_and_nothing_else(tmp_path: Path, tongue: str) -> None:
    """507; the partial file is removed, guests chat on, and with room the same upload goes on."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        missing("a small disk needs the right to mount one")
    people: Crowd | None = None
    running = Service(tmp_path / "data", VISAVIS_FILES_URL=str(small), VISAVIS_FILES_FREE_BYTES="0")
    try:
        await running.start()
        people = Crowd(running.workers[0].url, tongue)
        a, b = await pair(people)
        (small / "ballast").write_bytes(bytes(900_000))
        data = b"line of text\n" * 40_000
        file = await a.begun(len(data), "long.txt")
        assert await error(await a.patch(file, 0, data)) == (507, "storage_full")
        assert [path.name for path in small.rglob("*") if path.is_file()] == ["ballast"]
        await a.guest.say(a.conversation, 1, "still here")
        assert (await b.guest.next("chat:message"))["body"]["text"] == "still here"
        assert await a.offset(file) == 0
        (small / "ballast").unlink()
        # Whole, put together and passed on, it lies there three times for a moment: room for that is needed.
        (await a.http("DELETE", f"/api/files/{file}"))
        assert (await a.ready(data[:200_000], "long.txt"))["bytes"] == 200_000
        a.url = (await running.add(VISAVIS_FILES_FREE_BYTES="1000000000000000")).url
        assert await a.begin(1) == (507, {"error": {"code": "storage_full"}})
    finally:
        if people is not None:
            await people.leave()
        await running.stop()
        subprocess.run(["umount", str(small)], check=True)


# --------------------------------------------------------------------------- who may have it


async def test_nobody_else_gets_at_a_file(crowd: Crowd) -> None:
    """Not a stranger by its id, not a member of another conversation, not before it is said by anybody but its two."""
    a, b = await pair(crowd)
    c, d = await pair(crowd)
    file = (await a.ready())["id"]
    assert await b.sees(file)
    for stranger in (c, d):
        assert not await stranger.sees(file)
        opened = await stranger.open(file, a.conversation)
        assert opened["error"]["code"] == "no_such_file"
    assert (await a.open(file, c.conversation))["error"]["code"] == "no_such_file"
    assert (await c.begin(5, conversation=a.conversation))[1]["error"]["code"] == "not_in_conversation"


async def test_an_address_is_a_pass_and_nothing_else_is(crowd: Crowd) -> None:
    """No session token, no seal, nothing expired, forged or for another file; and no session token is in it."""
    a, b = await pair(crowd)
    state = await a.upload(picture())
    file = state["file"]["id"]
    base = await b.address(file)
    assert b.guest.created["token"] not in base
    tokens = Tokens(read_secrets(SECRETS), 7200)
    guest = tokens.guest(b.guest.created["token"]).id
    good = Pass(file, guest, a.conversation)
    assert (await b.fetch(f"/files/{tokens.let_in(good, 60)}/main"))[0] == 200
    forged = Tokens({"t1": b"x" * 40}, 7200)
    for false in (
        tokens.let_in(good, -400),
        forged.let_in(good, 60),
        tokens.let_in(Pass(new_id(), guest, a.conversation), 60),
        tokens.let_in(Pass(file, new_id(), a.conversation), 60),
        tokens.let_in(Pass(file, guest, new_id()), 60),
        b.guest.created["token"],
        state["seal"],
        file,
        "x",
    ):
        status, _, body = await b.fetch(f"/files/{false}/main")
        assert (status, json.loads(body)) == (404, {"error": {"code": "no_such_file"}})
    for variant in ("original", "main.png", "..%2f..%2fmain", "part-0"):
        assert (await b.fetch(f"{base}/{variant}"))[0] == 404


@pytest.mark.parametrize("how", ["leave", "block", "leave after the end", "another conversation"])
async def test_who_goes_from_a_conversation_loses_its_files_at_once(crowd: Crowd, how: str) -> None:
    """Also at an address that was given before; after a block, both do."""
    a, b = await pair(crowd)
    file = (await a.ready())["id"]
    url = await b.address(file) + "/main"
    assert (await b.fetch(url))[0] == 200
    if how == "block":
        await b.guest.ask("safety:block", {"conversationId": b.conversation})
    elif how == "leave":
        await b.guest.ask("conversation:leave", {"conversationId": b.conversation})
    else:
        await a.guest.ask("conversation:leave", {"conversationId": b.conversation})
        await b.guest.next("conversation:ended")
        assert (await b.fetch(url))[0] == 200, "the other side may look on until it closes the page"
        if how == "another conversation":
            await crowd.meet(b.guest, await crowd.arrive())
        else:
            assert "ok" in await b.guest.ask("conversation:leave", {"conversationId": b.conversation})
    assert (await b.fetch(url))[0] == 404
    assert not await b.sees(file)
    assert await a.sees(file) is (how == "leave")


async def test_when_both_have_left_only_a_report_gets_at_a_file(tmp_path: Path, tongue: str) -> None:
    """Also if it was taken back before; and when its time is over nothing is left on the disk but what was reported."""
    running = await Service(tmp_path, VISAVIS_FILE_SWEEP_SECONDS="0.3", VISAVIS_FILE_SECONDS="4").start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, b = await pair(people)
        file, back = (await a.ready())["id"], (await a.ready())["id"]
        await a.begun(10)
        assert lying(tmp_path) == ["main", "main", "thumb", "thumb"]
        assert (await a.http("DELETE", f"/api/files/{back}"))[0] == 204
        for one in (a, b):
            await one.guest.ask("conversation:leave", {"conversationId": one.conversation})
            assert not await one.sees(file)
        asked = {"conversationId": b.conversation, "reason": "hate", "files": [file, back]}
        assert (await b.guest.ask("safety:report", asked))["ok"]["files"] == 2
        async with asyncio.timeout(PATIENCE):
            while lying(tmp_path) != ["main", "main"]:
                await asyncio.sleep(0.05)
    finally:
        await people.leave()
        await running.stop()


async def test_a_file_is_gone_in_time_though_the_sweeper_is_dead(crowd: Crowd, worker_with: Add) -> None:
    """At its address as well as by its id; the stream of messages stays whole."""
    brief = await worker_with(VISAVIS_FILE_SECONDS="2", VISAVIS_FILE_SWEEP_SECONDS="3600")
    a, b = await pair(crowd, brief.url)
    state = await a.upload(picture())
    url = await b.address(state["file"]["id"]) + "/main"
    assert (await b.fetch(url))[0] == 200
    await asyncio.sleep(max(0.0, state["file"]["expiresAt"] / 1000 - time.time()) + 0.01)
    assert await error(await b.fetch(url)) == (404, "no_such_file")
    assert not await a.sees(state["file"]["id"])
    assert "ok" in await a.say(state["seal"])
    assert (await b.guest.next("chat:message"))["body"]["file"]["id"] == state["file"]["id"]


async def test_taken_back_it_is_gone_for_both(crowd: Crowd) -> None:
    """At once, and only by who sent it."""
    a, b = await pair(crowd)
    file = (await a.ready())["id"]
    url = await b.address(file) + "/main"
    assert (await b.http("DELETE", f"/api/files/{file}"))[0] == 404
    assert (await b.fetch(url))[0] == 200
    assert (await a.http("DELETE", f"/api/files/{file}"))[0] == 204
    assert (await b.fetch(url))[0] == 404
    assert not await a.sees(file)


# --------------------------------------------------------------------------- saying it


async def test_a_file_can_only_be_said_by_its_seal(crowd: Crowd) -> None:
    """By who uploaded it, where it was uploaded for; a client cannot describe one of its own making."""
    a, b = await pair(crowd)
    c, _ = await pair(crowd)
    state = await a.upload(picture())
    seal = state["seal"]
    for false in (seal[:-3] + "AAA", a.guest.created["token"], "x"):
        assert (await a.say(false))["error"]["code"] == "no_such_file"
    assert (await b.say(seal))["error"]["code"] == "no_such_file"
    assert (await c.say(seal))["error"]["code"] == "no_such_file"
    assert (await c.say(seal, conversation=a.conversation))["error"]["code"] == "not_in_conversation"
    made_up = {"kind": "file", "file": state["file"], "text": ""}
    told = {"conversationId": a.conversation, "id": new_id(), "seq": 9, "body": made_up}
    assert (await a.guest.ask("chat:message", told))["error"]["code"] == "bad_request"
    assert "ok" in await a.say(seal)
    assert (await b.guest.next("chat:message"))["body"]["file"] == state["file"]


# --------------------------------------------------------------------------- reports


async def test_a_report_keeps_its_files_for_moderators_when_all_else_is_gone(tmp_path: Path, tongue: str) -> None:
    """They outlive the conversation; whoever takes one out is written down first; the guests get at nothing."""
    running = await Service(tmp_path, VISAVIS_FILE_SWEEP_SECONDS="0.3", VISAVIS_FILE_SECONDS="4").start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, b = await pair(people)
        bad, other = await a.ready(b"very bad words\n", "bad.txt"), await a.ready(b"others\n", "other.txt")
        asked = {"conversationId": b.conversation, "reason": "hate", "files": [bad["id"], new_id()]}
        reported = (await b.guest.ask("safety:report", asked))["ok"]
        assert reported["files"] == 1
        await b.guest.ask("safety:block", {"conversationId": b.conversation})
        assert not await b.sees(bad["id"])
        async with asyncio.timeout(PATIENCE):
            while len(lying(tmp_path)) > 1:
                await asyncio.sleep(0.05)
        listed = json.loads(await evidence(tmp_path, "list"))
        assert listed["report"] == reported["reportId"]
        (kept, missing) = listed["files"]
        assert (kept["id"], kept["name"], kept["bytes"], kept["mine"]) == (bad["id"], "bad.txt", 15, False)
        assert (kept["kept"], missing["kept"]) == (True, False)
        out = tmp_path / "evidence.txt"
        await evidence(tmp_path, "save", reported["reportId"], bad["id"], str(out), "--by", "moderator@example.org")
        assert out.read_bytes() == b"very bad words\n"
        assert other["id"] not in str(lying(tmp_path))
        raw = await _documents(tmp_path)
        assert [(one["by"], one["what"], one["file"]) for one in raw] == [("moderator@example.org", "save", bad["id"])]
    finally:
        await people.leave()
        await running.stop()


async def test_a_moderator_takes_a_file_away_from_a_conversation(tmp_path: Path, tongue: str) -> None:
    """At once, with Redis known to the command or not."""
    running = await Service(tmp_path).start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, b = await pair(people)
        for url in ("", running.valkey.url):
            file = (await a.ready())["id"]
            address = await b.address(file)
            await evidence(tmp_path, "withdraw", file, "--by", "me", redis_url=url)
            for variant in ("main", "thumb"):
                assert (await b.fetch(f"{address}/{variant}"))[0] == 404
    finally:
        await people.leave()
        await running.stop()


async def evidence(data_dir: Path, *arguments: str, redis_url: str = "") -> str:
    environment = {"PYTHONPATH": str(ROOT / "backend"), "VISAVIS_DATA_DIR": str(data_dir), "REDIS_URL": redis_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "visavis", "evidence", *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def _documents(data_dir: Path) -> list[dict[str, Any]]:
    from visavis.adapters.sqlite import SqliteStore
    from visavis.core import collections

    store = SqliteStore(data_dir / "visavis.sqlite", collections.ALL)
    await store.open()
    try:
        page = await store.find(collections.EVIDENCE_ACCESS, "report", ())
        return [document.data for document in page.documents]
    finally:
        await store.close()


# --------------------------------------------------------------------------- when something dies


async def test_after_redis_lost_everything_files_are_gone_and_sharing_goes_on(tmp_path: Path, tongue: str) -> None:
    """The conversation comes back by itself, its files do not; new ones can be shared in it."""
    mortal = await MortalValkey().start()
    own = await Worker(tmp_path, REDIS_URL=mortal.url).start()
    people = Crowd(own.url, tongue)
    try:
        a, b = await pair(people)
        file = (await a.ready())["id"]
        url = await b.address(file) + "/main"
        await mortal.kill()
        assert (await b.fetch(url))[0] == 503
        await mortal.start()
        async with asyncio.timeout(PATIENCE):
            while (await b.fetch(url))[0] == 503:
                await asyncio.sleep(0.05)
        assert (await b.fetch(url))[0] == 404
        async with asyncio.timeout(PATIENCE):
            while (await a.begin(5))[0] != 201:
                await asyncio.sleep(0.2)
        again = (await a.ready())["id"]
        assert await b.sees(again)
        assert not await b.sees(file)
    finally:
        await people.leave()
        await own.stop()
        await mortal.stop()


async def test_another_worker_finishes_the_check_of_one_that_was_killed(tmp_path: Path, tongue: str) -> None:
    """While a scanner keeps the first one waiting; nothing that it had spread out is left after all."""
    asked: list[asyncio.StreamWriter] = []
    slow = True

    async def clamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        command = await reader.readuntil(b"\0")
        if command == b"zPING\0":
            writer.write(b"PONG\0")
        else:
            while size := int.from_bytes(await reader.readexactly(4)):
                await reader.readexactly(size)
            if slow:
                await asyncio.sleep(60)
            writer.write(b"stream: OK\0")
        writer.close()

    scanner = await asyncio.start_server(clamd, "127.0.0.1", 0)
    port = scanner.sockets[0].getsockname()[1]
    running = await Service(tmp_path, VISAVIS_SCANNER_URL=f"tcp://127.0.0.1:{port}").start(2)
    people = Crowd(running.workers[0].url, tongue)
    try:
        a = await people.arrive(running.workers[1].url)
        b = await people.arrive(running.workers[1].url)
        conversation = await people.meet(a, b)
        first = Sharer(a, conversation, running.workers[0].url)
        data = picture()
        file = await first.begun(len(data))
        await first.patch(file, 0, data)
        async with asyncio.timeout(PATIENCE):
            while not asked:
                await asyncio.sleep(0.02)
        await running.workers[0].kill()
        slow = False
        second = Sharer(a, conversation, running.workers[1].url)
        async with within(25):
            assert (await second.checked(file))["phase"] == "ready"
        assert lying(tmp_path).count("main") == 1
        assert "part" not in lying(tmp_path)
        async with aiohttp.ClientSession() as session, session.get(f"{second.url}/ready") as response:
            parts = (await response.json())["parts"]
        assert (parts["files"], parts["scanner"]) == (True, True)
    finally:
        await people.leave()
        await running.stop()
        scanner.close()


# --------------------------------------------------------------------------- what is written down


async def test_no_pass_and_no_name_of_a_file_is_in_the_log(tmp_path: Path, tongue: str) -> None:
    """An address opens a file for who reads it; so nobody gets to read it."""
    running = await Service(tmp_path, VISAVIS_LOG_LEVEL="debug").start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, b = await pair(people)
        file = await a.ready(picture(), "holiday-in-secret.png")
        base = await b.address(file["id"])
        for variant in ("main", "thumb", "nothing"):
            await b.fetch(f"{base}/{variant}")
        await b.fetch(f"{base}x/main")
        log = running.workers[0].log.read_text()
        assert "/files/{pass}/{variant}" in log
        assert base.removeprefix("/files/")[:40] not in log
        assert "holiday" not in log
        assert a.guest.created["token"][:40] not in log
    finally:
        await people.leave()
        await running.stop()


async def test_uploads_are_counted_by_how_they_went(apart: Worker, tongue: str) -> None:
    """For operators, without a name."""
    people = Crowd(apart.url, tongue)
    try:
        a, _ = await pair(people)
        await a.ready()
        await a.upload(b"\x7fELF\x02\x01\x01" + bytes(500), "program")
        async with aiohttp.ClientSession() as session, session.get(f"{apart.url}/metrics") as response:
            told = await response.text()
        assert 'visavis_files_uploaded_total{outcome="ready"} 1.0' in told
        assert 'visavis_files_uploaded_total{outcome="kind_refused"} 1.0' in told
    finally:
        await people.leave()


async def test_files_lie_in_a_bucket_as_well_and_when_it_is_away_guests_chat_on(tmp_path: Path, tongue: str) -> None:
    """What needs it is told so; when it is back the upload goes on where it stood."""
    moto = Moto(tmp_path)
    moto.start()
    moto.make_bucket("files")
    link = await Link(moto.port).start()
    running = await Service(
        tmp_path / "data",
        VISAVIS_FILES_URL="s3://files/shared",
        VISAVIS_S3_ENDPOINT=f"http://127.0.0.1:{link.port}",
        VISAVIS_S3_KEY="key",
        VISAVIS_S3_SECRET="secret",
    ).start()
    people = Crowd(running.workers[0].url, tongue)
    try:
        a, b = await pair(people)
        data = b"line of text\n" * 10_000
        file = await a.ready(data, "long.txt")
        url = await b.address(file["id"]) + "/main"
        assert (await b.fetch(url))[2] == data
        status, _, body = await b.fetch(url, Range="bytes=70000-70099")
        assert (status, body) == (206, data[70_000:70_100])
        half = await a.begun(len(data), "half.txt")
        assert (await a.patch(half, 0, data[:60_000]))[0] == 204
        link.darken()
        waiting = asyncio.create_task(a.patch(half, 60_000, data[60_000:]))
        async with within(2):
            await a.guest.say(a.conversation, 1, "still here")
            assert (await b.guest.next("chat:message"))["body"]["text"] == "still here"
        async with within(40):
            assert await error(await waiting) == (503, "unavailable")
        async with aiohttp.ClientSession() as session, session.get(f"{a.url}/ready") as response:
            assert (response.status, (await response.json())["parts"]["files"]) == (200, False)
        link.lighten(old_links=False)
        assert await a.offset(half) == 60_000
        async with asyncio.timeout(30):
            while (await a.patch(half, 60_000, data[60_000:]))[0] != 204:
                await asyncio.sleep(0.5)
        assert (await a.checked(half))["phase"] == "ready"
        assert (await a.http("DELETE", f"/api/files/{half}"))[0] == 204
        assert not await b.sees(half)
    finally:
        await people.leave()
        await running.stop()
        await link.stop()
        moto.kill()
