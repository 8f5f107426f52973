"""What a model's card adds to its entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import cards
from server.config.cards import Prices, about, at_provider, card_of, weights_card
from server.config.load import Loaded, load
from server.config.resolve import ResolvedModel, resolve_models
from server.config.schema import Config
from server.errors import ConfigError
from tests.fakes.catalog import catalog

CATALOG = catalog()
Write = Callable[..., Path]
LAB = {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"}
OPENAI = {"openai": {"api_key": "k"}}


def loaded(write: Write, environ: dict[str, str] | None = None, **tree: Any) -> Loaded:
    text = yaml.safe_dump({"version": 1, **tree}, sort_keys=False)
    return load(write(text), environ=environ or {}, catalog=CATALOG)


def models(write: Write, **tree: Any) -> dict[str, ResolvedModel]:
    return resolve_models(loaded(write, **tree).config, CATALOG)


def refused(write: Write, **tree: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(write, **tree)
    return str(caught.value)


def asked(model: ResolvedModel) -> list[tuple[str | None, str | None]]:
    return [(target.provider or target.engine, target.model) for target in model.targets]


# --- targets


@pytest.mark.parametrize(
    ("name", "entry", "targets"),
    [
        ("gpt-big", {}, [("openai", "gpt-big")]),
        ("gpt-big", None, [("openai", "gpt-big")]),
        ("GPT-Big", {}, [("openai", "gpt-big")]),
        ("gpt-big-2026-01-01", {}, [("openai", "gpt-big")]),
        ("smart", {"card": "gpt-big"}, [("openai", "gpt-big")]),
        ("gpt-big", {"targets": [{"provider": "openai"}]}, [("openai", "gpt-big")]),
        ("x", {"card": "big", "targets": [{"provider": "openai"}]}, [("openai", "gpt-big")]),
        (
            "gpt-big",
            {"targets": [{"engine": "e"}, {"provider": "openai"}]},
            [("e", None), ("openai", "gpt-big")],
        ),
        ("gpt-big", {"targets": [{"provider": "lab", "model": "z"}]}, [("lab", "z")]),
    ],
)
def test_where_a_model_is_asked(
    name: str, entry: Any, targets: list[tuple[str, str | None]], write: Write
) -> None:
    found = models(
        write,
        providers={**OPENAI, "lab": LAB},
        engines={"e": {"weights": "./w"}},
        models={name: entry},
    )
    assert asked(found[name]) == targets


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("nobody", {}, "has no targets, and the registry has no model `nobody`. Give `targets`"),
        ("gpt-bigg", {}, "the registry has no model `gpt-bigg`. Did you mean `gpt-big`"),
        ("gpt-big", {"card": None}, "has no targets and no card. Give `targets`"),
        ("gpt-big", {"card": False}, "has no targets and no card. Give `targets`"),
        ("x", {"card": "gpt-bigg"}, "models.x.card: the registry has no model `gpt-bigg`. Did you"),
        ("x", {"card": "zzzzzz"}, "Write an id, or `card: null` for none."),
        (
            "acme/Small-1B",
            {},
            (
                "its card's provider, huggingface, is not under providers. Add `huggingface: {}` "
                "there, get a key at https://huggingface.co/settings/tokens and set HF_TOKEN; or "
                "give `targets`."
            ),
        ),
        ("far-1", {}, "elsewhere, is not configured. Write `targets`: any provider or engine"),
        ("acme/Weights-7B", {}, "Serve them: add `{weights: acme/Weights-7B}` under engines"),
        (
            "gpt-big",
            {"targets": [{"provider": "lab"}]},
            (
                "models.gpt-big.targets[0]: has no `model`, and the registry has no card of "
                "`gpt-big` at lab. Add `model`, the provider's own id."
            ),
        ),
        (
            "gpt-big",
            {"card": None, "targets": [{"provider": "openai"}]},
            "targets[0]: has no `model`",
        ),
    ],
)
def test_what_has_no_target(name: str, entry: dict[str, Any], said: str, write: Write) -> None:
    text = refused(write, providers={**OPENAI, "lab": LAB}, models={name: entry})
    assert said in text
    assert "roundhouse.yaml:" in text  # with the line


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"alias": "m", "card": "gpt-big"}, "an alias has no `card` of its own"),
        ({"alias": "m", "targets": [{"engine": "e"}]}, "an alias has no `targets` of its own"),
        ({"defaults": {"messages": []}}, "`messages` is the client's to say"),
        (
            {"ceilings": {"max_tokens": 1, "max_completion_tokens": 2}},
            "max_tokens and max_completion_tokens are one and the same",
        ),
        (
            {"defaults": {"max_completion_tokens": 9}, "ceilings": {"max_tokens": 8}},
            "the default of `max_tokens` is above its ceiling",
        ),
        ({"defaults": {"max_new_tokens": 5}}, "`defaults`: `max_new_tokens`: use `max_tokens`"),
        ({"ceilings": {"num_ctx": 5}}, "`ceilings`: `num_ctx`: leave it out"),
        ({"ceilings": {"max_tokens": 0}}, "`max_tokens` should be a whole number, 1 or more"),
        ({"ceilings": {"max_completion_tokens": 9.5}}, "should be a whole number, 1 or more"),
        ({"ceilings": {"n": True}}, "`n` should be a number"),
        ({"ceilings": {"n": -1}}, "greater than or equal to 0"),
        ({"ceilings": {"temperature": "inf"}}, "temperature: should be"),
        ({"ceilings": {"temperature": "1e400"}}, "temperature: should be"),
        ({"ceilings": {"messages": 5}}, "`messages` is no number"),
        ({"defaults": {"temperature": "hot"}}, "`temperature` should be a number"),
        ({"defaults": {"temperature": "nan"}}, "`temperature` should be a number"),
        ({"defaults": {"top_p": True}}, "`top_p` should be a number"),
        ({"defaults": {"top_p": []}}, "`top_p` should be a number"),
        ({"defaults": {"max_tokens": -5}}, "`max_tokens` should be a whole number, 1 or more"),
        ({"defaults": {"max_tokens": 1.5}}, "`max_tokens` should be a whole number, 1 or more"),
        ({"prices": {"input": "inf"}}, "prices.input: should be"),
        ({"prices": {"input": -1}}, "greater than or equal to 0"),
        ({"type": "oracle"}, "should be"),
        ({"over_ceiling": "clam"}, "Did you mean `clamp`?"),
    ],
)
def test_entries_that_say_what_cannot_be(entry: Any, said: str, write: Write) -> None:
    assert said in refused(write, providers=OPENAI, models={"gpt-big": entry})


def test_numbers_may_come_from_variables(write: Write) -> None:
    text = yaml.safe_dump(
        {
            "version": 1,
            "providers": {"openai": {"api_key": "k"}},
            "models": {
                "gpt-big": {
                    "defaults": {"temperature": "${T}", "max_tokens": "${N}", "user": "7"},
                    "ceilings": {"top_p": "${T}"},
                }
            },
        }
    )
    found = load(write(text), environ={"T": "0.5", "N": "64"}, catalog=catalog())
    model = found.config.models["gpt-big"]
    assert model.defaults == {"temperature": 0.5, "max_tokens": 64, "user": "7"}
    assert model.ceilings == {"top_p": 0.5}


# --- cards


def test_a_cards_prices_and_parameters_are_ones_that_can_be() -> None:
    big = catalog()["gpt-big"]
    odd = replace(big, cost=replace(big.cost, input=-1.0, output=math.inf, cached_input=math.nan))
    assert cards.card_prices(odd) is None
    free = replace(big, cost=replace(big.cost, input=0.0, output=-1.0, cached_input=None))
    assert cards.card_prices(free) == Prices(input=0.0)
    own = {"p": 0.75, "k": 5, "seed": 1, "max_new_tokens": 9}
    assert cards.defaults_of(replace(big, default_parameters=own)) == {
        "top_p": 0.75,
        "top_k": 5,
        "seed": 1,
        "temperature": 0.9,
        "max_tokens": 1000,
    }


@pytest.mark.parametrize(
    ("name", "entry", "card"),
    [
        ("gpt-big", {}, "gpt-big"),
        ("x", {"card": "gpt-big"}, "gpt-big"),
        ("gpt-big", {"card": None, "targets": [{"engine": "small"}]}, None),
        ("gpt-big", {"card": False, "targets": [{"engine": "small"}]}, None),
        ("x", {"targets": [{"provider": "openai", "model": "gpt-mid"}]}, "gpt-mid"),
        ("x", {"targets": [{"provider": "lab", "model": "acme/Small-1B"}]}, "acme/Small-1B"),
        ("x", {"targets": [{"engine": "small"}]}, "acme/Small-1B"),
        ("x", {"targets": [{"engine": "folder"}]}, None),
        # What it runs says more than what it is called.
        ("gpt-big", {"targets": [{"provider": "openai", "model": "gpt-mid"}]}, "gpt-mid"),
        ("gpt-big", {"targets": [{"engine": "small"}]}, "acme/Small-1B"),
        # The name says it where the deployment's id says nothing.
        ("gpt-big", {"targets": [{"provider": "lab", "model": "my-deployment"}]}, "gpt-big"),
        ("acme/Small-1B", {"targets": [{"engine": "folder"}]}, "acme/Small-1B"),
        # Nobody has the weights of what only a provider answers for.
        ("gpt-big", {"targets": [{"engine": "folder"}]}, None),
    ],
)
def test_which_card_is_a_models(name: str, entry: Any, card: str | None, write: Write) -> None:
    config = loaded(
        write,
        providers={**OPENAI, "lab": LAB},
        engines={"small": {"weights": "acme/Small-1B"}, "folder": {"weights": "./w"}},
        models={name: entry},
    ).config
    found = card_of(config, name, config.models[name], CATALOG)
    assert (found.model_id if found else None) == card
    resolved = resolve_models(config, CATALOG)[name].about.card
    assert resolved == found


def test_an_engine_without_an_entry_has_its_weights_card(write: Write) -> None:
    found = models(write, engines={"small": {"weights": "acme/Small-1B"}})["small"]
    assert found.about.context_window == 8192
    assert found.defaults == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert found.targets[0].prices is None  # a machine of one's own costs what nobody says


@pytest.mark.parametrize(
    ("said", "entry", "window"),
    [
        (4096, None, 4096),
        ("4096", None, 4096),
        (4096, {"context_window": 5}, 5),
        ("16k", None, 8192),  # as vLLM reads it, not as we do
        (None, None, 8192),
    ],
)
def test_an_engines_own_window_is_its_models(
    said: Any, entry: dict[str, Any] | None, window: int, write: Write
) -> None:
    args = {} if said is None else {"max-model-len": said}
    engines = {"small": {"weights": "acme/Small-1B", "args": args}}
    tree = {} if entry is None else {"m": {"targets": [{"engine": "small"}], **entry}}
    found = models(write, engines=engines, models=tree)
    assert found["small" if entry is None else "m"].about.context_window == window


@pytest.mark.parametrize("weights", ["./acme/Small-1B", "/acme/Small-1B", "~/acme/x", "Small-1B"])
def test_folders_have_no_card(weights: str) -> None:
    assert weights_card(weights, CATALOG) is None


def test_a_providers_own_card() -> None:
    found = at_provider(CATALOG, "elsewhere", "far-1")
    assert found is not None
    assert at_provider(CATALOG, "lab", "far-1") is None
    assert at_provider(CATALOG, "openai", "far-1") is None


# --- what the config says over the card


def test_the_configs_word_wins(write: Write) -> None:
    entry = {
        "type": "multimodal",
        "context_window": 64,
        "abilities": {"tools": False, "vision": True},
        "defaults": {"temperature": None, "top_p": 0.5, "max_completion_tokens": 7},
        "ceilings": {"max_completion_tokens": 8, "n": 2},
        "over_ceiling": "clamp",
    }
    found = models(write, providers=OPENAI, models={"gpt-big": entry})["gpt-big"]
    assert found.about.type == "multimodal"
    assert found.about.context_window == 64
    assert found.about.max_output == 4096
    assert found.about.abilities == {"tools": False, "vision": True, "audio": False}
    assert found.defaults == {"max_tokens": 7, "top_p": 0.5}
    assert found.ceilings == {"max_tokens": 8, "n": 2}
    assert found.clamp
    plain = models(write, providers=OPENAI, models={"gpt-big": {}})["gpt-big"]
    assert plain.about == about(CATALOG["gpt-big"])
    assert plain.defaults == {"temperature": 0.9, "max_tokens": 1000}


@pytest.mark.parametrize(
    ("entry", "prices"),
    [
        ({}, Prices(2.0, 0.5, 8.0)),
        ({"prices": {"input": 1}}, Prices(1.0, None, None)),
        ({"prices": {"input": 0, "output": 0}}, Prices(0.0, None, 0.0)),
        ({"prices": {}}, None),
        ({"targets": [{"provider": "lab", "model": "gpt-big"}]}, None),
        ({"targets": [{"provider": "openai", "model": "gpt-mid"}]}, Prices(1.0, None, 4.0)),
        ({"targets": [{"provider": "openai", "model": "gpt-unknown"}]}, None),
        ({"targets": [{"engine": "e"}]}, None),
        ({"targets": [{"engine": "e"}], "prices": {"output": 2}}, Prices(None, None, 2.0)),
        ({"card": None, "targets": [{"provider": "openai", "model": "big"}]}, Prices(2, 0.5, 8)),
    ],
)
def test_what_a_target_costs(entry: Any, prices: Prices | None, write: Write) -> None:
    found = models(
        write,
        providers={**OPENAI, "lab": LAB},
        engines={"e": {"weights": "acme/Small-1B"}},
        models={"gpt-big": entry},
    )
    assert found["gpt-big"].targets[0].prices == prices


# --- advice


def test_a_model_that_its_provider_gives_up_is_told_of(write: Write) -> None:
    found = loaded(
        write,
        providers=OPENAI,
        models={
            "gpt-old": {},
            "mid": {"targets": [{"provider": "openai", "model": "gpt-mid"}]},
            "same": {"alias": "mid"},
            "gpt-big": {},
        },
    ).advice
    assert [sentence.partition(": model ")[2] for sentence in found] == [
        (
            "`gpt-old`: `gpt-old` is retired since 2026-03-01: openai answers no more for it. Its "
            "successor is `gpt-big`."
        ),
        (
            "`mid`: `gpt-mid` is deprecated: openai answers for it until 2027-01-01. Its "
            "successor is `gpt-big`."
        ),
    ]


def test_a_config_without_its_card_is_one_of_the_schema() -> None:
    config = Config.model_validate({"version": 1, "models": {"m": {"card": None}}})
    assert config.models["m"].without_card
