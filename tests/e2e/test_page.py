"""The page itself: its weight, its accessibility, its behaviour at every size and without a network."""

import asyncio
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import expect

from people import PHONE, Arrive, Person, meet
from rig import ROOT, Service

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
SIZES = [(360, 740), (768, 1024), (1440, 900), (2560, 1440)]
# Colours do not depend on the direction, nor widths on the theme: each is looked at once, not each with each.
LOOKS = [("light", "rtl"), ("dark", "ltr")]
LOCALES = {"ltr": "en-GB", "rtl": "ar"}
LEAST_SCORE = 95
MOST_SCRIPT_BYTES = 130_000


async def violations(person: Person) -> list[str]:
    """What axe finds wrong on the page as it is."""
    # Evaluated, not added as an element: the page's own policy refuses foreign scripts, as it should.
    await person.page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = await person.page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
    )
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]


@pytest.mark.parametrize(("scheme", "direction"), LOOKS)
async def test_every_screen_is_accessible_and_fits(somebody: Arrive, scheme: str, direction: str) -> None:
    """On the real way through, in both themes and directions, axe finds nothing and nothing scrolls sideways."""
    locale = LOCALES[direction]
    a = await somebody(locale=locale, color_scheme=scheme, reduced_motion="reduce")
    b = await somebody(locale=locale, color_scheme=scheme, reduced_motion="reduce", viewport=PHONE)

    async def check(name: str, *people: Person) -> None:
        for person in people:
            assert await violations(person) == [], name
            for width, height in SIZES:
                await person.page.set_viewport_size({"width": width, "height": height})
                assert await person.sideways() <= 0, f"{name} at {width} px"
            await person.page.set_viewport_size({"width": 1440, "height": 900})

    await a.come()
    await expect(a.screen("welcome")).to_be_visible()
    await check("welcome", a)
    await a.answer()
    await b.come()
    await b.answer()
    await expect(a.screen("lobby")).to_be_visible()
    await check("lobby", a)
    await a.find()
    await expect(a.screen("searching")).to_be_visible()
    await check("searching", a)
    await meet(a, b)
    await check("empty conversation", a)
    await a.say("Hello https://example.org/" + "long/" * 60)
    await b.say("مرحبا " + "x" * 300)
    await a.hears("مرحبا")
    await b.hears("Hello")
    await check("conversation", a, b)
    await b.by("skip").click()
    await b.by("skip").click()
    await expect(a.by("ended")).to_be_visible()
    await check("ended", a)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gallery(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of the gallery: every screen in every state, served as the client is."""
    folder = tmp_path_factory.mktemp("gallery")
    build = await asyncio.create_subprocess_exec(
        *("npx", "vite", "build", "--mode", "gallery", "--outDir", str(folder / "web"), "--emptyOutDir"),
        cwd=ROOT / "web",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await build.communicate()
    assert build.returncode == 0, said.decode()
    service = await Service(folder / "data", VISAVIS_WEB_DIR=str(folder / "web")).start(1)
    yield f"{service.workers[0].url}/gallery.html"
    await service.stop()


# Over a hundred scenes at four sizes: on a busy machine that takes minutes.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scheme", "direction"), LOOKS)
async def test_every_state_is_accessible_and_fits(somebody: Arrive, gallery: str, scheme: str, direction: str) -> None:
    """Axe finds nothing in any state of any screen, in either theme and direction, and none scrolls sideways."""
    a = await somebody(gallery, reduced_motion="reduce", locale=LOCALES[direction])
    await a.come()
    scenes = [await link.inner_text() for link in await a.page.locator("li > a:first-child").all()]
    assert len(scenes) > 25
    found: dict[str, list[str]] = {}
    for number, scene in enumerate(scenes):
        width, height = SIZES[number % 2 * 2]
        await a.page.set_viewport_size({"width": width, "height": height})
        await a.page.goto("about:blank")
        await a.page.goto(f"{gallery}#{scene},{scheme}{',ar' if direction == 'rtl' else ''}")
        await a.page.wait_for_selector("main")
        if wrong := await violations(a):
            found[scene] = wrong
        for width, height in SIZES:
            await a.page.set_viewport_size({"width": width, "height": height})
            if await a.sideways() > 0:
                found[scene] = [*found.get(scene, []), f"scrolls sideways at {width} px"]
    assert found == {}


async def test_first_load_is_light(somebody: Arrive) -> None:
    """What the first visit downloads as script stays under the budget, compressed."""
    a = await somebody()
    await a.come()
    await expect(a.screen("welcome")).to_be_visible()
    sizes: dict[str, int] = await a.page.evaluate(
        """() => Object.fromEntries(performance.getEntriesByType('resource')
             .filter(entry => new URL(entry.name).pathname.endsWith('.js'))
             .map(entry => [new URL(entry.name).pathname, entry.encodedBodySize]))"""
    )
    compressed = {
        path: len((ROOT / "web" / "dist" / f"{path[1:]}.gz").read_bytes()) if path.startswith("/assets/") else size
        for path, size in sizes.items()
    }
    assert 0 < sum(compressed.values()) < MOST_SCRIPT_BYTES, compressed


async def test_nothing_breaks_the_policy(somebody: Arrive) -> None:
    """No screen or dialog runs into the content security policy."""
    a, b = await somebody(), await somebody()
    broken: list[str] = []
    for person in (a, b):
        await person.page.expose_function("broken", lambda what: broken.append(str(what)))
        await person.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => window.broken(e.violatedDirective + ' ' + e.blockedURI))"
        )
    await a.enter("policy")
    await b.enter("policy")
    await a.page.get_by_role("button", name="Settings").click()
    await a.page.keyboard.press("Escape")
    await meet(a, b)
    await a.say("Hello")
    await b.hears("Hello")
    await a.page.get_by_role("button", name="More").click()
    await a.page.get_by_role("menuitem", name="Report").click()
    await expect(a.by("report-send")).to_be_visible()
    await a.page.keyboard.press("Escape")
    await a.page.get_by_role("button", name="Emoji").click()
    await a.page.keyboard.press("Escape")
    assert broken == []


async def test_offline_page(somebody: Arrive) -> None:
    """Installed and without a network, the program opens and says so in its own words."""
    a = await somebody()
    await a.enter()
    await a.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    manifest = await a.page.evaluate(
        "fetch(document.querySelector('link[rel=manifest]').href).then(answer => answer.json())"
    )
    assert manifest["display"] == "standalone"
    assert {icon.get("purpose", "any") for icon in manifest["icons"]} >= {"any", "maskable"}
    await a.page.reload()
    await expect(a.screen("lobby")).to_be_visible()
    await a.context.set_offline(True)
    await a.page.reload()
    await expect(a.by("link")).to_have_attribute("data-link", re.compile("offline|reconnecting"))
    await a.context.set_offline(False)


@contextlib.asynccontextmanager
async def refusing(port: int, status: int) -> AsyncIterator[None]:
    """A server that says this to everything."""

    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text="no")

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_a_server_that_refuses_is_like_a_network_that_is_away(somebody: Arrive, tmp_path: Path) -> None:
    """While its address says 503 or 429 to everything, whoever has been here gets the kept page, not that answer."""
    service = await Service(tmp_path / "refusing").start(1)
    [worker] = service.workers
    a = await somebody(worker.url)
    await a.enter()
    await a.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    # What its parts are is known from a page that the service worker looks after.
    await a.page.reload()
    await expect(a.screen("lobby")).to_be_visible()
    await service.stop()
    for status in (503, 429):
        async with refusing(worker.port, status):
            await a.page.reload()
            await expect(a.by("link")).to_have_attribute("data-link", re.compile("reconnecting|offline"))


async def test_lighthouse(service: Service, tmp_path: Path) -> None:
    """Accessibility, best practices and search engines: at least 95 each. Speed is measured apart, not tested."""
    report = tmp_path / "report.json"
    chromium, node = shutil.which("chromium"), shutil.which("node")
    assert chromium
    assert node, "node is on the path of scripts/test"
    process = await asyncio.create_subprocess_exec(
        node,
        str(ROOT / "web" / "node_modules" / "lighthouse" / "cli" / "index.js"),
        service.workers[0].url,
        "--quiet",
        "--output=json",
        f"--output-path={report}",
        "--only-categories=accessibility,best-practices,seo",
        f"--chrome-path={chromium}",
        "--chrome-flags=--headless --no-sandbox --disable-gpu --disable-background-networking --disable-sync",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, said.decode()
    found = json.loads(report.read_text())
    scores = {name: round(category["score"] * 100) for name, category in found["categories"].items()}
    weak = [
        audit["title"]
        for audit in found["audits"].values()
        if audit.get("score") is not None and audit["score"] < 1 and audit["scoreDisplayMode"] == "binary"
    ]
    assert min(scores.values()) >= LEAST_SCORE, (scores, weak)
