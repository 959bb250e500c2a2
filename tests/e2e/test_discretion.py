"""What the logs of a deployment give away: a long way through everything, at debug level, then a search for it all.

Two workers and a recorder; a conversation with calls, a recording and files; refusals, nonsense, crashes. Everything a
guest brought with them is made so that it can be recognised.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import pytest
import redis.asyncio as redis
from aiortc import RTCSessionDescription

from calling import relay, relayed
from members import Member, Picture, RecorderProcess, Tone, warmed
from rig import PATIENCE, Guest, Service, Worker, get_guest, meet
from sharing import Sharer, picture
from visavis.adapters.turn import PrivateTurn
from visavis.contract import RULES_VERSION
from visavis.core.identity import new_id
from wire import Polls, Wire, auth_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ADDRESSES = {"X-Forwarded-For": "203.0.113.77, 2001:db8:77:77::7"}
HOST = "candidate:1 1 udp 2113937151 198.51.100.77 50077 typ host"


class House:
    """A deployment whose every log is kept, and what must be in none."""

    def __init__(self, service: Service, recorder: RecorderProcess, turn: PrivateTurn) -> None:
        self.service = service
        self.recorder = recorder
        self.turn = turn
        self.private: set[str] = set()
        self.members: list[Member] = []

    def keep(self, *words: Any) -> None:
        self.private.update(str(word) for word in words if word)

    async def arrive(self, worker: Worker, **options: Any) -> Guest:
        guest = Guest(worker.url, await get_guest(worker.url), **options)
        created = guest.created
        self.keep(created["token"], created["token"].split(".")[1], created["device"], created["profile"]["name"])
        await guest.connect()
        return guest

    async def spoil(self, kind: str, id: str, field: str, value: bytes) -> None:
        """Put something where it cannot be read, whatever stands around its name."""
        client = redis.Redis.from_url(self.service.valkey.url)
        try:
            (key,) = [key async for key in client.scan_iter(match=f"*{kind}:*{id}*", count=1000)]
            await client.hset(key, field, value)
        finally:
            await client.aclose()

    def logs(self) -> str:
        paths = [worker.log for worker in self.service.workers] + [self.recorder.log]
        return "".join(path.read_text() for path in paths)


@contextlib.asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    async with relay() as turn:
        await warmed(turn)
        debug = {"VISAVIS_LOG_LEVEL": "debug", "VISAVIS_TRUST_FORWARDED": "true", "VISAVIS_BUCKET_SIZE": "1000"}
        service = Service(folder, **relayed(turn), **debug)
        await service.start(0)
        recorder = RecorderProcess(folder, turn, service.valkey.url, VISAVIS_LOG_LEVEL="debug")
        await recorder.start()
        for _ in range(2):
            await service.add()
        place = House(service, recorder, turn)
        try:
            yield place
        finally:
            for member in place.members:
                await member.close()
            await service.stop()
            await recorder.stop()


async def until_recordable(worker: Worker) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{worker.url}/api/info") as response:
                if (await response.json())["recording"]:
                    return
            await asyncio.sleep(0.1)


async def test_logs_of_a_whole_deployment_name_nobody_and_nothing_said(tmp_path: Path) -> None:
    """No token, address, name, text, file, candidate or credential, whatever happens; yet they say what happened."""
    async with house(tmp_path) as place:
        one, two = place.service.workers
        await until_recordable(one)
        await until_recordable(two)

        # Coming in, and not.
        async with aiohttp.ClientSession(headers=ADDRESSES) as http:
            born = {"birthDate": "1991-07-17", "rules": RULES_VERSION}
            async with http.post(f"{one.url}/api/guests", json=born) as response:
                created = await response.json()
            place.keep("1991-07-17", "203.0.113.77", "2001:db8:77", created["token"], created["device"])
            for body in (b"{", b'{"birthDate":"secretdate"}', json.dumps({"secretfield": 1}).encode()):
                await http.post(f"{one.url}/api/guests", data=body)
            await http.get(f"{one.url}/secretpath/x?token=secretquery", headers={"Cookie": "secretcookie=1"})
            await http.get(f"{one.url}/api/recordings", headers={"Authorization": "Bearer secretbearer.x.y"})
            await http.get(f"{one.url}/files/secretpass/main")
            await http.get(f"{one.url}/metrics?secretquery=1")
        place.keep("secret")
        a, b = await place.arrive(one), await place.arrive(two)

        # A conversation, with what is refused.
        place.keep("falconry77", "marmalade77")
        conversation = await meet(a, b, mode="text", interests=["falconry77"])
        place.keep(conversation, a.claim, b.claim)
        await a.say(conversation, 1, "the marmalade77 is excellent")
        await b.next("chat:message")
        await b.ask("chat:receipt", {"conversationId": conversation, "delivered": 1, "read": 1})
        await a.ask("chat:message", {"text": "marmalade77"})
        await a.ask("chat:message", {"conversationId": conversation, "id": "marmalade77", "seq": "marmalade77"})
        await a.ask("marmalade77:event", {})
        async with Wire(one.url, origin=one.url) as wire:
            await wire.open({"token": "secret.forgery", "contract": "x"})
            await wire.send("secret nonsense, no packet")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with Wire(one.url, origin="https://secretorigin.example"):
                pass
        async with Polls(one.url) as polls:
            place.keep(polls.sid)
            await polls.post('42["secret"')
        async with Wire(two.url, origin=two.url) as wire:
            third = await get_guest(two.url)
            await wire.open(auth_of(third))
            place.keep(third["token"], wire.opened["sid"])
            await wire.send("42" + "1" * 3 + '["chat:message",{"secret":' + "[" * 500)
            await wire.send(b"secretbytes")

        # A call, recorded, with addresses.
        invited = (await a.ask("call:invite", {"conversationId": conversation, "rung": "clear"}))["ok"]
        call = {"conversationId": conversation, "callId": invited["call"]["id"]}
        place.keep(call["callId"], *place.turn.secret.split())
        for server in invited["call"]["ice"]["servers"]:
            place.keep(server["username"], server["credential"])
        await b.next("call:state", lambda push: bool(push["call"]))
        assert "ok" in await b.ask("call:accept", {**call, "rung": "clear"})
        await a.next("call:state", lambda push: bool(push["call"] and push["call"]["open"]))
        place.keep("198.51.100.77", "secretufrag", "secretpwd")
        signal = {**call, "session": new_id(), "to": None}
        for words in (
            {"kind": "candidate", "candidate": HOST, "ufrag": "secretufrag"},
            {"kind": "candidate", "candidate": "secret candidate"},
            {"kind": "description", "type": "offer", "sdp": "v=0\r\no=- 1 2 IN IP4 198.51.100.77\r\na=secret\r\n"},
        ):
            await a.ask("call:signal", {**signal, "signal": words})
        for guest in (a, b):
            await guest.ask("call:set", {**call, "recording": True})
        state = await a.next("call:state", lambda push: bool(push["call"] and push["call"]["recording"]))
        recording = state["call"]["recording"]["id"]
        place.keep(recording)
        for seat, guest in enumerate((a, b)):
            member = Member(SimpleNamespace(turn=place.turn), seat, Tone(440), Picture((200, 0, 0)))  # type: ignore[arg-type]
            place.members.append(member)
            sdp = await member.offer()
            place.keep(*(line.partition(":")[2] for line in sdp.splitlines() if line.startswith(("a=ice-", "a=fing"))))
            offered = {"conversationId": conversation, "recordingId": recording, "session": new_id()}
            await guest.ask("recording:offer", {**offered, "sdp": "v=0\r\na=secret\r\n"})
            async with asyncio.timeout(PATIENCE):
                while "error" in (said := await guest.ask("recording:offer", {**offered, "sdp": sdp})):
                    assert said["error"]["code"] == "unavailable", said
                    await asyncio.sleep(0.2)
            answer = await guest.next("recording:answer", timeout=20)
            assert member.peer is not None
            await member.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        for member in place.members:
            await member.connected(20)
        await a.next("call:state", lambda push: push["call"] and push["call"]["recording"]["phase"] == "on", timeout=20)
        await b.ask("call:end", call)
        for member in place.members:
            await member.close()
        await a.next("recording:over", timeout=20)

        # Files.
        place.keep("holiday77", "caption77")
        sharer, receiver = Sharer(a, conversation, one.url), Sharer(b, conversation, two.url)
        state = await sharer.upload(picture(), "holiday77.png")
        place.keep(state["seal"], state["file"]["id"])
        sharer.seq = 1
        await sharer.say(state["seal"], "caption77")
        await sharer.upload(b"MZ secret program" * 50, "holiday77.exe")
        address = await receiver.address(state["file"]["id"])
        place.keep(address.rpartition("/")[2])
        assert (await receiver.fetch(f"{address}/main"))[0] == 200

        # Reports, and what nobody foresaw: values that cannot be read, through either door.
        report = {"conversationId": conversation, "reason": "spam", "words": "complaint77", "messages": []}
        place.keep("complaint77", "strange77")
        assert "ok" in await b.ask("safety:report", report)
        file = await sharer.begun(100, "holiday77.bin")
        await place.spoil("file", file, "bytes", b"strange77")
        assert (await sharer.json("GET", f"/api/files/{file}"))[0] == 500
        record = msgspec.msgpack.encode({"id": conversation, "mode": "strange77", "members": [], "why": {}})
        await place.spoil("conversation", conversation, "record", record)
        assert (await b.ask("safety:report", report))["error"]["code"] == "internal"
        await a.vanish()
        await b.hang_up()

    said = place.logs()
    private = place.private | {"127.0.0.1", "candidate:", "typ relay", "a=ice"}
    given_away = {word: [line for line in said.splitlines() if word in line][:2] for word in private if word in said}
    assert not given_away
    lines = [json.loads(line) for line in said.splitlines()]
    events = {line["event"] for line in lines}
    assert {"serving", "recording", "request", "request_failed", "recording_ended"} <= events
    failed = [line for line in lines if line["event"] == "request_failed"]
    assert {line["exception"][0] for line in failed} == {"ValueError", "msgspec.ValidationError"}
    assert all(len(line["exception"]) > 3 and line["error_id"] for line in failed)
    # By HTTP, or over a socket.
    assert all("request_id" in line or "connection_id" in line for line in failed)
    assert {"request_id", "connection_id"} <= {name for line in failed for name in line}
