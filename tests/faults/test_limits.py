"""A target that says 429: another one answers; with none left, the client hears when to come."""

from __future__ import annotations

import pytest

from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, chat_stream, error
from tests.faults.conftest import ONE, TWO, Serve, answered_by, config_of

SLOW_DOWN = answer_json(429, error("slow down", "rate_limit_error"), {"retry-after": "7"})


@pytest.mark.parametrize("stream", [True, False])
async def test_another_target_answers(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, stream: bool
) -> None:
    one.default = SLOW_DOWN
    two.default = chat_stream(["from two"]) if stream else chat_answer("from two")
    house = await serve(config_of(one, two))
    answered_by(await house.ask(stream=stream), TWO)
    assert await house.metric("attempts_total", target=ONE, outcome="http_429") >= 1
    assert await house.metric("fallbacks_total", model="m", reason="http_429") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_none_left_relays_when_to_come_again(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, stream: bool
) -> None:
    one.default = SLOW_DOWN
    two.default = SLOW_DOWN
    house = await serve(config_of(one, two))
    answer = await house.ask(stream=stream)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert "x-should-retry" not in answer.headers  # the SDK is to wait, and come
    for target in (ONE, TWO):
        assert await house.metric("attempts_total", target=target, outcome="http_429") >= 1
    assert await house.metric("requests_total", model="m", status="429") == 1
