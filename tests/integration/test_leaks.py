"""Nothing is left behind by 30,000 requests: no memory, no descriptor, no task.

A real `roundhouse serve` before a mock that obeys the plan in each prompt, so that every answer is
checked too. It needs no engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest
import uvloop

from benchmarks.soak import judge
from benchmarks.soak.faulty import Faulty, Times
from benchmarks.soak.gateway import Gateway
from benchmarks.soak.judge import Rest
from benchmarks.soak.load import Ledger, Load
from benchmarks.soak.plans import Draw, Fault, Kind, Mix, Plan
from benchmarks.soak.run import alarms

NEEDS_ENGINE = False

WARM_UP: Final = 1_000
FIRST: Final = 10_000
LAST: Final = 30_000
STEP: Final = 1_000
CONCURRENCY: Final = 32
#: MiB that the server may grow from FIRST to LAST. Measured: 0.2 to 1.0, by what malloc keeps in
#: fragments. What a request leaves behind when it leaks, with its headers and its body, is some
#: kB: 20 to 100 MiB. The bound stands for 180 bytes a request.
BOUND: Final = 3.0

#: Nothing that takes its time, since 30,000 requests have to pass in seconds.
QUICK: Final = tuple(fault for fault in Mix().whole_faults if fault is not Fault.STALL)
MIX: Final = Mix(
    rate=0,
    faults=0.05,
    leave_in_stream=0.10,
    stream_faults=(*QUICK, Fault.PAUSE, Fault.FRAMING),
    whole_faults=QUICK,
)


def grown(points: list[tuple[float, float]]) -> float:
    """MiB from FIRST to LAST, each as the median of the three readings next to it."""
    early = judge.level(points, (FIRST, FIRST + 2 * STEP))
    late = judge.level(points, (LAST - 2 * STEP, LAST))
    assert early is not None
    assert late is not None
    return late - early


@dataclass
class Seen:
    """What the run saw. `points`: requests so far, MiB."""

    points: list[tuple[float, float]]
    before: Rest
    after: Rest
    most_descriptors: int
    ledger: Ledger
    left_upstream: set[int]
    alarms: list[str]


def plans(draw: Draw, count: int) -> list[Plan]:
    """Half of them whole answers, two in five streams, the rest errors of the client's making."""
    chance = draw.random
    kinds: list[Callable[[], Plan]] = [draw.whole] * 5 + [draw.stream] * 4
    others = (Kind.UNKNOWN, Kind.WRONG_KEY, Kind.HEALTH)
    kinds.append(lambda: draw.other(chance.choice(others)))
    return [chance.choice(kinds)() for _ in range(count)]


async def at_rest(gateway: Gateway, mock: Faulty) -> Rest:
    mock.hang_up_idle()
    await asyncio.sleep(0.5)
    inside = await gateway.inside()
    await asyncio.sleep(0.2)
    usage = gateway.usage()
    return Rest(usage.rss, usage.descriptors, inside.tasks)


async def ask_all(folder: Path) -> Seen:
    mock = Faulty(Times(slow_first=0.05, pause=0.05))
    await mock.listen()
    gateway = Gateway(folder, mock.port)
    try:
        await gateway.start()
        draw = Draw(MIX, Random(1))
        load = Load("127.0.0.1", gateway.port, draw, mock, reuse=0.9)
        await load.all_of(plans(draw, WARM_UP), CONCURRENCY)
        before = await at_rest(gateway, mock)
        points, most, after = [], 0, before
        for done in range(STEP, LAST + 1, STEP):
            await load.all_of(plans(draw, STEP), CONCURRENCY)
            points.append((float(done), gateway.usage().rss))
            most = max(most, gateway.usage().descriptors)
        for _ in range(10):
            after = await at_rest(gateway, mock)
            if judge.came_back(before, after) and not mock.busy:
                break
        return Seen(points, before, after, most, load.ledger, set(mock.busy), alarms(gateway.log))
    finally:
        if gateway.running:
            await gateway.stop()
        await mock.close()


def test_30k_requests_leave_nothing_behind(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(ask_all(tmp_path))
    ledger = seen.ledger
    assert not ledger.texts, f"{ledger.unexpected} unexpected"
    assert (ledger.lost, ledger.doubled) == (0, 0)
    assert not seen.alarms
    assert sum(ledger.asked.values()) == WARM_UP + LAST
    assert {
        "left in mid-stream",
        "left in mid-body",
        "refused as ordered",
        "broken as ordered",
    } <= {*ledger.outcomes}
    assert judge.came_back(seen.before, seen.after), f"{seen.before} → {seen.after}"
    assert not seen.left_upstream
    # A request holds one connection down and one up, and one of either kind may be closing.
    assert seen.most_descriptors <= seen.before.descriptors + 4 * CONCURRENCY
    assert grown(seen.points) < BOUND, seen.points


def series(per_request: float, noise: float = 0.0) -> list[tuple[float, float]]:
    """RSS of a server that keeps so many bytes of every request."""
    chance = Random(5)
    return [
        (float(done), 60 + done * per_request / 2**20 + chance.uniform(-noise, noise))
        for done in range(STEP, LAST + 1, STEP)
    ]


@pytest.mark.parametrize(
    ("points", "caught"),
    [
        (series(0), False),
        (series(0, noise=1.0), False),
        (series(50), False),
        (series(200), True),
        (series(2_000, noise=1.0), True),
        # What pools and caches take in the first requests is no leak.
        ([(at, rss + min(at, 8_000) / 500) for at, rss in series(0)], False),
    ],
    ids=["flat", "noise", "fragments", "200 bytes", "an object each", "warm-up"],
)
def test_a_leak_would_be_caught(points: list[tuple[float, float]], caught: bool) -> None:
    assert (grown(points) >= BOUND) == caught


def test_descriptors_and_tasks_that_stay_would_be_caught() -> None:
    before = Rest(60.0, 15, 20.0)
    assert judge.came_back(before, Rest(60.0, 15, 20.0))
    assert not judge.came_back(before, Rest(60.0, 15 + CONCURRENCY, 20.0))
    assert not judge.came_back(before, Rest(60.0, 15, 20.0 + CONCURRENCY))
    assert judge.came_back(before, Rest(60.0, 15, None)), "a server that does not say"
