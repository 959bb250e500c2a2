"""Who may come in, by the calendar, and what they are called."""

import datetime

import pytest

from visavis.contract import RULES_VERSION, CreateGuest, Refused
from visavis.core.identity import age_on, check_entry, new_id, new_profile

TODAY = datetime.date(2026, 3, 1)


def entry(
    birth: str | None = "1990-05-17",
    *,
    rules: int | None = RULES_VERSION,
    today: datetime.date = TODAY,
    minimum: int = 18,
    adult: bool = False,
    known_rules: int = 0,
) -> Refused | None:
    """The refusal, or None for somebody who may come in."""
    try:
        check_entry(
            CreateGuest(birth_date=birth, rules=rules),
            known_adult=adult,
            known_rules=known_rules,
            minimum_age=minimum,
            today=today,
        )
    except Refused as refused:
        return refused
    return None


@pytest.mark.parametrize(
    ("birth", "today", "age"),
    [
        ("2008-03-01", "2026-03-01", 18),
        ("2008-03-02", "2026-03-01", 17),
        ("2008-02-29", "2026-02-28", 17),
        ("2008-02-29", "2026-03-01", 18),
        ("2008-02-29", "2028-02-29", 20),
        ("2007-12-31", "2026-01-01", 18),
        ("2026-03-01", "2026-03-01", 0),
    ],
)
def test_age_is_counted_in_birthdays(birth: str, today: str, age: int) -> None:
    """Someone born on 29 February has one on 1 March in common years."""
    assert age_on(datetime.date.fromisoformat(birth), datetime.date.fromisoformat(today)) == age


def test_one_comes_of_age_on_the_birthday() -> None:
    """Not the day before."""
    assert entry("2008-03-01") is None
    refused = entry("2008-03-02")
    assert refused is not None
    assert (refused.code, refused.data) == ("under_age", {"minimumAge": 18})


@pytest.mark.parametrize("birth", ["2026-03-02", "1895-01-01", "2025-02-29", "2026-13-01", "1990-00-10", "0000-01-01"])
def test_a_day_nobody_here_was_born_on_is_refused(birth: str) -> None:
    """Tomorrow, 131 years ago, or not in any calendar; which field it was is said."""
    refused = entry(birth)
    assert refused is not None
    assert (refused.code, refused.data) == ("bad_request", {"field": "birthDate"})


def test_who_was_let_in_before_is_not_asked_again() -> None:
    """Unless the house rules have changed since."""
    assert entry(None, rules=None, adult=True, known_rules=RULES_VERSION) is None
    asked = entry(None, rules=None, adult=True, known_rules=RULES_VERSION - 1)
    assert asked is not None
    assert (asked.code, asked.data) == ("rules_not_accepted", {"rules": RULES_VERSION})
    unknown = entry(None)
    assert unknown is not None
    assert unknown.code == "birth_date_needed"


def test_an_answer_given_now_outweighs_one_remembered() -> None:
    """A browser remembered as grown says no birth date of a child."""
    refused = entry("2020-01-01", adult=True, known_rules=RULES_VERSION)
    assert refused is not None
    assert refused.code == "under_age"


def test_without_a_minimum_age_nobody_is_asked() -> None:
    """The rules are still to be accepted."""
    assert entry(None, minimum=0) is None
    refused = entry(None, minimum=0, rules=None)
    assert refused is not None
    assert refused.code == "rules_not_accepted"


def test_ids_and_names_are_random() -> None:
    """128 bits; friendly names that fit their bounds."""
    assert len({new_id() for _ in range(1000)}) == 1000
    assert {len(new_id()) for _ in range(100)} == {22}
    profiles = [new_profile() for _ in range(500)]
    assert len({profile.name for profile in profiles}) > 400
    assert all(len(profile.name) <= 40 and 0 <= profile.hue < 360 for profile in profiles)
