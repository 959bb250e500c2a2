"""`visavis backup`, `visavis restore`, `visavis migrate`: what an operator does with all that must last.

The command line: arguments, passphrases, questions, progress and what became of it, in sentences. What is done is
`core/archive.py`'s and `core/schema.py`'s to know.
"""

import argparse
import asyncio
import getpass
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

from visavis import logs
from visavis.adapters import age
from visavis.app import WILL_NOT_START, archive, bring_up, workers_running
from visavis.core.archive import Contents
from visavis.core.ports import ArchiveDamaged, StorageFull, StorageUnavailable, StoreInUse
from visavis.settings import Settings

SAID = (*WILL_NOT_START, ArchiveDamaged, StoreInUse, StorageFull, StorageUnavailable, age.KeyInvalid, OSError)
"""What a person can do something about."""


class _No(Exception):
    """The command does not do what it was asked for; says why, and what to do."""


def backup(argv: Sequence[str]) -> int:
    """Run `visavis backup`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="visavis backup", description="Write an encrypted backup of the document store, while workers serve."
    )
    parser.add_argument("file", type=Path, help="a new file")
    parser.add_argument(
        "--recipient", action="append", default=[], metavar="age1...", help="who can read it, instead of a passphrase"
    )
    _without_files(parser)
    return _said(_backup, parser.parse_args(argv))


def restore(argv: Sequence[str]) -> int:
    """Run `visavis restore`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="visavis restore", description="Put a backup into the document store. Stop the workers first."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--identity", type=Path, help="the file with the age identity of a recipient")
    parser.add_argument("--verify", action="store_true", help="read and check all of it, and change nothing")
    parser.add_argument("--replace", action="store_true", help="also if the store holds something, which is then gone")
    parser.add_argument("--yes", action="store_true", help="do not ask before that")
    _without_files(parser)
    return _said(_restore, parser.parse_args(argv))


def migrate(argv: Sequence[str]) -> int:
    """Run `visavis migrate`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="visavis migrate", description="Bring the document store up to this release, as a worker's start does."
    )
    return _said(_migrate, parser.parse_args(argv))


def _without_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--without-files", action="store_true", help="leave out the files that were kept with reports")


def _said(run: Callable[[Settings, argparse.Namespace], int], command: argparse.Namespace) -> int:
    """Run it, and say in a line what a person can do something about."""
    try:
        return run(Settings.from_environment(os.environ), command)
    except (*SAID, _No) as error:
        print(f"visavis: {error}", file=sys.stderr)
        return 2


def _migrate(settings: Settings, command: argparse.Namespace) -> int:
    logs.configure(settings.log_level)
    asyncio.run(bring_up(settings))
    print("The document store is up to date.")
    return 0


def _backup(settings: Settings, command: argparse.Namespace) -> int:
    recipients = age.recipients(command.recipient)
    passphrase = "" if recipients else _passphrase(settings, twice=True)

    async def run() -> Contents:
        async with (
            archive(settings, files=not command.without_files, new=False) as made,
            age.sealed(command.file, recipients, passphrase) as write,
        ):
            return await made.back_up(write, _Progress())

    contents = asyncio.run(run())
    _Progress.end()
    print(f"{command.file}: {_told(contents)}, {_size(command.file.stat().st_size)}, schema {contents.head.schema}")
    if contents.manifest.missing:
        print(f"{contents.manifest.missing} files that reports name are no longer kept, and not in it.")
    if not contents.head.consistent:
        print("This MongoDB cannot show one instant: what was written meanwhile is in it or not.")
    return 0


def _restore(settings: Settings, command: argparse.Namespace) -> int:
    path: Path = command.file
    if age.wants_passphrase(path):
        identities = age.unlocked(path, _passphrase(settings, twice=False))
    elif command.identity:
        identities = age.identities(command.identity.read_text(encoding="utf-8", errors="replace"))
    else:
        raise _No("the backup was made for a recipient: name the file with its identity, --identity FILE")
    return asyncio.run(_bring_back(settings, command, lambda: age.opened(path, identities)))


async def _bring_back(
    settings: Settings,
    command: argparse.Namespace,
    opened: Callable[[], AbstractAsyncContextManager[Callable[[int], Awaitable[bytes]]]],
) -> int:
    async with archive(settings, files=not (command.without_files or command.verify), new=True) as kept:
        async with opened() as read:
            checked = await kept.check(read, _Progress())
        _Progress.end()
        made = datetime.fromtimestamp(checked.head.made / 1000, UTC)
        told = f"{_told(checked)}, of {made:%Y-%m-%d %H:%M} UTC, schema {checked.head.schema}"
        print(f"{command.file}: {told}: all of it is good.", flush=True)
        if command.verify:
            return 0
        if settings.files_url == "none" and checked.manifest.kept.count and not command.without_files:
            raise _No("the backup has files, and VISAVIS_FILES_URL says that there are none: see --without-files")
        if workers := await workers_running(settings):
            raise _No(f"{workers} workers are running on this Redis: stop them all before a restore")
        if not await kept.unfinished() and (held := await kept.holds()):
            _may_replace(command, held)
        async with opened() as read:
            restored = await kept.bring_back(read, checked, _Progress())
    _Progress.end()
    print(f"Restored: {_told(restored, files=not command.without_files)}.")
    if restored.expired:
        print(f"Of these, {restored.expired} had expired by now and were left out.")
    return 0


def _may_replace(command: argparse.Namespace, held: dict[str, int]) -> None:
    """Raises _No unless all that the store holds may be lost."""
    said = ", ".join(f"{count} {name}" for name, count in held.items())
    if not command.replace:
        raise _No(f"the document store is not empty ({said}); with --replace, all of that would be gone")
    if command.yes:
        return
    if not sys.stdin.isatty():
        raise _No("--replace needs --yes where nobody can be asked")
    if input(f"The document store holds {said}. Type `replace` to lose all of that: ").strip() != "replace":
        raise _No("nothing was changed")


def _passphrase(settings: Settings, *, twice: bool) -> str:
    if settings.backup_passphrase:
        return settings.backup_passphrase
    if not sys.stdin.isatty():
        raise _No("a passphrase is needed: VISAVIS_BACKUP_PASSPHRASE, or VISAVIS_BACKUP_PASSPHRASE_FILE names its file")
    given = getpass.getpass("Passphrase: ")
    if twice and getpass.getpass("The same again: ") != given:
        raise _No("the two are not the same")
    return given


def _told(contents: Contents, *, files: bool = True) -> str:
    documents = sum(one.count for one in contents.manifest.documents.values())
    kept = contents.manifest.kept.count
    return f"{documents} documents and {kept} files" if files else f"{documents} documents, without files"


def _size(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


class _Progress:
    """Says now and then how far it is: on one line of a terminal, or a line each half a minute."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0.5 if self._terminal else 30)

    def __call__(self, doing: str, size: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + (0.5 if self._terminal else 30)
            print(f"{doing}: {_size(size)}", end="\r\x1b[K" if self._terminal else "\n", file=sys.stderr, flush=True)

    @staticmethod
    def end() -> None:
        """Make room for what is said next."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
