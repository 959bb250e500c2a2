"""The folder of finished recordings. A file there is complete: until then it has no name, or a hidden one."""

import fcntl
import os
import re
import shutil
import time
from pathlib import Path

_ID = re.compile(r"[A-Za-z0-9_-]{22}")


class Folder:
    """Recordings as files; their names are their ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make sure of the folder, for nobody but this user, and remove what was never finished. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for partial in self._folder.glob(".*.partial"):
            handle = os.open(partial, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink(missing_ok=True)
            except BlockingIOError:
                # Another recorder is writing it.
                continue
            finally:
                os.close(handle)

    def free(self) -> int:
        """Bytes left on the disk."""
        return shutil.disk_usage(self._folder).free

    def path(self, recording: str) -> Path | None:
        found = self._folder / f"{recording}.mp4"
        return found if _ID.fullmatch(recording) and found.is_file() else None

    def remove(self, recording: str) -> None:
        if _ID.fullmatch(recording):
            (self._folder / f"{recording}.mp4").unlink(missing_ok=True)

    def old(self, seconds: float) -> list[str]:
        before = time.time() - seconds
        return [
            path.stem
            for path in self._folder.glob("*.mp4")
            if _ID.fullmatch(path.stem) and path.stat().st_mtime < before
        ]
