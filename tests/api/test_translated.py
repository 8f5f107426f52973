"""Answers of another dialect through a whole server: what goes over the wire to the client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from sse_starlette import EventSourceResponse

from server.api import sink
from server.routing import translated
from server.serving import Roundhouse
from tests.api.conftest import ASK, Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.messages import (
    end,
    message_answer,
    message_stream,
    overloaded,
    refusal,
    start,
    text_events,
)
from tests.fakes.upstream import Gate, ScriptedUpstream, chat_stream, hang, sse
from tests.routing.conftest import payloads, text_of

CHAT = "/v1/chat/completions"


def claude(
    upstream: ScriptedUpstream, second: ScriptedUpstream | None = None, **more: Any
) -> dict[str, Any]:
    """The model `m` is Anthropic's."""
    config = config_of(upstream, second, **more)
    config["providers"]["up"]["dialect"] = "anthropic"
    return config


@pytest.fixture
async def server(serve: Serve, upstream: ScriptedUpstream) -> Roundhouse:
    return await serve(claude(upstream))


async def count(server: Roundhouse, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(f"roundhouse_{name}", labels) or 0.0


async def test_a_stream_on_the_wire(server: Roundhouse, upstream: ScriptedUpstream) -> None:
    """Whole events with LF, `[DONE]`, the end at once; one head, ours."""
    upstream.queue(message_stream(["Grü", "ße 😀"]))
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        head = await client.read_head()
        body = await client.read_body()
    assert head.status == 200
    assert head.all("content-type") == ["text/event-stream; charset=utf-8"]
    assert head.all("cache-control") == ["no-cache"]
    assert head.all("x-accel-buffering") == ["no"]
    assert head.header("x-roundhouse-target") == "up/upstream-m"
    assert head.header("connection") is None
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert b"\r" not in body
    assert text_of(body) == "Grüße 😀"
    sent = upstream.requests[0]
    assert sent.header("x-api-key") == "up-key"
    assert sent.header("authorization") is None
    assert sent.json()["model"] == "upstream-m"
    assert sent.json()["max_tokens"] == 4096


async def test_many_over_one_connection(server: Roundhouse, upstream: ScriptedUpstream) -> None:
    upstream.queue(message_stream(["a"]), message_answer("b"), message_stream(["c"]))
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        for text in "abc":
            if text == "b":
                answer: Any = await client.chat.completions.create(**ASK)
                assert answer.choices[0].message.content == text
                continue
            stream: Any = await client.chat.completions.create(**ASK, stream=True)
            parts = [c.choices[0].delta.content or "" async for c in stream]
            assert "".join(parts) == text
    assert len(upstream.connections) == 1


async def test_a_stream_that_is_quiet_shows_that_it_lives(
    server: Roundhouse, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "_PING", 0.02)
    gate = Gate()
    upstream.queue(sse([start(), *text_events("x"), *end()], gate=gate))
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        gate.release(3)
        await client.read_head()
        seen = [await client.read_event() for _ in range(5)]
        assert seen.count(b": waiting") >= 2
        gate.open()
        rest = await client.read_body()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert text_of(b"".join(one + b"\n\n" for one in seen) + rest) == "x"


async def test_so_does_one_that_has_but_begun(
    server: Roundhouse, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "_PING", 0.02)
    monkeypatch.setattr(translated, "HOLD", 0.0)
    release = asyncio.Event()
    upstream.queue(sse([start(), release, *text_events("x"), *end()]))
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        assert b'"role"' in await client.read_event()
        assert [await client.read_event() for _ in range(2)] == [b": waiting"] * 2
        release.set()
        assert (await client.read_body()).endswith(b"data: [DONE]\n\n")


async def test_a_client_that_does_not_read(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(claude(upstream, server={"timeouts": {"write": "300ms"}}))
    upstream.queue(message_stream(["x" * 8192] * 4000))
    async with RawClient(port=port_of(server), rcvbuf=4096) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await upstream.next_request()
        await client.read_head()
        client.pause()
        await asyncio.wait_for(exchange.disconnected.wait(), 10)
        assert exchange.written < 16 * 2**20  # held back at the source
    assert await count(server, "shed_total", reason="slow_client") == 1
    assert await count(server, "stream_end_total", model="m", reason="slow_client") == 1


def test_what_our_stream_stands_in_for_is_there() -> None:
    """Under another name the library would go back to a cancel scope for each event."""
    assert "_send_with_timeout" in vars(EventSourceResponse)


async def test_a_client_that_leaves(server: Roundhouse, upstream: ScriptedUpstream) -> None:
    gate = Gate(4)
    upstream.queue(message_stream(["a"] * 50, gate=gate))
    client = RawClient(port=port_of(server))
    await client.connect()
    await client.post(CHAT, {**ASK, "stream": True})
    exchange = await upstream.next_request()
    await client.read_head()
    client.close()
    await asyncio.wait_for(exchange.disconnected.wait(), 5)
    while server.services.open:
        await asyncio.sleep(0)
    assert await count(server, "stream_end_total", model="m", reason="client_gone") == 1
    assert server.services.budget.held == 0


async def test_the_server_stops(serve: Serve, upstream: ScriptedUpstream) -> None:
    """A stream that is still open after the drain ends with an error event."""
    server = await serve(claude(upstream, server={"timeouts": {"drain": "100ms"}}))
    upstream.queue(sse([start(), *text_events("x")[:-1], hang]))
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        await client.read_head()
        stopping = asyncio.create_task(server.__aexit__(None, None, None))
        body = await client.read_body()
        await stopping
    *before, last = payloads(body)
    assert last["error"]["code"] == "shutting_down"
    assert "[DONE]" not in before


async def test_a_stream_that_breaks(server: Roundhouse, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.queue(sse([start(), *text_events("x")[:-1], overloaded()], gate=gate))
    async with RawClient(port=port_of(server)) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        gate.release(3)
        await client.read_head()
        gate.open()
        body = await client.read_body()
    assert text_of(body) == "x"
    assert "error" in payloads(body)[-1]


async def test_it_comes_after_another_dialects_target(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    config = claude(upstream, second)
    config["models"]["both"]["targets"].reverse()
    config["providers"]["second"] |= {"timeouts": {"first_byte": "50ms"}, "retry_ambiguous": True}
    server = await serve(config)
    second.queue(sse([b": hold\n\n", hang]))
    upstream.queue(message_stream(["fine"]))
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(CHAT, json={**ASK, "model": "both", "stream": True})
    assert text_of(answer.content) == "fine"
    assert answer.headers["x-roundhouse-fallback-from"] == "second/b"


@pytest.mark.parametrize(("place", "name"), [("targets", "m"), ("providers", "up")])
async def test_what_is_dropped_is_named(
    serve: Serve, upstream: ScriptedUpstream, place: str, name: str
) -> None:
    config = claude(upstream)
    around = config["models"][name]["targets"][0] if place == "targets" else config[place][name]
    around["drop"] = ["seed"]
    server = await serve(config)
    upstream.default = message_answer("fine")
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(CHAT, json={**ASK, "seed": 3, "user": "u", "temperature": 1.5})
        assert answer.status_code == 200
        assert answer.headers["x-roundhouse-dropped"] == "seed"
        assert answer.headers["x-roundhouse-clamped"] == "temperature"
        refused = await http.post(CHAT, json={**ASK, "frequency_penalty": 1})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "frequency_penalty")
    assert "seed" not in upstream.requests[0].json()


async def test_its_errors_are_openais(server: Roundhouse, upstream: ScriptedUpstream) -> None:
    upstream.queue(refusal(400, "invalid_request_error", "max_tokens: too large"))
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0
    ) as client:
        with pytest.raises(openai.BadRequestError, match="too large"):
            await client.chat.completions.create(**ASK)
        upstream.queue(refusal(401, "authentication_error", "invalid x-api-key"))
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASK)
    assert caught.value.code == "upstream_refused_credentials"
    assert "x-api-key" not in json.dumps(caught.value.body)


async def test_openais_own_bytes_pass_beside_it(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    config = claude(upstream, second)
    config["models"]["plain"] = {"targets": [{"provider": "second", "model": "b"}]}
    server = await serve(config)
    second.queue(chat_stream(["a", "b"]), chat_stream(["a", "b"]))
    async with httpx.AsyncClient() as http:
        body = {**ASK, "model": "plain", "stream": True}
        got = await http.post(f"{server.url}{CHAT}", json=body)
        direct = await http.post(f"{second.url}{CHAT}", json={**body, "model": "b"})
    assert got.content == direct.content
