"""Limits of several workers on one real Valkey: what they let through together, and what each remembers."""

import asyncio
import contextlib
import itertools
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Collection, Sequence

import pytest

from faults import MortalValkey
from topologies import Cluster
from visavis.adapters.metrics import Metrics
from visavis.adapters.redis import Counters, Keyspace, State, connect
from visavis.adapters.valkey import PrivateValkey
from visavis.contract import Refused
from visavis.core import limits
from visavis.core.identity import Guest, new_id, new_profile
from visavis.core.limits import Limits, Rule, Source, rules
from visavis.core.ports import Count, Counted, Present, StateUnavailable

MakeLimits = Callable[..., Limits]
ALL = rules(
    guest={"api": 6, "requests": 30, "finds": 4, "reports": 3, "transfers": 30},
    address={"guests": 5, "uploads": 9, "upload_bytes": 1000, "handshakes": 8},
    people_per_address=2,
    addresses_per_network=2,
)


def somewhere(network: str = "") -> Source:
    """An address nobody else comes from."""
    return Source(new_id(), network)


class Slow(Counters):
    """Real counters, before whose next word about connections something happens."""

    def __init__(self, keys: Keyspace, worker: str) -> None:
        super().__init__(keys, worker)
        self.meanwhile: Callable[[], None] = bool
        self.asked = 0
        """Scripts that were run."""

    async def present(self, told: Sequence[Present], kept_ms: int) -> list[dict[str, int]]:
        self.asked += len(told)
        happens, self.meanwhile = self.meanwhile, bool
        answer = await super().present(told, kept_ms)
        happens()
        return answer

    async def take(self, asked: Sequence[Count]) -> list[Counted]:
        self.asked += len(asked)
        return await super().take(asked)

    async def enter(
        self, asked: Sequence[Count], told: Sequence[Present], kept_ms: int
    ) -> tuple[list[Counted], list[dict[str, int]]]:
        self.asked += len(asked) + len(told)
        return await super().enter(asked, told, kept_ms)


def state_of(keys: Keyspace, worker: str) -> State:
    return State(keys, worker, session_ms=60_000, lease_ms=60_000, recent_ms=1000)


@pytest.fixture
async def worker(valkey: PrivateValkey) -> AsyncIterator[MakeLimits]:
    """Makes workers' limits, which settle when the test says; all workers live, if it does not say who does."""
    clients = []

    def make(
        url: str = "",
        rules: dict[str, Rule] = ALL,
        name: str = "",
        living: Collection[str] = (),
        connections: int = 3,
    ) -> Limits:
        client = connect(url or valkey.url)
        clients.append(client)
        name = name or new_id()
        return Limits(
            Slow(client, name),
            rules,
            Metrics(),
            connections=connections,
            networks=2,
            living=lambda: living,
            connected=state_of(client, name).connected,
        )

    yield make
    for client in clients:
        await client.aclose()


async def taken(workers: list[Limits], what: str, source: Source, guest: str = "", tries: int = 60) -> int:
    """How often they let somebody do something, one after the other, until all refuse."""
    done = 0
    for worker in itertools.islice(itertools.cycle(workers), tries):
        with contextlib.suppress(Refused):
            await worker.take({what: 1}, guest, source)
            done += 1
    return done


async def test_what_is_taken_is_limited_over_all_workers(worker: MakeLimits) -> None:
    """A guest alone, an address whoever asks from it, and a network of addresses: to the last one."""
    workers = [worker() for _ in range(3)]
    assert await taken(workers, "api", somewhere(), new_id()) == 6
    here = somewhere()
    assert await taken(workers, "api", here, new_id()) == 6
    assert await taken(workers, "api", here) == 6
    network = new_id()
    assert [await taken(workers, "api", somewhere(network)) for _ in range(3)] == [12, 12, 0]
    assert await taken(workers, "api", somewhere(new_id())) == 12


async def test_at_once_is_no_way_around(worker: MakeLimits) -> None:
    """Asked of all workers in the same instant."""
    workers, here = [worker() for _ in range(3)], somewhere()
    asked = [one.take({"guests": 1}, "", here) for one in workers for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers.count(None) == 5
    assert all(answer is None or isinstance(answer, Refused) for answer in answers)


@pytest.mark.parametrize("topology", ["single", "cluster"])
async def test_who_asks_too_often_takes_nothing_from_others_of_the_address(
    worker: MakeLimits, valkey: PrivateValkey, cluster: Cluster, topology: str
) -> None:
    """Not for a moment either, in which others would be told to wait for a whole window."""
    url = {"single": valkey.url, "cluster": cluster.url}[topology]
    workers, here, guest = [worker(url) for _ in range(3)], somewhere(), new_id()
    asked = [one.take({"api": 1}, guest, here) for one in workers for _ in range(20)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers.count(None) == 6
    assert await taken(workers, "api", here, new_id()) == 6


async def test_what_was_refused_for_an_address_does_not_count_against_a_guest(worker: MakeLimits) -> None:
    """Or the patient would pay for the crowd around them."""
    one, here, guest = worker(), somewhere(), new_id()
    assert await taken([one], "api", here) == 12
    with pytest.raises(Refused) as refused:
        await one.take({"api": 1}, guest, here)
    assert refused.value.code == "rate_limited"
    assert 0 < refused.value.data["retryInMs"] <= 17 * 60_000
    # Who has just been refused is refused without asking; another worker has to ask.
    with pytest.raises(Refused):
        await worker().take({"api": 1}, guest, here)
    assert await taken([one], "api", somewhere(), guest) == 6


async def test_a_cost_above_the_limit_waits_for_a_whole_window_and_not_for_ever(worker: MakeLimits) -> None:
    """It takes all there is; else the wait would be a lie."""
    one, here = worker(), somewhere()
    await one.take({"upload_bytes": 5000}, "", here)
    with pytest.raises(Refused):
        await one.take({"upload_bytes": 1}, "", here)


async def spent(worker: Limits, guest: str, source: Source, tries: int) -> int:
    """How many requests a worker lets through before it has heard from the counters."""
    done = 0
    for _ in range(tries):
        with contextlib.suppress(Refused):
            worker.spend("requests", 1, guest, source)
            done += 1
    return done


@pytest.mark.parametrize("many", [1, 2, 4])
async def test_what_is_spent_overshoots_by_a_bounded_number(worker: MakeLimits, many: int) -> None:
    """A guest in the greatest hurry on every worker at once: the limit, and a tenth of it each and one."""
    most = 300
    strict = {**ALL, "requests": Rule("requests", 100, 60_000, most * 100, 10_000_000, 0)}
    workers = [worker(rules=strict) for _ in range(many)]
    guest, here = new_id(), somewhere()
    done = 0
    for _ in range(40):
        for one in workers:
            done += await spent(one, guest, here, 100)
        await asyncio.gather(*(one.settle() for one in workers))
    assert most <= done <= most + many * (most // limits.SHARE + 1)
    with pytest.raises(Refused) as refused:
        workers[0].spend("requests", 1, guest, here)
    assert refused.value.data["retryInMs"] > 1000


async def test_a_message_asks_redis_nothing(worker: MakeLimits) -> None:
    """Spending works where there is no Redis at all."""
    one = worker("unix:///nowhere")
    assert await spent(one, new_id(), somewhere(), 3) == 3
    with pytest.raises(StateUnavailable):
        await one.settle(everything=True)


async def test_a_guest_who_connects_elsewhere_has_what_was_left(worker: MakeLimits) -> None:
    """And from another address as well."""
    one, two = worker(), worker()
    guest, here = new_id(), somewhere()
    while True:
        await spent(one, guest, here, 20)
        await one.settle()
        try:
            one.spend("requests", 1, guest, here)
        except Refused:
            break
    there = somewhere()
    await two.learn(guest)
    assert await spent(two, guest, there, 20) == 0
    other = new_id()
    await two.learn(other)
    assert await spent(two, other, there, 5) == 5


async def test_an_address_has_so_many_connections_on_all_workers_together(
    worker: MakeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hangs up makes room; a network has more, but not for ever more addresses."""
    # Of so small a limit, even one is told.
    monkeypatch.setattr(limits, "QUIET", 100)
    one, two = worker(), worker()
    network = new_id()
    here, there, further = somewhere(network), somewhere(network), somewhere(network)
    await one.enter(new_id(), here)
    await one.enter(new_id(), here)
    await two.enter(new_id(), here)
    for full in (one, two):
        with pytest.raises(Refused) as refused:
            await full.enter(new_id(), here)
        assert refused.value.code == "address_full"
        assert refused.value.data["retryInMs"] > 0
    for _ in range(3):
        await two.enter(new_id(), there)
    with pytest.raises(Refused):
        await one.enter(new_id(), further)
    two.leave(there)
    await two.settle()
    three = worker()
    await three.enter(new_id(), further)
    one.leave(here)
    await one.settle()
    await three.enter(new_id(), further)
    with pytest.raises(Refused) as refused:
        # The network is full again, though the address is not.
        await three.enter(new_id(), further)
    assert refused.value.code == "address_full"


async def test_the_word_of_a_worker_that_is_gone_locks_nobody_out(worker: MakeLimits) -> None:
    """It stands for a while yet; but whoever it is about comes back now."""
    gone, here = worker(name="gone"), somewhere()
    for _ in range(3):
        await gone.enter(new_id(), here)
    with pytest.raises(Refused):
        await worker(living=("gone", "lives")).enter(new_id(), here)
    lives = worker(name="lives", living=("lives",))
    for _ in range(3):
        await lives.enter(new_id(), here)
    with pytest.raises(Refused):
        await lives.enter(new_id(), here)


async def test_whoever_is_connected_already_is_not_one_more(worker: MakeLimits, valkey: PrivateValkey) -> None:
    """A hand-over, or a worker's end that nobody has noticed: one for one, up to twice as many and no further."""
    before, after, here = worker(), worker(), somewhere()
    keys = connect(valkey.url)
    state, guests = state_of(keys, "before"), [Guest(new_id(), new_id(), new_profile()) for _ in range(4)]
    for guest in guests[:3]:
        await before.enter(guest.id, here)
    for guest in guests:
        await state.connect(guest, None)
    with pytest.raises(Refused):
        await after.enter(new_id(), here)
    for guest in guests[:3]:
        # Also at once after somebody was refused.
        await after.enter(guest.id, here)
    with pytest.raises(Refused):
        await after.enter(guests[3].id, here)
    await keys.aclose()


async def test_whoever_leaves_while_connections_are_told_is_told_too(worker: MakeLimits) -> None:
    """Else the address would stay full for nobody, until the word runs out."""
    one, two, here = worker(), worker(), somewhere()
    for _ in range(3):
        await one.enter(new_id(), here)
    one.leave(here)
    counters = one._counters
    assert isinstance(counters, Slow)

    def all_leave() -> None:
        one.leave(here)
        one.leave(here)

    counters.meanwhile = all_leave
    await one.settle()
    await one.settle()
    for _ in range(3):
        await two.enter(new_id(), here)


async def test_few_connections_are_no_news(worker: MakeLimits) -> None:
    """Redis is not asked to let somebody in, nor is their address spoken of; it is in time for the limit to hold."""
    roomy = {**ALL, "handshakes": Rule("handshakes", 1, 60_000, 0, 1000, 0)}
    here = somewhere()
    names = ("one", "two", "three")
    one, two, three = (worker(rules=roomy, name=name, living=names, connections=40) for name in names)
    counters = one._counters
    assert isinstance(counters, Slow)
    for _ in range(3):
        await one.enter(new_id(), here)
        await one.settle()
    for _ in range(3):
        one.leave(here)
    await one.settle()
    assert counters.asked == 0
    let_in = 0
    for each in (one, two) * 40:
        with contextlib.suppress(Refused):
            await each.enter(new_id(), here)
            let_in += 1
    assert let_in == 40
    for _ in range(let_in // 2):
        one.leave(here)
    await one.settle()
    for _ in range(let_in // 2):
        await three.enter(new_id(), here)


async def test_settling_costs_little_at_human_speed(worker: MakeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a share at a time, for the guest and the address; and what is left over does not stay for ever."""
    one, guest, here = worker(), new_id(), somewhere()
    counters = one._counters
    assert isinstance(counters, Slow)
    for _ in range(11):
        one.spend("requests", 1, guest, here)
        await one.settle()
    assert counters.asked == 2 * 2
    monkeypatch.setattr(limits, "HOLD", 0.0)
    await one.settle()
    assert counters.asked == 3 * 2


async def test_whoever_has_little_left_spends_no_more_than_that(worker: MakeLimits) -> None:
    """What was learnt is kept until the counters say otherwise."""
    one, two, guest, here = worker(), worker(), new_id(), somewhere()
    for _ in range(5):
        await spent(one, guest, here, 5)
        await one.settle()
    await two.learn(guest)
    await two.settle()
    assert await spent(two, guest, somewhere(), 20) == 5


@pytest.mark.parametrize("hasty", [True, False])
async def test_connecting_too_often_is_refused(worker: MakeLimits, hasty: bool) -> None:
    """Also when each hangs up before the next; all at once or not, and nobody before it is too often."""
    most = 100
    strict = {**ALL, "handshakes": Rule("handshakes", 1, 60_000, 0, most, 0)}
    one, two, here = worker(rules=strict), worker(rules=strict), somewhere()
    done = 0
    for each in (one, two) * most:
        with contextlib.suppress(Refused):
            await each.enter(new_id(), here)
            each.leave(here)
            done += 1
        if not hasty:
            await each.settle()
    # What each may let in before the counters have heard of it.
    assert most <= done <= most + 2 * most // limits.SHARE
    await one.settle(everything=True)
    for each in (one, two):
        with pytest.raises(Refused) as still:
            await each.enter(new_id(), here)
        assert still.value.code == "rate_limited"
        assert still.value.data["retryInMs"] > 1000
    await two.enter(new_id(), somewhere())


async def test_who_is_turned_away_hears_why_also_in_a_crowd(worker: MakeLimits) -> None:
    """Until the address has connected too often, which counts those who were not let in."""
    strict = {**ALL, "handshakes": Rule("handshakes", 1, 60_000, 0, 100, 0)}
    one, here = worker(rules=strict), somewhere()
    for _ in range(10):
        await one.enter(new_id(), here)
        one.leave(here)
    for _ in range(100):
        one.turned_away(here)
    await one.settle()
    with pytest.raises(Refused) as refused:
        one.turned_away(here)
    assert refused.value.code == "rate_limited"
    with pytest.raises(Refused):
        await one.enter(new_id(), here)


async def test_while_redis_is_away_each_worker_guards_what_needs_none(worker: MakeLimits) -> None:
    """The rest is unavailable; afterwards all is counted again, and nobody has to be told."""
    mortal = await MortalValkey().start()
    try:
        one, guest = worker(mortal.url), new_id()
        here = somewhere()
        await mortal.kill()
        with pytest.raises(StateUnavailable):
            await one.take({"guests": 1}, "", here)
        with pytest.raises(StateUnavailable):
            await one.enter(guest, here)
        assert await taken([one], "api", here, guest) == 6
        assert await taken([one], "reports", here, guest) == 3
        one.spend("requests", 1, guest, here)
        with pytest.raises(StateUnavailable):
            await one.settle(everything=True)
        # Beyond every limit: what one connection may is all that holds, and the gateway sees to it.
        assert await spent(one, guest, here, 1000) == 1000
        await mortal.start()
        await one.settle()
        assert await taken([one], "api", here, guest) == 6
        await spent(one, guest, here, 1000)
        await one.settle()
        for _ in range(8):
            await spent(one, guest, here, 1000)
            await one.settle()
        assert await spent(one, guest, here, 1) == 0
    finally:
        await mortal.stop()


@pytest.mark.parametrize("away", [False, True])
async def test_a_flood_of_addresses_fills_no_memory(
    worker: MakeLimits, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """However many there are; with the most that is remembered, that is less than 20 MB."""
    most = limits.REMEMBERED
    monkeypatch.setattr(limits, "REMEMBERED", 1000)
    # Of a small limit, whoever used any of it is remembered for a while.
    roomy = {**ALL, "handshakes": Rule("handshakes", 1, 60_000, 0, 1000, 2000)}
    one = worker("unix:///nowhere" if away else "", rules=roomy)
    if away:
        with contextlib.suppress(StateUnavailable):
            await one.take({"guests": 1}, "", somewhere())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for n in range(5000):
            here = Source(f"{n:022}", f"{n % 2000:022}")
            with contextlib.suppress(Refused):
                one.spend("requests", 1, f"{n:022}", here)
            if away:
                await one.take({"api": 1}, f"{n:022}", here)
            if n % (500 if away else 10) == 0:
                with contextlib.suppress(Refused, StateUnavailable):
                    await one.enter(f"{n:022}", here)
                    one.leave(here)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert one.remembered <= 1000
    assert (after - before) / 1000 * most < 20_000_000
    if not away:
        # So many are told at once, and forgotten.
        await one.settle()
        await one.settle()
        assert one.remembered == 0


async def test_clocks_that_move_change_nothing(worker: MakeLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's clock may be set to whatever it likes."""
    workers, here, guest = [worker(), worker()], somewhere(), new_id()
    assert await taken(workers, "api", here, guest, 3) == 3
    for moved in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda moved=moved: moved)
        monkeypatch.setattr(time, "time_ns", lambda moved=moved: int(moved * 1e9))
        assert await taken(workers, "api", here, guest) == (3 if moved == 0.0 else 0)
        await spent(workers[0], guest, here, 1)
        await workers[0].settle()


def test_every_limit_is_said_for_a_guest_or_an_address() -> None:
    """And an address never gets less than one of its guests, nor a network less than one of its addresses."""
    assert set(ALL) == set(limits.WINDOWS)
    for rule in ALL.values():
        assert rule.network >= rule.address >= rule.guest >= 0
        assert rule.address > 0
