"""What happened to one request: filled by dispatch and relay, settled once by the API."""

from __future__ import annotations

from dataclasses import dataclass

from server.dialects.openai import Usage


@dataclass(slots=True)
class Record:
    """Times are `time.monotonic()` seconds."""

    target: str | None = None
    attempts: int = 0
    #: Label of the plan's first target, when another answered.
    fallback_from: str | None = None
    #: Why it did not: an attempt's outcome, or a cause of `plan.Cause`.
    fallback_reason: str | None = None
    #: The model that answered while the one asked for was loading.
    bridge: str | None = None
    #: When the first attempt began.
    sent: float | None = None
    #: Seconds spent in queues, on engines that were loading and on pauses; in all, and before the
    #: first attempt.
    waited: float = 0.0
    waited_before: float = 0.0
    usage: Usage | None = None
    #: US dollars for `usage` at the target that answered; None: unknown.
    cost: float | None = None
    first_token: float | None = None
    #: Streams: how it ended, a value of the metric `roundhouse_stream_end`.
    end: str | None = None
    status: int | None = None
    #: The error that ended it, for the log.
    error: str | None = None
    detail: str | None = None
