"""Rerank from socket to socket: as clients of Cohere, Jina and vLLM send it, as engines and
providers of the OpenAI dialect answer it."""

from __future__ import annotations

from typing import Any

import cohere
import httpx
import pytest

from server.protocol.rerank import DOCUMENTS
from server.serving import Roundhouse
from tests.api.conftest import KEY, Serve, config_of
from tests.fakes.exchange import Script
from tests.fakes.upstream import ScriptedUpstream, answer_json, error

ASK = {"model": "m", "query": "What turns?", "documents": ["a wheel", "a stone"]}
#: As vLLM has it.
ANSWER: dict[str, Any] = {
    "id": "score-1",
    "model": "upstream-m",
    "usage": {"prompt_tokens": 12, "total_tokens": 12},
    "results": [
        {"index": 1, "document": {"text": "a stone", "multi_modal": None}, "relevance_score": 0.5},
        {"index": 0, "document": {"text": "a wheel", "multi_modal": None}, "relevance_score": 0.25},
    ],
}
PATHS = ["/v1/rerank", "/rerank", "/v2/rerank"]


def ranking(**more: Any) -> Script:
    return answer_json(200, {**ANSWER, **more})


def count(server: Roundhouse, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("path", PATHS)
async def test_the_answer_passes_as_it_is(
    http: httpx.AsyncClient, server: Roundhouse, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.queue(ranking())
    said = {**ASK, "top_n": 2, "max_tokens_per_doc": 100, "truncate_prompt_tokens": 10}
    answer = await http.post(path, json=said)
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert answer.headers["x-roundhouse-target"] == "up/upstream-m"
    sent = upstream.requests[0]
    assert (sent.path, sent.json()) == ("/v1/rerank", {**said, "model": "upstream-m"})
    labels = {"endpoint": "rerank", "model": "m", "status": "200"}
    assert count(server, "roundhouse_requests_total", **labels) == 1
    assert count(server, "roundhouse_tokens_total", model="m", kind="prompt") == 12
    assert count(server, "roundhouse_tokens_total", model="m", kind="completion") == 0


async def test_coheres_own_clients_are_at_home(
    server: Roundhouse, upstream: ScriptedUpstream
) -> None:
    upstream.default = ranking()
    query, documents = ASK["query"], ASK["documents"]
    async with cohere.AsyncClientV2(api_key=KEY, base_url=server.url) as client:
        second = await client.rerank(model="m", query=query, documents=documents, top_n=2)
    async with cohere.AsyncClient(api_key=KEY, base_url=server.url) as client:
        wrapped = [{"text": text} for text in documents]
        first = await client.rerank(model="m", query=query, documents=wrapped)
    assert [sent.path for sent in upstream.requests] == ["/v1/rerank", "/v1/rerank"]
    assert [sent.json()["documents"] for sent in upstream.requests] == [documents, documents]
    for answer in (first, second):
        assert answer.id == "score-1"
        found = [(one.index, one.relevance_score) for one in answer.results]
        assert found == [(1, 0.5), (0, 0.25)]


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({"stream": True}, "stream", "unsupported_parameter"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": "a"}, "documents", "invalid_type"),
        ({"documents": ["a"] * (DOCUMENTS + 1)}, "documents", "over_limit"),
        ({"query": 1}, "query", "invalid_type"),
        ({"top_n": -1}, "top_n", "invalid_value"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": "nobody"}, "model", "model_not_found"),
    ],
)
async def test_refusals_are_in_openais_shape(
    http: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    said: dict[str, Any],
    param: str,
    code: str,
) -> None:
    answer = await http.post("/v1/rerank", json={**ASK, **said})
    found = answer.json()["error"]
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert (found["param"], found["code"]) == (param, code)
    assert upstream.requests == []


async def test_what_is_missing_is_named(http: httpx.AsyncClient) -> None:
    for name in ("query", "documents"):
        body = {key: value for key, value in ASK.items() if key != name}
        found = (await http.post("/v1/rerank", json=body)).json()["error"]
        assert (found["param"], found["code"]) == (name, "missing_required_parameter")


async def test_a_target_that_does_not_rank(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(400, error("This model does not support rerank.")))
    answer = await http.post("/v1/rerank", json=ASK)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "This model does not support rerank."


@pytest.mark.parametrize("model", [{}, {"model": "default"}])
async def test_the_default_ranks_too(
    serve: Serve, upstream: ScriptedUpstream, model: dict[str, str]
) -> None:
    server = await serve(config_of(upstream, default="m"))
    upstream.queue(ranking())
    body = {**ASK, **model} if model else {"query": "q", "documents": ["a"]}
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.post("/v1/rerank", json=body)).status_code == 200
    assert upstream.requests[0].json()["model"] == "upstream-m"


async def test_another_target_ranks_where_the_first_fails(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.default, second.default = answer_json(500, error("oops")), ranking()
    answer = await http.post("/v1/rerank", json={**ASK, "model": "both"})
    assert answer.status_code == 200
    assert answer.headers["x-roundhouse-target"] == "second/b"


# --- at Cohere


async def at_cohere(serve: Serve, upstream: ScriptedUpstream, **target: Any) -> Roundhouse:
    config = config_of(upstream)
    config["providers"]["cohere"] = {"base_url": f"{upstream.url}/v2", "api_key": "their-key"}
    target = {"provider": "cohere", "model": "rerank-v3.5", **target}
    return await serve({**config, "models": {"m": {"targets": [target]}}})


@pytest.mark.parametrize("tokens", [{}, {"tokens": {"input_tokens": 9.0, "output_tokens": 0.0}}])
async def test_coheres_answer_agrees_with_vllms(
    serve: Serve, upstream: ScriptedUpstream, tokens: dict[str, Any]
) -> None:
    server = await at_cohere(serve, upstream)
    results = [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, **tokens}
    upstream.queue(answer_json(200, {"id": "their-id", "results": results, "meta": meta}))
    said = {**ASK, "top_n": 2, "return_documents": False, "user": "somebody"}
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/rerank", json=said)
    counted = {"usage": {"prompt_tokens": 9, "total_tokens": 9}} if tokens else {}
    found = {"id": "their-id", "model": "m", "results": results, "meta": meta, **counted}
    assert (answer.status_code, answer.json()) == (200, found)
    assert answer.headers["x-roundhouse-target"] == "cohere/rerank-v3.5"
    assert answer.headers["x-roundhouse-dropped"] == "user"
    sent = upstream.requests[0]
    assert (sent.path, sent.header("authorization")) == ("/v2/rerank", "Bearer their-key")
    assert sent.json() == {**ASK, "model": "rerank-v3.5", "top_n": 2}
    spent = count(server, "roundhouse_tokens_total", model="m", kind="prompt")
    assert spent == (9 if tokens else 0)


async def test_what_cohere_has_no_word_for(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.default = answer_json(200, {"id": "x", "results": []})
    for drop, status in (([], 400), (["return_documents"], 200)):
        server = await at_cohere(serve, upstream, drop=drop)
        async with httpx.AsyncClient(base_url=server.url) as client:
            answer = await client.post("/v1/rerank", json={**ASK, "return_documents": True})
        assert answer.status_code == status
        if status == 400:
            assert answer.json()["error"]["param"] == "return_documents"
            assert upstream.requests == []
        else:
            assert answer.headers["x-roundhouse-dropped"] == "return_documents"


@pytest.mark.parametrize(("status", "clients_own"), [(400, True), (429, False), (500, False)])
async def test_coheres_errors_are_openais(
    serve: Serve, upstream: ScriptedUpstream, status: int, clients_own: bool
) -> None:
    server = await at_cohere(serve, upstream)
    upstream.default = answer_json(status, {"id": "x", "message": "the words of Cohere"})
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/v1/rerank", json=ASK)
    assert answer.status_code == status
    assert ("the words of Cohere" in answer.json()["error"]["message"]) is clients_own


async def test_with_a_key_alone_cohere_ranks_by_its_models_own_ids(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    config = {**config_of(upstream), "catalog": "auto", "models": {}}
    config["providers"] = {"cohere": {"base_url": f"{upstream.url}/v2", "api_key": "their-key"}}
    server = await serve(config)
    upstream.default = answer_json(200, {"id": "x", "results": []})
    async with httpx.AsyncClient(base_url=server.url) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        ranks = [one["id"] for one in listed if one["roundhouse"].get("type") == "rerank"]
        assert "rerank-v3.5" in ranks
        for model in ("rerank-v3.5", "cohere/rerank-v3.5"):
            answer = await client.post("/v1/rerank", json={**ASK, "model": model})
            assert (answer.status_code, answer.json()["model"]) == (200, model)
        chat = next(one["id"] for one in listed if one["roundhouse"].get("type") == "chat")
        refused = await client.post("/v1/rerank", json={**ASK, "model": chat})
    assert [sent.json()["model"] for sent in upstream.requests] == ["rerank-v3.5"] * 2
    assert refused.status_code == 400
    assert "rerank-v3.5" in refused.json()["error"]["message"]


# --- what it counts as


async def test_tokens_of_a_key(serve: Serve, upstream: ScriptedUpstream) -> None:
    keys = [{"name": "tests", "key": KEY, "tpm": 1000}]
    server = await serve(config_of(upstream, server={"keys": keys}))
    upstream.queue(ranking())
    auth = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server.url, headers=auth) as client:
        assert (await client.post("/v1/rerank", json=ASK)).status_code == 200
        limiter = server.services.admission.limiter
        assert limiter.reserved == limiter.settled < 100
        assert limiter.used == 12
        long = {**ASK, "query": "why " * 50, "documents": ["a"] * 100}
        refused = await client.post("/v1/rerank", json=long)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "request_too_large")


async def test_the_plan_of_a_rerank(admin: httpx.AsyncClient) -> None:
    for query in ("", "?surface=rerank"):
        answer = await admin.post(f"/plans/m{query}", json=ASK)
        assert (answer.status_code, answer.json()["request"]["surface"]) == (200, "rerank")
