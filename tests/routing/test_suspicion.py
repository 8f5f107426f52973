"""What becomes of requests that an engine of ours may have died of."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from server.errors import InvalidRequest
from server.protocol.request import Request
from server.routing import suspicion
from tests.fakes.exchange import Exchange
from tests.fakes.faults import reset_before_head
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_json, chat_answer, error
from tests.routing.conftest import FakeTarget, request_of
from tests.routing.stage import Stage


@pytest.fixture
def ours(stage: Stage, one: FakeTarget, two: FakeTarget) -> tuple[FakeTarget, FakeTarget]:
    """Two instances of the engine `e`."""
    suspects = stage.dispatcher.suspects

    def refuses(request: Request) -> InvalidRequest | None:
        if suspects.refused("e", suspects.digest_of(request)) is None:
            return None
        return InvalidRequest("It crashed.", code="request_crashed_engine")

    for target in (one, two):
        target.local, target.retry_ambiguous, target.refusing = "e", True, refuses
    two.marks = 100
    return one, two


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for long."""
    monkeypatch.setattr(suspicion, "_LOOKS", (0.0, 0.0))
    monkeypatch.setattr(suspicion, "_LONG_LOOKS", (0.0, 0.0))


def suspected(stage: Stage, *texts: str, deaths: int = 2) -> list[Request]:
    """Requests that were in flight at so many deaths."""
    suspects = stage.dispatcher.suspects
    found = [request_of(stream=False, messages=[{"role": "user", "content": t}]) for t in texts]
    for death in range(-deaths, 0):
        for request in found:
            suspects.accuse("e", death, suspects.digest_of(request))
        suspects.died("e", death)
    return found


def counted(stage: Stage, event: str) -> int:
    return stage.count("suspects_total", engine="e", event=event)


async def test_the_second_engine_that_dies_of_it_is_the_last(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
) -> None:
    one, two = ours
    one.fate, two.fate = {1: True}, {101: True}
    upstream.queue(reset_before_head())
    second.queue(reset_before_head())
    found = await stage.ask(stage.chain(one, two))
    assert isinstance(found.error, InvalidRequest)
    assert (found.status, found.error.code) == (400, "request_crashed_engine")
    assert found.record.attempts == 2
    again = await stage.ask(stage.chain(one, two))
    assert (again.status, again.record.attempts) == (400, 0)
    assert (len(upstream.requests), len(second.requests)) == (1, 1)
    events = {e: counted(stage, e) for e in ("remembered", "suspected", "guilty", "refused")}
    assert events == {"remembered": 1, "suspected": 1, "guilty": 1, "refused": 2}


async def test_its_own_client_is_told_so_after_its_last_attempt(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
) -> None:
    one, two = ours
    stage.settings(attempts=2)
    one.fate, two.fate = {1: True}, {101: True}
    upstream.queue(reset_before_head())
    second.queue(reset_before_head())
    found = await stage.ask(stage.chain(one, two))
    assert found.error is not None
    assert (found.status, found.error.code) == (400, "request_crashed_engine")


async def test_a_provider_answers_what_engines_die_of(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    third: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
    three: FakeTarget,
) -> None:
    one, two = ours
    one.fate, two.fate = {1: True}, {101: True}
    upstream.queue(reset_before_head())
    second.queue(reset_before_head())
    third.default = chat_answer()
    found = await stage.ask(stage.chain(one, two, fallbacks=[three]))
    assert (found.target, found.record.attempts) == ("three", 3)
    assert (await stage.ask(stage.chain(one, two, fallbacks=[three]))).target == "three"
    assert counted(stage, "refused") == 0


async def test_the_providers_own_failure_is_told_as_it_is(
    stage: Stage, third: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget], three: FakeTarget
) -> None:
    """It may do better the next time."""
    one, _ = ours
    suspected(stage, "hi")
    suspects = stage.dispatcher.suspects
    assert suspects.refused("e", suspects.digest_of(request_of())) is not None
    third.default = answer_json(500, error("x"))
    found = await stage.ask(stage.chain(one, fallbacks=[three]))
    assert found.status == 500


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("fate", [None, False])
async def test_an_engine_that_lives_or_was_asked_to_end_blames_nobody(
    stage: Stage,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
    fate: bool | None,
) -> None:
    one, two = ours
    one.fate = {1: fate}
    upstream.queue(reset_before_head())
    second.default = chat_answer()
    assert (await stage.ask(stage.chain(one, two))).target == "two"
    assert not stage.dispatcher.suspects.any
    assert counted(stage, "suspected") == 0


async def test_after_one_death_all_go_again_at_once(
    stage: Stage, upstream: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget], gate: Gate
) -> None:
    one, _ = ours
    requests = suspected(stage, "first", "second", "third", deaths=1)
    tasks = [stage.start(stage.chain(one), request=request) for request in requests]
    for _ in requests:
        await upstream.next_request()
    gate.open()
    assert [(await task).status for task in tasks] == [200] * 3
    assert counted(stage, "cleared") == 3
    assert not stage.dispatcher.suspects.any


async def test_who_was_alone_is_told_once_all_have_noticed(
    stage: Stage,
    upstream: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connections to a dead process do not break all at one moment."""
    one, _ = ours
    chain = stage.chain(one)
    looked, noticed = asyncio.Event(), asyncio.Event()
    asked: list[int] = []

    def died(mark: int) -> bool | None:
        if not asked:  # as it broke off
            asked.append(mark)
            return None
        looked.set()
        return True

    async def breaks_later(exchange: Exchange) -> None:
        await noticed.wait()
        exchange.reset()

    monkeypatch.setattr(suspicion, "_NOTICES", [0.01] * 10_000)
    monkeypatch.setattr(one, "mark", lambda: 7)
    monkeypatch.setattr(one, "died", died)
    (first,) = suspected(stage, "first", deaths=1)
    upstream.queue(breaks_later, reset_before_head())
    upstream.default = chat_answer()
    other = stage.start(chain)
    await upstream.next_request()
    task = stage.start(chain, request=first)
    await looked.wait()
    noticed.set()
    assert [(await task).status, (await other).status] == [200, 200]
    assert [counted(stage, "guilty"), counted(stage, "suspected")] == [0, 1]


async def test_what_says_no_has_not_died(
    stage: Stage, upstream: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget]
) -> None:
    one, _ = ours
    one.fate = {1: True}
    upstream.queue(answer_json(400, error("x")))
    assert (await stage.ask(stage.chain(one))).status == 400
    assert not stage.dispatcher.suspects.any


@pytest.mark.parametrize("status", [200, 400])
async def test_suspects_go_one_by_one_until_they_are_answered(
    stage: Stage,
    upstream: ScriptedUpstream,
    ours: tuple[FakeTarget, FakeTarget],
    gate: Gate,
    status: int,
) -> None:
    one, _ = ours
    first, second = suspected(stage, "first", "second")
    chain = stage.chain(one)
    held = stage.start(chain, request=first)
    await upstream.next_request()
    waits = stage.start(chain, request=second)
    free = stage.start(chain, request=request_of(stream=False))
    await upstream.next_request()
    assert not waits.done()
    assert stage.dispatcher.in_flight("one") == 2
    if status == 400:
        upstream.default = answer_json(400, error("x"))
    gate.open()
    assert [(await task).status for task in (held, free)] == [200, 200]
    assert (await waits).status == status
    assert not stage.dispatcher.suspects.any
    assert counted(stage, "cleared") == 2
    assert [len(upstream.requests), one.marks] == [3, 3]


async def test_a_client_that_leaves_lets_the_next_one_go(
    stage: Stage, upstream: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget], gate: Gate
) -> None:
    one, _ = ours
    first, second = suspected(stage, "first", "second")
    chain = stage.chain(stage.route(one, slots=2, bound=4))
    held = stage.start(chain, request=first)
    await upstream.next_request()
    waits = stage.start(chain, request=second)
    await asyncio.sleep(0)
    held.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await held
    await upstream.next_request()
    gate.open()
    assert (await waits).target == "one"
    # The one that left proved nothing.
    assert stage.dispatcher.suspects.any


async def test_nobody_waits_for_ever(
    stage: Stage, upstream: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget], gate: Gate
) -> None:
    one, _ = ours
    first, second = suspected(stage, "first", "second")
    chain = stage.chain(one)
    held = stage.start(chain, request=first)
    await upstream.next_request()
    found = await stage.ask(chain, request=second, deadline=0.0)
    assert found.error is not None
    assert (found.status, found.error.code) == (503, "overloaded")
    assert "retry-after" in found.error.headers()
    assert stage.count("shed_total", reason="queue_timeout") == 1
    gate.open()
    assert (await held).target == "one"


async def test_a_stream_that_waits_for_its_turn_shows_that_it_lives(
    stage: Stage, upstream: ScriptedUpstream, ours: tuple[FakeTarget, FakeTarget], gate: Gate
) -> None:
    one, _ = ours
    stage.pace = replace(stage.pace, waiting=0.0)
    first, second = suspected(stage, "first", "second")
    second.stream = True
    chain = stage.chain(one)
    held = stage.start(chain, request=first)
    await upstream.next_request()
    waits = stage.start(chain, request=second)
    while not stage.asked[-1].sink.data:
        await asyncio.sleep(0)
    assert stage.asked[-1].sink.data.startswith(b": waiting")
    waits.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waits
    gate.open()
    await held
