"""Starts the process that makes one recording, and speaks with it."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

import msgspec

from visavis.adapters import children
from visavis.core import tape

GOES_WITHIN = 5.0


class Tape:
    """One recording's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, message: tape.ToTape) -> None:
        """Tell it something. Never waits; what comes too late is lost."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write(tape.pack(message))

    async def hear(self) -> tape.FromTape | None:
        """The next thing it says; None when it has gone."""
        assert self._process.stdout is not None
        try:
            header = await self._process.stdout.readexactly(tape.HEADER)
            return tape.from_tape(await self._process.stdout.readexactly(tape.size(header)))
        except (asyncio.IncompleteReadError, OSError, ValueError, msgspec.MsgspecError):
            return None

    async def end(self) -> None:
        """Have it gone. An unfinished recording leaves nothing."""
        if self._process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), GOES_WITHIN if self._done() else 0.01)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _done(self) -> bool:
        assert self._process.stdout is not None
        return self._process.stdout.at_eof()


_PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VISAVIS_LOG_LEVEL")


def _environment() -> dict[str, str]:
    """What a process that decodes strangers' media may know: none of the service's secrets."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # A thread's own heap for each decoder costs more than it brings.
    return {**passed_on, "MALLOC_ARENA_MAX": "2"}


async def load(first: tape.Load) -> Tape:
    """Start a process for this recording. Raises OSError."""
    Path(first.folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "visavis.adapters.recorder",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
        preexec_fn=children.before_exec,
    )
    made = Tape(process)
    made.say(first)
    return made
