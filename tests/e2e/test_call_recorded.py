"""A recording of a call in two browsers: made when both agree, of both, for both, and stopped by either."""

import io
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import expect

from callers import BLUE, RED, Caller, until
from calling import Callers, relayed
from rig import ROOT, Service, get_guest
from visavis.adapters.private_recorder import PrivateRecorder
from visavis.adapters.turn import PrivateTurn


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(tmp_path_factory: pytest.TempPathFactory, turn: PrivateTurn) -> AsyncIterator[Service]:
    """A worker, and one recorder that has one place."""
    folder = tmp_path_factory.mktemp("studio")
    service = await Service(folder, **relayed(turn)).start()
    recorder = PrivateRecorder(
        {
            **os.environ,
            "PYTHONPATH": str(ROOT / "backend"),
            "REDIS_URL": service.valkey.url,
            "VISAVIS_DATA_DIR": str(folder),
            "VISAVIS_RECORDINGS_AT_ONCE": "1",
            **relayed(turn),
        }
    )
    await recorder.start()
    yield service
    await recorder.stop()
    await service.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def callers(cameras: Any, studio: Service) -> AsyncIterator[Callers]:
    made = Callers(cameras, studio)
    yield made
    await made.close()


async def agree(a: Caller, b: Caller) -> None:
    """A asks, B agrees."""
    await a.by("record-ask").click()
    await a.by("record-confirm").click()
    await b.by("record-agree").click()


async def recorded(a: Caller, b: Caller) -> None:
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-recording", "on")
        await expect(person.by("recording-badge")).to_be_visible()


async def download(person: Caller) -> tuple[str, bytes]:
    """Where it was fetched from, and the file that the browser saved."""
    async with (
        person.page.expect_download() as started,
        person.page.expect_request(re.compile("/api/recordings/.")) as asked,
    ):
        await person.by("recording-download").last.click()
    path = await (await started.value).path()
    return (await asked.value).url, path.read_bytes()


def looked_at(file: bytes) -> tuple[list[Any], list[Any], dict[float, float], float]:
    """The mean colours of the left and right half half-way through, the loudness at each tone, and the seconds."""
    with av.open(io.BytesIO(file)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
        container.seek(0)
        sound = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(audio)])
        seconds = float(container.duration or 0) / 1_000_000
        rate = audio.rate
    middle = frames[len(frames) * 3 // 4]
    height, width, _ = middle.shape
    rows = slice(height * 2 // 5, height * 3 // 5)
    left = middle[rows, width // 5 : width * 3 // 10].mean(axis=(0, 1))
    right = middle[rows, width * 7 // 10 : width * 4 // 5].mean(axis=(0, 1))
    spectrum = np.abs(np.fft.rfft(sound))
    per_bin = rate / len(sound)
    loud = {
        hertz: float(spectrum[int((hertz - 8) / per_bin) : int((hertz + 8) / per_bin) + 1].max())
        for hertz in (RED.hertz, BLUE.hertz, 3000.0)
    }
    return list(left), list(right), loud, seconds


async def test_both_agree_both_are_in_it_and_both_can_have_it(callers: Callers) -> None:
    """Side by side in picture, together in sound; nobody else gets it, and deleting it deletes it for both."""
    a, b = await callers.call("memories")
    for person in (a, b):
        await person.by("reveal").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-rung", "clear")
    await agree(a, b)
    await recorded(a, b)
    await a.gets("framesDecoded", 60)
    await b.by("record-stop").click()
    for person in (a, b):
        await expect(person.by("recording-badge")).to_have_count(0)
        await expect(person.by("call-line").last).to_have_attribute("data-what", "recorded")
    addresses, files = zip(*[await download(person) for person in (a, b)], strict=True)
    assert files[0] == files[1]
    left, right, loud, seconds = looked_at(files[0])
    sides = sorted((tuple(left), tuple(right)), key=lambda colour: -colour[0])
    for side, voice in zip(sides, (RED, BLUE), strict=True):
        assert max(abs(x - y) for x, y in zip(side, voice.colour, strict=True)) < 60, (sides, voice)
    assert min(loud[RED.hertz], loud[BLUE.hertz]) > 20 * loud[3000.0]
    assert 1 < seconds < 30
    stranger = await get_guest(a.url)
    async with aiohttp.ClientSession() as session:
        for headers, status in (({"Authorization": f"Bearer {stranger['token']}"}, 404), ({}, 401)):
            async with session.get(addresses[0], headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize("who", [0, 1])
async def test_either_stops_it_within_a_second(callers: Callers, who: int) -> None:
    """The browsers stop sending to it at once, and the recorder has none under way."""
    a, b = await callers.call(f"second thoughts {who}", "voice")
    await agree(a, b)
    await recorded(a, b)
    for person in (a, b):
        assert (await person.stats())["open"] == 2
    await (a, b)[who].by("record-stop").click()

    async def stopped() -> bool:
        return all([(await person.stats())["open"] == 1 for person in (a, b)])

    assert await until(stopped, 3, "somebody still sends to the recorder") < 1
    for person in (a, b):
        await person.sees_phase("live")
        await expect(person.by("call-line").last).to_have_attribute("data-what", "recorded")


async def test_past_the_limit_both_are_told(callers: Callers) -> None:
    """In words, and the call goes on."""
    first, second = [await callers.call(f"busy {which}", "voice") for which in ("one", "two")]
    await agree(*first)
    await recorded(*first)
    await agree(*second)
    for person in second:
        await expect(person.by("call-line").last).to_have_attribute("data-what", "recording_full")
        await expect(person.stage).to_have_attribute("data-recording", "off")
        await person.sees_phase("live")
    await first[0].by("hang-up").click()
    await expect(first[1].by("call-line").last).to_have_attribute("data-what", "recorded")


async def test_declined_nothing_is_recorded(callers: Callers) -> None:
    """And the one who asked is not left waiting."""
    a, b = await callers.call("no thanks", "voice")
    await a.by("record-ask").click()
    await a.by("record-confirm").click()
    await expect(a.stage).to_have_attribute("data-recording", "asked")
    await b.by("record-decline").click()
    for person in (a, b):
        await expect(person.stage).to_have_attribute("data-recording", "off")
        assert (await person.stats())["open"] == 1
