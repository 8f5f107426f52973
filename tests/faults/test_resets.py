"""Resets before any byte and in the middle of the head: the next target where the work may be done
(and billed) twice, the true error where it may not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    chat_answer,
    chat_stream,
    close_before_head,
    close_in_head,
    close_on_accept,
    garbage,
    hang_before_head,
    huge_headers,
    reset_before_head,
    reset_in_head,
    reset_on_accept,
    slow_head,
)
from tests.faults.conftest import ONE, TWO, Serve, answered_by, config_of

RESETS: dict[str, Any] = {
    "reset_on_accept": reset_on_accept(),
    "close_on_accept": close_on_accept(),
    "reset_before_head": reset_before_head(),
    "close_before_head": close_before_head(),
    "reset_in_head": reset_in_head(),
    "close_in_head": close_in_head(),
}
#: No head that could be read, and no connection that broke.
GARBAGE: dict[str, Any] = {"garbage": garbage(), "huge_headers": huge_headers()}
AGAIN = {"retry_ambiguous": True}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", [*RESETS, *GARBAGE])
async def test_the_next_target_answers(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, name: str, stream: bool
) -> None:
    one.default = {**RESETS, **GARBAGE}[name]
    two.default = chat_stream(["from two"]) if stream else chat_answer("from two")
    house = await serve(config_of(one, two, provider=AGAIN))
    answer = await house.ask(stream=stream)
    answered_by(answer, TWO)
    outcome = "reset" if name in RESETS else "protocol"
    assert await house.metric("attempts_total", target=ONE, outcome=outcome) >= 1
    assert await house.metric("fallbacks_total", model="m", reason=outcome) == 1
    assert await house.metric("requests_total", model="m", status="200") == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", list(RESETS))
async def test_what_may_have_been_billed_is_not_bought_twice(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, name: str, stream: bool
) -> None:
    """Paid providers are not asked again unless the config says so."""
    one.default = RESETS[name]
    two.default = chat_answer("from two")
    house = await serve(config_of(one, two))
    answer = await house.ask(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_reset")
    assert two.requests == []
    assert await house.metric("attempts_total", target=ONE, outcome="reset") == 1
    assert await house.metric("attempts_total") == 1
    assert await house.metric("requests_total", model="m", status="502") == 1


async def test_none_left_is_a_502(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    one.default = two.default = reset_before_head()
    house = await serve(config_of(one, two, provider=AGAIN))
    answer = await house.ask(stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_reset")
    for target in (ONE, TWO):
        assert await house.metric("attempts_total", target=target, outcome="reset") >= 1
    assert await house.metric("attempts_total") <= 3


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("name", ["hangs", "drips"])
async def test_a_head_that_does_not_come(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream, name: str, again: bool
) -> None:
    """One time-out over the whole head, however its bytes come."""
    script: Any = hang_before_head()
    if name == "drips":
        script = slow_head(Gate(10))
    one.default = script
    two.default = chat_answer("from two")
    provider = {"timeouts": {"first_byte": "200ms"}, "retry_ambiguous": again}
    house = await serve(config_of(one, two, provider=provider))
    answer = await house.ask()
    if again:
        answered_by(answer, TWO)
        assert await house.metric("fallbacks_total", reason="first_byte_timeout") == 1
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        assert two.requests == []
    assert await house.metric("attempts_total", target=ONE, outcome="first_byte_timeout") >= 1
    await one.disconnected()


async def test_a_kept_connection_that_the_peer_has_closed_meanwhile_is_not_used(
    serve: Serve, one: ScriptedUpstream, two: ScriptedUpstream
) -> None:
    """The commonest reset of all, and nothing was sent: it costs a connection, not an attempt."""
    one.default = chat_answer("from one")
    house = await serve(config_of(one, two))
    answered_by(await house.ask(), ONE)
    one.connections[0].close()
    await one.connections[0].lost.wait()
    answered_by(await house.ask(), ONE)
    assert await house.metric("attempts_total", target=ONE, outcome="ok") == 2
    assert await house.metric("attempts_total") == 2
