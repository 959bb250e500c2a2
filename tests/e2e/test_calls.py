"""Calls between two real browsers through a real coturn: what the one sends, the other gets, and nothing it did not."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from callers import BLUE, RED, Caller, until
from calling import Callers, relayed
from people import PHONE
from rig import Service, free_port
from visavis.adapters.turn import PrivateTurn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def calls(tmp_path_factory: pytest.TempPathFactory, turn: PrivateTurn) -> AsyncIterator[Service]:
    service = await Service(tmp_path_factory.mktemp("calls"), **relayed(turn)).start()
    yield service
    await service.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def callers(cameras: Any, calls: Service) -> AsyncIterator[Callers]:
    made = Callers(cameras, calls)
    yield made
    await made.close()


async def both_live(a: Caller, b: Caller) -> None:
    for person in (a, b):
        await person.sees_phase("live")
        await person.gets("audioPackets", 5)


# --------------------------------------------------------------------------- getting into a call


async def test_a_match_in_video_mode_is_a_blurred_call_through_the_relay(callers: Callers) -> None:
    """One click after the look at one's devices: pictures decoded and sound heard on both sides, relayed alone."""
    a, b = await callers.arrive(RED), await callers.arrive(BLUE)
    for person in (a, b):
        await person.enter("lanterns")
        await person.choose_mode("Video")
        await person.find_call()
    for person, other in ((a, BLUE), (b, RED)):
        await person.sees_phase("live")
        await expect(person.stage).to_have_attribute("data-rung", "blurred")
        await person.gets("framesDecoded", 3)
        await person.gets("audioEnergy", 0.0001)
        await person.sees(other)
        stats = await person.stats()
        assert set(map(tuple, stats["paths"])) == {("relay", "relay")}
        assert max(stats["heights"]) <= 48, "a blurred picture leaves the device small"
        assert await person.heard()
        assert all(" typ relay " in one for one in await person.heard())


@pytest.mark.parametrize("what", ["video", "voice"])
async def test_an_invitation_rings_is_accepted_and_hung_up(callers: Callers, what: str) -> None:
    """Voice has no picture; the end leaves a line with how long it was on both sides, and the conversation goes on."""
    a, b = await callers.call(f"bridges {what}", what)
    await both_live(a, b)
    if what == "video":
        await a.gets("framesDecoded", 3)
    else:
        assert (await a.stats())["framesDecoded"] == 0
        await expect(a.by("remote-video")).to_have_count(0)
    await b.by("hang-up").click()
    for person in (a, b):
        await expect(person.stage).to_have_count(0)
        await expect(person.by("call-line").last).to_have_attribute("data-what", "hung_up")
        assert (await person.stats())["open"] == 0
    await a.say("That was nice")
    await b.hears("That was nice")


async def test_declining_cancelling_and_not_answering_each_leave_a_line(callers: Callers) -> None:
    """Told apart on both sides; nothing rings on."""
    a, b = await callers.pair("kites")
    await a.invite()
    await b.by("decline-call").click()
    for person in (a, b):
        await expect(person.by("call-line").last).to_have_attribute("data-what", "declined")
    await b.invite("voice")
    await expect(a.by("incoming-call")).to_be_visible()
    await b.by("cancel-call").click()
    await expect(a.by("incoming-call")).to_have_count(0)
    for person in (a, b):
        await expect(person.by("call-line").last).to_have_attribute("data-what", "cancelled")


async def test_a_ring_that_nobody_answers_is_a_missed_call(callers: Callers, turn: PrivateTurn) -> None:
    """Said to both."""
    worker = await callers.service.add(**relayed(turn, VISAVIS_RING_SECONDS="1.5"))
    a, b = await callers.pair("harbours", worker.url)
    await a.invite()
    await expect(b.by("incoming-call")).to_be_visible()
    for person in (a, b):
        await expect(person.by("call-line")).to_have_attribute("data-what", "missed")
    await expect(b.by("incoming-call")).to_have_count(0)
    await expect(a.by("outgoing-call")).to_have_count(0)


async def test_both_invite_at_once_and_are_in_one_call(callers: Callers) -> None:
    """Neither has to answer."""
    a, b = await callers.pair("glare")
    for person in (a, b):
        await person.by("call-video").click()
        await expect(person.by("device-check")).to_be_visible()
    await asyncio.gather(*(person.by("device-check-go").click() for person in (a, b)))
    await both_live(a, b)
    await a.gets("framesDecoded", 2)
    await b.gets("framesDecoded", 2)


# --------------------------------------------------------------------------- the ladder


async def test_the_ladder_up_and_down(callers: Callers) -> None:
    """Voice, blurred, clear and back: each step up takes both, each step down takes one and works at once."""
    a, b = await callers.call("ladders", "voice")
    await a.by("add-video").click()
    await a.gets_nothing("videoSent")
    await b.by("add-video").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-rung", "blurred")
        await person.gets("framesDecoded", 3)
        assert max((await person.stats())["heights"]) <= 48
    await a.by("reveal").click()
    await asyncio.sleep(0.5)
    await expect(b.stage).to_have_attribute("data-rung", "blurred")
    assert max((await b.stats())["heights"]) <= 48, "revealed by one alone"
    await b.by("reveal").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-rung", "clear")

        async def large(person: Caller = person) -> bool:
            return max((await person.stats())["heights"]) >= 180

        await until(large, 15, "the picture did not become clear")
    await b.by("unreveal").click()
    await expect(a.stage).to_have_attribute("data-rung", "blurred")

    async def small() -> bool:
        return max((await a.stats())["heights"]) <= 48

    await until(small, 5, "the picture stayed clear")
    await a.by("drop-video").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-rung", "voice")
        await person.gets_nothing("framesDecoded")
        await person.gets("audioPackets", 5)


async def test_direct_only_when_both_agree_and_relayed_again_when_one_does_not(callers: Callers) -> None:
    """Until then no address of the other is heard; afterwards the path is direct, and goes back."""
    a, b = await callers.call("shortcuts", "voice")
    await a.by("direct-agree").click()
    await asyncio.sleep(0.5)
    for person in (a, b):
        assert all(" typ relay " in one for one in await person.heard())
    await b.by("direct-agree").click()

    async def is_path(person: Caller, *kinds: str) -> bool:
        paths = (await person.stats())["paths"]
        return bool(paths) and all(set(path) <= set(kinds) for path in paths)

    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-direct", "true")
        await until(lambda person=person: is_path(person, "host", "prflx", "srflx"), 15, "it did not become direct")
        assert any(" typ host" in one for one in await person.heard())
    await a.gets("audioPackets", 5)
    await a.by("direct-withdraw").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-direct", "false")
        await until(lambda person=person: is_path(person, "relay"), 15, "it did not go back to the relay")
    await both_live(a, b)


async def test_without_a_relay_both_are_asked_first(callers_with: Callable[..., Awaitable[Callers]]) -> None:
    """Nothing is connected before both agree to share their addresses; then the call is direct."""
    callers = await callers_with()
    a, b = await callers.arrive(RED), await callers.arrive(BLUE)
    for person in (a, b):
        await person.enter("bare")
        await person.choose_mode("Video")
        await person.find_call()
    for person in (a, b):
        await person.sees_phase("asking")
    await a.by("direct-agree").click()
    await asyncio.sleep(0.5)
    for person in (a, b):
        assert await person.heard() == []
    await b.by("direct-agree").click()
    await both_live(a, b)
    for person in (a, b):
        assert (await person.stats())["paths"]


# --------------------------------------------------------------------------- devices


async def test_mute_and_camera_off_stop_the_media_and_are_seen(callers: Callers) -> None:
    """The other side is told, and gets silence and no picture; on again, all is back."""
    a, b = await callers.call("silence")
    await a.gets("framesDecoded", 2)
    await b.by("toggle-camera").click()
    await expect(a.by("theirs-camera-off")).to_be_visible()
    await a.gets_nothing("framesDecoded")
    await b.by("toggle-microphone").click()
    await expect(a.by("theirs-muted")).to_be_visible()

    async def quiet() -> bool:
        before = (await a.stats())["audioEnergy"]
        await asyncio.sleep(0.5)
        return (await a.stats())["audioEnergy"] - before < 0.0001

    await until(quiet, 5, "the tone is still heard")
    await b.by("toggle-camera").click()
    await b.by("toggle-microphone").click()
    await expect(a.by("theirs-camera-off")).to_have_count(0)
    await expect(a.by("theirs-muted")).to_have_count(0)
    await a.gets("framesDecoded", 2)
    await a.gets("audioEnergy", 0.0001)


FAILS = """
  const wanted = %s;
  const native = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (native) navigator.mediaDevices.getUserMedia = async (asked) => {
    if (asked.video || wanted.both) throw new DOMException("test", wanted.name);
    return native(asked);
  };
"""


@pytest.mark.parametrize(
    ("problem", "name"), [("busy", "NotReadableError"), ("none", "NotFoundError"), ("failed", "UnknownError")]
)
async def test_a_camera_that_fails_has_its_own_words_and_a_way_on(callers: Callers, problem: str, name: str) -> None:
    """The call begins without it, heard and not seen; the other side has a picture."""
    script = FAILS % f'{{name: "{name}", both: false}}'
    a, b = await callers.arrive(RED, script=script), await callers.arrive(BLUE)
    for person in (a, b):
        await person.enter(f"cables {problem}")
        await person.choose_mode("Video")
        await person.find()
    await expect(a.by("device-problem-camera")).to_have_attribute("data-problem", problem)
    assert len(await a.by("device-problem-camera").inner_text()) > 20
    for person in (a, b):
        await person.go()
    await both_live(a, b)
    await a.gets("framesDecoded", 2)
    await expect(b.by("theirs-camera-off")).to_be_visible()
    assert (await b.stats())["framesDecoded"] == 0


async def test_who_denies_both_can_still_take_part(callers: Callers) -> None:
    """Seeing, hearing and writing; told how to allow it."""
    a, b = await callers.arrive(RED, permissions=()), await callers.arrive(BLUE)
    for person in (a, b):
        await person.enter("denial")
        await person.choose_mode("Video")
        await person.find()
    for device in ("camera", "microphone"):
        await expect(a.by(f"device-problem-{device}")).to_have_attribute("data-problem", re.compile("denied|dismissed"))
    for person in (a, b):
        await person.go()
    await a.sees_phase("live")
    await a.gets("framesDecoded", 2)
    await a.gets("audioEnergy", 0.0001)
    await expect(b.by("theirs-muted")).to_be_visible()
    await b.sees_phase("live")


async def test_an_insecure_page_says_so(callers_with: Callable[..., Awaitable[Callers]], turn: PrivateTurn) -> None:
    """Browsers give no devices to a page that is neither https nor this machine's."""
    port = free_port()
    url = f"http://{turn.address}:{port}"
    callers = await callers_with(
        **relayed(turn, VISAVIS_HOST=turn.address, VISAVIS_ORIGINS=url, VISAVIS_PORT=str(port))
    )
    a = await callers.arrive(RED, url)
    await a.enter("plain")
    await a.choose_mode("Video")
    await a.find()
    await expect(a.by("device-problem-camera")).to_have_attribute("data-problem", "insecure")
    # The browser's own remark about such a page.
    a.complaints = [complaint for complaint in a.complaints if "Cross-Origin-Opener-Policy" not in complaint]


async def test_a_shared_screen_takes_the_place_and_goes(callers: Callers) -> None:
    """Announced to both; the other side decodes a second picture; stopping ends it there."""
    a, b = await callers.call(
        "screens",
        script="""
          navigator.mediaDevices.getDisplayMedia = async () => {
            const canvas = document.createElement("canvas");
            canvas.width = 800; canvas.height = 600;
            const context = canvas.getContext("2d");
            setInterval(() => { context.fillStyle = "#10c020"; context.fillRect(0, 0, 800, 600);
              context.fillRect(0, 0, Math.random() * 9, 9); }, 60);
            return canvas.captureStream(10);
          };
        """,
    )
    await a.by("share-screen").click()
    await expect(b.by("remote-screen")).to_be_visible()
    await expect(a.by("stop-screen")).to_be_visible()

    async def green() -> bool:
        red, shown, blue = await b.colour("remote-screen")
        return shown > 120 and red < 90 and blue < 100

    await until(green, 10, "the screen is not seen")
    await a.by("stop-screen").click()
    await expect(b.by("remote-screen")).to_have_count(0)
    await both_live(a, b)


# --------------------------------------------------------------------------- rough weather


async def test_a_reload_in_a_call_comes_back_into_it(callers: Callers) -> None:
    """By itself; the other side gets the media of the new page."""
    a, b = await callers.call("reload")
    await b.page.reload()
    await b.sees_phase("live")
    await a.sees_phase("live")
    await a.gets("framesDecoded", 3)
    await b.gets("framesDecoded", 3)


async def test_text_goes_on_beside_the_call_on_a_phone(callers: Callers) -> None:
    """The chat lies over the picture, the picture stays, and nothing is wider than the screen."""
    a, b = await callers.call("pocket", viewport=PHONE)
    for person in (a, b):
        assert await person.sideways() <= 0
    await a.by("open-chat").click()
    await a.say("Can you read me?")
    await b.by("open-chat").click()
    await b.hears("Can you read me?")
    assert await a.sideways() <= 0
    await a.by("close-chat").click()
    await a.gets("framesDecoded", 2)


async def test_leaving_the_conversation_ends_the_call_and_lets_go_of_the_devices(callers: Callers) -> None:
    """No light stays on: every track is ended, on both sides."""
    script = """
      window.__tracks = [];
      const native = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (asked) => {
        const stream = await native(asked); window.__tracks.push(...stream.getTracks()); return stream;
      };
    """
    a, b = await callers.call("farewell", script=script)
    await a.by("skip").click()
    await a.by("skip").click()
    for person in (a, b):

        async def dark(person: Caller = person) -> bool:
            return bool(await person.page.evaluate("window.__tracks.every((track) => track.readyState === 'ended')"))

        await expect(person.stage).to_have_count(0)
        await until(dark, 5, "a device is still open")
        assert (await person.stats())["open"] == 0
