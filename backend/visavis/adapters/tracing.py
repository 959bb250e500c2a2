"""Traces, by OpenTelemetry: how long single requests and rounds took, what they waited for, and which were refused.

Only imported where there is a collector to send them to; without one nothing is wrapped and nothing is paid. A span
has a fixed name and the few attributes below: no ids of guests or conversations, no addresses, no texts, and of an
exception its kind alone. A request begins a trace here: what a client says of traces is not believed.
"""

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span

from visavis.contract import Refused

P = ParamSpec("P")
T = TypeVar("T")

UNTRACED = {"/socket.io/", "/metrics", "/metrics/workers", "/health", "/ready"}
"""Routes that are asked all the time, or for as long as a guest is here."""
SEND_SECONDS = 2
"""For which the collector is waited for; what it does not take is lost."""


class Traces:
    """Makes spans and sends them."""

    def __init__(self, url: str, ratio: float, *, version: str, name: str) -> None:
        """`url` is the collector's, before `/v1/traces`; `ratio` of the requests are traced, from 0 to 1."""
        about = {"service.name": "visavis", "service.version": version, "service.instance.id": name}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=Resource(about), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=url.rstrip("/") + "/v1/traces", timeout=SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("visavis", version)

    def close(self) -> None:
        """Send what is left. Blocks for some seconds if the collector does not answer."""
        self._provider.shutdown()

    def request(self, event: str, handler: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
        """The handler of a request over Socket.IO, traced. What is refused before it gets there has no span."""

        async def traced(peer: Any, asked: Any) -> Any:
            with self._span(event, SpanKind.SERVER):
                done = handler(peer, asked)
                return await done if inspect.isawaitable(done) else done

        return traced

    def around(self, name: str, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Something that is not asked for by anybody, traced."""

        async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._span(name, SpanKind.INTERNAL):
                return await work(*args, **kwargs)

        return traced

    def within(self, name: str, work: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """A question to another service, traced as a part of what is traced already, and not by itself."""

        async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            if not get_current_span().is_recording():
                return await work(*args, **kwargs)
            with self._span(name, SpanKind.CLIENT):
                return await work(*args, **kwargs)

        return traced

    def script(self, run: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The same for a Redis script, whose name is the first argument."""

        async def traced(script: str, *args: Any) -> Any:
            if not get_current_span().is_recording():
                return await run(script, *args)
            with self._span(f"redis {script}", SpanKind.CLIENT):
                return await run(script, *args)

        return traced

    @web.middleware
    async def http(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Requests over HTTP, by the route's pattern."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "none"
        if route in UNTRACED:
            return await handler(request)
        with self._span(f"{request.method} {route}", SpanKind.SERVER) as span:
            span.set_attributes({"http.request.method": request.method, "http.route": route})
            response = await handler(request)
            span.set_attribute("http.response.status_code", response.status)
            if "refused" in request:
                span.set_attribute("visavis.refused", request["refused"])
            if response.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            return response

    @contextlib.contextmanager
    def _span(self, name: str, kind: SpanKind) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, kind=kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Refused as refused:
                span.set_attribute("visavis.refused", refused.code)
                raise
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise
