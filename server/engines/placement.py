"""The words between the planner and who asks it: devices, engines, what runs, wishes, actions."""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

#: An engine that is never unloaded for idleness.
FOREVER: Final = math.inf


class Phase(enum.StrEnum):
    """What an instance of an engine is doing. In all of them it holds memory."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"  # takes no new request, then it is evicted
    SLEEPING = "sleeping"  # on its way to `asleep`: its weights are in both memories
    ASLEEP = "asleep"
    WAKING = "waking"  # on its way back: likewise
    STOPPING = "stopping"  # ends; its memory counts until it is gone


#: Those that do not end by an action of the planner.
MOVING: Final = frozenset({Phase.STARTING, Phase.SLEEPING, Phase.WAKING, Phase.STOPPING})
LEAVING: Final = frozenset({Phase.DRAINING, Phase.STOPPING})


@dataclass(frozen=True, slots=True)
class Device:
    """`total` bytes, of which `reserved` are not for engines. `cores` are a CPU's. `sleeps`: can
    engines on it sleep?"""

    id: str
    kind: str
    total: int
    reserved: int = 0
    cores: tuple[int, ...] = ()
    sleeps: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One way to place an engine: on how many devices of a kind, with how many bytes on each.

    `host`: bytes in the host's memory beside. `asleep`: bytes that stay on each device, and in the
    host's memory, while it sleeps; None when it cannot. `cores`: of a CPU, for itself.
    `ids`: only on these devices; empty means any of the kind.
    """

    kind: str
    each: int
    devices: int = 1
    host: int = 0
    asleep: tuple[int, int] | None = None
    cores: int = 0
    ids: tuple[str, ...] = ()

    def suits(self, device: Device) -> bool:
        """May it be placed there at all?"""
        return device.kind == self.kind and (not self.ids or device.id in self.ids)


@dataclass(frozen=True, slots=True)
class Engine:
    """What may run. `options`, the best first. `refusal` is the need's own error, told when it can
    never fit. Engines that share a name in `groups` never coexist, asleep or awake.

    Seconds: `idle` until it is unloaded, `residency` that it stays at least once it is ready.
    `replicas` beyond the first are placed where memory is free, never in another's stead, and only
    of an engine without groups. Those whose number is in `failed` are not started.
    `not_before`: it died, and the next start waits. `eager`: it is loaded where memory is free,
    though nobody wishes for it, and never makes others go.
    """

    name: str
    options: tuple[Option, ...]
    pinned: bool = False
    idle: float = FOREVER
    residency: float = 0.0
    groups: frozenset[str] = frozenset()
    replicas: int = 1
    refusal: str | None = None
    not_before: float = 0.0
    eager: bool = False
    failed: frozenset[int] = frozenset()

    def vacant(self, used: Collection[int]) -> int | None:
        """The number of the replica to start next, besides those of these numbers."""
        numbers = range(self.replicas)
        return next((n for n in numbers if n not in used and n not in self.failed), None)


@dataclass(frozen=True, slots=True)
class Running:
    """One instance of an engine. `since`: when it became ready; `changed`: when its phase began.
    `keep_alive`: the idle time that its last request asked for. `slept`: it stops from sleep;
    `between`: on its way to it or back, when its weights may be in both memories."""

    engine: str
    phase: Phase
    option: Option
    devices: tuple[str, ...]
    replica: int = 0
    cores: tuple[int, ...] = ()
    since: float = 0.0
    changed: float = 0.0
    last_used: float = 0.0
    in_flight: int = 0
    keep_alive: float | None = None
    slept: bool = False
    between: bool = False

    @property
    def key(self) -> tuple[str, int]:
        return self.engine, self.replica


@dataclass(frozen=True, slots=True)
class Wish:
    """Requests wait for an engine, the oldest since `since`. A higher `priority` goes first."""

    engine: str
    since: float
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds. `starvation`: so long a wish may be passed over. `drain`: so long requests of an
    engine that must go may take. `forget`: an engine asleep for so long is ended.

    `host` is the device whose memory is the machine's own.
    """

    starvation: float = 60.0
    drain: float = 30.0
    forget: float = FOREVER
    host: str | None = None


#: Why an instance goes: for another, for idleness, after a long sleep, or nobody knows it any more.
Cause = Literal["room", "idle", "asleep", "config"]


# --- actions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    engine: str
    option: Option
    devices: tuple[str, ...]
    replica: int = 0
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wake:
    engine: str
    replica: int = 0


@dataclass(frozen=True, slots=True)
class Sleep:
    """At level 1: the weights go to the host's memory. `by`: the engine that needs the room."""

    engine: str
    why: str
    replica: int = 0
    cause: Cause = field(default="room", compare=False)
    by: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Drain:
    """Send it no more requests. It is evicted once it has none, or when its time is over."""

    engine: str
    why: str
    replica: int = 0
    by: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Evict:
    engine: str
    why: str
    replica: int = 0
    cause: Cause = field(default="room", compare=False)
    by: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Wait:
    """`until`: when it may go on by time alone; None when something has to happen first."""

    engine: str
    why: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never be served as things are: say so to those who wait."""

    engine: str
    why: str


Action = Start | Wake | Sleep | Drain | Evict | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Plan:
    """`actions` can all be begun at once. `again`: ask again then, even if nothing happens."""

    actions: tuple[Action, ...] = ()
    again: float | None = None


@dataclass(frozen=True, slots=True)
class World:
    """All that a plan depends on. An instance of an engine that is not among `engines` goes as
    soon as it is idle."""

    devices: tuple[Device, ...]
    engines: Mapping[str, Engine]
    running: tuple[Running, ...] = ()
    wishes: tuple[Wish, ...] = ()
    policy: Policy = field(default_factory=Policy)


#: Why a wish waits for an engine that is in such a phase.
OWN: Final = {
    Phase.STARTING: "it is loading",
    Phase.WAKING: "it is waking up",
    Phase.SLEEPING: "it is falling asleep, and wakes after that",
    Phase.DRAINING: "it makes room for another, and starts again after that",
    Phase.STOPPING: "its last process is stopping",
    Phase.READY: "it makes room for another, and comes back after that",
    Phase.ASLEEP: "it makes room for another, and starts again after that",
}

#: Why an eager engine waits that would have to make others go.
NO_ROOM: Final = "no room"
