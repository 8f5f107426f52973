"""One engine's life: wanted or not, started, watched, restarted, drained."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from server.config.engine import EXTERNAL_KEYS, Engine, Runtime
from server.engines import backoff, rundir
from server.engines.estimates import Estimates, fingerprint
from server.engines.launcher import Launcher, named
from server.engines.logs import LogFile
from server.engines.process import EngineProcess
from server.engines.progress import SPAWNED, Stage, advance
from server.engines.state import EngineState, EngineView, Instance
from server.engines.watch import Death, Timing, first, watch
from server.errors import EngineError
from server.telemetry.metrics import Metrics

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: Config that takes effect without a new process.
SOFT = {
    "load", "max_waiting", "start_timeout", "stop_timeout", "health_interval", "health_misses",
    "timeouts", "wait", "max_in_flight", *EXTERNAL_KEYS,
}  # fmt: skip


#: Reasons that are only given when the cause is known.
EXPLAINED = {"weights", "memory", "arguments", "environment", "disk"}


@dataclass(frozen=True, slots=True)
class Shop:
    """What all units share."""

    launcher: Launcher
    run: Path
    home: Path
    metrics: Metrics
    estimates: Estimates
    in_flight: Callable[[str, int], int]
    publish: Callable[[EngineView], None]
    generation: Callable[[], int]
    clock: Callable[[], float]
    rng: random.Random
    policy: backoff.Policy
    timing: Timing


@dataclass(frozen=True, slots=True)
class Spec:
    engine: Engine
    runtime: Runtime | None

    def hard(self) -> tuple[object, ...]:
        """What a running process cannot take over: a change of it needs a restart."""
        return self.engine.model_dump(exclude=SOFT), self.runtime

    def fingerprint(self) -> str:
        return fingerprint(
            engine=self.engine.model_dump(mode="json", exclude=SOFT),
            runtime=None if self.runtime is None else self.runtime.model_dump(mode="json"),
        )


class EngineUnit:
    def __init__(self, name: str, spec: Spec, shop: Shop, *, wanted: bool) -> None:
        self.name, self.spec, self.shop = name, spec, shop
        self.wanted = wanted
        self.barred = False  # an operator unloaded it: requests do not bring it back
        self.error: EngineError | None = None
        self.waiting = 0
        self.ever_ready = False
        self.view = EngineView(name, EngineState.STOPPED, since=shop.clock())
        self.bell: asyncio.Event = asyncio.Event()  # replaced at each change of state
        self._closing = False
        self._hurry = False
        self._again = False
        self._changed = asyncio.Event()
        self._poke = asyncio.Event()
        self._history = backoff.History()
        self._process: EngineProcess | None = None
        self._stage = SPAWNED
        self._due: float | None = None
        self._file = LogFile(shop.home / "logs" / f"{name}.log")

    # --- what is wanted -----------------------------------------------------------------------

    def load(self) -> None:
        """Want it; a failed one is tried anew, a waiting one at once."""
        self.wanted, self.barred = True, False
        self._again = self.view.state is EngineState.BACKOFF
        if self.view.state is EngineState.FAILED:
            self._publish(EngineState.STOPPED)
        self._changed.set()

    def unload(self) -> None:
        self.wanted, self.barred = False, True
        self._changed.set()

    def respec(self, spec: Spec) -> None:
        self.spec = spec
        if self.view.state is EngineState.FAILED and self.wanted:
            self.load()
        self._changed.set()

    def close(self, *, drain: bool) -> None:
        self.wanted, self._closing, self._hurry = False, True, self._hurry or not drain
        self._changed.set()

    def poke(self, generation: int) -> None:
        if self.view.generation == generation and self.view.state is EngineState.READY:
            self._poke.set()

    def used(self, keep_alive: float | None) -> None:
        self.view = replace(self.view, last_used=self.shop.clock())

    def eta(self) -> float | None:
        """Seconds until ready by what was learned, None when nothing was, or it is not coming."""
        if self.view.state is EngineState.READY:
            return 0.0
        if self.view.state is EngineState.FAILED or not self.wanted:
            return None
        usual = self.shop.estimates.of(self.spec.fingerprint())
        if usual is None:
            return None
        passed = self.shop.clock() - self.view.since
        if self.view.state is EngineState.STARTING:
            return max(usual - passed, usual / 10, 1.0)
        wait = max(0.0, self._due - self.shop.clock()) if self._due is not None else 0.0
        return wait + usual

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        while not self._closing:
            try:
                if self.wanted and self.view.state is not EngineState.FAILED:
                    await self._life(self.spec)
                    continue
                # Here it is unwanted, or has failed; an unwanted failure is history.
                if not self.wanted and self.view.state is not EngineState.STOPPED:
                    self._publish(EngineState.STOPPED)
                await self._changed.wait()
                self._changed.clear()
            except Exception:  # a fault of ours must not leave an engine unwatched
                log.exception("engine_unit_failed", engine=self.name)
                error = EngineError("A fault in Roundhouse; see its log.", reason="crash")
                self._fail(named(self.name, error))
        self._publish(EngineState.STOPPED)

    async def _life(self, spec: Spec) -> None:
        """From start to end of one process."""
        self._again = False
        self._due = None
        try:
            died = await self._live(spec)
        finally:
            process, self._process = self._process, None
            if process is not None:
                await asyncio.shield(process.kill())
        if died is not None:
            await self._after(died, spec)

    async def _live(self, spec: Spec) -> Death | None:
        """None: it was asked to stop, and has."""
        shop, begun = self.shop, self.shop.clock()
        generation = shop.generation()
        self._stage = SPAWNED
        self._publish(EngineState.STARTING, generation=generation, stage="checking", pid=None)
        starts = shop.metrics.engine_starts
        try:
            socket = await self._unless_stopped(self._bring_up(spec, generation), spec)
        except EngineError as exc:
            starts.labels(self.name, "failed").inc()
            return Death("timeout" if exc.reason == "timeout" else "start", exc)
        if socket is None:
            starts.labels(self.name, "cancelled").inc()
            return None
        ready = shop.clock()
        starts.labels(self.name, "ready").inc()
        shop.metrics.engine_start_seconds.labels(self.name).observe(ready - begun)
        await self._learn(spec, ready - begun)
        self.ever_ready, self.error = True, None
        self._poke.clear()
        self._publish(EngineState.READY, socket=socket, stage="ready")
        log.info("engine_ready", engine=self.name, seconds=round(ready - begun, 1))
        assert self._process is not None
        found = await self._unless_stopped(
            watch(
                self._process,
                lambda: self.spec.engine,
                poke=self._poke,
                clock=shop.clock,
                timing=shop.timing,
            ),
            spec,
        )
        if found is None:
            await self._drain(self._process)
            return None
        # Told at once, before the corpse is cleared away: nobody shall be sent here any more.
        self._publish(EngineState.BACKOFF, stage="cleaning up")
        return replace(found, ready_for=shop.clock() - ready)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T], spec: Spec) -> T | None:
        """The result of `work`, or None once something else than `spec` is wanted."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                if self._stop_wanted(spec):
                    return None
                await first(task, self._changed)
                self._changed.clear()
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _stop_wanted(self, spec: Spec) -> bool:
        return not self.wanted or self.spec.hard() != spec.hard()

    async def _bring_up(self, spec: Spec, generation: int) -> str:
        """A ready process; its socket."""
        shop = self.shop
        scratch = rundir.scratch(shop.run, generation)
        socket = str(scratch / "s")
        try:
            launch = await shop.launcher.prepare(
                self.name, spec.engine, spec.runtime, scratch=str(scratch), socket=socket
            )
        except BaseException:
            rundir.remove(scratch)
            raise
        self._process = process = EngineProcess(
            launch, socket=socket, file=self._file, on_line=self._line, clock=shop.clock,
            parent=str(shop.run),
        )  # fmt: skip
        self._file.append(f"--- roundhouse: start {generation} of {self.name}\n".encode())
        pid = await process.start()
        log.info(
            "engine_starting", engine=self.name, pid=pid, generation=generation, **launch.facts
        )
        self._publish(EngineState.STARTING, stage=SPAWNED.text, pid=pid)
        await process.wait_ready(spec.engine.start_timeout)
        return socket

    def _line(self, line: str) -> None:
        if self.view.state is EngineState.READY and "EngineDeadError" in line:
            self._poke.set()  # seconds before vLLM itself ends
        stage = advance(self._stage, line)
        if stage is not self._stage and self.view.state is EngineState.STARTING:
            if stage.rank != self._stage.rank:
                log.info("engine_stage", engine=self.name, stage=stage.text)
            self._show(stage)

    def _show(self, stage: Stage) -> None:
        self._stage = stage
        self._publish(EngineState.STARTING, stage=stage.text)

    async def _learn(self, spec: Spec, seconds: float) -> None:
        self.shop.estimates.learn(spec.fingerprint(), seconds)
        try:
            await asyncio.to_thread(self.shop.estimates.save)
        except OSError as exc:
            log.warning("estimates_not_saved", error=exc.strerror)

    async def _drain(self, process: EngineProcess) -> None:
        shop = self.shop
        self._publish(EngineState.DRAINING, stage="draining")
        deadline = shop.clock() + self.spec.engine.stop_timeout
        while (
            not self._hurry
            and not process.exited.done()
            and shop.in_flight(self.name, 0) > 0
            and shop.clock() < deadline
        ):
            await asyncio.wait([process.exited], timeout=shop.timing.drain_poll)
        ended = await process.stop(shop.timing.term)
        log.info("engine_stopped", engine=self.name, ended=str(ended))

    # --- after a death ------------------------------------------------------------------------

    async def _after(self, died: Death, spec: Spec) -> None:
        shop = self.shop
        shop.metrics.engine_restarts.labels(self.name, died.reason).inc()
        error = named(self.name, died.error)
        now = shop.clock()
        decision = backoff.after_death(
            self._history, now=now, ready_for=died.ready_for, dice=shop.rng.random(),
            policy=shop.policy,
        )  # fmt: skip
        log.warning(
            "engine_died", engine=self.name, reason=died.reason, error=error.message,
            log_tail=list(error.log_tail[-5:]),
        )  # fmt: skip
        # What the log explains is no accident, unless the engine has been well before.
        if error.terminal or (not self.ever_ready and error.reason in EXPLAINED):
            self._fail(error)
            return
        if isinstance(decision, backoff.GiveUp):
            self._fail(
                EngineError(
                    f"Engine {self.name!r} was given up: {decision.why}. {died.error.message}",
                    reason=error.reason,
                    log_tail=error.log_tail,
                )
            )
            return
        self._history, self.error = decision.history, error
        self._due = now + decision.delay
        self._publish(
            EngineState.BACKOFF, stage=f"next start in {decision.delay:.1f} s",
            restarts=self.view.restarts + 1, error=error.message, error_reason=error.reason,
        )  # fmt: skip
        while (left := self._due - shop.clock()) > 0:
            if self._stop_wanted(spec) or self._again:
                return
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
                self._changed.clear()
            except TimeoutError:
                continue

    def _fail(self, error: EngineError) -> None:
        self.error = error
        self._history = backoff.History()
        self._publish(
            EngineState.FAILED, stage="failed", pid=None,
            error=error.message, error_reason=error.reason,
        )  # fmt: skip
        log.error("engine_failed", engine=self.name, reason=error.reason, error=error.message)

    # --- the view -----------------------------------------------------------------------------

    def _publish(self, state: EngineState, **changes: Any) -> None:
        old = self.view
        if state is not old.state:
            changes.setdefault("since", self.shop.clock())
            if state in (EngineState.STOPPED, EngineState.BACKOFF):
                changes.setdefault("pid", None)
                changes.setdefault("stage", "")
            if state in (EngineState.STOPPED, EngineState.READY):
                changes |= {"error": None, "error_reason": None}
        if state is not EngineState.READY:
            changes["socket"] = None
        self.view = replace(old, state=state, waiting=self.waiting, **changes)
        one = Instance(
            0, state, self.view.socket, generation=self.view.generation, pid=self.view.pid,
            since=self.view.since,
        )  # fmt: skip
        instances = (one,) if state is EngineState.READY else ()
        self.view = replace(self.view, instances=instances)
        self.view = replace(self.view, eta=self.eta())
        for each in EngineState:
            self.shop.metrics.engine_state.labels(self.name, each).set(each is state)
        self.shop.publish(self.view)
        bell, self.bell = self.bell, asyncio.Event()
        bell.set()

    def count_waiting(self, step: int) -> None:
        self.waiting += step
        self.shop.metrics.engine_waiting.labels(self.name).set(self.waiting)
        self.view = replace(self.view, waiting=self.waiting, eta=self.eta())
