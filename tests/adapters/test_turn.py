"""TURN on a real coturn: whom it lets relay, to whom, how many at once, and that a private one ends with its parent."""

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rig import PATIENCE, ROOT, free_port, missing
from visavis.adapters import turn as adapter
from visavis.adapters.turn import PrivateTurn, TurnFailed, TurnServers, sign

CHECK = ROOT / "turn" / "check"
ROTATE = ROOT / "turn" / "rotate-secret"
FILE = (ROOT / "turn" / "turnserver.conf").read_text(encoding="utf-8")
DENIED = [line.partition("=")[2] for line in FILE.splitlines() if line.startswith("denied-peer-ip=")]
PUBLIC = ["--peer", "9.9.9.9", "--peer", "1.0.0.1"]
QUOTA = int(re.findall(r"^user-quota=(\d+)", FILE, re.MULTILINE)[0])

ALLOCATE, REFRESH, PERMIT = 0x003, 0x004, 0x008
USERNAME, INTEGRITY, ERROR, LIFETIME = 0x06, 0x08, 0x09, 0x0D
PEER, REALM, NONCE, TRANSPORT = 0x12, 0x14, 0x15, 0x19
MAGIC = b"\x21\x12\xa4\x42"


@pytest.fixture(autouse=True)
def coturn() -> None:
    """All of this needs one."""
    if not adapter.available():
        missing("turnserver is not installed")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def turn() -> AsyncIterator[PrivateTurn]:
    """A private server that tests leave as they found it."""
    server = PrivateTurn()
    await server.start()
    yield server
    await server.stop()


class Caller:
    """A TURN client that says what it is told (RFC 8656), over TCP: what it allocated is gone when it hangs up."""

    def __init__(self, turn: PrivateTurn, username: str, credential: str) -> None:
        self._turn = turn
        self._username = username.encode()
        self._credential = credential
        self._realm = self._nonce = b""

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._turn.address, self._turn.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def allocate(self) -> int:
        """0, or the code of the refusal."""
        return await self._ask(ALLOCATE, [(TRANSPORT, b"\x11\0\0\0")])

    async def refresh(self) -> int:
        return await self._ask(REFRESH, [(LIFETIME, (600).to_bytes(4))])

    async def permit(self, address: str) -> int:
        """Ask for permission to send to a peer of either family."""
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        transaction = secrets.token_bytes(12)
        hidden = bytes(a ^ b for a, b in zip(packed, MAGIC + transaction, strict=False))
        family = b"\0\x02" if ":" in address else b"\0\x01"
        return await self._ask(PERMIT, [(PEER, family + (9 ^ 0x2112).to_bytes(2) + hidden)], transaction)

    async def _ask(self, method: int, attributes: list[tuple[int, bytes]], transaction: bytes | None = None) -> int:
        async with asyncio.timeout(5):
            for _ in range(2):
                code = await self._send(method, attributes, transaction or secrets.token_bytes(12))
                # The first 401 brings the realm and the nonce, the second is a refusal; 438 brings a fresh nonce.
                if code not in (401, 438):
                    break
        return code

    async def _send(self, method: int, attributes: list[tuple[int, bytes]], transaction: bytes) -> int:
        said = b"".join(map(_attribute, *zip(*attributes, strict=True)))
        head = method.to_bytes(2)
        if self._nonce:
            said += _attribute(USERNAME, self._username) + _attribute(REALM, self._realm)
            said += _attribute(NONCE, self._nonce)
            key = hashlib.md5(b":".join([self._username, self._realm, self._credential.encode()])).digest()
            signed = head + (len(said) + 24).to_bytes(2) + MAGIC + transaction + said
            said += _attribute(INTEGRITY, hmac.digest(key, signed, "sha1"))
        self._writer.write(head + len(said).to_bytes(2) + MAGIC + transaction + said)
        head = await self._reader.readexactly(20)
        body = await self._reader.readexactly(int.from_bytes(head[2:4]))
        code = 0
        for kind, value in _attributes(body):
            if kind == ERROR:
                code = value[2] * 100 + value[3]
            elif kind == REALM:
                self._realm = value
            elif kind == NONCE:
                self._nonce = value
        return code


def _attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2) + len(value).to_bytes(2) + value + bytes(-len(value) % 4)


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        length = int.from_bytes(body[2:4])
        yield int.from_bytes(body[:2]), body[4 : 4 + length]
        body = body[4 + length + (-length % 4) :]


def caller(turn: PrivateTurn, guest: str = "", secret: str = "", lifetime: int = 600) -> Caller:
    """Somebody with credentials from our own signer."""
    signer = TurnServers(turn.urls, (secret or turn.secret,), lifetime)
    username, credential, _ = signer.credentials(guest or secrets.token_hex(8))
    return Caller(turn, username, credential)


async def allocates(turn: PrivateTurn, guest: str = "", secret: str = "") -> int:
    async with caller(turn, guest, secret) as one:
        return await one.allocate()


async def run(*words: object, **environment: str) -> tuple[int, str]:
    """A command's status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, said.decode()


# --------------------------------------------------------------------------- credentials


async def test_a_guest_relays_with_our_credentials_to_nobody_but_another_relay(turn: PrivateTurn) -> None:
    """An IPv4 relay knows no IPv6 peer either, whatever IPv4 address hides in it."""
    async with caller(turn) as one:
        assert await one.allocate() == 0
        assert await one.permit(turn.address) == 0
        for address in ("10.0.0.1", "169.254.169.254", "9.9.9.9", "0.0.0.0", "224.0.0.1"):
            assert await one.permit(address) == 403
        for address in ("::1", "::ffff:127.0.0.1", f"::ffff:{turn.address}", "64:ff9b::7f00:1"):
            assert await one.permit(address) in (403, 443)


async def test_wrong_expired_and_borrowed_credentials_are_refused(turn: PrivateTurn) -> None:
    """A password is good for one name, and a name for ten minutes."""
    now = int(time.time())
    for username, credential in (
        (f"{now + 60}:guest", sign(b"another secret", f"{now + 60}:guest")),
        (f"{now - 1}:guest", sign(turn.secret.encode(), f"{now - 1}:guest")),
        (f"{now + 60}:guest", sign(turn.secret.encode(), f"{now + 60}:other")),
        (f"{now + 6000}:guest", sign(turn.secret.encode(), f"{now + 60}:guest")),
        ("guest", ""),
    ):
        async with Caller(turn, username, credential) as one:
            assert await one.allocate() == 401, username


def test_a_guest_has_one_name_which_tells_nobody_who_it_is() -> None:
    """Stable for coturn's quota, keyed for its log."""
    servers = TurnServers(("turn:t.example",), ("new", "old"))
    before = int(time.time())
    username, credential, expires_at = servers.credentials("guest")
    expires, _, name = username.partition(":")
    assert before + 600 <= int(expires) <= time.time() + 600
    assert expires_at == int(expires) * 1000
    assert credential == sign(b"new", username)
    assert servers.credentials("guest")[0].endswith(f":{name}")
    assert "guest" not in name
    assert TurnServers((), (b"other",)).credentials("guest")[0].partition(":")[2] != name
    assert servers.credentials("other")[0].partition(":")[2] != name


@pytest.mark.parametrize(("secrets", "lifetime"), [((), 600), (("",), 600), (("a",), 601), (("a",), 0)])
def test_servers_without_a_secret_or_with_a_long_life_are_not_made(secrets: tuple[str, ...], lifetime: int) -> None:
    """Ten minutes at most."""
    with pytest.raises(ValueError, match="TURN"):
        TurnServers((), secrets, lifetime)


async def test_a_guest_has_one_quota_however_often_it_asks_for_credentials(turn: PrivateTurn) -> None:
    """The quota counts what follows the colon; other guests are not touched, and who hangs up makes room."""
    async with contextlib.AsyncExitStack() as calls:
        for number in range(QUOTA):
            one = await calls.enter_async_context(caller(turn, "greedy", lifetime=600 - number))
            assert await one.allocate() == 0
        assert await allocates(turn, "greedy") == 486
        assert await allocates(turn, "modest") == 0
    async with asyncio.timeout(PATIENCE):
        while await allocates(turn, "greedy") != 0:
            await asyncio.sleep(0.05)


async def test_a_hundred_allocations_fit(turn: PrivateTurn) -> None:
    """So that a household's calls do."""
    async with contextlib.AsyncExitStack() as calls:
        for number in range(100):
            one = await calls.enter_async_context(caller(turn, f"{number}"))
            assert await one.allocate() == 0


# --------------------------------------------------------------------------- rotation


async def test_two_secrets_are_valid_in_a_rotation_and_no_allocation_is_lost(turn: PrivateTurn) -> None:
    """Nothing is restarted; the removed one opens nothing new, and what it opened stays."""
    rotate = [ROTATE, "--database", turn.database]
    status, new = await run(*rotate, "add")
    new = new.strip()
    assert status == 0
    assert await allocates(turn, secret=new) == await allocates(turn) == 0
    async with caller(turn, secret=new) as one:
        assert await one.allocate() == 0
        status, listed = await run(*rotate, "list")
        name = hashlib.sha256(new.encode()).hexdigest()[:8]
        assert name in listed.split()
        assert new not in listed
        assert (await run(*rotate, "remove", name))[0] == 0
        assert await allocates(turn, secret=new) == 401
        assert await allocates(turn) == 0
        assert await one.refresh() == 0
        assert await one.permit(turn.address) == 0


async def test_guests_who_come_while_secrets_change_are_served(turn: PrivateTurn) -> None:
    """Coturn does not wait for a lock on its database; a writer must not take one."""
    rotate = [ROTATE, "--database", turn.database]
    change = asyncio.create_task(_change(rotate))
    answers = []
    while not change.done():
        answers.append(await allocates(turn))
    await change
    assert len(answers) > 10
    assert set(answers) == {0}


async def _change(rotate: list[object]) -> None:
    for _ in range(5):
        _, secret = await run(*rotate, "add")
        status, said = await run(*rotate, "remove", hashlib.sha256(secret.strip().encode()).hexdigest()[:8])
        assert status == 0, said


async def test_rotation_says_what_is_wrong(tmp_path: Path) -> None:
    """And never takes the last secret."""
    rotate = [ROTATE, "--database", tmp_path / "db"]
    status, said = await run(*rotate, "list")
    assert status == 1
    assert "unable to open" in said
    _, secret = await run(*rotate, "add")
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600
    status, said = await run(*rotate, "remove", "00000000")
    assert status == 1
    assert "is called 00000000" in said
    status, said = await run(*rotate, "remove", hashlib.sha256(secret.strip().encode()).hexdigest()[:8])
    assert status == 1
    assert "last secret" in said
    assert "add another first" in said


# --------------------------------------------------------------------------- the deny matrix


async def checked(settings: dict[str, list[str]], *options: str, **environment: str) -> tuple[int, str]:
    """What turn/check says about a server of its own."""
    server = PrivateTurn(settings=settings)
    await server.start()
    try:
        at = [server.address, "--port", str(server.port)]
        return await run(CHECK, *at, *options, TURN_SECRET=server.secret, **environment)
    finally:
        await server.stop()


def certified(folder: Path, address: str) -> tuple[str, str]:
    """A certificate for an address, signed by itself, and its key: two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(paths[0]), str(paths[1])


async def test_the_configuration_refuses_every_denied_range_and_relays_to_the_rest(tmp_path: Path) -> None:
    """As the file has it, a private server, and without half of it: all at once, for each takes some seconds."""
    primary = PrivateTurn().address
    certificate, key = certified(tmp_path, primary)
    tls = str(free_port())
    as_written = {
        "denied-peer-ip": DENIED,
        "no-tls": [],
        "tls-listening-port": [tls],
        "cert": [certificate],
        "pkey": [key],
    }
    file, private, open_, dual = await asyncio.gather(
        checked(as_written, *PUBLIC, "--tls-port", tls, SSL_CERT_FILE=certificate),
        checked({}),
        checked({"denied-peer-ip": []}),
        checked({"denied-peer-ip": [one for one in DENIED if ":" not in one], "relay-ip": [primary, "::1"]}),
    )
    assert file[0] == 0, file[1]
    assert "ok   TLS 1.1: " in file[1]
    assert private[0] == 0, private[1]
    # The check itself is checked: it names what is open.
    assert open_[0] == 1
    assert "BAD  channel to private 10.0.0.1: granted" in open_[1]
    assert "BAD  permission to private 192.168.0.1: granted" in open_[1]
    assert dual[0] == 1
    assert "BAD  a relay on IPv6: granted" in dual[1]
    assert "ok   channel to private 10.0.0.1: refused, 403" in dual[1]


async def test_the_check_tells_a_server_that_is_silent_from_one_that_refuses() -> None:
    """A dead server passes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        status, said = await run(CHECK, "127.0.0.1", "--port", port, TURN_SECRET="s")
    assert status == 1
    assert "no answer" in said
    assert "ok " not in said


# --------------------------------------------------------------------------- the private server


async def test_two_private_servers_share_no_port_and_no_secret(turn: PrivateTurn) -> None:
    """Each has relays of its own."""
    other = PrivateTurn()
    await other.start()
    try:
        assert {*turn.urls}.isdisjoint(other.urls)
        assert await allocates(turn) == await allocates(other) == 0
        assert await allocates(other, secret=turn.secret) == 401
    finally:
        await other.stop()


async def test_a_private_server_may_be_confined_to_this_machine() -> None:
    """On the loopback address it relays to that, and to nothing else."""
    server = PrivateTurn("127.0.0.1")
    await server.start()
    try:
        async with caller(server) as one:
            assert await one.allocate() == 0
            assert await one.permit("127.0.0.1") == 0
            assert await one.permit("127.0.0.2") == 403
    finally:
        await server.stop()


async def test_a_private_server_that_cannot_start_says_why() -> None:
    """And leaves no folder behind."""
    server = PrivateTurn("203.0.113.7")
    with pytest.raises(TurnFailed, match="free port"):
        await server.start()
    assert not server.database.parent.exists()


async def test_a_private_server_dies_with_its_parent(tmp_path: Path) -> None:
    """Even if that is killed and can say nothing."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio\n"
        "from visavis.adapters.turn import PrivateTurn\n"
        "async def main():\n"
        "    turn = PrivateTurn()\n"
        "    await turn.start()\n"
        "    print(turn.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n",
        env={**os.environ, "PYTHONPATH": str(ROOT / "backend"), "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    os.kill(child, 0)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    # Releases since 4.8 take some seconds.
    async with asyncio.timeout(PATIENCE):
        while _alive(child):
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
