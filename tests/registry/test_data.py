"""The built-in catalog: who must be in it, under which names, and what must be known of them."""

from __future__ import annotations

from collections import Counter

import pytest

from server.registry import ALL_MODELS, AccessMethod, ModelType, Status, get_model_info
from server.registry.cards import CHATTING, ModelInfo

#: Names that people write, and the card that each of them means.
NAMED = {
    "meta-llama/Llama-2-7b-chat-hf": "meta-llama/Llama-2-7b-chat-hf",
    "meta-llama/llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "meta-llama/llama-2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
    "meta-llama/Meta-Llama-3-8B-Instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "meta-llama/llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "mistralai/Mistral-7B-Instruct-v0.2": "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "google/flan-t5-xxl": "google/flan-t5-xxl",
    "google/gemma-7b-it": "google/gemma-7b-it",
    "microsoft/DialoGPT-large": "microsoft/DialoGPT-large",
    "HuggingFaceH4/zephyr-7b-beta": "HuggingFaceH4/zephyr-7b-beta",
    "Qwen/Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B-Instruct",
    "tiiuae/falcon-7b-instruct": "tiiuae/falcon-7b-instruct",
    "microsoft/Phi-3-mini-4k-instruct": "microsoft/Phi-3-mini-4k-instruct",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "EleutherAI/gpt-neox-20b": "EleutherAI/gpt-neox-20b",
    "bigscience/bloom": "bigscience/bloom",
    "facebook/opt-1.3b": "facebook/opt-1.3b",
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base",
    "t5-base": "google-t5/t5-base",
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "openai/whisper-large-v3": "openai/whisper-large-v3",
    "facebook/wav2vec2-base-960h": "facebook/wav2vec2-base-960h",
    "openai/clip-vit-base-patch32": "openai/clip-vit-base-patch32",
    "stabilityai/stable-diffusion-xl-base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
    "gpt-4": "gpt-4",
    "gpt-4-turbo": "gpt-4-turbo",
    "gpt-4o": "gpt-4o",
    "gpt-4o-mini": "gpt-4o-mini",
    "gpt-3.5-turbo": "gpt-3.5-turbo",
    "dall-e-3": "dall-e-3",
    "whisper-1": "whisper-1",
    "claude-3-opus": "claude-3-opus-20240229",
    "claude-3-sonnet": "claude-3-sonnet-20240229",
    "claude-3-haiku": "claude-3-haiku-20240307",
    "deepseek-chat": "deepseek-chat",
}
#: Names whose card's id is the provider's business.
FOUND = (
    "gpt-4-turbo-preview",
    "gpt-3.5-turbo-16k",
    "deepseek-coder",
    "mistral-large-latest",
    "command",
    "command-r",
    "embed-english-v3.0",
)


@pytest.mark.parametrize(("name", "model_id"), NAMED.items())
def test_the_named_models_have_cards(name: str, model_id: str) -> None:
    assert get_model_info(name).model_id == model_id


@pytest.mark.parametrize("name", FOUND)
def test_other_names_are_found(name: str) -> None:
    assert get_model_info(name)


@pytest.mark.parametrize("part", ["biobert", "flamingo"])
def test_named_without_an_exact_id(part: str) -> None:
    assert any(part in model_id.lower() for model_id in ALL_MODELS)


@pytest.mark.parametrize(
    ("provider", "least"),
    [
        ("openai", 10),
        ("anthropic", 10),
        ("google", 10),
        ("mistral", 10),
        ("cohere", 10),
        ("huggingface", 60),
        ("deepseek", 2),  # its API has no more
        ("xai", 5),
    ],
)
def test_every_major_provider_has_current_models(provider: str, least: int) -> None:
    current = Counter(
        card.provider for card in ALL_MODELS.values() if card.status is not Status.RETIRED
    )
    assert current[provider] >= least


def test_what_chats_has_its_facts() -> None:
    """The rule of `check`, once more, where it matters most: no exception for a current model's
    window, and prices for all but a stated few."""
    unpriced: list[ModelInfo] = []
    for card in ALL_MODELS.values():
        if card.type not in CHATTING or card.status is Status.RETIRED:
            continue
        if card.access_method is AccessMethod.API and card.cost.input is None:
            unpriced.append(card)
    assert all(card.exceptions for card in unpriced)
    assert len(unpriced) < 20


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("google/gemma-7b-it", "gemma"),  # public documents say Apache-2.0, and are wrong
        ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
    ],
)
def test_licences_that_are_often_told_wrong(name: str, licence: str) -> None:
    assert get_model_info(name).licence.id == licence


def test_every_type_is_there() -> None:
    assert {card.type for card in ALL_MODELS.values()} == set(ModelType)


def test_the_retired_name_their_successors() -> None:
    retired = [card for card in ALL_MODELS.values() if card.status is Status.RETIRED]
    assert len(retired) >= 10
    without = [c for c in retired if c.replaced_by is None]
    assert all("replaced_by" in card.exceptions for card in without)
    assert len(without) < len(retired) / 4
