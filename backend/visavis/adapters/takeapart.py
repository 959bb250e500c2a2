"""Takes one file apart that somebody shared, as a process of its own, and makes of it what others may get.

Run by its path, `python -I takeapart.py`: it imports nothing of the service, knows none of its secrets, and learns from
a JSON object on its standard input what to do. The answer is one JSON object on its standard output. Files it makes are
called `main` and `thumb`, in the folder that was named.

What a file is, its first bytes say; then all of it must be readable as that, or it is `file_unreadable`. Neither name
nor header are asked. So there is one rule for a file that is two things at once: what stands at the beginning counts.
Pictures are drawn anew; of video and sound nothing but the packets of one picture and one sound track is kept.

Before the first byte is read, the process gives up what it does not need. Memory, CPU time, sizes of files and open
files are limited everywhere. On Linux it can gain no privileges, and dies with who started it. Where Landlock is there
(Linux 5.13), it reads nothing but this file and the libraries, and writes into its folder alone. On x86-64 and aarch64
a system call filter leaves it no sockets, no other programs, no processes, no tracing and no signals to others: both
work without privileges and in containers. Elsewhere, macOS for one, neither network nor other files are out of reach.
"""

import base64
import ctypes
import io
import json
import math
import os
import re
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import av
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream
    from PIL import Image

LARGEST_REQUEST = 1 << 16
LONGEST_SIDE, THUMB_SIDE, BLUR_SIDE = 2560, 640, 16
BLUR_BYTES = 440
"""Bytes of a blur at most: less than 600 characters in base64."""
QUALITY = 82
MOVING_PIXELS = 20_000_000
"""Pixels of all frames of an animation as it is made; a larger one is made smaller."""
SLICES = 64
"""Parts of a sound whose loudness is told, a byte each."""
PACKETS_HEARD = 470
"""Packets of each such part that are listened to: about ten seconds."""
HEAD = 4096
BYTES_BESIDE = 64 << 20
"""Bytes that what is made may be larger than what was given."""


class Unfit(Exception):
    """The file is not taken: `code` is file_unreadable, kind_refused or picture_too_large."""

    def __init__(self, code: str = "file_unreadable", kind: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.kind = kind


# --------------------------------------------------------------------------- few rights


def limit(memory: int, cpu: int, size: int) -> None:
    """Limit this process: `memory` bytes of addresses, `cpu` seconds, files of `size` bytes."""
    os.nice(10)
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        # macOS knows no limit of addresses.
        if sys.platform == "linux" or what != resource.RLIMIT_AS:
            resource.setrlimit(what, (value, value))


def confine(path: Path, folder: Path) -> list[str]:
    """Leave this process nothing but to read `path` and libraries and to write into `folder`.

    Gives what could be done of "privileges", "files", "calls".
    """
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    done = []
    # PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS
    libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    libc.prctl(4, 0, 0, 0, 0)
    if libc.prctl(38, 1, 0, 0, 0) == 0:
        done.append("privileges")
        if _confine_files(libc, path, folder):
            done.append("files")
        if _confine_calls(libc):
            done.append("calls")
    return done


# Landlock's numbers are those of <linux/landlock.h>, its system calls are the same on every architecture.
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")


def _confine_files(libc: ctypes.CDLL, path: Path, folder: Path) -> bool:
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | (1 << 15 if version >= 5 else 0)
    # Beside files: TCP from version 4, abstract sockets and signals from version 6.
    rules = struct.pack("=QQQ", handled, 3, 3)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = libc.syscall(444, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return False
    anything = _READ_FILE | _READ_DIR
    allowed = {os.fspath(path): _READ_FILE, os.fspath(folder): anything | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG}
    allowed[os.fspath(folder)] |= _TRUNCATE & handled
    searched = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    for place in (sys.prefix, sys.base_prefix, *_LIBRARIES, *(one for one in searched if one)):
        allowed.setdefault(place, anything if Path(place).is_dir() else _READ_FILE)
    for place, rights in allowed.items():
        try:
            at = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        beneath = struct.pack("=Qi", rights, at)
        told = libc.syscall(445, ruleset, 1, beneath, 0)
        os.close(at)
        if told != 0:
            return False
    done = bool(libc.syscall(446, ruleset, 0) == 0)
    os.close(ruleset)
    return done


class _Calls(NamedTuple):
    """The numbers of system calls on one architecture."""

    audit: int
    clone: int
    refused: tuple[int, ...]


_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        56,
        # socket, connect, bind, socketpair, ptrace, execve, fork, vfork, kill, tkill, setpgid, setsid, mount, add_key
        # request_key, keyctl, unshare, perf_event_open, open_by_handle_at, setns, process_vm_readv and _writev, bpf
        # execveat, userfaultfd
        (
            *(41, 42, 49, 53, 101, 59, 57, 58, 62, 200, 109, 112, 165, 248),
            *(249, 250, 272, 298, 304, 308, 310, 311, 321),
            *(322, 323),
        ),
    ),
    "aarch64": _Calls(
        0xC00000B7,
        220,
        # socket, connect, bind, socketpair, ptrace, execve, kill, tkill, setpgid, setsid, mount, add_key
        # request_key, keyctl, unshare, perf_event_open, open_by_handle_at, setns, process_vm_readv and _writev, bpf
        # execveat, userfaultfd
        (
            *(198, 203, 200, 199, 117, 221, 129, 130, 154, 157, 40, 217),
            *(218, 219, 97, 241, 265, 268, 270, 271, 280),
            *(281, 282),
        ),
    ),
}
# pidfd_send_signal, io_uring_setup, pidfd_open, pidfd_getfd have one number everywhere; so has clone3, whose flags no
# filter can see: it is said not to exist, and the C library takes clone.
_REFUSED_EVERYWHERE, _CLONE3, _CLONE_THREAD = (424, 425, 434, 438), 435, 0x10000


def _confine_calls(libc: ctypes.CDLL) -> bool:
    calls = _CALLS.get(os.uname().machine)
    if calls is None or sys.maxsize < 1 << 32:
        return False
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026
    refused = (*calls.refused, *_REFUSED_EVERYWHERE)
    # Each is (code, jump if true, jump if false, value); what is compared is the call's number, then clone's flags.
    rest = len(refused)
    program = [
        (load, 0, 0, 4),
        (equal, 1, 0, calls.audit),
        (answer, 0, 0, refuse),
        (load, 0, 0, 0),
        (at_least, rest + 4, 0, 0x40000000),
        *((equal, rest + 3 - place, 0, number) for place, number in enumerate(refused)),
        (equal, 4, 0, _CLONE3),
        (equal, 0, 4, calls.clone),
        (load, 0, 0, 16),
        (any_bit, 2, 0, _CLONE_THREAD),
        (answer, 0, 0, refuse),
        (answer, 0, 0, unknown),
        (answer, 0, 0, allow),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(packed))
    # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    return bool(libc.prctl(22, 2, ctypes.c_char_p(described), 0, 0) == 0)


# --------------------------------------------------------------------------- what it is


def _is_bmp(head: bytes) -> bool:
    """Two letters are no evidence: a text may begin so."""
    return (
        len(head) > 26
        and head[6:10] == bytes(4)
        and struct.unpack_from("<I", head, 14)[0] in {12, 16, 40, 52, 56, 64, 108, 124}
    )


def _is_mpeg_sound(head: bytes) -> bool:
    """A frame of layer III, or a tag before it."""
    return head[:3] == b"ID3" or (
        len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 not in {0x00, 0xF0}
    )


_HEIF = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def _boxes(head: bytes) -> tuple[str, str] | None:
    """What a file of ISO boxes is: AVIF, or a film."""
    box, brand = head[4:8], head[8:12]
    if box == b"ftyp":
        brands = {brand, *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4]), 256), 4))}
        if brands & {b"avif", b"avis"}:
            return "picture", "AVIF"
        return ("refused", "heic") if brand in _HEIF else ("media", "mov")
    return ("media", "mov") if box in {b"moov", b"mdat", b"wide"} else None


_BEGINNINGS: tuple[tuple[Callable[[bytes], object], str, str], ...] = (
    (lambda head: head.startswith(b"\xff\xd8\xff"), "picture", "JPEG"),
    (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), "picture", "PNG"),
    (lambda head: head[:6] in {b"GIF87a", b"GIF89a"}, "picture", "GIF"),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", "picture", "WEBP"),
    (lambda head: head[:4] in {b"II*\0", b"MM\0*"}, "picture", "TIFF"),
    (lambda head: head[:2] == b"BM" and _is_bmp(head), "picture", "BMP"),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WAVE", "media", "wav"),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), "media", "matroska"),
    (lambda head: head.startswith(b"OggS\0"), "media", "ogg"),
    (lambda head: head.startswith(b"fLaC"), "media", "flac"),
    (_is_mpeg_sound, "media", "mp3"),
    (lambda head: head.startswith(b"%PDF-"), "pdf", ""),
    (lambda head: head.startswith(b"PK\3\4"), "office", ""),
)
_PROGRAMS = (
    *(b"MZ", b"\x7fELF", b"\xca\xfe\xba\xbe", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf"),
    *(b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"dex\n", b"\0asm", b"L\0\0\0\1\x14\2\0", b"!<arch>\n"),
)
_ARCHIVES = (b"PK", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"MSCF")


def kind_of(head: bytes) -> tuple[str, str]:
    """What the first bytes of a file say that it is, and in which format or why not.

    Of ("picture", Pillow's format), ("media", FFmpeg's demuxer), ("pdf", ""), ("office", ""), ("refused", kind) and
    ("text", ""): what nothing is known of, and may be text.
    """
    for begins, kind, format_ in _BEGINNINGS:
        if begins(head):
            return kind, format_
    return _boxes(head) or ("text", "")


def _name(head: bytes) -> str:
    """What to call a file that is refused."""
    if head.startswith(_PROGRAMS):
        return "program"
    if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
        return "archive"
    import puremagic  # noqa: PLC0415  # a picture needs none of it

    try:
        best = puremagic.magic_string(head)[0].extension.lstrip(".").lower()
    except (puremagic.PureError, ValueError, IndexError):
        return "unknown"
    return best if re.fullmatch(r"[a-z0-9]{1,10}", best) else "unknown"


# --------------------------------------------------------------------------- documents

_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAY_RUN = re.compile(
    rb"<[a-zA-Z!?/%]|\A\s*(#!|%!|\{\\rt|@echo|mime-version:|from:|received:|content-type:)", re.IGNORECASE
)


def text(content: bytes) -> str | None:
    """The type a text is served as: as text only what is UTF-8 without a tag; None if it is no text."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(content[:2])
    if wide:
        try:
            return None if _CONTROL.search(content.decode(wide).encode()) else "application/octet-stream"
        except UnicodeDecodeError:
            return None
    if _CONTROL.search(content):
        return None
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if _MAY_RUN.search(content) else "text/plain"


class _Entry(NamedTuple):
    name: str
    flags: int
    packed: int
    unpacked: int
    offset: int


_MOST_ENTRIES, _MOST_UNPACKED = 20_000, 1 << 30
_RUNS = (".class", ".dex", ".exe", ".dll", ".jar", ".js", ".vbs", ".bat", ".so", "manifest.mf", "vbaproject.bin")
OFFICE = {
    "word/document.xml": ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", ".docx"),
    "xl/workbook.xml": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx"),
    "ppt/presentation.xml": ("application/vnd.openxmlformats-officedocument.presentationml.presentation", ".pptx"),
}
OPEN_DOCUMENT = {
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    "application/vnd.oasis.opendocument.graphics": ".odg",
}


def _entries(content: bytes) -> Iterator[_Entry]:
    """The central directory of a zip, which must be its very end (APPNOTE 4.3). Nothing is unpacked."""
    end = content.rfind(b"PK\5\6", max(0, len(content) - 22 - 0xFFFF))
    if end < 0 or end + 22 > len(content):
        raise Unfit
    disk, first, here, count, size, start, comment = struct.unpack_from("<HHHHIIH", content, end + 4)
    if (disk, first, here) != (0, 0, count) or start + size != end or end + 22 + comment != len(content):
        raise Unfit
    if count > _MOST_ENTRIES:
        raise Unfit
    at = start
    for _ in range(count):
        if content[at : at + 4] != b"PK\1\2" or at + 46 > end:
            raise Unfit
        (flags,) = struct.unpack_from("<H", content, at + 8)
        packed, unpacked = struct.unpack_from("<II", content, at + 20)
        name, extra, remark = struct.unpack_from("<HHH", content, at + 28)
        offset = struct.unpack_from("<I", content, at + 42)[0]
        yield _Entry(content[at + 46 : at + 46 + name].decode("utf-8", "replace"), flags, packed, unpacked, offset)
        at += 46 + name + extra + remark
    if at != end:
        raise Unfit


def office(content: bytes) -> tuple[str, str]:
    """Type and suffix of an office document, by its list of contents.

    One that could fill a disk when it is opened is unreadable: entries that share bytes, or that grow beyond measure.
    """
    entries = sorted(_entries(content), key=lambda entry: entry.offset)
    behind = 0
    for entry in entries:
        # A local header is 30 bytes and the name at least; encrypted entries cannot be looked into by anybody.
        if entry.offset < behind or entry.flags & 1 or content[entry.offset : entry.offset + 4] != b"PK\3\4":
            raise Unfit
        behind = entry.offset + 30 + len(entry.name.encode()) + entry.packed
    packed, unpacked = sum(entry.packed for entry in entries), sum(entry.unpacked for entry in entries)
    if unpacked > _MOST_UNPACKED or (unpacked > 100 << 20 and unpacked > 200 * packed):
        raise Unfit
    names = {entry.name.lower() for entry in entries}
    if any(name.endswith(_RUNS) for name in names):
        raise Unfit("kind_refused", "macros")
    if any(name.startswith("/") or ".." in name.split("/") or "\\" in name for name in names):
        raise Unfit("kind_refused", "archive")
    if "[content_types].xml" in names:
        for part, (type_, suffix) in OFFICE.items():
            if part in names:
                return type_, suffix
    if entries and entries[0].name == "mimetype" and entries[0].offset == 0:
        first = entries[0]
        begin = 30 + sum(struct.unpack_from("<HH", content, 26))
        told = content[begin : begin + min(first.packed, 100)].decode("ascii", "replace")
        if first.packed == first.unpacked and told in OPEN_DOCUMENT:
            return told, OPEN_DOCUMENT[told]
    raise Unfit("kind_refused", "archive")


def document(path: Path, folder: Path, kind: str) -> dict[str, Any]:
    """A document as it is, under the type that it may be served as."""
    content = path.read_bytes()
    if kind == "pdf":
        if b"%%EOF" not in content[-1024:]:
            raise Unfit
        type_, suffix = "application/pdf", ".pdf"
    elif kind == "office":
        type_, suffix = office(content)
    else:
        told = text(content)
        if told is None:
            raise Unfit("kind_refused", _name(content[:HEAD]))
        type_, suffix = told, ""
    (folder / "main").write_bytes(content)
    return {"kind": "document", "type": type_, "suffix": suffix}


# --------------------------------------------------------------------------- pictures

_MOVING = {"GIF", "WEBP", "PNG", "AVIF"}
_UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Pillow's Transpose for each of EXIF's orientations."""


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height of the canvas, which Pillow takes memory for before it says them (RFC 9649)."""
    if head[12:16] == b"VP8X" and len(head) >= 30:
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[12:16] == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise Unfit


def _fitting(width: int, height: int, side: int, scale: float = 1.0) -> tuple[int, int]:
    """The size within `side`, made smaller by `scale` at least."""
    scale = min(scale, side / max(width, height), 1.0)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _smaller(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The picture in this size, in a mode that can be scaled."""
    from PIL import Image  # noqa: PLC0415  # media need none of it before there is a picture

    if image.has_transparency_data and image.mode != "RGBA":
        image = image.convert("RGBA")
    elif image.mode in {"P", "PA"}:
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _coloured(image: "Image.Image", profile: bytes | None) -> "Image.Image":
    """The picture as RGB or RGBA, eight bits each, in sRGB, knowing nothing else."""
    from PIL import ImageCms  # noqa: PLC0415  # as above

    if image.mode.startswith(("I", "F")):
        image = image.convert("F")
        _, highest = image.getextrema()
        assert isinstance(highest, float)
        top = 1.0 if highest <= 1 else 255.0 if highest <= 255 else max(65535.0, highest)
        image = image.point(lambda value: value * (255 / top) + 0.0).convert("L")
    alpha = image.getchannel("A") if image.mode in {"RGBA", "LA"} else None
    if alpha is not None:
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(given):
                made = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
                image = made or image
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # A profile that is broken, or of another colour space than the picture.
            pass
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        image.putalpha(alpha)
    image.info = {}
    return image


def _blur(image: "Image.Image") -> str | None:
    """A picture of a few pixels, base64."""
    for side, quality in ((BLUR_SIDE, 50), (BLUR_SIDE, 10), (BLUR_SIDE // 2, 10)):
        small = image.resize(_fitting(*image.size, side), reducing_gap=2.0)
        made = io.BytesIO()
        small.save(made, "WEBP", quality=quality, alpha_quality=quality, method=6)
        if made.tell() <= BLUR_BYTES:
            return base64.b64encode(made.getvalue()).decode()
    return None


def _shown(image: "Image.Image", folder: Path) -> str | None:
    """Make the thumb of a finished picture; gives the blur."""
    thumb = image.resize(_fitting(*image.size, min(THUMB_SIDE, max(image.size))), reducing_gap=2.0)
    thumb.save(folder / "thumb", "WEBP", quality=75, method=4)
    return _blur(thumb)


def picture(path: Path, folder: Path, format_: str, pixels: int) -> dict[str, Any]:
    """A picture drawn anew as WebP. `pixels` bounds those of all its frames, before any is decoded."""
    from PIL import Image  # noqa: PLC0415  # media need none of it

    if format_ == "WEBP" and math.prod(_webp_size(path.open("rb").read(HEAD))) > pixels:
        raise Unfit("picture_too_large")
    Image.MAX_IMAGE_PIXELS = pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        with Image.open(path, formats=[format_]) as image:
            return _picture(image, folder, pixels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unfit("picture_too_large") from None


def _picture(image: "Image.Image", folder: Path, pixels: int) -> dict[str, Any]:
    from PIL import Image  # noqa: PLC0415  # as above

    width, height = image.size
    frames = int(getattr(image, "n_frames", 1)) if image.format in _MOVING else 1
    if width * height * frames > pixels:
        raise Unfit("picture_too_large")
    profile = image.info.get("icc_profile")
    try:
        turned = _UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001  # whatever a broken block brings about, the picture is beside it
        turned = None
    size = _fitting(
        width, height, LONGEST_SIDE, math.sqrt(MOVING_PIXELS / (width * height * frames)) if frames > 1 else 1
    )

    def drawn() -> "Image.Image":
        made = _coloured(_smaller(image, size), profile)
        return made if turned is None else made.transpose(Image.Transpose(turned))

    if frames == 1:
        # JPEG can be decoded at half the size or less.
        image.draft(None, size)
        first = drawn()
        first.save(folder / "main", "WEBP", quality=QUALITY, method=2)
    else:
        made, lasting = [], []
        for number in range(frames):
            image.seek(number)
            image.load()
            made.append(drawn())
            lasting.append(min(max(round(image.info.get("duration") or 0), 10), 60_000))
        first = made[0]
        # GIF counts the repeats and leaves out what plays once; the others count how often it plays, and 0 is forever.
        loop = image.info.get("loop", 0 if image.format != "GIF" else None)
        loop = 1 if loop is None else loop + (image.format == "GIF" and loop > 0)
        first.save(
            folder / "main", "WEBP", save_all=True, append_images=made[1:], duration=lasting,
            loop=min(loop, 65_535), quality=QUALITY, method=1, background=(0, 0, 0, 0),
        )  # fmt: skip
    return {
        "kind": "picture",
        "type": "image/webp",
        "suffix": ".webp",
        "width": first.width,
        "height": first.height,
        "thumb": True,
        "blur": _shown(first, folder),
    }


# --------------------------------------------------------------------------- video and sound

_IN_MP4 = ({"h264", "hevc", "av1", "vp9"}, {"aac", "mp3", "opus"})
_IN_WEBM = ({"vp8", "vp9", "av1"}, {"opus", "vorbis"})
SOUND = {
    "aac": ("ipod", "audio/mp4", ".m4a"),
    "mp3": ("mp3", "audio/mpeg", ".mp3"),
    "opus": ("webm", "audio/webm", ".webm"),
    "vorbis": ("webm", "audio/webm", ".webm"),
    "flac": ("flac", "audio/flac", ".flac"),
    **dict.fromkeys(
        ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"), ("wav", "audio/wav", ".wav")
    ),
}  # fmt: skip
_MUXING = {
    "mp4": {"movflags": "+faststart"},
    "ipod": {"movflags": "+faststart"},
    "webm": {"cues_to_front": "1", "avoid_negative_ts": "make_zero"},
    "mp3": {"id3v2_version": "0", "write_id3v1": "0"},
    "flac": {},
    "wav": {},
}
_REMARKS = {"h264": "filter_units=remove_types=6", "hevc": "filter_units=remove_types=39|40"}
"""What takes supplemental information out of the pictures: encoders and cameras leave words there."""
_TAGS = {"h264": "avc1", "hevc": "hvc1"}
"""What every player knows these by; cameras have names of their own."""


def _codec(stream: "Stream | None") -> str:
    if stream is None or stream.codec_context is None:
        return ""
    return stream.codec_context.codec.canonical_name


def _container(demuxer: str, video: str, sound: str) -> tuple[str, str, str]:
    """Muxer, media type and suffix for these codecs. Raises Unfit if there is none."""
    if not video:
        if sound not in SOUND:
            raise Unfit
        return SOUND[sound]
    in_mp4, in_webm = (
        video in videos and (not sound or sound in sounds) for videos, sounds in (_IN_MP4, _IN_WEBM)
    )  # fmt: skip
    if in_webm and not (in_mp4 and demuxer == "mov"):
        return "webm", "video/webm", ".webm"
    if in_mp4:
        return "mp4", "video/mp4", ".mp4"
    raise Unfit


def _tracks(source: "InputContainer") -> "tuple[VideoStream | None, AudioStream | None]":
    """The picture and the sound track that are kept: the first that are no cover art."""
    from av.stream import Disposition  # noqa: PLC0415  # pictures need none of it

    aside = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    video = next((one for one in source.streams.video if not one.disposition & aside), None)
    return video, next(iter(source.streams.audio), None)


def _unremarked(header: bytes | None, codec: str) -> bytes | None:
    """What decoders are told beforehand, without supplemental information: the filter leaves it there.

    It comes out of the filter as units behind start codes (Rec. H.264 and H.265, annex B).
    """
    if not header or not header.startswith((b"\0\0\1", b"\0\0\0\1")):
        return header
    units = [unit for unit in re.split(rb"\x00{2,}\x01", header) if unit]
    kept = [one for one in units if (one[0] & 31 != 6 if codec == "h264" else one[0] >> 1 & 63 not in {39, 40})]
    return b"".join(b"\0\0\0\1" + unit for unit in kept)


class _Remux:
    """Carries packets over into a file that says nothing but what is needed to play them."""

    def __init__(self, output: "av.container.OutputContainer", tracks: "list[Stream]") -> None:
        from av.bitstream import BitStreamFilterContext  # noqa: PLC0415  # as above

        self._output = output
        self._to: dict[int, Any] = {}
        self._filters: dict[int, Any] = {}
        self._last: dict[int, int] = {}
        self._begin = math.inf
        self._end = -math.inf
        self.packets = 0
        for track in tracks:
            made = output.add_stream_from_template(track, opaque=True)
            if remarks := _REMARKS.get(_codec(track)):
                self._filters[track.index] = BitStreamFilterContext(remarks, track, made)
                made.codec_context.extradata = _unremarked(made.codec_context.extradata, _codec(track))
            made.metadata.clear()
            if tag := _TAGS.get(_codec(track)) if output.format.name == "mp4" else None:
                made.codec_context.codec_tag = tag
            self._to[track.index] = made
        output.metadata.clear()

    @property
    def seconds(self) -> float:
        return max(0.0, self._end - self._begin) if self.packets else 0.0

    def take(self, packet: "Packet[Any]") -> None:
        """Carry one packet over."""
        if packet.size == 0 or (packet.pts is None and packet.dts is None):
            return
        index = packet.stream.index
        if packet.time_base and packet.pts is not None:
            begin = float(packet.pts * packet.time_base)
            self._begin = min(self._begin, begin)
            self._end = max(self._end, begin + float((packet.duration or 0) * packet.time_base))
        kept = self._filters[index].filter(packet) if index in self._filters else [packet]
        for one in kept:
            self._put(index, one)

    def finish(self) -> None:
        """What a filter held back."""
        for index, one in self._filters.items():
            for packet in one.filter(None):
                self._put(index, packet)

    def _put(self, index: int, packet: "Packet[Any]") -> None:
        # A muxer takes no time twice; a recorder in a hurry writes some.
        if packet.dts is not None:
            last = self._last.get(index)
            if last is not None and packet.dts <= last:
                packet.dts = last + 1
            if packet.pts is not None and packet.pts < packet.dts:
                packet.pts = packet.dts
            self._last[index] = packet.dts
        packet.stream = self._to[index]
        self._output.mux(packet)
        self.packets += 1


def _opened(path: Path, demuxer: str) -> "InputContainer":
    """Open by this demuxer and no other; nothing else is ever opened on a file's behalf."""
    import av  # noqa: PLC0415  # pictures need none of it

    return av.open(
        os.fspath(path), "r", format=demuxer, metadata_errors="replace", options={"protocol_whitelist": "file"}
    )


def _turned(width: int, height: int, angle: int) -> tuple[int, int]:
    return (height, width) if round(angle / 90) % 2 else (width, height)


def _frame(path: Path, demuxer: str, seconds: float, pixels: int) -> tuple[int, int, "Image.Image"]:
    """Width and height as they are displayed, and one picture that is likely to show something."""
    import av  # noqa: PLC0415  # as above
    from PIL import Image  # noqa: PLC0415  # as above

    for at in (min(1.0, seconds / 10), 0.0):
        with _opened(path, demuxer) as film:
            track = film.streams.video[0]
            track.codec_context.thread_count = 1
            if track.width * track.height > pixels:
                raise Unfit("picture_too_large")
            if at and track.time_base:
                film.seek(int(at / track.time_base), stream=track)
            try:
                frame = next(film.decode(track), None)
            except av.FFmpegError:
                frame = None
            if frame is None:
                continue
            aspect = float(track.sample_aspect_ratio or 1)
            width = round(frame.width * aspect) if 0.25 <= aspect <= 4 else frame.width
            angle = frame.rotation
            small = frame.reformat(*_fitting(width, frame.height, THUMB_SIDE), format="rgb24")
            image = Image.fromarray(small.to_ndarray())
            return *_turned(width, frame.height, angle), image.rotate(angle, expand=True) if angle else image
    raise Unfit


def _waveform(path: Path, demuxer: str, seconds: float) -> str:
    """Loudness over time: SLICES bytes, the loudest 255, base64. Raises Unfit if nothing can be heard at all."""
    import av  # noqa: PLC0415  # as above
    import numpy as np  # noqa: PLC0415  # as above

    squares, samples, heard = np.zeros(SLICES), np.zeros(SLICES), np.zeros(SLICES, dtype=np.int64)
    with _opened(path, demuxer) as sound:
        track = sound.streams.audio[0]
        track.codec_context.thread_count = 1
        begin = None
        for packet in sound.demux(track):
            if packet.pts is None or not packet.time_base:
                continue
            at = float(packet.pts * packet.time_base)
            begin = at if begin is None else begin
            place = min(max(int((at - begin) / max(seconds, 1e-3) * SLICES), 0), SLICES - 1)
            if heard[place] >= PACKETS_HEARD:
                continue
            heard[place] += 1
            try:
                for frame in packet.decode():
                    values = frame.to_ndarray()
                    loud = values.astype(np.float64)
                    if values.dtype == np.uint8:
                        loud = (loud - 128) / 128
                    elif values.dtype.kind == "i":
                        loud /= 1 << (8 * values.dtype.itemsize - 1)
                    loud = np.nan_to_num(np.clip(loud, -1, 1))
                    squares[place] += float(np.square(loud).sum())
                    samples[place] += loud.size
            except av.FFmpegError:
                continue
    if not samples.any():
        raise Unfit
    # A short sound leaves slices without a packet: they are as loud as the one before.
    loudness = np.sqrt(squares / np.maximum(samples, 1))
    known = np.flatnonzero(samples)
    loudness = loudness[known[np.maximum(np.searchsorted(known, np.arange(SLICES), side="right") - 1, 0)]]
    top = loudness.max()
    levels = np.zeros(SLICES) if top < 1e-4 else loudness / top * 255
    return base64.b64encode(np.rint(levels).astype(np.uint8).tobytes()).decode()


def media(path: Path, folder: Path, demuxer: str, pixels: int, *, voice: bool) -> dict[str, Any]:
    """Video or sound, packed anew without being encoded anew."""
    import av  # noqa: PLC0415  # as above

    av.logging.set_level(None)
    main = folder / "main"
    with _opened(path, demuxer) as source:
        video, sound = _tracks(source)
        if video is None and sound is None:
            raise Unfit
        muxer, type_, suffix = _container(demuxer, _codec(video), _codec(sound))
        if (video is not None and not _codec(video)) or (sound is not None and not _codec(sound)):
            raise Unfit
        tracks: list[Stream] = [track for track in (video, sound) if track is not None]
        options = {**_MUXING[muxer], "fflags": "+bitexact"}
        with av.open(os.fspath(main), "w", format=muxer, options=options) as output:
            carried = _Remux(output, tracks)
            for packet in source.demux(*tracks):
                carried.take(packet)
            carried.finish()
    if not carried.packets:
        raise Unfit
    made = {"mp4": "mov", "ipod": "mov", "webm": "matroska"}.get(muxer, muxer)
    found: dict[str, Any] = {"type": type_, "suffix": suffix, "seconds": round(carried.seconds, 3)}
    if video is None:
        waveform = _waveform(main, made, carried.seconds)
        return {**found, "kind": "voice" if voice else "audio", "waveform": waveform}
    width, height, image = _frame(main, made, carried.seconds, pixels)
    return {**found, "kind": "video", "width": width, "height": height, "thumb": True, "blur": _shown(image, folder)}


# --------------------------------------------------------------------------- the process


def take_apart(path: Path, folder: Path, pixels: int, *, voice: bool) -> dict[str, Any]:
    """Find out what the file is, and make `main`, and `thumb` if it can be seen. Raises Unfit, and anything else."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Unfit
    kind, format_ = kind_of(head)
    if kind == "refused":
        raise Unfit("kind_refused", format_)
    if kind == "picture":
        return picture(path, folder, format_, pixels)
    if kind == "media":
        return media(path, folder, format_, pixels, voice=voice)
    return document(path, folder, kind)


def main() -> None:
    """Take one file apart."""
    # Whatever a library prints is no answer.
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    request = json.loads(sys.stdin.buffer.read(LARGEST_REQUEST))
    path, folder = Path(request["path"]), Path(request["folder"])
    limit(request["memory"], request["cpu"], path.stat().st_size + BYTES_BESIDE)
    answer: dict[str, Any] = {"confined": confine(path, folder)}
    try:
        answer["found"] = take_apart(path, folder, request["pixels"], voice=request["voice"])
    except Unfit as unfit:
        answer["refused"] = unfit.code
        answer["kind"] = unfit.kind
    except Exception as error:  # noqa: BLE001  # a decoder may fail in any way there is
        answer["refused"] = "file_unreadable"
        answer["why"] = type(error).__name__
    os.write(answers, json.dumps(answer).encode())
    # Nothing of a library that was fed with this file is asked to tidy up.
    os._exit(0)


if __name__ == "__main__":
    main()
