"""The admin listener's endpoints: metrics, engines, reload, and a feed of states."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from prometheus_client.exposition import choose_encoder
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.api.services import Services
from server.config.reload import ReloadReport
from server.engines import scrape
from server.engines.state import EngineView
from server.errors import InvalidRequest, RouteNotFound


class AdminEndpoints:
    """`reload` re-reads the config, whole or not at all."""

    def __init__(self, services: Services, reload: Callable[[], Awaitable[ReloadReport]]) -> None:
        self._services = services
        self._reload = reload

    async def metrics(self, request: HttpRequest) -> Response:
        """Roundhouse's own metrics."""
        self._services.metrics.tasks.set(len(asyncio.all_tasks()))
        self._services.admission.collect()
        self._services.dispatcher.collect()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = encode(self._services.metrics.registry)
        return Response(body, headers={"content-type": content_type})

    async def engine_metrics(self, request: HttpRequest) -> Response:
        """The engines' own metrics, each series labelled `roundhouse_engine`."""
        text, left_out = await scrape.fetch(self._services.supervisor.views())
        headers = {"x-roundhouse-left-out": ",".join(left_out)} if left_out else None
        return Response(
            text, headers=headers, media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def engines(self, request: HttpRequest) -> Response:
        """Every engine's state."""
        return JSONResponse({"engines": [self.describe(view) for view in self._views()]})

    async def load(self, request: HttpRequest) -> Response:
        """Start an engine that is stopped, failed or waiting; answers before it is ready."""
        name = self._name(request)
        await self._services.supervisor.load(name)
        return self._one(name, 202)

    async def unload(self, request: HttpRequest) -> Response:
        """Drain and stop an engine; it stays stopped until `load`."""
        name = self._name(request)
        await self._services.supervisor.unload(name)
        return self._one(name, 200)

    async def reload(self, request: HttpRequest) -> Response:
        """Read the config again. 400 with every error when it is not valid; the old one stays."""
        report = await self._reload()
        if report.error is not None:
            raise InvalidRequest(report.error, code="invalid_config")
        return JSONResponse(
            {"result": report.result, "changed": report.changed, "warnings": report.warnings}
        )

    async def events(self, request: HttpRequest) -> Response:
        """Server-sent events: the state of every engine now, then each change."""
        return EventSourceResponse(
            self._feed(), sep="\n", ping=15, headers={"x-accel-buffering": "no"}
        )

    async def _feed(self) -> AsyncIterator[ServerSentEvent]:
        services = self._services
        with services.supervisor.subscribe() as changes, services.fleet.into(changes):
            async for view in changes:
                yield self._event(view)

    def _views(self) -> tuple[EngineView, ...]:
        """Of our own engines, then of those that somebody else runs."""
        return (*self._services.supervisor.views(), *self._services.fleet.views())

    def _event(self, view: EngineView) -> ServerSentEvent:
        data = msgspec.json.encode(self.describe(view)).decode()
        return ServerSentEvent(data=data, event="engine", sep="\n")

    def _name(self, request: HttpRequest) -> str:
        name = str(request.path_params["name"])
        if self._services.fleet.view(name) is not None:
            raise InvalidRequest(
                f"Engine `{name}` is external: whoever runs its replicas starts and stops them."
            )
        if self._services.supervisor.view(name) is None:
            known = ", ".join(view.name for view in self._views()) or "none"
            raise RouteNotFound(
                f"There is no engine `{name[:64]}`. Engines: {known}.", code="engine_not_found"
            )
        return name

    def _one(self, name: str, status: int) -> Response:
        view = self._services.supervisor.view(name)
        assert view is not None
        return JSONResponse(self.describe(view), status)

    def describe(self, view: EngineView) -> dict[str, Any]:
        """One engine for the admin API."""
        services = self._services
        label = f"engine/{view.name}"
        models = [
            name
            for name, chain in services.state.chains.items()
            if any(r.model == name and r.target.label == label for r in chain.own.routes())
        ]
        told = {
            "name": view.name,
            "state": view.state.value,
            "stage": view.stage,
            "eta_s": services.supervisor.eta(view.name),
            "restarts": view.restarts,
            "pid": view.pid,
            "waiting": view.waiting,
            "in_flight": services.dispatcher.in_flight(label),
            "since_s": round(time.monotonic() - view.since, 1),
            "error": view.error,
            "error_reason": view.error_reason,
            "models": models,
        }
        if services.fleet.view(view.name) is not None:
            told |= self._replicas(view.name)
        return told

    def _replicas(self, name: str) -> dict[str, Any]:
        """What only an external engine has, and what all its replicas have together."""
        in_flight = self._services.dispatcher.in_flight
        replicas = [
            {
                "address": address,
                "well": standing.well,
                "model": standing.model,
                "load": standing.load,
                "in_flight": in_flight(f"engine/{name}@{address}"),
                "error": standing.error,
            }
            for address, standing in self._services.fleet.members(name)
        ]
        return {"in_flight": sum(one["in_flight"] for one in replicas), "replicas": replicas}
