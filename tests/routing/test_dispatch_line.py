"""What may happen to a target while one waits for a place there."""

from __future__ import annotations

import asyncio

import pytest

from server.routing.breaker import BreakerSettings, State
from server.routing.chain import Chain
from server.routing.policies import Policy
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)
from tests.routing.conftest import FakeTarget
from tests.routing.stage import BOOM, Asked, Stage, busy, inside


async def tripping(
    stage: Stage, upstream: ScriptedUpstream, chain: Chain, waiting: int
) -> list[asyncio.Task[Asked]]:
    """One attempt is under way and these wait; then it fails, which opens the breaker."""
    stage.settings(breaker=BreakerSettings(failures=1), attempts=1)
    gate = Gate()
    upstream.default = answer_late(gate, BOOM)
    holder = stage.start(chain)
    await upstream.next_request()
    stage.settings(attempts=3)
    asked = [stage.start(chain) for _ in range(waiting)]
    await stage.until_waiting(waiting)
    gate.open()
    await holder
    return asked


async def test_who_waits_for_a_target_that_trips_goes_elsewhere(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    second.default = chat_answer()
    chain = stage.chain(stage.route(one, slots=1), fallbacks=[two])
    asked = await tripping(stage, upstream, chain, 4)
    found = await asyncio.gather(*asked)
    assert {(each.target, each.record.attempts) for each in found[:1]} == {("two", 1)}
    assert {each.target for each in found} == {"two"}
    assert {each.record.fallback_reason for each in found} == {"breaker"}
    assert len(upstream.requests) <= 2


async def test_who_waits_for_a_target_that_rests_is_told_when_it_is_back(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    gate = Gate()
    limited = answer_json(429, error("x"), {"retry-after": "9"})
    upstream.default = answer_late(gate, limited)
    chain = stage.chain(stage.route(one, slots=1))
    asked = [stage.start(chain) for _ in range(4)]
    await stage.until_waiting(3)
    gate.open()
    found = await asyncio.gather(*asked)
    assert {each.status for each in found} == {429}
    assert {each.error and each.error.retry_after for each in found} == {9.0}
    assert len(upstream.requests) == 1


async def test_the_line_behind_a_half_open_breaker_sends_one_probe(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    """Its time passes while two wait: one of them finds out, and the other goes elsewhere."""
    second.default = chat_answer()
    route = stage.route(one, slots=2)
    chain = stage.chain(route, fallbacks=[two])
    stage.settings(breaker=BreakerSettings(failures=1), attempts=1)
    gates = [Gate(), Gate()]
    upstream.queue(answer_late(gates[0], BOOM), answer_late(gates[1], BOOM))
    holders = [stage.start(chain) for _ in gates]
    for _ in gates:
        await upstream.next_request()
    asked = [stage.start(chain) for _ in gates]
    await stage.until_waiting(2)
    probe = Gate()
    upstream.default = answer_late(probe, chat_answer())
    for gate in gates:
        gate.open()
    now = stage.clock.now

    def later(_: object) -> None:
        stage.clock.now = now + 60

    holders[0].add_done_callback(later)
    await asyncio.gather(*holders)
    probe.open()
    found = await asyncio.gather(*asked)
    assert stage.state(route) in (State.RAMP, State.OPEN, State.HALF_OPEN)
    assert all(each.target in ("one", "two") for each in found)
    assert len(upstream.requests) <= 3


async def test_who_waits_for_an_engine_that_goes_waits_for_the_next(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    second.default = chat_answer()
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    task = stage.start(stage.chain(full, fallbacks=[two]))
    await stage.until_waiting(1)
    one.ready = one.may_become_ready = False
    gate.open()
    found = await task
    assert (found.target, found.record.attempts) == ("two", 1)
    assert found.record.fallback_reason == "not_ready"
    await holder


# --- other groups than the model's own


@pytest.mark.parametrize("own", [Policy.ORDERED, Policy.LEAST_BUSY])
@pytest.mark.parametrize("policy", [Policy.ORDERED, Policy.LEAST_BUSY])
async def test_a_fallback_waits_as_its_own_policy_says(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    own: Policy,
    policy: Policy,
) -> None:
    three.ready = three.may_become_ready = False
    routes = [stage.route(one, slots=1), stage.route(two, slots=1)]
    other = Gate()
    second.default = answer_late(other, chat_answer())
    holders = [await busy(stage, upstream, routes[0]), await busy(stage, second, routes[1])]
    chain = Chain(
        stage.group(three, policy=own), (stage.group(*routes, policy=policy, model="other"),)
    )
    task = stage.start(chain)
    both = policy is Policy.LEAST_BUSY
    await stage.until_waiting(1 + both)
    assert inside(stage) == {"one": (1, 1), "two": (1, int(both))}
    gate.open()
    other.open()
    found = await task
    assert found.target == "one" or both
    assert found.record.fallback_from == "three"
    await asyncio.gather(*holders)


async def test_an_engine_that_is_passed_over_is_woken_also_by_who_waits(
    stage: Stage,
    upstream: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    two.ready = False
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    task = stage.start(stage.chain(two, full))
    await stage.until_waiting(1)
    assert two.wanted == 1
    gate.open()
    assert (await task).target == "one"
    await holder
