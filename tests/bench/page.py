"""Tables from a record: medians over rounds, their spread, and ratios to Node's."""

import statistics
from collections.abc import Callable, Sequence

from bench.measures import EACH, FIXED, IN_ALL, SATURATED, WORKERS, Record
from bench.subjects import Node


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def median(record: Record, key: str, measure: str) -> float:
    return statistics.median(found[measure] for found in record[key])


def spread(record: Record, key: str, measure: str, form: str = ",.0f") -> str:
    """Median and, in brackets, the least and the most of all rounds."""
    values = [found[measure] for found in record[key]]
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def names(record: Record) -> list[str]:
    return list(dict.fromkeys(key.split("|")[0] for key in record))


def talk(record: Record) -> str:
    """Messages, as many as go and at a fixed rate."""
    full, fixed = [], []
    for name in names(record):
        key = f"{name}|{SATURATED}"
        ratio = median(record, key, "per_cpu_second") / median(record, f"{Node.name}|{SATURATED}", "per_cpu_second")
        full.append(
            [
                name,
                spread(record, key, "per_cpu_second"),
                f"{ratio:.2f}",
                f"{median(record, key, 'per_second'):,.0f}",
                spread(record, key, "p50_ms", ".1f"),
                spread(record, key, "p99_ms", ".1f"),
                f"{median(record, key, 'load_busy'):.0%}",
            ]
        )
        key = f"{name}|{FIXED}"
        ratio = median(record, key, "us_each") / median(record, f"{Node.name}|{FIXED}", "us_each")
        fixed.append(
            [
                name,
                f"{median(record, key, 'rate'):,.0f}",
                spread(record, key, "us_each"),
                f"{ratio:.2f}",
                spread(record, key, "p50_ms", ".2f"),
                spread(record, key, "p99_ms", ".2f"),
            ]
        )
    return "\n\n".join(
        [
            table(
                ["as many as go", "a CPU second", "x Node", "a second", "p50 ms", "p99 ms", "load generator busy"], full
            ),
            table(["fixed rate", "a second", "CPU µs each", "x Node", "p50 ms", "p99 ms"], fixed),
        ]
    )


def bus(record: Record) -> str:
    """Microseconds of CPU for each message by the number of workers, in all and beyond what they take idle."""
    one, *more = WORKERS
    rows = []
    for name in names(record):
        for how in (EACH, IN_ALL, SATURATED):
            for measure, what in (("us_each", "in all"), ("us_more", "beyond idling")):
                middle = {workers: median(record, f"{name}|{how}|{workers}", measure) for workers in WORKERS}
                ratios = [f"{middle[more[-1]] / middle[fewer]:.2f}" for fewer in (one, more[0])]
                rows.append([name, how, what, *(f"{value:,.0f}" for value in middle.values()), *ratios])
    counts = [f"µs at {workers}" for workers in WORKERS]
    return table(["", "messages", "", *counts, f"{more[-1]} to {one}", f"{more[-1]} to {more[0]}"], rows)


def idle(record: Record) -> str:
    rows = [
        [
            name,
            f"{int(count):,}",
            spread(record, f"{name}|{count}", "kb_each", ".1f"),
            f"{median(record, f'{name}|{count}', 'redis_kb_each'):.1f}",
            f"{median(record, f'{name}|{count}', 'empty_mb'):.0f}",
            spread(record, f"{name}|{count}", "connects_per_second"),
            spread(record, f"{name}|{count}", "connects_per_cpu_second"),
            f"{median(record, f'{name}|{count}', 'idle_cores'):.1%}",
        ]
        for name, count in (key.split("|") for key in record)
    ]
    head = [
        "",
        "connections",
        "kB each",
        "of it Redis",
        "MB before",
        "connects a second",
        "a CPU second",
        "idle, of a core",
    ]
    return table(head, rows)


def turn(record: Record) -> str:
    return table(["", "CPU µs a packet"], [[name, spread(record, name, "us_each", ".1f")] for name in record])


TABLES: dict[str, Callable[[Record], str]] = {
    "relay": talk,
    "across": talk,
    "bus": bus,
    "idle": idle,
    "turn": turn,
}
"""A record as tables, by what was measured."""
