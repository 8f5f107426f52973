"""Targets on engines: our own, and replicas that somebody else runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.dialects import openai
from server.dialects.account import Scrubber
from server.dialects.base import Outgoing
from server.engines.replicas import Replica
from server.engines.state import EngineState, EngineView
from server.errors import EngineNotReady, UpstreamError
from server.protocol.envelope import Surface
from server.protocol.parameters import Fill
from server.protocol.request import Request
from server.targets.seam import ENGINE_ONLY_SURFACES, JSON, Plain
from server.transport import AttemptTimeouts, Endpoint, Response, Transport


class Engines(Protocol):
    """What the data path needs of the supervisor."""

    def view(self, name: str) -> EngineView | None: ...

    async def wait_ready(self, name: str, timeout: float) -> EngineView: ...

    def want(self, name: str) -> None: ...

    def report_failure(self, name: str, generation: int) -> None: ...

    def eta(self, name: str) -> float | None: ...

    def hopeless(self, name: str) -> EngineNotReady | None: ...


@dataclass(slots=True)
class EngineTarget(Plain):
    """Local weights on an engine of ours."""

    engine: str
    engines: Engines
    timeouts: AttemptTimeouts
    #: Seconds that a request may wait for it to be ready.
    max_wait: float = 300.0
    label: str = ""
    #: Work done twice on an engine of ours costs nothing but time.
    retry_ambiguous: bool = True
    #: What its bodies get beyond what the client sent, and what they go without.
    fill: Fill | None = None
    drop: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.label = self.label or f"engine/{self.engine}"

    @property
    def ready(self) -> bool:
        view = self.engines.view(self.engine)
        return view is not None and view.state is EngineState.READY

    @property
    def may_become_ready(self) -> bool:
        view = self.engines.view(self.engine)
        return view is not None and view.state not in (EngineState.FAILED, EngineState.DRAINING)

    def eta(self) -> float | None:
        return self.engines.eta(self.engine)

    def hopeless(self) -> EngineNotReady | None:
        return self.engines.hopeless(self.engine)

    async def wait(self, timeout: float) -> None:
        await self.engines.wait_ready(self.engine, min(timeout, self.max_wait))

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        view = self.engines.view(self.engine)
        if view is None or view.state is not EngineState.READY or view.socket is None:
            raise EngineNotReady(f"The engine of `{request.model}` is not ready.")
        return await transport.send(
            Endpoint("http://engine", view.socket),
            "POST",
            _engine_path(request.surface),
            headers={**JSON, "x-request-id": request.id},
            body=openai.request_out(
                request, model=self.engine, tenant=request.tenant, fill=self.fill, drop=self.drop
            ),
            timeouts=self.timeouts,
            deadline=request.deadline,
        )

    def mark(self) -> int:
        view = self.engines.view(self.engine)
        return view.generation if view else 0

    def want(self) -> None:
        self.engines.want(self.engine)

    def failed(self, mark: int) -> None:
        self.engines.report_failure(self.engine, mark)

    def lost(self) -> bool:
        return not self.ready


class Replicas(Protocol):
    """What the data path needs of the fleet of external engines."""

    def view(self, name: str) -> EngineView | None: ...

    def replicas(self, name: str) -> tuple[Replica, ...]: ...

    async def wait_ready(self, name: str, timeout: float) -> EngineView: ...

    def report_failure(self, name: str, address: str) -> None: ...


@dataclass(slots=True)
class ExternalTarget(Plain):
    """An external engine without a replica that is well: nothing to send to, but to wait for."""

    engine: str
    fleet: Replicas
    timeouts: AttemptTimeouts
    max_wait: float = 300.0
    label: str = ""
    retry_ambiguous: bool = True

    def __post_init__(self) -> None:
        self.label = self.label or f"engine/{self.engine}"

    @property
    def ready(self) -> bool:
        return False

    @property
    def may_become_ready(self) -> bool:
        return self.fleet.view(self.engine) is not None

    def eta(self) -> float | None:
        return None

    async def wait(self, timeout: float) -> None:
        await self.fleet.wait_ready(self.engine, min(timeout, self.max_wait))

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        raise EngineNotReady(f"No replica of `{request.model}` is well.", code="no_replica")


@dataclass(slots=True)
class ReplicaTarget(Plain):
    """One replica of an external engine, while it is well. Its label is the engine's."""

    engine: str
    replica: Replica
    fleet: Replicas
    timeouts: AttemptTimeouts
    label: str = ""
    #: Somebody else's vLLM is as free as our own.
    retry_ambiguous: bool = True
    fill: Fill | None = None
    drop: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.label = self.label or f"engine/{self.engine}"

    async def send(
        self, request: Request, transport: Transport, outgoing: Outgoing | None = None
    ) -> Response:
        replica = self.replica
        return await transport.send(
            Endpoint(replica.base_url),
            "POST",
            _engine_path(request.surface),
            headers={**JSON, **replica.headers, "x-request-id": request.id},
            body=openai.request_out(
                request, model=replica.model, tenant=request.tenant, fill=self.fill, drop=self.drop
            ),
            timeouts=self.timeouts,
            deadline=request.deadline,
        )

    def failed(self, mark: int) -> None:
        self.fleet.report_failure(self.engine, self.replica.address)

    def scrub(self, error: UpstreamError) -> None:
        Scrubber(self.replica.base_url, (self.replica.headers,)).clean(error)

    def lost(self) -> bool:
        well = self.fleet.replicas(self.engine)
        return all(replica.address != self.replica.address for replica in well)


def _engine_path(surface: Surface) -> str:
    """Tokenising stands beside vLLM's /v1."""
    return f"/{surface}" if surface in ENGINE_ONLY_SURFACES else "/v1" + openai.PATHS[surface]
