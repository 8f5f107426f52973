"""Additions under a config: the same checks, and never the file's line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.config import additions as state
from server.config.additions import FILE, NONE, Additions
from server.config.draft import around, assemble
from server.config.engine import Engine
from server.config.load import Loaded, from_models, load, load_quickstart
from server.config.loaded import finish
from server.config.model import Model
from server.config.places import ConfigErrors
from server.config.resolve import resolve_models
from server.config.yamltext import parse
from server.errors import ConfigError

Good = Callable[..., Loaded]

OURS = "version: 1\nengines:\n  guide: {weights: w}\n  Named: {weights: w}\n"
MODELS = "models:\n  m: {targets: [{engine: Named}]}\n  guide-2: {alias: m}\n"
ALONE = assemble(
    *parse((OURS + MODELS).encode(), "roundhouse.yaml"),
    b"",
    Path("/nowhere"),
    around({}, {"server.home": "/nowhere/home"}, Path("/nowhere")),
)
BIG = {"weights": "Qwen/Qwen3-8B", "load": "request"}


def names(loaded: Loaded) -> list[str]:
    return list(resolve_models(loaded.config, loaded.catalog))


def refused(loaded: Loaded, additions: Additions) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded.with_additions(additions)
    error = caught.value
    several = error.errors if isinstance(error, ConfigErrors) else (error,)
    assert all(one.file is None and one.line is None for one in several)
    return str(error).splitlines()


# --- what goes in


def test_an_engine_a_model_and_the_default(good: Good) -> None:
    alone = good(OURS + MODELS)
    model = {"targets": [{"engine": "big"}], "fallbacks": ["m"]}
    more = Additions({"big": BIG}, {"Qwen/Qwen3-8B": model}, "Qwen/Qwen3-8B")
    loaded = alone.with_additions(more)
    assert names(loaded) == ["m", "guide-2", "Qwen/Qwen3-8B", "guide", "default"]
    assert resolve_models(loaded.config)["default"].name == "Qwen/Qwen3-8B"
    assert (loaded.additions, loaded.kept, loaded.left_out) == (more, more, NONE)
    assert loaded.digest != alone.digest
    assert names(alone) == ["m", "guide-2", "guide"]
    assert alone.additions == NONE
    # Taken out again.
    assert loaded.with_additions(NONE) == alone


def test_what_was_given_is_not_changed(good: Good) -> None:
    given: dict[str, Any] = {"weights": "a\0b", "args": {"max-model-len": 1}}
    refused(good(OURS), Additions({"big": given}))
    assert given == {"weights": "a\0b", "args": {"max-model-len": 1}}


def test_variables_are_not_looked_up(good: Good) -> None:
    loaded = good(OURS, environ={"SECRET": "73577357"})
    cmd = "s --port ${PORT} --key ${SECRET}"
    more = {"big": {"weights": "${SECRET}"}, "own": {"runtime": "command", "cmd": cmd}}
    engines = loaded.with_additions(Additions(more)).config.engines
    assert (engines["big"].weights, engines["own"].cmd) == ("${SECRET}", cmd)


def test_a_config_without_a_file_takes_them_too(tmp_path: Path) -> None:
    more = Additions({"big": BIG})
    for loaded in (
        load_quickstart(environ={}, cwd=tmp_path),
        from_models(["a/b"], environ={}, cwd=tmp_path),
    ):
        assert "big" in names(loaded.with_additions(more))
        assert loaded.with_additions(more).again().additions == more


# --- what does not

REFUSED = {
    "typo": (
        Additions({"big": {**BIG, "divice": "cpu"}}),
        "engines.big.divice: is not a known key. Did you mean `device`?",
    ),
    "value": (
        Additions({"big": {**BIG, "device": "gpu"}}),
        "engines.big.device: must be auto, cpu, cuda, or GPUs by number: cuda:0, cuda:0,1.",
    ),
    "flag": (
        Additions({"big": {**BIG, "args": {"port": 1}}}),
        "engines.big.args: 'port' is set",
    ),
    "none": (Additions({"big": {}}), "engines.big.weights: is missing."),
    "name": (Additions({"a b": BIG}), "engines.a b: is no name that can be used here: it may hold"),
    "path": (
        Additions({"big": {"weights": "~nobody-here/x"}}),
        "engines.big.weights: ~nobody-here/x cannot be read: whose home folder is that?",
    ),
    "engine": (
        Additions({"guide": BIG}),
        "engines.guide: the config has an engine `guide`, which wins. Take another name, or change",
    ),
    "capitals": (
        Additions({"named": BIG}),
        "engines.named: the config has an engine `Named`, which wins.",
    ),
    "model": (
        Additions(models={"m": {"alias": "guide"}}),
        "models.m: the config has a model `m`, which wins.",
    ),
    "loose": (
        Additions(models={"guide": {"alias": "m"}}),
        "models.guide: the config has an engine `guide`, which is a model, which wins.",
    ),
    "taken": (
        Additions(models={"other": {"targets": [{"engine": "guide"}]}}),
        "models.other.targets: has the engine `guide`, which would be no model of its own name any",
    ),
    "target": (
        Additions(models={"other": {"targets": [{"engine": "bgi"}]}}),
        "models.other.targets[0].engine: there is no engine `bgi`.",
    ),
    "default": (Additions(default="nope"), "default: there is no model `nope`."),
    "command": (
        Additions({"big": {"runtime": "command", "cmd": "x"}}),
        "engines.big.cmd: has no `${PORT}`, so that nobody could tell it where to answer.",
    ),
}


def test_what_is_nested_too_deeply(good: Good, tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    more = Additions({"big": BIG, "deep": {**BIG, "args": {"a": deep}}})
    (said,) = refused(good(OURS), more)
    assert said == "engines.deep: is nested too deeply."
    home = tmp_path / "home"
    state.write(home, more)
    loaded = good(OURS, server__home=str(home)).with_state()
    assert list(loaded.additions.engines) == ["big"]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, good: Good) -> None:
    additions, text = REFUSED[case]
    (said,) = refused(good(OURS + MODELS), additions)
    assert text in said


def test_all_that_is_wrong_comes_at_once(good: Good) -> None:
    said = refused(good(OURS), Additions({"a": {}, "b": {**BIG, "x": 1}}))
    assert sorted(line.split(":")[0] for line in said) == ["engines.a.weights", "engines.b.x"]


def test_the_configs_own_default_wins(good: Good) -> None:
    (said,) = refused(good(f"{OURS}default: guide\n"), Additions(default="Named"))
    assert said.startswith("default: ")
    assert said.endswith("roundhouse.yaml:5 says `guide`, which wins. Change it there.")
    (said,) = refused(good(OURS, environ={"MODEL_ID": "guide"}), Additions(default="Named"))
    assert said == "default: MODEL_ID says `guide`, which wins. Change it there."
    # Null is no word.
    loaded = good(f"{OURS}default: null\n").with_additions(Additions(default="Named"))
    assert loaded.config.default == "Named"


def test_a_fault_that_shows_in_the_config_names_no_line_of_it(good: Good) -> None:
    text = "version: 1\nengines: {a: {weights: w, pinned: true, groups: [g]}}"
    loaded = good(text)
    (said,) = refused(loaded, Additions({"big": {**BIG, "groups": ["g"]}}))
    assert said.startswith("engines.a.groups: has `big` in it, too, which could never be loaded")


# --- the state file


def test_what_was_loaded_is_there_with_the_next_start(good: Good, tmp_path: Path) -> None:
    home = tmp_path / "home"
    more = Additions({"big": BIG}, {}, "big")
    state.write(home, more)
    loaded = good(OURS, server__home=str(home))
    assert loaded.additions == NONE  # only who asks for it
    loaded = loaded.with_state()
    assert (loaded.additions, loaded.advice) == (more, ())
    assert names(loaded) == ["guide", "Named", "big", "default"]
    assert str(home / FILE) in loaded.sources


def test_the_config_wins_and_tells_so(good: Good, tmp_path: Path) -> None:
    home = tmp_path / "home"
    alias = {"alias": "big"}
    state.write(home, Additions({"guide": BIG, "big": BIG}, {"m": alias, "x": alias}, "big"))
    text = f"{OURS}{MODELS}default: m\n"
    loaded = good(text, server__home=str(home)).with_state()
    assert loaded.additions == Additions({"big": BIG}, {"x": alias})
    assert loaded.left_out == Additions({"guide": BIG}, {"m": alias}, "big")
    engine, model, default = loaded.advice
    ran = "loaded while the server ran, is left out: the config has"
    assert engine == f"Engine `guide`, {ran} an engine `guide`."
    assert model == f"Model `m`, {ran} a model `m`."
    where = f"{tmp_path}/roundhouse.yaml:8"
    assert default == f"The default, chosen while the server ran, is left out: {where} says `m`."


def test_a_model_does_not_get_the_configs_engine_instead_of_its_own(
    good: Good, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    model = {"targets": [{"engine": "Named"}]}
    state.write(home, Additions({"Named": BIG}, {"Qwen/Qwen3-8B": model}))
    loaded = good(OURS + MODELS, server__home=str(home)).with_state()
    assert loaded.additions == NONE
    assert loaded.left_out == loaded.kept
    assert (
        "Model `Qwen/Qwen3-8B`, loaded while the server ran, is left out: its engine"
        in (loaded.advice[0])
    )
    assert len(loaded.advice) == 2


def test_what_has_become_invalid_is_left_out(good: Good, tmp_path: Path) -> None:
    home = tmp_path / "home"
    engines: dict[str, dict[str, Any]] = {"old": {"weights": "w", "gone": 1}, "big": BIG}
    models: dict[str, dict[str, Any]]
    models = {"a": {"alias": "b"}, "b": {"targets": [{"engine": "big"}]}, "c": {"alias": "old"}}
    state.write(home, Additions(engines, models, "c"))
    loaded = good(OURS, server__home=str(home)).with_state()
    assert list(loaded.additions.engines) == ["big"]
    assert sorted(loaded.additions.models) == ["a", "b"]  # the one needs the other
    assert loaded.left_out == Additions({"old": engines["old"]}, {"c": models["c"]}, "c")
    assert [sentence.split(",")[0] for sentence in loaded.advice] == [
        "Engine `old`",
        "Model `c`",
        "The default",
    ]
    assert loaded.advice[0] == (
        "Engine `old`, loaded while the server ran, is left out: engines.old.gone: is not a known "
        f"key. Flags of vLLM stand under `args`: `args: {{gone: …}}`. ({home / FILE})"
    )


def test_a_damaged_file_is_no_hindrance(good: Good, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / FILE).write_text("{")
    loaded = good(OURS, server__home=str(home)).with_state()
    assert loaded.additions == NONE
    (note,) = loaded.advice
    assert "is kept as state.json.damaged" in note


def test_advice_of_another_hand_stays(good: Good, tmp_path: Path) -> None:
    home = tmp_path / "home"
    state.write(home, Additions({"big": BIG}))
    alone = good("version: 1", server__home=str(home))
    (nothing,) = alone.advice
    loaded = dataclasses.replace(alone, advice=(nothing, "Mind the gap.")).with_state()
    # That nothing is configured is true no more.
    assert loaded.advice == ("Mind the gap.",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*Engine.model_fields, *Model.model_fields, "x"])
ENTRIES = st.dictionaries(
    st.sampled_from(["guide", "GUIDE", "big", "m", "a b", ""]) | st.text(max_size=3),
    st.dictionaries(KEYS, JSON, max_size=3),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(engines=ENTRIES, models=ENTRIES, default=st.none() | st.text(max_size=5))
def test_whatever_the_file_holds_the_config_is_served(
    engines: Any, models: Any, default: str | None
) -> None:
    kept = Additions({**engines, "good": BIG}, models, default)
    loaded = finish(ALONE, None, kept)
    assert {"guide", "Named", "good"} <= loaded.config.engines.keys()
    assert loaded.config.engines["guide"].weights == "w"
    assert "m" in loaded.config.models
    in_force = set(loaded.additions.paths())
    assert in_force <= set(kept.paths())
    # Of each that is not in force it is told why.
    told = [sentence for sentence in loaded.advice if " is left out: " in sentence]
    assert len(told) == len(kept.paths()) - len(in_force)
    assert resolve_models(loaded.config, loaded.catalog)


# --- reading again


def test_additions_stay_when_the_config_is_read_again(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write(OURS)
    more = Additions({"big": BIG}, {}, "big")
    loaded = load(file, environ={}, overrides={"server.home": str(tmp_path / "home")})
    loaded = loaded.with_additions(more)
    assert loaded.again().digest == loaded.digest
    # The config takes the name over, and gives it back.
    file.write_text(f"{OURS}  big: {{weights: mine}}\ndefault: guide\n")
    loaded = loaded.again()
    assert loaded.config.engines["big"].weights == "mine"
    assert (loaded.additions, loaded.kept) == (NONE, more)
    assert loaded.left_out == more
    # What is added meanwhile does not make it forgotten, and what is told anew takes its place.
    loaded = loaded.with_additions(Additions({"other": BIG}))
    assert loaded.kept == Additions({"big": BIG, "other": BIG}, {}, "big")
    assert loaded.left_out == more
    file.write_text(OURS)
    loaded = loaded.again()
    assert list(loaded.additions.engines) == ["big", "other"]
    assert loaded.config.default == "big"
    # Taken out, it is forgotten.
    loaded = loaded.with_additions(Additions({"other": BIG}))
    assert loaded.kept == loaded.additions == Additions({"other": BIG})


def test_a_config_that_was_not_loaded_takes_none(good: Good) -> None:
    alone = dataclasses.replace(good(OURS), _draft=None)
    with pytest.raises(ValueError, match="nothing can be added"):
        alone.with_additions(NONE)
    with pytest.raises(ValueError, match="nothing is kept"):
        alone.keeping(NONE)
