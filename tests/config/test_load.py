from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.config.load import Loaded, find, from_models, load, load_quickstart
from server.config.places import ConfigErrors, refuse
from server.config.resolve import resolve_models
from server.errors import ConfigError

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]
Write = Callable[..., Path]


def test_a_small_file(good: Good, tmp_path: Path) -> None:
    loaded = good("version: 1\nengines: {a: {weights: w}}\nproviders:\nmodels:\n")
    assert loaded.path == tmp_path / "roundhouse.yaml"
    assert loaded.folder == tmp_path
    assert loaded.files == (tmp_path / "roundhouse.yaml", tmp_path / ".env")
    assert list(loaded.config.engines) == ["a"]
    assert "secret" not in repr(loaded)


def test_files_that_are_none(tmp_path: Path, write: Write) -> None:
    with pytest.raises(ConfigError, match="There is no such file"):
        load(tmp_path / "no.yaml", environ={})
    with pytest.raises(ConfigError, match="This is a folder"):
        load(tmp_path, environ={})
    with pytest.raises(ConfigError, match="Cannot be read"):
        load(tmp_path / ("x" * 300), environ={})
    with pytest.raises(ConfigError, match="A config is a mapping"):
        load(write("- a"), environ={})


def test_an_empty_file_lacks_its_version(faults: Faults) -> None:
    assert faults("") == ["roundhouse.yaml: version: is missing. Begin the file with `version: 1`."]


def test_all_faults_come_at_once_in_the_order_of_lines(faults: Faults) -> None:
    found = faults(
        """\
version: 1
server:
  prot: 1
  host: 0.0.0.0
  admin_key: "${NOPE}"
engines:
  e: {weights: w, runtime: vlm}
models:
  m: {targets: [{engine: f}]}
"""
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["roundhouse.yaml:3", "server.prot"],
        ["roundhouse.yaml:4", "server.host"],
        ["roundhouse.yaml:5", "server.admin_key"],
        ["roundhouse.yaml:7", "engines.e.runtime"],
        ["roundhouse.yaml:9", "models.m.targets[0].engine"],
    ]


def test_an_unknown_key_beside_a_wrong_value(faults: Faults) -> None:
    assert len(faults("version: 2\nsrever: {}\nmodels: {m: {alias: x}}")) == 2


def test_refuse_raises_one_error_or_all() -> None:
    refuse([])
    one, two = ConfigError("a", file="f", line=2), ConfigError("b", file="f", line=1)
    with pytest.raises(ConfigError) as single:
        refuse([one])
    assert single.value is one
    with pytest.raises(ConfigErrors) as many:
        refuse([one, two])
    assert list(many.value) == [two, one]
    assert str(many.value) == many.value.message == "f:1: b\nf:2: a"
    assert many.value.exit_code == 2


# --- keys from elsewhere


def test_the_key_of_the_environment(good: Good) -> None:
    (key,) = good("version: 1", {"ROUNDHOUSE_API_KEY": "k" * 20}).config.server.keys
    assert (key.name, key.models, key.key.get_secret_value()) == ("env", ("*",), "k" * 20)


def test_a_file_that_uses_the_variable_says_itself_what_the_key_may(good: Good) -> None:
    loaded = good(
        'version: 1\nserver: {keys: [{name: t, key: "${ROUNDHOUSE_API_KEY}", models: ["a*"]}]}',
        {"ROUNDHOUSE_API_KEY": "k" * 20},
    )
    assert [(key.name, key.models) for key in loaded.config.server.keys] == [("t", ("a*",))]


def test_a_keys_file(good: Good, write: Write, tmp_path: Path) -> None:
    file = write('- {name: b, key: "${K}"}\n- {name: c, key: cc}\n', "keys.yaml")
    loaded = good(
        "version: 1\nserver: {keys_file: keys.yaml, keys: [{name: a, key: aa}]}", {"K": "bb"}
    )
    found = [(key.name, key.key.get_secret_value()) for key in loaded.config.server.keys]
    assert found == [("a", "aa"), ("b", "bb"), ("c", "cc")]
    assert file in loaded.files


def test_faults_in_a_keys_file_name_it(faults: Faults, write: Write) -> None:
    config = "version: 1\nserver: {keys_file: keys.yaml}"
    write("- name: a\n  key: aa\n- name: no\n  kee: x\n", "keys.yaml")
    assert [line.split(": ")[:2] for line in faults(config)] == [
        ["keys.yaml:3", "server.keys[1].name"],
        ["keys.yaml:3", "server.keys[1].key"],
        ["keys.yaml:4", "server.keys[1].kee"],
    ]
    write("- name: a\n  key: ${NOPE}\n", "keys.yaml")
    assert "keys.yaml:2: server.keys[0].key: ${NOPE} is not set" in faults(config)[0]
    write("a: 1", "keys.yaml")
    assert "A keys file is a list" in faults(config)[0]


def test_an_empty_or_missing_keys_file(good: Good, faults: Faults, write: Write) -> None:
    config = "version: 1\nserver: {keys_file: keys.yaml}"
    assert "There is no such file" in faults(config)[0]
    write("", "keys.yaml")
    assert good(config).config.server.keys == ()


def test_keys_that_are_no_list(faults: Faults, write: Write) -> None:
    write("- {name: a, key: b}", "keys.yaml")
    found = faults("version: 1\nserver: {keys: 5, keys_file: keys.yaml}")
    assert found == ["roundhouse.yaml:2: server.keys: should be a list."]


def test_a_known_provider_takes_its_key_from_its_variable(good: Good) -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "HUGGINGFACE_API_KEY": "hf_1"}
    providers = good("version: 1\nproviders:\n  openai:\n  huggingface: {}\n", environ).config
    keys = {n: p.api_key.get_secret_value() for n, p in providers.providers.items() if p.api_key}
    assert keys == {"openai": "sk-1", "huggingface": "hf_1"}


def test_a_providers_key_is_not_sent_to_another_url(good: Good) -> None:
    config = "version: 1\nproviders: {openai: {base_url: 'https://proxy.example/v1'}}"
    assert good(config, {"OPENAI_API_KEY": "sk-1"}).config.providers["openai"].api_key is None


# --- without a file


def test_models_by_name(tmp_path: Path) -> None:
    (tmp_path / "My Model").mkdir()
    loaded = from_models(
        ["Qwen/Qwen3-0.6B", "My Model", "./My Model", "embedded:guide", "other/qwen3-0.6b"],
        environ={},
        cwd=tmp_path,
    )
    models = resolve_models(loaded.config)
    assert {name: model.targets[0].engine for name, model in models.items()} == {
        "Qwen/Qwen3-0.6B": "qwen3-0.6b",
        "My-Model": "my-model",
        "My-Model-2": "my-model-2",
        "guide": "guide",
        "other/qwen3-0.6b": "qwen3-0.6b-2",
    }
    assert loaded.config.engines["guide"].weights == "embedded:guide"
    assert loaded.path is None
    assert loaded.files == ()
    assert loaded.again() is loaded


@pytest.mark.parametrize("weights", ["embedded:", "..", "???"])
def test_names_are_found_for_anything(weights: str, tmp_path: Path) -> None:
    assert len(from_models([weights], environ={}, cwd=tmp_path).config.models) == 1


def test_flags_and_the_environment_count_without_a_file(tmp_path: Path) -> None:
    loaded = from_models(
        ["a/b"], environ={"ROUNDHOUSE_PORT": "1"}, overrides={"log.level": "debug"}, cwd=tmp_path
    )
    assert (loaded.config.server.port, loaded.config.log.level) == (1, "debug")


def test_the_built_in_config() -> None:
    loaded = load_quickstart(environ={})
    assert list(resolve_models(loaded.config)) == ["guide"]
    assert loaded.config.engines["guide"].kv_cache == 512 * 2**20


def test_the_process_environment_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROUNDHOUSE_PORT", "77")
    monkeypatch.chdir(tmp_path)
    assert load_quickstart().config.server.port == 77


def test_which_file_is_used(tmp_path: Path) -> None:
    assert find({}, tmp_path) is None
    (tmp_path / "roundhouse.yaml").touch()
    assert find({}, tmp_path) == tmp_path / "roundhouse.yaml"
    assert find({"ROUNDHOUSE_CONFIG": "x.yaml"}, tmp_path) == tmp_path / "x.yaml"


def test_no_home_folder(good: Good, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert "Set ROUNDHOUSE_HOME" in faults("version: 1")[0]


def test_the_digest_changes_with_what_was_read(good: Good, tmp_path: Path) -> None:
    first = good("version: 1")
    assert first.again().digest == first.digest
    (tmp_path / ".env").write_text("X=1")
    second = first.again()
    (tmp_path / ".env").unlink()
    third = good("version: 1\n# changed")
    assert len({first.digest, second.digest, third.digest}) == 3


def test_a_relative_path_is_shown_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("version: 3")
    with pytest.raises(ConfigError) as caught:
        load("c.yaml", environ=dict(os.environ))
    assert str(caught.value) == (
        "c.yaml:1: version: must be 1, the only version of the config that there is."
    )
