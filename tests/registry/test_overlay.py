"""Overlays: they fill and add; what was checked stays until somebody has accepted otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.registry import CardError, Catalog, ModelInfo, Source, Status
from server.registry.catalog import parse
from server.registry.overlay import (
    Accepted,
    Difference,
    Overlay,
    facts,
    filled,
    matches,
    read,
    with_overlay,
)
from tests.registry.cards import catalog_of

LIST = Source("lab: its own list of models", "https://api.example.com/v1/models", "2026-11-21")


def listed(*models: dict[str, Any], provider: str = "lab") -> list[ModelInfo]:
    """Cards as `sync` writes them; each is a chat model by the list's own words."""
    whole = [{"name": "N", "type": "chat", "description": "Listed.", **model} for model in models]
    return Overlay(provider, LIST, whole).cards()


def test_it_fills_what_is_not_known() -> None:
    catalog = catalog_of({"model_id": "a", "specs": {"context_window": None}})
    cards = listed({"model_id": "A", "specs": {"context_window": 32000, "max_output": 4000}})
    merged, differences = with_overlay(catalog, cards)
    assert differences == []
    assert list(merged) == ["a"]
    assert (merged["a"].specs.context_window, merged["a"].specs.max_output) == (32000, 4000)
    assert merged["a"].source("specs.max_output") == (LIST,)
    assert merged["a"].source("specs.input_modalities")[0].title == "The docs"
    assert filled(catalog["a"], merged["a"]) == {"specs.context_window", "specs.max_output"}


def test_a_reason_for_not_knowing_goes_once_it_is_known() -> None:
    catalog = catalog_of(
        {
            "model_id": "a",
            "specs": {"context_window": None},
            "exceptions": {"specs.context_window": "Nobody says.", "specs.dimensions": "None."},
        }
    )
    merged, _ = with_overlay(catalog, listed({"model_id": "a", "specs": {"context_window": 1}}))
    assert merged["a"].exceptions == {"specs.dimensions": "None."}


def test_a_checked_fact_stays_and_the_difference_is_told() -> None:
    catalog = catalog_of({"model_id": "a"})
    cards = listed({"model_id": "a", "specs": {"context_window": 100}, "cost": {"output": 0.6}})
    merged, differences = with_overlay(catalog, cards)
    assert differences == [Difference("a", "specs.context_window", 128000, 100, LIST)]
    assert merged == catalog


def test_an_accepted_difference_wins_while_both_values_stay() -> None:
    catalog = catalog_of({"model_id": "a"})
    cards = listed({"model_id": "a", "specs": {"context_window": 100}})
    agreed = Accepted("a", "specs.context_window", 128000, 100)
    merged, differences = with_overlay(catalog, cards, [agreed])
    assert [one.accepted for one in differences] == [True]
    assert merged["a"].specs.context_window == 100
    assert merged["a"].source("specs.context_window") == (LIST,)
    for other in (replace(agreed, checked=1), replace(agreed, listed=99)):
        merged, differences = with_overlay(catalog, cards, [other])
        assert merged["a"].specs.context_window == 128000
        assert [one.accepted for one in differences] == [False]


def test_a_new_model_is_added() -> None:
    catalog = catalog_of({"model_id": "a"})
    cards = listed({"model_id": "b", "aliases": ["b-latest"], "exceptions": {"type": "Assumed."}})
    merged, differences = with_overlay(catalog, cards)
    assert differences == []
    assert list(merged) == ["a", "b"]
    assert merged.info("b-latest").model_id == "b"
    assert merged["b"].specs.context_window is None
    assert "type" in filled(None, merged["b"])


def test_a_type_that_the_list_does_not_give_is_no_fact() -> None:
    catalog = catalog_of({"model_id": "a", "type": "embedding"})
    assumed = listed({"model_id": "a", "exceptions": {"type": "Chat is assumed."}})
    assert with_overlay(catalog, assumed) == (catalog, [])
    _, differences = with_overlay(catalog, listed({"model_id": "a"}))
    assert [(one.fact, one.checked, one.listed) for one in differences] == [
        ("type", "embedding", "chat")
    ]


def test_kinds_of_chat_do_not_contradict_each_other() -> None:
    catalog = catalog_of({"model_id": "a", "type": "multimodal"})
    assert with_overlay(catalog, listed({"model_id": "a"})) == (catalog, [])


def test_the_order_of_modalities_means_nothing() -> None:
    catalog = catalog_of({"model_id": "a", "specs": {"input_modalities": ["text", "image"]}})
    cards = listed({"model_id": "a", "specs": {"input_modalities": ["image", "text"]}})
    assert with_overlay(catalog, cards) == (catalog, [])


def test_words_never_contradict() -> None:
    catalog = catalog_of({"model_id": "a", "cost": {"notes": "Cheap."}})
    assert with_overlay(catalog, listed({"model_id": "a", "cost": {"notes": "Dear."}})) == (
        catalog,
        [],
    )


def test_notes_come_only_with_their_prices() -> None:
    cards = listed({"model_id": "a", "cost": {"input": 0.15, "output": 0.6, "notes": "At one."}})
    assert with_overlay(catalog_of({"model_id": "a"}), cards)[0]["a"].cost.notes is None
    without = catalog_of({"model_id": "a", "cost": {"input": None}})
    assert with_overlay(without, cards)[0]["a"].cost.notes == "At one."


class TestEnds:
    def test_to_be_listed_is_to_answer(self) -> None:
        retired = catalog_of({"model_id": "a", "status": "retired", "retires": "2026-01-01"})
        merged, differences = with_overlay(retired, listed({"model_id": "a"}))
        assert merged == retired
        assert [(one.checked, one.listed) for one in differences] == [("retired", "current")]
        merged, _ = with_overlay(
            retired, listed({"model_id": "a"}), [one.told for one in differences]
        )
        assert (merged["a"].status, merged["a"].retires) == (Status.CURRENT, None)

    def test_a_list_need_not_say_that_an_end_is_near(self) -> None:
        near = catalog_of({"model_id": "a", "status": "deprecated", "retires": "2027-01-01"})
        assert with_overlay(near, listed({"model_id": "a"})) == (near, [])

    def test_an_end_that_only_the_list_knows(self) -> None:
        catalog = catalog_of({"model_id": "a"})
        cards = listed(
            {
                "model_id": "a",
                "status": "deprecated",
                "retires": "2027-01-01",
                "replaced_by": "b",
            }
        )
        merged, differences = with_overlay(catalog, cards)
        assert merged == catalog  # no end of a model that is current
        assert [one.fact for one in differences] == ["status"]
        merged, _ = with_overlay(catalog, cards, [one.told for one in differences])
        assert (merged["a"].status, merged["a"].retires) == (Status.DEPRECATED, "2027-01-01")
        assert merged["a"].replaced_by == "b"


class TestNames:
    def test_an_alias_there_is_an_id_here_and_the_other_way_round(self) -> None:
        catalog = catalog_of({"model_id": "m-2508", "aliases": ["m-latest"]}, {"model_id": "n"})
        cards = listed({"model_id": "m-latest"}, {"model_id": "n-2411", "aliases": ["N"]})
        assert matches(catalog, cards) == {"m-latest": "m-2508", "n-2411": "n"}
        merged, _ = with_overlay(catalog, cards)
        assert list(merged) == ["m-2508", "n"]
        assert merged.info("n-2411").model_id == "n"

    def test_an_alias_that_has_moved_on_is_a_difference(self) -> None:
        catalog = catalog_of({"model_id": "m-2505", "aliases": ["m-latest", "m"]})
        cards = listed({"model_id": "m-2508", "aliases": ["m-latest"]})
        merged, differences = with_overlay(catalog, cards)
        assert merged.info("m-latest").model_id == "m-2505"
        assert differences == [Difference("m-2508", "alias m-latest", "m-2505", "m-2508", LIST)]
        merged, _ = with_overlay(catalog, cards, [one.told for one in differences])
        assert merged.info("m-latest").model_id == "m-2508"
        assert merged["m-2505"].aliases == ("m",)

    def test_an_alias_that_is_a_card_of_its_own_stays_one(self) -> None:
        catalog = catalog_of({"model_id": "a"}, {"model_id": "b"})
        cards = listed({"model_id": "a", "aliases": ["b"]})
        assert with_overlay(catalog, cards) == (catalog, [])

    def test_other_providers_cards_are_passed_over(self) -> None:
        catalog = catalog_of({"model_id": "org/a"}, provider="huggingface")
        cards = listed({"model_id": "org/a", "specs": {"context_window": 16000}})
        assert with_overlay(catalog, cards) == (catalog, [])
        merged, _ = with_overlay(catalog, listed({"model_id": "a"}))
        assert list(merged) == ["org/a", "a"]  # the last part of an id proves nothing


#: A file of cards whose provider is not its defaults'.
OTHER = """{"provider": "lab", "sources": {"list": {"title": "t", "url": "u", "date": "d"}},
"defaults": {"provider": "other"}, "models": [{"model_id": "a", "name": "A", "type": "chat",
"access_method": "api", "description": "d"}]}"""


class TestFiles:
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        model = {"model_id": "ä", "name": "Ä", "type": "chat", "description": "Listed."}
        overlay = Overlay("lab", LIST, [model], [Accepted("a", "cost.input", 1.5, [2])])
        (tmp_path / "lab.json").write_text(overlay.text(), encoding="utf-8")
        assert read(tmp_path / "lab.json") == overlay
        assert read(tmp_path / "lab.json").text() == overlay.text()

    def test_without_what_was_accepted_it_is_a_file_of_cards(self) -> None:
        import json

        model = {"model_id": "a", "name": "A", "type": "chat", "description": "Listed."}
        overlay = Overlay("lab", LIST, [model])
        assert parse(json.loads(overlay.text()), "lab.json") == overlay.cards()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "no JSON"),
            ("[" * 100_000, "no JSON"),
            (f'{{"models": [{"9" * 5000}]}}', "no JSON"),
            ('{"models": [{"cost": {"input": NaN}}]}', "no JSON"),
            ("[]", "must be an object"),
            ('{"provider": "lab", "sources": {}, "models": []}', "was not written by"),
            ('{"provider": "lab", "models": [], "accepted": [1]}', "was not written by"),
            (OTHER, "was not written by"),
        ],
    )
    def test_other_files(self, text: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "lab.json").write_text(text, encoding="utf-8")
        with pytest.raises(CardError, match=said):
            read(tmp_path / "lab.json")


# --- whatever a list says ---------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "c", "A", "a-latest", "b-latest", "new", "new-latest"])
_MODELS = st.fixed_dictionaries(
    {
        "model_id": _NAMES,
        "type": st.sampled_from(["chat", "multimodal", "embedding"]),
    },
    optional={
        "aliases": st.lists(_NAMES, max_size=3),
        "status": st.sampled_from(["current", "deprecated", "retired"]),
        "retires": st.just("2027-01-01"),
        "replaced_by": st.just("b"),
        "specs": st.fixed_dictionaries(
            {}, optional={"context_window": st.integers(1, 3), "max_output": st.integers(1, 3)}
        ),
        "cost": st.fixed_dictionaries(
            {}, optional={"input": st.sampled_from([0.15, 1.0]), "notes": st.just("Other words.")}
        ),
        "abilities": st.fixed_dictionaries({}, optional={"vision": st.booleans()}),
        "exceptions": st.just({"type": "Chat is assumed."}),
    },
)
CATALOG = Catalog(
    [
        *catalog_of(
            {"model_id": "a", "aliases": ["a-latest"], "specs": {"context_window": 2}},
            {"model_id": "b", "cost": {"input": None}, "abilities": {"vision": None}},
        ).values(),
        *catalog_of({"model_id": "c", "type": "embedding"}, provider="other").values(),
    ]
)


@given(st.lists(_MODELS, max_size=4))
@example(
    # An alias that is another provider's id; then the same model once more, without it.
    [{"model_id": "new", "aliases": ["c"], "abilities": {"vision": True}}, {"model_id": "new"}]
)
def test_twice_is_once_and_checked_facts_stay(models: list[dict[str, Any]]) -> None:
    cards = listed(*models)
    once, differences = with_overlay(CATALOG, cards)
    assert with_overlay(once, cards)[0] == once
    for card in CATALOG.values():
        now = once[card.model_id]
        assert facts(card).items() <= facts(now).items()
        assert set(card.aliases) <= set(now.aliases)
    assert once["c"] == CATALOG["c"]
    assert not any(one.accepted for one in differences)


@given(st.lists(_MODELS, max_size=1))
def test_twice_is_once_also_when_all_was_accepted(models: list[dict[str, Any]]) -> None:
    cards = listed(*models)
    agreed = [one.told for one in with_overlay(CATALOG, cards)[1]]
    once, differences = with_overlay(CATALOG, cards, agreed)
    assert all(one.accepted for one in differences)
    again, left = with_overlay(once, cards, agreed)
    assert again == once
    assert left == []
