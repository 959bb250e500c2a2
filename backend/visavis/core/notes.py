"""What workers tell each other over the bus: small typed notes, never a stranger's words in readable parts.

A note is addressed to a worker and concerns one guest there. Losing one does no harm that `touch` or a
client's resending does not mend.
"""

import msgspec

from visavis.core.calls import Consent, State
from visavis.core.ports import Record


class Note(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """`guest` is whom it concerns, on the worker it is sent to."""

    guest: str


class Deliver(Note, frozen=True, tag="d"):
    """Hand this push to the guest: the event's frame, encoded as it goes out."""

    frame: bytes
    delivered: int = 0
    """For a receipt: the number up to which it says that items arrived."""


class Seated(Note, frozen=True, tag="s"):
    """A match: the guest has a seat now."""

    record: Record
    workers: dict[str, str]
    call: State | None = None
    """How its call stands; none: as it begins."""


class Moved(Note, frozen=True, tag="m"):
    """Another member of the guest's conversation is now on `worker`; empty: away."""

    conversation: str
    member: str
    worker: str


class Over(Note, frozen=True, tag="o"):
    """The guest's conversation has ended."""

    conversation: str
    reason: str


class Displaced(Note, frozen=True, tag="x"):
    """A newer connection of the guest, the `epoch`th, took over."""

    epoch: int


class Called(Note, frozen=True, tag="c"):
    """The call of the guest's conversation has changed."""

    conversation: str
    state: State


class Recorded(Note, frozen=True, tag="r"):
    """How it stands with a recording of the guest's conversation.

    `outcome`: "on" once something is being recorded; at its end "saved", until `expires_at`, or "full", "empty" or
    "failed", as the contract's RecordingOver has them.
    """

    conversation: str
    recording: str
    outcome: str
    expires_at: int = 0
    """Milliseconds since the epoch."""


AnyNote = Deliver | Seated | Moved | Over | Displaced | Called | Recorded


class Stop(msgspec.Struct, frozen=True, tag="stop", array_like=True):
    """To the worker itself, from an operator: hand the guests over and end, as at SIGTERM."""


class RecorderNote(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What a recorder is told about one recording."""

    recording: str


class Begin(RecorderNote, frozen=True, tag="b"):
    """Make this recording; `consent` is why it may. `members`: guest, device and seat number of each."""

    conversation: str
    consent: Consent
    members: tuple[tuple[str, str, int], ...]
    at: int


class Offered(RecorderNote, frozen=True, tag="o"):
    """A member, on `worker`, offers what their peer connection `session` sends."""

    guest: str
    worker: str
    session: str
    sdp: str


class Finish(RecorderNote, frozen=True, tag="f"):
    """Stop at once: the call is over, or a consent was taken back."""


ForRecorder = Begin | Offered | Finish

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(AnyNote | Stop)


def decode(data: bytes) -> AnyNote | Stop:
    """Read a note; raises msgspec.MsgspecError for anything else."""
    note: AnyNote | Stop = _decoder.decode(data)
    return note


_for_recorder = msgspec.msgpack.Decoder(ForRecorder)


def decode_for_recorder(data: bytes) -> ForRecorder:
    """Read a note to a recorder; raises msgspec.MsgspecError for anything else."""
    note: ForRecorder = _for_recorder.decode(data)
    return note
