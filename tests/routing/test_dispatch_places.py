"""Targets with a number of places: who waits, who goes elsewhere, and what is given back."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import Overloaded
from server.routing.policies import Policy
from tests.fakes.faults import hang
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_late,
    chat_answer,
    chat_stream,
)
from tests.routing.conftest import FakeTarget
from tests.routing.stage import BOOM, Stage, busy, inside

SPILLING = [Policy.WEIGHTED, Policy.LEAST_BUSY, Policy.LOWEST_LATENCY, Policy.AFFINITY]
STRICT = [Policy.ORDERED, Policy.CHEAPEST]


async def test_what_is_over_waits_its_turn(
    stage: Stage, upstream: ScriptedUpstream, gate: Gate, one: FakeTarget
) -> None:
    chain = stage.chain(stage.route(one, slots=2))
    asked = [stage.start(chain) for _ in range(5)]
    await stage.until_waiting(3)
    assert inside(stage) == {"one": (2, 3)}
    assert chain.own.routes()[0].standing.in_flight == 2
    assert len(upstream.requests) <= 2
    stage.clock.turn(2)
    gate.open()
    found = await asyncio.gather(*asked)
    assert {each.target for each in found} == {"one"}
    assert sorted(each.record.waited for each in found) == [0, 0, 2, 2, 2]
    assert [each.record.waited_before for each in found] == [each.record.waited for each in found]
    assert {each.record.fallback_from for each in found} == {None}
    assert stage.count("queue_wait_seconds_count", kind="target") == 5
    assert stage.count("queue_wait_seconds_sum", kind="target") == 6


@pytest.mark.parametrize("policy", STRICT)
async def test_an_order_is_kept_though_its_first_is_full(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    policy: Policy,
) -> None:
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    task = stage.start(stage.chain(full, stage.route(two, slots=1), policy=policy))
    await stage.until_waiting(1)
    assert inside(stage)["one"] == (1, 1)
    gate.open()
    assert (await task).target == "one"
    await holder
    assert second.requests == []


@pytest.mark.parametrize("policy", SPILLING)
async def test_where_any_is_as_good_it_spills(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    policy: Policy,
) -> None:
    second.default = chat_answer()
    full = stage.route(one, slots=1, weight=1000.0)
    holder = await busy(stage, upstream, full)
    found = await stage.ask(stage.chain(full, two, policy=policy))
    # It is the policy's own choice, and no fallback.
    assert (found.target, found.record.fallback_from) == ("two", None)
    assert stage.count("fallbacks_total") == 0
    gate.open()
    await holder


@pytest.mark.parametrize("policy", SPILLING)
async def test_it_waits_at_all_of_them_and_takes_the_first_place(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    policy: Policy,
) -> None:
    routes = [stage.route(one, slots=1), stage.route(two, slots=1)]
    other = Gate()
    second.default = answer_late(other, chat_answer())
    holders = [await busy(stage, upstream, routes[0]), await busy(stage, second, routes[1])]
    task = stage.start(stage.chain(*routes, policy=policy))
    await stage.until_waiting(2)
    other.release()
    await holders[1]
    await second.next_request()
    # It left the other line, and its holder is still there.
    assert inside(stage) == {"one": (1, 0), "two": (1, 0)}
    other.open()
    assert (await task).target == "two"
    gate.open()
    await holders[0]


@pytest.mark.parametrize("policy", list(Policy))
async def test_our_own_overload_is_no_reason_to_ask_another_model(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    policy: Policy,
) -> None:
    full = stage.route(one, slots=1, bound=0)
    holder = await busy(stage, upstream, full)
    chain = stage.chain(
        full, policy=policy, fallbacks=[two], context=[two], content=[two], bridge=three
    )
    found = await stage.ask(chain)
    assert isinstance(found.error, Overloaded)
    assert (found.status, found.record.attempts) == (503, 0)
    assert "retry-after" in found.error.headers()
    assert stage.count("shed_total", reason="target_queue") == 1
    assert inside(stage) == {"one": (1, 0)}
    gate.open()
    await holder
    assert second.requests == []


async def test_how_long_it_takes_is_told_once_it_is_known(
    stage: Stage, upstream: ScriptedUpstream, gate: Gate, one: FakeTarget
) -> None:
    full = stage.route(one, slots=1, bound=0)
    holder = await busy(stage, upstream, full)
    stage.clock.turn(4)
    gate.release()
    await holder
    holder = await busy(stage, upstream, full)
    found = await stage.ask(stage.chain(full))
    assert found.error is not None
    assert found.error.headers() == {"retry-after": "4"}
    gate.open()
    await holder


@pytest.mark.parametrize("patience", ["queue", "deadline"])
async def test_nobody_waits_forever(
    stage: Stage,
    upstream: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
    patience: str,
) -> None:
    """At most `timeouts.queue`, and never past the request's own deadline."""
    stage.settings(queue=0.0 if patience == "queue" else 30.0)
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    found = await stage.ask(
        stage.chain(full, fallbacks=[two]), deadline=0.0 if patience == "deadline" else 30.0
    )
    assert isinstance(found.error, Overloaded)
    assert stage.count("shed_total", reason="queue_timeout") == 1
    gate.open()
    await holder


async def test_a_wait_ends_with_its_time(
    stage: Stage, upstream: ScriptedUpstream, gate: Gate, one: FakeTarget
) -> None:
    stage.settings(queue=2.0)
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    task = stage.start(stage.chain(full))
    await stage.until_waiting(1)
    stage.clock.turn(3)
    gate.open()  # the place comes free too late
    found = await task
    assert isinstance(found.error, Overloaded)
    assert found.record.waited == 3
    await holder


async def test_leaving_the_line(
    stage: Stage, upstream: ScriptedUpstream, gate: Gate, one: FakeTarget
) -> None:
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    gone, stays = stage.start(stage.chain(full)), stage.start(stage.chain(full))
    await stage.until_waiting(2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert inside(stage) == {"one": (1, 1)}
    gate.open()
    assert (await stays).target == "one"
    await holder
    assert len(upstream.requests) == 2


async def test_leaving_in_the_moment_of_being_let_in(
    stage: Stage, upstream: ScriptedUpstream, gate: Gate, one: FakeTarget
) -> None:
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    gone, stays = stage.start(stage.chain(full)), stage.start(stage.chain(full))
    await stage.until_waiting(2)
    holder.add_done_callback(lambda _: gone.cancel())
    gate.open()
    assert (await stays).target == "one"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_leaving_with_a_place(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    full = stage.route(one, slots=1)
    upstream.queue(hang, chat_answer())
    gone = stage.start(stage.chain(full))
    await upstream.next_request()
    stays = stage.start(stage.chain(full))
    await stage.until_waiting(1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (await stays).target == "one"


async def test_a_place_is_held_while_a_stream_lasts(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    full = stage.route(one, slots=1)
    gate = Gate(2)
    upstream.queue(chat_stream(gate=gate), chat_answer())
    stream = stage.start(stage.chain(full), stream=True)
    await (await upstream.next_request()).sent.at_least(2)
    after = stage.start(stage.chain(full))
    await stage.until_waiting(1)
    assert len(upstream.requests) == 1
    gate.open()
    assert (await stream).target == (await after).target == "one"


async def test_a_failed_attempt_gives_its_place_back_before_the_next_begins(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(BOOM)
    gate = Gate()
    second.queue(answer_late(gate, chat_answer()))
    chain = stage.chain(stage.route(one, slots=1), stage.route(two, slots=1))
    task = stage.start(chain)
    await second.next_request()
    assert inside(stage) == {"one": (0, 0), "two": (1, 0)}
    gate.open()
    assert (await task).target == "two"


async def test_the_second_attempt_may_have_to_wait_too(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    gate: Gate,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    full = stage.route(one, slots=1)
    holder = await busy(stage, upstream, full)
    second.queue(BOOM)
    task = stage.start(stage.chain(two, full))
    await stage.until_waiting(1)
    gate.open()
    found = await task
    assert (found.target, found.record.attempts) == ("one", 2)
    assert stage.count("retries_total", result="spent") == 1
    await holder
