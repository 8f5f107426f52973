"""configs/ and docs/configuration.md tell the truth, and all of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import reference
from server.config.explain import model_at
from server.config.load import QUICKSTART, load
from server.config.providers_table import ROWS
from server.config.resolve import resolve_models
from server.config.variables import TWINS

VARIABLES = {
    "ROUNDHOUSE_API_KEY": "sk-rh-1",
    "ROUNDHOUSE_ADMIN_KEY": "sk-rh-2",
    "ROUNDHOUSE_METRICS_KEY": "sk-rh-3",
    "OPENAI_API_KEY": "sk-3",
    "CLAUDE_KEY_A": "sk-4",
    "CLAUDE_KEY_B": "sk-5",
    "COHERE_API_KEY": "sk-6",
    "LAB_API_KEY": "sk-7",
    "CLUSTER_API_KEY": "sk-8",
}


def keys_in(tree: Any, path: tuple[str | int, ...] = ()) -> set[str]:
    """The keys of a file, as `reference.every_key` writes them."""
    found: set[str] = set()
    if isinstance(tree, list):
        for one in tree:
            found |= keys_in(one, (*path, 0))
    elif isinstance(tree, dict):
        model = model_at(path)
        for key, value in tree.items():
            here = (*path, key if model is not None else "*")
            if model is not None:
                found.add(reference.shown(here))
            found |= keys_in(value, here)
    return found


def test_the_example_has_every_key(repo_root: Path) -> None:
    tree = yaml.safe_load((repo_root / "configs" / "example.yaml").read_text())
    assert keys_in(tree) == {path for path, _ in reference.every_key()}


def test_the_example_is_good_and_shows_the_defaults(repo_root: Path) -> None:
    file = repo_root / "configs" / "example.yaml"
    loaded = load(file, environ=VARIABLES)
    assert loaded.advice == ()
    models = list(resolve_models(loaded.config))
    assert models == ["guide", "qwen3-8b", "gpt-6-luna", "fast", "large", "gguf", "default"]
    for path in (
        ("server", "limits"),
        ("server", "timeouts"),
        ("log",),
        ("routing",),
        ("weights",),
    ):
        at: Any = loaded.config
        for part in path:
            at = getattr(at, part)
        assert at == type(at)(), f"{path} of the example are not the defaults"


def test_the_examples_variables_are_named_at_its_top(repo_root: Path) -> None:
    text = (repo_root / "configs" / "example.yaml").read_text()
    listed = text[text.index("# Here:") : text.index("# Durations")]
    assert set(re.findall(r"[A-Z_]{5,}", listed)) == set(VARIABLES)


def test_the_quickstart_is_the_built_in_config(repo_root: Path) -> None:
    file = repo_root / "configs" / "quickstart.yaml"
    assert file.read_bytes() == QUICKSTART.read_bytes()
    loaded = load(file, environ={})
    assert list(loaded.config.engines) == ["guide"]


def test_the_quickstarts_fallback_works_once_its_lines_are_taken_in(
    repo_root: Path, tmp_path: Path
) -> None:
    text = (repo_root / "configs" / "quickstart.yaml").read_text()
    file = tmp_path / "roundhouse.yaml"
    for line in ("providers:", "  openai:", "    fallbacks:", "  gpt-6-luna:", "    targets:"):
        assert f"\n# {line}" in text
        text = text.replace(f"\n# {line}", f"\n{line}")
    file.write_text(text)
    models = resolve_models(load(file, environ=VARIABLES).config)
    assert models["guide"].fallbacks == ("gpt-6-luna",)


# --- docs/configuration.md


def test_every_key_and_variable_says_what_it_is() -> None:
    for path, field in reference.every_key():
        assert field.description, f"{path} has no description"
    for twin in TWINS:
        assert twin.text


def test_the_page_is_up_to_date(repo_root: Path) -> None:
    page = repo_root / "docs" / "configuration.md"
    assert reference.main(["--check", str(page)]) == 0
    text = page.read_text()
    for path, _ in reference.every_key():
        assert f"`{path}`" in text
    for name in ROWS:
        assert f"`{name}`" in text


def test_the_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reference.START}old\n{reference.END}after\n")
    assert reference.main(["--check", str(page)]) == 1
    assert reference.main(["--write", str(page)]) == 0
    assert reference.main(["--check", str(page)]) == 0
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        reference.main(["--write", str(page)])
