"""In which order the files of tests are run when several processes share them, and which are never run at once.

What takes long comes first: begun last, it would be what all the others wait for. In calls, browsers and the recorder
encode pictures in real time, and two calls are more than two cores keep up with: their files follow one another in one
process, while those of the others, who wait most of their time, are run beside them.
"""

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).parent
CALLS = (
    "e2e/test_calls.py",
    "e2e/test_cluster.py",
    "e2e/test_calls_in_trouble.py",
    "e2e/test_call_recorded.py",
    "adapters/test_recorder.py",
    "e2e/test_discretion.py",
    "e2e/test_worker_killed.py",
)
"""One after the other."""
LONG = (
    "e2e/test_page.py",
    "test_check.py",
    "doors/test_files_door.py",
    "adapters/test_archive.py",
    "e2e/test_files_shared.py",
    "e2e/test_strangers.py",
    "chaos/test_healing.py",
    "adapters/test_workshop.py",
    "chaos/test_rolling_restart.py",
    "adapters/test_blobs.py",
    "doors/test_metrics_door.py",
    "doors/test_nginx.py",
    "test_probe.py",
    "test_cluster_script.py",
    "test_drain.py",
    "chaos/test_workers.py",
    "doors/test_official_client.py",
)
"""A minute or more each."""
FIRST = {name: place for place, name in enumerate((*CALLS, *LONG))}


def arrange(items: list[pytest.Item]) -> None:
    """Put what takes long in front; the tests of a file stay in their order."""
    items.sort(key=lambda item: FIRST.get(item.path.relative_to(TESTS).as_posix(), len(FIRST)))


class Timetable(LoadFileScheduling):
    """Hands out files whole and in the order they are in, and those with calls together."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        # By default the files with the most tests come first, which are the quick ones.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "calls" if file.removeprefix(f"{TESTS.name}/") in CALLS else file
