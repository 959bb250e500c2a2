"""What the fast carrier leans on in the libraries beneath it."""

import aiohttp
import pytest
from aiohttp import web

from visavis.doors import engine


def test_the_aiohttp_that_is_installed_is_known() -> None:
    """Its names that `_take_over` and `_accept` use are there, so that the fast carrier is used at all."""
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
