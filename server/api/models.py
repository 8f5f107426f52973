"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.access.keys import KeyInfo
from server.api.services import Services


class ModelEndpoints:
    """Lists what the key may use."""

    def __init__(self, services: Services, created: int) -> None:
        self._services = services
        self._created = created

    async def index(self, request: HttpRequest, key: KeyInfo) -> Response:
        """All models of this key, in the config's order."""
        services = self._services
        found = [self._object(name) for name in services.visible(key)]
        return JSONResponse({"object": "list", "data": found})

    async def one(self, request: HttpRequest, key: KeyInfo) -> Response:
        """One model; ids may have slashes. Raises ModelNotFound, NotAllowed."""
        name = request.path_params["id"]
        self._services.find(name, key)
        return JSONResponse(self._object(name))

    def _object(self, name: str) -> dict[str, Any]:
        model = self._services.state.config.models.get(name)
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": model.owned_by if model else "roundhouse",
        }
