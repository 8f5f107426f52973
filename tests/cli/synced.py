"""What the tests of `models sync` share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from click.testing import Result

from server.registry import Catalog
from tests.registry.cards import catalog_of

Run = Callable[..., Result]
KEY = "sk-very-secret-0123456789"

CATALOG = Catalog(
    [
        *catalog_of(
            {"model_id": "middle-2508", "default_temperature": None},
            {"model_id": "retired-1", "status": "retired", "retires": "2026-01-01"},
            {"model_id": "left"},
            {"model_id": "weights", "access_method": "local"},
        ).values(),
        *catalog_of({"model_id": "embed-2312"}, provider="other").values(),
    ]
)


def config(**providers: Any) -> None:
    """./roundhouse.yaml with these providers; a string is the base URL of one with a key."""
    whole = {
        name: {"dialect": "openai", "base_url": f"{given}/v1", "api_key": KEY}
        if isinstance(given, str)
        else given
        for name, given in providers.items()
    }
    Path("roundhouse.yaml").write_text(yaml.safe_dump({"version": 1, "providers": whole}))


async def sync(run: Run, *options: str) -> Result:
    """The command in a thread, so that the upstream can answer; its output never has the key."""
    result = await asyncio.to_thread(run, "models", "sync", *options)
    assert KEY not in result.output
    return result
