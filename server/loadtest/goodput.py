"""Goodput: how many answers were good enough for the people who waited for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.config import units
from server.loadtest.sample import Sample

MEASURES: Final = ("ttft", "tpot", "e2e")
_FORM: Final = "write it like ttft:500ms,tpot:50ms,e2e:10s"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; None is no limit."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def met(self, sample: Sample) -> bool:
        """Does a whole answer keep every limit?

        Times count from when the request was due. An answer without a first token misses a limit
        on it; one of a single token has no TPOT to miss.
        """
        if sample.failure is not None:
            return False
        if self.ttft is not None and (sample.ttft is None or sample.ttft > self.ttft):
            return False
        if self.tpot is not None and sample.tpot is not None and sample.tpot > self.tpot:
            return False
        return self.e2e is None or sample.e2e <= self.e2e

    def as_json(self) -> dict[str, float]:
        """Those that are set, with the unit in the name."""
        found = {f"{name}_seconds": getattr(self, name) for name in MEASURES}
        return {name: value for name, value in found.items() if value is not None}


def parse(text: str) -> Limits:
    """`ttft:500ms,tpot:50ms,e2e:10s`, any of them. Raises ValueError that names the way out."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, colon, limit = part.partition(":")
        name = name.strip().lower()
        if not colon or name not in MEASURES:
            raise ValueError(f"{part.strip()!r} is no limit: {_FORM}")
        if name in found:
            raise ValueError(f"{name} is there twice: {_FORM}")
        found[name] = units.seconds(limit.strip())
        if found[name] <= 0:
            raise ValueError(f"the limit of {name} must be above 0: {_FORM}")
    return Limits(**found)
