"""Prompts that are too long for a model, and content that its provider refuses."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequest, UpstreamStatus
from server.protocol.envelope import Surface
from server.routing.abilities import Able
from server.routing.chain import Chain, Loading
from server.routing.policies import Policy
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    completion_stream,
    error,
    sse,
)
from tests.routing.conftest import FakeTarget, request_of
from tests.routing.stage import BOOM, Stage

LENGTH = answer_json(400, error("maximum context length is 9 tokens", "BadRequestError", 400))
CONTENT = answer_json(400, error("no", code="content_filter"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (LENGTH, "context"),
        (answer_json(413, error("prompt is too long: 9 tokens")), "context"),
        (answer_json(422, error("x", code="context_length_exceeded")), "context"),
        (CONTENT, "content"),
        (answer_json(403, error("Your input was flagged as unsafe")), "content"),
    ],
)
async def test_those_made_for_it_answer(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    script: Any,
    kind: str,
    stream: bool,
) -> None:
    upstream.queue(script)
    third.queue(chat_stream() if stream else chat_answer())
    chain = stage.chain(one, fallbacks=[two], **{kind: [three]})  # type: ignore[arg-type]
    found = await stage.ask(chain, stream=stream)
    # A plain fallback has no larger window and no other policy, for all we know.
    assert (found.target, found.record.attempts) == ("three", 2)
    reason = {"context": "context_length", "content": "content_policy"}[kind]
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", reason)
    assert stage.count("fallbacks_total", reason=reason) == 1
    assert stage.count("fallbacks_total") == 1
    assert second.requests == []


@pytest.mark.parametrize(
    ("script", "kind", "status"), [(LENGTH, "content", 400), (CONTENT, "context", 400)]
)
async def test_without_them_it_is_the_clients_own_error(
    stage: Stage,
    upstream: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    script: Any,
    kind: str,
    status: int,
) -> None:
    """Those for one trouble are no help in the other, nor are fallbacks in any."""
    upstream.queue(script)
    chain = stage.chain(one, fallbacks=[two], **{kind: [three]})  # type: ignore[arg-type]
    found = await stage.ask(chain)
    assert isinstance(found.error, UpstreamStatus)
    assert (found.status, found.record.attempts) == (status, 1)


async def test_refused_content_by_403_goes_to_fallbacks_where_there_is_nobody_else(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(403, error("flagged as unsafe")))
    second.queue(chat_answer())
    two = FakeTarget("two", second.url)
    found = await stage.ask(stage.chain(one, fallbacks=[two]))
    assert (found.target, found.record.attempts) == ("two", 2)


@pytest.mark.parametrize("script", [LENGTH, CONTENT])
async def test_a_second_refusal_is_told(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
    script: Any,
) -> None:
    """It is not handed on from trouble to trouble."""
    upstream.queue(LENGTH)
    second.queue(script)
    found = await stage.ask(stage.chain(one, context=[two], content=[three]))
    assert (found.status, found.record.attempts) == (400, 2)
    assert third.requests == []


async def test_within_them_one_stands_in_for_the_other(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    upstream.queue(LENGTH)
    second.queue(BOOM)
    third.queue(chat_answer())
    found = await stage.ask(stage.chain(one, context=[two, three]))
    assert (found.target, found.record.attempts) == ("three", 3)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "context_length")


async def test_after_another_targets_fault(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    upstream.queue(BOOM)
    second.queue(LENGTH)
    third.queue(chat_answer())
    found = await stage.ask(stage.chain(one, two, context=[three]))
    assert (found.target, found.record.attempts) == ("three", 3)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "context_length")


async def test_an_error_event_before_the_stream_is_no_different(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    said = {"error": {"message": "maximum context length is 9 tokens", "code": 400}}
    upstream.queue(sse([said]))
    second.queue(chat_stream())
    found = await stage.ask(stage.chain(one, context=[two]), stream=True)
    assert (found.target, found.record.fallback_reason) == ("two", "context_length")


async def test_an_engine_that_is_to_answer_then_is_waited_for(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    """Also where the model's own setting is to refuse: that is of its own engine."""
    upstream.queue(LENGTH)
    second.queue(chat_answer())
    two = FakeTarget("two", second.url, ready=False)
    two.go.set()
    found = await stage.ask(stage.chain(one, context=[two], loading=Loading.REFUSE))
    assert (found.target, found.record.attempts) == ("two", 2)


# --- what needs no target to be known

IDS: dict[str, Any] = {"surface": Surface.COMPLETIONS, "prompt": list(range(100))}
SMALL = Able(window=10)


async def test_too_long_for_all_is_seen_beforehand(
    stage: Stage,
    upstream: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    third.queue(completion_stream())
    chain = stage.chain(stage.route(one, able=SMALL), stage.route(two, able=SMALL), context=[three])
    found = await stage.ask(chain, stream=True, **IDS)
    assert (found.target, found.record.attempts) == ("three", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "context_length")
    assert stage.count("retries_total") == 0


async def test_too_long_for_one_is_the_others(
    stage: Stage, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget, three: FakeTarget
) -> None:
    """Larger windows are only for what none of the model's targets can take."""
    second.queue(completion_stream())
    chain = stage.chain(stage.route(one, able=SMALL), two, context=[three])
    found = await stage.ask(chain, stream=True, **IDS)
    assert (found.target, found.record.attempts) == ("two", 1)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "ability")


async def test_the_other_failed_and_the_rest_is_too_small(
    stage: Stage,
    upstream: ScriptedUpstream,
    third: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    three: FakeTarget,
) -> None:
    upstream.queue(BOOM)
    third.queue(completion_stream())
    chain = stage.chain(one, stage.route(two, able=SMALL), context=[three])
    found = await stage.ask(chain, stream=True, **IDS)
    assert (found.target, found.record.attempts) == ("three", 2)
    # That is a second attempt after a fault like any other.
    assert stage.count("retries_total", result="spent") == 1


async def test_too_long_for_everybody(stage: Stage, one: FakeTarget, two: FakeTarget) -> None:
    chain = stage.chain(
        stage.route(one, able=SMALL), context=[stage.route(two, able=Able(window=20))]
    )
    found = await stage.ask(chain, request=request_of(stream=False, **IDS))
    assert isinstance(found.error, InvalidRequest)
    assert (found.error.code, found.error.param) == ("context_length_exceeded", "prompt")
    assert found.record.attempts == 0


async def test_the_error_names_the_window_of_the_model_asked_for(
    stage: Stage, one: FakeTarget
) -> None:
    found = await stage.ask(stage.chain(stage.route(one, able=SMALL)), stream=True, **IDS)
    assert found.error is not None
    assert "`m`, 10 tokens" in found.error.message


async def test_a_policy_among_them(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, one: FakeTarget
) -> None:
    """The group that stands in has its own."""
    upstream.queue(LENGTH)
    second.queue(chat_answer())
    busy = stage.route(FakeTarget("busy", "http://127.0.0.1:1"))
    idle = stage.route(FakeTarget("idle", second.url))
    busy.standing.in_flight = 3
    group = stage.group(busy, idle, policy=Policy.LEAST_BUSY, model="long")
    found = await stage.ask(Chain(stage.group(one), context=(group,)))
    assert found.target == "idle"
    busy.standing.in_flight = 0
