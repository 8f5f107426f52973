"""Defaults and ceilings: what enters a body, and what never does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from server.protocol.envelope import Surface, emit, members
from server.protocol.parameters import NOT_OPENAI, Ceilings, Fill, fill_of, number

CHAT, COMPLETIONS = Surface.CHAT, Surface.COMPLETIONS


def filled(
    body: dict[str, Any],
    defaults: dict[str, Any],
    ceilings: dict[str, float] | None = None,
    *,
    surface: Surface = CHAT,
    **how: Any,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a target gets of a body, and what was lowered."""
    fill = fill_of(defaults, Ceilings.of(ceilings or {}, clamp=True), **how)
    out: dict[str, Any] = members(json.dumps(body).encode())
    lowered = fill.into(out, surface) if fill else ()
    return json.loads(emit(out)), lowered


@pytest.mark.parametrize(
    ("body", "defaults", "sent"),
    [
        ({}, {"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0}, {"temperature": 0.5}, {"temperature": 0}),
        ({"temperature": None}, {"temperature": 0.5}, {"temperature": 0.5}),
        ({}, {"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_tokens": 5}, {"max_tokens": 9}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 9}, {"max_completion_tokens": 5}),
        ({"max_tokens": None}, {"max_tokens": 9}, {"max_tokens": 9}),
        # What the client says shuts out what would contradict it.
        ({"min_tokens": 20}, {"max_tokens": 9}, {"min_tokens": 20}),
        ({"min_tokens": 9}, {"max_tokens": 9}, {"min_tokens": 9, "max_tokens": 9}),
        ({"max_tokens": 4}, {"min_tokens": 9}, {"max_tokens": 4}),
        ({"max_completion_tokens": 4}, {"min_tokens": 9}, {"max_completion_tokens": 4}),
        (
            {"structured_outputs": {}},
            {"response_format": {"type": "json_object"}},
            {"structured_outputs": {}},
        ),
        ({"reasoning": {}}, {"reasoning_effort": "low"}, {"reasoning": {}}),
        ({"n": 2}, {"temperature": 0}, {"n": 2}),
        ({"n": 1}, {"temperature": 0}, {"n": 1, "temperature": 0}),
        ({"n": 2}, {"temperature": 0.1}, {"n": 2, "temperature": 0.1}),
        ({"stream": True}, {"prompt_logprobs": 1}, {"stream": True}),
        ({"stream": False}, {"prompt_logprobs": 1}, {"stream": False, "prompt_logprobs": 1}),
        # What means nothing without another, and would be refused.
        ({}, {"tool_choice": "required"}, {}),
        ({"tools": [1]}, {"tool_choice": "auto"}, {"tools": [1], "tool_choice": "auto"}),
        ({}, {"tool_choice": "auto", "tools": [1]}, {"tools": [1], "tool_choice": "auto"}),
        ({}, {"parallel_tool_calls": False}, {}),
        ({"logprobs": False}, {"top_logprobs": 3}, {"logprobs": False}),
        ({"logprobs": True}, {"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        # What belongs to the other surface.
        ({}, {"echo": True, "suffix": "x", "logprobs": 5}, {}),
        ({}, {"logprobs": True}, {"logprobs": True}),
        ({}, {"anything": {"a": [1]}}, {"anything": {"a": [1]}}),
    ],
)
def test_what_a_chat_gets(
    body: dict[str, Any], defaults: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert filled(body, defaults) == (sent, ())


def test_what_other_surfaces_get() -> None:
    defaults = {"temperature": 0.5, "max_tokens": 9, "logprobs": 2, "echo": True, "tools": [1]}
    assert filled({}, defaults, surface=COMPLETIONS, chat_longest="max_completion_tokens")[0] == {
        "temperature": 0.5,
        "max_tokens": 9,
        "logprobs": 2,
        "echo": True,
    }
    for surface in set(Surface) - {CHAT, COMPLETIONS}:
        assert filled({}, defaults, {"max_tokens": 5}, surface=surface) == ({}, ())


def test_the_best_of_fewer_than_are_asked_for_makes_no_sense() -> None:
    assert filled({"n": 3}, {"best_of": 2}, surface=COMPLETIONS)[0] == {"n": 3}
    assert filled({"n": 2}, {"best_of": 2}, surface=COMPLETIONS)[0] == {"n": 2, "best_of": 2}


def test_openais_chat_has_its_own_name_for_the_longest_answer() -> None:
    how: dict[str, Any] = {"chat_longest": "max_completion_tokens"}
    assert filled({}, {"max_tokens": 9}, **how)[0] == {"max_completion_tokens": 9}
    assert filled({"max_tokens": 1}, {"max_tokens": 9}, **how)[0] == {"max_tokens": 1}
    assert filled({}, {}, {"max_tokens": 9}, **how)[0] == {"max_completion_tokens": 9}


def test_a_target_gets_nothing_that_it_does_not_take() -> None:
    assert fill_of({"top_k": 5}, without=NOT_OPENAI) is None
    assert fill_of({}) is None
    assert fill_of({}, Ceilings.of({"n": 2}, clamp=False)) is None
    assert Ceilings.of({}, clamp=True) is None


@pytest.mark.parametrize(
    ("body", "defaults", "ceilings", "sent", "lowered"),
    [
        ({"temperature": 2}, {}, {"temperature": 1.5}, {"temperature": 1.5}, ("temperature",)),
        ({"temperature": 1.5}, {}, {"temperature": 1.5}, {"temperature": 1.5}, ()),
        ({"max_tokens": 50}, {}, {"max_tokens": 10}, {"max_tokens": 10}, ("max_tokens",)),
        (
            {"max_completion_tokens": 50},
            {},
            {"max_tokens": 10},
            {"max_completion_tokens": 10},
            ("max_completion_tokens",),
        ),
        (
            {"max_tokens": 50, "max_completion_tokens": 60},
            {},
            {"max_tokens": 10},
            {"max_tokens": 10, "max_completion_tokens": 10},
            ("max_tokens", "max_completion_tokens"),
        ),
        # It holds for those, too, who name no length; nothing of theirs was lowered.
        ({}, {}, {"max_tokens": 10}, {"max_tokens": 10}, ()),
        ({"max_tokens": None}, {}, {"max_tokens": 10}, {"max_tokens": 10}, ()),
        ({}, {"max_tokens": 5}, {"max_tokens": 10}, {"max_tokens": 5}, ()),
        ({"min_tokens": 7}, {"max_tokens": 5}, {"max_tokens": 10}, None, ()),
        ({}, {"max_tokens": 99}, {"max_tokens": 10}, {"max_tokens": 10}, ()),
        ({"n": 5}, {}, {"n": 2.0}, {"n": 2}, ("n",)),
        ({}, {}, {"n": 2, "top_k": 3}, {}, ()),
        # What stands for all that there is, is over every ceiling.
        ({"top_k": -1}, {}, {"top_k": 3}, {"top_k": 3}, ("top_k",)),
        ({"top_k": 0}, {}, {"top_k": 3}, {"top_k": 3}, ("top_k",)),
        ({"top_logprobs": 0}, {}, {"top_logprobs": 3}, {"top_logprobs": 0}, ()),
    ],
)
def test_ceilings_that_clamp(
    body: dict[str, Any],
    defaults: dict[str, Any],
    ceilings: dict[str, float],
    sent: dict[str, Any] | None,
    lowered: tuple[str, ...],
) -> None:
    found = filled(body, defaults, ceilings)
    assert found == (sent if sent is not None else {**body, "max_tokens": 10}, lowered)


@pytest.mark.parametrize(
    ("body", "ceilings", "clamp", "param"),
    [
        ({"max_tokens": 11}, {"max_tokens": 10}, False, "max_tokens"),
        ({"max_completion_tokens": 11}, {"max_tokens": 10}, False, "max_completion_tokens"),
        ({"max_tokens": 10}, {"max_tokens": 10}, False, None),
        ({"max_tokens": None}, {"max_tokens": 10}, False, None),
        ({}, {"max_tokens": 10}, False, None),
        ({"temperature": 1.1}, {"temperature": 1}, False, "temperature"),
        ({"temperature": 1.1}, {"temperature": 1}, True, None),
        # "5000" would be a number upstream.
        ({"top_k": "5000"}, {"top_k": 50}, True, "top_k"),
        ({"top_k": True}, {"top_k": 50}, True, "top_k"),
        ({"top_k": -1}, {"top_k": 50}, False, "top_k"),
        ({"prompt_logprobs": -1}, {"prompt_logprobs": 5}, False, "prompt_logprobs"),
        ({"prompt_logprobs": 0}, {"prompt_logprobs": 5}, False, None),
        ({"temperature": -1}, {"temperature": 1}, False, None),
    ],
)
def test_what_is_refused(
    body: dict[str, Any], ceilings: dict[str, float], clamp: bool, param: str | None
) -> None:
    held = Ceilings.of(ceilings, clamp=clamp)
    assert held is not None
    sent = members(json.dumps(body).encode())
    for surface in (CHAT, COMPLETIONS, Surface.EMBEDDINGS, Surface.RERANK):
        found = held.refusal(sent, surface)
        assert (found.param if found else None) == param
        if found and isinstance(body[param or ""], float | int) and body[param or ""] is not True:
            assert found.code == "over_limit"
            assert "limit" in found.message
    assert held.refusal(sent, Surface.TOKENIZE) is None


def test_logprobs_of_a_chat_are_yes_or_no() -> None:
    held = Ceilings.of({"logprobs": 5}, clamp=False)
    assert held is not None
    assert held.refusal(members(b'{"logprobs": true}'), CHAT) is None
    assert held.refusal(members(b'{"logprobs": true}'), COMPLETIONS) is not None


def test_an_empty_list_of_tools_has_no_choice() -> None:
    assert filled({"tools": []}, {"tool_choice": "auto"}, {})[0] == {"tools": []}


NAMES = st.sampled_from(
    "temperature top_p top_k max_tokens max_completion_tokens min_tokens n seed user".split()
)
VALUES = st.one_of(st.none(), st.integers(0, 50), st.booleans(), st.text(max_size=3))


@given(
    st.dictionaries(NAMES, VALUES),
    st.dictionaries(NAMES.filter(lambda n: n != "max_completion_tokens"), st.integers(0, 50)),
    st.dictionaries(st.sampled_from(["temperature", "max_tokens", "n"]), st.integers(1, 20)),
)
def test_what_a_client_says_stays_or_is_lowered_to_the_ceiling(
    body: dict[str, Any], defaults: dict[str, Any], ceilings: dict[str, float]
) -> None:
    sent, lowered = filled(body, defaults, ceilings)
    for name, value in body.items():
        if value is None:
            continue
        most = ceilings.get("max_tokens" if name == "max_completion_tokens" else name)
        over = most is not None and type(value) is int and value > most
        assert sent[name] == (most if over else value)
        assert (name in lowered) is over
    for name, most in ceilings.items():
        assert type(sent.get(name)) is not int or sent[name] <= most
    longest = [n for n in ("max_tokens", "max_completion_tokens") if body.get(n) is not None]
    told = [n for n in ("max_tokens", "max_completion_tokens") if sent.get(n) is not None]
    assert told == longest or (not longest and len(told) == 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"1", 1), (b"1.5", 1.5), (b"true", None), (b'"1"', None), (b"1e999", None), (b"[1]", None)],
)
def test_numbers(text: bytes, value: float | None) -> None:
    assert number(Raw(text)) == value


def test_a_fill_is_made_of_raw_values() -> None:
    fill = fill_of({"temperature": 0.5})
    assert isinstance(fill, Fill)
    assert fill.chat[0].value == Raw(b"0.5")
