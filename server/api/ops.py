"""/health and /ready: no key, no work, always an answer."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.access.keys import EVERYONE
from server.api.services import Services
from server.errors import ModelNotFound


class OpsEndpoints:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, request: HttpRequest) -> Response:
        """200 as long as the process answers, also while it drains."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: HttpRequest) -> Response:
        """200 while new requests are accepted; with `?model=` only if one of its targets is ready.

        Answers say no more than the state: this needs no key.
        """
        services = self._services
        if not (services.ready and services.accepting):
            return JSONResponse({"status": "draining"}, 503, {"retry-after": "5"})
        name = request.query_params.get("model")
        if name is None:
            return JSONResponse({"status": "ready"})
        try:
            chain = services.find(name, EVERYONE)
        except ModelNotFound:
            return JSONResponse({"status": "unknown_model"}, 404)
        if any(route.target.ready for group in chain.groups() for route in group.routes()):
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "loading"}, 503, {"retry-after": "5"})
