"""A waiting room that looks on: who has what, and that turns are kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from typing import Any

from server.access.queue import Place, Ticket
from server.access.rooms import Kind, Room


class WatchedRoom(Room):
    """First in line within a key, in turn between keys, and whose task each ticket is."""

    def __init__(self, kind: Kind, name: str, slots: int, bound: int) -> None:
        super().__init__(kind, name, slots, bound)
        self.tickets: list[tuple[Ticket, asyncio.Task[Any] | None]] = []
        #: Of each waiting key: whom it has seen let in since its own last turn.
        self.passed: dict[str, Counter[str]] = {}
        #: A reload took slots away that are still used.
        self.shrunk = False

    def enter(self, key: str, now: float, deadline: float = inf) -> Ticket:
        ticket = super().enter(key, now, deadline)
        if len(self._waiting.get(key, ())) == 1:
            self.passed[key] = Counter()
        self.tickets.append((ticket, asyncio.current_task()))
        return ticket

    def resize(self, slots: int, bound: int, now: float) -> None:
        super().resize(slots, bound, now)
        self.shrunk = self.inside > slots

    def of(self, task: asyncio.Task[Any]) -> list[Ticket]:
        """Those of a task that wait or are inside."""
        places = (Place.WAITING, Place.INSIDE)
        return [t for t, owner in self.tickets if owner is task and t.place in places]

    def check(self) -> None:
        """No slot is lost or given twice."""
        counts = Counter(ticket.place for ticket, _ in self.tickets)
        assert self.inside == counts[Place.INSIDE]
        assert self.depth == counts[Place.WAITING]
        assert not self.depth or self.inside >= self.slots, "a slot is free, and somebody waits"
        self.shrunk = self.shrunk and self.inside > self.slots
        assert self.inside <= self.slots or self.shrunk, "more are inside than there are slots"
        for ticket, task in self.tickets:
            if task is not None and task.done():
                assert ticket.place not in (Place.WAITING, Place.INSIDE), "it went and left this"

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
