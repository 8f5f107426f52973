"""Many requests through one dispatcher over real sockets; time and chance are the test's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from server.errors import RoundhouseError
from server.protocol.request import Request
from server.routing.attempt import Pace
from server.routing.breaker import State
from server.routing.chain import Chain, Group, Loading, Route
from server.routing.dispatch import Dispatcher
from server.routing.policies import Policy
from server.routing.record import Record
from server.routing.settings import Settings
from server.telemetry.metrics import Metrics
from server.transport import Transport
from tests.fakes.upstream import ScriptedUpstream, answer_json, error
from tests.routing.client import MemorySink
from tests.routing.conftest import MODEL, PACE, SETTINGS, FakeTarget, request_of

#: A failure that is no fault of the request.
BOOM = answer_json(500, error("boom"))


class Clock:
    """Stands still until the test turns it."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Asked:
    """A request and what became of it."""

    sink: MemorySink = field(default_factory=MemorySink)
    record: Record = field(default_factory=Record)
    error: RoundhouseError | None = None
    left: bool = False

    @property
    def target(self) -> str | None:
        """Who answered; None: nobody."""
        return None if self.error or self.left else self.record.target

    @property
    def status(self) -> int:
        return 200 if self.error is None else self.error.status

    def ended_once(self) -> bool:
        if self.left:
            return not self.sink.ended
        if self.error is not None:
            return not (self.sink.committed or self.sink.ended)
        return self.sink.ended == 1


class Stage:
    """A dispatcher, its targets and everything that was asked of it."""

    def __init__(self, transport: Transport) -> None:
        self.clock = Clock()
        #: What every draw gives: half of all chances.
        self.drawn = 0.5
        self.metrics = Metrics()
        self.metrics.set_models([MODEL])
        self.dispatcher = Dispatcher(
            transport,
            self.metrics,
            settings=SETTINGS,
            clock=self.clock,
            draw=lambda: self.drawn,
        )
        self.who_can: Callable[[str], list[str]] = lambda ability: []
        self.pace: Pace = PACE
        self.asked: list[Asked] = []
        self.standings: set[Any] = set()

    def settings(self, **changed: Any) -> Settings:
        self.dispatcher.configure(replace(self.dispatcher.settings, **changed))
        return self.dispatcher.settings

    # --- targets and chains

    def route(
        self,
        target: FakeTarget,
        *,
        model: str = MODEL,
        account: str | None = None,
        place: str = "",
        **more: Any,
    ) -> Route:
        """`account`: whose credential it sends; `place`: that of a target with several keys."""
        credential = None if account is None else (account, "secret")
        standing = self.dispatcher.standings.of(target.label, credential, place=place)
        self.standings.add(standing)
        return Route(model, target, standing, **more)

    def group(
        self, *routes: Route | FakeTarget, policy: Policy = Policy.ORDERED, model: str = MODEL
    ) -> Group:
        parts = [self.route(r, model=model) if isinstance(r, FakeTarget) else r for r in routes]
        return Group(model, tuple(parts), policy)

    def chain(
        self,
        *routes: Route | FakeTarget,
        policy: Policy = Policy.ORDERED,
        fallbacks: Sequence[Route | FakeTarget] = (),
        context: Sequence[Route | FakeTarget] = (),
        content: Sequence[Route | FakeTarget] = (),
        bridge: Route | FakeTarget | None = None,
        loading: Loading = Loading.FALLBACK,
    ) -> Chain:
        """Each of the others is a model of its own, with this one target."""

        def others(kind: str, routes: Sequence[Route | FakeTarget]) -> tuple[Group, ...]:
            return tuple(self.group(r, model=f"{kind} {n}") for n, r in enumerate(routes))

        return Chain(
            self.group(*routes, policy=policy),
            others("fallback", fallbacks),
            others("context", context),
            others("content", content),
            self.group(bridge, model="bridge") if bridge is not None else None,
            loading,
        )

    # --- requests

    async def ask(
        self,
        chain: Chain,
        *,
        key: str = "",
        deadline: float = 30.0,
        request: Request | None = None,
        stream: bool = False,
        **more: Any,
    ) -> Asked:
        """One request to its end. `deadline`: seconds from now by the stage's clock."""
        said = request or request_of(stream=stream, **more)
        said.key, said.deadline = key, self.clock.now + deadline
        one = Asked()
        self.asked.append(one)
        try:
            await self.dispatcher.run(
                said,
                chain,
                one.sink,
                one.record,
                model_label=MODEL,
                pace=self.pace,
                who_can=self.who_can,
            )
        except RoundhouseError as error:
            one.error = error
        except asyncio.CancelledError:
            one.left = True
            raise
        return one

    def start(self, chain: Chain, **more: Any) -> asyncio.Task[Asked]:
        return asyncio.create_task(self.ask(chain, **more))

    async def asks(self, chain: Chain, count: int, **more: Any) -> list[Asked]:
        """One after the other."""
        return [await self.ask(chain, **more) for _ in range(count)]

    async def until_waiting(self, count: int) -> None:
        """Until so many requests wait for a place."""
        while sum(room.depth for room in self.dispatcher.rooms.all()) < count:
            await asyncio.sleep(0)

    # --- what can be seen

    def state(self, route: Route) -> State:
        """Of the target alone."""
        return route.standing.breaker.state(self.clock.now)

    def account(self, route: Route) -> State:
        assert route.standing.credential is not None
        return route.standing.credential.state(self.clock.now)

    def count(self, name: str, **labels: str) -> int:
        """The sum of all series of this metric with these labels."""
        self.dispatcher.collect()
        found = 0.0
        for metric in self.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == f"roundhouse_{name}" and labels.items() <= sample.labels.items():
                    found += sample.value
        return int(found)

    def attempts(self, **labels: str) -> int:
        return self.count("attempts_total", **labels)

    def quiet(self) -> None:
        """Nothing is under way, no place is taken, and every request ended once."""
        for standing in self.standings:
            assert standing.in_flight == 0
            assert standing.breaker.under_way == 0
            assert standing.credential is None or standing.credential.under_way == 0
        for room in self.dispatcher.rooms.all():
            assert (room.inside, room.depth) == (0, 0)
        assert all(one.ended_once() for one in self.asked)


def inside(stage: Stage) -> dict[str, tuple[int, int]]:
    """Of each target with places: those inside and those that wait."""
    rooms = stage.dispatcher.rooms.all()
    return {room.name: (room.inside, room.depth) for room in rooms}


async def busy(stage: Stage, upstream: ScriptedUpstream, route: Route) -> asyncio.Task[Asked]:
    """A request that holds the target's place until the gate opens."""
    task = stage.start(stage.chain(route))
    await upstream.next_request()
    return task
