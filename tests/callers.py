"""People who call each other: browsers with a camera of one colour and a microphone of one tone, and what they see.

A script put into each page before its own keeps hold of the peer connections the page makes and of every candidate
it is given, so that a test can look at what WebRTC itself counts. Nothing in the product knows of it.
"""

import asyncio
import math
import struct
import time
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import Locator, expect

from people import Person
from rig import PATIENCE

LOOK = """
(() => {
  const Native = window.RTCPeerConnection;
  const peers = [], heard = [], refusals = [];
  window.__peers = peers; window.__heard = heard;
  const keep = (text) => { for (const line of text.split(/\\r?\\n/)) if (/candidate:/.test(line)) heard.push(line); };
  window.RTCPeerConnection = class extends Native {
    constructor(...args) { super(...args); this.__made = performance.now(); peers.push(this); }
    addIceCandidate(candidate) { if (candidate?.candidate) keep(candidate.candidate);
      return super.addIceCandidate(candidate); }
    setRemoteDescription(description) { keep(description.sdp ?? ""); return super.setRemoteDescription(description); }
  };
  window.__stats = async () => {
    const all = { framesDecoded: 0, audioEnergy: 0, audioPackets: 0, widths: [], heights: [], paths: [], sent: 0,
      videoSent: 0, open: 0 };
    for (const peer of peers) {
      if (peer.connectionState === "closed") continue;
      all.open += 1;
      const stats = await peer.getStats();
      const byId = new Map([...stats.values()].map((one) => [one.id, one]));
      for (const one of stats.values()) {
        if (one.type === "inbound-rtp" && one.kind === "video") {
          all.framesDecoded += one.framesDecoded ?? 0;
          if (one.frameWidth) { all.widths.push(one.frameWidth); all.heights.push(one.frameHeight); }
        }
        if (one.type === "inbound-rtp" && one.kind === "audio") {
          all.audioEnergy += one.totalAudioEnergy ?? 0; all.audioPackets += one.packetsReceived ?? 0;
        }
        if (one.type === "outbound-rtp" && one.kind === "video") all.videoSent += one.framesSent ?? 0;
        if (one.type === "outbound-rtp") all.sent += one.packetsSent ?? 0;
        if (one.type === "transport" && one.selectedCandidatePairId) {
          const pair = byId.get(one.selectedCandidatePairId);
          const local = byId.get(pair?.localCandidateId), remote = byId.get(pair?.remoteCandidateId);
          all.paths.push([local?.candidateType, remote?.candidateType]);
        }
      }
    }
    return all;
  };
})();
"""


class Voice(NamedTuple):
    """What a browser's fake camera and microphone give: a colour (red, green, blue) and a tone in hertz."""

    colour: tuple[int, int, int]
    hertz: float


RED = Voice((200, 30, 30), 440)
BLUE = Voice((30, 40, 200), 1000)


def fake_devices(folder: Path, voice: Voice) -> list[str]:
    """Chromium's flags for a camera and a microphone like that; writes the files they play."""
    folder.mkdir(parents=True, exist_ok=True)
    red, green, blue = (value / 255 for value in voice.colour)
    luma = 16 + 65.481 * red + 128.553 * green + 24.966 * blue
    picture = b"".join(
        (
            bytes([round(luma)]) * (640 * 480),
            bytes([round(128 - 37.797 * red - 74.203 * green + 112 * blue)]) * (320 * 240),
            bytes([round(128 + 112 * red - 93.786 * green - 18.214 * blue)]) * (320 * 240),
        )
    )
    film(folder / "camera.y4m", picture)
    with wave.open(str(folder / "microphone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        samples = (math.sin(2 * math.pi * voice.hertz * i / 48_000) for i in range(96_000))
        file.writeframes(b"".join(struct.pack("<h", round(12_000 * sample)) for sample in samples))
    return [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
        "--autoplay-policy=no-user-gesture-required",
    ]


def film(path: Path, picture: bytes) -> None:
    """A film of 640x480 that shows one picture (planar YUV 4:2:0)."""
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F20:1 Ip A1:1 C420jpeg\n")
        for _ in range(4):
            file.write(b"FRAME\n" + picture)


class Caller(Person):
    """Somebody with a camera and a microphone."""

    @property
    def stage(self) -> Locator:
        return self.by("call-stage")

    async def come(self) -> None:
        await self.context.add_init_script(LOOK)
        await super().come()

    async def choose_mode(self, mode: str) -> None:
        """In the lobby: what to look for."""
        await self.page.get_by_role("radio", name=mode, exact=True).check(force=True)

    async def find_call(self) -> None:
        """From the lobby through the look at one's devices into the search."""
        await self.find()
        await self.go()

    async def go(self) -> None:
        """Leave the look at one's devices by its main button."""
        await expect(self.by("device-check")).to_be_visible()
        await self.by("device-check-go").click()

    async def invite(self, what: str = "video") -> None:
        await self.by(f"call-{what}").click()
        await self.go()

    async def accept(self, what: str = "call") -> None:
        await self.by(f"accept-{what}").click()
        await self.go()

    async def sees_phase(self, *phases: str, timeout: float = PATIENCE) -> None:
        import re

        await expect(self.stage).to_have_attribute(
            "data-phase", re.compile(f"^({'|'.join(phases)})$"), timeout=timeout * 1000
        )

    async def watch_phases(self) -> None:
        """From now on keep every phase that the stage shows, however short."""
        await self.stage.evaluate(
            """(stage) => {
              window.__phases = [];
              new MutationObserver(() => {
                if (stage.dataset.phase !== window.__phases.at(-1)) window.__phases.push(stage.dataset.phase);
              }).observe(stage, { attributes: true, attributeFilter: ["data-phase"] });
            }"""
        )

    async def phases(self) -> list[str]:
        """Those kept."""
        found: list[str] = await self.page.evaluate("window.__phases")
        return found

    async def stats(self) -> dict[str, Any]:
        """What WebRTC counts, over all peer connections that are open."""
        found: dict[str, Any] = await self.page.evaluate("window.__stats()")
        return found

    async def heard(self) -> list[str]:
        """Every candidate of the other side that this page was given."""
        found: list[str] = await self.page.evaluate("window.__heard")
        return found

    async def gets(self, what: str, more: float = 1, *, within: float = 10) -> None:
        """A counter of `stats` grows by more than this from now on."""
        before = (await self.stats())[what]
        await until(lambda: self._grew(what, before + more), within, f"{what} did not grow past {before} by {more}")

    async def _grew(self, what: str, least: float) -> bool:
        value: float = (await self.stats())[what]
        return value > least

    async def gets_nothing(self, what: str, seconds: float = 0.8) -> None:
        """A counter of `stats` stands still; what was on its way may still arrive first."""
        await asyncio.sleep(0.4)
        before = (await self.stats())[what]
        await asyncio.sleep(seconds)
        assert (await self.stats())[what] == before, what

    async def colour(self, testid: str) -> tuple[int, int, int]:
        """The mean colour of the middle of a video on the page."""
        found: list[int] = await self.by(testid).evaluate(
            """(video) => {
              const canvas = document.createElement("canvas");
              canvas.width = canvas.height = 8;
              const context = canvas.getContext("2d");
              context.drawImage(video, video.videoWidth / 4, video.videoHeight / 4, video.videoWidth / 2,
                video.videoHeight / 2, 0, 0, 8, 8);
              const data = context.getImageData(0, 0, 8, 8).data;
              const sum = [0, 0, 0];
              for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[i + c];
              return sum.map((value) => Math.round(value / 64));
            }"""
        )
        return found[0], found[1], found[2]

    async def sees(self, voice: Voice, testid: str = "remote-video") -> None:
        """That video shows this camera's colour."""

        async def right() -> bool:
            colour = await self.colour(testid)
            return max(abs(a - b) for a, b in zip(colour, voice.colour, strict=True)) < 60

        await until(right, 10, f"{testid} does not show {voice.colour}")


async def until(true: Callable[[], Awaitable[bool]], within: float, why: str) -> float:
    """Wait until something is so; returns the seconds it took, and fails with `why` past the limit."""
    started = time.monotonic()
    while not await true():
        assert time.monotonic() - started < within, why
        await asyncio.sleep(0.05)
    return time.monotonic() - started
