"""What `recommend` promises, on small catalogs; the questions are in test_recommend_cases."""

from __future__ import annotations

from typing import Any

import pytest

from server.registry import Catalog, ModelInfo
from server.registry.recommend import TASKS, Constraints, Recommendations, recommend, task_of
from tests.registry.cards import cards_of, catalog_of

GIB = 2**30
#: An open model of eight billion parameters; further facts over it.
OPEN: dict[str, Any] = {
    "access_method": "local",
    "specs": {"parameters": 8_000_000_000},
    "licence": {"id": "Apache-2.0", "kind": "open-source", "commercial_use": True},
    "cost": {"input": None, "output": None},
}
#: Three billion parameters, of which one is active.
SPARSE = {"parameters": 3_000_000_000, "active_parameters": 1_000_000_000}


def catalog(*models: dict[str, Any]) -> Catalog:
    return catalog_of(*models)


def ids(found: Recommendations) -> list[str]:
    return [one.card.model_id for one in found]


def test_the_best_comes_first_with_numbers_as_reasons() -> None:
    cards = catalog(
        {"model_id": "mini-1", "cost": {"input": 0.1, "output": 0.4}},
        {
            "model_id": "max-2",
            "cost": {"input": 5, "output": 25},
            "recommended": ["coding"],
            "specs": {"context_window": 1_000_000, "knowledge_date": "2026-05"},
        },
    )
    found = recommend("coding", Constraints(context=50_000), cards)
    assert ids(found) == ["max-2", "mini-1"]
    assert found[0].score > found[1].score
    assert found[0].because[:3] == (
        "made or recommended for coding",
        "window 1,000,000 ≥ 50,000",
        "$5.00 in / $25.00 out per million",
    )
    assert "knowledge until 2026-05" in found[0].because
    assert found.advice is None
    assert found.rejected == {}


def test_equal_models_come_by_id_whatever_the_files_order() -> None:
    models = [{"model_id": name, "origin": {"creator": name}} for name in ("c", "a", "b")]
    assert ids(recommend("chat", catalog=catalog(*models))) == ["a", "b", "c"]
    assert ids(recommend("chat", catalog=catalog(*reversed(models)))) == ["a", "b", "c"]


def test_one_maker_does_not_fill_the_list() -> None:
    cards = catalog(
        *({"model_id": f"alpha-{letter}", "cost": {"output": 0.65}} for letter in "abc"),
        {"model_id": "beta", "origin": {"creator": "Other"}},
    )
    assert ids(recommend("chat", catalog=cards))[1] == "beta"


def test_limit() -> None:
    cards = catalog(*({"model_id": f"m{number}"} for number in range(9)))
    assert len(recommend("chat", catalog=cards)) == 5
    assert len(recommend("chat", catalog=cards, limit=2)) == 2
    assert len(recommend("chat", catalog=cards, limit=None)) == 9


@pytest.mark.parametrize(
    ("constraints", "facts", "reason"),
    [
        (Constraints(context=200_000), {}, "context"),
        (Constraints(context=1), {"specs": {"context_window": None}}, "context unknown"),
        (Constraints(max_price=0.2), {}, "max_price"),
        (Constraints(max_price=9), {"cost": {"output": None}}, "max_price unknown"),
        (Constraints(max_price=9), {"cost": {"input": None}}, "max_price unknown"),
        (Constraints(licence="open-source"), {}, "licence"),
        (Constraints(licence="open-weights"), {}, "licence"),
        (Constraints(licence="open-weights"), {"licence": {"kind": None}}, "licence unknown"),
        (Constraints(licence="commercial"), {"licence": {"commercial_use": False}}, "licence"),
        (
            Constraints(licence="commercial"),
            {"licence": {"commercial_use": None}},
            "licence unknown",
        ),
        (Constraints(offline=True), {}, "weights"),
        (Constraints(memory_bytes=80 * GIB), {}, "weights"),
        (Constraints(providers=frozenset({"openai"})), {}, "provider"),
        (Constraints(providers=frozenset({"lab"})), OPEN, "provider"),
        (Constraints(needs=frozenset({"vision"})), {}, "needs vision"),
        (Constraints(needs=frozenset({"logprobs"})), {}, "needs logprobs unknown"),
        (Constraints(modalities=frozenset({"audio"})), {}, "modality audio"),
        (
            Constraints(modalities=frozenset({"text"})),
            {"specs": {"input_modalities": None}},
            "modality text unknown",
        ),
        (Constraints(languages=frozenset({"de"})), {}, "language de unknown"),
        (
            Constraints(languages=frozenset({"de", "ja"})),
            {"specs": {"languages": ["de", "en"]}},
            "language ja",
        ),
        (Constraints(), {"status": "deprecated"}, "deprecated"),
        (Constraints(include_deprecated=True), {"status": "retired"}, "retired"),
        (Constraints(memory_bytes=4 * GIB), OPEN, "memory"),
        (
            Constraints(memory_bytes=4 * GIB),
            {**OPEN, "specs": {}},
            "memory unknown",
        ),
    ],
)
def test_what_fails_a_demand_or_does_not_say_is_out_and_counted(
    constraints: Constraints, facts: dict[str, Any], reason: str
) -> None:
    found = recommend("chat", constraints, catalog({"model_id": "m", **facts}))
    assert found == []
    assert found.rejected == {reason: 1}
    assert found.candidates == 1
    assert found.advice


def test_an_empty_answer_says_which_demand_to_loosen() -> None:
    cards = catalog(
        {"model_id": "a", "cost": {"input": 3, "output": 15}},
        {"model_id": "b", "cost": {"input": 2, "output": 10}},
        {"model_id": "c", "abilities": {"tools": False}, "cost": {"input": 3, "output": 15}},
    )
    found = recommend("chat", Constraints(max_price=1, needs=frozenset({"tools"})), cards)
    assert found.rejected == {"max_price": 3, "needs tools": 1}
    assert found.advice == "2 models fail only max_price: allow a higher price."
    retired = recommend("chat", catalog=catalog({"model_id": "a", "status": "retired"}))
    assert retired.advice == "The registry has no model for conversation that still answers."


@pytest.mark.parametrize(
    ("memory", "format_", "needed"),
    [(24, "bf16", "18.1 of 24 GiB"), (12, "8-bit", "10.0 of 12 GiB"), (8, "4-bit", "5.9 of 8 GiB")],
)
def test_weights_are_kept_as_well_as_the_memory_allows(
    memory: int, format_: str, needed: str
) -> None:
    cards = catalog({"model_id": "m-8b", **OPEN})
    (found,) = recommend("chat", Constraints(memory_bytes=memory * GIB), cards)
    assert f"fits: {needed} as {format_}" in found.because
    assert any(format_ in caveat for caveat in found.but) == (format_ != "bf16")


@pytest.mark.parametrize(
    ("model_id", "architecture", "fits"),
    [
        ("m-8b-FP8", "m", "fits: 10.0 of 24 GiB as 8-bit"),
        ("m-8b", "deepseek_v3", "fits: 10.0 of 24 GiB as 8-bit"),
        ("m-8b", "gpt_oss", "fits: 5.9 of 24 GiB as 4-bit"),
    ],
)
def test_weights_that_are_quantised_already_are_taken_as_they_are(
    model_id: str, architecture: str, fits: str
) -> None:
    specs = {**OPEN["specs"], "architecture": architecture}
    cards = catalog({"model_id": model_id, **OPEN, "specs": specs})
    (found,) = recommend("chat", Constraints(memory_bytes=24 * GIB), cards)
    assert fits in found.because
    assert found.but == ()  # nobody has to look for other weights


def test_long_windows_need_more_memory() -> None:
    cards = catalog({"model_id": "m-8b", **OPEN})
    (found,) = recommend("chat", Constraints(context=100_000, memory_bytes=24 * GIB), cards)
    assert found.but == ("the cache of 100,000 tokens needs more memory than that",)


def test_a_base_to_train_on_must_fit_without_quantisation() -> None:
    cards = catalog({"model_id": "m-8b-base", **OPEN, "type": "completion"})
    assert recommend("fine-tuning", Constraints(memory_bytes=8 * GIB), cards).rejected == {
        "memory": 1
    }
    (found,) = recommend("fine-tuning", Constraints(memory_bytes=24 * GIB), cards)
    assert any("LoRA" in caveat for caveat in found.but)


def test_caveats() -> None:
    cards = catalog(
        {
            "model_id": "old-1",
            **OPEN,
            "status": "deprecated",
            "retires": "2027-01-31",
            "replaced_by": "old-2-preview",
            "licence": {"id": "nc", "kind": "open-weights", "commercial_use": False, "gated": True},
        },
        {"model_id": "old-2-preview", "cost": {"input": None, "output": None}},
        {"model_id": "secret", "limitations": ["Only for friends of the house."]},
        {"model_id": "healer", "recommended": ["biomedical"]},
    )
    found = recommend("chat", Constraints(include_deprecated=True), cards)
    but = {one.card.model_id: one.but for one in found}
    assert but["old-1"] == (
        "deprecated, gone on 2027-01-31",
        "its makers advise old-2-preview instead",
        "gated: accept its terms on the hub first",
        "not for commercial use (nc)",
    )
    assert but["old-2-preview"] == (
        "a preview: it may change or go any day",
        "its price is not known",
    )
    assert but["secret"] == ("only for friends of the house",)
    assert but["healer"] == ("made for biomedical",)


def test_the_newer_version_of_the_same_model_comes_first_and_is_named() -> None:
    cards = catalog({"model_id": "alpha-3-pro"}, {"model_id": "alpha-3.1-pro"})
    found = recommend("chat", catalog=cards)
    assert ids(found) == ["alpha-3.1-pro", "alpha-3-pro"]
    assert found[1].but == ("there is a version 3.1 of it",)


def test_what_only_judges_content_does_not_talk() -> None:
    cards = catalog({"model_id": "guard", "recommended": ["safety"]})
    assert recommend("chat", catalog=cards).candidates == 0
    assert ids(recommend("moderation", catalog=cards)) == ["guard"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_profile(task: str) -> None:
    assert recommend(task, catalog=catalog({"model_id": "m"})).task == task


@pytest.mark.parametrize(
    ("word", "task"),
    [
        ("Chat", "conversation"),
        ("rag", "retrieval"),
        ("math", "reasoning"),
        ("cheap", "cost"),
        ("OCR", "vision"),
        ("medical", "biomedical"),
        ("speech to text", "speech-to-text"),
        ("speech_to_text", "speech-to-text"),
        ("zero shot", "classification"),
        (" fine-tune ", "fine-tuning"),
    ],
)
def test_words_of_people(word: str, task: str) -> None:
    assert task_of(word) == task


def test_a_word_that_is_no_task() -> None:
    with pytest.raises(ValueError, match=r"'codding' is no task\. Did you mean coding\?") as raised:
        recommend("codding", catalog=catalog())
    assert all(task in str(raised.value) for task in TASKS)
    with pytest.raises(ValueError, match=r"'gardening' is no task\. Tasks: conversation, "):
        task_of("gardening")


def test_words_that_are_no_constraint() -> None:
    with pytest.raises(ValueError, match="'free' is no demand on a licence: any, commercial"):
        Constraints(licence="free")
    with pytest.raises(ValueError, match="'magic' is no ability: streaming, tools"):
        Constraints(needs=frozenset({"magic"}))


def test_a_catalog_may_be_any_mapping() -> None:
    (card,) = cards_of({"model_id": "m"})
    plain: dict[str, ModelInfo] = {"m": card}
    assert ids(recommend("chat", catalog=plain)) == ["m"]


def test_invitations_of_providers_and_other_units_of_price() -> None:
    cards = catalog(
        {
            "model_id": "closed",
            "type": "image",
            "specs": {"output_modalities": ["image"]},
            "licence": {"gated": True, "access": "On request"},
            "cost": {"input": None, "output": None, "other": {"image": 0.04}},
        }
    )
    (found,) = recommend("images", catalog=cards)
    assert "$0.04 per image" in found.because
    assert found.but == ("on request",)


def test_what_the_name_says_it_is_for() -> None:
    cards = catalog({"model_id": "alpha-coder"}, {"model_id": "alpha-talker"})
    talk = recommend("chat", catalog=cards)
    assert ids(talk) == ["alpha-talker", "alpha-coder"]
    assert talk[1].but == ("made for code",)
    assert all(one.but == () for one in recommend("coding", catalog=cards))


def test_kinds_are_kept_apart() -> None:
    sees = {"abilities": {"vision": True}, "specs": {"input_modalities": ["text", "image"]}}
    cards = catalog(
        {"model_id": "blind"},
        {"model_id": "sees", **sees},
        {"model_id": "vectors", "type": "embedding", "cost": {"input": 0.02, "output": None}},
        {"model_id": "free", "cost": {"input": None, "output": None}},
        {"model_id": "large", **OPEN},
        {"model_id": "little", **OPEN, "specs": SPARSE},
        {"model_id": "unknown", **OPEN, "specs": {}},
    )
    assert ids(recommend("ocr", catalog=cards)) == ["sees"]
    (vectors,) = recommend("vectors", Constraints(max_price=0.02), cards)
    assert "$0.02 per million" in vectors.because
    assert set(ids(recommend("cheap", catalog=cards))) == {"blind", "sees"}
    (little,) = recommend("cpu", catalog=cards)
    assert "3 billion parameters, 1 billion active" in little.because


def test_active_parameters_in_the_name_and_of_large_models_that_do_not_tell() -> None:
    def large(model_id: str, **specs: int) -> dict[str, Any]:
        return {"model_id": model_id, **OPEN, "specs": {"parameters": 200_000_000_000, **specs}}

    cards = catalog(
        large("dense", active_parameters=200_000_000_000), large("silent"), large("told-A10B")
    )
    assert ids(recommend("reasoning", catalog=cards, limit=None)) == [
        "dense",
        "silent",
        "told-A10B",
    ]


def test_what_costs_nothing_is_called_free() -> None:
    cards = catalog({"model_id": "mini-1", "cost": {"input": 0, "output": 0}})
    (found,) = recommend("chat", Constraints(max_price=0), cards)
    assert "free of charge" in found.because
