"""What `roundhouse models sync` has learned is the server's, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.config.load import Loaded, load
from server.config.resolve import resolve_models
from server.registry import Source
from server.registry.overlay import FOLDER, Overlay
from tests.fakes.catalog import catalog

Write = Callable[..., Path]
SOURCE = Source("openai's list", "https://api.openai.com/v1/models", "2026-11-20")
NEW = {
    "model_id": "gpt-new",
    "name": "gpt-new",
    "type": "chat",
    "access_method": "api",
    "description": "Listed by openai.",
    "specs": {"context_window": 4096},
    "cost": {"input": 1.0, "output": 2.0},
    "sources": {"": "list"},
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def loaded(write: Write, home: Path) -> Callable[[], Loaded]:
    file = write("version: 1\nproviders: {openai: {api_key: k}}\ncatalog: auto\n")
    environ = {"ROUNDHOUSE_HOME": str(home)}
    return lambda: load(file, environ=environ, catalog=catalog())


def put(home: Path, text: str) -> Path:
    file = home / FOLDER / "openai.json"
    file.parent.mkdir(parents=True)
    file.write_text(text, "utf-8")
    return file


def test_a_synced_id_is_usable_and_watched(home: Path, loaded: Callable[[], Loaded]) -> None:
    before = loaded()
    assert "gpt-new" not in resolve_models(before.config, before.catalog)
    file = put(home, Overlay("openai", SOURCE, [NEW]).text())
    found = loaded()
    model = resolve_models(found.config, found.catalog)["gpt-new"]
    assert [(target.provider, target.model) for target in model.targets] == [("openai", "gpt-new")]
    assert file in found.files
    assert str(file) in found.sources
    assert found.digest != before.digest


def test_a_checked_fact_stays(home: Path, loaded: Callable[[], Loaded]) -> None:
    listed = {**NEW, "model_id": "gpt-big", "cost": {"input": 99.0}}
    put(home, Overlay("openai", SOURCE, [listed]).text())
    assert loaded().catalog["gpt-big"].cost.input == 2.0


def test_a_broken_overlay_is_left_out_and_told(home: Path, loaded: Callable[[], Loaded]) -> None:
    file = put(home, "{")
    found = loaded()
    assert found.catalog.keys() == catalog().keys()
    assert f"{file} is left out: openai.json: no JSON. `roundhouse models sync openai`" in " ".join(
        found.advice
    )
