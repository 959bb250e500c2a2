"""What clients and the server say to each other, declared once.

Every request, reply and push is a frozen Struct, camelCase on the wire, bounded in every string and
list; fields nobody declared are refused. The tables below are filled by the decorators, and
TypeScript, AsyncAPI and the documentation are written from them (`python -m visavis contract`).
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct

RULES_VERSION = 1
"""The house rules a guest accepts; a higher number asks everybody again."""

MAX_TEXT = 4000
MAX_REPORT_WORDS = 1000
MAX_REPORTED_MESSAGES = 20
MAX_INTERESTS = 10
MAX_INTEREST = 40
MAX_LANGUAGES = 8
MAX_SDP = 32_768
MAX_ICE_SERVERS = 4
MAX_FILE_NAME = 120
MAX_REPORTED_FILES = 10

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}$", description="128 random bits, base64url.")]
Token = Annotated[str, Meta(min_length=1, max_length=2048, description="A signed token.")]
Instant = Annotated[int, Meta(ge=0, le=2**53 - 1, description="Milliseconds since the epoch, by the server's clock.")]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Sequence = Annotated[int, Meta(ge=1, le=2**31 - 1, description="Counts a sender's items in a conversation from 1.")]
UpTo = Annotated[int, Meta(ge=0, le=2**31 - 1, description="Every item up to this sequence number; 0 for none.")]
Interest = Annotated[str, Meta(min_length=1, max_length=MAX_INTEREST)]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}$", description="BCP 47 primary language subtag.")]
Emoji = Annotated[str, Meta(min_length=1, max_length=16)]
Count = Annotated[int, Meta(ge=0)]
SeatNumber = Annotated[int, Meta(ge=0, le=1023, description="A member's place in the conversation.")]
Mode = Literal["text", "voice", "video"]

# --------------------------------------------------------------------------- refusals

ERRORS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The frame or body is not what the contract says: malformed, unknown or missing fields."),
    "unknown_event": (400, "No request of this name exists."),
    "binary_refused": (400, "Binary packets are not accepted."),
    "too_large": (413, "The request is larger than `limit` bytes."),
    "rate_limited": (429, "Too many requests; try again in `retryInMs`."),
    "address_full": (429, "Too many connections from this address or network at once; try again in `retryInMs`."),
    "token_invalid": (401, "The token is missing, malformed, forged or of another kind."),
    "session_expired": (401, "The guest session has ended; ask for a new guest."),
    "stale_client": (409, "The page speaks another version of the contract; reload it."),
    "birth_date_needed": (403, "No birth date was given and no earlier answer is known."),
    "under_age": (403, "The birth date is under the minimum age of `minimumAge`."),
    "rules_not_accepted": (403, "The current house rules, version `rules`, were not accepted."),
    "origin_refused": (403, "The page's origin is not one this server serves."),
    "not_in_conversation": (403, "You have no seat in this conversation."),
    "in_conversation": (409, "Leave the current conversation first."),
    "mode_unavailable": (409, "This mode is not available on this server."),
    "no_such_call": (409, "The call this is about is over, or has become another."),
    "not_agreed": (403, "Both have to agree to this first."),
    "direct_needed": (403, "This server has no relay: a call needs the consent to connect directly."),
    "description_refused": (400, "The session description or candidate is not one a browser makes."),
    "recording_unavailable": (409, "This server cannot record calls."),
    "no_such_file": (404, "There is no such file: it has expired, was taken back, or is not for you."),
    "file_empty": (400, "The file has no bytes."),
    "file_too_large": (413, "The file has more than `limit` bytes."),
    "too_many_files": (409, "This guest's files have `limit` bytes together already; wait or take one back."),
    "kind_refused": (415, "Files of this kind are not taken here. `kind` says which it is."),
    "file_unreadable": (422, "The content is not what it says, or is broken."),
    "picture_too_large": (422, "The picture has more than `limit` pixels."),
    "file_infected": (422, "The scanner found something harmful in it."),
    "offset_mismatch": (409, "The upload stands at `offset`: go on from there."),
    "storage_full": (507, "There is no room left on the server for files."),
    "not_found": (404, "There is nothing at this address."),
    "method_not_allowed": (405, "This address does not take this method."),
    "busy": (503, "The server is at its limit; try again in `retryInMs`."),
    "unavailable": (503, "Something this needs is away for the moment; try again in `retryInMs`."),
    "internal": (500, "Something unexpected went wrong; it was logged as `errorId`."),
}
"""Each code with its HTTP status and what it means. Backquoted names are the data that comes with it."""


class Refused(Exception):
    """A request that will not be done: a code from ERRORS and the data a client needs to say why."""

    def __init__(self, code: str, **data: Any) -> None:
        super().__init__(code)
        self.code = code
        self.data = data
        self.status = ERRORS[code][0]

    def as_error(self) -> dict[str, Any]:
        """The wire form, the same over Socket.IO and HTTP."""
        return {"error": {"code": self.code, **self.data}}


# --------------------------------------------------------------------------- registering


class Wire(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Anything that crosses the wire."""


class Request:
    """One request a client may make: its event, Struct, reply and cost in tokens of the guest's bucket."""

    __slots__ = ("event", "type", "reply", "cost")

    def __init__(self, event: str, type_: type[Wire], reply: type[Wire], cost: float) -> None:
        self.event = event
        self.type = type_
        self.reply = reply
        self.cost = cost


REQUESTS: dict[str, Request] = {}
PUSHES: dict[str, type[Wire]] = {}
EVENT_OF: dict[type[Wire], str] = {}
"""The event under which a push travels, by its Struct."""

W = TypeVar("W", bound=Wire)


def request(event: str, *, reply: type[Wire], cost: float) -> Callable[[type[W]], type[W]]:
    """Declare a Struct as a request with its reply."""

    def declare(struct: type[W]) -> type[W]:
        assert event not in REQUESTS, event
        REQUESTS[event] = Request(event, struct, reply, cost)
        return struct

    return declare


def push(event: str) -> Callable[[type[W]], type[W]]:
    """Declare a Struct as something the server pushes."""

    def declare(struct: type[W]) -> type[W]:
        assert event not in PUSHES, event
        PUSHES[event] = struct
        EVENT_OF[struct] = event
        return struct

    return declare


class Done(Wire, frozen=True):
    """It was done; there is nothing to say about it."""


# --------------------------------------------------------------------------- who


class Profile(Wire, frozen=True):
    """How a guest appears: a temporary name and a hue in degrees of the colour circle."""

    name: Annotated[str, Meta(min_length=1, max_length=40)]
    hue: Annotated[int, Meta(ge=0, le=359)]


class Popular(Wire, frozen=True):
    """An interest that several people online have picked."""

    interest: Interest
    guests: Count


@push("lobby:state")
class LobbyState(Wire, frozen=True):
    """Who is here: pushed when it changed, at most every two seconds."""

    online: Count
    waiting: Count
    popular: Annotated[tuple[Popular, ...], Meta(max_length=24)]


# --------------------------------------------------------------------------- conversations


class Why(Wire, frozen=True):
    """What two guests have in common: interests rarest first, languages by joint preference."""

    interests: Annotated[tuple[Interest, ...], Meta(max_length=MAX_INTERESTS)]
    languages: Annotated[tuple[Language, ...], Meta(max_length=MAX_LANGUAGES)]


PartnerState = Literal["here", "away"]


class Partner(Wire, frozen=True):
    """Another member of the conversation. `away`: the connection dropped, and may come back."""

    seat: SeatNumber
    profile: Profile
    state: PartnerState


class Conversation(Wire, frozen=True):
    """A conversation one has a seat in.

    `claim` is signed by the server; presenting it when connecting restores the seat even after Redis
    lost everything.
    """

    id: Id
    mode: Mode
    seat: SeatNumber
    partner: Partner
    why: Why
    started_at: Instant
    claim: Token
    call: "CallState"


@push("match:found")
class MatchFound(Wire, frozen=True):
    """Somebody worth meeting was found."""

    conversation: Conversation


class SearchStep(Wire, frozen=True):
    """From `after_ms` of waiting on, whom the search accepts."""

    after_ms: Milliseconds
    accepts: Literal["interests", "language", "anyone"]


class Searching(Wire, frozen=True):
    """The search runs: since when, and how it widens."""

    since: Instant
    steps: Annotated[tuple[SearchStep, ...], Meta(max_length=3)]


@request("match:find", reply=Searching, cost=4)
class FindMatch(Wire, frozen=True):
    """Look for a stranger. Asked again while searching, it replaces the search and keeps the place in time."""

    mode: Mode
    interests: Annotated[tuple[Interest, ...], Meta(max_length=MAX_INTERESTS)] = ()
    languages: Annotated[tuple[Language, ...], Meta(max_length=MAX_LANGUAGES)] = ()


@request("match:cancel", reply=Done, cost=1)
class CancelMatch(Wire, frozen=True):
    """Stop looking. Nothing happens if no search runs."""


class TextBody(Wire, frozen=True, tag_field="kind", tag="text"):
    """Words, perhaps in reply to an earlier message."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    reply_to: Id | None = None


class ReactionBody(Wire, frozen=True, tag_field="kind", tag="reaction"):
    """An emoji on a message; none takes the reaction back."""

    target: Id
    emoji: Emoji | None


class DeletionBody(Wire, frozen=True, tag_field="kind", tag="deletion"):
    """Take back one's own message on both sides."""

    target: Id


FileKind = Literal["picture", "video", "audio", "voice", "document"]
"""What a file is shown as, by its content. `voice` is sound that was recorded to be said."""


class SharedFile(Wire, frozen=True):
    """A file as members see it. Where it can be fetched is asked with `file:open`."""

    id: Id
    kind: FileKind
    name: Annotated[str, Meta(min_length=1, max_length=MAX_FILE_NAME, description="What a download is saved as.")]
    type: Annotated[str, Meta(max_length=100, description="Media type of what is served.")]
    bytes: Annotated[int, Meta(ge=1, description="Of what is served.")]
    expires_at: Instant
    width: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    height: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    seconds: Annotated[float, Meta(ge=0)] | None = None
    waveform: Annotated[str, Meta(max_length=100, description="Loudness over time, base64, a byte each.")] | None = None
    blur: (
        Annotated[str, Meta(max_length=600, description="A WebP of a few pixels, base64: what it shows, not how.")]
        | None
    ) = None
    thumb: Annotated[bool, Meta(description="There is a smaller picture of it.")] = False


class FileBody(Wire, frozen=True, tag_field="kind", tag="file"):
    """A file that was uploaded and found good, by its `seal`, perhaps with words."""

    seal: Token
    text: Annotated[str, Meta(max_length=MAX_TEXT)] = ""
    reply_to: Id | None = None


class SharedFileBody(Wire, frozen=True, tag_field="kind", tag="file"):
    """A file, perhaps with words."""

    file: SharedFile
    text: Annotated[str, Meta(max_length=MAX_TEXT)]
    reply_to: Id | None


Body = TextBody | FileBody | ReactionBody | DeletionBody
SaidBody = TextBody | SharedFileBody | ReactionBody | DeletionBody


class Accepted(Wire, frozen=True):
    """The server passed it on. Delivered is for the partner's client to say."""

    at: Instant


@request("chat:message", reply=Accepted, cost=1)
class SendMessage(Wire, frozen=True):
    """Say something. The same id and sequence number may be sent again until its receipt comes."""

    conversation_id: Id
    id: Id
    seq: Sequence
    body: Body


@push("chat:message")
class Message(Wire, frozen=True):
    """What a partner said. Show in order of `seq`, once for each `id`, and answer with a receipt.

    With words or a file, whoever said it types no more.
    """

    conversation_id: Id
    seat: SeatNumber
    id: Id
    seq: Sequence
    body: SaidBody
    at: Instant


@request("chat:receipt", reply=Done, cost=0.25)
class SendReceipt(Wire, frozen=True):
    """Everything up to these sequence numbers has arrived here, and has been seen."""

    conversation_id: Id
    delivered: UpTo
    read: UpTo


@push("chat:receipt")
class Receipt(Wire, frozen=True):
    """The partner's client has, and has shown, one's items up to these sequence numbers."""

    conversation_id: Id
    seat: SeatNumber
    delivered: UpTo
    read: UpTo


@request("chat:typing", reply=Done, cost=0.25)
class SendTyping(Wire, frozen=True):
    """Typing began or stopped."""

    conversation_id: Id
    typing: bool


@push("chat:typing")
class Typing(Wire, frozen=True):
    """The partner began or stopped typing."""

    conversation_id: Id
    seat: SeatNumber
    typing: bool


@push("conversation:partner")
class PartnerPresence(Wire, frozen=True):
    """The partner's connection dropped or came back."""

    conversation_id: Id
    seat: SeatNumber
    state: PartnerState


@request("conversation:leave", reply=Done, cost=1)
class Leave(Wire, frozen=True):
    """Leave for good. Leaving twice does no harm."""

    conversation_id: Id


@push("conversation:ended")
class Ended(Wire, frozen=True):
    """The conversation is over. `left`: the partner went; `lost`: the partner's connection did not come back."""

    conversation_id: Id
    reason: Literal["left", "lost"]


# --------------------------------------------------------------------------- files

FileVariant = Literal["main", "thumb", "download"]


class FileAddress(Wire, frozen=True):
    """Where a file can be fetched for a while, by this guest: `{base}/main`, `{base}/thumb`, `{base}/download`.

    The address holds as long as the guest is a member of the conversation and the file is there.
    """

    base: Annotated[str, Meta(max_length=1000)]
    expires_in_ms: Milliseconds


@request("file:open", reply=FileAddress, cost=0.25)
class OpenFile(Wire, frozen=True):
    """Ask for the address of a file of this conversation, also after it ended, until one leaves it."""

    conversation_id: Id
    file_id: Id


# --------------------------------------------------------------------------- calls

Rung = Literal["text", "voice", "blurred", "clear"]
"""The steps of the consent ladder, lowest first. A call is at the lower of the two members' rungs."""


class IceServer(Wire, frozen=True):
    """As RTCIceServer of the browser."""

    urls: Annotated[tuple[Annotated[str, Meta(max_length=300)], ...], Meta(max_length=8)]
    username: Annotated[str, Meta(max_length=300)]
    credential: Annotated[str, Meta(max_length=300)]


class IceServers(Wire, frozen=True):
    """Relays with credentials of this guest alone. None of them: there is no relay, and calls are direct."""

    servers: Annotated[tuple[IceServer, ...], Meta(max_length=MAX_ICE_SERVERS)]
    expires_in_ms: Annotated[Milliseconds, Meta(description="Ask for newer ones before; 0 if there are none.")]


class Media(Wire, frozen=True):
    """What a member sends of what was agreed: told to the other side, so that silence explains itself."""

    microphone: bool = False
    camera: bool = False
    screen: bool = False


class Party(Wire, frozen=True):
    """One member's part in a call: what they agree to, and what they send."""

    rung: Rung
    direct: bool
    recording: bool
    media: Media


class Recording(Wire, frozen=True):
    """A recording both agreed to. `starting`: the recorder is on its way; offer it one's media already."""

    id: Id
    phase: Literal["starting", "on"]


class Call(Wire, frozen=True):
    """A call as one member sees it.

    `ringing`: one has invited, the other has not answered. `rung` and `direct` are what both agree to.
    Media may flow once `open`; below the rung `blurred`, no video; until `direct`, relayed candidates only. Who invites
    may offer while it rings; the answer waits until the call is open.
    """

    id: Id
    phase: Literal["ringing", "active"]
    caller: Annotated[SeatNumber | None, Meta(description="Who invited; none: it began with the match.")]
    rung: Rung
    direct: bool
    open: bool
    polite: Annotated[bool, Meta(description="Whose offer yields when two collide (perfect negotiation).")]
    mine: Party
    theirs: Party
    recording: Recording | None
    ice: IceServers


class CallOver(Wire, frozen=True):
    """How the last call ended. `by` is who ended it, where somebody did.

    `hung_up`; `declined`: by who was invited; `cancelled`: by who invited; `missed`: nobody answered in time;
    `failed`: no connection came about.
    """

    id: Id
    reason: Literal["hung_up", "declined", "cancelled", "missed", "failed"]
    by: SeatNumber | None
    caller: SeatNumber | None
    video: Annotated[bool, Meta(description="Whether it was, or was to be, a video call.")]


@push("call:state")
class CallState(Wire, frozen=True):
    """How the conversation's call stands: replaces what was known, if `version` is newer."""

    conversation_id: Id
    version: Annotated[int, Meta(ge=0)]
    call: Call | None
    over: CallOver | None


@request("call:invite", reply=CallState, cost=3)
class InviteToCall(Wire, frozen=True):
    """Ask the partner to a call. If the partner has just asked as well, the call begins."""

    conversation_id: Id
    rung: Rung
    direct: bool = False
    media: Media = Media()


@request("call:accept", reply=CallState, cost=1)
class AcceptCall(Wire, frozen=True):
    """Take the partner's invitation, perhaps on a lower rung than it asks for."""

    conversation_id: Id
    call_id: Id
    rung: Rung
    direct: bool = False
    media: Media = Media()


@request("call:end", reply=CallState, cost=1)
class EndCall(Wire, frozen=True):
    """Hang up, decline or take back an invitation, as the call stands. Ending twice does no harm."""

    conversation_id: Id
    call_id: Id
    reason: Literal["hung_up", "failed"] = "hung_up"


@request("call:set", reply=CallState, cost=0.5)
class SetCall(Wire, frozen=True):
    """Change one's own part: what is left out stays. Taking a consent back works at once and for both."""

    conversation_id: Id
    call_id: Id
    rung: Rung | None = None
    direct: bool | None = None
    recording: bool | None = None
    media: Media | None = None


@request("call:servers", reply=IceServers, cost=1)
class RefreshIceServers(Wire, frozen=True):
    """Newer credentials for the relay, during a long call."""

    conversation_id: Id
    call_id: Id


class Hello(Wire, frozen=True, tag_field="kind", tag="hello"):
    """A peer connection was made, or wants to know whether the other one still is."""


class Description(Wire, frozen=True, tag_field="kind", tag="description"):
    """A session description. The server passes on what browsers need of it, and nothing else."""

    type: Literal["offer", "answer"]
    sdp: Annotated[str, Meta(min_length=1, max_length=MAX_SDP)]


class Candidate(Wire, frozen=True, tag_field="kind", tag="candidate"):
    """An ICE candidate, in the words of the SDP attribute; an empty one is the last."""

    candidate: Annotated[str, Meta(max_length=512)]
    mid: Annotated[str, Meta(max_length=16)] | None = None
    line: Annotated[int, Meta(ge=0, le=15, description="sdpMLineIndex.")] | None = None
    ufrag: Annotated[str, Meta(max_length=256)] | None = None


Signal = Hello | Description | Candidate


@request("call:signal", reply=Done, cost=0.25)
class SendSignal(Wire, frozen=True):
    """Pass something on to the partner's peer connection.

    `session` names this side's peer connection, anew for each that is made; `to` the one it is meant for,
    none while that is unknown. Candidates that were not agreed to are dropped.
    """

    conversation_id: Id
    call_id: Id
    session: Id
    signal: Signal
    to: Id | None = None


@push("call:signal")
class Signalled(Wire, frozen=True):
    """Something from the partner's peer connection `session`."""

    conversation_id: Id
    call_id: Id
    session: Id
    signal: Signal
    to: Id | None


@request("call:experience", reply=Done, cost=0.5)
class CallExperience(Wire, frozen=True):
    """How the call went here, counted without a name: the first connection, a failure, a mended path."""

    conversation_id: Id
    call_id: Id
    what: Literal["connected", "failed", "restarted"]
    path: Literal["relay", "direct", "unknown"] = "unknown"
    cause: Literal["no_candidates", "no_path", "lost", "media", "other"] | None = None
    first_frame_ms: Annotated[int, Meta(ge=0, le=600_000, description="From the agreement on.")] | None = None


@request("recording:offer", reply=Done, cost=2)
class OfferToRecorder(Wire, frozen=True):
    """A description of what this side sends to the recorder, with its relayed candidates inside."""

    conversation_id: Id
    recording_id: Id
    session: Id
    sdp: Annotated[str, Meta(min_length=1, max_length=MAX_SDP)]


@push("recording:answer")
class RecorderAnswered(Wire, frozen=True):
    """The recorder's description, for the peer connection `session`."""

    conversation_id: Id
    recording_id: Id
    session: Id
    sdp: str


@push("recording:over")
class RecordingOver(Wire, frozen=True):
    """A recording ended: `saved` until it expires, or not, and why.

    `full`: as many as this server makes at once run already; `empty`: nothing was recorded; `failed`.
    """

    conversation_id: Id
    recording_id: Id
    outcome: Literal["saved", "full", "empty", "failed"]
    expires_at: Instant | None = None


# --------------------------------------------------------------------------- safety


@request("safety:block", reply=Done, cost=2)
class Block(Wire, frozen=True):
    """Never meet the partner of this conversation again. Ends it if it still goes on."""

    conversation_id: Id


class ReportedMessage(Wire, frozen=True):
    """A message the reporter chose to show to moderators, in the reporter's words for it."""

    id: Id
    mine: bool
    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    at: Instant


ReportReason = Literal["harassment", "sexual", "minor", "hate", "spam", "violence", "other"]


class Reported(Wire, frozen=True):
    """The report was stored for moderators, with as many of the chosen files as were still there."""

    report_id: Id
    files: Annotated[Count, Meta(description="Files kept with it.")] = 0


@request("safety:report", reply=Reported, cost=8)
class Report(Wire, frozen=True):
    """Tell moderators about the partner of this conversation, during it or up to an hour after it."""

    conversation_id: Id
    reason: ReportReason
    words: Annotated[str, Meta(max_length=MAX_REPORT_WORDS)] = ""
    messages: Annotated[tuple[ReportedMessage, ...], Meta(max_length=MAX_REPORTED_MESSAGES)] = ()
    files: Annotated[tuple[Id, ...], Meta(max_length=MAX_REPORTED_FILES)] = ()


# --------------------------------------------------------------------------- session


class Connect(Wire, frozen=True):
    """What a client presents when it connects (Socket.IO `auth`)."""

    token: Token
    contract: Annotated[str, Meta(max_length=64)]
    claim: Token | None = None


@push("session:state")
class SessionState(Wire, frozen=True):
    """Where the guest stands, pushed first on every connection: it replaces what the client believed."""

    profile: Profile
    conversation: Conversation | None
    lobby: LobbyState


@push("session:replaced")
class SessionReplaced(Wire, frozen=True):
    """The same guest connected elsewhere; this connection ends and must not come back by itself."""


@push("session:move")
class SessionMove(Wire, frozen=True):
    """This worker is about to stop: connect again after `in_ms`."""

    in_ms: Milliseconds


class Refreshed(Wire, frozen=True):
    """A token for the same guest with a new expiry."""

    token: Token
    expires_at: Instant


@request("session:refresh", reply=Refreshed, cost=2)
class RefreshSession(Wire, frozen=True):
    """Ask for a newer token before this one expires."""


# --------------------------------------------------------------------------- HTTP


class Route(Struct, frozen=True):
    """One REST route, as declared; the HTTP door binds a handler to it by its name."""

    name: str
    method: str
    path: str
    summary: str
    reply: type[Wire] | None
    body: type[Wire] | None = None
    status: int = 200


class CreateGuest(Wire, frozen=True):
    """Ask for a guest: the answers of a first visit, or the `device` token that remembers them."""

    birth_date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$", description="YYYY-MM-DD. Never stored.")] | None = (
        None
    )
    rules: Annotated[int, Meta(ge=0, le=10_000, description="The version of the house rules accepted.")] | None = None
    device: Token | None = None


class GuestCreated(Wire, frozen=True):
    """A guest session. `token` is for connecting; `device` remembers this browser's answers and blocks."""

    token: Token
    expires_at: Instant
    device: Token
    profile: Profile


class FileLimits(Wire, frozen=True):
    """What this server takes."""

    bytes: Annotated[int, Meta(ge=1, description="The largest file.")]
    per_minute: Annotated[int, Meta(ge=1, description="Uploads a guest may begin in a minute.")]
    bytes_together: Annotated[int, Meta(ge=1, description="All of a guest's files at a time.")]
    seconds: Annotated[int, Meta(ge=1, description="How long a file is kept.")]
    kinds: tuple[FileKind, ...]
    chunk_bytes: Annotated[int, Meta(ge=1, description="Send no more than this in one PATCH.")]


class ServerInfo(Wire, frozen=True):
    """What a page needs to know before there is a guest."""

    lobby: LobbyState
    minimum_age: Count
    rules: Count
    modes: tuple[Mode, ...]
    relay: Annotated[bool, Meta(description="Calls go through a relay; if not, they are direct, and share addresses.")]
    recording: Annotated[bool, Meta(description="Calls can be recorded.")]
    files: FileLimits | None
    contract: str


class SavedRecording(Wire, frozen=True):
    """A recording that can be downloaded by either of its two guests' browsers."""

    id: Id
    made_at: Instant
    expires_at: Instant
    bytes: Count
    seconds: Count


class SavedRecordings(Wire, frozen=True):
    """The recordings of this browser, newest first."""

    recordings: tuple[SavedRecording, ...]


class BeginUpload(Wire, frozen=True):
    """A file is about to be uploaded for a conversation."""

    conversation_id: Id
    name: Annotated[str, Meta(min_length=1, max_length=1000, description="As the device calls it.")]
    bytes: Annotated[int, Meta(ge=0)]
    voice: Annotated[bool, Meta(description="It is a voice message.")] = False


class UploadBegun(Wire, frozen=True):
    """Send the bytes to `url` with the tus protocol 1.0.0 (HEAD, PATCH, DELETE), then ask for its state there."""

    file_id: Id
    url: Annotated[str, Meta(max_length=200)]


class UploadState(Wire, frozen=True):
    """How an upload stands. Asked while `checking`, the answer waits some seconds for news.

    `ready`: say it with a FileBody of this `seal`. `refused`: the bytes are gone; `problem` is a code of a refusal.
    """

    phase: Literal["uploading", "checking", "ready", "refused"]
    offset: Count
    problem: str | None = None
    limit: Count | None = None
    seal: Token | None = None
    file: SharedFile | None = None


class Health(Wire, frozen=True):
    """Whether the process lives, or is ready for guests, with each part's state."""

    ok: bool
    parts: dict[str, bool]


class ErrorDetail(Wire, frozen=True, forbid_unknown_fields=False):
    """Why a request was refused; more data may stand beside the code."""

    code: str


class ErrorReply(Wire, frozen=True):
    """Every refusal, over HTTP and Socket.IO alike."""

    error: ErrorDetail


ROUTES: tuple[Route, ...] = (
    Route("get_info", "GET", "/api/info", "What a page needs to know before there is a guest.", ServerInfo),
    Route("create_guest", "POST", "/api/guests", "Begin a guest session.", GuestCreated, CreateGuest, 201),
    Route("list_recordings", "GET", "/api/recordings", "This browser's recordings (Bearer token).", SavedRecordings),
    Route("get_recording", "GET", "/api/recordings/{id}", "One of them, as MP4 (Bearer token; ranges).", None),
    Route("delete_recording", "DELETE", "/api/recordings/{id}", "Delete it for both.", Done),
    Route(
        "begin_upload",
        "POST",
        "/api/files",
        "Begin an upload for the conversation one is in (Bearer token).",
        UploadBegun,
        BeginUpload,
        201,
    ),
    Route("get_upload", "GET", "/api/files/{id}", "How one's upload stands; waits while it is checked.", UploadState),
    Route("head_upload", "HEAD", "/api/files/{id}", "How far one's upload is (tus 1.0.0: Upload-Offset).", None),
    Route(
        "patch_upload",
        "PATCH",
        "/api/files/{id}",
        "More bytes of it, from Upload-Offset on (tus 1.0.0, application/offset+octet-stream).",
        None,
        status=204,
    ),
    Route(
        "delete_upload",
        "DELETE",
        "/api/files/{id}",
        "Give an upload up, or take a file back for all.",
        None,
        status=204,
    ),
    Route(
        "get_file",
        "GET",
        "/files/{pass}/{variant}",
        "A file, at the address that `file:open` gave: `main`, `thumb` or `download` (ranges).",
        None,
    ),
    Route("get_metrics", "GET", "/metrics", "Prometheus metrics, for this machine or the metrics token.", None),
    Route("get_worker_metrics", "GET", "/metrics/workers", "Those of all workers, by the label `worker`.", None),
    Route("get_openapi", "GET", "/api/openapi.json", "This document.", None),
    Route("get_health", "GET", "/health", "Whether the process lives.", Health),
    Route("get_ready", "GET", "/ready", "Whether guests can be served; 503 if not.", Health),
)
"""The REST side."""
