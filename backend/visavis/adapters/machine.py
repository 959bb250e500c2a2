"""What the operating system says of this process and of the machine it runs on."""

import os
import sys


def memory() -> int:
    """Bytes that this process has in memory; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", "rb") as told:  # noqa: PTH123  # asked for every second
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
