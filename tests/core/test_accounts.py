"""What is spent through an account that is kept, held against the same rule told plainly."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from visavis.adapters.metrics import Metrics
from visavis.contract import Refused
from visavis.core import limits
from visavis.core.limits import ANSWERED, AWAY, HOLD, SETTLE, Account, Limits, Rule, Source
from visavis.core.ports import Count, Counted, Present, StateUnavailable

RULE = Rule("requests", 100, 60_000, 3000, 5000, 8000)
GUESTS = "abcd"
SOURCES = (Source("here", "net"), Source("there", "net"), Source("elsewhere"))
REMEMBERED = 7
"""Of nine counters there are in all."""


class Sums:
    """Counters of one worker: no window, and whoever is over waits for five seconds."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.away = False
        self.meanwhile: Callable[[], None] = bool

    async def count(self, asked: Sequence[Count]) -> list[Counted]:
        self.meanwhile()
        if self.away:
            raise StateUnavailable
        return [self.add(one.name, one.cost, one.most) for one in asked]

    def add(self, name: str, cost: int, most: int) -> Counted:
        self.sums[name] = self.sums.get(name, 0) + cost
        left = max(0, most - self.sums[name])
        return Counted(True, 0 if left else 5000, left)

    async def present(self, told: Sequence[Present], kept_ms: int) -> list[dict[str, int]]:
        return []


class Plain:
    """The rule in as many words: every counter is looked up for every request, and nothing else is kept."""

    def __init__(self) -> None:
        self.tabs: dict[str, SimpleNamespace] = {}
        self.counters = Sums()
        self.away_until = self.settled_at = 0.0

    def spend(self, cost: int, guest: str, source: Source, now: float) -> int:
        """How many ms to wait; 0 if it counts."""
        tabs = []
        names = [("guest", guest, 3000), ("address", source.address, 5000), ("network", source.network, 8000)]
        for name, most in ((f"requests:{kind}:{who}", most) for kind, who, most in names if who):
            if name not in self.tabs and len(self.tabs) < REMEMBERED:
                self.tabs[name] = SimpleNamespace(
                    most=most, share=max(most // 10, 1000), left=most, unsettled=0, under_way=0, since=0.0
                )
                self.tabs[name].until = self.tabs[name].learnt_at = 0.0
            if name in self.tabs:
                tabs.append(self.tabs[name])
        for tab in tabs:
            if tab.until > now:
                return int((tab.until - now) * 1000) + 1
            if tab.until:
                tab.until, tab.left = 0.0, tab.most
            if min(tab.left, tab.share) - tab.unsettled - tab.under_way <= 0 and now >= self.away_until:
                return int(max(ANSWERED, self.settled_at + SETTLE + ANSWERED - now) * 1000) + 1
        for tab in tabs:
            tab.since = tab.since if tab.unsettled else now
            tab.unsettled += cost
        return 0

    def settle(self, now: float, meanwhile: Callable[[], None]) -> None:
        due = {
            name: tab
            for name, tab in self.tabs.items()
            if tab.unsettled
            and (
                len(self.tabs) > REMEMBERED // 2
                or 2 * tab.unsettled >= min(tab.left, tab.share)
                or now - tab.since >= HOLD
            )
        }
        for tab in due.values():
            tab.under_way, tab.unsettled = tab.unsettled, 0
        if due:
            meanwhile()
        away = bool(due) and self.counters.away
        for name, tab in due.items():
            if not away:
                told = self.counters.add(name, tab.under_way, tab.most)
                tab.left, tab.learnt_at = told.left, now
                tab.until = now + told.wait_ms / 1000 if told.wait_ms else 0.0
            tab.under_way = 0
        self.settled_at = now
        self.away_until = now + AWAY if away else 0.0
        self.tabs = {
            name: tab
            for name, tab in self.tabs.items()
            if tab.unsettled or tab.until > now or (tab.left < tab.share and now - tab.learnt_at < HOLD)
        }


class Spending(RuleBasedStateMachine):
    """Guests spend here and there, some time passes, the counters answer or do not."""

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        clock = mock.patch.object(limits, "time", SimpleNamespace(monotonic=lambda: self.now))
        few = mock.patch.object(limits, "REMEMBERED", REMEMBERED)
        self.patches = [clock, few]
        for patch in self.patches:
            patch.start()
        self.counters = Sums()
        rules = dict.fromkeys(("requests", "handshakes"), RULE)
        self.limits = Limits(
            self.counters,  # type: ignore[arg-type]  # nobody enters
            rules,
            Metrics(),
            connections=9,
            networks=9,
            living=tuple,
            connected=lambda guest: asyncio.sleep(0, False),
        )
        self.accounts: dict[tuple[str, Source], Account] = {}
        self.plain = Plain()
        self.plain.settled_at = 0.0

    def teardown(self) -> None:
        for patch in getattr(self, "patches", ()):
            patch.stop()

    def both(self, guest: str, source: Source, cost: float, times: int, *, kept: bool) -> None:
        account = self.limits.account("requests", guest, source)
        if kept:
            account = self.accounts.setdefault((guest, source), account)
        for _ in range(times):
            wait = 0
            try:
                account.spend(cost, self.now)
            except Refused as refused:
                wait = refused.data["retryInMs"]
            assert wait == self.plain.spend(round(cost * 100), guest, source, self.now)

    @rule(
        guest=st.sampled_from(GUESTS),
        source=st.sampled_from(SOURCES),
        cost=st.sampled_from((0.25, 1, 4)),
        times=st.integers(1, 12),
        kept=st.booleans(),
    )
    def spend(self, guest: str, source: Source, cost: float, times: int, kept: bool) -> None:
        self.both(guest, source, cost, times, kept=kept)

    @rule(seconds=st.sampled_from((0.01, 1.0, 4.9, 5.1, 11.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(away=st.booleans(), guest=st.sampled_from(GUESTS), source=st.sampled_from(SOURCES), times=st.integers(0, 9))
    def settle(self, away: bool, guest: str, source: Source, times: int) -> None:
        self.counters.away = self.plain.counters.away = away
        meant: list[int] = []
        account = self.accounts.setdefault((guest, source), self.limits.account("requests", guest, source))

        def meanwhile() -> None:
            for _ in range(times):
                try:
                    account.spend(1, self.now)
                    meant.append(0)
                except Refused as refused:
                    meant.append(refused.data["retryInMs"])

        self.counters.meanwhile = meanwhile
        failed = False
        try:
            asyncio.run(self.limits.settle())
        except StateUnavailable:
            failed = True
        found: list[int] = []
        self.plain.settle(
            self.now, lambda: found.extend(self.plain.spend(100, guest, source, self.now) for _ in range(times))
        )
        assert meant == found
        assert failed == (self.plain.away_until > 0)
        assert self.counters.sums == self.plain.counters.sums
        assert self.limits.remembered == len(self.plain.tabs)


Spending.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnAccountThatIsKeptAllowsWhatTheRuleSays = Spending.TestCase
