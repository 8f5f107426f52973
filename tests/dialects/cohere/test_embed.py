"""Embeddings and rerank: what goes out, and what no recording holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.base import Asked
from server.dialects.cohere import Cohere
from server.dialects.openai import Usage
from server.errors import InvalidRequest, UpstreamProtocol
from server.protocol.envelope import Surface
from tests.dialects.cohere.theirs import checked, embedded
from tests.dialects.replay import sent, strict_embeddings

DIALECT = Cohere()
ASKED = Asked(Surface.EMBEDDINGS, "mine", "emb-1", 1)
BARE = {
    "model": "theirs",
    "texts": ["a"],
    "input_type": "search_document",
    "embedding_types": ["float"],
}


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({}, {}),
        ({"input": ["a", "b"]}, {"texts": ["a", "b"]}),
        ({"dimensions": 256}, {"output_dimension": 256}),
        ({"encoding_format": "base64"}, {}),
        ({"encoding_format": "float"}, {}),
        ({"input_type": "search_query"}, {"input_type": "search_query"}),
        ({"truncate": "END"}, {"truncate": "END"}),
    ],
)
def test_embeddings(said: dict[str, Any], sent_so: dict[str, Any]) -> None:
    assert embedded(said) == {**BARE, **sent_so}


def test_the_account_says_what_embeddings_are_for() -> None:
    settings = {"input_type": "clustering", "truncate": "START"}
    assert embedded({}, **settings) == {**BARE, **settings}
    mine = embedded({"input_type": "search_query"}, **settings)
    assert mine["input_type"] == "search_query"


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": None}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": "many"}, "dimensions"),
        ({"images": []}, "images"),
    ],
)
def test_embeddings_that_cohere_cannot_make(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embedded(said)
    assert caught.value.param == param


def test_a_user_is_let_go_and_named() -> None:
    outgoing = sent(DIALECT, {"input": "a", "user": "u"}, surface=Surface.EMBEDDINGS)
    assert (outgoing.path, outgoing.dropped) == ("/embed", ("user",))


def test_embeddings_without_a_count() -> None:
    out, facts = DIALECT.answer_in(b'{"id":"x","embeddings":{"float":[[1,0.5]]}}', ASKED)
    found = strict_embeddings(out)
    assert (found.data[0].embedding, found.model) == ([1.0, 0.5], "mine")
    assert facts.usage == Usage(partly=True)


# --- rerank


RANKED = Asked(Surface.RERANK, "mine", "rerank-1", 1)
ASK = {"query": "q", "documents": ["a", "b"]}


def reranked(body: dict[str, Any], drop: tuple[str, ...] = ()) -> dict[str, Any]:
    return checked(sent(DIALECT, body, drop=drop, surface=Surface.RERANK))


@pytest.mark.parametrize(
    ("said", "sent_so"),
    [
        ({}, {}),
        ({"top_n": 1, "max_tokens_per_doc": 100}, {"top_n": 1, "max_tokens_per_doc": 100}),
        ({"documents": [{"text": "a"}, "b"]}, {}),
        ({"return_documents": False, "stream": False, "top_n": None}, {}),
        ({"top_n": 0, "max_tokens_per_doc": 0}, {}),
        ({"relevant_spans": {"mode": "enabled"}}, {"relevant_spans": {"mode": "enabled"}}),
    ],
)
def test_rerank(said: dict[str, Any], sent_so: dict[str, Any]) -> None:
    assert reranked({**ASK, **said}) == {"model": "theirs", **ASK, **sent_so}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"query": None}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": [{"text": "a", "title": "b"}]}, "documents[0]"),
        ({"return_documents": True}, "return_documents"),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
)
def test_rerank_that_cohere_cannot(said: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reranked({**ASK, **said})
    assert caught.value.param == param


def test_rerank_without_what_is_dropped() -> None:
    said = {**ASK, "return_documents": True}
    assert reranked(said, ("return_documents", "query")) == {"model": "theirs", **ASK}


@pytest.mark.parametrize(
    ("more", "usage"),
    [
        ({}, None),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"meta": {"tokens": {"input_tokens": "many"}}}, None),
        ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(prompt=9)),
    ],
)
def test_rerank_answers_pass_with_the_clients_name(
    more: dict[str, Any], usage: Usage | None
) -> None:
    results = [{"index": 1, "relevance_score": 0.5, "document": {"text": "b"}}]
    payload = json.dumps({"results": results, "model": "x", **more}).encode()
    out, facts = DIALECT.answer_in(payload, RANKED)
    assert json.loads(out) == {"id": "rerank-1", "results": results, "model": "mine", **more}
    assert facts.usage == usage


def test_what_cohere_counted_stands_where_clients_of_others_look_for_it() -> None:
    answer = {"id": "theirs", "results": [], "meta": {"tokens": {"input_tokens": 4.0}}}
    out, facts = DIALECT.answer_in(json.dumps(answer).encode(), RANKED)
    counted = {"usage": {"prompt_tokens": 4, "total_tokens": 4}}
    assert json.loads(out) == {**answer, "model": "mine", **counted}
    assert facts.usage == Usage(prompt=4)


@pytest.mark.parametrize("said", [{}, {"id": None}])
def test_a_ranking_has_an_id(said: dict[str, Any]) -> None:
    out, _ = DIALECT.answer_in(json.dumps({**said, "results": []}).encode(), RANKED)
    assert json.loads(out)["id"] == "rerank-1"


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"results": 1}', b'{"results": [{}]}'])
def test_what_is_no_ranking(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        DIALECT.answer_in(payload, RANKED)
