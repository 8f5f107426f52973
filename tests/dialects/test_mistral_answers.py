"""What comes back from Mistral reads as its own SDK reads it; errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.lib.streaming._deltas import accumulate_delta

from server.dialects.base import Asked
from server.dialects.mistral import Mistral
from server.dialects.openai import Usage
from server.dialects.trouble import Trouble
from server.errors import UpstreamAborted, UpstreamProtocol, UpstreamStatus
from server.protocol.envelope import Surface
from tests.dialects.mistral_reading import streamed, whole
from tests.dialects.replay import (
    ASKED,
    QUIET,
    chunks,
    gathered,
    meaning,
    read,
    recorded,
    sent,
    stream_of,
    strict,
    strict_embeddings,
)

DIALECT = Mistral()
EMBED = Asked(Surface.EMBEDDINGS, "theirs", "emb-1", 1)


@pytest.fixture(scope="module")
def recordings(recordings_dir: Path) -> list[dict[str, Any]]:
    return recorded(recordings_dir, "mistral")


def test_every_answer_reads_as_their_sdk_reads_it(recordings: list[dict[str, Any]]) -> None:
    answers = [one for one in recordings if "event-stream" not in one["headers"]["content-type"]]
    assert len(answers) > 30
    for one in answers:
        ours, facts = DIALECT.answer_in(one["body"].encode(), ASKED)
        theirs = whole(one["body"])
        assert meaning(strict(ours)) == theirs
        assert facts.usage == Usage(*theirs["usage"])


def test_every_stream_reads_as_their_sdk_reads_it(recordings: list[dict[str, Any]]) -> None:
    streams = [one for one in recordings if "event-stream" in one["headers"]["content-type"]]
    assert streams
    for one in streams:
        for seed in range(5):
            reader = DIALECT.reader(ASKED)
            made = read(reader, one["body"].encode(), seed)
            assert gathered(made) == streamed(one["body"])
            assert reader.done
            assert all("p" not in chunk for chunk in chunks(made))


def test_recorded_requests_go_out_as_they_were(recordings: list[dict[str, Any]]) -> None:
    """Their clients speak nearly OpenAI's language: what they sent, we would send."""
    kept = {"n": 1, "frequency_penalty": None, "presence_penalty": None, "stop": None}
    for one in recordings:
        asked = one["request"]
        model = asked["model"]
        body = json.loads(sent(DIALECT, asked, model=model).body)
        expected = {k: v for k, v in asked.items() if k not in kept or v != kept[k]}
        assert [m["role"] for m in body.pop("messages")] == [
            m["role"] for m in expected.pop("messages")
        ]
        tools = [tool["function"] for tool in expected.pop("tools", [])]
        assert [tool["function"] for tool in body.pop("tools", [])] == tools
        assert body == {k: v for k, v in expected.items() if v is not None}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "p": "abc",
        **more,
    }


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


ABOUT = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}


def thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def test_thoughts_in_a_stream() -> None:
    stream = stream_of(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": [thinking("a")]}),
        chunk({"role": "assistant", "content": [thinking("b"), {"type": "text", "text": "c"}]}),
        chunk({"content": [{"type": "reference", "reference_ids": [1]}]}),
        chunk({"content": "é"}),
        chunk({"content": ""}, "stop", usage=USAGE),
        "[DONE]",
    )
    found = gathered(read(DIALECT.reader(ASKED), stream))
    assert found == streamed(stream.decode())
    assert (found["text"], found["thinking"], found["usage"]) == ("cé", "ab", (3, 2, 0))


def test_references_and_what_its_tools_made() -> None:
    """Each with its place in the text, and its own in the list, whole or in a stream."""
    reference, file = {"type": "reference", "reference_ids": [1]}, {"type": "file", "file_id": "f"}
    first = [{"type": "text", "text": "a"}, reference, file]
    second = [reference, {"type": "text", "text": "c"}, file]
    message = {"role": "assistant", "content": [*first, "é", *second]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **ABOUT}
    found = json.loads(DIALECT.answer_in(json.dumps(body).encode(), ASKED)[0])["choices"][0]
    cites = [{**reference, "index": i, "start": at, "end": at} for i, at in ((0, 1), (1, 2))]
    files = [{**file, "index": i, "start": at, "end": at} for i, at in ((0, 1), (1, 3))]
    assert found["message"]["citations"] == cites
    assert found["message"]["content_parts"] == files
    assert found["message"]["content"] == "aéc"
    deltas: dict[object, object] = {}
    reader = DIALECT.reader(ASKED)
    for content in (first, "é", second):
        (made,) = reader.feed(None, json.dumps(chunk({"content": content})).encode())
        accumulate_delta(deltas, json.loads(made)["choices"][0]["delta"])
    assert deltas == {"content": "aéc", "citations": cites, "content_parts": files}


def test_usage_only_when_it_was_asked_for() -> None:
    reader = DIALECT.reader(QUIET)
    stream = stream_of(chunk({"role": "assistant"}), chunk({}, "stop", usage=USAGE), "[DONE]")
    assert all("usage" not in one for one in chunks(read(reader, stream)))
    assert reader.usage == Usage(3, 2)


def calls(*said: tuple[int | None, str | None, str, str]) -> dict[str, Any]:
    out: list[dict[str, Any]] = []
    for index, identity, name, arguments in said:
        one: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
        out.append(one)
        if identity is not None:
            one["id"] = identity
        if index is not None:
            one["index"] = index
    return {"tool_calls": out}


@pytest.mark.parametrize(
    "events",
    [
        # Two at once, as it always was.
        [calls((0, "aaaaaaaaa", "f", '{"x":1}'), (1, "bbbbbbbbb", "g", "{}"))],
        # Piece by piece, without an id and a name.
        [
            calls((0, "aaaaaaaaa", "f", '{"x"')),
            calls((0, None, "", ":1}")),
            calls((1, "bbbbbbbbb", "g", "")),
            calls((1, "null", "", "{}")),
        ],
        # With the id again.
        [
            calls((0, "aaaaaaaaa", "f", '{"x"')),
            calls((0, "aaaaaaaaa", "", ":1}")),
            calls((1, "bbbbbbbbb", "g", "{}")),
        ],
        # Without an index, and with one that says nothing.
        [calls((None, "aaaaaaaaa", "f", '{"x":1}')), calls((None, "bbbbbbbbb", "g", "{}"))],
        [calls((0, "aaaaaaaaa", "f", '{"x":1}')), calls((0, "bbbbbbbbb", "g", "{}"))],
    ],
)
def test_calls_in_a_stream(events: list[dict[str, Any]]) -> None:
    stream = stream_of(
        chunk({"role": "assistant", "content": ""}),
        *(chunk(delta) for delta in events),
        chunk({"content": "", "tool_calls": None}, "tool_calls", usage=USAGE),
        "[DONE]",
    )
    found = gathered(read(DIALECT.reader(ASKED), stream))
    assert found["calls"] == [["aaaaaaaaa", "f", '{"x":1}'], ["bbbbbbbbb", "g", "{}"]]


def answer(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    around = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**around, "choices": [choice], "usage": USAGE, **more}).encode()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": [thinking("t"), {"type": "text", "text": "a"}]}, {"thinking": "t"}),
        ({"content": ["a", {"type": "document_url"}], "tool_calls": None}, {}),
        (
            {"content": "a", "tool_calls": [{"id": "i", "function": {"name": "f"}}]},
            {"calls": [["i", "f", "{}"]]},
        ),
        (
            {
                "content": "a",
                "tool_calls": [{"id": "i", "function": {"name": "f", "arguments": {"x": 1}}}],
            },
            {"calls": [["i", "f", '{"x":1}']]},
        ),
    ],
)
def test_whole_answers(message: dict[str, Any], expected: dict[str, Any]) -> None:
    out, facts = DIALECT.answer_in(answer(message), ASKED)
    assert facts.usage == Usage(3, 2)
    found = meaning(strict(out))
    assert found["text"] == "a"
    assert {name: found[name] for name in expected} == expected


def test_ends_of_their_own() -> None:
    out, _ = DIALECT.answer_in(answer({"content": "a"}, "model_length"), ASKED)
    assert meaning(strict(out))["finish"] == "length"
    with pytest.raises(UpstreamAborted):
        DIALECT.answer_in(answer({"content": "a"}, "error"), ASKED)
    with pytest.raises(UpstreamAborted):
        read(DIALECT.reader(ASKED), stream_of(chunk({"content": ""}, "error")))


@pytest.mark.parametrize("payload", ["", "1", "[]", '{"choices": [1]}'])
def test_what_is_no_answer(payload: str) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(payload.encode(), ASKED)
    if payload:
        with pytest.raises(UpstreamProtocol):
            read(DIALECT.reader(ASKED), stream_of(payload))


def test_an_error_in_a_stream() -> None:
    with pytest.raises(UpstreamStatus) as caught:
        read(DIALECT.reader(ASKED), stream_of({"error": {"message": "x", "code": 503}}))
    assert caught.value.status == 503


def test_embeddings_pass() -> None:
    body = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0]}],
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    payload = json.dumps(body).encode()
    out, facts = DIALECT.answer_in(payload, EMBED)
    assert out is payload
    assert strict_embeddings(out).data[0].embedding == [1.0]
    assert facts.usage == Usage(4)


# --- errors

EXTRA = {
    "type": "extra_forbidden",
    "loc": ["body", "messages", 0, "user", "name"],
    "msg": "Extra inputs are not permitted",
    "input": "what the prompt held",
}


@pytest.mark.parametrize(
    ("status", "body", "message", "param"),
    [
        (400, {"object": "error", "message": "bad", "type": "t", "code": "3280"}, "bad", None),
        (400, {"message": "bad", "param": "top_p"}, "bad", "top_p"),
        (422, {"detail": [EXTRA]}, None, "messages.0.user.name"),
        (422, {"object": "error", "message": {"detail": [EXTRA]}}, None, "messages.0.user.name"),
        (422, {"object": "Error", "message": [EXTRA], "code": 3001}, None, "messages.0.user.name"),
        (422, {"detail": [1]}, "The request was refused.", None),
        (404, {"detail": "Not Found"}, "Not Found", None),
    ],
)
def test_shapes_of_errors(status: int, body: Any, message: str | None, param: str | None) -> None:
    error = DIALECT.error_in(status, json.dumps(body).encode())
    assert error.message == (message or "messages.0.user.name: Extra inputs are not permitted")
    assert (error.status, error.param, error.code) == (status, param, "upstream_error")
    assert not error.retryable


def test_errors_of_the_account_and_the_limit() -> None:
    body = b'{"message": "Unauthorized", "request_id": "r"}'
    error = DIALECT.error_in(401, body)
    assert (error.status, error.code) == (502, "upstream_refused_credentials")
    body = b'{"object":"error","message":"Rate limit exceeded","type":"x","code":"1300"}'
    error = DIALECT.error_in(429, body)
    assert (error.status, error.code, error.retryable) == (429, "rate_limit_exceeded", True)
    assert DIALECT.error_in(502, b"<html>").status == 502
    assert DIALECT.error_in(503, b'{"message": {"x": 1}}').status == 503


def test_a_long_prompt_is_known_by_its_words() -> None:
    words = "Prompt contains 9 tokens, too large for model with 5 maximum context length"
    error = DIALECT.error_in(400, json.dumps({"message": words}).encode())
    assert error.trouble is Trouble.CONTEXT_LENGTH
