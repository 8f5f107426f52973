"""What each target and each model comes to, for routing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.load import Loaded, load
from server.config.resolve import ResolvedModel, ResolvedTarget, provider_target, resolve_models
from tests.fakes.catalog import HUB, OPENAI, catalog

ABLE = {"tools": True, "vision": False}
CATALOG = catalog(
    OPENAI,
    {**HUB, "models": [{**HUB["models"][0], "abilities": ABLE}, *HUB["models"][1:]]},
)
Write = Callable[..., Path]
UP = {"provider": "lab", "model": "up"}


def loaded(write: Write, models: dict[str, Any], **tree: Any) -> Loaded:
    text = yaml.safe_dump(
        {
            "version": 1,
            "providers": {
                "openai": {"api_key": "k"},
                "lab": {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"},
            },
            "engines": {
                "small": {"weights": "acme/Small-1B", "args": {"max-model-len": 4096}},
                "folder": {"weights": "./w", "max_in_flight": 4, "max_waiting": 5},
                "far": {
                    "runtime": "external",
                    "urls": ["http://127.0.0.1:10"],
                    "model": "acme/Small-1B",
                    "max_in_flight": 6,
                },
                "unknown": {"runtime": "external", "urls": ["http://127.0.0.1:11"]},
            },
            "models": models,
            **tree,
        },
        sort_keys=False,
    )
    return load(write(text), environ={}, catalog=CATALOG)


def resolved(write: Write, models: dict[str, Any], **tree: Any) -> dict[str, ResolvedModel]:
    return resolve_models(loaded(write, models, **tree).config, CATALOG)


def target(write: Write, entry: dict[str, Any], at: int = 0) -> ResolvedTarget:
    return resolved(write, {"m": entry})["m"].targets[at]


def test_a_models_own_words(write: Write) -> None:
    entry = {
        "targets": [{"engine": "folder"}],
        "context_window": 10,
        "balance": "affinity",
        "fallbacks": ["big", "same", "far"],
        "context_fallbacks": ["same", "big"],
        "content_fallbacks": ["far", "same"],
        "bridge": "same",
        "while_loading": "wait",
        "max_in_flight": 7,
        "max_waiting": 0,
    }
    models = {"m": entry, "big": {"card": "gpt-big"}, "same": {"alias": "big"}, "x": {"alias": "m"}}
    found = resolved(write, models)
    model = found["m"]
    assert model.balance == "affinity"
    assert model.fallbacks == ("big", "far")
    assert model.context_fallbacks == ("big",)  # once, and by its own name
    assert model.content_fallbacks == ("far", "big")
    assert model.bridge == "big"
    assert model.while_loading == "wait"
    assert (model.max_in_flight, model.max_waiting) == (7, 0)
    alias = found["x"]
    assert (alias.name, alias.alias_of, alias.bridge) == ("m", "m", "big")
    assert (alias.max_in_flight, alias.balance) == (7, "affinity")


def test_what_an_entry_without_words_comes_to(write: Write) -> None:
    model = resolved(write, {"m": {"targets": [UP]}})["m"]
    assert model == ResolvedModel("m", model.targets)
    assert (model.balance, model.while_loading, model.bridge) == ("ordered", "fallback", None)
    assert (model.max_in_flight, model.max_waiting) == (None, 64)
    (one,) = model.targets
    assert one == ResolvedTarget(None, "lab", "up", one.timeouts)
    assert (one.weight, one.drop, one.max_in_flight, one.max_waiting) == (1, frozenset(), None, 64)


def test_a_targets_own_words(write: Write) -> None:
    entry = {"targets": [{**UP, "weight": 2.5, "drop": ["seed", "n", "seed"], "max_waiting": 3}]}
    one = target(write, {**entry, "balance": "weighted"})
    assert (one.weight, one.drop) == (2.5, frozenset({"seed", "n"}))
    assert (one.max_in_flight, one.max_waiting) == (None, 3)
    assert hash(one) == hash(target(write, {**entry, "balance": "weighted"}))


def test_an_engines_places_are_its_own(write: Write) -> None:
    found = resolved(write, {"m": {"targets": [{"engine": "folder"}, {"engine": "far"}]}})
    assert [(t.max_in_flight, t.max_waiting) for t in found["m"].targets] == [(4, 5), (6, 64)]


def test_a_places_limits_hold_under_all_its_names(write: Write) -> None:
    """Nobody gets past them by another name of the same thing."""
    limits = {"max_in_flight": 3, "max_waiting": 1}
    big = {"provider": "openai", "model": "gpt-big"}
    models = {
        "first": {"targets": [UP, big]},
        "said": {"targets": [{**UP, **limits}]},
        "gpt-mid": {"targets": [{"provider": "openai", **limits}]},  # by its card
        "other": {"targets": [{"provider": "lab", "model": "else"}]},
    }
    config = loaded(write, models, catalog="auto").config
    found = resolve_models(config, CATALOG)

    def places(name: str) -> list[tuple[int | None, int]]:
        return [(one.max_in_flight, one.max_waiting) for one in found[name].targets]

    assert places("said") == places("gpt-mid") == [(3, 1)]
    assert places("first") == [(3, 1), (None, 64)]
    assert places("other") == [(None, 64)]
    assert places("gpt-big") == [(None, 64)]  # from the catalog
    for name, most in {"lab/up": 3, "openai/gpt-mid": 3, "lab/else": None, "lab/z": None}.items():
        one = provider_target(config, name, CATALOG)
        assert one is not None
        assert one.max_in_flight == most, name


# --- abilities


@pytest.mark.parametrize(
    ("entry", "abilities"),
    [
        # Of the card of what is asked.
        ({"targets": [{"provider": "openai", "model": "big"}]}, {"tools": True, "audio": False}),
        ({"card": "gpt-big"}, {"tools": True, "audio": False}),
        ({"targets": [{"engine": "small"}]}, ABLE),
        ({"targets": [{"engine": "far"}]}, ABLE),
        ({"targets": [{"engine": "folder"}]}, {}),
        ({"targets": [{"engine": "unknown"}]}, {}),
        # The config's word is over it, for all targets.
        (
            {"targets": [{"engine": "small"}], "abilities": {"vision": True, "audio": False}},
            {"tools": True, "vision": True, "audio": False},
        ),
        (
            {"targets": [UP], "abilities": {"tools": False, "n": False}},
            {"tools": False, "n": False},
        ),
        # What has no card of its own is as the model.
        ({"card": "gpt-big", "targets": [UP]}, {"tools": True, "audio": False}),
        ({"card": "gpt-big", "targets": [{"engine": "folder"}]}, {"tools": True, "audio": False}),
        # But what has one is as that says, whatever the model's first target is.
        ({"card": "gpt-big", "targets": [{"engine": "small"}]}, ABLE),
        # `card: null`: the cards are wrong about it.
        ({"card": None, "targets": [{"engine": "small"}]}, {}),
        (
            {"card": None, "targets": [{"engine": "small"}], "abilities": {"tools": True}},
            {"tools": True},
        ),
    ],
)
def test_what_a_target_can_do(
    entry: dict[str, Any], abilities: dict[str, bool], write: Write
) -> None:
    assert target(write, entry).abilities == abilities


def test_targets_of_one_model_differ(write: Write) -> None:
    entry = {"targets": [{"engine": "small"}, {"provider": "openai", "model": "gpt-big"}, UP]}
    found = resolved(write, {"m": entry})["m"].targets
    assert [t.abilities for t in found] == [ABLE, {"tools": True, "audio": False}, ABLE]


def test_what_needs_no_entry_has_abilities(write: Write) -> None:
    config = loaded(write, {"x": {"targets": [{"engine": "folder"}]}}, catalog="auto").config
    found = resolve_models(config, CATALOG)
    assert found["small"].targets[0].abilities == found["far"].targets[0].abilities == ABLE
    assert found["gpt-big"].targets[0].abilities == {"tools": True, "audio": False}
    by_id = provider_target(config, "openai/gpt-big", CATALOG)
    assert by_id is not None
    assert by_id.abilities == {"tools": True, "audio": False}


def test_replicas_elsewhere_have_the_card_of_their_name(write: Write) -> None:
    found = resolved(write, {"m": {"targets": [{"engine": "far"}]}})
    assert found["m"].about.context_window == 8192
    assert found["unknown"].about.card is None


# --- windows


@pytest.mark.parametrize(
    ("engine", "window"), [("small", 4096), ("folder", None), ("far", None), ("unknown", None)]
)
def test_a_window_is_known_of_an_engine_that_was_told_one(
    engine: str, window: int | None, write: Write
) -> None:
    assert target(write, {"targets": [{"engine": engine}]}).window == window


def test_the_configs_window_is_for_people_only(write: Write) -> None:
    """A provider may shorten what is too long, so that nothing is refused on its behalf."""
    assert target(write, {"targets": [UP], "context_window": 10}).window is None
