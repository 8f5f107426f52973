"""Dashboards, panels and variables in Grafana's classic JSON model, which every version since 10
imports. Panels are laid out from left to right, and wrap at 24 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: That of Grafana 10.4 and 11; newer ones bring it up to theirs as they load it.
SCHEMA_VERSION: Final = 39
WIDTH: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
#: Words for the percentiles that are drawn.
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and the name of its lines."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `about` says what is seen and what it means when it is high or low."""

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    maximum: float | None = None
    stack: bool = False
    bars: bool = False
    #: Value → (text, colour), for states.
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    #: Values from which on it is yellow, and red.
    warn: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and what stands under it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice of label values; all of them at first."""

    name: str
    label: str
    query: str


def dashboard(
    uid: str, title: str, about: str, variables: Iterable[Variable], rows: Iterable[Row]
) -> dict[str, Any]:
    """The whole JSON."""
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["roundhouse"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "annotations": {"list": [_builtin_annotations()]},
        "links": [_link()],
        "templating": {"list": [_datasource(), *(_variable(each) for each in variables)]},
        "panels": list(_laid_out(rows)),
    }


def quantiles(metric: str, selector: str, by: Sequence[str] = ()) -> tuple[Query, ...]:
    """The percentiles of a histogram, of all series together or by some labels."""
    within = ", ".join(("le", *by))
    name = " ".join(f"{{{{{label}}}}}" for label in by)
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by ({within}) "
            f"(rate({metric}_bucket{{{selector}}}[$__rate_interval])))",
            f"{name} {word}".strip(),
        )
        for word, quantile in QUANTILES.items()
    )


def quantile(word: str, metric: str, selector: str, *by: str) -> Query:
    """One of them."""
    return quantiles(metric, selector, by)[list(QUANTILES).index(word)]


def per_second(metric: str, selector: str, *by: str) -> Query:
    """A counter's rate by some labels."""
    return Query(
        f"sum by ({', '.join(by)}) (rate({metric}{{{selector}}}[$__rate_interval]))",
        " ".join(f"{{{{{label}}}}}" for label in by),
    )


def times(metric: str, selector: str, *by: str, how: str = "sum") -> Query:
    """How often something rare happened, for bars; `how` servers' numbers come to one."""
    return Query(
        f"{how} by ({', '.join(by)}) (increase({metric}{{{selector}}}[$__rate_interval]))",
        " ".join(f"{{{{{label}}}}}" for label in by),
    )


def _laid_out(rows: Iterable[Row]) -> Iterable[dict[str, Any]]:
    number = y = 0
    for row in rows:
        number += 1
        yield _row(number, row.title, y)
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                y, x, tallest = y + tallest, 0, 0
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield _panel(number, panel, place)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        "panels": [],
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("stat", "bargauge")
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.warn or instant else "palette-classic"},
        "custom": _drawn(panel),
        "mappings": _mappings(panel.states),
        "thresholds": {"mode": "absolute", "steps": _steps(panel.warn)},
    }
    if panel.kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
            }
            for at, query in enumerate(panel.queries)
        ],
    }


def _drawn(panel: Panel) -> dict[str, Any]:
    if panel.kind == "state-timeline":
        return {"fillOpacity": 80, "lineWidth": 0}
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "bars" if panel.bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if panel.bars else 20 if panel.stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
    }


def _mappings(states: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    if not states:
        return []
    shown = {
        str(value): {"text": text, "color": colour, "index": at}
        for at, (value, (text, colour)) in enumerate(states.items())
    }
    return [{"type": "value", "options": shown}]


def _steps(warn: tuple[float, float] | None) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if warn is not None:
        yellow, red = warn
        steps += [{"color": "yellow", "value": yellow}, {"color": "red", "value": red}]
    return steps


def _options(kind: str) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if kind == "stat":
        return {
            "reduceOptions": last,
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "auto",
            "orientation": "auto",
        }
    if kind == "bargauge":
        return {"reduceOptions": last, "displayMode": "basic", "orientation": "horizontal"}
    if kind == "state-timeline":
        return {
            "showValue": "never",
            "mergeValues": True,
            "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "options": [],
        "current": {},
        "skipUrlSync": False,
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": variable.name},
        "regex": "",
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "sort": 1,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "skipUrlSync": False,
    }


def _builtin_annotations() -> dict[str, Any]:
    return {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }


def _link() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Roundhouse",
        "tags": ["roundhouse"],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
