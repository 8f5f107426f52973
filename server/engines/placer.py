"""The loop that asks the planner what to do, and does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from server.config.placement import Placement
from server.engines import world
from server.engines.crew import Crew
from server.engines.placement import (
    Action,
    Device,
    Drain,
    Evict,
    Phase,
    Policy,
    Refuse,
    Running,
    Sleep,
    Start,
    Wait,
    Wake,
    Wish,
    World,
)
from server.engines.planner import plan
from server.engines.shop import Launcher
from server.engines.unit import EngineUnit
from server.engines.usage import Usage
from server.engines.watch import Timing
from server.errors import EngineError

log = structlog.get_logger(__name__)

#: Seconds until the next try, when a plan could not be made.
AFTER_FAULT: Final = 1.0


class Placer:
    """Asks anew at each event (`news`), when the last plan said so, and when requests have ended.

    `crews` tells all engines, those that are leaving first; of two with one name the last is the
    config's.
    """

    def __init__(
        self,
        crews: Callable[[], Iterable[Crew]],
        launcher: Launcher,
        config: Placement,
        *,
        usage: Usage,
        clock: Callable[[], float],
        timing: Timing,
    ) -> None:
        self._crews, self._launcher, self._config = crews, launcher, config
        self._usage, self._clock, self._timing = usage, clock, timing
        self._news = asyncio.Event()
        self._devices: tuple[Device, ...] = ()
        self._measured = False
        self._policy = Policy()
        self._gather = clock() + timing.gather
        self._task: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="placer")

    async def stop(self) -> None:
        """Nothing begins any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def news(self) -> None:
        self._news.set()

    def apply(self, config: Placement) -> None:
        """The config has changed."""
        self._config = config
        self._gather = self._clock() + self._timing.gather
        self.look_again()

    def look_again(self) -> None:
        """What other programs use of the machine may have changed."""
        self._measured = False
        self.news()

    async def _run(self) -> None:
        while True:
            self._news.clear()
            again: float | None = None
            try:
                if not any(True for _ in self._crews()):
                    await self._until(None)  # nothing to place, so nothing to look at
                    continue
                again = self._clock() + AFTER_FAULT
                while not self._measured:
                    self._measured = True  # unless somebody says otherwise meanwhile
                    self._devices = await self._launcher.machine()
                self._policy = world.policy_of(self._config, self._devices)
                again = self._round()
            except EngineError as error:
                log.error("engines_not_placed", error=error.message)
                self._measured = False
                await asyncio.sleep(AFTER_FAULT)
            except Exception:  # a fault of ours must not leave all engines to themselves
                log.exception("placer_failed")
                self._measured = bool(self._devices)
                await asyncio.sleep(AFTER_FAULT)
            await self._until(again)

    async def _until(self, again: float | None) -> None:
        """Until there is news, or it is time, or requests have ended."""
        while not self._news.is_set():
            left = None if again is None else again - self._clock()
            if left is not None and left <= 0:
                return
            look = self._look()
            timeout = min((each for each in (left, look) if each is not None), default=None)
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                if look is not None and self._sample():
                    return

    # --- requests in flight -------------------------------------------------------------------

    def _look(self) -> float | None:
        """How soon to look at requests in flight; None: none are known."""
        busy = [unit for unit in self._units() if unit.in_flight and unit.phase in _OPEN]
        if not busy:
            return None
        hurry = any(
            unit.phase is Phase.DRAINING
            or (unit.keep_alive is not None and unit.keep_alive < self._timing.look)
            for unit in busy
        )
        if hurry or any(crew.wish is not None for crew in self._crews()):
            return self._timing.drain_poll
        return self._timing.look

    def _sample(self) -> bool:
        """Have the requests of an instance ended?"""
        ended = False
        for crew in self._crews():
            units = list(crew.units.values())
            before = [unit.in_flight > 0 for unit in units]
            ends = [unit.sample() for unit in units]
            if before != [unit.in_flight > 0 for unit in units]:
                crew.refresh()
            ended = ended or any(ends)
        return ended

    def _units(self) -> Iterable[EngineUnit]:
        return (unit for crew in self._crews() for unit in crew.units.values())

    # --- one plan -----------------------------------------------------------------------------

    def _round(self) -> float | None:
        """Plan, and begin all of it; when to ask again."""
        now, crews = self._clock(), list(self._crews())
        for crew in crews:
            if crew.to_be_fitted:
                crew.fits.look(crew.spec, ever_ready=crew.ever_ready)
        self._sample()
        gathering = now < self._gather and any(crew.eager and crew.fits.looking for crew in crews)
        engines = {crew.name: crew.engine(eager=not gathering) for crew in crews}
        seen = World(
            self._devices,
            engines,
            tuple(one for crew in crews for one in crew.running()),
            tuple(
                # Nobody passes it over while its weights are pulled; and one that dies again and
                # again keeps no memory from those who came before its next start.
                Wish(crew.name, max(since, crew.fits.found_at, engines[crew.name].not_before))
                for crew in crews
                if (since := crew.wish) is not None and crew.fits.found is not None
            ),
            self._policy,
        )
        made = plan(seen, now)
        for action in made.actions:
            self._do(action)
        self._usage.plan(self._devices, [*self._running()], self._policy.host)
        times = [made.again, self._gather if gathering else None]
        times += [crew.fits.due for crew in crews if crew.to_be_fitted]
        return min((time for time in times if time is not None and time > now), default=None)

    def _running(self) -> Iterable[Running]:
        return (one for crew in self._crews() for one in crew.running())

    def _do(self, action: Action) -> None:
        crew = self._crew(action.engine)
        if isinstance(action, Wait):
            crew.waits(action.why, action.until)
        elif isinstance(action, Refuse):
            crew.refuse(action.why)
        elif isinstance(action, Start):
            log.info("engine_placed", engine=action.engine, replica=action.replica,
                     devices=list(action.devices))  # fmt: skip
            crew.start(action)
        else:
            self._tell(action)

    def _tell(self, action: Wake | Sleep | Drain | Evict) -> None:
        unit = self._unit(action.engine, action.replica)
        if isinstance(action, Wake):
            log.info("engine_wakes", engine=action.engine, replica=action.replica)
            unit.wake()
            return
        done = type(action).__name__.lower()
        log.info("engine_makes_room" if action.by else "engine_goes", engine=action.engine,
                 replica=action.replica, how=done, why=action.why)  # fmt: skip
        if action.by is not None:
            self._crew(action.by).displaced = True
        if isinstance(action, Drain):
            unit.drain()
            return
        self._usage.evicted(action.engine, action.cause)
        if isinstance(action, Sleep):
            unit.sleep()
        else:
            unit.stop(0.0)

    def _crew(self, name: str) -> Crew:
        return [crew for crew in self._crews() if crew.name == name][-1]

    def _unit(self, name: str, replica: int) -> EngineUnit:
        """Of the instances of that name the one that is there."""
        return next(
            unit
            for crew in self._crews()
            if crew.name == name
            for number, unit in crew.units.items()
            if number == replica and unit.phase is not None
        )


_OPEN: Final = (Phase.READY, Phase.DRAINING)
