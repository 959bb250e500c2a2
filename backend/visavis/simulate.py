"""Plays a published workload against the matching policy and two simpler ones, and prints what came of it.

Two experiments, both seeded:

- *Pools*: a pool of a given size is matched once. Its pairs are held against the true optimum (the
  maximum-weight matching over every compatible pair), and large pools are timed.
- *Streams*: guests arrive one by one and give up when their patience ends; rounds run as they do on a
  worker. Who waited how long, and how much of that with a compatible partner waiting too?

The simpler policies face the same rules (`compatible`) and are weighed with the same weights (`weigh`).
Time in a stream is simulated: it contains the debounce and the widening, not the computing.
"""

import argparse
import math
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import rustworkx

from visavis.core.matching import Policy, Ticket, compatible, match_round, next_widening, rarity_of, weigh

DEBOUNCE = 100
"""Milliseconds from one round of a pool to the next, as on a worker."""

POOL_TIME = 1_000_000
"""Milliseconds: the moment at which pools are matched."""

LARGEST_EXACT = 600
"""The largest pools whose optimum is worked out, and the size the largest pools are compared with."""

OURS = "visavis"

COLOURS = {OURS: "#c2410c", "best-overlap": "#0f766e", "first-come": "#64748b"}

Pairs = list[tuple[Ticket, Ticket]]

Matcher = Callable[[Sequence[Ticket], int, Policy], Pairs]
"""Tickets, now in milliseconds and the policy to the pairs of one round."""


class Workload(msgspec.Struct, frozen=True):
    """Who comes. Shares need not sum to 1."""

    topics: int = 500
    zipf: float = 1.0
    """The topic of rank r is named in proportion to r ** -zipf."""
    interests: tuple[float, ...] = (15, 15, 20, 25, 15, 10)
    """Share of guests who name 0, 1, 2, ... interests."""
    languages: tuple[tuple[str, float], ...] = (
        ("en", 40),
        ("es", 18),
        ("pt", 10),
        ("ar", 8),
        ("fr", 8),
        ("de", 7),
        ("hi", 5),
        ("ja", 3),
        ("fi", 1),
    )
    """First languages and their shares."""
    also_english: float = 0.4
    """Share of the others who speak English as well."""
    avoiding: float = 0.1
    """Share of guests who must not meet one of the latest twenty arrivals (a recent partner, a block)."""
    patience: float = 30_000
    """Milliseconds, the mean of an exponential distribution, until an unmatched guest gives up."""
    age: float = 2_000
    """Milliseconds, the mean of an exponential distribution: how long the tickets of a pool have waited."""


class PoolResult(msgspec.Struct, frozen=True):
    """What one policy made of several pools of one size; weights as in `weigh`, shares from 0 to 1."""

    size: int
    policy: str
    pools: int
    pairs: float
    """Mean number of pairs in a pool."""
    mean_weight: float
    """Mean weight of a pair."""
    mean_weight_same_rarity: float
    """The same with the rarity of the largest pool for all sizes, so that sizes can be compared."""
    shared_interests: float
    """Mean number of interests that a pair shares."""
    share: float | None
    """Mean share of the optimum; None if that was not worked out."""
    worst_share: float | None
    fit_share: float | None
    """The share that is left when only interests and languages count: of the sum of those parts of the weights
    over the pairs made, in proportion to the same sum over the pairs of the optimum."""
    seconds: float
    """Median time of one round on this machine."""
    pairs_per_second: float


class Waits(msgspec.Struct, frozen=True):
    """Percentiles (nearest rank) of waiting times in milliseconds; None of no times at all."""

    p50: float | None
    p95: float | None
    p99: float | None


class StreamResult(msgspec.Struct, frozen=True):
    """How guests fared who arrived at one rate."""

    rate: float
    """Arrivals a second, Poisson."""
    policy: str
    guests: int
    matched: int
    abandoned: int
    """Gave up unmatched. Those still waiting at the end of the simulation count neither as this nor as matched."""
    shared_interests: float
    mean_weight: float
    """Of a pair, with the rarity of all guests of the stream."""
    wait: Waits
    """Of the matched."""
    beside_compatible: Waits
    """Of the matched: the part of the wait during which a guest they might meet at that moment waited too."""
    beside_widened: Waits
    """The same, also counting guests they might meet only once both have given up on a shared interest."""
    wait_by_language: dict[str, Waits]
    abandoned_by_language: dict[str, float]
    """Share of the guests with this first language who gave up."""


class Target(msgspec.Struct, frozen=True):
    """Something the policy is meant to reach, and what it did reach."""

    what: str
    aim: float
    measured: float
    met: bool


class Report(msgspec.Struct, frozen=True):
    """Everything one run found out."""

    seed: int
    quick: bool
    workload: Workload
    policy: Policy
    pools: list[PoolResult]
    streams: list[StreamResult]
    targets: list[Target]


def _ours(tickets: Sequence[Ticket], now: int, policy: Policy) -> Pairs:
    return [(pair.a, pair.b) for pair in match_round(tickets, now, policy)]


def first_come(tickets: Sequence[Ticket], now: int, policy: Policy) -> Pairs:
    """Each guest in order of age takes the oldest one that is compatible."""
    return _in_turn(tickets, now, policy, by_overlap=False)


def best_overlap(tickets: Sequence[Ticket], now: int, policy: Policy) -> Pairs:
    """Each guest in order of age takes the compatible one that shares most interests, the oldest of these."""
    return _in_turn(tickets, now, policy, by_overlap=True)


def _in_turn(tickets: Sequence[Ticket], now: int, policy: Policy, *, by_overlap: bool) -> Pairs:
    # Sets as bits of an integer, so that these policies are not slow merely for being written plainly.
    bits: dict[str, int] = {}

    def mask(names: Iterable[str]) -> int:
        return sum(1 << bits.setdefault(name, len(bits)) for name in set(names))

    left = [
        (
            mask(ticket.interests),
            not ticket.interests or now - ticket.since >= policy.widen_interests_after,
            mask(ticket.languages),
            not ticket.languages or now - ticket.since >= policy.widen_languages_after,
            ticket,
        )
        for ticket in sorted(tickets, key=lambda ticket: (ticket.since, ticket.id))
    ]
    left.reverse()
    pairs = []
    while left:
        interests, any_interest, languages, any_language, first = left.pop()
        best, chosen = -1, -1
        for place in range(len(left) - 1, -1, -1):
            theirs, they_any_interest, speak, they_any_language, other = left[place]
            shared = interests & theirs
            if not shared and not (any_interest and they_any_interest):
                continue
            overlap = shared.bit_count() if by_overlap else 0
            if overlap <= best:
                continue
            if languages and speak and not languages & speak and not (any_language and they_any_language):
                continue
            if compatible(first, other, now, policy):
                best, chosen = overlap, place
                if not by_overlap:
                    break
        if chosen >= 0:
            pairs.append((first, left.pop(chosen)[4]))
    return pairs


MATCHERS: Mapping[str, Matcher] = {OURS: _ours, "first-come": first_come, "best-overlap": best_overlap}


class Crowd:
    """Draws guests of a workload, the same ones for the same seed."""

    def __init__(self, workload: Workload, seed: str) -> None:
        self._workload = workload
        self._rng = random.Random(seed)
        self._count = 0
        total = 0.0
        self._topics = [total := total + rank**-workload.zipf for rank in range(1, workload.topics + 1)]

    def guest(self, since: int) -> Ticket:
        """The next guest, who arrives at `since` (ms)."""
        rng, workload, number = self._rng, self._workload, self._count
        self._count += 1
        wanted = rng.choices(range(len(workload.interests)), workload.interests)[0]
        interests: dict[str, None] = {}
        while len(interests) < wanted:
            rank = rng.choices(range(workload.topics), cum_weights=self._topics)[0]
            interests[f"topic {rank + 1}"] = None
        language = rng.choices(*zip(*workload.languages, strict=True))[0]
        english = language != "en" and rng.random() < workload.also_english
        avoid = frozenset({f"guest {number - rng.randint(1, 20)}"} if rng.random() < workload.avoiding else ())
        return Ticket(
            id=f"search {number:06}",
            guest=f"guest {number}",
            worker="w1",
            interests=tuple(interests),
            languages=(language, "en") if english else (language,),
            aliases=(f"guest {number}",),
            avoid=avoid,
            since=since,
        )

    def pool(self, size: int) -> list[Ticket]:
        """A pool of `size` tickets, as it might wait at POOL_TIME."""
        return [self.guest(POOL_TIME - round(self._rng.expovariate(1 / self._workload.age))) for _ in range(size)]

    def arrivals(self, rate: float, guests: int) -> Iterator[tuple[Ticket, int]]:
        """`guests` tickets of a Poisson process with `rate` a second, each with the moment (ms) of giving up."""
        now = 0.0
        for _ in range(guests):
            now += self._rng.expovariate(rate / 1000)
            yield self.guest(round(now)), round(now + self._rng.expovariate(1 / self._workload.patience))


def optimum(tickets: Sequence[Ticket], now: int, policy: Policy) -> Pairs:
    """Pairs of maximum total weight over every compatible pair, worked out without `match_round`."""
    rarity = rarity_of(tickets)
    graph: rustworkx.PyGraph[Ticket, int] = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(tickets)
    for i, a in enumerate(tickets):
        for j in range(i + 1, len(tickets)):
            if compatible(a, tickets[j], now, policy):
                graph.add_edge(i, j, round(1_000_000 * weigh(a, tickets[j], now, policy, rarity)))
    return [(graph[i], graph[j]) for i, j in rustworkx.max_weight_matching(graph, weight_fn=int)]


def run_pools(
    pools: Sequence[Sequence[Ticket]], policy: Policy, rarity: Mapping[str, float], *, exact: bool
) -> list[PoolResult]:
    """Every policy on the same pools, all of one size; `rarity` is the one to compare sizes by.

    `exact` asks for the share of the optimum, which takes seconds from about a thousand tickets on.
    """
    rarities = [rarity_of(pool) for pool in pools]
    fit = msgspec.structs.replace(policy, meeting=0.0, waiting_per_second=0.0)

    def weight(pairs: Pairs, policy: Policy, rarity: Mapping[str, float]) -> float:
        return math.fsum(weigh(a, b, POOL_TIME, policy, rarity) for a, b in pairs)

    best: list[tuple[float, float]] = []
    for pool, own in zip(pools, rarities, strict=True):
        if exact:
            pairs = optimum(pool, POOL_TIME, policy)
            best.append((weight(pairs, policy, own), weight(pairs, fit, own)))
    results = []
    for name, matcher in MATCHERS.items():
        rounds, seconds = [], []
        for pool in pools:
            started = time.perf_counter()
            rounds.append(matcher(pool, POOL_TIME, policy))
            seconds.append(time.perf_counter() - started)
        weights = [weight(pairs, policy, own) for pairs, own in zip(rounds, rarities, strict=True)]
        shares = [_share(made, most) for made, (most, _) in zip(weights, best, strict=False)]
        fits = [
            _share(weight(pairs, fit, own), most) for pairs, own, (_, most) in zip(rounds, rarities, best, strict=False)
        ]
        every = [pair for pairs in rounds for pair in pairs]
        count = max(1, len(every))
        results.append(
            PoolResult(
                size=len(pools[0]),
                policy=name,
                pools=len(pools),
                pairs=len(every) / len(pools),
                mean_weight=sum(weights) / count,
                mean_weight_same_rarity=weight(every, policy, rarity) / count,
                shared_interests=sum(_overlap(a, b) for a, b in every) / count,
                share=statistics.fmean(shares) if shares else None,
                worst_share=min(shares, default=None),
                fit_share=statistics.fmean(fits) if fits else None,
                seconds=statistics.median(seconds),
                pairs_per_second=len(every) / sum(seconds),
            )
        )
    return results


def run_stream(rate: float, coming: Sequence[tuple[Ticket, int]], policy: Policy, name: str) -> StreamResult:
    """One policy on the tickets `coming` at `rate`, as `Crowd.arrivals` gives them, in rounds as a worker runs them."""
    rarity = rarity_of([ticket for ticket, _ in coming])
    waiting: dict[str, tuple[Ticket, int]] = {}
    waited: dict[str, int] = {}
    beside: Counter[str] = Counter()
    beside_widened: Counter[str] = Counter()
    gave_up: list[Ticket] = []
    pairs: Pairs = []
    weights: list[float] = []
    last, due, arrived = -DEBOUNCE, math.inf, 0
    while arrived < len(coming) or due < math.inf:
        if arrived < len(coming) and coming[arrived][0].since <= due:
            ticket, until = coming[arrived]
            arrived += 1
            waiting[ticket.id] = (ticket, until)
            due = min(due, max(ticket.since, last + DEBOUNCE))
            continue
        now = int(due)
        gave_up += [ticket for ticket, until in waiting.values() if until <= now]
        waiting = {key: entry for key, entry in waiting.items() if entry[1] > now}
        tickets = [ticket for ticket, _ in waiting.values()]
        since_last, since_last_widened = _time_beside(tickets, last, now, policy)
        beside.update(since_last)
        beside_widened.update(since_last_widened)
        for a, b in MATCHERS[name](tickets, now, policy):
            pairs.append((a, b))
            weights.append(weigh(a, b, now, policy, rarity))
            for ticket in (a, b):
                waited[ticket.id] = now - ticket.since
                del waiting[ticket.id]
        last = now
        wake = next_widening([ticket for ticket, _ in waiting.values()], now, policy)
        due = math.inf if wake is None else max(now + wake, now + DEBOUNCE)
    matched = [ticket for pair in pairs for ticket in pair]
    languages = [language for language, _ in Counter(ticket.languages[0] for ticket, _ in coming).most_common()]
    settled = Counter(ticket.languages[0] for ticket in [*matched, *gave_up])
    lost = Counter(ticket.languages[0] for ticket in gave_up)
    return StreamResult(
        rate=rate,
        policy=name,
        guests=len(coming),
        matched=len(matched),
        abandoned=len(gave_up),
        shared_interests=sum(_overlap(a, b) for a, b in pairs) / max(1, len(pairs)),
        mean_weight=math.fsum(weights) / max(1, len(pairs)),
        wait=_waits(waited.values()),
        beside_compatible=_waits(beside[ticket.id] for ticket in matched),
        beside_widened=_waits(beside_widened[ticket.id] for ticket in matched),
        wait_by_language={
            language: _waits(waited[ticket.id] for ticket in matched if ticket.languages[0] == language)
            for language in languages
        },
        abandoned_by_language={language: lost[language] / max(1, settled[language]) for language in languages},
    )


def _time_beside(
    tickets: Sequence[Ticket], last: int, now: int, policy: Policy
) -> tuple[dict[str, int], dict[str, int]]:
    """Milliseconds between two rounds that each ticket spent beside one it might meet: by then, and once widened."""
    # With both stages over from the start, what is left are the rules that no waiting changes.
    patient = Policy(widen_interests_after=0, widen_languages_after=0)
    beside: dict[str, int] = {}
    beside_widened: dict[str, int] = {}
    for place, a in enumerate(tickets):
        for b in tickets[place + 1 :]:
            if not compatible(a, b, now, patient):
                continue
            widened = max(a.since, b.since, last)
            if a.languages and b.languages and set(a.languages).isdisjoint(b.languages):
                widened = max(widened, *(ticket.since + policy.widen_languages_after for ticket in (a, b)))
            ready = widened
            if set(a.interests).isdisjoint(b.interests):
                ready = max(ready, 0, *(t.since + policy.widen_interests_after for t in (a, b) if t.interests))
            for key in (a.id, b.id):
                beside[key] = max(now - ready, beside.get(key, 0))
                beside_widened[key] = max(now - widened, beside_widened.get(key, 0))
    return beside, beside_widened


def _share(made: float, most: float) -> float:
    return made / most if most else 1.0


def _overlap(a: Ticket, b: Ticket) -> int:
    return len(set(a.interests).intersection(b.interests))


def _waits(values: Iterable[int]) -> Waits:
    ordered = sorted(values)

    def percentile(share: float) -> float | None:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None

    return Waits(percentile(0.50), percentile(0.95), percentile(0.99))


def run(seed: int, *, quick: bool) -> Report:
    """Both experiments and the targets; some minutes, or seconds if `quick`."""
    workload, policy = Workload(), Policy()
    largest = 2_000 if quick else 10_000
    # Size to number of pools: fewer of the large ones, whose results vary less.
    sizes = {50: 5, 200: 3, 600: 1, largest: 1} if quick else {50: 100, 200: 40, 600: 10, 2_000: 3, largest: 3}
    rates = {2.0: 300, 20.0: 600} if quick else {0.5: 4_000, 5.0: 6_000, 50.0: 10_000}
    rarity = rarity_of(Crowd(workload, f"{seed}/rarity").pool(largest))
    pools: list[PoolResult] = []
    for size, count in sizes.items():
        _progress(f"{count} pools of {size:,}")
        drawn = [Crowd(workload, f"{seed}/pool/{size}/{number}").pool(size) for number in range(count)]
        pools += run_pools(drawn, policy, rarity, exact=size <= LARGEST_EXACT)
    streams: list[StreamResult] = []
    for rate, guests in rates.items():
        coming = list(Crowd(workload, f"{seed}/stream/{rate}").arrivals(rate, guests))
        for name in MATCHERS:
            _progress(f"{guests:,} guests at {rate:g} a second, {name}")
            streams.append(run_stream(rate, coming, policy, name))
    return Report(seed, quick, workload, policy, pools, streams, _targets(pools, streams))


def _targets(pools: Sequence[PoolResult], streams: Sequence[StreamResult]) -> list[Target]:
    ours = {result.size: result for result in pools if result.policy == OURS}
    middle, large = ours[LARGEST_EXACT], ours[max(ours)]
    waits = [stream for stream in streams if stream.policy == OURS]

    def at_least(what: str, aim: float, measured: float) -> Target:
        return Target(what, aim, measured, measured >= aim)

    def below(what: str, aim: float, measured: float) -> Target:
        return Target(what, aim, measured, measured < aim)

    return [
        at_least(
            "worst share of the optimum, pools of 50 and 200 (at least)",
            0.99,
            min(result.worst_share or 0.0 for result in ours.values() if result.size < LARGEST_EXACT),
        ),
        at_least("worst share of the optimum, pools of 600 (at least)", 0.95, middle.worst_share or 0.0),
        at_least(f"mean pair weight at {large.size:,} (at least that at 600)", middle.mean_weight, large.mean_weight),
        at_least(
            "the same with one rarity for both (at least that at 600)",
            middle.mean_weight_same_rarity,
            large.mean_weight_same_rarity,
        ),
        at_least(f"pairs a second at {large.size:,} waiting (at least)", 5_000, large.pairs_per_second),
        below(
            "p99 of the wait while a compatible partner waits, ms (below)",
            1_000,
            max(stream.beside_compatible.p99 or 0.0 for stream in waits),
        ),
    ]


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be, the first to the left and the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def show(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip()

    return "\n".join([show(lines[0]), "  ".join("-" * width for width in widths), *map(show, lines[1:])])


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _milliseconds(waits: Waits) -> str:
    return " / ".join("-" if value is None else f"{value:,.0f}" for value in (waits.p50, waits.p95, waits.p99))


def as_text(report: Report) -> str:
    """The report to read, as plain text."""
    workload = report.workload
    spoken = sum(share for _, share in workload.languages)
    named = sum(workload.interests)
    parts = [
        f"Workload (seed {report.seed}{', quick' if report.quick else ''}): {workload.topics} topics, "
        f"Zipf {workload.zipf:g}; interests named "
        + ", ".join(f"{count}: {share / named:.0%}" for count, share in enumerate(workload.interests))
        + "; languages "
        + ", ".join(f"{language} {share / spoken:.0%}" for language, share in workload.languages)
        + f"; {workload.also_english:.0%} of the others also speak English; {workload.avoiding:.0%} avoid a recent "
        f"arrival; patience {workload.patience / 1000:g} s on average; "
        f"age in pools {workload.age / 1000:g} s on average.",
        "POOLS, matched once\n"
        + _table(
            [
                "waiting",
                "policy",
                "pools",
                "pairs",
                "weight",
                "same rarity",
                "shared",
                "optimum",
                "worst",
                "fit",
                "ms",
                "pairs/s",
            ],
            [
                [
                    f"{result.size:,}",
                    result.policy,
                    str(result.pools),
                    f"{result.pairs:,.1f}",
                    f"{result.mean_weight:.2f}",
                    f"{result.mean_weight_same_rarity:.2f}",
                    f"{result.shared_interests:.2f}",
                    _percent(result.share, 2),
                    _percent(result.worst_share, 2),
                    _percent(result.fit_share),
                    f"{result.seconds * 1000:,.1f}",
                    f"{result.pairs_per_second:,.0f}",
                ]
                for result in report.pools
            ],
        )
        + "\nweight: mean of a pair; same rarity: with one rarity for all sizes; shared: interests of both;"
        "\noptimum, worst: mean and least share of the exact maximum total weight;"
        "\nfit: that share when only the parts for interests and languages are counted.",
        "STREAMS, waits in ms as p50 / p95 / p99\n"
        + _table(
            [
                "a second",
                "policy",
                "matched",
                "gave up",
                "weight",
                "shared",
                "wait",
                "beside compatible",
                "or once widened",
            ],
            [
                [
                    f"{result.rate:g}",
                    result.policy,
                    f"{result.matched:,}",
                    _percent(result.abandoned / result.guests),
                    f"{result.mean_weight:.2f}",
                    f"{result.shared_interests:.2f}",
                    _milliseconds(result.wait),
                    _milliseconds(result.beside_compatible),
                    _milliseconds(result.beside_widened),
                ]
                for result in report.streams
            ],
        )
        + "\nbeside compatible: the part of the wait in which somebody they might meet at that moment waited too;"
        "\nor once widened: also counting those they might meet after giving up on a shared interest.",
    ]
    for rate in dict.fromkeys(result.rate for result in report.streams):
        results = [result for result in report.streams if result.rate == rate]
        parts.append(
            f"BY FIRST LANGUAGE at {rate:g} a second: wait in ms as p50 / p95 / p99, and share who gave up\n"
            + _table(
                ["language", *(title for result in results for title in (result.policy, "gave up"))],
                [
                    [
                        language,
                        *(
                            cell
                            for result in results
                            for cell in (
                                _milliseconds(result.wait_by_language[language]),
                                _percent(result.abandoned_by_language[language]),
                            )
                        ),
                    ]
                    for language in results[0].wait_by_language
                ],
            )
        )
    parts.append(
        "TARGETS\n"
        + _table(
            ["target", "aim", "measured", ""],
            [
                [target.what, f"{target.aim:,.4g}", f"{target.measured:,.4g}", "met" if target.met else "MISSED"]
                for target in report.targets
            ],
        )
    )
    return "\n\n".join(parts)


def draw(report: Report, path: Path) -> bool:
    """Plot the report to `path` (the suffix decides the format); False, having said so, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print(f"{path} was not drawn: matplotlib is missing. It is a development dependency.", file=sys.stderr)
        return False
    figure = Figure(figsize=(12, 8.5), layout="constrained")
    (optimum_axes, weight_axes), (wait_axes, time_axes) = figure.subplots(2, 2)
    # The middle rate: at the lowest nobody has a choice, at the highest nobody waits.
    rates = sorted({result.rate for result in report.streams})
    rate = rates[len(rates) // 2]
    for place, (name, colour) in enumerate(COLOURS.items(), start=-1):
        pools = [result for result in report.pools if result.policy == name]
        sizes = [result.size for result in pools]
        known = [(str(result.size), 100 * result.share) for result in pools if result.share is not None]
        spots = [spot + 0.27 * place for spot in range(len(known))]
        bars = optimum_axes.bar(spots, [share for _, share in known], 0.25, color=colour, label=name)
        optimum_axes.bar_label(bars, fmt="%.1f", fontsize=8)
        optimum_axes.set_xticks(range(len(known)), [size for size, _ in known])
        weight_axes.plot(sizes, [r.mean_weight_same_rarity for r in pools], "o-", color=colour, label=name)
        time_axes.plot(sizes, [1000 * result.seconds for result in pools], "o-", color=colour, label=name)
        stream = next(result for result in report.streams if result.policy == name and result.rate == rate)
        languages = stream.wait_by_language
        for marker, fill, label, waits in (
            ("o", "full", "p50", [wait.p50 for wait in languages.values()]),
            ("^", "none", "p95", [wait.p95 for wait in languages.values()]),
        ):
            seconds = [math.nan if wait is None else wait / 1000 for wait in waits]
            spots = [spot + 0.2 * place for spot in range(len(languages))]
            wait_axes.plot(spots, seconds, marker, color=colour, fillstyle=fill, label=f"{name} {label}")
        wait_axes.set_xticks(range(len(languages)), list(languages))
    optimum_axes.set(
        title="Share of the exact optimum", xlabel="guests waiting", ylabel="% of the maximum total weight"
    )
    optimum_axes.set_ylim(0, 115)
    weight_axes.set(title="How good a pair is", xlabel="guests waiting", ylabel="mean weight, one rarity for all sizes")
    weight_axes.set_xscale("log")
    wait_axes.set(title=f"Waits at {rate:g} arrivals a second", xlabel="first language", ylabel="seconds until matched")
    wait_axes.set_yscale("log")
    time_axes.set(title="Time of one round", xlabel="guests waiting", ylabel="milliseconds on one core")
    time_axes.set_xscale("log")
    time_axes.set_yscale("log")
    for axes in (optimum_axes, weight_axes, wait_axes, time_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, ncols=3, loc="upper center" if axes is optimum_axes else "best")
    figure.suptitle(f"Matching on the published workload, simulated with seed {report.seed}")
    figure.savefig(path, dpi=110)
    return True


def main(argv: Sequence[str]) -> int:
    """The command line: `argv` without the program's name; 0 when the simulation ran."""
    parser = argparse.ArgumentParser(
        prog="visavis simulate-matching", description="Measure the matching policy on a simulated crowd."
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same guests (default: 1)")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller pools and streams")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of text")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="also draw it (.png or .svg; needs matplotlib)")
    options = parser.parse_args(argv)
    report = run(options.seed, quick=options.quick)
    print(msgspec.json.encode(report).decode() if options.json else as_text(report))
    if options.plot and draw(report, options.plot):
        _progress(f"drew {options.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
