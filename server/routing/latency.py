"""A decaying average of one target's time to first token. Pure: monotonic seconds are arguments."""

from __future__ import annotations

from typing import Final

#: Seconds after which a measurement counts half.
HALF_LIFE: Final = 30.0
#: Seconds: what is measured within them is of one moment, and decays no further.
MOMENT: Final = 0.01
#: Half-lives without a measurement after which nothing is known any more.
FORGOTTEN: Final = 20.0


class Latency:
    """The mean of what was measured, each measurement weighted by 0.5 ** (its age / half-life).

    It decays with time, not with the number of measurements: a burst counts as what it is, many
    measurements of one moment, and a slow hour ago is forgotten however few requests came since.
    Two numbers are kept, the weighted sum and the weight, both as of the last measurement.
    """

    __slots__ = ("_at", "_half_life", "_sum", "_weight")

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        if half_life <= 0:
            raise ValueError("a half-life is longer than nothing")
        self._half_life = half_life
        self._sum = 0.0
        self._weight = 0.0
        self._at: float | None = None

    def observe(self, now: float, seconds: float) -> None:
        """One answer's first token came after so many seconds.

        An attempt that failed by a time-out should be told, too, as the seconds it took: else a
        target that answers no more keeps the good name it had.
        """
        if seconds < 0:
            seconds = 0.0
        at = self._at
        if at is not None and now < at + MOMENT:
            self._sum += seconds
            self._weight += 1.0
            return
        kept = self._kept(now)
        self._sum = self._sum * kept + seconds
        self._weight = self._weight * kept + 1.0
        self._at = now

    def value(self, now: float) -> float | None:
        """Seconds; None when nothing was measured, or too long ago to mean anything."""
        if self._at is None or now - self._at > FORGOTTEN * self._half_life:
            return None
        return self._sum / self._weight

    def age(self, now: float) -> float | None:
        """Seconds since the last measurement; None without one."""
        return None if self._at is None else max(0.0, now - self._at)

    def _kept(self, now: float) -> float:
        """What is left of old weight at a later moment; nothing beyond FORGOTTEN."""
        if self._at is None:
            return 0.0
        halves = (now - self._at) / self._half_life
        return 0.0 if halves > FORGOTTEN else float(0.5**halves)
