"""Instructions that come later in a conversation: on top, or where they stand. Newer models refuse
thoughts behind instructions that changed."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.anthropic.helpers import out, sent

NEW, OLD = "claude-opus-5-5", "claude-opus-4-6"
MARK = {"type": "ephemeral"}


def said(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


def turn(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def told(*messages: dict[str, Any], model: str = NEW, **settings: Any) -> tuple[Any, Any]:
    """What stands on top, and the turns."""
    body = out({"messages": list(messages)}, model=model, **settings)
    return body.get("system"), body["messages"]


U, A, S = (lambda text, role=role: said(role, text) for role in ("user", "assistant", "system"))
TOP = [{"type": "text", "text": "top"}]


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([U("a"), S("s")], [turn("user", "a"), turn("system", "s")]),
        # At the end of the user's turn, wherever in it they stand.
        ([U("a"), S("s"), U("b")], [turn("user", "a"), turn("user", "b"), turn("system", "s")]),
        (
            [U("a"), A("b"), S("s"), said("developer", "d"), U("c")],
            [
                turn("user", "a"),
                turn("assistant", "b"),
                turn("user", "c"),
                turn("system", "s", "d"),
            ],
        ),
        (
            [U("a"), S("s"), A("b"), U("c"), S("t"), A("d")],
            [
                turn("user", "a"),
                turn("system", "s"),
                turn("assistant", "b"),
                turn("user", "c"),
                turn("system", "t"),
                turn("assistant", "d"),
            ],
        ),
        # What said nothing is no turn.
        (
            [U("a"), S("s"), A(""), U("b")],
            [turn("user", "a"), turn("user", "b"), turn("system", "s")],
        ),
        ([U("a"), S(" ")], [turn("user", "a")]),
    ],
)
def test_where_they_stand(messages: list[dict[str, Any]], turns: list[dict[str, Any]]) -> None:
    assert told(S("top"), *messages) == (TOP, turns)


def test_behind_an_answer_there_is_no_place_but_the_top() -> None:
    system, turns = told(S("top"), U("a"), A("b"), S("s"))
    assert (system, turns) == (
        [*TOP, {"type": "text", "text": "s"}],
        [turn("user", "a"), turn("assistant", "b")],
    )


def test_a_mark_for_the_cache_stays() -> None:
    outgoing = sent({"messages": [U("a"), said("system", "s", cache_control=MARK)]}, model=NEW)
    assert outgoing.dropped == ()
    _, turns = told(U("a"), said("system", "s", cache_control=MARK))
    assert turns[1]["content"] == [{"type": "text", "text": "s", "cache_control": MARK}]


@pytest.mark.parametrize(
    ("model", "inline"),
    [
        ("claude-opus-4-7", False),
        ("claude-opus-4-8", True),
        ("claude-opus-4-8-20260528", True),
        ("claude-opus-5", True),
        ("claude-fable-5", True),
        ("claude-mythos-5", True),
        ("claude-sonnet-4-6", False),
        ("claude-sonnet-5", False),
        ("claude-sonnet-5-5", True),
        ("claude-haiku-5-5", True),
        ("claude-haiku-6", True),
        ("claude-3-7-sonnet-20250219", False),
        ("claude-mythos-preview", False),
        ("other", False),
    ],
)
def test_which_models_take_them(model: str, inline: bool) -> None:
    for setting, expected in ((None, inline), ("inline", True), ("top", False)):
        more = {} if setting is None else {"later_system": setting}
        system, turns = told(U("a"), S("s"), model=model, **more)
        assert (system is None) is expected
        assert (turns[-1]["role"] == "system") is expected


#: Instructions between two answers have no place but the top.
_turns = [["user"], ["user", "system"], ["system", "user"], ["user", "system", "assistant"]]
_roles = st.lists(st.sampled_from(_turns), max_size=5).map(lambda found: list(chain(*found)))


@given(_roles, _roles)
def test_a_conversation_that_goes_on_changes_nothing_before(
    first: list[str], more: list[str]
) -> None:
    """What was sent once is sent again, up to the last answer: only then are thoughts good."""
    messages = [said(role, f"{role} {i}") for i, role in enumerate(["user", *first, "user"])]
    answered = [*messages, said("assistant", "then")]
    later = [*answered, said("user", "next"), *(said(role, f"{role} again") for role in more)]
    system, turns = told(*messages)
    again, further = told(*later, said("user", "end"))
    assert again == system
    assert further[: len(turns)] == turns
