"""What the two OpenAPI pages share: operations as data, the errors, health, the page itself."""

from __future__ import annotations

from typing import Any, Final

from server import errors
from server.api.openapi_schemas import Schema, ref, text

Paths = dict[str, dict[str, Any]]

HEADERS: Final = {
    "x-request-id": "The request's id in the server's log.",
    "x-roundhouse-target": "Who answered.",
    "x-roundhouse-attempts": "How many targets were tried.",
    "x-roundhouse-fallback-from": "The first target, when another one answered.",
    "x-roundhouse-dropped": "Fields that were taken out of the request.",
    "x-roundhouse-clamped": "Fields that were lowered to the model's ceiling.",
    "x-roundhouse-cost-usd": "US dollars for the tokens, where the price is known; not of streams.",
}
#: Status → (name, when, an example of ours).
ERRORS: Final[dict[str, tuple[str, str, errors.RoundhouseError]]] = {
    "400": (
        "Invalid",
        "The request is not valid; `param` names the field.",
        errors.InvalidRequest("`messages` is missing.", param="messages"),
    ),
    "401": (
        "NotAuthenticated",
        "The key is missing or unknown.",
        errors.NotAuthenticated("This key is not known here."),
    ),
    "403": (
        "NotAllowed",
        "The key may not use this model; or, admin, another site's page asked.",
        errors.NotAllowed("The key `team-a` may not use `qwen3-8b`.", param="model"),
    ),
    "404": (
        "NotFound",
        "There is no such model (or engine); the message names near ones.",
        errors.ModelNotFound("There is no model `qwen3-8`. Near: qwen3-8b.", param="model"),
    ),
    "408": (
        "TooSlow",
        "The body came too slowly.",
        errors.RequestTimedOut("The body was not in after 30 s."),
    ),
    "409": (
        "Conflict",
        "What is there does not go with what is asked for.",
        errors.Conflict("The engine `qwen` is served from Qwen/Qwen3-8B.", code="weights_in_use"),
    ),
    "413": (
        "TooLarge",
        "The body is over a cap.",
        errors.PayloadTooLarge("The body is over 32 MiB."),
    ),
    "415": (
        "Unsupported",
        "The content type or encoding is not supported.",
        errors.UnsupportedMedia("Send JSON, not encoded."),
    ),
    "429": (
        "RateLimited",
        "A limit of the key is reached, or the target is out of quota; see `retry-after`.",
        errors.RateLimited(
            "This key may send 600 requests per minute, and has. Try again in 90ms.", standings={}
        ),
    ),
    "500": (
        "Internal",
        "A fault of Roundhouse; the log has more under the request id.",
        errors.InternalError("Roundhouse failed while it served this request."),
    ),
    "502": (
        "UpstreamFailed",
        "Every target failed.",
        errors.UpstreamReset("The connection to the target broke."),
    ),
    "503": (
        "Unavailable",
        "Loading, overloaded or shutting down; see `retry-after`.",
        errors.EngineNotReady("The engine is loading.", code="engine_loading"),
    ),
    "504": (
        "UpstreamTimedOut",
        "The target did not answer in time.",
        errors.UpstreamTimeout("The target sent nothing for 60 s.", outcome="stall"),
    ),
}
INFERENCE: Final = tuple(code for code in ERRORS if code != "409")


def json_of(schema: str, examples: dict[str, Any] | None = None) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": ref(schema)}
    if examples is not None:
        media["examples"] = examples
    return {"application/json": media}


def one(value: Any) -> dict[str, Any]:
    return {"example": {"value": value}}


def ok(description: str, content: dict[str, Any], headers: tuple[str, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {"description": description, "content": content}
    if headers:
        made["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return made


def plain(media: str, example: str) -> dict[str, Any]:
    return {media: {"schema": text(), "examples": one(example)}}


def operation(
    tag: str,
    name: str,
    summary: str,
    answer: dict[str, Any],
    *,
    status: str = "200",
    description: str = "",
    body: dict[str, Any] | None = None,
    fails: tuple[str, ...] = (),
    parameters: tuple[dict[str, Any], ...] = (),
    open_to_all: bool = False,
) -> dict[str, Any]:
    made: dict[str, Any] = {"tags": [tag], "operationId": name, "summary": summary}
    if description:
        made["description"] = description
    if parameters:
        made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    made["responses"] = {
        status: answer,
        **{code: {"$ref": f"#/components/responses/{ERRORS[code][0]}"} for code in fails},
    }
    if open_to_all:
        made["security"] = []
    return made


def path(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": text(),
        "example": example,
    }


def query(name: str, description: str, schema: Schema | None = None) -> dict[str, Any]:
    """`schema`: of its value, which is any text otherwise."""
    return {"name": name, "in": "query", "description": description, "schema": schema or text()}


def inference(
    name: str, summary: str, body: dict[str, Any], answer: dict[str, Any], **more: Any
) -> dict[str, Any]:
    found = ok("The answer.", answer, tuple(HEADERS))
    return operation("inference", name, summary, found, body=body, fails=INFERENCE, **more)


SELF: Final[dict[str, dict[str, Any]]] = {
    "/openapi.json": {
        "get": operation(
            "about",
            "openapi",
            "This document",
            ok("OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}}),
            open_to_all=True,
        )
    },
    "/docs": {
        "get": operation(
            "about",
            "docs",
            "This document as a page",
            ok("HTML.", {"text/html": {"schema": text()}}),
            open_to_all=True,
        )
    },
}
HEALTH: Final[dict[str, dict[str, Any]]] = {
    "/health": {
        "get": operation(
            "health",
            "health",
            "Liveness: 200 as long as the process answers",
            ok("Alive.", json_of("Status", one({"status": "ok"}))),
            open_to_all=True,
        )
    },
    "/ready": {
        "get": operation(
            "health",
            "ready",
            "Readiness: 200 while new requests are accepted",
            ok("Ready.", json_of("Status", one({"status": "ready"}))),
            parameters=(
                query("model", "Ask for one model: 200 only if one of its targets is ready."),
            ),
            open_to_all=True,
        )
    },
}
HEALTH["/ready"]["get"]["responses"] |= {
    "404": ok("No such model.", json_of("Status", one({"status": "unknown_model"}))),
    "503": ok("Draining, or the model is loading.", json_of("Status", one({"status": "draining"}))),
}
