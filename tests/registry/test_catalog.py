"""Files of cards, and finding a card by any of its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.registry import Catalog, ModelType, UnknownModel
from server.registry.catalog import CardError, builtin, merge, parse, read
from tests.registry.cards import WHOLE, cards_of, catalog_of


def test_defaults_stand_below_each_card() -> None:
    small, large = cards_of(
        {
            "model_id": "small",
            "specs": {"max_output": 8},
            "sources": {"specs.max_output": "prices"},
        },
        {"model_id": "large", "name": "Large", "cost": {"input": 9.0}},
    )
    assert small.specs.context_window == large.specs.context_window == 128000
    assert (small.specs.max_output, large.specs.max_output) == (8, None)
    assert (small.cost.input, large.cost.input, large.cost.output) == (0.15, 9.0, 0.6)
    assert (small.name, large.name, large.provider) == ("Small", "Large", "lab")
    assert small.type is ModelType.CHAT


def test_null_takes_a_default_away() -> None:
    (card,) = cards_of({"model_id": "m", "cost": {"output": None}, "api_endpoint": None})
    assert card.cost.output is None
    assert card.api_endpoint is None


def test_the_source_of_a_fact_is_the_nearest() -> None:
    (card,) = cards_of({"model_id": "m", "sources": {"cost.output": ["docs", "prices"]}})
    titles = {
        fact: [source.title for source in card.source(fact)]
        for fact in ("cost.input", "cost.output", "specs.context_window", "type")
    }
    assert titles == {
        "cost.input": ["The prices"],
        "cost.output": ["The docs", "The prices"],
        "specs.context_window": ["The docs"],
        "type": ["The docs"],
    }


def test_no_source_is_none() -> None:
    bare = {k: v for k, v in WHOLE.items() if k != "sources"}
    content = {"provider": "lab", "models": [{**bare, "model_id": "m"}]}
    (card,) = parse(content, "lab.json")
    assert card.source("cost.input") == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"specs": {"context_windw": 5}}, "m: unknown key 'specs.context_windw'"),
        ({"colour": "red"}, "m: unknown key 'colour'"),
        ({"type": "chatty"}, "m: Invalid enum value 'chatty'"),
        ({"specs": {"context_window": "128k"}}, "context_window"),
        ({"sources": {"cost": "nowhere"}}, "the source 'nowhere' is not under `sources`"),
        ({"sources": {"cost": 7}}, "the source 7 is not under `sources`"),
        ({"sources": ["nowhere"]}, "`sources` must be an object"),
        ({"name": None}, "name"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CardError) as caught:
        cards_of({"model_id": "m", **change})
    assert str(caught.value).startswith("lab.json: m: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "must be an object with a list `models`"),
        ({"provider": "lab"}, "must be an object with a list `models`"),
        ({"models": []}, "`provider` must be its name"),
        ({"provider": "lab", "models": [], "modles": []}, "unknown key 'modles'"),
        ({"provider": "lab", "models": [{}]}, "with a `model_id`"),
        ({"provider": "lab", "models": ["gpt"]}, "with a `model_id`"),
        ({"provider": "lab", "sources": {"a": {"title": "A"}}, "models": []}, "sources: "),
        ({"provider": "lab", "defaults": ["api"], "models": [{}]}, "`defaults` must be an object"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content: Any, said: str) -> None:
    with pytest.raises(CardError) as caught:
        parse(content, "lab.json")
    assert said in str(caught.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"[NaN]"):
        path = tmp_path / "lab.json"
        path.write_bytes(content)
        with pytest.raises(CardError, match=r"lab\.json: no JSON"):
            read(path)


NAMES = catalog_of(
    {"model_id": "org/Small-7B", "aliases": ["small", "old/small"]},
    {"model_id": "org/Large-70B", "aliases": ["large-latest"]},
    {"model_id": "other/Large-70B"},
    {"model_id": "gone-1", "replaced_by": "gone-2", "status": "retired"},
    {"model_id": "gone-2", "replaced_by": "large-latest", "status": "deprecated"},
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/Small-7B", "org/Small-7B"),
        ("ORG/small-7b", "org/Small-7B"),
        (" small ", "org/Small-7B"),
        ("Old/Small", "org/Small-7B"),
        ("lab/org/Small-7B", "org/Small-7B"),
        ("lab/large-latest", "org/Large-70B"),
        ("Small-7B", "org/Small-7B"),
        ("Large-70B", None),  # two have it
        ("org/large-70b", "org/Large-70B"),
        ("small-7", None),
        ("", None),
    ],
)
def test_a_card_by_any_of_its_names(name: str, found: str | None) -> None:
    card = NAMES.find(name)
    assert (card.model_id if card else None) == found


def test_an_unknown_name_is_refused_with_those_near_it() -> None:
    with pytest.raises(UnknownModel) as caught:
        NAMES.info("org/Smal-7B")
    assert caught.value.near == ("org/Small-7B",)
    assert "Did you mean org/Small-7B?" in str(caught.value)
    with pytest.raises(LookupError, match=r"no model 'zzzzzz'\.$"):
        NAMES.info("zzzzzz")


def test_the_successor_is_the_end_of_the_chain() -> None:
    successor = NAMES.successor(NAMES["gone-1"])
    assert successor is NAMES["org/Large-70B"]
    assert NAMES.successor(successor) is None


def test_a_circle_of_successors_ends() -> None:
    catalog = catalog_of(
        {"model_id": "a", "replaced_by": "b"}, {"model_id": "b", "replaced_by": "a"}
    )
    assert catalog.successor(catalog["a"]) is catalog["b"]


def test_ids_beat_aliases_and_later_files_beat_earlier_ones() -> None:
    first = cards_of({"model_id": "a", "aliases": ["b"]}, {"model_id": "b", "name": "B"})
    assert Catalog(first).find("B") is first[1]
    again = cards_of({"model_id": "a", "name": "Mine"})
    assert Catalog([*first, *again])["a"].name == "Mine"


def test_merging_takes_members_of_objects_alone() -> None:
    below: dict[str, Any] = {"a": {"x": 1, "y": [1]}, "b": 1}
    assert merge(below, {"a": {"y": [2]}, "c": 3}) == {"a": {"x": 1, "y": [2]}, "b": 1, "c": 3}
    assert below == {"a": {"x": 1, "y": [1]}, "b": 1}


def test_it_tells_its_size() -> None:
    assert repr(NAMES) == "<Catalog of 5 models>"


def test_the_built_in_catalog_is_read_once() -> None:
    assert builtin() is builtin()
