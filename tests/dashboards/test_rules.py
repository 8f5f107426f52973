"""The alerts: promtool's judgement, and a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dashboards import asked
from tests.dashboards.prometheus import program

CASES = Path(__file__).with_name("rules_test.yaml")
ALERTS = asked.alerts()


def promtool(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_the_rules_are_good(tmp_path: Path) -> None:
    done = promtool("check", "rules", "--lint-fatal", asked.RULES, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_not_otherwise(tmp_path: Path) -> None:
    done = promtool("test", "rules", CASES, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_in_a_case() -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))["tests"]
    samples = [
        sample["labels"]
        for case in cases
        for test in case["promql_expr_test"]
        for sample in test["exp_samples"]
    ]
    fired = set(re.findall(r'alertname="(\w+)"', " ".join(samples)))
    assert fired == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(
    rule: dict[str, Any], repo_root: Path
) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    assert said["description"].endswith(".")
    assert not said["summary"].endswith(".")
    page, _, anchor = said["runbook_url"].partition("#")
    headings = re.findall(r"^### (\w+)$", (repo_root / page).read_text("utf-8"), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()


def test_the_page_has_no_alert_that_is_gone(repo_root: Path) -> None:
    page = (repo_root / "docs" / "monitoring.md").read_text("utf-8")
    assert re.findall(r"^### (Roundhouse\w+)$", page, re.MULTILINE) == [
        rule["alert"] for rule in ALERTS
    ]


def test_labels_of_summaries_are_those_of_the_alert() -> None:
    """A label that the expression has summed away would be an empty word."""
    for rule in ALERTS:
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        if grouped and not re.search(r"^(?:up|roundhouse_config|roundhouse_drain)", rule["expr"]):
            kept = {label.strip() for label in grouped[0].split(",")}
            kept |= {"model"} if "failed_ratio" in rule["expr"] else set()
            assert used <= kept, rule["alert"]


def test_the_pages_config_is_one_of_prometheus(repo_root: Path, tmp_path: Path) -> None:
    page = (repo_root / "docs" / "monitoring.md").read_text("utf-8")
    (config,) = re.findall(r"```yaml\n(scrape_configs:.+?)```", page, re.DOTALL)
    (tmp_path / "prometheus.yaml").write_text(config)
    done = promtool("check", "config", "--syntax-only", "prometheus.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
