"""Session descriptions: what a browser needs passes, what tells more than was agreed to does not.

That real browsers understand what comes out is for the browser tests; here it is what must not come out.
"""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.contract import Refused
from visavis.core import sdp

PRINT = ":".join(["A1"] * 32)
HOST = "candidate:1 1 udp 2113937151 203.0.113.7 50000 typ host generation 0 network-cost 999"
REFLEXIVE = "candidate:2 1 udp 1677729535 198.51.100.9 50001 typ srflx raddr 10.0.0.5 rport 50000 generation 0"
RELAYED = "candidate:3 1 udp 33562367 192.0.2.20 50002 typ relay raddr 198.51.100.9 rport 50001 generation 0 ufrag abcd"


def section(kind: str = "audio", mid: str = "0", direction: str = "sendrecv", *more: str, port: int = 9) -> list[str]:
    return [
        f"m={kind} {port} UDP/TLS/RTP/SAVPF 111 63",
        "c=IN IP4 203.0.113.7",
        "a=rtcp:9 IN IP4 203.0.113.7",
        "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789abcdefghijkl",
        "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {PRINT}",
        "a=setup:actpass",
        f"a=mid:{mid}",
        f"a={direction}",
        "a=msid:- c67d2131-e127-42fa-9998-85ade7e20a5a",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=ssrc:2299685985 cname:amge9P8NKyv3A9tk",
        *more,
    ]


def offer(*sections: list[str], session: tuple[str, ...] = ("a=group:BUNDLE 0",)) -> str:
    lines = ["v=0", "o=- 2069551722444497559 2 IN IP4 203.0.113.7", "s=-", "t=0 0", *session]
    for one in sections or (section(),):
        lines += one
    return "\r\n".join(lines) + "\r\n"


def clean(text: str, **agreed: Any) -> str:
    return sdp.clean(text, **{"relay_only": True, "video": True, **agreed})


def test_a_browsers_offer_passes_with_all_that_matters() -> None:
    """Codecs, their parameters, the fingerprint, the streams' names."""
    out = clean(offer(section(), section("video", "1")))
    for line in offer(section()).split("\r\n"):
        if not line.startswith(("o=", "c=", "a=rtcp:")):
            assert line in out
    assert out.count("m=") == 2


def test_no_address_passes_beside_the_candidates() -> None:
    """Not in the origin, the connection line, rtcp, or as the related address of a relayed candidate."""
    out = clean(offer(section("audio", "0", "sendrecv", f"a={HOST}", f"a={REFLEXIVE}", f"a={RELAYED}")))
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", out)) == {"127.0.0.1", "0.0.0.0", "192.0.2.20"}
    assert "typ relay raddr 0.0.0.0 rport 0" in out


@pytest.mark.parametrize("text", [HOST, REFLEXIVE, HOST.replace("203.0.113.7", "fd00::7"), "a=" + HOST])
def test_what_was_not_agreed_to_is_dropped_and_passes_once_it_is(text: str) -> None:
    """Host and reflexive candidates."""
    assert sdp.candidate(text, relay_only=True) is None
    passed = sdp.candidate(text, relay_only=False)
    assert passed is not None
    assert "10.0.0.5" not in passed
    assert f"a={text.removeprefix('a=')}"[:30] in "a=" + passed


def test_a_hidden_host_name_passes_only_when_direct() -> None:
    """The names browsers give their own addresses; no other name, which the other side would look up."""
    hidden = HOST.replace("203.0.113.7", "08c00ace-28b8-4e07-93aa-0909454e6eaf.local")
    assert sdp.candidate(hidden, relay_only=True) is None
    assert sdp.candidate(hidden, relay_only=False) is not None
    for name in ("tracker.example", "localhost", "x.local"):
        with pytest.raises(Refused, match="description_refused"):
            sdp.candidate(HOST.replace("203.0.113.7", name), relay_only=False)


@pytest.mark.parametrize(
    "text",
    [
        "candidate:",
        RELAYED.replace("udp", "sctp"),
        RELAYED.replace("50002", "70000"),
        RELAYED.replace("33562367", "99999999999"),
        RELAYED.replace("typ relay", "typ relayed"),
        RELAYED + "\r\na=candidate:9 1 udp 1 203.0.113.7 1 typ host",
        RELAYED.replace("192.0.2.20", "192.0.2.20\u200b"),
        "x" * 512,
    ],
)
def test_what_is_no_candidate_is_refused(text: str) -> None:
    """Rather than passed on to another person's browser."""
    with pytest.raises(Refused, match="description_refused"):
        sdp.candidate(text, relay_only=False)


def test_the_end_of_candidates_passes() -> None:
    """An empty candidate, by which browsers end."""
    assert sdp.candidate("", relay_only=True) == ""


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", ""])
def test_video_that_was_not_agreed_to_is_refused(direction: str) -> None:
    """Sent by name, or by saying nothing, which means both ways."""
    lines = [line for line in section("video", "1", direction) if line != "a="]
    with pytest.raises(Refused, match="not_agreed"):
        clean(offer(section(), lines), video=False)
    assert "m=video" in clean(offer(section(), lines), video=True)


@pytest.mark.parametrize("direction", ["inactive", "recvonly"])
def test_a_place_kept_for_video_passes(direction: str) -> None:
    """So that a step up the ladder needs no new section."""
    assert f"a={direction}" in clean(offer(section(), section("video", "1", direction)), video=False)


@pytest.mark.parametrize("more", ["a=sendrecv", "a=recvonly", "a=mid:2", "a=setup:active", "a=ice-ufrag:efgh"])
def test_what_a_section_says_twice_is_refused(more: str) -> None:
    """Of two directions one reader takes the first and another the last: video would pass for none."""
    with pytest.raises(Refused, match="description_refused"):
        clean(offer(section(), section("video", "1", "recvonly", more)), video=False)


def test_a_direction_for_the_whole_session_does_not_hide_video() -> None:
    """No browser says one; a section that says nothing of its own counts as sending."""
    lines = [line for line in section("video", "1", "x") if line != "a=x"]
    with pytest.raises(Refused, match="not_agreed"):
        clean(offer(section(), lines), video=False)
    with pytest.raises(Refused, match="description_refused"):
        clean(offer(section(), lines, session=("a=inactive",)), video=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=0",
        "hello",
        offer(session=("a=ice-lite",)),
        offer(session=("a=identity:abc",)),
        offer(section("audio", "0", "sendrecv", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc")),
        offer(*[section("audio", str(i)) for i in range(1000)]),
        offer(*[section("audio", str(i)) for i in range(7)]),
        offer(["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=mid:0"]),
        offer(section()).replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
        offer(section()).replace(PRINT, "A1:B2"),
        offer(section()).replace("sha-256", "md5"),
        offer(section()).replace("a=ice-pwd:0123456789abcdefghijkl\r\n", ""),
        offer(section()).replace(f"a=fingerprint:sha-256 {PRINT}\r\n", ""),
        offer(section()).replace("a=rtcp-mux\r\n", ""),
        offer(section()).replace("a=mid:0", "a=mid:0 1\u0000"),
        offer(section("audio", "0", "sendrecv", "a=fmtp:111 " + "x" * 1000)),
        offer(section("audio", "0", "sendrecv", *[f"a={RELAYED}"] * 61)),
        offer(section("audio", "0", "sendrecv", *["a=x"] * 1000)),
        offer(section("audio", "0", "sendrecv", "a=ssrc:1 cname:\x7f")),
    ],
)
def test_what_no_browser_says_is_refused(text: str) -> None:
    """Too many sections, other protocols, missing or odd keys, lines without end."""
    with pytest.raises(Refused, match="description_refused"):
        clean(text)


def test_unknown_lines_are_left_out() -> None:
    """A later browser's attributes do no harm and are not carried."""
    out = clean(offer(section("audio", "0", "sendrecv", "a=x-secret:203.0.113.7", "b=AS:30", "i=hello", "k=clear:x")))
    assert "secret" not in out
    assert "hello" not in out
    assert "b=AS" not in out


def test_a_section_turned_down_needs_no_keys_and_one_that_is_bundled_neither() -> None:
    """Both have port 0; only the one that is bundled can still send."""
    assert "m=video 0 " in clean(offer(section(), ["m=video 0 UDP/TLS/RTP/SAVPF 96", "a=mid:1", "a=inactive"]))
    bundled = ["m=video 0 UDP/TLS/RTP/SAVPF 96", "a=mid:1", "a=bundle-only", "a=sendrecv"]
    assert "a=bundle-only" in clean(offer(section(), bundled))
    with pytest.raises(Refused, match="not_agreed"):
        clean(offer(section(), bundled), video=False)


WHOLE = offer(section("audio", "0", "sendrecv", f"a={RELAYED}", f"a={HOST}"), section("video", "1", "sendrecv"))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_mutation_gets_an_address_or_video_through(data: st.DataObject) -> None:
    """Characters replaced, lines moved, repeated and cut: it is refused, or what passes is as safe as before."""
    lines = WHOLE.split("\r\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "swap", "edit"])):
            case "drop":
                lines.pop(at)
                lines = lines or ["v=0"]
            case "repeat":
                lines.insert(data.draw(st.integers(0, len(lines))), lines[at])
            case "swap":
                to = data.draw(st.integers(0, len(lines) - 1))
                lines[at], lines[to] = lines[to], lines[at]
            case "edit":
                line = lines[at]
                spot = data.draw(st.integers(0, len(line)))
                lines[at] = line[:spot] + data.draw(st.text(max_size=3)) + line[spot + 1 :]
    try:
        out = clean("\r\n".join(lines), video=False)
    except Refused:
        return
    assert "203.0.113.7" not in out
    assert "typ host" not in out
    for one in out.split("m=")[1:]:
        if one.startswith("video"):
            assert "a=inactive" in one or "a=recvonly" in one or one.startswith("video 0")


@given(st.text(max_size=2000) | st.text("vom=a:\r\n 0candidate", max_size=2000))
def test_any_text_at_all_is_refused_or_cleaned(text: str) -> None:
    """Nothing but `Refused` comes out of nonsense."""
    with pytest.raises(Refused):
        clean(text)
