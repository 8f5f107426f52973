"""The admin API's plans: where requests for a model would go now, and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import Raw
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from server.access.keys import EVERYONE, KeyInfo
from server.api import intake, wishes
from server.api.services import Services, State
from server.config.schema import Limits
from server.errors import ClientGone, InvalidRequest, PayloadTooLarge, RequestTimedOut
from server.protocol import envelope, text
from server.protocol.aside import aside
from server.protocol.envelope import Envelope, Surface
from server.protocol.request import Request
from server.routing.chain import Chain
from server.routing.explain import explain, lines
from server.routing.explanation import Explanation

#: By which member a body tells its surface.
_TELLING: Final = {
    "messages": Surface.CHAT,
    "prompt": Surface.COMPLETIONS,
    "input": Surface.EMBEDDINGS,
    "query": Surface.RERANK,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A body as routing sees it; without one, a chat that needs nothing."""

    surface: Surface = Surface.CHAT
    members: dict[str, Raw] = field(default_factory=dict)
    stream: bool = False
    wants_usage: bool = False
    legacy: bool = False


class PlanEndpoints:
    """They change nothing: see `routing.explain`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def index(self, request: HttpRequest) -> Response:
        """Every model, its policy, and how its targets are."""
        return _json({"plans": overview(self._services)})

    async def one(self, request: HttpRequest) -> Response:
        """The plan of one model for the request in the body, if there is one: of `?surface=` where
        its members do not tell, from the key `?key=`. Raises what the request would be told on the
        public API before any target is looked for."""
        services, query = self._services, request.query_params
        limits = services.state.config.server.limits
        name, surface = str(request.path_params["model"]), surface_of(query.get("surface"))
        body = await body_of(request, limits.body, services.state.timeouts.body)
        if len(body) < intake.LARGE:
            asked = read(body, limits, surface, name)
        else:
            asked = await aside(read, body, limits, surface, name)
        headers = dict(request.scope["headers"])
        return _json(explained(services, name, asked, query.get("key"), headers))


def overview(services: Services) -> list[dict[str, Any]]:
    """All models by their own names, in the config's order, those of the catalog after them."""
    chains: dict[str, Chain] = {}
    aliases: dict[str, list[str]] = {}
    for name, chain in services.state.chains.items():
        own = chain.own.model
        chains[own] = chain
        also = aliases.setdefault(own, [])
        if name != own:
            also.append(name)
    models = services.state.models
    return [
        {
            "model": own,
            "aliases": aliases[own],
            "policy": chain.own.policy,
            "while_loading": chain.loading,
            "offered": own in models and models[own].offered,
            "targets": lines(chain, services.dispatcher),
        }
        for own, chain in chains.items()
    ]


def read(body: bytes, limits: Limits, surface: Surface | None, name: str) -> Asked:
    """What a body says, checked as the public API does it; its `model` counts for nothing. Raises
    InvalidRequest."""
    if not body.strip():
        return Asked(surface or Surface.CHAT)
    text.check(body, depth=limits.depth)
    members = envelope.members(body)
    if members.keys() <= {"model"}:
        return Asked(surface or Surface.CHAT)
    told = (kind for member, kind in _TELLING.items() if member in members)
    surface = surface or next(told, Surface.CHAT)
    fields, members, legacy = intake.parse(surface, body, limits, default=name)
    options = fields.stream_options if isinstance(fields, Envelope) else None
    return Asked(
        surface,
        members,
        stream=isinstance(fields, Envelope) and bool(fields.stream),
        wants_usage=bool(options and options.include_usage),
        legacy=legacy,
    )


def explained(
    services: Services,
    name: str,
    asked: Asked,
    key_name: str | None = None,
    headers: Mapping[bytes, bytes] | None = None,
) -> Explanation:
    """The plan for it now. `headers` may say what clients' may. Raises ModelNotFound, NotAllowed,
    InvalidRequest."""
    key, headers = _key(services, key_name), headers or {}
    members = dict(asked.members)
    found = services.find(name, key)
    if members and (unfit := services.unfit(name, asked.surface, key)) is not None:
        raise unfit
    wish = wishes.heard(services, key, found, members, headers, services.state.timeouts.total)
    now = time.monotonic()
    request = Request(
        id="",
        surface=asked.surface,
        model=name,
        members=members,
        stream=asked.stream,
        wants_usage=asked.wants_usage,
        legacy_functions=asked.legacy,
        tenant=key.tenant,
        arrived=now,
        deadline=now + wish.patience,
        key=key.name,
        session=wish.session,
    )
    return explain(
        wish.chain, request, services.dispatcher, lambda ability: services.who_can(ability, key)
    )


def surface_of(said: str | None) -> Surface | None:
    """The surface of this name. Raises InvalidRequest."""
    try:
        return None if said is None else Surface(said)
    except ValueError:
        known = ", ".join(Surface)
        raise InvalidRequest(
            f"`{said[:64] if said else ''}` is no surface; there are {known}.", param="surface"
        ) from None


def _key(services: Services, name: str | None) -> KeyInfo:
    """Of a client; without a name, one that may use everything."""
    if name is None:
        return EVERYONE
    keyring = services.state.keyring
    found = keyring.named(name)
    if found is None:
        known = ", ".join(keyring.names) or "none"
        raise InvalidRequest(f"There is no key `{name[:64]}`. Keys: {known}.", param="key")
    return found


async def body_of(request: HttpRequest, most: int, patience: float) -> bytes:
    """All of a body. Raises PayloadTooLarge, RequestTimedOut, ClientGone."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(patience):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise PayloadTooLarge(f"The request's body is larger than {most} bytes.")
                parts.append(part)
    except TimeoutError:
        raise RequestTimedOut(
            f"The request's body did not arrive within {patience:g} seconds."
        ) from None
    except ClientDisconnect:
        raise ClientGone("The client closed the connection.") from None
    return b"".join(parts)


async def checked_body(request: HttpRequest, most: int, state: State) -> bytes:
    """One that a decoder may be given: UTF-8, and no deeper than the server's `limits.depth`.
    Raises InvalidRequest, and what `body_of` does."""
    body = await body_of(request, most, state.timeouts.body)
    text.check(body, depth=state.config.server.limits.depth)
    return body


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
