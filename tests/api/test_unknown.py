"""What is said of a model that is not served here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from server.api import unknown
from server.config.load import Loaded, load
from server.config.providers_table import ROWS
from server.config.resolve import resolve_models
from server.registry.cards import AccessMethod, ModelInfo
from server.registry.catalog import Catalog, builtin
from tests.fakes.catalog import catalog

CATALOG = catalog()


def said(
    name: str, folder: Path, cards_of: Catalog = CATALOG, *, told: bool = True, **tree: Any
) -> str:
    file = folder / "roundhouse.yaml"
    file.write_text(yaml.safe_dump({"version": 1, **tree}))
    loaded: Loaded = load(file, environ={}, catalog=cards_of)
    models = resolve_models(loaded.config, loaded.catalog)
    config = loaded.config if told else None
    return unknown.text(name, models, list(models), loaded.catalog, config)


def remote(card: ModelInfo) -> bool:
    return card.access_method is not AccessMethod.LOCAL


def test_without_a_key_the_variable_and_the_page_are_named(tmp_path: Path) -> None:
    assert said("gpt-big", tmp_path) == (
        "The model `gpt-big` is not served here. The registry knows it at openai: get a key at "
        "https://platform.openai.com/api-keys and set OPENAI_API_KEY for the server, then add it "
        "under `models` in its config, or set `catalog: auto`."
    )
    assert said("gpt-big", tmp_path, told=False) == said("gpt-big", tmp_path)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "mistral", "cohere", "huggingface"])
def test_of_every_provider_of_the_catalog(provider: str, tmp_path: Path) -> None:
    cards = builtin()
    card = next(c for c in cards.values() if c.provider == provider and remote(c))
    row, text = ROWS[provider], said(card.model_id, tmp_path, cards)
    assert row.page is not None
    assert row.page in text or "retired" in text or "serves no" in text


def test_all_providers_of_the_catalog_have_rows() -> None:
    assert {card.provider for card in builtin().values() if remote(card)} <= ROWS.keys()


@pytest.mark.parametrize(
    ("providers", "account"),
    [
        ({"openai": {"api_key": "k"}}, "openai"),
        ({"eu": {"like": "openai", "api_key": "k"}}, "eu"),
        ({"openai": {"base_url": "http://x/v1"}, "eu": {"like": "openai", "api_key": "k"}}, "eu"),
    ],
)
def test_where_there_is_an_account_its_name_helps(
    providers: dict[str, Any], account: str, tmp_path: Path
) -> None:
    assert said("gpt-big", tmp_path, providers=providers) == (
        "The model `gpt-big` is not served here. The registry knows it at openai, where this "
        f"server has an account: keys that may use `{account}/*` can ask for `{account}/gpt-big`."
    )


def test_a_provider_that_is_not_known(tmp_path: Path) -> None:
    assert "at elsewhere, which is not configured here." in said("far-1", tmp_path)


def test_what_no_surface_serves(tmp_path: Path) -> None:
    assert "this server serves no image." in said("paint-1", tmp_path)


def test_near_names(tmp_path: Path) -> None:
    engines = {"guide": {"weights": "./w"}}
    assert said("giude", tmp_path, engines=engines).endswith("Did you mean `guide`?")
    assert said("x" * 900, tmp_path, engines=engines).endswith("lists the models of this server.")
    assert said("zzz", tmp_path).endswith("has no models configured that this key may use.")
