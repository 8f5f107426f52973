from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from server.engines import runtimes, weights
from server.errors import EngineError

Run = Callable[..., Result]
CONFIG = """\
version: 1
server: {keys: [{name: a, key: k, models: [nobody]}], admin: null}
providers: {lab: {dialect: openai, base_url: "http://127.0.0.1:9/v1"}}
engines:
  e: {weights: w, args: {load-format: dummy}}
  far: {runtime: external, urls: ["http://127.0.0.1:10"]}
models: {m: {targets: [{engine: e}]}}
"""


def test_a_good_config(run: Run, nowhere: Path) -> None:
    (nowhere / "roundhouse.yaml").write_text(CONFIG)
    result = run("check")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
Read        roundhouse.yaml
API         127.0.0.1:8000
Admin API   off
Keys        a
Providers   lab
Engines     e, far

MODEL  SERVED BY
m      engine e
far    engine far

Note: roundhouse.yaml:2: key `a`: there is no model `nobody`.
The config is good.
"""
    )


def test_a_bad_one(run: Run, nowhere: Path) -> None:
    (nowhere / "c.yaml").write_text("version: 1\nserver: {port: x}\n")
    result = run("check", "c.yaml")
    assert result.exit_code == 2
    assert result.stderr == "Error: c.yaml:2: server.port: should be a valid integer.\n"


def test_the_built_in_one(run: Run) -> None:
    result = run("check")
    assert "Read        the built-in config" in result.stdout
    assert "none: everybody on this machine may ask" in result.stdout


def test_nothing_at_all_is_told_before_it_is_served(
    run: Run, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "Note: There is no vLLM here for the embedded model, and no provider's key"
    python = nowhere / "python"
    monkeypatch.setattr(runtimes, "candidates", lambda runtime, *, base: [python])
    result = run("check")
    assert result.exit_code == 0
    assert note in result.stdout
    assert "set a key such as OPENAI_API_KEY in the environment or in .env.\n" in result.stdout
    python.touch()
    assert note not in run("check").stdout
    python.unlink()
    (nowhere / "roundhouse.yaml").write_text("version: 1\nengines: {here: {weights: w}}")
    assert note not in run("check").stdout


def test_keys_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    monkeypatch.setattr(runtimes, "candidates", lambda runtime, *, base: [])
    result = run("check")
    assert result.exit_code == 0
    assert "Read        the environment, DEEPSEEK_API_KEY\n" in result.stdout
    assert (
        "Providers   deepseek\nEngines     none\n\nPROVIDER  KEY FROM          MODELS  SUCH AS\n"
    ) in result.stdout
    assert "(`DEEPSEEK_API_KEY= roundhouse serve`)" in result.stdout
    assert "No models" not in result.stdout
    assert result.stdout.endswith("\n\nThe config is good.\n")


def test_engines_are_looked_for(run: Run, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "roundhouse.yaml").write_text(CONFIG)
    asked = []

    def resolve(name: str, *, base: Path, dummy: bool, allow_pickle: bool) -> SimpleNamespace:
        asked.append((name, base, dummy))
        return SimpleNamespace(argument="/weights", folder=Path("/weights"))

    def no_python(name: str, runtime: object, *, base: Path) -> SimpleNamespace:
        raise EngineError("No Python with vLLM.", reason="environment")

    monkeypatch.setattr(weights, "resolve", resolve)
    monkeypatch.setattr(runtimes, "find_python", lambda *a, **k: SimpleNamespace(path="/python"))
    result = run("check", "--engines")
    assert "Runtime vllm: /python\nEngine e: /weights\nThe config is good.\n" in result.stdout
    assert asked == [("w", nowhere, True)]
    monkeypatch.setattr(runtimes, "find_python", no_python)
    result = run("check", "--engines")
    assert (result.exit_code, result.stderr) == (4, "Error: No Python with vLLM.\n")


def test_the_program_of_a_command_is_looked_for(run: Run, nowhere: Path) -> None:
    file = nowhere / "roundhouse.yaml"
    file.write_text(
        "version: 1\nengines: {own: {runtime: command, cmd: './serve --port ${PORT}'}}\n"
    )
    result = run("check", "--engines")
    assert result.exit_code == 4
    assert "There is no program './serve'" in result.stderr
    (nowhere / "serve").write_text("#!/bin/sh\n")
    (nowhere / "serve").chmod(0o755)
    result = run("check", "--engines")
    assert result.exit_code == 0
    assert "\nEngine own: ./serve\nThe config is good.\n" in result.stdout
