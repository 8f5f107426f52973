"""DeepSeek and the Hugging Face router: OpenAI's dialect, and what they make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.dialects import quirks
from server.dialects.base import Reader
from server.dialects.openai import Usage
from server.errors import UpstreamAborted, UpstreamProtocol, UpstreamStatus
from server.protocol import envelope, sse
from tests.dialects.replay import (
    ASKED,
    QUIET,
    chunks,
    gathered,
    meaning,
    read,
    recorded,
    stream_of,
    strict,
    strict_chunks,
)

# --- DeepSeek: the request


def deepseek(body: dict[str, Any], model: str = "deepseek-v4") -> tuple[dict[str, Any], Any]:
    members = envelope.members(json.dumps(body).encode())
    before = dict(members)
    out, dropped = quirks.deepseek_out(members, model=model)
    assert members == before
    return json.loads(envelope.emit(out)), dropped


DISABLED = {"thinking": {"type": "disabled"}}


@pytest.mark.parametrize(
    ("said", "sent", "dropped"),
    [
        ({"top_p": 0.5}, {"top_p": 0.5}, ()),
        ({"temperature": 0.5, "top_p": 0.5}, {"top_p": 0.5}, ("temperature",)),
        (
            {"frequency_penalty": 1, "presence_penalty": 1},
            {},
            ("presence_penalty", "frequency_penalty"),
        ),
        ({"temperature": 0.5, **DISABLED}, {"temperature": 0.5, **DISABLED}, ()),
        ({"temperature": 0.5, "reasoning_effort": "none"}, {"temperature": 0.5, **DISABLED}, ()),
        (
            {"temperature": 0.5, "thinking": {"type": "enabled"}},
            {"thinking": {"type": "enabled"}},
            ("temperature",),
        ),
        ({"temperature": 0.5, "thinking": 1}, {"thinking": 1}, ("temperature",)),
        ({"temperature": None}, {"temperature": None}, ()),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}, ()),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}, ()),
        ({"max_completion_tokens": 5, "max_tokens": 4}, {"max_tokens": 4}, ()),
    ],
)
def test_what_deepseek_would_pass_over_is_named(said: Any, sent: Any, dropped: Any) -> None:
    assert deepseek(said) == (sent, dropped)


def test_the_old_chat_does_not_think() -> None:
    assert deepseek({"temperature": 0.5}, "deepseek-chat") == ({"temperature": 0.5}, ())


CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "thinking", "plain"),
    [
        ({"role": "user", "content": "a"}, {}, {}),
        ({"role": "developer", "content": "a"}, {"role": "system"}, {"role": "system"}),
        (
            {"role": "assistant", "reasoning_content": "t", "tool_calls": CALLS},
            {"reasoning_content": "t"},
            {"reasoning_content": "t"},
        ),
        (
            {"role": "assistant", "reasoning": "t", "tool_calls": CALLS},
            {"reasoning_content": "t"},
            {"reasoning_content": "t"},
        ),
        ({"role": "assistant", "tool_calls": CALLS}, {"reasoning_content": ""}, {}),
        (
            {"role": "assistant", "reasoning_content": None, "tool_calls": CALLS},
            {"reasoning_content": ""},
            {},
        ),
        ({"role": "assistant", "content": 'no "tool_calls"'}, {}, {}),
    ],
)
def test_history_comes_back_as_deepseek_wants_it(
    message: dict[str, Any], thinking: dict[str, Any], plain: dict[str, Any]
) -> None:
    kept = {k: v for k, v in message.items() if k not in ("reasoning", "reasoning_content")}
    for more, expected in (({}, thinking), (DISABLED, plain)):
        out, _ = deepseek({"messages": [message], **more})
        assert out["messages"] == [{**kept, **expected}]


def test_messages_without_a_sign_are_not_looked_into() -> None:
    members = envelope.members(b'{"messages": [ {"role":"user", "content":"a"} ]}')
    out, _ = quirks.deepseek_out(members, model="m")
    assert out["messages"] is members["messages"]


@pytest.mark.parametrize("messages", ['"tool_calls"', '[1, "tool_calls"]', '["developer"]'])
def test_messages_that_are_none_are_deepseeks_to_judge(messages: str) -> None:
    members = envelope.members(b'{"messages": %s}' % messages.encode())
    out, _ = quirks.deepseek_out(members, model="m")
    assert json.loads(bytes(out["messages"])) == json.loads(messages)


# --- DeepSeek: answers

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    around = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**around, "choices": [choice], **more}


def answer(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, **more.pop("choice", {})}
    choice["message"] = {"role": "assistant", **message}
    around = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**around, "choices": [choice], "usage": USAGE, **more}).encode()


SAID = stream_of(
    chunk({"role": "assistant", "content": None, "reasoning_content": ""}, usage=None),
    chunk({"content": "é", "reasoning_content": None}, usage=None),
    chunk({"content": ""}, "stop", usage=USAGE),
    "[DONE]",
)


def test_usage_gets_an_event_of_its_own() -> None:
    reader = quirks.deepseek_reader(ASKED)
    made = read(reader, SAID)
    assert gathered(made)["usage"] == (3, 2, 0)
    assert chunks(made)[-1] == {
        "id": "x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": USAGE,
    }
    assert (reader.usage, reader.done) == (Usage(3, 2), True)


def test_usage_that_nobody_asked_for_is_kept_back() -> None:
    reader = quirks.deepseek_reader(QUIET)
    made = read(reader, SAID)
    assert gathered(made)["usage"] is None
    assert reader.usage == Usage(3, 2)


def test_usage_told_twice_is_told_once() -> None:
    more = stream_of({**chunk({}), "choices": [], "usage": {**USAGE, "completion_tokens": 7}})
    twice = SAID.replace(b"data: [DONE]\n\n", more + b"data: [DONE]\n\n")
    found = [
        c["usage"] for c in chunks(read(quirks.deepseek_reader(ASKED), twice)) if c.get("usage")
    ]
    assert found == [{**USAGE, "completion_tokens": 7}]


def test_an_event_with_nothing_wrong_is_the_same_bytes() -> None:
    reader = quirks.deepseek_reader(ASKED)
    payload = b'{ "choices": [{"index":0, "delta":{"content":"a \\"role\\""}}], "usage": null }'
    assert reader.feed(None, payload)[0] is payload


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_comments_that_keep_a_stream_alive_are_nothing(cut: int) -> None:
    """They stand between events, and in front of the first."""
    events = list(sse.events(SAID))
    noisy = b": keep-alive\n\n" * 3 + b": keep-alive\n\n".join(events)
    reader = quirks.deepseek_reader(ASKED)
    assert read(reader, noisy, seed=cut) == read(quirks.deepseek_reader(ASKED), SAID)


@pytest.mark.parametrize("blank", [b"", b"\n\n\n", b"\r\n \n"])
def test_blank_lines_before_an_answer(blank: bytes) -> None:
    body = answer({"content": "a"})
    out, facts = quirks.deepseek_in(blank + body)
    assert out == body
    assert facts.usage == Usage(3, 2)


def test_an_answer_broken_off_for_want_of_resources() -> None:
    with pytest.raises(UpstreamAborted):
        quirks.deepseek_in(answer({"content": "a"}, "insufficient_system_resource"))
    end = stream_of(chunk({}, "insufficient_system_resource"))
    with pytest.raises(UpstreamAborted):
        read(quirks.deepseek_reader(ASKED), end)
    words = answer({"content": '"insufficient_system_resource"'})
    assert meaning(strict(quirks.deepseek_in(words)[0]))["finish"] == "stop"


def test_no_answer() -> None:
    for payload in (b"\n\n", b"\n<html>"):
        with pytest.raises(UpstreamProtocol):
            quirks.deepseek_in(payload)
    with pytest.raises(UpstreamStatus) as caught:
        read(quirks.deepseek_reader(ASKED), stream_of({"error": {"message": "x", "code": 429}}))
    assert caught.value.status == 429


# --- Hugging Face: answers


def test_what_the_providers_behind_the_router_add_goes() -> None:
    body = answer(
        {"content": "a", "tool_calls": []}, "eos", prompt=[], choice={"seed": 5, "text": "a"}
    )
    out, facts = quirks.huggingface_in(body)
    assert json.loads(out)["choices"][0].keys() == {"index", "finish_reason", "message"}
    assert "prompt" not in json.loads(out)
    assert meaning(strict(out))["finish"] == "stop"
    assert facts.usage == Usage(3, 2)


def test_cached_tokens_stand_where_openai_has_them() -> None:
    out, _ = quirks.huggingface_in(answer({"content": "a"}, usage={**USAGE, "cached_tokens": 2}))
    assert meaning(strict(out))["usage"] == (3, 2, 2)


def test_the_role_is_said_once_and_nothing_is_added() -> None:
    extra = {"text": "a", "seed": 5}
    stream = stream_of(
        chunk({"role": "assistant", "content": "a", "token_id": 3}, choice=extra),
        chunk({"role": "assistant", "content": "é", "token_id": 4}, choice=extra),
        chunk({"role": "assistant", "content": ""}, "eos_token", usage=USAGE, sla_metrics={}),
        "[DONE]",
    )
    made = read(quirks.huggingface_reader(ASKED), stream)
    found = gathered(made)
    assert (found["text"], found["finish"], found["usage"]) == ("aé", "stop", (3, 2, 0))
    for word in (b"token_id", b'"text"', b"seed", b"sla_metrics"):
        assert word not in made


def test_each_choice_has_a_role_of_its_own() -> None:
    second = chunk({"role": "assistant", "content": "b"})
    second["choices"][0]["index"] = 1
    stream = stream_of(chunk({"role": "assistant", "content": "a"}), second, second, "[DONE]")
    made = chunks(read(quirks.huggingface_reader(ASKED), stream))
    assert [c["choices"][0]["delta"].get("role") for c in made] == ["assistant", "assistant", None]


# --- Hugging Face: errors


def test_a_model_that_loads_says_when_to_come_back() -> None:
    body = b'{"error": "Model a/b is currently loading", "estimated_time": 20.5}'
    error = quirks.huggingface_error(503, body)
    assert (error.status, error.code, error.retryable) == (503, "engine_loading", True)
    assert error.headers()["retry-after"] == "21"


@pytest.mark.parametrize(
    ("wait", "seconds"), [("0.1", 1.0), ("1e9", 600.0), ('"soon"', None), ("true", None)]
)
def test_a_wait_makes_sense_or_is_none(wait: str, seconds: float | None) -> None:
    body = b'{"error": "Model a/b is currently loading", "estimated_time": %s}' % wait.encode()
    assert quirks.huggingface_error(503, body).retry_after == seconds


def test_a_model_that_nobody_serves_may_be_had_elsewhere() -> None:
    words = "The requested model 'a/b' is not supported by any provider you have enabled."
    body = {"error": {"message": words, "code": "model_not_supported", "param": "model"}}
    error = quirks.huggingface_error(400, json.dumps(body).encode())
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
    error = quirks.huggingface_error(status, json.dumps(body).encode())
    assert error.status == ours
    if message is not None:
        assert error.message == message
    assert "credits" not in error.message


def test_what_is_no_json() -> None:
    assert quirks.huggingface_error(502, b"<html>").status == 502


# --- real traffic: there is no SDK of theirs that reads more than the bytes say


def plain(body: str) -> dict[str, Any]:
    """What stands in an answer, read without ceremony."""
    found = json.loads(body)
    (choice,) = found["choices"]
    message, usage = choice["message"], found["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return {
        "text": message["content"] or "",
        "thinking": message.get("reasoning_content") or "",
        "citations": [],
        "calls": [
            [call["id"], call["function"]["name"], call["function"]["arguments"]]
            for call in message.get("tool_calls") or []
        ],
        "finish": choice["finish_reason"],
        "usage": (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            details.get("cached_tokens", usage.get("cached_tokens", 0)),
        ),
    }


def plain_stream(body: str) -> dict[str, Any]:
    out: dict[str, Any] = {"text": "", "thinking": "", "citations": [], "calls": []}
    for line in body.splitlines():
        if not line.startswith("data: {"):
            continue
        found = json.loads(line[6:])
        for choice in found["choices"]:
            out["text"] += choice["delta"].get("content") or ""
            out["thinking"] += choice["delta"].get("reasoning_content") or ""
            out["finish"] = choice["finish_reason"] or out.get("finish")
        if usage := found.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens", 0)
            out["usage"] = usage["prompt_tokens"], usage["completion_tokens"], cached
    return out


@pytest.mark.parametrize("provider", ["deepseek", "huggingface"])
def test_real_traffic_reads_as_it_stands(recordings_dir: Path, provider: str) -> None:
    exchanges = recorded(recordings_dir, provider)
    assert exchanges
    whole = quirks.deepseek_in if provider == "deepseek" else quirks.huggingface_in
    streams = 0
    for one in exchanges:
        body = one["body"]
        if "event-stream" not in one["headers"]["content-type"]:
            assert meaning(strict(whole(body.encode())[0])) == plain(body)
            continue
        streams += 1
        for seed in range(5):
            reader = reader_of(provider)
            made = read(reader, body.encode(), seed)
            assert gathered(made) == plain_stream(body)
            assert len(strict_chunks(made)) >= 3
            assert reader.done
    assert streams == 1


def reader_of(provider: str) -> Reader:
    if provider == "deepseek":
        return quirks.deepseek_reader(ASKED)
    return quirks.huggingface_reader(ASKED)
