"""What a run is asked to do. Parsing raises ValueError that names the way out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: More would exhaust a client's ports and memory long before it says anything of a server.
MOST_AT_A_TIME: Final = 20_000
MOST_A_SECOND: Final = 100_000.0


@dataclass(frozen=True, slots=True)
class Load:
    """One step of a sweep.

    Without a `rate` a closed loop: `concurrency` users, each of whom asks again as soon as it is
    answered. With one an open loop: requests arrive `rate` times a second whatever the server does;
    `concurrency` then caps how many are sent at a time, and what waits for its turn waits visibly.
    """

    rate: float | None = None
    concurrency: int | None = None

    @property
    def label(self) -> str:
        """`8 at a time`, `2.5/s`, `2.5/s, at most 8 at a time`"""
        if self.rate is None:
            return f"{self.concurrency} at a time"
        cap = "" if self.concurrency is None else f", at most {self.concurrency} at a time"
        return f"{self.rate:g}/s{cap}"


@dataclass(frozen=True, slots=True)
class Ends:
    """A step starts no more requests after this many, or this many seconds; what is open then
    finishes. `errors`: the step stops when its first so many requests have all failed; 0: never."""

    requests: int | None = None
    seconds: float | None = None
    errors: int = 20


def concurrencies(text: str) -> tuple[int, ...]:
    """`8` or `1,8,64`."""
    found = []
    for part in text.split(","):
        part = part.strip()
        if not (part.isascii() and part.isdigit() and 1 <= int(part) <= MOST_AT_A_TIME):
            raise ValueError(
                f"{part!r} is no number of requests at a time: write 8, or 1,8,64 for a sweep "
                f"(each from 1 to {MOST_AT_A_TIME})"
            )
        found.append(int(part))
    return tuple(found)


def rates(text: str) -> tuple[float, ...]:
    """`4` or `0.5,1,2`."""
    found = []
    for part in text.split(","):
        try:
            rate = float(part)
        except ValueError:
            rate = math.nan
        if not 0 < rate <= MOST_A_SECOND:  # also refuses nan
            raise ValueError(
                f"{part.strip()!r} is no rate: write requests a second, such as 4, or 0.5,1,2 for "
                f"a sweep (each above 0, up to {MOST_A_SECOND:g})"
            )
        found.append(rate)
    return tuple(found)


def steps(concurrency: tuple[int, ...], rate: tuple[float, ...]) -> tuple[Load, ...]:
    """The steps of the sweep, in order."""
    if not rate:
        return tuple(Load(concurrency=number) for number in concurrency)
    if len(concurrency) > 1:
        raise ValueError(
            "beside --rate, --concurrency is one cap on what is sent at a time: give one number, "
            "or leave --rate away for a closed loop"
        )
    cap = concurrency[0] if concurrency else None
    return tuple(Load(rate=number, concurrency=cap) for number in rate)
