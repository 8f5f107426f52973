"""What a request needs and not every target has."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import EngineNotReady, InvalidRequest
from server.protocol.parameters import Ceilings
from server.routing.abilities import Able
from server.routing.breaker import State
from server.targets import ProviderTarget
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, error
from tests.routing.conftest import TIMES, FakeTarget, request_of
from tests.routing.stage import Stage

TOOL = {"type": "function", "function": {"name": "f"}}
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]
SOUND = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}
NEEDS: list[tuple[str, dict[str, Any], str]] = [
    ("tools", {"tools": [TOOL]}, "tools"),
    ("json_schema", {"response_format": SCHEMA}, "response_format"),
    ("logprobs", {"logprobs": True}, "logprobs"),
    ("n", {"n": 2}, "n"),
    ("vision", {"messages": PICTURE}, "messages"),
    ("audio", {"messages": SOUND}, "messages"),
]


@pytest.mark.parametrize(("ability", "body", "param"), NEEDS)
async def test_one_that_lacks_it_is_passed_over(
    stage: Stage,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    ability: str,
    body: dict[str, Any],
    param: str,
) -> None:
    chain = stage.chain(stage.route(one, able=Able.of({ability: False})), two)
    second.queue(chat_answer())
    found = await stage.ask(chain, **body)
    assert (found.target, found.record.attempts) == ("two", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "ability")
    assert stage.count("fallbacks_total", reason="ability") == 1


@pytest.mark.parametrize(("ability", "body", "param"), NEEDS)
async def test_if_none_has_it_the_client_hears_which_models_do(
    stage: Stage,
    one: FakeTarget,
    two: FakeTarget,
    ability: str,
    body: dict[str, Any],
    param: str,
) -> None:
    lacking = Able.of({ability: False})
    chain = stage.chain(stage.route(one, able=lacking), fallbacks=[stage.route(two, able=lacking)])
    asked: list[str] = []

    def who_can(ability: str) -> list[str]:
        asked.append(ability)
        return ["good", "better"]

    stage.who_can = who_can
    found = await stage.ask(chain, **body)
    assert isinstance(found.error, InvalidRequest)
    assert (found.status, found.error.code) == (400, "unsupported_ability")
    assert found.error.param == param
    assert found.error.message.endswith("These can: `good`, `better`.")
    assert asked == [ability]
    assert (found.record.attempts, found.record.target) == (0, None)


async def test_if_nobody_has_it_nobody_is_named(stage: Stage, one: FakeTarget) -> None:
    chain = stage.chain(stage.route(one, able=Able.of({"tools": False})))
    found = await stage.ask(chain, tools=[TOOL])
    assert found.error is not None
    assert found.error.message == "`m` cannot call tools."


async def test_what_is_not_asked_for_is_not_missed(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    able = Able.of(dict.fromkeys(("tools", "vision", "n", "audio", "logprobs"), False), window=9)
    upstream.queue(chat_answer())
    found = await stage.ask(stage.chain(stage.route(one, able=able)), n=1, tools=[])
    assert found.target == "one"


async def test_hope_is_told_before_inability(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    """One of them lacks it, the other would answer if it were up: that is no 400."""
    chain = stage.chain(stage.route(one, able=Able.of({"tools": False})), two)
    two.ready = two.may_become_ready = False
    found = await stage.ask(chain, tools=[TOOL])
    assert isinstance(found.error, EngineNotReady)
    two.ready = True
    standing = chain.own.routes()[1].standing
    now = stage.clock.now
    standing.ended(now, standing.began(now), "http_429", 9.0)
    found = await stage.ask(chain, tools=[TOOL])
    assert (found.status, found.error and found.error.retry_after) == (429, 9.0)


async def test_those_that_cannot_answer_anyway_are_no_reason_for_panic(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, third: ScriptedUpstream
) -> None:
    """Of two targets that have tools one is out. That the third one is well helps nobody."""
    one, two = FakeTarget("one", upstream.url), FakeTarget("two", second.url)
    chain = stage.chain(
        stage.route(FakeTarget("none", third.url), able=Able.of({"tools": False})), one, two
    )
    upstream.default, second.default = answer_json(500, error("x")), chat_answer()
    await stage.asks(chain, 5, tools=[TOOL])
    assert stage.state(chain.own.routes()[1]) is State.OPEN
    found = await stage.ask(chain, tools=[TOOL])
    assert (found.target, found.record.attempts) == ("two", 1)


async def test_a_target_that_refuses_the_request_for_its_model(
    stage: Stage, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    """A fallback's ceiling passes it over, and is told when nobody else is left."""
    ceilings = Ceilings.of({"max_tokens": 10}, clamp=False)
    chain = stage.chain(stage.route(one, ceilings=ceilings), two)
    second.queue(chat_answer())
    assert (await stage.ask(chain, max_tokens=11)).target == "two"
    two.ready = two.may_become_ready = False
    alone = stage.chain(stage.route(one, ceilings=ceilings))
    found = await stage.ask(alone, max_tokens=11)
    assert isinstance(found.error, InvalidRequest)
    assert (found.error.code, found.error.param) == ("over_limit", "max_tokens")


# --- what a target is spared


def spared(upstream: ScriptedUpstream, label: str, *drop: str) -> ProviderTarget:
    able = Able.of({}, drop=frozenset(drop))
    return ProviderTarget(label, "x", f"{upstream.url}/v1", {}, TIMES, drop=able.drop)


async def test_dropped_members_are_named_and_not_missed(
    stage: Stage, upstream: ScriptedUpstream
) -> None:
    target = spared(upstream, "up", "logprobs", "tools")
    able = Able.of({"logprobs": False, "tools": False}, drop=frozenset({"logprobs", "tools"}))
    route = stage.route(target, able=able)  # type: ignore[arg-type]
    upstream.queue(chat_answer())
    request = request_of(
        stream=False, logprobs=True, top_logprobs=2, tools=[TOOL], tool_choice="auto", seed=1
    )
    found = await stage.ask(stage.chain(route), request=request)
    assert found.target == "up/x"
    assert set(request.dropped) == {"logprobs", "top_logprobs", "tools", "tool_choice"}
    assert set(upstream.requests[0].json()) == {"model", "messages", "seed"}


async def test_they_are_those_of_the_target_that_answered(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    routes = [
        stage.route(spared(upstream, "up", "seed")),  # type: ignore[arg-type]
        stage.route(spared(second, "second", "user")),  # type: ignore[arg-type]
    ]
    upstream.queue(answer_json(500, error("x")))
    second.queue(chat_answer())
    request = request_of(stream=False, seed=1, user="u")
    assert (await stage.ask(stage.chain(*routes), request=request)).target == "second/x"
    assert request.dropped == ("user",)
    assert "seed" in second.requests[0].json()
    assert "user" in upstream.requests[0].json()
