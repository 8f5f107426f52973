from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.config import explain
from server.config.load import Loaded, load
from server.config.places import Places
from server.config.variables import BY_PATH, TWINS, Expander
from server.errors import ConfigError

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]

VARIABLES = {"A": "1", "B": "two", "EMPTY": "", "SLY": "${A}"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}-${B}y", "x1-twoy"),
        ("${NOPE:-d}", "d"),
        ("${NOPE:-}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${A:-d}", "1"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("$$", "$$"),
        ("${SLY}", "${A}"),
        ("${NOPE:-http://x:1/v1}", "http://x:1/v1"),
        ({"k": ["${A}", 5, None]}, {"k": ["1", 5, None]}),
    ],
)
def test_expansion(text: Any, value: Any) -> None:
    expander = Expander(VARIABLES, Places("f"))
    assert expander.expand(text) == value
    assert expander.problems == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NOPE}", "${NOPE} is not set. Set NOPE in the environment or in .env"),
        ("${1A}", "`${` does not begin a variable"),
        ("${}", "`${` does not begin a variable"),
        ("${A", "`${` does not begin a variable"),
        ("${NOPE:-${A}}", "`${` does not begin a variable"),
    ],
)
def test_what_does_not_expand(text: str, said: str) -> None:
    expander = Expander(VARIABLES, Places("f"))
    expander.expand(text)
    (problem,) = expander.problems
    assert said in str(problem)


def test_values_become_what_the_key_wants(good: Good) -> None:
    loaded = good(
        'version: 1\nserver: {port: "${PORT}", docs: "${DOCS}", limits: {body: "${SIZE}"}}',
        {"PORT": "9000", "DOCS": "no", "SIZE": "2MiB"},
    )
    server = loaded.config.server
    assert (server.port, server.docs, server.limits.body) == (9000, False, 2 * 2**20)


def test_a_variable_never_changes_the_structure(good: Good) -> None:
    loaded = good('version: 1\nserver: {home: "${X}"}', {"X": "a, port: 1}\nversion: 2 # "})
    assert loaded.config.server.home == "a, port: 1}\nversion: 2 # "
    assert loaded.config.server.port == 8000


def test_dot_env_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# c\nexport A=1\nB='two words'\nC=${B}\nD\n")
    (tmp_path / "c.yaml").write_text(
        'version: 1\nengines: {e: {weights: w, args: {a: "${A}", b: "${B}", c: "${C}"}}}'
    )
    loaded = load(tmp_path / "c.yaml", environ={"A": "real"})
    assert loaded.config.engines["e"].args == {"a": "real", "b": "two words", "c": "${B}"}
    assert str(tmp_path / ".env") in loaded.sources


def test_dot_env_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("version: 1")
    (tmp_path / ".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "c.yaml", environ={})
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigError, match="Cannot be read"):
        load(tmp_path / "c.yaml", environ={})


# --- twins


def test_flags_win_over_the_environment_over_dot_env_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("version: 1\nserver: {port: 1}")
    assert load(file, environ={}).config.server.port == 1
    (tmp_path / ".env").write_text("ROUNDHOUSE_PORT=2")
    assert load(file, environ={}).config.server.port == 2
    environ = {"ROUNDHOUSE_PORT": "3"}
    assert load(file, environ=environ).config.server.port == 3
    loaded = load(file, environ=environ, overrides={"server.port": 4})
    assert loaded.config.server.port == 4
    assert loaded.sources == (str(file), str(tmp_path / ".env"), "--port")


def test_errors_name_the_variable_or_the_flag(faults: Faults) -> None:
    assert faults("version: 1", {"ROUNDHOUSE_PORT": "x"}) == [
        "ROUNDHOUSE_PORT: server.port: should be a valid integer."
    ]
    assert faults("version: 1", log__level="loud") == [
        "--log-level: log.level: must be 'debug', 'info', 'warning' or 'error'."
    ]


def test_a_kubernetes_service_link_is_no_port(good: Good) -> None:
    loaded = good("version: 1", {"ROUNDHOUSE_PORT": "tcp://10.0.0.7:8000"})
    assert loaded.config.server.port == 8000


def test_admin_can_be_switched_off_and_empty_is_not_set(good: Good) -> None:
    assert good("version: 1", {"ROUNDHOUSE_ADMIN": "off"}).config.server.admin is None
    assert good("version: 1", {"ROUNDHOUSE_HOST": ""}).config.server.host == "127.0.0.1"


def test_a_flag_makes_an_unset_variable_of_the_file_unimportant(good: Good) -> None:
    assert good('version: 1\nserver: {port: "${NOPE}"}', server__port=5).config.server.port == 5


def test_paths_from_flags_start_in_the_working_directory(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "c.yaml").write_text("version: 1\nserver: {home: data}")
    assert load(conf / "c.yaml", environ={}).home == conf / "data"
    loaded = load(conf / "c.yaml", environ={"ROUNDHOUSE_HOME": "data"}, cwd=tmp_path)
    assert loaded.home == tmp_path / "data"


def test_every_scalar_of_server_and_log_has_a_twin() -> None:
    for section in ("server", "log"):
        for name in explain.fields_at((section,)):
            if name in ("keys", "limits", "timeouts"):
                continue
            assert (section, name) in BY_PATH, f"{section}.{name} has no twin"
    assert len({twin.name for twin in TWINS}) == len(TWINS)


def test_a_twin_does_not_hide_a_section_of_the_wrong_kind(faults: Faults) -> None:
    assert (
        "roundhouse.yaml:2: server: should be a mapping"
        in faults("version: 1\nserver: 5", {"ROUNDHOUSE_PORT": "1", "ROUNDHOUSE_API_KEY": "k"})[0]
    )
