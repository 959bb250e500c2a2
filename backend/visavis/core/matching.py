"""Who may meet whom, how well they fit, when to widen, and the round that pairs a whole pool.

Pure policy: it reads no clock, does no I/O and keeps no state between rounds. The callers see tickets go
in and pairs come out; how the pairs are found stays in here:

- Up to `Policy.exact_limit` tickets, every compatible pair becomes an edge and the maximum-weight matching
  is exact (Edmonds' blossom algorithm as described by Z. Galil, "Efficient algorithms for finding maximum
  matching in graphs", ACM Computing Surveys 18(1), 1986; the implementation is rustworkx's).
- Above, an inverted index by interest and language proposes a few good partners for each ticket, the
  proposals are taken heaviest first, and the result is then improved block by block: the blossom algorithm
  again, on a few hundred tickets at a time, which can only raise the total (a large neighbourhood search,
  P. Shaw, CP 1998).
- Either way the result is maximal: two compatible tickets are never both left unmatched.

Reasons and measurements are in `docs/matching.md`.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec
import rustworkx

from visavis.contract import MAX_INTEREST, Why


class Ticket(msgspec.Struct, frozen=True):
    """One guest's search, as it waits in a pool."""

    id: str
    """Unique for each search."""
    guest: str
    worker: str
    """The worker that holds the guest's connection."""
    interests: tuple[str, ...]
    """Normalised by `normalise_interest`, at most 10."""
    languages: tuple[str, ...]
    """BCP 47 primary subtags, at most 8, the preferred one first; none means: speaks to anyone."""
    aliases: tuple[str, ...]
    """Ids by which others may avoid this guest: the guest's, the device's."""
    avoid: frozenset[str]
    """Ids this guest must not meet: blocked ones and recent partners."""
    since: int
    """Arrival in milliseconds, Redis's time."""


class Policy(msgspec.Struct, frozen=True):
    """The numbers of matching. Weights have no unit: only their proportions count."""

    widen_interests_after: int = 600
    """Milliseconds. Until then a guest who named interests insists on sharing one."""
    widen_languages_after: int = 10_000
    """Milliseconds. Until then a guest who named languages insists on sharing one."""
    meeting: float = 1.0
    """Worth of any pair at all: two meetings beat one that is a little better. Above 0."""
    shared_interest: float = 1.0
    """Worth of each shared interest, however common."""
    rare_interest: float = 1.0
    """Added to each shared interest, in proportion to its rarity (0 to 1)."""
    shared_language: float = 1.0
    """Worth of a language that both prefer; less, the lower it is on their lists."""
    waiting_per_second: float = 0.5
    """Worth of each second that either guest has waited."""
    waiting_at_most: float = 15.0
    """Most that one guest's waiting adds."""
    exact_limit: int = 200
    """Tickets up to which the matching is the exact optimum over all compatible pairs."""
    reach: int = 4
    """Above `exact_limit`: partners proposed to a ticket for each of its interests and languages."""
    proposals: int = 40
    """Above `exact_limit`: most partners proposed to one ticket, so that long lists cannot stall a round."""
    block: int = 400
    """Above `exact_limit`: tickets that are matched anew together when improving."""


DEFAULT_POLICY = Policy()
COMPARED = 200
"""Tickets of a large round that are held against their optimum."""


class Pair(msgspec.Struct, frozen=True):
    """Two guests to bring together; `a` has waited at least as long as `b`."""

    a: Ticket
    b: Ticket
    weight: float
    why: Why


class Round(msgspec.Struct, frozen=True):
    """What a round came to."""

    pairs: list[Pair]
    exact: bool
    weight: float = 0.0
    """If it was compared: what its pairs weigh, or those of a part of the tickets."""
    best: float = 0.0
    """The most that pairs of the same tickets can weigh."""


def normalise_interest(text: str) -> str:
    """The form in which interests are compared: NFKC, case folded, white space collapsed, at most 40 characters.

    Control, format, unassigned and private characters go, and so does what shows as nothing (variation
    selectors, fillers); "" if no visible character is left. Idempotent, and linear in the length of `text`.
    """
    # Normalising sorts runs of combining marks in quadratic time, so the text is cut before: NFKC never
    # composes at most a few characters into one (Hangul: three), so four times the final length is enough.
    kept: list[str] = []
    for character in text:
        if character.isspace():
            if kept and kept[-1] != " ":
                kept.append(" ")
        elif _shows(character):
            kept.append(character)
        if len(kept) >= 4 * MAX_INTEREST:
            break
    result = "".join(kept)
    # Case folding can undo the normal form and cutting can end in a space, hence again until it is stable.
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", result).casefold())
        visible = "".join(c for c in folded if c.isspace() or _shows(c))
        cut = " ".join(visible.split())[:MAX_INTEREST].rstrip()
        if cut == result:
            break
        result = cut
    return result if any(unicodedata.category(c)[0] in "LNPS" for c in result) else ""


# Letters, marks and symbols that Unicode calls default-ignorable, or that draw nothing.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def _shows(character: str) -> bool:
    point = ord(character)
    if point < 0x80:
        return 0x20 < point < 0x7F
    if unicodedata.category(character)[0] == "C" or character in _BLANKS:
        return False
    return not (0x180B <= point <= 0x180F or 0xFE00 <= point <= 0xFE0F or 0xE0100 <= point <= 0xE01EF)


def compatible(a: Ticket, b: Ticket, now: int, policy: Policy) -> bool:
    """Whether `a` and `b` may meet at `now` (ms): both must accept it at their own stage of widening."""
    if a.id == b.id or a.guest == b.guest or _avoids(a, b) or _avoids(b, a):
        return False
    if set(a.interests).isdisjoint(b.interests) and not (
        _open_to_any_interest(a, now, policy) and _open_to_any_interest(b, now, policy)
    ):
        return False
    if not a.languages or not b.languages or not set(a.languages).isdisjoint(b.languages):
        return True
    return _open_to_any_language(a, now, policy) and _open_to_any_language(b, now, policy)


def weigh(a: Ticket, b: Ticket, now: int, policy: Policy, rarity: Mapping[str, float]) -> float:
    """How good it is that `a` and `b`, who are compatible, meet at `now` (ms). Always above 0.

    `rarity` is what `rarity_of` says of their pool. A pair that only widening allows lacks the part for a
    shared interest, or for a shared language, and is worth that much less.
    """
    shared = set(a.interests).intersection(b.interests)
    return (
        policy.meeting
        # In a fixed order: the sum must not depend on how the strings happen to be hashed.
        + sum(policy.shared_interest + policy.rare_interest * rarity.get(interest, 0.0) for interest in sorted(shared))
        + policy.shared_language * _language_fit(a.languages, b.languages)
        + _waiting(a, now, policy)
        + _waiting(b, now, policy)
    )


def rarity_of(tickets: Sequence[Ticket]) -> dict[str, float]:
    """For each interest in the pool, how telling it is to share it: 0 if everybody named it, 1 at one in 1000.

    It is the logarithm of the share of tickets that name the interest (its self-information), cut off so
    that a large pool, where rarer interests find each other, does not count the same interest for more.
    """
    named = Counter(interest for ticket in tickets for interest in set(ticket.interests))
    return {
        interest: min(1.0, math.log(len(tickets) / count) / math.log(1000)) for interest, count in sorted(named.items())
    }


def next_widening(tickets: Sequence[Ticket], now: int, policy: Policy) -> int | None:
    """Milliseconds from `now` until some pair may become compatible by waiting alone; None if none ever will.

    Before that moment a further round over the same tickets cannot find a pair that this one could not.
    """
    interests = [ticket.since + policy.widen_interests_after - now if ticket.interests else 0 for ticket in tickets]
    languages = [ticket.since + policy.widen_languages_after - now if ticket.languages else 0 for ticket in tickets]
    # Widening takes two: the first ticket to open has nobody to meet, so its moment does not count.
    moments = [moment for opening in (interests, languages) for moment in sorted(opening)[1:] if moment > 0]
    return min(moments, default=None)


def match_round(tickets: Sequence[Ticket], now: int, policy: Policy = DEFAULT_POLICY) -> list[Pair]:
    """The best pairs among `tickets`, all of one pool, at `now` (ms); whoever waits longest comes first.

    Nobody is in two pairs, every pair is compatible, and no two compatible tickets are both left out. The
    total weight is the maximum up to `policy.exact_limit` tickets and close to it above (docs/matching.md
    has the measurements). The result depends on the tickets, not on their order.
    """
    return measured_round(tickets, now, policy, compare=False).pairs


def measured_round(tickets: Sequence[Ticket], now: int, policy: Policy, *, compare: bool) -> "Round":
    """`match_round` and, to `compare`, how near to the optimum it came.

    Up to `policy.exact_limit` tickets it is the optimum, so the two weights are the same. Above, COMPARED tickets that
    are neighbours in interests and languages are taken, with their partners, and matched anew over every compatible
    pair of them. What a better pairing would gain by reaching beyond them is not seen: on the workload of
    docs/matching.md the share is about one point too high.
    """
    pool = _Pool(tickets, now, policy)
    size = len(pool.tickets)
    exact = size <= policy.exact_limit
    if exact:
        partners = _heaviest(range(size), pool.all_edges())
    else:
        groups = list(pool.groups())
        edges = pool.proposals(groups, policy.reach, policy.proposals)
        partners = _greedy(edges, size)
        _improve(partners, edges, pool.by_likeness, policy.block)
        pool.complete(partners, groups)
    pairs = [pool.pair(i, j) for i, j in sorted(partners.items()) if i < j]
    if not compare:
        return Round(pairs, exact)
    if exact:
        weight = sum(pair.weight for pair in pairs)
        return Round(pairs, exact, weight, weight)
    return Round(pairs, exact, *pool.compare(partners, start=now % size, most=COMPARED))


def _avoids(a: Ticket, b: Ticket) -> bool:
    return b.guest in a.avoid or not a.avoid.isdisjoint(b.aliases)


def _open_to_any_interest(ticket: Ticket, now: int, policy: Policy) -> bool:
    return not ticket.interests or now - ticket.since >= policy.widen_interests_after


def _open_to_any_language(ticket: Ticket, now: int, policy: Policy) -> bool:
    return not ticket.languages or now - ticket.since >= policy.widen_languages_after


def _waiting(ticket: Ticket, now: int, policy: Policy) -> float:
    return min(policy.waiting_at_most, policy.waiting_per_second * max(0, now - ticket.since) / 1000)


def _joint_preference(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, str]]:
    """The shared languages, best first, each with the sum of its places (from 0) on both lists."""
    places = {language: place for place, language in reversed(list(enumerate(b)))}
    first = {language: place for place, language in reversed(list(enumerate(a)))}
    return sorted((place + places[language], language) for language, place in first.items() if language in places)


def _language_fit(a: Sequence[str], b: Sequence[str]) -> float:
    """1 for a language that both put first, less for lower places, 0 if none is shared."""
    shared = _joint_preference(a, b)
    return 1 / (1 + shared[0][0] / 2) if shared else 0.0


_Edges = list[tuple[int, int, int]]
"""Compatible pairs as (index, index, weight in thousandths)."""

_Group = tuple[Sequence[int], Sequence[int]]
"""Heads and members: each head fits all members in interests and languages."""


class _Pool:
    """The tickets of one round as parallel lists, oldest first; weights in thousandths, for the blossom's integers."""

    def __init__(self, tickets: Sequence[Ticket], now: int, policy: Policy) -> None:
        self.tickets = sorted(tickets, key=lambda ticket: (ticket.since, ticket.id))
        self._now = now
        self._policy = policy
        self._rarity = rarity_of(self.tickets)
        self._size = len(self.tickets)
        # Interests become numbers, the most common first; one that a single ticket names is never shared.
        named = Counter(interest for ticket in self.tickets for interest in set(ticket.interests))
        shareable = sorted((-count, interest) for interest, count in named.items() if count > 1)
        numbers = {interest: number for number, (_, interest) in enumerate(shareable)}
        self._worth = [
            round(1000 * (policy.shared_interest + policy.rare_interest * self._rarity[interest]))
            for _, interest in shareable
        ]
        self._interests = [
            frozenset(numbers[interest] for interest in ticket.interests if interest in numbers)
            for ticket in self.tickets
        ]
        self._base = round(1000 * policy.meeting)
        self._waiting = [round(1000 * _waiting(ticket, now, policy)) for ticket in self.tickets]
        self._any_interest = [_open_to_any_interest(ticket, now, policy) for ticket in self.tickets]
        self._any_language = [_open_to_any_language(ticket, now, policy) for ticket in self.tickets]
        # Few different lists of languages are spoken in a pool: their fit is worked out once for each two.
        spoken: dict[tuple[str, ...], int] = {}
        self._speaks = [spoken.setdefault(ticket.languages, len(spoken)) for ticket in self.tickets]
        self._spoken = list(spoken)
        self._fits: dict[tuple[int, int], int | None] = {}
        self._guests = [ticket.guest for ticket in self.tickets]
        self._apart = self._kept_apart()
        self.by_likeness = sorted(
            range(self._size), key=lambda i: (self.tickets[i].languages[:1], sorted(self._interests[i]), i)
        )
        """Indices in an order in which tickets of one language and the same common interests are neighbours."""

    def all_edges(self) -> _Edges:
        """Every compatible pair."""
        edges: _Edges = []
        for i in range(self._size):
            for j in range(i + 1, self._size):
                weight = self._edge(i, j)
                if weight:
                    edges.append((i, j, weight))
        return edges

    def groups(self) -> Iterator[_Group]:
        """Index lists that between them hold every compatible pair, those with the rarest interest first."""
        naming: list[list[int]] = [[] for _ in self._worth]
        for i in self.by_likeness:
            for interest in self._interests[i]:
                naming[interest].append(i)
        for members in reversed(naming):
            yield from self._by_language(members)
        yield from self._by_language([i for i in range(self._size) if self._any_interest[i]])

    def proposals(self, groups: Sequence[_Group], reach: int, most: int) -> _Edges:
        """Some compatible pairs, heaviest first: each head of a group with the next `reach` members, `most` in all."""
        size, edge = self._size, self._edge
        weights: dict[int, int] = {}
        proposed = [0] * size
        for heads, members in groups:
            count = len(members)
            stride = count // len(heads)
            steps = min(reach, count - 1)
            around = [*members, *members[:steps]]
            for place, i in enumerate(heads):
                if proposed[i] >= most:
                    continue
                proposed[i] += steps
                start = place * stride + 1
                for j in around[start : start + steps]:
                    key = i * size + j if i < j else j * size + i
                    if key not in weights:
                        weights[key] = edge(i, j)
        # Sorted as single integers, which is much faster than as tuples; equal weights fall in a fixed order.
        cells = size * size
        heaviest = sorted([weight * cells + key for key, weight in weights.items() if weight], reverse=True)
        return [(cell % cells // size, cell % size, cell // cells) for cell in heaviest]

    def complete(self, partners: dict[int, int], groups: Sequence[_Group]) -> None:
        """Pair whoever is left over and fits, so that the matching is maximal."""
        for heads, members in groups:
            left = [j for j in members if j not in partners]
            if len({self._guests[j] for j in left}) < 2:
                continue
            free = 0
            for i in heads:
                if i in partners:
                    continue
                while left[free] in partners:
                    free += 1
                # Members of a group fit but for those kept apart, so the search ends at once, or nearly.
                for j in islice(left, free, None):
                    if j not in partners and self._edge(i, j):
                        partners[i] = j
                        partners[j] = i
                        break

    def pair(self, i: int, j: int) -> Pair:
        a, b = self.tickets[i], self.tickets[j]
        shared = sorted(set(a.interests).intersection(b.interests), key=lambda name: (-self._rarity[name], name))
        languages = tuple(language for _, language in _joint_preference(a.languages, b.languages))
        weight = weigh(a, b, self._now, self._policy, self._rarity)
        return Pair(a, b, weight, Why(interests=tuple(shared), languages=languages))

    def _edge(self, i: int, j: int) -> int:
        """The weight of the pair, at least 1, or 0 if it is not compatible (or `i` is `j`)."""
        shared = self._interests[i] & self._interests[j]
        if not shared and not (self._any_interest[i] and self._any_interest[j]):
            return 0
        speaks = (self._speaks[i], self._speaks[j])
        try:
            fit = self._fits[speaks]
        except KeyError:
            fit = self._fits[speaks] = self._fit(*speaks)
        if fit is None:
            if not (self._any_language[i] and self._any_language[j]):
                return 0
            fit = 0
        if self._guests[i] == self._guests[j] or (self._apart and ((i, j) if i < j else (j, i)) in self._apart):
            return 0
        weight = self._base + fit + self._waiting[i] + self._waiting[j]
        for interest in shared:
            weight += self._worth[interest]
        return weight if weight > 0 else 1

    def compare(self, partners: Mapping[int, int], start: int, most: int) -> tuple[float, float]:
        """What some neighbours and their partners, about `most`, weigh as they are paired and at best."""
        some: list[int] = []
        seen: set[int] = set()
        for i in islice((*self.by_likeness[start:], *self.by_likeness[:start]), most):
            if i not in seen and len(some) < most:
                together = (i, partners[i]) if i in partners else (i,)
                some.extend(together)
                seen.update(together)
        edges = [(i, j, weight) for n, i in enumerate(some) for j in some[n + 1 :] if (weight := self._edge(i, j))]
        reached, best = (
            sum(self._edge(i, j) for i, j in found.items() if i in seen) / 2000
            for found in (partners, _heaviest(some, edges))
        )
        return reached, best

    def _fit(self, a: int, b: int) -> int | None:
        """What the languages of two lists add to the weight; None if a language is required and none is shared."""
        fit = _language_fit(self._spoken[a], self._spoken[b])
        if fit:
            return round(1000 * self._policy.shared_language * fit)
        return None if self._spoken[a] and self._spoken[b] else 0

    def _kept_apart(self) -> set[tuple[int, int]]:
        """Pairs of indices of which one avoids the other."""
        known_as: dict[str, list[int]] = {}
        for i, ticket in enumerate(self.tickets):
            for alias in {ticket.guest, *ticket.aliases}:
                known_as.setdefault(alias, []).append(i)
        apart: set[tuple[int, int]] = set()
        for i, ticket in enumerate(self.tickets):
            for alias in ticket.avoid:
                for j in known_as.get(alias, ()):
                    apart.add((i, j) if i < j else (j, i))
        return apart

    def _by_language(self, members: Sequence[int]) -> Iterator[_Group]:
        """Groups that hold every pair of `members` whose languages allow it, and no other pair."""
        if len(members) < 2:
            return
        speakers: dict[str, list[int]] = {}
        unspoken: list[int] = []
        widened: list[int] = []
        for i in members:
            languages = self._spoken[self._speaks[i]]
            for language in dict.fromkeys(languages):
                speakers.setdefault(language, []).append(i)
            if not languages:
                unspoken.append(i)
            if self._any_language[i]:
                widened.append(i)
        for group in speakers.values():
            if len(group) > 1:
                yield group, group
        if unspoken:
            yield unspoken, members
        if len(widened) > 1:
            yield widened, widened


def _heaviest(indices: Sequence[int], edges: _Edges) -> dict[int, int]:
    """The maximum-weight matching of the graph of `indices` and `edges`, as partner of each, both ways."""
    graph: rustworkx.PyGraph[int, int] = rustworkx.PyGraph(multigraph=False)
    nodes = dict(zip(indices, graph.add_nodes_from(indices), strict=True))
    graph.add_edges_from([(nodes[i], nodes[j], weight) for i, j, weight in edges])
    partners: dict[int, int] = {}
    for u, v in rustworkx.max_weight_matching(graph, weight_fn=int):
        i, j = graph[u], graph[v]
        partners[i] = j
        partners[j] = i
    return partners


def _greedy(edges: _Edges, size: int) -> dict[int, int]:
    """Take each edge, heaviest first, whose two ends are still free: at least half of the optimum on `edges`."""
    partners: dict[int, int] = {}
    for i, j, _ in edges:
        if i not in partners and j not in partners:
            partners[i] = j
            partners[j] = i
            if len(partners) >= size - 1:
                break
    return partners


def _improve(partners: dict[int, int], edges: _Edges, order: Sequence[int], block: int) -> None:
    """Match anew within blocks of about `block` tickets; no block gets worse, as its old pairs are on offer too."""
    blocks: list[list[int]] = [[]]
    where: dict[int, int] = {}
    for i in order:
        if i in where:
            continue
        if len(blocks[-1]) >= block:
            blocks.append([])
        together = (i, partners[i]) if i in partners else (i,)
        blocks[-1].extend(together)
        where.update(dict.fromkeys(together, len(blocks) - 1))
    within: list[_Edges] = [[] for _ in blocks]
    for edge in edges:
        if where[edge[0]] == where[edge[1]]:
            within[where[edge[0]]].append(edge)
    for indices, offered in zip(blocks, within, strict=True):
        better = _heaviest(indices, offered)
        for i in indices:
            partners.pop(i, None)
        partners.update(better)
