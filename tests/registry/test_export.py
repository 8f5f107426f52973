"""The catalog as JSON, YAML and tables."""

from __future__ import annotations

import json

import pytest
import yaml

from server.registry import ALL_MODELS, export_to_dict
from server.registry.export import FORMATS, cells, document, dollars, to_json, to_markdown, to_yaml
from server.registry.export import tokens as tokens_of
from tests.registry.cards import catalog_of

CATALOG = catalog_of(
    {"model_id": "small", "cost": {"input": 0.15, "output": 1200}},
    {"model_id": "odd|name", "specs": {"context_window": None}, "licence": {"id": None}},
)


def test_json_is_the_export_with_its_schema() -> None:
    assert json.loads(to_json(CATALOG)) == json.loads(
        json.dumps({"schema": 1, "models": export_to_dict(CATALOG)})
    )


def test_yaml_says_the_same() -> None:
    assert yaml.safe_load(to_yaml(CATALOG)) == json.loads(to_json(CATALOG))
    assert list(yaml.safe_load(to_yaml(CATALOG))["models"]) == list(CATALOG)
    assert "&id" not in to_yaml(CATALOG)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_catalog_gives_the_same_text(form: str) -> None:
    assert FORMATS[form](CATALOG) == FORMATS[form](catalog_of_again())
    assert FORMATS[form](CATALOG).endswith("\n")


def catalog_of_again() -> object:
    return catalog_of(
        {"model_id": "small", "cost": {"input": 0.15, "output": 1200}},
        {"model_id": "odd|name", "specs": {"context_window": None}, "licence": {"id": None}},
    )


def test_all_of_the_catalog_goes_through_every_format() -> None:
    assert list(json.loads(to_json(ALL_MODELS))["models"]) == list(ALL_MODELS)
    some = dict(list(ALL_MODELS.items())[::20])  # PyYAML takes its time
    assert yaml.safe_load(to_yaml(some)) == json.loads(to_json(some))
    assert sum(line.startswith("| ") for line in to_markdown(ALL_MODELS).splitlines()) >= len(
        ALL_MODELS
    )


def test_tables() -> None:
    lines = to_markdown(CATALOG, {"small": frozenset({"cost.input"})}).splitlines()
    assert lines[0] == "# Models"
    assert "## lab" in lines
    assert "| MODEL | TYPE | CONTEXT | $IN | $OUT | LICENCE | STATUS |" in lines
    assert "| small | chat | 128k | 0.15* | 1200 | proprietary | current |" in lines
    assert "| odd\\|name | chat | - | 0.15 | 0.6 | proprietary | current |" in lines


def test_what_an_overlay_brought_is_marked() -> None:
    overlaid = {"small": frozenset({"cost.input", "abilities.tools"}), "gone": frozenset({"type"})}
    models = document(CATALOG, overlaid)["models"]
    assert models["small"]["overlay"] == ["abilities.tools", "cost.input"]
    assert "overlay" not in models["odd|name"]
    card = CATALOG["small"]
    assert "*" not in "".join(cells(card))
    assert cells(card, frozenset({"cost.input"}))[4] == "0.15*"
    assert cells(card, frozenset({"type", "status", "cost.input"}))[:5] == (
        "small*",
        "lab",
        "chat",
        "128k",
        "0.15",
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (512, "512"), (8192, "8k"), (128000, "128k"), (1048576, "1.05M"), (10**6, "1M")],
)
def test_tokens(count: int | None, text: str) -> None:
    assert tokens_of(count) == text


@pytest.mark.parametrize(
    ("price", "text"),
    [(None, "-"), (0.0, "0"), (0.075, "0.075"), (2.5, "2.5"), (10, "10"), (12345.6, "12346")],
)
def test_dollars(price: float | None, text: str) -> None:
    assert dollars(price) == text
