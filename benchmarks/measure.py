"""One turn: a case's load against one gateway, and its figures."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from benchmarks.cases import Case, Plan
from benchmarks.gateways import Gateway
from benchmarks.load.closed import Closed, closed
from benchmarks.load.paced import Paced, paced
from benchmarks.machine import Cores, Mark, mark
from benchmarks.stats import quantile
from benchmarks.upstream import Pace, Upstream

#: A turn in which others used more of the two cores than this is marked.
NOISY: Final = 0.10
#: A turn in which a larger share than this went wrong has failed.
_FAILS: Final = 0.5
_PLENTY: Final = 90_000  # chunks of a stream: more than any turn lasts, and five digits
_AT_LEAST: Final = 20


class Window:
    """Takes marks at the two ends of the counted time."""

    def __init__(self, gateway: Gateway, cores: Cores, upstream: Upstream) -> None:
        self.gateway, self.cores, self.upstream = gateway, cores, upstream
        self.marks: list[Mark] = []
        self.sent: list[int] = []
        self.rss = 0.0

    def __call__(self) -> None:
        usage = self.gateway.usage()
        self.marks.append(mark(self.cores, usage.cpu_seconds))
        self.sent.append(self.upstream.chunks_sent)
        self.rss = usage.rss_bytes / 1e6

    def shares(self) -> dict[str, float]:
        before, after = self.marks
        return after.share(before)

    def cpu_us(self, pieces: int) -> float:
        before, after = self.marks
        return (after.gateway - before.gateway) / pieces * 1e6 if pieces else math.nan


async def turn(
    case: Case, gateway: Gateway, upstream: Upstream, plan: Plan, cores: Cores
) -> dict[str, Any]:
    """`values` by name, `errors` and the first of them, and whether it was `noisy` or `failed`."""
    window = Window(gateway, cores, upstream)
    found = await (_paced if case.rate else _closed)(case, gateway, upstream, plan, window)
    found["values"] = {**found["values"], **window.shares()}
    found["noisy"] = found["values"]["foreign"] > NOISY
    return found


async def _closed(
    case: Case, gateway: Gateway, upstream: Upstream, plan: Plan, window: Window
) -> dict[str, Any]:
    upstream.pace = None
    result = await closed(
        gateway.place,
        stream=case.stream,
        prompt=case.prompt,
        connections=case.connections,
        warm_up=plan.warm_up(case),
        seconds=plan.counted(case),
        at_least=max(_AT_LEAST, case.connections),
        longest=plan.longest,
        window=window,
    )
    return {
        "values": _closed_values(result, window),
        "errors": result.errors,
        "first_error": result.first_error[:300],
        "failed": result.errors + result.unfinished > _FAILS * (_all(result) or 1)
        or not result.total,
    }


def _all(result: Closed) -> int:
    return len(result.total) + result.errors + result.unfinished


def _closed_values(result: Closed, window: Window) -> dict[str, float]:
    return {
        "rate": result.rate,
        "answers": len(result.total),
        "unfinished": result.unfinished,
        "seconds": result.seconds,
        "cpu_us": window.cpu_us(len(result.total) + result.errors),
        "p50_ms": quantile(result.total, 0.5) * 1e3,
        "p99_ms": quantile(result.total, 0.99) * 1e3,
        "first_p50_ms": quantile(result.first, 0.5) * 1e3,
        "first_p99_ms": quantile(result.first, 0.99) * 1e3,
    }


async def _paced(
    case: Case, gateway: Gateway, upstream: Upstream, plan: Plan, window: Window
) -> dict[str, Any]:
    upstream.pace = Pace(case.rate, _PLENTY)
    try:
        result = await paced(
            gateway.place,
            streams=case.connections,
            prompt=case.prompt,
            warm_up=plan.warm_up(case),
            seconds=plan.counted(case),
            begin_within=plan.begin_within,
            silence=max(1.0, 5 / case.rate),
            window=window,
        )
        left = await _left_open(upstream)
    finally:
        upstream.pace = None
        upstream.hang_up()
    sent = window.sent[1] - window.sent[0]
    return {
        "values": {**_paced_values(result, window), "sent": sent, "left_open": left},
        "errors": result.errors + result.silent,
        "first_error": result.first_error[:300] or ("streams fell silent" * bool(result.silent)),
        "failed": result.begun - result.silent < _FAILS * case.connections or not result.chunks,
    }


def _paced_values(result: Paced, window: Window) -> dict[str, float]:
    return {
        "chunks": result.chunks,
        "seconds": result.seconds,
        "rate": result.chunks / result.seconds,
        "cpu_us": window.cpu_us(result.chunks),
        "late_p50_ms": quantile(result.late, 0.5) * 1e3,
        "late_p99_ms": quantile(result.late, 0.99) * 1e3,
        "added_p50_ms": quantile(result.added, 0.5) * 1e3,
        "added_p99_ms": quantile(result.added, 0.99) * 1e3,
        "lost": result.lost,
        "doubled": result.doubled,
        "begun": result.begun,
        "silent": result.silent,
        "rss_mb": window.rss,
    }


async def _left_open(upstream: Upstream, longest: float = 3.0) -> int:
    """Streams that the gateway goes on reading though its clients have left."""
    for _ in range(int(longest / 0.02)):
        if not upstream.open_streams:
            break
        await asyncio.sleep(0.02)
    return upstream.open_streams
