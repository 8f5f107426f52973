"""Waiting at several rooms at once: by hand, on an event loop that is stepped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from server.access.queue import Place, Ticket
from server.access.rooms import Rooms
from server.errors import Overloaded
from server.telemetry.metrics import Metrics
from tests.fakes.stepped import SteppedLoop


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


def test_who_knows_older_numbers_changes_nothing(house: House) -> None:
    room = house.all[0]
    assert house.rooms.place("target", "t0", 5, 5) is room
    assert (room.slots, room.bound) == (1, 9)
    house.rooms.apply("target", {"t0": (2, 3), "new": (4, 5)})
    assert house.rooms.place("target", "t0", 1, 9) is room
    assert (room.slots, room.bound) == (2, 3)
    made = house.rooms.place("target", "new", 1, 1)
    assert (made.slots, made.bound) == (4, 5)
    house.rooms.apply("target", {})
    other = house.rooms.place("target", "new", 1, 1)
    assert other is not made
    assert (other.slots, other.bound) == (1, 1)


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
