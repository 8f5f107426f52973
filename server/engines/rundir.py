"""The private folder of the engines' Unix sockets, and the length that the kernel allows them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from server.errors import EngineError

#: sun_path holds 108 bytes with the final NUL; vLLM's own sockets have names of 36 characters.
LIMIT = 107
_LONGEST = len("/e999999/") + 36


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
            return Path(tempfile.mkdtemp(prefix="roundhouse-", dir=place))
        except OSError:
            continue
    raise EngineError(
        "No folder for the engines' Unix sockets: the paths are too long (the system allows "
        f"{LIMIT} bytes) or not writable. Set TMPDIR to a short, writable folder such as /tmp.",
        reason="environment",
        terminal=True,
    )


def scratch(run: Path, generation: int) -> Path:
    """A folder for one engine process: its socket `s` and vLLM's own sockets."""
    path = run / f"e{generation}"
    path.mkdir(mode=0o700)
    return path


def remove(run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
