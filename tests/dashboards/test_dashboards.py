"""The dashboards are what Grafana takes, and what a reader can use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from scripts.dashboards.__main__ import DASHBOARDS, main, text
from server.telemetry.metrics import Metrics
from tests.dashboards import asked

NAMES = [path.stem for path in asked.DASHBOARDS]
SOURCE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type", "uid"],
    "properties": {"type": {"enum": ["prometheus"]}, "uid": {"enum": ["${datasource}"]}},
}
PLACE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "exclusiveMaximum": 24},
        "y": {"type": "integer", "minimum": 0},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "h": {"type": "integer", "minimum": 1},
    },
}
ROW = {
    "type": "object",
    "required": ["id", "type", "title", "collapsed", "gridPos", "panels"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"const": "row"},
        "title": {"type": "string", "minLength": 1},
        "collapsed": {"type": "boolean"},
        "gridPos": PLACE,
        "panels": {"type": "array", "maxItems": 0},
    },
}
TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "legendFormat"],
    "properties": {
        "refId": {"type": "string", "pattern": "^[A-Z]$"},
        "datasource": SOURCE,
        "expr": {"type": "string", "minLength": 1},
        "legendFormat": {"type": "string", "minLength": 1},
    },
}
FIELDS = {
    "type": "object",
    "required": ["unit", "color", "mappings", "thresholds"],
    "properties": {
        "unit": {"type": "string", "minLength": 1},
        "color": {"properties": {"mode": {"enum": ["thresholds", "palette-classic", "fixed"]}}},
        "mappings": {
            "type": "array",
            "items": {
                "required": ["type", "options"],
                "properties": {
                    "type": {"const": "value"},
                    "options": {"additionalProperties": {"required": ["text", "color", "index"]}},
                },
            },
        },
        "thresholds": {
            "required": ["mode", "steps"],
            "properties": {
                "mode": {"const": "absolute"},
                "steps": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"required": ["color", "value"]},
                },
            },
        },
    },
}
PANEL = {
    "type": "object",
    "required": [
        *("id", "type", "title", "description", "datasource", "gridPos", "fieldConfig"),
        *("options", "targets"),
    ],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["timeseries", "stat", "bargauge", "state-timeline"]},
        "title": {"type": "string", "minLength": 1, "maxLength": 50},
        "description": {"type": "string", "minLength": 10, "pattern": "[.]$"},
        "datasource": SOURCE,
        "gridPos": PLACE,
        "fieldConfig": {
            "required": ["defaults", "overrides"],
            "properties": {"defaults": FIELDS, "overrides": {"type": "array"}},
        },
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
    },
}
VARIABLE = {
    "type": "object",
    "required": ["name", "type", "hide", "query", "current"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "type": {"enum": ["datasource", "query"]},
        "hide": {"enum": [0, 1, 2]},
        "refresh": {"enum": [1, 2]},
        "sort": {"enum": list(range(9))},
        "datasource": SOURCE,
    },
}
#: What Grafana's own schema asks of its classic model, as far as these go.
DASHBOARD = {
    "type": "object",
    "required": ["id", "uid", "title", "schemaVersion", "panels", "templating", "time", "tags"],
    "properties": {
        # One with a number would take another dashboard's place.
        "id": {"type": "null"},
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{8,40}$"},
        "title": {"type": "string", "minLength": 1},
        "tags": {"type": "array", "contains": {"const": "roundhouse"}},
        "schemaVersion": {"type": "integer", "minimum": 39},
        "version": {"type": "integer", "minimum": 1},
        "graphTooltip": {"enum": [0, 1, 2]},
        "refresh": {"type": "string"},
        "time": {"required": ["from", "to"]},
        "panels": {"type": "array", "minItems": 1, "items": {"if": {"properties": {"type": {
            "const": "row"}}}, "then": ROW, "else": PANEL}},
        "templating": {"properties": {"list": {"type": "array", "items": VARIABLE}}},
    },
}  # fmt: skip


@pytest.fixture(params=asked.DASHBOARDS, ids=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return asked.read(request.param)


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def test_grafana_would_take_it(dashboard: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(DASHBOARD).validate(dashboard)


def test_names_are_stable_and_no_two_alike() -> None:
    assert NAMES == ["engines", "service"]
    read = [asked.read(path) for path in asked.DASHBOARDS]
    assert [one["uid"] for one in read] == ["roundhouse-engines", "roundhouse-service"]


def test_panels_have_numbers_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) is panel["title"]


def test_titles_are_no_two_alike_under_a_heading(dashboard: dict[str, Any]) -> None:
    heading, seen = "", set()
    for panel in dashboard["panels"]:
        heading = panel["title"] if panel["type"] == "row" else heading
        assert (heading, panel["title"]) not in seen or panel["type"] == "row"
        seen.add((heading, panel["title"]))


def test_rates_are_over_what_grafana_chooses(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            windows = re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', '""', target["expr"]))
            rates = re.findall(r"\b(?:i?rate|increase|delta|deriv)\(", target["expr"])
            assert windows == ["$__rate_interval"] * len(rates), panel["title"]


def test_its_variables_are_used_and_there(dashboard: dict[str, Any]) -> None:
    there = {one["name"] for one in dashboard["templating"]["list"]}
    used = {"datasource"}
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))
        for target in panel["targets"]:
            used |= set(re.findall(r"\$(\w+)", target["expr"]))
    assert used - {"__rate_interval"} == there
    assert dashboard["templating"]["list"][0]["type"] == "datasource"


def test_every_metric_of_ours_is_on_a_panel() -> None:
    drawn = "\n".join(query.expr for query in asked.panels())
    missing = [name for name, *_ in Metrics().describe() if not re.search(rf"\b{name}", drawn)]
    assert missing == []


def test_what_every_server_sees_is_not_added_up() -> None:
    seen = r"roundhouse_(replicas|replica_changes_total|breaker_state|credential_state)\b"
    found = [query for query in asked.panels() if re.search(seen, query.expr)]
    assert len(found) >= 5
    added = re.compile(rf"\bsum( by \([^)]*\))? ?\((increase\()?{seen}")
    assert added.search('sum by (a) (increase(roundhouse_replica_changes_total{a="b"}[5m]))')
    assert [query.where for query in found if added.search(query.expr)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_is_described(name: str) -> None:
    path = next(path for path in asked.DASHBOARDS if path.stem == name)
    assert path.read_text("utf-8") == text(name)
    assert set(DASHBOARDS) == set(NAMES)


def test_the_command_tells_a_file_that_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.dashboards.__main__.FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["dashboards", "--check"])
    assert main() == 1
    assert "service.json, engines.json" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["dashboards"])
    assert main() == 0
    monkeypatch.setattr("sys.argv", ["dashboards", "--check"])
    assert main() == 0
