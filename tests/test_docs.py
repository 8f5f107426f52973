"""The pages tell the truth: metrics, error codes, links, commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts import registry_page
from scripts.metrics_page import PAGE, page
from server.api.openapi_schemas import error_codes
from server.registry import check

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]


def test_registry_page_is_what_the_catalog_says() -> None:
    text = registry_page.PAGE.read_text("utf-8")
    assert text == registry_page.page(text), "run `make docs`"


def test_cards_schema_is_what_the_code_says() -> None:
    text = (ROOT / "configs" / "cards.schema.json").read_text("utf-8")
    assert text == json.dumps(check.schema(), indent=2) + "\n"


def test_metrics_page_is_what_the_code_says() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


def test_every_error_code_has_a_line() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    documented = set(re.findall(r"`([a-z_]+)`", text))
    assert set(error_codes()) - documented == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), link


def test_readme_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / "README.md").read_text("utf-8")))
    assert {"serve", "test"} <= named
    assert named <= targets


def test_pages_that_the_code_names_are_there() -> None:
    """What the server says to people. Links to others' sites have a host before them."""
    for path in (ROOT / "server").rglob("*.py"):
        for page_named in re.findall(r"(?<![\w/])docs/[\w-]+\.md", path.read_text("utf-8")):
            assert (ROOT / page_named).exists(), f"{path}: {page_named}"
