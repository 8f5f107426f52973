"""An answer that a client sends back is to Anthropic what it was: newer models refuse thoughts that
were moved."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.anthropic.helpers import ASKED, DIALECT, HELLO, gathered, out, read, stream_of
from tests.dialects.anthropic.test_stream import BEGIN, LAST, MESSAGE, delta, end, start, stop, told

Block = dict[str, Any]

_words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_signed = st.tuples(_words, st.sampled_from(["c2ln", "czI="]))
blocks_of_an_answer = st.lists(
    st.one_of(
        _words.map(lambda said: {"type": "text", "text": said}),
        _signed.map(lambda t: {"type": "thinking", "thinking": t[0], "signature": t[1]}),
        st.just({"type": "redacted_thinking", "data": "ZGF0YQ=="}),
        st.just({"type": "tool_use", "name": "f", "input": {"a": 1}}),
    ),
    min_size=1,
    max_size=8,
)


def whole(blocks: list[Block]) -> Block:
    """OpenAI's message of a whole answer."""
    payload = {**MESSAGE, "content": blocks, "stop_reason": "end_turn"}
    answer, _ = DIALECT.answer_in(json.dumps(payload).encode(), ASKED)
    message: Block = json.loads(answer)["choices"][0]["message"]
    return message


def streamed(blocks: list[Block]) -> Block:
    """The same of a stream, as the OpenAI SDK puts it together."""
    events = [BEGIN]
    for index, block in enumerate(blocks):
        kind = block["type"]
        if kind == "text":
            events += told(block["text"], index=index)
        elif kind == "thinking":
            events += [
                start(index, kind, thinking="", signature=""),
                delta(index, "thinking_delta", thinking=block["thinking"]),
                delta(index, "signature_delta", signature=block["signature"]),
                stop(index),
            ]
        elif kind == "redacted_thinking":
            events += [start(index, kind, data=block["data"]), stop(index)]
        else:
            written = json.dumps(block["input"])
            events += [
                start(index, kind, id=block["id"], name=block["name"], input={}),
                delta(index, "input_json_delta", partial_json=written),
                stop(index),
            ]
    made, _ = read(stream_of(*events, end(), LAST))
    message: Block = gathered(made).choices[0].message.model_dump(exclude_none=True)
    message.pop("parsed", None)
    for call in message.get("tool_calls", ()):
        call.pop("index", None)
    return message


def sent_back(message: Block) -> list[Block]:
    """The blocks of the turn that it becomes; none when nothing was said."""
    body = out({"messages": [*HELLO, message, *HELLO]})
    turns = [turn for turn in body["messages"] if turn["role"] == "assistant"]
    return turns[0]["content"] if turns else []


def ordered(blocks: list[Block]) -> list[Block]:
    """What can be known of an order: between two thoughts, the text comes before the calls."""
    found: list[Block] = []
    text, calls = "", []
    for block in [*blocks, None]:
        if block is not None and block["type"] == "text":
            text += block["text"]
        elif block is not None and block["type"] == "tool_use":
            calls.append(block)
        else:
            found += [{"type": "text", "text": text}] if text.strip() else []
            found += calls
            found += [] if block is None else [block]
            text, calls = "", []
    return found


@given(blocks_of_an_answer)
def test_every_block_comes_back_in_its_place(blocks: list[Block]) -> None:
    named = [
        {**block, "id": f"t{index}"} if block["type"] == "tool_use" else block
        for index, block in enumerate(blocks)
    ]
    expected = ordered(named)
    for message in (whole(named), streamed(named)):
        assert sent_back(message) == expected


def test_what_comes_first_needs_no_place() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    message = whole([thought, {"type": "text", "text": "a"}])
    assert message["reasoning_details"] == [{"index": 0, **thought}]


THOUGHT: Block = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
TEXT: Block = {"type": "text", "text": "abc"}


@pytest.mark.parametrize(
    "after",
    [None, 7, {}, {"text": "2"}, {"text": True}, {"text": -1}, {"text": 0, "calls": 9}, [1, 2]],
)
def test_a_place_that_is_none_is_the_first(after: Any) -> None:
    detail = {**THOUGHT, "after": after}
    message = {"role": "assistant", "content": "abc", "reasoning_details": [detail]}
    assert sent_back(message) == [THOUGHT, TEXT]


def test_a_text_that_was_shortened_holds_no_place_open() -> None:
    detail = {**THOUGHT, "after": {"text": 99, "calls": 3}}
    message = {"role": "assistant", "content": "abc", "reasoning_details": [detail]}
    assert sent_back(message) == [TEXT, THOUGHT]


def test_parts_are_split_where_the_thought_stood() -> None:
    """A mark for the cache stays where its part ended."""
    detail = {**THOUGHT, "after": {"text": 4}}
    mark = {"cache_control": {"type": "ephemeral"}}
    parts = [TEXT, {"type": "text", "text": "def", **mark}, TEXT]
    message = {"role": "assistant", "content": parts, "reasoning_details": [detail]}
    assert sent_back(message) == [
        TEXT,
        {"type": "text", "text": "d"},
        THOUGHT,
        {"type": "text", "text": "ef", **mark},
        TEXT,
    ]
