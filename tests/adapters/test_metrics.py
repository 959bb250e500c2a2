"""Plain numbers as Prometheus reads them, and those of several workers in one text."""

import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from rig import promtool
from visavis.adapters.metrics import COUNTERS, DURATIONS, Metrics, together
from visavis.core.tally import Durations


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every number, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(text.decode())
        for sample in family.samples
    }


def test_a_duration_falls_into_the_first_bucket_that_holds_it() -> None:
    """A bound belongs to its bucket, as Prometheus has it; what exceeds all is in the last."""
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.11, 1.0, 7.0):
        durations.add(seconds)
    assert durations.counts == [2, 2, 1]
    assert durations.sum == pytest.approx(8.26)


def test_buckets_are_told_added_up() -> None:
    """Each holds those before it, and the last one all."""
    metrics = Metrics()
    for seconds in (0.0004, 0.003, 60.0):
        metrics.observe("bus_lag", seconds)
    told = samples(metrics.text())
    name = "visavis_bus_lag_seconds"
    assert told[(f"{name}_bucket", (("le", "0.0005"),))] == 1
    assert told[(f"{name}_bucket", (("le", "5.0"),))] == 2
    assert told[(f"{name}_bucket", (("le", "+Inf"),))] == told[(f"{name}_count", ())] == 3
    assert told[(f"{name}_sum", ())] == pytest.approx(60.0034)


def test_a_tally_is_bound_once_and_read_later() -> None:
    """The same labels give the same tally; a name or label nobody declared fails at once."""
    metrics = Metrics()
    tally = metrics.tally("refusals", door="http", code="busy")
    tally.n += 2
    metrics.count("refusals", code="busy", door="http")
    assert samples(metrics.text())[("visavis_refusals_total", (("code", "busy"), ("door", "http")))] == 3
    with pytest.raises(KeyError):
        metrics.tally("nonsense")
    with pytest.raises(KeyError):
        metrics.tally("refusals", door="http")


def test_what_was_never_counted_is_told_as_zero() -> None:
    """Where labels do not multiply it: a first failure is a rise from 0, not a number from nowhere."""
    told = samples(Metrics().text())
    for name, (_, labels) in COUNTERS.items():
        assert labels or told[(f"visavis_{name}_total", ())] == 0
    for name, (_, labels, _) in DURATIONS.items():
        assert labels or told[(f"visavis_{name}_seconds_count", ())] == 0


def test_what_is_looked_up_is_looked_up_at_each_reading() -> None:
    """Not before, and again the next time."""
    metrics = Metrics()
    waiting = {"text": 1.0}
    metrics.gauges("waiting", "Guests who wait.", "mode", lambda: waiting)
    metrics.info("build", "What runs.", version='1"\\\n')
    waiting["voice"] = 2.0
    told = samples(metrics.text())
    assert told[("visavis_waiting", (("mode", "voice"),))] == 2
    assert told[("visavis_build_info", (("version", '1"\\\n'),))] == 1


def test_several_workers_are_one_text_with_a_label_for_each() -> None:
    """Nothing is lost, nothing is in it twice, and Prometheus's own tool finds no fault with it."""
    texts = {}
    for worker, n in (("one:3001", 1), ('t"wo\\:3002', 2)):
        metrics = Metrics()
        metrics.tally("messages", kind="text", partner="here").n += n
        metrics.observe("delivery", n)
        metrics.gauge("ready", "Whether guests can be served here.", lambda: True)
        texts[worker] = metrics.text()
    text = together(texts)
    told = samples(text)
    for worker, alone in texts.items():
        for (name, labels), number in samples(alone).items():
            assert told.pop((name, tuple(sorted((*labels, ("worker", worker)))))) == number
    assert not told
    assert text.count(b"# TYPE visavis_messages_total ") == 1
    checked = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_no_workers_are_an_empty_text() -> None:
    """Which is one that Prometheus takes."""
    assert together({}) == b""
