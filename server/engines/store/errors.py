"""What goes wrong with weights, as one paragraph for the person who asked for them."""

from __future__ import annotations

from server.errors import StartError


class StoreError(StartError):
    """`reason` is a closed label: gated, not_found, offline, stalled, hub, hash, disk, space, busy,
    unsafe, used, folder. Nothing is retried after it; what was fetched stays for the next pull,
    unless its hash was wrong."""

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
