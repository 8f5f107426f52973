"""The plan, as tables: what can be done with each target, in which order."""

from __future__ import annotations

import pytest

from server.routing.breaker import State
from server.routing.chain import Loading
from server.routing.plan import Action, Candidate, Cause, Rules, rank

#: How a target is: ready, loading, dead, kept back by its breaker, resting, full, tried, unable.
STATES = {
    "r": {},
    "l": {"ready": False},
    "x": {"ready": False, "may_become_ready": False},
    "b": {"allowed": False, "state": State.OPEN, "breaker": "open for 3 s more after 5 failures"},
    "m": {"allowed": False, "state": State.RESTING, "breaker": "rests for 9 s more"},
    "f": {"full": True},
    "t": {"tried": True},
    "u": {"lacks": "lacks tools"},
}
SIGNS = {Action.SEND: "", Action.QUEUE: "+", Action.WAIT: "?", Action.REFUSE: "!"}


def ranked(facts: str, **rules: object) -> tuple[str, dict[str, Cause]]:
    """Groups stand between bars. (those to be tried, the causes of those passed over)."""
    candidates: list[Candidate] = []
    names: list[str] = []
    groups = facts.split("|")
    for group, members in enumerate(groups):
        for fact in members.split():
            name, state = fact.split(":")
            more = STATES[state]
            candidates.append(Candidate(len(names), group, "its place", **more))  # type: ignore[arg-type]
            names.append(name)
    given: dict[str, object] = {"strict": (True,) * len(groups), **rules}
    steps = rank(candidates, Rules(**given))  # type: ignore[arg-type]
    assert sorted(step.index for step in steps) == list(range(len(names)))
    assert all(step.reason for step in steps)
    tried = [step for step in steps if step.action is not Action.SKIP]
    assert list(steps[: len(tried)]) == tried
    passed = {names[s.index]: s.cause for s in steps if s.action is Action.SKIP}
    return " ".join(names[s.index] + SIGNS[s.action] for s in tried), passed


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
    ("a:b b:r", "b"),
    ("a:m b:r", "b"),
    ("a:b b:m", ""),
    ("a:t b:r", "b"),
    ("a:t", ""),
    ("a:u b:r", "b"),
    ("a:u", ""),
    # Other models after the model's own, one after the other.
    ("a:r|b:r c:r|d:r", "a b c d"),
    ("a:b|b:r", "b"),
    ("a:x|b:r", "b"),
    ("a:l|b:r", "b a?"),
    ("a:l|b:l", "a? b?"),
    ("a:l|b:x|c:l", "a? c?"),
    # What is full is waited for, and nothing behind it is tried.
    ("a:f", "a+"),
    ("a:f b:r", "a+"),
    ("a:r b:f", "a b+"),
    ("a:f|b:r", "a+"),
    ("a:b b:f|c:r", "b+"),
    ("a:t b:f|c:r", "b+"),
    ("a:x|b:f|c:r", "b+"),
    ("a:l b:f|c:r", "b+ a?"),
]


@pytest.mark.parametrize(("facts", "expected"), CASES)
def test_rank(facts: str, expected: str) -> None:
    assert ranked(facts)[0] == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("a:f b:r", "b a+"),
        ("a:f b:f", "a+ b+"),
        ("a:f b:r|c:r", "b a+"),
        ("a:f b:b|c:r", "a+"),
        ("a:f b:t|c:r", "a+"),
    ],
)
def test_where_any_is_as_good_what_is_full_comes_after_the_others(
    facts: str, expected: str
) -> None:
    strict = (False,) + (True,) * facts.count("|")
    assert ranked(facts, strict=strict)[0] == expected


@pytest.mark.parametrize(
    ("facts", "loading", "bridge", "expected"),
    [
        ("a:l|b:r", Loading.FALLBACK, None, "b a?"),
        ("a:l|b:r", Loading.WAIT, None, "a? b"),
        ("a:l|b:r", Loading.REFUSE, None, "a!"),
        ("a:l b:r|c:r", Loading.WAIT, None, "b a? c"),
        ("a:l b:r|c:r", Loading.REFUSE, None, "b c a?"),
        ("a:l b:l|c:r", Loading.REFUSE, None, "a! b?"),
        ("a:x|b:r", Loading.REFUSE, None, "b"),
        ("a:x|b:r", Loading.WAIT, None, "b"),
        ("a:l b:f|c:r", Loading.REFUSE, None, "b+ a?"),
        ("a:t b:l|c:r", Loading.REFUSE, None, "b!"),
        # The bridge stands in for an engine that loads, and for nothing else.
        ("a:r|b:r|c:r", Loading.FALLBACK, 1, "a c"),
        ("a:l|b:r|c:r", Loading.FALLBACK, 1, "b c a?"),
        ("a:l|b:r|c:r", Loading.WAIT, 1, "b a? c"),
        ("a:l|b:b|c:r", Loading.WAIT, 1, "a? c"),
        ("a:l|b:r|c:r", Loading.REFUSE, 1, "b c a?"),
        ("a:l|b:x|c:r", Loading.REFUSE, 1, "a!"),
        ("a:b|b:r|c:r", Loading.FALLBACK, 1, "c"),
        ("a:x|b:r|c:r", Loading.FALLBACK, 1, "b c"),
        ("a:t|b:r|c:r", Loading.FALLBACK, 1, "c"),
        ("a:m|b:r|c:r", Loading.FALLBACK, 1, "c"),
        ("a:l|b:f|c:r", Loading.FALLBACK, 1, "b+ a?"),
    ],
)
def test_while_the_engine_loads(
    facts: str, loading: Loading, bridge: int | None, expected: str
) -> None:
    assert ranked(facts, loading=loading, bridge=bridge)[0] == expected


def test_causes() -> None:
    _, passed = ranked("a:b b:m c:x d:t e:u f:f g:r|h:r")
    assert passed == {
        "a": Cause.BREAKER,
        "b": Cause.RATE_LIMITED,
        "c": Cause.NOT_READY,
        "d": Cause.TRIED,
        "e": Cause.ABILITY,
        "g": Cause.FULL,
        "h": Cause.FULL,
    }
    assert ranked("a:r|b:r", bridge=1)[1] == {"b": Cause.UNNEEDED}
    assert ranked("a:l|b:r", loading=Loading.REFUSE)[1] == {"b": Cause.FULL}
