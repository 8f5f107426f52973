"""The waiting room: by hand, on a real event loop, and as a state machine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.access.queue import Place, RoomFull, Ticket, WaitingRoom


def filled(slots: int, bound: int) -> tuple[WaitingRoom, list[Ticket]]:
    room = WaitingRoom(slots, bound)
    return room, [room.enter("x", 0.0) for _ in range(slots)]


def test_slots_first_then_the_room_then_nothing() -> None:
    room = WaitingRoom(2, 1)
    places = [room.enter("a", 0.0).place for _ in range(3)]
    assert places == [Place.INSIDE, Place.INSIDE, Place.WAITING]
    with pytest.raises(RoomFull) as refusal:
        room.enter("a", 0.0)
    assert refusal.value.retry_after is None
    assert (room.inside, room.depth, room.refused, room.came, room.slots) == (2, 1, 1, 3, 2)


def test_a_slot_goes_to_the_next() -> None:
    room, (first,) = filled(1, 2)
    second, third = room.enter("a", 1.0), room.enter("a", 2.0)
    assert room.longest_wait(5.0) == 4.0
    first.leave(5.0)
    assert (second.place, second.waited, third.place) == (Place.INSIDE, 4.0, Place.WAITING)
    assert third.waited is None
    assert room.longest_wait(5.0) == 3.0
    second.leave(6.0)
    third.leave(7.0)
    third.leave(8.0)
    assert (room.begun, room.ended, room.inside, room.longest_wait(9.0)) == (3, 3, 0, 0.0)


def test_keys_take_turns_and_stand_in_line_within_one() -> None:
    room, inside = filled(1, 9)
    waiting = [room.enter(key, float(n)) for n, key in enumerate("aaabbc")]
    order = []
    ticket = inside[0]
    while room.inside:
        ticket.leave(10.0)
        for ticket in waiting:
            if ticket.place is Place.INSIDE:
                order.append(f"{ticket.key}{ticket.entered:.0f}")
                break
    assert order == ["a0", "b3", "c5", "a1", "b4", "a2"]


def test_a_key_that_has_the_most_waiting_makes_room_for_others() -> None:
    room, _ = filled(1, 3)
    greedy = [room.enter("a", 0.0) for _ in range(3)]
    late = room.enter("b", 1.0)
    assert late.place is Place.WAITING
    assert [ticket.place for ticket in greedy] == [Place.WAITING, Place.WAITING, Place.DISPLACED]
    with pytest.raises(RoomFull):  # one less for `a` would be no fairer
        room.enter("b", 1.0)
    assert (room.displaced, room.refused, room.depth) == (1, 1, 3)
    greedy[2].leave(2.0)
    assert greedy[2].place is Place.DISPLACED


def test_a_room_for_nobody() -> None:
    room, (inside,) = filled(1, 0)
    with pytest.raises(RoomFull):
        room.enter("a", 0.0)
    inside.leave(1.0)
    assert room.enter("a", 1.0).place is Place.INSIDE


def test_a_deadline_that_has_passed_costs_no_slot() -> None:
    room, (inside,) = filled(1, 9)
    late, other, next_of_a = (
        room.enter("a", 0.0, deadline=3.0),
        room.enter("b", 0.0),
        room.enter("a", 0.0),
    )
    inside.leave(3.0)
    # The turn of `a` was not taken by the one that could not use it.
    assert (late.place, next_of_a.place, other.place) == (
        Place.EXPIRED,
        Place.INSIDE,
        Place.WAITING,
    )
    assert room.expired == 1


def test_the_last_of_a_line_expires() -> None:
    room, (inside,) = filled(1, 9)
    late = room.enter("a", 0.0, deadline=3.0)
    inside.leave(3.0)
    assert (late.place, room.inside, room.depth) == (Place.EXPIRED, 0, 0)


def test_nobody_is_refused_for_one_whose_deadline_has_passed() -> None:
    room, _ = filled(1, 1)
    late = room.enter("a", 0.0, deadline=3.0)
    assert room.enter("a", 3.0).place is Place.WAITING
    assert late.place is Place.EXPIRED


def test_who_leaves_the_line_after_its_deadline_has_expired() -> None:
    room, _ = filled(1, 9)
    late, early = room.enter("a", 0.0, deadline=3.0), room.enter("a", 0.0, deadline=3.1)
    late.leave(3.0)
    early.leave(3.0)
    assert (late.place, early.place) == (Place.EXPIRED, Place.LEFT)
    assert (room.expired, room.gave_up, room.depth) == (1, 1, 0)


def test_who_listens_is_told_in_the_moment() -> None:
    room, (inside,) = filled(1, 9)
    heard: list[tuple[Place, int, int]] = []
    ticket = room.enter("a", 0.0)
    ticket.on_move = lambda moved: heard.append((moved.place, room.inside, room.depth))
    inside.leave(1.0)
    ticket.leave(2.0)
    ticket.leave(3.0)
    assert heard == [(Place.INSIDE, 1, 0), (Place.LEFT, 0, 0)]
    assert room.inside == 0


def test_the_estimate_is_what_the_slots_were_held() -> None:
    room, tickets = filled(2, 1)
    assert room.estimate() is None
    tickets[0].leave(4.0)
    assert room.estimate() == 0.0
    room.enter("a", 4.0)
    assert room.estimate() == pytest.approx(1 * 4.0 / 2)
    room.enter("a", 4.0)
    with pytest.raises(RoomFull) as refusal:
        room.enter("a", 4.0)
    assert refusal.value.retry_after == pytest.approx(2 * 4.0 / 2)
    tickets[1].leave(14.0)  # held for 14 s: the mean goes a tenth of the way
    assert room.estimate() == pytest.approx(1 * 5.0 / 2)


def test_the_estimate_has_an_end() -> None:
    room, (inside,) = filled(1, 9)
    inside.leave(1000.0)
    room.enter("a", 1000.0)
    assert room.estimate() == 60.0
    room.resize(0, 9, 1000.0)
    assert room.estimate() is None


def test_resize() -> None:
    room, inside = filled(1, 3)
    waiting = [room.enter("a", 0.0) for _ in range(3)]
    room.resize(3, 3, 1.0)
    assert [ticket.place for ticket in waiting] == [Place.INSIDE, Place.INSIDE, Place.WAITING]
    room.resize(1, 0, 2.0)
    for ticket in (inside[0], waiting[0]):
        ticket.leave(3.0)
        assert waiting[2].place is Place.WAITING
    waiting[1].leave(4.0)
    assert waiting[2].place is Place.INSIDE


async def test_waiting_ends_with_a_slot() -> None:
    room, (inside,) = filled(1, 1)
    ticket = room.enter("a", 0.0)
    waiter = asyncio.ensure_future(ticket.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    inside.leave(1.0)
    assert await waiter is Place.INSIDE
    assert await ticket.wait() is Place.INSIDE


async def test_waiting_ends_without_one() -> None:
    room, _ = filled(1, 2)
    late = room.enter("a", 0.0, deadline=1.0)
    displaced = room.enter("a", 0.0)
    waiters = [asyncio.ensure_future(ticket.wait()) for ticket in (late, displaced)]
    await asyncio.sleep(0)
    room.enter("b", 0.5)
    room.expire(1.0)
    assert await asyncio.gather(*waiters) == [Place.EXPIRED, Place.DISPLACED]


async def test_a_cancelled_waiter_frees_its_place() -> None:
    room, _ = filled(1, 1)
    ticket = room.enter("a", 0.0)
    waiter = asyncio.ensure_future(ticket.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    ticket.leave(1.0)
    assert (ticket.place, room.depth, room.gave_up) == (Place.LEFT, 0, 1)
    assert room.enter("a", 1.0).place is Place.WAITING


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancelled_in_the_moment_of_being_let_in(cancel_first: bool) -> None:
    room, (inside,) = filled(1, 2)
    ticket, after = room.enter("a", 0.0), room.enter("a", 0.0)

    async def client() -> None:
        try:
            await ticket.wait()
        finally:
            ticket.leave(2.0)

    task = asyncio.ensure_future(client())
    await asyncio.sleep(0)
    steps: list[Callable[[], object]] = [task.cancel, lambda: inside.leave(1.0)]
    for step in steps if cancel_first else reversed(steps):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert after.place is Place.INSIDE
    assert (room.begun, room.ended, room.inside, room.depth) == (3, 2, 1, 0)


async def test_a_crowd_of_clients_some_of_whom_give_up() -> None:
    """All that were let in ended, and never were more inside than there are slots."""
    room = WaitingRoom(3, 50)
    now, most, done = 0.0, 0, Counter[str]()

    async def client(n: int) -> None:
        nonlocal most
        ticket = room.enter(f"key {n % 4}", now)
        try:
            if await ticket.wait() is Place.INSIDE:
                most = max(most, room.inside)
                for _ in range(n % 3):
                    await asyncio.sleep(0)
                done[ticket.key] += 1
        finally:
            ticket.leave(now)

    tasks = [asyncio.ensure_future(client(n)) for n in range(50)]
    for n in range(12):
        await asyncio.sleep(0)
        tasks[n * 4].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
    assert most == 3
    assert room.begun == room.ended >= sum(done.values()) >= 38
    assert (room.inside, room.depth) == (0, 0)


class Watched(WaitingRoom):
    """Looks on while tickets are let in: first in line within a key, and in turn between keys."""

    def __init__(self, slots: int, bound: int) -> None:
        super().__init__(slots, bound)
        #: Of each waiting key: whom it has seen let in since its own last turn.
        self.passed: dict[str, Counter[str]] = {}

    def _let_in(self, ticket: Ticket, now: float) -> None:
        assert ticket.place is Place.WAITING
        assert ticket.deadline > now or ticket.entered == now
        line = self._waiting.get(ticket.key, ())
        assert all(other.entered >= ticket.entered for other in line)
        for key in self._waiting.keys() - {ticket.key}:
            self.passed[key][ticket.key] += 1
            assert self.passed[key][ticket.key] <= 1, f"{ticket.key} went twice before {key}"
        self.passed[ticket.key] = Counter()
        super()._let_in(ticket, now)


class RoomMachine(RuleBasedStateMachine):
    """No slot is lost or given twice, whatever comes."""

    @initialize(slots=st.integers(0, 3), bound=st.integers(0, 5))
    def start(self, slots: int, bound: int) -> None:
        self.room = Watched(slots, bound)
        self.slots, self.bound, self.shrunk = slots, bound, False
        self.now = 0.0
        self.tickets: list[Ticket] = []

    def of(self, place: Place) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket.place is place]

    @rule(key=st.sampled_from("abc"), patience=st.sampled_from([0.5, 3.0, 1e9]))
    def enter(self, key: str, patience: float) -> None:
        if key not in self.room._waiting:
            self.room.passed[key] = Counter()
        try:
            ticket = self.room.enter(key, self.now, self.now + patience)
        except RoomFull:
            lines = Counter(other.key for other in self.of(Place.WAITING))
            assert sum(lines.values()) >= self.bound
            assert not lines or max(lines.values()) <= lines[key] + 1
            assert all(other.deadline > self.now for other in self.of(Place.WAITING))
            return
        assert ticket.place in (Place.INSIDE, Place.WAITING)
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.tickets)).leave(self.now)

    @precondition(lambda self: self.of(Place.INSIDE))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.of(Place.INSIDE))).leave(self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.room.expire(self.now)
        assert all(ticket.deadline > self.now for ticket in self.of(Place.WAITING))

    @rule(slots=st.integers(0, 3), bound=st.integers(0, 5))
    def resize(self, slots: int, bound: int) -> None:
        self.shrunk = slots < self.room.inside or (self.shrunk and slots < self.slots)
        self.slots, self.bound = slots, bound
        self.room.resize(slots, bound, self.now)

    @invariant()
    def the_books_agree(self) -> None:
        room = self.room
        counts = Counter(ticket.place for ticket in self.tickets)
        assert room.inside == counts[Place.INSIDE]
        assert room.depth == counts[Place.WAITING] == sum(map(len, room._waiting.values()))
        assert all(room._waiting.values())
        assert room.begun == room.ended + room.inside
        ended_waiting = room.expired + room.displaced + room.gave_up
        assert room.came == len(self.tickets) == room.begun + ended_waiting + room.depth
        assert room.expired == counts[Place.EXPIRED]
        assert room.displaced == counts[Place.DISPLACED]

    @invariant()
    def no_slot_is_lost_or_doubled(self) -> None:
        self.shrunk = self.shrunk and self.room.inside > self.slots
        assert self.room.inside <= self.slots or self.shrunk
        assert not self.room.depth or self.room.inside >= self.slots

    def teardown(self) -> None:
        """Everybody leaves: nothing is left, and all that was begun has ended."""
        if not hasattr(self, "room"):
            return
        for ticket in self.tickets * 2:
            ticket.leave(self.now)
        for ticket in self.of(Place.INSIDE):
            ticket.leave(self.now)
        assert (self.room.inside, self.room.depth) == (0, 0)
        assert self.room.begun == self.room.ended


TestRoom = pytest.mark.no_cover(RoomMachine.TestCase)
TestRoom.settings = settings(max_examples=80, stateful_step_count=50)
