"""Files are taken apart as the corpus has them: what they are, what comes out, what is refused, and what it may cost.

The process that does it is the real one. Where it must misbehave, its program is replaced by one that does.
"""

import asyncio
import base64
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from PIL import Image

import corpus
from rig import PATIENCE, missing
from visavis.adapters import takeapart, workshop
from visavis.adapters.workshop import LimitedWorkshop
from visavis.contract import Refused, SharedFile
from visavis.core.ports import Found

PIXELS = 50_000_000
Examine = Callable[..., Awaitable[Found]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    made.mkdir()
    return made


@pytest.fixture
def examine(tmp_path: Path, folder: Path) -> Examine:
    """Has one file taken apart; what was made of the one before is gone."""

    async def examine(
        content: bytes, name: str = "file.txt", *, voice: bool = False, using: LimitedWorkshop | None = None
    ) -> Found:
        for old in folder.iterdir():
            old.unlink()
        path = tmp_path / "given"
        path.write_bytes(content)
        return await (using or LimitedWorkshop(2, PIXELS)).examine(path, name, folder, voice=voice)

    return examine


async def refusal(examined: Awaitable[Found]) -> dict[str, Any]:
    with pytest.raises(Refused) as refused:
        await examined
    said: dict[str, Any] = refused.value.as_error()["error"]
    return said


def looks_like(colour: Any, like: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 30 for one, other in zip(colour, like, strict=False))


def corners_of(path: Path) -> list[Any]:
    """The colours of the four corners: above left and right, below left and right."""
    with Image.open(path) as image:
        shown = image.convert("RGB")
        x, y = shown.width // 8, shown.height // 8
        return [
            shown.getpixel(at)
            for at in ((x, y), (shown.width - x, y), (x, shown.height - y), (shown.width - x, shown.height - y))
        ]


def chunks(content: bytes) -> list[bytes]:
    """The names of a WebP's chunks."""
    assert content[:4] == b"RIFF"
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    found, at = [], 12
    while at < len(content):
        found.append(content[at : at + 4])
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little") + content[at + 4] % 2
    return found


def says_nothing(content: bytes) -> bool:
    """Whether nothing of where and with what it was made is left."""
    return not any(word in content for word in corpus.WORDS)


# --------------------------------------------------------------------------- what it is

PICTURES = [
    corpus.jpeg,
    corpus.jpeg_with_gps,
    corpus.jpeg_cmyk,
    corpus.jpeg_wide_gamut,
    corpus.jpeg_with_zip,
    corpus.png_with_text,
    corpus.png_with_page,
    corpus.png_palette,
    corpus.png_grey,
    corpus.png_grey_16_bit,
    corpus.png_one_pixel,
    corpus.png_panorama,
    corpus.tiff_16_bit,
    corpus.tiff_float,
    corpus.bmp,
    corpus.webp,
    corpus.avif,
    corpus.gif_animated,
]
MEDIA = {
    corpus.mp4_from_phone: ("video", "video/mp4", ".mp4"),
    corpus.mp4_fragmented: ("video", "video/mp4", ".mp4"),
    corpus.quicktime: ("video", "video/mp4", ".mp4"),
    corpus.mp4_hevc: ("video", "video/mp4", ".mp4"),
    corpus.mp4_av1: ("video", "video/mp4", ".mp4"),
    corpus.webm_recorded: ("video", "video/webm", ".webm"),
    corpus.matroska_h264: ("video", "video/mp4", ".mp4"),
    corpus.matroska_with_attachment: ("video", "video/webm", ".webm"),
    corpus.voice_recorded: ("audio", "audio/webm", ".webm"),
    corpus.ogg_opus: ("audio", "audio/webm", ".webm"),
    corpus.m4a: ("audio", "audio/mp4", ".m4a"),
    corpus.mp3: ("audio", "audio/mpeg", ".mp3"),
    corpus.flac: ("audio", "audio/flac", ".flac"),
    corpus.wav: ("audio", "audio/wav", ".wav"),
    corpus.wav_silent: ("audio", "audio/wav", ".wav"),
}
_WORD = "application/vnd.openxmlformats-officedocument."
DOCUMENTS = {
    corpus.pdf: ("application/pdf", ".pdf"),
    corpus.pdf_with_page: ("application/pdf", ".pdf"),
    corpus.docx: (_WORD + "wordprocessingml.document", ".docx"),
    corpus.xlsx: (_WORD + "spreadsheetml.sheet", ".xlsx"),
    corpus.odt: ("application/vnd.oasis.opendocument.text", ".odt"),
    corpus.plain_text: ("text/plain", ""),
    corpus.playlist: ("text/plain", ""),
    corpus.text_latin: ("application/octet-stream", ""),
    corpus.text_utf16: ("application/octet-stream", ""),
    corpus.page: ("application/octet-stream", ""),
    corpus.page_with_pdf: ("application/octet-stream", ""),
    corpus.svg_with_script: ("application/octet-stream", ""),
    corpus.shell_script: ("application/octet-stream", ""),
    corpus.postscript: ("application/octet-stream", ""),
}
REFUSED = {
    corpus.windows_program: {"code": "kind_refused", "kind": "program"},
    corpus.linux_program: {"code": "kind_refused", "kind": "program"},
    corpus.mac_program: {"code": "kind_refused", "kind": "program"},
    corpus.program_with_zip: {"code": "kind_refused", "kind": "program"},
    corpus.zip_archive: {"code": "kind_refused", "kind": "archive"},
    corpus.zip_bomb: {"code": "kind_refused", "kind": "archive"},
    corpus.gzip_archive: {"code": "kind_refused", "kind": "archive"},
    corpus.docx_with_macros: {"code": "kind_refused", "kind": "macros"},
    corpus.old_word_document: {"code": "kind_refused", "kind": "doc"},
    corpus.photoshop: {"code": "kind_refused", "kind": "psd"},
    corpus.unknown_binary: {"code": "kind_refused", "kind": "unknown"},
    corpus.png_pixel_bomb: {"code": "picture_too_large", "limit": PIXELS},
    corpus.png_decompression_bomb: {"code": "picture_too_large", "limit": PIXELS},
    corpus.gif_pixel_bomb: {"code": "picture_too_large", "limit": PIXELS},
    corpus.gif_frame_bomb: {"code": "picture_too_large", "limit": PIXELS},
    corpus.webp_pixel_bomb: {"code": "picture_too_large", "limit": PIXELS},
    corpus.png_text_bomb: {"code": "file_unreadable"},
    corpus.docx_bomb: {"code": "file_unreadable"},
    corpus.docx_bomb_overlapping: {"code": "file_unreadable"},
    corpus.gif_with_script: {"code": "file_unreadable"},
    corpus.pdf_with_zip: {"code": "file_unreadable"},
    corpus.jpeg_truncated: {"code": "file_unreadable"},
    corpus.mp4_truncated: {"code": "file_unreadable"},
    corpus.mp4_old_codec: {"code": "file_unreadable"},
}


def test_every_file_of_the_corpus_is_tried() -> None:
    """A file that is added to it is decided about here."""
    tried = {*PICTURES, *MEDIA, *DOCUMENTS, *REFUSED}
    helpers = {corpus.corners, corpus.saved, corpus.tone, corpus.film}
    there = {
        one
        for name, one in vars(corpus).items()
        if callable(one) and getattr(one, "__module__", "") == "corpus" and not name.startswith("_")
    }
    assert there - helpers == tried


@pytest.mark.parametrize("make", PICTURES, ids=lambda make: make.__name__)
async def test_a_picture_is_drawn_anew(examine: Examine, make: Callable[[], bytes]) -> None:
    """As WebP that says nothing but what it shows, whatever it is called."""
    given = make()
    found = await examine(given, "notes.pdf")
    assert (found.kind, found.type, found.suffix) == ("picture", "image/webp", ".webp")
    with Image.open(io.BytesIO(given)) as before, Image.open(found.main) as image:
        assert image.format == "WEBP"
        assert image.size == (found.width, found.height)
        assert max(image.size) == min(max(before.size), 2560)
    assert found.thumb is not None
    with Image.open(found.thumb) as thumb:
        assert thumb.format == "WEBP"
        assert max(thumb.size) == min(max(before.size), 640)
    assert found.blur is not None
    assert len(found.blur) <= 600
    with Image.open(io.BytesIO(base64.b64decode(found.blur))) as blur:
        assert blur.format == "WEBP"
        assert max(blur.size) <= 16
    for path in (found.main, found.thumb):
        content = path.read_bytes()
        assert set(chunks(content)) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
        assert says_nothing(content)
        assert b"<script" not in content
        assert b"PK\3\4" not in content


@pytest.mark.parametrize("make", MEDIA, ids=lambda make: make.__name__)
async def test_video_and_sound_are_carried_over(examine: Examine, make: Callable[[], bytes]) -> None:
    """Into what browsers play, with nothing beside one picture and one sound track."""
    given = make()
    found = await examine(given, "notes.pdf")
    assert (found.kind, found.type, found.suffix) == MEDIA[make]  # type: ignore[index]
    assert found.seconds is not None
    with av.open(io.BytesIO(given)) as before, av.open(str(found.main)) as after:
        kinds = [stream.type for stream in after.streams]
        assert kinds == (["video", "audio"] if found.kind == "video" else ["audio"])
        assert after.duration is not None
        assert abs(after.duration / av.time_base - found.seconds) < 0.1
        packed = sum(packet.size for packet in before.demux(audio=0))
        assert sum(packet.size for packet in after.demux(audio=0)) == packed
    assert says_nothing(found.main.read_bytes().replace(b"Lavc62", b""))


@pytest.mark.parametrize("make", DOCUMENTS, ids=lambda make: make.__name__)
async def test_a_document_stays_as_it_is(examine: Examine, make: Callable[[], bytes]) -> None:
    """Under a type that no browser runs."""
    # Made once: an archive holds the time, to two seconds.
    given = make()
    found = await examine(given)
    assert (found.type, found.suffix) == DOCUMENTS[make]
    assert found.kind == "document"
    assert found.main.read_bytes() == given
    assert found.thumb is found.width is found.blur is None


def children_took() -> float:
    """Seconds of the processor's time, by processes that have ended: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
async def test_what_is_not_taken_is_refused(examine: Examine, folder: Path, make: Callable[[], bytes]) -> None:
    """With the reason and little work, whatever it is called."""
    spoiled = make()
    spent = children_took()
    assert await refusal(examine(spoiled, "holiday.jpg")) == REFUSED[make]
    # Of a limit of many times that: it was not taken apart first.
    assert children_took() - spent < 4


async def test_the_scanners_test_file_is_a_text(examine: Examine) -> None:
    """To find that it is more is the scanner's business."""
    assert (await examine(corpus.EICAR)).kind == "document"


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("run.bat", ".bat.txt"), ("GO.HTA", ".HTA.txt"), ("page.html", ""), ("a.CSV", ""), ("notes.md", ""), ("x", "")],
)
async def test_a_text_is_saved_under_a_name_that_does_not_run(examine: Examine, name: str, suffix: str) -> None:
    """What opens it on a click shows it."""
    assert (await examine(corpus.plain_text(), name)).suffix == suffix
    assert (await examine(corpus.page(), name)).suffix == suffix


def test_making_the_corpus_leaves_this_process_as_it_was() -> None:
    """Not at real-time priority, which everything that is started later would have as well."""
    corpus.mp4_av1.__wrapped__()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


async def test_only_sound_becomes_a_voice_message(examine: Examine) -> None:
    """What else is sent as one is what it is."""
    voice = await examine(corpus.voice_recorded(), voice=True)
    assert (voice.kind, voice.type) == ("voice", "audio/webm")
    assert (await examine(corpus.webm_recorded(), voice=True)).kind == "video"
    assert (await examine(corpus.jpeg(), voice=True)).kind == "picture"
    assert (await examine(corpus.plain_text(), voice=True)).kind == "document"


@pytest.mark.parametrize("make", [corpus.jpeg, corpus.webm_recorded, corpus.voice_recorded, corpus.plain_text])
async def test_what_is_found_can_be_told_to_members(examine: Examine, make: Callable[[], bytes]) -> None:
    """It is within the contract's bounds."""
    found = await examine(make())
    told = {name: getattr(found, name) for name in ("width", "height", "seconds", "waveform", "blur")}
    described = {"id": "f" * 22, "kind": found.kind, "name": "x", "type": found.type, "bytes": 1, "expiresAt": 1}
    msgspec.convert({**described, **{name: value for name, value in told.items() if value is not None}}, SharedFile)


# --------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_picture_stands_upright(examine: Examine, orientation: int) -> None:
    """The way EXIF says that it was held, for it says no more."""
    found = await examine(corpus.jpeg_with_gps(orientation))
    above = {1: "RG", 2: "GR", 3: "WB", 4: "BW", 5: "RB", 6: "BR", 7: "WG", 8: "GW"}[orientation]
    below = {1: "BW", 2: "WB", 3: "GR", 4: "RG", 5: "GW", 6: "WG", 7: "BR", 8: "RB"}[orientation]
    assert (found.width, found.height) == ((640, 480) if orientation < 5 else (480, 640))
    assert found.thumb is not None
    for path in (found.main, found.thumb):
        for colour, letter in zip(corners_of(path), above + below, strict=True):
            named = {"R": corpus.RED, "G": corpus.GREEN, "B": corpus.BLUE, "W": corpus.WHITE}[letter]
            assert looks_like(colour, named)


async def test_a_see_through_picture_stays_see_through(examine: Examine) -> None:
    """In the picture, the thumb and the blur."""
    for given in (corpus.png_with_text(), corpus.png_palette()):
        found = await examine(given)
        assert found.thumb is not None
        assert found.blur is not None
        for shown in (found.main, found.thumb, io.BytesIO(base64.b64decode(found.blur))):
            with Image.open(shown) as image:
                assert image.convert("RGBA").getextrema()[3][0] < 30


async def test_colours_are_converted(examine: Examine) -> None:
    """From the profile a picture comes with, and from CMYK, to sRGB."""
    swapped = corners_of((await examine(corpus.jpeg_wide_gamut())).main)
    assert looks_like(swapped[0], corpus.BLUE)
    assert looks_like(swapped[2], corpus.RED)
    printed = corners_of((await examine(corpus.jpeg_cmyk())).main)
    assert looks_like(printed[0], corpus.RED)
    assert looks_like(printed[3], corpus.WHITE)


@pytest.mark.parametrize("make", [corpus.png_grey_16_bit, corpus.tiff_16_bit, corpus.tiff_float])
async def test_more_than_eight_bits_become_eight(examine: Examine, make: Callable[[], bytes]) -> None:
    """From black to white."""
    with Image.open((await examine(make())).main) as image:
        shown = image.convert("L")
        assert [round(shown.getpixel((100, y)) / 64) for y in (0, 49, 99)] == [0, 2, 4]  # type: ignore[operator]


async def test_an_animation_goes_on_moving(examine: Examine) -> None:
    """At its own pace; one that is long is made smaller."""
    found = await examine(corpus.gif_animated())
    with Image.open(found.main) as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (8, (120, 80), 0)  # type: ignore[attr-defined]
        image.seek(3)
        image.load()
        assert image.info["duration"] == 70
        assert looks_like(image.convert("RGB").getpixel((10, 20)), corpus.RED)
        assert looks_like(image.convert("RGB").getpixel((40, 20)), corpus.WHITE)
    large = await examine(corpus.gif_animated(40, (1200, 1000)))
    assert large.width is not None
    assert large.height is not None
    with Image.open(large.main) as image:
        assert image.n_frames == 40  # type: ignore[attr-defined]
    assert 0.9 * takeapart.MOVING_PIXELS < 40 * large.width * large.height <= 1.01 * takeapart.MOVING_PIXELS


async def test_all_frames_count(examine: Examine) -> None:
    """Together they have no more pixels than one picture may have."""
    using = LimitedWorkshop(1, 120 * 80 * 8)
    assert (await examine(corpus.gif_animated(8), using=using)).kind == "picture"
    assert (await refusal(examine(corpus.gif_animated(9), using=using)))["code"] == "picture_too_large"


# --------------------------------------------------------------------------- video and sound


def place(content: bytes, box: bytes) -> int:
    return content.find(box)


@pytest.mark.parametrize("make", [corpus.mp4_from_phone, corpus.mp4_fragmented, corpus.quicktime])
async def test_an_mp4_begins_to_play_before_all_of_it_is_there(examine: Examine, make: Callable[[], bytes]) -> None:
    """Its table of contents stands at the beginning, and knows all of it."""
    content = (await examine(make())).main.read_bytes()
    assert 0 < place(content, b"moov") < place(content, b"mdat")
    assert b"moof" not in content


@pytest.mark.parametrize("make", [corpus.webm_recorded, lambda: corpus.voice_recorded(30.0)], ids=["video", "voice"])
async def test_what_a_browser_recorded_can_be_sought_in(examine: Examine, make: Callable[[], bytes]) -> None:
    """Live recordings have neither duration nor cues; what comes out has both, and begins at zero."""
    duration, cues, cluster = b"\x44\x89\x88", b"\x1c\x53\xbb\x6b", b"\x1f\x43\xb6\x75"
    assert place(make(), duration) < 0
    assert place(make(), cues) < 0
    found = await examine(make())
    assert found.seconds is not None
    content = found.main.read_bytes()
    assert 0 < place(content, duration) < place(content, cluster)
    assert 0 < place(content, cues) < place(content, cluster)
    with av.open(str(found.main)) as film:
        assert film.start_time == 0
        assert film.duration is not None
        track = film.streams[0]
        assert track.time_base is not None
        film.seek(round(found.seconds * 0.8 * av.time_base))
        packet = next(film.demux(track))
        assert packet.pts is not None
        assert packet.pts * track.time_base > found.seconds * 0.4


async def test_a_film_is_shown_upright(examine: Examine) -> None:
    """Its container turns it still; width, height and thumb are as it is displayed."""
    found = await examine(corpus.mp4_from_phone())
    assert (found.width, found.height) == (240, 320)
    with av.open(str(found.main)) as film:
        assert abs(next(film.decode(video=0)).rotation) == 90
    assert found.thumb is not None
    with Image.open(found.thumb) as thumb:
        assert thumb.size == (240, 320)
    turned = corners_of(found.thumb)
    # Rotated by -90 degrees: what was at the left below is at the left above.
    assert [looks_like(one, like) for one, like in zip(turned, (corpus.BLUE, corpus.RED), strict=False)] == [True] * 2


async def test_a_picture_of_a_film_is_one_of_its_pictures(examine: Examine) -> None:
    """And not its first, which is often dark."""
    dark = corpus.film("webm", video="libvpx", seconds=4, picture=lambda n: Image.new("RGB", (320, 240), "black") if n < 2 else corpus.corners(320, 240), options={"live": "1"})  # fmt: skip  # noqa: E501
    found = await examine(dark)
    assert found.thumb is not None
    assert found.blur is not None
    assert found.waveform is None


async def test_encoders_leave_no_words_in_the_pictures(examine: Examine) -> None:
    """x264 writes its settings into the first picture; cameras write there, too."""
    assert b"x264" in corpus.mp4_from_phone()
    assert b"x264" not in (await examine(corpus.mp4_from_phone())).main.read_bytes()
    found = await examine(corpus.mp4_hevc())
    assert b"x265" not in found.main.read_bytes()
    with av.open(str(found.main)) as film:
        assert sum(1 for _ in film.decode(video=0)) == 40


@pytest.mark.parametrize("make", [corpus.voice_recorded, corpus.m4a, corpus.mp3, corpus.flac, corpus.wav])
async def test_a_waveform_is_as_loud_as_the_sound(examine: Examine, make: Callable[[], bytes]) -> None:
    """A tone that swells: 64 bytes that grow, the last the loudest."""
    waveform = (await examine(make(), voice=True)).waveform
    assert waveform is not None
    assert len(waveform) == 88
    levels = np.frombuffer(base64.b64decode(waveform), np.uint8).astype(int)
    assert len(levels) == 64
    assert levels.max() == 255
    assert levels[:4].max() < 40
    assert (np.diff(levels[::8]) > 0).all()


async def test_silence_has_a_flat_waveform(examine: Examine) -> None:
    """It is not made loud."""
    waveform = (await examine(corpus.wav_silent())).waveform
    assert waveform is not None
    assert base64.b64decode(waveform) == bytes(64)


async def test_a_film_with_huge_pictures_is_refused(examine: Examine) -> None:
    """Before one of them is decoded."""
    using = LimitedWorkshop(1, 320 * 240 - 1)
    assert (await refusal(examine(corpus.webm_recorded(), using=using)))["code"] == "picture_too_large"


@pytest.mark.parametrize("make", [corpus.webm_recorded, corpus.mp4_from_phone, corpus.mp3, corpus.jpeg, corpus.docx])
async def test_a_damaged_file_is_refused_or_repaired(examine: Examine, make: Callable[[], bytes]) -> None:
    """Never anything else, wherever the damage is."""
    whole = make()
    for at in range(40, len(whole), len(whole) // 6):
        code = "taken"
        try:
            await examine(whole[:at] + bytes(64) + b"\xff" * 16 + whole[at + 80 :])
        except Refused as refused:
            code = refused.code
        assert code in {"taken", "file_unreadable", "kind_refused", "picture_too_large"}


# --------------------------------------------------------------------------- few rights


def confined(tmp_path: Path, body: str) -> str:
    """What a process says that has given up its rights, and then does this."""
    inside = tmp_path / "inside"
    inside.mkdir(exist_ok=True)
    (tmp_path / "given").write_bytes(b"x")
    program = f"""
import errno, importlib.util, os, signal, socket, sys, threading
from pathlib import Path
spec = importlib.util.spec_from_file_location("takeapart", {takeapart.__file__!r})
module = importlib.util.module_from_spec(spec)
sys.modules["takeapart"] = module
spec.loader.exec_module(module)
done = module.confine(Path({str(tmp_path / "given")!r}), Path({str(inside)!r}))
if set(done) != {{"privileges", "files", "calls"}}:
    sys.exit("unconfined: " + " ".join(done))
def tried(work):
    try:
        work()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
{body}
"""
    told = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, env={})
    if told.stderr.startswith("unconfined"):
        missing(f"this system has no such means: {told.stderr}")
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def test_the_process_reaches_no_network(tmp_path: Path) -> None:
    """Not even a socket of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        said = confined(
            tmp_path,
            f"""
print(tried(lambda: socket.create_connection({address!r})))
print(tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
print(tried(lambda: socket.socket(socket.AF_UNIX)))
print(tried(lambda: socket.socketpair()))
""",
        )
    assert said.split() == ["EPERM"] * 4


def test_the_process_sees_no_other_files(tmp_path: Path) -> None:
    """It reads what it was given, writes where it was told to, and nothing else."""
    (tmp_path / "secret").write_text("x")
    said = confined(
        tmp_path,
        f"""
at = Path({str(tmp_path)!r})
print(tried(lambda: (at / "given").read_bytes()), tried(lambda: (at / "inside" / "main").write_bytes(b"x")))
print(tried(lambda: (at / "secret").read_bytes()), tried(lambda: (at / "given").write_bytes(b"x")))
print(tried(lambda: (at / "more").write_bytes(b"x")), tried(lambda: Path("/etc/passwd").read_bytes()))
print(tried(lambda: Path(f"/proc/{{os.getppid()}}/environ").read_bytes()), tried(lambda: os.listdir("/")))
print(tried(lambda: (at / "inside" / "link").symlink_to("/etc/passwd")))
""",
    )
    assert said.split() == ["done", "done", *["EACCES"] * 7]


def test_the_process_starts_and_harms_no_others(tmp_path: Path) -> None:
    """Threads it may have."""
    said = confined(
        tmp_path,
        """
print(tried(lambda: os.fork()), tried(lambda: os.execv(sys.executable, [sys.executable])))
print(tried(lambda: os.posix_spawn("/bin/true", ["true"], {})), tried(lambda: os.kill(os.getppid(), 0)))
print(tried(lambda: os.setsid()))
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
""",
    )
    assert said.split() == ["EPERM"] * 5 + ["thread"]


class Replaced:
    """Stands for the module of the process: another program in its place."""

    def __init__(self, path: Path, program: str) -> None:
        path.write_text("import json, os, resource, sys, time\nrequest = json.load(sys.stdin)\n" + program)
        self.__file__ = str(path)


def good(**changes: Any) -> dict[str, Any]:
    return {"kind": "document", "type": "text/plain", "suffix": "", **changes}


def replace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    monkeypatch.setattr(workshop, "takeapart", Replaced(tmp_path / "program.py", program))


def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, Any], before: str = "") -> None:
    answer = {"confined": [], "found": found}
    made = before or 'open("main", "w").write("x")'
    replace(monkeypatch, tmp_path, f"{made}\nprint(json.dumps({answer!r}))")


async def test_an_answer_that_can_be_true_is_believed(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that the tests of those that cannot be test something."""
    answering(monkeypatch, tmp_path, good())
    assert (await examine(b"x")).main.read_text() == "x"


@pytest.mark.parametrize(
    "found",
    [
        good(type="text/html"),
        good(kind="picture"),
        good(suffix=".html"),
        good(kind="picture", type="image/svg+xml", suffix=".svg"),
        good(kind="program"),
        good(width=0),
        good(width=70_000),
        good(seconds=-1),
        good(seconds="1"),
        good(waveform="A" * 10_000),
        good(blur="A" * 601),
        good(blur="<script>"),
        good(main="/etc/passwd"),
        good(thumb=True),
        {},
    ],
)
async def test_an_answer_that_cannot_be_true_is_not_believed(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: dict[str, Any]
) -> None:
    """It comes from where a stranger's file was decoded."""
    answering(monkeypatch, tmp_path, found)
    assert await refusal(examine(b"x")) == {"code": "file_unreadable"}


@pytest.mark.parametrize(
    "made",
    [
        'os.symlink("/etc/passwd", "main")',
        'os.mkdir("main")',
        'os.mkfifo("main")',
        'open("main", "w")',
        'open("other", "w").write("x"); os.link("other", "main")',
        "pass",
    ],
)
async def test_what_it_made_is_a_file_of_its_own(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str
) -> None:
    """Not a way to other files, nor a place to wait at."""
    answering(monkeypatch, tmp_path, good(), made)
    with pytest.raises(Refused, match="file_unreadable"):
        await LimitedWorkshop(1, PIXELS).examine(tmp_path / "x", "x.txt", tmp_path, voice=False)


@pytest.mark.parametrize(
    "program",
    [
        "sys.exit(1)",
        "os.abort()",
        'print("nonsense")',
        "print('[' * 60000)",
        'print(json.dumps({"found": None}))',
        'print("x" * 10_000_000)',
        "os.close(1); os.close(2)",
        'print(json.dumps({"confined": [], "refused": "internal"}))',
    ],
)
async def test_a_process_that_fails_is_an_unreadable_file(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    """However it fails, nothing else is raised."""
    replace(monkeypatch, tmp_path, program)
    assert await refusal(examine(b"x")) == {"code": "file_unreadable"}


async def test_the_kind_that_is_told_is_a_word(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody is shown what a file made a process say."""
    replace(monkeypatch, tmp_path, 'print(json.dumps({"confined": [], "refused": "kind_refused", "kind": "<b>"}))')
    assert await refusal(examine(b"x")) == {"code": "kind_refused", "kind": "unknown"}


async def test_a_process_that_does_not_end_is_ended(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what it had started with it, when its time is over or nobody waits for it any more."""
    replace(monkeypatch, tmp_path, 'open("pids", "w").write(f"{os.getpid()} {os.fork()}")\ntime.sleep(60)')
    using = LimitedWorkshop(1, PIXELS, seconds=1)

    async def gone(pids: list[int]) -> None:
        async with asyncio.timeout(PATIENCE):
            while any(alive(pid) for pid in pids):
                await asyncio.sleep(0.02)

    def alive(pid: int) -> bool:
        try:
            return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False

    def started() -> list[int]:
        # The child of its own writes the same file, with a zero for itself.
        return [int(pid) for pid in (tmp_path / "made" / "pids").read_text().split() if int(pid)]

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await examine(b"x", using=using)
    assert time.monotonic() - began < 5
    await gone(started())
    waiting = asyncio.create_task(examine(b"x", using=LimitedWorkshop(1, PIXELS)))
    await asyncio.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await gone(started())


async def test_a_file_that_had_no_time_can_be_read_later(examine: Examine) -> None:
    """A machine that is busy is not held against the file, and the place is free again."""
    content = corpus.jpeg()
    using = LimitedWorkshop(1, PIXELS, seconds=0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await examine(content, using=using)
    assert (await examine(content)).kind == "picture"


async def test_a_file_that_got_no_process_can_be_read_later(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too many run already, the file is not to blame."""
    with monkeypatch.context() as crowded:
        crowded.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(TimeoutError):
            await examine(corpus.jpeg())
    assert (await examine(corpus.jpeg())).kind == "picture"


async def test_a_file_that_needs_too_much_of_the_processor_is_unreadable(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Long before its time by the clock is over."""
    replace(monkeypatch, tmp_path, "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass")
    assert await refusal(examine(b"x")) == {"code": "file_unreadable"}


async def test_no_more_than_so_many_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others wait, and their time has not begun."""
    replace(
        monkeypatch,
        tmp_path,
        'began = time.time()\ntime.sleep(0.3)\nopen("main", "w").write(f"{began} {time.time()}")\n'
        f"print(json.dumps({{'confined': [], 'found': {good()!r}}}))",
    )
    using = LimitedWorkshop(2, PIXELS, seconds=5)
    folders = [tmp_path / str(number) for number in range(6)]
    for one in folders:
        one.mkdir()
    made = await asyncio.gather(*(using.examine(tmp_path, "x.txt", one, voice=False) for one in folders))
    times = [[float(one) for one in found.main.read_text().split()] for found in made]
    assert max(sum(begin <= at < end for begin, end in times) for at, _ in times) == 2


async def test_the_process_knows_nothing_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    """No secret is in its environment, and what it inherits is its two pipes."""
    monkeypatch.setenv("VISAVIS_SECRETS", "t1:secret")
    replace(
        monkeypatch,
        tmp_path,
        'known = [sorted(os.environ), len(os.listdir("/proc/self/fd")), os.getcwd(), sys.flags.isolated]\n'
        'json.dump(known, open("main", "w"))\n'
        f"print(json.dumps({{'confined': [], 'found': {good()!r}}}))",
    )
    with (tmp_path / "open").open("w") as inherited:
        os.set_inheritable(inherited.fileno(), True)
        found = await LimitedWorkshop(1, PIXELS).examine(tmp_path, "x.txt", folder, voice=False)
    names, descriptors, at, isolated = json.loads(found.main.read_text())
    allowed = {"LC_CTYPE", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
    assert set(names) <= allowed
    # The third is where errors go, the fourth the list of them all.
    assert descriptors == 4
    assert Path(at) == folder
    assert isolated == 1


def limited(body: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a process with a second and files of 1000 bytes, that does this."""
    program = f"""
import importlib.util, os, resource, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("takeapart", {takeapart.__file__!r})
module = importlib.util.module_from_spec(spec)
sys.modules["takeapart"] = module
spec.loader.exec_module(module)
module.limit(1 << 30, 1, 1000)
{body}
"""
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)


async def test_memory_and_time_are_limited(examine: Examine) -> None:
    """A picture that needs more of either than there is cannot be read."""
    large = corpus.saved(Image.new("RGB", (7000, 7000), "red"), "PNG")
    assert (await examine(large)).kind == "picture"
    short_of_memory = LimitedWorkshop(1, PIXELS, memory=200 << 20)
    assert await refusal(examine(large, using=short_of_memory)) == {"code": "file_unreadable"}
    began = time.monotonic()
    told = limited("while True: pass")
    assert -told.returncode in {signal.SIGXCPU, signal.SIGKILL}
    assert time.monotonic() - began < 20


def test_a_file_cannot_grow_beyond_measure(tmp_path: Path) -> None:
    """What is made is no larger than what was given, and a little; there is no core of a crash."""
    told = limited(f"""
try:
    Path({str(tmp_path / "large")!r}).write_bytes(bytes(5000))
except OSError as error:
    print(error.strerror)
print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
""")
    assert told.stdout.split("\n")[:2] == ["File too large", "(0, 0) 64"]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
async def test_the_largest_pictures_fit(examine: Examine, format_: str) -> None:
    """In every format, see-through where there is such a thing, with a profile of their own."""
    mode = "RGB" if format_ in {"JPEG", "BMP"} else "RGBA"
    image = Image.new(mode, (8192, 6100), (200, 20, 20, 100) if mode == "RGBA" else corpus.RED)  # type: ignore[arg-type]
    profile = Image.open(io.BytesIO(corpus.jpeg_wide_gamut())).info["icc_profile"]
    options = {"JPEG": {"quality": 50}, "AVIF": {"speed": 10}, "WEBP": {"method": 0}, "PNG": {"compress_level": 1}}
    found = await examine(corpus.saved(image, format_, icc_profile=profile, **options.get(format_, {})))
    assert (found.width, found.height) == (2560, 1906)
