"""Targets on engines of this server: one that runs once, and each instance of one that runs
several times."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from server.dialects import openai
from server.engines.state import ON_SOCKET, EngineState, EngineView, Instance
from server.engines.suspects import Suspects
from server.errors import EngineNotReady, InvalidRequest, Overloaded
from server.protocol.envelope import Surface
from server.protocol.parameters import Fill
from server.protocol.request import Request
from server.targets.seam import ENGINE_ONLY_SURFACES, JSON, Plain
from server.transport import AttemptTimeouts, Endpoint, Response, Transport

#: What people read while it is waited for, beside the estimate. General: what else this server
#: runs is no matter of its clients.
_WORDS: Final = {
    EngineState.WAITING: "The model is loading: it is being prepared, or waits for memory.",
    EngineState.ASLEEP: "The model is loading: it is being woken up.",
    EngineState.DRAINING: "The model is loading: it has just made room, and comes back.",
    EngineState.BACKOFF: "The model is loading: its engine starts again.",
}


class Engines(Protocol):
    """What the data path needs of the supervisor."""

    def view(self, name: str) -> EngineView | None: ...

    def instances(self, name: str) -> tuple[Instance, ...]:
        """Those that are ready."""

    def used(self, name: str, replica: int = 0, keep_alive: float | None = None) -> None: ...

    async def wait_ready(self, name: str, timeout: float) -> EngineView: ...

    def want(self, name: str) -> None: ...

    def report_failure(self, name: str, generation: int) -> None: ...

    def eta(self, name: str) -> float | None: ...

    def hopeless(self, name: str) -> EngineNotReady | None: ...


@dataclass(slots=True)
class _Local(Plain):
    """What an engine and one instance of it have in common."""

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
    #: What it calls its model; empty: by the engine's name.
    model: str = ""
    #: Bodies that engines have died with.
    suspects: Suspects = field(default_factory=Suspects, repr=False)
    local: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.label = self.label or f"engine/{self.engine}"
        self.model = self.model or self.engine
        self.local = self.engine

    def refuses(self, request: Request) -> InvalidRequest | None:
        suspects = self.suspects
        if not suspects.any:
            return None
        left = suspects.refused(self.engine, suspects.digest_of(request))
        return None if left is None else _crashed(request, left)

    def failed(self, mark: int) -> None:
        self.engines.report_failure(self.engine, mark)

    def died(self, mark: int) -> bool | None:
        view = self.engines.view(self.engine)
        if view is None:  # it was taken out of the config
            return False
        states = [one.state for one in view.instances if one.generation == mark]
        if not states and view.generation == mark:
            states = [view.state]
        if not states:  # another has its place already
            return True
        if states[0] is EngineState.READY:
            return None
        return states[0] in (EngineState.BACKOFF, EngineState.FAILED)

    def _post(
        self, request: Request, transport: Transport, url: str, socket: str | None, replica: int
    ) -> Coroutine[Any, Any, Response]:
        self.engines.used(self.engine, replica, request.keep_alive)
        return transport.send(
            Endpoint(url, socket),
            "POST",
            engine_path(request.surface),
            headers={**JSON, "x-request-id": request.id},
            body=openai.request_out(
                request, model=self.model, tenant=request.tenant, fill=self.fill, drop=self.drop
            ),
            timeouts=self.timeouts,
            deadline=request.deadline,
        )


@dataclass(slots=True)
class EngineTarget(_Local):
    """An engine of ours that runs once; or, where it runs several times and no instance is ready,
    what can be waited for."""

    @property
    def ready(self) -> bool:
        view = self.engines.view(self.engine)
        return view is not None and view.state is EngineState.READY

    @property
    def may_become_ready(self) -> bool:
        view = self.engines.view(self.engine)
        if view is None or view.state is EngineState.FAILED:
            return False
        # What drains makes room for others, or falls asleep, and comes back when it is asked for;
        # unless an operator wants it so.
        return view.state is not EngineState.DRAINING or self.hopeless() is None

    def eta(self) -> float | None:
        return self.engines.eta(self.engine)

    def hopeless(self) -> EngineNotReady | None:
        return self.engines.hopeless(self.engine)

    def loading(self) -> EngineNotReady:
        view = self.engines.view(self.engine)
        words = _WORDS.get(view.state) if view is not None else None
        return EngineNotReady(
            words or "The model is loading.", code="engine_loading", retry_after=self.eta()
        )

    async def wait(self, timeout: float) -> None:
        try:
            await self.engines.wait_ready(self.engine, min(timeout, self.max_wait))
        except Overloaded:
            self.want()
            raise
        except EngineNotReady as error:
            if error.code == "engine_loading":
                error.message = self.loading().message
                if timeout >= self.max_wait:
                    # It is told to come back, and comes in vain where nobody may wait for long.
                    self.want()
            raise

    async def send(
        self, request: Request, transport: Transport, outgoing: object = None
    ) -> Response:
        view = self.engines.view(self.engine)
        if (
            view is None
            or view.state is not EngineState.READY
            or (view.socket is None and view.url == ON_SOCKET)
        ):
            raise EngineNotReady(f"The engine of `{request.model}` is not ready.")
        return await self._post(request, transport, view.url, view.socket, 0)

    def mark(self) -> int:
        view = self.engines.view(self.engine)
        return view.generation if view else 0

    def want(self) -> None:
        self.engines.want(self.engine)

    def lost(self) -> bool:
        return not self.ready


@dataclass(slots=True)
class InstanceTarget(_Local):
    """One instance, while it is ready, of an engine that runs several times. Its label is the
    engine's."""

    instance: Instance = field(kw_only=True)

    async def send(
        self, request: Request, transport: Transport, outgoing: object = None
    ) -> Response:
        one = self.instance
        return await self._post(request, transport, one.url, one.socket, one.replica)

    def mark(self) -> int:
        return self.instance.generation

    def lost(self) -> bool:
        mine = self.instance.generation
        return all(one.generation != mine for one in self.engines.instances(self.engine))


def engine_path(surface: Surface) -> str:
    """Tokenising stands beside vLLM's /v1."""
    return f"/{surface}" if surface in ENGINE_ONLY_SURFACES else "/v1" + openai.PATHS[surface]


def _crashed(request: Request, left: float) -> InvalidRequest:
    return InvalidRequest(
        f"Engines of this server died twice while they worked on this request for "
        f"`{request.model}`. None gets it again within the next {_minutes(left)}; a request that "
        "differs is answered.",
        code="request_crashed_engine",
    )


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return "minute" if minutes == 1 else f"{minutes} minutes"
