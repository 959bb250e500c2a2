"""Files that people share, and files that people should not: made in code, so that none of them lies in the repository.

Each function gives the bytes of one file. Words that must not come through are in WORDS; EICAR is the string that every
scanner finds, put together from pieces.
"""

import functools
import io
import math
import os
import struct
import subprocess
import sys
import tempfile
import wave
import zipfile
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*").encode()
WORDS = (b"Secret Street", b"Pixel Nine", b"+47.3769", b"Exif", b"ICCP", b"XMP ", b"GPS", b"Lavf6", b"Lavc6")
"""Where and with what a file was made, as it may be written down in it."""
SCRIPT = b"<script>alert(1)</script>"

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (240, 240, 240)


def corners(width: int = 640, height: int = 480) -> Image.Image:
    """Red and green above, blue and white below: whichever way it is turned, one sees."""
    made = Image.new("RGB", (width, height), WHITE)
    made.paste(RED, (0, 0, width // 2, height // 2))
    made.paste(GREEN, (width // 2, 0, width, height // 2))
    made.paste(BLUE, (0, height // 2, width // 2, height))
    return made


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """The bytes of a picture in this format."""
    made = io.BytesIO()
    image.save(made, format_, **options)
    return made.getvalue()


# --------------------------------------------------------------------------- pictures


def jpeg(width: int = 640, height: int = 480) -> bytes:
    return saved(corners(width, height), "JPEG", quality=85)


def jpeg_with_gps(orientation: int = 6) -> bytes:
    """As a phone leaves it: place, maker, comment, profile, and lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Pixel Nine"
    exif[0x010E] = "Secret Street"
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 36.84), 3: "E", 4: (8.0, 32.0, 30.0)})
    return saved(
        corners(),
        "JPEG",
        exif=exif,
        comment=b"Secret Street 1",
        xmp=b"<x:xmpmeta>Secret Street 1</x:xmpmeta>",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    )


def jpeg_truncated() -> bytes:
    return jpeg()[:-2000]


def jpeg_cmyk() -> bytes:
    return saved(corners().convert("CMYK"), "JPEG")


def png_with_text() -> bytes:
    """Text chunks, an EXIF chunk, and a see-through middle."""
    image = corners().convert("RGBA")
    image.paste((0, 0, 0, 0), (160, 120, 480, 360))
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "Secret Street 1")
    words.add_itxt("Location", "+47.3769", zip=True)
    exif = Image.Exif()
    exif[0x010F] = "Pixel Nine"
    return saved(image, "PNG", pnginfo=words, exif=exif)


def png_palette() -> bytes:
    """A palette with one colour that is not there."""
    image = corners().quantize(16)
    return saved(image, "PNG", transparency=image.getpixel((0, 0)))


def png_grey_16_bit() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 65_535, 200 * 100).reshape(100, 200).astype(np.uint16)), "PNG")


def png_grey() -> bytes:
    return saved(corners().convert("L"), "PNG")


def png_one_pixel() -> bytes:
    return saved(Image.new("RGB", (1, 1), RED), "PNG")


def png_panorama() -> bytes:
    return saved(Image.new("RGB", (20_000, 100), BLUE), "PNG")


def tiff_16_bit() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 65_535, 200 * 100).reshape(100, 200).astype(np.uint16)), "TIFF")


def tiff_float() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 1, 200 * 100).reshape(100, 200).astype(np.float32)), "TIFF")


def bmp() -> bytes:
    return saved(corners(), "BMP")


def webp() -> bytes:
    return saved(corners(), "WEBP")


def avif() -> bytes:
    return saved(corners(), "AVIF")


def jpeg_wide_gamut() -> bytes:
    """A profile that swaps red and blue: whoever ignores it shows other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[by : by + 4]): by for by in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12)}
    # It does not say that it is sRGB, either.
    start, length = (int.from_bytes(profile[at[b"desc"] + by : at[b"desc"] + by + 4]) for by in (4, 8))
    profile[start + 8 : start + length] = profile[start + 8 : start + length].replace(b"R", b"X")
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        bytes(profile[blue + 4 : blue + 12]),
        bytes(profile[red + 4 : red + 12]),
    )
    return saved(corners(), "JPEG", icc_profile=bytes(profile))


def gif_animated(frames: int = 8, size: tuple[int, int] = (120, 80)) -> bytes:
    """A square that wanders; each picture stands for 70 ms, again and again."""
    pictures = []
    for number in range(frames):
        picture = Image.new("RGB", size, WHITE)
        picture.paste(RED, (number * 2 % size[0], 10, number * 2 % size[0] + 20, 30))
        pictures.append(picture)
    options = {"append_images": pictures[1:], "duration": 70, "loop": 0, "comment": b"Secret Street"}
    return saved(pictures[0], "GIF", save_all=True, **options)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def png_pixel_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Says that it is huge and has nothing to show for it."""
    return _png(width, height, zlib.compress(bytes(1000)))


@functools.cache
def png_decompression_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """1.2 GB of black in about a megabyte."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return _png(width, height, data)


def png_text_bomb() -> bytes:
    """A small picture with 200 MB of remarks."""
    packer = zlib.compressobj(9)
    remark = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    whole = saved(corners(), "PNG")
    return whole[:33] + _chunk(b"zTXt", b"Comment\0\0" + remark) + whole[33:]


def gif_pixel_bomb() -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + gif_animated()[13:]


def gif_frame_bomb(frames: int = 3000) -> bytes:
    """Small pictures in large numbers: each of 1000 x 1000 pixels, of which it sets one."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1000, 1000, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def webp_pixel_bomb() -> bytes:
    """A canvas of 16384 x 16384 around a small picture."""
    body = webp()[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (16_383).to_bytes(3, "little") * 2
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    frame = bytes(6) + (639).to_bytes(3, "little") + (479).to_bytes(3, "little") + b"\x64\0\0\0" + body
    content = b"WEBP" + canvas + animation + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(content)) + content


# --------------------------------------------------------------------------- two things at once


def gif_with_script() -> bytes:
    """JavaScript that begins like a GIF."""
    return b"GIF89a/*\x01\x00\x80\x00\x00*/=1;alert(document.domain);" + SCRIPT


def jpeg_with_zip() -> bytes:
    """A picture with an archive and a PHP archive's stub behind it."""
    return jpeg() + b"<?php __HALT_COMPILER(); ?>" + SCRIPT + zip_archive()


def png_with_page() -> bytes:
    """A picture with a page in its remarks and behind it."""
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", SCRIPT.decode())
    return saved(corners(), "PNG", pnginfo=words) + SCRIPT


def pdf_with_page() -> bytes:
    """A PDF that some would show as a page."""
    return b"%PDF-1.4\n" + SCRIPT + pdf()[9:]


def page_with_pdf() -> bytes:
    """A page that some would show as a PDF."""
    return b"<!doctype html>" + SCRIPT + pdf()


def pdf_with_zip() -> bytes:
    """A PDF with an archive behind it."""
    return pdf() + zip_archive(size=5000)


def program_with_zip() -> bytes:
    """A self-extracting archive."""
    return windows_program() + zip_archive()


# --------------------------------------------------------------------------- documents


def pdf() -> bytes:
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return made + b"xref\n0 4\n0000000000 65535 f \n%strailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        table,
        len(made),
    )


def plain_text() -> bytes:
    return "Grüße, 世界\nand a second line, 3 < 4\n".encode()


def text_latin() -> bytes:
    return "Grüße aus Zürich\n".encode("latin-1")


def text_utf16() -> bytes:
    return "Grüße\n".encode("utf-16")


def page() -> bytes:
    return b"<!doctype html><title>x</title>" + SCRIPT


def svg_with_script() -> bytes:
    return b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + SCRIPT + b"</svg>"


def shell_script() -> bytes:
    return b"#!/bin/sh\ncurl http://127.0.0.1/ | sh\n"


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else method)
    return made.getvalue()


def zip_archive(size: int = 100) -> bytes:
    return _zip({"a.txt": os.urandom(size)}, zipfile.ZIP_STORED)


_WORDS = {"[Content_Types].xml": b"<Types/>", "_rels/.rels": b"<Relationships/>", "word/document.xml": b"<document/>"}


def docx() -> bytes:
    return _zip(_WORDS)


def xlsx() -> bytes:
    return _zip({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"})


def odt() -> bytes:
    return _zip({"mimetype": b"application/vnd.oasis.opendocument.text", "META-INF/manifest.xml": b"<m/>"})


def docx_with_macros() -> bytes:
    return _zip({**_WORDS, "word/vbaProject.bin": b"\xd0\xcf\x11\xe0"})


@functools.cache
def docx_bomb() -> bytes:
    """A document that is 300 MB when it is opened."""
    return _zip({**_WORDS, "word/media/image1.bmp": bytes(300 << 20)})


def docx_bomb_overlapping(copies: int = 2000) -> bytes:
    """Entries that all name the same packed bytes."""
    whole = _zip({**_WORDS, "word/media/a.bmp": bytes(1 << 20)})
    end = whole.rindex(b"PK\5\6")
    start = int.from_bytes(whole[end + 16 : end + 20], "little")
    last = whole[whole.rindex(b"PK\1\2", start, end) : end]
    directory = whole[start:end] + last * copies
    count = 4 + copies
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return whole[:start] + directory + tail


@functools.cache
def zip_bomb(depth: int = 3) -> bytes:
    """Zips of zips, and zeros at the bottom."""
    made = bytes(10 << 20)
    for _ in range(depth):
        made = _zip({f"{number}.zip": made for number in range(10)})
    return made


# --------------------------------------------------------------------------- what is not taken


def windows_program() -> bytes:
    return b"MZ" + struct.pack("<29H", *range(29)) + struct.pack("<I", 64) + b"PE\0\0" + bytes(200)


def linux_program() -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + bytes(200)


def mac_program() -> bytes:
    return b"\xcf\xfa\xed\xfe" + struct.pack("<III", 0x01000007, 3, 2) + bytes(200)


def gzip_archive() -> bytes:
    return b"\x1f\x8b\x08\0" + bytes(6) + zlib.compress(b"x" * 100)[2:]


def old_word_document() -> bytes:
    return bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)


def postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n"


def photoshop() -> bytes:
    return b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 10, 10, 8, 3) + bytes(400)


def unknown_binary() -> bytes:
    return bytes(range(256)) * 20


def playlist() -> bytes:
    """What FFmpeg would follow elsewhere, if it were asked."""
    return b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nconcat:file:///etc/passwd\n#EXT-X-ENDLIST\n"


# --------------------------------------------------------------------------- video and sound

Sound = Literal["libopus", "aac", "libmp3lame", "flac", "pcm_s16le"]


def tone(seconds: float, rate: int = 48_000) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A tone that swells: silent at its begin, loud at its end."""
    at = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * math.pi * 440 * at) * at / max(seconds, 1e-9) * 30_000).astype(np.int16)


def film(
    container: str,
    *,
    video: str | None = None,
    sound: str | None = None,
    seconds: float = 2.0,
    size: tuple[int, int] = (320, 240),
    rotation: float = 0,
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    subtitles: bool = False,
    attachment: bool = False,
    picture: Callable[[int], Image.Image] | None = None,
    bit_rate: int = 400_000,
    start: float = 0,
) -> bytes:
    """A film of `seconds` with these encoders, 20 pictures a second, that begins at `start`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        with av.open(str(path), "w", format=container, options=options or {}) as made:
            made.metadata.update(metadata or {})
            pictures: Any = None
            sounds: Any = None
            words: Any = None
            if video:
                pictures = made.add_stream(video, rate=20)
                pictures.width, pictures.height = size
                pictures.pix_fmt = "yuv420p"
                pictures.bit_rate = bit_rate
                pictures.gop_size = 20
                if video in {"libvpx", "libvpx-vp9"}:
                    pictures.options = {"deadline": "realtime", "cpu-used": "8"}
                elif video in {"libx264", "libx265"}:
                    pictures.options = {"preset": "ultrafast"}
                elif video == "libsvtav1":
                    pictures.options = {"preset": "12"}
                if rotation:
                    pictures.set_display_rotation(rotation)
                pictures.metadata["title"] = "Secret Street"
            if sound:
                rate = 44_100 if sound == "libmp3lame" else 48_000
                sounds = made.add_stream(sound, rate=rate, layout="mono")
                sounds.metadata["title"] = "Secret Street"
            if subtitles:
                words = made.add_mux_stream("srt")
            if attachment:
                made.add_attachment("secret.txt", "text/plain", b"Secret Street 1")
            packets = []
            for number in range(round(seconds * 20) if pictures else 0):
                frame = av.VideoFrame.from_image(picture(number) if picture else corners(*size))
                frame.pts = number + round(start * 20)
                packets += pictures.encode(frame)
            if sounds:
                samples = tone(seconds, rate)
                for begin in range(0, len(samples), 1024):
                    piece = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024], "s16", "mono")
                    piece.sample_rate = rate
                    piece.pts = begin + round(start * rate)
                    packets += sounds.encode(piece)
            for stream in (pictures, sounds):
                packets += stream.encode(None) if stream else []
            if words:
                said = av.Packet(b"Secret Street 1")
                said.stream, said.time_base, said.pts, said.dts, said.duration = words, Fraction(1, 1000), 0, 0, 1000
                packets.append(said)
            packets.sort(key=lambda one: float((one.dts or 0) * one.time_base))
            for packet in packets:
                made.mux(packet)
        return path.read_bytes()


_PLACE = {"location": "+47.3769+008.5417/", "title": "Secret Street", "artist": "Pixel Nine"}


@functools.cache
def mp4_from_phone() -> bytes:
    """Held upright: turned by its container, with place, maker and titles, its table of contents at the end."""
    return film("mp4", video="libx264", sound="aac", rotation=-90, metadata=_PLACE)


@functools.cache
def mp4_fragmented() -> bytes:
    """As a browser records it: in fragments, without a length."""
    return film("mp4", video="libx264", sound="aac", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})


@functools.cache
def quicktime() -> bytes:
    return film("mov", video="libx264", sound="aac", metadata=_PLACE)


@functools.cache
def mp4_hevc() -> bytes:
    return film("mp4", video="libx265", sound="aac")


@functools.cache
def mp4_av1() -> bytes:
    """Made in a process of its own: as root, the encoder gives its caller, and what that starts, real-time priority."""
    made = subprocess.run(
        [sys.executable, "-c", _AV1],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return made.stdout


_AV1 = """
import sys, corpus
sys.stdout.buffer.write(corpus.film("mp4", video="libsvtav1", sound="aac", seconds=1))
"""


@functools.cache
def mp4_old_codec() -> bytes:
    """MPEG-4 part 2, which browsers do not play."""
    return film("mp4", video="mpeg4", sound="aac")


@functools.cache
def webm_recorded() -> bytes:
    """Video as Chrome's MediaRecorder leaves it: live, so without duration and cues; it begins some time after zero."""
    return film("webm", video="libvpx", sound="libopus", options={"live": "1"}, start=3)


@functools.cache
def matroska_h264() -> bytes:
    """Chrome's MediaRecorder, asked for H.264."""
    return film("matroska", video="libx264", sound="libopus", options={"live": "1"})


@functools.cache
def matroska_with_attachment() -> bytes:
    return film("matroska", video="libvpx-vp9", sound="libopus", subtitles=True, attachment=True, metadata=_PLACE)


@functools.cache
def voice_recorded(seconds: float = 3.0) -> bytes:
    """A voice message as Chrome's MediaRecorder leaves it: Opus in WebM, live."""
    return film("webm", sound="libopus", seconds=seconds, options={"live": "1"})


@functools.cache
def ogg_opus() -> bytes:
    """A voice message as Firefox leaves it."""
    return film("ogg", sound="libopus", metadata=_PLACE)


@functools.cache
def m4a() -> bytes:
    """A voice message as Safari leaves it."""
    return film("ipod", sound="aac", metadata=_PLACE)


@functools.cache
def mp3() -> bytes:
    return film("mp3", sound="libmp3lame", metadata=_PLACE)


@functools.cache
def flac() -> bytes:
    return film("flac", sound="flac", metadata=_PLACE)


@functools.cache
def wav() -> bytes:
    return film("wav", sound="pcm_s16le", metadata=_PLACE)


@functools.cache
def wav_silent() -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000))
    return made.getvalue()


def mp4_truncated() -> bytes:
    """Its table of contents is missing."""
    return quicktime()[: len(quicktime()) // 2]
