"""Numbers from numbers: order of turns, quantiles, intervals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

DIRECT: Final = "direct"
THROUGH: Final = "through"

#: Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval; `low` and `high` are None with fewer than two values."""

    mean: float
    low: float | None
    high: float | None
    count: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def t95(freedom: int) -> float:
    """The quantile; beyond the table the last entry, which is a little too careful."""
    return _T95[min(freedom, len(_T95)) - 1]


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Interval(mean, None, None, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = t95(count - 1) * math.sqrt(variance / count)
    return Interval(mean, mean - half, mean + half, count)


def ratio_interval(ratios: Sequence[float]) -> Interval:
    """The same on logarithms, so that 2 and 1/2 lie equally far from 1."""
    logs = interval([math.log(ratio) for ratio in ratios])
    low = None if logs.low is None else math.exp(logs.low)
    high = None if logs.high is None else math.exp(logs.high)
    return Interval(math.exp(logs.mean), low, high, logs.count)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def order(pairs: int) -> list[tuple[str, str]]:
    """Which arm of each pair goes first: ABBA, so that a steady drift falls out."""
    return [(DIRECT, THROUGH) if n % 2 == 0 else (THROUGH, DIRECT) for n in range(pairs)]
