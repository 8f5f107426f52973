"""Roundhouse for Python: what users import. It speaks HTTP to a server and never needs torch.

    >>> from roundhouse import get_model_info
    >>> get_model_info("gpt-4o-mini").specs.context_window
    128000

The registry is read when one of its names is first asked for; `import roundhouse` alone costs
nothing. See docs/registry.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.registry import (
        ALL_MODELS,
        Abilities,
        AccessMethod,
        CardError,
        Catalog,
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
        UnknownModel,
        export_to_dict,
        get_free_models,
        get_local_models,
        get_model_info,
        list_models_by_provider,
        list_models_by_type,
        search_models,
    )

__version__ = "0.1.0"

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
    "__version__",
    "export_to_dict",
    "get_free_models",
    "get_local_models",
    "get_model_info",
    "list_models_by_provider",
    "list_models_by_type",
    "search_models",
]


if not TYPE_CHECKING:  # a type checker knows the names above, and shall miss the others

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from server import registry

        found = globals()[name] = getattr(registry, name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
