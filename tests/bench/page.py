"""docs/benchmarks.md and its plots, made from the rounds that were written down and from nothing else."""

import io
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.measures import BUSY, DISTURBED, EACH, FIXED, IN_ALL, MOST_MEETING, SATURATED, TIMES_FIXED, Record
from bench.subjects import Node, NodeNewer, Visavis

OURS = Visavis.name
NODES = (Node.name, NodeNewer.name)
"""What ratios are to."""

Data = Mapping[str, Any]
"""A record by what was measured, and beside them `about`, `given`, `left_out` and `failed`."""


# --------------------------------------------------------------------------- figures


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def values(record: Record, key: str, measure: str) -> list[float]:
    return [found[measure] for found in record.get(key, []) if measure in found]


def median(record: Record, key: str, measure: str, form: str = ",.0f") -> str:
    found = values(record, key, measure)
    return f"{statistics.median(found):{form}}" if found else "-"


def middle(record: Record, key: str, measure: str, form: str = ",.0f") -> str:
    """The median of all rounds, and their least and most."""
    found = values(record, key, measure)
    if not found:
        return "-"
    return f"{statistics.median(found):{form}} ({min(found):{form}} to {max(found):{form}})"


def ratio(record: Record, name: str, other: str, how: str, measure: str) -> tuple[float, float, float] | None:
    """Of the medians, and the least and the most of those of single rounds; None if either was not measured."""
    ours, theirs = values(record, f"{name}|{how}", measure), values(record, f"{other}|{how}", measure)
    if not ours or not theirs:
        return None
    single = [one / another for one, another in zip(ours, theirs, strict=False)]
    return statistics.median(ours) / statistics.median(theirs), min(single), max(single)


def as_ratio(found: tuple[float, float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def names(record: Record) -> list[str]:
    return list(dict.fromkeys(key.split("|")[0] for key in record))


@dataclass(frozen=True)
class Target:
    """What was aimed at: Visavis's figure in proportion to Node's, at least or at most."""

    what: str
    part: str
    how: str
    measure: str
    aim: float
    most: bool = False

    def met(self, data: Data, node: str) -> bool | None:
        """None: not measured."""
        found = self.ratio(data, node)
        if found is None:
            return None
        return found[0] <= self.aim if self.most else found[0] >= self.aim

    def ratio(self, data: Data, node: str) -> tuple[float, float, float] | None:
        return ratio(data.get(self.part, {}), OURS, node, self.how, self.measure)


def targets(data: Data) -> list[Target]:
    counts = sorted({int(key.split("|")[1]) for key in data.get("idle", {})})
    return [
        Target("messages a CPU second, within a worker", "relay", SATURATED, "per_cpu_second", 2.0),
        Target("messages a CPU second, across workers", "across", SATURATED, "per_cpu_second", 3.0),
        Target("p99 at a fixed rate, within a worker", "relay", FIXED, "p99_ms", 1.0, most=True),
        Target("p99 at a fixed rate, across workers", "across", FIXED, "p99_ms", 1.0, most=True),
        *(
            Target(f"memory of {count:,} idle connections", "idle", str(count), "kb_each", 1.0, True)
            for count in counts
        ),
        *(
            Target(f"the same, Node's garbage collected, {count:,}", "idle", str(count), "tidy_kb_each", 1.0, most=True)
            for count in counts
        ),
        *(
            Target(f"connects a second, up to {count:,}", "idle", str(count), "connects_per_second", 1.0)
            for count in counts
        ),
    ]


# --------------------------------------------------------------------------- tables


def aims(data: Data) -> str:
    said = {True: "met", False: "**missed**", None: "not measured"}
    rows = [
        [
            target.what,
            f"at {'most' if target.most else 'least'} {target.aim:.1f}",
            *(cell for node in NODES for cell in (as_ratio(target.ratio(data, node)), said[target.met(data, node)])),
        ]
        for target in targets(data)
    ]
    return table(["times Node's", "aim", *(cell for node in NODES for cell in (node, ""))], rows)


def talk(record: Record) -> str:
    """Messages, as many as go and at a fixed rate."""
    full = [
        [
            name,
            middle(record, f"{name}|{SATURATED}", "per_cpu_second"),
            *(as_ratio(ratio(record, name, node, SATURATED, "per_cpu_second")) for node in NODES),
            median(record, f"{name}|{SATURATED}", "p50_ms", ".1f"),
            median(record, f"{name}|{SATURATED}", "p99_ms", ".1f"),
            median(record, f"{name}|{SATURATED}", "load_busy", ".0%"),
        ]
        for name in names(record)
    ]
    fixed = [
        [
            name,
            median(record, f"{name}|{FIXED}", "rate"),
            middle(record, f"{name}|{FIXED}", "us_each"),
            median(record, f"{name}|{FIXED}", "p50_ms", ".2f"),
            middle(record, f"{name}|{FIXED}", "p99_ms", ".2f"),
            *(as_ratio(ratio(record, name, node, FIXED, "p99_ms")) for node in NODES),
        ]
        for name in names(record)
    ]
    times = [f"x {node}" for node in NODES]
    return "\n\n".join(
        [
            table(["as many as go", "a CPU second", *times, "p50, ms", "p99, ms", "load generator busy"], full),
            table(
                ["fixed rate", "a second", "CPU, µs each", "p50, ms", "p99, ms", *(f"p99 {x}" for x in times)], fixed
            ),
        ]
    )


def bus(record: Record) -> str:
    """Microseconds of CPU for each message by the number of workers, in all and beyond what they take idle."""
    counts = sorted({int(key.split("|")[2]) for key in record})
    # One worker sends nothing through Redis.
    fewer, most = next((count for count in counts if count > 1), counts[0]), counts[-1]
    rows = []
    for name in names(record):
        for how in (EACH, IN_ALL, SATURATED):
            for measure, what in (("us_each", "in all"), ("us_more", "beyond idling")):
                cells = [middle(record, f"{name}|{how}|{count}", measure) for count in counts]
                few, many = (values(record, f"{name}|{how}|{count}", measure) for count in (fewer, most))
                times = f"{statistics.median(many) / statistics.median(few):.2f}" if few and many else "-"
                rows.append([name, how, what, *cells, times])
    return table(["", "messages", "CPU", *(f"µs at {count}" for count in counts), f"{most} to {fewer}"], rows)


def idle(record: Record) -> str:
    memory, coming = [], []
    for name, count in (key.split("|") for key in record):
        key = f"{name}|{count}"
        memory.append(
            [
                name,
                f"{int(count):,}",
                middle(record, key, "kb_each", ".1f"),
                *(as_ratio(ratio(record, name, node, count, "kb_each")) for node in NODES),
                middle(record, key, "tidy_kb_each", ".1f"),
                median(record, key, "redis_kb_each", ".1f"),
                median(record, key, "empty_mb"),
                median(record, key, "idle_cores", ".1%"),
            ]
        )
        coming.append(
            [
                name,
                f"{int(count):,}",
                middle(record, key, "connects_per_second"),
                *(as_ratio(ratio(record, name, node, count, "connects_per_second")) for node in NODES),
                middle(record, key, "connects_per_cpu_second"),
                median(record, key, "servers_busy", ".0%"),
            ]
        )
    times = [f"x {node}" for node in NODES]
    return "\n\n".join(
        [
            table(
                [
                    "",
                    "held",
                    "kB each",
                    *times,
                    "garbage collected",
                    "of it Redis",
                    "MB before them",
                    "of a core, idle",
                ],
                memory,
            ),
            table(["", "up to", "connects a second", *times, "connects a CPU second", "server busy"], coming),
        ]
    )


def matching(record: Record) -> str:
    rows = [
        [
            f"{int(key.split('|')[1]):,}",
            middle(record, key, "round_ms", ",.1f"),
            median(record, key, "pairs"),
            middle(record, key, "pairs_per_cpu_second"),
            middle(record, key, "met_ms"),
            middle(record, key, "met_cpu_ms"),
        ]
        for key in record
    ]
    return table(
        ["waiting", "a round, ms", "pairs", "pairs a CPU second", "asked at once: all had met, ms", "CPU, ms"], rows
    )


def versions(record: Record) -> str:
    rows = [
        [
            name,
            middle(record, f"{name}|{SATURATED}", "per_cpu_second"),
            as_ratio(ratio(record, name, OURS, SATURATED, "per_cpu_second")),
            middle(record, f"{name}|{FIXED}", "us_each"),
            median(record, f"{name}|{FIXED}", "p50_ms", ".2f"),
            middle(record, f"{name}|{FIXED}", "p99_ms", ".2f"),
        ]
        for name in names(record)
    ]
    head = ["", "as many as go: a CPU second", f"x {OURS}", "fixed rate: CPU, µs each", "p50, ms", "p99, ms"]
    return table(head, rows)


def turn(record: Record) -> str:
    return table(["", "CPU, µs a packet"], [[name, middle(record, name, "us_each", ".1f")] for name in record])


TABLES: dict[str, Callable[[Record], str]] = {
    "relay": talk,
    "across": talk,
    "bus": bus,
    "idle": idle,
    "matching": matching,
    "versions": versions,
    "turn": turn,
}
"""A record as tables, by what was measured."""


# --------------------------------------------------------------------------- plots


TEXT, ACCENT, PLAIN = "#010203", "#ea580c", "#7c8aa0"
STYLE = "<style>svg{color:#1f2937}@media(prefers-color-scheme:dark){svg{color:#e5e7eb}}</style>"


def bars(title: str, rows: Mapping[str, Sequence[float]], form: str) -> str:
    """An SVG of medians with their spread; its text is dark on light pages and light on dark ones."""
    look = {"svg.fonttype": "none", "svg.hashsalt": "visavis", "font.size": 9} | dict.fromkeys(
        ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), TEXT
    )
    with mpl.rc_context(look):
        figure = Figure(figsize=(7.2, 0.75 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        medians = [statistics.median(found) for found in rows.values()]
        spreads = [
            [one - min(found) for one, found in zip(medians, rows.values(), strict=True)],
            [max(found) - one for one, found in zip(medians, rows.values(), strict=True)],
        ]
        colours = [ACCENT if name.startswith(OURS) else PLAIN for name in rows]
        axes.barh(list(rows), medians, 0.62, color=colours, xerr=spreads, ecolor=TEXT, capsize=2)
        axes.invert_yaxis()
        furthest = max(max(found) for found in rows.values())
        for place, found in enumerate(rows.values()):
            axes.text(max(found) + furthest / 80, place, f"{medians[place]:{form}}", va="center")
        axes.set_xlim(0, furthest * 1.12)
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.tick_params(bottom=False, labelbottom=False, left=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = written.getvalue().replace(TEXT, "currentColor")
    head, opening, rest = drawn.partition("<svg")
    attributes, closing, content = rest.partition(">")
    return head + opening + attributes + closing + STYLE + content


def plots(data: Data) -> dict[str, str]:
    """SVG files by name, of what was measured."""
    wanted: list[tuple[str, str, str, str, str, str]] = [
        ("relay", "Within a worker: messages a CPU second", "relay", SATURATED, "per_cpu_second", ",.0f"),
        ("latency", "Within a worker at a fixed rate: p99 in ms", "relay", FIXED, "p99_ms", ".2f"),
        (
            "across",
            "Across two workers: messages a CPU second, Redis counted",
            "across",
            SATURATED,
            "per_cpu_second",
            ",.0f",
        ),
    ]
    for count in sorted({int(key.split("|")[1]) for key in data.get("idle", {})}):
        wanted += [
            (f"memory-{count}", f"{count:,} idle connections: kB each", "idle", str(count), "kb_each", ".1f"),
            (
                f"connects-{count}",
                f"Connects a second up to {count:,}",
                "idle",
                str(count),
                "connects_per_second",
                ",.0f",
            ),
        ]
    drawn = {}
    for name, title, part, how, measure, form in wanted:
        record = data.get(part, {})
        rows = {one: found for one in names(record) if (found := values(record, f"{one}|{how}", measure))}
        if rows:
            drawn[f"{name}.svg"] = bars(title, rows, form)
    return drawn


# --------------------------------------------------------------------------- the page


INTRODUCTION = """# Benchmarks

How fast Visavis relays, and what a connection costs, with its peers beside it in one run. Made by `scripts/bench all`;
the rounds themselves are in [benchmarks.json](benchmarks.json), from which `scripts/bench page` makes this page again.
"""

METHOD = """## How it is measured

- **The same work.** Every server checks a token by its signature when a client connects, checks every field of a chat
  message, acknowledges it and forwards it to the partner. Visavis is the whole product with its limits raised: its
  guests, seats, rates, metrics. The others (`tests/bench/peers`) do the work named here and no more.
- **The load** is a program in C (`tests/bench/load.c`) that shares no code with any server. In *as many as go* each of
  {clients} clients has one message under way, the next when that is acknowledged and delivered. At the *fixed rate*
  messages are sent on time, whatever comes back, and latency counts from that time until the partner's socket has it.
- **CPU** is what the operating system charged to the servers, and to their Redis (Valkey, over a unix socket) wherever
  there is one: also to the private one that a single Visavis worker brings along. All of them are pinned to one
  processor and the load generator to another. It is said above if the generator was busier than {busy:.0%}.
- **Rounds** of all subjects take turns, {rounds} of each, work of {seconds:g} s, {times_fixed} times in a round at the
  fixed rate, after {warm:g} s of the same for each process to warm up. Figures are medians of all measurements, with
  the least and the most in brackets; ratios are those of the medians, with the least and the most ratio of two that
  belong to the same turn. The machine is shared: ratios say more than figures.
- **Memory** is the proportional share (PSS) of the servers and their Redis, beyond that of servers that some clients
  had come to and left, some seconds after the last connection came; and once more after Node and python-socketio were
  asked to collect their garbage, which Visavis is not. Its guests were made before, as the others' tokens were. What
  the kernel keeps for a socket is in none of the figures.
- **Connecting** is the WebSocket, Socket.IO's CONNECT and its check, {at_once} clients on their way in at a time.

What favours whom: Node's socket.io emits straight to the partner's socket, has its native helpers unless named
otherwise, and compression off as it comes; between processes its sharded adapter with a room for each side of a pair,
so that a message goes to one process only, and a Redis client without a time limit for each command. python-socketio is
on uvloop with msgspec for its JSON, hiredis and as many Redis connections as it likes; the fixed rate across processes
is lower for it, since it does not keep up. The bare relay on `ws` knows no protocol but the frames of this bench.
"""

RUNNING = """## Running it

    .venv/bin/python scripts/bench all >bench.txt 2>&1

It needs a C compiler, Node, two processors and a quiet machine, and took {minutes:.0f} minutes. One of `relay`,
`across`, `bus`, `idle`, `matching`, `versions` and `turn` (coturn's share of a call) runs alone, and prints its tables;
`--rounds`, `--seconds`, `--only` and others make it shorter (`--help`). Lines that begin with `!!!` say that something
else had much of the servers' processor, or that the generator was nearly the limit.
"""


def as_page(data: Data) -> str:
    about, given = data["about"], data["given"]
    drawn = plots(data)

    def picture(name: str, says: str) -> list[str]:
        return [f"![{says}](benchmarks/{name}.svg)"] if f"{name}.svg" in drawn else []

    def part(name: str, title: str, *text: str) -> list[str]:
        return [f"## {title}", *text, TABLES[name](data[name])] if data.get(name) else []

    counts = sorted({int(key.split("|")[1]) for key in data.get("idle", {})})
    parts = [
        INTRODUCTION,
        table(["", ""], [[name, said] for name, said in about["machine"].items()]),
        "; ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
        "## Targets",
        "Of the ratio of medians.",
        aims(data),
        *_warnings(data),
        *part("relay", "Within a worker", *picture("relay", "Messages a CPU second"), *picture("latency", "Latency")),
        *part("across", "Across two workers, partners apart", *picture("across", "Messages a CPU second")),
        *part(
            "bus",
            "With more workers",
            f"CPU of all workers and Redis for each message, with {given['each']} clients for each worker; at one "
            "worker partners are on it together, at more they are always apart. *Beyond idling* leaves out what "
            "workers take with nobody talking.",
        ),
        *part(
            "idle",
            "Connections",
            *(one for count in counts for one in picture(f"memory-{count}", "Memory of idle connections")),
            *(one for count in counts for one in picture(f"connects-{count}", "Connects a second")),
        ),
        *part(
            "matching",
            "Matching",
            "It has no peer here. A round is `core/matching.py` alone over a pool of the workload of "
            f"[matching.md](matching.md). *Asked at once*, up to {MOST_MEETING:,}: guests of a real worker who all "
            "search in the same moment, each for the one who shares their interest, and the CPU of both.",
        ),
        *part("versions", "What it could run on", *_absent(data)),
        *part("turn", "The relay for calls"),
        METHOD.format(**given, busy=BUSY, at_once=about["at_once"], times_fixed=TIMES_FIXED),
        RUNNING.format(minutes=about["minutes"]),
    ]
    return "\n\n".join(one.strip() for one in parts) + "\n"


def _warnings(data: Data) -> list[str]:
    """What makes the figures doubtful, computed like the rest."""
    said = [f"**Failed:** {what}." for what in data["failed"]]
    said += [f"Left out: {name}, since {why}." for name, why in data["left_out"].items() if not _is_python(name)]
    disturbed = []
    for part in TABLES:
        for key, rounds in data.get(part, {}).items():
            who = f"{part}, {key.replace('|', ', ')}"
            if (busy := statistics.median(found.get("load_busy", 0) for found in rounds)) > BUSY:
                said.append(f"**{who}:** the load generator was {busy:.0%} busy and may have been the limit.")
            if (lost := sum(found.get("lost", 0) for found in rounds)) > 0:
                said.append(f"**{who}:** {lost:,.0f} messages were lost, or came more than two seconds late.")
            if (others := statistics.median(found.get("others_busy", 0) for found in rounds)) > DISTURBED:
                disturbed.append((others, who))
    if disturbed:
        most, who = max(disturbed)
        said.append(
            f"**The machine was not quiet:** others had more than {DISTURBED:.0%} of the servers' processor in "
            f"{len(disturbed)} measures, most ({most:.0%}) in {who}; their latencies say little."
        )
    return ["\n".join(f"- {one}" for one in said)] if said else []


def _is_python(name: str) -> bool:
    return name.startswith(f"{OURS}, Python")


def _absent(data: Data) -> list[str]:
    missing = [name.removeprefix(f"{OURS}, ") for name in data["left_out"] if _is_python(name)]
    return [f"Not to be had on this machine: {', '.join(missing)}."] if missing else []


def write(data: Data, folder: Path) -> None:
    """The record, the page and the plots."""
    pictures = folder / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / "benchmarks.md").write_text(as_page(data))
    drawn = plots(data)
    for old in pictures.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, drawing in drawn.items():
        (pictures / name).write_text(drawing)
