"""Files that others read while they are written."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; what stood there stays until then. Its folder must be
    there. Raises OSError."""
    temporary = prepare_whole(path, text)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def prepare_whole(path: Path, text: str, *, mode: int = 0o666) -> Path:
    """All of `write_whole` but the last step: the file that is to `replace` this one, on the disk.
    `mode` as the process's umask leaves it. Raises OSError, and leaves nothing then."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a process that was killed; its mode may be another
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(opened, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
