"""One pull of a model at a time: a lock of the kernel's, which no death leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from server.engines.store.errors import StoreError


@contextlib.contextmanager
def held(path: Path, repo: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock. While another process does, `wait` is called with its id, again and again: it
    pauses, and may raise. Without `wait` that raises StoreError (`busy`) at once.

    The file is removed at the end. Raises OSError.
    """
    while (descriptor := _taken(path)) is None:
        holder = _holder(path)
        if wait is None:
            raise StoreError(
                f"Process {holder} is pulling or removing {repo} right now.", reason="busy"
            )
        wait(holder)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The locked file's descriptor, or None while somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it meanwhile: then it locks nothing.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[:32] or "unknown"
    except OSError:
        return "unknown"
