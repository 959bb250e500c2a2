"""Files encrypted in the age format (age-encryption.org/v1), written and read from beginning to end.

For a recipient the file is age's own, which `age -d -i KEY` reads. With a passphrase it begins with an armoured age
file, encrypted with that passphrase, which holds the identity that the rest, an age file again, is for: the library
encrypts with a passphrase only what is in memory. That identity is made for the one file and is nowhere else, so nobody
can make a file that the passphrase opens without knowing it. Whoever knows a *recipient* can make a file for it: that
it can be read says nothing about who wrote it.

Hides: pyrage, the thread it works in, pipes, and the file's name until it is complete.
"""

import asyncio
import fcntl
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyrage
from pyrage import passphrase as scrypt
from pyrage import x25519

from visavis.core.ports import ArchiveDamaged

SHORTEST = 12
"""Characters of a passphrase."""

_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----\n"
_END = b"-----END AGE ENCRYPTED FILE-----\n"
_ARMOURED = re.compile(_BEGIN + rb"(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/=]{1,64}\n" + _END)
_PLAIN = b"age-encryption.org/v1\n"
_BUFFER = 1 << 20

T = TypeVar("T")


class KeyInvalid(Exception):
    """A recipient, an identity or a passphrase cannot be used; says which and why, without it."""


def recipients(texts: Sequence[str]) -> list[x25519.Recipient]:
    """Raises KeyInvalid."""
    try:
        return [x25519.Recipient.from_str(text) for text in texts]
    except pyrage.RecipientError:
        raise KeyInvalid("A recipient is not one of age's: it begins with age1 and is made by age-keygen.") from None


def identities(text: str) -> list[x25519.Identity]:
    """Those in a file that age-keygen wrote. Raises KeyInvalid."""
    lines = [line.strip() for line in text.splitlines()]
    try:
        found = [x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise KeyInvalid("The identity file holds no identity: a line that begins with AGE-SECRET-KEY-1.")
    return found


def unlocked(path: Path, passphrase: str) -> list[x25519.Identity]:
    """What opens a file that wants a passphrase. Takes seconds, and much memory. Raises ArchiveDamaged, OSError."""
    with path.open("rb") as file:
        head = _lock(file)
    if _ARMOURED.fullmatch(head):
        with suppress(pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError):
            return [x25519.Identity.from_str(scrypt.decrypt(head, passphrase).decode())]
    raise ArchiveDamaged("The passphrase is wrong, or the archive is damaged at its beginning.")


def wants_passphrase(path: Path) -> bool:
    """Whether a passphrase opens the file, rather than an identity. Raises ArchiveDamaged, OSError."""
    with path.open("rb") as file:
        start = file.read(len(_BEGIN))
    if start.startswith(_PLAIN):
        return False
    if start == _BEGIN:
        return True
    raise ArchiveDamaged("This is not an encrypted backup, or it is damaged at its beginning.")


@asynccontextmanager
async def sealed(
    path: Path, to: Sequence[x25519.Recipient], passphrase: str = ""
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Write a new file. It has its name when the block has ended well; until then, one that ends with `.partial`.

    Raises OSError, FileExistsError among them; KeyInvalid for a passphrase that is too short.
    """
    if not to and len(passphrase) < SHORTEST:
        raise KeyInvalid(f"A passphrase has at least {SHORTEST} characters.")
    partial = path.with_name(f"{path.name}.partial")
    file = await asyncio.to_thread(_begin, path, partial)
    try:
        if not to:
            identity = x25519.Identity.generate()
            to = [identity.to_public()]
            file.write(await asyncio.to_thread(scrypt.encrypt, str(identity).encode(), passphrase, armored=True))
        source, sink = _pipe()
        pipe = _Pipe(sink, _encrypt, source, file, to)
        try:

            async def write(data: bytes) -> None:
                try:
                    await pipe.do(_write, sink, data)
                except BrokenPipeError:
                    await pipe.library()
                    raise

            yield write
            await pipe.do(sink.close)
            await pipe.library()
        finally:
            await pipe.close()
        await asyncio.to_thread(_finish, file, partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    finally:
        # What it still holds after an error is of no use, and a full disk would only say so again.
        with suppress(OSError):
            file.close()


@asynccontextmanager
async def opened(path: Path, to: Sequence[x25519.Identity]) -> AsyncIterator[Callable[[int], Awaitable[bytes]]]:
    """Read a file: so many bytes, fewer only at its end, and all of them as they were written.

    Raises ArchiveDamaged, OSError.
    """
    with path.open("rb", buffering=_BUFFER) as file:
        if wants_passphrase(path):
            _lock(file)
        source, sink = _pipe()
        pipe = _Pipe(source, _decrypt, file, sink, to)
        try:

            async def read(size: int) -> bytes:
                data = await pipe.do(source.read, size)
                if len(data) < size:
                    # That may be the end, or where it is damaged.
                    await pipe.library()
                return data

            yield read
        finally:
            await pipe.close()


def _begin(path: Path, partial: Path) -> BinaryIO:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it, or name another")
    if path.exists():
        raise FileExistsError(f"{path} is there already: name another file")
    # In a folder that others may write to, a link of theirs must not lead to a file of ours.
    file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb", buffering=_BUFFER)
    try:
        # One that was killed has left what it wrote, and no lock.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise FileExistsError(f"another process is writing {partial}") from None
    file.truncate(0)
    return file


def _finish(file: BinaryIO, partial: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _lock(file: BinaryIO) -> bytes:
    """What a file that wants a passphrase begins with; afterwards the rest of it can be read."""
    head = b""
    # Its lines are few and short.
    while not head.endswith(_END) and len(head) < 2000 and (line := file.readline(100)):
        head += line
    return head


class _Pipe:
    """Our end of a pipe, and the thread in which the library works at the other.

    Whatever is done at our end is done in one thread as well, so that nothing is closed while it is used.
    """

    def __init__(self, end: BinaryIO, work: Callable[..., None], *given: object) -> None:
        self._end = end
        self._threads = (ThreadPoolExecutor(1, "age-ours"), ThreadPoolExecutor(1, "age"))
        self._library = asyncio.get_running_loop().run_in_executor(self._threads[1], work, *given)

    async def do(self, function: Callable[..., T], *given: object) -> T:
        """The function's result, at our end."""
        return await asyncio.get_running_loop().run_in_executor(self._threads[0], function, *given)

    async def library(self) -> None:
        """Wait until the library has done its work. Raises what it did."""
        await asyncio.shield(self._library)

    async def close(self) -> None:
        """Afterwards the library works no more, and nobody is told what became of it."""
        await asyncio.shield(self.do(_close, self._end))
        await asyncio.wait({self._library})
        self._library.exception()
        for thread in self._threads:
            thread.shutdown(wait=False)


class _Watched:
    """A file whose errors are remembered: the library tells them in words of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        return self._watch(self._file.read, size)

    def write(self, data: bytes) -> int:
        return self._watch(self._file.write, data)

    def flush(self) -> None:
        self._watch(self._file.flush)

    def _watch(self, function: Callable[..., T], *given: object) -> T:
        try:
            return function(*given)
        except OSError as error:
            self.error = error
            raise


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    source, sink = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _BUFFER)
    # The library writes little at a time, which would be as many ways through the kernel.
    return os.fdopen(source, "rb", buffering=_BUFFER), os.fdopen(sink, "wb", buffering=_BUFFER)


def _close(end: BinaryIO) -> None:
    # What could not be written before cannot be written now.
    with suppress(OSError):
        end.close()


def _write(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()


def _encrypt(source: BinaryIO, file: BinaryIO, to: Sequence[x25519.Recipient]) -> None:
    watched = _Watched(file)
    with source:
        try:
            pyrage.encrypt_io(source, watched, list(to))
        except (pyrage.EncryptError, OSError) as error:
            raise watched.error or OSError(str(error)) from None


def _decrypt(file: BinaryIO, sink: BinaryIO, to: Sequence[x25519.Identity]) -> None:
    watched = _Watched(file)
    try:
        pyrage.decrypt_io(watched, sink, list(to))
        sink.flush()
    except (pyrage.DecryptError, OSError) as error:
        if watched.error is not None:
            raise watched.error from None
        if "No matching keys" in str(error):
            raise ArchiveDamaged("This identity does not fit: the archive is for another recipient.") from None
        raise ArchiveDamaged("The archive is damaged or cut short.") from None
    finally:
        _close(sink)
