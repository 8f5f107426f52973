"""A whole answer: each row of the table, and what no recording has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.openai import Usage
from server.errors import UpstreamAborted, UpstreamProtocol, UpstreamStatus
from tests.dialects.anthropic.helpers import ASKED, DIALECT, strict, theirs

USAGE = {"input_tokens": 10, "output_tokens": 5}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def tool_use(identity: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity, "name": "f", "input": given}


def message(*blocks: dict[str, Any], stop: str | None = "end_turn", **more: Any) -> bytes:
    whole = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
        **more,
    }
    return json.dumps(whole).encode()


def answer(payload: bytes) -> dict[str, Any]:
    """Ours, once the OpenAI SDK has taken it."""
    made, _ = DIALECT.answer_in(payload, ASKED)
    strict(made)
    return dict(json.loads(made))


def said(payload: bytes) -> dict[str, Any]:
    return dict(answer(payload)["choices"][0]["message"])


CITED = {"type": "char_location", "cited_text": "x", "document_index": 0}


def test_what_a_text_cites() -> None:
    """With the place of the text in the content, since blocks are put together there."""
    one, two = ({**CITED, "document_index": index} for index in (1, 2))
    found = said(
        message(
            {**text("ab"), "citations": [one, one]},
            text("c"),
            {**text("dé"), "citations": [two]},
            {**text("f"), "citations": None},
        )
    )
    assert found["content"] == "abcdéf"
    assert found["citations"] == [
        {**one, "index": 0, "start": 0, "end": 2},
        {**one, "index": 1, "start": 0, "end": 2},
        {**two, "index": 2, "start": 3, "end": 5},
    ]
    assert "citations" not in said(message({**text("a"), "citations": "odd"}))


def test_the_text_that_ended_it() -> None:
    (choice,) = answer(message(text("a"), stop="stop_sequence", stop_sequence="END"))["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")
    (choice,) = answer(message(text("a")))["choices"]
    assert "stop_reason" not in choice


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("standard", "default"), ("priority", "priority"), ("batch", None), (None, None), (7, None)],
)
def test_how_it_was_served(theirs: Any, ours: str | None) -> None:
    found = answer(message(text("a"), usage={**USAGE, "service_tier": theirs}))
    assert found.get("service_tier") == ours


def test_an_answer_in_full() -> None:
    assert answer(message(text("Hello"))) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("what_is_this", "stop"),
    ],
)
def test_why_it_ended(stop: str, finish: str) -> None:
    assert answer(message(text("a"), stop=stop))["choices"][0]["finish_reason"] == finish


def test_an_answer_without_an_end_is_none() -> None:
    with pytest.raises(UpstreamAborted):
        DIALECT.answer_in(message(text("a"), stop=None), ASKED)


def test_blocks_become_one_message() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm. ", "signature": "czE="},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        text("One. "),
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "x"}]},
        {"type": "what_is_this", "text": 7, "input": None},
        {"type": "thinking", "thinking": "Ah.", "signature": "czI="},
        text("Two."),
        tool_use("a", {"x": [1, 2.5, "é"]}),
        tool_use("b", {}),
    ]
    assert said(message(*blocks, stop="tool_use")) == {
        "role": "assistant",
        "content": "One. Two.",
        "refusal": None,
        "reasoning_content": "Hm. Ah.",
        "reasoning_details": [
            {"index": 0, **blocks[0]},
            {"index": 1, **blocks[1]},
            {"index": 2, "after": {"text": 5, "calls": 0}, **blocks[6]},
        ],
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "f", "arguments": '{"x": [1, 2.5, "\\u00e9"]}'},
            },
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ],
    }


def test_calls_alone_have_no_content_and_nothing_at_all_has_an_empty_one() -> None:
    assert said(message(tool_use("a", {})))["content"] is None
    assert said(message())["content"] == ""


def test_thinking_without_a_signature_is_nothing_to_send_back() -> None:
    made = said(message({"type": "thinking", "thinking": "Hm."}, text("a")))
    assert made["reasoning_content"] == "Hm."
    assert "reasoning_details" not in made


def test_thinking_that_is_not_shown_can_be_sent_back() -> None:
    block = {"type": "thinking", "thinking": "", "signature": "c2ln"}
    made = said(message(block, text("a")))
    assert "reasoning_content" not in made
    assert made["reasoning_details"] == [{"index": 0, **block}]


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"type": "refusal", "explanation": "Not this.", "category": "bio"}, "Not this."),
        ({"type": "refusal", "category": "bio"}, "The provider stopped this answer (bio)."),
        ({"explanation": 7, "category": None}, "The provider stopped this answer."),
        (None, "The provider stopped this answer."),
    ],
)
def test_a_refusal_has_words(details: Any, words: str) -> None:
    made = said(message(text("Well"), stop="refusal", stop_details=details))
    assert (made["content"], made["refusal"]) == ("Well", words)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(10, 5, 0)),
        ({**USAGE, "cache_read_input_tokens": None}, Usage(10, 5, 0)),
        (
            {**USAGE, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4},
            Usage(17, 5, 4),
        ),
        ({"output_tokens": 5}, Usage(0, 5, 0, partly=True)),
        ({"input_tokens": -1, "output_tokens": True}, Usage(0, 0, 0, partly=True)),
        ({"input_tokens": 10, "output_tokens": "many"}, Usage(10, 0, 0, partly=True)),
        (None, None),
        ("much", None),
        ({}, None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    made, facts = DIALECT.answer_in(message(text("a"), usage=usage), ASKED)
    assert facts.usage == expected
    assert ("usage" in json.loads(made)) is (expected is not None)
    strict(made)


def test_usage_is_shown_in_parts() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 4,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
    }
    assert answer(message(text("a"), usage=usage))["usage"] == {
        "prompt_tokens": 17,
        "completion_tokens": 50,
        "total_tokens": 67,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }


def test_an_error_in_an_answers_clothes() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(UpstreamStatus) as raised:
        DIALECT.answer_in(json.dumps(body).encode(), ASKED)
    assert (raised.value.upstream_status, raised.value.status) == (529, 503)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"type": "completion"}',
        b'{"type": "message", "content": "text"}',
        b'{"type": "message", "content": [7]}',
        b'{"type": "message", "content": [{"type": "text", "text": 7}]}',
        b'{"type": "message", "content": []',
        b"[" * 100_000,
    ],
)
def test_no_answer(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(payload, ASKED)


def test_the_official_sdk_reads_these_too() -> None:
    """What stands above is no invention of ours: their SDK knows these shapes."""
    read = theirs(message(text("a"), stop="refusal", stop_details={"type": "refusal"}))
    assert read.stop_details.type == "refusal"
