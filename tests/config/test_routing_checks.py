"""How a model's requests go: what is refused of it, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.load import Loaded, load
from server.config.resolve import resolve_models
from server.errors import ConfigError
from tests.fakes.catalog import catalog

CATALOG = catalog()
Write = Callable[..., Path]
Entries = dict[str, Any]

ON_E: Entries = {"targets": [{"engine": "e"}]}
UP: Entries = {"provider": "lab", "model": "up"}
AT_LAB: Entries = {"targets": [UP]}
BIG: Entries = {"targets": [{"provider": "openai", "model": "gpt-big"}]}


def loaded(write: Write, entries: Entries, **tree: Any) -> Loaded:
    text = yaml.safe_dump(
        {
            "version": 1,
            "providers": {
                "openai": {"api_key": "k"},
                "lab": {"dialect": "openai", "base_url": "http://127.0.0.1:9/v1"},
            },
            "engines": {
                "e": {"weights": "./w"},
                "small": {"weights": "acme/Small-1B"},
                "far": {"runtime": "external", "urls": ["http://127.0.0.1:10"]},
            },
            "models": entries,
            **tree,
        },
        sort_keys=False,
    )
    return load(write(text), environ={}, catalog=CATALOG)


def refused(write: Write, entries: Entries, **tree: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(write, entries, **tree)
    return str(caught.value).splitlines()


# --- other models that there are not


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"context_fallbacks": ["bg"]}, "m.context_fallbacks[0]: there is no model `bg`. Did you"),
        ({"content_fallbacks": ["bg"]}, "m.content_fallbacks[0]: there is no model `bg`. Did you"),
        ({"bridge": "bg"}, "models.m.bridge: there is no model `bg`. Did you mean `big`?"),
        ({"bridge": "lab/z"}, "`lab/z: {targets: [{provider: lab, model: z}]}`"),
    ],
)
def test_a_model_that_there_is_not(entry: Entries, said: str, write: Write) -> None:
    (found,) = refused(write, {"m": {**BIG, "context_window": 1, **entry}, "big": BIG})
    assert said in found


# --- circles


def windowed(tokens: int) -> Entries:
    return {**ON_E, "context_window": tokens}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            {"a": {**ON_E, "bridge": "a"}},
            ["models.a.bridge: goes round in a circle: a → a. Take one out."],
        ),
        (
            {"a": {**ON_E, "bridge": "b"}, "b": {**ON_E, "bridge": "a"}},
            ["models.b.bridge: goes round in a circle: a → b → a."],
        ),
        (
            {"a": {**ON_E, "bridge": "same"}, "same": {"alias": "a"}},
            ["models.same.alias: goes round in a circle: a → same → a."],
        ),
        (
            {"a": {**ON_E, "content_fallbacks": ["b"]}, "b": {**ON_E, "content_fallbacks": ["a"]}},
            ["models.b.content_fallbacks[0]: goes round in a circle: a → b → a."],
        ),
        (
            {"a": {**ON_E, "fallbacks": ["b"]}, "b": {**ON_E, "fallbacks": ["a"]}},
            ["models.b.fallbacks[0]: goes round in a circle: a → b → a."],
        ),
        # That one of the two cannot be the larger is told, too.
        (
            {
                "a": {**windowed(1), "context_fallbacks": ["b"]},
                "b": {**windowed(2), "context_fallbacks": ["a"]},
            },
            [
                "models.b.context_fallbacks[0]: goes round in a circle: a → b → a.",
                "the context window of `a` is 1 tokens, not more than the 2 of `b`.",
            ],
        ),
        # Told once, although every kind of other models goes over it.
        (
            {"a": {"alias": "b"}, "b": {"alias": "a"}},
            ["models.b.alias: goes round in a circle: a → b → a."],
        ),
    ],
)
def test_circles(entries: Entries, said: list[str], write: Write) -> None:
    found = refused(write, entries)
    assert len(found) == len(said), found
    for line, words in zip(found, said, strict=True):
        assert words in line


def test_two_kinds_make_no_circle(write: Write) -> None:
    """Each begins at another fault: while `a` loads `b` answers, and when `b` is down `a` does."""
    entries = {"a": {**ON_E, "bridge": "b"}, "b": {**AT_LAB, "fallbacks": ["a"]}}
    found = resolve_models(loaded(write, entries).config, CATALOG)
    assert (found["a"].bridge, found["b"].fallbacks) == ("b", ("a",))


# --- windows


@pytest.mark.parametrize(
    ("entry", "others", "said"),
    [
        (
            ON_E,
            {"big": BIG},
            (
                "models.m.context_fallbacks: the context window of `m` is not known, so nobody can "
                "tell which is larger. Write `context_window: …` (tokens) under models.m."
            ),
        ),
        (
            windowed(10),
            {"big": {**AT_LAB, "card": None}},
            (
                "models.m.context_fallbacks[0]: the context window of `big` is not known. "
                "Write `context_window: …` (tokens) under models.big."
            ),
        ),
        (
            windowed(10),
            {"real": AT_LAB, "big": {"alias": "real"}},
            "of `big` is not known. Write `context_window: …` (tokens) under models.real.",
        ),
        (
            windowed(128000),
            {"big": BIG},
            (
                "the context window of `big` is 128000 tokens, not more than the 128000 of `m`. "
                "Name a model with a larger one, or correct it with `context_window: …`."
            ),
        ),
        (windowed(10), {"big": windowed(9)}, "of `big` is 9 tokens, not more than the 10 of `m`."),
        (BIG, {"big": {"targets": [{"engine": "small"}]}}, "8192 tokens, not more than the 128000"),
    ],
)
def test_windows_that_are_not_larger(
    entry: Entries, others: Entries, said: str, write: Write
) -> None:
    (found,) = refused(write, {"m": {**entry, "context_fallbacks": ["big"]}, **others})
    assert said in found


@pytest.mark.parametrize(
    ("entry", "other"),
    [
        (windowed(10), windowed(11)),
        (windowed(10), BIG),
        (windowed(127999), {"alias": "real"}),
        ({"targets": [{"engine": "small"}]}, BIG),
    ],
)
def test_windows_that_are(entry: Entries, other: Entries, write: Write) -> None:
    entries = {"m": {**entry, "context_fallbacks": ["big"]}, "big": other, "real": BIG}
    found = resolve_models(loaded(write, entries).config, CATALOG)["m"].context_fallbacks
    assert found == ("real" if "alias" in other else "big",)


@pytest.mark.parametrize(
    ("other", "entry"),
    [
        ("e", "`e: {targets: [{engine: e}], context_window: …}`"),
        ("gpt-mid", "`gpt-mid: {context_window: …}`"),
    ],
)
def test_what_has_no_entry_gets_one_for_its_window(other: str, entry: str, write: Write) -> None:
    model = {**AT_LAB, "context_window": 1, "context_fallbacks": [other]}
    (said,) = refused(write, {"m": model}, catalog="auto")
    assert said.endswith(
        f"of `{other}` is not known. Give it an entry under models: {entry} (tokens)."
    )


def test_an_engine_and_a_card_have_windows_too(write: Write) -> None:
    entry = {**windowed(8191), "context_fallbacks": ["small", "gpt-big"]}
    found = resolve_models(loaded(write, {"m": entry}, catalog="auto").config, CATALOG)
    assert found["m"].context_fallbacks == ("small", "gpt-big")
    engine = {"weights": "acme/Small-1B", "args": {"max-model-len": 4096}}
    (said,) = refused(
        write, {"m": {**AT_LAB, "context_window": 8191, "context_fallbacks": ["e"]}},
        engines={"e": engine},
    )  # fmt: skip
    assert "the context window of `e` is 4096 tokens, not more than the 8191 of `m`." in said


# --- weights and places


@pytest.mark.parametrize("balance", ["weighted", "affinity"])
def test_weights_of_nothing(balance: str, write: Write) -> None:
    targets = [{"engine": "e", "weight": 0}, {**UP, "weight": 0.0}]
    (said,) = refused(write, {"m": {"balance": balance, "targets": targets}})
    assert "models.m.targets: have the weight 0, all of them, and `balance: " + balance in said
    targets[1]["weight"] = 0.5
    good = resolve_models(loaded(write, {"m": {"balance": balance, "targets": targets}}).config)
    assert [target.weight for target in good["m"].targets] == [0, 0.5]
    # Elsewhere a weight is idle, and no fault.
    loaded(write, {"m": {"targets": [{"engine": "e", "weight": 0}]}})


def test_one_place_has_one_number_of_places(write: Write) -> None:
    first, other = {**UP, "max_in_flight": 3}, {**UP, "max_in_flight": 4}
    (said,) = refused(write, {"a": {"targets": [first]}, "b": {"targets": [other]}})
    assert (
        "models.b.targets[0]: has other limits than another target that is `up` at lab, too. Say "
        "them at one of the two: they hold for both." in said
    )
    loaded(write, {"a": {"targets": [first]}, "b": {"targets": [first]}})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"targets": [{"engine": "e", "max_in_flight": 1}]},
            (
                "models.m.targets[0]: `max_in_flight` belongs to provider targets only: that of an "
                "engine stands at the engine, under `engines.e`."
            ),
        ),
        ({"targets": [{"engine": "e", "max_waiting": 1}]}, "`max_waiting` belongs to provider"),
        ({"targets": [{**UP, "max_in_flight": 0}]}, "should be greater than or equal to 1."),
        ({"targets": [{**UP, "weight": -1}]}, "targets[0].weight: should be greater than or"),
        ({"targets": [{**UP, "weight": "inf"}]}, "targets[0].weight: should be a finite number."),
        ({"targets": [{**UP, "drop": ["messages"]}]}, "without `messages` there is no request."),
        (
            {"targets": [{**UP, "drop": ["a.b"]}]},
            "drop[0]: must be the name of a member",
        ),
        ({**ON_E, "balance": "leastbusy"}, "models.m.balance: must be 'ordered'"),
        ({**ON_E, "while_loading": "refuze"}, "Did you mean `refuse`?"),
        ({**ON_E, "max_in_flight": 0}, "models.m.max_in_flight: should be greater than or equal"),
        ({**ON_E, "max_waiting": -1}, "models.m.max_waiting: should be greater than or equal to 0"),
        ({"alias": "x", "bridge": "y"}, "an alias has no `bridge` of its own."),
        ({"alias": "x", "max_in_flight": 2}, "an alias has no `max_in_flight` of its own."),
    ],
)
def test_entries_that_say_what_cannot_be(entry: Entries, said: str, write: Write) -> None:
    (found,) = refused(write, {"m": entry, "x": BIG, "y": BIG})
    assert said in found


# --- advice


LEAVE_OUT = "Write `balance: weighted`, or leave it out."
NO_ENGINE = "no target of it is an engine that could be loading."


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"targets": [{"engine": "e", "weight": 2}, UP]},
            f"`weight` has no part in `balance: ordered`. {LEAVE_OUT}",
        ),
        (
            {"targets": [{**UP, "weight": 0}], "balance": "least_busy"},
            f"`weight` has no part in `balance: least_busy`. {LEAVE_OUT}",
        ),
        ({"targets": [{"engine": "e", "weight": 2}], "balance": "weighted"}, None),
        ({"targets": [{"engine": "e", "weight": 2}], "balance": "affinity"}, None),
        ({"targets": [{"engine": "e", "weight": 1}, UP]}, None),
        ({**AT_LAB, "bridge": "big"}, f"`bridge` has no effect: {NO_ENGINE}"),
        (
            {**AT_LAB, "while_loading": "refuse"},
            f"`while_loading: refuse` has no effect: {NO_ENGINE}",
        ),
        ({**AT_LAB, "while_loading": "fallback"}, None),
        ({"targets": [UP, {"engine": "e"}], "bridge": "big", "while_loading": "wait"}, None),
        ({"targets": [{"engine": "far"}], "bridge": "big"}, None),
        (
            {"targets": [UP, {"engine": "e"}], "balance": "cheapest"},
            "`balance: cheapest`, but the price of no target is known. Write `prices`.",
        ),
        ({**BIG, "balance": "cheapest"}, None),
        ({"targets": [UP, *BIG["targets"]], "balance": "cheapest"}, None),
        ({**AT_LAB, "balance": "cheapest", "prices": {"input": 1}}, None),
    ],
)
def test_what_has_no_effect(entry: Entries, said: str | None, write: Write) -> None:
    found = loaded(write, {"m": entry, "big": BIG, "same": {"alias": "m"}}).advice
    assert [one.partition(": model ")[2] for one in found] == ([f"`m`: {said}"] if said else [])
    assert all("roundhouse.yaml:" in one for one in found)  # with the line
