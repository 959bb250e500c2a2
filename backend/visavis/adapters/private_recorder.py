"""A recorder for a single machine: `visavis recorder` as a child that ends with this process."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping

from visavis.adapters import children

READY_WITHIN = 30.0
STOPS_WITHIN = 7.0
"""Seconds to finish what is being recorded."""


class RecorderFailed(Exception):
    """The private recorder did not start; its log says why."""


class PrivateRecorder:
    """One recorder process, with this environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._dismissed = 0.0

    @property
    def pid(self) -> int:
        """The process, once started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises RecorderFailed."""
        self._dismissed = 0.0
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

    async def ended(self) -> None:
        """Wait until the process is gone, for whatever reason."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """Have it finish what it records, and end."""
        if self._process is None or self._process.returncode is not None:
            return
        await self.dismiss()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), max(0, self._dismissed + STOPS_WITHIN - time.monotonic()))
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def dismiss(self) -> None:
        """Begin to stop it: it finishes while other parts are ended."""
        if self._process is not None and self._process.returncode is None and not self._dismissed:
            self._dismissed = time.monotonic()
            self._process.terminate()
