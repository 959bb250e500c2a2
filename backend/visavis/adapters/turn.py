"""TURN (RFC 8656): a guest's credentials for the relays, and a private coturn for a single machine.

Hides the convention by which coturn is told who may relay ("REST API for access to TURN services", draft-uberti), and
coturn's configuration file.
"""

import asyncio
import base64
import contextlib
import hmac
import math
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from visavis.adapters import children

LONGEST_SECONDS = 600
FOLDER = Path(__file__).resolve().parents[3] / "turn"
REALM = "visavis"


class TurnServers:
    """The deployment's relays. The first secret signs; coturn accepts the others as well until they are removed."""

    def __init__(
        self, urls: tuple[str, ...], secrets: tuple[bytes | str, ...], lifetime_seconds: int = LONGEST_SECONDS
    ) -> None:
        """Raise ValueError if there is no secret to sign with, or credentials would live longer than ten minutes."""
        if not secrets or not all(secrets):
            raise ValueError("TURN needs a secret")
        if not 0 < lifetime_seconds <= LONGEST_SECONDS:
            raise ValueError(f"TURN credentials live between 1 and {LONGEST_SECONDS} seconds")
        self.urls = urls
        self._secret = secrets[0] if isinstance(secrets[0], bytes) else secrets[0].encode()
        self._lifetime = lifetime_seconds

    def credentials(self, guest_id: str) -> tuple[str, str, int]:
        """Username, credential and when they expire, in milliseconds since 1970, for one guest.

        They open new allocations until then; those that are open stay. coturn counts a guest's allocations by what
        follows the colon, so that part is the same each time. It is a keyed hash: coturn logs it, and without the
        secret nobody can tell from the log who it was.
        """
        expires = math.floor(time.time()) + self._lifetime
        pseudonym = hmac.digest(self._secret, b"guest " + guest_id.encode(), "sha256")[:12].hex()
        username = f"{expires}:{pseudonym}"
        return username, sign(self._secret, username), expires * 1000


def sign(secret: bytes, username: str) -> str:
    """The credential that goes with a username."""
    return base64.b64encode(hmac.digest(secret, username.encode(), "sha1")).decode()


class TurnFailed(Exception):
    """The private TURN server did not start; says what it printed."""


class PrivateTurn:
    """One turnserver process with the hardening of turn/turnserver.conf, for guests on this machine and its network.

    It listens on one address and relays from it and to it, to nothing else: two guests who are both relayed meet there.
    `urls` and `secret` are for TurnServers; `address`, `port` and `database` tell where it is, once started.
    """

    def __init__(self, address: str = "", port: int = 0, settings: Mapping[str, list[str]] | None = None) -> None:
        """Without an address it takes the one this machine has in its network; port 0 is a free one.

        `settings` go to coturn in the place of all those of that name, as lines; an empty list takes one away.
        """
        self.address = address or _primary_address()
        self.port = port
        self.secret = secrets.token_urlsafe(32)
        self.urls: tuple[str, ...] = ()
        self.database = Path()
        self._settings = settings or {}
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ports = contextlib.ExitStack()

    async def start(self) -> None:
        """Start it and wait until it answers. Raises TurnFailed."""
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        self.database = self._folder / "database"
        try:
            held = self._ports.enter_context(_free_ports(self.address))
            await self._tell_secret()
            await self._launch(held)
            async with asyncio.timeout(5):
                await self._answered()
        except (OSError, TimeoutError) as error:
            said = f"{error or 'it did not answer'}\n{self._said()}"
        else:
            if self._process is not None and self._process.returncode is None:
                self.urls = tuple(f"turn:{self.address}:{self.port}?transport={kind}" for kind in ("udp", "tcp"))
                return
            said = self._said()
        await self.stop()
        raise TurnFailed(said)

    async def stop(self) -> None:
        """End it and remove its folder."""
        # Not asked: newer releases take seconds over their leave, and nothing of it is kept.
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._ports.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def ended(self) -> None:
        """Wait until the process is gone, for whatever reason. It can be started anew, on the same port."""
        assert self._process is not None
        await self._process.wait()

    @property
    def pid(self) -> int:
        """The process, once started."""
        assert self._process is not None
        return self._process.pid

    async def _tell_secret(self) -> None:
        """Make the database and put the secret into it, as an operator would."""
        tool = await asyncio.create_subprocess_exec(
            *[sys.executable, str(FOLDER / "rotate-secret"), "--database", str(self.database), "--realm", REALM],
            *["add", "-"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await tool.communicate(self.secret.encode())
        if tool.returncode != 0:
            raise OSError(said.decode(errors="replace"))

    async def _launch(self, held: socket.socket) -> None:
        assert self._folder is not None
        first: int = held.getsockname()[1]
        self.port = self.port or first + 1
        settings = {
            "listening-ip": [self.address],
            "listening-port": [str(self.port)],
            "relay-ip": [self.address],
            "min-port": [str(first + 2)],
            "max-port": [str(first + _PORTS - 1)],
            "allowed-peer-ip": [self.address],
            "allow-loopback-peers": [""] if self.address.startswith("127.") else [],
            # A range that begins with :: has no beginning: it holds all of IPv4 as well.
            "denied-peer-ip": ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            "realm": [REALM],
            "userdb": [str(self.database)],
            "pidfile": [str(self._folder / "pid")],
            # Nobody has a certificate for an address like this one, and the guests are near.
            "tls-listening-port": [],
            "cert": [],
            "pkey": [],
            "no-tls": [""],
            **self._settings,
        }
        configuration = self._folder / "turnserver.conf"
        template = (FOLDER / "turnserver.conf").read_text(encoding="utf-8")
        configuration.write_text(configured(template, settings), encoding="utf-8")
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                "turnserver",
                "-c",
                str(configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C reaches the whole terminal group; calls must outlive their server's last words.
                start_new_session=True,
                preexec_fn=children.before_exec,
                # The ports are the child's as long as it lives, also if this process is killed.
                pass_fds=(held.fileno(),),
            )

    async def _answered(self) -> None:
        """Wait until it answers over UDP, or has ended."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        while self._process.returncode is None:
            transport, hears = await loop.create_datagram_endpoint(_Hears, remote_addr=(self.address, self.port))
            try:
                # A binding request (RFC 8489, 5): type, no attributes, magic cookie, transaction.
                transport.sendto(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + secrets.token_bytes(12))
                async with asyncio.timeout(0.05):
                    await hears.answer
                return
            except (TimeoutError, OSError):
                await asyncio.sleep(0.02)
            finally:
                transport.close()

    def _said(self) -> str:
        if self._folder is None or not (log := self._folder / "log").exists():
            return ""
        return log.read_text(errors="replace")[-2000:]


def available() -> bool:
    """Whether there is a coturn on this machine."""
    return shutil.which("turnserver") is not None


def configured(template: str, settings: Mapping[str, list[str]]) -> str:
    """The text of a configuration with these settings in the place of its own."""
    lines = [line for line in template.splitlines() if line and not line.startswith("#")]
    kept = [line for line in lines if line.partition("=")[0].strip() not in settings]
    said = [f"{name}={value}" if value else name for name, values in settings.items() for value in values]
    return "\n".join([*kept, *said]) + "\n"


class _Hears(asyncio.DatagramProtocol):
    """Waits for one datagram."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


def _primary_address() -> str:
    """The address packets from here to elsewhere would carry; finding it sends none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address


# One to hold, one to listen on, the others for relays: more than the calls of one machine need at once, because a page
# that is closed leaves its relay behind for ten minutes. Below the ports that the system gives to outgoing connections.
_PORTS = 500
_BLOCKS = range(20_000, 32_000, _PORTS)


def _free_ports(address: str) -> socket.socket:
    """Take a block of ports by a socket on its first one. Raises OSError if there is none.

    coturn opens its sockets so that a second coturn may open the same ones, and would then get the other's packets: two
    servers on one address have to keep apart by themselves.
    """
    for _ in _BLOCKS:
        first = secrets.choice(_BLOCKS)
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind((address, first))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((address, first + 1))
        except OSError:
            held.close()
        else:
            return held
    raise OSError(f"no free ports on {address}")
