"""Engines that load, and the one deadline over all of it."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import (
    EngineNotReady,
    Overloaded,
    UpstreamStatus,
)
from server.routing import waiting
from server.routing.attempt import Pace
from tests.fakes.faults import hang
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
    sse,
)
from tests.routing.conftest import FakeTarget, Run, failing, request_of, text_of

# --- waiting


async def test_ready_ones_come_first_and_the_others_are_wanted(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.ready = False
    second.queue(chat_stream())
    await run(request_of(), one, two)
    assert run.attempts() == {("two", "ok"): 1}
    assert (one.wanted, two.wanted, one.waits) == (1, 0, [])
    assert run.fallbacks() == {"not_ready": 1}
    assert run.record.fallback_from == "one"


async def test_waiting_comes_last(
    run: Run,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    one.ready = False
    one.go.set()
    second.queue(answer_json(500, error("x")))
    upstream.queue(chat_answer())
    await run(request_of(stream=False), one, two)
    assert run.attempts() == {("two", "http_5xx"): 1, ("one", "ok"): 1}
    assert run.fallbacks() == {}  # the plan's first target answered after all
    assert (run.record.fallback_from, run.record.fallback_reason) == (None, None)


async def test_a_waiting_stream_gets_comments(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "COMMENT_EVERY", 0.001)
    run.pace = Pace(waiting=0.001, write=5, event_limit=1 << 20, answer_limit=1)
    one.ready = False
    upstream.queue(chat_stream())
    task = run.start(request_of(), one)
    await run.sink.written.at_least(3)
    assert run.sink.started
    assert not run.sink.committed
    assert set(run.sink.writes) == {b": waiting\n\n"}
    one.go.set()
    await task
    assert run.record.end == "done"
    assert text_of(run.sink.data) == "Hello"


async def test_a_short_wait_shows_nothing(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    one.ready = False
    one.go.set()
    upstream.queue(chat_stream())
    await run(request_of(), one)
    assert b"waiting" not in run.sink.data
    assert 29 < one.waits[0] <= 30  # the request's deadline


async def test_a_slow_client_while_waiting(run: Run, one: FakeTarget) -> None:
    run.pace = Pace(waiting=0, write=0.02, event_limit=1, answer_limit=1)
    run.sink.reads.clear()
    one.ready = False
    found = await failing(run, request_of(), one)
    assert (found.code, run.record.end) == ("slow_client", "slow_client")


async def test_a_wait_in_vain_goes_on(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.ready = two.ready = False
    one.wait_error = EngineNotReady("failed", retry_after=9)
    one.go.set()
    two.go.set()
    second.queue(chat_stream())
    await run(request_of(), one, two)
    assert run.attempts() == {("two", "ok"): 1}
    assert run.fallbacks() == {"not_ready": 1}


async def test_a_wait_in_vain_is_told(run: Run, one: FakeTarget) -> None:
    one.ready = False
    one.wait_error = EngineNotReady("failed", retry_after=9)
    one.go.set()
    found = await failing(run, request_of(stream=False), one)
    assert (found.status, found.retry_after) == (503, 9)
    assert run.attempts() == {}


async def test_a_targets_own_error_says_more_than_one_that_was_not_up(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.ready = False
    one.wait_error = EngineNotReady("failed")
    one.go.set()
    second.queue(answer_json(429, error("x"), {"retry-after": "3"}))
    found = await failing(run, request_of(), one, two)
    assert isinstance(found, UpstreamStatus)


async def test_our_own_overload_is_final(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.ready = two.ready = False
    one.wait_error = Overloaded("full", retry_after=2)
    one.go.set()
    two.go.set()
    found = await failing(run, request_of(), one, two)
    assert found is one.wait_error
    assert second.requests == []
    assert two.waits == []


async def test_an_engine_lost_between_plan_and_sending(
    run: Run, second: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.send_error = EngineNotReady("gone")
    second.queue(chat_stream())
    await run(request_of(), one, two)
    assert run.attempts() == {("one", "not_ready"): 1, ("two", "ok"): 1}
    assert one.failures == []


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_while_waiting(run: Run, one: FakeTarget, stream: bool) -> None:
    one.ready = False
    task = run.start(request_of(stream=stream), one)
    while not one.waits:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.attempts() == {}


# --- the deadline


@pytest.mark.parametrize("stream", [True, False])
async def test_one_deadline_over_all_attempts(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget, stream: bool
) -> None:
    one.retry_ambiguous = True
    upstream.queue(hang)
    found = await failing(run, request_of(stream=stream, deadline=0.1), one, two)
    assert (found.status, run.attempts()) == (504, {("one", "deadline"): 1})
    await upstream.disconnected()


async def test_the_deadline_holds_until_the_first_event(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.retry_ambiguous = True
    upstream.queue(sse([b": alive\n\n", hang]))
    await failing(run, request_of(deadline=0.1), one, two)
    assert run.attempts() == {("one", "deadline"): 1}


async def test_the_deadline_ends_with_the_first_event(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    late = asyncio.Event()
    upstream.queue(sse(['{"choices":[{}]}', late, "[DONE]"]))
    request = request_of(deadline=1.0)
    task = run.start(request, one)
    await run.sink.written.at_least(1)
    asyncio.get_running_loop().call_later(1.1, late.set)
    await task
    assert run.record.end == "done"


async def test_the_deadline_holds_for_a_whole_answer(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(chat_answer(gate=Gate(3)))
    await failing(run, request_of(stream=False, deadline=0.1), one)
    assert run.attempts() == {("one", "deadline"): 1}


async def test_no_attempt_begins_after_the_deadline(
    run: Run, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    now = 0.0
    run.dispatcher.clock = lambda: now
    one.ready = False
    one.wait_error = EngineNotReady("failed", retry_after=4)
    request = request_of(stream=False)
    request.deadline = 10.0
    two.ready = False
    task = run.start(request, one, two)
    while not one.waits:
        await asyncio.sleep(0)
    now = 11.0
    one.go.set()
    with pytest.raises(EngineNotReady):
        await task
    assert (one.waits, two.waits) == ([10.0], [])
