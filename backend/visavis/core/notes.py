"""What workers tell each other over the bus: small typed notes, never a stranger's words in readable parts.

A note is addressed to a worker and concerns one guest there. Losing one does no harm that `touch` or a
client's resending does not mend.
"""

import msgspec

from visavis.core.ports import Record


class Note(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """`guest` is whom it concerns, on the worker it is sent to."""

    guest: str


class Deliver(Note, frozen=True, tag="d"):
    """Hand this push to the guest: the event's frame, encoded as it goes out."""

    frame: bytes


class Seated(Note, frozen=True, tag="s"):
    """A match: the guest has a seat now."""

    record: Record
    workers: dict[str, str]


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


AnyNote = Deliver | Seated | Moved | Over | Displaced

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(AnyNote)


def decode(data: bytes) -> AnyNote:
    """Read a note; raises msgspec.MsgspecError for anything else."""
    note: AnyNote = _decoder.decode(data)
    return note
