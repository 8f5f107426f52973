"""The JSON of a run: what was asked, where, by what, and every figure."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from server.loadtest.bench import Outcome, Settings

#: Raised when a name changes its meaning.
FORMAT: Final = 1
_KEY_FLAG: Final = "--api-key"


@dataclass(frozen=True, slots=True)
class Occasion:
    """`started` is ISO 8601 in UTC, `version` Roundhouse's, `arguments` the command line."""

    started: str
    version: str
    arguments: Sequence[str]


def document(
    settings: Settings, outcome: Outcome, occasion: Occasion, *, interrupted: bool, raw: bool
) -> dict[str, Any]:
    """Everything but keys; units stand in the names. `raw` adds every request."""
    return {
        "format": FORMAT,
        "settings": _settings(settings),
        "environment": {
            "started_at": occasion.started,
            "command": without_secrets(occasion.arguments),
            "roundhouse": occasion.version,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
        },
        "interrupted": interrupted,
        "warmup_requests_failed": len(outcome.warmup_failures),
        "prompts_repeated": settings.prompts.repeats(outcome.sent),
        "steps": [report.as_json(raw=raw) for report in outcome.reports],
    }


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "base_url": _public(settings.url),
        "model": settings.model,
        "requests": settings.ends.requests,
        "duration_seconds": settings.ends.seconds,
        "max_errors": settings.ends.errors,
        "warmup_requests": settings.warmup,
        "timeout_seconds": settings.timeout,
        "seed": settings.seed,
        "stream": settings.streamed,
        "prompts": settings.prompts.as_json(),
        "request_fields": dict(settings.fields),
        "percentiles": "nearest rank",
    }


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line whose keys, and passwords in URLs, are stars."""
    found: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if found and found[-1] == _KEY_FLAG:
            found.append("***")
        elif name == _KEY_FLAG and equals:
            found.append(f"{name}=***")
        elif equals and name.startswith("--"):
            found.append(f"{name}={_public(value)}")
        else:
            found.append(_public(argument))
    return found


def _public(url: str) -> str:
    """Without a user and a password."""
    if "@" not in url or "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
