"""When a target that had enough wants to be asked again. Pure: headers in, seconds out.

What the headers hold is an upstream's word and may be anything: nothing here raises, and no answer
is below LEAST or above the cap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Seconds. Who says 0, or names a time that is over, has just refused all the same: without a rest
#: the next requests would all be refused, too.
LEAST: Final = 0.25
#: Who means longer is asked again after this. No breaker rests for longer (`BreakerSettings`), and
#: the client is told the same time.
MOST: Final = 600.0
_DAY: Final = 86_400.0
#: No date or duration is longer, and what is may be 10 kB of it.
_LONGEST: Final = 64

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")
#: As Go writes durations, which is what OpenAI and Groq send: `1s`, `6m0s`, `2m59.56s`, `20ms`.
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|s|m|h|d)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": _DAY
}  # fmt: skip
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
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
        if (text := _text(headers.get(name))) is None:
            continue
        if (value := _number(text)) is not None:
            return value * scale
        if name == "retry-after" and (moment := _http_date(text)) is not None:
            return _until(moment, headers, now)
    return _longest_reset(headers, now)


def _longest_reset(headers: Mapping[str, str], now: float) -> float | None:
    before, after = _ANTHROPIC
    longest: float | None = None
    for name, raw in headers.items():
        if name.startswith(_OPENAI):
            left = headers.get(f"x-ratelimit-remaining-{name.removeprefix(_OPENAI)}")
            text = _text(raw)
            wait = None if text is None else _duration(text)
        elif name.startswith(before) and name.endswith(after):
            left = headers.get(f"{name.removesuffix(after)}-remaining")
            text = _text(raw)
            moment = None if text is None else _rfc_3339(text)
            wait = None if moment is None else _until(moment, headers, now)
        else:
            continue
        # Zero is what Azure sends for a limit that it does not count.
        if wait and not _some(left) and (longest is None or wait > longest):
            longest = wait
    return longest


def _text(raw: str | None) -> str | None:
    """The value without white space around it, if it is short enough to mean anything."""
    if raw is None or len(raw) > _LONGEST:
        return None
    return raw.strip(" \t")


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _some(left: str | None) -> bool:
    value = _number(text) if (text := _text(left)) is not None else None
    return value is not None and value > 0


def _duration(text: str) -> float | None:
    """Seconds of `6m0s` or of a bare number; None for a number so large that it is a date."""
    value = _number(text)
    if value is not None:
        return value if value < 366 * _DAY else None
    if not _DURATION.fullmatch(text):
        return None
    return math.fsum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def _until(moment: float, headers: Mapping[str, str], now: float) -> float:
    """Seconds until a time of day; 0 when it is over."""
    date = _text(headers.get("date"))
    said = None if date is None else _http_date(date)
    return max(0.0, moment - (now if said is None else said))


def _http_date(text: str) -> float | None:
    """Seconds since 1970. All three forms of RFC 9110, 5.6.7, and zones, which it does not have."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _rfc_3339(text: str) -> float | None:
    """Seconds since 1970."""
    text = text.upper()
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
