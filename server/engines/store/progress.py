"""How far a pull is: written by its threads, read by whoever shows it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: Over so many seconds the rate is taken.
SPAN = 15.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `rate` in bytes a second and `left` in seconds are None until they are known."""

    files: int
    files_done: int
    size: int
    done: int
    rate: float | None
    left: float | None


class Progress:
    """Counts files and bytes. What was here already is done, but tells nothing of the rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._files = self._files_done = self._size = self._done = self._came = 0
        self._seen: deque[tuple[float, int]] = deque()
        self._said: deque[str] = deque()

    def plan(self, files: int, size: int) -> None:
        with self._lock:
            self._files, self._size = files, size
            self._seen.append((self._clock(), 0))

    def came(self, size: int) -> None:
        """Bytes from the hub."""
        with self._lock:
            self._done += size
            self._came += size

    def found(self, size: int) -> None:
        """Bytes that were here, or (less than none) that turned out to be wrong."""
        with self._lock:
            self._done += size

    def file_done(self) -> None:
        with self._lock:
            self._files_done += 1

    def say(self, text: str) -> None:
        """Something worth a line."""
        with self._lock:
            self._said.append(text)

    def said(self) -> list[str]:
        """The lines since the last call."""
        with self._lock:
            lines = list(self._said)
            self._said.clear()
        return lines

    @property
    def received(self) -> int:
        """Bytes that came from the hub."""
        with self._lock:
            return self._came

    def look(self) -> Look:
        with self._lock:
            now = self._clock()
            self._seen.append((now, self._came))
            while len(self._seen) > 2 and self._seen[1][0] <= now - SPAN:
                self._seen.popleft()
            then, came = self._seen[0]
            rate = (self._came - came) / (now - then) if now - then >= 1 else None
            left = (self._size - self._done) / rate if rate else None
            return Look(self._files, self._files_done, self._size, self._done, rate, left)
