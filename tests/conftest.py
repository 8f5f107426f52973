"""What every test stands on: no network beyond this machine, and where things are."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from server.telemetry import logs
from tests.fakes.left import nothing_left
from tests.fakes.network import guard_network
from tests.fakes.upstream import ScriptedUpstream
from tests.replay.folders import folders

REPO_ROOT = Path(__file__).resolve().parent.parent
# The same cases in every run, so that a red run is the change's doing. New ones are looked for with
# HYPOTHESIS_PROFILE=default.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


@pytest.fixture(scope="session", autouse=True)
def network_guard() -> Iterator[None]:
    """Refuses every address beyond loopback and Unix sockets, and names the one that was tried."""
    with guard_network():
        yield


@pytest.fixture(scope="session", autouse=True)
def tidy_run() -> Iterator[None]:
    """At the end of a run nothing of it is left on the machine."""
    with nothing_left(shared=IN_CI):
        yield


@pytest.fixture(autouse=True)
def log_settings() -> Iterator[None]:
    """What a server in a test sets for the whole process, such as the level of its log, is not for
    the tests behind it."""
    settings = logs.settings
    before = settings.level, settings.access, settings.json
    yield
    settings.level, settings.access, settings.json = before


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A model server that does what the test tells it."""
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def second() -> AsyncIterator[ScriptedUpstream]:
    """Another one."""
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def third() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root folder."""
    return REPO_ROOT


@pytest.fixture(scope="session", params=list(folders().values()), ids=list(folders()))
def recordings_dir(request: pytest.FixtureRequest) -> Path:
    """Recorded answers of providers, as JSON lines: the project's own part, then all of them where
    they are at hand."""
    folder: Path = request.param
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that this machine cannot run say what would let them. CI runs them all."""
    if IN_CI:
        return
    reasons = {"engine": _no_engine(), "node": _no_node()}
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_engine() -> str:
    python = REPO_ROOT / ".venv-engine" / "bin" / "python"
    return "" if python.exists() else "no .venv-engine: python3 scripts/setup.py engine makes it"


def _no_node() -> str:
    if shutil.which("node") is None:
        return "node not found: install Node 20 or newer, then python3 scripts/setup.py node"
    if not (REPO_ROOT / "tests" / "node" / "node_modules" / "openai").is_dir():
        return "the Node SDK is not installed: python3 scripts/setup.py node"
    return ""
