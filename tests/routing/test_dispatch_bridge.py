"""While an engine loads: another answers meanwhile, or it is waited for, or the client is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.errors import EngineNotReady, Overloaded
from server.routing.chain import Loading
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    error,
)
from tests.routing.conftest import FakeTarget
from tests.routing.stage import BOOM, Stage


@pytest.fixture
def engine(upstream: ScriptedUpstream, one: FakeTarget) -> FakeTarget:
    """It loads until `go` is set."""
    upstream.default = chat_answer()
    one.ready = False
    return one


@pytest.fixture
def cloud(second: ScriptedUpstream, two: FakeTarget) -> FakeTarget:
    second.default = chat_answer()
    return two


@pytest.fixture
def spare(third: ScriptedUpstream, three: FakeTarget) -> FakeTarget:
    third.default = chat_answer()
    return three


def bridged(stage: Stage) -> dict[str, int]:
    """Requests by what became of them."""
    outcomes = ("bridged", "waited", "refused")
    counts = {outcome: stage.count("bridge_total", outcome=outcome) for outcome in outcomes}
    return {outcome: count for outcome, count in counts.items() if count}


async def waiting(stage: Stage, engine: FakeTarget, *asked: asyncio.Task[Any]) -> None:
    while len(engine.waits) < len(asked):
        assert not any(task.done() for task in asked)
        await asyncio.sleep(0)


# --- the bridge


@pytest.mark.parametrize("loading", list(Loading))
async def test_the_bridge_answers_while_the_engine_loads_and_not_a_moment_longer(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget, spare: FakeTarget, loading: Loading
) -> None:
    chain = stage.chain(engine, bridge=cloud, fallbacks=[spare], loading=loading)
    found = await stage.ask(chain)
    assert (found.target, found.record.bridge, found.record.attempts) == ("two", "bridge", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "not_ready")
    assert found.record.waited == 0
    # Nobody waits for the engine: somebody has to want it.
    assert (engine.wanted, engine.waits) == (1, [])
    assert bridged(stage) == {"bridged": 1}
    assert stage.count("fallbacks_total", reason="not_ready") == 1
    engine.ready = True
    found = await stage.ask(chain)
    assert (found.target, found.record.bridge, found.record.fallback_from) == ("one", None, None)
    assert bridged(stage) == {"bridged": 1}


async def test_a_stream_over_the_bridge_outlives_the_loading(
    stage: Stage, second: ScriptedUpstream, engine: FakeTarget, cloud: FakeTarget
) -> None:
    gate = Gate(2)
    second.default = chat_stream(gate=gate)
    chain = stage.chain(engine, bridge=cloud)
    task = stage.start(chain, stream=True)
    await (await second.next_request()).sent.at_least(2)
    engine.ready = True
    assert (await stage.ask(chain)).target == "one"
    gate.open()
    found = await task
    assert (found.target, found.record.end, found.record.bridge) == ("two", "done", "bridge")


async def test_the_bridge_is_for_the_time_after_a_failure_too(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget, spare: FakeTarget
) -> None:
    engine.may_become_ready = False
    found = await stage.ask(stage.chain(engine, bridge=cloud, fallbacks=[spare]))
    assert (found.target, found.record.bridge) == ("two", "bridge")
    assert bridged(stage) == {"bridged": 1}


@pytest.mark.parametrize("fault", ["breaks", "is tried"])
async def test_the_bridge_is_for_loading_alone(
    stage: Stage,
    upstream: ScriptedUpstream,
    engine: FakeTarget,
    cloud: FakeTarget,
    spare: FakeTarget,
    fault: str,
) -> None:
    engine.ready, upstream.default = True, BOOM
    chain = stage.chain(engine, bridge=cloud, fallbacks=[spare])
    *_, found = await stage.asks(chain, 7 if fault == "breaks" else 1)
    assert (found.target, found.record.bridge) == ("three", None)
    assert bridged(stage) == {}


@pytest.mark.parametrize("fault", ["breaks", "is tried"])
async def test_a_bridge_that_is_a_fallback_too_is_that(
    stage: Stage, upstream: ScriptedUpstream, engine: FakeTarget, cloud: FakeTarget, fault: str
) -> None:
    engine.ready, upstream.default = True, BOOM
    chain = stage.chain(engine, bridge=cloud, fallbacks=[cloud])
    *_, found = await stage.asks(chain, 7 if fault == "breaks" else 1)
    assert (found.target, found.record.bridge) == ("two", None)
    assert bridged(stage) == {}


async def test_a_fallback_that_is_the_bridge_too_has_one_chance(
    stage: Stage, second: ScriptedUpstream, engine: FakeTarget, cloud: FakeTarget
) -> None:
    second.default = answer_json(429, error("x"), {"retry-after": "9"})
    engine.go.set()
    found = await stage.ask(stage.chain(engine, bridge=cloud, fallbacks=[cloud]))
    assert (found.target, found.record.attempts, found.record.bridge) == ("one", 2, None)
    assert len(second.requests) == 1


@pytest.mark.parametrize("loading", list(Loading))
async def test_if_the_bridge_fails_the_others_are_next(
    stage: Stage,
    second: ScriptedUpstream,
    engine: FakeTarget,
    cloud: FakeTarget,
    spare: FakeTarget,
    loading: Loading,
) -> None:
    second.default = BOOM
    engine.go.set()
    chain = stage.chain(engine, bridge=cloud, fallbacks=[spare], loading=loading)
    found = await stage.ask(chain)
    if loading is Loading.FALLBACK:
        assert (found.target, found.record.fallback_reason) == ("three", "http_5xx")
        assert bridged(stage) == {}
    elif loading is Loading.WAIT:
        assert (found.target, found.record.fallback_from) == ("one", None)
        assert bridged(stage) == {"waited": 1}
    else:
        assert isinstance(found.error, EngineNotReady)
        assert found.error.code == "engine_loading"
        assert bridged(stage) == {"refused": 1}
    assert found.record.bridge is None
    assert stage.attempts(target="two", outcome="http_5xx") == 1


async def test_a_bridge_that_is_full_is_waited_for_and_nobody_else_is_asked(
    stage: Stage,
    second: ScriptedUpstream,
    engine: FakeTarget,
    cloud: FakeTarget,
    spare: FakeTarget,
) -> None:
    gate = Gate()
    second.default = answer_late(gate, chat_answer())
    full = stage.route(cloud, model="bridge", slots=1, bound=1)
    chain = stage.chain(engine, bridge=full, fallbacks=[spare])
    asked = [stage.start(chain), stage.start(chain)]
    await stage.until_waiting(1)
    refused = await stage.ask(chain)
    assert isinstance(refused.error, Overloaded)
    assert engine.wanted == 3
    gate.open()
    found = await asyncio.gather(*asked)
    assert {each.record.bridge for each in found} == {"bridge"}
    assert bridged(stage) == {"bridged": 2}


async def test_a_bridge_that_loads_itself_is_no_help(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget, spare: FakeTarget
) -> None:
    cloud.ready = False
    found = await stage.ask(stage.chain(engine, bridge=cloud, fallbacks=[spare]))
    assert (found.target, found.record.bridge) == ("three", None)
    assert (engine.wanted, cloud.wanted) == (1, 1)


async def test_of_two_own_targets_the_ready_one_needs_no_bridge(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget, spare: FakeTarget
) -> None:
    found = await stage.ask(stage.chain(engine, spare, bridge=cloud))
    assert (found.target, found.record.bridge) == ("three", None)
    assert bridged(stage) == {}
    assert engine.wanted == 1


# --- waiting


@pytest.mark.parametrize("stream", [True, False])
async def test_wait_waits_though_a_fallback_could_answer(
    stage: Stage, upstream: ScriptedUpstream, engine: FakeTarget, cloud: FakeTarget, stream: bool
) -> None:
    upstream.default = chat_stream() if stream else chat_answer()
    chain = stage.chain(engine, fallbacks=[cloud], loading=Loading.WAIT)
    task = stage.start(chain, stream=stream)
    await waiting(stage, engine, task)
    stage.clock.turn(7)
    engine.go.set()
    found = await task
    assert (found.target, found.record.attempts) == ("one", 1)
    assert (found.record.waited, found.record.waited_before) == (7, 7)
    assert found.record.fallback_from is None
    assert bridged(stage) == {"waited": 1}
    # It waits as long as the request has time.
    assert engine.waits == [pytest.approx(30)]


async def test_after_a_wait_in_vain_the_fallback_answers(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget
) -> None:
    engine.wait_error = EngineNotReady("failed")
    engine.go.set()
    found = await stage.ask(stage.chain(engine, fallbacks=[cloud], loading=Loading.WAIT))
    assert (found.target, found.record.attempts) == ("two", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "not_ready")


async def test_its_full_line_is_our_own_overload(
    stage: Stage, second: ScriptedUpstream, engine: FakeTarget, cloud: FakeTarget
) -> None:
    engine.wait_error = Overloaded("full", retry_after=3)
    engine.go.set()
    found = await stage.ask(stage.chain(engine, fallbacks=[cloud], loading=Loading.WAIT))
    assert found.error is engine.wait_error
    assert second.requests == []


async def test_fallback_waits_only_where_nobody_can_answer(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget
) -> None:
    chain = stage.chain(engine, fallbacks=[cloud])
    assert (await stage.ask(chain)).target == "two"
    assert (engine.waits, engine.wanted) == ([], 1)
    cloud.ready = cloud.may_become_ready = False
    task = stage.start(chain)
    await waiting(stage, engine, task)
    engine.go.set()
    assert (await task).target == "one"
    assert bridged(stage) == {"waited": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_while_it_loads(stage: Stage, engine: FakeTarget, stream: bool) -> None:
    task = stage.start(stage.chain(engine), stream=stream)
    await waiting(stage, engine, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.attempts() == 0


async def test_all_who_waited_find_the_places_it_has(
    stage: Stage, upstream: ScriptedUpstream, engine: FakeTarget
) -> None:
    """Not all at once, when it is there."""
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    chain = stage.chain(stage.route(engine, slots=2))
    asked = [stage.start(chain) for _ in range(5)]
    await waiting(stage, engine, *asked)
    engine.go.set()
    await stage.until_waiting(3)
    assert chain.own.routes()[0].standing.in_flight == 2
    gate.open()
    assert {found.target for found in await asyncio.gather(*asked)} == {"one"}


# --- refusing


class Estimated(FakeTarget):
    def eta(self) -> float | None:
        return 41.2


async def test_refuse_tells_when_to_come_back(
    stage: Stage, second: ScriptedUpstream, upstream: ScriptedUpstream, cloud: FakeTarget
) -> None:
    engine = Estimated("one", upstream.url, ready=False)
    chain = stage.chain(engine, fallbacks=[cloud], loading=Loading.REFUSE)
    found = await stage.ask(chain)
    assert isinstance(found.error, EngineNotReady)
    assert (found.status, found.error.code) == (503, "engine_loading")
    assert found.error.headers() == {"retry-after": "42"}
    assert (found.record.attempts, found.record.waited) == (0, 0)
    assert bridged(stage) == {"refused": 1}
    # The next ones shall find it loaded.
    assert engine.wanted == 1
    assert second.requests == []
    engine.ready, upstream.default = True, chat_answer()
    assert (await stage.ask(chain)).target == "one"


async def test_refuse_is_of_the_models_own_engine(
    stage: Stage, engine: FakeTarget, cloud: FakeTarget
) -> None:
    """One that its fallback would need is waited for."""
    dead = FakeTarget("dead", ready=False, may_become_ready=False)
    engine.go.set()
    found = await stage.ask(stage.chain(dead, fallbacks=[engine], loading=Loading.REFUSE))
    assert found.target == "one"
    found = await stage.ask(stage.chain(cloud, engine, loading=Loading.REFUSE))
    assert found.target == "two"


async def test_an_engine_without_an_estimate_says_so_by_the_default(
    stage: Stage, engine: FakeTarget
) -> None:
    found = await stage.ask(stage.chain(engine, loading=Loading.REFUSE))
    assert found.error is not None
    assert found.error.headers() == {"retry-after": "5"}
