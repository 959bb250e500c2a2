"""Guests who share files: the steps of the way from a device to the other side, each by itself."""

import asyncio
import io
from typing import Any

import aiohttp
from PIL import Image

from rig import Guest
from visavis.core.identity import new_id

Answer = tuple[int, dict[str, str], bytes]


def picture(width: int = 40, height: int = 30, colour: str = "red") -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


class Sharer:
    """What a guest's browser does about files, at the worker it is connected to or at another."""

    def __init__(self, guest: Guest, conversation: str, url: str = "") -> None:
        self.guest = guest
        self.conversation = conversation
        self.url = url or guest.url
        self.seq = 0

    async def http(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        """Asks as this guest."""
        given = {"Authorization": f"Bearer {self.guest.created['token']}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data, headers=given) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    async def json(self, method: str, path: str, data: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session:
            given = {"Authorization": f"Bearer {self.guest.created['token']}", **headers}
            async with session.request(method, self.url + path, json=data, headers=given) as response:
                said: dict[str, Any] = await response.json()
                return response.status, said

    async def begin(
        self, size: int, name: str = "picture.png", *, voice: bool = False, conversation: str = ""
    ) -> tuple[int, dict[str, Any]]:
        asked = {"conversationId": conversation or self.conversation, "name": name, "bytes": size, "voice": voice}
        return await self.json("POST", "/api/files", asked)

    async def begun(self, size: int, name: str = "picture.png", *, voice: bool = False) -> str:
        """Begins an upload that has to be taken; returns the file's id."""
        status, said = await self.begin(size, name, voice=voice)
        assert status == 201, said
        assert said["url"] == f"/api/files/{said['fileId']}"
        file: str = said["fileId"]
        return file

    async def patch(self, file: str, offset: int, data: Any, **headers: str) -> Answer:
        given = {
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Tus-Resumable": "1.0.0",
            **headers,
        }
        return await self.http("PATCH", f"/api/files/{file}", data, **given)

    async def offset(self, file: str) -> int:
        status, headers, _ = await self.http("HEAD", f"/api/files/{file}")
        assert status == 200
        return int(headers["Upload-Offset"])

    async def state(self, file: str) -> dict[str, Any]:
        status, said = await self.json("GET", f"/api/files/{file}")
        assert status == 200, said
        return said

    async def checked(self, file: str, timeout: float = 30) -> dict[str, Any]:
        """The state once it is not `checking` any more."""
        async with asyncio.timeout(timeout):
            while (said := await self.state(file))["phase"] == "checking":
                pass
        return said

    async def upload(self, data: bytes, name: str = "picture.png", *, voice: bool = False) -> dict[str, Any]:
        """From the announcement to the outcome of the check."""
        file = await self.begun(len(data), name, voice=voice)
        status, headers, body = await self.patch(file, 0, data)
        assert (status, headers["Upload-Offset"]) == (204, str(len(data))), body
        return await self.checked(file)

    async def ready(self, data: bytes | None = None, name: str = "picture.png") -> dict[str, Any]:
        """A file that was found good: {id, name, ...}."""
        state = await self.upload(picture() if data is None else data, name)
        assert state["phase"] == "ready", state
        file: dict[str, Any] = state["file"]
        return file

    async def say(self, seal: str, text: str = "", conversation: str = "") -> dict[str, Any]:
        self.seq += 1
        said = {
            "conversationId": conversation or self.conversation,
            "id": new_id(),
            "seq": self.seq,
            "body": {"kind": "file", "seal": seal, "text": text},
        }
        return await self.guest.ask("chat:message", said)

    async def open(self, file: str, conversation: str = "") -> dict[str, Any]:
        asked = {"conversationId": conversation or self.conversation, "fileId": file}
        return await self.guest.ask("file:open", asked)

    async def address(self, file: str) -> str:
        opened = await self.open(file)
        assert "ok" in opened, opened
        base: str = opened["ok"]["base"]
        return base

    async def fetch(self, address: str, method: str = "GET", **headers: str) -> Answer:
        """As an image or a player asks: with nothing but the address."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + address, headers=headers) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    async def sees(self, file: str) -> bool:
        """Whether this guest can get at a file at all."""
        opened = await self.open(file)
        if "error" in opened:
            assert opened["error"] == {"code": "no_such_file"}
            return False
        return (await self.fetch(opened["ok"]["base"] + "/main"))[0] == 200
