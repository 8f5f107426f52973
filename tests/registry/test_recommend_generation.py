"""What a model's id tells of its age."""

from __future__ import annotations

import pytest

from server.registry.recommend.generation import Newest, parse, released
from tests.registry.cards import cards_of


@pytest.mark.parametrize(
    ("model_id", "family", "line", "version"),
    [
        ("gpt-6.1-sol", "gpt", "gpt-sol", (6, 1)),
        ("gpt-4o-mini", "gpt", "gpt-mini", (4,)),
        ("gpt-oss-20b", "gpt", "gpt-oss-20b", None),
        ("claude-opus-5-5", "claude", "claude-opus", (5, 5)),
        ("claude-haiku-4-5-20251001", "claude", "claude-haiku", (4, 5)),
        ("lab/Qwen3-30B-A3B-Instruct-2507", "qwen", "qwen-30b-a3b-instruct", (3,)),
        ("lab/Qwen3.8-2.4T-A95B", "qwen", "qwen-2.4t-a95b", (3, 8)),
        ("lab/DeepSeek-V4-Pro-0813", "deepseek", "deepseek-pro", (4,)),
        ("lab/DeepSeek-R1", "deepseek-r", "deepseek-r", (1,)),
        ("lab/Mistral-7B-Instruct-v0.3", "mistral", "mistral-7b-instruct", (0, 3)),
        ("lab/all-MiniLM-L6-v2", "all", "all-minilm-l6", (2,)),
        ("lab/gemma-4-E4B-it", "gemma", "gemma-e4b-it", (4,)),
        ("lab/FLUX.1-schnell", "flux", "flux-schnell", (1,)),
        ("command-r-08-2024", "command", "command-r", None),
        ("mistral-large-2512", "mistral", "mistral-large", None),
    ],
)
def test_ids(model_id: str, family: str, line: str, version: tuple[int, ...] | None) -> None:
    name = parse(model_id)
    assert (name.family, name.line, name.version) == (family, line, version)


@pytest.mark.parametrize(
    ("model_id", "month"),
    [
        ("gpt-5.4-2026-03-05", 2026 + 2 / 12),
        ("claude-opus-4-5-20251101", 2025 + 10 / 12),
        ("mistral-small-2603", 2026 + 2 / 12),
        ("command-a-03-2025", 2025 + 2 / 12),
        ("gemini-flash-preview-09-2025", 2025 + 8 / 12),
        ("model-2025", 2025.5),
        ("gpt-4-0613", None),
        ("lab/Phi-4", None),
    ],
)
def test_dates(model_id: str, month: float | None) -> None:
    assert parse(model_id).year == pytest.approx(month)


def test_knowledge_ends_half_a_year_before_the_release() -> None:
    (card,) = cards_of({"model_id": "m", "specs": {"knowledge_date": "2025-01"}})
    assert released(card) == 2025.5


def test_an_alias_tells_the_date_too() -> None:
    (card,) = cards_of({"model_id": "mistral-medium-3-5", "aliases": ["mistral-medium-2604"]})
    assert released(card) == 2026.25


def test_versions_without_dates_are_dated_by_their_family() -> None:
    cards = cards_of(
        {"model_id": "alpha-3-2507"}, {"model_id": "alpha-3.6"}, {"model_id": "alpha-2"}
    )
    newest = Newest(cards)
    dated, newer, older = (newest.recency(card) for card in cards)
    assert newer > dated > older
    assert [newest.latest(card) for card in cards] == [False, True, False]


def test_the_last_of_a_dead_family_is_old() -> None:
    dead, live = cards_of(
        {"model_id": "alpha-2", "specs": {"context_window": 2048}},
        {"model_id": "beta-2", "specs": {"context_window": 1_000_000}},
    )
    newest = Newest([dead, live])
    assert newest.recency(dead) < 0.1 < 0.7 < newest.recency(live)


def test_nothing_known_is_worth_nothing() -> None:
    (card,) = cards_of({"model_id": "alpha", "specs": {"context_window": None}})
    assert Newest([card]).recency(card) == 0


def test_versions_are_decimals() -> None:
    cards = cards_of({"model_id": "grok-4.20"}, {"model_id": "grok-4.3"}, {"model_id": "grok-4.7"})
    newest = Newest(cards)
    assert [newest.superseded(card) for card in cards] == ["4.7", "4.7", None]
