"""What the operating system says of this process and of the machine it runs on."""

import os
import re
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource


def memory() -> int:
    """Bytes that this process has in memory; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb") as told:  # noqa: PTH123  # asked for every second
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> tuple[int, int]:
    """How many files this process may have open now, and how many it may allow itself."""
    if sys.platform == "win32":
        return 8192, 8192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = sys.maxsize
    return (most if soft == resource.RLIM_INFINITY else soft), (most if hard == resource.RLIM_INFINITY else hard)


def filesystem(path: Path) -> str:
    """The kind of file system that a path lies on, or would; empty where the system does not say."""
    if sys.platform != "linux":
        return ""
    there, kind, depth = str(path.resolve()), "", -1
    # Fields of proc_pid_mountinfo(5): the fifth is where it is mounted, the first after the dash what it is.
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        where = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), before.split()[4])
        if (there == where or there.startswith(where.rstrip("/") + "/")) and len(where) >= depth:
            kind, depth = after.split()[0], len(where)
    return kind
