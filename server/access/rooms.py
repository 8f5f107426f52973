"""The waiting rooms of a server, by what they stand in front of, and how a request waits in them.

A request that several places could serve waits at all of them at once, and leaves the others in the
very moment in which one lets it in: so it never holds two.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from server.access.queue import Place, RoomFull, Ticket, WaitingRoom
from server.errors import Overloaded
from server.telemetry.metrics import Metrics

Kind = Literal["server", "model", "target", "provider"]

_WHO: Final[dict[Kind, str]] = {
    "server": "This server is",
    "model": "The model is",
    "target": "All that can answer for the model are",
    "provider": "All that can answer for the model are",
}
#: A timer of the event loop may be early by the resolution of its clock: seconds to the next look.
_AGAIN: Final = 0.001


class Room(WaitingRoom):
    """A waiting room with a name. `kind` is a metric label, and names the reason of a refusal."""

    def __init__(self, kind: Kind, name: str, slots: int, bound: int) -> None:
        super().__init__(slots, bound)
        self.kind: Final[Kind] = kind
        self.name: Final = name

    @property
    def full(self) -> bool:
        """All places are taken."""
        return self.inside >= self.slots


class Rooms:
    """All rooms, each made once."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._rooms: dict[tuple[Kind, str], Room] = {}
        #: The numbers of the last reload.
        self._applied: dict[tuple[Kind, str], tuple[int, int]] = {}

    def room(self, kind: Kind, name: str, slots: int, bound: int) -> Room:
        """The one of this name, with these numbers: `slots` may be inside, `bound` may wait."""
        room = self._rooms.get((kind, name))
        if room is None:
            room = self._rooms[kind, name] = Room(kind, name, slots, bound)
        elif room.slots != slots or room.bound != bound:
            room.resize(slots, bound, self._clock())
        return room

    def place(self, kind: Kind, name: str, slots: int, bound: int) -> Room:
        """The one of this name, as it is; made with these numbers, or those of the last reload. Who
        asks may have begun before that, and know older ones."""
        room = self._rooms.get((kind, name))
        if room is None:
            room = self.room(kind, name, *self._applied.get((kind, name), (slots, bound)))
        return room

    def all(self) -> Iterable[Room]:
        return self._rooms.values()

    def apply(self, kind: Kind, limits: Mapping[str, tuple[int, int]]) -> None:
        """After a reload: the (slots, bound) of those of this kind that have any. It counts at once
        for who waits there; the others are forgotten."""
        for known in [known for known in self._applied if known[0] == kind]:
            del self._applied[known]
        self._applied |= {(kind, name): numbers for name, numbers in limits.items()}
        names = [room.name for room in self._rooms.values() if room.kind == kind]
        for name in names:
            if name in limits:
                self.room(kind, name, *limits[name])
        self.forget(kind, [name for name in names if name not in limits])

    def forget(self, kind: Kind, names: Iterable[str]) -> None:
        """These have no limit any more, or are gone. Who waits there is let in."""
        for name in names:
            room = self._rooms.pop((kind, name), None)
            if room is not None:
                room.resize(sys.maxsize, 0, self._clock())
                self._metrics.queue_depth.remove(kind, name)

    def collect(self) -> None:
        """Bring the gauges up to now: before each scrape."""
        for room in self._rooms.values():
            self._metrics.queue_depth.labels(room.kind, room.name).set(room.depth)

    def enter(self, room: Room, key: str, now: float) -> Ticket:
        """A place in a room that has a free one, without waiting."""
        self._metrics.queue_wait.labels(room.kind).observe(0.0)
        return room.enter(key, now)

    async def first(self, rooms: Sequence[Room], key: str, deadline: float) -> tuple[int, Ticket]:
        """A place in whichever of the rooms (at least one) is free first; of several free ones, in
        the earliest: its index, and the ticket, which is INSIDE until the caller leaves it.

        Does not await when a place is free. Raises Overloaded, with an estimate when there is one,
        if all are full, or the deadline passes, or others have to have the room. Whatever it
        raises, a cancellation among it, nothing of this request is left in any room.
        """
        now = self._clock()
        for index, room in enumerate(rooms):
            if not room.full:
                return index, self.enter(room, key, now)
        if deadline <= now:
            raise self._refused(rooms, late=True)
        line = _Line(self._clock, deadline)
        try:
            for index, room in enumerate(rooms):
                line.enter(index, room, key, now)
            await line.moved()
        except BaseException:
            line.leave()
            raise
        found = line.found()
        if found is None:
            raise self._refused(rooms, late=line.late)
        index, ticket = found
        self._metrics.queue_wait.labels(rooms[index].kind).observe(ticket.waited or 0.0)
        return index, ticket

    def _refused(self, rooms: Sequence[Room], *, late: bool) -> Overloaded:
        kind = rooms[0].kind
        self._metrics.shed.labels("queue_timeout" if late else f"{kind}_queue").inc()
        estimates = [found for room in rooms if (found := room.estimate()) is not None]
        why = "and none came free in time" if late else "and as many requests wait as may"
        return Overloaded(
            f"{_WHO[kind]} busy: all places are taken, {why}.",
            retry_after=min(estimates, default=None),
        )


class _Line:
    """One request's tickets in several rooms. At most one is INSIDE, at any moment."""

    def __init__(self, clock: Callable[[], float], deadline: float) -> None:
        self._clock, self._deadline = clock, deadline
        self._tickets: list[tuple[int, Ticket]] = []
        self._moved: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the deadline passed before its turn came.
        self.late = False

    def enter(self, index: int, room: Room, key: str, now: float) -> None:
        try:
            ticket = room.enter(key, now, self._deadline)
        except RoomFull:
            return
        ticket.on_move = self._on_move
        self._tickets.append((index, ticket))

    async def moved(self) -> None:
        """Until one is INSIDE, or none waits any more."""
        if not self._tickets:
            return
        loop = asyncio.get_running_loop()
        self._moved = loop.create_future()
        self._arm()
        try:
            await self._moved
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def found(self) -> tuple[int, Ticket] | None:
        """The one that is INSIDE."""
        found = None
        for index, ticket in self._tickets:
            ticket.on_move = None
            if ticket.place is Place.INSIDE:
                found = index, ticket
            self.late = self.late or ticket.place is Place.EXPIRED
        return found

    def leave(self) -> None:
        for _, ticket in self._tickets:
            ticket.on_move = None
            ticket.leave(self._clock())

    def _on_move(self, moved: Ticket) -> None:
        if moved.place is Place.INSIDE:
            for _, ticket in self._tickets:
                if ticket is not moved:
                    ticket.leave(self._clock())
        elif any(ticket.place is Place.WAITING for _, ticket in self._tickets):
            return
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _arm(self) -> None:
        if self._deadline < float("inf"):
            left = max(_AGAIN, self._deadline - self._clock())
            self._timer = asyncio.get_running_loop().call_later(left, self._on_time)

    def _on_time(self) -> None:
        now = self._clock()
        if now < self._deadline:
            self._arm()
            return
        for _, ticket in self._tickets:
            ticket.leave(now)
