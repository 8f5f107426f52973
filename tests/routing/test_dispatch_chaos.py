"""Everything at once, by a seed: whatever happens, every request ends once and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.errors import EngineNotReady, Overloaded
from server.routing.abilities import Able
from server.routing.chain import Chain, Changing, Group, Loading, Route
from server.routing.policies import Policy
from server.transport import AttemptTimeouts
from tests.fakes.exchange import Exchange
from tests.fakes.faults import (
    bad_chunk_size,
    close_before_head,
    cut_chunk,
    error_event,
    garbage,
    reset,
    reset_before_head,
    reset_in_head,
    short_body,
)
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
    sse,
)
from tests.routing.conftest import CHUNK, MODEL, FakeTarget, text_of
from tests.routing.stage import Asked, Stage

TEXTS = ("one ", "two ", "three")
FAULTS: list[Any] = [
    *[answer_json(500, error("x"))] * 3,
    answer_json(503, error("x"), {"retry-after": "3"}),
    answer_json(429, error("x")),
    answer_json(429, error("x"), {"retry-after": "4"}),
    answer_json(401, error("x")),
    answer_json(403, error("x")),
    answer_json(400, error("no")),
    answer_json(400, error("x", code="context_length_exceeded")),
    answer_json(400, error("x", code="content_filter")),
    reset_before_head(),
    reset_in_head(),
    close_before_head(),
    garbage(),
    short_body(),
    sse([CHUNK, cut_chunk]),
    sse([CHUNK, bad_chunk_size]),
    sse([CHUNK, reset]),
    sse([error_event()]),
    sse([CHUNK, error_event()]),
    sse([CHUNK]),
]


class StandIn(FakeTarget):
    """For an engine none of whose replicas is well; who waits for it finds one that is."""

    replica: FakeTarget

    async def wait(self, timeout: float) -> None:
        self.wait_error = self.replica.wait_error
        await super().wait(timeout)
        self.ready, self.replica.ready = False, True


class Chaos:
    """Four upstreams behind a few models, and a mind that changes with every request."""

    def __init__(self, stage: Stage, upstreams: Sequence[ScriptedUpstream], seed: int) -> None:
        self.stage, self.random = stage, random.Random(seed)
        stage.drawn = 0.0
        stage.dispatcher.dice.draw = self.random.random
        #: Upstreams that break a good part of what they get.
        self.sick: set[int] = set()
        for number, upstream in enumerate(upstreams):
            upstream.default = self.script(number)
        self.targets = [self.target(f"t{n}", u) for n, u in enumerate(upstreams)]
        self.replicas = [self.target(f"engine/e@{n}", upstreams[n]) for n in range(3)]
        self.stand_in = StandIn("engine/e", ready=False, go=self.replicas[0].go)
        self.stand_in.replica = self.replicas[0]
        self.chains = self.make()

    def target(self, name: str, upstream: ScriptedUpstream) -> FakeTarget:
        times = AttemptTimeouts(connect=5, first_byte=5, inter_chunk=5)
        free = name.startswith("engine/")
        target = FakeTarget(name, upstream.url, times, retry_ambiguous=free)
        target.go.set()
        return target

    def script(self, number: int) -> Callable[[Exchange], Any]:
        async def script(exchange: Exchange) -> None:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0)
            if self.random.random() < (0.7 if number in self.sick else 0.05):
                await self.random.choice(FAULTS)(exchange)
            elif exchange.json().get("stream"):
                await chat_stream(TEXTS, splits=self.random)(exchange)
            else:
                await chat_answer("".join(TEXTS))(exchange)

        return script

    def make(self) -> list[Chain]:
        route = self.stage.route
        a, b, c, d = self.targets
        routes = [
            route(a, account="x", slots=3, bound=4, weight=2.0),
            route(b, account="x", able=Able.of({"n": False})),
            route(c, account="y", slots=2, bound=8),
        ]
        last = route(d, model="last")
        others = (Group("last", (last,)),)
        chains = [
            Chain(Group(MODEL, tuple(routes), policy), others, others, others) for policy in Policy
        ]
        engine = Group(MODEL, (Changing(self.well),), Policy.LEAST_BUSY)
        bridge = Group("bridge", (routes[2],))
        chains += [Chain(engine, others, bridge=bridge, loading=loading) for loading in Loading]
        return [*chains, chains[0].alone(), Chain(Group(MODEL, (routes[0],)))]

    def well(self) -> tuple[Route, ...]:
        """The replicas as they are; new objects each time, as after a scrape."""
        slots: dict[str, Any] = {"slots": 2, "bound": 3}
        found = [self.stage.route(one, **slots) for one in self.replicas if one.ready]
        return tuple(found) or (self.stage.route(self.stand_in),)

    def turn(self) -> None:
        """Something happens."""
        draw, stage = self.random, self.stage
        match draw.randrange(8):
            case 0:
                self.sick ^= {draw.randrange(4)}
            case 1:
                one = draw.choice([*self.replicas, self.targets[0]])
                one.ready = not one.ready
                one.wait_error = draw.choice([None, EngineNotReady("x"), Overloaded("x")])
            case 2:
                stage.clock.turn(draw.choice([0.1, 1.0, 6.0, 40.0]))
            case 3:
                stage.settings(attempts=draw.choice([2, 3, 3]))
            case 4:
                stage.dispatcher.forget([draw.choice(self.replicas).label])

    async def one(self) -> None:
        draw, stage = self.random, self.stage
        body = {"n": 2} if draw.random() < 0.1 else {}
        task = stage.start(
            draw.choice(self.chains),
            key=f"key {draw.randrange(3)}",
            deadline=draw.choice([0.0, 30.0, 30.0, 30.0, 3000.0]),
            stream=draw.random() < 0.5,
            **body,
        )
        if draw.random() < 0.15:
            for _ in range(draw.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            check(await task)


def check(one: Asked) -> None:
    """No half truth: a good answer is whole, a broken one says so at its end, an error is alone."""
    if one.error is not None:
        return
    if one.sink.answer is not None:
        assert b"one two three" in one.sink.answer
        return
    text = text_of(one.sink.data)
    if one.record.end == "done":
        assert text == "".join(TEXTS)
        assert one.sink.data.endswith(b"data: [DONE]\n\n")
    else:
        assert "".join(TEXTS).startswith(text.removeprefix("a")) or text == "a"
        assert b"[DONE]" not in one.sink.data
        assert one.sink.data.count(b'{"error":') == 1


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_every_request_ends_once(stage: Stage, seed: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(ScriptedUpstream()) for _ in range(4)]
        chaos = Chaos(stage, upstreams, seed)
        for _ in range(12):
            tasks = []
            for _ in range(25):
                chaos.turn()
                tasks.append(asyncio.create_task(chaos.one()))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            stage.quiet()
        assert len(stage.asked) > 250  # some left before their turn came
        assert stage.attempts() == sum(one.record.attempts for one in stage.asked)
        assert stage.attempts(outcome="internal") == 0
        answered = [one for one in stage.asked if one.target is not None]
        assert len(answered) > 50
        assert {one.record.target for one in answered} >= {f"t{n}" for n in range(4)}
        # What came from elsewhere says so, and no more often than it did.
        fallbacks = [one for one in stage.asked if one.record.fallback_from is not None]
        assert stage.count("fallbacks_total") == len(fallbacks)
        bridged = [one for one in stage.asked if one.record.bridge is not None]
        assert stage.count("bridge_total", outcome="bridged") == len(bridged)
