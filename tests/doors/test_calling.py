"""Calls through the whole server, on one worker and on two: what the one asks, the other's client is told."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import redis.asyncio as redis

from crowd import Crowd
from rig import PATIENCE, Guest, Service, Worker, arrive, free_port, meet, missing
from visavis.adapters import turn
from visavis.core.identity import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]
RELAYED = "candidate:3 1 udp 33562367 192.0.2.20 50002 typ relay raddr 198.51.100.9 rport 50001"
HOST = "candidate:1 1 udp 2113937151 203.0.113.7 50000 typ host"
PRINT = ":".join(["A1"] * 32)


def offer(kind: str = "audio", direction: str = "sendrecv") -> dict[str, Any]:
    lines = [
        *("v=0", "o=- 1 2 IN IP4 203.0.113.7", "s=-", "t=0 0"),
        *(f"m={kind} 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 203.0.113.7", "a=ice-ufrag:abcd"),
        *("a=ice-pwd:0123456789abcdefghijkl", f"a=fingerprint:sha-256 {PRINT}", "a=setup:actpass"),
        *("a=mid:0", f"a={direction}", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2"),
    ]
    return {"kind": "description", "type": "offer", "sdp": "\r\n".join(lines) + "\r\n"}


@pytest.fixture
def relays() -> dict[str, str]:
    """Settings of a worker that names a relay; nobody connects to it here."""
    return {"VISAVIS_TURN_URLS": "turn:192.0.2.20:3478?transport=udp", "VISAVIS_TURN_SECRETS": "x" * 40}


class Pair:
    """Two guests in a conversation, perhaps on two workers."""

    def __init__(self, a: Guest, b: Guest, conversation: str) -> None:
        self.a, self.b, self.conversation = a, b, conversation
        self.session = new_id()

    async def ask(self, guest: Guest, event: str, **said: Any) -> dict[str, Any]:
        return await guest.ask(event, {"conversationId": self.conversation, **said})

    async def call(self, rung: str = "blurred", *, direct: bool = False) -> str:
        """A invites, B accepts; returns the call's id."""
        state = (await self.ask(self.a, "call:invite", rung=rung, direct=direct))["ok"]
        call_id: str = state["call"]["id"]
        await self.b.next("call:state", lambda push: bool(push["call"] and push["call"]["id"] == call_id))
        answer = await self.ask(self.b, "call:accept", callId=call_id, rung=rung, direct=direct)
        assert answer["ok"]["call"]["open"]
        assert (await self.a.next("call:state"))["call"]["open"]
        return call_id

    async def signal(self, guest: Guest, call_id: str, signal: dict[str, Any]) -> dict[str, Any]:
        return await self.ask(guest, "call:signal", callId=call_id, session=self.session, to=None, signal=signal)


@pytest_asyncio.fixture(loop_scope="session")
async def relayed(worker_with: WorkerWith, relays: dict[str, str], crowd: Crowd) -> Pair:
    """Two guests on two workers with a relay."""
    one, two = await worker_with(**relays), await worker_with(**relays)
    a, b = await crowd.arrive(one.url), await crowd.arrive(two.url)
    return Pair(a, b, await crowd.meet(a, b))


async def test_a_call_rings_is_accepted_and_is_hung_up(relayed: Pair) -> None:
    """Each step is told to the other, with relays and credentials of one's own."""
    pair = relayed
    state = (await pair.ask(pair.a, "call:invite", rung="blurred", media={"microphone": True, "camera": True}))["ok"]
    rings = await pair.b.next("call:state")
    assert (state["call"]["phase"], rings["call"]["phase"]) == ("ringing", "ringing")
    assert rings["call"]["theirs"] == {
        "rung": "blurred",
        "direct": False,
        "recording": False,
        "media": {"microphone": True, "camera": True, "screen": False},
    }
    (mine,), (yours,) = state["call"]["ice"]["servers"], rings["call"]["ice"]["servers"]
    assert mine["urls"] == yours["urls"] == ["turn:192.0.2.20:3478?transport=udp"]
    assert mine["username"].split(":")[1] != yours["username"].split(":")[1]
    assert 0 < rings["call"]["ice"]["expiresInMs"] <= 600_000
    await pair.ask(pair.b, "call:accept", callId=rings["call"]["id"], rung="blurred")
    active = await pair.a.next("call:state")
    assert (active["call"]["phase"], active["call"]["open"], active["call"]["rung"]) == ("active", True, "blurred")
    over = (await pair.ask(pair.b, "call:end", callId=rings["call"]["id"]))["ok"]
    told = await pair.a.next("call:state")
    assert told["call"] is None
    assert told["over"] == over["over"]
    assert told["over"]["reason"] == "hung_up"


async def test_both_invite_at_once_and_are_in_one_call(relayed: Pair) -> None:
    """On two workers, at the same instant, many times."""
    pair = relayed
    for _ in range(10):
        answers = await asyncio.gather(
            pair.ask(pair.a, "call:invite", rung="blurred"), pair.ask(pair.b, "call:invite", rung="voice")
        )
        one, two = (answer["ok"]["call"]["id"] for answer in answers)
        assert one == two
        for guest in (pair.a, pair.b):
            if not any(a["ok"]["call"]["open"] for a in answers if a is answers[guest is pair.b]):
                await guest.next("call:state", lambda push: bool(push["call"] and push["call"]["open"]))
        await pair.ask(pair.a, "call:end", callId=one)
        await pair.b.next("call:state", lambda push: push["call"] is None)


async def test_signals_reach_the_partner_alone_and_only_in_an_open_call(relayed: Pair, crowd: Crowd) -> None:
    """Before the answer, with another call's id and from outside, they are refused."""
    pair = relayed
    stranger = await crowd.arrive()
    ringing = (await pair.ask(pair.a, "call:invite", rung="voice"))["ok"]["call"]["id"]
    early = await pair.signal(pair.b, ringing, {"kind": "hello"})
    assert early["error"]["code"] == "not_agreed"
    await pair.ask(pair.a, "call:end", callId=ringing)
    call_id = await pair.call("voice")
    assert (await pair.signal(pair.a, ringing, {"kind": "hello"}))["error"]["code"] == "no_such_call"
    assert (await pair.signal(stranger, call_id, {"kind": "hello"}))["error"]["code"] == "not_in_conversation"
    assert "ok" in await pair.signal(pair.a, call_id, {"kind": "hello"})
    heard = await pair.b.next("call:signal")
    assert heard == {
        "conversationId": pair.conversation,
        "callId": call_id,
        "session": pair.session,
        "to": None,
        "signal": {"kind": "hello"},
    }
    assert "call:signal" not in [name for name, _ in (*stranger.pushes, *pair.a.pushes)]


async def test_candidates_that_were_not_agreed_to_go_nowhere(relayed: Pair) -> None:
    """Dropped while relayed, passed on once both want to be direct, dropped again when one does not."""
    pair = relayed
    call_id = await pair.call()

    async def candidates() -> list[str]:
        for text in (HOST, RELAYED, ""):
            answer = await pair.signal(pair.a, call_id, {"kind": "candidate", "candidate": text, "mid": "0"})
            assert "ok" in answer
        heard = []
        while not heard or heard[-1]:
            heard.append((await pair.b.next("call:signal"))["signal"]["candidate"])
        return [text.split(" typ ")[1].split()[0] for text in heard if text]

    assert await candidates() == ["relay"]
    await pair.ask(pair.a, "call:set", callId=call_id, direct=True)
    assert await candidates() == ["relay"]
    await pair.ask(pair.b, "call:set", callId=call_id, direct=True)
    await pair.a.next("call:state", lambda push: push["call"]["direct"])
    assert await candidates() == ["host", "relay"]
    await pair.ask(pair.b, "call:set", callId=call_id, direct=False)
    await pair.a.next("call:state", lambda push: not push["call"]["direct"])
    assert await candidates() == ["relay"]


async def test_a_description_is_cleaned_and_video_waits_for_both(relayed: Pair) -> None:
    """No address of the sender's in it; with video, refused until both agreed to blurred video at least."""
    pair = relayed
    call_id = await pair.call("voice")
    assert "ok" in await pair.signal(pair.a, call_id, offer())
    heard = (await pair.b.next("call:signal"))["signal"]
    assert "203.0.113.7" not in heard["sdp"]
    assert "opus/48000/2" in heard["sdp"]
    await pair.ask(pair.a, "call:set", callId=call_id, rung="clear")
    assert (await pair.signal(pair.a, call_id, offer("video")))["error"]["code"] == "not_agreed"
    await pair.ask(pair.b, "call:set", callId=call_id, rung="blurred")
    await pair.a.next("call:state", lambda push: push["call"]["rung"] == "blurred")
    assert "ok" in await pair.signal(pair.a, call_id, offer("video"))
    mutated = {**offer(), "sdp": offer()["sdp"].replace("UDP/TLS/RTP/SAVPF", "RTP/AVP")}
    assert (await pair.signal(pair.a, call_id, mutated))["error"]["code"] == "description_refused"
    assert "ok" in await pair.signal(pair.a, call_id, offer())


async def test_a_caller_may_offer_while_it_rings_and_the_answer_has_to_wait(relayed: Pair) -> None:
    """Relayed candidates only, and no more video than the invitation is for; nothing at all from who is invited."""
    pair = relayed
    state = (await pair.ask(pair.a, "call:invite", rung="blurred"))["ok"]
    call_id = state["call"]["id"]
    for said in (
        {"kind": "candidate", "candidate": HOST},
        offer("video"),
        {"kind": "candidate", "candidate": RELAYED},
    ):
        assert "ok" in await pair.signal(pair.a, call_id, said)
    heard = [(await pair.b.next("call:signal"))["signal"] for _ in range(2)]
    assert [one["kind"] for one in heard] == ["description", "candidate"]
    assert "typ relay" in heard[1]["candidate"]
    answer = {**offer("video"), "type": "answer"}
    assert (await pair.signal(pair.b, call_id, answer))["error"]["code"] == "not_agreed"
    await pair.ask(pair.b, "call:accept", callId=call_id, rung="voice")
    assert (await pair.signal(pair.b, call_id, answer))["error"]["code"] == "not_agreed"
    assert "ok" in await pair.signal(pair.b, call_id, {**offer("video", "inactive"), "type": "answer"})
    await pair.ask(pair.a, "call:end", callId=call_id)
    await pair.b.next("call:state", lambda push: push["call"] is None)
    second = (await pair.ask(pair.b, "call:invite", rung="voice"))["ok"]["call"]["id"]
    assert (await pair.signal(pair.b, second, offer("video")))["error"]["code"] == "not_agreed"
    assert "ok" in await pair.signal(pair.b, second, offer())


async def test_a_ring_ends_by_itself_and_both_are_told(
    worker_with: WorkerWith, relays: dict[str, str], crowd: Crowd
) -> None:
    """Missed; a late answer finds no call."""
    worker = await worker_with(**relays, VISAVIS_RING_SECONDS="0.3")
    a, b = await crowd.arrive(worker.url), await crowd.arrive(worker.url)
    pair = Pair(a, b, await crowd.meet(a, b))
    call_id = (await pair.ask(a, "call:invite", rung="voice"))["ok"]["call"]["id"]
    for guest in (a, b):
        missed = await guest.next("call:state", lambda push: push["call"] is None)
        assert missed["over"]["reason"] == "missed"
        assert missed["over"]["caller"] in (0, 1)
    late = await pair.ask(b, "call:accept", callId=call_id, rung="voice")
    assert late["error"]["code"] == "no_such_call"


async def test_a_match_for_calls_begins_with_one_on_both_sides(
    worker_with: WorkerWith, relays: dict[str, str], crowd: Crowd
) -> None:
    """The match brings the call, its relays and who is polite: nothing more to ask before the first offer."""
    worker = await worker_with(**relays)
    for mode, rung in (("voice", "voice"), ("video", "blurred")):
        a, b = await crowd.arrive(worker.url), await crowd.arrive(worker.url)
        await crowd.find(a, mode=mode)
        await crowd.find(b, mode=mode)
        found = [(await guest.next("match:found"))["conversation"] for guest in (a, b)]
        one, two = (conversation["call"]["call"] for conversation in found)
        assert one["id"] == two["id"]
        assert (one["open"], one["rung"], one["phase"]) == (True, rung, "active")
        assert {one["polite"], two["polite"]} == {True, False}
        assert one["ice"]["servers"]
        answer = await a.ask(
            "call:signal",
            {
                "conversationId": found[0]["id"],
                "callId": one["id"],
                "session": new_id(),
                "signal": {"kind": "hello"},
            },
        )
        assert answer == {"ok": {}}
        await b.next("call:signal")


async def test_without_a_relay_both_are_asked_before_anything_passes(crowd: Crowd) -> None:
    """The server says so to the page; an invitation needs the consent, and a match's call waits for it."""
    a, b = await crowd.arrive(), await crowd.arrive()
    async with aiohttp.ClientSession() as session, session.get(f"{a.url}/api/info") as response:
        info = await response.json()
    assert (info["relay"], info["recording"]) == (False, False)
    await crowd.find(a, mode="video")
    await crowd.find(b, mode="video")
    found = (await a.next("match:found"))["conversation"]
    await b.next("match:found")
    pair = Pair(a, b, found["id"])
    call_id = found["call"]["call"]["id"]
    assert not found["call"]["call"]["open"]
    assert (await pair.signal(a, call_id, {"kind": "hello"}))["error"]["code"] == "not_agreed"
    await pair.ask(a, "call:set", callId=call_id, direct=True)
    assert (await pair.signal(a, call_id, {"kind": "hello"}))["error"]["code"] == "not_agreed"
    await pair.ask(b, "call:set", callId=call_id, direct=True)
    await a.next("call:state", lambda push: push["call"]["open"])
    assert "ok" in await pair.signal(a, call_id, {"kind": "candidate", "candidate": HOST})
    await pair.ask(a, "call:end", callId=call_id)
    assert (await pair.ask(a, "call:invite", rung="voice"))["error"]["code"] == "direct_needed"


async def test_a_call_is_still_there_after_coming_back_on_another_worker(relayed: Pair) -> None:
    """The state of the session tells it, and signals pass again; the partner's media was never touched."""
    pair = relayed
    call_id = await pair.call("clear")
    await pair.ask(pair.b, "call:set", callId=call_id, media={"microphone": False, "camera": True, "screen": False})
    await pair.a.hang_up()
    state = await pair.a.connect(pair.b.url)
    call = state["conversation"]["call"]["call"]
    assert (call["id"], call["open"], call["rung"]) == (call_id, True, "clear")
    assert call["theirs"]["media"]["microphone"] is False
    assert "ok" in await pair.signal(pair.a, call_id, {"kind": "hello"})
    await pair.b.next("call:signal")


async def test_a_call_survives_a_redis_that_lost_everything(tmp_path: Path, relays: dict[str, str]) -> None:
    """What the worker knows is put back, and the next change goes on from there."""
    service = await Service(tmp_path, **relays).start()
    try:
        a, b = await arrive(service.workers[0].url), await arrive(service.workers[0].url)
        pair = Pair(a, b, await meet(a, b))
        call_id = await pair.call("clear")
        async with redis.from_url(service.valkey.url) as raw:
            await raw.flushall()
        async with asyncio.timeout(PATIENCE):
            while "ok" not in (answer := await pair.ask(a, "call:set", callId=call_id, rung="voice")):
                assert answer["error"]["code"] == "unavailable"
                await asyncio.sleep(0.1)
        assert (await b.next("call:state"))["call"]["rung"] == "voice"
        await a.hang_up()
        state = await a.connect(claim=a.claim)
        assert state["conversation"]["call"]["call"]["rung"] == "voice"
        await asyncio.gather(a.hang_up(), b.hang_up())
    finally:
        await service.stop()


async def emptied(service: Service) -> None:
    async with redis.from_url(service.valkey.url) as raw:
        await raw.flushall()


@pytest.mark.parametrize("mode", ["video", "text"])
async def test_what_redis_and_every_worker_forgot_is_not_agreed_to_any_more(
    tmp_path: Path, relays: dict[str, str], mode: str
) -> None:
    """After a hang-up, all is restarted empty: both come back by their claims, to a conversation without a call."""
    service = await Service(tmp_path, **relays).start()
    try:
        url = service.workers[0].url
        a, b = await arrive(url), await arrive(url)
        pair = Pair(a, b, await meet(a, b, mode=mode))
        if mode == "video":
            call_id = a.pushes[-1][1]["conversation"]["call"]["call"]["id"]
            await pair.ask(a, "call:end", callId=call_id)
        await asyncio.gather(a.hang_up(), b.hang_up())
        await emptied(service)
        other = await service.add()
        for guest in (a, b):
            state = await guest.connect(other.url, claim=guest.claim)
            assert state["conversation"]["id"] == pair.conversation
            assert state["conversation"]["call"]["call"] is None
        assert (await pair.ask(a, "call:invite", rung="voice"))["ok"]["call"]["phase"] == "ringing"
        await asyncio.gather(a.hang_up(), b.hang_up())
    finally:
        await service.stop()


async def test_a_call_that_nobody_changed_yet_is_put_back_as_well(tmp_path: Path, relays: dict[str, str]) -> None:
    """It began with the match: Redis loses it, a worker still knows it, and the other one finds it."""
    service = await Service(tmp_path, **relays).start()
    try:
        a, b = await arrive(service.workers[0].url), await arrive(service.workers[0].url)
        conversation = await meet(a, b, mode="video")
        await emptied(service)
        async with redis.from_url(service.valkey.url) as raw, asyncio.timeout(PATIENCE):
            while await raw.hget(f"v:{{c0}}:conversation:{conversation}", "call_version") is None:
                await asyncio.sleep(0.05)
        await a.hang_up()
        state = await a.connect((await service.add()).url, claim=a.claim)
        assert state["conversation"]["call"]["call"]["open"]
        await asyncio.gather(a.hang_up(), b.hang_up())
    finally:
        await service.stop()


async def test_an_older_state_that_was_put_back_ends_the_call(tmp_path: Path, relays: dict[str, str]) -> None:
    """Rather than bring a consent back that was withdrawn in between."""
    service = await Service(tmp_path, **relays).start()
    try:
        a, b = await arrive(service.workers[0].url), await arrive((await service.add()).url)
        pair = Pair(a, b, await meet(a, b))
        call_id = await pair.call("clear")
        key = f"v:{{c0}}:conversation:{pair.conversation}"
        async with redis.from_url(service.valkey.url) as raw:
            before = await raw.hgetall(key)
            await pair.ask(a, "call:set", callId=call_id, rung="voice")
            await b.next("call:state", lambda push: push["call"]["rung"] == "voice")
            said = {guest: len(guest.pushes) for guest in (a, b)}
            await raw.hset(key, mapping=before)
        for guest in (a, b):
            told = await guest.next("call:state", lambda push: push["call"] is None)
            assert told["over"]["reason"] == "failed"
        for guest, already in said.items():
            rungs = {
                push["call"]["rung"] for name, push in guest.pushes[already:] if name == "call:state" and push["call"]
            }
            assert "clear" not in rungs
        assert "ok" in await pair.ask(a, "call:invite", rung="voice")
        await asyncio.gather(a.hang_up(), b.hang_up())
    finally:
        await service.stop()


async def test_descriptions_are_passed_on_at_a_browsers_pace(relayed: Pair) -> None:
    """Each makes the other side work; hundreds are refused for a while, and the call goes on."""
    pair = relayed
    call_id = await pair.call("voice")
    answers = [await pair.signal(pair.a, call_id, offer()) for _ in range(60)]
    refused = [answer["error"] for answer in answers if "error" in answer]
    assert len(refused) >= 10
    assert {error["code"] for error in refused} == {"rate_limited"}
    assert "ok" in await pair.signal(pair.b, call_id, offer())
    assert "ok" in await pair.signal(pair.a, call_id, {"kind": "candidate", "candidate": RELAYED})


async def test_a_relay_that_dies_is_started_anew(tmp_path: Path) -> None:
    """On the same port, with the same secret: credentials given out before go on working."""
    if not turn.available():
        missing("turnserver is missing")
    worker = await Worker(tmp_path, VISAVIS_TURN_URLS="", VISAVIS_PRIVATE_RECORDER="false", VISAVIS_ORIGINS="").start()
    try:
        assert worker.process is not None

        def relay() -> int | None:
            for child in Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "turnserver":
                    return int(child)
            return None

        first = relay()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while relay() in (None, first):
                await asyncio.sleep(0.05)
    finally:
        assert await worker.stop() == 0


async def test_metrics_count_calls_and_name_nobody(
    worker_with: WorkerWith, relays: dict[str, str], crowd: Crowd
) -> None:
    """Read from this machine; not through a proxy, nor without the token where there is one."""
    worker = await worker_with(**relays)
    a, b = await crowd.arrive(worker.url), await crowd.arrive(worker.url)
    pair = Pair(a, b, await crowd.meet(a, b))
    call_id = await pair.call()
    unknown = await pair.ask(a, "call:experience", callId=new_id(), what="connected", path="relay")
    assert unknown["error"]["code"] == "no_such_call"
    for _ in range(2):
        await pair.ask(a, "call:experience", callId=call_id, what="connected", path="relay", firstFrameMs=420)
    await pair.ask(b, "call:experience", callId=call_id, what="failed", cause="no_path")
    await pair.signal(a, call_id, {"kind": "candidate", "candidate": HOST})
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{worker.url}/metrics") as response:
            text = await response.text()
        async with session.get(f"{worker.url}/metrics", headers={"X-Forwarded-For": "127.0.0.1"}) as response:
            assert response.status == 404
        closed = await worker_with(**relays, VISAVIS_METRICS_TOKEN="m" * 20)
        for headers in ({}, {"Authorization": "Bearer é"}):
            async with session.get(f"{closed.url}/metrics", headers=headers) as response:
                assert response.status == 404
        port = free_port()
        public = await worker_with(**relays, VISAVIS_PORT=str(port), VISAVIS_ORIGINS=f"http://127.0.0.1:{port}")
        async with session.get(f"{public.url}/metrics") as response:
            assert response.status == 404
        async with session.get(f"{closed.url}/metrics", headers={"Authorization": "Bearer " + "m" * 20}) as response:
            assert response.status == 200
    for line in (
        'visavis_calls_started_total{media="video",origin="invitation"} 1.0',
        'visavis_calls_connected_total{path="relay"} 1.0',
        'visavis_call_failures_total{cause="no_path"} 1.0',
        "visavis_candidates_dropped_total 1.0",
        "visavis_call_first_frame_seconds_count 1.0",
    ):
        assert line in text
    assert a.created["profile"]["name"] not in text
