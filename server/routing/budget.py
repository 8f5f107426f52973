"""What keeps retries from making an outage worse: the global retry budget, and the pause between
two attempts. Pure: times and draws in, decisions out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: 2 to this power is beyond every cap, and still a number.
_DOUBLINGS: Final = 32


class Window:
    """How many there were in the last `span` seconds, in a fixed number of counters.

    Nothing older than `span` is ever counted; what is nearly that old may be forgotten one counter
    (`span / buckets`) early. Times are monotonic seconds; one that lies behind counts as the last.
    """

    __slots__ = ("_counts", "_edge", "_newest", "_total", "_width")

    def __init__(self, span: float, buckets: int = 20) -> None:
        if span <= 0 or buckets < 1:
            raise ValueError("a window has a length and at least one bucket")
        self._width = span / buckets
        self._counts = [0] * buckets
        self._newest = 0
        #: Where the newest counter ends.
        self._edge = self._width
        self._total = 0

    def add(self, now: float) -> None:
        if now >= self._edge:
            self._turn(now)
        self._counts[self._newest % len(self._counts)] += 1
        self._total += 1

    def total(self, now: float) -> int:
        self._turn(now)
        return self._total

    def clear(self) -> None:
        self._counts = [0] * len(self._counts)
        self._total = 0

    def _turn(self, now: float) -> None:
        newest = int(now // self._width)
        passed = newest - self._newest
        if passed <= 0:
            return
        self._edge = (newest + 1) * self._width
        size = len(self._counts)
        if passed >= size:
            self.clear()
        else:
            for bucket in range(self._newest + 1, newest + 1):
                self._total -= self._counts[bucket % size]
                self._counts[bucket % size] = 0
        self._newest = newest


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    #: Extra attempts per request offered, over the window: 0.2 is at most 1.2 attempts each.
    ratio: float = 0.2
    #: So many extra attempts per window are free, or a quiet server could never retry.
    floor: int = 10
    #: Seconds.
    window: float = 10.0

    def __post_init__(self) -> None:
        if not (self.ratio >= 0 and self.floor >= 0 and self.window > 0):
            raise ValueError("a budget has no negative share, no negative floor, and a window")


class RetryBudget:
    """One for the whole server. Constant time and memory, no clock, no lock.

    Each request is offered once, with its first attempt. Each further attempt asks `may_retry` and
    then spends, in one go: with a pause between the two, many would be allowed the same last one.

    `sent` says whether the attempt before may have reached its target (`UpstreamError.sent`). One
    that did not has put load on nobody, so the attempt after it is free.
    """

    __slots__ = ("_offered", "_settings", "_spent")

    def __init__(self, settings: BudgetSettings | None = None) -> None:
        self._settings = settings or BudgetSettings()
        self._offered = Window(self._settings.window)
        self._spent = Window(self._settings.window)

    def offer(self, now: float) -> None:
        """A request came in."""
        self._offered.add(now)

    def may_retry(self, now: float, *, sent: bool = True) -> bool:
        """Is there enough for one attempt more?"""
        return not sent or self._spent.total(now) < self._allowed(now)

    def spend(self, now: float, *, sent: bool = True) -> None:
        """An extra attempt begins."""
        if sent:
            self._spent.add(now)

    def fill(self, now: float) -> float:
        """How much of the budget is used up, 0 to 1, for the metric."""
        allowed = self._allowed(now)
        return min(1.0, self._spent.total(now) / allowed) if allowed else 1.0

    def _allowed(self, now: float) -> int:
        share = self._settings.ratio * self._offered.total(now)
        return max(self._settings.floor, int(share + 1e-9))  # 0.29 x 100 is 28.999999999999996


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause before an extra attempt, in seconds: full jitter, so that clients that failed
    together do not come back together.

    See Brooker, "Exponential backoff and jitter" (AWS Architecture Blog, 2015).
    """

    #: The longest first pause; it doubles with each attempt.
    first: float = 0.05
    cap: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.cap:
            raise ValueError("a pause is not negative, and its cap not below the first")

    def pause(self, extra: int, draw: float, *, now: float, deadline: float) -> float:
        """Before extra attempt number `extra` (from 1). `draw` is random, in [0, 1).

        Never past the deadline; 0 when that is over.
        """
        longest = min(self.cap, self.first * 2.0 ** min(extra - 1, _DOUBLINGS))
        return min(draw * longest, max(0.0, deadline - now))
