"""`roundhouse models list`, `search`, `show` and `export`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from server.cli import models
from server.cli.models import shelf
from server.registry import ALL_MODELS, Catalog, Source
from server.registry.overlay import Accepted, Overlay
from tests.registry.cards import SOURCES, catalog_of

Run = Callable[..., Result]

CATALOG = Catalog(
    [
        *catalog_of(
            {
                "model_id": "small",
                "aliases": ["small-latest"],
                "cost": {"cached_input": None, "other": {"image": 0.01}},
                "limitations": ["Short.", "Slow."],
            },
            {
                "model_id": "old",
                "status": "retired",
                "retires": "2026-01-31",
                "replaced_by": "older",
                "cost": {"input": None, "output": None},
                "exceptions": {"cost": "It is sold no more."},
            },
            {
                "model_id": "older",
                "status": "deprecated",
                "retires": "2027-02-01",
                "replaced_by": "small",
            },
            {"model_id": "vectors", "type": "embedding", "cost": {"free_tier": True}},
        ).values(),
        *catalog_of(
            {"model_id": "org/weights-8B", "access_method": "local", "cost": {}, "name": "Weights"},
            provider="huggingface",
        ).values(),
    ]
)
LIST = Source("lab: its own list of models", "https://api.example.com/v1/models", "2026-11-21")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small catalog, and a home of its own; the home."""
    monkeypatch.setattr(shelf, "builtin", lambda: CATALOG)
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def overlay(home: Path, *cards: dict[str, Any], accepted: tuple[Accepted, ...] = ()) -> None:
    whole = [{"name": "N", "type": "chat", "description": "Listed.", **card} for card in cards]
    (home / "catalog").mkdir(parents=True)
    text = Overlay("lab", LIST, whole, accepted).text()
    (home / "catalog" / "lab.json").write_text(text, encoding="utf-8")


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


# --- list -------------------------------------------------------------------------------------


def test_list(run: Run) -> None:
    result = run("models", "list")
    assert result.stdout == (
        "MODEL           PROVIDER     TYPE       CONTEXT  $IN   $OUT  LICENCE      STATUS\n"
        "small           lab          chat       128k     0.15  0.6   proprietary  current\n"
        "older           lab          chat       128k     0.15  0.6   proprietary  deprecated\n"
        "vectors         lab          embedding  128k     0.15  0.6   proprietary  current\n"
        "org/weights-8B  huggingface  chat       128k     0.15  0.6   proprietary  current\n"
    )
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--provider", "HuggingFace"], ["org/weights-8B"]),
        (["--type", "embedding"], ["vectors"]),
        (["--local"], ["org/weights-8B"]),
        (["--free"], ["vectors", "org/weights-8B"]),
        (["--status", "retired"], ["old"]),
        (["--status", "deprecated"], ["older"]),
        (["--status", "current", "--provider", "lab"], ["small", "vectors"]),
        (["--status", "all", "--type", "chat", "--provider", "lab"], ["small", "old", "older"]),
    ],
)
def test_list_what_is_asked_for(options: list[str], expected: list[str], run: Run) -> None:
    assert ids(run("models", "list", *options)) == expected
    listed = json.loads(run("models", "list", *options, "--json").stdout)
    assert [card["model_id"] for card in listed] == expected


def test_list_without_any(run: Run) -> None:
    result = run("models", "list", "--type", "rerank")
    assert result.stdout == "No model of the registry is like that.\n"
    assert json.loads(run("models", "list", "--type", "rerank", "--json").stdout) == []


def test_list_of_a_provider_that_is_none(run: Run) -> None:
    result = run("models", "list", "--provider", "lap")
    assert result.exit_code == 2
    assert "no provider 'lap'. It has huggingface, lab." in result.stderr


# --- search -----------------------------------------------------------------------------------


def test_search(run: Run) -> None:
    assert ids(run("models", "search", "weights", "8b")) == ["org/weights-8B"]
    assert ids(run("models", "search", "lab"))[0] == "small"
    assert len(ids(run("models", "search", "lab", "--limit", "2"))) == 2
    found = json.loads(run("models", "search", "small", "--json").stdout)
    assert found[0]["model_id"] == "small"


def test_search_that_finds_nothing(run: Run) -> None:
    result = run("models", "search", "no", "such")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing for 'no such'. Try fewer words, or `roundhouse models list`" in result.stderr
    result = run("models", "search", "zzz", "--json")
    assert (result.exit_code, result.stdout) == (1, "[]\n")


# --- show -------------------------------------------------------------------------------------


def test_show(run: Run) -> None:
    said = run("models", "show", "SMALL-latest").stdout
    assert said.startswith("small: Small\nTalks.\n\nModel\n")
    for line in (
        "  context window      128,000\n",
        "  input               0.15\n",
        "  other prices        image 0.01\n",
        "  limitations         Short., Slow.\n",
        "  JSON schema         yes\n",
        "  vision              no\n",
        "  open source         no\n",
    ):
        assert line in said
    assert "[" not in said
    assert "None" not in said


def test_every_fact_has_its_source(run: Run) -> None:
    said = run("models", "show", "small", "--sources").stdout
    assert "  context window      128,000  [1]\n" in said
    assert "  input               0.15  [2]\n" in said
    assert said.endswith(
        "\nSources\n"
        "  [1] The docs, https://example.com/docs, read 2026-11-01\n"
        "  [2] The prices, https://example.com/prices, read 2026-11-02\n"
    )


def test_show_as_json(run: Run) -> None:
    card = json.loads(run("models", "show", "small", "--json").stdout)
    assert card["specs"]["context_window"] == 128000
    assert card["sources"]["cost"] == [SOURCES["prices"]]
    assert "overlay" not in card
    assert "differences" not in card


def test_a_model_that_is_none(run: Run) -> None:
    result = run("models", "show", "smal")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: The registry has no model 'smal'. Did you mean small")
    assert "`roundhouse models search WORD…` finds models by words." in result.stderr


def test_nothing_that_a_card_says_draws_on_the_terminal(run: Run, small: Path) -> None:
    wild = "\x1b[31mRed\x1b]0;title\x07\nline \u202e"
    card = {"model_id": "wild", "name": wild, "type": "chat", "description": wild}
    overlay(small, {**card, "limitations": [wild], "aliases": [wild]})
    for command in ("show wild", "list --provider lab", "search wild", "export --format md"):
        shown = run("models", *command.split()).output
        assert "wild" in shown
        assert all(sign.isprintable() or sign == "\n" for sign in shown)
    broken = {"provider": "lab", "models": [{"model_id": wild}]}
    (small / "catalog" / "lab.json").write_text(json.dumps(broken))
    complained = run("models", "list").stderr
    assert "is left out" in complained
    assert "\x1b" not in complained


def test_a_retired_model_names_its_successor(run: Run) -> None:
    said = run("models", "show", "old").stdout
    assert "\nRetired since 2026-01-31. Its provider advises small instead.\n" in said
    assert "\nNot known\n  cost                It is sold no more.\n" in said
    assert "  ended               2026-01-31\n" in said
    said = run("models", "show", "older").stdout
    assert "  ends                2027-02-01\n" in said
    assert "\nDeprecated: it ends on 2027-02-01. Its provider advises small instead.\n" in said
    assert "etired" not in run("models", "show", "small").stdout


# --- export -----------------------------------------------------------------------------------


def test_export(run: Run, tmp_path: Path) -> None:
    whole = json.loads(run("models", "export").stdout)
    assert whole["schema"] == 1
    assert list(whole["models"]) == list(CATALOG)
    assert yaml.safe_load(run("models", "export", "--format", "yaml").stdout) == whole
    assert "\n## huggingface\n" in run("models", "export", "--format", "md").stdout
    out = tmp_path / "models_registry.json"
    result = run("models", "export", "--out", str(out))
    assert (result.stdout, result.stderr) == ("", f"Wrote 5 models to {out}.\n")
    assert json.loads(out.read_text("utf-8")) == whole


def test_export_of_one_provider(run: Run) -> None:
    some = json.loads(run("models", "export", "--provider", "huggingface").stdout)
    assert list(some["models"]) == ["org/weights-8B"]
    assert run("models", "export", "--provider", "x").exit_code == 2


def test_export_to_where_nothing_can_be_written(run: Run, tmp_path: Path) -> None:
    result = run("models", "export", "--out", str(tmp_path / "no" / "file"))
    assert result.exit_code == 1
    assert "cannot be written (No such file or directory)." in result.stderr


# --- overlays ---------------------------------------------------------------------------------


def test_export_to_no_file(run: Run) -> None:
    result = run("models", "export", "--out", "")
    assert result.exit_code == 2
    assert "say a file, or - for the standard output" in result.stderr


def test_words_of_options_in_any_case(run: Run) -> None:
    assert ids(run("models", "list", "--type", "Embedding", "--status", "Current")) == ["vectors"]
    assert run("models", "export", "--format", "JSON").exit_code == 0


def test_the_overlay_is_read_and_marked(run: Run, small: Path) -> None:
    overlay(
        small,
        {"model_id": "new", "specs": {"context_window": 64000}},
        {"model_id": "old", "cost": {"input": 7}},
    )
    result = run("models", "list", "--status", "all", "--provider", "lab")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["old", "lab", "chat", "128k", "7*", "-", "proprietary", "retired"] in rows
    assert "new*" in result.stdout
    assert result.stderr == "* from the overlay of `roundhouse models sync`\n"
    assert run("models", "search", "new").exit_code == 0
    assert "input               7 *\n" in run("models", "show", "old").stdout
    said = run("models", "show", "old", "--sources").stdout
    assert "input               7 *  [2]\n" in said
    assert "[2] lab: its own list of models, https://api.example.com/v1/models" in said
    whole = json.loads(run("models", "export").stdout)["models"]
    assert whole["old"]["overlay"] == ["cost.input"]
    assert "type" in whole["new"]["overlay"]
    for command in (["list"], ["search", "new"], ["show", "new"], ["export"]):
        assert "new" not in run("models", *command, "--no-overlay").stdout


def test_show_says_what_differs(run: Run, small: Path) -> None:
    agreed = Accepted("small", "cost.output", 0.6, 0.7)
    card = {"model_id": "small", "cost": {"input": 0.2, "output": 0.7}}
    overlay(small, card, accepted=(agreed,))
    said = run("models", "show", "small").stdout
    assert "  input               0.15\n" in said
    assert "  output              0.7 *\n" in said
    where = "(https://api.example.com/v1/models, 2026-11-21)"
    assert f"checked: 0.15; listed: 0.2; the checked one counts {where}\n" in said
    assert f"checked: 0.6; listed: 0.7; accepted, so the list's counts {where}\n" in said
    told = json.loads(run("models", "show", "small", "--json").stdout)
    assert [(one["fact"], one["accepted"]) for one in told["differences"]] == [
        ("cost.input", False),
        ("cost.output", True),
    ]


def test_a_broken_overlay_is_left_out(run: Run, small: Path) -> None:
    overlay(small)
    (small / "catalog" / "lab.json").write_text("{", encoding="utf-8")
    result = run("models", "list")
    assert "small" in ids(result)
    assert "lab.json is left out: lab.json: no JSON." in result.stderr
    assert "`roundhouse models sync lab` writes it anew." in result.stderr


def test_the_home_is_the_configs(run: Run, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROUNDHOUSE_HOME")
    overlay(nowhere / "kept", {"model_id": "new"})
    text = "version: 1\nserver: {home: kept}\nengines: {a: {weights: w}}\n"
    (nowhere / "my.yaml").write_text(text, encoding="utf-8")
    assert "new*" in run("models", "list", "--config", "my.yaml").stdout
    (nowhere / "my.yaml").rename(nowhere / "roundhouse.yaml")
    assert "new*" in run("models", "list").stdout
    (nowhere / "roundhouse.yaml").write_text(f"{text}providers: {{openai: {{}}}}\n")
    result = run("models", "list")  # that a key is missing is no fault here
    assert "new*" in result.stdout
    monkeypatch.setenv("HOME", str(nowhere))
    (nowhere / "roundhouse.yaml").write_text("version: 7\n", encoding="utf-8")
    result = run("models", "list")
    assert "new*" not in result.stdout
    assert "The config here has faults, so overlays are read from the default home" in result.stderr
    assert run("models", "list", "--config", "roundhouse.yaml").exit_code == 2


CARDS = """
provider: our
sources: {us: {title: Notes, url: "https://wiki.example.com", date: "2026-11-21"}}
models:
  - {model_id: our-7b, name: Ours, type: chat, access_method: api, description: Ours.}
  - {model_id: small, name: Mine, type: chat, access_method: api, description: Mine instead.}
"""


def test_the_configs_own_cards_are_there(run: Run, nowhere: Path, small: Path) -> None:
    overlay(small, {"model_id": "new"})
    Path("our.yaml").write_text(CARDS, encoding="utf-8")
    text = "version: 1\ncards: [our.yaml]\nengines: {a: {weights: w}}\n"
    Path("roundhouse.yaml").write_text(text, encoding="utf-8")
    listed = run("models", "list").stdout
    assert {"our-7b", "small", "new*"} <= set(listed.split())  # no overlay brought the first two
    assert ids(run("models", "list", "--provider", "our")) == ["our-7b", "small"]
    assert "Mine instead." in run("models", "show", "our/small").stdout
    assert "our-7b" not in run("models", "list", "--no-overlay").stdout
    Path("our.yaml").write_text("models: 7\n", encoding="utf-8")
    result = run("models", "list")
    assert "our-7b" not in result.stdout
    assert "new*" in result.stdout  # ROUNDHOUSE_HOME has it
    assert "The config here has faults, so overlays are read from " in result.stderr


# --- the group --------------------------------------------------------------------------------


def test_help_names_every_command(run: Run) -> None:
    said = run("models", "--help").stdout
    for name in ("list", "search", "show", "export", "sync"):
        assert f"\n  {name} " in said
        own = run("models", name, "--help").stdout
        assert f"Usage: roundhouse models {name}" in own
        assert "Examples:\n    roundhouse models" in own


def test_a_command_whose_module_is_not_there_is_hidden(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {**models.COMMANDS, "later": ("server.cli.no_such_module", "later", "Not yet.")}
    monkeypatch.setattr(models, "COMMANDS", table)
    assert "later" not in run("models", "--help").stdout
    assert run("models", "later").exit_code == 2


def test_a_command_that_is_none(run: Run) -> None:
    result = run("models", "serch", "x")
    assert result.exit_code == 2
    assert "no command `models serch`. Did you mean `search`?" in result.stderr
    assert "Did you mean `show gpt-4o-mini`?" in run("models", "gpt-4o-mini").stderr


def test_options_of_the_server_before_a_command_are_no_options_of_it(run: Run) -> None:
    result = run("models", "--json", "list")
    assert result.exit_code == 2
    assert "--json before `list` asks a running server." in result.stderr


def test_in_a_process_of_its_own(tmp_path: Path, repo_root: Path) -> None:
    environ = {**os.environ, "ROUNDHOUSE_HOME": str(tmp_path), "PYTHONPATH": str(repo_root)}
    code = "from server.cli import main; main()"
    command = [sys.executable, "-c", code, "models", "list", "--status", "all"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(ALL_MODELS) + 1
