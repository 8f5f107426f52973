"""What all requests share on their ways: memory of targets, places, the retry budget, chance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from server.access.rooms import Room, Rooms
from server.protocol.request import Request
from server.routing.abilities import Needs
from server.routing.budget import RetryBudget
from server.routing.chain import Chain, Route
from server.routing.lineup import Dice
from server.routing.ratelimits import RateLimits
from server.routing.settings import Settings
from server.routing.standing import Standings
from server.routing.suspicion import Watch
from server.telemetry.metrics import Metrics
from server.transport import Transport


class Means:
    """One for the server, over all reloads of its config."""

    def __init__(
        self,
        transport: Transport,
        metrics: Metrics,
        *,
        standings: Standings | None = None,
        rooms: Rooms | None = None,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.transport, self.metrics, self.clock = transport, metrics, clock
        self.standings = standings or Standings(draw)
        self.suspects = self.standings.suspects
        self.watch = Watch(self.suspects, metrics)
        self.rooms = rooms or Rooms(metrics, clock)
        self.settings = settings or Settings()
        self.budget = RetryBudget(self.settings.budget)
        self.limits = RateLimits()
        self.standings.configure(self.settings.breaker)
        self.dice = Dice(draw, self.full, self.settings.panic)

    def configure(self, settings: Settings) -> None:
        """After a reload. What is unchanged keeps its memory."""
        if settings.budget != self.settings.budget:
            self.budget = RetryBudget(settings.budget)
        self.standings.configure(settings.breaker)
        self.dice.panic = settings.panic
        self.settings = settings

    def places(self, route: Route) -> list[Room]:
        """The rooms in which an attempt at this target needs a place; none: it takes all."""
        found = []
        if route.slots is not None:
            found.append(self.rooms.place("target", route.place, route.slots, route.bound))
        if (account := route.account) is not None:
            found.append(self.rooms.place("provider", *account))
        return found

    def full(self, route: Route) -> bool:
        """Are all its places taken, or all of its account?"""
        return route.limited and any(room.full for room in self.places(route))

    def at_once(self, chain: Chain, request: Request) -> Route | None:
        """The first target of a fixed order, if nothing speaks against it. Nearly every request
        ends there, and needs no plan."""
        first = chain.first
        if (
            first is None
            or not first.target.ready
            or not first.standing.clear(self.clock)
            or first.refuses(request) is not None
            or (self.suspects.any and first.target.local is not None)
        ):
            return None
        if first.choosy and Needs(request.members, request.surface).missing(first.able):
            return None
        return first
