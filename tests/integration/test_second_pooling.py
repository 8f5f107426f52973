"""Cohere's embeddings and rerank as our dialect asks for them, at vLLM's own `/v2`, against what
the same engine says in OpenAI's words and in its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from server.dialects.base import Asked, Outgoing
from server.dialects.cohere import Cohere
from server.protocol.envelope import Surface
from tests.dialects.replay import ASKED, sent, strict_embeddings, unpacked_embeddings
from tests.integration.stack import ServerProcess

COHERE: Final = Cohere()
TEXTS: Final = ["a cat sits on a mat", "tax law of 1911", "Grüße aus 北京"]
RANK: Final = {"query": "Where is the cat?", "documents": TEXTS, "top_n": 2}


@pytest.fixture(scope="module")
def engine(stack: ServerProcess) -> Iterator[httpx.Client]:
    """Straight to the engine, on the socket that its supervisor gave it."""
    argv = stack.engine_processes("minilm")[0].cmdline()
    socket = argv[argv.index("--uds") + 1]
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=socket), base_url="http://engine", timeout=60
    ) as http:
        yield http


def asked(surface: Surface, *, base64: bool = False) -> Asked:
    return Asked(surface, ASKED.model, ASKED.id, ASKED.created, base64=base64)


def without_input_type(outgoing: Outgoing) -> Outgoing:
    """Cohere's models want one; vLLM refuses it for those that know of no tasks, as this one."""
    body = json.loads(outgoing.body)
    assert body.pop("input_type") == "search_document"
    return dataclasses.replace(outgoing, body=json.dumps(body).encode())


def post(http: httpx.Client, outgoing: Outgoing) -> httpx.Response:
    assert (outgoing.dropped, outgoing.lowered) == ((), ())
    headers = {"content-type": "application/json", **outgoing.headers}
    return http.post("/v2" + outgoing.path, content=outgoing.body, headers=headers)


def embed(http: httpx.Client, **body: Any) -> httpx.Response:
    outgoing = sent(COHERE, body, model="minilm", surface=Surface.EMBEDDINGS)
    return post(http, without_input_type(outgoing))


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[0]], ids=["several", "one"])
def test_embeddings(engine: httpx.Client, texts: Any) -> None:
    said = engine.post("/v1/embeddings", json={"model": "minilm", "input": texts}).json()
    answer = embed(engine, input=texts)
    made, facts = COHERE.answer_in(answer.content, asked(Surface.EMBEDDINGS))
    found = strict_embeddings(made)
    assert [one.index for one in found.data] == list(range(len(said["data"])))
    for one, theirs in zip(found.data, said["data"], strict=True):
        assert one.embedding == pytest.approx(theirs["embedding"], abs=1e-5)
    assert facts.usage is not None
    assert facts.usage.prompt == found.usage.total_tokens == said["usage"]["prompt_tokens"]
    packed, _ = COHERE.answer_in(answer.content, asked(Surface.EMBEDDINGS, base64=True))
    for one, same in zip(unpacked_embeddings(packed).data, found.data, strict=True):
        assert one.embedding == pytest.approx(same.embedding, abs=1e-6)


def test_rerank(engine: httpx.Client) -> None:
    said = engine.post("/v1/rerank", json={"model": "minilm", **RANK}).json()
    answer = post(engine, sent(COHERE, RANK, model="minilm", surface=Surface.RERANK))
    made, facts = COHERE.answer_in(answer.content, asked(Surface.RERANK))
    found = json.loads(made)
    assert [(one["index"], one["relevance_score"]) for one in found["results"]] == [
        (one["index"], pytest.approx(one["relevance_score"], abs=1e-5)) for one in said["results"]
    ]
    assert found["results"][0]["index"] == 0
    assert found["model"] == ASKED.model
    assert facts.usage is not None
    assert facts.usage.prompt == said["usage"]["total_tokens"]


def test_errors(engine: httpx.Client) -> None:
    answer = embed(engine, input="word " * 9000, truncate="NONE")
    error = COHERE.error_in(answer.status_code, answer.content)
    assert (error.status, error.trouble) == (400, "context_length")
    outgoing = sent(COHERE, {"input": "a"}, model="nobody", surface=Surface.EMBEDDINGS)
    answer = post(engine, outgoing)
    error = COHERE.error_in(answer.status_code, answer.content)
    assert error.status == 404
    assert "`nobody`" in error.message


def test_an_input_type_that_the_model_does_not_know(engine: httpx.Client) -> None:
    answer = post(engine, sent(COHERE, {"input": "a"}, model="minilm", surface=Surface.EMBEDDINGS))
    error = COHERE.error_in(answer.status_code, answer.content)
    assert error.status == 400
    assert "search_document" in error.message
