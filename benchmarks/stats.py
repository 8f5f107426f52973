"""Medians, quantiles and 95 % intervals. Pure; no NumPy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
#: With fewer values than this an interval says nothing that one would want to read.
ENOUGH: Final = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """`middle` with its 95 % interval; no `low` and `high` where there are too few values."""

    middle: float
    low: float | None
    high: float | None
    count: int

    def around(self, value: float) -> bool:
        """Is `value` inside, so that the measurement cannot tell the middle from it?"""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


def t95(freedom: int) -> float:
    """Beyond the table its last entry, which errs to the careful side."""
    return _T95[min(freedom, len(_T95)) - 1]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """nan of none; values that are nan are left out."""
    good = [value for value in values if not math.isnan(value)]
    return statistics.median(good) if good else math.nan


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean and Student's t interval."""
    good = [value for value in values if not math.isnan(value)]
    if not good:
        return Interval(math.nan, None, None, 0)
    mean = math.fsum(good) / len(good)
    if len(good) < ENOUGH:
        return Interval(mean, None, None, len(good))
    half = t95(len(good) - 1) * statistics.stdev(good) / math.sqrt(len(good))
    return Interval(mean, mean - half, mean + half, len(good))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The ratio of paired values: geometric mean and t interval of the logarithms, so that 2 and
    1/2 lie equally far from 1. Pairs that are not both above 0 are left out."""
    logs = [
        math.log(one / other)
        for one, other in zip(ours, theirs, strict=True)
        if one > 0 and other > 0  # false for nan, too
    ]
    found = mean_interval(logs)
    if found.count == 0:
        return found
    return Interval(
        math.exp(found.middle),
        None if found.low is None else math.exp(found.low),
        None if found.high is None else math.exp(found.high),
        found.count,
    )
