"""People in front of browsers: what they do and what they see, by the page's own names."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page, expect
from playwright.async_api import Error as PlaywrightError

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 360, "height": 740}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A context can take a certificate of nobody's for its pages, but not for their service worker.
    "--ignore-certificate-errors",
]


class Person:
    """Somebody in front of a browser."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _heard(self, message: Any) -> None:
        # The browser itself reports refused requests; those a test causes on purpose are its business.
        if (
            message.type == "error"
            and "Failed to load resource" not in message.text
            and "WebSocket" not in message.text
        ):
            self.complaints.append(message.text)

    def screen(self, name: str) -> Locator:
        return self.page.locator(f'[data-screen="{name}"]')

    def by(self, testid: str) -> Locator:
        return self.page.get_by_test_id(testid)

    async def last_words(self) -> str:
        """What stands on the page, and the state of the call if there is one: for the report of a failed test."""
        try:
            return str(
                await self.page.evaluate(
                    """() => {
                      const stage = document.querySelector('[data-testid="call-stage"]');
                      return JSON.stringify({ ...stage?.dataset }) + "\\n" + document.body.innerText;
                    }"""
                )
            )
        except PlaywrightError as error:
            return f"nothing: {error}"

    async def come(self) -> None:
        await self.page.goto(self.url)

    async def answer(self, day: str = "17", month: str = "5", year: str = "1990") -> None:
        """Answer the questions of a first visit."""
        await expect(self.screen("welcome")).to_be_visible()
        for part, value in (("day", day), ("month", month), ("year", year)):
            await self.page.locator(f'[autocomplete="bday-{part}"]').fill(value)
        await self.page.get_by_role("checkbox").check()
        await self.by("enter").click()

    async def enter(self, *interests: str) -> "Person":
        """Come to the lobby, with these interests."""
        await self.come()
        await self.answer()
        await expect(self.screen("lobby")).to_be_visible()
        for interest in interests:
            await self.page.get_by_role("textbox", name="Interests").fill(interest)
            await self.page.keyboard.press("Enter")
            await expect(self.page.get_by_role("button", name=f"Remove {interest}")).to_be_visible()
        return self

    async def find(self) -> None:
        await self.by("find").click()

    async def say(self, text: str) -> None:
        await self.by("composer").fill(text)
        await self.page.keyboard.press("Enter")

    async def sideways(self) -> int:
        """By how many pixels the page is wider than its window."""
        wider: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    def message(self, text: str, *, mine: bool | None = None) -> Locator:
        which = "" if mine is None else f'[data-mine="{str(mine).lower()}"]'
        return self.page.locator(f'[data-testid="message"]{which}').filter(has_text=text)

    async def hears(self, text: str) -> None:
        await expect(self.message(text, mine=False)).to_be_visible()

    async def sees_delivery(self, text: str, *states: str) -> None:
        await expect(self.message(text, mine=True)).to_have_attribute(
            "data-delivery", re.compile(f"^({'|'.join(states)})$")
        )


Arrive = Callable[..., Awaitable[Person]]


async def meet(a: Person, b: Person) -> None:
    """Have two people who are in the lobby find each other."""
    for person in (a, b):
        if await person.by("find").is_visible():
            await person.find()
    for person in (a, b):
        await expect(person.screen("conversation")).to_be_visible()
