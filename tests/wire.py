"""Engine.IO and Socket.IO written by hand, for what no well-behaved client would ever send.

Sources: the Engine.IO protocol, revision 4, and the Socket.IO protocol, revision 5.
"""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import aiohttp

from rig import PATIENCE, from_address
from visavis.describe import contract_hash

SEPARATOR = "\x1e"


def auth_of(created: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What a client presents when it connects."""
    return {"token": created["token"], "contract": contract_hash(), **changes}


class Wire:
    """One websocket. Answers pings unless told not to, and keeps every packet that comes."""

    def __init__(
        self, url: str, *, origin: str | None = None, sid: str | None = None, address: str | None = None
    ) -> None:
        self._url = f"{url}/socket.io/?EIO=4&transport=websocket" + (f"&sid={sid}" if sid else "")
        self._headers = from_address(address) | ({"Origin": origin} if origin else {})
        self._acks = 0
        self.answering = True
        self.opened: dict[str, Any] = {}
        self.close_code: int | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        try:
            self.socket = await self._session.ws_connect(self._url, headers=self._headers, max_msg_size=0)
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.socket.close()
        await self._session.close()

    async def open(self, auth: Any) -> Any:
        """Read the Engine.IO handshake and present `auth`; returns the payload of CONNECT or CONNECT_ERROR."""
        if not self.opened:
            self.opened = json.loads((await self.receive("0"))[1:])
        await self.send("40" + (auth if isinstance(auth, str) else json.dumps(auth)))
        answer = await self.receive("40", "44")
        return json.loads(answer[2:])

    async def send(self, packet: str | bytes) -> None:
        if isinstance(packet, bytes):
            await self.socket.send_bytes(packet)
        else:
            await self.socket.send_str(packet)

    async def receive(self, *starts: str, timeout: float = PATIENCE) -> str:
        """The next packet that starts with one of these, skipping others; ConnectionError when it closes."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self.socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    # As the server said it: aiohttp makes it 1006 when its own reply finds the socket closed.
                    self.close_code = message.data if message.type is aiohttp.WSMsgType.CLOSE else None
                    raise ConnectionError(f"{message.type.name} {message.data}")
                packet: str = message.data
                if packet == "2" and self.answering:
                    await self.socket.send_str("3")
                elif packet.startswith(starts):
                    return packet

    async def push(self, event: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next push of this name."""
        start = f'42["{event}",'
        packet = await self.receive(start, timeout=timeout)
        said: dict[str, Any] = json.loads(packet[2:])[1]
        return said

    async def ask_raw(self, call: str) -> dict[str, Any]:
        """Send an event whose JSON is written by hand; returns its acknowledgement."""
        self._acks += 1
        await self.send(f"42{self._acks}{call}")
        start = f"43{self._acks}["
        answer: dict[str, Any] = json.loads((await self.receive(start))[len(start) - 1 :])[0]
        return answer

    async def ask(self, event: str, request: Any) -> dict[str, Any]:
        return await self.ask_raw(json.dumps([event, request]))

    async def closed(self, timeout: float = PATIENCE) -> int | None:
        """Wait for the end; returns the close code, or None if there was none."""
        try:
            while True:
                await self.receive(" ", timeout=timeout)
        except ConnectionError:
            return self.close_code


class Polls:
    """One long-polling session."""

    def __init__(self, url: str, *, origin: str | None = None) -> None:
        self.address = f"{url}/socket.io/?EIO=4&transport=polling"
        self._headers = {"Origin": origin} if origin else {}
        self._held: list[str] = []
        self.sid = ""

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(headers=self._headers)
        try:
            async with self.session.get(self.address) as response:
                text = await response.text()
                assert response.status == 200, (response.status, text)
            self.sid = json.loads(text[1:])["sid"]
            self.address += f"&sid={self.sid}"
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def post(self, *packets: str) -> int:
        """Send packets in one body; returns the status."""
        return await self.post_raw(SEPARATOR.join(packets).encode())

    async def post_raw(self, body: bytes) -> int:
        async with self.session.post(self.address, data=body) as response:
            await response.read()
            return response.status

    async def poll(self) -> tuple[int, list[str]]:
        """One poll: its status and packets."""
        async with self.session.get(self.address) as response:
            text = await response.text()
            return response.status, text.split(SEPARATOR) if response.status == 200 else [text]

    async def receive(self, *starts: str, timeout: float = PATIENCE) -> str:
        """The next packet that starts with one of these, skipping others."""
        async with asyncio.timeout(timeout):
            while True:
                while self._held:
                    packet = self._held.pop(0)
                    if packet == "2":
                        await self.post("3")
                    elif packet.startswith(starts):
                        return packet
                status, self._held = await self.poll()
                if status != 200:
                    raise ConnectionError(f"{status} {self._held}")

    async def open(self, auth: Any) -> Any:
        assert await self.post("40" + json.dumps(auth)) == 200
        return json.loads((await self.receive("40", "44"))[2:])
