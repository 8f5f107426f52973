"""What a rerank's body may hold, and documents that are texts in a wrapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequest
from server.protocol import envelope, rerank
from server.protocol.envelope import Surface

ASK = {"model": "m", "query": "q", "documents": ["a", "b"]}


def fields_of(**said: Any) -> Any:
    return envelope.decode(Surface.RERANK, json.dumps({**ASK, **said}).encode())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"stream": False, "top_n": 0, "max_tokens_per_doc": 0},
        {"stream": None, "top_n": None, "max_tokens_per_doc": None},
        {"top_n": 5, "documents": ["a"] * rerank.DOCUMENTS},
        {"query": {"content": []}, "documents": [{"content": []}]},
    ],
)
def test_what_somebody_can_answer(said: dict[str, Any]) -> None:
    rerank.check(fields_of(**said))


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({"stream": True}, "stream", "unsupported_parameter"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": ["a"] * (rerank.DOCUMENTS + 1)}, "documents", "over_limit"),
        ({"top_n": -1}, "top_n", "invalid_value"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc", "invalid_value"),
    ],
)
def test_what_nobody_can_answer(said: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        rerank.check(fields_of(**said))
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("documents", "texts"),
    [
        (["a", "b"], None),
        ([{"text": "a", "title": "b"}, {"content": []}, {}, "c"], None),
        ([{"text": 1}, {"text": None}], None),
        ([{"text": "a"}], ["a"]),
        (["a", {"text": "grüße"}, {"text": ["b"]}], ["a", "grüße", {"text": ["b"]}]),
    ],
)
def test_a_text_in_a_wrapping_is_a_text(documents: list[Any], texts: list[Any] | None) -> None:
    found = rerank.as_texts(fields_of(documents=documents).documents)
    assert (None if found is None else json.loads(bytes(found))) == texts
