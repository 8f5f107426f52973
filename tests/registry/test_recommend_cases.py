"""Thirty questions with answers that a person who knows the field would accept, and what holds for
every question over the whole catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.units import size
from server.registry import ALL_MODELS, Status
from server.registry.recommend import TASKS, Constraints, blended, recommend
from server.registry.recommend.profiles import PROFILES

ASKED = yaml.safe_load(Path(__file__).with_name("recommend_cases.yaml").read_text("utf-8"))
CASES: list[dict[str, Any]] = ASKED["cases"]
HELD_OUT: list[dict[str, Any]] = ASKED["held_out"]
PAGE = Path(__file__).parents[2] / "docs" / "recommend.md"


def constraints(raw: dict[str, Any]) -> Constraints:
    given = dict(raw)
    if memory := given.pop("memory", None):
        given["memory_bytes"] = size(memory)
    if context := given.pop("context", None):
        given["context"] = int(context[:-1]) * {"k": 1000, "m": 1_000_000}[context[-1]]
    for name in ("providers", "needs", "modalities", "languages"):
        if name in given:
            given[name] = frozenset(given[name])
    return Constraints(**given)


def flat(patterns: list[Any]) -> Iterator[str]:
    for one in patterns:
        if isinstance(one, list):
            yield from flat(one)
        else:
            yield one.lower()


def among(model_id: str, patterns: list[Any]) -> bool:
    return any(fnmatchcase(model_id.lower(), pattern) for pattern in flat(patterns))


def test_there_are_thirty() -> None:
    assert len({case["name"] for case in CASES}) == 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_questions(case: dict[str, Any]) -> None:
    assert wrong_with(case) is None


def test_questions_that_nobody_tuned_for() -> None:
    """All but one of twelve: docs/recommend.md tells which, and why it stays."""
    wrong = [complaint for case in HELD_OUT if (complaint := wrong_with(case))]
    assert len(wrong) <= 1, "\n".join(wrong)


def wrong_with(case: dict[str, Any]) -> str | None:
    found = recommend(case["task"], constraints(case.get("constraints", {})))
    ids = [one.card.model_id for one in found]
    if not ids:
        return f"{case['name']}: nothing. {found.advice}"
    strange = [name for name in ids[:3] if not among(name, case["accepted"])]
    bad = [name for name in ids if among(name, case["forbidden"])]
    if strange or bad:
        return f"{case['name']}: {strange + bad} of {ids}. {case['why']}"
    return None


#: One demand each, to be added to whatever was demanded.
DEMANDS: list[dict[str, Any]] = [
    {"context": 200_000},
    {"max_price": 1.0},
    {"licence": "commercial"},
    {"licence": "open-weights"},
    {"licence": "open-source"},
    {"memory_bytes": 24 * 2**30},
    {"offline": True},
    {"providers": frozenset({"openai", "huggingface"})},
    {"needs": frozenset({"tools"})},
    {"modalities": frozenset({"image"})},
    {"languages": frozenset({"de"})},
]


@pytest.mark.no_cover
@pytest.mark.parametrize("task", TASKS)
def test_another_demand_never_adds_a_model(task: str) -> None:
    def allowed(**demands: Any) -> set[str]:
        found = recommend(task, Constraints(**demands), limit=None)
        return {one.card.model_id for one in found}

    alone = [(demand, allowed(**demand)) for demand in DEMANDS]
    everything = allowed()
    for demand, found in alone:
        assert found <= everything, demand
    for (first, one), (second, other) in combinations(alone, 2):
        if not first.keys() & second.keys():
            assert allowed(**first, **second) <= one & other, (first, second)


@pytest.mark.parametrize("task", TASKS)
def test_what_has_no_known_price_passes_no_limit(task: str) -> None:
    for one in recommend(task, Constraints(max_price=10_000), limit=None):
        assert blended(one.card) is not None


@pytest.mark.parametrize("task", TASKS)
def test_retired_models_never_come_and_deprecated_ones_when_asked(task: str) -> None:
    plain = recommend(task, limit=None)
    assert {one.card.status for one in plain} <= {Status.CURRENT}
    everything = recommend(task, Constraints(include_deprecated=True), limit=None)
    assert {one.card.status for one in everything} <= {Status.CURRENT, Status.DEPRECATED}
    assert len(everything) + everything.rejected.get("retired", 0) == everything.candidates


@pytest.mark.parametrize("task", TASKS)
def test_scores_fall_and_are_the_same_again(task: str) -> None:
    found = recommend(task, limit=None)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 100 for score in scores)
    backwards = dict(reversed(list(ALL_MODELS.items())))
    again = recommend(task, catalog=backwards, limit=None)
    assert [one.card.model_id for one in again] == [one.card.model_id for one in found]
    assert all(one.because for one in found[:5])


def test_the_page_has_the_weights() -> None:
    text = PAGE.read_text("utf-8")
    lines = text.partition("<!-- weights")[2].partition("<!-- end -->")[0].splitlines()[1:]
    names = [name.strip() for name in lines[0].strip("|").split("|")][1:]
    told = {}
    for line in lines[2:]:
        task, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        told[task] = dict(zip(names, (float(cell or 0) for cell in cells), strict=True))
    assert told == {task: asdict(profile.weights) for task, profile in PROFILES.items()}
