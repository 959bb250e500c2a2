"""The probe as operators run it, a process of its own, against real workers and a real relay."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from members import warmed
from rig import ROOT, Guest, Service, Worker, arrive, free_port, missing
from visavis.adapters.turn import PrivateTurn, available

pytestmark = pytest.mark.asyncio(loop_scope="session")

WorkerWith = Callable[..., Awaitable[Worker]]
ALL = ["info", "guest", "connect", "match", "relay", "call", "audio", "video", "text", "hang-up", "leave"]


class Probe:
    """A run of the program."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> "Probe":
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "visavis", "probe", *self._arguments,
            env={**os.environ, "PYTHONPATH": str(ROOT / "backend")},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return self

    async def said(self) -> str:
        """The next line."""
        assert self.process is not None
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode()

    async def ended(self) -> tuple[int, str, str]:
        """Exit status, the rest of what it printed, and of what it complained."""
        assert self.process is not None
        out, complaints = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), complaints.decode()


async def probe(*arguments: str) -> tuple[int, str, str]:
    return await (await Probe(*arguments).start()).ended()


async def report(*arguments: str) -> tuple[int, dict[str, Any]]:
    """A run for machines: it says one line, and nothing besides."""
    status, out, complaints = await probe("--json", *arguments)
    assert complaints == ""
    (line,) = out.splitlines()
    return status, json.loads(line)


def steps(told: dict[str, Any]) -> list[str]:
    assert all(step["ms"] >= 0 for step in told["steps"])
    return [step["name"] for step in told["steps"] if step["ok"]]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def turn() -> AsyncIterator[PrivateTurn]:
    """A relay on this machine."""
    if not available():
        missing("needs coturn")
    server = PrivateTurn("127.0.0.1")
    await server.start()
    yield await warmed(server)
    await server.stop()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def relayed(turn: PrivateTurn, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Worker]]:
    """Two workers that send their guests to the relay, and nobody else is there."""
    urls = " ".join(reversed(turn.urls))
    service = Service(tmp_path_factory.mktemp("relayed"), VISAVIS_TURN_URLS=urls, VISAVIS_TURN_SECRETS=turn.secret)
    await service.start(2)
    yield service.workers
    await service.stop()


async def test_the_whole_way_goes_well(relayed: list[Worker]) -> None:
    """Every step has a line as it is taken, and all of them together one more."""
    status, out, complaints = await probe(relayed[0].url)
    assert (status, complaints) == (0, ""), out
    lines = out.splitlines()
    assert lines[0] == f"Probing {relayed[0].url}"
    assert [line.split()[0] for line in lines[1:-1]] == ALL
    assert "over udp" in out
    assert lines[-1].startswith("All is well: 11 steps in ")
    assert "\r" not in out


async def test_the_two_may_be_on_two_workers(relayed: list[Worker]) -> None:
    """And machines are told how their media went, and no secret."""
    one, other = relayed
    status, told = await report(one.url, "--other", other.url)
    assert status == 0, told
    assert steps(told) == ALL
    assert (told["ok"], told["failed"], told["error"], told["skipped"]) == (True, None, None, [])
    assert (told["mode"], told["path"], told["transports"]) == ("video", "relay", ["udp", "udp"])
    assert not {"token", "credential", "username"} & set(json.dumps(told).split('"'))


async def test_a_run_leaves_nobody_behind(relayed: list[Worker]) -> None:
    """Nobody is online or waits when it has ended, also if it was interrupted on its way."""
    watcher = await arrive(relayed[0].url)
    going = await Probe(relayed[0].url, "--every", "0.1", "--repeat", "20").start()
    while "match" not in await going.said():
        pass
    assert going.process is not None
    going.process.send_signal(signal.SIGINT)
    status, out, complaints = await going.ended()
    assert (status, complaints) == (130, "")
    assert out.endswith("Interrupted; both guests have left.\n")
    await alone(watcher)
    await watcher.hang_up()


async def test_whoever_else_is_met_is_left_at_once(relayed: list[Worker]) -> None:
    """A guest who names no language may meet anybody; the two then look for each other once more."""
    stranger = await arrive(relayed[0].url)
    await stranger.find(mode="video", languages=[])
    # If both are in one round, they meet each other at once: the round knows that they suit each other better.
    going = await Probe("--json", "--every", "0.1", "--repeat", "20", relayed[0].url).start()
    notes = [""]
    while not notes[-1]:
        assert len(notes) <= 20
        told = json.loads(await going.said())
        assert steps(told) == ALL
        notes.append(next(step["note"] for step in told["steps"] if step["name"] == "match"))
    assert going.process is not None
    going.process.send_signal(signal.SIGTERM)
    assert (await going.ended())[0] == 143
    assert notes[-1] == "left 1 met by chance first"
    met = await stranger.next("match:found")
    ended = await stranger.next("conversation:ended")
    assert (ended["conversationId"], ended["reason"]) == (met["conversation"]["id"], "left")
    assert [name for name, _ in stranger.pushes].count("match:found") == 1
    await stranger.hang_up()


async def test_a_relay_that_relays_nothing_is_told_from_one_that_is_gone(worker_with: WorkerWith) -> None:
    """It gives addresses, and lets nobody send to them."""
    deaf = PrivateTurn("127.0.0.1", settings={"allowed-peer-ip": [], "denied-peer-ip": ["0.0.0.0-255.255.255.255"]})
    await deaf.start()
    await warmed(deaf)
    worker = await worker_with(VISAVIS_TURN_URLS=deaf.urls[0], VISAVIS_TURN_SECRETS=deaf.secret)
    status, told = await report(worker.url, "--timeout", "3")
    await deaf.stop()
    assert (status, told["failed"]) == (1, "call")
    assert steps(told) == ALL[:5]
    assert "firewall" in told["error"]


async def alone(watcher: Guest) -> None:
    """Until this guest is told that there is nobody else."""
    state = watcher.pushes[0][1]["lobby"]
    while state["online"] > 1:
        state = await watcher.next("lobby:state")
    assert state["waiting"] == 0


async def test_with_the_relay_gone_the_relay_is_what_failed(worker_with: WorkerWith) -> None:
    """It is named with its address; over TCP the system says at once that nobody is there."""
    port = free_port()
    urls = f"turn:127.0.0.1:{port}?transport=udp turn:127.0.0.1:{port}?transport=tcp"
    worker = await worker_with(VISAVIS_TURN_URLS=urls, VISAVIS_TURN_SECRETS="x" * 40)
    status, told = await report(worker.url, "--timeout", "3")
    assert (status, told["ok"], told["failed"]) == (1, False, "relay")
    assert steps(told) == ALL[:4]
    assert "no relayed candidate" in told["error"]
    assert all(url in told["error"] for url in urls.split())
    assert told["path"] is None


async def test_a_relay_with_another_secret_is_told_from_one_that_is_gone(
    worker_with: WorkerWith, turn: PrivateTurn
) -> None:
    """What to look at is the secret, not the network."""
    worker = await worker_with(VISAVIS_TURN_URLS=turn.urls[0], VISAVIS_TURN_SECRETS="x" * 40)
    status, out, complaints = await probe(worker.url)
    assert (status, complaints) == (1, "")
    assert "  relay " in out
    assert "FAILED" in out
    last = out.splitlines()[-1]
    assert last.startswith("Failed after ")
    assert "relay: no relayed candidate: " in last
    assert "secret" in last


async def test_without_udp_the_relay_is_reached_over_tcp(worker_with: WorkerWith, turn: PrivateTurn) -> None:
    """And it is said why."""
    urls = f"turn:127.0.0.1:{free_port()}?transport=udp {turn.urls[1]}"
    worker = await worker_with(VISAVIS_TURN_URLS=urls, VISAVIS_TURN_SECRETS=turn.secret)
    status, told = await report(worker.url, "--timeout", "4")
    assert status == 0, told
    assert told["transports"] == ["tcp", "tcp"]
    note = next(step["note"] for step in told["steps"] if step["name"] == "relay")
    assert "over tcp" in note
    assert urls.split(maxsplit=1)[0] in note


async def test_with_the_server_down_the_first_step_fails() -> None:
    """Also when it comes to machines, and more than once."""
    url = f"http://127.0.0.1:{free_port()}"
    status, out, complaints = await probe("--json", url, "--repeat", "2")
    assert (status, complaints) == (1, "")
    runs = [json.loads(line) for line in out.splitlines()]
    assert [run["failed"] for run in runs] == ["info", "info"]
    assert "cannot be reached" in runs[0]["error"]
    assert runs[0]["error"].endswith("?")


async def test_a_refusal_is_told_with_its_reason(worker_with: WorkerWith) -> None:
    """Here that the probe itself has asked for too much."""
    worker = await worker_with(VISAVIS_GUESTS_PER_WINDOW="1", VISAVIS_MODES="text")
    status, told = await report(worker.url)
    assert (status, told["failed"]) == (1, "guest")
    assert "rate_limited (Too many requests; try again in " in told["error"]
    assert "VISAVIS_GUESTS_PER_WINDOW" in told["error"]


async def test_a_server_for_text_is_probed_for_text(worker_with: WorkerWith) -> None:
    """What belongs to calls is skipped, and that is said."""
    worker = await worker_with(VISAVIS_MODES="text")
    status, told = await report(worker.url)
    assert status == 0, told
    assert steps(told) == ["info", "guest", "connect", "match", "text", "leave"]
    assert told["skipped"] == ["relay", "call", "audio", "video", "hang-up"]
    assert (told["mode"], told["path"]) == ("text", None)


async def test_without_a_relay_the_two_agree_to_connect_directly(worker: Worker) -> None:
    """Which is said, for a server that is to have a relay."""
    status, told = await report(worker.url)
    assert status == 0, told
    assert steps(told) == [name if name != "relay" else "direct" for name in ALL]
    assert (told["path"], told["transports"]) == ("direct", [])


async def test_what_is_no_server_is_a_mistake_of_the_command(tmp_path: Path) -> None:
    """As is a number that makes no sense: the status is 2, and nothing was probed."""
    mistakes = (("visavis.example",), ("http://127.0.0.1", "--every", "0"))
    for status, out, complaints in await asyncio.gather(*(probe(*arguments) for arguments in mistakes)):
        assert (status, out) == (2, "")
        assert "usage: visavis probe" in complaints
