"""What `roundhouse` gives, and that it is light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import roundhouse
from server import registry

HEAVY = ("httpx", "starlette", "torch", "pydantic", "uvicorn", "aiohttp", "click", "yaml")


def in_a_process(code: str, repo_root: Path) -> str:
    """What a fresh interpreter prints for this code."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_of_the_registry_is_here() -> None:
    assert set(registry.__all__) | {"__version__"} == set(roundhouse.__all__)
    assert set(roundhouse.__all__) <= set(dir(roundhouse))
    for name in registry.__all__:
        assert getattr(roundhouse, name) is getattr(registry, name)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="'roundhouse' has no attribute 'get_modle_info'"):
        _ = roundhouse.get_modle_info  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from roundhouse import search  # type: ignore[attr-defined] # noqa: F401


def test_import_alone_reads_nothing(repo_root: Path) -> None:
    said = in_a_process(
        "import sys; before = set(sys.modules); import roundhouse, json;"
        "print(json.dumps(sorted(set(sys.modules) - before)))",
        repo_root,
    )
    assert not [name for name in json.loads(said) if name.startswith(("server", "msgspec"))]


def test_the_registry_comes_without_the_server(repo_root: Path) -> None:
    code = (
        "import sys, json; from roundhouse import *; ALL_MODELS; assert __version__;"
        "print(json.dumps([search_models.__name__, *sys.modules]))"
    )
    name, *loaded = json.loads(in_a_process(code, repo_root))
    assert name == "search_models"
    assert "server.registry" in loaded
    rooms = {"server.registry", "server"}
    others = [m for m in loaded if m.startswith("server") and not m.startswith("server.registry")]
    assert set(others) <= rooms
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
