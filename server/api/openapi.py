"""The OpenAPI 3.1 pages of the two listeners, made of data.

`PUBLIC_PATHS` and `ADMIN_PATHS` are the (method, path) pairs that they document.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from server.api.openapi_admin import ADMIN_SCHEMAS
from server.api.openapi_models import MODEL_SCHEMAS
from server.api.openapi_parts import ERRORS, HEADERS, Paths, json_of, one
from server.api.openapi_paths import ADMIN, PUBLIC
from server.api.openapi_plans import PLAN_SCHEMAS
from server.api.openapi_rerank import RERANK_SCHEMAS
from server.api.openapi_schemas import SCHEMAS, Schema, text
from server.api.openapi_weights import WEIGHTS_SCHEMAS

OPENAPI: Final = "3.1.0"


def _pairs(paths: Paths) -> tuple[tuple[str, str], ...]:
    return tuple((method.upper(), path) for path, item in paths.items() for method in item)


PUBLIC_PATHS: Final = _pairs(PUBLIC)
ADMIN_PATHS: Final = _pairs(ADMIN)


def _document(
    title: str,
    description: str,
    version: str,
    paths: Paths,
    schemas: dict[str, Schema],
    tags: dict[str, str],
    key: str,
) -> dict[str, Any]:
    used = {code for item in paths.values() for op in item.values() for code in op["responses"]}
    retry = {"retry-after": {"$ref": "#/components/headers/retry-after"}}
    responses = {
        name: {
            "description": about,
            "content": json_of("Error", one(example.body())),
            **({"headers": retry} if code in ("429", "503") else {}),
        }
        for code, (name, about, example) in ERRORS.items()
        if code in used
    }
    headers = {**HEADERS, "retry-after": "Whole seconds until a new try makes sense."}
    document = {
        "openapi": OPENAPI,
        "info": {
            "title": title,
            "version": version,
            "description": description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": about} for name, about in tags.items()],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": key}},
            "headers": {
                name: {"description": about, "schema": text()} for name, about in headers.items()
            },
            "responses": responses,
            "schemas": schemas,
        },
    }
    return copy.deepcopy(document)


def build_public(version: str, server_url: str | None = None) -> dict[str, Any]:
    """The page of the public listener. `server_url` is where clients reach it, without `/v1`;
    None means: where the page came from."""
    document = _document(
        "Roundhouse",
        "One OpenAI-compatible API over local vLLM engines and remote providers.\n\n"
        "Every path under `/v1/` also answers without `/v1`.\n\n"
        "Errors have OpenAI's shape; every answer has an `x-request-id`.",
        version,
        PUBLIC,
        {**SCHEMAS, **RERANK_SCHEMAS, **MODEL_SCHEMAS},
        {
            "inference": "What models do.",
            "models": "Which models there are.",
            "health": "For probes; no key needed.",
            "about": "The API about itself; no key needed.",
        },
        "A key of `server.keys`. Not needed where the config has none.",
    )
    if server_url is not None:
        document["servers"] = [{"url": server_url.rstrip("/")}]
    return document


def build_admin(version: str) -> dict[str, Any]:
    """The page of the admin listener."""
    return _document(
        "Roundhouse admin",
        "Engines, config and metrics, on a listener of their own.",
        version,
        ADMIN,
        {**ADMIN_SCHEMAS, **PLAN_SCHEMAS, **WEIGHTS_SCHEMAS},
        {
            "engines": "Their states; load, add, unload, forget; logs; the default model.",
            "weights": "Models on the disk; pulls.",
            "routing": "Where requests go, and why.",
            "config": "Reload.",
            "metrics": "For Prometheus.",
            "health": "For probes; no key needed.",
            "about": "The API about itself; no key needed.",
        },
        "The config's `server.admin_key`; for the metrics `server.metrics_key` as well. Not needed "
        "where the config has no admin key.",
    )
