"""The recorder, with aiortc peers as members, a real coturn between them, and the files decoded."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from members import BLUE, RED, WHITE, Picture, RecorderProcess, Studio, Tone, Watched, studio, warmed
from rig import missing
from visavis.adapters import turn
from visavis.adapters.turn import PrivateTurn
from visavis.adapters.valkey import PrivateValkey


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay() -> AsyncIterator[PrivateTurn]:
    """A coturn for all tests of this file."""
    if not turn.available():
        missing("no coturn")
    server = PrivateTurn()
    await server.start()
    yield await warmed(server)
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recorder(
    relay: PrivateTurn, valkey: PrivateValkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RecorderProcess]:
    """A recorder for the tests that leave it as it was."""
    process = await RecorderProcess(tmp_path_factory.mktemp("recorder"), relay, valkey.url).start()
    yield process
    await process.stop()


@pytest.fixture
async def set_up(relay: PrivateTurn, valkey: PrivateValkey, recorder: RecorderProcess) -> AsyncIterator[Studio]:
    async with studio(relay, valkey.url, recorder.folder) as made:
        yield made


async def test_both_are_seen_and_heard_side_by_side_in_one_file(set_up: Studio) -> None:
    """The first on the left, the other on the right, both voices, as long as it took, the index in front."""
    left = await set_up.member(0, Picture(RED), Tone(440))
    right = await set_up.member(1, Picture(BLUE), Tone(1000))
    recording = await set_up.record(left, right)
    await asyncio.gather(left.join(recording), right.join(recording))
    await recording.on()
    await asyncio.sleep(4)
    recording.finish()
    over = await recording.over()
    assert over.outcome == "saved"
    file = Watched(recording.path)
    assert file.codecs == ("h264", "yuv420p", "aac")
    assert (file.profile, file.size, file.sound_rate) == ("Main", (1280, 480), 48_000)
    assert file.bytes.index(b"moov") < file.bytes.index(b"mdat")
    assert 4 <= file.seconds <= 6
    for at in (1.5, 2.5, 3.5):
        # A flash may be just then.
        assert near(file.colour(at, 0), RED, WHITE)
        assert near(file.colour(at, 1), BLUE, WHITE)
    assert file.tone(440, 1, 3) > 0.1
    assert file.tone(1000, 1, 3) > 0.1
    assert file.tone(700, 1, 3) < 0.01


def near(seen: tuple[int, int, int], *colours: tuple[int, int, int]) -> bool:
    """Whether it is one of these colours, but for what compression changes."""
    return any(all(abs(a - b) < 40 for a, b in zip(seen, colour, strict=True)) for colour in colours)
