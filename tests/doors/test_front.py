"""The first bytes of a connection: what is served at once, and that aiohttp gets everything else as it came."""

import asyncio
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from rig import Worker
from visavis.app import _Runner
from visavis.doors.front import read_opening

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PLAIN = (
    "GET /socket.io/?EIO=4&transport=websocket&k=abc HTTP/1.1\r\n"
    "Host: example.org\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
)


def test_the_opening_that_every_client_sends_is_read() -> None:
    """With its query, its headers by any case, repeated ones too, and where it comes from."""
    opening = read_opening(
        PLAIN.replace("\r\n\r\n", "\r\nx-forwarded-for: 192.0.2.2\r\n\r\n").encode(), ("::1", 9, 0, 0)
    )
    assert opening is not None
    assert opening.query == {"EIO": "4", "transport": "websocket", "k": "abc"}
    assert opening.headers.getall("X-Forwarded-For") == ["192.0.2.1", "192.0.2.2"]
    assert (opening.headers["upgrade"], opening.remote) == ("websocket", "::1")


@pytest.mark.parametrize(
    ("plain", "odd"),
    [
        ("GET ", "POST "),
        ("GET ", "get "),
        (" HTTP/1.1", " HTTP/1.0"),
        ("/socket.io/?", "/api/info?"),
        ("/socket.io/?", "/socket.io/x?"),
        ("EIO=4", "EIO=3"),
        ("EIO=4", "EIO=4&EIO=4"),
        ("transport=websocket", "transport=polling"),
        ("k=abc", "sid=abc"),
        ("k=abc", "k=%41"),
        ("k=abc", "k=a+c"),
        ("k=abc", "k=a#c"),
        ("Host: example.org\r\n", ""),
        ("Host: example.org\r\n", "Host: a\r\nHost: b\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\nContent-Length: 1\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\ntransfer-encoding: chunked\r\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\n folded\r\n"),
        ("Upgrade: websocket", "Upgrade : websocket"),
        ("Upgrade: websocket", "Upgrade: web\x00socket"),
        ("Upgrade: websocket", "Upgrade: web\nsocket"),
        ("\r\n\r\n", "\r\n\r\n\r\n"),
        ("\r\n\r\n", "\r\n"),
        ("\r\n\r\n", "\r\n\r\n\x81\x80abcd"),
        ("\r\n\r\n", f"\r\nX-Long: {'x' * 8192}\r\n\r\n"),
    ],
)
def test_whatever_is_unusual_is_left_to_aiohttp(plain: str, odd: str) -> None:
    """Also two requests in one piece, and bytes behind the opening."""
    assert read_opening(PLAIN.replace(plain, odd).encode("latin-1"), ("127.0.0.1", 1)) is None
    assert read_opening((PLAIN + PLAIN).encode(), ("127.0.0.1", 1)) is None


@given(st.binary(max_size=300), st.integers(0, len(PLAIN)), st.integers(0, 40))
def test_no_bytes_make_it_fail(noise: bytes, at: int, over: int) -> None:
    """An opening with anything put into it, or over a part of it, is one or is not."""
    read_opening(PLAIN.encode()[:at] + noise + PLAIN.encode()[at + over :], None)


async def talk(worker: Worker, *pieces: bytes, pause: float = 0.0) -> tuple[bytes, bytes]:
    """What is answered to bytes that come in these pieces: the head, and what follows it at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            return head, await reader.read(2)
    finally:
        writer.close()


@pytest.mark.asyncio(loop_scope="session")
async def test_served_at_once_or_by_aiohttp_the_answer_is_the_same(worker: Worker) -> None:
    """Whole, or in two pieces, which only aiohttp puts together; Engine.IO's first packet follows."""
    whole, first = await talk(worker, PLAIN.encode())
    pieces, second = await talk(worker, PLAIN[:60].encode(), PLAIN[60:].encode(), pause=0.05)
    assert whole == pieces
    assert whole.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in whole
    assert first[:1] == second[:1] == b"\x81"


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_refused_is_refused_in_words(worker: Worker) -> None:
    """A foreign origin and a key that is none get aiohttp's answer, with its code; other requests are its own."""
    for odd, status, code in (
        (PLAIN.replace("Host:", "Origin: https://evil.example\r\nHost:"), b" 403 ", "origin_refused"),
        (PLAIN.replace(KEY, "short"), b" 400 ", "bad_request"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(odd.encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert status in head.split(b"\r\n")[0]
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length))["error"]["code"] == code
        writer.close()
    head, _ = await talk(worker, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio(loop_scope="session")
async def test_who_has_said_nothing_is_hung_up_on_with_the_others() -> None:
    """Else a request on a connection kept in store would come to a worker of which nothing is left to answer it."""

    async def stop() -> None:
        pass

    runner = _Runner(stop, web.Application(), lambda transport, opening: False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    try:
        async with asyncio.timeout(5):
            while not runner.silent:
                await asyncio.sleep(0.01)
        await runner.hang_up()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            while runner.silent:
                await asyncio.sleep(0.01)
    finally:
        writer.close()
