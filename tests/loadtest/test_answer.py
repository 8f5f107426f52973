from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from server.loadtest.answer import EVENT_LIMIT, Reading, error_parts, shown, status_failure
from tests.fakes.chat import chat_events
from tests.fakes.scripts import Item, done, encode, error


def read(*items: Item) -> Reading:
    """One event per tick of the clock, from 0."""
    reading = Reading()
    for now, item in enumerate(items):
        assert isinstance(item, (dict, str, bytes))
        reading.feed(encode(item), float(now))
    return reading


def kind(reading: Reading) -> str | None:
    failure = reading.failure()
    return None if failure is None else failure.kind


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_a_whole_stream() -> None:
    reading = read(*chat_events(["a", "b", "c"], usage="chunk", prompt_tokens=9, cached_tokens=4))
    assert reading.failure() is None
    assert reading.first == 1.0  # after the role's chunk
    assert list(reading.gaps) == [1.0, 1.0]
    assert reading.chunks == 3
    assert (reading.output_tokens, reading.prompt_tokens, reading.cached_tokens) == (3, 9, 4)
    assert reading.finish == "stop"
    assert reading.done


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({}, False),
        ({"tool_calls": []}, False),
        ({"content": "a"}, True),
        ({"content": [{"type": "text", "text": "a"}]}, True),
        ({"reasoning": "hm"}, True),
        ({"reasoning_content": "hm"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, True),
        ({"function_call": {"name": "f"}}, True),
    ],
)
def test_what_counts_as_the_first_token(fields: dict[str, Any], counts: bool) -> None:
    reading = read(b": waiting\n\n", delta(role="assistant"), delta(**fields))
    assert reading.first == (2.0 if counts else None)
    assert reading.chunks == int(counts)


def test_events_of_one_read_came_at_one_time() -> None:
    reading = Reading()
    block = b"".join(encode(e) for e in chat_events(["a", "b"]) if isinstance(e, (dict, str)))
    reading.feed(block[:30], 1.0)
    reading.feed(block[30:], 2.0)
    assert (reading.first, list(reading.gaps)) == (2.0, [0.0])
    assert reading.failure() is None


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([delta(content="a"), FINISH], "truncated"),
        ([], "truncated"),
        ([delta(content="a"), done], "no finish_reason"),
        (chat_events(["a"], finish="abort"), "finish_reason abort"),
        (chat_events(["a"], finish="error"), "finish_reason error"),
        ([delta(content="a"), error("x", code="cut_off")], "error event cut_off"),
        ([error("x", type="", code=None)], "error event"),
        ([error("x", "BadRequestError", 400)], "error event BadRequestError"),
        ([{"error": "boom"}], "error event"),
        (["{not json"], "no chat stream"),
        (["[1]"], "no chat stream"),
        ([{"choices": [{"delta": "a"}]}], "no chat stream"),
        ([b"x" * (EVENT_LIMIT + 1)], "no chat stream"),
        (chat_events(["a"], finish="length"), None),
        ([FINISH, done], None),
        ([FINISH, b"data: [DONE]\n"], None),  # without its blank line
        ([FINISH, b"data: [DON"], "truncated"),
    ],
)  # fmt: skip
def test_what_does_not_count(items: Sequence[Item], said: str | None) -> None:
    assert kind(read(*items)) == said


def test_nothing_counts_after_the_end() -> None:
    reading = read(FINISH, done, delta(content="late"))
    assert (reading.first, reading.failure()) == (None, None)
    broken = read(error("first"), error("second"))
    assert broken.over
    found = broken.failure()
    assert found is not None
    assert found.text == "first"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"choices": [{"finish_reason": "stop"}], "usage": {"completion_tokens": 3}}', None),
        (b'{"choices": [{}]}', "no finish_reason"),
        (b"<html>", "no chat completion"),
        (b"\xff", "no chat completion"),
        (b'{"error": {"message": "m", "code": "c"}}', "error event c"),
    ],
)
def test_an_answer_that_is_no_stream(body: bytes, said: str | None) -> None:
    reading = Reading()
    reading.whole(body)
    assert kind(reading) == said
    assert reading.output_tokens == (None if said else 3)


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (429, b'{"error":{"message":"slow","code":"rate_limit"}}', "HTTP 429 rate_limit", "slow"),
        (400, b'{"error":{"message":"m","type":"BadOne","code":400}}', "HTTP 400 BadOne", "m"),
        (404, b'{"error":{"message":"m","code":"404"}}', "HTTP 404", "m"),
        (500, b'{"error":{"message":"m","code":"no such thing!"}}', "HTTP 500", "m"),
        (502, b"<html>\n  Bad  gateway\x1b[2J", "HTTP 502", "<html> Bad gateway[2J"),
        (503, b"", "HTTP 503", "The answer has no body."),
        (500, b'{"error":"boom"}', "HTTP 500", "boom"),
        (422, b'{"detail":[1]}', "HTTP 422", '{"detail":[1]}'),
        (500, b"[" * 100_000, "HTTP 500", "[" * 300 + "…"),
    ],
)  # fmt: skip
def test_error_statuses(status: int, body: bytes, kind: str, text: str) -> None:
    found = status_failure(status, body)
    assert (found.kind, found.text) == (kind, text)


def test_foreign_text_is_cut_and_harmless() -> None:
    assert shown(b"a\x00\x07b\xff") == "ab\N{REPLACEMENT CHARACTER}"
    assert error_parts({"error": {"message": 5}}) == ("", "")
    assert error_parts(None) == ("", "")
