"""A key without a value, such as `ingress:` with all below it commented out. Helm takes it away and
its default too, so that templates would fall over it: it is refused by its name instead."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from scripts import helm_render
from scripts.helm_render import CHART
from tests.helm.test_config import loaded

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
#: Mappings that are not the chart's to know; the first two may be empty.
FREE = ("config", "engines", "global")
#: Everything switched on, so that every template looks at its values.
ON = {
    **helm_render.example("one-gpu"),
    "ingress": {"enabled": True, "hosts": ["a.example"]},
    "autoscaling": {"enabled": True},
    "monitoring": {
        name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "rules", "dashboards")
    },
}


def paths(values: dict[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that the chart itself knows."""
    for key, value in values.items():
        if at or key not in FREE:
            yield (*at, key)
            if isinstance(value, dict) and key not in ("annotations", "behavior", "labels"):
                yield from paths(value, (*at, key))


def without(path: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(ON)
    node = values
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = None
    return values


def refusal(values: dict[str, Any]) -> str:
    """Why Helm refuses the values; empty if it takes them."""
    try:
        helm_render.render(values)
    except helm_python.HelmError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", list(paths(VALUES)), ids=".".join)
def test_it_is_refused_by_its_name_or_does_no_harm(path: tuple[str, ...]) -> None:
    said = refusal(without(path))
    # What a pod asks for may be left to the cluster.
    harmless = "requests" in path or "ephemeral-storage" in path
    assert (path[-1] in said) != harmless
    assert "error calling" not in said
    assert "nil pointer" not in said


@pytest.mark.parametrize("values", [{"config": None}, {"config": {"server": None}}])
def test_a_config_may_be_empty(values: dict[str, Any], tmp_path: Path) -> None:
    assert not loaded({"image": ON["image"], **values}, tmp_path).config.models


def test_engines_may_be_none() -> None:
    assert helm_render.manifests({"image": ON["image"], "engines": None})


def test_no_default_is_null() -> None:
    def nulls(node: Any) -> bool:
        children = node.values() if isinstance(node, dict) else node
        return node is None or (isinstance(node, dict | list) and any(map(nulls, children)))

    assert not nulls(VALUES)


def test_the_schema_needs_every_key_that_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))

    def compare(node: dict[str, Any], values: dict[str, Any], at: str) -> None:
        wanted = [key for key in values if at or key not in FREE]
        assert node["required"] == wanted, f"definitions.noneIsNull{at} of values.schema.json"
        for key, child in node.get("properties", {}).items():
            compare(child, values[key], f"{at}.{key}")

    compare(schema["definitions"]["noneIsNull"], VALUES, "")
