"""Matching: who may meet, how good a pair is, and what a round promises."""

import itertools
import random
import time
import unicodedata
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.core.matching import (
    Pair,
    Policy,
    Ticket,
    compatible,
    match_round,
    measured_round,
    next_widening,
    normalise_interest,
    rarity_of,
    weigh,
)

NOW = 1_000_000
POLICY = Policy()
LARGE = Policy(exact_limit=0, block=8, reach=2)
"""Every pool counts as large, and even a dozen tickets fall into several blocks."""


def ticket(name: str = "a", *, waited: int = 0, **fields: object) -> Ticket:
    """A ticket of the guest `name` that has waited so many milliseconds at NOW."""
    plain: dict[str, object] = {
        "id": f"search-{name}",
        "guest": f"guest-{name}",
        "worker": "w1",
        "interests": (),
        "languages": ("en",),
        "aliases": (f"guest-{name}", f"device-{name}"),
        "avoid": frozenset(),
        "since": NOW - waited,
    }
    return Ticket(**(plain | fields))  # type: ignore[arg-type]


@st.composite
def pools(draw: st.DrawFn, most: int = 10) -> list[Ticket]:
    """Pools in which interests, languages, blocks, ages at every stage and second tabs of a guest all occur."""
    size = draw(st.integers(0, most))
    pool = []
    for number in range(size):
        guest = draw(st.sampled_from([number, number, number, max(0, number - 1)]))
        pool.append(
            ticket(
                str(number),
                guest=f"guest-{guest}",
                aliases=(f"guest-{guest}", f"device-{number}"),
                interests=tuple(
                    draw(st.lists(st.sampled_from(["jazz", "chess", "opera", "tea"]), max_size=3, unique=True))
                ),
                languages=tuple(draw(st.lists(st.sampled_from(["en", "es", "ar"]), max_size=2, unique=True))),
                avoid=frozenset(
                    draw(
                        st.lists(
                            st.sampled_from([f"{kind}-{n}" for kind in ("guest", "device") for n in range(size)]),
                            max_size=2,
                        )
                    )
                ),
                since=NOW - draw(st.sampled_from([-50, 0, 300, 599, 600, 2_500, 9_999, 10_000, 60_000])),
            )
        )
    return pool


def crowd(size: int, seed: int) -> list[Ticket]:
    """A larger pool for seeded tests: a few languages, popular and rare interests, some blocks."""
    rng = random.Random(seed)
    return [
        ticket(
            str(number),
            interests=tuple({f"topic-{int(rng.paretovariate(0.7)) % 60}" for _ in range(rng.randrange(5))}),
            languages=tuple(rng.sample(["en", "en", "es", "ar"], rng.randrange(1, 3)))[:2],
            avoid=frozenset({f"guest-{rng.randrange(size)}"}),
            since=NOW - rng.randrange(12_000),
        )
        for number in range(size)
    ]


def total(pairs: Sequence[Pair]) -> float:
    return sum(pair.weight for pair in pairs)


def brute_force(pool: Sequence[Ticket], policy: Policy) -> float:
    """The greatest total weight of any set of disjoint compatible pairs, by trying them all."""
    rarity = rarity_of(pool)
    weights = {
        frozenset({i, j}): weigh(pool[i], pool[j], NOW, policy, rarity)
        for i, j in itertools.combinations(range(len(pool)), 2)
        if compatible(pool[i], pool[j], NOW, policy)
    }

    def best(left: tuple[int, ...]) -> float:
        if not left:
            return 0.0
        first, rest = left[0], left[1:]
        return max(
            best(rest),
            *(
                weights[frozenset({first, other})] + best(tuple(k for k in rest if k != other))
                for other in rest
                if frozenset({first, other}) in weights
            ),
            0.0,
        )

    return best(tuple(range(len(pool))))


def oldest_first_best_overlap(pool: Sequence[Ticket], policy: Policy) -> float:
    """Total weight when each ticket in order of age takes the compatible one that shares most interests."""
    rarity = rarity_of(pool)
    left = sorted(pool, key=lambda t: (t.since, t.id))
    weight = 0.0
    while left:
        first = left.pop(0)
        fitting = [other for other in left if compatible(first, other, NOW, policy)]
        if fitting:
            other = max(fitting, key=lambda o: len(set(first.interests) & set(o.interests)))
            left.remove(other)
            weight += weigh(first, other, NOW, policy, rarity)
    return weight


def left_over(pool: Sequence[Ticket], pairs: Sequence[Pair]) -> list[Ticket]:
    matched = {t.id for pair in pairs for t in (pair.a, pair.b)}
    return [t for t in pool if t.id not in matched]


def check_promises(pool: Sequence[Ticket], pairs: Sequence[Pair], policy: Policy) -> None:
    """What holds for every round, large or small."""
    ids = [t.id for pair in pairs for t in (pair.a, pair.b)]
    assert len(ids) == len(set(ids)), "somebody is in two pairs"
    rarity = rarity_of(pool)
    for pair in pairs:
        assert compatible(pair.a, pair.b, NOW, policy)
        assert pair.a.since <= pair.b.since
        assert pair.weight == pytest.approx(weigh(pair.a, pair.b, NOW, policy, rarity))
        assert set(pair.why.interests) == set(pair.a.interests) & set(pair.b.interests)
        assert set(pair.why.languages) == set(pair.a.languages) & set(pair.b.languages)
    for a, b in itertools.combinations(left_over(pool, pairs), 2):
        assert not compatible(a, b, NOW, policy), "two who fit were both left waiting"


class TestCompatible:
    def test_two_new_guests_without_interests_meet_at_once(self) -> None:
        """Who names no interest does not wait for a stage."""
        assert compatible(ticket("a"), ticket("b"), NOW, POLICY)

    def test_a_guest_never_meets_itself(self) -> None:
        """Two tabs of one guest are not strangers."""
        assert not compatible(ticket("a"), ticket("b", guest="guest-a"), NOW, POLICY)

    def test_nobody_meets_the_same_search_twice(self) -> None:
        """A ticket does not fit itself, whatever guest it claims."""
        assert not compatible(ticket("a"), ticket("a", guest="guest-other"), NOW, POLICY)

    @pytest.mark.parametrize("avoided", ["guest-b", "device-b"])
    def test_avoiding_works_both_ways_and_by_any_alias(self, avoided: str) -> None:
        """One side's block keeps both apart, by guest or by device."""
        wary = ticket("a", avoid=frozenset({avoided}), waited=60_000)
        other = ticket("b", waited=60_000)
        assert not compatible(wary, other, NOW, POLICY)
        assert not compatible(other, wary, NOW, POLICY)

    @pytest.mark.parametrize(
        ("first", "second", "meet"), [(0, 0, False), (600, 599, False), (599, 600, False), (600, 600, True)]
    )
    def test_both_must_have_waited_before_they_meet_without_a_shared_interest(
        self, first: int, second: int, meet: bool
    ) -> None:
        """Each side's own stage counts, to the millisecond."""
        a, b = ticket("a", interests=("jazz",), waited=first), ticket("b", interests=("chess",), waited=second)
        assert compatible(a, b, NOW, POLICY) is meet

    def test_one_who_insists_does_not_meet_one_who_named_nothing(self) -> None:
        """Having no interests is not sharing one."""
        assert not compatible(ticket("a", interests=("jazz",)), ticket("b"), NOW, POLICY)
        assert compatible(ticket("a", interests=("jazz",), waited=600), ticket("b"), NOW, POLICY)

    @pytest.mark.parametrize(("first", "second", "meet"), [(9_999, 10_000, False), (10_000, 10_000, True)])
    def test_both_must_have_waited_before_they_meet_without_a_shared_language(
        self, first: int, second: int, meet: bool
    ) -> None:
        """A shared interest does not make up for a language."""
        a = ticket("a", languages=("en",), interests=("jazz",), waited=first)
        b = ticket("b", languages=("ar",), interests=("jazz",), waited=second)
        assert compatible(a, b, NOW, POLICY) is meet

    def test_who_names_no_language_speaks_to_anyone(self) -> None:
        """Also to one who has just come."""
        assert compatible(ticket("a", languages=()), ticket("b", languages=("ar",)), NOW, POLICY)

    @given(pools(most=2))
    def test_it_is_symmetric(self, pool: list[Ticket]) -> None:
        """Nobody meets someone who would not meet them."""
        for a, b in itertools.permutations(pool, 2):
            assert compatible(a, b, NOW, POLICY) == compatible(b, a, NOW, POLICY)


class TestWeigh:
    def test_a_rare_interest_is_worth_more_than_a_common_one(self) -> None:
        """Sharing what everybody likes says little."""
        pool = [ticket(str(n), interests=("films",)) for n in range(20)] + [ticket("x", interests=("fencing",))]
        rarity = rarity_of(pool)
        assert 0 <= rarity["films"] < rarity["fencing"] <= 1
        films = weigh(ticket("a", interests=("films",)), ticket("b", interests=("films",)), NOW, POLICY, rarity)
        fencing = weigh(ticket("a", interests=("fencing",)), ticket("b", interests=("fencing",)), NOW, POLICY, rarity)
        assert fencing > films > weigh(ticket("a"), ticket("b"), NOW, POLICY, rarity) > 0

    def test_waiting_adds_up_to_a_limit(self) -> None:
        """Seconds count for both sides, and a ticket of yesterday does not drown every interest."""
        none = weigh(ticket("a"), ticket("b"), NOW, POLICY, {})
        assert weigh(ticket("a", waited=4_000), ticket("b", waited=2_000), NOW, POLICY, {}) == pytest.approx(none + 3)
        longest = weigh(ticket("a", waited=10**9), ticket("b"), NOW, POLICY, {})
        assert longest == pytest.approx(none + POLICY.waiting_at_most)

    def test_a_ticket_from_the_future_counts_as_new(self) -> None:
        """A pool's clock may step; weights stay above 0."""
        assert weigh(ticket("a", waited=-5_000), ticket("b"), NOW, POLICY, {}) == weigh(
            ticket("a"), ticket("b"), NOW, POLICY, {}
        )

    def test_the_language_both_prefer_is_worth_most(self) -> None:
        """A second language on both sides is worth less, none nothing."""

        def worth(a: tuple[str, ...], b: tuple[str, ...]) -> float:
            return weigh(ticket("a", languages=a), ticket("b", languages=b), NOW, POLICY, {})

        assert worth(("es", "en"), ("es",)) > worth(("es", "en"), ("en",)) > worth(("es", "en"), ("ar", "en"))
        assert worth(("es", "en"), ("ar", "en")) > worth(("es",), ("ar",)) > 0

    @given(pools(most=2))
    def test_it_is_symmetric_and_positive(self, pool: list[Ticket]) -> None:
        """A pair is worth the same from either side."""
        rarity = rarity_of(pool)
        for a, b in itertools.permutations(pool, 2):
            assert weigh(a, b, NOW, POLICY, rarity) == pytest.approx(weigh(b, a, NOW, POLICY, rarity))
            assert weigh(a, b, NOW, POLICY, rarity) > 0


class TestMatchRound:
    def test_no_tickets_and_one_ticket_make_no_pairs(self) -> None:
        """Nobody is paired with nobody."""
        for policy in (POLICY, LARGE):
            assert match_round([], NOW, policy) == []
            assert match_round([ticket("a")], NOW, policy) == []

    def test_it_says_why_rarest_first_and_in_the_language_both_prefer(self) -> None:
        """The reason that is shown is the one that tells most."""
        pool = [ticket(str(n), interests=("films",), languages=("ar",)) for n in range(3)]
        pool.append(ticket("x", interests=("films", "fencing"), languages=("de", "en", "es"), waited=9))
        pool.append(ticket("y", interests=("fencing", "films"), languages=("es", "en"), waited=8))
        pair = match_round(pool, NOW)[0]
        assert (pair.a.id, pair.b.id) == ("search-x", "search-y")
        assert pair.why.interests == ("fencing", "films")
        assert pair.why.languages == ("en", "es")

    def test_a_worse_pair_is_taken_when_it_makes_the_whole_better(self) -> None:
        """The best single pair would leave two guests without anyone."""
        pool = [
            ticket("a", interests=("jazz",)),
            ticket("b", interests=("jazz", "opera", "tea")),
            ticket("c", interests=("chess", "opera", "tea")),
            ticket("d", interests=("chess",)),
        ]
        policy = Policy(meeting=2.0)
        assert {(p.a.id, p.b.id) for p in match_round(pool, NOW, policy)} == {
            ("search-a", "search-b"),
            ("search-c", "search-d"),
        }

    def test_waiting_wins_over_interests_within_five_seconds(self) -> None:
        """Two who keep losing their only partners to each other get them at the latest then."""
        pool = [
            ticket("es", languages=("es",), waited=5_000),
            ticket("x", languages=("es", "en"), interests=("jazz", "opera"), waited=600),
            ticket("y", languages=("en", "ar"), interests=("jazz", "opera"), waited=600),
            ticket("ar", languages=("ar",), waited=5_000),
        ]
        assert len(match_round(pool, NOW)) == 2

    @settings(deadline=None, max_examples=300)
    @given(pools(), st.sampled_from([POLICY, LARGE]))
    def test_nobody_twice_nobody_who_must_not_and_nobody_left_who_could(
        self, pool: list[Ticket], policy: Policy
    ) -> None:
        """The promises of a round, small or large."""
        check_promises(pool, match_round(pool, NOW, policy), policy)

    @settings(deadline=None, max_examples=200)
    @given(pools())
    def test_small_pools_reach_the_optimum(self, pool: list[Ticket]) -> None:
        """No set of pairs, of all there are, weighs more."""
        # Weights are rounded to thousandths in up to seven parts for the integers of the blossom algorithm.
        assert total(match_round(pool, NOW)) == pytest.approx(brute_force(pool, POLICY), abs=0.02)

    @settings(deadline=None, max_examples=200)
    @given(pools())
    def test_it_is_never_worse_than_oldest_first_best_overlap(self, pool: list[Ticket]) -> None:
        """Each in turn taking the best that is left cannot beat the optimum."""
        assert total(match_round(pool, NOW)) >= oldest_first_best_overlap(pool, POLICY) - 0.02

    @settings(deadline=None, max_examples=100)
    @given(pools(), st.randoms(use_true_random=False), st.sampled_from([POLICY, LARGE]))
    def test_the_result_does_not_depend_on_the_order_of_the_tickets(
        self, pool: list[Ticket], rng: random.Random, policy: Policy
    ) -> None:
        """Two workers that read the same pool propose the same pairs."""
        shuffled = rng.sample(pool, len(pool))
        assert match_round(pool, NOW, policy) == match_round(pool, NOW, policy) == match_round(shuffled, NOW, policy)

    @pytest.mark.parametrize("size", [60, 201, 450, 700])
    def test_large_pools_keep_the_promises_and_nearly_the_optimum(self, size: int) -> None:
        """Above the exact limit at least 95 % of it, and better than oldest-first best overlap."""
        pool = crowd(size, seed=size)
        policy = Policy(exact_limit=50)
        pairs = match_round(pool, NOW, policy)
        check_promises(pool, pairs, policy)
        assert total(pairs) >= 0.95 * total(match_round(pool, NOW, Policy(exact_limit=size)))
        assert total(pairs) >= oldest_first_best_overlap(pool, policy)

    @pytest.mark.parametrize("seed", range(5))
    def test_many_small_blocks_keep_the_promises(self, seed: int) -> None:
        """Also where improving has next to no room, and everything falls to completing."""
        pool = crowd(150, seed)
        policy = Policy(exact_limit=0, reach=1, block=2, proposals=1)
        check_promises(pool, match_round(pool, NOW, policy), policy)

    @pytest.mark.parametrize("seed", range(3))
    def test_proposals_are_taken_heaviest_first(self, seed: int) -> None:
        """Before any improving, a large round is already well above what chance would give."""
        pool = crowd(200, seed)
        pairs = match_round(pool, NOW, Policy(exact_limit=0, block=1))
        assert total(pairs) >= 0.9 * total(match_round(pool, NOW))

    @pytest.mark.parametrize("policy", [POLICY, LARGE])
    def test_guests_of_whom_none_wants_any_other_stay_apart(self, policy: Policy) -> None:
        """Blocks all round end in no pair, not in a search without end."""
        everyone = frozenset(f"device-{n}" for n in range(40))
        assert match_round([ticket(str(n), avoid=everyone) for n in range(40)], NOW, policy) == []

    def test_a_large_round_of_the_worst_shape_ends_in_time(self) -> None:
        """Ten popular interests and eight languages on every ticket: the proposals to one ticket are limited."""
        rng = random.Random(5)
        names, tongues = [f"topic-{n}" for n in range(30)], ["en", "es", "pt", "ar", "de", "fr", "ja", "fi"]
        pool = [
            ticket(str(n), interests=tuple(rng.sample(names, 10)), languages=tuple(rng.sample(tongues, 8)))
            for n in range(2_000)
        ]
        started = time.process_time()
        assert len(match_round(pool, NOW, Policy(reach=100))) == 1_000
        # A fraction of a second; with a hundred proposals for each interest and language it would be many.
        assert time.process_time() - started < 4


class TestNextWidening:
    @pytest.mark.parametrize(
        ("pool", "moment"),
        [
            ([], None),
            ([ticket("a", interests=("jazz",))], None),
            ([ticket("a", languages=()), ticket("b", languages=())], None),
            ([ticket("a", interests=("jazz",), waited=100), ticket("b", interests=("chess",), waited=250)], 500),
            ([ticket("a", interests=("jazz",), waited=100), ticket("b")], 500),
            ([ticket("a", waited=1_000), ticket("b", waited=400)], 9_600),
            ([ticket("a", waited=10_000), ticket("b", waited=20_000)], None),
        ],
    )
    def test_it_names_the_moment_at_which_the_second_of_two_widens(
        self, pool: list[Ticket], moment: int | None
    ) -> None:
        """One alone who accepts anyone has still nobody to meet."""
        assert next_widening(pool, NOW, POLICY) == moment

    @settings(deadline=None, max_examples=300)
    @given(pools(most=6))
    def test_no_pair_becomes_compatible_before_it(self, pool: list[Ticket]) -> None:
        """A round in between would be in vain."""
        moment = next_widening(pool, NOW, POLICY)
        assert moment is None or moment > 0
        last = NOW + (10**8 if moment is None else moment - 1)
        for a, b in itertools.combinations(pool, 2):
            assert compatible(a, b, last, POLICY) == compatible(a, b, NOW, POLICY)

    @settings(deadline=None, max_examples=100)
    @given(pools(most=6))
    def test_following_it_misses_no_pair(self, pool: list[Ticket]) -> None:
        """From moment to moment one arrives, in a few steps, at everything that waiting can open."""
        now = NOW
        for _ in range(4 * len(pool) + 1):
            moment = next_widening(pool, now, POLICY)
            if moment is None:
                break
            now += moment
        else:
            pytest.fail("there is always another moment")
        for a, b in itertools.combinations(pool, 2):
            assert compatible(a, b, now, POLICY) == compatible(a, b, now + 10**8, POLICY)


class TestNormaliseInterest:
    @pytest.mark.parametrize(
        ("typed", "compared"),
        [
            ("  Rock \t CLIMBING\n", "rock climbing"),
            ("Straße", "strasse"),
            ("ﬁlm", "film"),
            ("cafe\u0301", "café"),
            ("\uff2a\uff21\uff3a\uff3a", "jazz"),
            ("日本\u3000語", "日本 語"),
            ("ja\u200bzz", "jazz"),
            ("\u202ezzaj\u202c", "zzaj"),
            ("\ufeffjazz\x00\x07", "jazz"),
            ("\u2764\ufe0f", "\u2764"),
            ("c++", "c++"),
            ("\u200b\u202e\u2066", ""),
            ("\u3164\u2800\u00a0", ""),
            ("\u0301\u0301", ""),
            ("\ud800", ""),
            ("", ""),
        ],
    )
    def test_what_looks_the_same_is_the_same(self, typed: str, compared: str) -> None:
        """Zero-width characters, direction overrides, widths, cases and blanks make no difference."""
        assert normalise_interest(typed) == compared

    @settings(max_examples=500)
    @given(
        st.text(max_size=200)
        | st.text(alphabet="\u0301\u0316\u0345\u200b\u202e\u1100\u1161\u11a8ﷺİß aA\u0130", max_size=200)
    )
    def test_the_result_is_short_visible_and_stable(self, text: str) -> None:
        """At most 40 characters, no control or format character, and normalising again changes nothing."""
        result = normalise_interest(text)
        assert len(result) <= 40
        assert not any(unicodedata.category(character)[0] == "C" for character in result)
        assert result == " ".join(result.split())
        assert normalise_interest(result) == result

    @pytest.mark.parametrize("unit", ["\u0301\u0316", "a\u0301\u0316", "\u200b", " ", "ﷺ", "x ", "\u1100"])
    def test_a_huge_text_takes_linear_time(self, unit: str) -> None:
        """A million characters of the worst kinds end within a second or so, and leave at most 40."""
        started = time.process_time()
        assert len(normalise_interest(unit * (1_000_000 // len(unit)))) <= 40
        assert time.process_time() - started < 2


@given(pools())
@settings(max_examples=100, deadline=None)
def test_a_small_round_is_told_to_weigh_what_the_best_weighs(pool: list[Ticket]) -> None:
    """Which a search through all pairings finds as well; comparing changes nothing."""
    made = measured_round(pool, NOW, POLICY, compare=True)
    assert made.pairs == match_round(pool, NOW, POLICY)
    assert made.exact
    assert made.weight == made.best == total(made.pairs)
    assert made.best == pytest.approx(brute_force(pool, POLICY), abs=0.01)


@given(pools())
@settings(max_examples=100, deadline=None)
def test_a_large_round_is_held_against_the_best_of_the_tickets_looked_at(pool: list[Ticket]) -> None:
    """Here all of them: so that the comparison finds what a search through all pairings finds."""
    made = measured_round(pool, NOW, LARGE, compare=True)
    assert made.pairs == match_round(pool, NOW, LARGE)
    if pool:
        assert not made.exact
        assert made.weight == pytest.approx(total(made.pairs), abs=0.01)
        assert made.best == pytest.approx(brute_force(pool, LARGE), abs=0.01)


def test_of_a_round_over_thousands_a_part_is_compared() -> None:
    """Whole pairs of about two hundred tickets, near to their best; which ones goes by the time."""
    pool = crowd(1500, 3)
    rounds = [measured_round(pool, NOW + later, POLICY, compare=True) for later in (0, 700)]
    for made in rounds:
        assert not made.exact
        assert 0.9 < made.weight / made.best <= 1
        assert made.weight < total(made.pairs) / 4
    assert rounds[0].weight != rounds[1].weight


def test_a_policy_can_be_read_from_settings() -> None:
    """Every number has a default and may be replaced by name."""
    assert msgspec.convert({"widen_interests_after": 900}, Policy).widen_interests_after == 900
