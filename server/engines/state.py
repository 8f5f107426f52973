"""What the rest of the house may know of an engine: immutable snapshots, never the process."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

#: What an engine on a Unix socket is told that it is called.
ON_SOCKET: Final = "http://engine"


class EngineState(enum.StrEnum):
    """`ready` is the only state in which an engine is sent requests."""

    STOPPED = "stopped"  # nobody wants it now
    WAITING = "waiting"  # wanted; others must make room first, or it is being prepared
    STARTING = "starting"  # the process runs, weights are loading; or it wakes up
    READY = "ready"
    DRAINING = "draining"  # asked to stop or to sleep; open requests finish
    ASLEEP = "asleep"  # its process lives, its weights are in the host's memory
    BACKOFF = "backoff"  # it died; the next start waits
    FAILED = "failed"  # it will not be tried again without an operator


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of an engine. It answers at `url`, over `socket` where that is set; both mean
    something only while it is `ready`. `since` is when the state began."""

    replica: int
    state: EngineState
    socket: str | None = None
    url: str = ON_SOCKET
    generation: int = 0
    pid: int | None = None
    devices: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineView:
    """One engine at one moment: the sum of its instances.

    `url` is where it answers, over `socket` where that is set (a Unix socket's path), both of the
    first instance that is `ready`. `generation` counts starts, so that a failure seen on an older
    process is not held against a newer one. `eta` is the estimate in seconds until ready (from
    earlier starts; None when unknown or not on its way). `stage` says in words what it does or what
    it waits for.

    `devices` are those that it is placed on. `planned` is how many bytes were set aside for it
    there, `used` how many were seen to be taken; None when nobody has looked. `last_used` is when
    its last request ended (0: never), `ready_since` when it became ready, `unload_at` when it will
    be unloaded for idleness, as things are. Times are `time.monotonic()` seconds.
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
    url: str = ON_SOCKET
    devices: tuple[str, ...] = ()
    planned: int = 0
    used: int | None = None
    last_used: float = 0.0
    ready_since: float | None = None
    unload_at: float | None = None
    instances: tuple[Instance, ...] = ()
