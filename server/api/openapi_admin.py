"""The schemas of the admin API's OpenAPI page."""

from __future__ import annotations

from typing import Final

from server.api.openapi_schemas import (
    NULL,
    SCHEMAS,
    Schema,
    either,
    flag,
    many,
    number,
    ref,
    text,
    thing,
    whole,
)

ADMIN_SCHEMAS: Final[dict[str, Schema]] = {
    "Engine": thing(
        {
            "name": text(examples=["qwen"]),
            "state": text(enum=["stopped", "starting", "ready", "draining", "backoff", "failed"]),
            "stage": text("While starting: the last seen in its log. External: how many are well."),
            "eta_s": either(number(), NULL, description="Estimated seconds until ready."),
            "restarts": whole(),
            "pid": either(whole(), NULL),
            "waiting": whole("Requests waiting for it."),
            "in_flight": whole("Requests it is answering."),
            "since_s": number("Seconds in this state."),
            "error": either(text(), NULL),
            "error_reason": either(text(), NULL),
            "models": many(text(), "Names of models that it answers for."),
            "replicas": many(ref("Replica"), "Of an external engine alone."),
        },
        *("name", "state"),
    ),
    "Replica": thing(
        {
            "address": text(examples=["10.0.0.3:8000"]),
            "well": flag("Is it sent requests?"),
            "model": either(text(), NULL, description="Its own name of the model."),
            "load": either(number(), NULL, description="Requests that it says it has."),
            "in_flight": whole("Requests of this server that it is answering."),
            "error": either(text(), NULL, description="Why it is not well."),
        },
        *("address", "well"),
    ),
    "Engines": thing({"engines": many(ref("Engine"))}, "engines"),
    "Reload": thing(
        {
            "result": text(enum=["ok", "unchanged"]),
            "changed": many(text()),
            "warnings": many(text()),
        },
        "result",
    ),
    "Status": SCHEMAS["Status"],
    "Error": SCHEMAS["Error"],
}
