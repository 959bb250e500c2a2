"""nginx in front of workers on one machine, with the configuration at the top level of the checkout as it is.

Hides how it is told apart from one that runs in the checkout: a folder laid out like it, in which the files that
differ between deployments are others.
"""

import asyncio
import contextlib
import grp
import os
import pwd
import resource
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from visavis.adapters import children

ROOT = Path(__file__).resolve().parents[3]
BROTLI = Path("/usr/lib/nginx/modules/ngx_http_brotli_static_module.so")
_SHARED = ("proxy.conf", "security-headers.conf")
_WITHIN = 10.0
_FILES = 65_536
"""That a process may open, unless whoever starts it may not let it."""


class NginxFailed(Exception):
    """nginx did not start; says what it printed."""


class PrivateNginx:
    """One nginx process; `port` is where https comes in."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        plain_port: int,
        workers: Sequence[int],
        certificate: Path,
        client: Path,
        addresses: Sequence[str] = ("127.0.0.1",),
        more: str = "",
    ) -> None:
        """Listen on these addresses, for workers at these ports of this machine.

        `certificate` is the folder with certificate and key, `client` that of the built client, and `more` is put
        beside the listening addresses of https.
        """
        self.port = port
        self.access_log = folder / ".cache" / "nginx" / "access.log"
        self._folder = folder
        self._plain_port = plain_port
        self._workers = workers
        self._certificate = certificate
        self._client = client
        self._addresses = [f"[{one}]" if ":" in one else one for one in addresses]
        self._more = more
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it takes connections. Raises NginxFailed."""
        self._lay_out()
        user = ""
        if os.geteuid() == 0:
            # Else its own processes become another user's, who has no business in the folders here.
            user = f" user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *["nginx", "-p", str(self._folder), "-c", str(self._folder / "nginx.conf"), "-e", "stderr"],
                *["-g", f"daemon off;{user}"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C reaches the whole terminal group; this process must outlive its user's last words.
                start_new_session=True,
                preexec_fn=children.before_exec,
            )
        try:
            async with asyncio.timeout(_WITHIN):
                while self._process.returncode is None:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection(self._addresses[0].strip("[]"), self.port)
                        writer.close()
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.stop()
        raise NginxFailed((self._folder / "log").read_text(errors="replace")[-2000:])

    async def stop(self) -> None:
        """End it; connections are broken off."""
        await children.end(self._process)
        if self._process is not None:
            # A master that was killed leaves its processes behind, and they hold the port.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until the process is gone, for whatever reason."""
        assert self._process is not None
        await self._process.wait()

    @property
    def pid(self) -> int:
        """The process, once started."""
        assert self._process is not None
        return self._process.pid

    def _lay_out(self) -> None:
        own = self._folder / "ecosystem" / "nginx"
        for folder in (own / "enabled", self._folder / ".cache" / "nginx", self._folder / "data", self._folder / "web"):
            folder.mkdir(parents=True, exist_ok=True)
        links = {
            self._folder / "nginx.conf": ROOT / "nginx.conf",
            self._folder / "data" / "tls": self._certificate.resolve(),
            self._folder / "web" / "dist": self._client.resolve(),
            **{own / name: ROOT / "ecosystem" / "nginx" / name for name in _SHARED},
        }
        if BROTLI.exists():
            for path in (ROOT / "ecosystem" / "nginx" / "brotli").iterdir():
                links[own / "enabled" / path.name] = path
        for link, to in links.items():
            link.unlink(missing_ok=True)
            link.symlink_to(to)
        plain = [f"listen {address}:{self._plain_port};" for address in self._addresses]
        secure = [f"listen {address}:{self.port} ssl http2;" for address in self._addresses]
        (own / "listen-http.conf").write_text("\n".join([*plain, f"set $https_port :{self.port};\n"]))
        (own / "listen-https.conf").write_text("\n".join([*secure, self._more, ""]))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
        (own / "processes.conf").write_text(f"worker_processes auto;\nworker_rlimit_nofile {files};\n")
        (own / "workers.conf").write_text(
            "".join(
                f"upstream {name} {{\n  zone {name} 64k;\n  hash $affinity consistent;\n"
                + "".join(f"  server 127.0.0.1:{port} {options};\n" for port in self._workers)
                + "}\n"
                for name, options in (("workers", "max_fails=1 fail_timeout=1s"), ("sessions", "max_fails=0"))
            )
        )


def available() -> bool:
    """Whether there is an nginx on this machine."""
    return shutil.which("nginx") is not None
