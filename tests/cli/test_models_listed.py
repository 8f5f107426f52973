"""What lists of models say, as cards."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.models.listed import cards
from server.dialects.models import entries
from server.registry import Catalog, ModelInfo, ModelType, Source, Status
from server.registry.check import problems
from server.registry.overlay import Overlay
from tests.cli import model_lists as lists

LIST = Source("lab: its own list of models", "https://api.example.com/v1/models", "2026-11-21")


def read(answer: Any) -> dict[str, ModelInfo]:
    models = cards(entries(answer), "lab")
    return {card.model_id: card for card in Overlay("lab", LIST, models).cards()}


def test_a_list_of_ids() -> None:
    found = read(lists.OPENAI)
    assert {name: card.type.value for name, card in found.items()} == {
        "gpt-x": "chat",
        "text-embedding-x": "embedding",
        "whisper-x": "audio",
    }
    assert "chat is assumed" in found["gpt-x"].exceptions["type"]
    assert "what its id says" in found["whisper-x"].exceptions["type"]
    assert found["gpt-x"].specs.context_window is None
    assert found["gpt-x"].sources == {"": (LIST,)}


def test_mistrals_list() -> None:
    found = read(lists.MISTRAL)
    assert list(found) == ["middle-2508", "small-2402", "embed-2312", "ocr-1"]
    middle = found["middle-2508"]
    assert (middle.type, middle.aliases) == (ModelType.MULTIMODAL, ("middle-latest",))
    assert middle.specs.context_window == 131072
    assert (middle.abilities.tools, middle.abilities.vision) == (True, True)
    assert middle.default_temperature == 0.3
    assert middle.description == "A middle-sized model."
    assert middle.abilities.json_schema is None
    small = found["small-2402"]
    assert (small.status, small.retires) == (Status.DEPRECATED, "2026-12-31")
    assert small.replaced_by == "small-2603"
    assert (small.type, small.abilities.tools) == (ModelType.CHAT, False)
    assert found["embed-2312"].type is ModelType.EMBEDDING
    assert found["embed-2312"].abilities.tools is None
    assert found["ocr-1"].type is ModelType.VISION
    assert "type" not in found["ocr-1"].exceptions


def test_a_name_that_is_another_entrys_id_is_that_entry() -> None:
    latest = lists.mistral("m-latest", "m-2611")
    found = read([latest, lists.mistral("m-2611", "m-2611", "m-medium")])
    assert list(found) == ["m-2611"]
    assert found["m-2611"].aliases == ("m-latest", "m-medium")


def test_the_routers_list() -> None:
    (card,) = read(lists.ROUTER).values()
    assert card.type is ModelType.MULTIMODAL
    assert card.specs.context_window == 131072
    assert card.specs.input_modalities == ("text", "image")
    assert (card.cost.input, card.cost.output) == (0.4, 1.2)
    assert card.cost.notes == "The router's price at two, the cheapest of 2 that give one."
    assert (card.abilities.tools, card.abilities.json_schema) == (True, False)
    assert card.abilities.vision is True


def test_anthropics_list() -> None:
    found = read(lists.ANTHROPIC)
    card = found["claude-x"]
    assert (card.name, card.type) == ("Claude X", ModelType.MULTIMODAL)
    assert (card.specs.context_window, card.specs.max_output) == (200000, 64000)
    assert (card.abilities.vision, card.abilities.json_schema) == (True, True)
    assert card.abilities.reasoning is True
    assert card.abilities.tools is None
    assert "type" in found["claude-old"].exceptions


def test_coheres_list() -> None:
    found = read(lists.COHERE)
    card = found["command-x"]
    assert (card.type, card.status) == (ModelType.CHAT, Status.DEPRECATED)
    assert card.specs.context_window == 288000
    assert (card.abilities.tools, card.abilities.json_schema) == (True, True)
    assert card.abilities.vision is None
    assert [found[name].type.value for name in ("embed-x", "rank-x")] == ["embedding", "rerank"]
    assert found["rank-x"].specs.context_window is None


def test_coheres_recorded_model(recordings_dir: Path) -> None:
    lines = (recordings_dir / "cohere.jsonl").read_text("utf-8").splitlines()
    (recorded,) = [one for line in lines if (one := json.loads(line))["method"] == "GET"]
    (card,) = read({"models": [json.loads(recorded["body"])]}).values()
    assert card.model_id == "command-a-03-2025"
    assert (card.type, card.specs.context_window) == (ModelType.CHAT, 288000)
    assert (card.abilities.tools, card.abilities.json_schema) == (True, True)


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 16384}, 16384),  # vLLM
        ({"context_window": 131072, "max_completion_tokens": 8192}, 131072),  # Groq
        ({"context_length": 0}, None),
        ({"context_length": True}, None),
        ({"context_length": "many"}, None),
        ({"context_length": float("inf")}, None),
        ({"context_length": 10**400}, None),
    ],
)
def test_windows(entry: dict[str, Any], window: int | None) -> None:
    assert read([{"id": "m", **entry}])["m"].specs.context_window == window


@pytest.mark.parametrize(
    ("said", "retires"),
    [
        ("2026-12-31", "2026-12-31"),
        ("2026-12-31T12:00:00Z", "2026-12-31"),
        ("2026-13-45T00:00:00Z", None),
        ("20261231", None),
        ("soon", None),
        (20261231, None),
    ],
)
def test_ends(said: Any, retires: str | None) -> None:
    entry = {"id": "m", "deprecation": said, "deprecation_replacement_model": "m"}
    card = read([entry])["m"]
    assert card.retires == retires
    assert card.status is (Status.CURRENT if retires is None else Status.DEPRECATED)
    assert card.replaced_by is None  # it is no successor of itself


def test_prices_by_the_token() -> None:
    pricing = {"prompt": "0.00000015", "completion": "0.0000006", "image": "0"}
    card = read({"data": [{"id": "m", "pricing": pricing}]})["m"]
    assert (card.cost.input, card.cost.output) == (0.15, 0.6)
    strange = {"prompt": "-1", "completion": "free", "input": 3}
    assert read([{"id": "m", "pricing": strange}])["m"].cost.input is None


@pytest.mark.parametrize("strange", ["", " a", "a\n", "\x1b[31ma", "a" * 201, 7, None, ["a"]])
def test_what_is_no_id_is_passed_over(strange: Any) -> None:
    assert list(read([{"id": strange}, {"id": "m", "aliases": [strange]}, strange])) == ["m"]
    assert read([{"id": "m", "aliases": [strange]}])["m"].aliases == ()


def test_all_is_as_a_card_must_be() -> None:
    known = (lists.OPENAI, lists.MISTRAL, lists.ROUTER, lists.ANTHROPIC, lists.COHERE)
    others = (lists.OPENROUTER, lists.TOGETHER, lists.FIREWORKS, lists.AZURE, lists.ROUNDHOUSE)
    for answer in (*known, *others):
        found = read(answer)
        catalog = Catalog(found.values())
        wrong = [p for card in found.values() for p in problems(card, catalog, date(2026, 11, 21))]
        # A reason for an assumed type stands beside it, and a list may name what it does not have.
        assert [p for p in wrong if "names type" not in p and "has no card" not in p] == []


_KEYS = st.sampled_from(
    "id name aliases capabilities completion_chat image_input supported endpoints features "
    "providers pricing input output provider status architecture input_modalities context_length "
    "max_input_tokens max_tokens deprecation is_deprecated description display_name".split()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.no_cover
@given(st.lists(st.dictionaries(_KEYS, _JSON) | _JSON, max_size=4))
def test_whatever_an_upstream_writes_becomes_cards_or_nothing(answer: list[Any]) -> None:
    found = read(answer)
    for card in found.values():
        assert card.model_id.isprintable()
        assert card.specs.context_window is None or card.specs.context_window > 0
