"""What goes wrong with weights, as one paragraph for the person who asked for them."""

from __future__ import annotations

from typing import Final

from server.errors import StartError

#: Every `reason` of a StoreError. Those of NETWORK and DISK may pass; the others need a person.
NETWORK: Final = frozenset({"offline", "stalled", "down"})
DISK: Final = frozenset({"disk", "space"})
REASONS: Final = (
    NETWORK | DISK | frozenset("gated not_found hub hash store busy unsafe used folder".split())
)
#: How a pull ends, as its metric has it.
OUTCOMES: Final = REASONS | {"ok", "stopped"}


class StoreError(StartError):
    """`reason` is one of REASONS. Nothing is retried after it; what was fetched stays for the next
    pull, unless its hash was wrong."""

    exit_code = 1
    code = "pull_failed"

    def __init__(self, message: str, *, reason: str, detail: str | None = None) -> None:
        super().__init__(message, detail=detail)
        self.reason = reason


class Cancelled(Exception):
    """Somebody wants no more of it. What was fetched stays."""


class Broken(Exception):
    """A transfer ended before its time, and another try may help. `wait`: not before so many
    seconds."""

    def __init__(self, cause: str, *, wait: float | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.wait = wait
