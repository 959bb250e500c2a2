"""The load generator: a program in C (load.c), as a process on a processor of its own."""

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "load.c"
AT_ONCE = 64
"""Clients on their way in at a time: enough that a server never waits for one, and less than any backlog."""


def compiled(folder: Path) -> Path:
    """The program, made anew if its source is newer."""
    program = folder / "load"
    folder.mkdir(exist_ok=True)
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-std=gnu17", "-o", program, SOURCE], check=True)
    return program


class Load:
    """One run of it. `processor` is for it alone."""

    def __init__(self, program: Path, processor: int, *, later: bool = False) -> None:
        """`later`: clients ask for their partners when told to `meet`, not as they come."""
        self._command = [str(program), str(AT_ONCE), *(["later"] if later else [])]
        self._processor = processor
        self._process: asyncio.subprocess.Process | None = None

    async def connect(self, clients: Sequence[str]) -> dict[str, float]:
        """Have everybody there; returns the `seconds` it took and the share it was `busy`."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        os.sched_setaffinity(self._process.pid, {self._processor})
        self._tell("\n".join(clients) + "\n\n")
        return await self._hear()

    async def meet(self) -> float:
        """All ask for their partners at once; returns the seconds until everybody has one."""
        self._tell("meet\n")
        return (await self._hear())["seconds"]

    async def work(self, seconds: float, rate: float) -> None:
        """Say `rate` messages a second in all, or with 0 as many as go, one of each client being under way.

        Returns when the time is up, with messages still on their way.
        """
        self._tell(f"rate {seconds} {rate}\n" if rate else f"closed {seconds}\n")
        await self._hear()

    async def outcome(self) -> dict[str, float]:
        """What came of the work, once all of it has arrived or is lost."""
        return await self._hear()

    def check(self) -> None:
        """Raises RuntimeError if somebody was hung up on."""
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError("the load generator ended early; it says why above")

    async def end(self) -> None:
        """Hang up on everybody."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    def _tell(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    async def _hear(self) -> dict[str, float]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 600)
        if not line:
            raise RuntimeError("the load generator ended early; it says why above")
        told: dict[str, float] = json.loads(line)
        return told
