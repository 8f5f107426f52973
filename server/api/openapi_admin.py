"""The schemas of the admin API's OpenAPI page."""

from __future__ import annotations

from typing import Final

from server.api.openapi_engines import ENGINE_SCHEMAS
from server.api.openapi_schemas import SCHEMAS, Schema, many, text, thing

ADMIN_SCHEMAS: Final[dict[str, Schema]] = {
    **ENGINE_SCHEMAS,
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
