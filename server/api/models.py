"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.access.keys import KeyInfo
from server.api.facts import facts
from server.api.services import Services
from server.config import cards
from server.config.resolve import ResolvedModel, provider_target


class ModelEndpoints:
    """Lists what the key may use."""

    def __init__(self, services: Services, created: int) -> None:
        self._services = services
        self._created = created
        #: Made once for each config: a catalog has hundreds.
        self._made: dict[str, dict[str, Any]] = {}
        self._state = services.state

    async def index(self, request: HttpRequest, key: KeyInfo) -> Response:
        """All models of this key, in the config's order; those of the catalog after them."""
        services = self._services
        found = [self._object(name) for name in services.visible(key)]
        return JSONResponse({"object": "list", "data": found})

    async def one(self, request: HttpRequest, key: KeyInfo) -> Response:
        """One model; ids may have slashes. Raises ModelNotFound, NotAllowed."""
        name = request.path_params["id"]
        self._services.find(name, key)
        return JSONResponse(self._object(name))

    def _object(self, name: str) -> dict[str, Any]:
        state = self._services.state
        if state is not self._state:
            self._state, self._made = state, {}
        if (made := self._made.get(name)) is not None:
            return made
        model = state.models.get(name)
        if model is None:  # provider/any-upstream-id: there is no end of them
            return self._make(name, self._upstream(name))
        self._made[name] = self._make(name, model)
        return self._made[name]

    def _upstream(self, name: str) -> ResolvedModel:
        state = self._services.state
        target = provider_target(state.config, name, state.catalog)
        assert target is not None
        assert target.provider is not None
        assert target.model is not None
        card = cards.card_at(state.config, state.catalog, target.provider, target.model)
        return ResolvedModel(name, (target,), about=cards.about(card))

    def _make(self, name: str, model: ResolvedModel) -> dict[str, Any]:
        entry = self._services.state.config.models.get(name)
        card = model.about.card
        owner = card.provider if model.offered and card is not None else "roundhouse"
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": entry.owned_by if entry else owner,
            "roundhouse": facts(model),
        }
