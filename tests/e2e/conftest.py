"""Strangers in real browsers: Chromium contexts side by side, on a real service."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from callers import Voice
from calling import Callers, browsers, relay
from people import CHROMIUM_FLAGS, DESK, Arrive, Person
from rig import PATIENCE, Nginx, Service, free_port, missing
from visavis.adapters.turn import PrivateTurn

expect.set_options(timeout=PATIENCE * 1000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests share one event loop with the browser they share."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is missing")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    service = await Service(tmp_path_factory.mktemp("service")).start(1)
    yield service
    await service.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def turn() -> AsyncIterator[PrivateTurn]:
    """A relay that outlives every worker."""
    async with relay() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cameras(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[Voice, Browser]]:
    """Two browsers with a camera and a microphone each."""
    async with browsers(tmp_path_factory.mktemp("cameras")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def callers_with(
    cameras: dict[Voice, Browser], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[..., Awaitable[Callers]]]:
    """Makes people with cameras, on a service with settings of its own, perhaps behind an nginx."""
    async with contextlib.AsyncExitStack() as ends:

        async def make(*, workers: int = 1, behind: Nginx | None = None, **settings: str) -> Callers:
            service = Service(tmp_path_factory.mktemp("service"), **settings)
            ends.push_async_callback(service.stop)
            await service.start(0)
            for _ in range(workers):
                await service.add(**({"VISAVIS_PORT": str(free_port())} if behind is not None else {}))
            if behind is not None:
                await behind.start(service.workers)
                ends.push_async_callback(behind.stop)
            callers = Callers(cameras, service)
            ends.push_async_callback(callers.close)
            return callers

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def somebody(browser: Browser, service: Service) -> AsyncIterator[Arrive]:
    """Makes people: each in a browser context of their own. Every page must stay free of errors."""
    people: list[Person] = []

    async def make(url: str | None = None, viewport: dict[str, int] | None = None, **options: Any) -> Person:
        context = await browser.new_context(
            viewport=viewport or DESK, locale=options.pop("locale", "en-GB"), ignore_https_errors=True, **options
        )
        person = Person(context, await context.new_page(), url or service.workers[0].url)
        people.append(person)
        return person

    yield make
    for person in people:
        print(f"--- {person.url}", await person.last_words(), sep="\n")
        await person.context.close()
    assert [complaint for person in people for complaint in person.complaints] == []


@pytest_asyncio.fixture(loop_scope="session")
async def browser_alone(
    somebody: Arrive, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Person, Arrive]]:
    """A person on a service where nobody else is, and how to make others."""
    service = await Service(tmp_path_factory.mktemp("alone"), VISAVIS_WIDEN_LANGUAGES_MS="60000").start(1)
    yield await somebody(service.workers[0].url), somebody
    await service.stop()
