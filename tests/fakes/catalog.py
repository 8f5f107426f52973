"""A small catalog of made-up models, in the registry's file form."""

from __future__ import annotations

from typing import Any, Final

from server.registry.catalog import Catalog, parse

OPENAI: Final[dict[str, Any]] = {
    "provider": "openai",
    "sources": {},
    "defaults": {"access_method": "api", "description": "Made up for tests."},
    "models": [
        {
            "model_id": "gpt-big",
            "name": "GPT Big",
            "type": "chat",
            "aliases": ["gpt-big-2026-01-01", "big"],
            "specs": {
                "context_window": 128000,
                "max_output": 4096,
                "input_modalities": ["text", "image"],
                "output_modalities": ["text"],
            },
            "licence": {"id": "proprietary", "kind": "proprietary"},
            "cost": {"input": 2.0, "cached_input": 0.5, "output": 8.0},
            "abilities": {"tools": True, "audio": False},
            "default_temperature": 0.9,
            "default_max_tokens": 1000,
        },
        {
            "model_id": "gpt-old",
            "name": "GPT Old",
            "type": "chat",
            "status": "retired",
            "retires": "2026-03-01",
            "replaced_by": "gpt-mid",
        },
        {
            "model_id": "gpt-mid",
            "name": "GPT Mid",
            "type": "chat",
            "status": "deprecated",
            "retires": "2027-01-01",
            "replaced_by": "gpt-big",
            "cost": {"input": 1.0, "output": 4.0},
        },
        {
            "model_id": "embed-1",
            "name": "Embed 1",
            "type": "embedding",
            "cost": {"input": 0.1},
        },
        {"model_id": "paint-1", "name": "Paint 1", "type": "image"},
    ],
}
HUB: Final[dict[str, Any]] = {
    "provider": "huggingface",
    "sources": {},
    "defaults": {"access_method": "both", "description": "Made up for tests."},
    "models": [
        {
            "model_id": "acme/Small-1B",
            "name": "Small",
            "type": "instruct",
            "specs": {"parameters": 1_000_000_000, "context_window": 8192},
            "default_temperature": 0.6,
            "default_parameters": {"top_k": 20, "top_p": 0.95},
        },
        {
            "model_id": "acme/Weights-7B",
            "name": "Weights",
            "type": "chat",
            "access_method": "local",
        },
        {"model_id": "openai/open-20b", "name": "Open", "type": "chat", "aliases": ["open-20b"]},
    ],
}
ELSEWHERE: Final[dict[str, Any]] = {
    "provider": "elsewhere",
    "sources": {},
    "models": [
        {
            "model_id": "far-1",
            "name": "Far",
            "type": "chat",
            "access_method": "api",
            "description": "Made up for tests.",
            "aliases": ["big"],
        }
    ],
}


def catalog(*files: dict[str, Any]) -> Catalog:
    """Of these files, or of all above."""
    found = files or (OPENAI, HUB, ELSEWHERE)
    return Catalog(card for file in found for card in parse(file, "test.json"))
