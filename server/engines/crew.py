"""One engine: who wishes for it, what it needs, and its instances."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from server.engines import placement, summary, world
from server.engines.fits import Fits
from server.engines.placement import Phase, Start
from server.engines.record import waking
from server.engines.shop import Shop
from server.engines.spec import Spec
from server.engines.stages import CHECKING
from server.engines.state import EngineState, EngineView
from server.engines.unit import EngineUnit
from server.errors import EngineError
from server.telemetry import rare

log = structlog.get_logger(__name__)

NO_ROOM: Final = "no room at the start; loads with its first request"


class Crew:
    """The instances of one engine together. It starts none by itself: it has wishes, and what is
    made of them is the planner's business."""

    def __init__(self, name: str, spec: Spec, shop: Shop) -> None:
        self.name, self.spec, self.shop = name, spec, shop
        self._key = spec.fingerprint()
        self.units: dict[int, EngineUnit] = {}
        self.ever_ready = False
        self.barred = False  # an operator unloaded it: requests do not bring it back
        self.closing = False
        #: Another one has its name, and is what is counted under it from now on.
        self.succeeded = False
        self.failed: EngineError | None = None
        #: It is to be loaded where there is room, until it was ready once or there was none.
        self.eager = spec.engine.load == "startup"
        #: Others had to go for the load that is under way.
        self.displaced = False
        #: Bytes that were last seen to be taken.
        self.used: int | None = None
        self.bell: asyncio.Event = asyncio.Event()  # replaced at each change of state
        self.fits = Fits(name, shop, self.changed, self._fail)
        #: What it needs is to be looked for anew, once nothing of it runs.
        self._outdated = False
        self._asked: float | None = None
        self._waiting: list[float] = []
        self._stage, self._note = "", ""
        self._until: float | None = None
        self.view = EngineView(name, EngineState.STOPPED, since=shop.clock())
        rare.managed_engine(shop.metrics, name)
        self._count_state()
        self.changed()

    # --- what is wanted -----------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return any(unit.state is EngineState.READY for unit in self.units.values())

    @property
    def kept_out(self) -> bool:
        """Nothing starts it."""
        return self.barred or self.closing or self.failed is not None

    @property
    def wish(self) -> float | None:
        """Since when somebody waits for it; None while it is ready, or where nobody does."""
        if self.kept_out or self.ready:
            return None
        times = self._waiting if self._asked is None else [*self._waiting, self._asked]
        return min(times, default=None)

    @property
    def wanted(self) -> bool:
        """Is it to be loaded, as soon as may be?"""
        if self.kept_out:
            return False
        return self.wish is not None or self.eager or (self.spec.engine.pinned and not self.ready)

    @property
    def to_be_fitted(self) -> bool:
        """Of one that is ready, too, what was found may hold no longer."""
        return self.fits.found is None and (self.wanted or (self.ready and not self.kept_out))

    @property
    def settled(self) -> bool:
        """Has it been ready once, or is it not to be loaded before somebody asks for it?"""
        return self.ever_ready or self.kept_out or not (self.eager or self.spec.engine.pinned)

    def ask(self) -> None:
        """Somebody wants it, until it was ready once."""
        if not self.ready and not self.kept_out and self._asked is None:
            self._asked = self.shop.clock()
            self.changed()

    def wait_begins(self) -> float:
        """A request waits for it; hand the answer to `wait_ends`."""
        since = self.shop.clock()
        before = self.wish
        self._waiting.append(since)
        self._count(before)
        return since

    def wait_ends(self, since: float) -> None:
        before = self.wish
        self._waiting.remove(since)
        self._count(before)

    def _count(self, before: float | None) -> None:
        if not self.succeeded:
            self.shop.metrics.engine_waiting.labels(self.name).set(self.waiting)
        self.view = replace(self.view, waiting=self.waiting, eta=self.eta())
        if self.wish != before:  # one more in a line is no news
            self.changed()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # --- operators and the config -------------------------------------------------------------

    def load(self) -> None:
        """Want it; a failed one is tried anew, one that waits for its next start at once."""
        self.barred = False
        self._forgive()
        self.ask()
        self.changed()

    def unload(self) -> None:
        self.barred, self.eager, self._asked, self.failed = True, False, None, None
        self.fits.due, self.fits.error, self._note = None, None, ""
        self._stop_all(self.spec.engine.stop_timeout, "operator")

    def close(self, *, drain: bool, why: str | None = None) -> None:
        """For good. `why`: what it counts as, where the server goes on without it."""
        self.closing, self.eager, self._asked, self.failed = True, False, None, None
        self._stop_all(self.spec.engine.stop_timeout if drain else 0.0, why)

    def respec(self, spec: Spec, *, forgive: bool = True) -> None:
        """The config has an entry for it, another one perhaps. `forgive`: if it failed, it may be
        tried again though its entry is the same."""
        before, self.spec, self._key = self.spec, spec, spec.fingerprint()
        startup = spec.engine.load == "startup"
        if self.failed is not None and (forgive or spec != before):
            self._forgive()
            self.eager = startup
        if spec.hard() != before.hard():
            moving = (EngineState.READY, EngineState.STARTING)
            again = any(unit.state in moving for unit in self.units.values())
            self._stop_all(spec.engine.stop_timeout, "config", forget=True)
            if again and not self.eager:
                self.ask_again()
            self.eager = (self.eager or (startup and not again)) and not self.barred
        elif startup and before.engine.load != "startup":
            self.eager = not self.barred and not self.ready
        for number, unit in self.units.items():
            if number >= spec.engine.replicas:  # one that died starts no more
                self._evicted(unit, "config")
                unit.stop(spec.engine.stop_timeout)
        self.changed()

    def measure_again(self) -> None:
        """The machine, or where weights are, is not what it was. What runs has its place, until it
        is gone."""
        self._outdated = True
        self.changed()

    def ask_again(self) -> None:
        """It was ready, or on its way, and is to be so again."""
        if not self.kept_out and self._asked is None:
            self._asked = self.shop.clock()

    def _forgive(self) -> None:
        """What failed may be tried again, at once."""
        self.failed, self.fits.due, self.fits.error = None, None, None
        for unit in self.units.values():
            if unit.phase is None:
                unit.stop(0.0)

    def _stop_all(self, drain: float, why: str | None, *, forget: bool = False) -> None:
        if forget:
            self.fits.forget()
        else:
            self.fits.stop()
        for unit in self.units.values():
            self._evicted(unit, why)
            unit.stop(drain)
        self.changed()

    def _evicted(self, unit: EngineUnit, why: str | None) -> None:
        if why and unit.phase in (Phase.READY, Phase.DRAINING, Phase.ASLEEP):
            self.shop.metrics.engine_evictions.labels(self.name, why).inc()

    # --- for the planner ----------------------------------------------------------------------

    def engine(self, *, eager: bool = True) -> placement.Engine:
        used = {number for number, unit in self.units.items() if unit.phase is not None}
        failed = {number for number, unit in self.units.items() if unit.failed}
        every = set(range(self.spec.engine.replicas))
        found = world.engine_of(
            self.name, self.spec.engine, self.fits.found, there=bool(used), kept_out=self.kept_out,
            eager=eager and self.eager, failed=failed if every - failed else (),
        )  # fmt: skip
        number = found.vacant(used)
        unit = None if number is None else self.units.get(number)
        due = None if unit is None else unit.due
        return found if due is None else replace(found, not_before=due)

    def running(self) -> list[placement.Running]:
        return [one for unit in self.units.values() if (one := unit.running()) is not None]

    def start(self, start: Start) -> None:
        """An instance begins; it is to come to its end though those who asked go away."""
        assert self.fits.found is not None
        if (since := self.wish) is not None:
            self._asked = since
        unit = self.units.get(start.replica)
        if unit is None:
            unit = self.units[start.replica] = EngineUnit(self, start.replica, self.shop)
            self.units = dict(sorted(self.units.items()))
        self._note = self._stage = ""
        unit.begin(start, self.spec, self.fits.found)

    def waits(self, why: str, until: float | None) -> None:
        """It is its turn later."""
        if why == placement.NO_ROOM:
            log.info("engine_without_room", engine=self.name, stage=NO_ROOM)
            self.eager, self._note = False, NO_ROOM
        self._stage, self._until = why, until
        self.publish()

    def refuse(self, why: str) -> None:
        """It can never be loaded as things are."""
        self.fits.forget()  # what the machine has is part of it, and may be more the next time
        told = f"Engine {self.name!r}: {why}"
        log.error("engine_failed", engine=self.name, reason="memory", error=told)
        self._fail(EngineError(told, reason="memory", terminal=True))

    # --- from its instances -------------------------------------------------------------------

    def became_ready(self, how: str) -> None:
        """An instance can be sent requests."""
        metrics, now = self.shop.metrics, self.shop.clock()
        metrics.engine_loads.labels(self.name, how).inc()
        times = self._waiting if self._asked is None else [*self._waiting, self._asked]
        if times:
            metrics.engine_wait.labels(self.name).observe(now - min(times))
        if self.displaced:
            metrics.engine_swaps.labels(self.name).inc()
        self._asked, self.eager, self.displaced, self.ever_ready = None, False, False, True

    def died(self, replica: int, error: EngineError, *, wanted: bool) -> None:
        self._learn(error)
        self._go_on(wanted)

    def _go_on(self, wanted: bool) -> None:
        if wanted and not self.ready and not self.eager:
            self.ask_again()

    def gave_up(self, replica: int, error: EngineError, *, wanted: bool) -> None:
        """The failure of the last one is the engine's; until then it is that instance's alone: the
        others run, or start again after their pause."""
        self._learn(error)
        if all(unit.phase is None and unit.due is None for unit in self.units.values()):
            self._fail(error)
        else:
            self._go_on(wanted)

    def _learn(self, error: EngineError) -> None:
        """What ran out was counted wrong, or others have it."""
        if error.reason == "memory":
            self.fits.forget()
            self.shop.measure()

    def _fail(self, error: EngineError) -> None:
        self.failed, self._asked, self.eager, self.displaced = error, None, False, False
        self.changed()

    # --- what others see ----------------------------------------------------------------------

    def changed(self) -> None:
        """Something did: it is told, and a new plan is due."""
        if self._outdated and all(unit.phase is None for unit in self.units.values()):
            self._outdated = False
            self.fits.forget()
        self.publish()
        self.shop.news()

    def refresh(self) -> None:
        """When it was used is known anew; nobody is told of that alone."""
        fresh = summary.view_of(
            self._facts(), list(self.units.values()), self.view, self.shop.clock()
        )
        self.view = replace(self.view, last_used=fresh.last_used, unload_at=fresh.unload_at)

    def publish(self) -> None:
        before = self.view
        view = summary.view_of(self._facts(), list(self.units.values()), before, self.shop.clock())
        self.view = view
        self.view = replace(view, eta=self.eta())
        if replace(before, eta=None) == view:
            return
        self._count_state()
        self.shop.publish(self.view)
        bell, self.bell = self.bell, asyncio.Event()
        bell.set()

    def _count_state(self) -> None:
        if self.succeeded:
            return
        for one in EngineState:
            self.shop.metrics.engine_state.labels(self.name, one).set(one is self.view.state)

    def _facts(self) -> summary.Facts:
        config, fits = self.spec.engine, self.fits
        looks = fits.found is None
        return summary.Facts(
            self.name, self.wanted, (fits.stage or CHECKING) if looks else self._stage, self._note,
            self.waiting, self._restarts(), self.failed, fits.error, fits.due, self.used,
            config.idle, config.pinned,
        )  # fmt: skip

    def _restarts(self) -> int:
        return self.fits.troubles.count + sum(unit.troubles.count for unit in self.units.values())

    @property
    def error(self) -> EngineError | None:
        """The last error of an engine that is not ready."""
        return summary.worst(self._facts(), list(self.units.values()))

    def eta(self) -> float | None:
        """Seconds until ready by what was learned, None when nothing was, or it is not coming."""
        state, key = self.view.state, self._key
        if state is EngineState.READY:
            return 0.0
        units = self.units.values()
        if state is EngineState.STARTING:
            found = [unit.eta(key) for unit in units if unit.state is EngineState.STARTING]
            return min((each for each in found if each is not None), default=None)
        if not self.wanted:
            return None
        sleeps = any(unit.phase is Phase.ASLEEP for unit in units)
        usual = self.shop.estimates.of(waking(key) if sleeps else key)
        if usual is None:
            return None
        ends = [self._until if state is EngineState.WAITING else None, self.fits.due]
        if state is EngineState.BACKOFF:
            ends += [unit.due for unit in units]
        now = self.shop.clock()
        return max((end - now for end in ends if end is not None and end > now), default=0) + usual

    def tasks(self) -> set[asyncio.Task[None]]:
        """All that is under way for it."""
        found = {unit.task for unit in self.units.values() if unit.task is not None}
        return {task for task in found if not task.done()} | self.fits.tasks()
