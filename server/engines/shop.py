"""What all instances of all engines share, and what an instance needs of the engine it is of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.engines import backoff
from server.engines.estimates import Estimates
from server.engines.launcher import Launcher
from server.engines.rundir import RunFolder
from server.engines.spec import Spec
from server.engines.state import EngineView
from server.engines.watch import Timing
from server.errors import EngineError
from server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Shop:
    """`publish` takes views for whoever follows them; `news` is rung when a new plan is due,
    `measure` when there may be less memory than was thought."""

    launcher: Launcher
    run: RunFolder
    home: Path
    metrics: Metrics
    estimates: Estimates
    in_flight: Callable[[str, int], int]
    publish: Callable[[EngineView], None]
    news: Callable[[], None]
    measure: Callable[[], None]
    generation: Callable[[], int]
    clock: Callable[[], float]
    rng: random.Random
    policy: backoff.Policy
    timing: Timing


class Owner(Protocol):
    """The engine that an instance is of."""

    name: str
    spec: Spec
    ever_ready: bool

    @property
    def waiting(self) -> int:
        """How many requests wait for it."""

    def publish(self) -> None:
        """What others see of an instance is not what it was."""

    def changed(self) -> None:
        """Nor is what a plan depends on."""

    def became_ready(self, how: str) -> None:
        """An instance can be sent requests: by a `start`, or a `wake`."""

    def died(self, replica: int, error: EngineError, *, wanted: bool) -> None:
        """An instance is gone and starts again after a pause, if it is `wanted`."""

    def gave_up(self, replica: int, error: EngineError) -> None:
        """An instance is gone, and starting it again cannot help."""
