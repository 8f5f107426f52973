"""One instance of an engine: its process from the start until it is gone, and what it is told."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

import structlog

from server.engines.fitting import Fitted
from server.engines.logs import LogFile
from server.engines.placement import Phase, Start
from server.engines.process import EngineProcess
from server.engines.progress import SPAWNED, advance
from server.engines.record import Record, log_of, waking
from server.engines.runtimes import Placement
from server.engines.shop import Owner, Shop
from server.engines.spec import Spec
from server.engines.stages import Stages
from server.engines.state import EngineState
from server.engines.watch import Death, first, watch
from server.errors import EngineError

T = TypeVar("T")

log = structlog.get_logger(__name__)

WAKING: Final = "waking up"
FALLING_ASLEEP: Final = "falling asleep"
#: Seconds that the disk has for the estimates.
SAVE: Final = 2.0


class Order(enum.Enum):
    DRAIN = "drain"
    SLEEP = "sleep"
    WAKE = "wake"
    STOP = "stop"


class EngineUnit(Record):
    """At most one process at a time.

    Orders take effect on `phase` and `state` at once, so that the next plan knows of them; a task,
    one for each process, carries them out.
    """

    def __init__(self, owner: Owner, replica: int, shop: Shop) -> None:
        super().__init__(owner, replica, shop)
        self.task: asyncio.Task[None] | None = None
        self._order: Order | None = None
        self._deadline = 0.0
        self._orders = asyncio.Event()
        self._poke = asyncio.Event()
        self._at = SPAWNED
        self._file = LogFile(log_of(shop.home, owner.name, replica))

    # --- orders -------------------------------------------------------------------------------

    def begin(self, start: Start, spec: Spec, fitted: Fitted) -> None:
        """Only when nothing of it is left."""
        assert self.phase is None
        self._option, self.devices, self._cores = start.option, start.devices, start.cores
        self._order, self.due, self.ready_since = None, None, None
        self._slept = self._between = False
        self.in_flight, self.keep_alive = 0, None
        self._orders.clear()
        place = Placement.on(start.devices, cores=start.cores, kv_cache=fitted.kv_cache)
        self.generation = self.shop.generation()
        self._stages = Stages(self.shop.clock)
        self._at = SPAWNED
        self._move(Phase.STARTING, EngineState.STARTING, self._stages.name)
        name = f"engine {self.owner.name} {self.replica}"
        self.task = asyncio.get_running_loop().create_task(
            self._run(spec, fitted, place), name=name
        )

    def drain(self) -> None:
        """Take no new request; then it is told to sleep or to stop."""
        self._tell(Order.DRAIN, Phase.DRAINING, EngineState.DRAINING, "draining")

    def sleep(self) -> None:
        self._tell(Order.SLEEP, Phase.SLEEPING, EngineState.DRAINING, FALLING_ASLEEP)

    def wake(self) -> None:
        self._stages = Stages(self.shop.clock, WAKING)
        self._tell(Order.WAKE, Phase.WAKING, EngineState.STARTING, WAKING)

    def stop(self, drain: float) -> None:
        """Stop, with `drain` seconds for the requests that are open; said again, the sooner end
        holds. One that waits to be started again does not."""
        deadline = self.shop.clock() + drain
        if self.phase is None:
            self.failed, self.due, self.error = False, None, None
            if self.state is not EngineState.STOPPED:
                self._show(EngineState.STOPPED, "")
        elif self._order is Order.STOP:
            self._deadline = min(self._deadline, deadline)
            self._orders.set()
        else:
            self._deadline = deadline
            open_ = self.phase in (Phase.READY, Phase.DRAINING)
            stage = "draining" if open_ and drain > 0 else "stopping"
            self._tell(Order.STOP, Phase.STOPPING, EngineState.DRAINING, stage)

    def _tell(self, order: Order, phase: Phase, state: EngineState, stage: str) -> None:
        assert self.phase is not None
        self._order = order
        self._orders.set()
        self._move(phase, state, stage)

    # --- the life of one process --------------------------------------------------------------

    async def _run(self, spec: Spec, fitted: Fitted, place: Placement) -> None:
        died: Death | None = None
        try:
            died = await self._live(spec, fitted, place)
        except Exception:  # a fault of ours must not leave an engine unwatched
            log.exception("engine_unit_failed", engine=self.owner.name)
            told = "A fault in Roundhouse; see its log."
            died = Death("start", EngineError(told, reason="crash", terminal=True))
        before = self.phase
        if died is not None and self._order is not Order.STOP:
            # Told at once, before the corpse is cleared away: nobody shall be sent here any more.
            self._move(Phase.STOPPING, EngineState.BACKOFF, "cleaning up")
        if self._process is not None:
            await asyncio.shield(self._process.kill())
            self._process = None
        self._gone(None if self._order is Order.STOP else died, before)

    def _gone(self, died: Death | None, before: Phase | None) -> None:
        """Nothing of it is left."""
        self.phase, self._order, self.pid, self.in_flight = None, None, None, 0
        if died is None:
            self.error = None
            self._show(EngineState.STOPPED, "")
            return
        owner, wanted = self.owner, before in (Phase.STARTING, Phase.READY, Phase.WAKING)
        self.shop.metrics.engine_restarts.labels(owner.name, died.reason).inc()
        due, error = self.troubles.judge(died, ever_ready=owner.ever_ready)
        self.error = error
        if due is None:
            self.failed = True
            log.error(
                "engine_failed", engine=owner.name, replica=self.replica, reason=error.reason,
                error=error.message,
            )  # fmt: skip
            self._set(EngineState.FAILED, "failed")
            owner.gave_up(self.replica, error, wanted=wanted)
        else:
            self.due = due
            self._set(EngineState.BACKOFF, f"next start in {due - self.shop.clock():.1f} s")
            owner.died(self.replica, error, wanted=wanted)
        owner.changed()

    async def _live(self, spec: Spec, fitted: Fitted, place: Placement) -> Death | None:
        """None: it was asked to stop, and has."""
        name, metrics = self.owner.name, self.shop.metrics
        try:
            process = await self._unless_told(self._bring_up(spec, fitted, place))
        except EngineError as exc:
            metrics.engine_starts.labels(name, "failed").inc()
            return Death("timeout" if exc.reason == "timeout" else "start", exc)
        if process is None:
            metrics.engine_starts.labels(name, "cancelled").inc()
            return None
        took = self._stages.end()
        seconds = self._stages.total
        metrics.engine_starts.labels(name, "ready").inc()
        metrics.engine_start_seconds.labels(name).observe(seconds)
        for stage, each in took.items():
            metrics.engine_stage_seconds.labels(name, stage).observe(each)
        log.info("engine_ready", engine=name, replica=self.replica, seconds=round(seconds, 1))
        self._ready("start")
        await self._learn(spec.fingerprint(), seconds, took)
        return await self._serve(process, spec)

    async def _serve(self, process: EngineProcess, spec: Spec) -> Death | None:
        """From ready until it dies or has stopped, asleep at times."""
        while True:
            died = await self._unless_told(
                watch(
                    process,
                    lambda: self.owner.spec.engine,
                    poke=self._poke,
                    clock=self.shop.clock,
                    timing=self.shop.timing,
                )
            )
            if died is None:
                order, self._order = self._order, None
                if order is Order.STOP:
                    self._order = order
                    await self._stop(process)
                    return None
                if order is Order.SLEEP:
                    died = await self._fall_asleep(process)
                elif order is Order.WAKE:
                    died = await self._wake_up(process, spec)
            if died is not None:
                since = self._now() if self.ready_since is None else self.ready_since
                self._ends_residency()
                return replace(died, ready_for=self._now() - since)

    async def _unless_told(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of `work`, or None once there is an order."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                if self._order is not None:
                    return None
                await first(task, self._orders)
                self._orders.clear()
            result = task.result()
            return result if self._order is None else None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _bring_up(self, spec: Spec, fitted: Fitted, place: Placement) -> EngineProcess:
        """A ready process."""
        shop, name = self.shop, self.owner.name
        scratch = shop.run.place(self.generation)
        socket = str(scratch / "s")
        launch = await shop.launcher.prepare(
            name, spec.engine, spec.runtime, scratch=str(scratch), socket=socket,
            fitted=fitted, placement=place,
        )  # fmt: skip
        shop.run.make(self.generation)
        self._process = process = EngineProcess(
            launch, socket=socket, file=self._file, on_line=self._line, clock=shop.clock,
            parent=str(scratch.parent),
        )  # fmt: skip
        self._file.append(f"--- roundhouse: start {self.generation}: {name}\n".encode())
        try:
            self.pid = await process.start()
        except BaseException:
            shop.run.clear(self.generation)
            raise
        facts = {**launch.facts, "devices": list(self.devices)}
        log.info(
            "engine_starting", engine=name, replica=self.replica, pid=self.pid,
            generation=self.generation, **facts,
        )  # fmt: skip
        self._stages.enter(SPAWNED.text)
        self._show(EngineState.STARTING, SPAWNED.text)
        await process.wait_ready(spec.engine.start_timeout)
        return process

    def _line(self, line: str) -> None:
        if self.phase is not Phase.STARTING:
            if "EngineDeadError" in line:
                self.poke()  # seconds before vLLM itself ends
            return
        stage = advance(self._at, line)
        if stage is not self._at:
            if stage.rank != self._at.rank:
                log.info("engine_stage", engine=self.owner.name, stage=stage.text)
            self._at = stage
            self._stages.enter(stage.text)
            self._set(EngineState.STARTING, stage.text)
            self.owner.publish()

    def _ready(self, how: str) -> None:
        self.ready_since = self._now()
        self.error, self.failed, self.keep_alive = None, False, None
        self.troubles.over()
        self._poke.clear()
        self._set(EngineState.READY, "ready")
        self.phase, self.changed_at = Phase.READY, self._now()
        if self.owner.waiting:
            self.expected = self._now() + self.shop.timing.look
        self.owner.became_ready(how)
        self.owner.changed()

    async def _learn(self, key: str, seconds: float, stages: dict[str, float]) -> None:
        self.shop.estimates.learn(key, seconds, stages)
        try:
            async with asyncio.timeout(SAVE):
                await asyncio.to_thread(self.shop.estimates.save)
        except TimeoutError:  # nobody watches the engine meanwhile, and it hears no order
            log.warning("estimates_not_saved", error="the disk is slow")
        except OSError as exc:
            log.warning("estimates_not_saved", error=exc.strerror)

    # --- sleep, wake, stop --------------------------------------------------------------------

    async def _fall_asleep(self, process: EngineProcess) -> Death | None:
        self._ends_residency()
        try:
            slept = await self._unless_told(_done(process.control.sleep()))
        except (EngineError, OSError) as exc:
            return Death("sleep", _failed("It did not fall asleep", exc, process))
        if slept:
            self._move(Phase.ASLEEP, EngineState.ASLEEP, "asleep")
            log.info("engine_asleep", engine=self.owner.name, replica=self.replica)
        return None

    async def _wake_up(self, process: EngineProcess, spec: Spec) -> Death | None:
        try:
            awake = await self._unless_told(_done(self._wake(process)))
        except (EngineError, OSError) as exc:
            return Death("wake", _failed("It did not wake up as it should", exc, process))
        if awake:
            seconds = self._stages.total
            log.info("engine_awake", engine=self.owner.name, seconds=round(seconds, 1))
            self._ready("wake")
            await self._learn(waking(spec.fingerprint()), seconds, {})
        return None

    async def _wake(self, process: EngineProcess) -> None:
        await process.control.wake()
        await process.control.canary(self.owner.name)

    async def _stop(self, process: EngineProcess) -> None:
        """Its open requests first, for as long as they may take."""
        timing = self.shop.timing
        self._ends_residency()
        while not self._slept and not process.exited.done() and self._now() < self._deadline:
            self.sample()
            if not self.in_flight:
                break
            await first(process.exited, self._orders, timing.drain_poll)
            self._orders.clear()
        if self.stage != "stopping":
            self._show(EngineState.DRAINING, "stopping")
        ended = await process.stop(timing.term)
        log.info("engine_stopped", engine=self.owner.name, replica=self.replica, ended=str(ended))

    def _ends_residency(self) -> None:
        if self.ready_since is not None:
            stayed = self._now() - self.ready_since
            self.shop.metrics.engine_residency.labels(self.owner.name).observe(stayed)
            self.ready_since = None

    def poke(self) -> None:
        """Look at it now, not at the next tick."""
        if self.phase in (Phase.READY, Phase.DRAINING):
            self._poke.set()


async def _done(work: Coroutine[Any, Any, None]) -> bool:
    await work
    return True


def _failed(told: str, exc: Exception, process: EngineProcess) -> EngineError:
    why = exc.message if isinstance(exc, EngineError) else type(exc).__name__
    return EngineError(f"{told}: {why}", reason="crash", log_tail=process.tail())
