"""The seam between routing and the places that answer: engines and providers.

A Target sends one request in its dialect and yields the answer's head; the relay reads the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from server.dialects import openai
from server.engines.replicas import Replica
from server.engines.state import EngineState, EngineView
from server.errors import EngineNotReady, InvalidRequest
from server.protocol.envelope import Surface
from server.protocol.parameters import Fill
from server.protocol.request import Request
from server.transport import AttemptTimeouts, Endpoint, Response, Transport

_JSON: Final = {"content-type": "application/json"}
_ENGINE_ONLY_SURFACES: Final = frozenset({Surface.TOKENIZE, Surface.DETOKENIZE})


class Engines(Protocol):
    """What the data path needs of the supervisor."""

    def view(self, name: str) -> EngineView | None: ...

    async def wait_ready(self, name: str, timeout: float) -> EngineView: ...

    def want(self, name: str) -> None: ...

    def report_failure(self, name: str, generation: int) -> None: ...

    def eta(self, name: str) -> float | None: ...

    def hopeless(self, name: str) -> EngineNotReady | None: ...


class Target(Protocol):
    """One place that can answer. `label` is its metric label and response header."""

    label: str
    timeouts: AttemptTimeouts
    retry_ambiguous: bool

    @property
    def ready(self) -> bool:
        """Would an attempt now reach something that answers?"""

    @property
    def may_become_ready(self) -> bool:
        """Is waiting for it of use?"""

    def eta(self) -> float | None:
        """Seconds until it is ready, estimated; None: nobody knows."""

    def hopeless(self) -> EngineNotReady | None:
        """What a client is told while waiting for it is of no use; None: nothing of its own."""

    def refuses(self, request: Request) -> InvalidRequest | None:
        """Why this target can never answer this request, or None."""

    async def wait(self, timeout: float) -> None:
        """Until it is ready. Raises EngineNotReady or Overloaded."""

    async def send(self, request: Request, transport: Transport) -> Response:
        """Send, and wait for the head. Raises UpstreamError, EngineNotReady."""

    def mark(self) -> int:
        """What `failed` needs to know later of the moment before `send`."""

    def want(self) -> None:
        """It was passed over because it is not loaded: load it, without waiting."""

    def failed(self, mark: int) -> None:
        """An answer broke off: look after this target now rather than later."""

    def lost(self) -> bool:
        """Is it gone, with all that it was doing? Asked a little after a failure."""


@dataclass(slots=True)
class EngineTarget:
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

    def refuses(self, request: Request) -> InvalidRequest | None:
        return None

    async def wait(self, timeout: float) -> None:
        await self.engines.wait_ready(self.engine, min(timeout, self.max_wait))

    async def send(self, request: Request, transport: Transport) -> Response:
        view = self.engines.view(self.engine)
        if view is None or view.state is not EngineState.READY or view.socket is None:
            raise EngineNotReady(f"The engine of `{request.model}` is not ready.")
        return await transport.send(
            Endpoint("http://engine", view.socket),
            "POST",
            _engine_path(request.surface),
            headers={**_JSON, "x-request-id": request.id},
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
class ExternalTarget:
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

    def hopeless(self) -> EngineNotReady | None:
        return None

    def refuses(self, request: Request) -> InvalidRequest | None:
        return None

    async def wait(self, timeout: float) -> None:
        await self.fleet.wait_ready(self.engine, min(timeout, self.max_wait))

    async def send(self, request: Request, transport: Transport) -> Response:
        raise EngineNotReady(f"No replica of `{request.model}` is well.", code="no_replica")

    def mark(self) -> int:
        return 0

    def want(self) -> None:
        return

    def failed(self, mark: int) -> None:
        return

    def lost(self) -> bool:
        return False


@dataclass(slots=True)
class ReplicaTarget:
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

    @property
    def ready(self) -> bool:
        return True

    @property
    def may_become_ready(self) -> bool:
        return True

    def eta(self) -> float | None:
        return 0.0

    def hopeless(self) -> EngineNotReady | None:
        return None

    def refuses(self, request: Request) -> InvalidRequest | None:
        return None

    async def wait(self, timeout: float) -> None:
        return

    async def send(self, request: Request, transport: Transport) -> Response:
        replica = self.replica
        return await transport.send(
            Endpoint(replica.base_url),
            "POST",
            _engine_path(request.surface),
            headers={**_JSON, **replica.headers, "x-request-id": request.id},
            body=openai.request_out(
                request, model=replica.model, tenant=request.tenant, fill=self.fill, drop=self.drop
            ),
            timeouts=self.timeouts,
            deadline=request.deadline,
        )

    def mark(self) -> int:
        return 0

    def want(self) -> None:
        return

    def failed(self, mark: int) -> None:
        self.fleet.report_failure(self.engine, self.replica.address)

    def lost(self) -> bool:
        well = self.fleet.replicas(self.engine)
        return all(replica.address != self.replica.address for replica in well)


def _engine_path(surface: Surface) -> str:
    """Tokenising stands beside vLLM's /v1."""
    return f"/{surface}" if surface in _ENGINE_ONLY_SURFACES else "/v1" + openai.PATHS[surface]


@dataclass(slots=True)
class ProviderTarget:
    """A model at a provider of the OpenAI dialect."""

    provider: str
    model: str
    base_url: str
    #: With the account's key, so no log shows them; a proxy's URL may hold a password.
    headers: dict[str, str] = field(repr=False)
    timeouts: AttemptTimeouts
    retry_ambiguous: bool = False
    label: str = ""
    proxy: str | None = field(default=None, repr=False)
    fill: Fill | None = None
    drop: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.label = self.label or f"{self.provider}/{self.model}"

    @property
    def ready(self) -> bool:
        return True

    @property
    def may_become_ready(self) -> bool:
        return True

    def eta(self) -> float | None:
        return 0.0

    def hopeless(self) -> EngineNotReady | None:
        return None

    def refuses(self, request: Request) -> InvalidRequest | None:
        if request.surface in _ENGINE_ONLY_SURFACES:
            return InvalidRequest(
                f"`{request.model}` is served by a remote provider, which has no "
                f"/{request.surface}. It works for models on engines of this server.",
                param="model",
                code="unsupported_endpoint",
            )
        return None

    async def wait(self, timeout: float) -> None:
        return

    async def send(self, request: Request, transport: Transport) -> Response:
        return await transport.send(
            Endpoint(self.base_url, proxy=self.proxy),
            "POST",
            openai.PATHS[request.surface],
            headers={**_JSON, **self.headers},
            body=openai.request_out(
                request, model=self.model, tenant=None, fill=self.fill, drop=self.drop
            ),
            timeouts=self.timeouts,
            deadline=request.deadline,
        )

    def mark(self) -> int:
        return 0

    def want(self) -> None:
        return

    def failed(self, mark: int) -> None:
        return

    def lost(self) -> bool:
        return False
