"""The verdict: pure functions from what was measured to what was held and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

#: MiB that the server may grow between the two windows.
GROWTH: Final = 2.0
#: Seconds, at the 99th percentile.
LAG: Final = 0.050
#: The scrape that reads these numbers is itself a connection and a task, and the server may not
#: have seen the end of the one before it: one descriptor and one task each.
SPARE_DESCRIPTORS: Final = 2
SPARE_TASKS: Final = 2
#: Of the streams that were to be open, this part must have been, or the run proves nothing.
KEPT_OPEN: Final = 0.95
#: From this many seconds on, the windows are minutes, as a person would choose them.
_LONG: Final = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of the run. `at`: seconds since the load began. None: not measured then."""

    at: float
    rss: float
    pss: float | None
    uss: float | None
    descriptors: int
    threads: int
    cpu: float
    open_streams: int
    tasks: float | None
    #: 99th percentile since the scrape before, seconds.
    lag: float | None
    harness_lag: float


@dataclass(frozen=True, slots=True)
class Rest:
    """The server with nothing to do. `waited`: seconds until it had come to that."""

    rss: float
    descriptors: int
    tasks: float | None
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the verdict rests on."""

    seconds: float
    streams: int
    samples: Sequence[Sample]
    before: Rest
    after: Rest | None
    #: Bucket's upper bound → observations, over the load; None: the server does not say.
    lag: Mapping[float, float] | None
    unexpected: int
    lost: int
    doubled: int


@dataclass(frozen=True, slots=True)
class Check:
    """`held` None: could not be measured, which is no failure but is said."""

    name: str
    held: bool | None
    value: str
    limit: str


def windows(seconds: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The early and the late window of a run: minute 3 and the last minute, or in a short run the
    second and the last fifth. The beginning is left out: there buffers and pools reach their size.
    """
    if seconds >= _LONG:
        return (120.0, 180.0), (seconds - 60.0, seconds)
    return (0.2 * seconds, 0.4 * seconds), (0.8 * seconds, seconds)


def level(points: Sequence[tuple[float, float]], window: tuple[float, float]) -> float | None:
    """The median of the points inside a window."""
    inside = [value for at, value in points if window[0] <= at <= window[1]]
    return median(inside) if inside else None


def growth(points: Sequence[tuple[float, float]], seconds: float) -> float | None:
    """How much higher the late window is than the early one; None without points in both."""
    early, late = (level(points, window) for window in windows(seconds))
    return None if early is None or late is None else late - early


def slope(points: Sequence[tuple[float, float]], seconds: float) -> float | None:
    """Units an hour, by least squares from the early window on."""
    begin = windows(seconds)[0][0]
    inside = [point for point in points if point[0] >= begin]
    if len(inside) < 2:
        return None
    middle = sum(at for at, _ in inside) / len(inside)
    mean = sum(value for _, value in inside) / len(inside)
    spread = sum((at - middle) ** 2 for at, _ in inside)
    if spread == 0:
        return None
    return 3600 * sum((at - middle) * (value - mean) for at, value in inside) / spread


def since(
    before: Mapping[float, float] | None, after: Mapping[float, float] | None
) -> dict[float, float] | None:
    """What a histogram's cumulative buckets gained between two scrapes."""
    if after is None:
        return None
    return {bound: count - (before or {}).get(bound, 0.0) for bound, count in after.items()}


def quantile(buckets: Mapping[float, float] | None, share: float) -> float | None:
    """As Prometheus' histogram_quantile: linear inside the bucket that holds it."""
    if not buckets or not (total := buckets[max(buckets)]):
        return None
    wanted = share * total
    below_bound, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            if bound == float("inf"):
                return below_bound
            return below_bound + (bound - below_bound) * (wanted - below) / (count - below)
        below_bound, below = bound, count
    return None


def came_back(before: Rest, now: Rest, *, spare: bool = True) -> bool:
    """Are descriptors and tasks where they were before the load, but for those to spare?"""
    if now.descriptors > before.descriptors + spare * SPARE_DESCRIPTORS:
        return False
    if before.tasks is None or now.tasks is None:
        return True
    return now.tasks <= before.tasks + spare * SPARE_TASKS


def checks(facts: Facts) -> list[Check]:
    """Every check of the verdict, in the order of the report."""
    return [_memory(facts), _lag(facts), *_returns(facts), *_books(facts), _kept(facts)]


def passed(found: Sequence[Check]) -> bool:
    return not any(check.held is False for check in found)


def _memory(facts: Facts) -> Check:
    grown = growth([(one.at, one.rss) for one in facts.samples], facts.seconds)
    name, limit = "memory: growth of RSS", f"≤ {GROWTH:g} MiB"
    if grown is None:
        return Check(name, None, "too short to say", limit)
    return Check(name, grown <= GROWTH, f"{grown:+.2f} MiB", limit)


def _lag(facts: Facts) -> Check:
    lag = quantile(facts.lag, 0.99)
    name, limit = "event loop: lag, 99th percentile", f"< {LAG * 1e3:g} ms"
    if lag is None:
        return Check(name, None, "not available", limit)
    return Check(name, lag < LAG, f"{lag * 1e3:.1f} ms", limit)


def _returns(facts: Facts) -> list[Check]:
    before, after = facts.before, facts.after
    names = ("descriptors after the load", "tasks after the load")
    if after is None:
        return [Check(name, None, "not measured", "as before") for name in names]
    most = before.descriptors + SPARE_DESCRIPTORS
    said = f"{after.descriptors} (before: {before.descriptors})"
    found = [Check(names[0], after.descriptors <= most, said, f"≤ {most}")]
    if before.tasks is None or after.tasks is None:
        return [*found, Check(names[1], None, "not available", "as before")]
    top = before.tasks + SPARE_TASKS
    said = f"{after.tasks:g} (before: {before.tasks:g})"
    return [*found, Check(names[1], after.tasks <= top, said, f"≤ {top:g}")]


def _books(facts: Facts) -> list[Check]:
    chunks = f"{facts.lost} lost, {facts.doubled} doubled"
    return [
        Check("unexpected errors", facts.unexpected == 0, str(facts.unexpected), "0"),
        Check("chunks", not (facts.lost or facts.doubled), chunks, "none"),
    ]


def _kept(facts: Facts) -> Check:
    begin = windows(facts.seconds)[0][0]
    seen = [one.open_streams for one in facts.samples if one.at >= begin]
    least = round(KEPT_OPEN * facts.streams)
    name, limit = "streams kept open (median)", f"≥ {least}"
    if not seen:
        return Check(name, None, "too short to say", limit)
    return Check(name, median(seen) >= least, f"{median(seen):g}", limit)
