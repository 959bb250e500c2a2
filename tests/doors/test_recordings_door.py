"""Recordings over HTTP: a real worker, its document store and folder."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from rig import SECRETS, Worker, get_guest
from visavis.adapters.shelf import Folder
from visavis.adapters.sqlite import SqliteStore
from visavis.adapters.tokens import Tokens, read_secrets
from visavis.core import collections
from visavis.core.identity import new_id
from visavis.core.recordings import Recordings, Saved

FILM = bytes(range(256)) * 40


class Browser:
    """Asks with a guest's token."""

    def __init__(self, url: str, created: dict[str, Any]) -> None:
        self._url = url
        self.token: str = created["token"]
        self.device = Tokens(read_secrets(SECRETS), 7200).guest(self.token).device

    async def ask(
        self, path: str = "", method: str = "GET", **headers: str
    ) -> tuple[int, aiohttp.typedefs.LooseHeaders, bytes]:
        given = {"Authorization": f"Bearer {self.token}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self._url}/api/recordings{path}", headers=given) as response,
        ):
            return response.status, response.headers, await response.read()


@pytest_asyncio.fixture(loop_scope="session")
async def store(data_dir: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(data_dir / "visavis.sqlite", collections.ALL)
    await opened.open()
    yield opened
    await opened.close()


async def recorded(store: SqliteStore, data_dir: Path, *browsers: Browser, kept_ms: int = 60_000) -> str:
    """A recording of these browsers; returns its id."""
    shelf = Folder(data_dir / "recordings")
    shelf.open()
    recording = new_id()
    (data_dir / "recordings" / f"{recording}.mp4").write_bytes(FILM)
    now = time.time_ns() // 1_000_000
    saved = Saved(recording, 1_800_000_000_000, now + kept_ms, len(FILM), 3)
    assert await Recordings(store, shelf).save(saved, tuple(browser.device for browser in browsers))
    return recording


@pytest.mark.asyncio(loop_scope="session")
async def test_a_member_lists_and_fetches_it_and_deletes_it_for_both(
    worker: Worker, store: SqliteStore, data_dir: Path
) -> None:
    """As an attachment that no cache keeps, whole or in parts."""
    mine, theirs = [Browser(worker.url, await get_guest(worker.url)) for _ in range(2)]
    recording = await recorded(store, data_dir, mine, theirs)
    status, headers, body = await mine.ask()
    assert status == 200
    assert f'"id":"{recording}"'.encode() in body
    assert headers["Cache-Control"] == "no-store"
    status, headers, body = await theirs.ask(f"/{recording}")
    assert (status, body) == (200, FILM)
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Content-Disposition"] == 'attachment; filename="visavis-2027-01-15.mp4"'
    assert headers["Cache-Control"] == "private, no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = await theirs.ask(f"/{recording}", Range="bytes=1000-1009")
    assert (status, body) == (206, FILM[1000:1010])
    status, _, body = await mine.ask(f"/{recording}", "DELETE")
    assert (status, body) == (200, b"{}")
    assert (await theirs.ask(f"/{recording}"))[0] == 404
    assert (await theirs.ask())[2] == b'{"recordings":[]}'


@pytest.mark.asyncio(loop_scope="session")
async def test_anybody_else_finds_nothing(worker: Worker, store: SqliteStore, data_dir: Path) -> None:
    """Another guest, another's token in the wrong place, no token, a forged one."""
    mine, theirs, other = [Browser(worker.url, await get_guest(worker.url)) for _ in range(3)]
    recording = await recorded(store, data_dir, mine, theirs)
    assert (await other.ask(f"/{recording}"))[0] == 404
    assert (await other.ask(f"/{recording}", "DELETE"))[0] == 404
    assert (await other.ask())[2] == b'{"recordings":[]}'
    for given in ("", "Bearer", "Bearer ", f"Basic {mine.token}", mine.token, f"Bearer {mine.token[:-3]}AAA"):
        status, _, body = await other.ask(f"/{recording}", Authorization=given)
        assert (status, b"token_invalid" in body) == (401, True), given
    assert (await mine.ask(f"/{recording}?token={mine.token}", Authorization=""))[0] == 401
    assert (await mine.ask(f"/{recording}"))[0] == 200


@pytest.mark.asyncio(loop_scope="session")
async def test_an_expired_one_is_not_found(worker: Worker, store: SqliteStore, data_dir: Path) -> None:
    """Although its file is still there."""
    mine = Browser(worker.url, await get_guest(worker.url))
    recording = await recorded(store, data_dir, mine, kept_ms=0)
    assert (data_dir / "recordings" / f"{recording}.mp4").exists()
    assert (await mine.ask(f"/{recording}"))[0] == 404
    assert (await mine.ask())[2] == b'{"recordings":[]}'


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("name", ["%2e%2e%2fvisavis.sqlite", "..%2f..%2fetc%2fpasswd", "x", "%00" * 22])
async def test_no_name_leads_elsewhere(worker: Worker, name: str) -> None:
    """Whatever is asked for in the place of an id."""
    mine = Browser(worker.url, await get_guest(worker.url))
    assert (await mine.ask(f"/{name}"))[0] == 404
