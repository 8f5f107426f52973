"""Thoughts within the text: the same ones however a stream is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.dialects.base import Dialect
from server.dialects.openai import Usage
from server.dialects.table import DIALECTS, dialect_of
from server.dialects.thoughts import Splitter
from server.errors import UpstreamProtocol
from server.protocol.envelope import Surface
from tests.dialects.replay import (
    ASKED,
    QUIET,
    USAGE,
    answer,
    chunk,
    chunks,
    gathered,
    meaning,
    read,
    stream_of,
    strict,
)


def splitting(name: str = "openai", tags: str = "split") -> Dialect:
    found = dialect_of(name, {"think_tags": tags})
    assert found is not None
    return found


SPLIT = splitting()
BEGUN = splitting(tags="begun")
BOTH = [
    pytest.param(splitting(name, tags), id=f"{name}-{tags}")
    for name in ("openai", "huggingface")
    for tags in ("split", "begun")
]


def whole(dialect: Dialect, content: Any, **more: Any) -> tuple[Any, Any]:
    """Thought and text of a whole answer."""
    payload, facts = dialect.answer_in(answer({"content": content, **more}), ASKED)
    assert facts.usage == Usage(3, 2)
    message = json.loads(payload)["choices"][0]["message"]
    return message.get("reasoning_content"), message["content"]


# --- where tags count

CASES = [
    ("<think>a</think>b", "a", "b"),
    ("<think>\nHm.\n</think>\n\nYes.", "Hm.\n", "Yes."),
    ("\n <think>a</think>b", "a", "b"),
    ("<think>\n\n</think>\n\nYes.", None, "Yes."),
    ("<think></think>", None, ""),
    ("<think>never closed", "never closed", ""),
    ("<think>half </thi", "half </thi", ""),
    ("<think>a </thinking> b</think>c", "a </thinking> b", "c"),
    ("<think>a<think>b</think>c</think>d", "a<think>b", "c</think>d"),
    ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("b <think>a</think>", None, "b <think>a</think>"),
    ("<thin", None, "<thin"),
    (" \n", None, " \n"),
    ("<thinking>a</thinking>", None, "<thinking>a</thinking>"),
    ("a</think>b", None, "a</think>b"),
    ("", None, ""),
    (" " * 2000 + "<think>a</think>b", None, " " * 2000 + "<think>a</think>b"),
]
BEGUN_CASES = [
    ("a</think>b", "a", "b"),
    ("\n\na\n</think>\n\nb", "a\n", "b"),
    (" <think>a</think>b", "a", "b"),
    ("</think>b", None, "b"),
    ("<thi", "<thi", ""),
    (" never closed", "never closed", ""),
    (" ", None, ""),
    ("", None, ""),
]


@pytest.mark.parametrize(("content", "thought", "text"), CASES)
def test_a_whole_answer(content: str, thought: str | None, text: str) -> None:
    assert whole(SPLIT, content) == (thought, text)


@pytest.mark.parametrize(("content", "thought", "text"), BEGUN_CASES)
def test_a_whole_answer_that_begins_within_a_thought(
    content: str, thought: str | None, text: str
) -> None:
    assert whole(BEGUN, content) == (thought, text)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("case", [*CASES, *BEGUN_CASES])
def test_letter_by_letter(case: tuple[str, str | None, str], begun: bool) -> None:
    content = case[0]
    assert pieces(list(content), begun) == pieces([content], begun)


def pieces(parts: Sequence[str], begun: bool) -> tuple[str, str]:
    splitter = Splitter(begun=begun)
    found = [splitter.feed(part) for part in parts]
    found.append(splitter.end())
    return "".join(thought for thought, _ in found), "".join(text for _, text in found)


#: Bits of tags, blanks, and words.
contents = st.lists(
    st.sampled_from(
        ["<", "think", ">", "</", "<think>", "</think>", " ", "\n", "a", "é", "\\", '"']
    ),
    max_size=12,
).map("".join)
cuts = st.lists(st.integers(0, 60), max_size=8)


def cut_up(content: str, places: Sequence[int]) -> list[str]:
    ends = sorted({min(place, len(content)) for place in places} | {0, len(content)})
    return [content[start:end] for start, end in pairwise(ends)]


def streamed(
    dialect: Dialect, parts: Sequence[Sequence[str]], *, ended: bool, together: bool
) -> list[tuple[str, str]]:
    """Thought and text of each choice, from a stream of their parts in turn; `together`: the last
    part comes with the end."""
    events: list[dict[str, Any] | str] = []
    for place in range(max(map(len, parts))):
        for index, said in enumerate(parts):
            if place < len(said):
                end = "stop" if ended and together and place == len(said) - 1 else None
                events.append(one(index, {"content": said[place]}, end))
    if ended:
        for index, said in enumerate(parts):
            if not (together and said):
                events.append(one(index, {}, "stop"))
    made = chunks(read(dialect.reader(ASKED), stream_of(*events, "[DONE]")))
    found = [("", "") for _ in parts]
    for event in made:
        for choice in event["choices"]:
            delta, (thought, text) = choice["delta"], found[choice["index"]]
            thought += delta.get("reasoning_content") or ""
            found[choice["index"]] = (thought, text + (delta.get("content") or ""))
    return found


def one(index: int, delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
    made = chunk(delta, end)
    made["choices"][0]["index"] = index
    return made


@pytest.mark.parametrize("dialect", BOTH)
@given(
    said=st.lists(st.tuples(contents, cuts), min_size=1, max_size=3),
    ended=st.booleans(),
    together=st.booleans(),
)
@example(said=[("b <", []), ("<think>a</think>b", [3, 9])], ended=True, together=False)
@example(said=[("a", []), ("\n<think>a</think>b", [1])], ended=True, together=False)
@example(said=[("<think>a</thi", [8, 11])], ended=False, together=False)
def test_any_cutting_says_what_the_whole_says(
    dialect: Dialect, said: list[tuple[str, list[int]]], ended: bool, together: bool
) -> None:
    """Of every choice, with an end or without one."""
    parts = [cut_up(content, places) for content, places in said]
    if not any(parts):
        return
    expected = [whole(dialect, content) for content, _ in said]
    found = streamed(dialect, parts, ended=ended, together=together)
    assert found == [(thought or "", text) for thought, text in expected]


# --- a whole answer besides


def test_all_else_is_as_it_was() -> None:
    payload = (
        b'{"id":"x", "created":1.0,"choices":[{"index":0,"finish_reason":"stop","logprobs":{"a":'
        b'[1e3, 2]},"message":{"role":"assistant","content":"\\u003cthink\\u003ea\\u003c/think'
        b'\\u003eb","odd":[ 1 ]}},{"index":1,"finish_reason":"stop","message":{"content":'
        b'[{"type":"text","text":"<think>"}]}}],"usage":{"prompt_tokens":3, "completion_tokens":2}}'
    )
    out, facts = SPLIT.answer_in(payload, ASKED)
    assert facts.usage == Usage(3, 2)
    expected = payload.replace(
        b'"\\u003cthink\\u003ea\\u003c/think\\u003eb","odd":[ 1 ]',
        b'"b","odd":[ 1 ],"reasoning_content":"a"',
    )
    assert out == expected.replace(b', "created"', b',"created"')


def test_an_answer_without_a_thought_is_the_same_bytes() -> None:
    for content in ("a", "I think.", None):
        payload = answer({"content": content})
        assert SPLIT.answer_in(payload, ASKED)[0] is payload


def test_thoughts_that_are_told_apart_already() -> None:
    """Then none has begun in the text; what stands there in tags is added to them."""
    assert whole(BEGUN, "b", reasoning_content="a") == ("a", "b")
    assert whole(BEGUN, "b", reasoning="a") == (None, "b")
    assert whole(BEGUN, "b", reasoning_content="") == ("b", "")
    assert whole(SPLIT, "<think>b</think>c", reasoning_content="a") == ("ab", "c")
    assert whole(SPLIT, "<think>b</think>c", reasoning_content=None) == ("b", "c")


def test_the_sdk_reads_it() -> None:
    made = SPLIT.answer_in(answer({"content": "<think>a</think>b"}), ASKED)[0]
    found = meaning(strict(made))
    assert (found["thinking"], found["text"], found["usage"]) == ("a", "b", (3, 2, 0))


def test_an_error_in_an_answers_clothes_is_handed_on() -> None:
    payload = b'{"error": {"message": "<think>"}}'
    assert BEGUN.answer_in(payload, ASKED)[0] is payload
    assert BEGUN.answer_in(payload, ASKED)[1].error == {"message": "<think>"}


@pytest.mark.parametrize(
    "choices", ["1", '"think"', "[1]", '[{"message":1}]', '[{"message":{"content":"\\ud800"}}]']
)
def test_what_is_no_answer(choices: str) -> None:
    payload = b'{"choices":%s,"think":1}' % choices.encode()
    with pytest.raises(UpstreamProtocol):
        BEGUN.answer_in(payload, ASKED)


# --- a stream besides


def told(*contents: str, dialect: Dialect = SPLIT) -> list[Any]:
    reader = dialect.reader(ASKED)
    made = [reader.feed(None, json.dumps(chunk({"content": one})).encode()) for one in contents]
    return [json.loads(only[0])["choices"][0]["delta"] for only in made]


def test_what_a_piece_becomes() -> None:
    assert told("<thi", "nk>", "a", " </think>\n", "\nb", "c") == [
        {"content": ""},
        {"content": ""},
        {"reasoning_content": "a"},
        {"reasoning_content": " "},
        {"content": "b"},
        {"content": "c"},
    ]
    assert told("<think>a</think>b") == [{"reasoning_content": "a", "content": "b"}]


def test_an_answer_passes_as_the_bytes_that_it_is() -> None:
    payload = b'{ "choices":[ {"delta":{"content":"%s"}} ] }'
    reader = SPLIT.reader(ASKED)
    for text in (b"", b"a", b"<think>", b"</think>"):
        said = payload % text
        (made,) = reader.feed(None, said)
        assert made is said


def test_a_further_choice_is_looked_at_however_late_it_comes() -> None:
    reader = SPLIT.reader(ASKED)
    reader.feed(None, json.dumps(one(0, {"content": "a"})).encode())
    made = reader.feed(None, json.dumps(one(2, {"content": "<think>b"})).encode())
    assert json.loads(made[0])["choices"][0]["delta"] == {"reasoning_content": "b"}


def test_the_role_the_end_and_calls_stand_where_they_stood() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    stream = stream_of(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "<think>a"}),
        chunk({"content": "</think>"}),
        chunk({"tool_calls": [call]}),
        chunk({}, "tool_calls"),
        {**chunk({}), "choices": [], "usage": USAGE},
        "[DONE]",
    )
    for dialect in (SPLIT, splitting("huggingface")):
        reader = dialect.reader(ASKED)
        assert gathered(read(reader, stream)) == {
            "text": "",
            "thinking": "a",
            "calls": [["c", "f", "{}"]],
            "citations": [],
            "finish": "tool_calls",
            "usage": (3, 2, 0),
        }
        assert (reader.usage, reader.done) == (Usage(3, 2), True)
        quiet = dialect.reader(QUIET)
        assert gathered(read(quiet, stream))["usage"] is None
        assert quiet.usage == Usage(3, 2)


def test_a_thought_that_was_told_apart_has_not_begun_in_the_text() -> None:
    stream = stream_of(
        chunk({"role": "assistant", "reasoning_content": "a"}),
        chunk({"content": "b"}),
        chunk({}, "stop"),
        "[DONE]",
    )
    found = gathered(read(BEGUN.reader(ASKED), stream))
    assert (found["thinking"], found["text"]) == ("a", "b")


def test_half_a_tag_at_an_end_that_nobody_told() -> None:
    made = chunks(read(SPLIT.reader(ASKED), stream_of(chunk({"content": "<thi"}), "[DONE]")))
    assert made[-1] == {
        **chunk({}),
        "choices": [{"index": 0, "delta": {"content": "<thi"}, "finish_reason": None}],
    }


@pytest.mark.parametrize(
    "payload",
    [
        b"<html>",
        b'{"choices":[{"index":"a","delta":{}}]}',
        b'{"choices":[{"delta":1}]}',
        b'{"choices":[{"delta":{"content":"\\ud800"}}]}',
    ],
)
def test_what_is_no_chunk(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        SPLIT.reader(ASKED).feed(None, payload)


def test_what_is_no_chat_has_no_thoughts() -> None:
    asked = replace(ASKED, surface=Surface.COMPLETIONS)
    payload = b'{"choices":[{"index":0,"text":"<think>a</think>"}]}'
    for dialect in (SPLIT, BEGUN):
        assert dialect.answer_in(payload, asked)[0] is payload
        assert dialect.reader(asked).feed(None, payload) == (payload,)


def test_which_accounts_have_it() -> None:
    assert dialect_of("openai", {"think_tags": "keep"}) is None
    assert dialect_of("huggingface", {"think_tags": "keep"}) is DIALECTS["huggingface"]
    for name in ("openai", "huggingface"):
        found = splitting(name)
        assert (found.name, found.lacks) == (name, frozenset())
        assert found.error_in(429, b"{}").status == 429
