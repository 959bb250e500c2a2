"""Limits over real workers on one Valkey: the sum counts, whichever worker is asked, and whoever waits is let in."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from socketio.exceptions import ConnectionError as NotConnected

from crowd import Crowd
from faults import MortalValkey
from rig import PATIENCE, Guest, Service, Worker, from_address, get_guest, meet
from visavis.contract import RULES_VERSION
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIGHT = {
    "VISAVIS_TRUST_FORWARDED": "true",
    "VISAVIS_PEOPLE_PER_ADDRESS": "2",
    "VISAVIS_ADDRESSES_PER_NETWORK": "2",
    "VISAVIS_API_PER_WINDOW": "8",
    "VISAVIS_GUESTS_PER_WINDOW": "6",
    "VISAVIS_FINDS_PER_MINUTE": "4",
    "VISAVIS_REPORTS_PER_HOUR": "3",
    "VISAVIS_REQUESTS_PER_MINUTE": "40",
    "VISAVIS_TRANSFERS_PER_MINUTE": "20",
    "VISAVIS_FILES_PER_MINUTE": "3",
    "VISAVIS_CONNECTIONS_PER_ADDRESS": "4",
    "VISAVIS_STRANGERS_PER_ADDRESS": "3",
    "VISAVIS_BUCKET_SIZE": "100000",
    "VISAVIS_BUCKET_PER_SECOND": "100000",
}
GROWN = {"birthDate": "1990-05-17", "rules": RULES_VERSION}
_hosts = (f"198.18.{n // 250}.{n % 250 + 1}" for n in itertools.count())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def workers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Worker]]:
    """Three, which count together."""
    running = await Service(tmp_path_factory.mktemp("tight"), **TIGHT).start(3)
    yield running.workers
    await running.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def guests() -> AsyncIterator[list[Guest]]:
    """Whoever came in a test; they hang up when it ends."""
    came: list[Guest] = []
    yield came
    await asyncio.gather(*(guest.hang_up() for guest in came))


@pytest.fixture
def host() -> str:
    """An address nobody has come from."""
    return next(_hosts)


class Asked:
    """A response, read whole."""

    def __init__(self, response: aiohttp.ClientResponse, body: Any) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body


async def ask(worker: Worker, path: str, address: str, token: str = "", method: str = "GET", **options: Any) -> Asked:
    headers = {**from_address(address), **({"Authorization": f"Bearer {token}"} if token else {})}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, worker.url + path, **options) as response,
    ):
        return Asked(response, await response.json() if response.content_type == "application/json" else None)


async def answered(workers: list[Worker], times: int, path: str, address: str, token: str = "") -> list[Asked]:
    """As many requests at once, to one worker after the other."""
    asked = [ask(worker, path, address, token) for worker in itertools.islice(itertools.cycle(workers), times)]
    return list(await asyncio.gather(*asked))


def let_through(answers: list[Asked]) -> int:
    """How many were done; all others must have been told to wait, and how long."""
    for answer in answers:
        if answer.status != 200:
            error = answer.body["error"]
            assert (answer.status, error["code"]) == (429, "rate_limited")
            assert int(answer.headers["Retry-After"]) == -(-error["retryInMs"] // 1000) > 0
    return sum(answer.status == 200 for answer in answers)


async def arrive(guests: list[Guest], url: str, address: str) -> Guest:
    guest = Guest(url, await get_guest(url, address=next(_hosts)), address=address)
    guests.append(guest)
    await guest.connect()
    return guest


# --------------------------------------------------------------------------- HTTP


async def test_calls_of_a_guest_are_limited_over_all_workers(workers: list[Worker], host: str) -> None:
    """Eight in all, not eight on each; and the address goes on for another guest of it."""
    one, other = [(await get_guest(workers[0].url, address=next(_hosts)))["token"] for _ in range(2)]
    assert let_through(await answered(workers, 24, "/api/recordings", host, one)) == 8
    assert let_through(await answered(workers, 24, "/api/recordings", host, other)) == 8


async def test_calls_from_an_address_are_limited_whoever_makes_them(workers: list[Worker], host: str) -> None:
    """Without a guest, with a forged one, or with many; other addresses are not meant."""
    assert let_through(await answered(workers, 30, "/api/info", host)) == 16
    forged = await ask(workers[0], "/api/recordings", host, "a.b.c")
    assert forged.status == 429
    token = (await get_guest(workers[0].url, address=next(_hosts)))["token"]
    assert (await ask(workers[1], "/api/recordings", host, token)).status == 429
    assert (await ask(workers[1], "/api/info", next(_hosts))).status == 200


async def test_an_ipv6_site_counts_by_its_64_and_by_its_48(workers: list[Worker]) -> None:
    """Every host of a /64 is one; the /48 gets as much as two of its /64; IPv4 written as IPv6 is IPv4."""
    near = [await answered(workers, 6, "/api/info", f"2001:db8:7:1::{n}") for n in range(1, 5)]
    assert sum(map(let_through, near)) == 16
    wide = [await answered(workers, 10, "/api/info", f"2001:db8:7:{n}::1") for n in range(2, 6)]
    assert sum(map(let_through, wide)) == 16
    assert let_through(await answered(workers, 3, "/api/info", "2001:db8:8:1::1")) == 3
    four = next(_hosts)
    assert let_through(await answered(workers, 16, "/api/info", f"::ffff:{four}")) == 16
    assert let_through(await answered(workers, 3, "/api/info", four)) == 0


async def test_new_guests_of_an_address_are_limited_over_all_workers(workers: list[Worker], host: str) -> None:
    """Six, wherever they ask."""

    async def enter(worker: Worker) -> int:
        return (await ask(worker, "/api/guests", host, method="POST", json=GROWN)).status

    statuses = await asyncio.gather(*(enter(worker) for worker in workers * 4))
    assert sorted(statuses) == [201] * 6 + [429] * 6


async def test_requests_about_files_count_apart(workers: list[Worker], host: str) -> None:
    """A guest who has called the API too often still sends files, and is limited there as well."""
    token = (await get_guest(workers[0].url, address=next(_hosts)))["token"]
    assert let_through(await answered(workers, 12, "/api/recordings", host, token)) == 8
    nothing = f"/api/files/{'x' * 22}"
    # So many before the counters were asked, on each worker; then it is settled.
    statuses = [(await ask(workers[0], nothing, host, token, "HEAD")).status for _ in range(9)]
    assert statuses == [404] * 9
    done = 9
    while done < 100:
        answer = await ask(workers[0], nothing, host, token)
        if answer.status == 429:
            wait = answer.body["error"]["retryInMs"]
            if wait > 2000:
                break
            await asyncio.sleep(wait / 1000)
        else:
            assert answer.status == 404
            done += 1
    assert 20 <= done <= 31


async def test_uploads_are_limited_for_an_address(workers: list[Worker], guests: list[Guest], host: str) -> None:
    """Each of its guests may begin three in a minute, and all of them together six."""
    begun = []
    for _ in range(3):
        a, b = [await arrive(guests, workers[0].url, next(_hosts)) for _ in range(2)]
        conversation = await meet(a, b)
        for worker in workers:
            body = {"conversationId": conversation, "name": "a.txt", "bytes": 10}
            answer = await ask(worker, "/api/files", host, a.created["token"], "POST", json=body)
            begun.append(answer.status)
        await a.ask("conversation:leave", {"conversationId": conversation})
        await a.hang_up()
    assert begun == [201] * 6 + [429] * 3


# --------------------------------------------------------------------------- Socket.IO


async def test_searches_are_limited_over_all_workers(workers: list[Worker], guests: list[Guest], host: str) -> None:
    """A connection elsewhere is no fresh start."""
    guest = await arrive(guests, workers[0].url, host)
    outcomes = []
    for worker in [*workers, workers[0]]:
        await guest.connect(worker.url)
        for _ in range(2):
            answer = await guest.find(languages=["qtz"])
            outcomes.append(answer.get("error", {}).get("code", "ok"))
    assert outcomes == ["ok"] * 4 + ["rate_limited"] * 4


async def test_messages_are_limited_and_reconnecting_does_not_refresh(
    workers: list[Worker], guests: list[Guest], host: str
) -> None:
    """The overshoot is a bounded count: each worker's share, and one. Waiting as told means being heard."""
    a, b = await arrive(guests, workers[0].url, host), await arrive(guests, workers[1].url, next(_hosts))
    conversation = await meet(a, b)
    seq, refused = 0, 0
    for worker in itertools.cycle(workers):
        await a.connect(worker.url)
        for _ in range(12):
            answer = await a.say(conversation, seq + 1, "once more")
            if "ok" in answer:
                seq += 1
                refused = 0
                continue
            assert answer["error"]["code"] == "rate_limited"
            refused = answer["error"]["retryInMs"]
            break
        if refused > 2000:
            break
        assert seq < 200, "never refused"
        await asyncio.sleep(refused / 1000)
    # Finding cost four, of forty; a share is ten.
    assert 36 <= seq <= 36 + 3 * 11
    for worker in workers:
        await a.connect(worker.url)
        assert (await a.say(conversation, seq + 1, "and again"))["error"]["code"] == "rate_limited"
    for n in range(1, seq + 1):
        assert (await b.next("chat:message"))["seq"] == n
    assert "ok" in await b.say(conversation, 1, "I may")


async def test_reports_and_blocks_are_limited_together(workers: list[Worker], guests: list[Guest], host: str) -> None:
    """Three in an hour."""
    a, b = await arrive(guests, workers[0].url, host), await arrive(guests, workers[1].url, next(_hosts))
    conversation = await meet(a, b)
    report = {"conversationId": conversation, "reason": "spam", "words": "no"}
    block = {"conversationId": conversation}
    answers = []
    for event, request in (("safety:report", report), ("safety:report", report), *[("safety:block", block)] * 2):
        answer = await a.ask(event, request)
        while (wait := answer.get("error", {}).get("retryInMs", 9999)) < 2000:
            # A report costs much: on so small a share it waits for the worker's next word with Redis.
            await asyncio.sleep(wait / 1000)
            answer = await a.ask(event, request)
        answers.append(answer)
    assert ["error" in answer for answer in answers] == [False, False, False, True]
    assert answers[3]["error"]["code"] == "rate_limited"


async def test_an_address_has_so_many_connections_at_once(
    workers: list[Worker], guests: list[Guest], host: str
) -> None:
    """Over all workers; the next is told so in a code and a time, and gets in once somebody has gone."""
    for worker in [*workers, workers[0]]:
        await arrive(guests, worker.url, host)
    late = Guest(workers[1].url, await get_guest(workers[1].url, address=next(_hosts)), address=host)
    guests.append(late)
    async with Wire(workers[1].url, address=host) as wire:
        refused = (await wire.open(auth_of(late.created)))["data"]
    assert refused["code"] == "address_full"
    with pytest.raises(NotConnected):
        await late.connect()
    await guests[0].hang_up()
    await asyncio.sleep(refused["retryInMs"] / 1000)
    await late.connect()
    await arrive(guests, workers[2].url, next(_hosts))


async def test_connections_that_do_not_say_who_they_are_are_few(
    workers: list[Worker], guests: list[Guest], host: str
) -> None:
    """Three of an address at once on a worker; others of it wait, those of other addresses do not."""
    worker = workers[0]
    silent = [Wire(worker.url, address=host) for _ in range(3)]
    for wire in silent:
        await wire.__aenter__()
    try:
        for transport in ("websocket", "polling"):
            answer = await ask(worker, f"/socket.io/?EIO=4&transport={transport}", host)
            assert (answer.status, answer.body["error"]["code"]) == (429, "address_full")
            assert int(answer.headers["Retry-After"]) > 0
        await arrive(guests, worker.url, next(_hosts))
        created = await get_guest(worker.url, address=next(_hosts))
        assert "sid" in await silent[0].open(auth_of(created))
        assert (await ask(worker, "/socket.io/?EIO=4&transport=polling", host)).status == 200
    finally:
        for wire in silent:
            await wire.__aexit__(None, None, None)


async def test_without_redis_a_conversation_goes_on(tmp_path: Path) -> None:
    """What needs no Redis is guarded by the worker alone; what does is unavailable; both come back by themselves."""
    mortal = await MortalValkey().start()
    worker = await Worker(tmp_path, REDIS_URL=mortal.url, **{**TIGHT, "VISAVIS_TRUST_FORWARDED": "false"}).start()
    crowd = Crowd(worker.url, "aa")
    try:
        a, b, conversation = await crowd.pair()
        await mortal.kill()
        entered = await ask(worker, "/api/guests", "", method="POST", json=GROWN)
        assert (entered.status, entered.body["error"]["code"]) == (503, "unavailable")
        assert int(entered.headers["Retry-After"]) > 0
        infos = [(await ask(worker, "/api/info", "")).status for _ in range(20)]
        # With the call before.
        assert infos == [200] * 15 + [429] * 5
        said = 0
        while said < 60:
            answer = await a.say(conversation, said + 1, "still here")
            if "ok" in answer:
                said += 1
            else:
                # Until the worker has noticed that nobody counts.
                assert answer["error"]["code"] == "rate_limited"
                await asyncio.sleep(answer["error"]["retryInMs"] / 1000)
        for n in range(1, 61):
            assert (await b.next("chat:message"))["seq"] == n
        assert (await crowd.find(a))["error"]["code"] in ("in_conversation", "unavailable")
        await mortal.start()
        async with asyncio.timeout(PATIENCE):
            while (
                await ask(worker, "/api/guests", "", method="POST", json={"birthDate": "1990-05-17", "rules": 1})
            ).status == 503:
                await asyncio.sleep(0.1)
        await crowd.leave()
    finally:
        await worker.stop()
        await mortal.stop()
