"""A stream, event by event, and what no recording has."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from server.dialects.openai import Usage
from server.errors import UpstreamAborted, UpstreamProtocol, UpstreamStatus
from tests.dialects.anthropic.helpers import (
    ASKED,
    DIALECT,
    gathered,
    read,
    stream_of,
)

Event = dict[str, Any]
USAGE = {"input_tokens": 10, "output_tokens": 1}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}
BEGIN: Event = {"type": "message_start", "message": MESSAGE}
LAST: Event = {"type": "message_stop"}
PING: Event = {"type": "ping"}


def start(index: int, kind: str, /, **more: Any) -> Event:
    block = {"type": kind, **more}
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **more: Any) -> Event:
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": kind, **more},
    }


def stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None = "end_turn", usage: Any = None, **more: Any) -> Event:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None, **more},
        "usage": {"output_tokens": 5} if usage is None else usage,
    }


def told(*words: str, index: int = 0) -> list[Event]:
    deltas = [delta(index, "text_delta", text=word) for word in words]
    return [start(index, "text", text=""), *deltas, stop(index)]


def fed(*events: Event, **asked: Any) -> list[Any]:
    """What comes out of each event: decoded chunks, and `[DONE]`."""
    reader = DIALECT.reader(dataclasses.replace(ASKED, **asked))
    return [
        [
            "[DONE]" if payload == b"[DONE]" else json.loads(payload)
            for payload in reader.feed(event["type"], json.dumps(event).encode())
        ]
        for event in events
    ]


def chunk(delta: Any, finish: str | None = None) -> Any:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "claude",
        "choices": [choice],
    }


ROLE = chunk({"role": "assistant", "content": ""})


def called(index: int, **more: Any) -> Any:
    return chunk({"tool_calls": [{"index": index, **more}]})


def begun(index: int, identity: str) -> Any:
    function = {"name": "f", "arguments": ""}
    return called(index, id=identity, type="function", function=function)


def test_text() -> None:
    assert fed(BEGIN, PING, *told("Hel", "lo"), end(), LAST) == [
        [ROLE],
        [],
        [],
        [chunk({"content": "Hel"})],
        [chunk({"content": "lo"})],
        [],
        [chunk({}, "stop")],
        [
            {
                **{k: v for k, v in ROLE.items() if k != "choices"},
                "choices": [],
                "usage": {
                    "prompt_tokens": 10,
                    "completion_tokens": 5,
                    "total_tokens": 15,
                    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "completion_tokens_details": {"reasoning_tokens": 0},
                },
            },
            "[DONE]",
        ],
    ]


def test_usage_only_when_asked() -> None:
    assert fed(BEGIN, *told("a"), end(), LAST, wants_usage=False)[-1] == ["[DONE]"]


def test_calls_are_counted_apart_from_blocks() -> None:
    events = [
        BEGIN,
        *told("a"),
        start(1, "server_tool_use", id="s", name="web_search", input={}),
        delta(1, "input_json_delta", partial_json='{"q": 1}'),
        stop(1),
        start(2, "tool_use", id="x", name="f", input={}),
        delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"a"'),
        delta(2, "input_json_delta", partial_json=': "é"}'),
        stop(2),
        start(3, "tool_use", id="y", name="f", input={}),
        delta(3, "input_json_delta", partial_json=""),
        stop(3),
        end("tool_use"),
    ]
    assert fed(*events)[4:] == [
        [],
        [],
        [],
        [begun(0, "x")],
        [],
        [called(0, function={"arguments": '{"a"'})],
        [called(0, function={"arguments": ': "é"}'})],
        [],
        [begun(1, "y")],
        [],
        [called(1, function={"arguments": "{}"})],  # "" is no JSON
        [chunk({}, "tool_calls")],
    ]


def test_calls_that_stream_in_turns() -> None:
    made = fed(
        BEGIN,
        start(0, "tool_use", id="x", name="f", input={}),
        start(1, "tool_use", id="y", name="f", input={"all": "at once"}),
        delta(0, "input_json_delta", partial_json="{}"),
        stop(1),
        stop(0),
        stop(1),
    )
    assert made[3:] == [
        [called(0, function={"arguments": "{}"})],
        [called(1, function={"arguments": '{"all": "at once"}'})],
        [],
        [],  # ended already
    ]


def test_thinking_goes_on_as_it_comes_and_once_more_with_its_signature() -> None:
    whole = {"type": "thinking", "thinking": "Hm. So.", "signature": "c2ln"}
    redacted = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    made = fed(
        BEGIN,
        start(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="Hm. "),
        delta(0, "thinking_delta", thinking="So."),
        delta(0, "signature_delta", signature="c2"),
        delta(0, "signature_delta", signature="ln"),
        stop(0),
        start(1, "redacted_thinking", data="ZGF0YQ=="),
        stop(1),
        start(2, "thinking", thinking=""),
        delta(2, "thinking_delta", thinking="unsigned"),
        stop(2),
    )
    assert made[1:] == [
        [],
        [chunk({"reasoning_content": "Hm. "})],
        [chunk({"reasoning_content": "So."})],
        [],
        [],
        [chunk({"reasoning_details": [{"index": 0, **whole}]})],
        [chunk({"reasoning_details": [{"index": 1, **redacted}]})],
        [],
        [],
        [chunk({"reasoning_content": "unsigned"})],
        [],
    ]


def test_the_sdk_puts_details_together() -> None:
    events: list[Event] = [BEGIN]
    for index in range(3):
        events += [
            start(index, "thinking", thinking="", signature=""),
            delta(index, "thinking_delta", thinking=f"t{index}"),
            delta(index, "signature_delta", signature=f"s{index}"),
            stop(index),
        ]
    made, _ = read(stream_of(*events, *told("a", index=3), end(), LAST))
    message: Any = gathered(made).choices[0].message
    assert message.reasoning_content == "t0t1t2"
    assert message.reasoning_details == [
        {"index": i, "type": "thinking", "thinking": f"t{i}", "signature": f"s{i}"}
        for i in range(3)
    ]


def test_a_refusal() -> None:
    details = {"type": "refusal", "explanation": "Not this."}
    assert fed(BEGIN, end("refusal", stop_details=details))[-1] == [
        chunk({"refusal": "Not this."}, "content_filter")
    ]


def test_what_is_counted_last_counts() -> None:
    reader = DIALECT.reader(ASKED)
    seen = []
    for event in (
        {**BEGIN, "message": {**MESSAGE, "usage": {**USAGE, "cache_read_input_tokens": 3}}},
        end(None, {"output_tokens": 4, "input_tokens": None}),
        end("end_turn", {"output_tokens": 5, "input_tokens": 20}),
        LAST,
    ):
        reader.feed(None, json.dumps(event).encode())
        seen.append(reader.usage)
    assert seen == [Usage(13, 1, 3), Usage(13, 4, 3), Usage(23, 5, 3), Usage(23, 5, 3)]


def test_one_end_whatever_comes() -> None:
    made = fed(BEGIN, end(None), end("max_tokens"), end("end_turn"), LAST, LAST, *told("late"))
    assert made[:4] == [[ROLE], [], [chunk({}, "length")], []]
    assert made[4][-1] == "[DONE]"
    assert made[5:] == [[], [], [], []]


@pytest.mark.parametrize("before", [[], [end(None)]])
def test_an_end_without_a_reason_is_none(before: list[Event]) -> None:
    assert fed(BEGIN, *told("a"), *before)[-1] == []
    with pytest.raises(UpstreamAborted):
        fed(BEGIN, *told("a"), *before, LAST)


def test_a_stream_without_its_first_event_has_a_role() -> None:
    assert fed(*told("a"))[1] == [ROLE, chunk({"content": "a"})]
    assert fed(end())[0] == [ROLE, chunk({}, "stop")]


def test_text_that_stands_in_the_start() -> None:
    assert fed(BEGIN, start(0, "text", text="a"), start(1, "thinking", thinking="b"))[1:] == [
        [chunk({"content": "a"})],
        [chunk({"reasoning_content": "b"})],
    ]


def test_done_only_at_the_end() -> None:
    reader = DIALECT.reader(ASKED)
    for event in (BEGIN, *told("a"), end()):
        reader.feed(None, json.dumps(event).encode())
        assert not reader.done
    reader.feed(None, json.dumps(LAST).encode())
    assert reader.done
    assert reader.feed(None, b"[DONE]") == ()


@pytest.mark.parametrize(
    "event",
    [
        PING,
        {"type": "what_is_this", "delta": 7, "index": "x"},
        {"type": "content_block_delta", "index": 9},
        start(9, "what_is_this", text=7, input=None),
        delta(9, "citations_delta", citation={"type": "x"}),
        delta(9, "what_is_this"),
        delta(9, "input_json_delta", partial_json="{"),  # of a block that is passed over
        delta(9, "signature_delta", signature="x"),
        stop(9),
    ],
)
def test_what_is_passed_over(event: Event) -> None:
    assert fed(BEGIN, event)[1] == []


@pytest.mark.parametrize(
    ("kind", "upstream", "status"),
    [
        ("overloaded_error", 529, 503),
        ("api_error", 500, 500),
        ("rate_limit_error", 429, 429),
        ("timeout_error", 504, 504),
        ("invalid_request_error", 400, 400),
        ("authentication_error", 401, 502),
        ("what_is_this", 500, 500),
        (7, 500, 500),
    ],
)
@pytest.mark.parametrize("before", [[], [BEGIN, *told("a")]])
def test_an_error_event(kind: Any, upstream: int, status: int, before: list[Event]) -> None:
    reader = DIALECT.reader(ASKED)
    for event in before:
        reader.feed(None, json.dumps(event).encode())
    event = {"type": "error", "error": {"type": kind, "message": "secret of theirs"}}
    with pytest.raises(UpstreamStatus) as raised:
        reader.feed("error", json.dumps(event).encode())
    assert (raised.value.upstream_status, raised.value.status) == (upstream, status)
    assert not reader.done
    assert ("secret" in raised.value.message) is (status == 400)


def test_an_error_event_without_a_shape() -> None:
    for payload in (b'{"error": "text"}', b'{"type": "error"}'):
        with pytest.raises(UpstreamStatus):
            DIALECT.reader(ASKED).feed("error", payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"7",
        b"{",
        b'{"type": "content_block_delta", "delta": {"type": "text_delta", "text": 7}}',
        b'{"type": "content_block_delta", "index": "a"}',
        b'{"type": "content_block_start", "index": 0}',
        b'{"type": "content_block_start", "content_block": 7}',
        b'{"type": "content_block_start", "content_block": {"type": "tool_use", "id": 7}}',
        b"[" * 100_000,
    ],
)
def test_no_event(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.reader(ASKED).feed(None, payload)


def test_names_with_signs_of_formats() -> None:
    asked = {"model": '100%s "é"', "id": "%d"}
    for chunks in fed(BEGIN, *told("%s"), end(), LAST, **asked):
        for one in chunks:
            assert one == "[DONE]" or (one["model"], one["id"]) == ('100%s "é"', "%d")
