"""How long engines take to start, learned from earlier starts and kept on disk."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

from server.files import write_whole

KEPT = 5
ENTRIES = 200


def fingerprint(**facts: object) -> str:
    """A key for starts that should take equally long: weights, arguments, device."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Estimates:
    """Medians of the last five starts per fingerprint. A damaged file is as good as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seconds: dict[str, list[float]] = {} if path is None else _read(path)

    def of(self, key: str) -> float | None:
        """Seconds that a start takes, or None when there was none yet."""
        seconds = self._seconds.get(key)
        return statistics.median(seconds) if seconds else None

    def learn(self, key: str, seconds: float) -> None:
        """Take in one start that came to be ready. Call `save` for the disk."""
        known = self._seconds.pop(key, [])  # re-inserted last: the oldest entries go first
        self._seconds[key] = [*known, round(seconds, 3)][-KEPT:]
        while len(self._seconds) > ENTRIES:
            del self._seconds[next(iter(self._seconds))]

    def save(self) -> None:
        """Write the file anew, atomically. Blocks; raises OSError."""
        if self._path is None:
            return
        write(self._path, self._seconds)


def write(path: Path, seconds: Mapping[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"version": 1, "starts": dict(seconds)}))


def _read(path: Path) -> dict[str, list[float]]:
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        return {
            str(key): [float(value) for value in values][-KEPT:]
            for key, values in starts.items()
            if values
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
