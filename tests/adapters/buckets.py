"""What the tests of the blob stores are set in: S3 as a process of its own, a small disk, a storage that is full.

Hides: starting and ending moto, mounting.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from rig import free_port, missing


class Moto:
    """moto's S3 server as a process. Its objects are in its memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the server answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self._folder / "moto").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                env={**environment, "MOTO_S3_CUSTOM_ENDPOINTS": self.url},
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/moto-api/", timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self._folder / "moto").read_text())
            time.sleep(0.05)

    def make_bucket(self, name: str) -> None:
        asked = urllib.request.Request(f"{self.url}/{name}", method="PUT", headers={"Host": f"127.0.0.1:{self.port}"})
        with urllib.request.urlopen(asked, timeout=10):
            pass

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of a megabyte, in memory. Where none can be mounted, the test is skipped."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        missing("needs the right to mount a small file system")
    try:
        yield folder
    finally:
        # What was still open a moment ago may hold it.
        for _ in range(100):
            if subprocess.run(["umount", folder], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.02)
        else:
            subprocess.run(["umount", "-l", folder], check=True)


class FullStorage:
    """Speaks as an S3 storage does that has no room left: lists nothing, takes nothing.

    If it is `dead`, it answers so whatever it is asked.
    """

    def __init__(self, status: int, code: str, *, dead: bool = False) -> None:
        self._dead = dead
        self._status = status
        self._code = code
        self.asked: list[str] = []

    async def start(self) -> "FullStorage":
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path_qs}")
        await request.read()
        if request.method == "GET" and not self._dead:
            listing = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></ListBucketResult>'
            return web.Response(text=listing, content_type="application/xml")
        if request.method == "DELETE" and not self._dead:
            return web.Response(status=204)
        said = f"<Error><Code>{self._code}</Code><Message>No room.</Message></Error>"
        return web.Response(status=self._status, text=said, content_type="application/xml")
