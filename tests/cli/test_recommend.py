"""`roundhouse models recommend`, over the catalog that Roundhouse comes with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from server.cli.recommend import recommend
from server.config.providers_table import ROWS
from server.engines import devices
from server.registry import ALL_MODELS, LicenceKind
from server.registry.recommend import TASKS, blended


def run(*arguments: str) -> Result:
    return CliRunner().invoke(recommend, list(arguments))


def models(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["models"]
    assert found
    return list(found)


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in ROWS.values():
        for name in row.variables:
            monkeypatch.delenv(name, raising=False)


def test_the_first_five_with_reasons() -> None:
    result = run("coding")
    assert result.exit_code == 0
    assert result.stdout.startswith("For coding, the first 5 of ")
    assert result.stdout.count("\n    + ") == 5
    assert " 5. " in result.stdout
    assert "Left out " in result.stdout
    assert result.stderr == ""


def test_json_says_the_same() -> None:
    found = json.loads(run("coding", "--limit", "2", "--json").stdout)
    assert found["task"] == "coding"
    assert found["candidates"] > found["left_out"] > 0
    assert found["rejected"]["retired"] > 0
    assert len(found["models"]) == 2
    assert found["models"][0]["because"]
    assert found["models"][0]["score"] >= found["models"][1]["score"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("32000", 32_000), ("200k", 200_000), ("1M", 1_000_000), ("0.5m", 500_000), ("1_000", 1000)],
)
def test_context(text: str, tokens: int) -> None:
    for one in models("chat", "--context", text, "--limit", "500"):
        window = ALL_MODELS[one["model_id"]].specs.context_window
        assert window is not None
        assert window >= tokens


def test_money_licence_and_abilities() -> None:
    found = models(
        "chat", "--max-price", "1.5", "--license", "open-source", "--needs", "tools, json_schema",
        "--inputs", "image", "--limit", "500",
    )  # fmt: skip
    for one in found:
        card = ALL_MODELS[one["model_id"]]
        price = blended(card)
        assert price is not None
        assert price <= 1.5
        assert card.licence.kind is LicenceKind.OPEN_SOURCE
        assert card.abilities.tools
        assert card.abilities.json_schema
        assert "image" in (card.specs.input_modalities or ())


def test_languages_offline() -> None:
    for one in models("chat", "--languages", "de,ja", "--offline"):
        card = ALL_MODELS[one["model_id"]]
        assert card.local
        assert {"de", "ja"} <= set(card.specs.languages or ())


def test_memory_says_how_it_fits() -> None:
    for one in models("chat", "--memory", "24GiB"):
        assert any(reason.startswith("fits: ") for reason in one["because"])


def test_this_machine_is_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(devices, "memory", lambda: devices.RUNTIME_MEMORY + 6 * 2**30)
    result = run("chat", "--this-machine")
    assert result.exit_code == 0
    assert " of 6 GiB as " in result.stdout
    assert "Here is no GPU" in result.stderr


def test_a_gpus_memory_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 1)
    result = run("chat", "--this-machine")
    assert result.exit_code == 2
    assert "--memory 24GiB" in result.stderr


def test_keys_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, no_keys: None) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-test")
    assert {one["provider"] for one in models("chat", "--keys")} == {"deepseek"}


def test_no_key_at_all(no_keys: None) -> None:
    result = run("chat", "--keys")
    assert result.exit_code == 2
    assert "No provider's key is set" in result.stderr
    assert "OPENAI_API_KEY" in result.stderr


def test_nothing_fits() -> None:
    result = run("chat", "--context", "900m")
    assert result.exit_code == 1
    assert result.stdout.startswith("Left out ")
    assert "ask for a smaller window" in result.stderr
    assert json.loads(run("chat", "--context", "900m", "--json").stdout)["models"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["codding"], "Did you mean coding?"),
        (["chat", "--context", "much"], "write 32000, 200k or 1m"),
        (["chat", "--context", "0"], "write 32000, 200k or 1m"),
        (["chat", "--context", "-5"], "write 32000, 200k or 1m"),
        (["chat", "--context", "0.0001"], "write 32000, 200k or 1m"),
        (["chat", "--memory", "lots"], "is no size"),
        (["chat", "--memory", "24"], "'24' is 24 bytes. Write the unit: 24GiB."),
        (["chat", "--memory", "0"], "Write the unit"),
        (["chat", "--max-price", "nan"], "is no number to reckon with"),
        (["chat", "--max-price", "inf"], "is no number to reckon with"),
        (["chat", "--licence", "free"], "'free' is not one of"),
        (["chat", "--inputs", "picture"], "nothing that models take: text, image, audio"),
        (["chat", "--languages", "german"], "no ISO 639 code: write de, ja or zh"),
        (["chat", "--needs", "magic"], "'magic' is no ability"),
        (["chat", "--memory", "8GiB", "--this-machine"], "not both"),
        (["chat", "--keys", "--offline"], "need no key"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_words_in_any_case() -> None:
    assert models("chat", "--licence", "Open-Source", "--inputs", "Image", "--languages", "DE")


@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
def test_a_dumb_terminal_gets_no_escapes(terminal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", terminal)
    shown = CliRunner().invoke(recommend, ["chat"], color=True).output
    assert ("\x1b" in shown) is (terminal != "dumb")


@pytest.mark.parametrize("columns", [40, 80])
def test_it_keeps_to_the_width_of_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line for line in run("coding").output.splitlines() if line.startswith("    ")]
    assert max(map(len, lines)) <= columns


def test_the_help_names_every_task() -> None:
    text = " ".join(run("--help").output.split())
    assert all(f"{task}," in text or f"{task};" in text for task in TASKS)
