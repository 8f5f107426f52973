"""Targets on engines that somebody else runs: their replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.dialects import openai
from server.dialects.account import Scrubber
from server.dialects.base import Outgoing
from server.engines.replicas import Replica
from server.engines.state import EngineView
from server.errors import EngineNotReady, UpstreamError
from server.protocol.parameters import Fill
from server.protocol.request import Request
from server.targets.engines import engine_path
from server.targets.seam import JSON, Plain
from server.transport import AttemptTimeouts, Endpoint, Response, Transport


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
            engine_path(request.surface),
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
