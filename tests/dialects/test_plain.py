"""OpenAI's dialect as one that is translated: all passes as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.base import Reader
from server.dialects.openai import Usage
from server.dialects.plain import Plain
from server.errors import InvalidRequest, UpstreamAborted, UpstreamStatus
from server.protocol.envelope import Surface
from tests.dialects.replay import ASKED, QUIET, USAGE, answer, chunk, sent

DIALECT = Plain()


def fed(reader: Reader, payload: Any, event: str | None = None) -> Any:
    return reader.feed(event, json.dumps(payload).encode())


def test_errors_in_a_stream() -> None:
    with pytest.raises(UpstreamStatus) as caught:
        fed(DIALECT.reader(ASKED), {"error": {"message": "x", "code": 429}})
    assert caught.value.status == 429
    with pytest.raises(UpstreamStatus) as caught:
        fed(DIALECT.reader(ASKED), {"message": "slow down", "code": 503}, "error")
    assert caught.value.status == 503
    with pytest.raises(UpstreamAborted):
        fed(DIALECT.reader(ASKED), chunk({}, "abort"))


def test_usage_is_known_where_the_stream_breaks() -> None:
    reader = DIALECT.reader(ASKED)
    fed(reader, chunk({"content": "a"}, usage=USAGE))
    with pytest.raises(UpstreamStatus):
        fed(reader, {"error": "gone"})
    assert reader.usage == Usage(3, 2)


def test_usage_that_is_null_is_no_sign() -> None:
    payload = b'{"choices":[],"usage": null}'
    reader = DIALECT.reader(QUIET)
    assert reader.feed(None, payload)[0] is payload
    assert reader.usage is None


def test_usage_of_another_kind_is_none() -> None:
    reader = DIALECT.reader(ASKED)
    assert fed(reader, {**chunk({"content": "a"}), "usage": 5})
    assert reader.usage is None


def test_nothing_comes_behind_the_end() -> None:
    reader = DIALECT.reader(ASKED)
    assert not reader.feed(None, b"")
    assert list(reader.feed(None, b"[DONE]")) == [b"[DONE]"]
    assert not fed(reader, chunk({"content": "a"}))


def test_a_request_goes_out_as_openais() -> None:
    out = sent(DIALECT, {"stream": True, "priority": 1, "odd": 2, "seed": 3}, drop=["seed"])
    assert (out.path, out.dropped, out.lowered) == ("/chat/completions", ("priority", "seed"), ())
    body = json.loads(out.body)
    assert (body["model"], body["odd"]) == ("theirs", 2)
    assert not {"priority", "seed"} & body.keys()
    for surface in (Surface.COMPLETIONS, Surface.EMBEDDINGS):
        assert sent(DIALECT, {"prompt": "a"}, surface=surface).path == f"/{surface}"


def test_tokens_are_an_engines_to_tell() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"prompt": "a"}, surface=Surface.TOKENIZE)
    assert caught.value.code == "unsupported_endpoint"


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"odd": 1}}, {"odd": 1, "include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
    ],
)
def test_usage_is_asked_for_in_a_stream(body: dict[str, Any], options: dict[str, Any]) -> None:
    """A client that did not ask is not shown it."""
    out = sent(DIALECT, {"stream": True, **body}, wants_usage=False)
    assert json.loads(out.body)["stream_options"] == options


def test_options_that_are_none() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECT, {"stream": True, "stream_options": [1]}, wants_usage=False)
    assert caught.value.param == "stream_options"


def test_an_answer_is_the_same_bytes() -> None:
    payload = answer({"content": "<think>a</think>b"})
    assert DIALECT.answer_in(payload, ASKED)[0] is payload
    payload = json.dumps(chunk({"content": "<think>"})).encode()
    (made,) = DIALECT.reader(QUIET).feed(None, payload)
    assert made is payload
