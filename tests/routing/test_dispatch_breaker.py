"""Breakers at work: who is passed over, for how long, and who is sent to find out."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import EngineNotReady, UpstreamStatus
from server.routing.breaker import State
from server.routing.chain import Chain
from tests.fakes.faults import cut_chunk
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    error,
    sse,
)
from tests.routing.conftest import CHUNK, FakeTarget
from tests.routing.stage import Stage

BOOM = answer_json(500, error("boom"))


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


# --- rate limits


async def test_retry_after_is_kept_to(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    upstream.queue(answer_json(429, error("slow down"), {"retry-after": "7"}))
    upstream.default = second.default = chat_answer()
    assert (await stage.ask(chain)).record.attempts == 2
    assert stage.count("breaker_state", target="one", state="resting") == 1
    stage.clock.turn(6.9)
    found = await stage.ask(chain)
    assert (found.target, found.record.attempts) == ("two", 1)
    assert found.record.fallback_reason == "rate_limited"
    stage.clock.turn(0.2)
    found = await stage.ask(chain)
    assert (found.target, found.record.fallback_reason) == ("one", None)
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-reset-requests": "12s", "x-ratelimit-remaining-requests": "0"}, 12.0),
        ({}, 1.0),  # no jitter
        ({"retry-after": "garbage"}, 1.0),
        ({"retry-after": "99999999"}, 600.0),  # nobody rests for longer
    ],
)
async def test_how_long_a_rest_is(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    headers: dict[str, str],
    seconds: float,
) -> None:
    stage.drawn = 0.0
    chain = stage.chain(one, two)
    upstream.queue(answer_json(429, error("slow down"), headers))
    upstream.default = second.default = chat_answer()
    await stage.ask(chain)
    stage.clock.turn(seconds - 0.01)
    assert (await stage.ask(chain)).target == "two"
    stage.clock.turn(0.02)
    assert (await stage.ask(chain)).target == "one"


async def test_when_all_rest_nobody_is_asked(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    upstream.queue(answer_json(429, error("x"), {"retry-after": "20"}))
    second.queue(answer_json(429, error("x"), {"retry-after": "30"}))
    first = await stage.ask(chain)
    assert (first.status, first.record.attempts) == (429, 2)
    stage.clock.turn(4)
    found = await stage.ask(chain)
    assert isinstance(found.error, UpstreamStatus)
    assert (found.status, found.error.code) == (429, "upstream_rate_limited")
    assert found.error.type == "rate_limit_error"
    assert found.error.headers() == {"retry-after": "16"}
    assert (found.record.attempts, found.record.target) == (0, None)
    assert stage.attempts() == 2


async def test_a_429_without_a_time_is_told_with_one(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(429, error("x")))
    found = await stage.ask(stage.chain(one))
    assert found.error is not None
    assert found.error.headers() == {"retry-after": "1"}


@pytest.mark.parametrize("attempts", [1, 3])
async def test_also_where_one_attempt_is_all_there_is(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget, attempts: int
) -> None:
    stage.settings(attempts=attempts)
    upstream.queue(answer_json(429, error("x")))
    found = await stage.ask(stage.chain(one))
    assert found.error is not None
    assert found.error.headers() == {"retry-after": "1"}


async def test_a_503_with_a_time_opens_for_so_long_once_it_trips(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    chain = stage.chain(one, two)
    upstream.default = answer_json(503, error("x"), {"retry-after": "40"})
    second.default = chat_answer()
    await stage.asks(chain, 5)
    upstream.default = chat_answer()
    stage.clock.turn(39)
    assert (await stage.ask(chain)).target == "two"
    stage.clock.turn(2)
    assert (await stage.ask(chain)).target == "one"


# --- credentials

REFUSED = answer_json(401, error("bad key"))


@pytest.mark.parametrize("status", [401, 402])
async def test_a_refused_credential_keeps_all_of_its_targets_back(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    status: int,
) -> None:
    routes = [stage.route(one, account="a"), stage.route(two, account="a")]
    other = stage.route(three, account="b")
    chain = stage.chain(*routes, other)
    upstream.queue(answer_json(status, error("bad key")))
    third.default = chat_answer()
    found = await stage.ask(chain)
    # The second would only be refused as the first was.
    assert (found.target, found.record.attempts) == ("three", 2)
    assert found.record.fallback_reason == "http_auth"
    assert [stage.state(route) for route in routes] == [State.CLOSED] * 2
    assert {stage.account(route) for route in routes} == {State.OPEN}
    assert stage.account(other) is State.CLOSED
    assert stage.count("credential_state", provider="a", state="open") == 1
    assert stage.count("credential_state", provider="b", state="closed") == 1
    assert stage.count("breaker_state", target="one", state="closed") == 1
    found = await stage.ask(chain)
    assert (found.target, found.record.attempts) == ("three", 1)
    assert found.record.fallback_reason == "breaker"
    # Both of them, and both at once: one of them finds out.
    stage.clock.turn(30)
    upstream.default = second.default = answer_late(gate := Gate(), chat_answer())
    asked = [stage.start(stage.chain(route, other)) for route in routes]
    assert (await asked[1]).target == "three"
    gate.open()
    assert (await asked[0]).target == "one"
    assert second.requests == []


async def test_a_target_without_others_is_kept_back_with_its_credential(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    chain = stage.chain(stage.route(one, account="a"))
    upstream.queue(REFUSED)
    first = await stage.ask(chain)
    assert (first.status, first.record.attempts) == (502, 1)
    found = await stage.ask(chain)
    assert found.error is not None
    assert (found.status, found.error.code) == (502, "upstream_refused_credentials")
    assert found.record.attempts == 0
    assert found.error.retry_after is not None
    assert 20 < found.error.retry_after <= 30


async def test_without_a_credential_401_trips_nothing(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    route = stage.route(one)
    upstream.default = REFUSED
    assert {found.status for found in await stage.asks(stage.chain(route), 6)} == {502}
    assert stage.state(route) is State.CLOSED


async def test_faults_of_a_target_say_nothing_of_its_credential(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    route = stage.route(one, account="a")
    upstream.default = BOOM
    await stage.asks(stage.chain(route), 3)
    upstream.default = answer_json(429, error("x"), {"retry-after": "9"})
    await stage.ask(stage.chain(route))
    assert stage.account(route) is State.CLOSED
    neighbour = stage.route(FakeTarget("two", second.url), account="a")
    second.queue(chat_answer())
    assert (await stage.ask(stage.chain(neighbour))).target == "two"


@pytest.mark.parametrize(
    ("label", "status", "state"),
    [
        ("up/*", 403, State.CLOSED),
        ("up/*", 401, State.OPEN),
        ("up/*", 402, State.OPEN),
        ("up/known", 403, State.CLOSED),
        ("up/known", 401, State.OPEN),
    ],
)
async def test_an_id_that_an_account_may_not_use_is_only_that(
    stage: Stage, upstream: ScriptedUpstream, label: str, status: int, state: State
) -> None:
    """Any client can name any id at a provider."""
    route = stage.route(FakeTarget(label, upstream.url), account="up")
    upstream.queue(answer_json(status, error("not for you")))
    found = await stage.ask(stage.chain(route))
    assert (found.status, stage.account(route)) == (502, state)
    assert stage.attempts(target=label, outcome="http_auth") == 1


async def test_a_model_that_an_account_may_not_use_is_left_alone_by_itself(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    """Or one entry of the config would keep everybody from the account."""
    barred, fine = stage.route(one, account="a"), stage.route(two, account="a")
    upstream.queue(answer_json(403, error("no access to this model")))
    second.default = chat_answer()
    found = await stage.ask(stage.chain(barred, fine))
    assert (found.target, found.record.attempts) == ("two", 2)
    assert (stage.state(barred), stage.account(fine)) == (State.OPEN, State.CLOSED)
    found = await stage.ask(stage.chain(barred, fine))
    assert (found.target, found.record.attempts) == ("two", 1)


async def test_content_that_a_provider_refuses_says_nothing_of_the_credential(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    """Or one client's prompt would keep everybody from the account."""
    route = stage.route(one, account="a")
    upstream.queue(answer_json(403, error("Your input was flagged by the moderation.")))
    found = await stage.ask(stage.chain(route))
    assert found.record.attempts == 1
    assert stage.account(route) is State.CLOSED
