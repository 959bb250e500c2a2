"""What operators watch, in Prometheus's text format. Labels are few and fixed; nothing here knows a guest."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One worker's metrics; `Meter` of `core.ports`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._counters = {
            name: Counter(f"visavis_{name}", about, labels, registry=self._registry)
            for name, about, labels in (
                ("calls_started", "Calls that both sides agreed to.", ("origin", "media")),
                ("calls_ended", "Calls that were ended, by how.", ("reason",)),
                ("calls_connected", "Members whose media flowed, by the path it took.", ("path",)),
                ("call_failures", "Members whose call found no connection, by cause.", ("cause",)),
                ("ice_restarts", "Broken paths that were mended, by cause.", ("cause",)),
                ("candidates_dropped", "Candidates not passed on because they were not agreed to.", ()),
                ("files_uploaded", "Uploads that were checked: `ready`, or the code of the refusal.", ("outcome",)),
            )
        }
        self._durations = {
            "call_first_frame": Histogram(
                "visavis_call_first_frame_seconds",
                "From the agreement to the first sound or picture of the other side.",
                buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30),
                registry=self._registry,
            )
        }

    def count(self, name: str, **labels: str) -> None:
        """One more."""
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc()

    def observe(self, name: str, seconds: float) -> None:
        """One more duration."""
        self._durations[name].observe(seconds)

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Something that is looked up whenever the metrics are read."""
        Gauge(f"visavis_{name}", about, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)
