"""The README's pictures: two people in two browsers, as they really see it."""

import asyncio
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from playwright.async_api import Browser, async_playwright, expect

from callers import BLUE, RED, film
from calling import Callers, browsers, relay, relayed
from people import CHROMIUM_FLAGS, DESK, Person, meet
from rig import Service

PHONE = {"width": 390, "height": 800}
PICTURE = "a picture"
TALK = (
    ("a", "Hello! So you climb as well?"),
    ("b", "Indoors mostly, I am afraid of everything above six metres"),
    ("a", "Then you will like this one"),
    ("a", PICTURE),
    ("b", "Oh, that is lovely. Where is it?"),
    ("a", "An hour from here. Nobody goes on weekdays, and there is a bakery at the foot of it"),
    ("b", "You had me at bakery 🥐"),
)


async def person(browser: Browser, url: str, viewport: dict[str, int], scheme: str, **options: Any) -> Person:
    context = await browser.new_context(
        viewport=viewport,
        color_scheme=scheme,
        device_scale_factor=2,
        locale=options.pop("locale", "en-GB"),
        reduced_motion="reduce",
        **options,
    )
    return Person(context, await context.new_page(), url)


def sitter(wall: tuple[int, int, int], shirt: tuple[int, int, int], hair: tuple[int, int, int], lean: int) -> bytes:
    """Somebody in front of a camera, painted: 640x480, planar YUV 4:2:0."""
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    picture = np.empty((480, 640, 3), np.float32)
    light = 1.15 - 0.0011 * np.hypot(x - 90, y - 60)
    picture[:] = np.clip(np.array(wall, np.float32) * light[..., None], 0, 255)

    def paint(
        colour: tuple[int, int, int], middle: tuple[float, float], size: tuple[float, float], soft: float
    ) -> None:
        inside = 1 - np.hypot((x - middle[0]) / size[0], (y - middle[1]) / size[1])
        share = np.clip(inside * size[0] / soft, 0, 1)[..., None]
        shade = np.clip(1.08 - 0.0016 * (x - middle[0] + size[0]), 0.7, 1.1)[..., None]
        picture[:] = picture * (1 - share) + np.array(colour, np.float32) * shade * share

    face, dark = (232, 184, 150), (58, 40, 34)
    at = 320 + lean
    paint((150, 165, 120), (560, 330), (44, 150), 8)
    paint(hair, (at, 205), (112, 130), 10)
    paint(shirt, (at, 500), (210, 165), 8)
    paint((214, 164, 130), (at, 340), (46, 70), 6)
    paint(face, (at, 225), (88, 112), 5)
    paint(hair, (at, 128), (98, 52), 9)
    for side in (-1, 1):
        paint((255, 255, 255), (at + side * 34, 215), (17, 10), 3)
        paint(dark, (at + side * 34 - lean / 12, 215), (8, 9), 2)
        paint(hair, (at + side * 35, 190), (22, 5), 3)
    paint((198, 112, 100), (at, 283), (32, 9), 3)
    frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), "rgb24").reformat(format="yuv420p")
    return bytes(frame.to_ndarray().tobytes())


def view() -> bytes:
    """A place in the mountains on an evening, painted: a JPEG of 1280x800."""
    y, x = np.mgrid[0:800, 0:1280].astype(np.float32)
    height = (y / 800)[..., None]
    picture = np.array((96, 118, 168), np.float32) * (1 - height) + np.array((255, 190, 140), np.float32) * height
    sun = np.clip(1.6 - np.hypot(x - 900, y - 330) / 60, 0, 1)[..., None]
    picture = picture * (1 - sun) + np.array((255, 236, 200), np.float32) * sun
    for ridge, (colour, base, size) in enumerate(
        (((150, 132, 160), 430, 70), ((106, 98, 134), 520, 60), ((62, 74, 96), 610, 50), ((34, 48, 58), 700, 36))
    ):
        line = base - size * (
            np.sin(x / (190 - 30 * ridge) + 2.1 * ridge)
            + 0.5 * np.sin(x / (67 - 9 * ridge) + ridge)
            + 0.16 * np.sin(x / 19)
        )
        inside = np.clip((y - line) / 3, 0, 1)[..., None]
        picture = picture * (1 - inside) + np.array(colour, np.float32) * (1.12 - 0.2 * inside) * inside
    file = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


async def show(speaker: Person, listener: Person) -> None:
    """Send a picture, and have the other one uncover it."""
    await speaker.by("attach-input").set_input_files(
        {"name": "evening.jpg", "mimeType": "image/jpeg", "buffer": view()}
    )
    await speaker.by("tray-send").click()
    await listener.by("file-cover").click()
    # No tools over the picture, as a resting pointer would bring them.
    await listener.page.mouse.move(0, 0)
    for one in (speaker, listener):
        await expect(one.by("file-picture").locator("img").last).to_have_js_property("complete", value=True)


async def take_calls(folder: Path, data: Path) -> None:
    """Two people in a call, blurred and then clear."""
    async with relay() as turn:
        service = await Service(data / "calls", **relayed(turn)).start()
        async with browsers(data / "cameras") as cameras:
            for voice, picture in (
                (RED, sitter((196, 178, 160), (70, 96, 130), (66, 44, 32), 40)),
                (BLUE, sitter((168, 186, 196), (190, 92, 70), (150, 104, 60), -30)),
            ):
                film(data / "cameras" / str(voice.hertz) / "camera.y4m", picture)
            callers = Callers(cameras, service)
            looks = {"device_scale_factor": 2, "reduced_motion": "reduce"}
            light = await callers.arrive(RED, color_scheme="light", **looks)
            dark = await callers.arrive(BLUE, color_scheme="dark", **looks)
            for one in (light, dark):
                await one.enter("climbing")
            await meet(light, dark)
            await light.say("Shall we talk?")
            await dark.say("Gladly. Blurred first, if you don't mind")
            await light.invite()
            await dark.accept()
            for one in (light, dark):
                await one.sees_phase("live")
                await one.gets("framesDecoded", 20)
            await light.page.screenshot(path=folder / "call-desk-light.png")
            for one in (dark, light):
                await one.by("reveal").click()
            await dark.gets("framesDecoded", 60)
            await asyncio.sleep(3)
            await dark.page.screenshot(path=folder / "call-desk-dark.png")
            await light.page.set_viewport_size(PHONE)
            await asyncio.sleep(1)
            await light.page.screenshot(path=folder / "call-phone-light.png")
            await callers.close()
        await service.stop()


async def take(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        await take_calls(folder, Path(data))
    with tempfile.TemporaryDirectory() as data:
        service = await Service(Path(data)).start(1)
        url = service.workers[0].url
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
            for size, viewport in (("desk", DESK), ("phone", PHONE)):
                light = await person(browser, url, viewport, "light")
                dark = await person(browser, url, viewport, "dark")
                await light.enter("climbing", "bread")
                await light.page.screenshot(path=folder / f"lobby-{size}-light.png")
                await dark.enter("climbing", "jazz")
                await light.find()
                await light.screen("searching").wait_for()
                await light.page.screenshot(path=folder / f"searching-{size}-light.png")
                await meet(light, dark)
                for who, words in TALK:
                    speaker, listener = (light, dark) if who == "a" else (dark, light)
                    if words == PICTURE:
                        await show(speaker, listener)
                        continue
                    await speaker.say(words)
                    await listener.hears(words[:20])
                await light.sees_delivery(TALK[5][1], "read")
                for scheme, one in (("light", light), ("dark", dark)):
                    await one.page.screenshot(path=folder / f"conversation-{size}-{scheme}.png")
                for one in (light, dark):
                    await one.context.close()
            arabic = await person(browser, url, PHONE, "light", locale="ar")
            await arabic.come()
            await arabic.answer()
            await arabic.screen("lobby").wait_for()
            await arabic.page.screenshot(path=folder / "lobby-phone-arabic.png")
            await browser.close()
        await service.stop()


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1])))
