"""Breakers at work: who is passed over, for how long, and who is sent to find out."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import EngineNotReady, UpstreamTooLarge
from server.routing.breaker import State
from server.routing.chain import Chain
from tests.fakes.faults import cut_chunk, endless_line
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_bytes,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    error,
    sse,
)
from tests.routing.conftest import CHUNK, PACE, FakeTarget
from tests.routing.stage import BOOM, Stage


async def tripped(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, chain: Chain
) -> None:
    """The first target of the chain fails five times; the second answers."""
    upstream.default, second.default = BOOM, chat_answer()
    found = await stage.asks(chain, 5)
    assert [one.record.attempts for one in found] == [2] * 5
    assert stage.state(chain.own.routes()[0]) is State.OPEN
    upstream.default = chat_answer()


async def test_a_target_that_failed_is_passed_over(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    await tripped(stage, upstream, second, chain)
    assert stage.count("retries_total", result="spent") == 5
    found = await stage.ask(chain)
    assert (found.target, found.record.attempts) == ("two", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "breaker")
    assert len(upstream.requests) == 5
    assert stage.count("fallbacks_total", reason="http_5xx") == 5
    assert stage.count("fallbacks_total", reason="breaker") == 1
    # To pass it over is no retry.
    assert stage.count("retries_total") == 5
    assert stage.count("breaker_state", target="one", state="open") == 1
    assert stage.count("breaker_state", target="one") == 1
    assert stage.count("breaker_state", target="two", state="closed") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_over_our_limit_is_final_and_trips_nothing(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    stream: bool,
) -> None:
    """The client asked for it: any other target would give as much."""
    one.retry_ambiguous = True
    chain = stage.chain(one, two)
    long = '{"choices": [{"logprobs": "' + "x" * PACE.answer_limit
    upstream.default = (
        sse([endless_line(begin=b"data: {")]) if stream else answer_bytes(200, long.encode())
    )
    for found in await stage.asks(chain, 6, stream=stream):
        assert isinstance(found.error, UpstreamTooLarge)
        assert (found.status, found.record.attempts) == (502, 1)
    assert stage.attempts(outcome="too_large") == 6
    assert second.requests == []
    assert stage.state(chain.own.routes()[0]) is State.CLOSED
    assert one.failures == []


async def test_one_probe_finds_out_and_a_ramp_follows(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    await tripped(stage, upstream, second, chain)
    stage.clock.turn(5)
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    asked = [stage.start(chain) for _ in range(12)]
    others = await asyncio.gather(*asked[1:])
    assert {other.target for other in others} == {"two"}
    assert {other.record.fallback_reason for other in others} == {"breaker"}
    assert len(upstream.requests) == 6
    assert stage.count("breaker_state", target="one", state="half_open") == 1
    gate.open()
    probe = await asked[0]
    assert (probe.target, probe.record.attempts, probe.record.fallback_from) == ("one", 1, None)
    assert stage.count("breaker_state", target="one", state="ramp") == 1
    # A tenth, a quarter, a half, all: each draw below the share goes there.
    for drawn, expected in [(0.11, "two"), (0.09, "one"), (0.26, "two"), (0.24, "one")]:
        if drawn == 0.26:
            stage.clock.turn(5)
        stage.drawn = drawn
        assert (await stage.ask(chain)).target == expected
    stage.drawn = 0.99
    stage.clock.turn(11)
    assert (await stage.ask(chain)).target == "one"
    assert stage.count("breaker_state", target="one", state="closed") == 1


async def test_a_stream_that_begins_is_a_good_probe(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    await tripped(stage, upstream, second, chain)
    stage.clock.turn(5)
    gate = Gate(2)
    upstream.default = chat_stream(gate=gate)
    task = stage.start(chain, stream=True)
    exchange = await upstream.next_request()
    while exchange.number <= 5:
        exchange = await upstream.next_request()
    await exchange.sent.at_least(1)
    while stage.state(chain.own.routes()[0]) is State.HALF_OPEN:
        await asyncio.sleep(0)
    assert stage.state(chain.own.routes()[0]) is State.RAMP
    gate.open()
    assert (await task).target == "one"


async def test_a_bad_probe_opens_it_for_twice_as_long(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    await tripped(stage, upstream, second, chain)
    upstream.default = BOOM
    stage.clock.turn(5)
    probe = await stage.ask(chain)
    assert (probe.target, probe.record.attempts, probe.record.fallback_reason) == (
        "two",
        2,
        "http_5xx",
    )
    stage.clock.turn(5)
    assert (await stage.ask(chain)).record.attempts == 1
    stage.clock.turn(5)
    assert (await stage.ask(chain)).record.attempts == 2
    assert len(upstream.requests) == 7


async def test_a_probe_whose_client_leaves_makes_room_for_the_next(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    await tripped(stage, upstream, second, chain)
    stage.clock.turn(5)
    upstream.default = answer_late(Gate(), chat_answer())
    task = stage.start(chain)
    while len(upstream.requests) < 6:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.disconnected()
    assert stage.attempts(target="one", outcome="client_gone") == 1
    upstream.default = chat_answer()
    assert (await stage.ask(chain)).target == "one"


async def test_streams_that_break_count_too(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    upstream.default, second.default = sse([CHUNK, cut_chunk]), chat_stream()
    for broken in await stage.asks(chain, 5, stream=True):
        assert broken.sink.committed
        assert broken.record.end in ("truncated", "reset")
    assert (await stage.ask(chain, stream=True)).target == "two"


async def test_what_is_the_clients_fault_trips_nothing(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    chain = stage.chain(one, two)
    upstream.default = answer_json(400, error("no"))
    assert {found.status for found in await stage.asks(chain, 20)} == {400}
    assert stage.state(chain.own.routes()[0]) is State.CLOSED
    assert len(upstream.requests) == 20


async def test_when_most_are_out_breakers_are_ignored(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    upstream.default = second.default = BOOM
    await stage.asks(chain, 5)
    assert [stage.state(route) for route in chain.own.routes()] == [State.OPEN] * 2
    upstream.default = chat_answer()
    assert (await stage.ask(chain)).target == "one"
    assert stage.state(chain.own.routes()[0]) is State.OPEN


async def test_without_panic_a_client_is_told_when_to_come_back(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    stage.settings(panic=1.0)
    stage.drawn = 0.0  # no jitter
    chain = stage.chain(one, two)
    upstream.default = second.default = BOOM
    while not all(stage.state(route) is State.OPEN for route in chain.own.routes()):
        await stage.ask(chain)
    before = stage.attempts()
    stage.clock.turn(1.5)
    found = await stage.ask(chain)
    assert isinstance(found.error, EngineNotReady)
    assert found.error.code == "no_target_left"
    assert found.error.headers() == {"retry-after": "4"}
    assert stage.attempts() == before
    assert found.record.attempts == 0
