"""`catalog`, `cards` and `default`: names beyond the entries under `models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.load import Loaded, load
from server.config.reload import Watcher, signature
from server.config.resolve import ResolvedModel, resolve_models
from server.errors import ConfigError
from server.registry.catalog import Catalog
from server.telemetry.metrics import Metrics
from tests.fakes.catalog import HUB, OPENAI, catalog

CATALOG = catalog()
Write = Callable[..., Path]
KEY = {"api_key": "k"}
FAR = {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"}


def loaded(
    write: Write, environ: dict[str, str] | None = None, cards_of: Catalog = CATALOG, **tree: Any
) -> Loaded:
    text = yaml.safe_dump({"version": 1, **tree}, sort_keys=False)
    return load(write(text), environ=environ or {}, catalog=cards_of)


def models(
    write: Write, environ: dict[str, str] | None = None, **tree: Any
) -> dict[str, ResolvedModel]:
    found = loaded(write, environ, **tree)
    return resolve_models(found.config, found.catalog)


def asked(model: ResolvedModel) -> list[tuple[str | None, str | None]]:
    return [(target.provider or target.engine, target.model) for target in model.targets]


# --- catalog


def test_it_is_off(write: Write) -> None:
    assert models(write, providers={"openai": KEY}) == {}


@pytest.mark.parametrize("text", ["off", "false", '"off"', "no"])
def test_off_in_yamls_own_words(text: str, write: Write) -> None:
    file = write(f"version: 1\ncatalog: {text}\n")
    assert load(file, environ={}, catalog=CATALOG).config.catalog == "off"


@pytest.mark.parametrize("text", ["on", "all", "1"])
def test_other_words_are_refused(text: str, write: Write) -> None:
    with pytest.raises(ConfigError, match="catalog: must be 'off' or 'auto'"):
        load(write(f"version: 1\ncatalog: {text}\n"), environ={}, catalog=CATALOG)


def test_auto_offers_the_cards_of_providers_with_a_key(write: Write) -> None:
    found = models(
        write,
        catalog="auto",
        providers={"elsewhere": {**FAR, **KEY}, "openai": KEY, "huggingface": KEY},
    )
    assert {name: asked(model)[0] for name, model in found.items()} == {
        # By id, in the order of `providers`, then by alias: the first one has it.
        "far-1": ("elsewhere", "far-1"),
        "gpt-big": ("openai", "gpt-big"),
        "gpt-mid": ("openai", "gpt-mid"),
        "embed-1": ("openai", "embed-1"),
        "acme/Small-1B": ("huggingface", "acme/Small-1B"),
        # Openai's models are known, and `open-20b` is none of them.
        "openai/open-20b": ("huggingface", "openai/open-20b"),
        "big": ("elsewhere", "far-1"),
        "gpt-big-2026-01-01": ("openai", "gpt-big"),
        "open-20b": ("huggingface", "openai/open-20b"),
    }
    assert [name for name, model in found.items() if model.listed] == [
        "far-1",
        "gpt-big",
        "gpt-mid",
        "embed-1",
        "acme/Small-1B",
        "openai/open-20b",
    ]
    assert found["gpt-big-2026-01-01"].alias_of == found["gpt-big"].name == "gpt-big"
    assert found["gpt-big"].defaults == {"temperature": 0.9, "max_tokens": 1000}
    assert found["embed-1"].about.card is CATALOG["embed-1"]


@pytest.mark.parametrize(
    ("own", "providers", "asks"),
    [
        # Of a provider that the catalog does not know, nobody can say what it has not.
        ("acme/Small-1B", {"acme": {**FAR, **KEY}}, None),
        # It has such a card itself.
        ("openai/gpt-big", {}, None),
        ("openai/open-20b", {}, "huggingface"),
        ("openai/open-20b", {"openai": {**FAR, **KEY}}, "huggingface"),
    ],
)
def test_an_id_with_a_providers_name_before_it(
    own: str, providers: dict[str, Any], asks: str | None, write: Write
) -> None:
    hub = {**HUB, "models": [*HUB["models"], {**HUB["models"][0], "model_id": "openai/gpt-big"}]}
    found = models(
        write,
        cards_of=catalog(OPENAI, hub),
        catalog="auto",
        providers={"openai": KEY, "huggingface": KEY, **providers},
    )
    assert (asked(found[own])[0][0] if own in found else None) == asks


def test_a_provider_without_a_key_offers_nothing(write: Write) -> None:
    assert models(write, catalog="auto", providers={"elsewhere": FAR}) == {}
    (advice,) = loaded(write, catalog="auto", providers={"elsewhere": FAR}).advice
    assert "`catalog: auto` adds nothing: there is no key of a provider with cards." in advice


def test_a_key_in_the_environment_adds_its_provider(write: Write) -> None:
    environ = {"OPENAI_API_KEY": "k", "HF_TOKEN": "h"}
    found = loaded(write, environ, catalog="auto", providers={"elsewhere": {**FAR, **KEY}})
    assert list(found.config.providers) == ["elsewhere", "openai", "huggingface"]
    names = list(resolve_models(found.config, CATALOG))
    assert names[:3] == ["far-1", "gpt-big", "gpt-mid"]
    assert list(loaded(write, environ).config.providers) == []


def test_entries_and_engines_come_first(write: Write) -> None:
    found = models(
        write,
        catalog="auto",
        providers={"openai": KEY, "elsewhere": {**FAR, **KEY}},
        engines={"gpt-mid": {"weights": "./w"}},
        models={
            "gpt-big": {"targets": [{"provider": "elsewhere", "model": "x"}]},
            "own": {"alias": "embed-1"},
            "spare": {"card": "far-1", "fallbacks": ["gpt-big-2026-01-01"]},
        },
    )
    assert list(found)[:4] == ["gpt-big", "own", "spare", "gpt-mid"]
    assert asked(found["gpt-big"]) == [("elsewhere", "x")]
    assert asked(found["gpt-mid"]) == [("gpt-mid", None)]
    assert asked(found["own"]) == [("openai", "embed-1")]
    # An alias of a card is what its id stands for here, with all that the entry says of it.
    assert asked(found["gpt-big-2026-01-01"]) == [("elsewhere", "x")]
    assert found["spare"].fallbacks == ("gpt-big-2026-01-01",)


@pytest.mark.parametrize("name", ["", "a\r\nb", "x" * 201, "default"])
def test_names_that_no_card_may_have_are_left_out(name: str, write: Write) -> None:
    odd = [
        {**OPENAI["models"][0], "model_id": name, "aliases": []},
        {**OPENAI["models"][0], "model_id": "fine", "aliases": [name, "good"]},
    ]
    found = models(
        write,
        cards_of=catalog({**OPENAI, "models": odd}),
        catalog="auto",
        providers={"openai": KEY},
        default="openai/x",
    )
    assert list(found) == ["openai/x", "default", "fine", "good"]
    assert asked(found["default"]) == [("openai", "x")]


def test_an_entry_cannot_have_such_a_card_either(write: Write) -> None:
    odd = {**OPENAI["models"][0], "model_id": "a\nb", "aliases": ["odd"]}
    with pytest.raises(ConfigError, match="its card has an id that nobody can be asked for"):
        models(
            write,
            cards_of=catalog({**OPENAI, "models": [odd]}),
            providers={"openai": KEY},
            models={"m": {"card": "odd"}},
        )


# --- default


@pytest.mark.parametrize(
    ("name", "target", "own"),
    [
        ("m", ("openai", "gpt-mid"), "m"),
        ("same", ("openai", "gpt-mid"), "m"),
        ("e", ("e", None), "e"),
        ("openai/any-id", ("openai", "any-id"), "openai/any-id"),
        ("gpt-big", ("openai", "gpt-big"), "gpt-big"),
        ("big", ("openai", "gpt-big"), "gpt-big"),
    ],
)
@pytest.mark.parametrize("variable", [False, True])
def test_what_default_stands_for(
    name: str, target: tuple[str, str | None], own: str, variable: bool, write: Write
) -> None:
    tree: dict[str, Any] = {
        "catalog": "auto",
        "providers": {"openai": KEY},
        "engines": {"e": {"weights": "./w"}},
        "models": {"m": {"card": "gpt-mid"}, "same": {"alias": "m"}},
    }
    if not variable:
        tree["default"] = name
    found = models(write, {"MODEL_ID": name} if variable else {}, **tree)["default"]
    assert asked(found) == [target]
    assert found.alias_of == found.name == own
    assert found.listed


def test_default_may_be_an_entry_of_that_name(write: Write) -> None:
    tree: dict[str, Any] = {
        "providers": {"openai": KEY},
        "models": {"default": {"card": "gpt-big"}},
    }
    for more in ({}, {"default": "default"}):
        found = models(write, **{**tree, **more})["default"]
        assert (found.name, found.alias_of) == ("default", None)


@pytest.mark.parametrize(
    ("tree", "environ", "said"),
    [
        ({"default": "nobody"}, {}, "default: there is no model `nobody`. No model is configured."),
        ({"default": "default"}, {}, "default: there is no model `default`."),
        ({}, {"MODEL_ID": "nobody"}, "MODEL_ID: default: there is no model `nobody`."),
        (
            {"default": "gpt-big", "providers": {"openai": KEY}},
            {},
            "Add `gpt-big: {}` under models, or set `catalog: auto`.",
        ),
        ({"default": "gpt-big"}, {}, "It is openai's: configure that provider and add it under"),
        ({"default": "gpt-old"}, {}, "gpt-old is retired; name another one."),
        ({"default": "acme/Weights-7B"}, {}, "Add an engine with `weights: acme/Weights-7B`."),
        (
            {"default": "e", "engines": {"e": {"weights": "w"}, "default": {"weights": "w"}}},
            {},
            "default: a model or an engine is named `default`, too.",
        ),
    ],
)
def test_a_default_that_nobody_answers_for(
    tree: dict[str, Any], environ: dict[str, str], said: str, write: Write
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(write, environ, **tree)
    assert said in str(caught.value)


# --- cards


def test_a_file_of_cards_goes_over_the_catalog(write: Write) -> None:
    own = {
        "provider": "lab",
        "sources": {},
        "models": [
            {
                **OPENAI["models"][0],
                "description": "Ours.",
                "access_method": "api",
                "aliases": ["embed-one", "big"],
                "cost": {"input": 1},
            }
        ],
    }
    write(yaml.safe_dump(own), "lab.yaml")
    write(json.dumps(HUB), "hub.json")
    found = loaded(
        write,
        cards_of=catalog(OPENAI),
        cards=["hub.json", "lab.yaml"],
        catalog="auto",
        providers={"lab": {**FAR, **KEY}, "openai": KEY},
    )
    assert found.catalog["gpt-big"].provider == "lab"
    assert found.catalog["acme/Small-1B"].name == "Small"
    named = resolve_models(found.config, found.catalog)
    assert asked(named["gpt-big"]) == asked(named["big"]) == [("lab", "gpt-big")]
    assert [path.name for path in found.files][-2:] == ["hub.json", "lab.yaml"]
    assert [Path(source).name for source in found.sources][-2:] == ["hub.json", "lab.yaml"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "{", "c.json:1: This is not JSON"),
        ("c.yaml", "a: [", "c.yaml:1: This is not YAML"),
        ("c.yaml", "a: 1", "c.yaml: must be an object with a list `models`."),
        ("c.json", '{"provider": "p", "models": [{"model_id": "m"}]}', "c.json: m: Object missing"),
        ("c.yaml", "provider: p\nmodels: [{name: x}]", "c.yaml: each of `models` must be"),
    ],
)
def test_a_bad_file_of_cards(name: str, text: str, said: str, write: Write) -> None:
    file = write(text, name)
    with pytest.raises(ConfigError) as caught:
        loaded(write, cards=[name])
    assert said in str(caught.value).replace(f"{file.parent}/", "")


def test_a_file_of_cards_that_is_not_there(write: Write) -> None:
    with pytest.raises(ConfigError, match="There is no such file") as caught:
        loaded(write, cards=["nowhere.json"])
    assert "embedded model" not in str(caught.value)  # that is about another file


async def test_a_changed_file_of_cards_is_a_reload(write: Write) -> None:
    def put(price: float) -> None:
        write(
            json.dumps({**HUB, "defaults": {**HUB["defaults"], "cost": {"input": price}}}), "c.json"
        )

    put(1)
    start = loaded(write, cards=["c.json"])
    before = signature(start)
    put(22)
    assert signature(start) != before
    applied: list[Loaded] = []

    async def apply(new: Loaded) -> None:
        applied.append(new)

    report = await Watcher(start, apply, Metrics(), sleep=lambda _: asyncio.sleep(0)).reload()
    assert (report.result, report.changed) == ("ok", ["cards"])
    assert applied[0].catalog["acme/Small-1B"].cost.input == 22
