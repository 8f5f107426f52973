"""What plans read of a request: about how many tokens, and what belongs together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from server.protocol.envelope import Surface
from server.routing.lineup import affinity_of, tokens_of
from tests.routing.conftest import request_of


@pytest.mark.parametrize(
    ("body", "prompt", "output"),
    [
        ({"messages": [{"role": "user", "content": "x" * 400}]}, 108, 256),
        ({"max_tokens": 9}, 8, 9),
        ({"max_completion_tokens": 9}, 8, 9),
        ({"max_tokens": None, "max_completion_tokens": 7}, 8, 7),
        ({"max_tokens": 0}, 8, 256),
        ({"max_tokens": "many"}, 8, 256),
        ({"max_tokens": -5}, 8, 256),
        ({"max_tokens": 0.5}, 8, 1),
        ({"max_tokens": 10**400}, 8, 10**9),
        ({"max_tokens": 1e308}, 8, 10**9),
        ({"max_tokens": [0] * 9000}, 8, 256),
        ({"tools": ["x" * 396]}, 108, 256),
        ({"surface": Surface.COMPLETIONS, "prompt": "x" * 398}, 100, 256),
        ({"surface": Surface.EMBEDDINGS, "input": ["x" * 396], "stream": False}, 100, 0),
    ],
)
def test_tokens_about(body: dict[str, Any], prompt: int, output: int) -> None:
    found = tokens_of(request_of(**body))
    assert (found.prompt_tokens, found.output_tokens) == (prompt, output)


def key_of(**body: Any) -> bytes:
    request = request_of(**body)
    request.session = body.pop("session", None)
    return affinity_of(request)


def test_what_belongs_together() -> None:
    texts = key_of()
    assert texts == key_of(temperature=0.5)
    assert texts != key_of(messages=[{"role": "user", "content": "other"}])
    cached = key_of(prompt_cache_key="k")
    assert cached == key_of(prompt_cache_key="k", messages=[{"role": "user", "content": "other"}])
    assert len({texts, cached, key_of(prompt_cache_key="l")}) == 3


@pytest.mark.parametrize("nothing", [None, "", 7, False, ["k"], {"k": "v"}])
def test_a_cache_key_that_says_nothing_parts_nobody(nothing: Any) -> None:
    """Or all who send `null` would go to one target."""
    assert key_of(prompt_cache_key=nothing) == key_of()


def test_a_cache_key_is_what_it_says_and_not_how_it_is_written() -> None:
    one, other = request_of(), request_of()
    one.members["prompt_cache_key"] = Raw(b'"a/b"')
    other.members["prompt_cache_key"] = Raw(json.dumps("a/b").replace("/", "\\/").encode())
    assert affinity_of(one) == affinity_of(other)


def test_a_session_beats_a_cache_key_and_is_its_tenants_own() -> None:
    one = request_of(prompt_cache_key="k")
    one.session = "s"
    other = request_of(prompt_cache_key="l")
    other.session = "s"
    assert affinity_of(one) == affinity_of(other)
    other.tenant = "somebody"
    assert affinity_of(one) != affinity_of(other)


@pytest.mark.parametrize("messages", [[], "text", [1], [{"role": "assistant", "content": "x"}]])
def test_without_a_first_text_there_is_no_key(messages: Any) -> None:
    assert key_of(messages=messages) == b""
