"""The bench: its page says what was measured and nothing else, and it measures."""

import asyncio
import copy
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from bench import page
from bench.measures import FIXED, SATURATED
from rig import ROOT, missing

DOCS = ROOT / "docs"


@pytest.fixture
def measured():
    return json.loads((DOCS / "benchmarks.json").read_text())


def test_the_committed_page_and_plots_are_what_the_committed_rounds_give(measured, tmp_path):
    """Nobody edits a figure, and nobody changes what a page says of old rounds without saying it there."""
    page.write(measured, tmp_path)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.*")}
    kept = {
        path.relative_to(DOCS): path.read_text() for path in [*DOCS.glob("benchmarks.*"), *DOCS.glob("benchmarks/*")]
    }
    assert kept.keys() == made.keys()
    stale = [str(path) for path in made if kept[path] != made[path]]
    assert not stale, f"run scripts/bench page: {stale}"


@pytest.mark.parametrize(
    ("part", "how", "measure", "aim", "more_is_better"),
    [
        ("relay", SATURATED, "per_cpu_second", 2.0, True),
        ("across", SATURATED, "per_cpu_second", 3.0, True),
        ("relay", FIXED, "p99_ms", 1.0, False),
    ],
)
def test_whether_a_target_is_met_is_worked_out_from_the_rounds(measured, part, how, measure, aim, more_is_better):
    """Just above the aim and just below it, on either side of "met"."""
    [target] = [one for one in page.targets(measured) if (one.part, one.how, one.measure) == (part, how, measure)]
    assert target.aim == aim

    def met(times_nodes: float) -> bool | None:
        data = copy.deepcopy(measured)
        for ours, theirs in zip(data[part][f"{page.OURS}|{how}"], data[part][f"{page.NODES[0]}|{how}"], strict=True):
            ours[measure] = theirs[measure] * times_nodes
        return target.met(data, page.NODES[0])

    assert met(aim * 1.01) is more_is_better
    assert met(aim * 0.99) is not more_is_better


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_rounds_of_the_same_turn():
    """Rounds of different turns saw a different machine."""
    record = {
        "a|x": [{"much": 10.0}, {"much": 30.0}, {"much": 20.0}],
        "b|x": [{"much": 10.0}, {"much": 5.0}, {"much": 4.0}],
    }
    assert page.ratio(record, "a", "b", "x", "much") == (4.0, 1.0, 6.0)


def test_what_was_not_measured_is_neither_met_nor_missed(measured):
    """A page of some of the measures claims nothing of the others."""
    data = {**measured, "relay": {}}
    assert page.targets(data)[0].met(data, page.NODES[0]) is None
    assert "not measured" in page.aims(data)


async def test_it_measures_a_real_worker_and_writes_its_page(tmp_path):
    """Some seconds of the real thing: load generator, worker, record and page."""
    if shutil.which("cc") is None:
        missing("no C compiler")
    if len(os.sched_getaffinity(0)) < 2:
        missing("one processor only, and the load needs its own")
    few = {"rounds": 1, "seconds": 1, "warm": 0.1, "settle": 0.1, "clients": 4, "rate": 50, "idle": 10}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "bench"), "relay", "idle", "--only", page.OURS),
        *("--to", str(tmp_path), *(f"--{name}={value}" for name, value in few.items())),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await process.communicate())[1].decode()
    assert process.returncode == 0, said
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    [found] = written["relay"][f"{page.OURS}|{SATURATED}"]
    assert found["per_cpu_second"] > 0
    assert found["lost"] == 0
    assert found["load_busy"] > 0
    assert Path(tmp_path, "benchmarks", "relay.svg").exists()
    assert "not measured" in (tmp_path / "benchmarks.md").read_text()
