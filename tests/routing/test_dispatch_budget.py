"""The retry budget at work: an outage costs little more than what was asked for anyway."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import EngineNotReady, UpstreamStatus
from server.routing import run
from server.routing.breaker import BreakerSettings
from server.routing.budget import BudgetSettings
from tests.fakes.faults import closed_port, reset_before_head
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)
from tests.routing.conftest import FakeTarget
from tests.routing.stage import BOOM, Stage

NOTHING = BudgetSettings(ratio=0.0, floor=0)
#: It never trips: so every request has its attempts.
PATIENT = BreakerSettings(failures=10_000, volume=10_000)


@pytest.fixture(params=["default", "patient"])
def breakers(stage: Stage, request: pytest.FixtureRequest) -> None:
    if request.param == "patient":
        stage.settings(breaker=PATIENT)


@pytest.mark.usefixtures("breakers")
@pytest.mark.parametrize("together", [1, 20])
@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_storm_costs_a_fifth_more(
    stage: Stage, upstream: ScriptedUpstream, count: int, together: int
) -> None:
    """Also where one target is all there is, and would be tried again."""
    upstream.default = BOOM
    chain = stage.chain(*[FakeTarget(f"t{n}", upstream.url) for n in range(count)])
    offered = 200
    for _ in range(offered // together):
        found = await asyncio.gather(*[stage.ask(chain) for _ in range(together)])
        assert {one.status for one in found} == {500}
        stage.clock.turn(0.01)
    attempts = len(upstream.requests)
    assert attempts == stage.attempts() == sum(one.record.attempts for one in stage.asked)
    spent = stage.count("retries_total", result="spent")
    # No request goes without its first attempt, and all of the budget is there to be used.
    assert attempts == offered + spent
    assert attempts == offered * 1.2
    assert stage.count("retries_total", result="refused") > 0
    assert stage.count("retries_total", result="free") == 0
    assert stage.metrics.registry.get_sample_value("roundhouse_retry_budget_used_ratio") == 1.0


async def test_engines_that_break_off_are_held_to_it_too(
    stage: Stage, upstream: ScriptedUpstream
) -> None:
    upstream.default = reset_before_head()
    targets = [FakeTarget(f"t{n}", upstream.url, retry_ambiguous=True) for n in range(3)]
    found = await stage.asks(stage.chain(*targets), 100)
    assert {one.status for one in found} == {502}
    assert len(upstream.requests) == 120


async def test_who_only_came_too_late_for_it_is_told_the_true_error(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    stage.settings(budget=NOTHING)
    upstream.default = BOOM
    found = await stage.ask(stage.chain(one, two))
    assert isinstance(found.error, UpstreamStatus)
    assert (found.status, found.record.attempts) == (500, 1)
    assert stage.count("retries_total", result="refused") == 1
    assert stage.count("retries_total") == 1


async def test_what_was_never_sent_costs_nothing(
    stage: Stage, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    stage.settings(budget=NOTHING, breaker=PATIENT)
    second.default = chat_answer()
    chain = stage.chain(one, two)
    with closed_port() as port:
        one.url = f"http://127.0.0.1:{port}"
        found = await stage.asks(chain, 30)
    assert {(each.target, each.record.attempts) for each in found} == {("two", 2)}
    assert stage.count("retries_total", result="free") == 30
    assert stage.count("retries_total") == 30


async def test_an_engine_lost_before_sending_costs_nothing(
    stage: Stage, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    stage.settings(budget=NOTHING)
    second.default = chat_answer()
    one.send_error = EngineNotReady("gone")
    assert (await stage.ask(stage.chain(one, two))).target == "two"
    assert stage.count("retries_total", result="free") == 1


async def test_a_free_attempt_that_fails_makes_the_next_no_gift(
    stage: Stage,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    stage.settings(budget=NOTHING)
    second.default = BOOM
    with closed_port() as port:
        one.url = f"http://127.0.0.1:{port}"
        found = await stage.ask(stage.chain(one, two, three))
    assert (found.status, found.record.attempts) == (500, 2)
    assert stage.count("retries_total", result="free") == 1
    assert stage.count("retries_total", result="refused") == 1
    assert third.requests == []


async def test_waiting_is_no_attempt_and_costs_nothing(
    stage: Stage, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    stage.settings(budget=NOTHING)
    one.ready = two.ready = False
    one.wait_error = EngineNotReady("failed")
    one.go.set()
    two.go.set()
    second.default = chat_answer()
    found = await stage.ask(stage.chain(one, two))
    assert (found.target, found.record.attempts) == ("two", 1)
    assert stage.count("retries_total") == 0


async def test_what_is_paid_for_once_is_not_paid_twice(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    """The second attempt was paid for; then its engine had to be waited for."""
    stage.settings(budget=BudgetSettings(ratio=0.0, floor=1))
    upstream.default, second.default = BOOM, chat_answer()
    lazy = FakeTarget("two", second.url, ready=False)
    lazy.go.set()
    found = await stage.ask(stage.chain(one, lazy))
    assert (found.target, found.record.attempts) == ("two", 2)
    assert stage.count("retries_total", result="spent") == 1
    assert stage.count("retries_total") == 1


async def test_the_last_one_is_given_once(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    """To many that fail in one moment."""
    stage.settings(budget=BudgetSettings(ratio=0.0, floor=1))
    gate = Gate()
    upstream.default, second.default = answer_late(gate, BOOM), chat_answer()
    chain = stage.chain(one, two)
    asked = [stage.start(chain) for _ in range(5)]
    for _ in asked:
        await upstream.next_request()
    gate.open()
    found = await asyncio.gather(*asked)
    assert sorted(each.status for each in found) == [200, 500, 500, 500, 500]
    assert len(second.requests) == 1
    assert stage.count("retries_total", result="refused") == 4


async def test_it_comes_back_with_time(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    stage.settings(budget=BudgetSettings(ratio=0.0, floor=2, window=10.0), breaker=PATIENT)
    upstream.default = BOOM
    chain = stage.chain(one)
    assert [each.record.attempts for each in await stage.asks(chain, 3)] == [3, 1, 1]
    stage.clock.turn(10.1)
    assert [each.record.attempts for each in await stage.asks(chain, 2)] == [3, 1]


async def test_a_reload_that_leaves_it_alone_leaves_what_was_spent(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    stage.settings(budget=BudgetSettings(ratio=0.0, floor=2), breaker=PATIENT)
    upstream.default = BOOM
    chain = stage.chain(one)
    assert (await stage.ask(chain)).record.attempts == 3
    stage.settings(attempts=2)
    assert (await stage.ask(chain)).record.attempts == 1
    stage.settings(budget=BudgetSettings(ratio=0.0, floor=1))
    assert (await stage.ask(chain)).record.attempts == 2


TOO_LONG = answer_json(400, error("too long", code="context_length_exceeded"))


async def test_the_step_to_a_larger_window_is_free_and_only_that(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    stage.settings(budget=NOTHING)
    upstream.default, second.default = TOO_LONG, BOOM
    found = await stage.ask(stage.chain(one, context=[two, three]))
    assert (found.status, found.record.attempts) == (500, 2)
    assert third.requests == []
    assert stage.count("retries_total", result="free") == 1
    assert stage.count("retries_total", result="refused") == 1


async def test_a_storm_behind_a_larger_window_costs_no_more(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    stage.settings(breaker=PATIENT)
    upstream.default, second.default = TOO_LONG, BOOM
    await stage.asks(stage.chain(one, context=[two]), 100)
    assert len(upstream.requests) == 100
    assert len(second.requests) == 120


async def test_a_refusal_is_counted_once(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    """Also where a second chance and another model's engine that loads would both cost it."""
    stage.settings(budget=NOTHING)
    upstream.default = BOOM
    two.ready = False
    found = await stage.ask(stage.chain(one, fallbacks=[two]))
    assert (found.status, found.record.attempts, two.waits) == (500, 1, [])
    assert stage.count("retries_total", result="refused") == 1


@pytest.mark.parametrize("dies", [True, False])
async def test_what_is_lost_with_an_engine_costs_nothing(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
    dies: bool,
) -> None:
    """Its end takes many requests with it, and none of them goes there again."""
    monkeypatch.setattr(run, "SETTLE", 0.0)
    stage.settings(budget=NOTHING)
    one.retry_ambiguous = True
    gate = Gate()
    upstream.default, second.default = answer_late(gate, reset_before_head()), chat_answer()
    chain = stage.chain(stage.route(one, free=True), two)
    asked = [stage.start(chain) for _ in range(30)]
    for _ in asked:
        await upstream.next_request()
    one.ready = not dies
    gate.open()
    found = await asyncio.gather(*asked)
    assert {each.status for each in found} == {200 if dies else 502}
    results = {"free": 30} if dies else {"refused": 30}
    for result, count in results.items():
        assert stage.count("retries_total", result=result) == count
