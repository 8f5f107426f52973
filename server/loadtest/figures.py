"""Percentiles by nearest rank, and what a list of measurements comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

PERCENTILES: Final = (50, 90, 99)


def rank(count: int, percent: int) -> int:
    """The 1-based place of a percentile among `count` sorted values: ceil(percent/100 * count)."""
    return max(1, math.ceil(percent * count / 100))


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of the values do not exceed. Raises ValueError for none."""
    if not ordered:
        raise ValueError("no values")
    return ordered[rank(len(ordered), percent) - 1]


@dataclass(frozen=True, slots=True)
class Spread:
    """Measurements of one kind, in the unit that they were measured in."""

    count: int
    p50: float
    p90: float
    p99: float
    mean: float
    low: float
    high: float

    def at(self, percent: int) -> float:
        """One of PERCENTILES."""
        return {50: self.p50, 90: self.p90, 99: self.p99}[percent]

    def is_maximum(self, percent: int) -> bool:
        """Are there so few values that this percentile is the largest of them?"""
        return rank(self.count, percent) == self.count

    def as_json(self) -> dict[str, float | int | bool]:
        """`p99_is_maximum` says that fewer than 100 values stand behind p99."""
        return {
            "count": self.count,
            "p50": self.p50,
            "p90": self.p90,
            "p99": self.p99,
            "p99_is_maximum": self.is_maximum(99),
            "mean": self.mean,
            "min": self.low,
            "max": self.high,
        }


def spread(values: Iterable[float | None]) -> Spread | None:
    """What the values come to; those that are None were not measured. None when none was."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return None
    return Spread(
        count=len(ordered),
        p50=nearest_rank(ordered, 50),
        p90=nearest_rank(ordered, 90),
        p99=nearest_rank(ordered, 99),
        mean=math.fsum(ordered) / len(ordered),
        low=ordered[0],
        high=ordered[-1],
    )
