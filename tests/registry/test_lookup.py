"""The look-up functions, by their promises, over the built-in catalog."""

from __future__ import annotations

import json

import pytest
import yaml

from server import registry
from server.registry import (
    AccessMethod,
    ModelType,
    UnknownModel,
    export_to_dict,
    get_free_models,
    get_local_models,
    get_model_info,
    list_models_by_provider,
    list_models_by_type,
    search_models,
)
from server.registry.searching import search
from tests.registry.cards import catalog_of


def test_a_card_by_its_name() -> None:
    assert get_model_info("gpt-4o-mini").specs.context_window == 128000
    assert get_model_info("OpenAI/GPT-4o-mini") is get_model_info("gpt-4o-mini")
    with pytest.raises(UnknownModel, match="Did you mean gpt-4o"):
        get_model_info("gpt-4o-minni")


def test_by_provider() -> None:
    found = list_models_by_provider("OpenAI")
    assert {card.provider for card in found} == {"openai"}
    assert len(found) >= 20
    with pytest.raises(LookupError, match=r"no provider 'opnai'\. It has .*openai"):
        list_models_by_provider("opnai")


@pytest.mark.parametrize("kind", ModelType)
def test_by_type(kind: ModelType) -> None:
    found = list_models_by_type(kind.value.upper())
    assert found == list_models_by_type(kind)
    assert {card.type for card in found} == {kind}, f"no model is {kind.value}"


def test_a_type_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"'chatty' is no type of model\. Types: chat, instruct"):
        list_models_by_type("chatty")


def test_local_and_free() -> None:
    local, free = get_local_models(), get_free_models()
    assert all(card.access_method is not AccessMethod.API for card in local)
    ids = {card.model_id for card in free}
    assert {card.model_id for card in local} < ids
    assert "gpt-4" not in ids


def test_all_models_is_every_card() -> None:
    everything = registry.ALL_MODELS
    assert everything["gpt-4o-mini"] is get_model_info("gpt-4o-mini")
    assert len(everything) == len(export_to_dict())
    with pytest.raises(AttributeError, match="NO_MODELS"):
        _ = registry.NO_MODELS


def test_an_export_is_plain_values() -> None:
    exported = export_to_dict()
    assert json.loads(json.dumps(exported)) == exported
    assert yaml.safe_load(yaml.safe_dump(exported["gpt-4o-mini"])) == exported["gpt-4o-mini"]
    card = exported["meta-llama/Llama-2-7b-chat-hf"]
    assert (card["local"], card["free"], card["specs"]["size_class"]) == (True, True, "small")
    assert card["licence"]["open_source"] is False
    assert {"title", "url", "date"} == set(card["sources"][""][0])


# --- search

SHELF = catalog_of(
    {"model_id": "org/Small-7B-Instruct", "name": "Small", "origin": {"creator": "Acme"}},
    {"model_id": "org/Small-70B-Instruct", "name": "Small"},
    {"model_id": "org/Coder-7B", "name": "Coder", "description": "Like Small, for code."},
    {"model_id": "old-small", "name": "Old", "status": "retired", "aliases": ["acme-1"]},
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("small 7b", ["org/Small-7B-Instruct", "org/Coder-7B"]),
        ("7b", ["org/Small-7B-Instruct", "org/Coder-7B"]),
        ("70b", ["org/Small-70B-Instruct"]),
        ("org/small-70b-instruct", ["org/Small-70B-Instruct"]),
        ("CODE", ["org/Coder-7B"]),
        ("acme", ["old-small", "org/Small-7B-Instruct"]),
        ("acme-1", ["old-small"]),
        ("nothing", []),
        ("small nothing", []),
        ("  ", []),
        ("!?", []),
    ],
)
def test_search(query: str, found: list[str]) -> None:
    assert [card.model_id for card in search(SHELF, query)] == found


def test_the_retired_stand_behind() -> None:
    ids = [card.model_id for card in search(SHELF, "small")]
    assert set(ids[:2]) == {"org/Small-7B-Instruct", "org/Small-70B-Instruct"}
    assert ids.index("old-small") == 2
    assert len(search(SHELF, "small", limit=1)) == 1


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("gpt4o mini", "gpt-4o-mini"),
        ("GPT-4o Mini", "gpt-4o-mini"),
        ("gptoss", "openai/gpt-oss-120b"),
        ("llama 2 7b chat", "meta-llama/Llama-2-7b-chat-hf"),
        ("llama3 8b", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("llama 70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("mistral 7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("phi3", "microsoft/Phi-3-mini-4k-instruct"),
        ("gemma3 27b", "google/gemma-3-27b-it"),
        ("qwen3 8b base", "Qwen/Qwen3-8B-Base"),
        ("deepseek r1", "deepseek-ai/DeepSeek-R1"),
        ("command r plus", "command-r-plus-04-2024"),
        ("command r+", "command-r-plus-04-2024"),
        ("o3", "o3"),
        ("bge", "BAAI/bge-m3"),
        ("whisper", "openai/whisper-large-v3"),
        ("sd xl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_what_people_look_for_comes_first(query: str, first: str) -> None:
    assert search_models(query)[0].model_id == first


@pytest.mark.parametrize(
    ("query", "task"),
    [("text to speech", "text-to-speech"), ("speech to text", "speech-to-text"), ("rag", None)],
)
def test_words_that_stand_for_tasks(query: str, task: str | None) -> None:
    first = search_models(query)[0]
    assert (task or "retrieval") in first.recommended


def test_open_source_is_a_licence() -> None:
    found = search_models("open source", limit=20)
    assert len(found) == 20
    assert all(card.licence.open_source for card in found)


def test_of_a_family_the_newest_comes_first() -> None:
    family = catalog_of(
        {"model_id": "tale-5", "name": "Tale 5"},
        {"model_id": "tale-4-20250101", "name": "Tale 4"},
        {"model_id": "tale-5-5", "name": "Tale 5.5"},
        {"model_id": "tale-6-lite", "name": "Tale 6 Lite"},
        {"model_id": "tale-7-base", "name": "Tale 7 Base", "type": "completion"},
    )
    ids = [card.model_id for card in search(family, "tale")]
    assert ids == ["tale-5-5", "tale-5", "tale-4-20250101", "tale-6-lite", "tale-7-base"]
    assert search(family, "tale base")[0].model_id == "tale-7-base"


def test_a_limit_that_is_none() -> None:
    assert search_models("llama", 0) == []
    with pytest.raises(ValueError, match="must not be negative: -1"):
        search_models("llama", -1)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gpt4o", "gpt-4o"),
        ("GPT-4o Mini", "gpt-4o-mini"),
        ("claude 3.5 sonnet", "claude-3-5-sonnet-20241022"),
        ("Llama 3.1 8B Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("llama3", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("gpt-3.5", "gpt-3.5-turbo"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("router/openai/gpt-4o", "gpt-4o"),
        ("claude-sonet", "claude-sonnet-5-5"),
    ],
)
def test_everyday_spellings_are_understood(name: str, near: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        get_model_info(name)
    assert near in caught.value.near
    assert len(caught.value.near) <= 3
    if name != "claude-sonet":
        assert caught.value.near[0] == near


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(UnknownModel) as caught:
        get_model_info("x" * 5000)
    assert len(str(caught.value)) < 200
    assert caught.value.name == "x" * 5000
