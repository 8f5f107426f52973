"""Text that can be no path is told as all faults are, and looked for by nobody."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config import load, paths
from server.config.places import Places
from server.errors import ConfigError

Faults = Callable[..., list[str]]
Good = Callable[..., load.Loaded]

BAD = {
    "a\\0b": "holds a NUL sign, which no path can.",
    "a\\ud800b": "holds half of a sign, which no path can.",
    "~nobody-here/x": "~nobody-here/x cannot be read: whose home folder is that?",
}
KEYS = {
    "server.keys_file": "server: {keys_file: %s}",
    "server.home": "server: {home: %s}",
    "weights.folder": "weights: {folder: %s}",
    "runtimes.r.python": "runtimes: {r: {python: %s}}",
    "providers.lab.ca": (
        "providers: {lab: {dialect: openai, base_url: 'https://a.example/v1', ca: %s}}"
    ),
    "engines.e.weights": "engines: {e: {weights: %s}}",
    "cards[0]": "cards: [%s]",
}


def test_all_of_the_keys_are_tried() -> None:
    tried = {re.sub(r"\[0\]|\.(r|lab|e)\b", ".*", key) for key in KEYS}
    assert tried == {".".join(map(str, key)) for key in paths.KEYS}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", BAD)
def test_what_can_be_no_path(key: str, text: str, faults: Faults) -> None:
    section = KEYS[key] % f'"{text}"'
    (found,) = faults(f"version: 1\n{section}")
    assert found.startswith(f"roundhouse.yaml:2: {key}: {BAD[text]}")


def test_it_is_told_with_all_else(faults: Faults) -> None:
    found = faults(
        'version: 1\nserver:\n  keys_file: "~nobody-here/x"\n  port: x\n'
        'cards:\n  - "a\\0b"\n  - "c\\0d"\n'
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["roundhouse.yaml:3", "server.keys_file"],
        ["roundhouse.yaml:4", "server.port"],
        ["roundhouse.yaml:6", "cards[0]"],
        ["roundhouse.yaml:7", "cards[1]"],
    ]


@pytest.mark.parametrize("name", ["ROUNDHOUSE_HOME", "ROUNDHOUSE_KEYS_FILE"])
def test_a_variable_is_named(name: str, faults: Faults) -> None:
    for text in ("~nobody-here/x", "a\0b"):
        (found,) = faults("version: 1", {name: text})
        assert found.startswith(f"{name}: server.")


def test_the_configs_own_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ROUNDHOUSE_CONFIG: ~nobody-here/x cannot be read"):
        load.find({"ROUNDHOUSE_CONFIG": "~nobody-here/x"}, tmp_path)
    with pytest.raises(ConfigError, match="This is no file's name"):
        load.load("a\0b.yaml", environ={})


def test_weights_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whose home folder is that"):
        load.from_models(["~nobody-here/x"], environ={}, cwd=tmp_path)


def test_a_home_that_cannot_be_looked_into(faults: Faults) -> None:
    (found,) = faults(f"version: 1\nserver: {{home: {'x' * 300}}}")
    assert found == "server.home: Cannot be read: File name too long."


def test_what_is_no_text_or_no_section_is_left_to_the_schema() -> None:
    tree = {"server": 5, "runtimes": {"r": None}, "cards": {"a": 1}, "engines": {"e": {}}}
    assert paths.take_out(tree, Places("x")) == []
    assert tree == {"server": 5, "runtimes": {"r": None}, "cards": {"a": 1}, "engines": {"e": {}}}
