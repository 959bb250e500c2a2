"""What operators watch, in Prometheus's text format. Labels are few and fixed; nothing here knows a guest.

Hides how the plain numbers of `core.tally` become an exposition, and how those of several workers become one. Every
counter and histogram is declared here, so that a name that nobody declared fails where it is bound, at start; whatever
is only looked at when the metrics are read (`gauge`, `gauges`) is declared where the parts are built.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from visavis.core.tally import Durations, Tally

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "connections_opened": ("Connections that were opened, by nobody knows whom yet.", ()),
    "connections_cut": ("Connections that this worker broke off, by why.", ("reason",)),
    "requests": ("Requests over Socket.IO that were understood, by event.", ("event",)),
    "http_requests": ("Requests over HTTP, by the route's pattern.", ("route", "status")),
    "refusals": ("Requests that were refused, by the code the client was told.", ("door", "code")),
    "messages": (
        "Items that were accepted into conversations, by kind and by where the partner was: "
        "on this worker, on another, or away.",
        ("kind", "partner"),
    ),
    "resumes": (
        "Seats that were taken back: on the same worker, on another, or by the client's claim after Redis had lost it.",
        ("kind",),
    ),
    "conversations_ended": ("Conversations that were ended here, by how.", ("reason",)),
    "matches": ("Pairs that were seated.", ("mode",)),
    "match_rounds": ("Rounds over two tickets or more: exact, or improved block by block.", ("method",)),
    "match_claims_lost": ("Pairs that a round found and could not seat: one of the two had gone.", ()),
    "match_weight": (
        "Weight of the pairs of rounds that were held against the optimum; for large rounds, of some 200 neighbours.",
        ("method",),
    ),
    "match_weight_best": ("The most that pairs of the same tickets could weigh.", ("method",)),
    "calls_started": ("Calls that both sides agreed to.", ("origin", "media")),
    "calls_ended": ("Calls that were ended, by how.", ("reason",)),
    "calls_connected": ("Members whose media flowed, by the path it took.", ("path",)),
    "call_failures": ("Members whose call found no connection, by cause.", ("cause",)),
    "ice_restarts": ("Broken paths that were mended, by cause.", ("cause",)),
    "recordings": (
        "Recordings that ended, by how. Every worker hears of all recorders: not to be added up over workers.",
        ("outcome",),
    ),
    "candidates_dropped": ("Candidates not passed on because they were not agreed to.", ()),
    "limits_reached": ("Refusals because a limit of all workers together was reached, by which.", ("limit",)),
    "uploads_begun": ("Uploads that were announced and let begin.", ()),
    "upload_bytes": ("Bytes of files that came in.", ()),
    "files_uploaded": ("Uploads that were checked: `ready`, or the code of the refusal.", ("outcome",)),
    "file_bytes_served": ("Bytes of files that were handed out.", ()),
    "reports": ("Reports that were stored, by the reason given.", ("reason",)),
    "blocks": ("Blocks that were asked for.", ()),
    "evidence": ("Files that reports named: kept for moderators, or not there any more.", ("outcome",)),
    "bus_notes_sent": ("Notes to other workers that were handed to the bus.", ()),
    "bus_notes_dropped": ("Notes that the bus had no room for, or that were lost with its link.", ()),
    "bus_reconnects": ("Times that the bus was found deaf or its link broken.", ()),
    "redis_errors": ("Questions to Redis that were not answered: `away`, or `full`.", ("kind",)),
    "document_errors": ("Questions to the document store that were not answered.", ()),
}
"""By name, without the prefix and `_total`."""

_QUICK = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SLOW = (0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)

DURATIONS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "match": (
        "From the search to the conversation, for each guest, by what brought the two together.",
        ("step",),
        (0.05, 0.1, 0.2, 0.5, 0.75, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300),
    ),
    "match_round": ("Working out a round.", ("method",), _QUICK),
    "delivery": (
        "From the acceptance of a message to its receipt, as the sender's worker sees it; one message under way at a "
        "time for each guest.",
        (),
        (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30),
    ),
    "bus_lag": ("From this worker through Redis back to itself.", (), _QUICK),
    "redis": ("Answers of Redis, with the time that is waited for a connection to it.", (), _QUICK),
    "document": ("Answers of the document store.", (), _QUICK),
    "http_request": ("Answers over HTTP, by the route's pattern.", ("route",), (0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)),
    "call_first_frame": ("From the agreement to the first sound or picture of the other side.", (), _SLOW),
}
"""By name, without the prefix and `_seconds`."""

_Labels = tuple[str, ...]


class Metrics:
    """One process's metrics; `Meter` of `core.ports`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._tallies: dict[str, dict[_Labels, Tally]] = {
            name: {} if labels else {(): Tally()} for name, (_, labels) in COUNTERS.items()
        }
        self._durations: dict[str, dict[_Labels, Durations]] = {
            name: {} if labels else {(): Durations(bounds)} for name, (_, labels, bounds) in DURATIONS.items()
        }
        self._gauges: list[tuple[str, str, tuple[str, ...], Callable[[], Mapping[_Labels, float]]]] = []
        self._registry.register(_Reading(self._families))

    # ------------------------------------------------------------------ counting

    def tally(self, name: str, **labels: str) -> Tally:
        """What is counted under this name and these labels; bind it once. A name nobody declared is a KeyError."""
        values = tuple(labels[label] for label in COUNTERS[name][1])
        return self._tallies[name].setdefault(values, Tally())

    def durations(self, name: str, **labels: str) -> Durations:
        """The same for what takes time."""
        _, names, bounds = DURATIONS[name]
        return self._durations[name].setdefault(tuple(labels[label] for label in names), Durations(bounds))

    def count(self, name: str, **labels: str) -> None:
        """One more of what is rare."""
        self.tally(name, **labels).n += 1

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """One more duration of what is rare."""
        self.durations(name, **labels).add(seconds)

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Something that is looked up whenever the metrics are read."""
        self._gauges.append((name, about, (), lambda: {(): read()}))

    def gauges(self, name: str, about: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """The same for several of a kind, told apart by one label."""
        self._gauges.append((name, about, (label,), lambda: {(value,): n for value, n in read().items()}))

    def table(self, name: str, about: str, labels: _Labels, read: Callable[[], Mapping[_Labels, float]]) -> None:
        """The same, told apart by several labels."""
        self._gauges.append((name, about, labels, read))

    def info(self, name: str, about: str, **labels: str) -> None:
        """Something that is not a number, as labels of a 1."""
        self._gauges.append((f"{name}_info", about, tuple(labels), lambda: {tuple(labels.values()): 1}))

    # ------------------------------------------------------------------ reading

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)

    def _families(self) -> Iterator[Metric]:
        for name, (about, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"visavis_{name}", about, labels=labels)
            for values, tally in self._tallies[name].items():
                counter.add_metric(values, tally.n)
            yield counter
        for name, (about, labels, bounds) in DURATIONS.items():
            histogram = HistogramMetricFamily(f"visavis_{name}_seconds", about, labels=labels)
            for values, durations in self._durations[name].items():
                upto = list(itertools.accumulate(durations.counts))
                buckets = [(str(float(bound)), float(n)) for bound, n in zip(bounds, upto, strict=False)]
                histogram.add_metric(values, [*buckets, ("+Inf", float(upto[-1]))], durations.sum)
            yield histogram
        for name, about, labels, read in self._gauges:
            gauge = GaugeMetricFamily(f"visavis_{name}", about, labels=labels)
            for values, number in read().items():
                gauge.add_metric(values, number)
            yield gauge


class _Reading(Collector):
    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()


def together(texts: Mapping[str, bytes]) -> bytes:
    """The texts of several workers as one, each sample with its worker's name as the label `worker`.

    Only for texts of `Metrics.text`: a family is announced once and its samples stand together, as Prometheus asks.
    """
    families: dict[str, tuple[str, list[str]]] = {}
    for worker, text in sorted(texts.items()):
        label = f'worker="{_escaped(worker)}"'
        for family in text.decode().split("# HELP ")[1:]:
            about, kind, *samples = family.splitlines()
            head = f"# HELP {about}\n{kind}"
            into = families.setdefault(about.split(" ", 1)[0], (head, []))[1]
            for sample in samples:
                name, brace, rest = sample.partition("{")
                if brace:
                    into.append(f"{name}{{{label},{rest}")
                else:
                    name, _, number = sample.partition(" ")
                    into.append(f"{name}{{{label}}} {number}")
    return "".join(
        f"{head}\n" + "".join(f"{line}\n" for line in samples) for head, samples in families.values()
    ).encode()


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
