from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from server.cli.options import SETTINGS
from server.cli.serve import Greeter, serve
from server.config import load
from server.config.load import Loaded
from server.config.resolve import resolve_models
from server.config.variables import BY_PATH
from server.engines.state import EngineState, EngineView
from server.errors import BindError

Run = Callable[..., Result]


class House:
    """Stands in for `server.serving`."""

    def __init__(self) -> None:
        self.loaded: Loaded | None = None
        self.error: Exception | None = None
        self.states = [EngineState.STARTING, EngineState.READY]

    def serve(self, loaded: Loaded, greet: Callable[[Any], None]) -> int:
        self.loaded = loaded
        if self.error is not None:
            raise self.error
        for state in self.states:
            greet(self.server(loaded, state))
        return 0

    @staticmethod
    def server(loaded: Loaded, state: EngineState) -> Any:
        views = tuple(EngineView(name, state) for name in loaded.config.engines)
        return SimpleNamespace(
            url="http://127.0.0.1:8000",
            admin_url="http://127.0.0.1:8001",
            supervisor=SimpleNamespace(views=lambda: views),
            fleet=SimpleNamespace(views=lambda: ()),
            services=SimpleNamespace(
                state=SimpleNamespace(config=loaded.config, models=resolve_models(loaded.config))
            ),
        )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    found = House()
    module = ModuleType("server.serving")
    module.serve = found.serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server.serving", module)
    return found


def test_nothing_is_the_embedded_model(run: Run, house: House) -> None:
    result = run("serve")
    assert result.exit_code == 0
    assert "guide  engine guide  loading" in result.stdout
    assert "curl http://127.0.0.1:8000/v1/chat/completions" in result.stdout
    assert result.stdout.endswith("guide is ready.\n")


def test_a_config_in_the_folder_or_the_environment(
    run: Run, house: House, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nowhere / "roundhouse.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    assert "serves roundhouse.yaml\n" in run("serve").stdout
    (nowhere / "other.yaml").write_text("version: 1\nengines: {other: {weights: w}}")
    monkeypatch.setenv("ROUNDHOUSE_CONFIG", "other.yaml")
    assert "serves other.yaml\n" in run("serve").stdout


def test_models_and_flags(run: Run, house: House) -> None:
    arguments = "serve a/b embedded:guide --port 9 --admin off --no-docs --log-level debug".split()
    assert run(*arguments).exit_code == 0
    assert house.loaded is not None
    config = house.loaded.config
    assert list(config.models) == ["a/b", "guide"]
    assert (config.server.port, config.server.admin, config.server.docs) == (9, None, False)
    assert config.log.level == "debug"


def test_every_flag_is_a_setting_with_its_twin(run: Run) -> None:
    flags = {option.name for option in serve.params if option.param_type_name == "option"}
    assert flags == set(SETTINGS)
    for setting in SETTINGS.values():
        twin = BY_PATH[tuple(setting.split("."))]
        names = [o.opts + o.secondary_opts for o in serve.params]
        assert twin.flag is not None
        assert set(twin.flag.split("/")) <= {name for group in names for name in group}
        assert f"[{twin.name}]" in " ".join(run("serve", "--help").stdout.split())


def test_what_does_not_go_together(run: Run, house: House) -> None:
    result = run("serve", "a.yaml", "b/c")
    assert result.exit_code == 2
    assert "Give one config file, or models" in result.stderr
    assert run("serve", "a.yaml", "b.yaml").exit_code == 2


def test_faults_before_and_after_the_start(run: Run, house: House, nowhere: Path) -> None:
    result = run("serve", "nope.yaml")
    assert (result.exit_code, house.loaded) == (2, None)
    (nowhere / "c").write_text("version: 1\nx: 1\ny: 2")
    result = run("serve", "c")
    assert result.stderr.startswith("Error: 2 things to mend:\n  c:2: x: is not a known key.")
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--host: server.host: 0.0.0.0 can be reached" in result.stderr
    house.error = BindError("The port is taken.")
    result = run("serve")
    assert (result.exit_code, result.stderr) == (3, "Error: The port is taken.\n")


def test_advice_is_given(run: Run, house: House, nowhere: Path) -> None:
    (nowhere / "roundhouse.yaml").write_text("version: 1")
    result = run("serve")
    assert result.stderr == (
        "Note: No engine, provider or model is configured: every request will be refused.\n"
    )


def test_the_greeter_asks_for_a_key_where_one_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load.load_quickstart(environ={"ROUNDHOUSE_API_KEY": "k" * 20})
    Greeter("")(House.server(loaded, EngineState.READY))
    out = capsys.readouterr().out
    assert "$ROUNDHOUSE_API_KEY" in out
    assert "k" * 20 not in out
