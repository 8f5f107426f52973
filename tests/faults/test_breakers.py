"""What targets' faults do to the requests after them: rests, open breakers, one probe, and never a
storm of ours on top of theirs. `test_storm.py` has the same under load, and takes its time."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    closed_port,
    error,
    reset_before_head,
)
from tests.faults.conftest import ONE, TWO, House, Serve, answered_by, config_of

BOOM = answer_json(500, error("inside"))
#: A breaker that is soon half open again, though not before a scrape; and one that is not.
BRIEF: dict[str, Any] = {"routing": {"breaker": {"open_first": "1s", "open_cap": "1s"}}}
LONG: dict[str, Any] = {"routing": {"breaker": {"open_first": "60s", "open_cap": "60s"}}}


async def state(house: House, expected: str, target: str = ONE) -> None:
    """Until the target's breaker is in this state, and in no other."""
    async with asyncio.timeout(20):
        while not await house.metric_now("breaker_state", target=target, state=expected):
            await asyncio.sleep(0.01)  # that is for its clock to decide
    assert await house.metric_now("breaker_state", target=target) == 1


async def trip(house: House, one: ScriptedUpstream) -> None:
    """Fail until the first target is left alone."""
    one.default = BOOM
    for _ in range(5):
        answered_by(await house.ask(), TWO)
    assert len(one.requests) == 5


# --- 429


async def test_a_429_rests_the_target_for_as_long_as_it_says(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    one.default = answer_json(429, error("slow down"), {"retry-after": "600"})
    two.default = chat_answer("from two")
    for _ in range(10):
        answered_by(await house.ask(), TWO)
    assert len(one.requests) == 1
    await state(house, "resting")
    await state(house, "closed", TWO)
    assert await house.metric("attempts_total", target=ONE, outcome="http_429") == 1
    assert await house.metric("fallbacks_total", model="m", reason="http_429") == 1
    assert await house.metric("fallbacks_total", model="m") == 10


async def test_a_rest_has_an_end(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    one.queue(answer_json(429, error("slow down"), {"retry-after-ms": "200"}))
    one.default = chat_answer("from one")
    two.default = chat_answer("from two")
    answered_by(await house.ask(), TWO)
    await state(house, "closed")
    answered_by(await house.ask(), ONE)


async def test_while_all_rest_the_client_is_told_when_to_come(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    one.default = two.default = answer_json(429, error("slow down"), {"retry-after": "7"})
    assert (await house.ask()).status_code == 429
    for target in (ONE, TWO):
        await state(house, "resting", target)
    again = await house.ask()
    assert again.status_code in (429, 503)
    assert 0 < int(again.headers["retry-after"]) <= 7


# --- refused credentials


async def test_a_refused_credential_is_not_shown_again(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    house = await serve(config_of(one, two, provider={"api_key": "theirs"}))
    one.default = answer_json(401, error("Incorrect API key"))
    two.default = chat_answer("from two")
    for _ in range(5):
        answered_by(await house.ask(), TWO)
    assert len(one.requests) == 1
    assert await house.metric("credential_state", provider="one", state="open") == 1
    assert await house.metric("credential_state", provider="two", state="closed") == 1
    assert await house.metric("attempts_total", target=ONE, outcome="http_auth") == 1


# --- storms


@pytest.mark.parametrize("together", [1, 20])
@pytest.mark.parametrize("kind", ["500", "reset"])
async def test_a_storm_of_all_targets(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, together: int, kind: str
) -> None:
    """At most a fifth more attempts than requests, and true errors."""
    one.default = two.default = BOOM if kind == "500" else reset_before_head()
    # On a slow machine the storm lasts for more windows than one, each with a floor of its own.
    routing = {**LONG["routing"], "retry_floor": 0}
    house = await serve(config_of(one, two, provider={"retry_ambiguous": True}, routing=routing))
    offered = 200
    for _ in range(offered // together):
        for answer in await asyncio.gather(*(house.ask() for _ in range(together))):
            assert answer.status_code in (500, 502, 503)
            assert "inside" not in answer.text
    attempts = len(one.requests) + len(two.requests)
    assert attempts == await house.metric("attempts_total")
    assert attempts <= 1.2 * offered
    assert await house.metric("retries_total", result="spent") <= 0.2 * offered
    assert await house.metric("retry_budget_used_ratio") > 0
    for target in (ONE, TWO):
        await state(house, "open", target)
    assert await house.metric("requests_total", status="200") == 0
    assert await house.metric("requests_total", model="m") == offered


async def test_what_fails_is_left_alone_and_one_probe_asks_how_it_is(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    two.default = chat_answer("from two")
    house = await serve(config_of(one, two, **BRIEF))
    await trip(house, one)
    await state(house, "half_open")
    # The probe does not come back yet; all the others go elsewhere.
    gate = Gate()
    one.default = answer_late(gate, BOOM)
    probe = asyncio.create_task(house.ask())
    while len(one.requests) == 5:
        await asyncio.sleep(0)
    for answer in await asyncio.gather(*(house.ask() for _ in range(20))):
        answered_by(answer, TWO)
    assert len(one.requests) == 6
    await state(house, "half_open")
    gate.open()
    answered_by(await probe, TWO)
    await state(house, "open")
    # The next one finds it well, and it comes back step by step.
    one.default = chat_answer("from one")
    await state(house, "half_open")
    answered_by(await house.ask(), ONE)
    await state(house, "ramp")
    assert await house.metric("attempts_total", target=ONE, outcome="http_5xx") == 6
    assert await house.metric("attempts_total", target=ONE, outcome="ok") >= 1
    assert await house.metric("fallbacks_total", model="m") == await house.metric(
        "attempts_total", target=TWO, outcome="ok"
    )


async def test_a_client_that_leaves_does_not_keep_the_probe(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    two.default = chat_answer("from two")
    house = await serve(config_of(one, two, **BRIEF))
    await trip(house, one)
    await state(house, "half_open")
    one.default = answer_late(Gate(), BOOM)
    probe = asyncio.create_task(house.ask())
    while len(one.requests) == 5:
        await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await one.disconnected()
    await house.metric("attempts_total")
    one.default = chat_answer("from one")
    answer: httpx.Response | None = None
    async with asyncio.timeout(20):
        while answer is None or answer.headers["x-roundhouse-target"] != ONE:
            answer = await house.ask()
    answered_by(answer, ONE)


async def test_what_is_refused_costs_no_budget_and_opens_the_breaker_too(
    serve: Serve, two: ScriptedUpstream
) -> None:
    two.default = chat_answer("from two")
    with closed_port() as port:
        house = await serve(config_of(f"http://127.0.0.1:{port}", two, **LONG))
        for _ in range(30):
            answered_by(await house.ask(), TWO)
        await state(house, "open")
    assert await house.metric("attempts_total", target=ONE, outcome="refused") == 5
    assert await house.metric("retries_total", result="free") == 5
    assert await house.metric("retries_total", result="spent") == 0
    assert await house.metric("retry_budget_used_ratio") == 0


async def test_our_own_want_is_no_fault_of_the_target(
    house: House, one: ScriptedUpstream, two: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of descriptors: neither breaker moves, and nobody else is asked."""
    one.default = chat_answer("from one")
    with monkeypatch.context() as patch:
        patch.setattr("server.transport.descriptors.spare", lambda: False)
        for _ in range(20):
            assert (await house.ask()).status_code == 503
    assert await house.metric("shed_total", reason="fd") == 20
    await state(house, "closed")
    await state(house, "closed", TWO)
    assert two.requests == []
    answered_by(await house.ask(), ONE)
