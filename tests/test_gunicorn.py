"""One worker under gunicorn, as operators run it: what it starts, says, refuses and leaves behind."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from rig import Production, Service, Worker, arrive, free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_workers_of_one_machine_serve_log_in_one_format_and_leave_nothing_behind(tmp_path: Path) -> None:
    """Two of one user, each on its port: every line is JSON, none names a client, and the home folder stays empty."""
    home = tmp_path / "home"
    home.mkdir()
    both = await Service(tmp_path, Production, HOME=str(home), XDG_RUNTIME_DIR=str(home)).start(2)
    try:
        for worker in both.workers:
            async with aiohttp.ClientSession() as session, session.get(worker.url + "/ready?who=me") as response:
                assert response.status == 200
            await (await arrive(worker.url)).hang_up()
        assert [path.name for path in home.iterdir()] == []
    finally:
        await both.stop()
    for worker in both.workers:
        assert worker.process is not None
        assert worker.process.returncode == 0
        lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
        assert {"gunicorn.error", "visavis.app"} <= {line["logger"] for line in lines}
        assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
        assert "who=me" not in worker.log.read_text()


async def test_a_worker_that_dies_is_replaced_and_the_port_stays_open(tmp_path: Path) -> None:
    """By gunicorn, whose port it is: a connection made meanwhile waits."""
    one = await Service(tmp_path, Production).start()
    try:
        worker = one.workers[0]
        assert isinstance(worker, Production)
        os.kill(before := worker.child(), signal.SIGKILL)
        async with aiohttp.ClientSession() as session, session.get(worker.url + "/health") as response:
            assert response.status == 200
        assert worker.child() != before
    finally:
        await one.stop()


async def test_private_parts_start_and_end_with_it(tmp_path: Path) -> None:
    """Without REDIS_URL one worker is a whole service, as under `visavis serve`."""
    worker = await Production(tmp_path).start()
    children = Path(f"/proc/{worker.child()}/task/{worker.child()}/children").read_text().split()
    assert any(b"valkey" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children)
    guest = await arrive(worker.url)
    await guest.hang_up()
    assert await worker.stop() == 0
    assert all(gone(int(pid)) for pid in children)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"VISAVIS_PORT": "0"}, "VISAVIS_PORT"),
        ({"VISAVIS_PROT": "3001"}, "VISAVIS_PROT: no such setting"),
        ({"VISAVIS_HOST": "0.0.0.0"}, "VISAVIS_ORIGINS"),
        ({"VISAVIS_SECRETS": "short"}, "32 characters"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
)
async def test_what_does_not_fit_is_said_in_a_line_and_not_tried_for_ever(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    """A supervisor sees a status that is not 0, a person a sentence without a traceback."""
    worker = Production(tmp_path, **{"VISAVIS_PORT": str(free_port()), **environment})
    with pytest.raises(AssertionError):
        await worker.start()
    assert worker.process is not None
    assert await asyncio.wait_for(worker.process.wait(), 10) in (2, 3)
    lines = worker.log.read_text().splitlines()
    assert [said in line for line in lines if line.startswith("visavis: ")] == [True]
    assert all(line.startswith(("visavis: ", "{")) for line in lines), lines


@pytest.mark.parametrize("kind", [Worker, Production])
async def test_a_crowd_that_comes_at_once_waits_at_the_door(tmp_path: Path, kind: type[Worker]) -> None:
    """While a worker is busy, or another is started in its place: nobody has to knock a second time."""
    worker = await kind(tmp_path).start()
    serving = worker.child() if isinstance(worker, Production) else worker.process and worker.process.pid
    assert serving
    os.kill(serving, signal.SIGSTOP)
    crowd = []
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    try:
        for _ in range(min(1000, allowed)):
            crowd.append(one := socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", worker.port))
        # To this machine itself, whoever gets through does so at once.
        assert all(one.getpeername() for one in crowd)
        os.kill(serving, signal.SIGCONT)
        for one in crowd:
            one.setblocking(True)
            one.settimeout(20)
            one.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        for one in crowd:
            assert one.recv(100).startswith(b"HTTP/1.0 200 ")
    finally:
        os.kill(serving, signal.SIGCONT)
        for one in crowd:
            one.close()
        assert await worker.stop() == 0
