"""Durations and sizes as people write them: `90`, `"15m"`, `"32MiB"`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


def seconds(value: Any) -> Any:
    """Seconds from `15`, `1.5`, `"15m"`, `"1h30m"`. Raises ValueError with the forms that work."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a duration cannot be negative")
        return float(value)
    if isinstance(value, str):
        text = value.strip().lower()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        parts = _DURATION.findall(text)
        if parts and _DURATION.sub("", text).strip() == "":
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    raise ValueError(f"{value!r} is no duration: write seconds (30) or 500ms, 30s, 15m, 1h30m")


def size(value: Any) -> Any:
    """Bytes from `1024`, `"32MiB"`, `"1.5GB"`. Raises ValueError with the forms that work."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("a size cannot be negative")
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, unit = match.groups()
        if unit.lower() in _BYTES:
            return int(float(number) * _BYTES[unit.lower()])
    raise ValueError(f"{value!r} is no size: write bytes (1048576) or 64KiB, 32MiB, 1.5GiB")


_DURATION_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}], "examples": [30, "15m"]}
)
Duration = Annotated[float, BeforeValidator(seconds), _DURATION_SCHEMA]
#: Where 0 would leave no time at all.
Patience = Annotated[float, Field(gt=0), BeforeValidator(seconds), _DURATION_SCHEMA]
Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}],
            "examples": [1048576, "32MiB"],
        }
    ),
]
