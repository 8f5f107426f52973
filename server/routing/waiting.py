"""Waiting for what loads, with signs of life for a stream's client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from server.errors import RoundhouseError
from server.protocol import sse
from server.routing.attempt import Job
from server.routing.chain import Route
from server.routing.suspicion import Leaving
from server.targets import Target

#: Seconds between two `: waiting` comments.
COMMENT_EVERY: Final = 5.0


async def until_ready(job: Job, target: Target, hope: float) -> None:
    """Until the target is ready, or `hope` (as the clock will say) is there, when somebody else may
    answer. Raises EngineNotReady, Overloaded, SlowClient."""
    await _alive(job, target.wait, max(0.0, min(job.request.deadline, hope) - job.clock()))


async def paused(job: Job, seconds: float) -> None:
    """So long. Raises SlowClient."""
    await _alive(job, asyncio.sleep, seconds)


async def turn(
    job: Job, route: Route, tickets: tuple[Leaving, ...]
) -> tuple[Route, tuple[Leaving, ...]] | None:
    """The same with one place more, where an engine may have died of this request, and no other
    such one is under way there. Else None, without any place, once somebody has left: how things
    are then has to be seen. Raises Overloaded at the request's deadline, SlowClient.

    It waits for as long as it has: most who do are as innocent as those before them."""
    watch = job.watch
    if watch.may_go(job.request, route):
        place = watch.enter(job.request, route)
        return (route, tickets) if place is None else (route, (*tickets, place))
    for ticket in tickets:
        ticket.leave(job.clock())
    await _alive(job, partial(watch.rung, watch.bell), max(0.0, job.request.deadline - job.clock()))
    return None


async def _alive(job: Job, wait: Callable[[float], Awaitable[None]], seconds: float) -> None:
    """A stream that has waited for `pace.waiting` seconds gets its head and comments, which commit
    nothing but the status."""
    request, sink = job.request, job.sink
    begun = job.clock()
    try:
        if not request.stream:
            await wait(seconds)
            return
        waiter = asyncio.ensure_future(wait(seconds))
        try:
            pause = max(0.0, job.pace.waiting - (begun - request.arrived))
            while not (await asyncio.wait({waiter}, timeout=pause))[0]:
                pause = COMMENT_EVERY
                if not sink.flowing:
                    await job.until_read()
                if not sink.started:
                    sink.start_stream()
                sink.push(sse.comment("waiting"))
            await waiter
        finally:
            if not waiter.done():
                waiter.cancel()
                with contextlib.suppress(asyncio.CancelledError, RoundhouseError):
                    await waiter
    finally:
        job.record.waited += job.clock() - begun
