"""When the requests of an open loop are due."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def poisson(rate: float, chance: Random) -> Iterator[float]:
    """Seconds from the start to each arrival, without end: independent users, `rate` a second on
    average. The same `chance` gives the same arrivals."""
    if rate <= 0:
        raise ValueError("a rate must be above 0")
    due = 0.0
    while True:
        due += chance.expovariate(rate)
        yield due
