"""External engines over scripted replicas: real sockets, short times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from server.engines.external import Settings
from server.engines.fleet import Fleet
from server.engines.state import EngineState, EngineView
from server.telemetry.metrics import Metrics
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_bytes, answer_json, models_answer

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="odd }} name"}} {running}
vllm:num_requests_running{{engine="1",model_name="m"}} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
vllm:num_requests_waiting_by_reason{{engine="0",reason="capacity"}} 99.0
"""
NAME = "qwen"
KEY = "a-replica-key"


def says_load(running: float, waiting: float) -> Any:
    return answer_bytes(200, METRICS.format(running=running, waiting=waiting).encode())


def a_replica(model: str = "m") -> ScriptedUpstream:
    """A vLLM that is well and has nothing to do; `well` and `ill` change it."""
    upstream = ScriptedUpstream(routes={"/metrics": says_load(0, 0)})
    well(upstream, model)
    return upstream


def well(upstream: ScriptedUpstream, model: str = "m") -> None:
    upstream.routes["/health"] = answer_bytes(200, b"")
    upstream.routes["/v1/models"] = models_answer(model)


def ill(upstream: ScriptedUpstream) -> None:
    upstream.routes["/health"] = answer_json(503)


def address(upstream: ScriptedUpstream) -> str:
    return f"127.0.0.1:{upstream.port}"


class Names:
    """What DNS says; a `Resolver`. `fault` is raised; with a `gate` each look-up takes a ticket.
    `running`: look-ups under way.
    """

    def __init__(self) -> None:
        self.hosts: list[tuple[str, int]] = []
        self.fault: Exception | None = None
        self.gate: Gate | None = None
        self.running = 0
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    def say(self, *upstreams: ScriptedUpstream) -> None:
        self.hosts = [("127.0.0.1", upstream.port) for upstream in upstreams]

    async def __call__(self, discover: str) -> Iterable[tuple[str, int]]:
        self.asked.put_nowait(discover)
        self.running += 1
        try:
            if self.gate is not None:
                await self.gate.pass_one()
        finally:
            self.running -= 1
        if self.fault is not None:
            raise self.fault
        return list(self.hosts)

    async def next_asked(self) -> str:
        """Until a look-up begins."""
        while not self.asked.empty():
            self.asked.get_nowait()
        return await self.asked.get()

    async def looked_up(self, times: int) -> None:
        """Until so many look-ups that began after now are over."""
        for _ in range(times + 1):  # one begins when the one before is over
            await self.next_asked()


class Fleets:
    """Fleets and what a test wants to know of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.names = Names()
        self.busy: dict[str, int] = {}
        self.made: list[Fleet] = []

    async def start(self, **engines: Settings) -> Fleet:
        fleet = Fleet(
            engines,
            metrics=self.metrics,
            in_flight=lambda key: self.busy.get(key, 0),
            resolve=self.names,
        )
        self.made.append(fleet)
        await fleet.start()
        return fleet

    async def fixed(self, *upstreams: ScriptedUpstream, **changes: Any) -> Fleet:
        return await self.start(qwen=fixed(*upstreams, **changes))

    async def discovered(self, **changes: Any) -> Fleet:
        return await self.start(qwen=discovered(**changes))

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"engine": NAME, **labels})

    def changes(self, change: str) -> float:
        return self.count("roundhouse_replica_changes_total", change=change) or 0.0


def fixed(*upstreams: ScriptedUpstream, **changes: Any) -> Settings:
    return Settings(**{"urls": tuple(up.url for up in upstreams), **quick(changes)})


def discovered(**changes: Any) -> Settings:
    return Settings(**{"discover": "dns://qwen.test:8000", "refresh": 0.02, **quick(changes)})


def quick(changes: dict[str, Any]) -> dict[str, Any]:
    return {"interval": 0.05, **changes}


async def until(fleet: Fleet, accept: Callable[[EngineView], bool], name: str = NAME) -> EngineView:
    """The first view, now or later, that is accepted."""
    async with asyncio.timeout(20):
        with fleet.subscribe() as feed:
            async for view in feed:
                if view.name == name and accept(view):
                    return view
    raise AssertionError("the feed ended")


async def in_state(fleet: Fleet, state: EngineState) -> EngineView:
    return await until(fleet, lambda view: view.state is state)


async def these(fleet: Fleet, *upstreams: ScriptedUpstream) -> EngineView:
    """Until exactly these replicas are well."""
    wanted = {address(upstream) for upstream in upstreams}
    return await until(fleet, lambda _: {r.address for r in fleet.replicas(NAME)} == wanted)


async def asked(upstream: ScriptedUpstream, path: str, times: int = 1) -> None:
    """Until so many answers of this path, asked for from now on, have been taken in."""
    seen = len(upstream.requests)
    # A replica is asked one thing at a time: the next question means that the last is done with.
    async with asyncio.timeout(20):
        count = 0
        while count <= times:
            await upstream.next_request()
            count = sum(exchange.path == path for exchange in upstream.requests[seen:])
