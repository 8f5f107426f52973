"""Refused credentials: who is kept back, and who is not."""

from __future__ import annotations

import pytest

from server.routing.breaker import State
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

REFUSED = answer_json(401, error("bad key"))


@pytest.mark.parametrize("status", [401])
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
        ("up/*", 401, State.CLOSED),
        ("up/*", 402, State.CLOSED),
        ("up/known", 402, State.CLOSED),
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


async def test_who_is_refused_does_not_count_where_breakers_are_weighed(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    """The only one left is asked in spite of its breaker, as if it stood alone."""
    chain = stage.chain(stage.route(one, account="a"), stage.route(two, account="b"))
    upstream.queue(REFUSED)
    second.default = BOOM
    await stage.asks(chain, 5)
    assert stage.state(chain.own.routes()[1]) is State.OPEN
    second.default = chat_answer()
    found = await stage.ask(chain)
    assert (found.target, found.record.attempts) == ("two", 1)
    assert len(upstream.requests) == 1
