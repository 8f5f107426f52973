"""How long engines take to start, learned from earlier starts and kept on disk."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from server.files import write_whole

KEPT: Final = 5
ENTRIES: Final = 200
#: 1 had no stages; it is still read.
VERSION: Final = 2

Stages = dict[str, list[float]]


def fingerprint(**facts: object) -> str:
    """A key for starts that should take equally long: weights, arguments, device."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Estimates:
    """Medians of the last five starts per fingerprint, as a whole and stage by stage. A damaged
    file is as good as none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seconds: dict[str, list[float]] = {}
        self._stages: dict[str, Stages] = {}
        if path is not None:
            self._seconds, self._stages = _read(path)

    def of(self, key: str) -> float | None:
        """Seconds that a start takes, or None when there was none yet."""
        seconds = self._seconds.get(key)
        return statistics.median(seconds) if seconds else None

    def ahead(self, key: str, stage: str, passed: float) -> float | None:
        """Seconds left of a start that has been in `stage` for `passed` seconds; None when no start
        is known that went through it."""
        known = self._stages.get(key, {})
        if stage not in known:
            return None
        names = list(known)
        left = sum(statistics.median(known[name]) for name in names[names.index(stage) + 1 :])
        return left + max(0.0, statistics.median(known[stage]) - passed)

    def learn(self, key: str, seconds: float, stages: Mapping[str, float] | None = None) -> None:
        """Take in one start that came to be ready, and what its stages took, in their order. Call
        `save` for the disk."""
        known = self._seconds.pop(key, [])  # re-inserted last: the oldest entries go first
        self._seconds[key] = [*known, round(seconds, 3)][-KEPT:]
        if stages:
            # Only those of the last start: what is in a cache by now has no stage any more.
            old = self._stages.get(key, {})
            self._stages[key] = {
                name: [*old.get(name, []), round(took, 3)][-KEPT:] for name, took in stages.items()
            }
        while len(self._seconds) > ENTRIES:
            oldest = next(iter(self._seconds))
            del self._seconds[oldest]
            self._stages.pop(oldest, None)

    def save(self) -> None:
        """Write the file anew, atomically. Blocks; raises OSError."""
        if self._path is None:
            return
        # Written in a thread: what is learned meanwhile must not change it under its hands.
        write(self._path, dict(self._seconds), dict(self._stages))


def write(
    path: Path, seconds: Mapping[str, list[float]], stages: Mapping[str, Stages] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"version": VERSION, "starts": dict(seconds), "stages": dict(stages or {})}
    write_whole(path, json.dumps(found))


def _read(path: Path) -> tuple[dict[str, list[float]], dict[str, Stages]]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        starts = _lists(said["starts"])
        stages = {
            str(key): _lists(those)
            for key, those in said.get("stages", {}).items()
            if key in starts
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}, {}
    return starts, stages


def _lists(said: Any) -> dict[str, list[float]]:
    return {
        str(key): [float(value) for value in values][-KEPT:]
        for key, values in said.items()
        if values
    }
