"""The Socket.IO door under clients that keep no rules: what each gets back, and that nobody else notices."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import pytest

from crowd import Crowd
from faults import clients_of, memory_of, within
from rig import PATIENCE, SECRETS, Guest, Worker, both, get_guest
from visavis.core.identity import new_id
from wire import Polls, Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]
MEGABYTE = 1_000_000


def pid_of(worker: Worker) -> int:
    assert worker.process is not None
    return worker.process.pid


def text(conversation: str, seq: int, words: Any, **changes: Any) -> dict[str, Any]:
    return {
        "conversationId": conversation,
        "id": new_id(),
        "seq": seq,
        "body": {"kind": "text", "text": words},
        **changes,
    }


async def code(answer: Awaitable[dict[str, Any]]) -> str:
    """The code an answer was refused with."""
    said: str = (await answer)["error"]["code"]
    return said


async def talk_wire(wire: Wire, crowd: Crowd) -> tuple[Guest, str]:
    """Bring a hand-written client into a conversation; returns the partner and the conversation."""
    await wire.push("session:state")
    assert "ok" in await wire.ask("match:find", {"mode": "text", "languages": [crowd.tongue]})
    partner = await crowd.arrive()
    await crowd.find(partner)
    found = await wire.push("match:found")
    await partner.next("match:found")
    return partner, found["conversation"]["id"]


# --------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("event", ["connect", "disconnect", "connect_error", "*", "message", "match:found", ""])
async def test_an_event_that_is_no_request_is_refused_and_changes_nothing(
    worker: Worker, crowd: Crowd, event: str
) -> None:
    """Reserved names above all: they would run the server's own handlers."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        partner, conversation = await talk_wire(wire, crowd)
        assert await code(wire.ask(event, {})) == "unknown_event"
        assert "ok" in await wire.ask("chat:message", text(conversation, 1, "still here"))
        assert (await partner.next("chat:message"))["body"]["text"] == "still here"
        assert (await partner.say(conversation, 1, "so am I"))["ok"]
        assert (await wire.push("chat:message"))["body"]["text"] == "so am I"


async def test_whatever_the_contract_does_not_say_is_refused_to_the_sender_alone(worker: Worker, crowd: Crowd) -> None:
    """Unknown fields, wrong types, NaN, deep JSON, huge numbers, lone surrogates: the partner hears none of it."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        partner, conversation = await talk_wire(wire, crowd)
        good = json.dumps(text(conversation, 1, "x"))
        bad = [
            good[:-1] + ', "more": 1}',
            good.replace('"seq": 1', '"seq": NaN'),
            good.replace('"seq": 1', '"seq": Infinity'),
            good.replace('"seq": 1', '"seq": 1' + "0" * 400),
            good.replace('"seq": 1', '"seq": 1e999'),
            good.replace('"seq": 1', '"seq": 1.5'),
            good.replace('"seq": 1', '"seq": -1'),
            good.replace('"seq": 1', '"seq": "1"'),
            good.replace('"x"', '"\\ud800"'),
            good.replace('"x"', '"\\udc00\\ud800"'),
            good.replace('"x"', '"' + "x" * 4001 + '"'),
            good.replace('"x"', '{"$ne": 1}'),
            good.replace('"x"', "[" * 30_000 + "]" * 30_000),
            good.replace('"text": "x"', '"text": "x", "replyTo": ' + '{"a":' * 9000 + "1" + "}" * 9000),
            good.replace('"kind": "text"', '"kind": "html"'),
            "null",
            "[]",
            '"text"',
            good + good,
            "{",
        ]
        for body in bad:
            assert await code(wire.ask_raw(f'["chat:message",{body}]')) == "bad_request", body[:80]
        for call in ("[]", "[1,{}]", '["chat:message"]', '["chat:message",{},{}]', "[" * 30_000, "[NaN]"):
            assert await code(wire.ask_raw(call)) == "bad_request", call[:80]
        assert "ok" in await wire.ask("chat:message", text(conversation, 1, "after all that"))
        assert (await partner.next("chat:message"))["body"]["text"] == "after all that"
        assert [name for name, _ in partner.pushes if name.startswith("chat:")] == ["chat:message"]


async def test_difficult_text_arrives_as_it_was_written(crowd: Crowd) -> None:
    """Right-to-left overrides, stacked marks, zero widths, a null and an emoji family are somebody's words."""
    a, b, conversation = await crowd.pair()
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    hard = ("\u202eevil\u202c", "Z" + "\u0301" * 200, "\u200b\u2060", "a\0b", family, "\ufeff")
    for seq, words in enumerate(hard, 1):
        assert "ok" in await a.say(conversation, seq, words)
        assert (await b.next("chat:message"))["body"]["text"] == words


@both
async def test_binary_packets_are_refused_and_cost_no_memory(worker: Worker, crowd: Crowd) -> None:
    """Neither a promise of half a billion attachments nor a bomb of placeholders is ever put together."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        partner, conversation = await talk_wire(wire, crowd)
        before = memory_of(pid_of(worker))
        for number in range(1, 40):
            await wire.send(f'45459999999999-{number}["chat:message",{{"_placeholder":true,"num":0}}]')
            refused = json.loads((await wire.receive(f"43{number}["))[len(f"43{number}") :])
            assert refused == [{"error": {"code": "binary_refused"}}]
            await wire.send(b"\0" * 60_000)
        bomb = ",".join(['{"_placeholder":true,"num":0}'] * 2000)
        await wire.send(f'451-99["chat:message",[{bomb}]]')
        await wire.send(b"x" * 60_000)
        await wire.send('461-1[{"_placeholder":true,"num":0}]')
        assert "ok" in await wire.ask("chat:message", text(conversation, 1, "plain words"))
        assert (await partner.next("chat:message"))["body"]["text"] == "plain words"
        assert memory_of(pid_of(worker)) - before < 20 * MEGABYTE


@pytest.mark.parametrize(
    "packet",
    [
        *("", "x", "9", "4", "4[[[[", "4" + "[" * 30_000, "4{}", "42", "43[]", "431[]", "49", "7", "0", "4/x"),
        *("40/x,", "40/x,{", "41/x,", "2", "2probe", "5", "6"),
    ],
    ids=lambda packet: packet[:9],
)
async def test_a_packet_without_meaning_harms_only_its_sender(worker: Worker, crowd: Crowd, packet: str) -> None:
    """The sender goes on or is cut off at once; it is never left half connected, and nothing unexpected is logged."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        partner, conversation = await talk_wire(wire, crowd)
        logged = len(worker.logged())
        await wire.send(packet)
        try:
            assert "ok" in await wire.ask("chat:message", text(conversation, 1, "unharmed"))
        except (ConnectionError, aiohttp.ClientError):
            assert (await partner.next("conversation:partner", timeout=2))["state"] == "away"
        else:
            assert (await partner.next("chat:message"))["body"]["text"] == "unharmed"
        assert not [line for line in worker.logged()[logged:] if line["level"] == "error"]


async def test_every_request_about_a_conversation_one_is_not_in_is_refused(crowd: Crowd) -> None:
    """A stranger who learned the id can say nothing there and learns nothing; leaving it leaves it as it was."""
    a, b, conversation = await crowd.pair()
    stranger = await crowd.arrive()
    about = {"conversationId": conversation}
    for event, request in (
        ("chat:message", text(conversation, 1, "let me in")),
        ("chat:receipt", {**about, "delivered": 1, "read": 1}),
        ("chat:typing", {**about, "typing": True}),
        ("safety:block", about),
        ("safety:report", {**about, "reason": "spam"}),
    ):
        assert await code(stranger.ask(event, request)) == "not_in_conversation", event
    assert "ok" in await stranger.ask("conversation:leave", about)
    assert "ok" in await a.say(conversation, 1, "alone at last")
    assert (await b.next("chat:message"))["body"]["text"] == "alone at last"
    assert {name for name, _ in b.pushes if not name.startswith("lobby")} == {
        "session:state",
        "match:found",
        "chat:message",
    }


@both
async def test_a_burst_of_one_sender_arrives_in_its_order(crowd: Crowd) -> None:
    """Two hundred messages sent without waiting for an answer come out as they went in."""
    a, b, conversation = await crowd.pair()
    await asyncio.gather(*(a.say(conversation, n, f"{n}") for n in range(1, 201)))
    for n in range(1, 201):
        assert (await b.next("chat:message"))["seq"] == n


# --------------------------------------------------------------------------- how much is asked


async def test_haste_is_refused_with_a_time_to_wait_that_is_true(worker_with: WorkerWith, crowd: Crowd) -> None:
    """After the wait it was told, the client is heard again."""
    slow = await worker_with(VISAVIS_BUCKET_SIZE="10", VISAVIS_BUCKET_PER_SECOND="2")
    async with Wire(slow.url) as wire:
        await wire.open(auth_of(await get_guest(slow.url)))
        answers = [await wire.ask("match:cancel", {})]
        while "ok" in answers[-1]:
            answers.append(await wire.ask("match:cancel", {}))
        assert len(answers) > 1
        refused = answers[-1]["error"]
        assert refused["code"] == "rate_limited"
        await asyncio.sleep(refused["retryInMs"] / 1000)
        assert "ok" in await wire.ask("match:cancel", {})


@both
async def test_a_flood_is_cut(worker_with: WorkerWith) -> None:
    """Whatever it is made of, also when it stays below what a bucket's refilling forgives now and then."""
    slow = await worker_with(VISAVIS_BUCKET_SIZE="10", VISAVIS_BUCKET_PER_SECOND="20")

    async def flood(packet: str) -> None:
        async with Wire(slow.url) as wire:
            await wire.open(auth_of(await get_guest(slow.url)))
            cut = asyncio.create_task(wire.closed(timeout=5))
            while not cut.done():
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    for _ in range(20):
                        await wire.send(packet)
                await asyncio.sleep(0.02)
            await cut

    packets = '42["chat:typing",{}]', "42[", '42["nothing",1]', "42{}", "431[]", '40{"token":"x"}', '451-["x"]', "4/"
    await asyncio.gather(*map(flood, packets))


@both
async def test_who_is_never_admitted_is_cut_as_well(worker_with: WorkerWith) -> None:
    """Trying one token after another takes a new connection before long."""
    slow = await worker_with(VISAVIS_BUCKET_SIZE="10", VISAVIS_BUCKET_PER_SECOND="20")
    async with Wire(slow.url) as wire:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            for _ in range(1000):
                await wire.send('40{"token":"x"}')
        await wire.closed()


@both
async def test_an_oversize_frame_closes_with_1009(worker: Worker) -> None:
    """Too large a frame is not gathered up first."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        async with Wire(worker.url) as abuser:
            await abuser.open(auth_of(await get_guest(worker.url)))
            await abuser.send('421["chat:message",{"text":"' + "x" * 65_536)
            assert await abuser.closed() == 1009
        before = memory_of(pid_of(worker))
        for _ in range(20):
            async with Wire(worker.url) as abuser:
                await abuser.open(auth_of(await get_guest(worker.url)))
                # So much is still on its way when the server hangs up that the code may not come through.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await abuser.send('421["chat:message",{"text":"' + "x" * 4 * MEGABYTE)
                await abuser.closed()
        assert memory_of(pid_of(worker)) - before < 20 * MEGABYTE
        assert "ok" in await wire.ask("match:cancel", {})


@both
async def test_a_reader_who_does_not_read_is_cut_at_the_cap(worker_with: WorkerWith, crowd: Crowd) -> None:
    """Directly or after an upgrade from polling; memory stays bounded and no socket is left behind."""
    capped = await worker_with(
        VISAVIS_MAX_QUEUE_BYTES="300000", VISAVIS_BUCKET_SIZE="1000000", VISAVIS_BUCKET_PER_SECOND="1000000"
    )
    for upgrade in (False, True):
        talker = await crowd.arrive(capped.url)
        created = await get_guest(capped.url)
        async with Polls(capped.url) as polls:
            if upgrade:
                await polls.open(auth_of(created))
            port = int(capped.url.rpartition(":")[2])
            clients = clients_of(pid_of(capped), port)
            assert clients > 0
            wire = Wire(capped.url, sid=polls.sid if upgrade else None)
            async with wire:
                if upgrade:
                    await wire.send("2probe")
                    await wire.receive("3probe")
                    await wire.send("5")
                else:
                    await wire.open(auth_of(created))
                assert "ok" in await wire.ask("match:find", {"mode": "text", "languages": [crowd.tongue]})
                await crowd.find(talker)
                await wire.push("match:found")
                conversation = (await talker.next("match:found"))["conversation"]["id"]
                before = memory_of(pid_of(capped))
                # From here on the wire is not read. The kernel's buffers fill first, then the queue.
                away = asyncio.create_task(talker.next("conversation:partner", timeout=20))
                seq = 0
                while not away.done():
                    seq += 1
                    assert seq < 20_000, "never cut"
                    await talker.say(conversation, seq, "x" * 4000)
                assert (await away)["state"] == "away"
                assert memory_of(pid_of(capped)) - before < 20 * MEGABYTE
                async with within(5), asyncio.timeout(PATIENCE):
                    while clients_of(pid_of(capped), port) > clients:
                        await asyncio.sleep(0.05)
        await talker.ask("conversation:leave", {"conversationId": conversation})


# --------------------------------------------------------------------------- polling


@both
async def test_a_poll_with_too_many_packets_is_refused_whole(worker: Worker, crowd: Crowd) -> None:
    """64 packets are delivered; 65, or too many bytes, are answered 413 and never 200."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        assert await polls.post(f'420["match:find",{{"mode":"text","languages":["{crowd.tongue}"]}}]') == 200
        partner = await crowd.arrive()
        await crowd.find(partner)
        conversation = (await partner.next("match:found"))["conversation"]["id"]

        def packets(start: int, count: int) -> list[str]:
            return [
                "42" + json.dumps(["chat:message", text(conversation, n, "x")]) for n in range(start, start + count)
            ]

        assert await polls.post(*packets(1, 64)) == 200
        assert await polls.post(*packets(100, 65)) == 413
        assert await polls.post("42" + json.dumps(["chat:message", text(conversation, 200, "x" * 70_000)])) == 413
        assert await polls.post(*packets(65, 1)) == 200
        for n in range(1, 66):
            assert (await partner.next("chat:message"))["seq"] == n


@both
async def test_a_polling_body_without_end_is_refused_early(worker: Worker) -> None:
    """A body that never says its length is refused at the limit, not kept, and its connection soon closed."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        before = memory_of(pid_of(worker))
        address = urlsplit(polls.address)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(
            f"POST {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(6):
                while True:
                    writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                    await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert (await reader.readline()).split()[1] == b"413"
        writer.close()
        assert memory_of(pid_of(worker)) - before < 20 * MEGABYTE


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"", b"42[]\x1e\x1e42[]", b"x", b"2", b"5", b"d=42[]", b"d=%1e%1e", b"\x1e"]
)
async def test_a_polling_body_that_cannot_be_read_is_never_answered_as_received(worker: Worker, body: bytes) -> None:
    """What is not understood is not confirmed, and the session ends instead of hanging."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        assert await polls.post_raw(body) == 400
        assert await polls.post("3") == 400


@both
async def test_binary_in_a_polling_body_is_refused_and_the_rest_is_heard(worker: Worker) -> None:
    """Also when it is no base64 at all."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        ask = '423["match:cancel",{}]'
        assert await polls.post('4511-1["x",{"_placeholder":true,"num":0}]', "bAAAA", "b!", ask) == 200
        assert await polls.receive("431[") == '431[{"error":{"code":"binary_refused"}}]'
        assert await polls.receive("433[") == '433[{"ok":{}}]'


@both
async def test_an_upgrade_that_breaks_off_leaves_polling_as_it_was(worker: Worker, crowd: Crowd) -> None:
    """A proxy that swallows websockets must not cost the client its polling."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        for words in ((), ("2probe",), ("x",), ("2probe", "x")):
            async with Wire(worker.url, sid=polls.sid) as wire:
                for word in words:
                    await wire.send(word)
            ask = f'427["match:find",{{"mode":"text","languages":["{crowd.tongue}"]}}]'
            assert await polls.post(ask) == 200
            assert (await polls.receive("437[")).startswith('437[{"ok":')
        async with within(2):
            partner = await crowd.arrive()
            await crowd.find(partner)
            await polls.receive('42["match:found"')


@both
async def test_a_poll_that_waits_ends_with_its_session(worker: Worker) -> None:
    """The client said goodbye; its last poll must not keep its process for another ping."""
    for goodbye in (("41", "1"), ("1",)):
        async with Polls(worker.url) as polls:
            await polls.open(auth_of(await get_guest(worker.url)))
            await polls.receive('42["session:state"')
            waiting = asyncio.create_task(polls.poll())
            await asyncio.sleep(0.1)
            async with within(2):
                assert await polls.post(*goodbye) == 200
                await waiting


async def test_polls_cannot_be_read_by_a_foreign_script(worker: Worker) -> None:
    """JSONP is refused: a script tag needs no permission from anybody."""
    async with Polls(worker.url) as polls, polls.session.get(polls.address + "&j=0") as response:
        assert response.status == 400


@both
async def test_a_second_poll_on_one_session_ends_it_at_once(worker: Worker) -> None:
    """One of the two is a thief's; neither may go on."""
    async with Polls(worker.url) as polls:
        await polls.open(auth_of(await get_guest(worker.url)))
        await polls.receive('42["session:state"')
        # The lobby may have something to say; what matters is a poll that waits.
        first = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.1)
        while first.done():
            first = asyncio.create_task(polls.poll())
            await asyncio.sleep(0.1)
        async with within(2):
            assert (await polls.poll())[0] == 400
            await first
        assert (await polls.poll())[0] == 400
        assert await polls.post("3") == 400


# --------------------------------------------------------------------------- who asks


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://127.0.0.1"])
async def test_a_foreign_page_is_refused(worker: Worker, origin: str) -> None:
    """By websocket and by polling, whatever host a proxy header claims."""
    for transport in ("websocket", "polling"):
        address = f"{worker.url}/socket.io/?EIO=4&transport={transport}"
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        headers = {"Origin": origin, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        if transport == "websocket":
            headers |= {**upgrade, **key}
        async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as response:
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "origin_refused"
            assert "Access-Control-Allow-Origin" not in response.headers


async def test_ones_own_page_is_welcome_and_no_page_still_needs_a_token(worker: Worker) -> None:
    """A program without an Origin is no browser, but it has to be somebody."""
    async with Wire(worker.url, origin=worker.url) as wire:
        assert "sid" in await wire.open(auth_of(await get_guest(worker.url)))
    for auth in ({}, {"token": ""}, {"contract": "x"}, None, [], "x", 1, {"token": "x", "contract": 1}):
        async with Wire(worker.url) as wire:
            assert (await wire.open(auth))["data"]["code"] == "token_invalid", auth


async def test_a_page_of_another_contract_is_told_so(worker: Worker) -> None:
    """Its tab reloads then."""
    created = await get_guest(worker.url)
    async with Wire(worker.url) as wire:
        refused = await wire.open(auth_of(created, contract="0" * 12))
        assert refused["data"]["code"] == "stale_client"
        assert refused["data"]["contract"] == auth_of(created)["contract"]


async def test_false_and_old_tokens_are_told_apart(worker: Worker) -> None:
    """An old one sends the client for a new guest, a false one means trouble; a device token is no guest's."""
    created = await get_guest(worker.url)
    payload = jwt.decode(created["token"], options={"verify_signature": False})
    header = jwt.get_unverified_header(created["token"])
    key = SECRETS.split(":")[1]

    def forged(with_key: str = key, **changes: Any) -> str:
        return jwt.encode({**payload, **changes}, with_key, algorithm="HS256", headers=header)

    head, body, signature = created["token"].split(".")
    for token, expected in (
        (forged(exp=int(time.time()) - 301), "session_expired"),
        (forged("x" * 40), "token_invalid"),
        (forged(aud="another"), "token_invalid"),
        (f"{head}.{body}.{signature[:-4]}AAAA", "token_invalid"),
        (f"{head}.{body}.", "token_invalid"),
        (created["device"], "token_invalid"),
        ("x", "token_invalid"),
        ("x" * 5000, "token_invalid"),
        ("\ud800", "token_invalid"),
        ("é.é.é", "token_invalid"),
    ):
        async with Wire(worker.url) as wire:
            refused = await wire.open(json.dumps(auth_of(created, token=token)))
            assert refused["data"]["code"] == expected, token[:60]


async def test_a_second_connect_packet_is_ignored(worker: Worker, crowd: Crowd) -> None:
    """One socket stays one guest, however often it introduces itself."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        partner, conversation = await talk_wire(wire, crowd)
        other = await get_guest(worker.url)
        await wire.send("40" + json.dumps(auth_of(other)))
        assert "ok" in await wire.ask("chat:message", text(conversation, 1, "it is still me"))
        assert (await partner.next("chat:message"))["body"]["text"] == "it is still me"


@both
async def test_the_newest_connection_wins_and_the_old_one_is_told(worker: Worker, crowd: Crowd) -> None:
    """The seat comes along, the partner goes on talking, and the old connection ends."""
    created = await get_guest(worker.url)
    async with Wire(worker.url) as old, Wire(worker.url) as new:
        await old.open(auth_of(created))
        partner, conversation = await talk_wire(old, crowd)
        await new.open(auth_of(created))
        state = await new.push("session:state")
        assert state["conversation"]["id"] == conversation
        await old.push("session:replaced")
        await old.receive("41")
        assert await old.closed() == 1000
        assert "ok" in await partner.say(conversation, 1, "which of you?")
        assert (await new.push("chat:message"))["body"]["text"] == "which of you?"


@both
async def test_the_old_connection_is_told_also_when_it_was_not_polling_just_then(worker: Worker) -> None:
    """It would take a bare refusal for a bad network, and come back to take the guest away from the new page."""
    created = await get_guest(worker.url)
    async with Polls(worker.url) as old, Wire(worker.url) as new:
        await old.open(auth_of(created))
        await old.receive('42["session:state"')
        await new.open(auth_of(created))
        await new.push("session:state")
        assert await old.post('421["match:cancel",{}]') == 400
    async with Polls(worker.url) as old, Wire(worker.url) as new:
        await old.open(auth_of(created))
        await new.open(auth_of(created))
        await new.push("session:state")
        await old.receive('42["session:replaced"')
        await old.receive("41")


async def test_a_guest_is_never_matched_with_itself(worker: Worker, crowd: Crowd) -> None:
    """Two searching tabs with one token are one guest."""
    created = await get_guest(worker.url)
    async with Wire(worker.url) as old, Wire(worker.url) as new:
        await old.open(auth_of(created))
        assert "ok" in await old.ask("match:find", {"mode": "text", "languages": [crowd.tongue]})
        await new.open(auth_of(created))
        assert "ok" in await new.ask("match:find", {"mode": "text", "languages": [crowd.tongue]})
        with pytest.raises(TimeoutError):
            await new.push("match:found", timeout=0.5)


# --------------------------------------------------------------------------- who is gone


@both
async def test_a_half_open_client_is_gone_after_the_ping_timeout(worker_with: WorkerWith, crowd: Crowd) -> None:
    """The network took it without a word; the partner is told."""
    quick = await worker_with(VISAVIS_PING_INTERVAL="0.4", VISAVIS_PING_TIMEOUT="0.4")
    async with Wire(quick.url) as wire:
        await wire.open(auth_of(await get_guest(quick.url)))
        partner, _ = await talk_wire(wire, crowd)
        wire.answering = False
        async with within(3):
            assert (await partner.next("conversation:partner"))["state"] == "away"


async def test_who_never_introduces_itself_is_shown_out(worker_with: WorkerWith) -> None:
    """A socket without a guest answers pings for ever, and counts for nothing."""
    quick = await worker_with(VISAVIS_PING_INTERVAL="0.4", VISAVIS_PING_TIMEOUT="0.4")
    async with Wire(quick.url) as wire:
        await wire.closed(timeout=5)


async def test_connections_beyond_the_limit_are_told_to_wait(worker_with: WorkerWith) -> None:
    """The one who fits in stays; the next is told when to try again, and fits in once there is room."""
    small = await worker_with(VISAVIS_MAX_CONNECTIONS="1")
    async with Wire(small.url) as one:
        await one.open(auth_of(await get_guest(small.url)))
        async with Wire(small.url) as two:
            refused = (await two.open(auth_of(await get_guest(small.url))))["data"]
            assert refused["code"] == "busy"
            assert refused["retryInMs"] > 0
        assert "ok" in await one.ask("match:cancel", {})
    async with within(5), asyncio.timeout(PATIENCE):
        while True:
            async with Wire(small.url) as two:
                if "sid" in await two.open(auth_of(await get_guest(small.url))):
                    break
