"""The shared counters on a real Valkey: a window that slides, beside a model of it that shares no code."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from topologies import Cluster
from visavis.adapters.redis import Counters, Keyspace, connect
from visavis.adapters.valkey import PrivateValkey
from visavis.core.identity import new_id
from visavis.core.ports import Count, Present, StateUnavailable

WINDOW = 16_000_000
WIDTH = WINDOW // 16
"""Of a slot, in ms: long, so that one hardly ends while a test looks."""


class Model:
    """What the counter should say: a list of what was counted, and when."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.counted: list[list[int]] = []

    def sum(self, slot: int) -> int:
        self.counted = [one for one in self.counted if slot - one[0] < 17]
        return sum(cost for _, cost in self.counted)

    def opens(self, slot: int, wanted: int) -> int | None:
        """The first slot in which so much fits."""
        for later in range(slot, slot + 18):
            if sum(cost for at, cost in self.counted if later - at < 17) + wanted <= self.most:
                return later
        return None

    def back(self, cost: int) -> None:
        for one in sorted(self.counted, key=lambda one: -one[0]):
            some = min(one[1], cost)
            one[1] -= some
            cost -= some


@pytest.fixture
def raw(valkey: PrivateValkey) -> Iterator["redis.Redis"]:
    client = redis.Redis.from_url(valkey.url)
    yield client
    client.close()


@pytest.fixture(params=["single", "cluster"])
async def keys(request: pytest.FixtureRequest, valkey: PrivateValkey, cluster: Cluster) -> AsyncIterator[Keyspace]:
    made = connect(valkey.url) if request.param == "single" else connect(cluster.url, 3)
    yield made
    await made.aclose()


def now(raw: "redis.Redis") -> int:
    seconds, micros = raw.time()
    return int(seconds) * 1000 + int(micros) // 1000


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["take", "add", "back"]), st.integers(0, 12)),
        st.tuples(st.just("age"), st.integers(1, 20)),
    ),
    max_size=25,
)


@given(most=st.integers(1, 20), steps=steps)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_counter_says_what_its_model_says(raw: "redis.Redis", most: int, steps: list[tuple[str, int]]) -> None:
    """Whatever is taken, added and given back in whichever order, and however much time passes between."""
    text, _ = connect("unix:///nowhere")._scripts["count"]
    count = raw.register_script(text)
    key, model = f"v:limit:{new_id()}", Model(most)
    began = now(raw) // WIDTH
    for how, number in steps:
        if how == "age":
            # Time passes: what was counted moves back by so many slots.
            aged = {int(at) - number: cost for at, cost in raw.hgetall(key).items()}
            raw.delete(key)
            if aged:
                raw.hset(key, mapping=aged)  # type: ignore[arg-type]
            for one in model.counted:
                one[0] -= number
            continue
        before = now(raw)
        wait, left = count(keys=[key], args=[number, most, WINDOW, how])
        after = now(raw)
        slot = before // WIDTH
        assume(began == slot == after // WIDTH)
        stood = model.sum(slot)
        if how == "back":
            model.back(number)
            assert wait == 0
        elif how == "add" or stood + number <= most:
            model.counted.append([slot, number])
        assert left == max(0, most - model.sum(slot))
        if how != "back":
            opens = model.opens(slot, 1 if how == "add" else 0 if stood + number <= most else number)
            if opens is None:
                assert wait >= WINDOW
            elif opens == slot:
                assert wait == 0
            else:
                assert opens * WIDTH - after <= wait <= opens * WIDTH - before + 1
    ttl = raw.pttl(key)
    assert ttl in (-1, -2) or 0 < ttl <= WINDOW + WIDTH


async def test_a_limit_counts_for_all_workers_and_the_wait_is_true(keys: Keyspace) -> None:
    """Three in any window whoever asks, and whoever waits as told is let in."""
    one, two = Counters(keys, "one"), Counters(keys, "two")
    name = new_id()

    async def take(counters: Counters) -> int:
        (answer,) = await counters.count([Count(name, 1, 3, 400)])
        return answer.wait_ms

    assert [await take(counters) for counters in (one, two, one)] == [0, 0, 0]
    for refused, next_ in ((two, one), (one, two)):
        while not (wait := await take(refused)):
            pass
        assert wait <= 425
        await asyncio.sleep(wait / 1000)
        assert await take(next_) == 0


async def test_no_burst_goes_through_where_two_windows_meet(keys: Keyspace) -> None:
    """Over many windows' time: no stretch of a window's length holds more than the limit."""
    counters, name, window = Counters(keys, "one"), new_id(), 320
    taken: list[tuple[float, float]] = []
    until = time.monotonic() + 5 * window / 1000
    while time.monotonic() < until:
        before = time.monotonic()
        (answer,) = await counters.count([Count(name, 1, 5, window)])
        if answer.wait_ms == 0:
            taken.append((before, time.monotonic()))
    assert len(taken) >= 15
    for (first, _), (_, sixth) in zip(taken, taken[5:], strict=False):
        # From before the first was counted until after the sixth was; Redis counts whole milliseconds.
        assert sixth - first >= (window - 1) / 1000, "six within a window"


async def test_scripts_are_loaded_again_when_redis_forgot_them(keys: Keyspace) -> None:
    """In the middle of many: each is counted once."""
    counters, names = Counters(keys, "one"), [new_id() for _ in range(50)]
    await counters.count([Count(names[0], 1, 10, 60_000)])
    for name in names:
        await keys.ask(f"v:limit:{name}", lambda node: node.script_flush())
    asked = [Count(name, 2, 10, 60_000) for name in names]
    answers = await counters.count(asked)
    assert [answer.left for answer in answers] == [7, *[8] * 49]


async def test_what_is_counted_is_not_counted_again_when_its_answer_is_lost(
    valkey: PrivateValkey, raw: "redis.Redis"
) -> None:
    """Whoever asked is told that it is unavailable; nobody pays twice."""
    lost = 0

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        far_reader, far_writer = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        try:
            while data := await reader.read(65536):
                far_writer.write(data)
                answer = await far_reader.read(65536)
                if b"v:limit:" in data:
                    lost += 1
                    break
                writer.write(answer)
        finally:
            writer.close()
            far_writer.close()

    name = new_id()
    await _count_once(connect(valkey.url), new_id())
    relay = await asyncio.start_server(join, "127.0.0.1", 0)
    keys = connect(f"redis://127.0.0.1:{relay.sockets[0].getsockname()[1]}")
    with pytest.raises(StateUnavailable):
        await _count_once(keys, name)
    assert lost == 1
    assert [int(cost) for cost in raw.hgetall(f"v:limit:{name}").values()] == [1]
    relay.close()


async def _count_once(keys: Keyspace, name: str) -> None:
    try:
        await Counters(keys, "one").count([Count(name, 1, 10, 60_000)])
    finally:
        await keys.aclose()


async def test_connections_of_all_workers_add_up_and_a_dead_worker_s_fade(keys: Keyspace) -> None:
    """Each says its own; what was said holds for its time."""
    one, two, three = (Counters(keys, name) for name in ("one", "two", "three"))
    place = new_id()
    assert await one.present([Present(place, 3)], 60_000) == [{}]
    assert await two.present([Present(place, 4), Present(new_id(), 1)], 300) == [{"one": 3}, {}]
    assert await three.present([Present(place, 0)], 60_000) == [{"one": 3, "two": 4}]
    assert await one.present([Present(place, 5)], 60_000) == [{"two": 4}]
    await asyncio.sleep(0.301)
    assert await three.present([Present(place, 0)], 60_000) == [{"one": 5}]
    assert await one.present([Present(place, 0)], 60_000) == [{}]
    assert await three.present([Present(place, 0)], 60_000) == [{}]
