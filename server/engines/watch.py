"""Watching a ready engine: its exit, its health, and whether it still moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from server.config.engine import Engine
from server.engines import endings
from server.engines.control import Health, Motion
from server.engines.process import EngineProcess
from server.errors import EngineError

log = structlog.get_logger(__name__)

#: Timers may ring a little early: that is an interval, too.
_WHOLE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Timing:
    """Constants in seconds. `hang_*`: requests run but no step is made for so long (on a CPU one
    step of a large model can take minutes). `motion`: between two looks at that. `term`: what
    SIGTERM gets before SIGKILL. `drain_poll`: between two looks at requests in flight while
    somebody waits for their end, `look` while nobody does. `gather`: so long engines that load at
    the start wait for each other's needs, so that those that stand first in the config come first.
    """

    hang_gpu: float = 120.0
    hang_cpu: float = 600.0
    motion: float = 10.0
    term: float = 3.0
    drain_poll: float = 0.05
    look: float = 1.0
    gather: float = 2.0


@dataclass(frozen=True, slots=True)
class Death:
    """An end that nobody asked for. `reason` is the label of engine_restarts."""

    reason: str
    error: EngineError
    ready_for: float | None = None


async def first(
    future: asyncio.Future[Any], event: asyncio.Event, timeout: float | None = None
) -> None:
    """Until `future` is done, `event` is set or `timeout` seconds are over."""
    waiter = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({future, waiter}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def watch(
    process: EngineProcess,
    engine: Callable[[], Engine],
    *,
    poke: asyncio.Event,
    clock: Callable[[], float],
    timing: Timing,
) -> Death:
    """Returns when the process is dead or must die.

    `engine` is asked anew each round: a reload may change the interval. `poke` asks for a check
    now. A check has the interval as its deadline, so that a stopped process is known after
    `health_misses` intervals and a bit. Within an interval there is one miss at the most, however
    often it is poked: an engine that refuses some requests, and its health with them, is not dead
    for that.
    """
    on_gpu = process.launch.facts.get("device") == "cuda"
    motion = Motion(timing.hang_gpu if on_gpu else timing.hang_cpu)
    looked = asked = counted = clock()
    misses = 0
    while True:
        interval = engine().health_interval
        if (pause := interval - (clock() - asked)) > 0:
            await first(process.exited, poke, pause)
        poke.clear()
        asked = clock()
        health = Health.DEAD if process.exited.done() else await process.control.health(interval)
        if health is Health.DEAD or process.exited.done():
            return await _ended(process)
        if health is Health.UNKNOWN:
            log.warning("engine_health_not_asked", pid=process.pid)
            continue
        if health is not Health.MISSED:
            misses = 0
        elif not misses or asked - counted >= _WHOLE * interval:
            misses, counted = misses + 1, asked
            log.warning("engine_health_missed", pid=process.pid, misses=misses)
        if misses >= engine().health_misses:
            return _hang(process, f"It did not answer {misses} health checks.")
        if process.vllm and not misses and asked - looked >= timing.motion:
            looked = asked
            if await _stuck(process, motion, interval, clock):
                return _hang(process, f"It had work and made no step for {motion.limit:g} s.")


async def _stuck(
    process: EngineProcess, motion: Motion, timeout: float, clock: Callable[[], float]
) -> bool:
    try:
        status, metrics = await process.control.get("/metrics", timeout)
    except OSError:
        return False
    return status == 200 and motion.stuck(metrics, clock())


async def _ended(process: EngineProcess) -> Death:
    # A refused connection is seen a little before the exit that tells more.
    await asyncio.wait([process.exited], timeout=0.2)
    if process.exited.done():
        # Its last lines are on their way, by another pipe; clients are not kept waiting for them.
        await asyncio.wait([process.gone], timeout=0.05)
        killed = process.exited.result().signal is not None
        return Death("killed" if killed else "exit", process.death())
    told = "Nobody listens where it should answer."
    if process.vllm:
        told = "Its core is dead, or nobody listens on its socket."
    return Death("exit", EngineError(told, reason="crash", log_tail=_told(process)))


def _hang(process: EngineProcess, told: str) -> Death:
    return Death("hang", EngineError(told, reason="hang", log_tail=_told(process)))


def _told(process: EngineProcess) -> tuple[str, ...]:
    return endings.evidence(process.lines(), vllm=process.vllm)
