"""What providers list as their models: where, page after page, and each one's own words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.providers_table import ROWS
from server.dialects import models
from server.dialects.model_entries import READERS, Prices
from server.dialects.models import Listed, NoList, Place, entries, listed, next_page, place
from server.registry.cards import ModelType
from tests.cli import model_lists as lists


def one(**entry: Any) -> Listed:
    (found,) = listed([{"id": "m", **entry}])
    return found


# --- where


@pytest.mark.parametrize(
    ("dialect", "base", "expected"),
    [
        ("openai", "https://x.test/v1", Place("https://x.test/v1/models")),
        ("mistral", "https://x.test/v1", Place("https://x.test/v1/models")),
        ("cohere", "https://x.test/v2", Place("https://x.test/v1/models", {"page_size": "1000"})),
        (
            "anthropic",
            "https://x.test/v1",
            Place(
                "https://x.test/v1/models",
                {"limit": "1000"},
                {"anthropic-version": "2023-06-01"},
            ),
        ),
    ],
)
def test_where_a_list_is(dialect: str, base: str, expected: Place) -> None:
    assert place(dialect, base) == expected


def test_the_accounts_version_is_that_of_its_list() -> None:
    asked = place("anthropic", "https://x.test", {"version": "2026-10-21"})
    assert asked.headers == {"anthropic-version": "2026-10-21"}
    assert asked.url == "https://x.test/v1/models"


@pytest.mark.parametrize("name", ROWS)
def test_every_known_provider_has_a_place(name: str) -> None:
    row = ROWS[name]
    assert place(row.dialect, row.base_url or row.example or "").url.endswith("/models")


# --- pages


@pytest.mark.parametrize("answer", [{}, {"data": {}}, {"error": "x"}, "text", 7, None])
def test_what_is_no_list(answer: Any) -> None:
    with pytest.raises(NoList):
        entries(answer)


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        (lists.ANTHROPIC, None),
        ({**lists.ANTHROPIC, "has_more": True}, {"after_id": "claude-old"}),
        ({"has_more": True, "last_id": 7}, None),
        (lists.COHERE, None),
        ({**lists.COHERE, "next_page_token": "t"}, {"page_token": "t"}),
        (lists.OPENROUTER, {"offset": "500", "limit": "500"}),
        ({"links": {"next": "https://elsewhere.test/?key=x"}}, None),
        ({"links": {"next": None}}, None),
        ({"links": "next"}, None),
        ([], None),
    ],
)
def test_pages(answer: Any, more: dict[str, str] | None) -> None:
    assert next_page(answer) == more


# --- what they say


def test_ids_alone() -> None:
    found = listed(lists.OPENAI["data"])
    assert found[0] == Listed("gpt-x", created=1686935002)
    assert [model.id for model in found] == ["gpt-x", "text-embedding-x", "whisper-x"]


def test_anthropic() -> None:
    first, second = listed(lists.ANTHROPIC["data"])
    assert first == Listed(
        "claude-x",
        name="Claude X",
        type=ModelType.MULTIMODAL,
        created=1771459200,
        context_window=200000,
        max_output=64000,
        abilities={"vision": True, "json_schema": True, "reasoning": True},
    )
    assert second == Listed("claude-old", name="Claude Old")  # of 1970, which says nothing


def test_openrouter() -> None:
    (found,) = listed(lists.OPENROUTER["data"])
    assert found == Listed(
        "org/model-x",
        name="Org: Model X",
        description="A model.",
        type=ModelType.MULTIMODAL,
        created=1692901234,
        context_window=131072,
        max_output=16384,
        input_modalities=("text", "image"),
        output_modalities=("text",),
        abilities={"tools": True, "json_schema": True, "vision": True, "audio": False},
        prices=Prices(0.15, 0.075, 0.6),
        deprecated=True,
        retires="2027-01-31",
    )
    paints = one(supported_parameters=[], architecture={"output_modalities": ["image"]})
    assert (paints.type, paints.abilities) == (None, {})


def test_together() -> None:
    chat, rank, hourly = listed(entries(lists.TOGETHER))
    assert chat == Listed(
        "org/Chat-70B",
        name="Chat 70B",
        type=ModelType.CHAT,
        created=1692896905,
        context_window=131072,
        prices=Prices(0.88, None, 0.9),
    )
    assert (rank.type, rank.prices) == (ModelType.RERANK, Prices(0.1, None, 0.0))
    assert (hourly.type, hourly.prices) == (ModelType.COMPLETION, Prices())


@pytest.mark.parametrize(
    ("entry", "kind", "abilities"),
    [
        ({}, ModelType.CHAT, {"tools": True, "vision": False}),
        (
            {"supports_image_input": True, "supports_tools": None},
            ModelType.MULTIMODAL,
            {"vision": True},
        ),
        ({"supports_chat": False}, None, {}),
        ({"supports_chat": False, "kind": "EMBEDDING_MODEL"}, ModelType.EMBEDDING, {}),
    ],
)
def test_fireworks(
    entry: dict[str, Any], kind: ModelType | None, abilities: dict[str, bool]
) -> None:
    found = one(**{**lists.FIREWORKS["data"][0], **entry})
    assert (found.id, found.context_window) == ("accounts/fireworks/models/x", 163840)
    assert (found.type, found.abilities) == (kind, abilities)


@pytest.mark.parametrize(
    ("entry", "kind", "retires"),
    [
        ({}, ModelType.CHAT, None),
        ({"lifecycle_status": "deprecating"}, ModelType.CHAT, "2027-01-15"),
        ({"lifecycle_status": "deprecated", "deprecation": {}}, ModelType.CHAT, None),
        (
            {"capabilities": {"chat_completion": False, "embeddings": True}},
            ModelType.EMBEDDING,
            None,
        ),
        ({"capabilities": {"chat_completion": False}}, None, None),
    ],
)
def test_azure(entry: dict[str, Any], kind: ModelType | None, retires: str | None) -> None:
    found = one(**{**lists.AZURE["data"][0], **entry})
    assert (found.id, found.type, found.retires) == ("gpt-x-2026-01-01", kind, retires)
    assert found.deprecated is ("lifecycle_status" in entry)
    assert found.created == 1767225600


def test_another_roundhouse() -> None:
    full, bare = listed(lists.ROUNDHOUSE["data"])
    assert full == Listed(
        "mine",
        type=ModelType.MULTIMODAL,
        created=1795219200,
        context_window=128000,
        max_output=4096,
        input_modalities=("text", "image"),
        output_modalities=("text",),
        abilities={"tools": True, "audio": False},
        prices=Prices(2.0, 0.5, 8.0),
        deprecated=True,
        retires="2027-01-01",
        replaced_by="better",
    )
    assert bare == Listed("plain", created=1795219200)


def test_googles_ids_are_as_people_say_them() -> None:
    gemini, tuned = listed([{"id": "models/gemini-x"}, {"id": "models/of/somebody"}])
    assert (gemini.id, gemini.names) == ("gemini-x", ())
    assert tuned.id == "models/of/somebody"


def test_groqs_switched_off_models_are_left_out() -> None:
    found = listed([{"id": "on", "active": True}, {"id": "off", "active": False}])
    assert [model.id for model in found] == ["on"]


def test_what_llamacpp_lists_beside() -> None:
    """The same models once more, in the form of another API."""
    answer = {"models": [{"name": "x.gguf", "model": "x.gguf"}], "data": [{"id": "x.gguf"}]}
    assert listed(entries(answer)) == [Listed("x.gguf")]


@pytest.mark.parametrize(
    ("said", "created"),
    [
        ({"created": 0}, None),
        ({"created": 1692901234.5}, 1692901234),
        ({"created": 1e300}, None),
        ({"created": float("nan")}, None),
        ({"created": True}, None),
        ({"created_at": 1767225600}, 1767225600),
        ({"created_at": "2026-01-01T00:00:00Z"}, 1767225600),
        ({"created_at": "2026-01-01"}, 1767225600),
        ({"created_at": "lately"}, None),
    ],
)
def test_when_it_was_made(said: dict[str, Any], created: int | None) -> None:
    assert one(**said).created == created


def test_each_reader_knows_its_own_entries_alone() -> None:
    all_lists = {
        "mistral": lists.MISTRAL["data"],
        "anthropic": lists.ANTHROPIC["data"][:1],
        "cohere": lists.COHERE["models"],
        "router": lists.ROUTER["data"],
        "openrouter": lists.OPENROUTER["data"],
        "together": lists.TOGETHER,
        "fireworks": lists.FIREWORKS["data"],
        "azure": lists.AZURE["data"],
        "roundhouse": lists.ROUNDHOUSE["data"][:1],
    }
    assert set(all_lists) == {reader.__name__ for reader in READERS}
    for name, found in all_lists.items():
        for entry in found:
            knows = {reader.__name__ for reader in READERS if reader(entry) is not None}
            assert knows == {name}
    for entry in [*lists.OPENAI["data"], {"id": "m"}]:
        assert all(reader(entry) is None for reader in READERS)


_KEYS = st.sampled_from(
    "id name aliases capabilities completion_chat chat_completion image_input supported endpoints "
    "features providers pricing input output prompt type roundhouse abilities tools modalities "
    "supported_parameters supports_chat supports_tools kind architecture input_modalities created "
    "created_at deprecation inference lifecycle_status expiration_date retires links next".split()
)
_WORDS = st.sampled_from(["chat", "deprecated", "models/x", "2026-12-31", "0.5", "EMBEDDING_MODEL"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=10,
)


@pytest.mark.no_cover
@given(st.lists(st.dictionaries(_KEYS, _JSON) | _JSON, max_size=4), _JSON)
def test_nothing_makes_them_stumble(found: list[Any], answer: Any) -> None:
    next_page(answer)
    ids = [model.id for model in models.listed(found)]
    assert len(ids) == len(set(ids))
    assert all(model_id.isprintable() and model_id for model_id in ids)
