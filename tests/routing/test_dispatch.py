"""The attempt loop: who is tried, in which order, when it ends, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import (
    InvalidRequest,
    UpstreamError,
)
from server.routing.attempt import error_event
from server.transport import AttemptTimeouts
from tests.fakes.faults import closed_port, garbage, hang, reset_before_head, short_body
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
    redirect,
    sse,
)
from tests.routing.conftest import FakeTarget, Run, failing, payloads, request_of, text_of

# --- the order


async def test_the_first_target_answers(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    upstream.queue(chat_answer("Hi"))
    await run(request_of(stream=False), one, two)
    assert run.attempts() == {("one", "ok"): 1}
    assert run.fallbacks() == {}
    record = run.record
    assert (record.target, record.attempts, record.fallback_from) == ("one", 1, None)
    assert upstream.requests[0].json()["model"] == "theirs"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (answer_json(500, error("x")), "http_5xx"),
        (answer_json(503, error("x")), "http_5xx"),
        (answer_json(529, error("x")), "http_5xx"),
        (answer_json(429, error("x")), "http_429"),
        (answer_json(401, error("x")), "http_auth"),
        (answer_json(402, error("x")), "http_auth"),
        (answer_json(408, error("x")), "http_4xx"),
    ],
)
async def test_fallback(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    script: Any,
    outcome: str,
    stream: bool,
) -> None:
    upstream.queue(script)
    second.queue(chat_stream() if stream else chat_answer())
    await run(request_of(stream=stream), one, two)
    assert run.attempts() == {("one", outcome): 1, ("two", "ok"): 1}
    assert run.fallbacks() == {outcome: 1}
    record = run.record
    assert (record.target, record.attempts) == ("two", 2)
    assert (record.fallback_from, record.fallback_reason) == ("one", outcome)
    assert len(one.failures) == (outcome == "http_5xx")
    assert two.failures == []


async def test_what_was_never_sent_goes_on(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    second.queue(chat_stream())
    with closed_port() as port:
        one.url = f"http://127.0.0.1:{port}"
        await run(request_of(), one, two)
    assert run.attempts() == {("one", "refused"): 1, ("two", "ok"): 1}
    assert run.sink.data.count(b"[DONE]") == 1


AMBIGUOUS = [
    (reset_before_head(), "reset"),
    (garbage(), "protocol"),
    (redirect("http://127.0.0.1:1/"), "protocol"),
    (short_body(), "truncated"),
    (hang, "first_byte_timeout"),
]


@pytest.mark.parametrize(("script", "outcome"), AMBIGUOUS)
async def test_what_may_have_been_billed_is_final(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    script: Any,
    outcome: str,
) -> None:
    one.timeouts = AttemptTimeouts(5, 0.1, 5)
    upstream.queue(script)
    found = await failing(run, request_of(stream=False), one, two)
    assert isinstance(found, UpstreamError)
    assert (found.outcome, found.status) == (outcome, 504 if script is hang else 502)
    assert run.attempts() == {("one", outcome): 1}
    assert second.requests == []


async def test_an_error_that_never_ends_ends_with_the_deadline(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.routing.attempt._ERROR_TIME", 3600.0)

    async def stalls(exchange: Any) -> None:
        await exchange.head(500, {"content-type": "application/json"})
        await exchange.chunk(b"{")
        await exchange.hang()

    upstream.queue(stalls)
    found = await failing(run, request_of(stream=False, deadline=0.1), one, two)
    assert found.status == 500
    assert run.attempts() == {("one", "http_5xx"): 1}
    assert second.requests == []
    await upstream.disconnected()


@pytest.mark.parametrize(("script", "outcome"), AMBIGUOUS)
async def test_engines_try_again_elsewhere(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    script: Any,
    outcome: str,
) -> None:
    one.timeouts = AttemptTimeouts(5, 0.1, 5)
    one.retry_ambiguous = True
    upstream.queue(script)
    second.queue(chat_answer())
    await run(request_of(stream=False), one, two)
    assert run.attempts() == {("one", outcome): 1, ("two", "ok"): 1}
    assert one.failures == [1]


async def test_a_stream_broken_in_its_first_read_falls_back(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    both = b'data: {"choices":[{}],"usage":{"prompt_tokens":9}}\n\ndata: {"error":{"code":500}}\n\n'
    upstream.queue(sse([both]))
    second.queue(chat_stream(usage="none"))
    await run(request_of(), one, two)
    assert text_of(run.sink.data) == "Hello"
    assert run.fallbacks() == {"http_5xx": 1}
    assert run.record.usage is None  # the tokens of a failed attempt are nobody's


async def test_no_second_attempt_after_the_commit_point(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    one.retry_ambiguous = True
    gate = Gate(2)
    upstream.queue(sse(['{"choices":[{}]}', '{"error":{"message":"x"}}'], gate=gate))
    await run(request_of(), one, two)
    assert second.requests == []
    assert "error" in payloads(run.sink.data)[-1]
    assert run.record.fallback_from is None


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_the_clients_own_errors_are_final(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
    status: int,
) -> None:
    upstream.queue(answer_json(status, error("too long", code="ctx", param="messages")))
    found = await failing(run, request_of(), one, two)
    assert (found.status, found.message, found.code, found.param) == (
        status,
        "too long",
        "ctx",
        "messages",
    )
    assert second.requests == []
    assert one.failures == []  # it is in health: it said no


async def test_an_account_of_ours_is_no_ones_else_business(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(401, error("bad key sk-up-secret")))
    found = await failing(run, request_of(), one)
    assert (found.status, found.code) == (502, "upstream_refused_credentials")
    assert "sk-up" not in str(found.body())
    assert run.record.detail is not None


async def test_retry_after_is_kept_when_no_target_is_left(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(*[answer_json(500, error("x"))] * 2)
    second.queue(answer_json(429, error("x"), {"retry-after": "17"}))
    found = await failing(run, request_of(), one, two)
    assert (found.status, found.headers()) == (429, {"retry-after": "17"})
    assert run.attempts() == {("one", "http_5xx"): 2, ("two", "http_429"): 1}


async def test_at_most_three_attempts(run: Run, upstream: ScriptedUpstream, transport: Any) -> None:
    upstream.queue(*[answer_json(500, error("x"))] * run.dispatcher.settings.attempts)
    targets = [FakeTarget(f"t{n}", upstream.url) for n in range(5)]
    found = await failing(run, request_of(), *targets)
    assert found.status == 500
    assert [label for label, _ in run.attempts()] == ["t0", "t1", "t2"]
    assert run.dispatcher.settings.attempts == 3


async def test_a_target_that_stands_twice_is_tried_once(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    run.patience(1)
    upstream.queue(answer_json(500, error("x")))
    again = FakeTarget("one", upstream.url)
    await failing(run, request_of(), one, again)
    assert run.attempts() == {("one", "http_5xx"): 1}


async def test_a_target_that_refuses_is_passed_over(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    second.queue(chat_stream())
    one.refusal = InvalidRequest("not here", param="model")
    await run(request_of(), one, two)
    assert run.attempts() == {("two", "ok"): 1}


async def test_a_refusal_is_told_when_nobody_else_can(run: Run, one: FakeTarget) -> None:
    one.refusal = InvalidRequest("not here", param="model")
    assert (await failing(run, request_of(), one)) is one.refusal


async def test_no_targets(run: Run, one: FakeTarget) -> None:
    one.ready = one.may_become_ready = False
    for targets in ([], [one]):
        found = await failing(run, request_of(), *targets)
        assert (found.status, found.code) == (503, "no_target_left")
        assert "retry-after" in found.headers()


async def test_a_fault_of_ours_is_not_the_clients_going(run: Run, one: FakeTarget) -> None:
    one.send_error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await run(request_of(), one)
    assert run.attempts() == {("one", "internal"): 1}


async def test_in_flight_counts_while_it_lasts(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    gate = Gate()
    upstream.queue(chat_stream(gate=gate))
    task = run.start(request_of(), one)
    await upstream.next_request()
    assert run.dispatcher.in_flight("one") == 1
    assert run.dispatcher.in_flight("other") == 0
    gate.open()
    await task


# --- errors' bodies


async def test_an_error_answer_without_an_end(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(400, error("x" * 100_000)))
    found = await failing(run, request_of(), one)
    assert found.message == "The upstream refused the request (400)."


def test_error_events_hold_no_line_ends() -> None:
    event = error_event(InvalidRequest("a\nb"))
    assert event.count(b"\n") == 2
    assert event.endswith(b"\n\n")
