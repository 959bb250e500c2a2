"""Traces as a collector gets them, from a real worker: what is in a span, and what never is."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rig import PATIENCE, ROOT, Service, Worker, arrive, free_port, meet


class Collector:
    """Takes spans by OTLP over HTTP, as protobuf, and keeps them."""

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def start(self) -> "Collector":
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        message = ExportTraceServiceRequest.FromString(body)
        async with self._news:
            self.raw += body
            for resource in message.resource_spans:
                self.resources.append(_attributes(resource.resource.attributes))
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self.spans.append(
                            {
                                "name": span.name,
                                "id": span.span_id,
                                "parent": span.parent_span_id,
                                "trace": span.trace_id,
                                "status": span.status.code,
                                "said": span.status.message,
                                "events": list(span.events),
                                "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                                **_attributes(span.attributes),
                            }
                        )
            self._news.notify_all()
        return web.Response(content_type="application/x-protobuf")

    async def get(self, name: str, **attributes: Any) -> dict[str, Any]:
        """A span of this name, once there is one."""
        async with asyncio.timeout(PATIENCE), self._news:
            while True:
                for span in self.spans:
                    if span["name"] == name and attributes.items() <= span.items():
                        return span
                await self._news.wait()


def _attributes(given: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in given}


@pytest_asyncio.fixture(loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    running = await Collector().start()
    yield running
    await running.stop()


@pytest.mark.asyncio(loop_scope="session")
async def test_requests_rounds_and_what_they_waited_for_come_as_spans(tmp_path: Path, collector: Collector) -> None:
    """By their fixed names, refusals by their codes, and nothing of who or what."""
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "VISAVIS_TRACES_RATIO": "1"}
    service = await Service(tmp_path, **traced).start(2)
    try:
        one, two = service.workers
        a, b = await arrive(one.url), await arrive(two.url)
        conversation = await meet(a, b, interests=["falconry77"])
        await a.say(conversation, 1, "marmalade77")
        await a.ask("chat:typing", {"conversationId": "x" * 22, "typing": True})
        await b.ask("safety:report", {"conversationId": conversation, "reason": "spam", "words": "complaint77"})
        async with aiohttp.ClientSession() as http:
            await http.get(f"{one.url}/api/recordings?token=secret77", headers={"Authorization": "Bearer secret77"})
            await http.get(f"{one.url}/secret77")
            # Nobody else's trace is gone on with.
            told = {"traceparent": f"00-{'7' * 32}-{'7' * 16}-01"}
            await http.get(f"{one.url}/api/info", headers=told)
        found = await collector.get("match:find")
        script = await collector.get("redis enter", parent=found["id"])
        assert script["trace"] == found["trace"]
        assert 0 < script["seconds"] <= found["seconds"] < 10
        await collector.get("match round")
        said = await collector.get("chat:message")
        assert not any(span["parent"] == said["id"] for span in collector.spans)
        refused = await collector.get("chat:typing")
        assert (refused["visavis.refused"], refused["status"]) == ("not_in_conversation", 0)
        report = await collector.get("safety:report")
        assert (await collector.get("documents insert", parent=report["id"]))["trace"] == report["trace"]
        listed = await collector.get("GET /api/recordings")
        assert (listed["http.response.status_code"], listed["visavis.refused"]) == (401, "token_invalid")
        assert (await collector.get("GET none"))["http.response.status_code"] == 404
        info = await collector.get("GET /api/info")
        assert (info["parent"], info["trace"] == bytes.fromhex("7" * 32)) == (b"", False)
        assert (await collector.get("POST /api/guests"))["http.route"] == "/api/guests"
        names = {span["name"] for span in collector.spans}
        assert not any("socket.io" in name or "/metrics" in name for name in names)
        assert {resource["service.name"] for resource in collector.resources} == {"visavis"}
        assert {resource["service.instance.id"] for resource in collector.resources} == {
            f"127.0.0.1:{worker.port}" for worker in service.workers
        }
        await a.hang_up()
        await b.hang_up()
    finally:
        await service.stop()
    private = [conversation, "falconry77", "marmalade77", "complaint77", "secret77", str(a.claim)]
    for guest in (a, b):
        private += [guest.created["token"], guest.created["device"], guest.created["profile"]["name"]]
    for word in private:
        assert word.encode() not in collector.raw, word


@pytest.mark.asyncio(loop_scope="session")
async def test_what_goes_wrong_is_told_by_its_kind_without_its_words(tmp_path: Path, collector: Collector) -> None:
    """An error's text may quote what it could not read."""
    service = await Service(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, VISAVIS_TRACES_RATIO="1").start()
    try:
        a, b = await arrive(service.workers[0].url), await arrive(service.workers[0].url)
        conversation = await meet(a, b)
        client = redis.Redis.from_url(service.valkey.url)
        (key,) = [key async for key in client.scan_iter(match=f"*conversation:{conversation}*")]
        await client.hset(key, "record", msgspec.msgpack.encode({"id": conversation, "mode": "strange77"}))
        await client.aclose()
        answer = await a.ask("safety:report", {"conversationId": conversation, "reason": "spam", "words": ""})
        assert answer["error"]["code"] == "internal"
        span = await collector.get("safety:report")
        assert (span["error.type"], span["status"], span["said"], span["events"]) == ("ValidationError", 2, "", [])
        assert b"strange77" not in collector.raw
        await a.hang_up()
        await b.hang_up()
    finally:
        await service.stop()


@pytest.mark.asyncio(loop_scope="session")
async def test_of_many_requests_the_share_that_is_asked_for_is_traced(tmp_path: Path, collector: Collector) -> None:
    """Here none; and the worker stops in time when nobody takes the traces."""
    service = await Service(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, VISAVIS_TRACES_RATIO="0").start()
    away = await service.add(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}", VISAVIS_TRACES_RATIO="1")
    await (await arrive(service.workers[0].url)).hang_up()
    await (await arrive(away.url)).hang_up()
    await service.stop()
    assert collector.spans == []
    assert away.process is not None
    assert away.process.returncode == 0


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    """redis-py looks whether OpenTelemetry is there; what makes and sends spans is not loaded."""
    asked = "import sys, visavis.app; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", asked],
        env={"PYTHONPATH": str(ROOT / "backend")},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(told.stdout.split())
    assert "visavis.adapters.metrics" in loaded
    assert not {"visavis.adapters.tracing", "opentelemetry.sdk.trace", "opentelemetry.exporter"} & loaded


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://127.0.0.1:4318", "pip install 'visavis[tracing]'"), ("collector:4318", "http://host:4318")],
)
@pytest.mark.asyncio(loop_scope="session")
async def test_a_setting_that_cannot_be_followed_is_said_in_a_line(tmp_path: Path, url: str, said: str) -> None:
    """The extra is missing, or the address is none."""
    path = str(ROOT / "backend")
    if "pip" in said:
        # As where it was not installed.
        (tmp_path / "opentelemetry").mkdir()
        (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError(name='opentelemetry')")
        path = f"{tmp_path}:{path}"
    worker = Worker(tmp_path, PYTHONPATH=path, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    with pytest.raises(AssertionError, match="did not start"):
        await worker.start()
    lines = worker.log.read_text().splitlines()
    assert [said in line for line in lines if line.startswith("visavis: ")] == [True], lines
    assert not any("Traceback" in line for line in lines)
