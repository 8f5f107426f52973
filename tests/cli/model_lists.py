"""Lists of models in the forms that providers give them. Ids and figures are made up, but for
Cohere's entry, whose form stands in the recordings."""

from __future__ import annotations

from typing import Any

OPENAI = {
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


MISTRAL = {
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
ROUTER = {
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

ANTHROPIC = {
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

COHERE = {
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
