"""/openapi.json and /docs: the API's page as data, and Swagger UI served from our own files.

The page asks no other host for anything, and its Content-Security-Policy would not let it.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

SWAGGER_UI: Final = "5.35.0"
PAGE: Final = "page.html"
#: Name under /docs/ → content type. Nothing else is served from the folder.
ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui.LICENSE": "text/plain; charset=utf-8",
    "swagger-ui.NOTICE": "text/plain; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
}


class StaticEndpoint:
    """Bytes that do not change while the server runs: an etag, and 304 for who has them."""

    def __init__(self, body: bytes, content_type: str, policy: str | None = None) -> None:
        self._body = body
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {
            "etag": self._etag,
            "cache-control": "no-cache",  # keep it, but ask
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        if policy is not None:
            self._headers["content-security-policy"] = policy
        self._type = {"content-type": content_type}

    async def __call__(self, request: HttpRequest) -> Response:
        if self._known(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers={**self._headers, **self._type})

    def _known(self, header: str) -> bool:
        tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
        return self._etag in tags or tags == ["*"]


def docs_endpoints(enabled: bool, document: dict[str, Any]) -> list[BaseRoute]:
    """/openapi.json, /docs and the files under /docs/; nothing when `enabled` is false."""
    if not enabled:
        return []
    return [
        _route("/openapi.json", StaticEndpoint(msgspec.json.encode(document), "application/json")),
        _route("/docs", StaticEndpoint(_asset(PAGE), "text/html; charset=utf-8", policy(document))),
        *(_route(f"/docs/{name}", _file(name)) for name in ASSETS),
    ]


def policy(document: dict[str, Any]) -> str:
    """The page's Content-Security-Policy. "Try it out" may reach this server and the document's
    own `servers`, nothing else."""
    origins = []
    for server in document.get("servers", ()):
        parts = urlsplit(server["url"])
        if parts.scheme in ("http", "https") and parts.netloc:
            origins.append(f"{parts.scheme}://{parts.netloc}")
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            " ".join(["connect-src 'self'", *origins]),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _route(path: str, endpoint: StaticEndpoint) -> Route:
    async def answer(request: HttpRequest) -> Response:
        return await endpoint(request)

    return Route(path, answer, methods=["GET"], include_in_schema=False)


@functools.cache
def _asset(name: str) -> bytes:
    return resources.files("server.api").joinpath("assets", name).read_bytes()


@functools.cache
def _file(name: str) -> StaticEndpoint:
    return StaticEndpoint(_asset(name), ASSETS[name])
