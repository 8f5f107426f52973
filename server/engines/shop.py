"""What all instances of all engines share, and what an instance needs of the engine it is of."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.config.engine import Engine, Runtime
from server.engines import backoff
from server.engines.estimates import Estimates
from server.engines.fitting import Fitted
from server.engines.placement import Device
from server.engines.rundir import RunFolder
from server.engines.runtimes import Launch, Placement
from server.engines.spec import Spec
from server.engines.state import EngineView
from server.engines.watch import Timing
from server.engines.weights import StoreSettings
from server.errors import EngineError
from server.telemetry.metrics import Metrics


class Launcher(Protocol):
    """What the supervisor needs: where engines may go, what each needs, and its command line."""

    async def machine(self) -> tuple[Device, ...]:
        """The devices, and what of them is not for engines at this moment; as they were, where they
        do not answer in time. Raises EngineError when they have never answered."""

    async def fit(
        self, name: str, engine: Engine, runtime: Runtime | None, *, note: Callable[[str], None]
    ) -> Fitted:
        """See that the weights are here, pulling them where they are not, and count the need.

        `note` is told what it is about. Cancelled, it stops pulling. Raises EngineError.
        """

    async def prepare(
        self,
        name: str,
        engine: Engine,
        runtime: Runtime | None,
        *,
        scratch: str,
        socket: str,
        fitted: Fitted | None = None,
        placement: Placement | None = None,
    ) -> Launch:
        """The command line for that place. What is left out is found as for a single engine.
        Raises EngineError."""

    def configure(
        self,
        engines: Mapping[str, Engine],
        *,
        memory: Mapping[str, int] | None = None,
        store: StoreSettings | None = None,
    ) -> None:
        """All engines of the config, since they share devices and cores; the config's
        `placement.memory` and where pulled weights are. None: as before."""


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

    def gave_up(self, replica: int, error: EngineError, *, wanted: bool) -> None:
        """An instance is gone, and starting it again cannot help; others may start in its place, if
        it was `wanted`."""
