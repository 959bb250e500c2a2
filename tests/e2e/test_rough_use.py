"""Rough use: haste, strange storage, lost networks and odd texts must not cost anybody their conversation."""

import json
from typing import Any

import pytest
from playwright.async_api import expect

from people import PHONE, Arrive, meet
from rig import Service

TYPE_MANY = """async (count) => {
    const field = document.querySelector('[data-testid=composer]');
    const write = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
    for (let number = 0; number < count; number += 1) {
        write.call(field, `burst ${String(number).padStart(3, '0')}`);
        field.dispatchEvent(new Event('input', { bubbles: true }));
        await new Promise((resolve) => setTimeout(resolve));
        field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }));
        await new Promise((resolve) => setTimeout(resolve));
    }
}"""


async def test_haste_is_slowed_down_and_loses_nothing(somebody: Arrive, service: Service) -> None:
    """Far more than the server takes at once: all of it arrives in order, on one connection, and nothing fails."""
    a, b = await somebody(), await somebody()
    await a.enter("drumming")
    await b.enter("drumming")
    await meet(a, b)
    await a.page.evaluate(
        """() => {
            window.seen = new Set();
            const look = () => {
                for (const one of document.querySelectorAll('[data-delivery]')) seen.add(one.dataset.delivery);
                seen.add(document.querySelector('[data-testid=link]').dataset.link);
            };
            new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
        }"""
    )
    cuts = [line for line in service.workers[0].logged() if line["event"] == "flooder_cut"]
    await a.page.evaluate(TYPE_MANY, 120)
    await expect(b.message("burst 119", mine=False)).to_be_visible(timeout=30_000)
    heard = await b.page.locator('[data-mine="false"] p.said').all_inner_texts()
    assert heard == [f"burst {number:03}" for number in range(120)]
    assert not {"failed", "lost", "reconnecting", "offline"} & set(await a.page.evaluate("[...seen]"))
    assert [line for line in service.workers[0].logged() if line["event"] == "flooder_cut"] == cuts


async def test_menus_open_while_the_network_is_away(somebody: Arrive) -> None:
    """Nothing of the conversation's own surfaces has to be fetched when it is needed."""
    a, b = await somebody(service_workers="block"), await somebody()
    await a.enter("caves")
    await b.enter("caves")
    await meet(a, b)
    await a.say("Still there?")
    await b.hears("Still there?")
    await a.context.set_offline(True)
    await expect(a.by("link")).to_have_attribute("data-link", "offline")
    for entry in ("Settings", "Report", "Block"):
        await a.page.get_by_role("button", name="More").click()
        await a.page.get_by_role("menuitem", name=entry).click()
        await expect(a.page.get_by_role("dialog").first).to_be_visible()
        await a.page.keyboard.press("Escape")
        await expect(a.page.locator("dialog")).to_have_count(0)
    await a.message("Still there?").locator("p").first.hover()
    await a.page.get_by_role("button", name="Delete").click()
    await expect(a.by("delete-yes")).to_be_visible()
    await a.page.keyboard.press("Escape")
    await a.context.set_offline(False)
    await a.say("Back again")
    await b.hears("Back again")


GUEST = {"token": "x.y.z", "expiresAt": 1, "profile": {"name": "Somebody", "hue": 1}}
STRANGE: list[dict[str, Any]] = [
    {"sessionStorage": {"talk.1": {}}},
    {"sessionStorage": {"talk.1": {"seated": {"id": "x"}, "said": [{}], "outbox": {}, "inbox": {}}}},
    {"sessionStorage": {"talk.1": 5, "leaving.1": 5, "tab": {}}},
    {"sessionStorage": {"guest.1": 5}},
    {"sessionStorage": {"guest.1": {}}},
    {"sessionStorage": {"guest.1": GUEST}},
    {"localStorage": {"choices.1": {"interests": 5, "languages": "en", "mode": "smoke"}}},
    {"localStorage": {"choices.1": {"interests": [5, None], "languages": [1], "mode": "smoke"}}},
    {"localStorage": {"choices.1": {"interests": ["y" * 300, " ", "y" * 300], "languages": ["english!"], "mode": ""}}},
    {"localStorage": {"settings.1": {"theme": "pink", "locale": "xx", "sounds": "perhaps"}}},
    {"localStorage": {"settings.1": 5, "device": {}, "underAge": "x"}},
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda strange: json.dumps(strange)[:60])
async def test_strange_storage_shuts_nobody_out(somebody: Arrive, strange: dict[str, Any]) -> None:
    """What does not have the shape in which it was written is as if it had never been there."""
    a = await somebody()
    await a.enter()
    await a.page.goto(f"{a.url}/offline.html")
    for place, names in strange.items():
        for name, value in names.items():
            await a.page.evaluate(
                "([place, name, value]) => window[place].setItem(`visavis.${name}`, value)",
                [place, name, json.dumps(value)],
            )
    await a.come()
    await expect(a.page.locator('[data-screen="lobby"], [data-screen="welcome"]')).to_be_visible()
    if await a.screen("welcome").is_visible():
        await a.answer()
    await expect(a.page.locator("html")).to_have_attribute("lang", "en")
    await a.find()
    await expect(a.screen("searching")).to_be_visible()
    await expect(a.by("link")).to_have_attribute("data-link", "online")
    await a.page.keyboard.press("Escape")
    await expect(a.screen("lobby")).to_be_visible()
    await expect(a.page.get_by_role("alert")).to_have_count(0)


async def test_who_lost_the_seat_is_not_told_that_the_partner_did(somebody: Arrive) -> None:
    """With a token that the server does not know any more one is another guest, and the words do not blame anyone."""
    a, b = await somebody(), await somebody()
    await a.enter("moths")
    await b.enter("moths")
    await meet(a, b)
    await a.page.evaluate(
        """() => {
            const guest = JSON.parse(sessionStorage['visavis.guest.1']);
            const token = guest.token.slice(0, -8) + 'AAAAAAAA';
            sessionStorage['visavis.guest.1'] = JSON.stringify({ ...guest, token });
        }"""
    )
    await a.page.reload()
    await expect(a.by("ended")).to_have_attribute("data-ended", "missed")
    await expect(a.by("ended")).to_contain_text("ended while you were away")


async def test_nothing_visible_is_nothing_to_send(somebody: Arrive) -> None:
    """Blanks, joiners and fillers make no empty bubble; a book pasted by mistake does not stop the page."""
    a, b = await somebody(), await somebody()
    await a.enter("mimes")
    await b.enter("mimes")
    await meet(a, b)
    for nothing in ("\u200b\u200d", "\u2800\u3164", " \u00a0\n", "\ufe0f\u0301"):
        await a.say(nothing)
        # In its place is what one can do with an empty box.
        await expect(a.by("send")).to_have_count(0)
        await expect(a.by("voice-record")).to_be_visible()
        await expect(a.by("composer")).not_to_have_value("")
    await a.by("composer").fill("")
    await a.by("composer").focus()
    await a.page.keyboard.insert_text("y" * 500_000)
    await expect(a.page.get_by_text("16,000 characters too many")).to_be_visible()
    await a.say("👍🏽")
    await b.hears("👍🏽")
    await expect(b.by("message")).to_have_count(1)


async def test_the_connection_notice_leaves_the_partner_in_sight(somebody: Arrive) -> None:
    """On a phone, who it is and the way out stay free while the network is away."""
    a, b = await somebody(viewport=PHONE, has_touch=True, is_mobile=True), await somebody()
    await a.enter("lighthouses")
    await b.enter("lighthouses")
    await meet(a, b)
    await a.context.set_offline(True)
    notice = a.by("link").locator("p")
    await expect(notice).to_be_visible()
    covers = await notice.bounding_box()
    assert covers is not None
    for part in (a.by("partner-name"), a.by("presence"), a.by("skip"), a.by("why")):
        box = await part.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= covers["y"]


async def test_the_longest_interest_stays_on_the_page(somebody: Arrive) -> None:
    """Forty letters without a space break where the window ends."""
    a = await somebody(viewport=PHONE, has_touch=True, is_mobile=True)
    await a.enter("x" * 40, "y" * 40)
    await a.find()
    await expect(a.screen("searching")).to_be_visible()
    heading = await a.by("search-words").bounding_box()
    assert heading is not None
    assert heading["x"] >= 0
    assert heading["x"] + heading["width"] <= PHONE["width"]
    assert await a.by("search-words").evaluate("it => it.scrollWidth <= it.clientWidth")
    assert await a.sideways() == 0
