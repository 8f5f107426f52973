"""A hub on loopback, and pulls from it into an empty store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.engines.store.fetching import Patience
from server.engines.store.hub import Hub
from server.engines.store.pulling import Pull, Wanted
from tests.engines.store.pulls import REPO, Make
from tests.fakes.hub import FakeHub, running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with running() as found:
        yield found


@pytest.fixture
def make(hub: FakeHub, tmp_path: Path) -> Make:
    def make_it(repo: str = REPO, *, limits: Any = None, **facts: Any) -> Pull:
        wanted = Wanted(
            repo,
            revision=facts.pop("revision", "main"),
            asked_by="a test",
            allow_pickle=facts.pop("allow_pickle", False),
            allow_code=facts.pop("allow_code", False),
        )
        there = Hub(endpoint=facts.pop("url", hub.url), environ={}, **(limits or {}))
        facts.setdefault("patience", Patience(attempts=2, pause=0))
        return Pull(wanted, tmp_path / "hub", there, **facts)

    return make_it
