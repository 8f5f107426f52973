"""Names beyond the entries under `models`, on the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import ASK, AUTH, KEY, Serve, config_of
from tests.api.test_parameters import MESSAGES, ask, count, serving
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer

CHAT = "/v1/chat/completions"
USAGE = {"prompt_tokens": 1, "total_tokens": 1}


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": "default"}])
async def test_a_body_without_a_model_goes_to_the_default(
    body: dict[str, Any], serve: Serve, upstream: ScriptedUpstream
) -> None:
    server = await serve(config_of(upstream, default="alias-of-m"))
    upstream.default = chat_answer()
    answer = await ask(server, messages=MESSAGES, **body)
    assert answer.status_code == 200
    assert upstream.requests[0].json() == {**ASK, "model": "upstream-m"}
    labels = {"endpoint": "chat", "model": "default", "status": "200"}
    assert count(server, "roundhouse_requests_total", **labels) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 2**20}]}),
    ],
)
async def test_on_every_surface_and_in_every_size(
    path: str, body: dict[str, Any], serve: Serve, upstream: ScriptedUpstream
) -> None:
    server = await serve(config_of(upstream, default="up/any-id"))
    upstream.default = answer_json(200, {"object": "list", "data": [], "usage": USAGE})
    assert (await ask(server, path, **body)).status_code == 200
    assert upstream.requests[0].json() == {**body, "model": "any-id"}


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}])
async def test_without_a_default_the_model_must_be_named(
    body: dict[str, Any], serve: Serve, upstream: ScriptedUpstream
) -> None:
    server = await serve(config_of(upstream))
    for path in (CHAT, "/v1/completions", "/v1/embeddings", "/tokenize", "/detokenize"):
        more = {"messages": MESSAGES, "prompt": "a", "input": "a", "tokens": [1]}
        answer = await ask(server, path, **more, **body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "model")
        assert error["code"] == "missing_required_parameter"


async def test_a_key_may_use_the_default_by_either_name(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = chat_answer()
    for models, status in ((["m"], 200), (["default"], 200), (["org/*"], 403)):
        keys = [{"name": "tests", "key": KEY, "models": models}]
        server = await serve(config_of(upstream, server={"keys": keys}, default="m"))
        async with httpx.AsyncClient(base_url=server.url, headers=AUTH) as client:
            assert (await client.post(CHAT, json={"messages": MESSAGES})).status_code == status


async def test_a_cards_alias_counts_as_its_card(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    server = await serving(serve, tmp_path, {}, upstream, catalog="auto")
    upstream.default = chat_answer()
    for name in ("gpt-big", "gpt-big-2026-01-01", "nobody"):
        await ask(server, model=name, messages=MESSAGES)
    assert [request.json()["model"] for request in upstream.requests] == ["gpt-big", "gpt-big"]
    labels = {"endpoint": "chat", "model": "gpt-big", "status": "200"}
    assert count(server, "roundhouse_requests_total", **labels) == 2
    cost = count(server, "roundhouse_cost_usd_total", model="gpt-big", target="openai/gpt-big")
    assert cost == pytest.approx(2 * (7 * 2 + 2 * 8) / 1e6)
