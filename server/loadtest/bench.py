"""A whole run: warm-up and load, step by step, over one transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from server.loadtest.caller import Caller
from server.loadtest.drive import Driver
from server.loadtest.goodput import Limits
from server.loadtest.mirror import Mirror
from server.loadtest.plan import Ends, Load
from server.loadtest.progress import Shown, line
from server.loadtest.prompts import Prompts
from server.loadtest.report import Report, report
from server.loadtest.sample import Failure
from server.transport import Transport


@dataclass(frozen=True, slots=True)
class Settings:
    """`url` without `/v1`; `fields` go into each request as they are; `timeout` in seconds;
    `warmup` requests before each step are sent, and not counted."""

    url: str
    model: str
    prompts: Prompts
    steps: tuple[Load, ...]
    ends: Ends
    seed: int
    key: str | None = None
    streamed: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    warmup: int = 0
    timeout: float = 300.0
    limits: Limits | None = None

    def body(self, index: int) -> bytes:
        """The request with that number."""
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": self.prompts.messages(index),
            **self.fields,
            "stream": self.streamed,
        }
        if self.streamed:
            asked["stream_options"] = {"include_usage": True}
        return msgspec.json.encode(asked)

    def headers(self) -> dict[str, str]:
        """Of each request."""
        found = {"content-type": "application/json"}
        return {**found, "authorization": f"Bearer {self.key}"} if self.key else found


@dataclass
class Outcome:
    """The steps that ran; the last one may have been stopped."""

    reports: list[Report] = field(default_factory=list)
    #: How many requests were sent, those of the warm-up included.
    sent: int = 0
    warmup_failures: list[Failure] = field(default_factory=list)


async def run(
    settings: Settings,
    stop: asyncio.Event,
    *,
    clock: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> Outcome:
    """Every step, one after the other, until the last is over, one is hopeless, or `stop`."""
    transport = Transport()
    caller = Caller(
        transport=transport,
        url=settings.url,
        headers=settings.headers(),
        body_of=settings.body,
        streamed=settings.streamed,
        timeout=settings.timeout,
        clock=clock,
    )
    driver = Driver(caller, clock, stop, Random(settings.seed))
    outcome = Outcome()
    try:
        for load in settings.steps:
            shown = Shown(load.label, settings.ends)
            async with line(shown, clock):
                await _warm_up(settings, load, driver, outcome)
                if stop.is_set():
                    break
                async with Mirror(clock, cpu) as mirror:
                    tally = await driver.run(load, settings.ends, watch=shown.follow)
            outcome.reports.append(report(load, tally, mirror.strain, settings.limits))
            if stop.is_set() or tally.hopeless:
                break
    finally:
        outcome.sent = next(driver.numbers)
        await transport.close()
    return outcome


async def _warm_up(settings: Settings, load: Load, driver: Driver, outcome: Outcome) -> None:
    if not settings.warmup:
        return
    users = min(settings.warmup, load.concurrency or settings.warmup)
    ends = Ends(requests=settings.warmup, errors=0)
    tally = await driver.run(Load(concurrency=users), ends)
    outcome.warmup_failures += [s.failure for s in tally.samples if s.failure is not None]
