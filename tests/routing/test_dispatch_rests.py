"""Targets that say when to come back: 429, and 503 with a time."""

from __future__ import annotations

import pytest

from server.errors import UpstreamStatus
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_json,
    chat_answer,
    error,
)
from tests.routing.conftest import FakeTarget
from tests.routing.stage import Stage


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
        ({"retry-after": "0"}, 0.25),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.25),
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


async def test_the_client_is_told_how_long_the_target_rests(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(429, error("x"), {"retry-after": "86400"}))
    chain = stage.chain(one)
    for _ in range(2):
        found = await stage.ask(chain)
        assert found.error is not None
        assert found.error.headers() == {"retry-after": "600"}


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
