"""A machine of one's own, as far as services go: a real systemd as process 1 of its own namespaces.

What it writes in /etc, /var, /run and /opt is in memory and goes with it; it knows no units but those it is given, so
nothing else of this machine is started. The network is this machine's, so that tests reach what it runs.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rig import PATIENCE, ROOT, missing
from visavis.adapters import children

CGROUPS = Path("/sys/fs/cgroup")
BOOT = r"""
set -eu
mount -t proc proc /proc
mount -t tmpfs tmpfs $MEMORY
for place in etc var; do
  mkdir -p $MEMORY/$place/up $MEMORY/$place/work
  mount -t overlay overlay -o lowerdir=/$place,upperdir=$MEMORY/$place/up,workdir=$MEMORY/$place/work /$place
done
units=/usr/lib/systemd/system
for place in /run /opt /usr/local/sbin /etc/systemd/system $units $units-generators; do
  mount -t tmpfs -o mode=755 tmpfs $place
done
umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# The checkout, with a Python that others than root may run, wherever the one of the tests lies.
mkdir -p /opt/python /opt/visavis
mount --bind $PYTHON_HOME /opt/python
for part in backend ecosystem tests turn; do mkdir /opt/visavis/$part; mount --bind $ROOT/$part /opt/visavis/$part; done
mkdir -p /opt/visavis/web/dist /opt/visavis/.venv/bin /opt/visavis/.venv/lib
cp $ROOT/nginx.conf /opt/visavis
echo page >/opt/visavis/web/dist/index.html
mount --bind $PACKAGES /opt/visavis/.venv/lib
ln -s /opt/python/bin/$PYTHON_NAME /opt/visavis/.venv/bin/python
ln -s lib /opt/visavis/.venv/lib64
printf 'home = /opt/python/bin\n' >/opt/visavis/.venv/pyvenv.cfg
# Stand-ins for what a booted system has reached long before.
for target in sysinit basic shutdown network-online multi-user timers; do
  printf '[Unit]\nDefaultDependencies=no\n' >$units/$target.target
done
mkdir /etc/systemd/system/service.d
printf '[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib\nStandardOutput=append:%s\nStandardError=inherit\n' \
  $LOG >/etc/systemd/system/service.d/here.conf
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target \
  --log-target=console --log-level=info --show-status=no </dev/null
"""


class Machine:
    """A booted systemd without services; `log` is where all of them write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._group: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._init = 0
        self.log = folder / "log"

    async def start(self) -> "Machine":
        """Boot it. Skips the test where that cannot be."""
        if sys.platform != "linux" or os.geteuid() != 0:
            missing("systemd's units are only run by root")
        for command in ("systemctl", "unshare", "nsenter"):
            if shutil.which(command) is None:
                missing(f"systemd's units need {command}")
        parent = CGROUPS / "unified" if (CGROUPS / "unified").is_dir() else CGROUPS
        self._group = parent / f"visavis-test-{os.getpid()}"
        try:
            self._group.mkdir()
        except OSError as error:
            missing(f"systemd needs a control group of its own: {error}")
        self._folder.mkdir(parents=True, exist_ok=True)
        memory, boot = self._folder / "memory", self._folder / "boot"
        memory.mkdir()
        boot.write_text(BOOT, encoding="utf-8")
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "ROOT": str(ROOT),
            "MEMORY": str(memory),
            "LOG": str(self.log),
            "PYTHON_HOME": sys.base_prefix,
            "PYTHON_NAME": f"python{sys.version_info.major}.{sys.version_info.minor}",
            "PACKAGES": str(Path(sys.prefix).resolve() / "lib"),
        }
        namespaces = "--mount --propagation private --pid --fork --kill-child --cgroup --uts --ipc"
        script = f"echo $$ >{self._group}/cgroup.procs && exec unshare {namespaces} sh {boot}"
        with (self._folder / "console").open("wb") as console:
            self._process = await asyncio.create_subprocess_exec(
                "sh",
                "-c",
                script,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                preexec_fn=children.before_exec,
            )
        async with asyncio.timeout(30):
            while not await self._booted():
                if self._process.returncode is not None:
                    await self.stop()
                    missing(f"no systemd could be started: {(self._folder / 'console').read_text()[-500:]}")
                await asyncio.sleep(0.1)
        return self

    async def _booted(self) -> bool:
        assert self._process is not None
        started = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._init = int(started[0]) if started else 0
        return bool(self._init) and (await self.run("systemctl", "is-system-running"))[1].strip() == "running"

    async def run(self, *command: str) -> tuple[int, str]:
        """Run a command on the machine: its status and all it says."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", "-t", str(self._init), "-m", "-p", "-C", "-u", "-i", "-r", "-w", *command),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": "/opt/python/lib"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def do(self, *command: str) -> str:
        """Run a command that has to succeed."""
        status, said = await self.run(*command)
        assert status == 0, f"{' '.join(command)}: {said}\n{self.log.read_text() if self.log.exists() else ''}"
        return said

    async def write(self, path: str, text: str) -> None:
        """Write a file there, and its folder."""
        source = self._folder / "written"
        source.write_text(text, encoding="utf-8")
        await self.do("install", "-D", "-m", "600", str(source), path)

    async def stop(self) -> None:
        """End it with all it runs."""
        if self._process is not None and self._process.returncode is None:
            # With it go its child, which is process 1 of the namespace, and so all the others.
            self._process.kill()
            await self._process.wait()
        if self._group is not None and self._group.is_dir():
            async with asyncio.timeout(PATIENCE):
                while (self._group / "cgroup.events").read_text().startswith("populated 1"):
                    await asyncio.sleep(0.05)
            for folder, _, _ in os.walk(self._group, topdown=False):
                Path(folder).rmdir()
