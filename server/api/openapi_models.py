"""The schema of what /v1/models lists."""

from __future__ import annotations

from typing import Final

from server.api.openapi_schemas import Schema, flag, many, number, text, thing, whole
from server.config.cards import ABILITIES
from server.registry.cards import LicenceKind, ModelType, SizeClass, Status

FACTS: Final = thing(
    {
        "card": text("Id of its card in the registry.", examples=["Qwen/Qwen3-8B"]),
        "provider": text("Whose card it is, or who is asked."),
        "type": text(enum=[one.value for one in ModelType]),
        "context_window": whole("Tokens of prompt and answer."),
        "max_output": whole("Tokens of one answer."),
        "abilities": thing({name: flag() for name in ABILITIES}),
        "prices": thing(
            {name: number() for name in ("input", "cached_input", "output")},
            description="US dollars per million tokens, at its first target.",
        ),
        "licence": thing(
            {
                "id": text(),
                "name": text(),
                "kind": text(enum=[one.value for one in LicenceKind]),
                "commercial_use": flag(),
                "link": text(),
            }
        ),
        "status": text(enum=[one.value for one in Status]),
        "replaced_by": text("What its provider advises instead."),
        "retires": text("The day its provider stops or has stopped answering for it."),
        "modalities": thing({"input": many(text()), "output": many(text())}),
        "size_class": text(enum=[one.value for one in SizeClass]),
        "alias_of": text("The model that this is another name of."),
        "targets": many(text(), "Who can answer, in order of preference."),
    },
    description="What is known of it; what is not is left out.",
)
MODEL_SCHEMAS: Final[dict[str, Schema]] = {
    "Model": thing(
        {
            "id": text(examples=["qwen3-8b"]),
            "object": text(enum=["model"]),
            "created": whole(),
            "owned_by": text(),
            "roundhouse": FACTS,
        },
        *("id", "object", "created", "owned_by"),
    )
}
