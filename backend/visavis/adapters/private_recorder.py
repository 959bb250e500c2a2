"""A recorder for a single machine: `visavis recorder` as a child that ends with this process."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping

from visavis.adapters import children

READY_WITHIN = 30.0
STOPS_WITHIN = 5.0
"""Seconds to finish what is being recorded."""


class RecorderFailed(Exception):
    """The private recorder did not start; its log says why."""


class PrivateRecorder:
    """One recorder process, with this environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process, once started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises RecorderFailed."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "visavis",
            "recorder",
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C reaches the whole terminal group; recordings are to be finished first.
            start_new_session=True,
            preexec_fn=children.before_exec,
        )
        assert self._process.stdout is not None
        said = b""
        with contextlib.suppress(TimeoutError):
            said = await asyncio.wait_for(self._process.stdout.readline(), READY_WITHIN)
        if b"ready" not in said:
            await self.stop()
            raise RecorderFailed("the recorder did not start; its log says why")

    async def stop(self) -> None:
        """Have it finish what it records, and end."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOPS_WITHIN)
        await children.end(self._process)
