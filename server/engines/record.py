"""What is known of one instance of an engine, for the planner and for others."""

from __future__ import annotations

import math
from pathlib import Path

from server.engines.placement import Option, Phase, Running
from server.engines.process import EngineProcess
from server.engines.shop import Owner, Shop
from server.engines.stages import Stages
from server.engines.state import ON_SOCKET, EngineState, Instance
from server.engines.troubles import Troubles
from server.errors import EngineError


class Record:
    """`phase` says what it does with its memory; None: it has none. `due`: it died, and is not to
    start before that; `failed`: it was given up. `expected`: until then those who waited for it are
    about to send their requests."""

    def __init__(self, owner: Owner, replica: int, shop: Shop) -> None:
        self.owner, self.replica, self.shop = owner, replica, shop
        self.state, self.stage, self.since = EngineState.STOPPED, "", shop.clock()
        self.phase: Phase | None = None
        self.changed_at = 0.0
        self.error: EngineError | None = None
        self.due: float | None = None
        self.failed = False
        self.pid: int | None = None
        self.generation = 0
        self.ready_since: float | None = None
        self.last_used = 0.0
        self.keep_alive: float | None = None
        self.in_flight = 0
        self.expected = 0.0
        self.devices: tuple[str, ...] = ()
        self.troubles = Troubles(owner.name, shop)
        self._option: Option | None = None
        self._cores: tuple[int, ...] = ()
        self._slept = self._between = False
        self._process: EngineProcess | None = None
        self._stages = Stages(shop.clock)

    def running(self) -> Running | None:
        """For the planner; None when nothing of it is left."""
        if self.phase is None or self._option is None:
            return None
        return Running(
            self.owner.name, self.phase, self._option, self.devices, self.replica, self._cores,
            since=self.ready_since or 0.0, changed=self.changed_at, last_used=self.last_used,
            in_flight=self.in_flight, keep_alive=self.keep_alive, slept=self._slept,
            between=self._between,
        )  # fmt: skip

    def instance(self) -> Instance:
        process = self._process
        over = None if process is None or not process.vllm else process.socket
        return Instance(
            self.replica, self.state, over, ON_SOCKET if process is None else process.url,
            self.generation, self.pid, self.devices if self.phase else (), self.since,
        )  # fmt: skip

    def eta(self, key: str) -> float | None:
        """Seconds until it is ready, of one that is on its way; None when nothing is known."""
        estimates = self.shop.estimates
        if self.phase is Phase.WAKING:
            usual, passed = estimates.of(waking(key)), self._stages.total
        else:
            left = estimates.ahead(key, self._stages.name, self._stages.passed)
            if left is not None:
                return max(left, 1.0)
            usual, passed = estimates.of(key), self._stages.total
        return None if usual is None else max(usual - passed, usual / 10, 1.0)

    def sample(self) -> bool:
        """Look at its requests in flight; have they just ended?"""
        if self.phase not in (Phase.READY, Phase.DRAINING, Phase.STOPPING):
            return False
        before, self.in_flight = self.in_flight, self.shop.in_flight(self.owner.name, self.replica)
        if not self.in_flight and self.shop.clock() < self.expected:
            self.in_flight = 1
        if self.in_flight or before:
            self.last_used = self.shop.clock()
        return bool(before and not self.in_flight)

    def used(self, keep_alive: float | None) -> None:
        """A request is sent to it; what the last one wished for counts."""
        self.last_used, self.keep_alive, self.expected = self.shop.clock(), keep_alive, 0.0
        if not self.in_flight:  # it may be over before anybody looks
            self.in_flight = 1
            self.shop.news()

    def idle_end(self, idle: float | None) -> float:
        """When it will have been idle for long enough, as things are."""
        allowed = self.keep_alive if self.keep_alive is not None else idle
        if allowed is None:
            return math.inf
        return max(self.last_used, self.ready_since or 0.0) + allowed

    # --- how it becomes known -----------------------------------------------------------------

    def _now(self) -> float:
        return self.shop.clock()

    def _move(self, phase: Phase, state: EngineState, stage: str) -> None:
        if phase is Phase.STOPPING:
            self._slept = self._slept or self.phase is Phase.ASLEEP
            self._between = self._between or self.phase in (Phase.SLEEPING, Phase.WAKING)
        self.phase, self.changed_at = phase, self._now()
        self._show(state, stage)

    def _show(self, state: EngineState, stage: str) -> None:
        self._set(state, stage)
        self.owner.changed()

    def _set(self, state: EngineState, stage: str) -> None:
        if state is not self.state:
            self.since = self._now()
        self.state, self.stage = state, stage


def log_of(home: Path, name: str, replica: int = 0) -> Path:
    """Where an instance's log is."""
    return home / "logs" / (f"{name}@{replica}.log" if replica else f"{name}.log")


def waking(key: str) -> str:
    """Under which wakes are learned, beside the starts of `key`."""
    return f"{key}:wake"
