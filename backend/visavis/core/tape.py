"""What a recorder and the process that makes one recording say to each other."""

from typing import Any

import msgspec


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Make this recording of these guests, the first one on the left. The first thing said."""

    recording: str
    guests: tuple[str, ...]
    folder: str
    longest: float
    """Seconds after which it ends by itself."""
    largest: int
    """Bytes the file may have."""


class Ice(msgspec.Struct, frozen=True):
    """A relay and the credentials for it."""

    url: str
    username: str
    credential: str


class Offer(msgspec.Struct, frozen=True, tag="offer"):
    """Take what this guest's peer connection sends, by way of one of these relays."""

    guest: str
    worker: str
    session: str
    sdp: str
    ice: tuple[Ice, ...]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Nothing from now on belongs to the recording."""


ToTape = Load | Offer | Stop


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The answer to an offer."""

    guest: str
    worker: str
    session: str
    sdp: str


class Rolling(msgspec.Struct, frozen=True, tag="rolling"):
    """Said every second from the first picture or sound on: how long it is, and what share of a core it costs."""

    seconds: float
    cpu: float
    stalled: float
    """Longest that the process's event loop stood still in this second, in seconds."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last thing said. `outcome`: "saved", "empty" or "failed"."""

    outcome: str
    seconds: float
    bytes: int


FromTape = Answer | Rolling | Ended

_encode = msgspec.msgpack.Encoder().encode
_to_tape = msgspec.msgpack.Decoder(ToTape)
_from_tape = msgspec.msgpack.Decoder(FromTape)

HEADER = 4
LARGEST = 1 << 20


def pack(message: ToTape | FromTape) -> bytes:
    """The message with its length in front, for a pipe."""
    data = _encode(message)
    return len(data).to_bytes(HEADER, "big") + data


def size(header: bytes) -> int:
    """How many bytes follow a header. Raises ValueError for more than any message has."""
    length = int.from_bytes(header, "big")
    if length > LARGEST:
        raise ValueError("not a message")
    return length


def to_tape(data: bytes) -> ToTape:
    """Read what the recorder said."""
    message: Any = _to_tape.decode(data)
    return message  # type: ignore[no-any-return]  # msgspec's decoder of a union is untyped


def from_tape(data: bytes) -> FromTape:
    """Read what the process said."""
    message: Any = _from_tape.decode(data)
    return message  # type: ignore[no-any-return]  # as above
