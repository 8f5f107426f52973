"""Answers, events and errors of Cohere that no recording holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.base import Asked
from server.dialects.cohere import Cohere
from server.dialects.openai import Usage
from server.dialects.trouble import Trouble
from server.errors import (
    UpstreamAborted,
    UpstreamError,
    UpstreamProtocol,
    UpstreamStatus,
)
from server.protocol.envelope import Surface
from tests.dialects.replay import (
    ASKED,
    QUIET,
    chunks,
    gathered,
    meaning,
    read,
    stream_of,
    strict,
)

DIALECT = Cohere()


def answer(message: dict[str, Any] | None = None, **more: Any) -> bytes:
    text = {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}
    return json.dumps(
        {"id": "x", "finish_reason": "COMPLETE", "message": message or text, **more}
    ).encode()


def made(payload: bytes) -> dict[str, Any]:
    return meaning(strict(DIALECT.answer_in(payload, ASKED)[0]))


# --- whole answers


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("SOMETHING_NEW", "stop"),
        (None, "stop"),
    ],
)
def test_reasons_to_finish(reason: str | None, finish: str) -> None:
    assert made(answer(finish_reason=reason))["finish"] == finish


@pytest.mark.parametrize(
    ("more", "kind", "status", "words"),
    [
        ({"finish_reason": "ERROR"}, UpstreamAborted, 502, "ERROR"),
        ({"finish_reason": "ERROR", "error": "/etc/secret"}, UpstreamAborted, 502, "ERROR"),
        (
            {"finish_reason": "ERROR", "error": "x", "error_type": "INVALID_TOOL_GENERATION"},
            UpstreamAborted,
            502,
            "INVALID_TOOL_GENERATION",
        ),
        ({"finish_reason": "ERROR", "error_type": "<b>"}, UpstreamAborted, 502, "ERROR"),
        ({"finish_reason": "ERROR_LIMIT"}, UpstreamAborted, 502, "ERROR_LIMIT"),
        ({"finish_reason": None, "error": "x"}, UpstreamAborted, 502, "ERROR"),
        ({"finish_reason": "TIMEOUT"}, UpstreamStatus, 504, "TIMEOUT"),
    ],
)
def test_errors_in_an_answers_clothes(
    more: dict[str, Any], kind: type[UpstreamError], status: int, words: str
) -> None:
    with pytest.raises(kind) as caught:
        DIALECT.answer_in(answer(**more), ASKED)
    assert caught.value.status == status
    assert caught.value.retryable
    assert words in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (None, None),
        ({}, None),
        ({"tokens": {}}, None),
        ({"tokens": {"input_tokens": 3.0, "output_tokens": 2.0}}, Usage(3, 2)),
        (
            {"tokens": {"input_tokens": 3, "output_tokens": 2}, "cached_tokens": 1.0},
            Usage(3, 2, 1),
        ),
        (
            {
                "tokens": {"input_tokens": 9, "output_tokens": 8},
                "billed_units": {"input_tokens": 1, "output_tokens": 1},
            },
            Usage(9, 8),
        ),
        ({"billed_units": {"input_tokens": 1, "output_tokens": 2}}, Usage(1, 2, partly=True)),
        ({"tokens": {"input_tokens": 3}}, Usage(3, 0, partly=True)),
        ({"tokens": {"input_tokens": -1, "output_tokens": 2}}, Usage(0, 2, partly=True)),
        ({"tokens": {"input_tokens": True, "output_tokens": 1e300}}, None),
    ],
)
def test_usage_is_of_tokens_and_whole(told: Any, usage: Usage | None) -> None:
    out, facts = DIALECT.answer_in(answer(usage=told), ASKED)
    assert facts.usage == usage
    assert ("usage" in json.loads(out)) is (usage is not None)
    assert meaning(strict(out))["usage"] == (
        None if usage is None else (usage.prompt, usage.completion, usage.cached)
    )


def test_what_is_in_a_message() -> None:
    message = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "t"},
            {"type": "text", "text": "a"},
            {"type": "new", "new": 1},
            {"type": "text", "text": "b"},
        ],
        "tool_plan": "p",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}],
        "citations": [{"start": 0, "end": 1, "text": "a", "sources": []}],
    }
    found = made(answer(message, finish_reason="NEW"))
    assert found["text"] == "ab"
    assert found["thinking"] == "tp"
    assert found["calls"] == [["c", "f", "{}"]]
    assert found["citations"] == message["citations"]
    assert found["finish"] == "tool_calls"


@pytest.mark.parametrize("content", [None, [], "", "hi"])
def test_a_message_without_parts(content: Any) -> None:
    assert made(answer({"role": "assistant", "content": content}))["text"] == (content or "")


def test_logprobs_of_a_piece_are_added_up() -> None:
    items = [
        {"text": "hé", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]},
        {"text": "x", "token_ids": [3]},
    ]
    found = strict(DIALECT.answer_in(answer(logprobs=items), ASKED)[0]).choices[0].logprobs
    assert found is not None
    assert found.content is not None
    (piece,) = found.content
    assert (piece.token, piece.logprob, piece.bytes) == ("hé", -0.75, [104, 195, 169])


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"{}", b'{"message": 1}', b"[" * 10_000, b"\xff"]
)
def test_what_is_no_answer(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(payload, ASKED)
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(payload, Asked(Surface.EMBEDDINGS, "m", "e", 1))


def test_a_call_without_a_name_is_no_answer() -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(answer({"tool_calls": [{"id": "c"}]}), ASKED)


# --- streams

START = {"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}}
END = {
    "type": "message-end",
    "delta": {
        "finish_reason": "COMPLETE",
        "usage": {"tokens": {"input_tokens": 3.0, "output_tokens": 2.0}},
    },
}


def text(words: str, **more: Any) -> dict[str, Any]:
    content = {"content": {"text": words}}
    return {"type": "content-delta", "index": 0, "delta": {"message": content}, **more}


def thinking(words: str) -> dict[str, Any]:
    content = {"content": {"thinking": words}}
    return {"type": "content-delta", "index": 0, "delta": {"message": content}}


def call(index: int, identity: str, arguments: str = "") -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    calls = {"id": identity, "type": "function", "function": function}
    return {
        "type": "tool-call-start",
        "index": index,
        "delta": {"message": {"tool_calls": calls}},
    }


def arguments(index: int, words: str) -> dict[str, Any]:
    calls = {"function": {"arguments": words}}
    return {
        "type": "tool-call-delta",
        "index": index,
        "delta": {"message": {"tool_calls": calls}},
    }


def end_call(index: int) -> dict[str, Any]:
    return {"type": "tool-call-end", "index": index}


def test_thoughts_text_and_citations() -> None:
    citation = {"start": 0, "end": 1, "text": "é", "sources": []}
    stream = stream_of(
        START,
        {
            "type": "content-start",
            "index": 0,
            "delta": {"message": {"content": {"type": "thinking", "thinking": "a"}}},
        },
        thinking("b"),
        {"type": "content-end", "index": 0},
        {
            "type": "content-start",
            "index": 1,
            "delta": {"message": {"content": {"type": "text", "text": "c"}}},
        },
        text("é"),
        {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}},
        {"type": "citation-end", "index": 0},
        {"type": "debug", "prompt": "secret"},
        {"type": "something-new", "delta": {"message": {"content": {"text": "no"}}}},
        END,
        "[DONE]",
    )
    reader = DIALECT.reader(ASKED)
    assert gathered(read(reader, stream)) == {
        "text": "cé",
        "thinking": "ab",
        "citations": [citation],
        "calls": [],
        "finish": "stop",
        "usage": (3, 2, 0),
    }
    assert reader.usage == Usage(3, 2)


def test_usage_only_when_it_was_asked_for() -> None:
    reader = DIALECT.reader(QUIET)
    found = chunks(read(reader, stream_of(START, text("a"), END, "[DONE]")))
    assert all("usage" not in chunk and chunk["choices"] for chunk in found)
    assert reader.usage == Usage(3, 2)


def test_calls_have_indices_of_their_own() -> None:
    stream = stream_of(
        START,
        call(1, "a"),
        arguments(1, '{"x":'),
        arguments(1, "1}"),
        end_call(1),
        call(2, "b"),
        end_call(2),
        call(4, "c", "{"),
        arguments(4, "}"),
        call(5, "d"),
        {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
    )
    found = gathered(read(DIALECT.reader(ASKED), stream))
    assert found["calls"] == [
        ["a", "f", '{"x":1}'],
        ["b", "f", "{}"],
        ["c", "f", "{}"],
        ["d", "f", "{}"],
    ]
    assert (found["finish"], found["usage"]) == ("tool_calls", None)


def test_the_name_of_an_event_will_do_for_its_type() -> None:
    reader = DIALECT.reader(ASKED)
    (role, said) = reader.feed("content-delta", b'{"delta":{"message":{"content":{"text":"a"}}}}')
    assert json.loads(role)["choices"][0]["delta"]["role"] == "assistant"
    assert json.loads(said)["choices"][0]["delta"] == {"content": "a"}


def test_nothing_comes_after_the_end() -> None:
    reader = DIALECT.reader(ASKED)
    assert reader.feed(None, json.dumps(END).encode())[-1] == b"[DONE]"
    assert reader.done
    assert reader.feed(None, json.dumps(text("a")).encode()) == []


def test_an_end_without_its_event_is_none() -> None:
    reader = DIALECT.reader(ASKED)
    read(reader, stream_of(START, text("a"), "[DONE]"))
    assert not reader.done


def test_logprobs_in_a_stream() -> None:
    said = text("a", logprobs={"text": "a", "token_ids": [1], "logprobs": [-1.0]})
    made = chunks(read(DIALECT.reader(ASKED), stream_of(START, said, END)))
    assert made[1]["choices"][0]["logprobs"]["content"][0]["logprob"] == -1.0


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "x"}},
        {"type": "message-end", "delta": {"finish_reason": "TIMEOUT"}},
        {"type": "error", "message": "internal server error"},
        {"message": "internal server error"},
        {"error": {"message": "overloaded", "code": 503}},
    ],
)
def test_errors_in_a_stream(event: dict[str, Any]) -> None:
    reader = DIALECT.reader(ASKED)
    read(reader, stream_of(START, text("a")))
    with pytest.raises(UpstreamError):
        read(reader, stream_of(event))
    assert not reader.done


@pytest.mark.parametrize(
    "event",
    [
        "{",
        "1",
        arguments(3, "{}"),
        {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"id": "c"}}}},
        {"type": "tool-call-start", "delta": {}},
        {"type": "content-delta", "delta": {"message": {"content": 1}}},
    ],
)
def test_events_that_are_none(event: Any) -> None:
    with pytest.raises(UpstreamProtocol):
        read(DIALECT.reader(ASKED), stream_of(event))


@pytest.mark.parametrize("message", [{}, {"tool_calls": {}}])
@pytest.mark.parametrize("kind", ["content-delta", "tool-call-delta"])
def test_events_without_anything_in_them(kind: str, message: dict[str, Any]) -> None:
    event = {"type": kind, "index": 0, "delta": {"message": message}}
    assert DIALECT.reader(ASKED).feed(kind, json.dumps(event).encode()) == []


# --- errors


@pytest.mark.parametrize(
    ("status", "ours", "retryable"),
    [
        (400, 400, False),
        (401, 502, True),
        (402, 502, True),
        (403, 502, True),
        (404, 404, False),
        (422, 422, False),
        (429, 429, True),
        (498, 400, False),
        (499, 502, True),
        (500, 500, True),
        (501, 501, True),
        (503, 503, True),
        (504, 504, True),
        (529, 503, True),
    ],
)
def test_statuses(status: int, ours: int, retryable: bool) -> None:
    error = DIALECT.error_in(status, b'{"id": "x", "message": "the words"}')
    assert (error.status, error.retryable) == (ours, retryable)
    own = status in (400, 404, 422)
    assert (error.message == "the words") is own


def test_denied_words_are_a_matter_of_policy() -> None:
    error = DIALECT.error_in(498, b'{"message": "blocked"}')
    assert (error.trouble, error.code) == (Trouble.CONTENT_POLICY, "content_policy_violation")


def test_a_long_prompt_is_known_by_its_words() -> None:
    body = b'{"message": "too many tokens: total number of tokens in the prompt"}'
    assert DIALECT.error_in(400, body).trouble is Trouble.CONTEXT_LENGTH
