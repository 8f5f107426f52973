"""What an attempt's outcome says of the target or the credential that it was made with."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import Final


class Verdict(enum.Enum):
    """What an attempt's outcome says of the place that it was sent to."""

    GOOD = "good"
    BAD = "bad"
    #: Neutral, but it did answer: the client's own fault. Enough for a probe.
    ANSWERED = "answered"
    #: It says nothing: the client left, or the fault was ours.
    NEUTRAL = "neutral"
    RATE_LIMITED = "rate_limited"
    #: The credential is refused.
    AUTH = "auth"
    #: The credential is good, and may not use this: no second request will fare better.
    FORBIDDEN = "forbidden"


#: Outcome of an attempt, as the metric has it → verdict.
VERDICTS: Final = MappingProxyType(
    {
        "ok": Verdict.GOOD,
        **dict.fromkeys(("refused", "dns", "tls", "connect_timeout"), Verdict.BAD),
        **dict.fromkeys(("reset", "first_byte_timeout", "stall"), Verdict.BAD),
        **dict.fromkeys(("protocol", "truncated", "aborted", "http_5xx", "error"), Verdict.BAD),
        "http_4xx": Verdict.ANSWERED,
        "http_429": Verdict.RATE_LIMITED,
        "http_auth": Verdict.AUTH,
        "forbidden": Verdict.FORBIDDEN,  # of `http_auth` those of one model alone
        # A client chooses its deadline, and how much it asks for, so that neither may trip what
        # others use.
        **dict.fromkeys(("deadline", "too_large"), Verdict.NEUTRAL),
        **dict.fromkeys(
            ("client_gone", "slow_client", "not_ready", "shed", "internal"), Verdict.NEUTRAL
        ),
    }
)


def verdict(outcome: str) -> Verdict:
    """What this outcome says; nothing, if it is not known."""
    return VERDICTS.get(outcome, Verdict.NEUTRAL)
