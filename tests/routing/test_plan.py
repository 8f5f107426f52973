"""The plan, as tables."""

from __future__ import annotations

import pytest

from server.routing.plan import Candidate, rank

#: r: ready, l: may become ready, x: never.
CASES = [
    ("", ""),
    ("a:r", "a"),
    ("a:l", "a?"),
    ("a:x", ""),
    ("a:r b:r", "a b"),
    ("a:l b:r", "b a?"),
    ("a:x b:r", "b"),
    ("a:l b:l", "a? b?"),
    ("a:l b:r c:x d:r e:l", "b d a? e?"),
    ("a:r a:r", "a"),
    ("a:l b:r a:l", "b a?"),
    ("a:x a:r", "a"),
]


@pytest.mark.parametrize(("facts", "expected"), CASES)
def test_rank(facts: str, expected: str) -> None:
    candidates = []
    for index, fact in enumerate(facts.split()):
        label, state = fact.split(":")
        candidates.append(Candidate(index, label, state == "r", state in "rl", "m"))
    steps = rank(candidates)
    labels = [candidates[step.index].label + "?" * step.wait for step in steps]
    assert " ".join(labels) == expected
    assert all(step.reason for step in steps)


def test_indices_are_the_routes_own() -> None:
    """Candidates may be fewer than routes: those tried already are left out."""
    left = [Candidate(2, "c", False, True, "m"), Candidate(5, "f", True, True, "other")]
    assert [(step.index, step.wait) for step in rank(left)] == [(5, False), (2, True)]
