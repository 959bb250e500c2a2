"""Session descriptions and candidates, reduced to what browsers need of each other (RFC 8866, 8839, 8829).

Every line is taken apart and written anew: what is not known is left out, addresses that a description carries
beside its candidates are blanked, and what no browser says is refused. What comes out was never passed through.
"""

import ipaddress
import re
from typing import NamedTuple

from visavis.contract import Refused

MOST_SECTIONS = 6
MOST_LINES = 800
LONGEST_LINE = 1500
MOST_CANDIDATES = 60

_SECTION = re.compile(r"(audio|video) ([0-9]{1,5}) UDP/TLS/RTP/SAVPF((?: [0-9]{1,3}){1,80})")
_ORIGIN = re.compile(r"\S{1,64} ([0-9]{1,20}) ([0-9]{1,20}) IN IP[46] \S{1,64}")
_FINGERPRINTS = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_FLAGS = {
    "sendrecv", "sendonly", "recvonly", "inactive", "rtcp-mux", "rtcp-mux-only", "rtcp-rsize", "bundle-only",
    "extmap-allow-mixed", "end-of-candidates",
}  # fmt: skip
_WORD = r"[!#-'*+.0-9A-Z^-~/=:{}-]"
_VALUES = {
    "group": re.compile(r"BUNDLE(?: [A-Za-z0-9_.-]{1,16}){0,6}"),
    "mid": re.compile(r"[A-Za-z0-9_.-]{1,16}"),
    "ice-ufrag": re.compile(r"[A-Za-z0-9+/=_-]{4,256}"),
    "ice-pwd": re.compile(r"[A-Za-z0-9+/=_-]{22,256}"),
    "ice-options": re.compile(r"[a-z0-9 +-]{1,64}"),
    "setup": re.compile(r"actpass|active|passive"),
    "msid-semantic": re.compile(r" ?WMS(?: \S{1,64}){0,6}"),
    "msid": re.compile(rf"{_WORD}{{1,64}}(?: {_WORD}{{1,64}})?"),
    "extmap": re.compile(r"[0-9]{1,5}(?:/(?:sendrecv|sendonly|recvonly|inactive))? \S{1,160}"),
    "rtpmap": re.compile(r"[0-9]{1,3} [A-Za-z0-9_.-]{1,32}/[0-9]{1,6}(?:/[0-9]{1,2})?"),
    "rtcp-fb": re.compile(r"(?:[0-9]{1,3}|\*) [A-Za-z0-9 -]{1,64}"),
    "fmtp": re.compile(r"[0-9]{1,3} [\x21-\x7e][\x20-\x7e]{0,800}"),
    "rtcp-xr": re.compile(r"rcvr-rtt=(?:all|sender)(?::[0-9]{1,5})?"),
    "ssrc": re.compile(r"[0-9]{1,10} (?:cname|msid):[\x20-\x7e]{1,160}"),
    "ssrc-group": re.compile(r"(?:FID|FEC|FEC-FR|SIM)(?: [0-9]{1,10}){1,6}"),
    "rid": re.compile(r"[A-Za-z0-9_-]{1,16} (?:send|recv)[\x20-\x7e]{0,100}"),
    "simulcast": re.compile(r"(?:send|recv) [A-Za-z0-9_;,~ -]{1,120}"),
    "ptime": re.compile(r"[0-9]{1,3}"),
    "maxptime": re.compile(r"[0-9]{1,3}"),
}

_DIRECTIONS = {"sendrecv", "sendonly", "recvonly", "inactive"}
_ONCE = {"mid", "setup", "ice-ufrag", "ice-pwd", "rtcp-mux", "bundle-only"}
"""What a section says once, or different readers take different ones."""
_SECURING = {"fingerprint", "ice-ufrag", "ice-pwd", "setup", "rtcp-mux"}
_CANDIDATE = re.compile(
    r"(?:a=)?candidate:([A-Za-z0-9+/]{1,32}) ([12]) (udp|tcp) ([0-9]{1,10}) ([0-9A-Za-z.:-]{1,64}) ([0-9]{1,5})"
    r" typ (host|srflx|prflx|relay)(?: raddr \S{1,64} rport [0-9]{1,5})?((?: [a-z-]{1,16} \S{1,256}){0,6})",
    re.IGNORECASE,
)
_MDNS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.local")


class _Section(NamedTuple):
    kind: str
    lines: list[str]


def candidate(text: str, *, relay_only: bool) -> str | None:
    """The candidate as it may be passed on, or None if it may not be: one that was not agreed to.

    An empty text, the end of candidates, stays. Raises Refused for what is no candidate at all.
    """
    if not text:
        return text
    found = _CANDIDATE.fullmatch(text)
    if found is None:
        raise Refused("description_refused", detail="not a candidate")
    foundation, component, transport, priority, address, port, kind, extensions = found.groups()
    kind, transport = kind.lower(), transport.lower()
    if relay_only and kind != "relay":
        return None
    if not _is_address(address) and not (kind == "host" and _MDNS.fullmatch(address)):
        raise Refused("description_refused", detail="a candidate's address is not one")
    if int(priority) >= 1 << 32 or int(port) >= 1 << 16:
        raise Refused("description_refused", detail="a candidate's number is out of range")
    words = ["candidate:" + foundation, component, transport, priority, address, port, "typ", kind]
    if kind != "host":
        # The related address of a relayed candidate is the guest's own.
        words += ["raddr", "0.0.0.0", "rport", "0"]  # noqa: S104  # a placeholder, nothing listens there
    pairs = extensions.split()
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        if (name == "tcptype" and value in ("active", "passive", "so")) or (
            name == "ufrag" and _VALUES["ice-ufrag"].fullmatch(value)
        ):
            words += [name, value]
    return " ".join(words)


def clean(sdp: str, *, relay_only: bool, video: bool) -> str:
    """The description as it may be passed on. Raises Refused, `not_agreed` for video that may not be sent."""
    session, sections = _split(sdp)
    if not sections:
        raise _refused("nothing in it")
    session_lines: list[str] = []
    secured = _attributes(session, out_of=None, into=session_lines, relay_only=relay_only)
    origin = _ORIGIN.fullmatch(session[1][2:]) if len(session) > 1 and session[1].startswith("o=") else None
    if session[:1] != ["v=0"] or origin is None:
        raise _refused("no session")
    out = ["v=0", f"o=- {origin[1]} {origin[2]} IN IP4 127.0.0.1", "s=-", "t=0 0", *session_lines]
    candidates = 0
    for section in sections:
        header = _SECTION.fullmatch(section.lines[0][2:])
        if header is None:
            raise _refused("a section is neither sound nor picture")
        lines: list[str] = []
        known = _attributes(section.lines[1:], out_of=header[1], into=lines, relay_only=relay_only)
        # Port 0 is a section turned down, unless it is only to be bundled with another, which then secures it.
        bundled = "bundle-only" in known
        rejected = header[2] == "0" and not bundled
        candidates += sum(line.startswith("a=candidate") for line in lines)
        if candidates > MOST_CANDIDATES:
            raise _refused("too many candidates")
        missing = set() if bundled else _SECURING - known - secured
        if not rejected and (missing or "mid" not in known):
            raise _refused("a section is not secured")
        sends = not rejected and not known & {"recvonly", "inactive"}
        if header[1] == "video" and sends and not video:
            raise Refused("not_agreed", detail="video")
        out += [
            f"m={header[1]} {0 if header[2] == '0' else 9} UDP/TLS/RTP/SAVPF{header[3]}",
            "c=IN IP4 0.0.0.0",
            *lines,
        ]
    return "\r\n".join(out) + "\r\n"


def _split(sdp: str) -> tuple[list[str], list[_Section]]:
    lines = [line for line in sdp.replace("\r\n", "\n").split("\n") if line]
    if len(lines) > MOST_LINES:
        raise _refused("too many lines")
    session: list[str] = []
    sections: list[_Section] = []
    for line in lines:
        if len(line) > LONGEST_LINE or line[1:2] != "=" or not line.isascii() or not line.isprintable():
            raise _refused("a line is not one")
        if line.startswith("m="):
            sections.append(_Section(line[2:7], [line]))
            if len(sections) > MOST_SECTIONS:
                raise _refused("too many sections")
        elif sections:
            sections[-1].lines.append(line)
        else:
            session.append(line)
    return session, sections


def _attributes(lines: list[str], *, out_of: str | None, into: list[str], relay_only: bool) -> set[str]:
    """Write the known attributes anew; gives their names."""
    known: set[str] = set()
    for line in lines:
        if not line.startswith("a="):
            continue
        name, _, value = line[2:].partition(":")
        if name == "candidate" and out_of is not None:
            kept = candidate(line[2:], relay_only=relay_only)
            if kept:
                into.append("a=" + kept)
        elif name == "fingerprint":
            into.append(f"a=fingerprint:{_fingerprint(value)}")
        elif name in _FLAGS and not value:
            into.append("a=" + name)
        elif name in _VALUES:
            if not _VALUES[name].fullmatch(value):
                raise _refused(f"its {name} is not one")
            into.append(f"a={name}:{value}")
        elif name in ("crypto", "ice-lite", "identity"):
            raise _refused(f"{name} is not used here")
        else:
            continue
        if (name in known and name in _ONCE) or (name in _DIRECTIONS and (known & _DIRECTIONS or out_of is None)):
            raise _refused(f"its {name} is not the only one")
        known.add(name)
    return known


def _fingerprint(value: str) -> str:
    algorithm, _, digest = value.partition(" ")
    octets = digest.split(":")
    if _FINGERPRINTS.get(algorithm.lower()) != len(octets) or not all(
        re.fullmatch(r"[0-9A-Fa-f]{2}", octet) for octet in octets
    ):
        raise _refused("its fingerprint is not one")
    return f"{algorithm.lower()} {digest.upper()}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refused(detail: str) -> Refused:
    return Refused("description_refused", detail=detail)
