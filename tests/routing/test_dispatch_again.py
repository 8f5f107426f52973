"""A second attempt at the same target: only where nobody else is left, and it may help."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from server.dialects.table import DIALECTS
from server.routing import run
from server.routing.breaker import State
from server.routing.budget import Backoff
from server.routing.chain import Loading
from tests.fakes.faults import closed_port, garbage, hang, reset_before_head, short_body
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, chat_stream, error
from tests.routing.conftest import PACE, FakeTarget, text_of
from tests.routing.stage import BOOM, Stage


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_the_only_target_has_a_second_chance(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, status: int, stream: bool
) -> None:
    upstream.queue(answer_json(status, error("x")), chat_stream() if stream else chat_answer())
    found = await stage.ask(stage.chain(one), stream=stream)
    assert (found.target, found.record.attempts) == ("one", 2)
    # The plan's first has answered after all.
    assert (found.record.fallback_from, found.record.fallback_reason) == (None, None)
    assert stage.count("fallbacks_total") == 0
    assert stage.attempts(target="one", outcome="http_5xx") == 1


async def test_three_attempts_in_all(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(*[BOOM] * 3)
    found = await stage.ask(stage.chain(one))
    assert (found.status, found.record.attempts) == (500, 3)


async def test_others_come_first(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(BOOM, chat_answer())
    second.queue(BOOM)
    found = await stage.ask(stage.chain(one, fallbacks=[two]))
    assert (found.target, found.record.attempts) == ("one", 3)
    assert found.record.fallback_from is None


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (answer_json(400, error("x")), "http_4xx"),
        (answer_json(404, error("x")), "http_4xx"),
        (answer_json(408, error("x")), "http_4xx"),
        (answer_json(422, error("x")), "http_4xx"),
        (answer_json(429, error("x"), {"retry-after": "0"}), "http_429"),
        (answer_json(401, error("x")), "http_auth"),
        (answer_json(403, error("x")), "http_auth"),
        (reset_before_head(), "reset"),
        (garbage(), "protocol"),
        (short_body(), "truncated"),
    ],
)
async def test_what_a_provider_is_asked_once(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, script: Any, outcome: str
) -> None:
    upstream.queue(script)
    found = await stage.ask(stage.chain(one))
    assert found.record.attempts == 1
    assert found.error is not None
    assert stage.attempts(outcome=outcome) == 1
    assert stage.count("retries_total") == 0


@pytest.mark.parametrize("script", [reset_before_head(), garbage(), short_body()])
async def test_an_engine_of_ours_may_do_its_work_twice(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, script: Any
) -> None:
    one.retry_ambiguous = True
    upstream.queue(script, chat_answer())
    found = await stage.ask(stage.chain(one))
    assert (found.target, found.record.attempts) == ("one", 2)


async def test_nobody_listens_at_first(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    with closed_port() as port:
        one.url = f"http://127.0.0.1:{port}"
        found = await stage.ask(stage.chain(one))
    assert (found.status, found.record.attempts) == (502, 3)
    assert stage.attempts(outcome="refused") == 3


async def test_who_said_no_has_no_second_chance_but_the_others_do(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    one: FakeTarget,
    two: FakeTarget,
) -> None:
    upstream.queue(answer_json(429, error("x"), {"retry-after": "0"}))
    second.queue(BOOM, chat_answer())
    found = await stage.ask(stage.chain(one, two))
    assert (found.target, found.record.attempts) == ("two", 3)
    assert (found.record.fallback_from, found.record.fallback_reason) == ("one", "http_429")


async def test_a_target_that_is_its_own_larger_window_is_not_asked_twice(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget
) -> None:
    upstream.queue(answer_json(400, error("too long", code="context_length_exceeded")))
    found = await stage.ask(stage.chain(one, context=[one]))
    assert (found.status, found.record.attempts) == (400, 1)


async def test_one_that_trips_is_left_alone(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    """A breaker that opens in between has its say."""
    stage.settings(panic=1.0)
    two.ready = two.may_become_ready = False
    upstream.default = BOOM
    found = await stage.asks(stage.chain(one, two), 3)
    # The fifth failure opened it.
    assert [each.record.attempts for each in found] == [3, 2, 0]


class Sleeps:
    """`asyncio.sleep` that takes none of the test's time."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept: list[float] = []
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            if seconds:
                self.slept.append(seconds)
                stage.clock.turn(seconds)
            await real(0)

        monkeypatch.setattr(asyncio, "sleep", sleep)


@pytest.fixture
def sleeps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return Sleeps(stage, monkeypatch).slept


async def test_pauses_grow_and_are_told_as_waiting(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, sleeps: list[float]
) -> None:
    stage.settings(backoff=Backoff(0.25, 2.0))
    upstream.queue(BOOM, BOOM, chat_answer())
    found = await stage.ask(stage.chain(one))
    assert found.target == "one"
    assert sleeps == [0.125, 0.25]  # half of the longest, as drawn
    assert found.record.waited == 0.375
    assert found.record.waited_before == 0


async def test_no_pause_before_another_target(
    stage: Stage, upstream: ScriptedUpstream, second: ScriptedUpstream, sleeps: list[float]
) -> None:
    stage.settings(backoff=Backoff(0.25, 2.0))
    upstream.queue(BOOM)
    second.queue(chat_answer())
    one, two = FakeTarget("one", upstream.url), FakeTarget("two", second.url)
    assert (await stage.ask(stage.chain(one, two))).target == "two"
    assert sleeps == []


async def test_a_pause_that_ends_with_the_deadline_is_followed_by_nothing(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, sleeps: list[float]
) -> None:
    stage.settings(backoff=Backoff(60.0, 60.0))
    upstream.queue(BOOM)
    found = await stage.ask(stage.chain(one), deadline=3.0)
    assert (found.status, found.record.attempts) == (500, 1)
    assert sleeps == [pytest.approx(3.0)]
    assert len(upstream.requests) == 1


async def test_leaving_in_a_pause(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.settings(backoff=Backoff(60.0, 60.0))
    upstream.queue(BOOM)
    paused = asyncio.Event()

    async def sleep(seconds: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    task = stage.start(stage.chain(one))
    await upstream.next_request()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        await paused.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.attempts() == 1


async def test_the_deadline_is_not_waited_for(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    """Over while the first attempt was under way: the others are not begun."""

    async def late(exchange: Any) -> None:
        stage.clock.turn(31)
        await BOOM(exchange)

    upstream.queue(late)
    found = await stage.ask(stage.chain(one, two))
    assert (found.status, found.record.attempts) == (500, 1)


async def test_a_deadline_that_passes_is_no_fault_of_the_target(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, two: FakeTarget
) -> None:
    one.retry_ambiguous = True
    upstream.queue(hang)
    route = stage.route(one)
    found = await stage.ask(stage.chain(route, two), deadline=0.05)
    assert (found.status, found.record.attempts) == (504, 1)
    assert stage.attempts(outcome="deadline") == 1
    await upstream.disconnected()


# --- a provider that loads the model

LOADS = answer_json(503, {"error": "Model acme/m is currently loading", "estimated_time": 20.0})


@pytest.fixture
def hub(one: FakeTarget) -> FakeTarget:
    """The first target speaks as Hugging Face does."""
    one.dialect = DIALECTS["huggingface"]
    return one


@pytest.mark.parametrize("stream", [True, False])
async def test_who_loads_is_waited_for(
    stage: Stage, upstream: ScriptedUpstream, hub: FakeTarget, sleeps: list[float], stream: bool
) -> None:
    upstream.queue(LOADS, LOADS, chat_stream(["fine"]) if stream else chat_answer("fine"))
    found = await stage.ask(stage.chain(hub), stream=stream, deadline=60)
    assert (found.target, found.record.attempts) == ("one", 3)
    assert (sleeps, found.record.waited) == ([20.0, 20.0], 40.0)
    assert stage.count("bridge_total", outcome="waited") == 2


async def test_it_is_asked_as_often_as_the_deadline_allows(
    stage: Stage, upstream: ScriptedUpstream, hub: FakeTarget, sleeps: list[float]
) -> None:
    upstream.queue(*[answer_json(503, {"error": "loading", "estimated_time": 0})] * 9)
    upstream.queue(chat_answer("fine"))
    found = await stage.ask(stage.chain(hub), deadline=60)
    assert (found.target, found.record.attempts) == ("one", 10)
    assert sleeps == [1.0] * 9


async def test_but_not_where_another_can_answer(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    hub: FakeTarget,
    two: FakeTarget,
    sleeps: list[float],
) -> None:
    upstream.queue(LOADS)
    second.queue(chat_answer())
    found = await stage.ask(stage.chain(hub, two))
    assert (found.target, sleeps) == ("two", [])


@pytest.mark.parametrize(
    ("loading", "deadline"), [(Loading.REFUSE, 60.0), (Loading.FALLBACK, 20.0)]
)
async def test_where_it_is_refused_or_too_long(
    stage: Stage,
    upstream: ScriptedUpstream,
    hub: FakeTarget,
    sleeps: list[float],
    loading: Loading,
    deadline: float,
) -> None:
    upstream.queue(LOADS)
    found = await stage.ask(stage.chain(hub, loading=loading), deadline=deadline)
    assert found.error is not None
    assert (found.status, found.error.code) == (503, "engine_loading")
    assert (found.error.retry_after, sleeps) == (20, [])


async def test_loading_is_no_failure(
    stage: Stage, upstream: ScriptedUpstream, hub: FakeTarget, sleeps: list[float]
) -> None:
    upstream.default = LOADS
    route = stage.route(hub)
    await stage.asks(stage.chain(route, loading=Loading.REFUSE), 9)
    assert stage.state(route) is State.CLOSED


async def test_a_stream_that_waits_shows_that_it_lives(
    stage: Stage, upstream: ScriptedUpstream, hub: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.pace = replace(PACE, waiting=0.0)
    upstream.queue(LOADS, chat_stream(["fine"]))
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        while seconds and not stage.asked[0].sink.data:
            await real(0)
        stage.clock.turn(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    found = await stage.ask(stage.chain(hub), stream=True)
    assert found.sink.data.startswith(b": waiting")
    assert text_of(found.sink.data) == "fine"


async def test_who_has_waited_for_an_engines_next_life_does_not_pause_as_well(
    stage: Stage, upstream: ScriptedUpstream, one: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others wait for its memory that life may be short."""
    pauses: list[float] = []

    async def paused(job: object, seconds: float) -> None:
        pauses.append(seconds)

    class Mortal(FakeTarget):
        def failed(self, mark: int) -> None:
            self.ready = False

    monkeypatch.setattr(run, "paused", paused)
    upstream.queue(reset_before_head(), chat_answer())
    mortal = Mortal("mortal", one.url, retry_ambiguous=True)
    mortal.go.set()
    found = await stage.ask(stage.chain(mortal))
    assert (found.target, found.record.attempts, len(mortal.waits)) == ("mortal", 2, 1)
    assert pauses == []
