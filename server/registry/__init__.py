"""The registry: what is known of every model. See docs/registry.md.

It stands alone: only msgspec and what comes with Python, so that `roundhouse` can bring it to
programs that have no server.
"""

from __future__ import annotations

from typing import Any

from server.registry.cards import (
    Abilities,
    AccessMethod,
    Cost,
    Licence,
    LicenceKind,
    Links,
    ModelEndpoint,
    ModelInfo,
    ModelType,
    Origin,
    SizeClass,
    Source,
    Specs,
    Status,
)
from server.registry.catalog import CardError, Catalog, UnknownModel
from server.registry.lookup import (
    export_to_dict,
    get_free_models,
    get_local_models,
    get_model_info,
    list_models_by_provider,
    list_models_by_type,
    search_models,
)

__all__ = [
    "ALL_MODELS",
    "Abilities",
    "AccessMethod",
    "CardError",
    "Catalog",
    "Cost",
    "Licence",
    "LicenceKind",
    "Links",
    "ModelEndpoint",
    "ModelInfo",
    "ModelType",
    "Origin",
    "SizeClass",
    "Source",
    "Specs",
    "Status",
    "UnknownModel",
    "export_to_dict",
    "get_free_models",
    "get_local_models",
    "get_model_info",
    "list_models_by_provider",
    "list_models_by_type",
    "search_models",
]


#: Every card by its id, read when it is first asked for.
ALL_MODELS: Catalog


def __getattr__(name: str) -> Any:
    if name == "ALL_MODELS":
        from server.registry.catalog import builtin

        return builtin()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
