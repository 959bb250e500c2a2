"""The README's pictures: two people in two browsers, as they really see it."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

from people import CHROMIUM_FLAGS, DESK, Person, meet
from rig import Service

PHONE = {"width": 390, "height": 800}
TALK = (
    ("a", "Hello! So you climb as well?"),
    ("b", "Indoors mostly, I am afraid of everything above six metres"),
    ("a", "Then you will like this one: https://example.org/low-and-long"),
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


async def take(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
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
                    await speaker.say(words)
                    await listener.hears(words[:20])
                await light.sees_delivery(TALK[4][1], "read")
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
