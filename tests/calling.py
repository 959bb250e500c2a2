"""What tests of calls share: a relay, a service that uses it, and two browsers with cameras of their own."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright, expect

from callers import BLUE, RED, Caller, Voice, fake_devices
from people import CHROMIUM_FLAGS, DESK
from rig import Service, missing
from visavis.adapters import turn


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[turn.PrivateTurn]:
    """A real coturn, which outlives the workers."""
    if not turn.available():
        missing("turnserver is missing")
    server = turn.PrivateTurn()
    await server.start()
    yield server
    await server.stop()


def relayed(server: turn.PrivateTurn, **more: str) -> dict[str, str]:
    """The settings of a worker that uses it."""
    return {"VISAVIS_TURN_URLS": " ".join(server.urls), "VISAVIS_TURN_SECRETS": server.secret, **more}


class Callers:
    """Makes people with cameras; `red` and `blue` sit at browsers of their own."""

    def __init__(self, browsers: dict[Voice, Browser], service: Service) -> None:
        self._browsers = browsers
        self.service = service
        self._people: list[Caller] = []

    async def arrive(
        self,
        voice: Voice = RED,
        url: str | None = None,
        *,
        permissions: tuple[str, ...] = ("camera", "microphone"),
        script: str = "",
        **options: Any,
    ) -> Caller:
        context = await self._browsers[voice].new_context(
            **{
                "viewport": DESK,
                "locale": "en-GB",
                "permissions": list(permissions),
                "ignore_https_errors": True,
                **options,
            }
        )
        if script:
            await context.add_init_script(script)
        person = Caller(context, await context.new_page(), url or self.service.workers[0].url)
        self._people.append(person)
        return person

    async def pair(self, interest: str, url: str | None = None, **options: Any) -> tuple[Caller, Caller]:
        """Two in a text conversation, red and blue."""
        a, b = await self.arrive(RED, url, **options), await self.arrive(BLUE, url, **options)
        for person in (a, b):
            await person.enter(interest)
            await person.find()
        for person in (a, b):
            await expect(person.screen("conversation")).to_be_visible()
        return a, b

    async def call(self, interest: str, what: str = "video", **options: Any) -> tuple[Caller, Caller]:
        """Two in a call, by invitation."""
        a, b = await self.pair(interest, **options)
        await a.invite(what)
        await b.accept()
        for person in (a, b):
            await person.sees_phase("live")
        return a, b

    async def close(self) -> None:
        """Every page must have stayed free of errors."""
        for person in self._people:
            # Shown if the test failed: what stood there.
            print(f"--- {person.url}", await person.last_words(), sep="\n")
            await person.context.close()
        complaints = [complaint for person in self._people for complaint in person.complaints]
        assert complaints == [], complaints


@contextlib.asynccontextmanager
async def browsers(folder: Path) -> AsyncIterator[dict[Voice, Browser]]:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is missing")
    async with async_playwright() as playwright:
        made = {
            voice: await playwright.chromium.launch(
                executable_path=chromium, args=[*CHROMIUM_FLAGS, *fake_devices(folder / str(voice.hertz), voice)]
            )
            for voice in (RED, BLUE)
        }
        yield made
        for browser in made.values():
            await browser.close()
