"""What is asked of every card."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from server.registry import Catalog
from server.registry.catalog import DATA, merge, parse
from server.registry.check import main, problems, report, schema
from tests.registry.cards import SOURCES, WHOLE, cards_of, file_of

LOCAL: dict[str, Any] = {
    "access_method": "local",
    "api_endpoint": None,
    "specs": {"parameters": 7_000_000_000},
    "licence": {"id": "MIT", "kind": "open-source"},
    "cost": {"input": None, "output": None},
    "links": {"model_card": "https://example.com/card"},
}


def wrong(*models: dict[str, Any]) -> list[str]:
    cards = cards_of(*models)
    catalog = Catalog(cards)
    return [what for card in cards for what in problems(card, catalog, date(2026, 11, 21))]


@pytest.mark.parametrize("change", [{}, LOCAL, {"type": "embedding", "abilities": {}}])
def test_a_whole_card_is_good(change: dict[str, Any]) -> None:
    assert wrong({"model_id": "m", **change}) == []


@pytest.mark.parametrize(
    "fact",
    [
        "specs.context_window",
        "specs.input_modalities",
        "specs.output_modalities",
        "licence.id",
        "licence.kind",
        "licence.commercial_use",
        "origin.creator",
        "abilities.tools",
        "abilities.vision",
        "cost.input",
        "cost.output",
    ],
)
def test_what_ought_to_be_known_is_or_its_reason_is(fact: str) -> None:
    group, name = fact.split(".")
    without: dict[str, Any] = {"model_id": "m", group: {name: None}}
    assert wrong(without) == [f"{fact} is not known, and `exceptions` does not say why"]
    assert wrong({**without, "exceptions": {fact: "Its maker does not say."}}) == []
    assert wrong({**without, "exceptions": {group: "Its maker does not say."}}) == []
    assert wrong({**without, "exceptions": {fact: "?"}}) == [
        f"`exceptions` gives no reason for {fact}"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"api_endpoint": None}, "api_endpoint.url is not known"),
        (merge(LOCAL, {"specs": {"parameters": None}}), "specs.parameters is not known"),
        (merge(LOCAL, {"links": {"model_card": None}}), "links.model_card is not known"),
        ({"exceptions": {"cost.input": "Nobody says what."}}, "names cost.input, which is known"),
        ({"specs": {"context_window": 0}}, "specs.context_window must be more than 0"),
        ({"specs": {"active_parameters": 5}}, "active_parameters is more than"),
        ({"specs": {"knowledge_date": "May 2024"}}, "knowledge_date is no date"),
        ({"specs": {"input_modalities": ["smell"]}}, "'smell' is no modality"),
        ({"cost": {"input": -1.0}}, "a price is below 0"),
        ({"cost": {"other": {"image": -1.0}}}, "a price is below 0"),
        ({"status": "retired", "retires": "soon"}, "retires is no day"),
        ({"retires": "2027-01-01"}, "it has an end"),
        (merge(LOCAL, {"licence": {"kind": "proprietary"}}), "has no weights to run"),
        ({"origin": {"training": "self-taught"}}, "origin.training must be"),
        ({"recommended": ["juggling"]}, "'juggling' is no task"),
        ({"links": {"documentation": "http://x"}}, "'http://x' is no https address"),
        ({"description": "Talks"}, "the description must be a sentence"),
        ({"replaced_by": "nobody"}, "replaced by 'nobody', which has no card"),
        ({"sources": {"": []}}, "type has no source"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], said: str) -> None:
    assert any(said in line for line in wrong({"model_id": "m", **change}))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"url": "http://x"}, "has no https address"),
        ({"title": " "}, "has no title"),
        ({"date": "Nov 2026"}, "has no day"),
        ({"date": "2026-11-22"}, "is from the future"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(source: dict[str, str], said: str) -> None:
    content = {**file_of({"model_id": "m"}), "sources": merge(SOURCES, {"docs": source})}
    (card,) = parse(content, "lab.json")
    assert [said in what for what in problems(card, Catalog([card]), date(2026, 11, 21))] == [True]


def test_a_name_that_two_have() -> None:
    said = wrong({"model_id": "a", "aliases": ["B"]}, {"model_id": "b"})
    assert said == ["the name 'B' is b's, too"]


def test_what_is_retired_needs_no_price_but_a_successor() -> None:
    retired = {"model_id": "m", "status": "retired", "cost": {"input": None}}
    assert wrong(retired) == ["replaced_by is not known, and `exceptions` does not say why"]
    assert wrong({**retired, "exceptions": {"replaced_by": "Its provider names none."}}) == []


def test_the_command_says_what_is_wrong_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, broken = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "broken.json"
    good.write_text(json.dumps(file_of({"model_id": "m"})))
    bad.write_text(json.dumps(file_of({"model_id": "m", "cost": {"input": -1}})))
    broken.write_text("[]")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out == "1 cards in 1 files: good\n"
    assert main([str(good), str(bad), str(broken)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "broken.json: must be an object with a list `models`",
        "m: has 2 cards",
        "bad.json: m: a price is below 0",
        "3 problems",
    ]


def test_the_built_in_catalog_is_good() -> None:
    assert report(sorted(DATA.glob("*.json"))) == []


def test_the_schema_has_every_field_and_nothing_else(tmp_path: Path) -> None:
    found = schema()
    model = found["$defs"]["ModelInfo"]
    assert set(WHOLE) < set(model["properties"])
    assert model["additionalProperties"] is False
    out = tmp_path / "schema.json"
    assert main(["--schema", str(out)]) == 0
    assert out.read_text() == json.dumps(found, indent=2) + "\n"
