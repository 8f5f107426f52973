"""The run: start, baseline, load, rest, and what was seen on the way."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.soak import judge
from benchmarks.soak.faulty import Faulty, Times
from benchmarks.soak.gateway import Gateway, Inside
from benchmarks.soak.judge import Facts, Rest, Sample
from benchmarks.soak.load import Ledger, Load, Trickle
from benchmarks.soak.plans import Draw, Fault, Kind, Mix, Plan

#: /metrics and smaps are read this often, in seconds: both cost the server a moment.
_SCRAPE: Final = 5.0
#: Seconds after the load in which the very numbers from before are waited for: the gateway keeps
#: idle connections for 30. From then on "within the tolerance" will do.
_EXACTLY: Final = 35.0
#: Characters of a line of the server's log that are shown.
_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run. Seconds; `settle`: the longest wait for the server to come to rest."""

    seconds: float = 600.0
    streams: int = 1000
    mix: Mix = field(default_factory=Mix)
    trickle: Trickle = field(default_factory=Trickle)
    seed: int = 7
    settle: float = 75.0
    #: The mock closes idle connections when the load is over, so that nobody waits for the
    #: gateway's pool to do so (it keeps them 30 s).
    hang_up: bool = False
    inter_chunk: float = 10.0
    times: Times = field(default_factory=Times)
    scrape: float = _SCRAPE
    pin: bool = True
    command: tuple[str, ...] = ()


@dataclass
class Result:
    """What a run saw. `facts` is what the verdict rests on."""

    facts: Facts
    ledger: Ledger
    #: Seconds from a client's leaving to the end of its request at the upstream.
    told: list[float]
    requests: int
    gateway_cpu: float
    harness_cpu: float
    pinned: bool


class Soak:
    """One run. `say` gets the progress lines; set `stop` to end the load early."""

    def __init__(
        self, settings: Settings, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.settings, self.folder, self.say = settings, folder, say
        self.stop = asyncio.Event()
        self.samples: list[Sample] = []
        self._lag: Mapping[float, float] | None = None
        self._lag_at_start: Mapping[float, float] | None = None
        self._inside = Inside(None, None)

    async def run(self) -> Result:
        """Raises RuntimeError when the server does not start."""
        cores = sorted(os.sched_getaffinity(0))
        pinned = self.settings.pin and len(cores) > 1
        if pinned:
            os.sched_setaffinity(0, cores[1:2])
        try:
            return await self._run(cores[0] if pinned else None)
        finally:
            if pinned:
                os.sched_setaffinity(0, cores)

    async def _run(self, cpu: int | None) -> Result:
        settings = self.settings
        mock = Faulty(settings.times)
        await mock.listen()
        gateway = Gateway(
            self.folder,
            mock.port,
            command=settings.command,
            inter_chunk=settings.inter_chunk,
            cpu=cpu,
        )
        try:
            await gateway.start()
            return await self._measure(gateway, mock, pinned=cpu is not None)
        finally:
            if gateway.running:
                await gateway.stop()
            await mock.close()

    async def _measure(self, gateway: Gateway, mock: Faulty, *, pinned: bool) -> Result:
        settings = self.settings
        draw = Draw(settings.mix, Random(settings.seed))
        load = Load("127.0.0.1", gateway.port, draw, mock)
        await self._warm_up(load)
        mock.hang_up_idle()
        await asyncio.sleep(1)
        before = await self._rest(gateway, 0.0)
        self._lag_at_start = self._lag = self._inside.lag
        self.say(
            f"at rest: {before.rss:.1f} MiB, {before.descriptors} descriptors, "
            f"{_or_dash(before.tasks)} tasks; the load begins"
        )
        cpu, own = gateway.usage().cpu, time.process_time()
        begun = load.begun = time.monotonic()
        load.start(settings.streams, settings.trickle)
        await self._watch(gateway, load, begun)
        seconds = time.monotonic() - begun
        used, own = (
            (gateway.usage().cpu - cpu) / seconds if gateway.running else 0.0,
            (time.process_time() - own) / seconds,
        )
        if gateway.running:
            await self._scrape(gateway)
        lag = judge.since(self._lag_at_start, self._inside.lag)
        await load.stop()
        ledger = load.ledger
        after: Rest | None = None
        if gateway.running:
            self.say("the load is over; waiting for descriptors and tasks to come back")
            after = await self._settled(gateway, mock, before)
            code = await gateway.stop()
            if code != 0:
                ledger.problem(f"the server ended with exit code {code}")
        else:
            ledger.problem(f"the server ended during the load:\n{gateway.tail()}")
        if mock.busy:
            ledger.problem(f"requests still under way at the upstream: {sorted(mock.busy)[:20]}")
        for text in alarms(gateway.log):
            ledger.problem(f"in the server's log: {text}")
        facts = Facts(
            seconds=seconds,
            streams=settings.streams,
            samples=self.samples,
            before=before,
            after=after,
            lag=lag,
            unexpected=ledger.unexpected,
            lost=ledger.lost,
            doubled=ledger.doubled,
        )
        return Result(facts, ledger, mock.told, mock.requests, used, own, pinned)

    async def _warm_up(self, load: Load) -> None:
        """One of each, so that what the server loads or opens on first use is in the baseline."""
        draw = load.draw
        plans: list[Plan] = [draw.other(kind) for kind in list(Kind)[2:]]
        slow = (Fault.STALL, Fault.PAUSE, Fault.SLOW_FIRST)
        for fault in (Fault.NONE, *self.settings.mix.stream_faults):
            if fault not in slow:
                one = draw.stream()
                plans.append(Plan(one.number, Kind.STREAM, one.model, 20, 50, fault, at=10))
        await load.all_of(plans, 4)
        load.ledger.asked.clear()
        load.ledger.outcomes.clear()
        load.ledger.faults.clear()

    async def _watch(self, gateway: Gateway, load: Load, begun: float) -> None:
        """One sample a second, a scrape and a progress line now and then."""
        settings, due = self.settings, begun + 1
        next_scrape, next_line = begun, begun + 10
        while gateway.running:
            late = await self._until(due)
            if late is None:
                return
            now = time.monotonic()
            lag: float | None = None
            scraping = now >= next_scrape
            try:
                if scraping:
                    next_scrape = now + settings.scrape
                    lag = await self._scrape(gateway)
                usage = gateway.usage(smaps=scraping)
            except (OSError, ValueError) as error:
                load.ledger.problem(f"{now - begun:.1f} s: no sample: {error!r}")
            else:
                self.samples.append(
                    Sample(
                        at=now - begun,
                        rss=usage.rss,
                        pss=usage.pss,
                        uss=usage.uss,
                        descriptors=usage.descriptors,
                        threads=usage.threads,
                        cpu=usage.cpu,
                        open_streams=load.open,
                        tasks=self._inside.tasks if scraping else None,
                        lag=lag,
                        harness_lag=late,
                    )
                )
            if now >= next_line:
                next_line += 10
                self._line(load.ledger)
            due = max(due + 1, now)
            if due > begun + settings.seconds + 0.5:
                return

    async def _until(self, due: float) -> float | None:
        """How late the timer was; None when the run is to end."""
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self.stop.wait()
            return None
        except TimeoutError:
            return max(0.0, time.monotonic() - due)

    async def _scrape(self, gateway: Gateway) -> float | None:
        """The lag's 99th percentile since the last scrape."""
        self._inside = await gateway.inside()
        gained = judge.since(self._lag, self._inside.lag)
        self._lag = self._inside.lag
        return judge.quantile(gained, 0.99)

    async def _rest(self, gateway: Gateway, waited: float) -> Rest:
        self._inside = await gateway.inside()
        await asyncio.sleep(0.2)  # the scrape's own connection is gone from the count
        usage = gateway.usage()
        return Rest(usage.rss, usage.descriptors, self._inside.tasks, waited)

    async def _settled(self, gateway: Gateway, mock: Faulty, before: Rest) -> Rest:
        begun = time.monotonic()
        while True:
            if self.settings.hang_up:
                mock.hang_up_idle()
            await asyncio.sleep(0.5)
            waited = time.monotonic() - begun
            rest = await self._rest(gateway, waited)
            if waited > self.settings.settle:
                return rest
            same = judge.came_back(before, rest, spare=waited > _EXACTLY or self.settings.hang_up)
            if same and not mock.busy:
                return rest

    def _line(self, ledger: Ledger) -> None:
        last, before = self.samples[-1], self.samples[max(0, len(self.samples) - 11)]
        span = last.at - before.at
        cpu = (last.cpu - before.cpu) / span if span else 0.0
        lags = [one.lag for one in self.samples[-10:] if one.lag is not None]
        lag = f"{max(lags) * 1e3:.1f} ms" if lags else "–"
        self.say(
            f"{last.at:6.0f} s  {last.open_streams} streams  {last.rss:.1f} MiB  "
            f"{last.descriptors} descriptors  {_or_dash(self._inside.tasks)} tasks  lag {lag}  "
            f"CPU {cpu:.0%}  {sum(ledger.outcomes.values())} answers  "
            f"{ledger.unexpected} unexpected"
        )


def alarms(log: Path) -> list[str]:
    """Lines of the server's log that no injected fault explains: errors, tracebacks, asyncio's
    complaints."""
    signs = ('"level":"error"', '"level":"critical"', "Traceback", "never retrieved", "was never")
    found: list[str] = []
    with log.open(errors="replace") as lines:
        for line in lines:
            if any(sign in line for sign in signs) and len(found) < 50:
                found.append(line.strip()[:_TEXT])
    return found


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
