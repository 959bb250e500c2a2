"""The simulator: the crowd it draws, the optimum it holds results against, and what it prints."""

import itertools
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from visavis.core.matching import Policy, Ticket, compatible, rarity_of, weigh
from visavis.simulate import (
    MATCHERS,
    OURS,
    POOL_TIME,
    Crowd,
    Report,
    Workload,
    best_overlap,
    draw,
    first_come,
    main,
    optimum,
    run,
    run_pools,
    run_stream,
)

POLICY = Policy()


@pytest.fixture(scope="module")
def report() -> Report:
    """One quick run."""
    return run(1, quick=True)


def test_the_same_seed_draws_the_same_guests() -> None:
    """And another seed others."""
    workload = Workload()
    assert Crowd(workload, "1").pool(50) == Crowd(workload, "1").pool(50) != Crowd(workload, "2").pool(50)


def test_the_crowd_is_the_published_one() -> None:
    """Arrivals at the rate, interests by Zipf's law, languages and patience as the workload says."""
    coming = list(Crowd(Workload(), "crowd").arrivals(10, 20_000))
    tickets = [ticket for ticket, _ in coming]
    assert tickets[-1].since == pytest.approx(2_000_000, rel=0.05)
    assert sum(until - ticket.since for ticket, until in coming) / 20_000 == pytest.approx(30_000, rel=0.05)
    topics = Counter(topic for ticket in tickets for topic in ticket.interests)
    assert topics["topic 2"] > 1.5 * topics["topic 4"] > 2 * topics["topic 16"] > 0
    first = Counter(ticket.languages[0] for ticket in tickets)
    assert first["en"] / 20_000 == pytest.approx(0.4, abs=0.02)
    assert first["ja"] / 20_000 == pytest.approx(0.03, abs=0.01)
    assert max(len(ticket.interests) for ticket in tickets) == 5


@pytest.mark.parametrize("name", MATCHERS)
def test_every_policy_faces_the_same_rules(name: str) -> None:
    """Nobody twice, only compatible pairs, and nobody left who could meet somebody left."""
    pool = Crowd(Workload(avoiding=0.9), "rules").pool(120)
    pairs = MATCHERS[name](pool, POOL_TIME, POLICY)
    matched = [ticket.id for pair in pairs for ticket in pair]
    assert len(matched) == len(set(matched)) > 60
    assert all(compatible(a, b, POOL_TIME, POLICY) for a, b in pairs)
    left = [ticket for ticket in pool if ticket.id not in matched]
    assert not any(compatible(a, b, POOL_TIME, POLICY) for a, b in itertools.combinations(left, 2))


def waiting(name: str, since: int, *interests: str) -> Ticket:
    return Ticket(name, name, "w1", interests, ("en",), (name,), frozenset(), since)


def test_first_come_takes_the_oldest_and_best_overlap_the_most_alike() -> None:
    """That is what their names promise."""
    pool = [
        waiting("first", 1, "jazz", "tea"),
        waiting("second", 2, "jazz"),
        waiting("alike", 3, "jazz", "tea"),
    ]
    assert [(a.id, b.id) for a, b in first_come(pool, POOL_TIME, POLICY)] == [("first", "second")]
    assert [(a.id, b.id) for a, b in best_overlap(pool, POOL_TIME, POLICY)] == [("first", "alike")]


def test_nothing_beats_the_optimum() -> None:
    """The policy reaches it in small pools; the simpler ones stay below."""
    pool = Crowd(Workload(), "best").pool(80)
    rarity = rarity_of(pool)
    most = sum(weigh(a, b, POOL_TIME, POLICY, rarity) for a, b in optimum(pool, POOL_TIME, POLICY))
    shares = {result.policy: result.share for result in run_pools([pool], POLICY, rarity, exact=True)}
    assert most > 0
    assert shares[OURS] == pytest.approx(1, abs=1e-4)
    assert all(share is not None and share < 0.99 for name, share in shares.items() if name != OURS)


def test_two_guests_in_a_stream_wait_as_long_as_their_stages_say() -> None:
    """They arrive 300 ms apart without a shared interest: the later one's widening decides."""
    coming = [(waiting("a", 0, "jazz"), 9_000), (waiting("b", 300, "chess"), 9_000)]
    result = run_stream(1, coming, POLICY, OURS)
    assert (result.matched, result.abandoned) == (2, 0)
    assert (result.wait.p50, result.wait.p99) == (600, 900)
    assert result.beside_compatible.p99 == 0
    assert (result.beside_widened.p50, result.beside_widened.p99) == (600, 600)


def test_a_guest_who_gives_up_is_matched_with_nobody() -> None:
    """Whoever left is not in the next round."""
    coming = [(waiting("a", 0), 200), (waiting("b", 5_000), 9_000), (waiting("c", 5_030), 9_000)]
    result = run_stream(1, coming, POLICY, OURS)
    assert (result.matched, result.abandoned) == (2, 1)
    # b's arrival starts a round; c comes after it and waits out the debounce, beside b.
    assert (result.wait.p50, result.wait.p99) == (70, 100)
    assert result.beside_compatible.p99 == 70


def test_a_quick_run_meets_every_target_but_perhaps_the_clock(report: Report) -> None:
    """How many pairs a second is the machine's matter; all else is the policy's."""
    missed = [target.what for target in report.targets if not target.met and "a second" not in target.what]
    assert missed == []
    assert len(report.targets) == 6


def test_it_prints_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain text to read, JSON to compute with, progress apart from both."""
    assert main(["--quick", "--seed", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert msgspec.json.decode(out, type=Report).seed == 2
    assert "pools of 50" in err
    assert main(["--quick", "--seed", "2"]) == 0
    out, _ = capsys.readouterr()
    assert "BY FIRST LANGUAGE" in out
    assert "TARGETS" in out


def test_it_draws_a_plot(report: Report, tmp_path: Path) -> None:
    """The suffix decides the format."""
    pytest.importorskip("matplotlib")
    assert draw(report, tmp_path / "matching.svg")
    assert (tmp_path / "matching.svg").read_text().startswith("<?xml")


def test_without_matplotlib_it_says_that_nothing_was_drawn(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A runtime installation has no matplotlib; the figures are printed all the same."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw(report, tmp_path / "matching.png")
    assert "matplotlib is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
