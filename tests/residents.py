"""Guests who stay in one conversation whatever becomes of workers: what the browser's client does, without a browser.

Each keeps what it said until the other's receipt, says it again when something may have been lost, and takes what
comes in order and once (`web/src/delivery.ts`); each writes down how its connections ended and what it was told of
the other's presence.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from typing import Any

import aiohttp

from wire import Wire, auth_of

AGAIN_SECONDS = 2.0
"""After which something said and not confirmed is said again."""


class Resident:
    """One guest. With `moves` it does what it is told by session:move; without, it waits to be hung up on."""

    def __init__(self, urls: Sequence[str], created: dict[str, Any], tongue: str, seed: int, *, moves: bool) -> None:
        self._urls = urls
        self._created = created
        self._tongue = tongue
        self._fate = random.Random(seed)
        self.moves = moves
        self.conversation = ""
        self.closes: list[int | None] = []
        """The close code of each connection that the server ended; None for one that just broke."""
        self.presence: list[str] = []
        """What it was told of its partner."""
        self.ended: list[dict[str, Any]] = []
        self.moved = 0
        self.heard: list[str] = []
        self.said: list[str] = []
        self._confirmed = 0
        self._news = asyncio.Condition()
        self._line: Wire | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------------ what a test does

    async def arrive(self, url: str) -> None:
        """Connect to this worker."""
        self._line = await self._dial([url])
        self._do(self._live(self._line))
        self._do(self._repeat())

    async def find(self) -> None:
        await self._ask("match:find", {"mode": "text", "languages": [self._tongue]})

    async def seated(self) -> None:
        await self._wait(lambda: self.conversation != "")

    async def say(self, text: str) -> None:
        self.said.append(text)
        await self._send(len(self.said))

    async def settled(self) -> None:
        """Returns once the other has confirmed everything."""
        await self._wait(lambda: self._confirmed == len(self.said))

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if self._line is not None:
            await self._line.__aexit__(None, None, None)

    # ------------------------------------------------------------------ connections

    def _do(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _dial(self, urls: Sequence[str]) -> Wire:
        """A connection to any worker that takes guests in, which has said where this guest stands."""
        while True:
            wire = Wire(self._fate.choice(urls))
            try:
                await wire.__aenter__()
            except aiohttp.ClientError:
                # Not listening, or not taking anybody in.
                await asyncio.sleep(0.05 + self._fate.random() * 0.1)
                continue
            with contextlib.suppress(ConnectionError):
                if "code" not in (await wire.open(auth_of(self._created))).get("data", {}):
                    await self._stand((await wire.push("session:state"))["conversation"])
                    return wire
            await wire.__aexit__(None, None, None)

    async def _stand(self, conversation: dict[str, Any] | None) -> None:
        if self.conversation:
            assert conversation is not None, "the seat is lost"
            assert conversation["id"] == self.conversation
            self.presence.append(conversation["partner"]["state"])

    async def _live(self, line: Wire) -> None:
        """Be connected for ever, somewhere."""
        while True:
            self._line = line
            await self._say_again()
            coming: asyncio.Task[Wire] | None = None
            try:
                async for event, push in self._listen(line):
                    if event == "session:move" and self.moves and coming is None:
                        coming = asyncio.create_task(self._move(push["inMs"]))
                        coming.add_done_callback(lambda done, old=line: self._take(done, old))  # type: ignore[misc]
                    elif event != "session:replaced":
                        await self._receive(event, push)
            finally:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await line.__aexit__(None, None, None)
            if coming is None:
                await asyncio.sleep(0.05 + self._fate.random() * 0.5)
                line = await self._dial(self._urls)
            else:
                line = await coming

    async def _move(self, in_ms: int) -> Wire:
        await asyncio.sleep(in_ms / 1000)
        line = await self._dial(self._urls)
        self.moved += 1
        return line

    def _take(self, done: "asyncio.Task[Wire]", old: Wire) -> None:
        """From now on speak on the new connection, and listen to the old one until it ends."""
        if not done.cancelled() and self._line is old:
            self._line = done.result()

    async def _listen(self, line: Wire) -> Any:
        while True:
            message = await line.socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                self.closes.append(message.data if message.type is aiohttp.WSMsgType.CLOSE else None)
                return
            if message.data == "2":
                await line.send("3")
            elif message.data.startswith("42["):
                event, push = json.loads(message.data[2:])
                yield event, push

    # ------------------------------------------------------------------ what is said

    async def _receive(self, event: str, push: dict[str, Any]) -> None:
        if event == "match:found":
            async with self._news:
                self.conversation = push["conversation"]["id"]
                self._news.notify_all()
        elif event == "chat:message":
            if push["seq"] == len(self.heard) + 1:
                self.heard.append(push["body"]["text"])
            heard = len(self.heard)
            receipt = {"conversationId": self.conversation, "delivered": heard, "read": heard}
            await self._ask("chat:receipt", receipt)
        elif event == "chat:receipt":
            async with self._news:
                self._confirmed = max(self._confirmed, push["delivered"])
                self._news.notify_all()
        elif event == "conversation:partner":
            self.presence.append(push["state"])
            if push["state"] == "here":
                await self._say_again()
        elif event == "conversation:ended":
            self.ended.append(push)

    async def _repeat(self) -> None:
        while True:
            before = self._confirmed
            await asyncio.sleep(AGAIN_SECONDS)
            if before == self._confirmed:
                await self._say_again()

    async def _say_again(self) -> None:
        for seq in range(self._confirmed + 1, len(self.said) + 1):
            await self._send(seq)

    async def _send(self, seq: int) -> None:
        body = {"kind": "text", "text": self.said[seq - 1]}
        await self._ask(
            "chat:message", {"conversationId": self.conversation, "id": f"{seq:022d}", "seq": seq, "body": body}
        )

    async def _ask(self, event: str, request: dict[str, Any]) -> None:
        """Say it, if there is a connection; what was lost is said again."""
        if self._line is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._line.send(f"421{json.dumps([event, request])}")

    async def _wait(self, done: Any) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(done)
