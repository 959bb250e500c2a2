"""One recording of a call, as a process of its own: what the members send, side by side in one MP4.

Hides WebRTC and the codecs. Strangers' media is decoded by native code, so each recording has a process: what kills
one leaves the others alone, and nothing of it behind, for the file has no name until it is complete. The process is
told what to do over its standard input, answers over its standard output, and ends when the input does.

It speaks to relays only. It gathers no candidate but those a relay gives it, keeps none of an offer's but relayed
ones, and what it sends to those goes through its own relay, which decides whom it reaches.

Private names of aiortc and aioice that this leans on: RTCIceGatherer._connection and Connection.data_received.
"""

import asyncio
import collections
import contextlib
import fcntl
import fractions
import ipaddress
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import numpy.typing as npt
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.sdp import SessionDescription
from av.video.reformatter import Interpolation, VideoReformatter

from visavis import logs
from visavis.contract import Refused
from visavis.core import sdp, tape
from visavis.core.tape import Answer, Ended, Load, Offer, Rolling, Stop

log = logging.getLogger(__name__)

TILE_WIDTH, HEIGHT = 640, 480
RATE = 20
"""Pictures a second."""
SOUND_RATE = 48_000
SOUND_FRAME = 1024
BEHIND = 0.5
"""Seconds between something's arrival and its being written: what comes later than that is left out."""
HURRY = 1.0
"""Seconds more than that, after which pictures are left out to catch up."""
DARK_AFTER = 3.0
"""Seconds without a picture after which the camera counts as off."""
DARK = (24, 128, 128)
LARGEST_PICTURE = 1920 * 1200
STARTS_WITHIN = 45.0
"""Seconds to wait for the first picture or sound."""
SILENT_FOR = 15.0
"""Seconds without either after which everybody has gone."""
CONNECTS_WITHIN = 30.0
MEMORY = 1 << 30
"""Bytes of memory the process may take."""

Samples = npt.NDArray[np.float32]


# --------------------------------------------------------------------------- time


class Clock:
    """Where a track's frames belong in this process's time.

    A track's own time starts anywhere and drifts, and arrivals jitter: the least delay of the last seconds is taken
    for that of the path. `held`: seconds for which aiortc's jitter buffer keeps a frame that is complete.
    """

    WINDOW = 5.0
    LEAP = 2.0
    """A delay that differs by more than this is a new beginning."""

    def __init__(self) -> None:
        self._least = [0.0, 0.0]
        self._since: float | None = None

    def place(self, time: float, arrival: float, held: float) -> float:
        """The moment that a frame of this time belongs to."""
        delay = arrival - held - time
        if self._since is None or abs(delay - min(self._least)) > self.LEAP:
            self._least = [delay, delay]
            self._since = arrival
        elif arrival - self._since > self.WINDOW:
            self._least = [self._least[1], delay]
            self._since = arrival
        else:
            self._least[1] = min(self._least[1], delay)
        return time + min(self._least)


# --------------------------------------------------------------------------- members


class Sound:
    """A member's samples on the recording's time: written from the event loop, taken by the writing thread."""

    LENGTH = 4 * SOUND_RATE
    SLACK = SOUND_RATE // 25
    """Samples that belong this near to the last ones follow them without a gap."""

    def __init__(self) -> None:
        self._ring: Samples = np.zeros(self.LENGTH, np.float32)
        self._next: int | None = None
        self._taken = 0
        self._lock = threading.Lock()

    def write(self, at: int, samples: Samples) -> None:
        with self._lock:
            if self._next is None or abs(at - self._next) > self.SLACK:
                self._next = at
            start = self._next
            self._next = start + len(samples)
            late = max(0, self._taken - start)
            if late >= len(samples) or self._next > self._taken + self.LENGTH:
                return
            places = np.arange(start + late, self._next) % self.LENGTH
            self._ring[places] = samples[late:]

    def take(self, start: int, count: int) -> Samples:
        with self._lock:
            places = np.arange(start, start + count) % self.LENGTH
            taken = self._ring[places]
            self._ring[places] = 0
            self._taken = start + count
            return taken


class Member:
    """One member's half: the newest picture that is due, and the sound."""

    def __init__(self) -> None:
        self.sound = Sound()
        self._pictures: collections.deque[tuple[float, av.VideoFrame | None]] = collections.deque(maxlen=24)
        self._shown: tuple[float, av.VideoFrame] | None = None
        self._drawn: av.VideoFrame | None = None
        self._reformatter = VideoReformatter()
        self._dark = True

    def show(self, at: float, picture: av.VideoFrame) -> None:
        if picture.width * picture.height <= LARGEST_PICTURE:
            self._pictures.append((at, picture))

    def hide(self, at: float) -> None:
        """There are no more pictures."""
        self._pictures.append((at, None))

    def draw(self, now: float, planes: list[npt.NDArray[np.uint8]]) -> None:
        """Put what is to be seen at this moment into the member's half of the canvas."""
        while self._pictures and self._pictures[0][0] <= now:
            at, picture = self._pictures.popleft()
            self._shown = (at, picture) if picture else None
        if self._shown is None or now - self._shown[0] > DARK_AFTER:
            if not self._dark or self._drawn is None:
                _darken(planes)
            self._dark, self._shown, self._drawn = True, None, None
        elif self._shown[1] is not self._drawn:
            width, height = _fitted(self._shown[1].width, self._shown[1].height)
            try:
                scaled = self._reformatter.reformat(
                    self._shown[1], width, height, "yuv420p", interpolation=Interpolation.BICUBIC
                )
            except (av.FFmpegError, ValueError):
                return
            if self._dark or self._drawn is None or _shape(self._drawn) != _shape(self._shown[1]):
                _darken(planes)
            self._dark, self._drawn = False, self._shown[1]
            for plane, canvas, small in zip(scaled.planes, planes, (1, 2, 2), strict=True):
                pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                w, h = width // small, height // small
                top, left = (canvas.shape[0] - h) // 2, (canvas.shape[1] - w) // 2
                canvas[top : top + h, left : left + w] = pixels[:h, :w]


def _shape(picture: av.VideoFrame) -> tuple[int, int]:
    return picture.width, picture.height


def _darken(planes: list[npt.NDArray[np.uint8]]) -> None:
    for plane, value in zip(planes, DARK, strict=True):
        plane[:] = value


def _fitted(width: int, height: int) -> tuple[int, int]:
    """The largest even size of this shape that fits a tile; a multiple of four apart, so that chroma is centred."""
    scale = min(TILE_WIDTH / width, HEIGHT / height)
    return max(4, round(width * scale) // 4 * 4), max(4, round(height * scale) // 4 * 4)


# --------------------------------------------------------------------------- the file


class Unnamed:
    """A file that nobody can open until it is given its name; gone with the process, if that comes first.

    Where the file system has no such files it is a hidden one, locked while it is written, so that a later sweep
    knows it for abandoned.
    """

    def __init__(self, folder: Path, name: str, *, hidden: bool = False) -> None:
        """Raise OSError. `hidden`: as if the file system had no unnamed files."""
        self._folder = folder
        self._name = name
        self._partial: Path | None = None
        handle = None if hidden else _unnamed(folder)
        if handle is not None:
            self._handle = handle
        else:
            self._partial = folder / f".{name}.partial"
            self._handle = os.open(self._partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = str(self._partial) if self._partial else f"/proc/self/fd/{self._handle}"

    def name(self) -> int:
        """The file is complete: let it be found. Returns its size in bytes; raises OSError."""
        os.fsync(self._handle)
        if self._partial is not None:
            os.link(self._partial, self._folder / self._name)
            self._partial.unlink()
            self._partial = None
        else:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                # With a folder given, os.link follows the link that stands for the open file.
                os.link(self.path, self._name, dst_dir_fd=folder)
            finally:
                os.close(folder)
        return self.size

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def close(self) -> None:
        os.close(self._handle)
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)


def _unnamed(folder: Path) -> int | None:
    flag = getattr(os, "O_TMPFILE", 0)
    with contextlib.suppress(OSError):
        return os.open(folder, flag | os.O_RDWR, 0o600) if flag else None
    return None


class Film:
    """Writes the members' pictures and sound, from a thread, until it is stopped."""

    def __init__(self, load: Load, members: list[Member], began: float, ended: Callable[[Ended], None]) -> None:
        """`ended` is called from the thread."""
        self._load = load
        self._members = members
        self._began = began
        self._ended = ended
        self._stop_at: float | None = None
        self._wake = threading.Event()
        self._pictures = 0
        self._samples = 0
        width = TILE_WIDTH * len(members)
        self._canvas = [np.empty((HEIGHT // small, width // small), np.uint8) for small in (1, 2, 2)]
        self._halves = [
            [
                plane[:, n * plane.shape[1] // len(members) :][:, : plane.shape[1] // len(members)]
                for plane in self._canvas
            ]
            for n in range(len(members))
        ]
        _darken(self._canvas)

    @property
    def seconds(self) -> float:
        return self._pictures / RATE

    def start(self) -> None:
        threading.Thread(target=self._run, name="film", daemon=True).start()

    def stop(self) -> None:
        """Nothing that belongs after this moment is written."""
        if self._stop_at is None:
            self._stop_at = time.monotonic()
            self._wake.set()

    def _run(self) -> None:
        outcome, size = "failed", 0
        try:
            size = self._write()
            outcome = "saved" if size else "empty"
        except (av.FFmpegError, OSError) as error:
            log.warning("recording_failed", extra={"why": type(error).__name__})
        except Exception:
            log.exception("recording_failed")
        self._ended(Ended(outcome, self.seconds, size))

    def _write(self) -> int:
        file = Unnamed(Path(self._load.folder), f"{self._load.recording}.mp4")
        try:
            container = av.open(file.path, "w", format="mp4", options={"movflags": "+faststart"})
            try:
                picture, sound = self._streams(container)
                while self._step(container, picture, sound):
                    if self._pictures % (RATE * 5) == 0 and file.size > self._load.largest:
                        self.stop()
                if not self._pictures:
                    return 0
                container.mux(picture.encode(None))
                container.mux(sound.encode(None))
            finally:
                # Writes the index, and moves it to the front.
                container.close()
            return file.name()
        finally:
            file.close()

    def _streams(self, container: Any) -> tuple[Any, Any]:
        picture = container.add_stream(
            "libx264",
            rate=RATE,
            options={
                "preset": "superfast",
                "profile": "main",
                "crf": "25",
                "maxrate": "1200k",
                "bufsize": "2400k",
                "g": str(RATE * 5),
            },
        )
        picture.width, picture.height, picture.pix_fmt = TILE_WIDTH * len(self._members), HEIGHT, "yuv420p"
        picture.thread_count = 1
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        sound.bit_rate = 80_000
        return picture, sound

    def _step(self, container: Any, picture: Any, sound: Any) -> bool:
        """Write the next picture and its sound once they are due; False when there are no more."""
        stop_at = self._stop_at
        due = self._began + (self._pictures + 1) / RATE
        if stop_at is not None and due > stop_at:
            return False
        wait = due + BEHIND - time.monotonic()
        if stop_at is None and wait > 0:
            self._wake.wait(wait)
            return True
        if wait > -HURRY or stop_at is not None or self._pictures % RATE == 0:
            self._write_picture(container, picture, due)
        self._pictures += 1
        while (self._samples + SOUND_FRAME) * RATE <= self._pictures * SOUND_RATE:
            self._write_sound(container, sound)
        return True

    def _write_picture(self, container: Any, stream: Any, due: float) -> None:
        for member, half in zip(self._members, self._halves, strict=True):
            member.draw(due, half)
        frame = av.VideoFrame(self._canvas[0].shape[1], HEIGHT, "yuv420p")
        for plane, canvas in zip(frame.planes, self._canvas, strict=True):
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:, : canvas.shape[1]] = canvas
        frame.pts, frame.time_base = self._pictures, fractions.Fraction(1, RATE)
        container.mux(stream.encode(frame))

    def _write_sound(self, container: Any, stream: Any) -> None:
        mixed = np.zeros(SOUND_FRAME, np.float32)
        for member in self._members:
            mixed += member.sound.take(self._samples, SOUND_FRAME)
        frame = av.AudioFrame.from_ndarray(np.clip(mixed, -1, 1)[np.newaxis], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._samples, fractions.Fraction(1, SOUND_RATE)
        container.mux(stream.encode(frame))
        self._samples += SOUND_FRAME


# --------------------------------------------------------------------------- peers


def readable(offer: str) -> str:
    """An offer with nothing in it that this process would act on but relayed candidates at an IP address.

    Raises ValueError for what no browser offers.
    """
    try:
        cleaned = sdp.clean(offer, relay_only=True, video=True)
    except Refused as refused:
        raise ValueError(refused.code) from None
    sections: list[list[str]] = [[]]
    candidates: list[str] = []
    for line in cleaned.splitlines():
        if line.startswith("m="):
            sections.append([])
        if not line.startswith("a=candidate:"):
            sections[-1].append(line)
            continue
        words = line.split()
        if len(words) >= 8 and words[6:8] == ["typ", "relay"] and words[2].lower() == "udp":
            ipaddress.ip_address(words[4])
            candidates.append(line)
    kinds = [section[0].split()[0] for section in sections[1:]]
    if not kinds or sorted(kinds) != sorted(set(kinds)):
        raise ValueError("one stream of each kind")
    if not candidates:
        raise ValueError("no relayed candidate")
    # Browsers name the candidates of a bundle in its first section, and aiortc keeps those of the last.
    named = [sections[0], *(section + candidates for section in sections[1:])]
    return "\r\n".join(line for section in named for line in section) + "\r\n"


class Recording:
    """The members' peer connections, and the film they make."""

    def __init__(self, load: Load, say: Callable[[tape.FromTape], None]) -> None:
        self._load = load
        self._say = say
        self._members = {guest: Member() for guest in load.guests}
        self._peers: dict[str, RTCPeerConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._film: Film | None = None
        self._loaded = self._heard = time.monotonic()
        self._began = 0.0
        self._stalled = 0.0
        self._stopped = asyncio.Event()
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def receive(self, message: tape.ToTape) -> None:
        """Do what the recorder says."""
        if isinstance(message, Stop):
            self.stop()
        elif isinstance(message, Offer) and message.guest in self._members and not self._stopped.is_set():
            self._spawn(self._answer(message))

    def stop(self) -> None:
        """End the film now."""
        if self._film is not None:
            self._film.stop()
        self._stopped.set()

    async def run(self) -> None:
        """Until the film is complete, or there will be none."""
        watches = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._measure())]
        await self._stopped.wait()
        ended = Ended("empty", 0, 0)
        # The members see at once that nobody listens any more.
        closing = asyncio.ensure_future(self._close())
        if self._film is not None:
            ended = await self._ended
        for task in (*watches, *self._tasks):
            task.cancel()
        await asyncio.wait([closing], timeout=2)
        self._say(ended)

    async def _close(self) -> None:
        await asyncio.gather(*(peer.close() for peer in self._peers.values()), return_exceptions=True)

    # ------------------------------------------------------------------ offers

    async def _answer(self, offer: Offer) -> None:
        try:
            text = readable(offer.sdp)
            # Each twice: a coturn that has just started may refuse the first credentials it is shown.
            for ice in offer.ice * 2:
                if await self._connect(offer, text, ice):
                    return
            log.warning("recorder_without_relay")
        except Exception as error:  # noqa: BLE001  # a text that is no description may raise anything
            log.warning("recorder_offer_refused", extra={"why": type(error).__name__})

    async def _connect(self, offer: Offer, text: str, ice: tape.Ice) -> bool:
        """Answer by way of this relay; False if it gives no candidate."""
        peer = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[RTCIceServer(ice.url, ice.username, ice.credential)],
                iceTransportPolicy=RTCIceTransportPolicy.RELAY,
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        try:
            # In the offer's order: aiortc lets go of the shared transport if the first is not the bundle's first.
            for kind in [media.kind for media in SessionDescription.parse(text).media]:
                capabilities = RTCRtpReceiver.getCapabilities(kind)
                assert capabilities is not None
                transceiver = peer.addTransceiver(kind, direction="recvonly")
                transceiver.setCodecPreferences(
                    [c for c in capabilities.codecs if kind == "video" or c.mimeType == "audio/opus"]
                )
                _shield(transceiver.receiver)
            peer.on("track", lambda track: self._spawn(self._take(self._members[offer.guest], track)))
            await peer.setRemoteDescription(RTCSessionDescription(text, "offer"))
            answer = await peer.createAnswer()
            assert answer is not None
            await peer.setLocalDescription(answer)
            said = peer.localDescription.sdp
        except BaseException:
            await peer.close()
            raise
        if "typ relay" not in said or self._stopped.is_set():
            await peer.close()
            return self._stopped.is_set()
        if (before := self._peers.pop(offer.guest, None)) is not None:
            self._spawn(before.close())
        self._peers[offer.guest] = peer
        self._say(Answer(offer.guest, offer.worker, offer.session, said))
        await peer.addIceCandidate(None)
        self._spawn(self._give_up(peer))
        return True

    async def _give_up(self, peer: RTCPeerConnection) -> None:
        """Let go of a connection that does not come about."""
        await asyncio.sleep(CONNECTS_WITHIN)
        if peer.connectionState not in ("connected", "closed"):
            await peer.close()

    # ------------------------------------------------------------------ media

    async def _take(self, member: Member, track: MediaStreamTrack) -> None:
        clock = Clock()
        last = 0.0
        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                arrival = time.monotonic()
                if frame.pts is None or not frame.time_base or self._stopped.is_set():
                    continue
                seconds = float(frame.pts * frame.time_base)
                if isinstance(frame, av.VideoFrame):
                    # A picture is passed on with the first packet of the next.
                    held = min(max(seconds - last, 0.0), 0.1)
                else:
                    # Four packets of sound are held back.
                    held = 4 * frame.samples / frame.sample_rate
                last = seconds
                at = clock.place(seconds, arrival, held)
                self._roll(at)
                self._heard = arrival
                if isinstance(frame, av.VideoFrame):
                    member.show(at, frame)
                elif frame.sample_rate == SOUND_RATE and frame.format.name == "s16":
                    channels = len(frame.layout.channels)
                    samples = frame.to_ndarray().reshape(-1, channels).mean(axis=1, dtype=np.float32) / 32768
                    member.sound.write(round((at - self._began) * SOUND_RATE), samples)
        if track.kind == "video":
            member.hide(time.monotonic())

    def _roll(self, at: float) -> None:
        """The first picture or sound begins the film."""
        if self._film is not None or self._stopped.is_set():
            return
        self._began = at
        loop = asyncio.get_running_loop()

        def ended(how: Ended) -> None:
            loop.call_soon_threadsafe(self._film_ended, how)

        self._film = Film(self._load, list(self._members.values()), at, ended)
        self._film.start()

    def _film_ended(self, how: Ended) -> None:
        self._ended.set_result(how)
        self._stopped.set()

    # ------------------------------------------------------------------ watching

    async def _watch(self) -> None:
        cpu = time.process_time()
        while not self._stopped.is_set():
            await asyncio.sleep(1)
            now = time.monotonic()
            if self._film is None:
                if now - self._loaded > STARTS_WITHIN:
                    self.stop()
                continue
            spent, cpu = time.process_time() - cpu, time.process_time()
            self._say(Rolling(self._film.seconds, round(spent, 3), round(self._stalled, 4)))
            self._stalled = 0.0
            if now - self._began > self._load.longest or now - self._heard > SILENT_FOR:
                self.stop()

    async def _measure(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self._stalled = max(self._stalled, time.monotonic() - before - 0.01)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("recording_task_failed", extra={"why": type(error).__name__})


def _shield(receiver: RTCRtpReceiver) -> None:
    """Keep what is neither DTLS nor SRTP from aiortc: an empty datagram would end its transport."""
    connection: Any = receiver.transport.transport.iceGatherer._connection  # noqa: SLF001  # see the module
    receive = connection.data_received

    def received(data: bytes, component: int) -> None:
        if data and (19 < data[0] < 64 or 127 < data[0] < 192):
            receive(data, component)

    connection.data_received = received


# --------------------------------------------------------------------------- the process


async def _serve(answers: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=tape.LARGEST)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def say(message: tape.FromTape) -> None:
        try:
            os.write(answers, tape.pack(message))
        except OSError:
            os._exit(1)

    async def hear() -> tape.ToTape:
        return tape.to_tape(await reader.readexactly(tape.size(await reader.readexactly(tape.HEADER))))

    load = await hear()
    assert isinstance(load, Load)
    recording = Recording(load, say)

    async def obey() -> None:
        try:
            while True:
                recording.receive(await hear())
        except (asyncio.IncompleteReadError, ValueError, msgspec.MsgspecError, OSError):
            # The recorder is gone, and with it who could say that the consent still holds.
            os._exit(1)

    obeying = asyncio.ensure_future(obey())
    await recording.run()
    obeying.cancel()


def main() -> None:
    """Make one recording."""
    # Whatever a library prints is not for the recorder's ears.
    answers = os.dup(1)
    os.dup2(2, 1)
    logs.configure(os.environ.get("VISAVIS_LOG_LEVEL", "info"))
    for noisy in ("aiortc", "aioice", "libav"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    # A service manager asks every process at once to end; this one ends when its film is complete, or its input is.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The chat goes first where a machine does both.
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    asyncio.run(_serve(answers))
    # Whatever is still closing has nothing to add.
    os._exit(0)


if __name__ == "__main__":
    main()
