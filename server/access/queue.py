"""A waiting room in front of a number of slots: bounded, fair between keys, and safe to leave.

No clock and no timers: monotonic seconds are arguments, and how long to wait is the caller's to
say. A caller does, whatever happens in between::

    ticket = room.enter(key, clock(), deadline)   # raises RoomFull
    try:
        async with asyncio.timeout(...):
            if await ticket.wait() is Place.INSIDE:
                ...                               # the work
    finally:
        ticket.leave(clock())

`leave` is right at every moment: it gives up a place in the room, or a slot, and does nothing after
that. So a waiter that is cancelled in the very moment in which it is let in loses nothing.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import Final

#: What the newest time in a slot counts in their mean.
_NEWEST: Final = 0.1
#: The longest estimate, seconds: beyond it nobody should believe one.
_LONGEST: Final = 60.0


class Place(enum.StrEnum):
    """Where a ticket is."""

    WAITING = "waiting"
    INSIDE = "inside"
    #: Its deadline passed before its turn came.
    EXPIRED = "expired"
    #: The room was full, its key had the most waiting, and another key came.
    DISPLACED = "displaced"
    LEFT = "left"


class RoomFull(Exception):
    """No place to wait. `retry_after`: seconds, estimated; None: nothing was measured yet."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__("the waiting room is full")
        self.retry_after = retry_after


class Ticket:
    """One request's place. Made by `WaitingRoom.enter`; one task may wait on it."""

    __slots__ = ("_future", "_room", "deadline", "entered", "key", "let_in", "on_move", "place")

    def __init__(self, room: WaitingRoom, key: str, entered: float, deadline: float) -> None:
        self._room = room
        self._future: asyncio.Future[None] | None = None
        self.key = key
        self.entered = entered
        self.deadline = deadline
        #: When it got its slot; None: not yet, or never.
        self.let_in: float | None = None
        self.place = Place.WAITING
        #: Told in the moment in which the place changes; it may leave other tickets.
        self.on_move: Callable[[Ticket], None] | None = None

    @property
    def waited(self) -> float | None:
        """Seconds until it got its slot; None: it has none and had none."""
        return None if self.let_in is None else self.let_in - self.entered

    async def wait(self) -> Place:
        """Until it waits no more. INSIDE: it has a slot until it leaves."""
        if self.place is Place.WAITING:
            self._future = asyncio.get_running_loop().create_future()
            await self._future
        return self.place

    def leave(self, now: float) -> None:
        """Give up what it has: its slot goes to the next. Safe at any time, and more than once.
        Who leaves the line after its deadline has EXPIRED."""
        self._room._leave(self, now)

    def _move(self, place: Place) -> None:
        self.place = place
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
        if self.on_move is not None:
            self.on_move(self)


class WaitingRoom:
    """`slots` may be inside and `bound` may wait. While anybody waits, no slot is free.

    Keys take turns, and within one key the first to come is the first to go in. When the room is
    full and a key comes that has fewer waiting than another, the newest of the key with the most
    has to go: one key alone cannot shut the others out.

    Begun = ended + inside; came = begun + expired + displaced + gave up + waiting; who was refused
    never came.
    """

    def __init__(self, slots: int, bound: int) -> None:
        self._slots, self._bound = slots, bound
        #: Each key's tickets, oldest first; keys in the order of their turns.
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._depth = 0
        self._held: float | None = None
        self.came = 0
        self.begun = 0
        self.ended = 0
        self.expired = 0
        self.displaced = 0
        self.gave_up = 0
        self.refused = 0

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def bound(self) -> int:
        return self._bound

    @property
    def inside(self) -> int:
        """Those that have a slot."""
        return self.begun - self.ended

    @property
    def depth(self) -> int:
        """Those that wait."""
        return self._depth

    def longest_wait(self, now: float) -> float:
        """Seconds that the oldest one waits already; 0: nobody does."""
        return max((now - line[0].entered for line in self._waiting.values()), default=0.0)

    def estimate(self) -> float | None:
        """Seconds until somebody who came now would get a slot, at most 60, by how long slots were
        held until now; None: nobody has left yet, or there are no slots."""
        if self.inside < self._slots:
            return 0.0
        if self._held is None or self._slots <= 0:
            return None
        return min(_LONGEST, (self._depth + 1) * self._held / self._slots)

    def enter(self, key: str, now: float, deadline: float = inf) -> Ticket:
        """A ticket that is INSIDE or WAITING. Raises RoomFull."""
        ticket = Ticket(self, key, now, deadline)
        if self.inside < self._slots:
            self.came += 1
            self._let_in(ticket, now)
            return ticket
        if self._depth >= self._bound:
            self.expire(now)
        if self._depth >= self._bound and not self._make_room(key):
            self.refused += 1
            raise RoomFull(self.estimate())
        self.came += 1
        self._waiting.setdefault(key, deque()).append(ticket)
        self._depth += 1
        return ticket

    def expire(self, now: float) -> None:
        """Send away whose deadline has passed. It is done anyway before a slot is given and before
        anybody is refused."""
        late = [t for line in self._waiting.values() for t in line if t.deadline <= now]
        for ticket in late:
            self._take_out(ticket)
            self.expired += 1
            ticket._move(Place.EXPIRED)

    def resize(self, slots: int, bound: int, now: float) -> None:
        """After a reload. Those inside stay; those over the new bound wait on."""
        self._slots, self._bound = slots, bound
        self._fill(now)

    def _leave(self, ticket: Ticket, now: float) -> None:
        if ticket.place is Place.INSIDE:
            self.ended += 1
            held = max(0.0, now - (ticket.let_in or 0.0))
            self._held = held if self._held is None else self._held + _NEWEST * (held - self._held)
            ticket._move(Place.LEFT)
            self._fill(now)
        elif ticket.place is Place.WAITING:
            self._take_out(ticket)
            late = ticket.deadline <= now
            self.expired += late
            self.gave_up += not late
            ticket._move(Place.EXPIRED if late else Place.LEFT)

    def _fill(self, now: float) -> None:
        """Let in by turns as long as there are slots."""
        while self._depth and self.inside < self._slots:
            key, line = next(iter(self._waiting.items()))
            ticket = line.popleft()
            self._depth -= 1
            if ticket.deadline <= now:
                self._after_turn(key, line, moved=False)
                self.expired += 1
                ticket._move(Place.EXPIRED)
                continue
            self._after_turn(key, line, moved=True)
            self._let_in(ticket, now)

    def _after_turn(self, key: str, line: deque[Ticket], *, moved: bool) -> None:
        if not line:
            del self._waiting[key]
        elif moved:
            self._waiting.move_to_end(key)

    def _let_in(self, ticket: Ticket, now: float) -> None:
        self.begun += 1
        ticket.let_in = now
        ticket._move(Place.INSIDE)

    def _make_room(self, key: str) -> bool:
        """Send the newest of the key with the most away, if it still has as many as this one."""
        if not self._waiting:
            return False
        line = max(self._waiting.values(), key=len)
        if len(line) <= len(self._waiting.get(key, ())) + 1:
            return False
        newest = line[-1]
        self._take_out(newest)
        self.displaced += 1
        newest._move(Place.DISPLACED)
        return True

    def _take_out(self, ticket: Ticket) -> None:
        line = self._waiting[ticket.key]
        line.remove(ticket)
        self._depth -= 1
        if not line:
            del self._waiting[ticket.key]
