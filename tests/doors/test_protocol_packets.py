"""Socket.IO as its protocol has it, on the real gateway, over both carriers.

In our own words after https://github.com/socketio/socket.io/blob/main/docs/socket.io-protocol/v5-current.md; what is
refused on purpose is in docs/protocol.md. Who comes in, and what they may ask, is in test_gateway.py.
"""

import json

import pytest

from crowd import Crowd
from rig import Worker, both, get_guest
from wire import Polls, Wire, auth_of

pytestmark = [pytest.mark.asyncio(loop_scope="session"), both]


async def test_a_connect_is_answered_before_anything_else_is_said(worker: Worker) -> None:
    """With an id that is not the session's, which is a secret; with or without the main namespace's name."""
    created = await get_guest(worker.url)
    for start in ("40", "40/,"):
        async with Wire(worker.url) as wire:
            opened = json.loads((await wire.receive("0"))[1:])
            await wire.send(start + json.dumps(auth_of(created)))
            answer = await wire.receive("4")
            assert answer.startswith("40{")
            said = json.loads(answer[2:])
            assert set(said) == {"sid"}
            assert said["sid"] != opened["sid"]
            assert (await wire.receive("4")).startswith('42["session:state",')


@pytest.mark.parametrize("connect", ["40/x", "40/x,", '40/x,{"token":"a"}', '40/x?a=1,{"token":"a"}', "40/é,"])
async def test_another_namespace_is_refused_by_its_name_and_the_main_one_still_opens(
    worker: Worker, connect: str
) -> None:
    """There is but one; a client that asks for another has been written for another server."""
    async with Wire(worker.url) as wire:
        await wire.receive("0")
        await wire.send(connect)
        name = connect[2:].partition(",")[0]
        assert await wire.receive("4") == f'44{name},{{"message":"Invalid namespace"}}'
        wire.opened = {"sid": "read already"}
        assert "sid" in await wire.open(auth_of(await get_guest(worker.url)))


async def test_nothing_is_done_for_who_has_not_said_who_they_are(worker: Worker) -> None:
    """Not even a refusal is said, since it would have to be said to somebody."""
    async with Wire(worker.url) as wire:
        await wire.receive("0")
        await wire.send('421["match:cancel",{}]')
        await wire.send('431["x"]')
        await wire.send("40" + json.dumps(auth_of(await get_guest(worker.url))))
        assert (await wire.receive("4")).startswith("40{")


@pytest.mark.parametrize("goodbye", ["41", "41/,"])
async def test_who_disconnects_may_connect_again_over_the_same_session(
    worker: Worker, crowd: Crowd, goodbye: str
) -> None:
    """Between the two it is nobody: its partner is told, and what it asks is not done."""
    created = await get_guest(worker.url)
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(created))
        assert "ok" in await wire.ask("match:find", {"mode": "text", "languages": [crowd.tongue]})
        partner = await crowd.arrive()
        await crowd.find(partner)
        found = await wire.push("match:found")
        await partner.next("match:found")
        await wire.send(goodbye)
        assert (await partner.next("conversation:partner"))["state"] == "away"
        await wire.send('42900["match:cancel",{}]')
        await wire.send("40" + json.dumps(auth_of(created)))
        assert (await wire.receive("40", "43")).startswith("40{")
        assert (await wire.push("session:state"))["conversation"]["id"] == found["conversation"]["id"]
        assert (await partner.next("conversation:partner"))["state"] == "here"


@pytest.mark.parametrize("number", ["0", "1", "10", "007", "2147483648", "9" * 15])
async def test_an_acknowledgement_has_the_number_it_was_asked_for_by(worker: Worker, number: str) -> None:
    """The official client counts from 0; none counts to a million billions."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        await wire.send(f'42{number}["match:cancel",{{}}]')
        assert await wire.receive("43") == f'43{number}[{{"ok":{{}}}}]'


async def test_what_asks_for_no_acknowledgement_gets_none(worker: Worker) -> None:
    """Neither when it is done nor when it is refused."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        for call in ('["match:cancel",{}]', '["nothing",{}]', '["chat:message",{}]'):
            await wire.send(f"42{call}")
        assert (await wire.ask("match:cancel", {}))["ok"] == {}


async def test_what_belongs_to_another_namespace_is_passed_over(worker: Worker) -> None:
    """It was never opened, so nobody is spoken to there."""
    async with Wire(worker.url) as wire:
        await wire.open(auth_of(await get_guest(worker.url)))
        for packet in ('42/x,5["match:cancel",{}]', "41/x,", '43/x,5["a"]', '44/x,{"message":"a"}'):
            await wire.send(packet)
        await wire.send('426["match:cancel",{}]')
        assert (await wire.receive("43")).startswith("436[")


MALFORMED = [
    "4",
    "4abc",
    "47",
    "49[]",
    "4[]",
    "42",
    "42{}",
    '42"x"',
    '42abc["x",{}]',
    '42-1["x",{}]',
    "43{}",
    "45x",
    "41x",
]


@pytest.mark.parametrize("packet", [*MALFORMED, f'42{"9" * 16}["match:cancel",{{}}]'])
async def test_what_is_no_socket_io_packet_ends_the_connection(worker: Worker, packet: str) -> None:
    """Before and after a client has said who it is; what speaks like that is no client."""
    for known in (False, True):
        async with Wire(worker.url) as wire:
            if known:
                await wire.open(auth_of(await get_guest(worker.url)))
            await wire.send(packet)
            assert await wire.closed() == 1000
    async with Polls(worker.url) as polls:
        await polls.post(packet)
        assert (await polls.poll())[0] in (200, 400)
        assert (await polls.poll())[0] == 400
