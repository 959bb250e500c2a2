"""The recorder, with aiortc peers as members, a real coturn between them, and the files decoded."""

import asyncio
import os
import random
import re
import resource
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pylibsrtp
import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection

from faults import within
from members import (
    BLUE,
    DARK,
    GREEN,
    RED,
    WHITE,
    Member,
    Ongoing,
    Picture,
    RecorderProcess,
    Studio,
    Tone,
    Watched,
    studio,
    warmed,
)
from rig import PATIENCE, missing
from visavis.adapters import turn
from visavis.adapters.recorder import _shield, readable
from visavis.adapters.turn import PrivateTurn
from visavis.adapters.valkey import PrivateValkey
from visavis.core.calls import Consent
from visavis.core.identity import new_id
from visavis.core.recorder import RecorderLoad


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


@asynccontextmanager
async def own(relay: PrivateTurn, folder: Path, **environment: str) -> AsyncIterator[tuple[RecorderProcess, Studio]]:
    """A recorder with a Valkey of its own, for a test that ends or fills it."""
    server = PrivateValkey()
    await server.start()
    process = RecorderProcess(folder, relay, server.url, **environment)
    try:
        await process.start()
        async with studio(relay, server.url, process.folder) as made:
            assert server._process is not None
            made.valkey_pid = server._process.pid
            yield process, made
    finally:
        await process.stop()
        await server.stop()


def near(seen: tuple[int, int, int], *colours: tuple[int, int, int]) -> bool:
    """Whether it is one of these colours, but for what compression changes."""
    return any(all(abs(int(a) - b) < 40 for a, b in zip(seen, colour, strict=True)) for colour in colours)


async def call(studio: Studio, **left: Any) -> tuple[Ongoing, Member, Member]:
    """A recording that has begun, of someone red on the left and someone blue on the right."""
    one = await studio.member(0, Picture(RED), Tone(440, **left))
    other = await studio.member(1, Picture(BLUE), Tone(1000))
    recording = await studio.record(one, other)
    await asyncio.gather(one.join(recording), other.join(recording))
    await recording.on()
    return recording, one, other


# --------------------------------------------------------------------------- what is in it


async def test_both_are_seen_and_heard_side_by_side_in_one_file(set_up: Studio) -> None:
    """The first on the left, the other on the right, both voices, as long as it took, the index in front."""
    recording, _, _ = await call(set_up)
    await asyncio.sleep(3.5)
    recording.finish()
    over = await recording.over()
    assert over.outcome == "saved"
    assert over.expires_at / 1000 == pytest.approx(time.time() + 86_400, abs=60)
    file = Watched(recording.path)
    assert file.codecs == ("h264", "yuv420p", "aac")
    assert (file.profile, file.size, file.sound_rate) == ("Main", (1280, 480), 48_000)
    assert file.bytes.index(b"moov") < file.bytes.index(b"mdat")
    assert 3.5 <= file.seconds <= 5.5
    assert file.seconds == pytest.approx(len(file.sound) / 48_000, abs=0.1)
    assert np.diff(file.times) == pytest.approx(1 / 20)
    for at in (1.5, 2.5, 3.3):
        # A flash may be just then.
        assert near(file.colour(at, 0), RED, WHITE)
        assert near(file.colour(at, 1), BLUE, WHITE)
    assert file.tone(440, 1, 3) > 0.1
    assert file.tone(1000, 1, 3) > 0.1
    assert file.tone(700, 1, 3) < 0.01
    # Said with the next beat.
    await asyncio.sleep(0.7)
    (load,) = (await set_up.recorders.loads()).values()
    said = msgspec.json.decode(load, type=RecorderLoad)
    assert said.places == 4
    assert said.begun >= said.saved >= 1
    assert said.seconds >= file.seconds - 1


async def test_what_is_seen_and_heard_at_once_is_at_once_in_the_file(set_up: Studio) -> None:
    """Flashes and beeps fall together, the other's flashes with them."""
    recording, _, _ = await call(set_up, beats=True)
    await asyncio.sleep(4.5)
    recording.finish()
    await recording.over()
    file = Watched(recording.path)
    left, right = ([file.half(n, seat).min() > 180 for n in range(len(file.times))] for seat in (0, 1))
    flashes = [time for time, lit, before in zip(file.times[1:], left[1:], left, strict=False) if lit and not before]
    others = [time for time, lit, before in zip(file.times[1:], right[1:], right, strict=False) if lit and not before]
    beeps = file.beginnings(440)
    assert min(len(flashes), len(others), len(beeps)) >= 3
    # A flash is seen with the first picture of fifteen a second that has it, and drawn with the next of twenty.
    late = [min((flash - beep for beep in beeps), key=abs) for flash in flashes[1:-1]]
    assert max(map(abs, late)) < 0.16, late
    assert abs(float(np.median(late))) < 0.1, late
    assert max(min(abs(flash - other) for other in others) for flash in flashes[1:-1]) < 0.16


async def test_who_comes_late_or_leaves_or_changes_is_where_and_when_it_was(set_up: Studio) -> None:
    """A half is dark while nobody is there; a small picture is drawn large, a tall one between bars."""
    picture = Picture(RED)
    left = await set_up.member(0, picture)
    right = await set_up.member(1, Picture(BLUE), Tone(1000))
    recording = await set_up.record(left, right)
    await left.join(recording)
    await recording.on()
    began = time.monotonic()
    await asyncio.sleep(1)
    picture.size = (40, 30)
    await right.join(recording)
    await right.connected()
    came = time.monotonic() - began
    await asyncio.sleep(2)
    picture.size = (120, 320)
    left_at = time.monotonic() - began
    await right.leave()
    await asyncio.sleep(1.5)
    recording.finish()
    await recording.over()
    file = Watched(recording.path)
    assert near(file.colour(0.3, 1), DARK)
    assert near(file.colour(0.3, 0), RED, WHITE)
    # How long it took to be told that it is on, nobody knows to the tenth.
    assert near(file.colour(came + 1.7, 1), BLUE, WHITE)
    assert near(file.colour(came + 1.7, 0), RED, WHITE)
    assert near(tuple(file.picture(came + 1.7)[2, 2]), RED, WHITE)
    end = file.seconds - 0.1
    assert left_at < end
    assert near(file.colour(end, 1), DARK)
    assert near(file.colour(end, 0), RED, WHITE)
    assert near(tuple(file.picture(end)[30, 4]), DARK)
    assert file.tone(1000, came + 1.5, came + 2) > 0.1


async def test_who_offers_again_is_taken_from_the_new_connection(set_up: Studio) -> None:
    """As after a reload in the middle: the old connection is let go of."""
    recording, _, other = await call(set_up)
    again = await set_up.member(1, Picture(GREEN), Tone(600))
    again.guest = other.guest
    await again.join(recording)
    await asyncio.gather(again.connected(), other.closed())
    await asyncio.sleep(1.5)
    recording.finish()
    assert (await recording.over()).outcome == "saved"
    file = Watched(recording.path)
    end = file.seconds - 0.1
    assert near(file.colour(end, 0), RED, WHITE)
    assert near(file.colour(end, 1), GREEN, WHITE)
    assert file.tone(600, end - 0.6, end) > 0.1
    assert file.tone(1000, end - 0.6, end) < 0.01


# --------------------------------------------------------------------------- when it ends


async def test_a_consent_taken_back_ends_it_within_a_second(set_up: Studio) -> None:
    """The members' connections close, and nothing later is in the file."""
    recording, one, other = await call(set_up)
    await asyncio.sleep(1.5)
    recording.finish()
    finished = time.monotonic()
    await asyncio.gather(one.closed(), other.closed())
    assert time.monotonic() - finished < 1
    one.tracks[0].colour = other.tracks[0].colour = GREEN
    assert (await recording.over(3)).outcome == "saved"
    file = Watched(recording.path)
    assert file.seconds < 3.5
    assert not any(near(file.colour(at, seat), GREEN) for at in file.times for seat in (0, 1))


async def test_a_place_given_back_ends_it_even_if_no_note_says_so(set_up: Studio) -> None:
    """What is lost on the bus is found in Redis."""
    recording, one, other = await call(set_up)
    await set_up.recorders.release(recording.recorder, recording.id)
    await asyncio.wait_for(asyncio.gather(one.closed(), other.closed()), 1.5)
    assert (await recording.over(3)).outcome == "saved"


async def test_without_the_consent_of_both_nothing_is_made(set_up: Studio, recorder: RecorderProcess) -> None:
    """Nor with a consent to something else, nor if its end overtook its beginning."""
    one, other = [await set_up.member(seat, Tone(440)) for seat in (0, 1)]
    refused = []
    for wrong in ({"by": (0,)}, {"recording": new_id()}, {"conversation": new_id()}, {"by": (0, 1, 2)}):
        recording = await set_up.record(one, other, begin=False)
        given = {"recording": recording.id, "conversation": recording.conversation, "by": (0, 1), **wrong}
        recording.begin(Consent(**given))
        refused.append(recording)
    async with within(3), asyncio.timeout(PATIENCE):
        # Their places are free again.
        while len(await set_up.places()):
            await asyncio.sleep(0.05)
    overtaken = await set_up.record(one, other, begin=False)
    overtaken.finish()
    overtaken.begin()
    await asyncio.sleep(0.5)
    assert recorder.children() == []
    with pytest.raises(TimeoutError):
        await refused[0].offered(one, await one.offer(), timeout=0.5)
    await set_up.recorders.release(overtaken.recorder, overtaken.id)


async def test_a_stranger_is_not_answered(set_up: Studio) -> None:
    """Only members of the recording can send to it."""
    one, other, stranger = [await set_up.member(seat, Tone(700)) for seat in (0, 1, 2)]
    recording = await set_up.record(one, other)
    with pytest.raises(TimeoutError):
        await recording.offered(stranger, await stranger.offer(), timeout=0.5)
    assert await recording.offered(one, await one.offer())
    recording.finish()
    await recording.over()


async def test_nothing_heard_and_nothing_seen_leaves_no_file(set_up: Studio) -> None:
    """Ended before anybody came."""
    one, other = [await set_up.member(seat, Tone(440)) for seat in (0, 1)]
    recording = await set_up.record(one, other)
    await asyncio.sleep(0.5)
    recording.finish()
    assert (await recording.over()).outcome == "empty"
    assert not recording.path.exists()


async def test_there_are_as_many_places_as_the_setting_says(
    relay: PrivateTurn, valkey: PrivateValkey, tmp_path: Path
) -> None:
    """Who comes later finds them all taken, or is told so if two were given the last one; and each has an end."""
    async with own(relay, tmp_path, VISAVIS_RECORDINGS_AT_ONCE="1", VISAVIS_RECORDING_SECONDS="2") as (_, studio):
        first, _, _ = await call(studio)
        again = await studio.recorders.claim(first.id)
        assert again == first.recorder
        assert await studio.recorders.claim(new_id()) == ""
        late = Ongoing(studio, first.recorder, *[await studio.member(seat, Tone(440)) for seat in (0, 1)])
        late.begin()
        assert (await late.over()).outcome == "full"
        assert (await first.over()).outcome == "saved"
        assert 1.9 <= Watched(first.path).seconds <= 3.6
        async with within(2), asyncio.timeout(PATIENCE):
            while not await studio.recorders.claim(new_id()):
                await asyncio.sleep(0.05)


# --------------------------------------------------------------------------- when something breaks


async def test_a_crash_leaves_nothing_and_harms_no_other(set_up: Studio, recorder: RecorderProcess) -> None:
    """One recording's process killed: it failed; the other goes on."""
    before = set(recorder.children())
    doomed, _, _ = await call(set_up)
    (pid,) = set(recorder.children()) - before
    other, _, _ = await call(set_up)
    files = set(recorder.folder.iterdir())
    os.kill(pid, signal.SIGKILL)
    assert (await doomed.over(5)).outcome == "failed"
    await asyncio.sleep(1)
    other.finish()
    assert (await other.over()).outcome == "saved"
    assert set(recorder.folder.iterdir()) - files == {other.path}
    assert Watched(other.path).seconds > 1


async def test_a_stopped_recorder_finishes_and_a_killed_one_leaves_nothing(
    relay: PrivateTurn, valkey: PrivateValkey, tmp_path: Path
) -> None:
    """Asked to stop, it saves what there is; killed, its recordings' processes go with it, and no file has a name."""
    async with own(relay, tmp_path) as (process, studio):
        recording, _, _ = await call(studio)
        await asyncio.sleep(0.5)
        await process.stop()
        assert (await recording.over()).outcome == "saved"
        assert Watched(recording.path).seconds > 0.5
        await process.start()
        await call(studio)
        (pid,) = process.children()
        await asyncio.sleep(1)
        await process.kill()
        async with within(2), asyncio.timeout(PATIENCE):
            while Path(f"/proc/{pid}/exe").exists():
                await asyncio.sleep(0.02)
        assert list(process.folder.iterdir()) == [recording.path]


async def test_a_recorder_that_cannot_hear_of_a_withdrawal_ends_what_it_records(
    relay: PrivateTurn, tmp_path: Path
) -> None:
    """Redis is away for some seconds: nobody could say that a consent was taken back."""
    async with own(relay, tmp_path) as (_, studio):
        recording, one, other = await call(studio)
        os.kill(studio.valkey_pid, signal.SIGSTOP)
        try:
            await asyncio.gather(one.closed(), other.closed())
        finally:
            os.kill(studio.valkey_pid, signal.SIGCONT)
        assert (await recording.over()).outcome == "saved"


async def test_a_full_disk_fails_one_recording_and_leaves_nothing(set_up: Studio, recorder: RecorderProcess) -> None:
    """Its process may write no more than some kilobytes; the operating system refuses the rest."""
    before = set(recorder.children())
    recording, _, _ = await call(set_up)
    (pid,) = set(recorder.children()) - before
    files = set(recorder.folder.iterdir())
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (8000, 8000))
    await asyncio.sleep(1)
    recording.finish()
    assert (await recording.over()).outcome == "failed"
    assert set(recorder.folder.iterdir()) == files


async def test_a_disk_that_is_nearly_full_has_no_place(
    relay: PrivateTurn, valkey: PrivateValkey, tmp_path: Path
) -> None:
    """Both members are told that it is full, before anything is begun."""
    async with own(relay, tmp_path, VISAVIS_RECORDINGS_FREE_BYTES=str(1 << 62)) as (_, studio):
        assert await studio.recorders.claim(new_id()) == ""


async def test_no_garbage_ends_a_recording(set_up: Studio) -> None:
    """Neither a stranger's at the relayed address nor a member's own: the other half goes on."""
    recording, one, other = await call(set_up)
    found = re.search(r"candidate:\S+ 1 udp \d+ (\S+) (\d+) typ relay", other.answer)
    assert found
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(set_up.turn.address, 0)
    )
    for garbage in garbages():
        transport.sendto(garbage, (found[1], int(found[2])))
    assert one.peer is not None
    dtls = one.peer.getSenders()[0].transport
    for garbage in garbages():
        await dtls.transport._send(garbage)
        if len(garbage) >= 12:
            # Encrypted as a member can: what is wrong with it is seen only inside.
            for second in (97, 96, 98, 99, 200, 201, 202, 205, 206):
                with suppress(pylibsrtp.Error, ValueError):
                    await dtls._send_rtp(bytes([garbage[0] & 0x3F | 0x80, second]) + garbage[2:])
    await asyncio.sleep(2)
    transport.close()
    recording.finish()
    assert (await recording.over()).outcome == "saved"
    file = Watched(recording.path)
    end = file.seconds - 0.2
    assert near(file.colour(end, 1), BLUE, WHITE)
    assert file.tone(1000, end - 0.8, end) > 0.1


def garbages() -> list[bytes]:
    """Datagrams that are nothing, almost something, or much."""
    chance = random.Random(7)
    made = [b"", b"\0", b"\x80", b"\x16\xfe\xfd", b"\x90\x60" + b"\xff" * 10, b"\xbf" * 1400]
    made += [bytes([first]) + chance.randbytes(chance.randrange(0, 1200)) for first in range(0, 256, 5)]
    made += [b"\x90" + chance.randbytes(40) for _ in range(60)]
    return made


async def test_a_datagram_that_is_neither_dtls_nor_srtp_goes_no_further() -> None:
    """An empty one would end the transport: coturn passes none on, but others may."""
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("audio").receiver
    _shield(receiver)
    connection = receiver.transport.transport.iceGatherer._connection
    for data in (b"", b"\0", b"\x40", b"\xff"):
        connection.data_received(data, 1)
    assert connection._queue.empty()
    for data in (b"\x16", b"\x80"):
        connection.data_received(data, 1)
    assert connection._queue.qsize() == 2
    await peer.close()


# --------------------------------------------------------------------------- whom it sends to


class Canary(asyncio.DatagramProtocol):
    """Hears whoever sends to an address that nobody should send to."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.append(addr)


async def test_the_recorder_sends_to_nobody_but_by_the_relay(set_up: Studio) -> None:
    """An offer may name any address as any kind of candidate: only the relay may reach it, if it allows that."""
    loop = asyncio.get_running_loop()
    here, near_by, allowed = [
        (await loop.create_datagram_endpoint(Canary, local_addr=(address, 0)))[1]
        for address in ("127.0.0.1", set_up.turn.address, set_up.turn.address)
    ]
    one, other = await set_up.member(0, Picture(RED), Tone(440)), await set_up.member(1, Tone(1000))
    recording = await set_up.record(one, other)
    lines = []
    kinds = ("host", "srflx", "prflx")
    named = [*((here, kind) for kind in (*kinds, "relay")), *((near_by, kind) for kind in kinds), (allowed, "relay")]
    for number, (canary, kind) in enumerate(named):
        address, port = canary.transport.get_extra_info("sockname")
        beside = "" if kind == "host" else f" raddr {address} rport {port}"
        lines.append(f"a=candidate:{number} 1 udp {16_777_215 - number} {address} {port} typ {kind}{beside}")
    port = here.transport.get_extra_info("sockname")[1]
    lines.append(f"a=candidate:91 1 udp 9 {'0' * 8}-0000-0000-0000-{'0' * 12}.local {port} typ host")
    offer = await one.offer()
    text = re.sub(r"(?:a=candidate:[^\r\n]*\r\n)+", "\r\n".join(lines) + "\r\n", offer)
    text = re.sub(r"c=IN IP4 \S+", "c=IN IP4 127.0.0.1", text)
    answer = (await recording.offered(one, text))["sdp"]
    await asyncio.sleep(2.5)
    recording.finish()
    await recording.over()
    for canary in (here, near_by, allowed):
        canary.transport.close()
    assert here.heard == []
    assert near_by.heard == []
    # The relay lets this address be reached, and so it is: from the relay's port, and from no other.
    found = re.search(r" (\S+) (\d+) typ relay", answer)
    assert found
    assert set(allowed.heard) == {(found[1], int(found[2]))}
    assert re.findall(r"typ (\w+)", answer) == ["relay"] * answer.count("typ ")
    assert set(re.findall(r"candidate:\S+ 1 udp \d+ (\S+)", answer)) == {set_up.turn.address}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=0",
        "v=0\r\n" * 500,
        "\0" * 100,
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" * 900,
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    ],
    ids=["nothing", "one line", "no sections", "zeroes", "a thousand sections", "data"],
)
def test_an_offer_that_no_browser_makes_is_not_read(text: str) -> None:
    """It is refused before anything looks into it."""
    with pytest.raises(ValueError, match=r"description_refused|one stream"):
        readable(text)


async def test_an_offer_is_read_for_relayed_candidates_at_an_address_alone(set_up: Studio) -> None:
    """No name is looked up, and none of the others is even known to what connects."""
    one = await set_up.member(0, Tone(440))
    offer = await one.offer()
    assert "typ relay" in readable(offer)
    with pytest.raises(ValueError, match="relayed"):
        readable(offer.replace("typ relay", "typ srflx"))
    with pytest.raises(ValueError, match="description_refused"):
        readable(re.sub(r"(candidate:\S+ 1 udp \d+) \S+", r"\1 localhost", offer))
