"""Chains whose targets are in every state, for what is explained of them."""

from __future__ import annotations

from typing import Any

from server.protocol.request import Request
from server.routing.abilities import Able
from server.routing.budget import BudgetSettings
from server.routing.chain import Chain, Changing, Group, Route
from server.routing.dispatch import Dispatcher
from server.routing.explain import explain
from server.routing.explanation import Entry, Explanation
from server.routing.settings import Settings
from server.telemetry.metrics import Metrics
from server.transport import Transport
from tests.routing.conftest import FakeTarget, request_of

SMALL = Able(window=4)
LONG: dict[str, Any] = {"prompt": [1, 2, 3, 4, 5]}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]}


class Scene:
    """Targets by their names; the clock and all chance are the test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.draws = 0
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            Transport(),
            self.metrics,
            settings=Settings(budget=BudgetSettings(floor=2)),
            clock=lambda: self.now,
            draw=self.draw,
        )

    def draw(self) -> float:
        self.draws += 1
        return 0.0

    def route(
        self, name: str, *, model: str = "m", key: str = "", account: str | None = None,
        ready: bool = True, may_become_ready: bool = True, eta: float | None = None, **more: Any,
    ) -> Route:  # fmt: skip
        target = Loads(name, eta, ready=ready, may_become_ready=may_become_ready)
        credential = None if account is None else (account, "digest")
        standing = self.dispatcher.standings.of(key or name, credential)
        return Route(model, target, standing, **more)

    def loads(self, name: str, **more: Any) -> Route:
        return self.route(name, ready=False, **more)

    def fails(self, name: str, outcome: str = "reset", count: int = 5, **more: Any) -> Route:
        route = self.route(name, **more)
        for _ in range(count):
            attempt = route.standing.began(self.now)
            route.standing.ended(self.now, attempt, outcome)
        return route

    def full(self, name: str, waiting: int = 0, **more: Any) -> Route:
        route = self.route(name, slots=1, **more)
        (room,) = self.dispatcher.places(route)
        for _ in range(1 + waiting):
            room.enter("key", self.now)
        return route

    def explain(self, chain: Chain, request: Request | None = None) -> Explanation:
        return explain(chain, request or request_of(stream=False), self.dispatcher)


class Loads(FakeTarget):
    def __init__(self, label: str, eta: float | None, **more: Any) -> None:
        super().__init__(label, **more)
        self.seconds = eta

    def eta(self) -> float | None:
        return self.seconds


def group(model: str, *routes: Route | Changing, **more: Any) -> Group:
    return Group(model, routes, **more)


def steps(found: Explanation) -> str:
    assert [entry.place for entry in found.targets] == [*range(1, len(found.targets) + 1)]
    return " ".join(f"{entry.target}:{entry.action}" for entry in found.targets)


def entry(found: Explanation, target: str) -> Entry:
    return next(one for one in found.targets if one.target == target)
