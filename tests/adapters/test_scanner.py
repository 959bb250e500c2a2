"""The scanner's adapter on a real clamd, with a database of one signature, and on things that are none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from corpus import EICAR
from rig import ScannerDaemon, free_port
from visavis.adapters.scanner import Clamd
from visavis.contract import Refused
from visavis.core.ports import ScannerUnavailable

LARGEST = 2 << 20


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["tcp", "unix"])
async def clamd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a clamd that knows one harmful file, and takes 2 MB of a stream."""
    daemon = ScannerDaemon(tmp_path_factory.mktemp("clamd"), LARGEST, tcp=request.param == "tcp")
    try:
        await daemon.start(EICAR)
        yield daemon.url
    finally:
        await daemon.stop()


Serve = Callable[[bytes | None], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts something that answers every connection with these bytes, or with nothing ever; gives its address."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(answer: bytes | None) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.read(5)
            if answer is not None:
                writer.write(answer)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield serve
    for writer in writers:
        writer.transport.abort()
    for server in servers:
        server.close()
        await server.wait_closed()


def file(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


async def test_a_harmful_file_is_found(clamd: str, tmp_path: Path) -> None:
    """By itself, and in the middle of a larger one."""
    assert not await Clamd(clamd).clean(file(tmp_path, EICAR))
    assert not await Clamd(clamd).clean(file(tmp_path, b"x" * 200_000 + EICAR + b"y" * 200_000))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_500_000])
async def test_a_clean_file_is_clean(clamd: str, tmp_path: Path, size: int) -> None:
    """Whatever its size is, in pieces."""
    assert await Clamd(clamd).clean(file(tmp_path, b"x" * size))


async def test_what_the_scanner_does_not_look_through_is_not_clean(clamd: str, tmp_path: Path) -> None:
    """It stops listening at StreamMaxLength, before it has been told everything; it will not listen longer later."""
    for size in (LARGEST + 1, 4 * LARGEST):
        with pytest.raises(Refused) as refused:
            await Clamd(clamd).clean(file(tmp_path, b"x" * size))
        assert refused.value.code == "file_too_large"


async def test_many_files_are_looked_through_at_once(clamd: str, tmp_path: Path) -> None:
    """Each has a connection of its own."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"x" * 100_000)
    bad.write_bytes(EICAR)
    told = await asyncio.gather(*(Clamd(clamd).clean(path) for path in [good, bad] * 8))
    assert told == [True, False] * 8


async def test_a_scanner_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    """Nobody listens, on TCP or at a path."""
    for url in (f"tcp://127.0.0.1:{free_port()}", f"unix:{tmp_path / 'nobody'}"):
        with pytest.raises(ScannerUnavailable):
            await Clamd(url).clean(file(tmp_path, b"x"))
        with pytest.raises(ScannerUnavailable):
            await Clamd(url).ping()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"stream: OK",
        b"stream: NOT OK\0",
        b"OK\0",
        b"FOUND\0",
        b"stream: Can't allocate memory ERROR\0",
        b"stream: INSTREAM size limit exceeded\0",
        b"\xff\xfe\0",
        b"x" * 100_000,
        b"HTTP/1.1 400 Bad Request\r\n\r\n\0",
    ],
)
async def test_an_answer_in_other_words_is_no_answer(serve: Serve, tmp_path: Path, answer: bytes) -> None:
    """Least of all one that nothing was found."""
    url = await serve(answer)
    with pytest.raises(ScannerUnavailable):
        await Clamd(url).clean(file(tmp_path, b"x" * 300_000))
    with pytest.raises(ScannerUnavailable):
        await Clamd(url).ping()


async def test_a_scanner_that_never_answers_is_not_waited_for(serve: Serve, tmp_path: Path) -> None:
    """Nor one that takes nothing more."""
    url = await serve(None)
    for size in (10, 30 << 20):
        with pytest.raises(ScannerUnavailable):
            await asyncio.wait_for(Clamd(url, seconds=0.3).clean(file(tmp_path, b"x" * size)), 5)


@pytest.mark.parametrize("url", ["", "clamd:3310", "http://127.0.0.1:3310", "tcp://127.0.0.1", "unix:"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    """Not at the first file."""
    with pytest.raises(ValueError, match="neither"):
        Clamd(url)
