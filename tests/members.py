"""Members of a call that is recorded: aiortc peers that send a colour and a tone, and the worker that speaks for them.

Hides what browsers and the chat worker do about recordings: the offers, the notes, and the relay between them.
"""

import asyncio
import contextlib
import fractions
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import redis.asyncio as redis
from aioice.turn import create_turn_endpoint
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack

from rig import PATIENCE, ROOT
from visavis.adapters.redis import DirectedBus, Recorders, connect
from visavis.adapters.turn import PrivateTurn, TurnServers
from visavis.core import notes
from visavis.core.calls import Consent
from visavis.core.identity import new_id

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
DARK = (9, 9, 9)


class Picture(MediaStreamTrack):
    """One colour, white in the first tenth of every second."""

    kind = "video"

    def __init__(self, colour: tuple[int, int, int], width: int = 320, height: int = 240, rate: int = 15) -> None:
        super().__init__()
        self.size = (width, height)
        self.colour = colour
        self._rate = rate
        self._began: float | None = None
        self._count = 0
        self.noise = False

    async def recv(self) -> av.VideoFrame:
        self._began = self._began or time.time()
        self._count += 1
        # Of the moment at which it is due, as a tone is: on a busy machine it comes late, but no flash is left out.
        due = self._began + self._count / self._rate
        await asyncio.sleep(max(0, due - time.time()))
        width, height = self.size
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = WHITE if due % 1 < 0.1 else self.colour
        if self.noise:
            small = np.random.default_rng(self._count).integers(0, 64, (height // 16, width // 16, 1), np.uint8)
            pixels //= 2
            pixels += np.kron(small, np.ones((16, 16, 1), np.uint8))
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts, frame.time_base = round((due - self._began) * 90_000), fractions.Fraction(1, 90_000)
        return frame


class Tone(MediaStreamTrack):
    """One tone; with `beats`, only in the first tenth of every second."""

    kind = "audio"

    def __init__(self, hertz: float, *, beats: bool = False) -> None:
        super().__init__()
        self._hertz = hertz
        self._beats = beats
        self._began: float | None = None
        self._samples = 0

    async def recv(self) -> av.AudioFrame:
        self._began = self._began or time.time()
        # Handed over when it is complete, as a microphone does.
        await asyncio.sleep(max(0, self._began + (self._samples + 960) / 48_000 - time.time()))
        moments = (self._samples + np.arange(960)) / 48_000
        wave = 0.4 * np.sin(2 * np.pi * self._hertz * moments)
        if self._beats:
            wave *= (moments + self._began) % 1 < 0.1
        frame = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[np.newaxis], "s16", "mono")
        frame.pts, frame.sample_rate, frame.time_base = self._samples, 48_000, fractions.Fraction(1, 48_000)
        self._samples += 960
        return frame


async def warmed(server: PrivateTurn) -> PrivateTurn:
    """A coturn that has just started refuses some of the first credentials it is shown: show it some."""
    for n in range(20):
        username, credential, _ = TurnServers(server.urls, (server.secret,)).credentials(f"warm {n}")
        with contextlib.suppress(Exception):
            transport, _ = await create_turn_endpoint(
                asyncio.DatagramProtocol, (server.address, server.port), username, credential
            )
            transport.close()
    return server


class Member:
    """One side of the call."""

    def __init__(self, studio: "Studio", seat: int, *tracks: MediaStreamTrack) -> None:
        self.studio = studio
        self.guest, self.device, self.seat = new_id(), new_id(), seat
        self.tracks = tracks
        self.peer: RTCPeerConnection | None = None
        self.answer = ""

    async def offer(self) -> str:
        """Make a peer connection; returns its complete description."""
        username, credential, _ = TurnServers(self.studio.turn.urls, (self.studio.turn.secret,)).credentials(self.guest)
        self.peer = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[RTCIceServer(self.studio.turn.urls[0], username, credential)],
                iceTransportPolicy=RTCIceTransportPolicy.RELAY,
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        for track in self.tracks:
            self.peer.addTransceiver(track, direction="sendonly")
        description = await self.peer.createOffer()
        assert description is not None
        await self.peer.setLocalDescription(description)
        text: str = self.peer.localDescription.sdp
        return text

    async def join(self, recording: "Ongoing") -> None:
        """Connect to the recorder."""
        sdp = await self.offer()
        push = await recording.offered(self, sdp)
        assert self.peer is not None
        self.answer = push["sdp"]
        await self.peer.setRemoteDescription(RTCSessionDescription(push["sdp"], "answer"))

    async def connected(self, timeout: float = PATIENCE) -> None:
        async with asyncio.timeout(timeout):
            while self.peer is None or self.peer.connectionState != "connected":
                await asyncio.sleep(0.02)

    async def closed(self, timeout: float = PATIENCE) -> None:
        async with asyncio.timeout(timeout):
            while self.peer is not None and self.peer.connectionState != "closed":
                await asyncio.sleep(0.02)

    async def leave(self) -> None:
        """Hang up."""
        assert self.peer is not None
        await self.peer.close()

    async def close(self) -> None:
        for track in self.tracks:
            track.stop()
        if self.peer is not None:
            await self.peer.close()


class Ongoing:
    """A recording, as the worker sees it."""

    def __init__(self, studio: "Studio", recorder: str, *members: Member) -> None:
        self.studio, self.recorder, self.members = studio, recorder, members
        self.id, self.conversation = new_id(), new_id()

    def begin(self, consent: Consent | None = None) -> None:
        given = consent or Consent(self.id, self.conversation, tuple(m.seat for m in self.members))
        members = tuple((m.guest, m.device, m.seat) for m in self.members)
        self._send(notes.Begin(self.id, self.conversation, given, members, time.time_ns() // 1_000_000))

    async def offered(self, member: Member, sdp: str, timeout: float = PATIENCE) -> dict[str, Any]:
        session = new_id()
        self._send(notes.Offered(self.id, member.guest, self.studio.worker, session, sdp))
        return await self.studio.answer(session, timeout)

    def finish(self) -> None:
        self._send(notes.Finish(self.id))

    async def over(self, timeout: float = PATIENCE) -> notes.Recorded:
        """How it ended."""
        return await self.studio.recorded(self, ("saved", "full", "empty", "failed"), timeout)

    async def on(self, timeout: float = PATIENCE) -> None:
        await self.studio.recorded(self, ("on",), timeout)

    @property
    def path(self) -> Path:
        return self.studio.folder / f"{self.id}.mp4"

    def _send(self, note: notes.ForRecorder) -> None:
        self.studio.bus.send(self.recorder, notes.encode(note), self.conversation)


class RecorderProcess:
    """`visavis recorder`, as a process."""

    def __init__(self, data_dir: Path, turn: PrivateTurn, redis_url: str, **environment: str) -> None:
        self.folder = data_dir / "recordings"
        self.log = data_dir / "recorder.log"
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("VISAVIS_")},
            "PYTHONPATH": str(ROOT / "backend"),
            "VISAVIS_DATA_DIR": str(data_dir),
            "REDIS_URL": redis_url,
            "VISAVIS_TURN_URLS": " ".join(turn.urls),
            "VISAVIS_TURN_SECRETS": turn.secret,
            **environment,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> "RecorderProcess":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "visavis", "recorder",
                env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        said = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        assert b"ready" in said, self.log.read_text()
        return self

    def children(self) -> list[int]:
        """The processes of its recordings."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        await asyncio.wait_for(self.process.wait(), PATIENCE)


class Studio:
    """The worker's side: its bus, and what came over it."""

    def __init__(self, turn: PrivateTurn, redis_url: str, folder: Path) -> None:
        self.turn, self.folder = turn, folder
        self.worker = new_id()
        self.valkey_pid = 0
        self._redis = redis.Redis.from_url(redis_url)
        self._keys = connect(redis_url)
        self.bus = DirectedBus(self._keys, self.worker)
        self.recorders = Recorders(self._keys)
        self.told: list[notes.AnyNote] = []
        self._news = asyncio.Condition()
        self._members: list[Member] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _receive(self, data: bytes) -> None:
        async def keep() -> None:
            async with self._news:
                self.told.append(notes.decode(data))
                self._news.notify_all()

        task = asyncio.ensure_future(keep())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self) -> "Studio":
        await self.bus.start(self._receive, lambda _: None)
        return self

    async def stop(self) -> None:
        await asyncio.gather(*(member.close() for member in self._members))
        await self.bus.stop()
        await self._keys.aclose()
        await self._redis.aclose()

    async def member(self, seat: int, *tracks: MediaStreamTrack) -> Member:
        """Someone who is connected to this worker."""
        made = Member(self, seat, *tracks)
        self._members.append(made)
        await self._redis.hset(f"v:{{c0}}:guest:{made.guest}", "worker", self.worker)
        await self._redis.pexpire(f"v:{{c0}}:guest:{made.guest}", 600_000)
        return made

    async def places(self) -> list[str]:
        """The recordings that have a place somewhere."""
        found = [await self._redis.hkeys(f"v:{{recorders}}:made:{name}") for name in await self.recorders.loads()]
        return [key.decode() for keys in found for key in keys if key]

    async def record(self, *members: Member, begin: bool = True) -> Ongoing:
        ongoing = Ongoing(self, "", *members)
        recorder = await self.recorders.claim(ongoing.id)
        assert recorder
        ongoing.recorder = recorder
        if begin:
            ongoing.begin()
        return ongoing

    async def answer(self, session: str, timeout: float) -> dict[str, Any]:
        """The push `recording:answer` for this session."""
        async with asyncio.timeout(timeout), self._news:
            while True:
                for note in self.told:
                    if isinstance(note, notes.Deliver):
                        event, push = msgspec.json.decode(note.frame[1:])
                        if event == "recording:answer" and push["session"] == session:
                            answer: dict[str, Any] = push
                            return answer
                await self._news.wait()

    async def recorded(self, ongoing: Ongoing, outcomes: tuple[str, ...], timeout: float) -> notes.Recorded:
        """What both members were told."""
        async with asyncio.timeout(timeout), self._news:
            while True:
                found = [
                    note
                    for note in self.told
                    if isinstance(note, notes.Recorded) and note.recording == ongoing.id and note.outcome in outcomes
                ]
                if {note.guest for note in found} == {member.guest for member in ongoing.members}:
                    return found[0]
                await self._news.wait()


@asynccontextmanager
async def studio(turn: PrivateTurn, redis_url: str, folder: Path) -> AsyncIterator[Studio]:
    made = await Studio(turn, redis_url, folder).start()
    try:
        yield made
    finally:
        await made.stop()


# --------------------------------------------------------------------------- what is in a file


class Watched:
    """A recording, decoded whole."""

    def __init__(self, path: Path) -> None:
        self.bytes = path.read_bytes()
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            self.codecs = (video.codec_context.name, video.codec_context.pix_fmt, audio.codec_context.name)
            self.profile = video.codec_context.profile
            self.size = (video.width, video.height)
            self.sound_rate = audio.rate
            self.seconds = float(container.duration or 0) / av.time_base
            self.times: list[float] = []
            self.pictures: list[Any] = []
            sound: list[Any] = []
            first: float | None = None
            for frame in container.decode(video, audio):
                assert frame.time is not None
                if isinstance(frame, av.VideoFrame):
                    self.times.append(frame.time)
                    # One pixel of eight in each direction is enough to tell what is where.
                    self.pictures.append(frame.to_ndarray(format="rgb24")[::8, ::8].copy())
                else:
                    first = frame.time if first is None else first
                    sound.append(frame.to_ndarray()[0])
            self.sound = np.concatenate(sound)
            self.sound_starts = first or 0.0

    def picture(self, at: float) -> Any:
        """What is to be seen at a time in seconds."""
        return self.pictures[min(range(len(self.times)), key=lambda n: abs(self.times[n] - at))]

    def half(self, number: int, seat: int) -> Any:
        """The middle of one member's half of one picture."""
        height, width = self.pictures[number].shape[:2]
        left = width // 4 + seat * width // 2
        return self.pictures[number][height // 2 - 5 : height // 2 + 5, left - 5 : left + 5]

    def beginnings(self, hertz: float) -> list[float]:
        """When a tone begins after a silence, in seconds."""
        step = 480
        loud = [self.tone(hertz, n / 100, n / 100 + 0.02) > 0.05 for n in range(len(self.sound) // step - 2)]
        return [n / 100 + 0.01 for n in range(10, len(loud)) if loud[n] and not any(loud[n - 10 : n])]

    def colour(self, at: float, seat: int) -> tuple[int, int, int]:
        """The colour in the middle of a half at a time in seconds."""
        picture = self.picture(at)
        height, width = picture.shape[:2]
        red, green, blue = picture[height // 2, width // 4 + seat * width // 2]
        return int(red), int(green), int(blue)

    def tone(self, hertz: float, start: float, end: float) -> float:
        """How strong a tone is in a part, as the amplitude of its sine."""
        part = self.sound[round(start * 48_000) : round(end * 48_000)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)))) * 4 / len(part)
        near = round(hertz * len(part) / 48_000)
        return float(spectrum[near - 3 : near + 4].max())
