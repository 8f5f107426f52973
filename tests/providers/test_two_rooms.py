"""Places of targets and places of their account, whatever comes in whatever order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import pytest

from server.access import rooms as module
from server.errors import Overloaded
from server.routing.chain import Route, Seats
from server.routing.policies import Policy
from server.transport import Transport
from tests.fakes.upstream import (
    Exchange,
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
)
from tests.fakes.watched import WatchedRoom
from tests.routing.conftest import FakeTarget
from tests.routing.stage import Asked, Stage

STEPS = 150
POLICIES = [Policy.ORDERED, Policy.LEAST_BUSY, Policy.WEIGHTED]
BOOM = answer_json(500, error("boom"))


class Play:
    """Requests that come, wait, go in, leave and fail at three accounts, by the dice of a seed."""

    def __init__(self, stage: Stage, upstream: ScriptedUpstream, seed: int) -> None:
        self.stage, self.upstream = stage, upstream
        self.dice = random.Random(seed)
        self.gate = Gate()
        upstream.default = self.answer
        self.routes: list[Route] = []
        self.asked: list[asyncio.Task[Asked]] = []
        for account in range(2):
            seats = Seats(f"account {account}", self.dice.randint(1, 4), self.dice.randint(0, 6))
            for number, slots in enumerate([self.dice.randint(1, 3), None, 1]):
                more = {"slots": slots, "bound": self.dice.randint(0, 4), "account": seats}
                self.routes.append(at(stage, upstream, f"target {account} {number}", **more))

    async def answer(self, exchange: Exchange) -> None:
        self.check()
        await exchange.wait(self.gate.pass_one())
        await (BOOM if self.dice.random() < 0.1 else chat_answer())(exchange)

    def check(self) -> None:
        """Nobody is asked more than it has places for."""
        inside: dict[Seats, int] = {}
        for route in self.routes:
            in_flight = route.standing.in_flight
            assert route.slots is None or in_flight <= route.slots
            assert route.account is not None
            inside[route.account] = inside.get(route.account, 0) + in_flight
        assert all(count <= seats.slots for seats, count in inside.items())

    async def step(self) -> None:
        dice, stage = self.dice, self.stage
        what = dice.random()
        if what < 0.55:
            routes = dice.sample(self.routes, dice.randint(1, 3))
            chain = stage.chain(*routes, policy=dice.choice(POLICIES))
            key = f"key {dice.randint(0, 2)}"
            deadline = dice.choice([5.0, 1e9])
            self.asked.append(stage.start(chain, key=key, deadline=deadline))
        elif what < 0.75:
            self.gate.release(dice.randint(1, 3))
        elif what < 0.9 and self.asked:
            dice.choice(self.asked).cancel()
        else:
            stage.clock.turn(dice.choice([0.5, 3.0]))
        for _ in range(dice.choice([0, 0, 1, 3, 30])):
            await asyncio.sleep(0)
        self.check()


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    yield transport
    await transport.close()


@pytest.mark.parametrize("seed", range(12))
async def test_no_place_is_lost_or_given_twice(
    transport: Transport, upstream: ScriptedUpstream, seed: int
) -> None:
    made: list[WatchedRoom] = []

    def make(kind: module.Kind, name: str, slots: int, bound: int) -> WatchedRoom:
        made.append(WatchedRoom(kind, name, slots, bound))
        return made[-1]

    with mock.patch.object(module, "Room", make):
        stage = Stage(transport)
        play = Play(stage, upstream, seed)
        for _ in range(STEPS):
            await play.step()
            for room in made:
                room.check()
        play.gate.open()
        found = await asyncio.gather(*play.asked, return_exceptions=True)
    ends = [one for one in found if isinstance(one, Asked)]
    assert all(isinstance(one, Asked | asyncio.CancelledError) for one in found), found
    shed = [one for one in ends if isinstance(one.error, Overloaded)]
    assert all(one.record.attempts == 0 or one.error for one in shed)
    assert all("retry-after" in one.error.headers() for one in shed if one.error)
    # Something of everything has happened.
    assert {room.kind for room in made} == {"target", "provider"}
    assert any(one.target for one in ends)
    assert shed
    for room in made:
        assert room.came == room.begun + room.expired + room.displaced + room.gave_up
    stage.quiet()


async def test_two_waits_have_one_patience(
    transport: Transport, upstream: ScriptedUpstream
) -> None:
    """Who got a place of the target and finds the account full waits on for what time is left."""
    stage = Stage(transport)
    stage.settings(queue=2.0)
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    seats = Seats("lab", 1, 8)
    narrow = at(stage, upstream, "narrow", account=seats, slots=1)
    wide = at(stage, upstream, "wide", account=seats)
    holder = stage.start(stage.chain(narrow))
    await upstream.next_request()
    waits = stage.start(stage.chain(narrow))
    await stage.until_waiting(1)
    other = stage.start(stage.chain(wide))
    await stage.until_waiting(2)
    stage.clock.turn(1.5)
    gate.release()
    assert (await holder).target == "narrow"
    # Its place is there now, and the account's has gone to the other one.
    await upstream.next_request()
    await stage.until_waiting(1)
    stage.clock.turn(1.5)
    gate.open()
    assert (await other).target == "wide"
    found = await waits
    assert isinstance(found.error, Overloaded)
    assert found.record.waited == 3.0
    assert stage.count("shed_total", reason="queue_timeout") == 1
    stage.quiet()


async def test_each_attempt_has_a_patience_of_its_own(
    transport: Transport, upstream: ScriptedUpstream
) -> None:
    stage = Stage(transport)
    stage.settings(queue=2.0)
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    first = at(stage, upstream, "first", slots=1)
    second = at(stage, upstream, "second", slots=1)
    chain = stage.chain(first, second)
    holders = [stage.start(stage.chain(first)), stage.start(stage.chain(second))]
    for _ in holders:
        await upstream.next_request()
    waits = stage.start(chain)
    await stage.until_waiting(1)
    stage.clock.turn(1.5)
    upstream.queue(BOOM)
    gate.release()
    assert (await holders[0]).target == "first"
    await upstream.next_request()  # it fails, and the other one is full
    await stage.until_waiting(1)
    stage.clock.turn(1.5)
    gate.open()
    found = await waits
    assert (found.target, found.record.attempts, found.record.waited) == ("second", 2, 3.0)
    await holders[1]
    stage.quiet()


def at(stage: Stage, upstream: ScriptedUpstream, name: str, **more: Any) -> Route:
    """A target with places."""
    made = stage.route(FakeTarget(name, upstream.url))
    return Route(made.model, made.target, made.standing, **more)
