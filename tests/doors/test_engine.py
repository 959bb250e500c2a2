"""What the fast carrier leans on in the libraries beneath it, and what it alone refuses."""

import contextlib

import aiohttp
import pytest
from aiohttp import web

from echo import echo
from faults import within
from frames import CLOSE, TEXT, Line, frame
from visavis.doors import engine
from wire import Polls


def test_the_aiohttp_that_is_installed_is_known() -> None:
    """Its names that `_take_over` and `_may_upgrade` use are there, so that the fast carrier is used at all."""
    assert engine.unusable() == ""
    assert {"_message_tail"} <= set(web.RequestHandler.__slots__)
    assert "transport" in {name for kind in web.RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}


def test_an_aiohttp_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its version, or by what it lacks; then the stock carrier is used."""
    monkeypatch.setattr(aiohttp, "__version__", "3.13.9")
    assert "3.13.9" in engine.unusable()
    monkeypatch.setattr(aiohttp, "__version__", "3.14.0")
    monkeypatch.setattr(web, "RequestHandler", object)
    assert "upgrade" in engine.unusable()


@pytest.mark.asyncio(loop_scope="session")
async def test_of_websockets_that_are_opened_and_say_nothing_one_stays() -> None:
    """Each is a socket for as long as it may be silent, and opening one costs its client little. Stock keeps them."""
    async with echo("fast") as host, Polls(host.url) as polls, contextlib.AsyncExitStack() as opened:
        lines = [await opened.enter_async_context(Line(host.url, polls.sid)) for _ in range(5)]
        async with within(2):
            for line in lines[:-1]:
                assert await line.rest() == []
        lines[-1].send(frame(TEXT, b"2probe") + frame(TEXT, b"5") + frame(TEXT, b"4x"))
        assert await lines[-1].hear_text("4") == "4x"


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_tried_out_is_tried_out_once() -> None:
    """A client that asks again and again is none; stock answers as often as it is asked."""
    async with echo("fast") as host, Polls(host.url) as polls:
        async with Line(host.url, polls.sid) as line:
            line.send(frame(TEXT, b"2probe") * 100)
            assert [said.kind for said in await line.rest()] == [TEXT, CLOSE]
        assert await polls.post("4on") == 200
        assert await polls.receive("4") == "4on"


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_tried_out_ends_with_its_session() -> None:
    """Else it would stay, and count for nobody."""
    async with echo("fast") as host, Polls(host.url) as polls, Line(host.url, polls.sid) as line:
        assert await polls.post("1") == 200
        async with within(2):
            assert await line.rest() == []
