"""The table of faults names tests that are there and metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.telemetry.metrics import Metrics

PAGE = Path(__file__).with_name("README.md")
NAMED = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")
METRIC = re.compile(r"`(roundhouse_\w+)")


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_its_tests_are_there(page: str) -> None:
    found = NAMED.findall(page)
    assert found
    for file, name in found:
        source = PAGE.with_name(file).read_text(encoding="utf-8")
        assert f"def {name}(" in source if name else source, f"{file}::{name}"


def test_every_file_of_tests_stands_in_it(page: str) -> None:
    files = {path.name for path in PAGE.parent.glob("test_*.py")}
    helpers = {Path(__file__).name, "test_checked.py"}
    assert {file for file, _ in NAMED.findall(page)} == files - helpers


def test_its_metrics_exist(page: str) -> None:
    known = set()
    for name, kind, _, _ in Metrics().describe():
        known |= {name, f"{name}_total"} if kind == "counter" else {name}
    assert set(METRIC.findall(page)) <= known


def test_every_row_of_it_has_a_test(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert not [row for row in rows if not NAMED.search(row)]
