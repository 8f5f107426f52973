"""Targets on a table: what the tests of plans share."""

from __future__ import annotations

from typing import Any

from server.routing.chain import Chain, Group, Route
from server.routing.lineup import Dice, LineUp
from server.routing.plan import Action
from server.routing.standing import Standings
from tests.routing.conftest import FakeTarget, request_of

NOW = 1000.0


class Table:
    """Targets by name, and the plans over them. `full`: names of those without a place."""

    def __init__(self) -> None:
        self.standings = Standings(lambda: 0.0)
        self.full: set[str] = set()
        self.drawn = 0.5
        self.draws = 0
        self.dice = Dice(self._draw, lambda route: route.standing.key in self.full, 0.5)

    def _draw(self) -> float:
        self.draws += 1
        return self.drawn

    def route(self, name: str, *, model: str = "m", busy: int = 0, **more: Any) -> Route:
        target = FakeTarget(
            name, ready=more.pop("ready", True), may_become_ready=more.pop("may", True)
        )
        standing = self.standings.of(name, more.pop("account", None))
        standing.in_flight = busy or standing.in_flight
        return Route(model, target, standing, **more)

    def trip(self, *routes: Route) -> None:
        for route in routes:
            for _ in range(5):
                route.standing.ended(NOW, route.standing.began(NOW), "reset")

    def lineup(self, chain: Chain | Group, **body: Any) -> LineUp:
        chain = Chain(chain) if isinstance(chain, Group) else chain
        return LineUp(chain, request_of(**body))

    def plan(
        self, lineup: LineUp | Chain | Group, now: float = NOW, tried: tuple[str, ...] = ()
    ) -> list[tuple[str, Action]]:
        if not isinstance(lineup, LineUp):
            lineup = self.lineup(lineup)
        found = lineup.plan(now, self.dice, tried)
        keys = [ranked.route.standing.key for ranked in found]
        assert len(set(keys)) == len(keys)
        assert all(ranked.place and ranked.step.reason for ranked in found)
        return [(key, ranked.step.action) for key, ranked in zip(keys, found, strict=True)]

    def tries(self, lineup: LineUp | Chain | Group, **more: Any) -> str:
        """The names of those that would be tried, in order."""
        found = self.plan(lineup, **more)
        return " ".join(name for name, action in found if action is not Action.SKIP)
