"""Calls when something breaks: the path, a worker, the other side's program."""

import asyncio
import contextlib
import random
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import expect

from callers import RED, Caller, until
from calling import Callers, relayed
from faults import UdpLink
from rig import Nginx, arrive, missing
from visavis.adapters.turn import PrivateTurn
from visavis.core.identity import new_id

ICE = "window.__peers.map((peer) => /ice-ufrag:(.*)/.exec(peer.localDescription?.sdp ?? '')?.[1])"


CallersWith = Callable[..., Awaitable[Callers]]


async def test_a_path_that_is_cut_is_repaired(callers_with: CallersWith, turn: PrivateTurn) -> None:
    """As after a change of network: both see that the call is reconnecting, then that it is not, and media flows."""
    async with contextlib.aclosing(UdpLink(turn.address, turn.port)) as link:
        await link.start()
        callers = await callers_with(
            VISAVIS_TURN_URLS=f"turn:127.0.0.1:{link.port}?transport=udp", VISAVIS_TURN_SECRETS=turn.secret
        )
        await cut_and_repaired(callers, link)


async def cut_and_repaired(callers: Callers, link: UdpLink) -> None:
    a, b = await callers.call("cables")
    for person in (a, b):
        await person.gets("framesDecoded", 3)
        await person.watch_phases()
    assert link.cut() >= 2
    for person in (a, b):

        async def repaired(person: Caller = person) -> bool:
            return (await person.phases())[-2:] == ["reconnecting", "live"]

        await until(repaired, 15, "it was not repaired")
        await person.gets("framesDecoded", 3)
        await person.gets("audioPackets", 5)


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_killed_worker_does_not_touch_the_media(
    callers_with: CallersWith, turn: PrivateTurn, tmp_path: Path, victim: int
) -> None:
    """Sound never pauses; both are back on another worker, and the call can still be changed and ended."""
    if shutil.which("nginx") is None:
        missing("nginx is missing")
    nginx = Nginx(tmp_path)
    callers = await callers_with(workers=2, behind=nginx, **relayed(turn, **nginx.settings()))
    a, b = await callers.call("trapdoors", url=nginx.url)
    for person in (a, b):
        await person.gets("audioPackets", 10)
        await person.watch_phases()
        # Counted in looks that found nothing new, so that a busy machine, which looks less often, is not a pause.
        await person.page.evaluate(
            """() => {
              window.__silent = 0; let last = -1, silent = 0;
              setInterval(async () => {
                const { audioPackets } = await window.__stats();
                silent = audioPackets > last ? 0 : silent + 1;
                last = audioPackets;
                window.__silent = Math.max(window.__silent, silent);
              }, 100);
            }"""
        )
    before = {person: await person.page.evaluate(ICE) for person in (a, b)}
    await callers.service.workers[victim].kill()
    for person in (a, b):
        await expect(person.by("link")).to_have_attribute("data-link", "online")
    await asyncio.sleep(2)
    await a.by("reveal").click()
    await expect(b.by("reveal")).to_be_visible()
    await b.by("reveal").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-rung", "clear")
        assert await person.page.evaluate("window.__silent") < 15
        assert await person.page.evaluate(ICE) == before[person], "the path was made anew"
        assert set(await person.phases()) <= {"live"}
    await a.by("hang-up").click()
    await expect(b.by("call-line").last).to_have_attribute("data-what", "hung_up")


async def test_the_other_sides_mutated_descriptions_do_no_harm(callers_with: CallersWith, turn: PrivateTurn) -> None:
    """A program that is no browser sends dozens of broken offers: the page stays well, and the text goes on."""
    callers = await callers_with(
        **relayed(turn, VISAVIS_BUCKET_SIZE="100000", VISAVIS_BUCKET_PER_SECOND="100000"),
    )
    person = await callers.arrive(RED)
    await person.enter("mutants")
    stranger = await arrive(person.url)
    await person.find()
    await stranger.find(interests=["mutants"])
    conversation = (await stranger.next("match:found"))["conversation"]["id"]
    await expect(person.screen("conversation")).to_be_visible()
    state = (await stranger.ask("call:invite", {"conversationId": conversation, "rung": "clear"}))["ok"]
    await person.accept()
    told = {"conversationId": conversation, "callId": state["call"]["id"], "session": new_id()}
    heard = (
        await stranger.next("call:signal", lambda push: push["signal"]["kind"] == "description", timeout=15)
        if (state["call"]["polite"])
        else None
    )
    if heard is None:
        await stranger.ask("call:signal", {**told, "signal": {"kind": "hello"}})
    dice = random.Random(7)
    base = heard["signal"]["sdp"] if heard else _offer()
    passed = 0
    for _ in range(75):
        lines = base.split("\r\n")
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(lines))
            match dice.randrange(4):
                case 0:
                    lines.pop(at)
                    lines = lines or [""]
                case 1:
                    lines.insert(dice.randrange(len(lines)), lines[at])
                case 2:
                    lines[at] = lines[at].replace("a=", "a=x", 1)
                case 3:
                    spot = dice.randrange(len(lines[at]) + 1)
                    lines[at] = lines[at][:spot] + chr(dice.randrange(32, 126)) + lines[at][spot + 1 :]
        told["session"] = new_id() if dice.random() < 0.2 else told["session"]
        signal = {"kind": "description", "type": dice.choice(["offer", "answer"]), "sdp": "\r\n".join(lines)}
        answer = await stranger.ask("call:signal", {**told, "signal": signal})
        if answer.get("error", {}).get("code") == "rate_limited":
            await asyncio.sleep(answer["error"]["retryInMs"] / 1000)
            continue
        passed += "ok" in answer
        assert "ok" in answer or answer["error"]["code"] in ("description_refused", "bad_request")
    assert passed, "none got past the server: the page was not tried"
    await stranger.say(conversation, 1, "Still well?")
    await person.hears("Still well?")
    await stranger.ask("call:end", {"conversationId": conversation, "callId": state["call"]["id"]})
    await expect(person.stage).to_have_count(0)
    await expect(person.by("call-line").last).to_have_attribute("data-what", re.compile("hung_up|failed"))
    await stranger.hang_up()


def _offer() -> str:
    keys = [
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789abcdefghijkl",
        "a=fingerprint:sha-256 " + ":".join(["A1"] * 32),
        "a=setup:actpass",
        "a=rtcp-mux",
    ]
    lines = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
    for number, kind in enumerate(("audio", "video")):
        codec = "a=rtpmap:96 VP8/90000" if kind == "video" else "a=rtpmap:96 opus/48000/2"
        lines += [f"m={kind} 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", *keys, f"a=mid:{number}", "a=sendrecv", codec]
    return "\r\n".join(lines) + "\r\n"
