"""Config → the two Starlette apps and the server around them.

The route tables below hold every URL. An endpoint is guarded by a key unless its row says
`public`; what is on neither table is 404 in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.keys import KeyInfo
from server.api import render
from server.api.admin import AdminEndpoints
from server.api.admin_default import DefaultEndpoints
from server.api.admin_engines import EngineEndpoints
from server.api.admin_views import Views
from server.api.docs import docs_endpoints
from server.api.exchange import SurfaceEndpoint, new_id
from server.api.models import ModelEndpoints
from server.api.openapi import build_admin, build_public
from server.api.ops import OpsEndpoints
from server.api.plans import PlanEndpoints
from server.api.services import Services
from server.api.weights import WeightsEndpoints
from server.config.reload import Watcher
from server.errors import MethodNotAllowed, NotAllowed, RoundhouseError, RouteNotFound
from server.protocol.envelope import Surface

log = structlog.get_logger("roundhouse")

Handler = Callable[..., Awaitable[Response]]

#: The hot routes first: Starlette tries them in order. All of them also without `/v1`.
SURFACES: Final[tuple[tuple[str, str, Surface], ...]] = (
    ("POST", "/v1/chat/completions", Surface.CHAT),
    ("POST", "/v1/completions", Surface.COMPLETIONS),
    ("POST", "/v1/embeddings", Surface.EMBEDDINGS),
    ("POST", "/v1/rerank", Surface.RERANK),
    # As clients of Cohere's second version say it.
    ("POST", "/v2/rerank", Surface.RERANK),
    ("POST", "/v1/tokenize", Surface.TOKENIZE),
    ("POST", "/v1/detokenize", Surface.DETOKENIZE),
)
#: (method, path, (group, method of the group), public)
PUBLIC: Final[tuple[tuple[str, str, tuple[str, str], bool], ...]] = (
    ("GET", "/v1/models", ("models", "index"), False),
    ("GET", "/v1/models/{id:path}", ("models", "one"), False),
    ("GET", "/health", ("ops", "health"), True),
    ("GET", "/ready", ("ops", "ready"), True),
)
ADMIN: Final[tuple[tuple[str, str, tuple[str, str], bool], ...]] = (
    ("GET", "/metrics", ("admin", "metrics"), False),
    ("GET", "/metrics/engines", ("admin", "engine_metrics"), False),
    ("GET", "/engines", ("engines", "index"), False),
    ("POST", "/engines", ("engines", "add"), False),
    # A name may be a model's or a hub id, with slashes.
    ("POST", "/engines/{name:path}/load", ("engines", "load"), False),
    ("POST", "/engines/{name:path}/unload", ("engines", "unload"), False),
    ("GET", "/engines/{name:path}/logs", ("engines", "logs"), False),
    ("GET", "/engines/{name:path}", ("engines", "one"), False),
    ("DELETE", "/engines/{name:path}", ("engines", "forget"), False),
    ("GET", "/events", ("admin", "events"), False),
    ("GET", "/default", ("default", "show"), False),
    ("PUT", "/default", ("default", "set"), False),
    ("DELETE", "/default", ("default", "clear"), False),
    ("GET", "/weights", ("weights", "index"), False),
    ("POST", "/weights", ("weights", "pull"), False),
    ("GET", "/weights/{id:path}", ("weights", "one"), False),
    ("DELETE", "/weights/{id:path}", ("weights", "remove"), False),
    ("GET", "/pulls", ("weights", "pulls"), False),
    ("DELETE", "/pulls/{id}", ("weights", "stop"), False),
    ("GET", "/plans", ("plans", "index"), False),
    ("POST", "/plans/{model:path}", ("plans", "one"), False),
    ("POST", "/reload", ("admin", "reload"), False),
    ("GET", "/health", ("ops", "health"), True),
    ("GET", "/ready", ("ops", "ready"), True),
)
#: What these paths begin with, for who asks the wrong listener.
ADMIN_PATHS: Final = (
    *("/metrics", "/engines", "/events", "/default"),
    *("/plans", "/pulls", "/reload", "/weights"),
)
#: What `server.metrics_key` opens, too.
METRICS: Final = frozenset({"/metrics", "/metrics/engines"})
#: Paths of other servers' APIs, and where their users find the same thing here.
ELSEWHERE: Final = {
    "/api/chat": "/v1/chat/completions",
    "/api/generate": "/v1/completions",
    "/api/tags": "/v1/models",
    "/api/embed": "/v1/embeddings",
    "/api/embeddings": "/v1/embeddings",
    "/generate": "/v1/completions",
    "/chat": "/v1/chat/completions",
    "/v1/engines": "/v1/models",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks a key before a handler of Starlette's kind runs, and renders what it raises."""

    handler: Handler
    check: Callable[[HttpRequest], KeyInfo | None] | None

    async def __call__(self, request: HttpRequest) -> Response:
        try:
            if self.check is None:
                return await self.handler(request)
            key = self.check(request)
            return await (self.handler(request) if key is None else self.handler(request, key))
        except RoundhouseError as error:
            return respond(error, new_id())


def respond(error: RoundhouseError, request_id: str) -> Response:
    """An error as a Starlette response."""
    response = Response(render.body(error), error.status, media_type="application/json")
    response.raw_headers += [*render.headers(error), (b"x-request-id", request_id.encode())]
    return response


class PublicApp(Starlette):
    """Starlette with a short way to the surfaces, which answer their own errors: its middleware
    and the walk along its routes take a fifth of a small request's time."""

    surfaces: dict[str, SurfaceEndpoint]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["method"] == "POST" and (endpoint := self.surfaces.get(scope["path"])):
            return endpoint(scope, receive, send)
        return super().__call__(scope, receive, send)


def public_app(services: Services, created: int) -> ASGIApp:
    """The app of the public listener."""
    groups = {"models": ModelEndpoints(services, created), "ops": OpsEndpoints(services)}

    def check(request: HttpRequest) -> KeyInfo:
        return services.state.keyring.authenticate(request.scope["headers"])

    routes: list[BaseRoute] = []
    surfaces: dict[str, SurfaceEndpoint] = {}
    for method, path, surface in SURFACES:
        endpoint = SurfaceEndpoint(services, surface)
        for each in _with_and_without_v1(path):
            surfaces[each] = endpoint
            routes.append(Route(each, endpoint, methods=[method]))
    routes += _routes(PUBLIC, groups, check)
    document = build_public(services.version)
    docs = docs_endpoints(services.state.config.server.docs, document)
    app = _app(PublicApp, routes + docs, _public_hint)
    app.surfaces = surfaces
    return app


def admin_app(services: Services, watcher: Watcher) -> ASGIApp:
    """The app of the admin listener: metrics, engines, plans, reload."""
    views, one_at_a_time = Views(services, watcher), asyncio.Lock()
    groups = {
        "admin": AdminEndpoints(services, watcher, views),
        "engines": EngineEndpoints(services, watcher, views, one_at_a_time),
        "default": DefaultEndpoints(services, watcher, one_at_a_time),
        "ops": OpsEndpoints(services),
        "plans": PlanEndpoints(services),
        "weights": WeightsEndpoints(services),
    }

    def check(request: HttpRequest) -> None:
        _not_from_elsewhere(request, services.state.config.server.admin_key is not None)
        metrics = request.scope["path"] in METRICS
        services.state.keyring.authenticate_admin(request.scope["headers"], metrics=metrics)

    routes = _routes(ADMIN, groups, check)
    document = build_admin(services.version)
    docs = docs_endpoints(services.state.config.server.docs, document)
    return _app(Starlette, routes + docs, _admin_hint)


def _not_from_elsewhere(request: HttpRequest, admin_key: bool) -> None:
    """A page of another site must not act through the browser of a person on this machine. A name
    of that site may lead here, too, and its page then reads without an origin: without a key to ask
    for, only what no DNS has a say in is our own."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise NotAllowed(
            "The admin API takes no requests from other sites' pages.", code="cross_origin"
        )
    if host and not (admin_key or _literal(host)):
        raise NotAllowed(
            f"Without an admin key the admin API answers to addresses and to localhost, and not to "
            f"the name `{host[:200]}`, which may be another site's. Ask for 127.0.0.1 or "
            "localhost, or set server.admin_key.",
            code="cross_origin",
        )


def _literal(netloc: str) -> bool:
    """Is it an address, or localhost?"""
    try:
        host = urlsplit(f"//{netloc}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: always loopback
            return True
        # `127.1`, too: what ends with a number is an address to browsers, and no name.
        return host.rpartition(".")[2].isdecimal() or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _with_and_without_v1(path: str) -> tuple[str, ...]:
    return (path, path.removeprefix("/v1")) if path.startswith("/v1/") else (path,)


def _routes(
    table: tuple[tuple[str, str, tuple[str, str], bool], ...],
    groups: dict[str, Any],
    check: Callable[[HttpRequest], KeyInfo | None],
) -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for method, path, (group, name), public in table:
        guard = Guard(getattr(groups[group], name), None if public else check)

        async def endpoint(request: HttpRequest, guard: Guard = guard) -> Response:
            return await guard(request)

        found += [Route(p, endpoint, methods=[method]) for p in _with_and_without_v1(path)]
    return found


App = TypeVar("App", bound=Starlette)


def _app(kind: type[App], routes: list[BaseRoute], hint: Callable[[str], str]) -> App:
    async def http_error(request: HttpRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(_of_starlette(request, error, hint), new_id())

    async def fault(request: HttpRequest, error: Exception) -> Response:
        request_id = new_id()
        log.error("request failed inside", id=request_id, exc_info=error)
        return respond(render.internal(request_id), request_id)

    app = kind(routes=routes, exception_handlers={HTTPException: http_error, 500: fault})
    # A redirect would lose a POST's body in most clients; 404 says more.
    app.router.redirect_slashes = False
    return app


def _of_starlette(
    request: HttpRequest, error: HTTPException, hint: Callable[[str], str]
) -> RoundhouseError:
    path = request.scope["path"]
    if error.status_code == 405:
        found = (error.headers or {}).get("Allow", "").replace(" ", "").split(",")
        allow = tuple(sorted(method for method in found if method != "HEAD"))
        return MethodNotAllowed(
            f"{request.method} is not allowed on {path[:200]}; use {' or '.join(allow)}.",
            allow=allow,
        )
    if error.status_code == 404:
        bare = path.rstrip("/")
        slashes = "//" in path or bare not in ("", path)
        why = "It has a slash too many." if slashes and bare not in ELSEWHERE else hint(bare)
        return RouteNotFound(f"There is no {path[:200]} here. {why}")
    return RoundhouseError("The request could not be served.")


def _public_hint(path: str) -> str:
    if there := ELSEWHERE.get(path):
        return f"This server speaks OpenAI's API: use {there}."
    if path.removeprefix("/v1").startswith("/v1"):
        return "The base URL ends with one /v1, not two."
    if path.startswith(ADMIN_PATHS):
        return "The admin API has a listener of its own: server.admin in the config."
    return "The API is under /v1; /docs lists it."


def _admin_hint(path: str) -> str:
    if path.startswith("/v1"):
        return "This is the admin listener; the models are on the public one, server.port."
    return "This is the admin listener; /docs lists what it has."
