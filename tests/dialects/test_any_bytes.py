"""Bytes of all kinds: whatever an upstream sends, it is its fault, and told as that."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.dialects import openai
from server.dialects.base import Asked, Dialect
from server.dialects.loose import Loose
from server.dialects.plain import Plain
from server.dialects.table import DIALECTS
from server.dialects.thoughts import Thinking
from server.errors import UpstreamError, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.functions import answer_back
from tests.dialects.replay import ASKED, QUIET

ALL: Final[dict[str, Dialect]] = {"openai": Plain(), "loose": Loose(), **DIALECTS}
TAGS: Final = {name: Thinking(ALL[name], begun=True) for name in ("openai", "mistral")}
EMBED: Final = Asked(Surface.EMBEDDINGS, "m", "e", 1, base64=True)
TEXT: Final = Asked(Surface.COMPLETIONS, "m", "c", 1)
STATUSES: Final = st.sampled_from([*range(100, 600), 600, 999, 0])
#: JSON that means something, for bytes to be put into.
SOUND: Final = [
    {"error": {"message": "m", "type": "t", "code": "c", "param": "p", "details": [{"a": "b"}]}},
    {"error": ["one", "two"], "estimated_time": 7},
    {"message": {"detail": [{"loc": ["body", "x"], "msg": "m"}]}},
    {"type": "error", "error": {"type": "api_error", "message": "m"}, "request_id": "r"},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]},
    {"choices": [{"message": {"content": [{"type": "text", "text": "a"}]}, "usage": {}}]},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}},
]


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """JSON with a few of its bytes replaced by others."""
    body = json.dumps(draw(st.sampled_from(SOUND))).encode()
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=4)) + body[at + draw(st.integers(0, 4)) :]


payloads = st.binary(max_size=64) | broken()


@pytest.mark.no_cover
@settings(max_examples=400)
@given(STATUSES, payloads)
def test_every_error_is_the_upstreams(status: int, body: bytes) -> None:
    for dialect in (*ALL.values(), *TAGS.values()):
        error = dialect.error_in(status, body)
        assert isinstance(error, UpstreamStatus)
        json.dumps([error.body(), error.headers()]).encode()
        (error.detail or "").encode()


@pytest.mark.no_cover
@settings(max_examples=400)
@given(payloads)
def test_every_answer_is_one_or_the_upstreams_fault(body: bytes) -> None:
    for dialect in (*ALL.values(), *TAGS.values()):
        for asked in (ASKED, EMBED, TEXT):
            with suppress(UpstreamError):
                dialect.answer_in(body, asked)
    with suppress(UpstreamError):
        openai.answer_in(body)
    with suppress(UpstreamError):
        answer_back(body)


@pytest.mark.no_cover
@settings(max_examples=400)
@given(st.lists(st.tuples(st.sampled_from([None, "error"]), payloads), max_size=3))
def test_every_event_is_one_or_the_upstreams_fault(events: list[tuple[str | None, bytes]]) -> None:
    for dialect in (*ALL.values(), *TAGS.values()):
        for asked in (ASKED, QUIET, TEXT):
            reader = dialect.reader(asked)
            with suppress(UpstreamError):
                for name, payload in events:
                    reader.feed(name, payload)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_error_that_is_not_quite_utf_8(name: str, status: int) -> None:
    """As servers write it that speak Latin-1."""
    error = ALL[name].error_in(status, b'{"error":{"message":"caf\xe9"},"message":"caf\xe9"}')
    assert (error.upstream_status, error.status) == (status, status)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", ["message", "error", "detail", "estimated_time"])
def test_what_lies_deep_is_no_trap(name: str, where: str) -> None:
    """Reading it, writing it and putting it into words have limits of their own."""
    for depth in (*range(1, 40), *range(800, 1000, 3), 5000):
        inner = b"[" * depth + b"]" * depth
        for body in (
            b'{"%s":%s}' % (where.encode(), inner),
            b'{"error":{"%s":%s,"message":"is loading"}}' % (where.encode(), inner),
        ):
            for status in (400, 503):
                assert isinstance(ALL[name].error_in(status, body), UpstreamStatus)
