"""The soak run: its judge, its reading of answers, and a small run from end to end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import uvloop

from benchmarks.soak import judge, report
from benchmarks.soak.faulty import Times
from benchmarks.soak.gateway import read_metrics
from benchmarks.soak.judge import Facts, Rest, Sample
from benchmarks.soak.load import Ledger, Trickle
from benchmarks.soak.plans import Draw, Fault, Kind, Leave, Mix, Plan, read_order, request
from benchmarks.soak.run import Result, Settings, Soak, alarms, percentile

INF = float("inf")
QUICK_BUCKETS = {0.001: 900.0, 0.01: 995.0, 0.05: 1000.0, INF: 1000.0}


def sample(at: float, rss: float = 60.0, *, streams: int = 100) -> Sample:
    return Sample(at, rss, None, None, 215, 3, at / 2, streams, 120.0, 0.001, 0.0)


def facts(**changes: object) -> Facts:
    good = Facts(
        seconds=600,
        streams=100,
        samples=[sample(float(at)) for at in range(1, 601)],
        before=Rest(58.0, 15, 20.0),
        after=Rest(60.0, 15, 20.0, 31.0),
        lag=QUICK_BUCKETS,
        unexpected=0,
        lost=0,
        doubled=0,
    )
    return replace(good, **changes)  # type: ignore[arg-type]


def failed(seen: Facts) -> set[str]:
    return {check.name for check in judge.checks(seen) if check.held is False}


def test_a_good_run_passes() -> None:
    assert failed(facts()) == set()
    assert judge.passed(judge.checks(facts()))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (
            {"samples": [sample(float(at), 60 + at / 100) for at in range(1, 601)]},
            "memory: growth of RSS",
        ),
        ({"lag": {0.05: 980.0, 0.1: 1000.0, INF: 1000.0}}, "event loop: lag, 99th percentile"),
        ({"lag": {0.05: 0.0, INF: 10.0}}, "event loop: lag, 99th percentile"),
        ({"after": Rest(60.0, 18, 20.0)}, "descriptors after the load"),
        ({"after": Rest(60.0, 15, 23.0)}, "tasks after the load"),
        ({"unexpected": 1}, "unexpected errors"),
        ({"lost": 1}, "chunks"),
        ({"doubled": 1}, "chunks"),
        (
            {"samples": [sample(float(at), streams=90) for at in range(1, 601)]},
            "streams kept open (median)",
        ),
    ],
)
def test_each_check_can_fail(changes: dict[str, object], name: str) -> None:
    assert failed(facts(**changes)) == {name}
    assert not judge.passed(judge.checks(facts(**changes)))


def test_what_was_not_measured_is_said_and_fails_nothing() -> None:
    seen = facts(samples=[], after=None, lag=None)
    assert failed(seen) == set()
    assert sum(check.held is None for check in judge.checks(seen)) == 5
    silent = facts(before=Rest(58.0, 15, None), after=Rest(58.0, 15, None))
    assert [c.value for c in judge.checks(silent) if c.held is None] == ["not available"]


def test_coming_back() -> None:
    before = Rest(60.0, 15, 20.0)
    for now in (Rest(60.0, 17, 20.0), Rest(60.0, 15, 22.0)):
        assert judge.came_back(before, now)
        assert not judge.came_back(before, now, spare=False)
    assert judge.came_back(before, before, spare=False)


@pytest.mark.parametrize(
    ("seconds", "early", "late"),
    [
        (600, (120, 180), (540, 600)),
        (36_000, (120, 180), (35_940, 36_000)),
        (100, (20, 40), (80, 100)),
    ],
)
def test_windows(seconds: float, early: tuple[float, ...], late: tuple[float, ...]) -> None:
    assert judge.windows(seconds) == (early, late)


def test_growth_leaves_the_beginning_out_and_forgives_a_peak() -> None:
    points = [(float(at), 60.0 + (min(at, 100) / 10)) for at in range(1, 601)]
    points[570] = (571.0, 200.0)
    assert judge.growth(points, 600) == 0
    assert judge.growth([(1.0, 60.0)], 600) is None
    assert judge.slope([(float(at), at / 3600) for at in range(600)], 600) == pytest.approx(1)
    assert judge.slope([], 600) is None
    assert judge.slope([(300.0, 1.0), (300.0, 2.0)], 600) is None


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({0.01: 50.0, 0.02: 100.0, INF: 100.0}, 0.5, 0.01),
        ({0.01: 50.0, 0.02: 100.0, INF: 100.0}, 0.75, 0.015),
        ({0.01: 50.0, INF: 100.0}, 0.99, 0.01),
        ({0.01: 0.0, INF: 0.0}, 0.99, None),
        (None, 0.99, None),
    ],
)
def test_quantile(buckets: dict[float, float] | None, share: float, value: float | None) -> None:
    found = judge.quantile(buckets, share)
    assert found == (None if value is None else pytest.approx(value))


def test_since() -> None:
    assert judge.since({1.0: 2.0}, {1.0: 5.0, INF: 6.0}) == {1.0: 3.0, INF: 6.0}
    assert judge.since(None, {1.0: 5.0}) == {1.0: 5.0}
    assert judge.since({1.0: 2.0}, None) is None


def test_metrics_of_the_inside() -> None:
    text = (
        "# TYPE roundhouse_tasks gauge\nroundhouse_tasks 31\n"
        'roundhouse_event_loop_lag_seconds_bucket{le="0.05"} 7\n'
        'roundhouse_event_loop_lag_seconds_bucket{le="+Inf"} 8\n'
        "roundhouse_event_loop_lag_seconds_count 8\n"
        'roundhouse_requests_total{endpoint="chat",model="m",status="200"} 5\n'
    )
    inside = read_metrics(text)
    assert inside.tasks == 31
    assert inside.lag == {0.05: 7, INF: 8}
    nothing = read_metrics('roundhouse_build_info{version="0"} 1\n')
    assert (nothing.tasks, nothing.lag) == (None, None)


def test_an_order_reaches_the_mock_through_the_prompt() -> None:
    plan = Plan(12, Kind.STREAM, "paired", 300, 10, Fault.CUT, at=40)
    found = read_order(request(plan, "127.0.0.1:1"))
    assert found is not None
    assert (found.number, found.fault, found.at) == (12, Fault.CUT, 40)
    assert (found.chunks, found.rate) == (300, 10)
    assert read_order(b"{}") is None
    assert len(request(Plan(1, Kind.BIG, chunks=1), "127.0.0.1:1")) > 2**20


def test_plans_are_drawn_in_the_proportions_asked_for() -> None:
    draw = Draw(Mix(), Random(3))
    plans = [draw.stream() for _ in range(20_000)]
    assert len({plan.number for plan in plans}) == 20_000
    left = sum(plan.leave is Leave.IN_STREAM for plan in plans) / 20_000
    early = [plan for plan in plans if plan.leave in (Leave.BEFORE_FIRST, Leave.IN_BODY)]
    faults = sum(p.fault is not Fault.NONE and p.leave is Leave.NEVER for p in plans) / 20_000
    assert left == pytest.approx(0.20, abs=0.01)
    assert len(early) / 20_000 == pytest.approx(0.02, abs=0.005)
    assert faults == pytest.approx(0.01, abs=0.003)
    assert all(50 <= plan.chunks <= 600 for plan in plans)
    assert {plan.fault for plan in plans} == set(Fault) - {Fault.STATUS_429}


def test_alarms_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        '{"level":"info","event":"request"}\n'
        '{"level":"warning","event":"attempt failed"}\n'
        '{"level":"error","event":"request failed inside"}\n'
        "Task exception was never retrieved\n"
    )
    assert len(alarms(log)) == 2


def test_the_page_lists_what_was_unexpected() -> None:
    ledger = Ledger(unexpected=1, texts=["#7: no end"])
    seen = facts(unexpected=1)
    result = Result(seen, ledger, [0.1, 0.2], 5, 0.3, 0.2, False)
    made = report.document(result, Settings(), "2026-01-02T03:04:05+00:00", early=True)
    page = report.markdown(made)
    assert page.startswith("# Soak run of 2026-01-02: failed\n")
    assert "ended early" in page
    assert "- #7: no end" in page
    assert "| unexpected errors | 1 | 0 | **not held** |" in page
    assert "FAIL  unexpected errors" in report.table(judge.checks(seen))
    assert percentile([], 0.5) is None


SMALL = Settings(
    seconds=12,
    streams=50,
    mix=Mix(shortest=1, longest=4, rate=10, faults=0.10),
    trickle=Trickle(whole=20, big=2, unknown=2, wrong_key=2, health=2),
    hang_up=True,
    inter_chunk=3,
    times=Times(slow_first=1, pause=1),
    scrape=2,
    pin=False,
)


def test_a_small_soak_passes_from_end_to_end(tmp_path: Path) -> None:
    said: list[str] = []
    soak = Soak(SMALL, tmp_path, said.append)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(soak.run())
    made = report.document(result, SMALL, "2026-01-02T03:04:05+00:00", early=False)
    files = report.write(made, result.facts, tmp_path / "out")
    assert {file.name for file in files} == {"soak.json", "soak.md", "soak.svg"}
    read = json.loads((tmp_path / "out" / "soak.json").read_text())
    assert not read["unexpected"]
    # Twelve seconds are the server's warming up: its growth then is not this test's business.
    broken = [c for c in read["checks"] if c["held"] is False and "memory" not in c["name"]]
    assert not broken
    assert read.keys() == {
        *("verdict", "started", "ended_early", "seconds", "machine", "settings", "checks"),
        *("figures", "before", "after", "counts", "unexpected", "samples"),
    }
    assert len(read["samples"]) >= 8
    assert read["samples"][0].keys() == set(Sample.__dataclass_fields__)
    assert read["counts"]["chunks"] > 3_000
    outcomes = read["counts"]["outcomes"]
    assert outcomes.keys() >= {"whole", "left in mid-stream", "unknown model", "wrong key"}
    assert "unexpected" not in outcomes
    assert sum(read["counts"]["faults"].values()) > 5
    assert any("50 streams" in line for line in said)
