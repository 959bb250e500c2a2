"""The HTTP door: who may come in, what it answers to nonsense, and what never gets into a log."""

import asyncio
import datetime
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from crowd import Crowd
from faults import MortalValkey
from rig import PATIENCE, Guest, Worker, get_guest
from visavis.contract import ROUTES, RULES_VERSION
from visavis.doors.http import SECURITY_HEADERS
from wire import Wire, auth_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]
GROWN = {"birthDate": "1990-05-17", "rules": RULES_VERSION}


class Answer:
    """A response, read whole."""

    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status = status
        self.headers = headers
        self.text = text

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        code: str = self.body["error"]["code"]
        return code


async def ask(worker: Worker, method: str, path: str, **options: Any) -> Answer:
    async with aiohttp.ClientSession() as session, session.request(method, worker.url + path, **options) as response:
        return Answer(response.status, response.headers, await response.text())


async def enter(worker: Worker, body: Any, **options: Any) -> Answer:
    return await ask(
        worker, "POST", "/api/guests", data=body if isinstance(body, bytes) else json.dumps(body), **options
    )


# --------------------------------------------------------------------------- coming in


async def test_a_grown_guest_who_accepts_the_rules_comes_in(worker: Worker) -> None:
    """With a token to connect with, one to be remembered by, and a name that is nobody's."""
    answer = await enter(worker, GROWN)
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.body) == {"token", "expiresAt", "device", "profile"}
    assert (await enter(worker, GROWN)).body["token"] != answer.body["token"]
    async with Wire(worker.url) as wire:
        assert "sid" in await wire.open(auth_of(answer.body))


async def test_the_young_are_turned_away(worker: Worker) -> None:
    """A day short of eighteen; eighteen today comes in."""
    today = datetime.datetime.now(datetime.UTC).date()
    years_ago = today.replace(year=today.year - 18, day=min(today.day, 28))
    young = await enter(worker, {**GROWN, "birthDate": (years_ago + datetime.timedelta(days=4)).isoformat()})
    assert (young.status, young.body) == (403, {"error": {"code": "under_age", "minimumAge": 18}})
    assert (await enter(worker, {**GROWN, "birthDate": years_ago.isoformat()})).status == 201


async def test_what_is_not_answered_is_asked_for(worker: Worker) -> None:
    """The birth date first, then the rules in force."""
    assert (await enter(worker, {})).body == {"error": {"code": "birth_date_needed", "minimumAge": 18}}
    refused = await enter(worker, {"birthDate": "1990-05-17"})
    assert (refused.status, refused.body) == (403, {"error": {"code": "rules_not_accepted", "rules": RULES_VERSION}})
    assert (await enter(worker, {**GROWN, "rules": 0})).code == "rules_not_accepted"


async def test_a_device_remembers_the_answers(worker: Worker) -> None:
    """Nothing is asked twice; a false device is as good as none, and a guest's token is no device."""
    first = (await enter(worker, GROWN)).body
    again = await enter(worker, {"device": first["device"]})
    assert again.status == 201
    assert again.body["token"] != first["token"]
    for false in (first["token"], first["device"][:-3] + "AAA", "x"):
        assert (await enter(worker, {"device": false})).code == "birth_date_needed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b"{}{}",
        b"[" * 10_000,
        b'{"birthDate":NaN}',
        {**GROWN, "admin": True},
        {**GROWN, "birthDate": 1990},
        {**GROWN, "birthDate": "17.5.1990"},
        {**GROWN, "birthDate": "1990-02-30"},
        {**GROWN, "birthDate": "0000-00-00"},
        {**GROWN, "birthDate": "1990-05-17\n"},
        {**GROWN, "birthDate": "２０００-01-01"},
        {**GROWN, "birthDate": "2999-01-01"},
        {**GROWN, "birthDate": "1800-01-01"},
        {**GROWN, "birthDate": {"$ne": 1}},
        {**GROWN, "rules": "1"},
        {**GROWN, "rules": 10**30},
        {**GROWN, "device": ""},
        {**GROWN, "device": "x" * 3000},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_a_malformed_request_is_refused(worker: Worker, body: Any) -> None:
    """With 400 and the code, never with a stack trace or an error of ours."""
    answer = await enter(worker, body)
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_a_large_body_is_refused(worker: Worker) -> None:
    """Said with its length or not."""

    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 1000

    answer = await enter(worker, b" " * 20_000)
    assert (answer.status, answer.body) == (413, {"error": {"code": "too_large", "limit": 16_384}})
    async with aiohttp.ClientSession() as session, session.post(worker.url + "/api/guests", data=endless()) as response:
        assert response.status == 413


async def test_new_guests_of_one_address_are_limited(worker_with: WorkerWith) -> None:
    """The next is told when; forged forwarding headers change nothing unless a proxy is trusted."""
    strict = await worker_with(VISAVIS_GUESTS_PER_WINDOW="3")
    trusting = await worker_with(VISAVIS_GUESTS_PER_WINDOW="3", VISAVIS_TRUST_FORWARDED="true")
    # All workers count together, and the shared one has let in many.
    refused = await enter(strict, GROWN, headers={"X-Forwarded-For": "198.51.100.1", "X-Real-IP": "198.51.100.1"})
    for _ in range(3):
        refused = await enter(
            strict, GROWN, headers={"X-Forwarded-For": "198.51.100.2", "Forwarded": "for=198.51.100.2"}
        )
    assert (refused.status, refused.code) == (429, "rate_limited")
    wait = refused.body["error"]["retryInMs"]
    # A sixteenth more than the window: what was counted in one goes with it.
    assert 0 < wait <= 637_500
    assert int(refused.headers["Retry-After"]) == -(-wait // 1000)
    for address in ("203.0.113.7", "2001:db8:1::/64"):
        hosts = [address] * 4 if "/" not in address else [f"2001:db8:1::{n}" for n in range(1, 5)]
        forwarded = [{"X-Forwarded-For": f"{n}.1.1.1, {host}"} for n, host in enumerate(hosts)]
        assert [(await enter(trusting, GROWN, headers=one)).status for one in forwarded] == [201, 201, 201, 429]


async def test_only_who_comes_for_the_first_time_counts_as_new(worker_with: WorkerWith) -> None:
    """Neither what was refused, nor a browser that was here before: a class that reloads is no crowd."""
    strict = await worker_with(VISAVIS_GUESTS_PER_WINDOW="2", VISAVIS_TRUST_FORWARDED="true")
    headers = {"X-Forwarded-For": "203.0.113.77"}
    for wrong in ({}, {"birthDate": "nonsense"}, {**GROWN, "rules": 0}, b"{"):
        assert (await enter(strict, wrong, headers=headers)).status < 429
    first = await enter(strict, GROWN, headers=headers)
    for _ in range(3):
        again = await enter(strict, {"device": first.body["device"]}, headers=headers)
        assert again.status == 201
    forged = {**GROWN, "device": first.body["device"][:-2] + "xx"}
    assert [(await enter(strict, one, headers=headers)).status for one in (forged, GROWN)] == [201, 429]


# --------------------------------------------------------------------------- asking


async def test_the_page_learns_what_it_needs_before_there_is_a_guest(worker: Worker) -> None:
    """Including the contract it has to speak."""
    info = (await ask(worker, "GET", "/api/info")).body
    assert info["minimumAge"] == 18
    assert info["rules"] == RULES_VERSION
    assert info["modes"] == ["text", "voice", "video"]
    assert info["contract"] == auth_of({"token": ""})["contract"]


async def test_the_api_is_what_its_description_says(worker: Worker) -> None:
    """Every route is described and every description is a route; the document is valid OpenAPI."""
    document = (await ask(worker, "GET", "/api/openapi.json")).body
    validate(document)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    for method, path in described:
        answer = await ask(worker, method, re.sub(r"{\w+}", "x" * 22, path))
        # Whether there is such an address, only who has one learns.
        missing = answer.status == 404 and answer.code == "no_such_file" and path.startswith("/files/")
        assert missing or answer.status not in (404, 405, 500), path
        kind = "text/plain" if path.startswith("/metrics") else "application/json"
        assert answer.headers["Content-Type"].startswith(kind)
    for method, path in (("PUT", "/api/guests"), ("GET", "/api/guests"), ("DELETE", "/health")):
        answer = await ask(worker, method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["Allow"] in ("POST", "GET,HEAD")


@pytest.mark.parametrize("path", ["/health", "/ready", "/api/info"])
async def test_whatever_can_be_had_can_be_asked_about(worker: Worker, path: str) -> None:
    """HEAD tells monitors what GET would, without the body."""
    async with aiohttp.ClientSession() as session, session.head(worker.url + path) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.read() == b""


@pytest.mark.parametrize(
    "path",
    ["/api/nothing", "/nothing.js", "/assets/nothing.js", "/..%2f..%2fetc/passwd", "/assets/../../x", "/%00", "//"],
)
async def test_nothing_is_said_in_the_api_s_own_words(worker: Worker, path: str) -> None:
    """404 with the code, for whatever is asked."""
    answer = await ask(worker, "GET", path)
    assert (answer.status, answer.code) == (404, "not_found")


async def test_every_answer_carries_the_security_headers(worker: Worker) -> None:
    """Errors too, and the transport's answers; nobody is told what serves."""
    for method, path in (
        ("GET", "/api/info"),
        ("GET", "/nothing"),
        ("PUT", "/api/guests"),
        ("POST", "/api/guests"),
        ("GET", "/health"),
        ("GET", "/"),
        ("GET", "/socket.io/?EIO=4&transport=polling"),
        ("GET", "/socket.io/?EIO=4&transport=polling&sid=x"),
        ("POST", "/socket.io/?EIO=4&transport=polling&sid=x"),
        ("GET", "/socket.io/"),
    ):
        answer = await ask(worker, method, path)
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value, (path, name)
        assert "Server" not in answer.headers
        assert "Strict-Transport-Security" not in answer.headers
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "*" not in policy


# --------------------------------------------------------------------------- how it is


async def test_a_worker_without_its_redis_lives_but_is_not_ready(tmp_path: Path) -> None:
    """It answers what it can at once, says what is away, and is ready again by itself."""
    mortal = await MortalValkey().start()
    worker = await Worker(tmp_path, REDIS_URL=mortal.url).start()
    try:
        assert (await ask(worker, "GET", "/ready")).body == {
            "ok": True,
            "parts": {"accepting": True, "bus": True, "documents": True, "files": True, "redis": True},
        }
        await mortal.kill()

        async def ready(status: int) -> Answer:
            async with asyncio.timeout(PATIENCE):
                while (answer := await ask(worker, "GET", "/ready")).status != status:
                    await asyncio.sleep(0.05)
                return answer

        parts = (await ready(503)).body["parts"]
        assert not (parts["redis"] and parts["bus"])
        assert parts["documents"]
        assert (await ask(worker, "GET", "/health")).status == 200
        refused = await enter(worker, GROWN)
        assert (refused.status, refused.code) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        await mortal.start()
        await ready(200)
        assert (await enter(worker, GROWN)).status == 201
    finally:
        await worker.stop()
        await mortal.stop()


async def test_a_full_redis_is_busy(tmp_path: Path) -> None:
    """Nobody new comes in, and is told to try again; those inside go on."""
    import redis.asyncio as redis

    mortal = await MortalValkey().start()
    worker = await Worker(tmp_path, REDIS_URL=mortal.url, VISAVIS_BUCKET_SIZE="1000").start()
    raw = redis.Redis.from_url(mortal.url)
    try:
        crowd = Crowd(worker.url, "aa")
        a, b, conversation = await crowd.pair()
        created = await get_guest(worker.url)
        c = await crowd.arrive()
        await raw.config_set("maxmemory", 1)
        refused = await enter(worker, GROWN)
        assert (refused.status, refused.code) == (503, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        async with Wire(worker.url) as wire:
            assert (await wire.open(auth_of(created)))["data"]["code"] == "busy"
        assert (await crowd.find(c))["error"]["code"] == "busy"
        assert "ok" in await a.say(conversation, 1, "room enough for words")
        assert (await b.next("chat:message"))["seq"] == 1
        assert "ok" in await a.ask("conversation:leave", {"conversationId": conversation})
        assert (await b.next("conversation:ended"))["reason"] == "left"
        await raw.config_set("maxmemory", 0)
        assert (await enter(worker, GROWN)).status == 201
        await crowd.leave()
    finally:
        await raw.aclose()
        await worker.stop()
        await mortal.stop()


async def test_the_log_tells_nothing_about_anybody(apart: Worker, tongue: str) -> None:
    """After a whole conversation, refusals and nonsense: no token, address, name, id of a guest or word."""
    crowd = Crowd(apart.url, tongue)
    a, b, conversation = await crowd.pair(interests=["falconry"])
    await a.say(conversation, 1, "my secret sentence")
    await b.ask("safety:report", {"conversationId": conversation, "reason": "spam", "words": "my secret complaint"})
    await b.ask("safety:block", {"conversationId": conversation})
    await a.ask("chat:message", {"text": "my secret mistake"})
    async with Wire(apart.url, origin=apart.url) as wire:
        await wire.open({"token": "my.secret.forgery", "contract": "x"})
        await wire.send("nonsense of mine: my secret nonsense")
    await enter(apart, {"birthDate": "1999-12-31", "my secret field": 1})
    await ask(apart, "GET", "/my/secret/path?token=my-secret-query")
    await a.vanish()
    await crowd.leave()
    await apart.stop()
    log = apart.log.read_text()
    assert '"event": "serving"' in log
    private = ["secret", "falconry", "127.0.0.1", "1990-05-17", "1999-12-31", conversation, tongue + '"']
    for guest in (a, b):
        profile, token = guest.created["profile"], guest.created["token"]
        private += [token, token.split(".")[1], guest.created["device"], profile["name"], str(guest.claim)]
    for word in private:
        assert word not in log, word


async def test_a_request_can_be_found_in_the_log_by_its_id(apart: Worker) -> None:
    """The id goes out with the answer."""
    answer = await ask(apart, "GET", "/api/info")
    (line,) = [line for line in apart.logged() if line.get("request_id") == answer.headers["X-Request-Id"]]
    assert (line["route"], line["status"], line["method"]) == ("/api/info", 200, "GET")


async def test_what_one_guest_s_connection_brings_has_a_name_in_the_log_that_no_other_request_gets(
    worker_with: WorkerWith,
) -> None:
    """Also where a proxy sends the requests of many through one connection of its own; it is not the session's id."""
    worker = await worker_with(VISAVIS_LOG_LEVEL="debug")
    address = f"{worker.url}/socket.io/?EIO=4&transport=polling"
    ids, sids = [], set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        for _ in range(2):
            async with session.get(address) as answer:
                sid = json.loads((await answer.text())[1:])["sid"]
            async with session.post(f"{address}&sid={sid}", data="1") as answer:
                assert answer.status == 200
            async with session.get(f"{worker.url}/api/info") as answer:
                ids.append(answer.headers["X-Request-Id"])
            sids.add(sid)
    lines = [line for line in worker.logged() if line["event"] == "request"]
    assert not any("connection_id" in line for line in lines if line.get("request_id") in ids)
    named = [line["connection_id"] for line in lines if line["route"] == "/socket.io/" and line["method"] == "POST"]
    assert len(set(named)) == 2
    assert not sids & set(named)


async def test_the_rig_s_guest_is_a_guest(worker: Worker) -> None:
    """What every other test leans on: a guest made here connects."""
    guest = Guest(worker.url, (await enter(worker, GROWN)).body)
    assert (await guest.connect())["profile"] == guest.created["profile"]
    await guest.hang_up()
