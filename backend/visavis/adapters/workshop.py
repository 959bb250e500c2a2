"""Files are taken apart in a process each: few rights, little memory, little time. Hides how it is asked and believed.

`takeapart.py` is that process, and says what is limited. Here it is started with an empty environment, waited for no
longer than it may take, and ended with all that it may have started. Nothing it says is taken as given: it has read a
stranger's file with a stranger's decoder.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from visavis.adapters import takeapart
from visavis.contract import FileKind, Refused
from visavis.core.ports import Found

log = logging.getLogger(__name__)

LARGEST_ANSWER = 1 << 16
MEMORY = 1280 << 20
"""Bytes of addresses a process may take: a see-through WebP of 50 million pixels was seen to need 900 MB."""
CPU_SECONDS = 20
"""What bounds a file's work. On a busy machine, where it comes last, it may take much longer by the clock."""
SECONDS = 240.0
"""By the clock: only for a process that waits for something, or gets no processor at all."""

_SERVED: dict[tuple[str, str], str] = {
    ("image/webp", ".webp"): "picture",
    ("video/mp4", ".mp4"): "video",
    ("video/webm", ".webm"): "video",
    **{(type_, suffix): "audio voice" for _, type_, suffix in takeapart.SOUND.values()},
    ("application/pdf", ".pdf"): "document",
    ("text/plain", ""): "document",
    ("application/octet-stream", ""): "document",
    **dict.fromkeys(takeapart.OFFICE.values(), "document"),
    **dict.fromkeys(takeapart.OPEN_DOCUMENT.items(), "document"),
}
"""For each type and suffix that is ever served, the kinds it may have."""

_RUNS = {
    *(".bat", ".cmd", ".com", ".pif", ".scr", ".js", ".jse", ".vbs", ".vbe", ".wsf", ".wsh", ".hta", ".ps1", ".psm1"),
    *(
        ".msc",
        ".reg",
        ".lnk",
        ".url",
        ".scf",
        ".inf",
        ".ini",
        ".cpl",
        ".library-ms",
        ".search-ms",
        ".settingcontent-ms",
    ),
    *(".command", ".tool", ".terminal", ".applescript", ".scpt", ".webloc", ".fileloc", ".desktop", ".jnlp", ".rdp"),
}
"""How a text's name ends that does something by itself when it is clicked on: it is saved with `.txt` behind that."""


class _Found(msgspec.Struct, forbid_unknown_fields=True):
    kind: FileKind
    type: str
    suffix: str
    thumb: bool = False
    width: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    height: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    seconds: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    waveform: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{86}==\Z")] | None = None
    blur: Annotated[str, Meta(max_length=600, pattern=r"\A[A-Za-z0-9+/]+={0,2}\Z")] | None = None


class _Answer(msgspec.Struct):
    confined: list[str]
    found: _Found | None = None
    refused: str = ""
    kind: str = ""


class LimitedWorkshop:
    """Takes files apart, `at_once` at a time. `pixels` bounds a picture's, all its frames together.

    A file gets `seconds` of time, `cpu_seconds` of the processor's and `memory` bytes.
    """

    def __init__(
        self,
        at_once: int,
        pixels: int,
        *,
        seconds: float = SECONDS,
        cpu_seconds: int = CPU_SECONDS,
        memory: int = MEMORY,
    ) -> None:
        self._places = asyncio.Semaphore(at_once)
        # One that was cancelled may still be ending when the next begins.
        self._ears = ThreadPoolExecutor(2 * at_once, thread_name_prefix="workshop")
        self._pixels = pixels
        self._seconds = seconds
        self._cpu_seconds = cpu_seconds
        self._memory = memory
        self._told = False

    async def examine(self, path: Path, name: str, folder: Path, *, voice: bool) -> Found:
        """Find out by its content what a file is, and make of it, in `folder`, what members get.

        Raises Refused: kind_refused with `kind`, file_unreadable, picture_too_large with `limit`. Raises TimeoutError
        if it took too long by the clock, or no process could be started, which says nothing of the file: it may be
        tried again when less is going on.
        """
        request = {
            "path": os.fspath(path.absolute()),
            "folder": os.fspath(folder.absolute()),
            "pixels": self._pixels,
            "cpu": self._cpu_seconds,
            "memory": self._memory,
            "voice": voice,
        }
        async with self._places:
            said = await self._ask(msgspec.json.encode(request), folder)
        try:
            answer = msgspec.json.decode(said, type=_Answer)
        except msgspec.MsgspecError:
            raise Refused("file_unreadable") from None
        self._tell(answer.confined)
        if answer.found is None:
            raise self._refusal(answer)
        return _believed(answer.found, name, folder)

    async def _ask(self, request: bytes, folder: Path) -> bytes:
        """What a process answers; empty if it fails, however it fails. Raises TimeoutError."""
        try:
            # Not by the event loop, which would fork: with a worker's memory that stops everybody for up to 0.1 s.
            # This waits for the new program alone to begin, a fraction of a millisecond.
            process = subprocess.Popen(  # noqa: ASYNC220, S603  # as said above
                [sys.executable, "-I", takeapart.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise TimeoutError("no process") from error
        hearing = asyncio.get_running_loop().run_in_executor(self._ears, _hear, process, request)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(hearing)
        finally:
            # Have it gone, and whatever it started; then nothing keeps the thread from its end.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(hearing)

    def _refusal(self, answer: _Answer) -> Refused:
        if answer.refused == "picture_too_large":
            return Refused("picture_too_large", limit=self._pixels)
        if answer.refused == "kind_refused":
            return Refused(
                "kind_refused", kind=answer.kind if re.fullmatch(r"[a-z0-9]{1,20}", answer.kind) else "unknown"
            )
        return Refused("file_unreadable")

    def _tell(self, confined: list[str]) -> None:
        """Say once what this system cannot keep such a process from."""
        lacking = {"privileges", "files", "calls"} - set(confined)
        if lacking and not self._told:
            self._told = True
            log.warning("workshop_less_confined", extra={"lacking": " ".join(sorted(lacking))})


def _environment() -> dict[str, str]:
    """Nothing of the service's but where libraries are; one heap, and one thread for sums."""
    passed_on = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {**passed_on, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _hear(process: "subprocess.Popen[bytes]", request: bytes) -> bytes:
    """Ask, and wait for the process to end: its answer, or nothing if it went wrong or talks too much."""
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    try:
        with process.stdout, contextlib.suppress(OSError):
            with process.stdin:
                process.stdin.write(request)
            said = process.stdout.read(LARGEST_ANSWER + 1)
    finally:
        if len(said) > LARGEST_ANSWER:
            process.kill()
        process.wait()
    return said if process.returncode == 0 and len(said) <= LARGEST_ANSWER else b""


def _believed(found: _Found, name: str, folder: Path) -> Found:
    """What was found, as far as it can be true. Raises Refused."""
    if found.kind not in _SERVED.get((found.type, found.suffix), "").split():
        raise Refused("file_unreadable")
    suffix = found.suffix
    ending = Path(name).suffix
    if not suffix and ending.lower() in _RUNS:
        suffix = f"{ending}.txt"
    return Found(
        kind=found.kind,
        type=found.type,
        main=_made(folder / "main"),
        suffix=suffix,
        thumb=_made(folder / "thumb") if found.thumb else None,
        width=found.width,
        height=found.height,
        seconds=found.seconds,
        waveform=found.waveform,
        blur=found.blur,
    )


def _made(path: Path) -> Path:
    """A file the process made: a plain one with something in it. Raises Refused."""
    try:
        told = path.lstat()
    except OSError:
        raise Refused("file_unreadable") from None
    if not stat.S_ISREG(told.st_mode) or told.st_nlink != 1 or not told.st_size:
        raise Refused("file_unreadable")
    return path
