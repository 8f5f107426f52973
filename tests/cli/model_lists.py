"""Lists of models in the forms that providers give them. Ids and figures are made up, but for
Cohere's entry, whose form stands in the recordings."""

from __future__ import annotations

from typing import Any

OPENAI: dict[str, Any] = {
    "object": "list",
    "data": [
        {"id": "gpt-x", "object": "model", "created": 1686935002, "owned_by": "system"},
        {"id": "text-embedding-x", "object": "model", "created": 1686935002, "owned_by": "system"},
        {"id": "whisper-x", "object": "model", "created": 1686935002, "owned_by": "openai"},
    ],
}


def mistral(model_id: str, name: str, *aliases: str, **changes: Any) -> dict[str, Any]:
    """One entry. Mistral has one for each name of a model, with the others as aliases."""
    entry = {
        "id": model_id,
        "object": "model",
        "created": 1766520693,
        "owned_by": "mistralai",
        "capabilities": {
            "completion_chat": True,
            "function_calling": True,
            "completion_fim": False,
            "fine_tuning": True,
            "vision": True,
            "ocr": False,
            "classification": False,
            "moderation": False,
            "audio": False,
        },
        "name": name,
        "description": "A middle-sized model",
        "max_context_length": 131072,
        "aliases": list(aliases),
        "deprecation": None,
        "deprecation_replacement_model": None,
        "default_model_temperature": 0.3,
        "type": "base",
    }
    return {**entry, **changes}


MISTRAL: dict[str, Any] = {
    "object": "list",
    "data": [
        mistral("middle-latest", "middle-2508", "middle-2508"),
        mistral("middle-2508", "middle-2508", "middle-latest"),
        mistral(
            "small-2402",
            "small-2402",
            deprecation="2026-12-31T12:00:00Z",
            deprecation_replacement_model="small-2603",
            capabilities={"completion_chat": True, "function_calling": False, "vision": False},
        ),
        mistral(
            "embed-2312",
            "embed-2312",
            capabilities={"completion_chat": False, "vision": False},
            max_context_length=8192,
            default_model_temperature=None,
        ),
        mistral("ocr-1", "ocr-1", capabilities={"completion_chat": False, "ocr": True}),
    ],
}


def served(provider: str, **given: Any) -> dict[str, Any]:
    return {"provider": provider, "status": "live", **given}


#: The router has prices by the million tokens.
ROUTER: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "org/Model-70B",
            "object": "model",
            "created": 1750000000,
            "owned_by": "org",
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "providers": [
                served(
                    "one",
                    context_length=131072,
                    pricing={"input": 0.9, "output": 0.9},
                    supports_tools=True,
                    supports_structured_output=False,
                ),
                served(
                    "two",
                    context_length=65536,
                    pricing={"input": 0.4, "output": 1.2},
                    supports_tools=False,
                    supports_structured_output=False,
                ),
                served("three"),
                {
                    "provider": "gone",
                    "status": "error",
                    "context_length": 999999,
                    "pricing": {"input": 0.01, "output": 0.01},
                },
            ],
        }
    ],
}

ANTHROPIC: dict[str, Any] = {
    "data": [
        {
            "type": "model",
            "id": "claude-x",
            "display_name": "Claude X",
            "created_at": "2026-02-19T00:00:00Z",
            "max_input_tokens": 200000,
            "max_tokens": 64000,
            "capabilities": {
                "batch": {"supported": True},
                "image_input": {"supported": True},
                "structured_outputs": {"supported": True},
                "thinking": {"supported": True, "types": {"enabled": {"supported": True}}},
            },
        },
        {
            "type": "model",
            "id": "claude-old",
            "display_name": "Claude Old",
            "created_at": "1970-01-01T00:00:00Z",
        },
    ],
    "has_more": False,
    "first_id": "claude-x",
    "last_id": "claude-old",
}

COHERE: dict[str, Any] = {
    "models": [
        {
            "name": "command-x",
            "is_deprecated": True,
            "endpoints": ["generate", "chat", "summarize"],
            "finetuned": False,
            "context_length": 288000.0,
            "features": ["json_mode", "json_schema", "strict_tools", "tools"],
            "default_endpoints": ["chat"],
        },
        {"name": "embed-x", "endpoints": ["embed", "embed_image"], "context_length": 512},
        {"name": "rank-x", "endpoints": ["rerank"], "context_length": 0},
    ],
    "next_page_token": "",
}

OPENROUTER: dict[str, Any] = {
    "data": [
        {
            "id": "org/model-x",
            "canonical_slug": "org/model-x-2026",
            "name": "Org: Model X",
            "created": 1692901234,
            "description": "A model.",
            "context_length": 131072,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "pricing": {
                "prompt": "0.00000015",
                "completion": "0.0000006",
                "input_cache_read": "0.000000075",
                "image": "0",
            },
            "top_provider": {"context_length": 131072, "max_completion_tokens": 16384},
            "supported_parameters": ["max_tokens", "tools", "structured_outputs"],
            "expiration_date": "2027-01-31",
        }
    ],
    "links": {"next": "/api/v1/models?offset=500&limit=500&other=1"},
}

#: A bare list, with prices by the million tokens.
TOGETHER: list[dict[str, Any]] = [
    {
        "id": "org/Chat-70B",
        "object": "model",
        "created": 1692896905,
        "type": "chat",
        "display_name": "Chat 70B",
        "organization": "org",
        "context_length": 131072,
        "pricing": {"hourly": 0, "input": 0.88, "output": 0.9, "base": 0, "finetune": 0},
    },
    {"id": "org/Rank", "type": "rerank", "pricing": {"hourly": 0, "input": 0.1, "output": 0}},
    {"id": "org/Rented", "type": "language", "pricing": {"hourly": 3, "input": 0, "output": 0}},
]

FIREWORKS: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "accounts/fireworks/models/x",
            "object": "model",
            "owned_by": "fireworks",
            "created": 1737397673,
            "kind": "HF_BASE_MODEL",
            "supports_chat": True,
            "supports_image_input": False,
            "supports_tools": True,
            "context_length": 163840,
        }
    ],
}

AZURE: dict[str, Any] = {
    "data": [
        {
            "status": "succeeded",
            "capabilities": {
                "fine_tune": False,
                "inference": True,
                "completion": False,
                "chat_completion": True,
                "embeddings": False,
            },
            "lifecycle_status": "generally-available",
            "deprecation": {"inference": 1800000000},
            "id": "gpt-x-2026-01-01",
            "created_at": 1767225600,
            "object": "model",
        }
    ],
    "object": "list",
}

ROUNDHOUSE: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "mine",
            "object": "model",
            "created": 1795219200,
            "owned_by": "roundhouse",
            "roundhouse": {
                "card": "gpt-x",
                "type": "multimodal",
                "context_window": 128000,
                "max_output": 4096,
                "abilities": {"tools": True, "audio": False, "dancing": True},
                "prices": {"input": 2.0, "cached_input": 0.5, "output": 8.0},
                "modalities": {"input": ["text", "image"], "output": ["text", "smell"]},
                "status": "deprecated",
                "retires": "2027-01-01",
                "replaced_by": "better",
                "targets": ["openai/gpt-x"],
            },
        },
        {"id": "plain", "object": "model", "created": 1795219200, "owned_by": "roundhouse"},
    ],
}
