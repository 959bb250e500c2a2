"""A TURN client that asks for one allocation and says what it is given and refused (RFC 8656).

Hides aioice, and its ways of saying that something went wrong.
"""

import asyncio
import contextlib
import ipaddress
import re
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aioice import stun
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol

_URL = re.compile(r"(turns?):(\[[0-9a-fA-F:.]+\]|[^:\[\]?/\s]+)(?::(\d{1,5}))?(?:\?transport=(udp|tcp))?")
PATIENCE = 4.0
"""Seconds for one answer."""
TRIES = 25
PAUSE = 0.2
"""Between the tries of a datagram, which may be lost on its way."""


class TurnUrl(msgspec.Struct, frozen=True):
    """Where a TURN server is, and over what it is spoken to."""

    host: str
    port: int
    transport: Literal["udp", "tcp", "tls"]


class Refused(Exception):
    """The server refused, with this code of RFC 8656."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code


class NoAnswer(Exception):
    """The server could not be spoken to; says why."""


def parse(url: str) -> TurnUrl:
    """Take a URL of RFC 7065 apart. Raises ValueError, saying what is wrong with it."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("it is not turn:host:port?transport=udp, with tcp for udp or turns for turn")
    scheme, host, port, transport = found.groups()
    number = int(port or (5349 if scheme == "turns" else 3478))
    if not 0 < number < 65536:
        raise ValueError(f"there is no port {number}")
    if scheme == "turns" and transport == "udp":
        raise ValueError("TURN over DTLS is spoken by no browser: use ?transport=tcp")
    return TurnUrl(host.strip("[]"), number, "tls" if scheme == "turns" else "tcp" if transport == "tcp" else "udp")


class _Hears(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.heard.put_nowait(data)


class Allocation:
    """One allocation: `address` is the relayed one, `seen` the one this machine is seen at."""

    def __init__(self, client: TurnClientUdpProtocol | TurnClientTcpProtocol, address: tuple[str, int]) -> None:
        self._client = client
        self._ears = _Hears()
        client.receiver = self._ears
        self.address = address
        self.seen = client.mapped_address

    async def send(self, data: bytes, peer: tuple[str, int]) -> None:
        """Have it relay this to a peer. Raises Refused if it may not, NoAnswer."""
        async with _said():
            await self._client.send_data(data, peer)

    async def hears(self, data: bytes) -> bool:
        """Whether just this comes from a peer, within a moment."""
        try:
            async with asyncio.timeout(PAUSE):
                while await self._ears.heard.get() != data:
                    pass
        except TimeoutError:
            return False
        return True

    @property
    def certificate_ends(self) -> datetime | None:
        """Until when the server's certificate is good, if it has shown one."""
        held = self._client.transport.get_extra_info("ssl_object")
        ends = held.getpeercert().get("notAfter") if held is not None else None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC) if ends else None


@contextlib.asynccontextmanager
async def allocate(at: TurnUrl, username: str, credential: str) -> AsyncIterator[Allocation]:
    """Have an allocation for as long as the block takes. Raises Refused, NoAnswer."""
    loop = asyncio.get_running_loop()
    asked = {"username": username, "password": credential, "lifetime": 60, "channel_refresh_time": 500}
    client: TurnClientUdpProtocol | TurnClientTcpProtocol
    async with _said():
        if at.transport == "udp":
            _, client = await loop.create_datagram_endpoint(
                lambda: TurnClientUdpProtocol((at.host, at.port), **asked),  # type: ignore[arg-type]  # as above
                remote_addr=(at.host, at.port),
            )
        else:
            _, client = await loop.create_connection(
                lambda: TurnClientTcpProtocol((at.host, at.port), **asked),  # type: ignore[arg-type]  # as above
                at.host,
                at.port,
                ssl=at.transport == "tls" or None,
            )
        try:
            address = await client.connect()
        except BaseException:
            client.transport.close()
            raise
    try:
        yield Allocation(client, address)
    finally:
        # Given back, unless the server is gone meanwhile; nobody waits for that.
        with contextlib.suppress(TimeoutError, stun.TransactionError, OSError):
            await asyncio.wait_for(client.delete(), 1)


async def relayed(at: TurnUrl, one: tuple[str, str], other: tuple[str, str]) -> tuple[str, float]:
    """Have two guests send each other something through relays of their own.

    Takes the credentials of both; gives what did not arrive ("" if both did), and the seconds of the way there and
    back. Raises Refused, NoAnswer.
    """
    async with allocate(at, *one) as here, allocate(at, *other) as there:
        # Each lets the other in by sending first; what comes before that is dropped.
        await here.send(b"opens", there.address)
        await there.send(b"opens", here.address)
        for number in range(TRIES):
            ping, pong = b"ping %d" % number, b"pong %d" % number
            began = time.perf_counter()
            await here.send(ping, there.address)
            if await there.hears(ping):
                await there.send(pong, here.address)
                if await here.hears(pong):
                    return "", time.perf_counter() - began
        return "nothing that one guest sends reaches the other", 0.0


async def reaches(at: TurnUrl, credentials: tuple[str, str], peers: list[str]) -> list[str]:
    """Those of the addresses that the server would relay to, besides its own. Raises Refused, NoAnswer."""
    granted = []
    async with allocate(at, *credentials) as held:
        for peer in peers:
            if ipaddress.ip_address(peer) == ipaddress.ip_address(held.address[0]):
                continue
            try:
                await held.send(b"", (peer, 9))
                granted.append(peer)
            except Refused:
                pass
    return granted


@contextlib.asynccontextmanager
async def _said() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except stun.TransactionFailed as error:
        raise Refused(error.response.error_code or 0) from None
    except ssl.SSLCertVerificationError as error:
        raise NoAnswer(f"its certificate is not accepted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise NoAnswer(f"it does not speak TLS there: {error.reason}") from None
    except (stun.TransactionError, TimeoutError):
        raise NoAnswer("it does not answer") from None
    except (OSError, ValueError) as error:
        raise NoAnswer(f"it cannot be reached: {getattr(error, 'strerror', None) or error}") from None
