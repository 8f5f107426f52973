"""What the rest of the house may know of an engine: immutable snapshots, never the process."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class EngineState(enum.StrEnum):
    """`ready` is the only state in which an engine is sent requests."""

    STOPPED = "stopped"  # nobody wants it now
    STARTING = "starting"  # the process runs, weights are loading
    READY = "ready"
    DRAINING = "draining"  # asked to stop; open requests finish
    BACKOFF = "backoff"  # it died; the next start waits
    FAILED = "failed"  # it will not be tried again without an operator


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine at one moment.

    `socket` is the Unix socket's path, set while `ready`. `generation` counts starts, so that a
    failure seen on an older process is not held against a newer one. `eta` is the estimate in
    seconds until ready (from earlier starts; None when unknown or not on its way). `stage` is the
    last stage read from its log while starting. Times are `time.monotonic()` seconds.
    """

    name: str
    state: EngineState
    socket: str | None = None
    generation: int = 0
    stage: str = ""
    since: float = 0.0
    eta: float | None = None
    restarts: int = 0
    pid: int | None = None
    waiting: int = 0
    error: str | None = None
    error_reason: str | None = None
