"""Two strangers, two browsers, one service: everything a guest can do."""

import re
import sqlite3

import pytest
from playwright.async_api import expect

from people import PHONE, Arrive, Person, meet
from rig import Service


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desk", "phone"])
async def test_strangers_meet_and_talk(somebody: Arrive, viewport: dict[str, int] | None) -> None:
    """Two guests are matched by an interest, told why, and what each writes reaches the other and is read."""
    a, b = await somebody(viewport=viewport), await somebody(viewport=viewport)
    await a.enter("jazz", "climbing")
    await b.enter("climbing")
    await meet(a, b)
    await expect(a.by("why")).to_have_text("You both picked climbing")
    await expect(b.by("why")).to_have_text("You both picked climbing")
    assert await a.by("partner-name").inner_text() != await b.by("partner-name").inner_text()

    await a.by("composer").press_sequentially("Hel")
    await expect(b.by("presence")).to_have_text("Typing…")
    await a.say("Hello, who are you?")
    await b.hears("Hello, who are you?")
    await a.sees_delivery("Hello, who are you?", "read")
    await b.say("A stranger.\nNice to meet you")
    await a.hears("Nice to meet you")
    await b.sees_delivery("Nice to meet you", "read")
    for person in (a, b):
        assert await person.sideways() <= 0


async def test_a_background_tab_gets_but_does_not_read(somebody: Arrive) -> None:
    """A message in a tab nobody looks at is delivered, counted in the title, and read only when looked at."""
    a, b = await somebody(), await somebody()
    await a.enter("lighthouses")
    await b.enter("lighthouses")
    await meet(a, b)
    elsewhere = await b.context.new_page()
    await elsewhere.bring_to_front()
    await b.page.evaluate("window.dispatchEvent(new Event('blur'))")
    await a.say("Still there?")
    await a.sees_delivery("Still there?", "delivered", "read")
    await b.page.bring_to_front()
    await a.sees_delivery("Still there?", "read")
    await elsewhere.close()


async def test_reload_in_the_middle(somebody: Arrive) -> None:
    """A reload comes back to the same conversation with every message, a draft, and what was sent meanwhile."""
    a, b = await somebody(), await somebody()
    await a.enter("bread")
    await b.enter("bread")
    await meet(a, b)
    await a.say("One")
    await b.hears("One")
    await b.say("Two")
    await a.hears("Two")
    await b.by("composer").fill("half a thought")
    name = await b.by("partner-name").inner_text()

    await b.page.goto("about:blank")
    await expect(a.by("presence")).to_have_text("Reconnecting…")
    await a.say("While you were away")
    await b.come()
    await expect(b.screen("conversation")).to_be_visible()
    await expect(b.by("partner-name")).to_have_text(name)
    await expect(b.by("message")).to_have_count(3)
    await b.hears("While you were away")
    await expect(b.by("composer")).to_have_value("half a thought")
    await a.sees_delivery("While you were away", "read")
    await expect(a.by("presence")).not_to_have_text("Reconnecting…")


async def test_network_offline_and_back(somebody: Arrive) -> None:
    """Without a network both sides are told; what either wrote meanwhile arrives once, in order, when it is back."""
    a, b = await somebody(), await somebody()
    await a.enter("tea")
    await b.enter("tea")
    await meet(a, b)
    await a.say("Before")
    await b.hears("Before")
    await b.context.set_offline(True)
    await expect(b.by("link")).to_have_attribute("data-link", re.compile("offline|reconnecting"))
    await b.say("Written in a tunnel 1")
    await b.say("Written in a tunnel 2")
    await a.say("Written in the sun")
    await b.context.set_offline(False)
    await a.hears("Written in a tunnel 2")
    await b.hears("Written in the sun")
    await b.sees_delivery("Written in a tunnel 2", "delivered", "read")
    await expect(a.message("Written in a tunnel")).to_have_count(2)
    said = await a.by("message").all_inner_texts()
    assert [t for t in said if "tunnel 1" in t or "tunnel 2" in t] == sorted(t for t in said if "tunnel" in t)


async def test_skip_meets_the_next_one(somebody: Arrive) -> None:
    """Esc twice leaves for the next stranger; the one left can read on, and finds another with Enter."""
    a, b, c = await somebody(), await somebody(), await somebody()
    await a.enter("chess")
    await b.enter("chess")
    await c.enter("chess")
    await meet(a, b)
    await b.say("Do you play the Sicilian?")
    await a.hears("Sicilian")
    await a.page.keyboard.press("Escape")
    await expect(a.screen("conversation")).to_be_visible()
    await a.page.keyboard.press("Escape")
    await expect(a.screen("searching")).to_be_visible()
    await expect(b.by("ended")).to_be_visible()
    await b.message("Sicilian", mine=True).wait_for()
    await c.find()
    await expect(a.screen("conversation")).to_be_visible()
    await expect(c.screen("conversation")).to_be_visible()
    await a.say("Hello c")
    await c.hears("Hello c")
    await expect(b.by("ended")).to_have_attribute("data-guarded", "false")
    await b.page.keyboard.press("Enter")
    await expect(b.screen("searching")).to_be_visible()
    await b.page.keyboard.press("Escape")
    await expect(b.screen("lobby")).to_be_visible()


async def test_the_skip_button_asks_once(somebody: Arrive) -> None:
    """On a phone there is no Esc: the button asks, and the second tap skips."""
    a, b = await somebody(viewport=PHONE, has_touch=True, is_mobile=True), await somebody()
    await a.enter("kites")
    await b.enter("kites")
    await meet(a, b)
    await a.by("skip").tap()
    await expect(a.by("skip")).to_have_text("Skip for sure?")
    await a.by("skip").tap()
    await expect(a.screen("searching")).to_be_visible()
    await expect(b.by("ended")).to_be_visible()


async def test_block(somebody: Arrive) -> None:
    """A blocked stranger sees only that one left, and the two are not matched again, even as new guests."""
    a, b = await somebody(), await somebody()
    await a.enter("knitting")
    await b.enter("knitting")
    await meet(a, b)
    await a.page.get_by_role("button", name="More").click()
    await a.page.get_by_role("menuitem", name="Block").click()
    await a.by("block-yes").click()
    await expect(b.by("ended")).to_be_visible()
    await expect(b.by("ended")).not_to_contain_text("block", ignore_case=True)

    again = []
    for old in (a, b):
        page = await old.context.new_page()
        person = Person(old.context, page, old.url)
        await person.come()
        await expect(person.screen("lobby")).to_be_visible()
        again.append(person)
    await again[0].find()
    await again[1].find()
    await expect(again[0].screen("searching")).to_be_visible()
    third = await somebody()
    await third.enter("knitting")
    await third.find()
    await expect(third.screen("conversation")).to_be_visible()
    matched = [await person.screen("conversation").count() for person in again]
    assert sum(matched) == 1


async def test_report(somebody: Arrive, service: Service) -> None:
    """A report holds the reason, the words and the chosen messages, and nothing else of the conversation."""
    a, b = await somebody(), await somebody()
    await a.enter("stamps")
    await b.enter("stamps")
    await meet(a, b)
    await b.say("Buy my stamps now")
    await b.say("Lovely weather")
    await a.hears("Lovely weather")
    await a.say("No thank you, private")
    await a.page.get_by_role("button", name="More").click()
    await a.page.get_by_role("menuitem", name="Report").click()
    await a.page.get_by_role("radio", name="Spam").check()
    await a.page.get_by_label("In your own words").fill("Sells things")
    await a.page.get_by_role("checkbox", name=re.compile("Buy my stamps")).check()
    await a.by("report-send").click()
    await expect(a.by("report-done")).to_be_visible()

    with sqlite3.connect(service.workers[0].data_dir / "visavis.sqlite") as database:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        stored = " ".join(
            str(row) for table in tables if "fts" not in table for row in database.execute(f'select * from "{table}"')
        )
    assert "Buy my stamps now" in stored
    assert "Sells things" in stored
    assert "Lovely weather" not in stored
    assert "private" not in stored


async def test_reply_react_delete(somebody: Arrive) -> None:
    """A reply quotes, a reaction shows on both sides and can be taken back, a deletion removes the words on both."""
    a, b = await somebody(), await somebody()
    await a.enter("mushrooms")
    await b.enter("mushrooms")
    await meet(a, b)
    await a.say("Chanterelles are the best")
    await b.hears("Chanterelles")
    await b.message("Chanterelles").hover()
    await b.page.get_by_role("button", name="Reply").click()
    await b.say("No, porcini")
    await a.hears("No, porcini")
    await expect(a.message("No, porcini")).to_contain_text("Chanterelles are the best")

    await a.message("porcini", mine=False).hover()
    await a.page.get_by_role("button", name="React", exact=True).click()
    await a.page.get_by_role("button", name="React with 👍").click()
    await expect(b.message("porcini", mine=True)).to_contain_text("👍")
    await a.page.get_by_role("button", name="Take back your 👍").click()
    await expect(b.message("porcini", mine=True)).not_to_contain_text("👍")

    await a.message("Chanterelles", mine=True).locator("p").first.hover()
    await a.page.get_by_role("button", name="Delete").click()
    await a.by("delete-yes").click()
    await expect(b.page.get_by_text("This message was deleted")).to_be_visible()
    await expect(b.message("Chanterelles are the best", mine=False)).to_have_count(0)


async def test_links_are_shown_safely(somebody: Arrive) -> None:
    """Markup stays text; a link opens apart and says nothing of where it came from; a script address is no link."""
    a, b = await somebody(), await somebody()
    await a.enter("maps")
    await b.enter("maps")
    await meet(a, b)
    await a.say("<img src=x onerror=alert(1)> https://example.org/a?b=c javascript:alert(1)")
    await b.hears("<img src=x onerror=alert(1)>")
    links = b.message("onerror").get_by_role("link")
    await expect(links).to_have_count(1)
    await expect(links).to_have_attribute("href", "https://example.org/a?b=c")
    for word in ("noopener", "noreferrer"):
        await expect(links).to_have_attribute("rel", re.compile(word))


async def test_first_visit_is_asked_once(somebody: Arrive) -> None:
    """Age and rules are asked once: not after a reload, and not in a second tab, which is a second guest."""
    a = await somebody()
    await a.enter()
    first = await a.page.locator('[data-testid="online"]').inner_text()
    assert first
    await a.page.reload()
    await expect(a.screen("lobby")).to_be_visible()
    second = Person(a.context, await a.context.new_page(), a.url)
    await second.come()
    await expect(second.screen("lobby")).to_be_visible()
    await expect(a.screen("lobby")).to_be_visible()
    tokens = [await p.page.evaluate("JSON.stringify({...sessionStorage})") for p in (a, second)]
    assert tokens[0] != tokens[1]


async def test_under_age_is_a_sticky_no(somebody: Arrive) -> None:
    """Someone too young is told so, and stays told after a reload and in a new tab."""
    a = await somebody()
    await a.come()
    await a.answer(year="2015")
    await expect(a.screen("under-age")).to_be_visible()
    await a.page.reload()
    await expect(a.screen("under-age")).to_be_visible()
    page = await a.context.new_page()
    await page.goto(a.url)
    await expect(page.locator('[data-screen="under-age"]')).to_be_visible()


async def test_alone_says_so_and_rings(browser_alone: tuple[Person, Arrive]) -> None:
    """The only one here is told, can share the address, and is matched when somebody comes."""
    a, somebody = browser_alone
    await a.enter("falconry")
    await a.find()
    await expect(a.by("search-words")).to_have_text("You’re the only one here")
    await expect(a.page.get_by_role("button", name="Copy address")).to_be_visible()
    await expect(a.by("search-accepts")).to_have_text("Looking for anyone who speaks English")
    b = await somebody(a.url)
    await b.enter()
    await b.find()
    await expect(a.screen("conversation")).to_be_visible()
    await expect(a.by("why")).to_have_text("You both speak English")


async def test_by_keyboard_alone(somebody: Arrive) -> None:
    """The whole way without a pointer: answers, interests, find, talk, skip, cancel."""
    a, b = await somebody(), await somebody()
    await b.enter("sailing")
    await a.come()
    await expect(a.screen("welcome")).to_be_visible()
    await a.page.get_by_label("Day").focus()
    press = a.page.keyboard.press
    for part in ("17", "05", "1990"):
        await a.page.keyboard.type(part)
        await press("Tab")
    if not await a.page.get_by_role("checkbox").evaluate("box => box === document.activeElement"):
        await a.page.get_by_role("checkbox").focus()
    await press("Space")
    await press("Enter")
    await expect(a.screen("lobby")).to_be_visible()
    await a.page.get_by_role("textbox", name="Interests").focus()
    await a.page.keyboard.type("sailing")
    await press("Enter")
    await press("Enter")
    await b.find()
    await expect(a.screen("conversation")).to_be_visible()
    await expect(a.by("composer")).to_be_focused()
    await a.page.keyboard.type("Ahoy")
    await press("Shift+Enter")
    await a.page.keyboard.type("there")
    await press("Enter")
    await b.hears("Ahoy")
    await press("Escape")
    await press("Escape")
    await expect(a.screen("searching")).to_be_visible()
    await press("Escape")
    await expect(a.screen("lobby")).to_be_visible()


async def test_arabic_runs_right_to_left(somebody: Arrive) -> None:
    """A browser that prefers Arabic gets the page in Arabic, from right to left."""
    a = await somebody(locale="ar")
    await a.come()
    await expect(a.screen("welcome")).to_be_visible()
    assert await a.page.evaluate("[document.documentElement.dir, document.documentElement.lang]") == ["rtl", "ar"]


async def test_settings_are_kept(somebody: Arrive) -> None:
    """Theme and language apply at once and survive a reload."""
    a = await somebody()
    await a.enter()
    await a.page.get_by_role("button", name="Settings").click()
    await a.page.get_by_role("radio", name="Dark").check(force=True)
    await a.page.get_by_role("radio", name="Español").check(force=True)
    await expect(a.page.locator("html")).to_have_attribute("lang", "es")
    await a.page.reload()
    await expect(a.screen("lobby")).to_be_visible()
    await expect(a.page.locator("html")).to_have_attribute("lang", "es")
    assert await a.page.evaluate("document.documentElement.dataset.theme") == "dark"


async def test_the_newest_window_wins(somebody: Arrive) -> None:
    """A duplicated tab becomes a guest of its own instead of taking the first one's place."""
    a, b = await somebody(), await somebody()
    await a.enter("ferns")
    await b.enter("ferns")
    await meet(a, b)
    copied = await a.page.evaluate("JSON.stringify({...sessionStorage})")
    twin = await a.context.new_page()
    await twin.add_init_script(
        f"if (sessionStorage.length === 0) Object.entries({copied}).forEach(([k, v]) => sessionStorage.setItem(k, v))"
    )
    await twin.goto(a.url)
    await expect(twin.locator('[data-screen="lobby"]')).to_be_visible()
    await a.say("Only me")
    await b.hears("Only me")
