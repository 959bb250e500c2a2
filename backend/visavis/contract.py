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


Body = TextBody | ReactionBody | DeletionBody


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
    """What a partner said. Show in order of `seq`, once for each `id`, and answer with a receipt."""

    conversation_id: Id
    seat: SeatNumber
    id: Id
    seq: Sequence
    body: Body
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
    """The report was stored for moderators."""

    report_id: Id


@request("safety:report", reply=Reported, cost=8)
class Report(Wire, frozen=True):
    """Tell moderators about the partner of this conversation, during it or up to an hour after it."""

    conversation_id: Id
    reason: ReportReason
    words: Annotated[str, Meta(max_length=MAX_REPORT_WORDS)] = ""
    messages: Annotated[tuple[ReportedMessage, ...], Meta(max_length=MAX_REPORTED_MESSAGES)] = ()


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


class ServerInfo(Wire, frozen=True):
    """What a page needs to know before there is a guest."""

    lobby: LobbyState
    minimum_age: Count
    rules: Count
    modes: tuple[Mode, ...]
    contract: str


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
    Route("get_openapi", "GET", "/api/openapi.json", "This document.", None),
    Route("get_health", "GET", "/health", "Whether the process lives.", Health),
    Route("get_ready", "GET", "/ready", "Whether guests can be served; 503 if not.", Health),
)
"""The REST side."""
