"""When a target that had enough wants to be asked again. Pure: headers in, seconds out.

What the headers hold is an upstream's word and may be anything: nothing here raises, and no answer
is below LEAST or above the cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.routing import moments

#: Seconds. Who says 0, or names a time that is over, has just refused all the same: without a rest
#: the next requests would all be refused, too.
LEAST: Final = 0.25
#: Who means longer is asked again after this. No breaker rests for longer (`BreakerSettings`), and
#: the client is told the same time.
MOST: Final = 600.0

_OPENAI: Final = "x-ratelimit-reset-"
_ANTHROPIC: Final = ("anthropic-ratelimit-", "-reset")


def seconds_in(headers: Mapping[str, str], *, now: float, cap: float = MOST) -> float | None:
    """Seconds from now that an answer with status 429 or 503 asks for; None: it does not say.

    `retry-after-ms` beats `retry-after` (a number or an HTTP date), which beats the times at which
    the provider's limits are whole again: of those the longest, leaving out every limit that has
    something left and so was not the one in the way. They stand in good answers, too, where they
    ask for nothing: read only answers that refuse.

    `headers` have lower-case names. Times of day count from the answer's own `date`, so that two
    clocks need not agree; `now`, in seconds since 1970, is for answers without one.
    """
    asked = _asked(headers, now)
    return None if asked is None else max(LEAST, min(asked, cap))


def _asked(headers: Mapping[str, str], now: float) -> float | None:
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (text := moments.short(headers.get(name))) is None:
            continue
        if (value := moments.number(text)) is not None:
            return value * scale
        if name == "retry-after" and (moment := moments.http_date(text)) is not None:
            return moments.until(moment, headers, now)
    return _longest_reset(headers, now)


def _longest_reset(headers: Mapping[str, str], now: float) -> float | None:
    before, after = _ANTHROPIC
    longest: float | None = None
    for name, raw in headers.items():
        if name.startswith(_OPENAI):
            left = headers.get(f"x-ratelimit-remaining-{name.removeprefix(_OPENAI)}")
            text = moments.short(raw)
            wait = None if text is None else moments.duration(text)
        elif name.startswith(before) and name.endswith(after):
            left = headers.get(f"{name.removesuffix(after)}-remaining")
            text = moments.short(raw)
            moment = None if text is None else moments.rfc_3339(text)
            wait = None if moment is None else moments.until(moment, headers, now)
        else:
            continue
        # Zero is what Azure sends for a limit that it does not count.
        if wait and not _some(left) and (longest is None or wait > longest):
            longest = wait
    return longest


def _some(left: str | None) -> bool:
    value = moments.number(text) if (text := moments.short(left)) is not None else None
    return value is not None and value > 0
