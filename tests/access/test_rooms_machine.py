"""Waiting at several rooms at once, as a state machine over a stepped event loop."""

from __future__ import annotations

from typing import Final
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.access import rooms as module
from server.access.queue import Place, Ticket
from server.access.rooms import Rooms
from server.errors import Overloaded
from server.telemetry.metrics import Metrics
from tests.fakes.stepped import SteppedLoop
from tests.fakes.watched import WatchedRoom

#: Of the event loop, after something was done: in none, what is done next comes in that moment.
ROUNDS: Final = st.sampled_from([0, 1, 1, 3])
WANTED: Final = st.sampled_from(["x", "xy", "yz", "zx", "xyz", "zyx"])
PATIENCE: Final = st.sampled_from([3.0, 1e9])


class Client:
    """Somebody who waits for one of several rooms, and stays until he is told to go."""

    def __init__(self, machine: RoomsMachine, rooms: list[WatchedRoom], key: str) -> None:
        self.rooms = rooms
        self.ticket: Ticket | None = None
        self.deadline = 0.0
        self.ends: list[str] = []
        self.go = machine.loop.create_future()
        self.task = machine.loop.create_task(self.run(machine, key))

    async def run(self, machine: RoomsMachine, key: str) -> None:
        try:
            index, self.ticket = await machine.rooms.first(self.rooms, key, self.deadline)
        except Overloaded:
            self.ends.append("refused")
            return
        try:
            assert self.rooms[index].of(self.task) == [self.ticket]
            assert self.ticket.place is Place.INSIDE
            await self.go
        finally:
            self.ends.append("left")
            self.ticket.leave(machine.loop.now)


class RoomsMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order, cancellations at every await among it: nobody has two
    places, no place is lost, and everybody's end comes once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        self.metrics = Metrics()
        self.rooms = Rooms(self.metrics, self.loop.time)
        self.made: list[WatchedRoom] = []
        self.clients: list[Client] = []
        self.patch = mock.patch.object(module, "Room", self.make)
        self.patch.start()

    def make(self, kind: module.Kind, name: str, slots: int, bound: int) -> WatchedRoom:
        self.made.append(WatchedRoom(kind, name, slots, bound))
        return self.made[-1]

    def room(self, name: str, slots: int = 1, bound: int = 2) -> WatchedRoom:
        found = {room.name: room for room in self.rooms.all()}.get(name)
        room = found or self.rooms.room("target", name, slots, bound)
        assert isinstance(room, WatchedRoom)
        return room

    def alive(self) -> list[Client]:
        return [client for client in self.clients if not client.task.done()]

    def inside(self) -> list[Client]:
        return [client for client in self.alive() if client.ticket is not None]

    @initialize(slots=st.integers(1, 2))
    def fill(self, slots: int) -> None:
        """What can wait at all waits for these."""
        for name in "xyz":
            self.room(name, slots, 2)
            self.arrive([("a", name, 1e9)] * slots, 1)

    @rule(
        crowd=st.lists(st.tuples(st.sampled_from("abc"), WANTED, PATIENCE), min_size=1, max_size=5),
        rounds=ROUNDS,
    )
    def arrive(self, crowd: list[tuple[str, str, float]], rounds: int) -> None:
        for key, names, patience in crowd:
            client = Client(self, [self.room(name) for name in names], key)
            client.deadline = self.loop.now + patience
            self.clients.append(client)
        self.loop.step(rounds)

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), rounds=ROUNDS)
    def cancel(self, data: st.DataObject, rounds: int) -> None:
        data.draw(st.sampled_from(self.alive())).task.cancel()
        self.loop.step(rounds)

    @precondition(lambda self: self.inside())
    @rule(data=st.data(), rounds=ROUNDS)
    def finish(self, data: st.DataObject, rounds: int) -> None:
        client = data.draw(st.sampled_from(self.inside()))
        if not client.go.done():
            client.go.set_result(None)
        self.loop.step(rounds)

    @precondition(lambda self: self.inside())
    @rule(data=st.data())
    def leave_in_this_moment(self, data: st.DataObject) -> None:
        """Without a round of the loop between, so that it meets what stands there."""
        ticket = data.draw(st.sampled_from(self.inside())).ticket
        assert ticket is not None
        ticket.leave(self.loop.now)

    @rule(seconds=st.sampled_from([0.5, 3.0]), rest=st.booleans())
    def pass_time(self, seconds: float, rest: bool) -> None:
        self.loop.now += seconds
        if rest:
            self.idle()

    @rule(
        name=st.sampled_from("xyz"),
        numbers=st.none() | st.tuples(st.integers(0, 3), st.integers(0, 4)),
    )
    def reload(self, name: str, numbers: tuple[int, int] | None) -> None:
        room = self.room(name)
        if numbers is not None:
            self.rooms.room("target", name, *numbers)
        else:
            self.rooms.forget("target", [name])
            assert room.depth == 0

    @rule()
    def idle(self) -> None:
        """Run all that can run; then everybody alive is inside, or waits in time."""
        self.loop.step(3 * len(self.clients) + 3)
        for client in self.alive():
            tickets = [ticket for room in client.rooms for ticket in room.of(client.task)]
            if client.ticket is not None:
                assert tickets in ([client.ticket], [])  # [] after leave_in_this_moment
            else:
                assert tickets
                assert all(ticket.place is Place.WAITING for ticket in tickets)
                assert client.deadline > self.loop.now

    @invariant()
    def no_slot_is_lost_or_doubled(self) -> None:
        for room in self.made:
            room.check()

    @invariant()
    def nobody_has_two_places_and_everybody_ends_once(self) -> None:
        for client in self.clients:
            tickets = [ticket for room in client.rooms for ticket in room.of(client.task)]
            inside = [ticket for ticket in tickets if ticket.place is Place.INSIDE]
            assert len(inside) <= 1
            assert not inside or len(tickets) == 1
            if client.task.done() and not client.task.cancelled():
                assert client.task.exception() is None
                assert len(client.ends) == 1
            assert len(client.ends) <= 1

    @invariant()
    def the_metrics_agree(self) -> None:
        refused = sum(client.ends == ["refused"] for client in self.clients)
        reasons = self.metrics.shed.series.values()
        assert sum(reason.value for reason in reasons) == refused
        waits = sum(self.metrics.queue_wait.labels("target").counts)
        assert waits == sum(client.ticket is not None for client in self.clients)

    def teardown(self) -> None:
        """All go: nothing is left in any room that ever was."""
        self.patch.stop()
        for client in self.alive():
            client.task.cancel()
        self.loop.step(3 * len(self.clients) + 3)
        assert not self.alive()
        for room in self.made:
            room.check()
            assert (room.inside, room.depth) == (0, 0)
            assert room.begun == room.ended
        self.loop.close()


TestRooms = pytest.mark.no_cover(RoomsMachine.TestCase)
TestRooms.settings = settings(max_examples=80, stateful_step_count=50)
