"""Goes the whole way of two guests against a running server, and says which step failed and what to look at.

Hides the two guests: how they come in, how they make sure to have met each other and nobody else, and how they know
what they see and hear for what the other one sends. Of the server it knows only the contract.

A run leaves nothing behind: its guests leave and hang up, also when a step fails or the program is interrupted.
"""

import argparse
import asyncio
import contextlib
import fractions
import logging
import secrets
import signal as signals
import string
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
import av
import msgspec
import numpy as np
import numpy.typing as npt
import socketio
from aioice.stun import TransactionError, TransactionFailed
from aioice.turn import create_turn_endpoint
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack, VideoStreamTrack
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.sdp import candidate_from_sdp

from visavis.contract import (
    ERRORS,
    PUSHES,
    REQUESTS,
    Call,
    CallState,
    CancelMatch,
    Candidate,
    Connect,
    Conversation,
    CreateGuest,
    Description,
    EndCall,
    Ended,
    ErrorReply,
    FindMatch,
    GuestCreated,
    Hello,
    IceServer,
    Leave,
    MatchFound,
    Message,
    Mode,
    Receipt,
    Searching,
    SendMessage,
    SendReceipt,
    SendSignal,
    ServerInfo,
    SessionMove,
    SessionReplaced,
    SessionState,
    SetCall,
    Signal,
    Signalled,
    TextBody,
    Wire,
)
from visavis.core.identity import new_id
from visavis.describe import contract_hash

BIRTH_DATE = "1990-05-17"
WIDTH, HEIGHT = 160, 120
SOUND_RATE = 48_000
SOUND_FRAME = SOUND_RATE // 50
COLOURS = {"red": (215, 30, 30), "green": (30, 160, 40), "blue": (30, 50, 215), "yellow": (225, 205, 30)}
TONES = (440.0, 620.0, 880.0, 1240.0)
"""Hertz."""
LIKE = 60
"""How far each of red, green and blue may be from the colour that was sent."""
IN_TUNE = 15.0
"""Hertz that a tone may be off."""
LISTENS = 10
"""Frames of sound, a fifth of a second."""
TRIES = 3
"""Times the two look for each other before the probe gives up."""
BEFORE_ANYONE = 0.5
"""Seconds before the search would accept anyone at all, when it is called off."""
TOGETHER = 2.0
"""Seconds by which one of the two may learn of the match after the other."""
LEAVES_WITHIN = 2.0

Step = Literal[
    "info", "guest", "connect", "match", "relay", "direct", "call", "audio", "video", "text", "hang-up", "leave"
]
Waits = Callable[[str, str], None]
"""Takes what a guest has waited for in vain so far, and the guest's name; an empty text: for nothing any more."""

W = TypeVar("W", bound=Wire)
T = TypeVar("T")

LOOK_AT: dict[Step, str] = {
    "info": "does the server run, and is this its address?",
    "guest": "what does the server's log say?",
    "connect": "does every proxy on the way let WebSockets through to /socket.io/?",
    "match": "are the workers alive and on one Redis (GET /ready, and the log)?",
    "relay": "is the TURN server running, and reachable at this address?",
    "direct": "are the workers alive and on one Redis (GET /ready, and the log)?",
    "call": "may the relay send to its own addresses, are its relay ports open in the firewall, and are both guests' "
    "workers on one Redis?",
    "audio": "does something on the way drop media, or does the relay limit what passes?",
    "video": "does something on the way drop media, or does the relay limit what passes?",
    "text": "are both guests' workers alive and on one Redis (GET /ready, and the log)?",
    "hang-up": "are both guests' workers alive and on one Redis (GET /ready, and the log)?",
    "leave": "are both guests' workers alive and on one Redis (GET /ready, and the log)?",
}
"""What to look at when a step fails and nothing better is known."""

TOO_MANY = "is it probed too often from here, or VISAVIS_GUESTS_PER_WINDOW too low?"

OF_A_CALL: tuple[Step, ...] = ("relay", "call", "audio", "video", "hang-up")

_EVENTS = {request.type: request.event for request in REQUESTS.values()}


class Failed(Exception):
    """A step did not do what it should; says why in plain words, and what to look at if that is known better."""

    def __init__(self, why: str, look_at: str | None = None) -> None:
        super().__init__(why)
        self.look_at = look_at


class Taken(msgspec.Struct, frozen=True):
    """A step that was taken."""

    name: Step
    ms: int
    ok: bool
    note: str = ""
    """What is worth knowing besides."""


class Report(msgspec.Struct, frozen=True):
    """One run, as machines are told."""

    at: str
    """When it began, ISO 8601 in UTC."""
    url: str
    ok: bool
    ms: int
    mode: Mode | None
    path: Literal["relay", "direct"] | None
    """What the call's media took; none if there was no call."""
    transports: tuple[str, ...]
    """How the two reached their relays: udp, tcp or tls."""
    steps: tuple[Taken, ...]
    skipped: tuple[Step, ...]
    failed: Step | None
    error: str | None


# --------------------------------------------------------------------------- waiting


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Both results; when one fails, the other is not waited for."""
    tasks = asyncio.ensure_future(one), asyncio.ensure_future(other)
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _quietly(work: Awaitable[Any], seconds: float = LEAVES_WITHIN) -> None:
    """Tidying up: what fails or takes too long is let be."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(seconds):
            await work


# --------------------------------------------------------------------------- a guest


class Guest:
    """One of the two: asks over HTTP and Socket.IO, and sorts what it is told."""

    def __init__(self, name: str, url: str, http: aiohttp.ClientSession, timeout: float) -> None:
        self.name = name
        self._url = url
        self._http = http
        # Sooner than its step ends: then it is known what was not answered.
        self._timeout = timeout * 0.9
        self._told: defaultdict[type[Wire], asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._refused: Any = None
        self._sio: Any = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self._sio.on("*", self._on_push)
        self._sio.on("connect_error", self._on_refusal)
        self._sio.on("disconnect", self._on_disconnect)
        self.created: GuestCreated | None = None
        self.conversation: Conversation | None = None

    async def fetch(self, method: str, path: str, body: Wire | None = None) -> Any:
        """What the server answers over HTTP, decoded. Raises Failed."""
        sent = None if body is None else msgspec.to_builtins(body)
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.request(method, self._url + path, json=sent, allow_redirects=False) as response,
            ):
                answer, status = await response.read(), response.status
        except TimeoutError:
            raise Failed(f"{method} {path} was not answered within {self._timeout:g} s") from None
        except aiohttp.ClientError as error:
            raise Failed(f"{self._url} cannot be reached ({error})", LOOK_AT["info"]) from None
        try:
            said = msgspec.json.decode(answer)
            if status < 400:
                return said
            refused = msgspec.convert(said, ErrorReply).error
        except msgspec.MsgspecError:
            raise Failed(
                f"{method} {path} answered {status} with something else than the contract says",
                "is a proxy in between whose backend is down, or is this another server?",
            ) from None
        raise Failed(
            f"{method} {path} was refused: {_reason({**said['error'], 'code': refused.code})}",
            TOO_MANY if refused.code == "rate_limited" else None,
        )

    async def come_in(self, rules: int) -> None:
        """Become a guest."""
        said = await self.fetch("POST", "/api/guests", CreateGuest(birth_date=BIRTH_DATE, rules=rules))
        self.created = _decoded(said, GuestCreated)

    async def connect(self) -> None:
        """Connect, and be told where one stands."""
        assert self.created is not None
        presented = msgspec.to_builtins(Connect(token=self.created.token, contract=contract_hash()))
        try:
            await self._sio.connect(self._url, auth=presented, transports=["websocket"], wait_timeout=self._timeout)
        except socketio.exceptions.ConnectionError as error:
            if isinstance(self._refused, dict):
                data = self._refused.get("data")
                raise Failed(f"{self.name} was refused: {_reason(data if isinstance(data, dict) else {})}") from None
            raise Failed(f"{self.name} cannot connect ({error})") from None
        await self.next(SessionState)

    async def ask(self, request: Wire) -> Any:
        """Send a request; returns its reply. Raises Failed."""
        event = _EVENTS[type(request)]
        try:
            answer = await self._unless_gone(self._sio.call(event, msgspec.to_builtins(request), timeout=self._timeout))
        except socketio.exceptions.TimeoutError:
            raise Failed(f"{event} was not answered within {self._timeout:g} s") from None
        except socketio.exceptions.SocketIOError:
            raise Failed(self._last_words()) from None
        if not isinstance(answer, dict) or "ok" not in answer:
            refused = answer.get("error") if isinstance(answer, dict) else None
            raise Failed(f"{event} was refused: {_reason(refused if isinstance(refused, dict) else {})}")
        return _decoded(answer["ok"], REQUESTS[event].reply)

    async def next(self, push: type[W], where: Callable[[W], bool] = lambda _: True) -> W:
        """The next push of this kind that fits, past those that do not. Raises Failed if there can be none any more."""
        while True:
            told: W = await self._unless_gone(self._told[push].get())
            if where(told):
                return told

    async def find(self, mode: Mode, language: str) -> Searching:
        """Begin to search for somebody who speaks a language."""
        searching: Searching = await self.ask(FindMatch(mode=mode, languages=(language,)))
        return searching

    async def withdraw(self) -> None:
        """Stop searching, and leave whoever was met."""
        await self.ask(CancelMatch())
        if self.conversation is not None:
            await self.ask(Leave(conversation_id=self.conversation.id))
        self.conversation = None
        self._told.clear()

    async def hang_up(self) -> None:
        """Leave and disconnect, whatever the state."""
        if self._sio.connected and not self._gone.done():
            await _quietly(self.withdraw())
        await _quietly(self._sio.disconnect())

    # ------------------------------------------------------------------ what it is told

    async def _on_push(self, event: str, said: Any = None, *more: Any) -> None:
        if event not in PUSHES:
            self._goes(f"{self.name} was told {event}, which is not in the contract")
            return
        try:
            push = msgspec.convert(said, PUSHES[event])
        except msgspec.ValidationError as error:
            self._goes(f"{self.name} was told {event} in other words than the contract says: {error}")
            return
        if isinstance(push, MatchFound):
            self.conversation = push.conversation
        elif isinstance(push, Ended):
            self.conversation = None
        elif isinstance(push, SessionMove):
            self._goes("the worker is being stopped and asks its guests to connect again")
        elif isinstance(push, SessionReplaced):
            self._goes(f"another connection took {self.name}'s place")
        self._told[type(push)].put_nowait(push)

    async def _on_refusal(self, data: Any = None) -> None:
        self._refused = data

    async def _on_disconnect(self, reason: str = "") -> None:
        self._goes(f"{self.name}'s connection dropped ({reason})")

    def _goes(self, why: str) -> None:
        if not self._gone.done():
            self._gone.set_result(why)

    def _last_words(self) -> str:
        return self._gone.result() if self._gone.done() else f"{self.name}'s connection dropped"

    async def _unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            either: set[asyncio.Future[Any]] = {task, self._gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Failed(self._last_words())
            return task.result()
        finally:
            task.cancel()


def _decoded(said: Any, struct: type[W]) -> W:
    try:
        return msgspec.convert(said, struct)
    except msgspec.ValidationError as error:
        raise Failed(f"{struct.__name__} is not as the contract says: {error}") from None


def _reason(refused: dict[str, Any]) -> str:
    """A refusal in words."""
    code = refused.get("code", "no reason given")
    about = ERRORS.get(code, (0, ""))[1]
    for name, value in refused.items():
        shown = f"{value / 1000:.0f} s" if name == "retryInMs" and isinstance(value, int) else f"{value} ({name})"
        about = about.replace(f"`{name}`", shown)
    return f"{code} ({about.rstrip('.')})" if about else code


# --------------------------------------------------------------------------- what they send


class Picture(VideoStreamTrack):
    """One colour."""

    def __init__(self, colour: tuple[int, int, int]) -> None:
        super().__init__()
        self._pixels = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)

    async def recv(self) -> av.VideoFrame:
        pts, base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self._pixels, "rgb24")
        frame.pts, frame.time_base = pts, base
        return frame


class Tone(MediaStreamTrack):
    """One tone, in mono."""

    kind = "audio"

    def __init__(self, hertz: float) -> None:
        super().__init__()
        self._step = 2 * np.pi * hertz / SOUND_RATE
        self._next = 0
        self._since: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        clock = asyncio.get_running_loop().time
        if self._since is None:
            self._since = clock()
        await asyncio.sleep(self._since + self._next / SOUND_RATE - clock())
        wave = np.sin(self._step * np.arange(self._next, self._next + SOUND_FRAME)) * 10_000
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16).reshape(1, -1), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._next, fractions.Fraction(1, SOUND_RATE)
        self._next += SOUND_FRAME
        return frame


class Sends(msgspec.Struct, frozen=True):
    """What one of the two sends, so that the other knows it."""

    colour: str
    hertz: float


def _shown(frame: av.VideoFrame) -> tuple[int, int, int]:
    """The colour in the middle of a picture."""
    pixels = frame.to_ndarray(format="rgb24")
    rows, columns = pixels.shape[0] // 4, pixels.shape[1] // 4
    red, green, blue = pixels[rows:-rows, columns:-columns].mean(axis=(0, 1))
    return round(red), round(green), round(blue)


def _heard(samples: npt.NDArray[np.float64]) -> float | None:
    """The strongest tone, in hertz; None if it is as good as silent."""
    if float(np.abs(samples).max(initial=0.0)) < 500:
        return None
    # Padded, so that neighbouring places in the spectrum are a few hertz apart.
    length = SOUND_RATE
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), length))
    return float(spectrum.argmax()) * SOUND_RATE / length


# --------------------------------------------------------------------------- the call


class Relay(msgspec.Struct, frozen=True):
    """A relay that gave one of the two an address."""

    url: str
    transport: str
    """udp, tcp or tls."""
    server: IceServer

    def as_server(self) -> RTCIceServer:
        return RTCIceServer(self.url, self.server.username, self.server.credential)


_TRANSPORTS = {"turn udp": "udp", "turn tcp": "tcp", "turns tcp": "tls"}


def _relays(servers: Iterable[IceServer]) -> list[Relay]:
    """Every relay that can be spoken to, those over UDP first."""
    found = []
    for server in servers:
        for url in server.urls:
            try:
                parsed = parse_stun_turn_uri(url)
            except ValueError:
                continue
            name = _TRANSPORTS.get(f"{parsed['scheme']} {parsed.get('transport')}")
            if name is not None:
                found.append(Relay(url, name, server))
    return sorted(found, key=lambda relay: relay.transport != "udp")


async def _allocate(relay: Relay, seconds: float) -> str | None:
    """Ask a relay for an address, and give it back; what went wrong, if something did."""
    parsed = parse_stun_turn_uri(relay.url)
    try:
        async with asyncio.timeout(seconds):
            transport, _ = await create_turn_endpoint(
                asyncio.DatagramProtocol,
                (parsed["host"], parsed["port"]),
                relay.server.username,
                relay.server.credential,
                ssl=relay.transport == "tls" or None,
                transport=parsed["transport"],
            )
    except TransactionFailed as error:
        code = error.response.error_code or 0
        return {
            401: "it does not take the server's credentials: do both have the same secret, and the same time?",
            486: "it has given this guest all the addresses a guest may have",
            508: "it has no address left to give",
        }.get(code, f"it refused, with error {code}")
    except (TimeoutError, TransactionError):
        return "it does not answer: is it running and reachable there?"
    except OSError as error:
        return f"it cannot be reached: {error.strerror or error}"
    except (ConnectionError, ValueError) as error:
        return f"it does not speak TURN as expected: {error}"
    transport.close()
    return None


class Line:
    """One guest's peer connection, from its first signal to its close."""

    def __init__(self, guest: Guest, conversation: Conversation, call: Call, relay: Relay | None, sends: Sends) -> None:
        self._guest = guest
        self._conversation = conversation
        self._call = call
        self._relay = relay
        self._sends = sends
        self._video = call.rung in ("blurred", "clear")
        self._session = new_id()
        self._to: str | None = None
        self._told = False
        """Whether a candidate of the other's came."""
        self._peer: RTCPeerConnection | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening: asyncio.Task[None] | None = None

    async def connect(self, waits: Waits) -> None:
        """Negotiate until media can flow. Raises Failed."""
        name = self._guest.name
        waits(f"{name} was told no candidate of the other's", name)
        self._listening = asyncio.ensure_future(self._listen(lambda: waits(f"{name} found no way to the other", name)))
        if self._call.polite:
            # Whose offer yields waits for one, and says that it is here.
            await self._say(Hello())
        await asyncio.wait({self._listening, self._connected}, return_when=asyncio.FIRST_COMPLETED)
        if self._listening.done():
            self._listening.result()
        await self._connected
        self._verify_path()
        waits("", name)

    async def _listen(self, met: Callable[[], None]) -> None:
        while True:
            said = await self._guest.next(Signalled, lambda push: push.call_id == self._call.id)
            if said.to not in (None, self._session):
                continue
            if said.to is None and not isinstance(said.signal, Hello):
                raise Failed(f"{self._guest.name} got a signal meant for nobody, though it had said who it is")
            if isinstance(said.signal, Candidate) and said.signal.candidate:
                self._told = True
                met()
            await self._take(said.session, said.signal)

    async def _take(self, session: str, signal: Signal) -> None:
        if self._to is None and isinstance(signal, Hello | Description):
            self._to = session
            await self._answer(signal)
        elif session == self._to and self._peer is not None:
            if isinstance(signal, Description) and signal.type == "answer":
                await self._peer.setRemoteDescription(RTCSessionDescription(signal.sdp, "answer"))
            elif isinstance(signal, Candidate):
                await self._peer.addIceCandidate(self._candidate(signal))

    def _candidate(self, signal: Candidate) -> Any:
        if not signal.candidate:
            return None
        candidate = candidate_from_sdp(signal.candidate.removeprefix("candidate:"))
        candidate.sdpMid, candidate.sdpMLineIndex = signal.mid, signal.line
        return candidate

    async def _answer(self, signal: Hello | Description) -> None:
        """Make the peer connection and describe it; with an offer at hand, as the answer to it."""
        if isinstance(signal, Hello) == self._call.polite:
            raise Failed("the two do not agree which of them is to offer")
        # Twice: a coturn that has just started may refuse the first credentials it is shown.
        for _ in range(2):
            self._peer = peer = self._make()
            if isinstance(signal, Description):
                await peer.setRemoteDescription(RTCSessionDescription(signal.sdp, "offer"))
            await peer.setLocalDescription()
            if "a=candidate" in peer.localDescription.sdp:
                break
            await peer.close()
        else:
            raise Failed(f"{self._guest.name} has no candidate", LOOK_AT["relay"] if self._relay is not None else None)
        await self._describe(peer.localDescription)

    def _make(self) -> RTCPeerConnection:
        peer = RTCPeerConnection(
            RTCConfiguration(
                # An empty list, since without one a public STUN server would be asked.
                iceServers=[] if self._relay is None else [self._relay.as_server()],
                iceTransportPolicy=RTCIceTransportPolicy.ALL if self._relay is None else RTCIceTransportPolicy.RELAY,
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        peer.addTrack(Tone(self._sends.hertz))
        if self._video:
            peer.addTrack(Picture(COLOURS[self._sends.colour]))
        peer.on("connectionstatechange", lambda: self._changed(peer))
        return peer

    def _changed(self, peer: RTCPeerConnection) -> None:
        if self._connected.done() or peer is not self._peer:
            return
        if peer.connectionState == "connected":
            self._connected.set_result(None)
        elif peer.connectionState == "failed":
            why = "found no way to the other" if self._told else "was told no candidate of the other's"
            self._connected.set_exception(Failed(f"{self._guest.name} {why}"))

    async def _describe(self, described: RTCSessionDescription) -> None:
        """Say a description, and after it its candidates one by one, as browsers do."""
        lines = described.sdp.splitlines()
        apart = ("a=candidate:", "a=end-of-candidates")
        text = "".join(line + "\r\n" for line in lines if not line.startswith(apart))
        await self._say(Description(type="offer" if described.type == "offer" else "answer", sdp=text))
        # Bundled: all sections share the candidates of the first.
        mid = next(line.removeprefix("a=mid:") for line in lines if line.startswith("a=mid:"))
        for line in dict.fromkeys(lines):
            if line.startswith("a=candidate:"):
                await self._say(Candidate(candidate=line.removeprefix("a="), mid=mid, line=0))
        await self._say(Candidate(candidate="", mid=mid, line=0))

    async def _say(self, signal: Signal) -> None:
        await self._guest.ask(
            SendSignal(
                conversation_id=self._conversation.id,
                call_id=self._call.id,
                session=self._session,
                signal=signal,
                to=self._to,
            )
        )

    def _verify_path(self) -> None:
        """That media go by way of relays, unless both agreed to something else."""
        if self._relay is None:
            return
        assert self._peer is not None
        ice = self._peer.getTransceivers()[0].sender.transport.transport
        kinds = {candidate.type for candidate in (*ice.iceGatherer.getLocalCandidates(), *ice.getRemoteCandidates())}
        # A relay's address is discovered as `prflx` when its packets are faster than its candidate.
        if not kinds <= {"relay", "prflx"}:
            raise Failed("an address other than a relay's was passed on, and nobody had agreed to that")

    # ------------------------------------------------------------------ what comes of it

    async def hear(self, sends: Sends, waits: Waits) -> None:
        """Until the sound of the other one is heard."""
        name = self._guest.name
        waits(f"{name} heard nothing", name)
        track = self._track("audio")
        samples: list[npt.NDArray[np.float64]] = []
        while True:
            samples.append(_mono(await track.recv()))
            if len(samples) < LISTENS:
                continue
            tone = _heard(np.concatenate(samples))
            if tone is not None and abs(tone - sends.hertz) < IN_TUNE:
                break
            heard = "silence" if tone is None else f"{tone:.0f} Hz"
            waits(f"{name} heard {heard} and not the {sends.hertz:.0f} Hz that were sent", name)
            del samples[0]
        waits("", name)

    async def see(self, sends: Sends, waits: Waits) -> None:
        """Until the picture of the other one is seen."""
        name = self._guest.name
        waits(f"{name} saw nothing", name)
        track = self._track("video")
        while True:
            frame = await track.recv()
            assert isinstance(frame, av.VideoFrame)
            seen = _shown(frame)
            if max(abs(a - b) for a, b in zip(seen, COLOURS[sends.colour], strict=True)) < LIKE:
                break
            waits(f"{name} saw RGB {seen} and not the {sends.colour} that was sent", name)
        waits("", name)

    def _track(self, kind: str) -> MediaStreamTrack:
        assert self._peer is not None
        for transceiver in self._peer.getTransceivers():
            if transceiver.kind == kind and transceiver.receiver.track is not None:
                return transceiver.receiver.track
        raise Failed(f"{self._guest.name} was offered no {kind}")

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
            if not self._listening.cancelled():
                self._listening.exception()
        if self._connected.done() and not self._connected.cancelled():
            self._connected.exception()
        if self._peer is not None:
            # With the relay gone, giving its address back would take half a minute.
            await _quietly(self._peer.close())


def _mono(frame: Any) -> npt.NDArray[np.float64]:
    samples: npt.NDArray[np.float64] = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(axis=1)
    return samples


# --------------------------------------------------------------------------- a run


class Run:
    """The two guests' way, step by step."""

    def __init__(self, asked: argparse.Namespace, http: aiohttp.ClientSession, teller: "Teller") -> None:
        self._url: str = asked.url
        self._timeout: float = asked.timeout
        self._teller = teller
        self._guests = [
            Guest("A", asked.url, http, asked.timeout),
            Guest("B", asked.other or asked.url, http, asked.timeout),
        ]
        self._steps: list[Taken] = []
        self._skipped: tuple[Step, ...] = ()
        self._info: ServerInfo | None = None
        self._mode: Mode | None = None
        self._relayed: list[Relay] = []
        self._lines: list[Line] = []
        self._path: Literal["relay", "direct"] | None = None
        self._waiting: dict[str, str] = {}
        colours, tones = list(COLOURS), list(TONES)
        secrets.SystemRandom().shuffle(colours)
        secrets.SystemRandom().shuffle(tones)
        self._sends = [Sends(*one) for one in zip(colours[:2], tones[:2], strict=True)]

    async def report(self) -> Report:
        """Take every step, up to the first that fails."""
        at, began = datetime.now(UTC), time.monotonic()
        failed: Step | None = None
        error: str | None = None
        try:
            await self._take_steps()
        except _Stopped as stopped:
            failed, error = stopped.step, str(stopped)
        finally:
            await self._tidy_up()
        return Report(
            at=at.isoformat(timespec="seconds"),
            url=self._url,
            ok=failed is None,
            ms=round((time.monotonic() - began) * 1000),
            mode=self._mode,
            path=self._path,
            transports=tuple(relay.transport for relay in self._relayed),
            steps=tuple(self._steps),
            skipped=self._skipped,
            failed=failed,
            error=error,
        )

    async def _take_steps(self) -> None:
        await self._step("info", self._ask_info)
        await self._step("guest", self._come_in)
        await self._step("connect", self._connect)
        await self._step("match", self._match)
        assert self._info is not None
        if self._mode == "text":
            self._skip(OF_A_CALL, "this server offers text only")
        else:
            if self._info.relay:
                await self._step("relay", self._find_relays)
            else:
                await self._step("direct", self._agree_to_direct)
            await self._step("call", self._begin_call)
            await self._step("audio", self._hear)
            if self._mode == "video":
                await self._step("video", self._see)
            else:
                self._skip(("video",), "this server offers no video")
        await self._step("text", self._write)
        if self._mode != "text":
            await self._step("hang-up", self._hang_up)
        await self._step("leave", self._leave)

    async def _step(self, name: Step, work: Callable[[], Awaitable[str]]) -> None:
        self._teller.begins(name)
        self._waiting = {}
        began = time.monotonic()
        ok, note, why, look_at = True, "", "", LOOK_AT[name]
        try:
            async with asyncio.timeout(self._timeout):
                note = await work()
        except TimeoutError:
            waited = " and ".join(filter(None, self._waiting.values())) or "nothing came of it"
            ok, why = False, f"within {self._timeout:g} s {waited}"
        except Failed as failure:
            ok, why, look_at = False, str(failure), failure.look_at or look_at
        except (MediaStreamError, ConnectionError):
            ok, why = False, "the connection between the two broke off"
        except Exception as error:  # noqa: BLE001  # over what it is sent, a library may raise anything
            ok, why = False, f"{type(error).__name__}: {error}"
        taken = Taken(name, round((time.monotonic() - began) * 1000), ok, note)
        self._steps.append(taken)
        self._teller.took(taken)
        if not ok:
            raise _Stopped(name, why if why.endswith("?") else f"{why}: {look_at}")

    def _skip(self, steps: tuple[Step, ...], why: str) -> None:
        self._skipped += steps
        self._teller.skips(steps, why)

    async def _tidy_up(self) -> None:
        await asyncio.gather(*(line.close() for line in self._lines))
        await asyncio.gather(*(guest.hang_up() for guest in self._guests))

    def _waits(self, what: str, who: str = "") -> None:
        """What a step that runs out of time was waiting for; an empty text: nothing any more."""
        self._waiting[who] = what

    # ------------------------------------------------------------------ coming in

    async def _ask_info(self) -> str:
        said = await self._guests[0].fetch("GET", "/api/info")
        ours = contract_hash()
        theirs = said.get("contract") if isinstance(said, dict) else None
        if theirs != ours:
            raise Failed(
                f"the server speaks contract {theirs}, this probe {ours}",
                "is this a Visavis server, and the probe of the same version?",
            )
        self._info = info = _decoded(said, ServerInfo)
        for mode in ("video", "voice", "text"):
            if mode in info.modes:
                self._mode = msgspec.convert(mode, Mode)
                break
        else:
            raise Failed("the server offers nothing at all", "what does VISAVIS_MODES say?")
        if self._mode == "text":
            return "text only"
        return f"{self._mode}, {'with a relay' if info.relay else 'without a relay'}"

    async def _come_in(self) -> str:
        assert self._info is not None
        one, other = self._guests
        await _both(one.come_in(self._info.rules), other.come_in(self._info.rules))
        return ""

    async def _connect(self) -> str:
        one, other = self._guests
        await _both(one.connect(), other.connect())
        return ""

    # ------------------------------------------------------------------ meeting

    async def _match(self) -> str:
        strangers = 0
        for _ in range(TRIES):
            if await self._meet():
                # Offers come from seat 0.
                self._guests.sort(key=lambda guest: guest.conversation.seat if guest.conversation is not None else 0)
                return f"left {strangers} met by chance first" if strangers else ""
            strangers += sum(guest.conversation is not None for guest in self._guests)
            for guest in self._guests:
                await guest.withdraw()
        raise Failed(f"the two never met each other, but {strangers} strangers, whom they left")

    async def _meet(self) -> bool:
        """Search; whether the two met each other. If not, at least one of them has met somebody else."""
        assert self._mode is not None
        language = _private_language()
        one, other = self._guests
        searching = await _both(one.find(self._mode, language), other.find(self._mode, language))
        # Whoever waits long enough meets anyone: no stranger is to be troubled with a probe.
        anyone = [step.after_ms / 1000 for one in searching for step in one.steps if step.accepts == "anyone"]
        patience = max(0.0, min([*anyone, self._timeout]) - BEFORE_ANYONE)
        first, second = (asyncio.ensure_future(guest.next(MatchFound)) for guest in self._guests)
        try:
            await asyncio.wait({first, second}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() and not second.done():
                raise Failed(f"the two look for each other and have not met within {patience:g} s")
            await asyncio.wait({first, second}, timeout=TOGETHER)
            if not first.done() or not second.done():
                return False
            met = first.result().conversation, second.result().conversation
            return met[0].id == met[1].id and {met[0].seat, met[1].seat} == {0, 1}
        finally:
            first.cancel()
            second.cancel()
            await asyncio.wait({first, second})

    @property
    def _conversation(self) -> tuple[Conversation, Conversation]:
        one, other = (guest.conversation for guest in self._guests)
        if one is None or other is None:
            raise Failed("the conversation ended by itself")
        return one, other

    def _call(self, conversation: Conversation) -> Call:
        call = conversation.call.call
        if call is None:
            raise Failed("the match began no call")
        return call

    # ------------------------------------------------------------------ calling

    async def _find_relays(self) -> str:
        one, other = self._conversation
        found = await _both(self._find_relay(one), self._find_relay(other))
        self._relayed = [relay for relay, _ in found]
        over = " and ".join(dict.fromkeys(relay.transport for relay in self._relayed))
        return "; ".join([f"over {over}", *dict.fromkeys(note for _, notes in found for note in notes)])

    async def _find_relay(self, conversation: Conversation) -> tuple[Relay, list[str]]:
        """The first relay that gives an address, and what is wrong with those before it."""
        call = self._call(conversation)
        relays = _relays(call.ice.servers)
        if not relays or not call.open:
            raise Failed("the server says it has a relay, and names none", "what does VISAVIS_TURN_URLS say?")
        troubles: list[str] = []
        for relay in relays:
            # Twice: a coturn that has just started may refuse the first credentials it is shown.
            seconds = self._timeout / len(relays) * 0.9
            trouble = await _allocate(relay, seconds)
            if trouble is not None and "credentials" in trouble:
                trouble = await _allocate(relay, seconds)
            if trouble is None:
                return relay, troubles
            troubles.append(f"{relay.url}: {trouble}")
        raise Failed("no relayed candidate: " + "; ".join(troubles))

    async def _agree_to_direct(self) -> str:
        for guest, conversation in zip(self._guests, self._conversation, strict=True):
            call = self._call(conversation)
            await guest.ask(SetCall(conversation_id=conversation.id, call_id=call.id, direct=True))
        self._waits(f"{self._guests[0].name} was not told that the call may begin")
        await self._guests[0].next(
            CallState, lambda push: push.call is not None and push.call.direct and push.call.open
        )
        return "both agree to connect directly"

    async def _begin_call(self) -> str:
        ways = self._relayed or (None, None)
        for guest, conversation, way, sends in zip(self._guests, self._conversation, ways, self._sends, strict=True):
            self._lines.append(Line(guest, conversation, self._call(conversation), way, sends))
        one, other = self._lines
        await _both(one.connect(self._waits), other.connect(self._waits))
        self._path = "relay" if self._relayed else "direct"
        return "through the relay" if self._relayed else "direct"

    async def _hear(self) -> str:
        one, other = self._lines
        await _both(one.hear(self._sends[1], self._waits), other.hear(self._sends[0], self._waits))
        return f"{self._sends[0].hertz:.0f} Hz and {self._sends[1].hertz:.0f} Hz"

    async def _see(self) -> str:
        one, other = self._lines
        await _both(one.see(self._sends[1], self._waits), other.see(self._sends[0], self._waits))
        return f"{self._sends[0].colour} and {self._sends[1].colour}"

    # ------------------------------------------------------------------ talking, and going

    async def _write(self) -> str:
        one, other = self._guests
        await self._say(one, other)
        await self._say(other, one)
        return ""

    async def _say(self, writer: Guest, reader: Guest) -> None:
        conversation, _ = self._conversation
        words, message_id = TextBody(text=f"probe {secrets.token_hex(4)}"), new_id()
        await writer.ask(SendMessage(conversation_id=conversation.id, id=message_id, seq=1, body=words))
        self._waits(f"{reader.name} did not get {writer.name}'s message")
        got = await reader.next(Message)
        if (got.conversation_id, got.id, got.seq, got.body) != (conversation.id, message_id, 1, words):
            raise Failed(f"{reader.name} got another message than {writer.name} wrote")
        await reader.ask(SendReceipt(conversation_id=conversation.id, delivered=1, read=1))
        self._waits(f"{writer.name} did not get {reader.name}'s receipt")
        await writer.next(Receipt, lambda push: push.delivered == 1 and push.read == 1)

    async def _hang_up(self) -> str:
        one, other = self._guests
        conversation, _ = self._conversation
        await one.ask(EndCall(conversation_id=conversation.id, call_id=self._call(conversation).id))
        self._waits(f"{other.name} was not told that {one.name} hung up")
        told = await other.next(CallState, lambda push: push.call is None)
        if told.over is None or told.over.reason != "hung_up" or told.over.by != conversation.seat:
            raise Failed(f"{other.name} was told that the call ended otherwise")
        return ""

    async def _leave(self) -> str:
        one, other = self._guests
        conversation, _ = self._conversation
        await one.ask(Leave(conversation_id=conversation.id))
        one.conversation = None
        self._waits(f"{other.name} was not told that {one.name} left")
        ended = await other.next(Ended)
        if ended.conversation_id != conversation.id or ended.reason != "left":
            raise Failed(f"{other.name} was told that the conversation ended otherwise")
        return ""


class _Stopped(Exception):
    """A step failed, and those after it make no sense."""

    def __init__(self, step: Step, why: str) -> None:
        super().__init__(why)
        self.step = step


def _private_language() -> str:
    """One of those that ISO 639-2 leaves for local use, qaa to qtz: nobody speaks it."""
    return "q" + secrets.choice("abcdefghijklmnopqrst") + secrets.choice(string.ascii_lowercase)


# --------------------------------------------------------------------------- telling


class Teller:
    """Says what happens, a line for each step; on a terminal also which one is being taken."""

    def __init__(self) -> None:
        self._lively = sys.stdout.isatty()

    def starts(self, url: str) -> None:
        print(f"Probing {url}", flush=True)

    def begins(self, step: Step) -> None:
        if self._lively:
            print(f"  {step:8} ...", end="", flush=True)

    def took(self, taken: Taken) -> None:
        # Back to the line's beginning, and away with what stands there.
        again = "\r\x1b[K" if self._lively else ""
        if taken.ok:
            print(f"{again}  {taken.name:8} {taken.ms:6} ms  {taken.note}".rstrip(), flush=True)
        else:
            print(f"{again}  {taken.name:8} {taken.ms:6} ms  FAILED", flush=True)

    def skips(self, steps: tuple[Step, ...], why: str) -> None:
        print(f"  skipped {', '.join(steps)}: {why}", flush=True)

    def ended(self, report: Report) -> None:
        seconds = f"{report.ms / 1000:.1f} s"
        if report.ok:
            print(f"All is well: {len(report.steps)} steps in {seconds}.", flush=True)
        else:
            print(f"Failed after {seconds}. {report.failed}: {report.error}", flush=True)

    def interrupted(self) -> None:
        print("\nInterrupted; both guests have left." if self._lively else "Interrupted; both guests have left.")


class JsonTeller(Teller):
    """Says each run in one line of JSON, and nothing else."""

    def starts(self, url: str) -> None:
        pass

    def begins(self, step: Step) -> None:
        pass

    def took(self, taken: Taken) -> None:
        pass

    def skips(self, steps: tuple[Step, ...], why: str) -> None:
        pass

    def ended(self, report: Report) -> None:
        print(msgspec.json.encode(report).decode(), flush=True)

    def interrupted(self) -> None:
        pass


# --------------------------------------------------------------------------- the command


def main(argv: Sequence[str]) -> int:
    """Probe as asked; returns 0 if every run went well, 1 if one did not, and 128 and the signal's number after one."""
    parser = argparse.ArgumentParser(prog="visavis probe", description="Go the whole way of two guests.")
    parser.add_argument("url", type=_origin, help="the server, for example https://visavis.example")
    parser.add_argument("--other", type=_origin, help="where the second guest goes instead, such as another worker")
    parser.add_argument("--json", action="store_true", help="one JSON object for each run")
    parser.add_argument("--timeout", type=_seconds, default=10.0, help="seconds for each step; default: 10")
    parser.add_argument("--repeat", type=_times, help="how many runs; default: 1, with --every: no end")
    parser.add_argument("--every", type=_seconds, help="seconds from the start of one run to that of the next")
    asked = parser.parse_args(argv)
    # What the libraries say of a step that fails, the step says better.
    for library in ("aiortc", "aioice", "libav", "asyncio", "engineio", "socketio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return asyncio.run(_probe(asked))


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise argparse.ArgumentTypeError(f"{text} is not http(s)://host[:port]")
    return f"{parts.scheme}://{parts.netloc}"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise ValueError
    return seconds


def _times(text: str) -> int:
    times = int(text)
    if times < 1:
        raise ValueError
    return times


async def _probe(asked: argparse.Namespace) -> int:
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None
    stopped_by: list[int] = []

    def stop(number: int) -> None:
        stopped_by.append(number)
        running.cancel()

    for number in (signals.SIGINT, signals.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    teller = JsonTeller() if asked.json else Teller()
    try:
        return 0 if await _runs(asked, teller) else 1
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        teller.interrupted()
        return 128 + stopped_by[0]


async def _runs(asked: argparse.Namespace, teller: Teller) -> bool:
    """Every run that was asked for; whether all went well."""
    left: int | None = asked.repeat or (None if asked.every else 1)
    well = True
    while True:
        began = time.monotonic()
        teller.starts(asked.url)
        # The steps have times of their own.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
            report = await Run(asked, http, teller).report()
        teller.ended(report)
        well = well and report.ok
        left = None if left is None else left - 1
        if left == 0:
            return well
        await asyncio.sleep(max(0.0, (asked.every or 0.0) - (time.monotonic() - began)))
