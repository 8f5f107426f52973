"""The Hugging Face router: OpenAI's dialect, and what the providers behind it make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.dialects.huggingface import HuggingFace
from server.dialects.openai import Usage
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from tests.dialects.replay import (
    ASKED,
    USAGE,
    answer,
    chunk,
    chunks,
    gathered,
    meaning,
    read,
    reads_as_it_stands,
    sent,
    stream_of,
    strict,
)

DIALECT = HuggingFace()
COMPLETION = replace(ASKED, surface=Surface.COMPLETIONS)

# --- the request


def test_what_goes_to_hugging_face() -> None:
    said = {"seed": 7, "priority": 3, "watermark": True, "user": "u"}
    out = sent(DIALECT, said, drop=["user"])
    assert (out.path, out.dropped) == ("/chat/completions", ("priority", "user"))
    body = json.loads(out.body)
    assert (body["model"], body["seed"], body["watermark"]) == ("theirs", 7, True)
    assert not {"priority", "user"} & body.keys()


def test_what_other_dialects_left_in_a_history_goes_and_is_named() -> None:
    message = {"role": "assistant", "content": '"tool_plan"', "reasoning_content": "t"}
    others = {"reasoning_details": [{"type": "thinking"}], "tool_plan": None}
    user = {"role": "user", "content": "a", "citations": [1]}
    out = sent(DIALECT, {"messages": [user, {**message, **others}]})
    assert json.loads(out.body)["messages"] == [user, message]
    assert out.dropped == ("messages.reasoning_details",)


@pytest.mark.parametrize("messages", [["citations"], {"citations": 1}, [{"role": 7}, "tool_plan"]])
def test_messages_that_are_none_are_theirs_to_judge(messages: Any) -> None:
    assert json.loads(sent(DIALECT, {"messages": messages}).body)["messages"] == messages


@pytest.mark.parametrize(
    ("surface", "path"),
    [(Surface.COMPLETIONS, "/completions"), (Surface.EMBEDDINGS, "/embeddings")],
)
def test_what_is_no_chat_passes_too(surface: Surface, path: str) -> None:
    out = sent(DIALECT, {"prompt": "a", "input": "a"}, surface=surface)
    assert out.path == path
    assert json.loads(out.body) == {"prompt": "a", "input": "a", "model": "theirs"}


def test_tokens_are_an_engines_to_tell() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"prompt": "a"}, surface=Surface.TOKENIZE)
    assert caught.value.code == "unsupported_endpoint"


# --- answers


def test_what_the_providers_behind_the_router_add_goes() -> None:
    body = answer(
        {"content": "a", "tool_calls": []}, "eos", prompt=[], choice={"seed": 5, "text": "a"}
    )
    out, facts = DIALECT.answer_in(body, ASKED)
    assert json.loads(out)["choices"][0].keys() == {"index", "finish_reason", "message"}
    assert "prompt" not in json.loads(out)
    assert meaning(strict(out))["finish"] == "stop"
    assert facts.usage == Usage(3, 2)


def test_cached_tokens_stand_where_openai_has_them() -> None:
    out, _ = DIALECT.answer_in(answer({"content": "a"}, usage={**USAGE, "cached_tokens": 2}), ASKED)
    assert meaning(strict(out))["usage"] == (3, 2, 2)


def test_the_role_is_said_once_and_nothing_is_added() -> None:
    extra = {"text": "a", "seed": 5}
    stream = stream_of(
        chunk({"role": "assistant", "content": "a", "token_id": 3}, choice=extra),
        chunk({"role": "assistant", "content": "é", "token_id": 4}, choice=extra),
        chunk({"role": "assistant", "content": ""}, "eos_token", usage=USAGE, sla_metrics={}),
        "[DONE]",
    )
    made = read(DIALECT.reader(ASKED), stream)
    found = gathered(made)
    assert (found["text"], found["finish"], found["usage"]) == ("aé", "stop", (3, 2, 0))
    for word in (b"token_id", b'"text"', b"seed", b"sla_metrics"):
        assert word not in made


def test_each_choice_has_a_role_of_its_own() -> None:
    second = chunk({"role": "assistant", "content": "b"})
    second["choices"][0]["index"] = 1
    stream = stream_of(chunk({"role": "assistant", "content": "a"}), second, second, "[DONE]")
    made = chunks(read(DIALECT.reader(ASKED), stream))
    assert [c["choices"][0]["delta"].get("role") for c in made] == ["assistant", "assistant", None]


# --- errors


def test_a_model_that_loads_says_when_to_come_back() -> None:
    body = b'{"error": "Model a/b is currently loading", "estimated_time": 20.5}'
    error = DIALECT.error_in(503, body)
    assert (error.status, error.code, error.retryable) == (503, "engine_loading", True)
    assert error.headers()["retry-after"] == "21"


@pytest.mark.parametrize(
    ("wait", "seconds"), [("0.1", 1.0), ("1e9", 600.0), ('"soon"', 5.0), ("true", 5.0)]
)
def test_a_wait_makes_sense(wait: str, seconds: float) -> None:
    body = b'{"error": "Model a/b is currently loading", "estimated_time": %s}' % wait.encode()
    assert DIALECT.error_in(503, body).retry_after == seconds


def test_a_model_that_nobody_serves_may_be_had_elsewhere() -> None:
    words = "The requested model 'a/b' is not supported by any provider you have enabled."
    body = {"error": {"message": words, "code": "model_not_supported", "param": "model"}}
    error = DIALECT.error_in(400, json.dumps(body).encode())
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.retryable


@pytest.mark.parametrize(
    ("status", "body", "ours", "message"),
    [
        (400, {"error": "bad"}, 400, "bad"),
        (422, {"error": ["bad", "worse"], "warnings": []}, 422, "bad worse"),
        (404, {"error": {"message": "no"}}, 404, "no"),
        (402, {"error": "credits"}, 502, None),
        (503, {"error": "busy"}, 503, None),
        (503, [], 503, None),
        (429, {"error": "Rate limit"}, 429, None),
    ],
)
def test_shapes_of_errors(status: int, body: Any, ours: int, message: str | None) -> None:
    error = DIALECT.error_in(status, json.dumps(body).encode())
    assert error.status == ours
    if message is not None:
        assert error.message == message
    assert "credits" not in error.message


def test_what_is_no_json() -> None:
    assert DIALECT.error_in(502, b"<html>").status == 502


# --- completions and embeddings

TEXT = {"index": 0, "text": "a", "finish_reason": None}


def test_a_completion_keeps_its_text() -> None:
    choice = {**TEXT, "finish_reason": "eos_token", "seed": 5}
    payload = {"id": "x", "object": "text_completion", "choices": [choice], "usage": USAGE}
    out, facts = DIALECT.answer_in(json.dumps(payload).encode(), COMPLETION)
    found = json.loads(out)
    assert found["choices"] == [{**TEXT, "finish_reason": "stop"}]
    assert (found["usage"], facts.usage) == (USAGE, Usage(3, 2))


def test_a_stream_of_a_completion_keeps_its_text() -> None:
    ends = {**TEXT, "text": "", "finish_reason": "eos_token", "seed": 5}
    stream = stream_of({"choices": [TEXT]}, {"choices": [ends], "usage": USAGE}, "[DONE]")
    reader = DIALECT.reader(COMPLETION)
    found = chunks(read(reader, stream))
    assert found[0] == {"choices": [TEXT]}
    assert found[1] == {"choices": [{**TEXT, "text": "", "finish_reason": "stop"}]}
    assert found[2] == {"choices": [], "usage": USAGE}
    assert reader.usage == Usage(3, 2)


def test_embeddings_pass_as_they_are() -> None:
    payload = b'{"object":"list","data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}'
    out, facts = DIALECT.answer_in(payload, replace(ASKED, surface=Surface.EMBEDDINGS))
    assert out is payload
    assert facts.usage == Usage(3)


def test_real_traffic_reads_as_it_stands(recordings_dir: Path) -> None:
    reads_as_it_stands(DIALECT, recordings_dir)
