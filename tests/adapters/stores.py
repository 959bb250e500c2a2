"""What the tests of the document stores are set in: collections, a clock, servers that die.

Hides: starting and ending nx-27017.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from visavis.core.collections import ALL
from visavis.core.ports import Collection, Index, Upkeep
from visavis.core.schema import Schema

NOTES = Collection("notes", indexes=(Index("shelf", ("owner", "kind")),), text=("body", "thread"))
"""For what the real collections do not have: an index on two fields, and text in both shapes."""

COLLECTIONS = (*ALL, NOTES)


class Clock:
    """Milliseconds since the epoch, until it is moved."""

    def __init__(self) -> None:
        self._ahead = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead

    def move(self, minutes: float) -> None:
        self._ahead += round(minutes * 60_000)


class Nx:
    """nx-27017, MongoDB's protocol over SQLite, as a process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"mongodb://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Returns when the server takes connections."""
        command = [str(Path(sys.executable).parent / "nx-27017"), "--host", "127.0.0.1", "-p", str(self.port)]
        for option in ("data-dir", "log-file", "pid-file"):
            command += [f"--{option}", str(self._folder / option)]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self._folder / "output").read_text())
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Another(Protocol):
    """Opens a further store on the same data, as another worker would; without a schema, one without migrations."""

    def __call__(
        self, collections: Sequence[Collection] = COLLECTIONS, schema: Schema | None = None
    ) -> Awaitable[Upkeep]: ...
