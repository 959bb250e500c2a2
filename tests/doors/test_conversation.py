"""Two guests talk: what the one does, the other's client receives, on one worker and through the whole server."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crowd import Crowd
from rig import Guest, Worker
from visavis.core.identity import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]


async def silent(guest: Guest, event: str, seconds: float = 0.3) -> None:
    """Nothing of this name comes."""
    with pytest.raises(TimeoutError):
        await guest.next(event, timeout=seconds)


async def test_two_strangers_are_told_who_and_why(crowd: Crowd) -> None:
    """Each sees the other's name and colour, one's own seat, and what both picked; nothing that tells more."""
    a, b = await crowd.arrive(), await crowd.arrive()
    await crowd.find(a, interests=["Jazz ", "climbing"])
    await crowd.find(b, interests=["chess", "jazz"])
    found, other = (await a.next("match:found"))["conversation"], (await b.next("match:found"))["conversation"]
    assert found["id"] == other["id"]
    assert {found["seat"], other["seat"]} == {0, 1}
    assert found["why"] == other["why"] == {"interests": ["jazz"], "languages": [crowd.tongue]}
    assert found["partner"] == {"seat": other["seat"], "profile": b.created["profile"], "state": "here"}
    assert other["partner"] == {"seat": found["seat"], "profile": a.created["profile"], "state": "here"}
    assert set(found) == {"id", "mode", "seat", "partner", "why", "startedAt", "claim", "call"}


async def test_what_one_says_the_other_hears(crowd: Crowd) -> None:
    """Words, replies, reactions and deletions, with the sender's id, number and the server's time; not echoed."""
    a, b, conversation = await crowd.pair()
    bodies: list[dict[str, Any]] = [
        {"kind": "text", "text": "hello\nthere 👋", "replyTo": None},
        {"kind": "text", "text": "as I said", "replyTo": new_id()},
        {"kind": "reaction", "target": new_id(), "emoji": "❤️"},
        {"kind": "reaction", "target": new_id(), "emoji": None},
        {"kind": "deletion", "target": new_id()},
    ]
    for seq, body in enumerate(bodies, 1):
        item = {"conversationId": conversation, "id": new_id(), "seq": seq, "body": body}
        accepted = (await a.ask("chat:message", item))["ok"]
        heard = await b.next("chat:message")
        assert heard == {**item, "seat": heard["seat"], "at": accepted["at"]}
    assert "chat:message" not in [name for name, _ in a.pushes]


async def test_a_message_sent_again_is_passed_on_again_as_it_was(crowd: Crowd) -> None:
    """The receiving client drops repeats by their id; the server must not, since it cannot know what arrived."""
    a, b, conversation = await crowd.pair()
    message = new_id()
    for _ in range(2):
        assert "ok" in await a.say(conversation, 1, "once", message)
        heard = await b.next("chat:message")
        assert (heard["id"], heard["seq"]) == (message, 1)


async def test_receipts_and_typing_reach_the_other_side(crowd: Crowd) -> None:
    """Delivered is what the partner's client says, and nobody else."""
    a, b, conversation = await crowd.pair()
    await a.say(conversation, 1, "hello")
    await silent(a, "chat:receipt")
    assert "ok" in await b.ask("chat:receipt", {"conversationId": conversation, "delivered": 1, "read": 0})
    receipt = await a.next("chat:receipt")
    assert (receipt["delivered"], receipt["read"]) == (1, 0)
    assert "ok" in await b.ask("chat:typing", {"conversationId": conversation, "typing": True})
    assert (await a.next("chat:typing"))["typing"] is True
    assert "ok" in await b.ask("chat:typing", {"conversationId": conversation, "typing": False})
    assert (await a.next("chat:typing"))["typing"] is False


async def test_leaving_is_told_once_and_ends_it_for_both(crowd: Crowd) -> None:
    """Afterwards neither can speak there, leaving again does no harm, and both can meet somebody else."""
    a, b, conversation = await crowd.pair()
    about = {"conversationId": conversation}
    assert "ok" in await a.ask("conversation:leave", about)
    assert await b.next("conversation:ended") == {**about, "reason": "left"}
    assert (await b.say(conversation, 1, "wait"))["error"]["code"] == "not_in_conversation"
    assert (await a.say(conversation, 1, "no"))["error"]["code"] == "not_in_conversation"
    assert "ok" in await a.ask("conversation:leave", about)
    assert "ok" in await b.ask("conversation:leave", about)
    await silent(a, "conversation:ended")
    c = await crowd.arrive()
    assert await crowd.meet(a, c) != conversation


async def test_a_dropped_connection_keeps_its_seat(crowd: Crowd) -> None:
    """The partner sees away and here again, and what was sent meanwhile arrives when it is sent again."""
    a, b, conversation = await crowd.pair()
    await a.vanish()
    assert (await b.next("conversation:partner"))["state"] == "away"
    message = new_id()
    assert "ok" in await b.say(conversation, 1, "are you there?", message)
    state = await a.connect()
    assert state["conversation"]["id"] == conversation
    assert state["conversation"]["partner"]["state"] == "here"
    assert (await b.next("conversation:partner"))["state"] == "here"
    await silent(a, "chat:message")
    assert "ok" in await b.say(conversation, 1, "are you there?", message)
    assert (await a.next("chat:message"))["id"] == message


async def test_when_both_drop_both_come_back(crowd: Crowd) -> None:
    """The first to return finds the other away, and is told when that changes."""
    a, b, conversation = await crowd.pair()
    await asyncio.gather(a.vanish(), b.vanish())
    await asyncio.gather(a.next("disconnect"), b.next("disconnect"))
    first = (await a.connect())["conversation"]
    assert first["id"] == conversation
    assert (await b.connect())["conversation"]["id"] == conversation
    if first["partner"]["state"] == "away":
        assert (await a.next("conversation:partner", lambda push: push["state"] == "here"))["state"] == "here"
    assert "ok" in await b.say(conversation, 1, "both here")
    assert (await a.next("chat:message"))["body"]["text"] == "both here"


async def test_waiting_for_a_lost_partner_ends(worker_with: WorkerWith, crowd: Crowd) -> None:
    """After the grace time, as lost; whoever comes back later finds no conversation."""
    brief = await worker_with(VISAVIS_GRACE_SECONDS="0.5")
    a, b = await crowd.arrive(brief.url), await crowd.arrive(brief.url)
    conversation = await crowd.meet(a, b)
    await a.vanish()
    assert (await b.next("conversation:partner"))["state"] == "away"
    assert await b.next("conversation:ended", timeout=3) == {"conversationId": conversation, "reason": "lost"}
    assert (await a.connect(brief.url))["conversation"] is None


async def test_coming_back_in_time_stops_the_grace_time(worker_with: WorkerWith, crowd: Crowd) -> None:
    """Dropping again begins it anew."""
    brief = await worker_with(VISAVIS_GRACE_SECONDS="1")
    a, b = await crowd.arrive(brief.url), await crowd.arrive(brief.url)
    conversation = await crowd.meet(a, b)
    for _ in range(3):
        await a.vanish()
        await b.next("conversation:partner", lambda push: push["state"] == "away")
        await asyncio.sleep(0.5)
        assert (await a.connect(brief.url))["conversation"]["id"] == conversation
        await b.next("conversation:partner", lambda push: push["state"] == "here")
    await silent(b, "conversation:ended", 1.2)


async def test_who_left_while_the_other_was_away_is_gone_for_good(crowd: Crowd) -> None:
    """The one who returns is told by the state that comes first."""
    a, b, conversation = await crowd.pair()
    await a.vanish()
    await b.next("conversation:partner")
    await b.ask("conversation:leave", {"conversationId": conversation})
    assert (await a.connect(claim=a.claim))["conversation"] is None


# --------------------------------------------------------------------------- safety


async def test_blocked_is_never_met_again_not_even_as_a_new_guest(worker_with: WorkerWith, crowd: Crowd) -> None:
    """The block is between browsers, both ways, and outlives sessions and recent partners."""
    forgetful = await worker_with(VISAVIS_RECENT_SECONDS="0")
    a, b = await crowd.arrive(forgetful.url), await crowd.arrive(forgetful.url)
    conversation = await crowd.meet(a, b)
    assert "ok" in await a.ask("safety:block", {"conversationId": conversation})
    assert await b.next("conversation:ended") == {"conversationId": conversation, "reason": "left"}
    again_a = await crowd.arrive(forgetful.url, a.created["device"])
    again_b = await crowd.arrive(forgetful.url, b.created["device"])
    for first, second in ((again_b, again_a), (a, b), (again_a, b), (a, again_b)):
        await crowd.find(first)
        await crowd.find(second)
        await silent(first, "match:found")
        await silent(second, "match:found", 0)
        await first.ask("match:cancel")
        await second.ask("match:cancel")
    c = await crowd.arrive(forgetful.url)
    await crowd.meet(again_b, c)


async def test_a_block_after_the_end_still_holds(worker_with: WorkerWith, crowd: Crowd) -> None:
    """One may think about it first; blocking twice is no error."""
    forgetful = await worker_with(VISAVIS_RECENT_SECONDS="0")
    a, b = await crowd.arrive(forgetful.url), await crowd.arrive(forgetful.url)
    conversation = await crowd.meet(a, b)
    await a.ask("conversation:leave", {"conversationId": conversation})
    for _ in range(2):
        assert "ok" in await b.ask("safety:block", {"conversationId": conversation})
    await crowd.find(a)
    await crowd.find(b)
    await silent(a, "match:found")


async def test_a_report_keeps_what_the_reporter_chose_and_nothing_else(crowd: Crowd, data_dir: Path) -> None:
    """Read from the file a moderator's tools would read; the conversation goes on."""
    a, b, conversation = await crowd.pair()
    await a.say(conversation, 1, "something private of mine")
    await b.say(conversation, 1, "something rude")
    heard = await a.next("chat:message")
    chosen = {"id": heard["id"], "mine": False, "text": heard["body"]["text"], "at": heard["at"]}
    asked = {"conversationId": conversation, "reason": "harassment", "words": "it was rude", "messages": [chosen]}
    report = (await a.ask("safety:report", asked))["ok"]["reportId"]
    with sqlite3.connect(data_dir / "visavis.sqlite") as db:
        (text,) = db.execute("SELECT data FROM reports WHERE id = ?", (report,)).fetchone()
        everything = "".join(row[0] for row in db.execute("SELECT data FROM reports"))
    db.close()
    stored = json.loads(text)
    assert stored.pop("at") > 0
    assert stored.pop("reporter") != stored.pop("reported")
    assert stored == {
        "conversation": conversation,
        "reason": "harassment",
        "words": "it was rude",
        "messages": [chosen],
        "files": [],
        "status": "open",
    }
    assert "private" not in everything
    assert "ok" in await b.say(conversation, 2, "still talking")
    assert (await a.next("chat:message"))["seq"] == 2


async def test_the_one_reported_learns_nothing_and_can_be_reported_afterwards(crowd: Crowd) -> None:
    """Up to the end of the record's time."""
    a, b, conversation = await crowd.pair()
    await b.ask("conversation:leave", {"conversationId": conversation})
    await a.next("conversation:ended")
    assert "reportId" in (await a.ask("safety:report", {"conversationId": conversation, "reason": "spam"}))["ok"]
    assert {name for name, _ in b.pushes} - {"lobby:state"} == {"session:state", "match:found"}


async def test_a_session_is_refreshed_for_the_same_guest(crowd: Crowd) -> None:
    """The new token takes the seat again."""
    a, b, conversation = await crowd.pair()
    refreshed = (await a.ask("session:refresh"))["ok"]
    assert refreshed["expiresAt"] >= a.created["expiresAt"]
    await a.hang_up()
    assert (await a.connect(token=refreshed["token"]))["conversation"]["id"] == conversation
    await b.next("conversation:partner", lambda push: push["state"] == "here")
