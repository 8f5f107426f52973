"""Weights that come with Roundhouse: ``embedded:<name>`` in a config.

The folders hold data only. How they were made stands in ``scripts/guide``.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """The embedded models, sorted."""
    return tuple(sorted(found.parent.name for found in _HERE.glob("*/model.safetensors")))


def path(name: str) -> Path:
    """The Hugging Face folder of an embedded model; KeyError names the known ones."""
    if name not in names():
        raise KeyError(f"no embedded model {name!r}; known: {', '.join(names()) or 'none'}")
    return _HERE / name
