"""What pages and workers compare, to know whether they understand each other."""

from typing import Annotated

import msgspec
import pytest

from visavis import contract
from visavis.contract import ERRORS, REQUESTS, Request
from visavis.describe import contract_hash


def test_other_words_for_the_same_leave_the_contract_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or every open page would load itself anew for them."""
    before = contract_hash()
    monkeypatch.setattr(contract.SendTyping, "__doc__", "Said in quite another way.")
    monkeypatch.setitem(ERRORS, "busy", (ERRORS["busy"][0], "Said in quite another way."))
    assert contract_hash() == before


def test_a_field_its_type_and_its_bound_are_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes one of its own: none is like another, or like the one without."""
    seen = [contract_hash()]
    name, was = next((name, one) for name, one in REQUESTS.items() if one.type is contract.SendTyping)
    for field in (
        ("further", int),
        ("further", str),
        ("description", int),
        ("description", str),
        ("further", Annotated[str, msgspec.Meta(max_length=5)]),
        ("further", Annotated[str, msgspec.Meta(max_length=6)]),
    ):
        other = msgspec.defstruct("SendTyping", [field], bases=(contract.SendTyping,), frozen=True, kw_only=True)
        monkeypatch.setitem(REQUESTS, name, Request(name, other, was.reply, was.cost))
        seen.append(contract_hash())
    assert len(set(seen)) == len(seen) == 7


def test_a_code_of_an_error_changes_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that does not know it could not say what it means."""
    before = contract_hash()
    monkeypatch.setitem(ERRORS, "unheard_of", (400, "New."))
    assert contract_hash() != before
