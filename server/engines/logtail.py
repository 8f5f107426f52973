"""The end of an engine's log, and what comes after it: bytes as they are, through rotations."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from server.engines.logs import KEPT_FILES, numbered

#: Bytes of one look, forwards and backwards.
BLOCK: Final = 64 * 2**10
#: Lines that may be asked for: the kept files have fewer.
MOST: Final = 1_000_000
#: Stands where files may have been rotated away before they were read.
GAP: Final = b"--- roundhouse: a part of the log may be gone: it was rotated away\n"


class LogTail:
    """Begins `lines` lines before the end, over all kept files. `read` gives the next bytes, and
    b"" where there are none now; later there may be. Blocks on the disk alone, holds one block at
    a time, and needs no log to be there yet. `read` may run in another thread than `close`."""

    def __init__(self, path: Path, lines: int, *, kept: int = KEPT_FILES) -> None:
        self._path, self._kept = path, kept
        #: Oldest first; the first is the one being read.
        self._files: deque[BinaryIO] = deque()
        self._reading, self._closed = threading.Lock(), False
        self._begin(max(0, min(lines, MOST)))

    def __enter__(self) -> LogTail:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """At once, or when a read that is under way ends: its file's number might be another's."""
        self._closed = True
        self._shut()

    def _shut(self) -> None:
        if self._reading.acquire(blocking=False):
            while self._files:
                self._files.popleft().close()
            self._reading.release()

    def read(self) -> bytes:
        """The next bytes, at most a block; b"" for none at this moment."""
        with self._reading:
            data = b"" if self._closed else self._read()
        if self._closed:
            self._shut()
        return data

    def _read(self) -> bytes:
        while self._there():
            file = self._files[0]
            if data := self._more(file):
                return data
            if len(self._files) > 1:
                self._files.popleft().close()
                continue
            newer, lost = self._newer(file)
            if not newer:
                return b""
            self._files.extend(newer)
            # What was written between our last look and the rotation comes first.
            data = self._more(file)
            if not data:
                self._files.popleft().close()
            if data or lost:
                return data or GAP
        return b""

    # --- where it begins ----------------------------------------------------------------------

    def _names(self) -> list[Path]:
        """Newest first."""
        return [self._path, *(numbered(self._path, number) for number in range(1, self._kept))]

    def _begin(self, lines: int) -> None:
        left, seen = lines, set[tuple[int, int]]()
        for name in self._names():
            file = _opened(name)
            if file is None:
                continue
            if (which := _identity(file)) in seen:  # rotated while we looked
                file.close()
                continue
            seen.add(which)
            self._files.appendleft(file)
            left = _back(file, left)
            if left <= 0:
                return

    def _there(self) -> bool:
        """Is there a log? What began after us is read from its beginning."""
        if not self._files:
            self._begin(MOST)
        return bool(self._files)

    # --- rotations ----------------------------------------------------------------------------

    def _more(self, file: BinaryIO) -> bytes:
        if os.fstat(file.fileno()).st_size < file.tell():  # somebody emptied it
            file.seek(0)
        return file.read(BLOCK)

    def _newer(self, file: BinaryIO) -> tuple[list[BinaryIO], bool]:
        """The files that are newer than this one, oldest first, and whether this one is gone, so
        that others may be, too. None while it is the newest, or amid a rotation."""
        ours, found = _identity(file), dict[tuple[int, int], BinaryIO]()
        for name in self._names():
            one = _opened(name)
            if one is None and not found:  # it is being rotated right now
                return [], False
            if one is None:
                continue
            which = _identity(one)
            if which == ours:
                one.close()
                return list(reversed(found.values())), False
            if which in found:  # rotated while we looked
                one.close()
            else:
                found[which] = one
        return list(reversed(found.values())), True


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except OSError:
        return None


def _identity(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _back(file: BinaryIO, lines: int) -> int:
    """Go so many lines back from the end; how many of them an older file has to give."""
    at = end = file.seek(0, os.SEEK_END)
    while at > 0 and lines > 0:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        # The line end that ends the file begins no line.
        upto = size - 1 if at + size == end and block.endswith(b"\n") else size
        while (found := block.rfind(b"\n", 0, upto)) >= 0:
            lines -= 1
            if lines == 0:
                file.seek(at + found + 1)
                return 0
            upto = found
    if lines > 0:  # the whole of it; its first line counts, too
        file.seek(0)
        return lines - (1 if end else 0)
    file.seek(end)
    return 0
