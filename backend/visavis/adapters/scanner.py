"""A virus scanner that speaks clamd's protocol: INSTREAM in pieces, over TCP or a Unix socket (clamd(8))."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from aiofiles.threadpool import wrap

from visavis.contract import Refused
from visavis.core.ports import ScannerUnavailable

PIECE = 64 * 1024
LONGEST_ANSWER = 4096
CONNECTS_WITHIN, PONGS_WITHIN = 5.0, 5.0


class Clamd:
    """clamd at `tcp://host:port` or `unix:/path`. A file is looked through within `seconds`."""

    def __init__(self, url: str, *, seconds: float = 60.0) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = "", 0, ""
        if parts.scheme == "tcp" and parts.hostname and parts.port:
            self._host, self._port = parts.hostname, parts.port
        elif parts.scheme == "unix" and parts.path:
            self._path = parts.path
        else:
            raise ValueError(f"{url!r} is neither tcp://host:port nor unix:/path")
        self._seconds = seconds

    async def clean(self, path: Path) -> bool:
        """Whether nothing was found in the file. Raises ScannerUnavailable for what may heal.

        What clamd will not look through to its end, for it is larger than its StreamMaxLength, is not called clean,
        however often it is asked: Refused, file_too_large. clamd does not say what its limit is.
        """
        async with self._talk(self._seconds) as (reader, writer):
            # clamd answers before the end, and hangs up, when it has had enough. That answer is worth having: it is
            # listened for from the beginning, for what was not heard before the connection broke is lost with it.
            hearing = asyncio.get_running_loop().create_task(_answer(reader))
            hearing.add_done_callback(lambda heard: heard.cancelled() or heard.exception())
            try:
                with contextlib.suppress(ConnectionError):
                    await self._send(path, writer, hearing)
                told = await hearing
            finally:
                hearing.cancel()
        if told == "stream: OK":
            return True
        if told.startswith("stream: ") and told.endswith(" FOUND"):
            return False
        if told.startswith("INSTREAM size limit exceeded"):
            raise Refused("file_too_large")
        raise ScannerUnavailable(told)

    @staticmethod
    async def _send(path: Path, writer: asyncio.StreamWriter, hearing: "asyncio.Task[str]") -> None:
        """Stream the file, unless the answer is there before its end."""
        writer.write(b"zINSTREAM\0")
        # Opened at once: who is cancelled while a thread opens a file never gets to close it.
        with path.open("rb") as opened:
            file = wrap(opened)
            while piece := await file.read(PIECE):
                if hearing.done():
                    return
                writer.write(len(piece).to_bytes(4) + piece)
                await writer.drain()
        writer.write(bytes(4))
        await writer.drain()

    async def ping(self) -> None:
        """Prove that it answers. Raises ScannerUnavailable."""
        async with self._talk(PONGS_WITHIN) as (reader, writer):
            writer.write(b"zPING\0")
            told = await _answer(reader)
        if told != "PONG":
            raise ScannerUnavailable(told)

    @contextlib.asynccontextmanager
    async def _talk(self, seconds: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection for one command. Raises ScannerUnavailable for whatever goes wrong with it."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(seconds):
                async with asyncio.timeout(CONNECTS_WITHIN):
                    reader, writer = await self._connect()
                yield reader, writer
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise ScannerUnavailable(type(error).__name__) from error
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path:
            return await asyncio.open_unix_connection(self._path, limit=LONGEST_ANSWER)
        return await asyncio.open_connection(self._host, self._port, limit=LONGEST_ANSWER)


async def _answer(reader: asyncio.StreamReader) -> str:
    """What clamd says: ASCII, ended by a zero byte."""
    return (await reader.readuntil(b"\0"))[:-1].decode("ascii")
