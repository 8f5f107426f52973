"""The server's home: one server at a time, and nothing in it of one that was killed."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: What `files.prepare_whole` writes before it is renamed, with its process's number.
_HALF: Final = re.compile(r"\.[^.]+\.json\.(\d+)")


class Claim:
    """A lock of the kernel's on the folder itself, which leaves no file and which no death leaves
    behind.

    A second server is told of and not refused: where one takes over from another, both have the
    home for as long as the first one drains. But logs, estimates and what was loaded at run time
    are written by both, and the last one wins.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder: int | None = None

    def take(self, *, make: bool) -> bool:
        """Is nobody else there? `make`: the folder, if it is not. Blocks, never fails."""
        try:
            if make:
                self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # who needs it says so
            return True
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            told = "Another server uses it; give each its own `server.home`."
            log.warning("home_is_shared", home=str(self._home), hint=told)
            return False
        except OSError:  # a file system that has no locks
            os.close(folder)
            return True
        self._folder = folder
        self._tidy()
        return True

    def leave(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _tidy(self) -> None:
        """Remove what was half written by processes that are no more."""
        for path in self._home.glob(".*.json.*"):
            match = _HALF.fullmatch(path.name)
            if match is None or _alive(int(match[1])):
                continue
            try:
                path.unlink()
            except OSError as exc:
                log.warning("file_not_removed", file=str(path), error=exc.strerror)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
