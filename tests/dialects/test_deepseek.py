"""DeepSeek: OpenAI's dialect, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.dialects.deepseek import DeepSeek, members_out
from server.dialects.openai import Usage
from server.errors import InvalidRequest, UpstreamAborted, UpstreamProtocol, UpstreamStatus
from server.protocol import envelope, sse
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
    reads_as_it_stands,
    sent,
    stream_of,
    strict,
)

DIALECT = DeepSeek()

# --- the request


def deepseek(body: dict[str, Any], model: str = "deepseek-v4") -> tuple[dict[str, Any], Any]:
    members = envelope.members(json.dumps(body).encode())
    before = dict(members)
    out, dropped = members_out(members, model=model)
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
        ({"max_completion_tokens": 4, "max_tokens": 5}, {"max_tokens": 4}, ()),
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


def test_every_answer_of_a_history_with_calls_has_thoughts() -> None:
    """Also those that called nothing. It says `Missing reasoning_content field` otherwise."""
    messages = [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": "b", "reasoning_content": "t"},
    ]
    out, _ = deepseek({"messages": messages})
    assert [m.get("reasoning_content") for m in out["messages"]] == ["", "", None, "t"]
    out, _ = deepseek({"messages": messages, **DISABLED})
    assert [m.get("reasoning_content") for m in out["messages"]] == [None, None, None, "t"]


FORCED: list[Any] = ["required", {"type": "function", "function": {"name": "f"}}]
FREE: list[Any] = ["auto", "none", None, {"type": "allowed_tools"}, 7]


@pytest.mark.parametrize("choice", FORCED)
def test_a_call_that_must_be_is_made_without_thinking(choice: Any) -> None:
    """DeepSeek refuses it otherwise, and thinks unless it is told not to."""
    said = {"tool_choice": choice, "temperature": 0.5}
    assert deepseek(said) == ({**said, **DISABLED}, ())
    assert deepseek({**said, **DISABLED}) == ({**said, **DISABLED}, ())
    assert deepseek(said, "deepseek-chat") == (said, ())
    asked: dict[str, Any]
    for asked in ({"thinking": {"type": "enabled"}}, {"reasoning_effort": "high"}):
        with pytest.raises(InvalidRequest) as caught:
            deepseek({**said, **asked})
        (name,) = asked
        assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("choice", FREE)
def test_a_call_that_may_be_is_no_reason_to_stop_thinking(choice: Any) -> None:
    assert deepseek({"tool_choice": choice}) == ({"tool_choice": choice}, ())


def test_what_other_dialects_left_in_a_history_goes_and_is_named() -> None:
    others = {"reasoning_details": [{"type": "thinking"}], "tool_plan": "p", "citations": []}
    message = {"role": "assistant", "content": "a", "reasoning_content": "t"}
    out, dropped = deepseek({"messages": [{**message, **others}]})
    assert out["messages"] == [message]
    assert sorted(dropped) == ["messages.reasoning_details", "messages.tool_plan"]


def test_messages_without_a_sign_are_not_looked_into() -> None:
    members = envelope.members(b'{"messages": [ {"role":"user", "content":"a"} ]}')
    out, _ = members_out(members, model="m")
    assert out["messages"] is members["messages"]


@pytest.mark.parametrize("messages", ['"tool_calls"', '[1, "tool_calls"]', '["developer"]'])
def test_messages_that_are_none_are_deepseeks_to_judge(messages: str) -> None:
    members = envelope.members(b'{"messages": %s}' % messages.encode())
    out, _ = members_out(members, model="m")
    assert json.loads(bytes(out["messages"])) == json.loads(messages)


# --- answers

SAID = stream_of(
    chunk({"role": "assistant", "content": None, "reasoning_content": ""}, usage=None),
    chunk({"content": "é", "reasoning_content": None}, usage=None),
    chunk({"content": ""}, "stop", usage=USAGE),
    "[DONE]",
)


def test_usage_gets_an_event_of_its_own() -> None:
    reader = DIALECT.reader(ASKED)
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
    reader = DIALECT.reader(QUIET)
    made = read(reader, SAID)
    assert gathered(made)["usage"] is None
    assert reader.usage == Usage(3, 2)


def test_usage_told_twice_is_told_once() -> None:
    more = stream_of({**chunk({}), "choices": [], "usage": {**USAGE, "completion_tokens": 7}})
    twice = SAID.replace(b"data: [DONE]\n\n", more + b"data: [DONE]\n\n")
    found = [c["usage"] for c in chunks(read(DIALECT.reader(ASKED), twice)) if c.get("usage")]
    assert found == [{**USAGE, "completion_tokens": 7}]


def test_an_event_with_nothing_wrong_is_the_same_bytes() -> None:
    reader = DIALECT.reader(ASKED)
    payload = b'{ "choices": [{"index":0, "delta":{"content":"a \\"role\\""}}], "usage": null }'
    assert reader.feed(None, payload)[0] is payload


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_comments_that_keep_a_stream_alive_are_nothing(cut: int) -> None:
    """They stand between events, and in front of the first."""
    events = list(sse.events(SAID))
    noisy = b": keep-alive\n\n" * 3 + b": keep-alive\n\n".join(events)
    reader = DIALECT.reader(ASKED)
    assert read(reader, noisy, seed=cut) == read(DIALECT.reader(ASKED), SAID)


@pytest.mark.parametrize("blank", [b"", b"\n\n\n", b"\r\n \n"])
def test_blank_lines_before_an_answer(blank: bytes) -> None:
    body = answer({"content": "a"})
    out, facts = DIALECT.answer_in(blank + body, ASKED)
    assert out == body
    assert facts.usage == Usage(3, 2)


def test_an_answer_broken_off_for_want_of_resources() -> None:
    with pytest.raises(UpstreamAborted):
        DIALECT.answer_in(answer({"content": "a"}, "insufficient_system_resource"), ASKED)
    end = stream_of(chunk({}, "insufficient_system_resource"))
    with pytest.raises(UpstreamAborted):
        read(DIALECT.reader(ASKED), end)
    words = answer({"content": '"insufficient_system_resource"'})
    assert meaning(strict(DIALECT.answer_in(words, ASKED)[0]))["finish"] == "stop"


def test_no_answer() -> None:
    for payload in (b"\n\n", b"\n<html>"):
        with pytest.raises(UpstreamProtocol):
            DIALECT.answer_in(payload, ASKED)
    with pytest.raises(UpstreamStatus) as caught:
        read(DIALECT.reader(ASKED), stream_of({"error": {"message": "x", "code": 429}}))
    assert caught.value.status == 429


# --- the whole request


def test_what_goes_to_deepseek() -> None:
    out = sent(DIALECT, {"stream": True, "priority": 3, "stop": "a", "seed": 7}, drop=["seed"])
    assert out.path == "/chat/completions"
    assert (out.dropped, out.lowered) == (("priority", "seed"), ())
    body = json.loads(out.body)
    assert (body["model"], body["stop"]) == ("theirs", "a")
    assert not {"priority", "seed"} & body.keys()


def test_what_it_passes_over_is_named_behind_what_went() -> None:
    out = sent(DIALECT, {"temperature": 0.5, "priority": 3})
    assert out.dropped == ("priority", "temperature")


@pytest.mark.parametrize("surface", [Surface.COMPLETIONS, Surface.EMBEDDINGS, Surface.TOKENIZE])
def test_deepseek_has_chats_alone(surface: Surface) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"prompt": "a", "input": "a"}, surface=surface)
    assert (caught.value.code, caught.value.param) == ("unsupported_endpoint", "model")


@pytest.mark.parametrize(
    "said",
    [
        {"n": 1},
        {"n": None},
        {"n": "two"},
        {"modalities": ["text"]},
        {"response_format": {"type": "json_object"}},
        {"response_format": "json"},
    ],
)
def test_what_asks_for_nothing_passes(said: dict[str, Any]) -> None:
    assert json.loads(sent(DIALECT, said).body).items() >= said.items()


def test_real_traffic_reads_as_it_stands(recordings_dir: Path) -> None:
    reads_as_it_stands(DIALECT, recordings_dir)
