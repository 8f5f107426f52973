"""Every query that stands somewhere: in panels, rules and the metrics' page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "helm" / "roundhouse"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
RULES = CHART / "rules" / "roundhouse.yaml"
#: What Grafana puts in: all of everything, and a little more than four scrapes.
VARIABLES = {"instance": ".*", "model": ".*", "engine": ".*", "__rate_interval": "10s"}


@dataclass(frozen=True)
class Query:
    """`where` it stands, the PromQL with its variables filled in, and how its lines are named."""

    where: str
    expr: str
    legend: str = ""


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def filled(expr: str) -> str:
    """With values for its variables. Raises KeyError for one that is none."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: VARIABLES[match[1]], expr)


def panels() -> list[Query]:
    """Of all panels, each by its title and letter."""
    return [
        Query(
            f"{path.stem}: {panel['title']} {target['refId']}",
            filled(target["expr"]),
            target["legendFormat"],
        )
        for path in DASHBOARDS
        for panel in read(path)["panels"]
        for target in panel.get("targets", [])
    ]


def variables() -> list[Query]:
    """What fills the choices at the top of a dashboard: `label_values(metric, label)`."""
    return [
        Query(f"{path.stem}: ${one['name']}", one["query"]["query"])
        for path in DASHBOARDS
        for one in read(path)["templating"]["list"]
        if one["type"] == "query"
    ]


def rules() -> list[dict[str, Any]]:
    """Of all groups."""
    found: list[dict[str, Any]] = [
        rule
        for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def documented() -> list[Query]:
    """Of all tables of questions and queries in the docs."""
    found = []
    for page in sorted((CHART.parents[1] / "docs").glob("*.md")):
        for table in re.findall(
            r"\| question \| query \|\n.*\n((?:\|.*\n)+)", page.read_text("utf-8")
        ):
            for question, query in re.findall(r"^\| (.+?) \| `(.+)` \|$", table, re.MULTILINE):
                found.append(Query(f"{page.name}: {question}", query.replace("\\|", "|")))
    return found
