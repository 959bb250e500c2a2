"""Child processes that end with this one, however it ends."""

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


before_exec: Callable[[], None] | None = _die_with_parent if sys.platform == "linux" else None
"""For `preexec_fn`: the child is asked to end when the thread that started it does."""


async def end(process: asyncio.subprocess.Process | None) -> None:
    """Ask it to end; insist after three seconds."""
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 3)
    except TimeoutError:
        process.kill()
        await process.wait()
