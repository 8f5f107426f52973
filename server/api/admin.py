"""The admin listener's endpoints: metrics, reload, and a feed of engines' states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from prometheus_client.exposition import choose_encoder
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.api.admin_views import Views
from server.api.services import Services
from server.config.reload import Watcher
from server.engines import scrape
from server.engines.state import EngineView
from server.errors import InvalidRequest


class AdminEndpoints:
    """Of the server as a whole; `admin_engines` has those of each engine."""

    def __init__(self, services: Services, watcher: Watcher, views: Views) -> None:
        self._services, self._watcher, self._views = services, watcher, views

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

    async def reload(self, request: HttpRequest) -> Response:
        """Read the config again. 400 with every error when it is not valid; the old one stays."""
        report = await self._watcher.reload()
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

    def _event(self, view: EngineView) -> ServerSentEvent:
        data = msgspec.json.encode(self._views.told(view)).decode()
        return ServerSentEvent(data=data, event="engine", sep="\n")
