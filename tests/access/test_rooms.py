"""Waiting at several rooms at once: by hand, and as a state machine over a stepped event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
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


class House:
    """Rooms on a loop that stands still."""

    def __init__(self, *slots: int, bound: int = 9) -> None:
        self.loop = SteppedLoop()
        self.metrics = Metrics()
        self.rooms = Rooms(self.metrics, self.loop.time)
        self.all = [self.rooms.room("target", f"t{n}", each, bound) for n, each in enumerate(slots)]
        #: Who got in last, of each room.
        self.held: dict[int, Ticket] = {}

    def first(
        self, *indices: int, key: str = "a", deadline: float = 1e9
    ) -> asyncio.Task[tuple[int, Ticket]]:
        """Somebody who came, and has waited for a round."""
        task = self.loop.create_task(self._first(indices, key, deadline))
        self.loop.step()
        return task

    async def _first(self, indices: Sequence[int], key: str, deadline: float) -> tuple[int, Ticket]:
        wanted = [self.all[index] for index in indices]
        found, ticket = await self.rooms.first(wanted, key, deadline)
        self.held[indices[found]] = ticket
        return found, ticket

    def leave(self, index: int, now: float) -> None:
        """The one who got into this room last goes."""
        self.held[index].leave(now)

    def shed(self, reason: str) -> float:
        return self.metrics.shed.labels(reason).value

    def numbers(self) -> list[tuple[int, int]]:
        return [(room.inside, room.depth) for room in self.all]


@pytest.fixture
def house() -> Iterator[House]:
    """Two rooms of one slot each, both taken."""
    house = House(1, 1)
    house.first(0)
    house.first(1)
    yield house
    house.loop.close()


def test_a_room_is_made_once_and_takes_new_numbers() -> None:
    house = House(1)
    (room,) = house.all
    assert house.rooms.room("target", "t0", 1, 9) is room
    waiter = [house.first(0), house.first(0)][1]
    assert not waiter.done()
    assert house.rooms.room("target", "t0", 2, 7) is room
    house.loop.step()
    assert (room.slots, room.bound, waiter.done()) == (2, 7, True)
    assert house.rooms.room("model", "t0", 1, 9) is not room
    house.loop.close()


def test_a_free_place_is_taken_at_once_and_the_first_named_before_others() -> None:
    house = House(1, 2)
    coroutine = house.rooms.first([house.all[1], house.all[0]], "a", 1e9)
    with pytest.raises(StopIteration) as done:  # it awaits nothing
        coroutine.send(None)
    assert done.value.value[0] == 0
    assert house.numbers() == [(0, 0), (1, 0)]
    assert house.first(0, 1).result()[0] == 0
    assert house.first(0, 1).result()[0] == 1
    assert house.metrics.queue_wait.labels("target").counts[0] == 3
    house.loop.close()


def test_whichever_is_free_first(house: House) -> None:
    waiter = house.first(0, 1)
    assert house.numbers() == [(1, 1), (1, 1)]
    house.loop.now = 2.0
    house.leave(1, 2.0)
    assert house.numbers() == [(1, 0), (1, 0)], "in that moment it waits nowhere else"
    house.loop.step()
    index, ticket = waiter.result()
    assert (index, ticket.place, ticket.waited) == (1, Place.INSIDE, 2.0)
    ticket.leave(3.0)
    assert house.numbers() == [(1, 0), (0, 0)]


def test_two_places_in_one_moment_are_one(house: House) -> None:
    waiter, after = house.first(0, 1), house.first(0, 1)
    house.leave(0, 1.0)
    house.leave(1, 1.0)
    house.loop.step()
    assert (waiter.result()[0], after.result()[0]) == (0, 1)


def test_a_full_room_is_no_reason_where_another_has_place(house: House) -> None:
    house.all[0].resize(1, 0, 0.0)
    waiter = house.first(0, 1)
    assert house.numbers() == [(1, 0), (1, 1)]
    house.leave(1, 1.0)
    house.loop.step()
    assert waiter.result()[0] == 1


def test_all_full(house: House) -> None:
    for room in house.all:
        room.resize(1, 0, 0.0)
    nothing = house.first(0, 1).exception()
    assert isinstance(nothing, Overloaded)
    assert nothing.retry_after is None
    assert nothing.headers() == {"retry-after": "5"}
    for index, held in ((0, 20.0), (1, 8.0)):
        house.leave(index, held)
        house.first(index)
    error = house.first(0, 1).exception()
    assert isinstance(error, Overloaded)
    assert error.retry_after == 8.0
    assert (house.shed("target_queue"), house.shed("queue_timeout")) == (2, 0)


def test_the_deadline(house: House) -> None:
    waiter = house.first(0, 1, deadline=5.0)
    house.loop.now = 4.9
    house.loop.step()
    assert not waiter.done()
    house.loop.now = 5.0
    house.loop.step(2)
    assert isinstance(waiter.exception(), Overloaded)
    assert house.numbers() == [(1, 0), (1, 0)]
    assert [room.expired for room in house.all] == [1, 1]
    assert (house.shed("target_queue"), house.shed("queue_timeout")) == (0, 1)


def test_a_deadline_that_has_passed_gets_a_free_place_but_waits_for_none(house: House) -> None:
    house.loop.now = 5.0
    assert isinstance(house.first(0, deadline=5.0).exception(), Overloaded)
    assert house.shed("queue_timeout") == 1
    house.leave(0, 5.0)
    assert house.first(0, deadline=5.0).result()[0] == 0


def test_a_timer_that_is_early_waits_on(house: House) -> None:
    clock = [0.0]
    rooms = Rooms(house.metrics, lambda: clock[0])
    room = rooms.room("target", "t", 1, 1)
    room.enter("x", 0.0)
    waiter = house.loop.create_task(rooms.first([room], "a", 5.0))
    house.loop.step()
    clock[0], house.loop.now = 4.75, 5.0
    house.loop.step(3)
    assert not waiter.done()
    clock[0], house.loop.now = 5.0, 5.25
    house.loop.step(2)
    assert isinstance(waiter.exception(), Overloaded)


def test_who_has_the_most_waiting_goes_for_another_key(house: House) -> None:
    for room in house.all:
        room.resize(1, 2, 0.0)
    elder, newest = house.first(0), house.first(0, 1)
    other = house.first(0, key="b")
    house.loop.step()
    assert not newest.done(), "it still waits in the other room"
    house.first(1)
    house.first(1, key="b")
    house.loop.step()
    assert house.all[1].displaced == 1
    assert not elder.done()
    assert not other.done()
    alone = House(1, bound=2)
    alone.first(0)
    elder, newest = alone.first(0), alone.first(0)
    alone.first(0, key="b")
    alone.loop.step()
    assert isinstance(newest.exception(), Overloaded)
    assert (alone.shed("target_queue"), elder.done()) == (1, False)
    alone.loop.close()


@pytest.mark.parametrize("cancel_first", [True, False])
def test_cancelled_in_the_moment_of_being_let_in(house: House, cancel_first: bool) -> None:
    waiter, after = house.first(0, 1), house.first(0)
    if cancel_first:
        waiter.cancel()
    house.leave(0, 1.0)
    if not cancel_first:
        waiter.cancel()
    house.loop.step(3)
    assert waiter.cancelled()
    assert after.result()[1].place is Place.INSIDE
    assert house.numbers() == [(1, 0), (1, 0)]


def test_forgotten_rooms_let_in_who_waits(house: House) -> None:
    waiters = [house.first(0), house.first(0)]
    house.rooms.collect()
    depth = house.metrics.queue_depth
    assert depth.series[("target", "t0")].value == 2
    house.rooms.forget("target", ["t0", "never"])
    house.loop.step()
    assert [waiter.result()[0] for waiter in waiters] == [0, 0]
    assert {room.name for room in house.rooms.all()} == {"t1"}
    house.rooms.collect()
    assert set(depth.series) == {("target", "t1")}
    assert house.rooms.room("target", "t0", 1, 1) is not house.all[0]


def test_a_reload_counts_at_once_for_who_waits(house: House) -> None:
    other = house.rooms.room("model", "t0", 1, 1)
    one, two = house.first(0), house.first(1)
    house.rooms.apply("target", {"t0": (2, 4), "new": (1, 1)})
    house.loop.step()
    assert one.done()
    assert two.done()
    assert (house.all[0].slots, house.all[0].bound) == (2, 4)
    assert list(house.rooms.all()) == [house.all[0], other]


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


TestRooms = RoomsMachine.TestCase
TestRooms.settings = settings(max_examples=80, stateful_step_count=50)
