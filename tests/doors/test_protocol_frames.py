"""The fast carrier's reader of frames against a plain one, and both carriers against each other, on all kinds of bytes.

The plain one is `frames.understood`. What is right comes first, then perhaps something wrong or a farewell, then what
nobody may hear any more.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo import CARRIERS, Echo, Heard, echo
from frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    INVALID_TEXT,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Line,
    Outcome,
    close,
    frame,
    understood,
)
from visavis.doors.engine import Engine, Session, _Line

MOST = 4096
"""Bytes of a message; the first that is too long."""

# --------------------------------------------------------------------------- streams of bytes

masks = st.binary(min_size=4, max_size=4)
texts = st.text(max_size=200) | st.sampled_from(["", "é" * 70, "\U0001f600", "x" * 124, "x" * 125, "x" * (MOST - 2)])
bodies = texts.map(lambda text: b"4" + text.encode())
small = st.binary(max_size=125)


@st.composite
def in_fragments(draw: st.DrawFn, kind: int, body: bytes, *, whole: bool = True) -> bytes:
    """A message in one frame or several, with control frames between them; perhaps without its end."""
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    edges = [0, *cuts, len(body)]
    parts = [body[start:end] for start, end in itertools.pairwise(edges)]
    stream = b""
    for number, part in enumerate(parts):
        final = whole and number == len(parts) - 1
        stream += frame(CONTINUATION if number else kind, part, final=final, mask=draw(masks))
        if not final:
            stream += draw(controls)
    return stream


controls = st.lists(
    st.builds(frame, st.sampled_from([PING, PONG]), small, mask=masks),
    max_size=2,
).map(b"".join)
right = st.one_of(
    bodies.flatmap(lambda body: in_fragments(TEXT, body)),
    st.binary(max_size=300).flatmap(lambda body: in_fragments(BINARY, body)),
    controls,
    # Longer than need be: nobody minds.
    st.builds(frame, st.just(TEXT), bodies.filter(lambda body: len(body) < 126), width=st.sampled_from([2, 8])),
)
begun = st.text(max_size=200).flatmap(lambda text: in_fragments(TEXT, b"4" + text.encode(), whole=False))
bad_text = st.builds(
    lambda before, bad, after: b"4" + before.encode() + bad + after.encode(),
    st.text(max_size=20),
    st.sampled_from([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80", b"\x80", b"\xf0\x9f"]),
    st.sampled_from(["", "x"]),
)
wrong = st.one_of(
    # Within a message or not:
    st.builds(
        bytes.__add__,
        st.just(b"") | begun,
        st.one_of(
            st.builds(frame, st.sampled_from([PING, PONG]), small, reserved=st.integers(1, 7)),
            st.builds(frame, st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), small),
            st.builds(frame, st.sampled_from([PING, PONG, CLOSE]), small, final=st.just(False)),
            st.builds(frame, st.sampled_from([PING, PONG, CLOSE]), st.binary(min_size=126, max_size=200)),
            st.builds(close, st.sampled_from([None, 1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4000, 4999])),
            st.builds(close, st.sampled_from([0, 1, 999, 1004, 1005, 1015, 1016, 2000, 2999])),
            st.builds(close, st.just(1000), st.text(max_size=30).map(str.encode)),
            st.builds(close, st.just(1000), st.just(b"\xff")),
            st.just(frame(CLOSE, b"\x03")),
        ),
    ),
    st.builds(frame, st.sampled_from([TEXT, BINARY]), bodies, reserved=st.integers(1, 7)),
    st.builds(frame, st.just(CONTINUATION), bodies),
    st.builds(bytes.__add__, begun, st.builds(frame, st.sampled_from([TEXT, BINARY]), small, final=st.booleans())),
    bad_text.flatmap(lambda body: in_fragments(TEXT, body)),
    st.binary(min_size=MOST, max_size=MOST + 100).flatmap(lambda body: in_fragments(BINARY, body)),
    # As much as that is never sent; it is enough to say so.
    st.builds(
        frame,
        st.sampled_from([TEXT, BINARY]),
        declared=st.sampled_from([MOST, 65_535, 65_536, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]),
    ),
)
wrong_to_us = st.builds(
    frame, st.sampled_from([TEXT, BINARY, PING, PONG]), bodies.map(lambda body: body[:125]), mask=st.none()
) | st.just(close(1006))
"""What aiohttp lets pass."""


@st.composite
def streams(draw: st.DrawFn, wrong: st.SearchStrategy[bytes] = wrong) -> bytes:
    """What a client may send, and what it may not."""
    stream = b"".join(draw(st.lists(right, max_size=4)))
    how = draw(st.sampled_from(["whole", "wrong", "wrong", "cut"]))
    if how == "wrong":
        stream += draw(wrong) + b"".join(draw(st.lists(right, max_size=2)))
    elif how == "cut":
        last = draw(bodies.flatmap(lambda body: in_fragments(TEXT, body)))
        stream += last[: draw(st.integers(0, len(last) - 1))]
    return stream


def cut(stream: bytes, at: list[int]) -> Iterator[bytes]:
    """A stream in pieces, cut at these places, counted from its beginning and modulo its length."""
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return (stream[start:end] for start, end in itertools.pairwise(edges))


places = st.lists(st.integers(0, 1 << 16), max_size=12)

# --------------------------------------------------------------------------- the fast carrier's reader, by itself


class _Recorder(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.over = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.over = True

    def abort(self) -> None:
        self.over = True


def read_server(stream: bytes) -> Outcome:
    """What a server said: echoed text, pongs, and how it closed."""
    outcome = Outcome()
    while stream:
        assert stream[0] & 0xF0 == 0x80
        length, start = stream[1], 2
        if length > 125:
            start = {126: 4, 127: 10}[length]
            length = int.from_bytes(stream[2:start], "big")
        assert len(stream) >= start + length, "whole frames"
        kind, payload, stream = stream[0] & 15, stream[start : start + length], stream[start + length :]
        assert outcome.code is None, "nothing after a CLOSE"
        if kind == PONG:
            outcome.pongs.append(payload)
        elif kind == CLOSE:
            outcome.code = int.from_bytes(payload, "big")
        else:
            assert kind == TEXT
            outcome.messages.append(payload.decode())
    return outcome


async def alone(chunks: Iterator[bytes]) -> tuple[Outcome, Heard, bool]:
    """What the fast carrier's reader makes of these; the last says whether it hung up."""
    engine = Engine(origins=("x",), ping_interval=9, ping_timeout=9, max_frame_bytes=MOST, max_queue_bytes=1_000_000)
    session = Session(engine)
    session.receiver = heard = Heard(session)
    transport = _Recorder()
    session.line = line = _Line(session, transport, engine, carries=True)
    for chunk in chunks:
        line.data_received(chunk)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    line.connection_lost(None)
    return read_server(transport.written), heard, transport.over


def expected(stream: bytes) -> tuple[Outcome, int]:
    """What an echo has to answer, and how many messages there were that it cannot say back."""
    outcome = understood(stream, MOST)
    mute = sum(isinstance(message, bytes) for message in outcome.messages)
    outcome.messages = [message for message in outcome.messages if isinstance(message, str)]
    return outcome, mute


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as running:
        yield running


def check_alone(runner: asyncio.Runner, stream: bytes, at: list[int]) -> None:
    right, mute = expected(stream)
    outcome, heard, over = runner.run(alone(cut(stream, at)))
    assert outcome == right
    assert [f"4{text}" for text in heard.messages if text is not None] == right.messages
    assert heard.messages.count(None) == mute + right.idle
    assert over is (right.code is not None)
    assert heard.ends == 1


@given(stream=streams(wrong | wrong_to_us), at=places)
@settings(max_examples=400, deadline=None)
def test_the_fast_reader_makes_of_any_bytes_what_the_plain_one_does(
    runner: asyncio.Runner, stream: bytes, at: list[int]
) -> None:
    """However they are cut into pieces on their way."""
    check_alone(runner, stream, at)


@given(stream=st.binary(max_size=300), at=places)
@settings(max_examples=200, deadline=None)
def test_the_fast_reader_survives_noise(runner: asyncio.Runner, stream: bytes, at: list[int]) -> None:
    """It hangs up on it, or waits for more; and never says what it should not."""
    outcome, heard, over = runner.run(alone(cut(stream, at)))
    assert over is (outcome.code is not None)
    assert heard.ends == 1


def corpus() -> dict[str, bytes]:
    """The kinds of bytes worth looking at one by one, each behind a message and before another."""
    emoji = "\U0001f600".encode()
    kinds = {
        "text": frame(TEXT, b"4x"),
        "no text": frame(TEXT, b"4"),
        "125 bytes": frame(TEXT, b"4" + b"x" * 124),
        "126 bytes": frame(TEXT, b"4" + b"x" * 125),
        "as much as may be": frame(TEXT, b"4" + b"x" * (MOST - 2)),
        "one more": frame(TEXT, b"4" + b"x" * (MOST - 1)),
        "longer than need be by 2": frame(TEXT, b"4x", width=2),
        "longer than need be by 8": frame(TEXT, b"4x", width=8),
        "a mask of zeros": frame(TEXT, b"4x", mask=b"\0\0\0\0"),
        "binary": frame(BINARY, b"\x00\xff"),
        "no binary": frame(BINARY, b""),
        "ping": frame(PING, b"abc"),
        "ping of nothing": frame(PING),
        "ping of 125": frame(PING, b"x" * 125),
        "ping of 126": frame(PING, b"x" * 126),
        "ping of 65536": frame(PING, declared=65_536),
        "ping in fragments": frame(PING, b"a", final=False) + frame(CONTINUATION, b"b"),
        "pong": frame(PONG, b"abc"),
        "pong of 126": frame(PONG, b"x" * 126),
        "fragments": frame(TEXT, b"4a", final=False)
        + frame(CONTINUATION, b"b", final=False)
        + frame(CONTINUATION, b"c"),
        "empty fragments": frame(TEXT, b"", final=False)
        + frame(CONTINUATION, b"4a", final=False)
        + frame(CONTINUATION),
        "binary fragments": frame(BINARY, b"\xff", final=False) + frame(CONTINUATION, b"\xfe"),
        "a ping between fragments": frame(TEXT, b"4a", final=False) + frame(PING, b"p") + frame(CONTINUATION, b"b"),
        "a character over two fragments": frame(TEXT, b"4" + emoji[:2], final=False) + frame(CONTINUATION, emoji[2:]),
        "half a character": frame(TEXT, b"4" + emoji[:2]),
        "half a character over two fragments": frame(TEXT, b"4" + emoji[:1], final=False)
        + frame(CONTINUATION, emoji[1:2]),
        "no utf-8": frame(TEXT, b"4\xff"),
        "a surrogate": frame(TEXT, b"4\xed\xa0\x80"),
        "utf-8 longer than need be": frame(TEXT, b"4\xc0\xaf"),
        "text within fragments": frame(TEXT, b"4a", final=False) + frame(TEXT, b"4b"),
        "more fragments within fragments": frame(TEXT, b"4a", final=False) + frame(TEXT, b"4b", final=False),
        "a continuation of nothing": frame(CONTINUATION, b"4a"),
        "a continuation of what is over": frame(TEXT, b"4a", final=False)
        + frame(CONTINUATION, b"b")
        + frame(CONTINUATION, b"c"),
        "fragments beyond the limit": frame(TEXT, b"4" + b"x" * (MOST - 2), final=False) + frame(CONTINUATION, b"x"),
        "fragments up to the limit": frame(TEXT, b"4" + b"x" * (MOST - 3), final=False) + frame(CONTINUATION, b"x"),
        "many small fragments": frame(TEXT, b"4", final=False) + frame(CONTINUATION, b"x", final=False) * 300,
        "2 GB": frame(TEXT, declared=(1 << 31) - 1),
        "2^63 bytes": frame(TEXT, declared=1 << 63),
        "2^64 - 1 bytes": frame(BINARY, declared=(1 << 64) - 1),
        "close": close(1000),
        "close without a code": close(None),
        "close with half a code": frame(CLOSE, b"\x03"),
        "close with a reason": close(1001, "é".encode()),
        "close with no utf-8": close(1000, b"\xff"),
        "close with one's own code": close(4999),
        "close with 999": close(999),
        "close with 1005": close(1005),
        "close with 1006": close(1006),
        "close with 1015": close(1015),
        "close with 2999": close(2999),
        "close within fragments": frame(TEXT, b"4a", final=False) + close(1000),
        "close in fragments": frame(CLOSE, b"\x03\xe8", final=False),
        "close of 126": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
        **{f"reserved bit {bit}": frame(TEXT, b"4x", reserved=bit) for bit in (1, 2, 4)},
        **{f"kind {kind}": frame(kind, b"4x") for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
        "unmasked": frame(TEXT, b"4x", mask=None),
        "unmasked ping": frame(PING, b"x", mask=None),
        "unmasked and long": frame(TEXT, b"4" + b"x" * 300, mask=None),
        "cut in the head": frame(TEXT, b"4x")[:1],
        "cut in the length": frame(TEXT, b"4" + b"x" * 300)[:3],
        "cut in the mask": frame(TEXT, b"4x")[:4],
        "cut in the text": frame(TEXT, b"4xyz")[:-1],
    }
    before, after = frame(TEXT, b"4before"), frame(TEXT, b"4after")
    return {name: before + stream + (after if not name.startswith("cut") else b"") for name, stream in kinds.items()}


CORPUS = corpus()


@pytest.mark.parametrize("name", CORPUS)
def test_a_cut_at_any_place_changes_nothing(runner: asyncio.Runner, name: str) -> None:
    """Every way to cut a stream in two, and the one into single bytes."""
    stream = CORPUS[name]
    step = len(stream) // 500 + 1
    check_alone(runner, stream, list(range(len(stream))))
    for at in range(0, len(stream), step):
        check_alone(runner, stream, [at])


# --------------------------------------------------------------------------- both carriers, over real sockets


@dataclass
class Dialogue:
    """What came of it on both sides."""

    outcome: Outcome
    heard: list[str]
    mute: int
    ends: int


async def over_a_socket(host: Echo, stream: bytes, at: list[int]) -> Dialogue:
    """The same over a real socket, to its end: to a farewell at least, if nothing is unfinished."""
    outcome = Outcome()
    right, _ = expected(stream)
    goodbye = right.code is None and not unfinished(stream)
    async with Line(host.url) as line:
        await line.hear_text("0")
        heard = host.sessions.pop()
        await line.send_all([*cut(stream, at), *([close(1000)] if goodbye else [])])
        if right.code is None and not goodbye:
            async with asyncio.timeout(5):
                while sum(text is not None for text in heard.messages) < len(right.messages):
                    await asyncio.sleep(0.002)
            line.hang_up()
        for said in await line.rest():
            if said.kind == PONG:
                outcome.pongs.append(said.payload)
            elif said.kind == CLOSE:
                outcome.code = outcome.code or said.code
            else:
                outcome.messages.append(said.payload.decode())
    async with asyncio.timeout(5):
        while not heard.ends:
            await asyncio.sleep(0.002)
    texts = [f"4{text}" for text in heard.messages if text is not None]
    return Dialogue(outcome, texts, heard.messages.count(None), heard.ends)


def expected_code(transport: str, stream: bytes) -> int | None:
    """What it has to close with."""
    code = understood(stream, MOST).code
    # python-engineio answers every farewell alike.
    return 1000 if transport == "stock" and code not in (None, PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG) else code


def difference(transport: str, stream: bytes, dialogue: Dialogue) -> str:
    """What is not as it should be; nothing if all is."""
    right, _ = expected(stream)
    code = expected_code(transport, stream)
    return "; ".join(
        f"{what}: {came!r} instead of {should!r}"
        for what, came, should in (
            ("heard", dialogue.heard, right.messages),
            # An echo that was under way when it closed may come or not.
            ("said", dialogue.outcome.messages, right.messages[: len(dialogue.outcome.messages)]),
            ("pongs", dialogue.outcome.pongs, right.pongs[: len(dialogue.outcome.pongs)]),
            ("code", dialogue.outcome.code if code is not None else None, code),
            ("ends", dialogue.ends, 1),
        )
        if came != should
    )


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def hosts() -> AsyncIterator[dict[str, Echo]]:
    """Both carriers, side by side."""
    async with echo("fast", max_frame_bytes=MOST) as fast, echo("stock", max_frame_bytes=MOST) as stock:
        yield {"fast": fast, "stock": stock}


STOCK_TAKES = {"unmasked", "unmasked ping", "unmasked and long", "close with 1006"}
"""What aiohttp lets pass; see docs/protocol.md."""


def unfinished(stream: bytes) -> bool:
    """Whether a server waits for more of something."""
    whole, _ = expected(stream)
    more, _ = expected(stream + frame(TEXT, b"4."))
    return whole.code is None and (len(more.messages), more.code) != (len(whole.messages) + 1, None)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("transport", CARRIERS)
async def test_both_carriers_make_the_same_of_the_same_bytes(hosts: dict[str, Echo], transport: str) -> None:
    """Each kind of them over a real socket, in one piece."""
    wrong = {}
    for name, stream in CORPUS.items():
        if transport == "fast" or name not in STOCK_TAKES:
            dialogue = await over_a_socket(hosts[transport], stream, [])
            if found := difference(transport, stream, dialogue):
                wrong[name] = found
    assert wrong == {}


@pytest.mark.asyncio(loop_scope="session")
@given(stream=streams(), at=places)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_bytes_tell_the_carriers_apart(hosts: dict[str, Echo], stream: bytes, at: list[int]) -> None:
    """Nor does the way in which they are cut into pieces."""
    for transport, host in hosts.items():
        dialogue = await over_a_socket(host, stream, at)
        if transport == "stock" and dialogue.outcome.code is None:
            # It hangs up at once, which takes the reason away from a client that was saying more.
            dialogue.outcome.code = expected_code(transport, stream)
        assert difference(transport, stream, dialogue) == "", transport
