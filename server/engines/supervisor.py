"""What engines are wanted against what runs: the one object that the rest of the house sees."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from server.config.engine import Engine, Runtime
from server.engines import backoff, rundir
from server.engines.estimates import Estimates
from server.engines.feed import Feed
from server.engines.launcher import Launcher, VllmLauncher
from server.engines.state import EngineState, EngineView, Instance
from server.engines.unit import EngineUnit, Shop, Spec
from server.engines.watch import Timing
from server.errors import Draining, EngineError, EngineNotReady, Overloaded
from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Retry-After while nothing has been learned yet, and for engines that only an operator brings
#: back.
UNKNOWN_START = 30.0
NOT_COMING = 60.0


class Supervisor:
    """Create it anywhere; `start` and all else belong to one event loop.

    `in_flight(name, replica)` tells how many requests an instance of an engine is answering: a stop
    waits for them.
    `base` is the folder of the config file, `home` keeps logs, caches and estimates.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        runtimes: Mapping[str, Runtime],
        *,
        home: Path,
        metrics: Metrics,
        base: Path | None = None,
        in_flight: Callable[[str, int], int] = lambda name, replica: 0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        launcher: Launcher | None = None,
        policy: backoff.Policy | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._engines, self._runtimes = dict(engines), dict(runtimes)
        self._home, self._metrics = home, metrics
        base = Path.cwd() if base is None else base
        self._launcher = launcher or VllmLauncher(home, base, dict(os.environ))
        self._in_flight, self._clock = in_flight, clock
        self._rng = rng or random.Random()
        self._policy, self._timing = policy or backoff.Policy(), timing or Timing()
        self._generations = itertools.count(1)
        self._units: dict[str, EngineUnit] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[asyncio.Task[None], EngineUnit] = {}
        self._feeds: set[Feed] = set()
        self._shop: Shop | None = None
        self._closed = False

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the run directory and start what is wanted at startup; does not wait for it.

        Raises EngineError when there is no place for sockets.
        """
        run = rundir.create()
        estimates = await asyncio.to_thread(Estimates, self._home / "estimates.json")
        self._shop = Shop(
            launcher=self._launcher, run=run, home=self._home, metrics=self._metrics,
            estimates=estimates, in_flight=self._in_flight, publish=self._publish,
            generation=lambda: next(self._generations), clock=self._clock, rng=self._rng,
            policy=self._policy, timing=self._timing,
        )  # fmt: skip
        self._launcher.configure(self._engines)
        for name, engine in self._engines.items():
            self._add(name, engine)

    def _add(self, name: str, engine: Engine) -> None:
        assert self._shop is not None
        spec = Spec(engine, self._runtimes.get(engine.runtime))
        unit = EngineUnit(name, spec, self._shop, wanted=engine.load == "startup")
        before = [task for task, left in self._leaving.items() if left.name == name]

        async def run() -> None:
            if before:  # an engine of that name is still leaving, with memory of its own
                await asyncio.wait(before)
            await unit.run()

        self._units[name] = unit
        self._tasks[name] = asyncio.get_running_loop().create_task(run(), name=f"engine {name}")

    async def close(self, drain: bool = True) -> None:
        """Stop all engines, each within its `stop_timeout` (at once without `drain`).

        Called again with `drain=False` it hurries a close that is under way.
        """
        self._closed = True
        for unit in (*self._units.values(), *self._leaving.values()):
            unit.close(drain=drain)
        if tasks := [*self._tasks.values(), *self._leaving]:
            await asyncio.wait(tasks)
        for feed in list(self._feeds):
            feed.end()
        if self._shop is not None:
            await asyncio.to_thread(rundir.remove, self._shop.run)

    async def apply(self, engines: Mapping[str, Engine], runtimes: Mapping[str, Runtime]) -> None:
        """Take over a new config; returns at once, engines drain and start in the background.

        Unchanged engines are not touched; one that failed and is wanted is tried again.
        """
        self._engines, self._runtimes = dict(engines), dict(runtimes)
        self._launcher.configure(self._engines)
        for name in [name for name in self._units if name not in engines]:
            self._retire(name)
        for name, engine in engines.items():
            unit = self._units.get(name)
            if unit is None:
                self._add(name, engine)
                continue
            if engine.load == "startup" and unit.spec.engine.load != "startup" and not unit.barred:
                unit.wanted = True
            unit.respec(Spec(engine, runtimes.get(engine.runtime)))

    def _retire(self, name: str) -> None:
        unit, task = self._units.pop(name), self._tasks.pop(name)
        self._leaving[task] = unit
        unit.close(drain=True)

        def left(done: asyncio.Task[None]) -> None:
            self._leaving.pop(done, None)
            if name not in self._units:
                self._metrics.forget("engine", [name])

        task.add_done_callback(left)

    # --- reads, for the data path -------------------------------------------------------------

    def view(self, name: str) -> EngineView | None:
        unit = self._units.get(name)
        return None if unit is None else unit.view

    def views(self) -> tuple[EngineView, ...]:
        return tuple(unit.view for unit in self._units.values())

    def instances(self, name: str) -> tuple[Instance, ...]:
        """Those that requests can be sent to; none while the engine is not ready."""
        unit = self._units.get(name)
        return () if unit is None else unit.view.instances

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None:
        """A request is sent to this instance now, and wishes that the engine stays for
        `keep_alive` seconds after it; None: as long as its config says."""
        if (unit := self._units.get(name)) is not None:
            unit.used(keep_alive)

    def eta(self, name: str) -> float | None:
        """Seconds until ready as of now (`EngineView.eta` is as of the view's making)."""
        unit = self._units.get(name)
        return None if unit is None else unit.eta()

    def error(self, name: str) -> EngineError | None:
        """The last error of an engine that is not ready, with the tail of its log."""
        unit = self._units.get(name)
        return None if unit is None else unit.error

    def log_file(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    def subscribe(self) -> Feed:
        """The feed of changes; use it in a `with`."""
        feed = Feed(self.views(), self._feeds.discard)
        self._feeds.add(feed)
        if self._closed:
            feed.end()
        return feed

    def _publish(self, view: EngineView) -> None:
        for feed in self._feeds:
            feed.put(view)

    # --- the start as a whole, for `roundhouse serve` -----------------------------------------

    def first_error(self) -> EngineError | None:
        """Why an engine with `load: startup` has failed before it was ever ready, or None."""
        for unit in self._units.values():
            failed = unit.view.state is EngineState.FAILED and not unit.ever_ready
            if failed and unit.spec.engine.load == "startup":
                return unit.error
        return None

    async def wait_started(self) -> EngineError | None:
        """Until all engines with `load: startup` have been ready once, or one of them has failed.

        Returns that failure, or None.
        """
        while True:
            if (error := self.first_error()) is not None:
                return error
            pending = [
                unit
                for unit in self._units.values()
                if unit.spec.engine.load == "startup" and unit.wanted and not unit.ever_ready
            ]
            if not pending or self._closed:
                return None
            bells = [asyncio.ensure_future(unit.bell.wait()) for unit in pending]
            try:
                await asyncio.wait(bells, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for bell in bells:
                    bell.cancel()

    # --- requests -----------------------------------------------------------------------------

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        """A view with state `ready`; starts an engine that waits for its first request.

        Raises EngineNotReady (loading for longer than `timeout`, failed, unloaded, unknown),
        Overloaded when `max_waiting` requests wait already, Draining at shutdown.
        """
        unit = self._units.get(name)
        if unit is None:
            raise EngineNotReady("The model's engine is gone.", retry_after=NOT_COMING)
        if unit.view.state is EngineState.READY:
            return unit.view
        self._check(unit)
        if unit.waiting >= unit.spec.engine.max_waiting:
            self._metrics.shed.labels("engine_queue").inc()
            raise Overloaded(
                "Too many requests wait for the model to load.", retry_after=self._retry(unit)
            )
        if not unit.wanted:
            unit.load()
        unit.count_waiting(1)
        try:
            return await self._wait(unit, timeout)
        finally:
            unit.count_waiting(-1)

    async def _wait(self, unit: EngineUnit, timeout: float) -> EngineView:
        deadline = self._clock() + timeout
        while unit.view.state is not EngineState.READY:
            self._check(unit)
            bell = unit.bell
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await bell.wait()
            except TimeoutError:
                raise EngineNotReady(
                    "The model is loading.", code="engine_loading", retry_after=self._retry(unit)
                ) from None
        return unit.view

    def _check(self, unit: EngineUnit) -> None:
        if self._closed:
            raise Draining("The server is shutting down.", retry_after=UNKNOWN_START)
        if self._units.get(unit.name) is not unit:
            raise EngineNotReady("The model's engine was removed.", retry_after=NOT_COMING)
        if unit.barred:
            raise EngineNotReady(
                "The model's engine was stopped by an operator.",
                code="engine_stopped",
                retry_after=NOT_COMING,
            )
        if unit.view.state is EngineState.FAILED:
            raise EngineNotReady(
                "The model's engine has failed and waits for an operator.",
                code="engine_failed",
                retry_after=NOT_COMING,
            )

    def hopeless(self, name: str) -> EngineNotReady | None:
        """What a request is told that asks for an engine which only an operator brings back."""
        unit = self._units.get(name)
        try:
            if unit is not None:
                self._check(unit)
        except EngineNotReady as error:
            return error
        except Draining:
            pass
        return None

    def _retry(self, unit: EngineUnit) -> float:
        eta = unit.eta()
        return UNKNOWN_START if eta is None else max(1.0, eta)

    def want(self, name: str) -> None:
        """A request passed this engine over because it is not loaded: load it for the next ones.

        Only an engine that waits for its first request; a failed or unloaded one is left alone.
        """
        unit = self._units.get(name)
        if unit is not None and not unit.barred and unit.view.state is EngineState.STOPPED:
            unit.load()

    def report_failure(self, name: str, generation: int) -> None:
        """The data path met a reset or a refusal: look at this engine now, not at the next tick."""
        if (unit := self._units.get(name)) is not None:
            unit.poke(generation)

    # --- operators ----------------------------------------------------------------------------

    async def load(self, name: str) -> EngineView:
        """Want the engine, whatever was before; does not wait. Raises KeyError."""
        unit = self._units[name]
        unit.load()
        return unit.view

    async def unload(self, name: str) -> EngineView:
        """Drain and stop the engine, until `load`. Returns when it has stopped. Raises KeyError."""
        unit = self._units[name]
        unit.unload()
        while unit.barred and unit.view.state is not EngineState.STOPPED:
            if self._closed or self._units.get(name) is not unit:
                break
            await unit.bell.wait()
        return unit.view
