"""Small catalogs for tests."""

from __future__ import annotations

from typing import Any

from server.registry import Catalog, ModelInfo
from server.registry.catalog import parse

SOURCES = {
    "docs": {"title": "The docs", "url": "https://example.com/docs", "date": "2026-11-01"},
    "prices": {"title": "The prices", "url": "https://example.com/prices", "date": "2026-11-02"},
}
#: All that is asked of an API model that chats.
WHOLE: dict[str, Any] = {
    "name": "Small",
    "type": "chat",
    "access_method": "api",
    "description": "Talks.",
    "api_endpoint": {"url": "https://api.example.com/v1/chat/completions"},
    "specs": {
        "context_window": 128000,
        "input_modalities": ["text"],
        "output_modalities": ["text"],
    },
    "licence": {"id": "proprietary", "kind": "proprietary", "commercial_use": True},
    "cost": {"input": 0.15, "output": 0.6},
    "abilities": {
        "streaming": True,
        "tools": True,
        "json_schema": True,
        "vision": False,
        "audio": False,
        "reasoning": False,
    },
    "origin": {"creator": "Example"},
    "sources": {"": "docs", "cost": "prices"},
}


def file_of(*models: dict[str, Any], provider: str = "lab") -> dict[str, Any]:
    """A file's content whose models are `WHOLE` but for what is given."""
    return {
        "provider": provider,
        "sources": SOURCES,
        "defaults": WHOLE,
        "models": list(models),
    }


def cards_of(*models: dict[str, Any], provider: str = "lab") -> list[ModelInfo]:
    return parse(file_of(*models, provider=provider), "lab.json")


def catalog_of(*models: dict[str, Any], provider: str = "lab") -> Catalog:
    return Catalog(cards_of(*models, provider=provider))
