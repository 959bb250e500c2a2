"""Engine.IO as its protocol has it, over both carriers: sessions, pings, and the change from polling to a WebSocket.

In our own words after https://github.com/socketio/socket.io/blob/main/docs/engine.io-protocol/v4-current.md; what is
refused on purpose is in docs/protocol.md. Nobody is on top of the carriers here but an echo.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from echo import CARRIERS, Echo, echo
from faults import within
from frames import CLOSE, NORMAL, TEXT, Line, close, frame
from wire import Polls, Wire

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.parametrize("transport", CARRIERS)]

HURRY = {"ping_interval": 0.5, "ping_timeout": 0.5}


@pytest_asyncio.fixture(loop_scope="session")
async def host(transport: str) -> AsyncIterator[Echo]:
    """An echo that pings so seldom that no test sees it."""
    async with echo(transport) as running:
        yield running


async def heard(host: Echo, *messages: str | None) -> None:
    """Wait until the newest session's client has said just this."""
    async with asyncio.timeout(5):
        while len(host.sessions[-1].messages) < len(messages):
            await asyncio.sleep(0.01)
    assert host.sessions[-1].messages == list(messages)


async def ended(host: Echo) -> None:
    """Wait until every session has ended; each ends once."""
    async with asyncio.timeout(5):
        while host.open:
            await asyncio.sleep(0.01)
    assert [one.ends for one in host.sessions] == [1] * len(host.sessions)


async def upgraded(wire: Wire) -> None:
    """Go over to a WebSocket that is being tried out."""
    await wire.send("2probe")
    assert await wire.receive("") == "3probe"
    await wire.send("5")


# --------------------------------------------------------------------------- beginning


@pytest.mark.parametrize("way", ["polling", "websocket"])
async def test_a_session_begins_with_all_a_client_has_to_know(transport: str, way: str) -> None:
    """Its id, what it may change to, when to expect pings, and how much it may send at once."""
    # Whole seconds: python-engineio tells clients no others.
    async with echo(transport, ping_interval=2.0, ping_timeout=1.0, max_frame_bytes=5000) as host:
        if way == "polling":
            async with aiohttp.ClientSession() as client:
                address = f"{host.url}/socket.io/?EIO=4&transport=polling"
                async with client.get(address) as response:
                    assert response.headers["Content-Type"].lower() == "text/plain; charset=utf-8"
                    packet = await response.text()
        else:
            async with Wire(host.url) as wire:
                packet = await wire.receive("0")
        assert packet.startswith("0")
        opened = json.loads(packet[1:])
        assert len(opened.pop("sid")) >= 20
        assert opened == {
            "upgrades": ["websocket"] if way == "polling" else [],
            "pingInterval": 2000,
            "pingTimeout": 1000,
            "maxPayload": 5000,
        }


async def test_no_two_sessions_have_the_same_id(host: Echo) -> None:
    """It is all that a poll shows."""
    async with contextlib.AsyncExitStack() as stack:
        polls = [await stack.enter_async_context(Polls(host.url)) for _ in range(50)]
        assert len({one.sid for one in polls}) == 50


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", "transport=polling"),
        ("GET", "EIO=3&transport=polling"),
        ("GET", "EIO=abc&transport=polling"),
        ("GET", "EIO=4"),
        ("GET", "EIO=4&transport=abc"),
        ("GET", "EIO=4&transport=webtransport"),
        ("GET", "EIO=4&transport=websocket"),
        ("GET", "EIO=4&transport=polling&sid=abc"),
        ("GET", "EIO=4&transport=websocket&sid=abc"),
        ("GET", "EIO=4&transport=polling&sid=%00%ff"),
        ("POST", "EIO=4&transport=polling"),
        ("POST", "EIO=4&transport=polling&sid=abc"),
        ("POST", "EIO=4&transport=websocket"),
        ("PUT", "EIO=4&transport=polling"),
        ("DELETE", "EIO=4&transport=polling&sid=abc"),
    ],
)
async def test_what_opens_no_session_is_refused_and_opens_none(host: Echo, method: str, query: str) -> None:
    """By 400, whatever is wrong with it."""
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, f"{host.url}/socket.io/?{query}", data="4x") as response,
    ):
        assert response.status == 400
    assert not host.sessions


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Upgrade", "h2c"),
        ("Upgrade", None),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Version", None),
        ("Sec-WebSocket-Key", "abc"),
        ("Sec-WebSocket-Key", None),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["tried-out", "new"])
async def test_what_opens_no_websocket_is_refused(host: Echo, header: str, value: str | None, known: bool) -> None:
    """RFC 6455, 4.2.1; a session that polls goes on polling."""
    headers: dict[str, Any] = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        header: value,
    }
    async with Polls(host.url) as polls, aiohttp.ClientSession() as client:
        address = f"{host.url}/socket.io/?EIO=4&transport=websocket" + (f"&sid={polls.sid}" if known else "")
        sent = {name: text for name, text in headers.items() if text is not None}
        async with client.get(address, headers=sent) as response:
            assert response.status == 400
        assert await polls.post("4still here") == 200
        assert await polls.poll() == (200, ["4still here"])
    assert host.open == 1


async def test_the_opening_of_a_websocket_is_answered_with_the_keys_digest(host: Echo) -> None:
    """RFC 6455's own example; and nothing is agreed to that was not asked for."""
    async with aiohttp.ClientSession() as client:
        headers = {
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "WebSocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
            "Sec-WebSocket-Protocol": "chat",
        }
        async with client.get(f"{host.url}/socket.io/?EIO=4&transport=websocket", headers=headers) as response:
            assert response.status == 101
            assert response.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert response.headers["Upgrade"].lower() == "websocket"
            assert response.headers["Connection"].lower() == "upgrade"
            assert "Sec-WebSocket-Extensions" not in response.headers
            assert "Sec-WebSocket-Protocol" not in response.headers
            response.close()


async def test_a_page_that_may_connect_from_elsewhere_is_told_so(transport: str) -> None:
    """A browser asks first, and reads polls only with leave; a cookie or the like may come along."""
    origin = "https://page.example"
    async with (
        echo(transport, origins=(origin,)) as host,
        Polls(host.url, origin=origin) as polls,
        polls.session.options(
            polls.address, headers={"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-y"}
        ) as allowed,
        polls.session.get(polls.address.partition("&sid")[0]) as response,
    ):
        assert allowed.status == 200
        for answer in (allowed, response):
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"


# --------------------------------------------------------------------------- saying and hearing


async def test_packets_of_one_body_are_heard_in_order_and_answered_in_one_poll(host: Echo) -> None:
    """Separated by the record separator, in both directions; and a body is confirmed by `ok`."""
    async with Polls(host.url) as polls:
        async with polls.session.post(polls.address, data="4a\x1e4b é\x1e4\x1e4d") as response:
            assert (response.status, await response.text()) == (200, "ok")
        assert await polls.poll() == (200, ["4a", "4b é", "4", "4d"])


async def test_over_a_websocket_the_separator_is_a_character_like_any_other(host: Echo) -> None:
    """Each packet has a frame of its own there."""
    async with Wire(host.url) as wire:
        await wire.send("4a\x1e4b")
        assert await wire.receive("4") == "4a\x1e4b"
    assert host.sessions[0].messages == ["a\x1e4b"]


async def test_a_poll_waits_until_there_is_something_to_say(host: Echo) -> None:
    """And then comes at once."""
    async with Polls(host.url) as polls:
        waiting = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        host.sessions[0].session.send(b"now")
        async with within(1):
            assert await waiting == (200, ["4now"])


async def test_a_message_that_takes_its_time_holds_back_the_next_and_its_own_confirmation(host: Echo) -> None:
    """Requests of one client run in order, over either way."""
    async with Polls(host.url) as polls, Wire(host.url) as wire:
        await wire.receive("0")
        for session, say in zip(host.sessions, (polls.post, wire.send), strict=True):
            go_on = asyncio.Event()
            session.work = lambda message, go_on=go_on: go_on.wait() if message == "slow" else None  # type: ignore[assignment]
            saying = asyncio.create_task(say("4slow"))
            async with asyncio.timeout(5):
                while not session.messages:
                    await asyncio.sleep(0.01)
            if say == wire.send:
                await wire.send("4next")
            await asyncio.sleep(0.1)
            assert session.messages == ["slow"]
            assert saying.done() is (say == wire.send)
            go_on.set()
            assert await saying in (200, None)
        assert await polls.post("4next") == 200
        async with asyncio.timeout(5):
            while not all(session.messages == ["slow", "next"] for session in host.sessions):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "goodbye", [frame(TEXT, b"1") + frame(TEXT, b"4after"), close(NORMAL), b""], ids=["1", "close", "broken off"]
)
async def test_what_was_said_before_a_goodbye_is_heard_though_it_had_to_wait(
    host: Echo, transport: str, goodbye: bytes
) -> None:
    """Who says a last thing and goes was told that it could; and nobody is gone before it has been heard."""
    go_on = asyncio.Event()
    async with Line(host.url) as line:
        await line.hear_text("0")
        heard = host.sessions[0]
        heard.work = lambda message: go_on.wait() if message == "slow" else None  # type: ignore[assignment,return-value]
        line.send(frame(TEXT, b"4slow") + frame(TEXT, b"4last") + goodbye)
        async with asyncio.timeout(5):
            while not heard.messages:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        # python-engineio does not even read it meanwhile.
        while transport == "fast" and not heard.session.closed:
            await asyncio.sleep(0.01)
    go_on.set()
    await ended(host)
    assert heard.messages == ["slow", "last"]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_who_has_gone_is_heard_no_further_once_we_end_it(host: Echo, transport: str, how: str) -> None:
    """What a client left behind keeps nobody busy who has had enough of it."""
    go_on = asyncio.Event()
    async with Line(host.url) as line:
        await line.hear_text("0")
        heard = host.sessions[0]
        heard.work = lambda message: go_on.wait()  # type: ignore[assignment,return-value]
        line.send(frame(TEXT, b"4slow") + frame(TEXT, b"4last") + frame(TEXT, b"1"))
        async with asyncio.timeout(5):
            while not heard.messages or (transport == "fast" and not heard.session.closed):
                await asyncio.sleep(0.01)
    try:
        if how == "close":
            heard.session.close(told=True)
        else:
            heard.session.abort()
        await ended(host)
    finally:
        go_on.set()
    assert heard.messages == ["slow"]


async def test_two_bodies_at_once_on_one_session_end_it(host: Echo) -> None:
    """Nobody could tell which of them comes first."""
    async with Polls(host.url) as polls:
        go_on = asyncio.Event()
        host.sessions[0].work = lambda message: go_on.wait()  # type: ignore[assignment,return-value]
        first = asyncio.create_task(polls.post("4a"))
        await heard(host, "a")
        async with within(2):
            assert await polls.post("4b") == 400
            await ended(host)
        go_on.set()
        assert await first in (200, 400)
        assert await polls.post("4c") == 400
        assert host.sessions[0].messages == ["a"]


async def test_two_polls_at_once_on_one_session_end_it(host: Echo) -> None:
    """The one that waited is told that it is over; the other is refused."""
    async with Polls(host.url) as polls:
        first = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.1)
        async with within(2):
            assert (await polls.poll())[0] == 400
            assert await first == (200, ["1"])
        await ended(host)
        assert (await polls.poll())[0] == 400
        assert await polls.post("3") == 400


@pytest.mark.parametrize("packet", ["", "x", "0", "2", "5", "6", "7", "2x", "3x", "1x", "33", "b"])
async def test_a_packet_that_no_client_may_send_ends_a_websockets_session(host: Echo, packet: str) -> None:
    """What came before it has been heard; what comes after it is not."""
    async with Line(host.url) as line:
        await line.hear_text("0")
        line.send(b"".join(frame(TEXT, text.encode()) for text in ("4before", packet, "4after")))
        assert (await line.rest())[-1].kind == CLOSE
        await ended(host)
    assert host.sessions[0].messages == ["before"]


# --------------------------------------------------------------------------- what is not read


async def test_a_socket_that_was_full_before_the_upgrade_has_a_cap_all_the_same(transport: str) -> None:
    """Of earlier answers, aiohttp lets 64 kB go unread; what crosses that is the answer to the upgrade."""
    host, app = Echo(), web.Application()
    carrier = CARRIERS[transport](
        origins=("x",), ping_interval=15.0, ping_timeout=10.0, max_frame_bytes=65_536, max_queue_bytes=200_000
    )
    carrier.attach(app, host)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bytes(int(request.query["bytes"])))

    app.router.add_get("/answer", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    assert runner.server is not None
    reader, writer = await asyncio.open_connection(*runner.addresses[0], limit=1)
    try:
        # From here on nothing is read.
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        server, asked, unread = runner.server, 0, 0
        while (room := 65_536 - 40 - unread) > 200:
            asked += 1
            writer.write(b"GET /answer?bytes=%d HTTP/1.1\r\nHost: x\r\n\r\n" % max(0, min(60_000, room) - 200))
            async with asyncio.timeout(5):
                while server.requests_count < asked:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
            (protocol,) = server.connections
            assert protocol.transport is not None
            unread = protocol.transport.get_write_buffer_size()
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(5):
            while not host.sessions:
                await asyncio.sleep(0.01)
        for _ in range(50):
            host.sessions[0].session.send(b"x" * 10_000)
            await asyncio.sleep(0)
        await ended(host)
        assert host.sessions[0].was_behind
    finally:
        writer.transport.abort()
        await carrier.stop()
        await runner.cleanup()


# --------------------------------------------------------------------------- pings


@pytest.mark.parametrize("way", ["polling", "websocket"])
async def test_who_answers_pings_stays_and_who_does_not_is_gone_in_time(transport: str, way: str) -> None:
    """One ping an interval; from the unanswered one on it takes no longer than the time allowed."""
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        host = await stack.enter_async_context(echo(transport, **HURRY))
        client = await stack.enter_async_context(Polls(host.url) if way == "polling" else Wire(host.url))
        if isinstance(client, Wire):
            await client.receive("0")
            client.answering = False
        began = loop.time()
        for number in (1, 2, 3):
            if isinstance(client, Polls):
                assert await client.poll() == (200, ["2"])
                assert number - 0.2 < (loop.time() - began) * 2
                if number < 3:
                    assert await client.post("3") == 200
            else:
                assert await client.receive("") == "2"
                assert number - 0.2 < (loop.time() - began) * 2
                if number < 3:
                    await client.send("3")
            assert host.open
        await ended(host)
        assert (loop.time() - began) * 2 > 3.8
        if isinstance(client, Polls):
            assert (await client.poll())[0] == 400
        else:
            with pytest.raises(ConnectionError):
                await client.receive("4")


async def test_a_poll_that_waits_when_its_clients_time_is_over_is_let_go(transport: str) -> None:
    """It asked, so it was there; but it never answered a ping."""
    async with echo(transport, **HURRY) as host, Polls(host.url) as polls:
        assert await polls.poll() == (200, ["2"])
        async with within(3):
            status, _ = await polls.poll()
            assert status in (200, 400)
        await ended(host)


async def test_pings_go_on_after_an_upgrade(transport: str) -> None:
    """A session is looked after by whatever carries it."""
    async with echo(transport, **HURRY) as host, Polls(host.url) as polls, Wire(host.url, sid=polls.sid) as wire:
        wire.answering = False
        await upgraded(wire)
        for _ in range(2):
            assert await wire.receive("2") == "2"
            await wire.send("3")
        await ended(host)


# --------------------------------------------------------------------------- changing to a WebSocket


async def test_nothing_is_lost_or_doubled_or_out_of_order_over_an_upgrade(host: Echo) -> None:
    """The way the official client does it, while the server goes on talking and the client too."""
    async with Polls(host.url) as polls:
        session = host.sessions[0].session
        came: list[str] = []
        said = 0

        async def talk() -> None:
            nonlocal said
            while said < 200:
                session.send(b"%d" % said)
                said += 1
                await asyncio.sleep(0.002)

        async def poll() -> None:
            while not paused:
                status, packets = await polls.poll()
                assert status == 200
                came.extend(packets)

        paused = False
        talking, polling = asyncio.create_task(talk()), asyncio.create_task(poll())
        await asyncio.sleep(0.1)
        async with Wire(host.url, sid=polls.sid) as wire:
            await wire.send("2probe")
            assert await wire.receive("") == "3probe"
            # The client asks no more; what it has asked is answered.
            paused = True
            await polling
            await wire.send("5")
            await talking
            while "4199" not in came:
                came.append(await wire.receive(""))
            await wire.send("4mine")
            assert await wire.receive("4mine") == "4mine"
    assert [packet for packet in came if packet != "6"] == [f"4{number}" for number in range(200)]


async def test_a_poll_that_waits_is_released_when_a_websocket_is_tried_out(host: Echo) -> None:
    """By a NOOP, since there is nothing to say; and so is one that comes meanwhile."""
    async with Polls(host.url) as polls:
        waiting = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.1)
        async with Wire(host.url, sid=polls.sid) as wire:
            await wire.send("2probe")
            assert await wire.receive("") == "3probe"
            async with within(1):
                assert await waiting == (200, ["6"])
            async with within(1):
                assert await polls.poll() == (200, ["6"])
            await wire.send("5")
            await wire.send("4x")
            assert await wire.receive("") == "4x"


async def test_what_is_posted_while_a_websocket_is_tried_out_is_heard(host: Echo) -> None:
    """The client may have had it on its way; its answer comes by whatever is there first."""
    async with Polls(host.url) as polls, Wire(host.url, sid=polls.sid) as wire:
        await wire.send("2probe")
        assert await wire.receive("") == "3probe"
        assert await polls.post("4meanwhile") == 200
        await wire.send("5")
        assert await wire.receive("") == "4meanwhile"
    assert host.sessions[0].messages == ["meanwhile"]


async def test_after_an_upgrade_polls_are_refused_and_the_websocket_goes_on(host: Echo) -> None:
    """Whoever polls now is not the client."""
    async with Polls(host.url) as polls, Wire(host.url, sid=polls.sid) as wire:
        await upgraded(wire)
        assert (await polls.poll())[0] == 400
        assert await polls.post("4x") == 400
        await wire.send("4y")
        assert await wire.receive("") == "4y"
    assert host.sessions[0].messages == ["y"]


async def test_a_poll_that_waits_over_a_whole_upgrade_ends(host: Echo) -> None:
    """Its client had no need to wait for it."""
    async with Polls(host.url) as polls, Line(host.url, polls.sid) as line:
        waiting = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.1)
        line.send(frame(TEXT, b"2probe") + frame(TEXT, b"5"))
        async with within(1):
            assert await waiting == (200, ["6"])


async def test_a_second_websocket_on_a_session_is_closed(host: Echo) -> None:
    """Also on one that began by WebSocket; the first goes on."""
    async with Polls(host.url) as polls, Wire(host.url, sid=polls.sid) as wire, Line(host.url) as born:
        await upgraded(wire)
        opened = json.loads((await born.hear_text("0"))[1:])
        for sid in (polls.sid, opened["sid"]):
            async with Line(host.url, sid) as second:
                assert second.status == 101
                second.send(frame(TEXT, b"2probe") + frame(TEXT, b"5") + frame(TEXT, b"4stolen"))
                assert [said.kind for said in await second.rest()] == [CLOSE]
        await wire.send("4mine")
        assert await wire.receive("") == "4mine"
        born.say("4mine too")
        assert await born.hear_text("4") == "4mine too"
    assert [session.messages for session in host.sessions] == [["mine"], ["mine too"]]


async def test_of_two_websockets_that_are_tried_out_one_carries_the_session(host: Echo) -> None:
    """The other is closed, and whatever it says is not heard."""
    async with (
        Polls(host.url) as polls,
        Line(host.url, polls.sid) as one,
        Line(host.url, polls.sid) as other,
    ):
        for line in (one, other):
            line.say("2probe")
            with contextlib.suppress(ConnectionError):
                await line.hear_text("3probe")
        for line in (one, other):
            with contextlib.suppress(ConnectionError):
                line.send(frame(TEXT, b"5") + frame(TEXT, b"4x"))
        await heard(host, "x")
        with contextlib.suppress(TimeoutError):
            rests = [asyncio.create_task(line.rest(timeout=1)) for line in (one, other)]
            await asyncio.wait(rests)
        over = [rest for rest in rests if rest.exception() is None]
        assert len(over) == 1
        assert host.sessions[0].messages == ["x"]
        assert host.open == 1


@pytest.mark.parametrize("packet", ["", "x", "1", "3", "4x", "5", "2", "2prob", "2probed"])
async def test_a_websocket_that_is_tried_out_otherwise_is_closed_and_polling_goes_on(host: Echo, packet: str) -> None:
    """Only a probe may come first."""
    async with Polls(host.url) as polls:
        async with Line(host.url, polls.sid) as line:
            line.send(frame(TEXT, packet.encode()))
            assert (await line.rest())[-1].kind == CLOSE
        assert await polls.post("4on") == 200
        assert await polls.poll() == (200, ["4on"])
    assert host.sessions[0].messages == ["on"]


async def test_a_websocket_that_is_only_tried_out_does_not_stay(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would hold a socket for nothing, for as long as its client likes. One that was gone over to stays."""
    monkeypatch.setattr(f"visavis.doors.{'engine' if transport == 'fast' else 'stock'}.PROBE_SECONDS", 0.3)
    async with echo(transport) as host, Polls(host.url) as polls, Polls(host.url) as other:
        async with Wire(host.url, sid=other.sid) as wire:
            await upgraded(wire)
            for words in ((), ("2probe",)):
                async with Line(host.url, polls.sid) as line:
                    for word in words:
                        line.say(word)
                    async with within(2):
                        await line.rest()
            await wire.send("4still here")
            assert await wire.receive("4") == "4still here"
        assert await polls.post("4on") == 200
        assert await polls.receive("4") == "4on"


async def test_polls_wait_again_once_a_websocket_was_tried_out_in_vain(host: Echo) -> None:
    """They would come again and again else, each answered by nothing."""
    async with Polls(host.url) as polls:
        async with Line(host.url, polls.sid) as line:
            line.say("2probe")
            await line.hear_text("3probe")
        while (await asyncio.wait({waiting := asyncio.create_task(polls.poll())}, timeout=0.5))[0]:
            # What it was released by while the WebSocket was there.
            assert waiting.result() == (200, ["6"])
        host.sessions[0].session.send(b"at last")
        assert await waiting == (200, ["4at last"])


# --------------------------------------------------------------------------- ending


async def test_a_client_that_polls_says_goodbye(host: Echo) -> None:
    """Its poll that waits is released, and nothing is left to ask for."""
    async with Polls(host.url) as polls:
        waiting = asyncio.create_task(polls.poll())
        await asyncio.sleep(0.1)
        async with within(1):
            assert await polls.post("1") == 200
            assert await waiting == (200, ["6"])
        await ended(host)
        assert (await polls.poll())[0] == 400


@pytest.mark.parametrize(
    ("goodbye", "code"),
    [
        (frame(TEXT, b"1"), 1000),
        (close(1000), 1000),
        (close(1001, "going away, é".encode()), 1001),
        (close(None), 1000),
        (close(4000), 4000),
    ],
    ids=["packet", "1000", "1001", "none", "4000"],
)
async def test_a_client_with_a_websocket_says_goodbye(host: Echo, transport: str, goodbye: bytes, code: int) -> None:
    """By a packet or by a frame: it is answered with a CLOSE, and the socket is closed."""
    async with Line(host.url) as line:
        await line.hear_text("0")
        line.say("4last words")
        assert await line.hear_text("") == "4last words"
        line.send(goodbye)
        async with within(3):
            [last] = await line.rest()
        # python-engineio always says 1000.
        assert (last.kind, last.code) == (CLOSE, code if transport == "fast" else 1000)
    await ended(host)


@pytest.mark.parametrize("way", ["eof", "reset"])
@pytest.mark.parametrize("sent", [b"", frame(TEXT, b"4x")[:3], frame(TEXT, b"4x", final=False)], ids=len)
async def test_a_websocket_that_breaks_off_ends_its_session(host: Echo, way: str, sent: bytes) -> None:
    """Wherever it was; what had begun is not heard."""
    async with Line(host.url) as line:
        await line.hear_text("0")
        line.send(frame(TEXT, b"4whole") + sent)
        await heard(host, "whole")
        if way == "eof":
            line.hang_up()
        else:
            line.break_off()
        async with within(2):
            await ended(host)
    assert host.sessions[0].messages == ["whole"]


@pytest.mark.parametrize("told", [True, False])
async def test_what_was_said_last_arrives_before_the_end(host: Echo, told: bool) -> None:
    """Over a WebSocket, by a poll that waits, and by the next one."""
    async with Line(host.url) as line, Polls(host.url) as waits, Polls(host.url) as comes:
        await line.hear_text("0")
        waiting = asyncio.create_task(waits.poll())
        await asyncio.sleep(0.1)
        for one in host.sessions:
            one.session.send(b"bye")
            one.session.close(told=told)
            one.session.send(b"too late")
        last = ["4bye"] if told else ["4bye", "1"]
        assert await waiting == (200, last)
        assert await comes.poll() == (200, last)
        assert [await line.hear_text(""), await line.hear_text("")] == ["4bye", "1"]
        assert [said.code for said in await line.rest()] == [1000]
        for polls in (waits, comes):
            assert (await polls.poll())[0] == 400
            assert await polls.post("4x") == 400
    await ended(host)


async def test_a_session_that_is_broken_off_says_nothing_more(host: Echo) -> None:
    """Its socket closes, and polls are refused."""
    async with Line(host.url) as line, Polls(host.url) as polls:
        await line.hear_text("0")
        for one in host.sessions:
            one.session.abort()
            one.session.send(b"too late")
        assert await line.rest() == []
        await ended(host)
        assert (await polls.poll())[0] == 400
