"""What tests of pulls share: how a refusal must be, and what may be left over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.engines.store.errors import StoreError
from server.engines.store.pulling import Pull

REPO = "org/small"
FILE = "model.safetensors"

Make = Callable[..., Pull]


def refused(pull: Pull, reason: str) -> str:
    with pytest.raises(StoreError) as caught:
        pull.run()
    assert caught.value.reason == reason
    assert not records_of(pull)
    assert not pull.stop.is_set()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def records_of(pull: Pull) -> list[Path]:
    return list(pull.store.glob("models--*/roundhouse/*.json"))


def left_over(store: Path) -> list[str]:
    """Locks, and whatever else should not outlive a pull."""
    rest = [*store.glob("**/*.lock"), *store.glob("**/.*.json*")]
    return [str(path) for path in rest if path.is_file()]
