"""Who asks again: we, as far as our attempts go; then nobody, unless a time was named."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.fakes.faults import closed_port
from tests.fakes.upstream import (
    Gate,
    Script,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    error,
    error_event,
    reset_before_head,
    sse,
)
from tests.providers.conftest import Sdk
from tests.providers.house import HELLO, Serve, ask, bearers, client_of, lab, models

A, B = "sk-lab-key-number-a1", "sk-lab-key-number-b2"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "asked"),
    [
        *((answer_json(status, error("x")), 2) for status in (408, 500, 502, 503, 504, 529)),
        (answer_json(409, error("x")), 1),
        (reset_before_head(), 1),
    ],
)
async def test_the_sdk_asks_no_more_when_our_attempts_are_spent(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream, script: Script, asked: int, stream: bool
) -> None:
    upstream.default = script
    server = await serve({"lab": lab(upstream, A, B)}, models=models("m"), routing={"attempts": 2})
    client = sdk(server).with_options(max_retries=3)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="m", messages=HELLO, stream=stream)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in caught.value.response.headers
    assert len(upstream.requests) == asked
    if asked == 2:  # the other key had its chance
        assert set(bearers(upstream)) == {A, B}


async def test_nor_when_nobody_listens(serve: Serve, sdk: Sdk) -> None:
    with closed_port() as port:
        account = {"dialect": "openai", "base_url": f"http://127.0.0.1:{port}/v1"}
        server = await serve({"lab": account}, models=models("m"))
        client = sdk(server).with_options(max_retries=3)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="m", messages=HELLO)
    assert caught.value.status_code == 502
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_instead_of_a_stream(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream, stream: bool
) -> None:
    """With 200, and nothing before it."""
    body = error("overloaded", code=500)
    upstream.default = sse([error_event()]) if stream else answer_json(200, body)
    server = await serve({"lab": lab(upstream, A)}, models=models("m"), routing={"attempts": 1})
    client = sdk(server).with_options(max_retries=3)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="m", messages=HELLO, stream=stream)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (answer_json(429, error("x"), {"retry-after": "7"}), 429, "upstream_error"),
        (answer_json(503, error("x"), {"retry-after": "7"}), 503, "upstream_error"),
        (answer_json(529, error("x"), {"retry-after": "7"}), 503, "upstream_error"),
        (answer_json(503, error("Loading model", code=503)), 503, "engine_loading"),
        (answer_json(503, error("x", code="engine_loading")), 503, "engine_loading"),
    ],
)
async def test_whoever_named_a_time_is_asked_again(
    serve: Serve, upstream: ScriptedUpstream, script: Script, status: int, code: str
) -> None:
    upstream.default = script
    server = await serve({"lab": lab(upstream, A)}, models=models("m"), routing={"attempts": 1})
    async with client_of(server) as http:
        answer = await http.post("/v1/chat/completions", json=ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert int(answer.headers["retry-after"]) in (5, 7)
    assert "x-should-retry" not in answer.headers


async def test_a_limit_on_spending_passes_by_no_waiting(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    """Anthropic says 429 to it, without a time."""
    account: dict[str, Any] = lab(upstream, A)
    account["dialect"] = "anthropic"
    upstream.default = answer_json(
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "You have reached your specified API usage limits.",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
    )
    server = await serve({"lab": account}, models=models("m"), routing={"attempts": 1})
    async with client_of(server) as http:
        answer = await http.post("/v1/chat/completions", json=ask())
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_refused_credentials"
    assert answer.headers["x-should-retry"] == "false"


async def test_our_own_overload_is_worth_coming_back(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    account = lab(upstream, A, max_in_flight=1, max_waiting=0)
    server = await serve({"lab": account}, models=models("m"))
    async with client_of(server) as http:
        holder = asyncio.create_task(http.post("/v1/chat/completions", json=ask()))
        await upstream.next_request()
        answer = await http.post("/v1/chat/completions", json=ask())
        gate.open()
        assert (await holder).status_code == 200
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert "retry-after" in answer.headers
    assert "x-should-retry" not in answer.headers
