"""The admin API's default: the model of requests that name none."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from server.api import admin_additions as asking
from server.api import unknown
from server.api.admin_engines import forget, keep, refuse_default
from server.api.admin_views import CONFIG, LOADED
from server.api.plans import checked_body
from server.api.services import Services
from server.config.reload import Watcher
from server.config.resolve import provider_of
from server.errors import InvalidRequest, ModelNotFound

_BODY: Final = 64 * 2**10


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    model: str


class DefaultEndpoints:
    """`one_at_a_time` is shared with whoever else changes the additions."""

    def __init__(self, services: Services, watcher: Watcher, one_at_a_time: asyncio.Lock) -> None:
        self._services, self._watcher = services, watcher
        self._one_at_a_time = one_at_a_time

    async def show(self, request: HttpRequest) -> Response:
        """Which one it is, and who says so."""
        return self._told()

    async def set(self, request: HttpRequest) -> Response:
        """Another one, unless the config says which."""
        body = await checked_body(request, _BODY, self._services.state)
        try:
            model = msgspec.json.decode(body, type=_Wanted).model
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise InvalidRequest(
                'Send the model\'s name: {"model": "qwen3-8b"}.', param="model"
            ) from None
        async with self._one_at_a_time:
            refuse_default(self._watcher)
            state = self._services.state
            if model not in state.models and provider_of(state.config, model) is None:
                names = list(state.models)
                raise ModelNotFound(
                    unknown.text(model, state.models, names, state.catalog, state.config),
                    param="model",
                )
            before = self._watcher.loaded.additions
            await keep(self._watcher, asking.with_default(before, model))
        return self._told()

    async def clear(self, request: HttpRequest) -> Response:
        """None any more, unless the config says one. One that is kept and not in force is forgotten
        all the same."""
        async with self._one_at_a_time:
            loaded = self._watcher.loaded
            if loaded.left_out.default is not None:
                await forget(self._watcher, asking.with_default(loaded.kept, None))
                return self._told()
            refuse_default(self._watcher)
            if loaded.additions.default is not None:
                await keep(self._watcher, asking.with_default(loaded.additions, None))
        return self._told()

    def _told(self) -> Response:
        loaded = self._watcher.loaded
        origin = LOADED if loaded.additions.default is not None else CONFIG
        model = loaded.config.default
        return JSONResponse({"model": model, "origin": None if model is None else origin})
