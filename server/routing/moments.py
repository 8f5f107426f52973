"""Numbers, durations and times of day as providers write them in headers. Pure.

What the headers hold is an upstream's word and may be anything: nothing here raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

DAY: Final = 86_400.0
#: More seconds are no duration, but a date.
YEAR: Final = 366 * DAY
#: No date or duration is longer, and what is may be 10 kB of it.
_LONGEST: Final = 64

_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]*)?")
#: As Go writes durations, which is what OpenAI and Groq send: `1s`, `6m0s`, `2m59.56s`, `20ms`.
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|s|m|h|d)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY
}  # fmt: skip
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def short(raw: str | None) -> str | None:
    """The value without white space around it, if it is short enough to mean anything."""
    if raw is None or len(raw) > _LONGEST:
        return None
    return raw.strip(" \t")


def number(text: str) -> float | None:
    """A number without a sign or an exponent."""
    return float(text) if _NUMBER.fullmatch(text) else None


def duration(text: str) -> float | None:
    """Seconds of `6m0s` or of a bare number; None for a number so large that it is a date."""
    value = number(text)
    if value is not None:
        return value if value < YEAR else None
    if not _DURATION.fullmatch(text):
        return None
    return math.fsum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text))


def until(moment: float, headers: Mapping[str, str], now: float) -> float:
    """Seconds from an answer with these headers until a time of day; 0 when it is over. By the
    answer's own `date`, so that two clocks need not agree, or by `now`; all since 1970."""
    date = short(headers.get("date"))
    said = None if date is None else http_date(date)
    return max(0.0, moment - (now if said is None else said))


def http_date(text: str) -> float | None:
    """Seconds since 1970. All three forms of RFC 9110, 5.6.7, and zones, which it does not have."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def rfc_3339(text: str) -> float | None:
    """Seconds since 1970."""
    text = text.upper()
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None
