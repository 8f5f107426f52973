"""What engines are wanted against what runs: the one object that the rest of the house sees."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from server.config.engine import Engine, Runtime
from server.config.placement import Placement
from server.engines import backoff
from server.engines.crew import Crew
from server.engines.estimates import Estimates
from server.engines.feed import Feed
from server.engines.home import Claim
from server.engines.launcher import VllmLauncher
from server.engines.placer import Placer
from server.engines.record import log_of
from server.engines.rundir import RunFolder
from server.engines.shop import Launcher, Shop
from server.engines.spec import Spec
from server.engines.state import EngineState, EngineView, Instance
from server.engines.usage import Usage
from server.engines.watch import Timing
from server.engines.weights import StoreSettings, places_of
from server.errors import Draining, EngineError, EngineNotReady, Overloaded
from server.telemetry.metrics import Metrics

#: Retry-After while nothing has been learned yet, and for engines that only an operator brings
#: back.
UNKNOWN_START: Final = 30.0
NOT_COMING: Final = 60.0


class Supervisor:
    """Create it anywhere; `start` and all else belong to one event loop.

    `in_flight(name, replica)` tells how many requests an instance of an engine is answering: a stop
    waits for them. `base` is the folder of the config file, `home` keeps logs, caches and
    estimates.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        runtimes: Mapping[str, Runtime],
        *,
        home: Path,
        metrics: Metrics,
        base: Path | None = None,
        placement: Placement | None = None,
        store: StoreSettings | None = None,
        in_flight: Callable[[str, int], int] = lambda name, replica: 0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        launcher: Launcher | None = None,
        policy: backoff.Policy | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._engines, self._runtimes = dict(engines), dict(runtimes)
        self._placement, self._store = placement or Placement(), store
        self._home, self._metrics = home, metrics
        base = Path.cwd() if base is None else base
        self._launcher = launcher or VllmLauncher(home, base, dict(os.environ))
        self._in_flight, self._clock = in_flight, clock
        self._rng = rng or random.Random()
        self._policy, self._timing = policy or backoff.Policy(), timing or Timing()
        self._generations = itertools.count(1)
        self._crews: dict[str, Crew] = {}
        self._leaving: list[Crew] = []
        self._burials: set[asyncio.Task[None]] = set()
        self._feeds: set[Feed] = set()
        self._usage = Usage(self._all, metrics)
        self._placer = Placer(
            self._all, self._launcher, self._placement, usage=self._usage, clock=clock,
            timing=self._timing,
        )  # fmt: skip
        self._claim = Claim(home)
        self._shop: Shop | None = None
        self._closed = False

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin with what is wanted at startup; does not wait for it.

        Raises EngineError when there is no place for sockets.
        """
        run = RunFolder()
        if self._engines:
            run.check()
        await asyncio.to_thread(self._claim.take, make=bool(self._engines))
        estimates = await asyncio.to_thread(Estimates, self._home / "estimates.json")
        self._shop = Shop(
            launcher=self._launcher, run=run, home=self._home, metrics=self._metrics,
            estimates=estimates, in_flight=self._in_flight, publish=self._publish,
            news=self._placer.news, measure=self._placer.look_again,
            generation=lambda: next(self._generations), clock=self._clock, rng=self._rng,
            policy=self._policy, timing=self._timing,
        )  # fmt: skip
        self._configure()
        for name, engine in self._engines.items():
            self._add(name, engine)
        self._placer.start()

    def _configure(self) -> None:
        self._launcher.configure(self._engines, memory=self._placement.memory, store=self._store)

    def _add(self, name: str, engine: Engine) -> None:
        assert self._shop is not None
        for old in self._leaving:
            old.succeeded = old.succeeded or old.name == name
        spec = Spec(engine, self._runtimes.get(engine.runtime))
        self._crews[name] = Crew(name, spec, self._shop)

    def _all(self) -> Iterable[Crew]:
        """Those that leave first: their memory counts until they are gone."""
        return (*self._leaving, *self._crews.values())

    async def close(self, drain: bool = True) -> None:
        """Stop all engines, each within its `stop_timeout` (at once without `drain`).

        Called again with `drain=False` it hurries a close that is under way.
        """
        self._closed = True
        await self._placer.stop()
        for crew in self._all():
            crew.close(drain=drain)
        while tasks := {task for crew in self._all() for task in crew.tasks()} | self._burials:
            await asyncio.wait(tasks)
        await self._usage.stop()
        for feed in list(self._feeds):
            feed.end()
        self._claim.leave()
        if self._shop is not None:
            await asyncio.to_thread(self._shop.run.remove)

    async def apply(
        self,
        engines: Mapping[str, Engine],
        runtimes: Mapping[str, Runtime],
        *,
        placement: Placement | None = None,
        store: StoreSettings | None = None,
        forgive: bool = True,
    ) -> None:
        """Take over a new config; returns at once, engines drain and start in the background.

        Unchanged engines are not touched; one that failed is tried again when it is wanted, if it
        is to be forgiven or has changed.
        """
        self._engines, self._runtimes = dict(engines), dict(runtimes)
        memory, where = self._placement.memory, self._store
        self._placement = placement or self._placement
        self._store = store or self._store
        self._configure()
        if memory != self._placement.memory or places_of(where) != places_of(self._store):
            for known in self._crews.values():
                known.measure_again()
        for name in [name for name in self._crews if name not in engines]:
            self._retire(name)
        for name, engine in engines.items():
            crew = self._crews.get(name)
            if crew is None:
                self._add(name, engine)
            else:
                crew.respec(Spec(engine, runtimes.get(engine.runtime)), forgive=forgive)
        self._placer.apply(self._placement)

    def _retire(self, name: str) -> None:
        crew = self._crews.pop(name)
        self._leaving.append(crew)
        crew.close(drain=True, why="config")
        burial = asyncio.get_running_loop().create_task(self._bury(crew))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _bury(self, crew: Crew) -> None:
        while tasks := crew.tasks():
            await asyncio.wait(tasks)
        self._leaving.remove(crew)
        self._placer.news()
        if crew.name not in self._crews:
            self._metrics.forget("engine", [crew.name])

    # --- reads, for the data path -------------------------------------------------------------

    def view(self, name: str) -> EngineView | None:
        crew = self._crews.get(name)
        return None if crew is None else self._whole(crew.view)

    def views(self) -> tuple[EngineView, ...]:
        return tuple(self._whole(crew.view) for crew in self._crews.values())

    def _whole(self, view: EngineView) -> EngineView:
        """With what still drains of an engine of that name, which was removed and came back."""
        if not self._leaving:
            return view
        old = [crew.view.instances for crew in self._leaving if crew.name == view.name]
        return replace(view, instances=(*view.instances, *itertools.chain(*old)))

    def instances(self, name: str) -> tuple[Instance, ...]:
        """Those that requests can be sent to; none while the engine is not ready."""
        view = self.view(name)
        if view is None or view.state is not EngineState.READY:
            return ()
        return tuple(one for one in view.instances if one.state is EngineState.READY)

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None:
        """A request is sent to this instance now, and wishes that the engine stays for
        `keep_alive` seconds after it, which `placement` may bound; None: as its config says."""
        crew = self._crews.get(name)
        if crew is not None and (unit := crew.units.get(replica)) is not None:
            idle = not unit.in_flight
            if keep_alive is not None:
                keep_alive = self._placement.heeded(keep_alive, crew.spec.engine.idle)
            unit.used(keep_alive)
            for other in crew.units.values():  # replicas go together: the last wish is the engine's
                other.keep_alive = keep_alive
            if idle:
                crew.refresh()

    def eta(self, name: str) -> float | None:
        """Seconds until ready as of now (`EngineView.eta` is as of the view's making)."""
        crew = self._crews.get(name)
        return None if crew is None else crew.eta()

    def error(self, name: str) -> EngineError | None:
        """The last error of an engine that is not ready, with the tail of its log."""
        crew = self._crews.get(name)
        return None if crew is None else crew.error

    def log_file(self, name: str, replica: int = 0) -> Path:
        return log_of(self._home, name, replica)

    def subscribe(self) -> Feed:
        """The feed of changes; use it in a `with`."""
        feed = Feed(self.views(), self._feeds.discard)
        self._feeds.add(feed)
        if self._closed:
            feed.end()
        return feed

    def _publish(self, view: EngineView) -> None:
        if any(crew.view is view for crew in self._leaving):
            if (crew := self._crews.get(view.name)) is not None:
                view = self._whole(crew.view)
        else:
            view = self._whole(view)
        for feed in self._feeds:
            feed.put(view)

    # --- the start as a whole, for `roundhouse serve` -----------------------------------------

    def first_error(self) -> EngineError | None:
        """Why an engine that loads at the start has failed before it was ever ready, or None."""
        for crew in self._crews.values():
            config = crew.spec.engine
            if crew.failed and not crew.ever_ready and (config.load == "startup" or config.pinned):
                return crew.failed
        return None

    def starting(self) -> bool:
        """Does an engine that loads at the start have yet to be ready, or to be told that there is
        no room?"""
        return any(not crew.settled for crew in self._crews.values())

    # --- requests -----------------------------------------------------------------------------

    async def wait_ready(self, name: str, timeout: float) -> EngineView:
        """A view with state `ready`; an engine that is not has its turn when others have made room.

        Raises EngineNotReady (not ready for longer than `timeout`, failed, unloaded, unknown),
        Overloaded when `max_waiting` requests wait already, Draining at shutdown.
        """
        crew = self._crews.get(name)
        if crew is None:
            raise EngineNotReady("The model's engine is gone.", retry_after=NOT_COMING)
        if crew.view.state is EngineState.READY:
            return crew.view
        self._check(crew)
        if crew.waiting >= crew.spec.engine.max_waiting:
            self._metrics.shed.labels("engine_queue").inc()
            raise Overloaded(
                "Too many requests wait for the model to load.", retry_after=self._retry(crew)
            )
        since = crew.wait_begins()
        try:
            return await self._wait(crew, timeout)
        finally:
            crew.wait_ends(since)

    async def _wait(self, crew: Crew, timeout: float) -> EngineView:
        deadline = self._clock() + timeout
        while crew.view.state is not EngineState.READY:
            self._check(crew)
            bell = crew.bell
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await bell.wait()
            except TimeoutError:
                raise EngineNotReady(
                    "The model is loading.", code="engine_loading", retry_after=self._retry(crew)
                ) from None
        return crew.view

    def _check(self, crew: Crew) -> None:
        if self._closed:
            raise Draining("The server is shutting down.", retry_after=UNKNOWN_START)
        if self._crews.get(crew.name) is not crew:
            raise EngineNotReady("The model's engine was removed.", retry_after=NOT_COMING)
        if crew.barred:
            raise EngineNotReady(
                "The model's engine was stopped by an operator.",
                code="engine_stopped",
                retry_after=NOT_COMING,
            )
        if crew.failed is not None:
            raise EngineNotReady(
                "The model's engine has failed and waits for an operator.",
                code="engine_failed",
                retry_after=NOT_COMING,
            )

    def hopeless(self, name: str) -> EngineNotReady | None:
        """What a request is told that asks for an engine which only an operator brings back."""
        crew = self._crews.get(name)
        try:
            if crew is not None:
                self._check(crew)
        except EngineNotReady as error:
            return error
        except Draining:
            pass
        return None

    def _retry(self, crew: Crew) -> float:
        eta = crew.eta()
        return UNKNOWN_START if eta is None else max(1.0, eta)

    def want(self, name: str) -> None:
        """A request passed this engine over because it is not loaded: load it for the next ones.

        A failed or unloaded one is left alone.
        """
        if (crew := self._crews.get(name)) is not None:
            crew.ask()

    def report_failure(self, name: str, generation: int) -> None:
        """The data path met a reset or a refusal: look at this process now, not a tick later."""
        crew = self._crews.get(name)
        for unit in () if crew is None else crew.units.values():
            if unit.generation == generation:
                unit.poke()

    # --- operators ----------------------------------------------------------------------------

    async def load(self, name: str) -> EngineView:
        """Want the engine, whatever was before; does not wait. Raises KeyError."""
        crew = self._crews[name]
        self._placer.look_again()
        crew.load()
        return crew.view

    async def unload(self, name: str) -> EngineView:
        """Drain and stop the engine, until `load`. Returns when it has stopped. Raises KeyError."""
        crew = self._crews[name]
        crew.unload()
        if ending := crew.fits.tasks():
            await asyncio.wait(ending)
        while crew.barred and crew.view.state is not EngineState.STOPPED:
            if self._closed or self._crews.get(name) is not crew:
                break
            await crew.bell.wait()
        return crew.view
