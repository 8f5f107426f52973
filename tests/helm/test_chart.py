"""The chart itself: its version, its values and their schema, lint."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from scripts import helm_render
from scripts.helm_render import CHART


def test_the_charts_app_is_this_version(repo_root: Path) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))["project"]
    assert chart["appVersion"] == project["version"]


def test_there_is_an_example_of_each_kind() -> None:
    assert helm_render.examples() == [
        "cpu-kind",
        "gateway-only",
        "many-models",
        "multi-node-70b",
        "one-gpu",
    ]


@pytest.mark.parametrize("name", helm_render.examples())
def test_lint_finds_nothing(name: str) -> None:
    report = helm_python.lint(CHART, helm_render.example(name), strict=True)
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


def test_values_and_schema_have_the_same_keys() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    # Helm itself puts `global` in, and reads `enabled` of a dependency.
    helms = {"global", "enabled"}
    assert set(_keys_of_schema(schema, schema)) - helms == set(_keys_of_values(values, schema))


def test_it_may_be_another_charts_dependency(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "roundhouse")
    asks = {"name": "roundhouse", "version": "*", "condition": "roundhouse.enabled"}
    (parent / "Chart.yaml").write_text(
        yaml.safe_dump(
            {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [asks]}
        )
    )
    chart = helm_python.Chart.load(parent)
    own = {"enabled": True, "image": {"repository": "roundhouse"}}
    values = {"roundhouse": own, "global": {"registry": "a"}}
    texts = chart.render(values, name="platform", namespace="models")
    deployment = texts["parent/charts/roundhouse/templates/gateway/deployment.yaml"]
    assert yaml.safe_load(deployment)["metadata"]["name"] == "platform-roundhouse"


def test_an_engine_takes_all_that_the_defaults_have() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    defaults = schema["properties"]["engineDefaults"]["properties"]
    engine = schema["properties"]["engines"]["items"]["properties"]
    own = {"name", "model", "revision", "servedName"}
    assert set(engine) == set(defaults) | own
    for key in defaults:
        assert engine[key] == {"$ref": f"#/properties/engineDefaults/properties/{key}"}


def test_the_schema_lets_nothing_unknown_in() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    for at, node in _objects(schema, ""):
        assert node.get("additionalProperties") is False, at


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = schema
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def _keys_of_schema(node: dict[str, Any], schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Where the schema says which keys there are. What is free below is one key."""
    properties = _resolved(node, schema).get("properties")
    if properties is None or at.endswith("resources"):
        yield at
        return
    for key, child in properties.items():
        yield from _keys_of_schema(child, schema, f"{at}.{key}" if at else key)


def _keys_of_values(values: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    def walk(node: Any, part: dict[str, Any], at: str) -> Iterator[str]:
        properties = _resolved(part, schema).get("properties")
        if not isinstance(node, dict) or properties is None or at.endswith("resources"):
            yield at
            return
        for key, value in node.items():
            yield from walk(value, properties.get(key, {}), f"{at}.{key}" if at else key)

    yield from walk(values, schema, "")


def _objects(node: Any, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict) and "type" in node:
            yield at, node
        for key, value in node.items():
            yield from _objects(value, f"{at}/{key}")
