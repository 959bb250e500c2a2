"""What workers tell operators: each for itself, and any of them for all."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis
from prometheus_client.parser import text_string_to_metric_families as families

from members import RecorderProcess
from rig import PATIENCE, Guest, Service, Worker, arrive, free_port, meet, promtool
from visavis.adapters.redis import Recorders, connect
from visavis.core.recorder import RecorderLoad
from wire import Polls, Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")


ALL = "/metrics/workers"


async def read(worker: Worker, path: str = "/metrics", **headers: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(worker.url + path, headers=headers) as response:
        assert response.status == 200
        return await response.text()


class Told:
    """An exposition, looked into by name and labels."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in families(text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of what has this name and these labels."""
        found = [s.value for s in self.samples if s.name == f"visavis_{name}" and labels.items() <= s.labels.items()]
        assert found, (name, labels)
        return sum(found)

    @property
    def workers(self) -> set[str]:
        return {s.labels["worker"] for s in self.samples}


async def told(worker: Worker, path: str = "/metrics") -> Told:
    return Told(await read(worker, path))


@pytest_asyncio.fixture(loop_scope="session")
async def two(tmp_path: Path) -> AsyncIterator[Service]:
    """Two workers on a Valkey of their own."""
    running = await Service(tmp_path).start(2)
    yield running
    await running.stop()


async def forget(service: Service) -> None:
    """As a Redis that restarts empty."""
    client = redis.Redis.from_url(service.valkey.url)
    await client.flushall()
    await client.aclose()


async def talk(a: Guest, b: Guest, conversation: str, upto: int) -> None:
    for seq in range(1, upto + 1):
        await a.say(conversation, seq, "hello")
        await b.next("chat:message")
        await b.ask("chat:receipt", {"conversationId": conversation, "delivered": seq, "read": 0})
        await a.next("chat:receipt")


async def test_a_conversation_is_counted_where_it_is_said_and_its_receipts_are_timed(two: Service) -> None:
    """Across workers, and on one; by kind, and by where the partner was."""
    one, other = two.workers
    a, b = await arrive(one.url), await arrive(other.url)
    conversation = await meet(a, b)
    await talk(a, b, conversation, 3)
    told_one, told_other = await told(one), await told(other)
    assert told_one("messages_total", kind="text", partner="elsewhere") == 3
    assert told_one("messages_total", partner="here") == told_one("messages_total", partner="away") == 0
    assert told_other("messages_total") == 0
    assert told_one("delivery_seconds_count") == 3
    assert told_other("delivery_seconds_count") == 0
    assert 0 < told_one("delivery_seconds_sum") < 30
    matched = [await told(worker) for worker in two.workers]
    assert sum(t("match_seconds_count") for t in matched if _has(t, "match_seconds_count")) == 2
    assert told_one("requests_total", event="chat:message") == 3
    await b.hang_up()
    await a.next("conversation:partner")
    await a.say(conversation, 4, "are you there?")
    assert (await told(one))("messages_total", partner="away") == 1
    await b.connect(one.url)
    await a.say(conversation, 5, "welcome")
    assert (await told(one))("messages_total", partner="here") == 1
    await a.hang_up()
    await b.hang_up()


def _has(exposition: Told, name: str) -> bool:
    return any(s.name == f"visavis_{name}" for s in exposition.samples)


async def test_a_message_that_a_receipt_does_not_cover_is_not_timed_by_it(two: Service) -> None:
    """One under way at a time; the next is timed after its receipt."""
    worker = two.workers[0]
    a, b = await arrive(worker.url), await arrive(worker.url)
    conversation = await meet(a, b)
    await a.say(conversation, 1, "one")
    await b.ask("chat:receipt", {"conversationId": conversation, "delivered": 0, "read": 0})
    await a.next("chat:receipt")
    assert (await told(worker))("delivery_seconds_count") == 0
    await a.say(conversation, 2, "two")
    await b.ask("chat:receipt", {"conversationId": conversation, "delivered": 2, "read": 0})
    await a.next("chat:receipt")
    assert (await told(worker))("delivery_seconds_count") == 1
    await a.hang_up()
    await b.hang_up()


async def test_a_seat_taken_back_is_counted_by_where(two: Service) -> None:
    """On the same worker, on another, and by a claim when Redis has lost everything."""
    one, other = two.workers
    a, b = await arrive(one.url), await arrive(one.url)
    await meet(a, b)
    await a.hang_up()
    await a.connect(one.url)
    assert (await told(one))("resumes_total", kind="same_worker") == 1
    await a.connect(other.url)
    assert (await told(other))("resumes_total", kind="other_worker") == 1
    await a.hang_up()
    await b.hang_up()
    await forget(two)
    await a.connect(one.url, claim=a.claim)
    assert (await told(one))("resumes_total", kind="claim") == 1
    await a.hang_up()


async def test_refusals_are_counted_by_code_at_both_doors(two: Service) -> None:
    """Also those of connections that never were."""
    worker = two.workers[0]
    a = await arrive(worker.url)
    await a.ask("chat:message", {"nonsense": True})
    await a.ask("chat:typing", {"conversationId": "x" * 22, "typing": True})
    async with aiohttp.ClientSession() as session:
        await session.post(f"{worker.url}/api/guests", data=b"{")
        await session.get(f"{worker.url}/nothing/at/all")
        await session.get(f"{worker.url}/socket.io/?EIO=4&transport=polling", headers={"Origin": "https://elsewhere"})
    async with Wire(worker.url, origin=worker.url) as wire:
        await wire.open(auth_of({"token": "x.y.z"}))
    found = await told(worker)
    assert found("refusals_total", door="socket", code="bad_request") == 1
    assert found("refusals_total", door="socket", code="not_in_conversation") == 1
    assert found("refusals_total", door="socket", code="token_invalid") == 1
    assert found("refusals_total", door="http", code="bad_request") == 1
    assert found("refusals_total", door="http", code="not_found") == 1
    assert found("refusals_total", door="http", code="origin_refused") == 1
    assert found("http_requests_total", route="none", status="404") == 1
    assert found("http_requests_total", route="/api/guests", status="400") == 1
    await a.hang_up()


async def test_connections_are_told_by_transport_and_who_waits_by_pool(two: Service) -> None:
    """As of the moment of reading."""
    worker = two.workers[0]
    a, b = await arrive(worker.url), await arrive(worker.url)
    await a.find(mode="text", languages=["de"])
    await b.find(mode="voice", languages=["fr"])
    async with Polls(worker.url):
        found = await told(worker)
        assert (found("connections", transport="websocket"), found("connections", transport="polling")) == (2, 1)
    assert (found("waiting", mode="text"), found("waiting", mode="voice"), found("waiting", mode="video")) == (1, 1, 0)
    assert found("waiting", mode="text", cell="0") == 1
    assert found("waiting_oldest_seconds", mode="video") == 0 < found("waiting_oldest_seconds", mode="text") < 60
    await a.ask("match:cancel")
    found = await told(worker)
    assert (found("waiting", mode="text"), found("waiting_oldest_seconds", mode="text")) == (0, 0)
    await a.hang_up()
    await b.hang_up()


async def test_who_waits_is_told_by_cell(tmp_path: Path) -> None:
    """Only those of one can meet: who waits in another is no reason to wonder."""
    service = await Service(tmp_path, VISAVIS_CELLS="4").start(1)
    try:
        worker = service.workers[0]
        a = await arrive(worker.url)
        await a.find(mode="text", languages=["de"])
        found = await told(worker)
        keys = connect(service.valkey.url, 4)
        async with redis.Redis.from_url(service.valkey.url) as client:
            [cell] = [str(n) for n in range(4) if await client.keys(f"{keys.prefix(n)}guest:*")]
        await keys.aclose()
        assert found("waiting", mode="text", cell=cell) == found("waiting", mode="text") == 1
        assert 0 < found("waiting_oldest_seconds", mode="text", cell=cell) < 60
        await a.hang_up()
    finally:
        await service.stop()


async def test_the_process_its_parts_and_what_it_runs_are_told(two: Service) -> None:
    """Memory, computing, descriptors; and the bus's way through Redis and back."""
    found = await told(two.workers[0])
    names = {s.name for s in found.samples}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"} <= names
    assert found("ready") == found("part_up", part="redis") == found("part_up", part="bus") == 1
    assert found("build_info") == 1
    assert found("bus_lag_seconds_count") >= 1
    assert found("redis_seconds_count") >= 1
    assert found("document_seconds_count") >= 1
    assert found("files_free_bytes", place="spool") > 0


async def test_any_worker_tells_the_metrics_of_all_by_name(two: Service) -> None:
    """Read from the last few seconds; one that died is gone at once, and its text in a while."""
    one, other = two.workers
    async with asyncio.timeout(PATIENCE):
        while len((found := await told(one, "/metrics/workers")).workers) < 2:
            await asyncio.sleep(0.1)
    assert {name.rpartition(":")[2] for name in found.workers} == {str(one.port), str(other.port)}
    assert found("ready") == 2
    text = (await read(one, "/metrics/workers")).encode()
    checked = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    await other.kill()
    async with asyncio.timeout(PATIENCE):
        while len((await told(one, "/metrics/workers")).workers) > 1:
            await asyncio.sleep(0.1)


async def test_a_recorder_is_told_of_with_the_workers(two: Service, tmp_path: Path) -> None:
    """It listens nowhere, and leaves its metrics as they do."""
    relay = SimpleNamespace(urls=("turn:127.0.0.1:9",), secret="s" * 20)
    recorder = await RecorderProcess(tmp_path, relay, two.valkey.url).start()  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(PATIENCE):
            while not any(name.startswith("recorder:") for name in (await told(two.workers[0], ALL)).workers):
                await asyncio.sleep(0.1)
        found = await told(two.workers[0], ALL)
        (name,) = (name for name in found.workers if name.startswith("recorder:"))
        assert found("bus_lag_seconds_count", worker=name) >= 1
        assert any(s.name == "process_resident_memory_bytes" and s.labels["worker"] == name for s in found.samples)
    finally:
        await recorder.stop()


async def test_what_recorders_made_is_added_up_and_does_not_fall_when_one_goes(two: Service) -> None:
    """By every worker; also of one that Redis had lost for a while, and not what was made before this worker came."""
    keys = connect(two.valkey.url)
    old, new = Recorders(keys, "old"), Recorders(keys, "new")
    worker = two.workers[0]

    async def say(recorder: Recorders, failed: int) -> None:
        await recorder.beat(4, msgspec.json.encode(RecorderLoad(places=4, failed=failed)), [])

    async def comes_to(name: str, number: float, **labels: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await told(worker))(name, **labels) != number:
                await asyncio.sleep(0.1)

    await say(old, 5)
    await comes_to("recorders", 1)
    assert (await told(worker))("recordings_total", outcome="failed") == 0
    await say(old, 7)
    await comes_to("recordings_total", 2, outcome="failed")
    await old.resign()
    await comes_to("recorders", 0)
    await say(new, 0)
    await comes_to("recorders", 1)
    await say(new, 1)
    await comes_to("recordings_total", 3, outcome="failed")
    await say(old, 8)
    await comes_to("recordings_total", 4, outcome="failed")
    await keys.aclose()


async def test_the_memory_of_redis_is_told_and_its_limit_if_it_has_one(two: Service) -> None:
    """By the server's address, as of when its parts were looked at last."""
    worker = two.workers[0]
    async with redis.Redis.from_url(two.valkey.url) as client:
        await client.config_set("maxmemory", 0)
        await read(worker, "/ready")
        found = await told(worker)
        assert found("redis_memory_bytes") > 100_000
        assert not _has(found, "redis_memory_limit_bytes")
        await client.config_set("maxmemory", 123_456_789)
        await read(worker, "/ready")
        assert (await told(worker))("redis_memory_limit_bytes") == 123_456_789


async def test_without_redis_a_worker_tells_its_own_but_not_those_of_all(two: Service) -> None:
    """Nobody who looks after it needs Redis to see that it is away."""
    worker = two.workers[0]
    async with asyncio.timeout(PATIENCE):
        while len((await told(worker, "/metrics/workers")).workers) < 2:
            await asyncio.sleep(0.1)
    await two.valkey.stop()
    async with asyncio.timeout(PATIENCE):
        while (await told(worker))("part_up", part="redis"):
            await asyncio.sleep(0.1)
    assert (await told(worker))("ready") == 0
    assert (await told(worker))("redis_errors_total", kind="away") > 0
    async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics/workers") as response:
        assert response.status == 503


async def test_the_metrics_of_all_are_for_whom_those_of_one_are(tmp_path: Path) -> None:
    """With the token where there is one; never through a proxy without it."""
    port = free_port()
    service = await Service(tmp_path).start(0)
    closed = await service.add(VISAVIS_METRICS_TOKEN="m" * 20)
    public = await service.add(VISAVIS_PORT=str(port), VISAVIS_ORIGINS=f"http://127.0.0.1:{port}")
    try:
        async with aiohttp.ClientSession() as session:
            for url in (closed.url, public.url):
                async with session.get(f"{url}/metrics/workers") as response:
                    assert response.status == 404
        assert "visavis_ready" in await read(closed, "/metrics/workers", Authorization="Bearer " + "m" * 20)
    finally:
        await service.stop()
