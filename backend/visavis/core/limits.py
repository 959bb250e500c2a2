"""How much a guest, an address and a network may ask for, counted by all workers together.

Hides two ways of counting. What asks Redis anyway, or comes seldom, is *taken*: the shared counters are asked first,
and the limit holds to the last one. What must not wait for Redis is *spent*: counted on this worker and told to the
counters later, which say who is over. Until they answer, a worker lets through no more than a tenth of a limit and the
request that passes it, so that together workers overshoot by no more than that each. It tells them once half of that
is used, and whatever is older than HOLD.

A limit is so many in any stretch of time of its length: the window slides. Nothing here looks at a wall clock; times
are Redis's, and waits are counted on the worker's steady clock. What is remembered is bounded, however many ask.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from visavis.contract import Block, FindMatch, Refused, Report, Wire
from visavis.core import tasks
from visavis.core.ports import Count, Counted, Counters, Meter, Present, StateUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

SETTLE = 1.0
"""Seconds between looks at what is to be settled with the shared counters."""
HOLD = 10.0
"""Seconds for which little is kept back, and what was learnt is remembered."""
ANSWERED = 0.1
"""Seconds that a settlement takes, as a rule."""
SHARE = 10
"""A worker lets this part of a limit through before it has heard from the counters."""
LEAST_SHARE = 10
"""Of a small limit so many, as a tenth would be next to none."""
BATCH = 500
"""Counters asked in one call."""
REMEMBERED = 20_000
"""Names a worker counts for at once; whoever comes on top has the guard of the connection alone."""
QUIET = 4
"""Workers together do not say where this part of the connections comes from that a place may have."""
PRESENT_SECONDS = 30.0
"""Between two times that a worker says how many connections it has from where."""
PRESENT_KEPT_MS = 75_000
"""For which a worker's word holds; then it is taken for dead."""
PATIENCE = 2.0
"""Seconds after which counters that have not answered are away for what needs none."""
LAST_WORD = 0.5
"""Seconds that a worker which stops gives them."""
AWAY = 5.0
"""Seconds for which what needs no Redis asks no counters, once they did not answer."""
COME_BACK_MS = 5_000
"""After which a connection may be tried again, where there were too many."""
UNITS = {"requests": 100}
"""Of what costs fractions, these are counted."""

MINUTE = 60_000
WINDOWS = {
    "api": 15 * MINUTE,
    "guests": 10 * MINUTE,
    "requests": MINUTE,
    "finds": MINUTE,
    "reports": 60 * MINUTE,
    "uploads": MINUTE,
    "upload_bytes": 60 * MINUTE,
    "transfers": MINUTE,
    "handshakes": MINUTE,
}
"""The limits there are, and the length of each in ms."""

TAKEN_BY: dict[type[Wire], str] = {FindMatch: "finds", Report: "reports", Block: "reports"}
"""Requests with a limit of their own, beside the one they all share."""
AT_ANY_RATE = frozenset({"api", "reports"})
"""What goes on while Redis is away, guarded by each worker alone: nobody is kept from blocking by a broken part."""


class Source(msgspec.Struct, frozen=True):
    """Where somebody comes from, in names that say nothing: an address, and the network around it if that counts."""

    address: str
    network: str = ""


NOWHERE = Source("")
"""For what was counted by where it comes from before."""


class Rule(msgspec.Struct, frozen=True):
    """The most that each may do in a window of `window_ms`, in units, `unit` to one; 0 where it is not counted."""

    name: str
    unit: int
    window_ms: int
    guest: int
    address: int
    network: int


def rules(
    *, guest: Mapping[str, int], address: Mapping[str, int], people_per_address: int, addresses_per_network: int
) -> dict[str, Rule]:
    """Every rule: an address gets what is said for it, or what so many guests get; a network, so many addresses'."""
    made: dict[str, Rule] = {}
    for name, window_ms in WINDOWS.items():
        unit = UNITS.get(name, 1)
        for_guest = guest.get(name, 0) * unit
        for_address = address[name] * unit if name in address else for_guest * people_per_address
        made[name] = Rule(name, unit, window_ms, for_guest, for_address, for_address * addresses_per_network)
    return made


class Bucket:
    """Token bucket: `size` at once, `per_second` afterwards."""

    __slots__ = ("_level", "_size", "_per_second", "_at", "refused")

    def __init__(self, size: float, per_second: float) -> None:
        self._size = self._level = size
        self._per_second = per_second
        self._at = time.monotonic()
        self.refused = 0

    def take(self, cost: float, now: float | None = None) -> int:
        """Take tokens; 0 if there were enough, else ms until there are. `now`: by the steady clock, if it was read."""
        if now is None:
            now = time.monotonic()
        level = self._level + (now - self._at) * self._per_second
        if level > self._size:  # noqa: PLR1730  # not a call more for each message
            level = self._size
        self._at = now
        if level >= cost:
            self._level = level - cost
            if self.refused:
                self.refused -= 1
            return 0
        self._level = level
        self.refused += 1
        return int((cost - level) / self._per_second * 1000) + 1


class _Tab:
    """What this worker knows of one counter."""

    __slots__ = ("rule", "most", "share", "unsettled", "since", "under_way", "left", "most_here", "learnt_at", "until")

    def __init__(self, rule: Rule, most: int) -> None:
        self.rule = rule
        self.most = most
        self.share = max(most // SHARE, min(most, LEAST_SHARE * rule.unit))
        """What may be let through before the counters have answered, if that much is left."""
        self.unsettled = 0
        self.since = 0.0
        """On the steady clock, as all times: when the oldest of what is unsettled was spent."""
        self.under_way = 0
        """Told to the counters, which have not answered yet."""
        self.left = most
        """As the counters last said."""
        self.until = 0.0
        """Nothing is left before."""
        self.most_here = self.share
        """What may be unsettled before anything has to be looked at: the one thing that every message asks for."""
        self.learnt_at = 0.0

    def due(self, now: float) -> bool:
        """Whether the counters should hear of it now."""
        much = 2 * self.unsettled >= min(self.left, self.share)
        return self.unsettled > 0 and (much or now - self.since >= HOLD)

    def spend(self, units: int, now: float) -> None:
        """Count something that the counters have yet to hear of."""
        if not self.unsettled:
            self.since = now
        self.unsettled += units

    def tell(self) -> int:
        """What the counters are to hear: all that is unsettled."""
        self.under_way, self.unsettled = self.unsettled, 0
        self._set_most_here()
        return self.under_way

    def told(self) -> None:
        """The counters have answered, or will not. What could not be told is forgiven: nobody should pay twice."""
        self.under_way = 0
        self._set_most_here()

    def learn(self, answer: Counted, now: float) -> None:
        """What the counters said."""
        self.left = answer.left
        self.learnt_at = now
        self.wait(now + answer.wait_ms / 1000 if answer.wait_ms else 0.0)

    def wait(self, until: float) -> None:
        """Nothing is left before."""
        self.until = until
        self._set_most_here()

    def open(self, now: float) -> bool:
        """Whether the time is over in which nothing was left. How much is now, the counters say again."""
        if self.until > now:
            return False
        if self.until:
            self.left = self.most
            self.wait(0.0)
        return True

    @property
    def full(self) -> bool:
        """Whether as much was let through as may be before the counters have answered."""
        return self.unsettled >= self.most_here

    def worth_keeping(self, now: float) -> bool:
        """Whether it says more than a new one would."""
        scarce = self.left < self.share and now - self.learnt_at < HOLD
        return self.unsettled > 0 or self.under_way > 0 or self.until > now or scarce

    def _set_most_here(self) -> None:
        self.most_here = 0 if self.until else min(self.left, self.share) - self.under_way


class _Tabs:
    """The tabs of this worker, never more than REMEMBERED."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._by_key: dict[str, _Tab] = {}
        self.forgotten = 0
        """How often some were: whoever holds on to tabs has to look them up again."""
        self.away_until = 0.0
        """The counters do not answer, and are not asked before."""
        self.settled_at = 0.0

    def __len__(self) -> int:
        return len(self._by_key)

    def items(self) -> Iterable[tuple[str, _Tab]]:
        return self._by_key.items()

    def known(self, key: str) -> _Tab | None:
        return self._by_key.get(key)

    def find(self, key: str, rule: Rule, most: int) -> _Tab | None:
        """What is known of a counter; None if this worker knows too many already."""
        tab = self._by_key.get(key)
        if tab is None and len(self._by_key) < REMEMBERED:
            tab = self._by_key[key] = _Tab(rule, most)
        return tab

    def forget_idle(self, now: float) -> None:
        """Forget what says no more than a new tab would: what the counters know comes with the next settlement."""
        kept = {key: tab for key, tab in self._by_key.items() if tab.worth_keeping(now)}
        self.forgotten += len(kept) < len(self._by_key)
        self._by_key = kept

    def learn(self, key: str, rule: Rule, most: int, answer: Counted) -> None:
        """What the counters said without having been told anything that is on a tab."""
        now = time.monotonic()
        tab = self._by_key.get(key) or _Tab(rule, most)
        tab.learn(answer, now)
        # Whoever has plenty left needs no tab before spending something.
        if tab.worth_keeping(now) and len(self._by_key) < REMEMBERED:
            self._by_key[key] = tab

    def check(self, tab: _Tab, now: float) -> None:
        """Raise Refused if nothing may be spent."""
        if not tab.open(now):
            wait = tab.until - now
        elif tab.full and now >= self.away_until:
            wait = max(ANSWERED, self.settled_at + SETTLE + ANSWERED - now)
        else:
            return
        self._meter.count("limits_reached", limit=tab.rule.name)
        raise Refused("rate_limited", retryInMs=_ms(wait))


class Account:
    """What somebody spends of one limit. Who spends often keeps it: what it counts towards is then found already."""

    __slots__ = ("_tabs", "_rule", "_guest", "_source", "_held", "_as_of")

    def __init__(self, tabs: _Tabs, rule: Rule, guest: str, source: Source) -> None:
        self._tabs = tabs
        self._rule = rule
        self._guest = guest
        self._source = source
        self._held: tuple[_Tab, ...] = ()
        self._as_of = -1
        """How often tabs had been forgotten when these were found: until some are, there is no room for others."""

    def spend(self, cost: float, now: float) -> None:
        """Count something without waiting for anybody; `now` is on the steady clock. Raises Refused."""
        if self._as_of != self._tabs.forgotten:
            self._look()
        held = self._held
        for tab in held:
            if tab.unsettled >= tab.most_here:
                self._tabs.check(tab, now)
        units = round(cost * self._rule.unit)
        for tab in held:
            tab.spend(units, now)

    def _look(self) -> None:
        found = [
            self._tabs.find(key, rule, most) for rule, key, most in _counted(self._rule, self._guest, self._source)
        ]
        self._held = tuple(tab for tab in found if tab is not None)
        self._as_of = self._tabs.forgotten


class Limits:
    """The limits of this service, on one worker. A refusal is `rate_limited`, and says when it goes on."""

    def __init__(
        self,
        counters: Counters,
        rules: Mapping[str, Rule],
        meter: Meter,
        *,
        connections: int,
        networks: int,
        living: Callable[[], Collection[str]],
        connected: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`connections` is what one address may have at once; a network may have `networks` times as many.

        `living` are the workers that hold a lease, as of the last beat; `connected` asks whether a guest has a
        connection already, which this one takes the place of.
        """
        self._counters = counters
        self._rules = rules
        self._meter = meter
        self._connections = (connections, connections * networks)
        self._living = living
        self._connected = connected
        self._tabs = _Tabs(meter)
        self._guards: dict[str, Bucket] = {}
        self._here: dict[str, int] = {}
        """Connections to this worker, by the name of their address or network."""
        self._untold: set[str] = set()
        """Names whose number of connections here the counters may not know."""
        self._told: set[str] = set()
        """Names of which they may have one."""
        self._told_all = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def remembered(self) -> int:
        """How many names this worker keeps something about: never many more than REMEMBERED."""
        return max(len(self._tabs), len(self._guards), len(self._untold))

    async def start(self) -> None:
        """Begin to settle."""
        self._told_all = self._tabs.settled_at = time.monotonic()
        self._tasks = [asyncio.get_running_loop().create_task(self._keep_settling())]

    async def stop(self) -> None:
        """Settle for the last time."""
        await tasks.end(self._tasks)
        with contextlib.suppress(StateUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_WORD):
                await self.settle(everything=True)

    # ------------------------------------------------------------------ taken: asked first, exact

    async def take(self, costs: Mapping[str, int], guest: str, source: Source) -> None:
        """Count something against its limits, all or none of them. Raises Refused, StateUnavailable.

        `guest` may be empty: then only where they come from counts. While Redis is away, this lets through what goes on
        AT_ANY_RATE, as far as this worker alone counts it.
        """
        wanted = [
            # More than there can ever be left could never be done, and the wait would be a lie.
            (rule, Count(key, min(cost, most), most, rule.window_ms))
            for name, cost in costs.items()
            for rule, key, most in _counted(self._rules[name], guest, source)
        ]
        self._refuse_who_waits(count.name for _, count in wanted)
        open_ = AT_ANY_RATE.issuperset(costs)
        now = time.monotonic()
        if open_ and now < self._tabs.away_until:
            self._guard(wanted)
            return
        asked = [count for _, count in wanted]
        try:
            async with asyncio.timeout(PATIENCE if open_ else None):
                answers = await self._counters.take(asked)
        except (StateUnavailable, TimeoutError):
            if not open_:
                raise
            self._tabs.away_until = time.monotonic() + AWAY
            self._guard(wanted)
            return
        wait_ms = max(answer.wait_ms for answer in answers)
        if not wait_ms:
            return
        for (rule, count), answer in zip(wanted, answers, strict=False):
            if answer.wait_ms:
                self._meter.count("limits_reached", limit=rule.name)
                if answer.left == 0:
                    self._wait(count.name, rule, count.most, answer.wait_ms)
        raise Refused("rate_limited", retryInMs=wait_ms)

    def _guard(self, wanted: Sequence[tuple[Rule, Count]]) -> None:
        """What this worker lets through by itself while the counters are away."""
        for rule, count in wanted:
            guard = self._guards.get(count.name)
            if guard is None:
                if len(self._guards) >= REMEMBERED:
                    self._guards.clear()
                guard = self._guards[count.name] = Bucket(count.most, count.most * 1000 / rule.window_ms)
            if wait_ms := guard.take(count.cost):
                raise Refused("rate_limited", retryInMs=wait_ms)

    # ------------------------------------------------------------------ spent: counted here, settled later

    def spend(self, name: str, cost: float, guest: str, source: Source) -> None:
        """Count something without waiting for anybody. Raises Refused."""
        self.account(name, guest, source).spend(cost, time.monotonic())

    def account(self, name: str, guest: str, source: Source) -> Account:
        """Where somebody spends the same again and again."""
        return Account(self._tabs, self._rules[name], guest, source)

    async def settle(self, *, everything: bool = False) -> None:
        """Tell the counters what was spent and who is connected, and learn who is over. Raises StateUnavailable.

        That is what is due, or `everything`.
        """
        now = time.monotonic()
        # Of so many, none is worth remembering for long.
        everything = everything or len(self._tabs) > REMEMBERED // 2
        try:
            spent = [(key, tab) for key, tab in self._tabs.items() if tab.due(now) or (everything and tab.unsettled)]
            for some in _batches(spent):
                await self._settle(some)
            await self._tell_present()
        except StateUnavailable:
            self._tabs.away_until = time.monotonic() + AWAY
            raise
        finally:
            self._tabs.settled_at = now = time.monotonic()
            self._tabs.forget_idle(now)
        self._tabs.away_until = 0.0
        self._guards.clear()

    async def _settle(self, some: Sequence[tuple[str, _Tab]]) -> None:
        told = [Count(key, tab.tell(), tab.most, tab.rule.window_ms, "add") for key, tab in some]
        try:
            answers = await _soon(self._counters.count(told))
        finally:
            for _, tab in some:
                tab.told()
        now = time.monotonic()
        for (_, tab), answer in zip(some, answers, strict=True):
            tab.learn(answer, now)

    async def _keep_settling(self) -> None:
        while True:
            await asyncio.sleep(SETTLE)
            try:
                await self.settle()
            except StateUnavailable:
                log.info("limits_not_settled")
            except Exception:
                log.exception("limits_not_settled")

    # ------------------------------------------------------------------ connections

    async def enter(self, guest: str, source: Source) -> None:
        """A guest connects: as often as an address may, and no more at once than it may have.

        Raises Refused (rate_limited, address_full), StateUnavailable; unless it does, `leave` has to follow.
        """
        self._refuse_who_waits(key for _, key, _ in _counted(self._rules["handshakes"], "", source))
        places = list(_places(source))
        now = time.monotonic()
        full = any(tab.until > now for place in places if (tab := self._tabs.known(_full(place))))
        if full and not await self._connected(guest):
            raise Refused("address_full", retryInMs=COME_BACK_MS)
        for place in places:
            self._here[place] = self._here.get(place, 0) + 1
        try:
            for place, others in (await self._introduce(source)).items():
                most, all_ = self._most(place), self._here[place] + others
                # Whoever is counted already, perhaps on a worker that is gone, is not one more. Twice as many are
                # still too many: guests who come from elsewhere are counted there.
                if all_ > most and (all_ > 2 * most or not await self._connected(guest)):
                    self._meter.count("limits_reached", limit="connections")
                    # A crowd at the door has it counted once a second, not once each.
                    self._wait(_full(place), self._rules["handshakes"], most, int(SETTLE * 1000))
                    raise Refused("address_full", retryInMs=COME_BACK_MS)
        except BaseException as error:
            self.leave(source)
            if isinstance(error, Refused):
                # Else others would be refused for somebody who did not get in.
                with contextlib.suppress(StateUnavailable):
                    await self._tell_present()
            raise

    def turned_away(self, source: Source) -> None:
        """Somebody was not let in, for a reason that they are told unless they are to wait: then Refused is raised."""
        counted = list(_counted(self._rules["handshakes"], "", source))
        self._refuse_who_waits(key for _, key, _ in counted)
        now = time.monotonic()
        for rule, key, most in counted:
            if (tab := self._tabs.find(key, rule, most)) is not None:
                tab.spend(rule.unit, now)

    async def learn(self, guest: str) -> None:
        """Learn what a guest who connects spent elsewhere, so that a new connection is no fresh start.

        Only the guest's own: an address that is over is found out about soon enough. Raises StateUnavailable.
        """
        spent = list(_counted(self._rules["requests"], guest, NOWHERE))
        answers = await self._counters.count([Count(key, 0, most, rule.window_ms, "add") for rule, key, most in spent])
        for (rule, key, most), answer in zip(spent, answers, strict=True):
            self._tabs.learn(key, rule, most, answer)

    async def _introduce(self, source: Source) -> dict[str, int]:
        """Count a handshake, and say who is here: without a word if they are few, in one round trip if not.

        Gives what other workers have, of those places where it might matter.
        """
        asked = self._count_handshake(source)
        told = [Present(place, said) for place in _places(source) if (said := self._word(place))]
        if not asked and not told:
            return {}
        # Before it is known, as it may be heard without an answer.
        self._told.update(one.place for one in told)
        counts = [Count(key, 1, most, rule.window_ms) for rule, key, most in asked]
        answers, others = await self._counters.enter(counts, told, PRESENT_KEPT_MS)
        self._has_been_told(told)
        for (rule, key, most), answer in zip(asked, answers, strict=True):
            if answer.wait_ms:
                self._tabs.learn(key, rule, most, answer)
        if wait_ms := max((answer.wait_ms for answer in answers), default=0):
            self._meter.count("limits_reached", limit="handshakes")
            raise Refused("rate_limited", retryInMs=wait_ms)
        return {one.place: self._alive(words) for one, words in zip(told, others, strict=True)}

    def _count_handshake(self, source: Source) -> list[tuple[Rule, str, int]]:
        """Spend a handshake, or say what has to be asked: where many come at once, nobody is to be refused unheard."""
        counted = list(_counted(self._rules["handshakes"], "", source))
        # A crowd from everywhere must not take the room of those who talk.
        full = len(self._tabs) > REMEMBERED // 2
        tabs = [self._tabs.known(key) if full else self._tabs.find(key, rule, most) for rule, key, most in counted]
        known = [tab for tab in tabs if tab is not None and not tab.full]
        if len(known) < len(counted):
            return counted
        now = time.monotonic()
        for tab in known:
            tab.spend(tab.rule.unit, now)
        return []

    def leave(self, source: Source) -> None:
        """A connection that had entered is gone."""
        for place in _places(source):
            left = self._here.pop(place, 1) - 1
            if left:
                self._here[place] = left
            if place in self._told and len(self._untold) < REMEMBERED:
                # The others' word runs out by itself.
                self._untold.add(place)

    async def _tell_present(self) -> None:
        now = time.monotonic()
        everybody = now - self._told_all >= PRESENT_SECONDS
        loud = {place for place in self._here if self._word(place)} if everybody else set()
        for some in _batches(sorted({*self._untold, *loud, *(self._told if everybody else ())})):
            # Before they are told: who leaves meanwhile is told the next time.
            self._untold.difference_update(some)
            present = [Present(place, self._word(place)) for place in some]
            self._told.update(one.place for one in present if one.connections)
            try:
                await _soon(self._counters.present(present, PRESENT_KEPT_MS))
            except BaseException:
                self._untold.update(some)
                raise
            self._has_been_told(present)
        if everybody:
            self._told_all = now

    def _has_been_told(self, told: Iterable[Present]) -> None:
        for place, said in ((one.place, one.connections) for one in told):
            if self._word(place) != said:
                # It may be heard after what was said since.
                self._untold.add(place)
            elif not said and place not in self._untold:
                self._told.discard(place)

    def _word(self, place: str) -> int:
        """What is said of a place: nothing of few connections, as most have."""
        here = self._here.get(place, 0)
        return here if here > self._most(place) // (QUIET * max(1, len(self._living()))) else 0

    def _most(self, place: str) -> int:
        """Connections it may have."""
        return self._connections[place.startswith("network:")]

    def _alive(self, words: Mapping[str, int]) -> int:
        """The sum without those of workers that are gone: their guests are those who come back now."""
        living = self._living()
        return sum(said for worker, said in words.items() if not living or worker in living)

    def _refuse_who_waits(self, keys: Iterable[str]) -> None:
        """Who was told to wait and does not costs Redis nothing."""
        now = time.monotonic()
        waits = [tab.until - now for tab in map(self._tabs.known, keys) if tab is not None]
        if waits and max(waits) > 0:
            raise Refused("rate_limited", retryInMs=_ms(max(waits)))

    def _wait(self, key: str, rule: Rule, most: int, wait_ms: int) -> None:
        """Nothing is left for so long."""
        if (tab := self._tabs.find(key, rule, most)) is not None:
            tab.wait(time.monotonic() + wait_ms / 1000)


def _counted(rule: Rule, guest: str, source: Source) -> Iterator[tuple[Rule, str, int]]:
    """The counters of a limit for somebody: the rule, the counter's name and the most it may reach."""
    if rule.guest and guest:
        yield rule, f"{rule.name}:guest:{guest}", rule.guest
    if rule.address and source.address:
        yield rule, f"{rule.name}:address:{source.address}", rule.address
    if rule.network and source.network:
        yield rule, f"{rule.name}:network:{source.network}", rule.network


def _places(source: Source) -> Iterator[str]:
    """Where connections are counted."""
    if source.address:
        yield f"address:{source.address}"
    if source.network:
        yield f"network:{source.network}"


def _full(place: str) -> str:
    return f"full:{place}"


def _ms(seconds: float) -> int:
    return int(seconds * 1000) + 1


def _batches(some: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(some), BATCH):
        yield some[start : start + BATCH]


async def _soon(answer: Awaitable[T]) -> T:
    """Raises StateUnavailable if it takes long: whoever spends meanwhile has only a share."""
    try:
        return await asyncio.wait_for(answer, PATIENCE)
    except TimeoutError:
        raise StateUnavailable("the counters are slow") from None
