"""The private folder of the engines' Unix sockets, and the length that the kernel allows them."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from server.engines import guard
from server.errors import EngineError

#: sun_path holds 108 bytes with the final NUL; vLLM's own sockets have names of 36 characters.
LIMIT = 107
#: Made here and not removed yet: a server that ends by an exception leaves none either.
_made: set[Path] = set()
_LONGEST = len("/e999999/") + 36
_TRIES = 10


def create() -> Path:
    """A new folder, mode 0700, under XDG_RUNTIME_DIR or the system's temporary folder.

    Raises EngineError (`environment`) when all of these are too long or cannot be written.
    """
    places = [os.environ.get("XDG_RUNTIME_DIR") or "", tempfile.gettempdir(), "/tmp"]  # noqa: S108
    for place in dict.fromkeys(places):
        # mkdtemp adds the prefix and eight characters.
        if not place or len(os.fsencode(place)) + len("/roundhouse-") + 8 + _LONGEST > LIMIT:
            continue
        try:
            run = Path(tempfile.mkdtemp(prefix="roundhouse-", dir=place))
        except OSError:
            continue
        _made.add(run)
        return run
    raise EngineError(
        "No folder for the engines' Unix sockets: the paths are too long (the system allows "
        f"{LIMIT} bytes) or not writable. Set TMPDIR to a short, writable folder such as /tmp.",
        reason="environment",
        terminal=True,
    )


def scratch(run: Path, generation: int) -> Path:
    """A folder for one engine process: its socket `s` and vLLM's own sockets.

    Makes `run` anew if it went with the last engine, or somebody has tidied the temporary folder,
    unless another user was quicker. Raises EngineError (`environment`).
    """
    try:
        for _ in range(_TRIES):
            # The guard of the last engine may remove `run` just now.
            with contextlib.suppress(FileNotFoundError):
                return _scratch(run, generation)
        return _scratch(run, generation)
    except OSError as exc:
        raise EngineError(
            f"The folder of the engines' sockets cannot be used: {run}.",
            reason="environment",
            detail=type(exc).__name__,
        ) from exc


def _scratch(run: Path, generation: int) -> Path:
    run.mkdir(mode=0o700, exist_ok=True)
    found = run.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or not stat.S_ISDIR(found.st_mode):
        raise PermissionError
    path = run / f"e{generation}"
    path.mkdir(mode=0o700)
    return path


def remove(run: Path) -> None:
    _made.discard(run)
    shutil.rmtree(run, ignore_errors=True)


class RunFolder:
    """One for the server, there only while a process of an engine is: the last one's guard removes
    it, so that a server that is killed leaves none, whatever it was at."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def check(self) -> None:
        """Is there a place for it? Raises EngineError (`environment`)."""
        remove(create())

    def place(self, generation: int) -> Path:
        """Where one process's folder will be; nothing is there yet. Raises what `create` does."""
        if self.path is None:
            self.path = create()
            self.path.rmdir()
        return self.path / f"e{generation}"

    def make(self, generation: int) -> None:
        """The folder at that place, of a process that has its guard next. Raises what `scratch`
        does."""
        scratch(self.place(generation).parent, generation)

    def clear(self, generation: int) -> None:
        """There is no guard that would remove it."""
        path = self.place(generation)
        guard.remove([str(path)])
        guard.remove_empty(str(path.parent))

    def remove(self) -> None:
        if self.path is not None:
            remove(self.path)


def kept() -> tuple[Path, ...]:
    """Those of this process that nobody has removed yet."""
    return tuple(run for run in _made if run.exists())


@atexit.register
def _remove_all() -> None:
    for run in list(_made):
        remove(run)
