"""Through nginx, with the configuration that operators run: what it lets in, where it sends it, what it writes down."""

import asyncio
import contextlib
import gzip
import itertools
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from rig import PATIENCE, ROOT, Nginx, Service, Worker, arrive, free_port, get_guest, http, missing
from visavis.adapters import nginx as adapter
from visavis.contract import ERRORS, RULES_VERSION
from visavis.core.identity import new_id
from visavis.doors.http import SECURITY_HEADERS, TRANSPORT_SECURITY
from wire import auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

GROWN = {"birthDate": "1990-05-17", "rules": RULES_VERSION}
ALL_HEADERS = {**SECURITY_HEADERS, "Strict-Transport-Security": TRANSPORT_SECURITY}
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE

_places = (f"127.{a}.{b}.7" for a in range(10, 250) for b in range(1, 250))


@pytest.fixture
def place() -> str:
    """An address nobody else asks from."""
    return next(_places)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Nginx, Service]]:
    """Three workers behind nginx."""
    if not adapter.available():
        missing("nginx is missing")
    folder = tmp_path_factory.mktemp("three")
    nginx = Nginx(folder)
    # Here nginx alone says no to handshakes.
    service = Service(
        folder / "data",
        VISAVIS_HANDSHAKES_PER_MINUTE="100000",
        VISAVIS_STRANGERS_PER_ADDRESS="1000",
        **nginx.settings(),
    )
    await service.start(0)
    await asyncio.gather(*(service.add(VISAVIS_PORT=str(free_port())) for _ in range(3)))
    await nginx.start(service.workers)
    yield nginx, service
    await nginx.stop()
    await service.stop()


@pytest.fixture
def front(three: tuple[Nginx, Service]) -> Nginx:
    """The nginx before them."""
    return three[0]


class Answer(NamedTuple):
    """A response as its bytes came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["error"]["code"]
        return code


async def connection(
    nginx: Nginx, place: str | None = None, by: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS to nginx, from an address of this machine, or as if from any by way of a balancer that says so."""
    local = (place, 0) if place else None
    if by is None:
        return await asyncio.open_connection("127.0.0.1", nginx.port, ssl=TRUSTING, local_addr=local)
    reader, writer = await asyncio.open_connection("127.0.0.1", nginx.proxied_port, local_addr=local)
    family, here = ("TCP6", "::1") if ":" in by else ("TCP4", "127.0.0.1")
    writer.write(f"PROXY {family} {by} {here} 40000 443\r\n".encode())
    await writer.start_tls(TRUSTING)
    return reader, writer


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    assert first.startswith("HTTP/1."), raw[:200]
    headers = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    return Answer(int(first.split()[1]), headers, body)


async def raw(nginx: Nginx, request: bytes, place: str | None = None, by: str | None = None) -> Answer:
    """Send these bytes, and read until nginx hangs up."""
    reader, writer = await connection(nginx, place, by)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return parse(await reader.read())
    finally:
        writer.close()


async def get(nginx: Nginx, path: str, place: str | None = None, by: str | None = None, **headers: str) -> Answer:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
    return await raw(nginx, request.encode(), place, by)


async def post(nginx: Nginx, path: str, body: bytes, place: str | None = None, method: str = "POST") -> Answer:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return await raw(nginx, head.encode() + body, place)


# --------------------------------------------------------------------------- what it says


async def test_every_kind_of_answer_carries_each_security_header_once(front: Nginx, place: str) -> None:
    """The client's files, what workers say, what they refuse, and what nginx refuses: no header twice, none missing."""
    asset = next((ROOT / "web" / "dist" / "assets").glob("index-*.js")).name
    answers = {
        "page": await get(front, "/"),
        "file": await get(front, "/sw.js"),
        "asset": await get(front, f"/assets/{asset}"),
        "worker": await get(front, "/api/info"),
        "worker refuses": await get(front, "/api/recordings"),
        "worker has nothing": await get(front, "/api/nothing"),
        "handshake": await get(front, "/socket.io/?EIO=4&transport=polling"),
        "session unknown to all": await get(front, "/socket.io/?EIO=4&transport=polling&sid=nobody&k=abcdefgh"),
        "nothing": await get(front, "/nothing"),
        "a folder": await get(front, "/assets/"),
        "not for outside": await get(front, "/metrics"),
        "method": await post(front, "/sw.js", b"x"),
        "too large": await post(front, "/api/guests", b"x" * 17_000),
        "malformed": await raw(front, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        "header too large": await get(front, "/", X_Large="x" * 20_000),
    }
    assert {name: answer.status for name, answer in answers.items()} == {
        "page": 200,
        "file": 200,
        "asset": 200,
        "worker": 200,
        "worker refuses": 401,
        "worker has nothing": 404,
        "handshake": 200,
        "session unknown to all": 404,
        "nothing": 404,
        "a folder": 404,
        "not for outside": 404,
        "method": 405,
        "too large": 413,
        "malformed": 400,
        "header too large": 400,
    }
    for name, answer in answers.items():
        for header, value in ALL_HEADERS.items():
            assert answer.all(header) == [value], (name, header)
        assert answer.all("Server") == ["nginx"], name
        assert len(answer.all("Cache-Control")) <= 1, name
        if answer.status >= 400:
            assert answer.all("Content-Type")[0].startswith("application/json"), name
            assert ERRORS[answer.code][0] == answer.status, name


async def test_files_come_compressed_as_they_were_built_and_cached_by_their_names(front: Nginx) -> None:
    """Gzip always, brotli where nginx has it, and nothing to who takes neither; assets for ever, the page never."""
    asset = next((ROOT / "web" / "dist" / "assets").glob("index-*.js"))
    plain = await get(front, f"/assets/{asset.name}")
    assert plain.all("Content-Encoding") == []
    zipped = await get(front, f"/assets/{asset.name}", Accept_Encoding="gzip")
    assert zipped.all("Content-Encoding") == ["gzip"]
    assert gzip.decompress(zipped.body) == plain.body == asset.read_bytes()
    for answer in (plain, zipped):
        assert answer.all("Vary") == ["Accept-Encoding"]
        assert answer.all("Cache-Control") == ["public, max-age=31536000, immutable"]
        assert answer.all("Content-Type")[0].startswith("application/javascript")
    if adapter.BROTLI.exists():
        small = await get(front, f"/assets/{asset.name}", Accept_Encoding="gzip, deflate, br")
        assert small.all("Content-Encoding") == ["br"]
        assert small.body == asset.with_name(asset.name + ".br").read_bytes()
    else:
        missing("nginx has no brotli")
    page = await get(front, "/")
    assert page.all("Cache-Control") == ["no-cache"]
    assert page.body == (ROOT / "web" / "dist" / "index.html").read_bytes()
    again = await get(front, "/", If_None_Match=page.all("ETag")[0])
    assert (again.status, again.body) == (304, b"")
    for beside in (f"/assets/{asset.name}.gz", "/index.html.br", "/.stamp"):
        assert (await get(front, beside)).status == 404, beside


async def test_http_2_is_offered_and_old_protocols_are_not(front: Nginx) -> None:
    """By the TLS handshake, which is where it is decided; TLS 1.2 and 1.3, nothing older."""
    h2 = ssl.create_default_context()
    h2.check_hostname, h2.verify_mode = False, ssl.CERT_NONE
    h2.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=h2)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()
    versions = {}
    for version in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        one = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        one.check_hostname, one.verify_mode = False, ssl.CERT_NONE
        one.set_ciphers("ALL:@SECLEVEL=0")
        with (
            pytest.warns(DeprecationWarning, match="TLSv1_1")
            if version is ssl.TLSVersion.TLSv1_1
            else contextlib.nullcontext()
        ):
            one.minimum_version = one.maximum_version = version
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=one)
        except (ssl.SSLError, ConnectionResetError):
            versions[version.name] = False
        else:
            versions[version.name] = True
            writer.close()
    assert versions == {"TLSv1_1": False, "TLSv1_2": True, "TLSv1_3": True}


async def test_plain_http_is_sent_to_https(front: Nginx) -> None:
    """With its path and query."""
    address = f"http://localhost:{front.plain_port}/api/info?x=1"
    async with http() as session, session.get(address, allow_redirects=False) as response:
        assert response.status == 301
        assert response.headers["Location"] == f"https://localhost:{front.port}/api/info?x=1"


# --------------------------------------------------------------------------- what it refuses


async def test_bodies_have_a_limit_where_they_come_in(front: Nginx, place: str) -> None:
    """16 KB, 64 KB for a polling body, a little over 4 MB for a part of a file: said in numbers the client knows."""
    sizes = {"/api/guests": 16_384, "/socket.io/?EIO=4&transport=polling&sid=x": 65_536, "/api/files/x": 4_325_376}
    for path, most in sizes.items():
        method = "PATCH" if "files" in path else "POST"
        fits = await post(front, path, b"x" * most, place, method)
        assert fits.status < 413, path
        over = await post(front, path, b"x" * (most + 1), place, method)
        assert (over.status, over.code) == (413, "too_large"), path
        assert json.loads(over.body)["error"]["limit"] <= most


POSTED = b"POST /api/guests HTTP/1.1\r\nHost: a\r\n"
END = b"Host: a\r\nConnection: close\r\n\r\n"
SMUGGLED = {
    "two lengths": POSTED + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "the same length twice": POSTED + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": POSTED
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n"
    + END,
    "chunks twice": POSTED + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks disguised": POSTED + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a length that is none": POSTED + b"Content-Length: +4\r\n\r\nabcd",
    "chunks that are none": POSTED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "a name that ends with a space": POSTED + b"Content-Length : 4\r\nConnection: close\r\n\r\nabcd",
    "absolute-form": b"GET http://elsewhere/api/info HTTP/1.1\r\n" + END,
    "absolute-form of another kind": b"GET ftp://a/api/info HTTP/1.1\r\n" + END,
    "authority-form": b"CONNECT a:443 HTTP/1.1\r\n" + END,
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\n" + END,
    "two hosts": b"GET /api/info HTTP/1.1\r\nHost: b\r\n" + END,
    "no host": b"GET /api/info HTTP/1.1\r\n\r\n",
    "dots": b"GET /api/../metrics HTTP/1.1\r\n" + END,
    "hidden dots": b"GET /api/%2e%2e/metrics HTTP/1.1\r\n" + END,
    "a hidden slash": b"GET /api%2finfo HTTP/1.1\r\n" + END,
    "two slashes": b"GET //metrics HTTP/1.1\r\n" + END,
    "a backslash": b"GET /api\\..\\metrics HTTP/1.1\r\n" + END,
    "a zero": b"GET /api/info%00 HTTP/1.1\r\n" + END,
    "a line within": b"GET /api/info HTTP/1.1\r\nHost: a\r\n X: folded\r\nConnection: close\r\n\r\n",
    "the page of refusals": b"GET /refused HTTP/1.1\r\n" + END,
    "the handshake's inner name": b"GET /handshake HTTP/1.1\r\n" + END,
}


@pytest.mark.parametrize("kind", SMUGGLED)
async def test_what_two_programs_could_read_in_two_ways_ends_here(front: Nginx, kind: str) -> None:
    """Requests that hide another, targets that are whole addresses, paths with two meanings: no worker sees them."""
    since = len(front.logged())
    answer = await raw(front, SMUGGLED[kind])
    assert 400 <= answer.status < 500 or answer.status == 501, answer
    assert "error" in json.loads(answer.body)
    # The next request's line comes after.
    await get(front, "/api/openapi.json")
    await logged(front, since, "/api/openapi.json", 1)
    for line in front.logged()[since:-1]:
        assert line["worker"] == "", line


async def test_slow_senders_are_cut(front: Nginx, place: str) -> None:
    """Headers that do not end within 10 s, bodies of which nothing comes for 15 s; others do not notice."""

    async def headers() -> bytes:
        reader, writer = await connection(front, place)
        writer.write(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n")
        dripping = asyncio.create_task(drip(writer, b"X-Slow: 1\r\n"))
        try:
            async with asyncio.timeout(14):
                return await rest(reader)
        finally:
            dripping.cancel()
            writer.close()

    async def body() -> bytes:
        reader, writer = await connection(front, place)
        writer.write(b"POST /api/guests HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        try:
            async with asyncio.timeout(19):
                return await rest(reader)
        finally:
            writer.close()

    async def rest(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(1)
                writer.write(piece)

    cut, let = await asyncio.gather(headers(), body())
    assert cut[:12] in (b"", b"HTTP/1.1 408")
    assert let[:12] in (b"", b"HTTP/1.1 408")
    assert (await get(front, "/api/info", place)).status == 200


# --------------------------------------------------------------------------- how often, and from where


async def asked_often(nginx: Nginx, path: str, times: int, **whence: str) -> list[Answer]:
    """Many at once, over few connections."""

    async def some(count: int) -> list[Answer]:
        reader, writer = await connection(nginx, **whence)
        answers = []
        for _ in range(count):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            answer = parse(head)
            [length] = answer.all("Content-Length")
            answers.append(answer._replace(body=await reader.readexactly(int(length))))
        writer.close()
        return answers

    return list(itertools.chain(*await asyncio.gather(*(some(times // 8) for _ in range(8)))))


HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


async def test_an_address_has_a_limit_and_is_told_when_to_come_back(front: Nginx) -> None:
    """Handshakes: 300 at once, ten a second then; 429 in the workers' own form, and nobody else is touched."""
    answers = await asked_often(front, HANDSHAKE, 380, place=next(_places))
    let = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert 300 <= len(let) < 364
    assert refused
    for answer in refused:
        assert (answer.status, answer.code, answer.all("Retry-After")) == (429, "rate_limited", ["1"])
        assert json.loads(answer.body)["error"]["retryInMs"] == 1000
        assert all(answer.all(header) == [value] for header, value in ALL_HEADERS.items())
    assert (await get(front, HANDSHAKE, next(_places))).status == 200


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::1"),
        ("2001:db8::1", "2001:db8:0:0:8000::", "2001:db8:0:1::1"),
        ("::1", "::2:3:4:5", "0:0:0:1::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
        ("192.0.2.9", "::ffff:192.0.2.9", "192.0.2.10"),
    ],
)
async def test_ipv6_counts_by_its_64(front: Nginx, first: str, same: str, other: str) -> None:
    """However an address is written: its /64 shares a limit, the next does not; IPv4 counts whole, mapped or not."""
    assert 429 in {answer.status for answer in await asked_often(front, HANDSHAKE, 380, by=first)}
    # A few at once: some allowance has come back meanwhile.
    again = await asked_often(front, HANDSHAKE, 40, by=same)
    assert 429 in {answer.status for answer in again}
    assert (await get(front, HANDSHAKE, by=other)).status == 200


async def test_a_whole_school_opens_the_page_at_once(front: Nginx, place: str) -> None:
    """Two hundred people at one address, twenty files each and none refused: a page that lacks one is broken."""
    answers = await asked_often(front, "/icon.svg", 200 * 20, place=place)
    assert {answer.status for answer in answers} == {200}


async def test_who_opens_the_page_is_refused_in_a_page(front: Nginx) -> None:
    """Not in JSON; with the same headers as everything."""
    answer = await post(front, "/", b"x")
    assert answer.status == 405
    assert answer.all("Content-Type")[0].startswith("text/html")
    assert answer.body.startswith(b"<!doctype html>")
    assert all(answer.all(header) == [value] for header, value in ALL_HEADERS.items())
    assert (await post(front, "/", b"x" * 20_000)).status == 413
    # It asks again by itself where that may help.
    assert b"refresh" not in answer.body


async def test_an_authority_finds_what_it_asked_to_be_put_there(front: Nginx) -> None:
    """In data/acme, over plain HTTP, which sends everything else to HTTPS."""
    folder = front.folder / "data" / "acme" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (folder / "token-1").write_text("token-1.thumbprint")
    (front.folder / "data" / "acme" / "beside").write_text("not for asking")
    address = f"http://localhost:{front.plain_port}"
    async with http() as session:
        async with session.get(f"{address}/.well-known/acme-challenge/token-1", allow_redirects=False) as response:
            assert (response.status, await response.text()) == (200, "token-1.thumbprint")
            assert response.content_type == "text/plain"
        async with session.get(f"{address}/.well-known/acme-challenge/other", allow_redirects=False) as response:
            assert response.status == 404
        async with session.get(f"{address}/beside", allow_redirects=False) as response:
            assert response.status == 301


async def test_requests_of_one_address_are_counted(front: Nginx, place: str) -> None:
    """The 401st at a worker at once is refused; the client's files are not, nor is who is elsewhere."""
    held = []
    try:
        for _ in range(400):
            _, writer = await connection(front, place)
            writer.write(b"POST /api/guests HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
            held.append(writer)
        # It counts what it has read.
        async with asyncio.timeout(PATIENCE):
            while (answer := await get(front, "/api/info", place)).status != 429:
                await asyncio.sleep(0.05)
        assert answer.code == "rate_limited"
        assert (await get(front, "/", place)).status == 200
        assert (await get(front, "/api/info", next(_places))).status == 200
    finally:
        for writer in held:
            writer.close()


@pytest_asyncio.fixture(loop_scope="session")
async def behind(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[tuple[Nginx, Service]]]]:
    """Workers with settings of their own, and stand-ins at ports, behind an nginx of their own."""
    async with contextlib.AsyncExitStack() as ends:

        async def make(*ports: int, workers: int = 1, **settings: str) -> tuple[Nginx, Service]:
            if not adapter.available():
                missing("nginx is missing")
            nginx = Nginx(tmp_path)
            service = Service(tmp_path / "data", **nginx.settings(), **settings)
            ends.push_async_callback(service.stop)
            await service.start(0)
            for _ in range(workers):
                await service.add(VISAVIS_PORT=str(free_port()))
            await nginx.start([*service.workers, *(Port(port) for port in ports)])
            ends.push_async_callback(nginx.stop)
            return nginx, service

        yield make


class Port(Worker):
    """Something at a port that is no worker."""

    def __init__(self, port: int) -> None:
        self.port = port


Behind = Callable[..., Awaitable[tuple[Nginx, Service]]]


async def test_where_a_request_comes_from_is_what_nginx_saw(behind: Behind, place: str) -> None:
    """A worker counts guests by address: no header that a client sends makes it another one."""
    nginx, _ = await behind(VISAVIS_GUESTS_PER_WINDOW="3")
    claims: list[dict[str, str]] = [
        {"X-Forwarded-For": "198.51.100.1"},
        {"X-Forwarded-For": "198.51.100.2, 198.51.100.3", "X-Real-IP": "198.51.100.4"},
        {"Forwarded": 'for="198.51.100.5";proto=http;host=elsewhere', "X-Forwarded-Host": "elsewhere"},
        {"X-Forwarded-For": "198.51.100.6", "Forwarded": "for=198.51.100.7", "Via": "1.1 x"},
    ]
    statuses = []
    async with http(place) as session:
        for claim in claims:
            async with session.post(nginx.url + "/api/guests", json=GROWN, headers=claim) as response:
                statuses.append(response.status)
    assert statuses == [201, 201, 201, 429]
    # Nobody at those addresses was charged for it.
    async with http(next(_places)) as session, session.post(nginx.url + "/api/guests", json=GROWN) as response:
        assert response.status == 201


# --------------------------------------------------------------------------- which worker


class Polling:
    """A session of long-polling, with the key that a client gives its connection."""

    def __init__(self, nginx: Nginx, session: aiohttp.ClientSession, key: str | None) -> None:
        self._session = session
        self.requests = 0
        self.address = f"{nginx.url}{HANDSHAKE}" + (f"&k={key}" if key else "")

    async def open(self) -> int:
        self.requests += 1
        async with self._session.get(self.address) as response:
            said = await response.text()
            if response.status == 200:
                self.address += "&sid=" + json.loads(said[1:])["sid"]
            return response.status

    async def talk(self, guest: dict[str, Any]) -> None:
        """Come in as this guest, in the requests that takes."""
        assert await self.post("40" + json.dumps(auth_of(guest))) == 200
        said = ""
        while "session:state" not in said:
            self.requests += 1
            async with self._session.get(self.address) as response:
                assert response.status == 200, await response.text()
                said += await response.text()

    async def post(self, packet: str) -> int:
        self.requests += 1
        async with self._session.post(self.address, data=packet) as response:
            return response.status


async def logged(nginx: Nginx, since: int, route: str, count: int) -> list[dict[str, Any]]:
    """What the access log has for a route, once there are that many: a line is written after its answer went out."""
    async with asyncio.timeout(PATIENCE):
        while len(lines := [line for line in nginx.logged()[since:] if line["route"] == route]) < count:
            await asyncio.sleep(0.02)
    return lines


async def workers_of(nginx: Nginx, since: int, *sessions: Polling) -> list[list[str]]:
    """The workers that each request of these sessions was given to, in turn."""
    lines = await logged(nginx, since, "/socket.io/", sum(one.requests for one in sessions))
    return [line["worker"].split(", ") for line in lines]


async def test_a_polling_session_stays_with_its_worker_and_sessions_spread(front: Nginx, place: str) -> None:
    """Each by the key that its client made: no request of a session goes astray, and every worker has some."""
    guest = await get_guest(front.url)
    homes = set()
    async with http(place) as session:
        for _ in range(24):
            since = len(front.logged())
            one = Polling(front, session, new_id())
            assert await one.open() == 200
            await one.talk(guest)
            visited = await workers_of(front, since, one)
            assert len(visited) >= 3
            assert [visited[0]] * len(visited) == visited
            homes.add(visited[0][0])
    assert len(homes) == 3


async def test_without_a_key_the_address_says_which_worker(front: Nginx) -> None:
    """So that a client that knows of none can poll as well; all of one address go to one worker."""
    guest = await get_guest(front.url)
    homes = set()
    for place in itertools.islice(_places, 12):
        since = len(front.logged())
        async with http(place) as session:
            both = [Polling(front, session, None) for _ in range(2)]
            for one in both:
                assert await one.open() == 200
                await one.talk(guest)
        visited = await workers_of(front, since, *both)
        assert [visited[0]] * len(visited) == visited
        homes.add(visited[0][0])
    assert len(homes) == 3


async def test_when_a_worker_is_dead_another_key_leads_elsewhere(behind: Behind, place: str) -> None:
    """A poll with a key is told so at once, in words; a few keys on, the client is in, and stays at home there."""
    nginx, service = await behind(workers=2)
    guest = await get_guest(nginx.url)
    await service.workers[0].kill()
    async with http(place) as session:
        opened = [Polling(nginx, session, new_id()) for _ in range(16)]
        assert {await one.open() for one in opened} == {200, 502}
        inside = [one for one in opened if "sid=" in one.address]
        await inside[0].talk(guest)
        since = len(nginx.logged())
        assert await inside[0].post("3") == 200
        [line] = await logged(nginx, since, "/socket.io/", 1)
        assert line["worker"] == f"127.0.0.1:{service.workers[1].port}"
    # A websocket need not know: it is let in each time.
    for _ in range(4):
        await (await arrive(nginx.url)).hang_up()


async def test_who_has_no_key_is_let_in_elsewhere_and_found_there_when_the_first_worker_is_back(
    behind: Behind,
) -> None:
    """Sessions begun at the next on the ring while their home was dead go on, whether it is dead or back."""
    nginx, service = await behind(workers=3)
    guest = await get_guest(nginx.url)
    await service.workers[0].kill()
    home = f"127.0.0.1:{service.workers[0].port}"
    async with contextlib.AsyncExitStack() as ends:
        sessions = [
            Polling(nginx, await ends.enter_async_context(http(place)), None) for place in itertools.islice(_places, 18)
        ]
        since = len(nginx.logged())
        assert [await one.open() for one in sessions] == [200] * 18
        assert any(visited[0] == home for visited in await workers_of(nginx, since, *sessions))
        for one in sessions[:9]:
            await one.talk(guest)
        gone = service.workers.pop(0)
        await service.add(VISAVIS_PORT=str(gone.port))
        for one in sessions[9:]:
            await one.talk(guest)
        visits = await workers_of(nginx, since, *sessions)
        assert any(visited[0] == home and len(visited) > 1 for visited in visits[-9 * 3 :])


async def stand_in(answer: bytes) -> tuple[asyncio.Server, list[bytes]]:
    """Something at a port that answers everything with this, then hangs up; and what it was asked.

    For what no worker can be brought to do at a given instant.
    """
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        asked.append(head + (await reader.readexactly(int(length[1])) if length else b""))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, asked


async def test_what_may_have_been_done_is_not_asked_of_another(tmp_path: Path, behind: Behind) -> None:
    """A POST or PATCH to the API that broke off is answered 502 and goes nowhere else; a GET is asked again."""
    stand_ins = [await stand_in(b"") for _ in range(3)]
    nginx, _ = await behind(*(server.sockets[0].getsockname()[1] for server, _ in stand_ins), workers=0)
    try:
        for method, path in (("POST", "/api/guests"), ("POST", "/api/files"), ("PATCH", "/api/files/abcdefghij")):
            for _, asked in stand_ins:
                asked.clear()
            answer = await post(nginx, path, b"{}", method=method)
            assert (answer.status, answer.code, answer.all("Retry-After")) == (502, "unavailable", ["1"])
            assert sum(len(asked) for _, asked in stand_ins) == 1, (method, path)
            # So that none of them is taken for failed when the next is asked.
            await asyncio.sleep(1.1)
        for _, asked in stand_ins:
            asked.clear()
        assert (await get(nginx, "/api/info")).status == 502
        assert sum(len(asked) for _, asked in stand_ins) == 2
    finally:
        for server, _ in stand_ins:
            server.close()


async def test_a_handshake_refused_by_a_worker_about_to_stop_goes_to_the_next(behind: Behind, place: str) -> None:
    """503 to a websocket's handshake is passed on, and to a poll without a key; with one it is the answer."""
    server, asked = await stand_in(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    nginx, _ = await behind(server.sockets[0].getsockname()[1])
    try:
        for whence in itertools.islice(_places, 8):
            async with http(whence) as session:
                assert await Polling(nginx, session, None).open() == 200
        guest = await arrive(nginx.url)
        await guest.hang_up()
        assert asked
        async with http(place) as session:
            assert {await Polling(nginx, session, new_id()).open() for _ in range(16)} == {200, 503}
        assert all(b"sid=" not in request.split(b"\r\n")[0] for request in asked)
        # It is left alone for a second now, and asked again after that.
        async with asyncio.timeout(PATIENCE):
            while (answer := await get(nginx, "/api/info")).status == 200:
                await asyncio.sleep(0.05)
        assert answer.status == 503
    finally:
        server.close()


async def test_a_polling_body_is_acted_on_once_however_often_it_is_passed_on(behind: Behind, place: str) -> None:
    """It breaks off at the first worker and goes to the second: that one holds no such session, and says so."""
    server, asked = await stand_in(b"")
    nginx, _ = await behind(server.sockets[0].getsockname()[1])
    try:
        statuses = set()
        for _ in range(8):
            path = f"/socket.io/?EIO=4&transport=polling&sid={new_id()}&k={new_id()}"
            statuses.add((await post(nginx, path, b'42["chat:message",{}]', place)).status)
        assert asked
        assert all(b"X-Elsewhere: 404" in request for request in asked)
        assert statuses <= {404, 502}
        assert 404 in statuses
        assert (await get(nginx, HANDSHAKE, place)).status == 200
    finally:
        server.close()


async def test_a_websocket_goes_through(front: Nginx) -> None:
    """And what strangers say over it, whichever workers they are on."""
    a, b = await arrive(front.url), await arrive(front.url)
    for guest in (a, b):
        await guest.find(languages=["qaa"])
    conversation = (await a.next("match:found"))["conversation"]["id"]
    await b.next("match:found")
    assert "ok" in await a.say(conversation, 1, "through the gate")
    heard = await b.next("chat:message")
    assert "through the gate" in json.dumps(heard)
    for guest in (a, b):
        await guest.hang_up()


# --------------------------------------------------------------------------- what is written down


async def test_the_access_log_is_json_and_names_nobody(front: Nginx, place: str) -> None:
    """A route, a status, sizes and times: no address, token, pass, id or query, not even of what is refused."""
    since = len(front.logged())
    created = await get_guest(front.url)
    secret = new_id()
    spied = [
        f"/files/{secret}/main",
        f"/files/{secret}",
        f"/api/files/{secret}?x={secret}",
        f"/api/recordings/{secret}",
        f"/socket.io/?EIO=4&transport=polling&k={secret}&sid={secret}",
        f"/assets/{secret}.js",
        f"/{secret}",
        f"/api/{secret}",
        f"//{secret}",
        f"/api/info?token={secret}",
    ]
    for path in spied:
        await get(front, path, place, Authorization=f"Bearer {created['token']}", Referer=f"https://x/{secret}")
    method = secret.upper().replace("-", "A").replace("_", "B")
    await raw(front, f"{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), place)
    await raw(front, f"GET http://{secret}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), place)
    async with asyncio.timeout(PATIENCE):
        while len(lines := front.logged()[since:]) < len(spied) + 3:
            await asyncio.sleep(0.02)
    written = json.dumps(lines).lower()
    for told in (secret, method, place, created["token"], created["device"]):
        assert told.lower() not in written
    routes = [line["route"] for line in lines]
    for route in ("/files/{pass}/{variant}", "/api/files/{id}", "/api/recordings/{id}", "/socket.io/", "/api/guests"):
        assert route in routes
    assert "other" in routes
    for line in lines:
        assert isinstance(line["status"], int)
        assert isinstance(line["seconds"], float)
        assert line["method"] in ("GET", "POST", "other")
    # Beside it nginx wrote nothing: its error log would name addresses.
    assert (front.folder / "log").read_text() == ""


# --------------------------------------------------------------------------- the configuration itself


async def test_the_configuration_runs_as_it_lies_in_the_checkout(tmp_path: Path) -> None:
    """From a copy of it, with and without brotli, its paths resolved and its ports as delivered."""
    if not adapter.available():
        missing("nginx is missing")
    shutil.copy(ROOT / "nginx.conf", tmp_path)
    shutil.copytree(
        ROOT / "ecosystem" / "nginx", tmp_path / "ecosystem" / "nginx", ignore=shutil.ignore_patterns("enabled")
    )
    (tmp_path / ".cache" / "nginx").mkdir(parents=True)
    subprocess.run(
        [ROOT / ".venv" / "bin" / "python", "-m", "visavis", "certificate"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "backend")},
        check=True,
        capture_output=True,
    )

    def check() -> str:
        told = subprocess.run(
            ["nginx", "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-T"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        assert "[warn]" not in told.stderr, told.stderr
        return told.stdout

    plain = check()
    assert [port for port in ("3001", "3002", "3003") if f"server 127.0.0.1:{port} " in plain] == [
        "3001",
        "3002",
        "3003",
    ]
    assert "brotli_static" not in plain
    if not adapter.BROTLI.exists():
        missing("nginx has no brotli module: libnginx-mod-http-brotli-static")
    enabled = tmp_path / "ecosystem" / "nginx" / "enabled"
    enabled.mkdir()
    for path in (tmp_path / "ecosystem" / "nginx" / "brotli").iterdir():
        (enabled / path.name).symlink_to(path)
    assert "brotli_static on" in check()
