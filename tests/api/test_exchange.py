"""The data path from socket to socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from server.serving import Roundhouse
from tests.api.conftest import ASK, AUTH, KEY, Serve, config_of, port_of
from tests.fakes.client import RawClient
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    error,
    hang_before_head,
)

CHAT = "/v1/chat/completions"


async def count(server: Roundhouse, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_bytes_pass_and_headers_are_ours(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(
        chat_answer("Grüße", headers={"x-request-id": "theirs", "set-cookie": "a=b", "server": "x"})
    )
    answer = await http.post(
        CHAT, json={**ASK, "temperature": 0.25}, headers={"x-request-id": "mine", "cookie": "c=d"}
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Grüße"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-roundhouse-target"] == "up/upstream-m"
    assert answer.headers["x-roundhouse-attempts"] == "1"
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert "set-cookie" not in answer.headers
    assert "server" not in answer.headers
    sent = upstream.requests[0]
    assert sent.json() == {**ASK, "temperature": 0.25, "model": "upstream-m"}
    assert sent.header("authorization") == "Bearer up-key"
    assert sent.header("cookie") is None
    assert sent.header("x-request-id") is None
    assert KEY not in str(sent.headers)


async def test_stream_passes_byte_for_byte(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(chat_stream(["Hel", "lo"]), chat_stream(["Hel", "lo"]))
    got = (await http.post(CHAT, json={**ASK, "stream": True})).content
    direct = await http.post(
        f"{upstream.url}{CHAT}", json={**ASK, "stream": True, "model": "upstream-m"}
    )
    assert got == direct.content
    assert got.count(b"[DONE]") == 1
    # We asked for the usage upstream, for our books; the client did not.
    assert upstream.requests[0].json()["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in got


async def test_stream_headers(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.queue(chat_stream())
    answer = await http.post(CHAT, json={**ASK, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-cache"


async def test_without_v1_and_the_other_surfaces(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.default = answer_json(200, {"object": "list", "data": [], "usage": None})
    for path, body in [
        ("/chat/completions", ASK),
        ("/v1/completions", {"model": "m", "prompt": "a"}),
        ("/completions", {"model": "m", "prompt": ["a", "b"]}),
        ("/v1/embeddings", {"model": "m", "input": "a"}),
        ("/embeddings", {"model": "m", "input": [1, 2]}),
    ]:
        answer = await http.post(path, json=body)
        assert answer.status_code == 200, answer.text
    assert [r.path for r in upstream.requests] == [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/embeddings",
    ]
    refused = await http.post("/tokenize", json={"model": "m", "prompt": "a"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "unsupported_endpoint"


async def test_books_are_kept(
    http: httpx.AsyncClient,
    server: Roundhouse,
    upstream: ScriptedUpstream,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from server.telemetry import logs

    logs.configure("info", "json")
    upstream.queue(chat_stream(["a", "b"], cached_tokens=3))
    answer = await http.post(
        CHAT,
        json={**ASK, "stream": True, "user": "secret-prompt"},
        headers={"x-request-id": "mine"},
    )
    assert (
        await count(server, "roundhouse_requests_total", endpoint="chat", model="m", status="200")
        == 1
    )
    assert await count(server, "roundhouse_tokens_total", model="m", kind="completion") == 2
    assert await count(server, "roundhouse_tokens_total", model="m", kind="cached") == 3
    assert await count(server, "roundhouse_stream_end_total", model="m", reason="done") == 1
    assert (
        await count(
            server, "roundhouse_attempts_total", model="m", target="up/upstream-m", outcome="ok"
        )
        == 1
    )
    assert await count(server, "roundhouse_requests_in_flight", endpoint="chat", model="m") == 0
    logs.flush()
    text = capsys.readouterr().err
    (line,) = [json.loads(x) for x in text.splitlines() if '"end"' in x]
    assert line["id"] == answer.headers["x-request-id"]
    assert line["client_id"] == "mine"
    assert line["key"] == "tests"
    assert line["completion_tokens"] == 2
    assert line["end"] == "done"
    assert line["ttft_s"] > 0
    assert KEY not in text
    assert '"hi"' not in text
    assert "secret-prompt" not in text


MISSING, MEDIA = "missing_required_parameter", "unsupported_media_type"
BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"content": b"{not json"}, 400, "invalid_json", None),
    ({"content": b""}, 400, "invalid_json", None),
    ({"content": b"[1]"}, 400, "invalid_type", None),
    ({"content": b'{"model":"m","messages":"\xff"}'}, 400, "invalid_json", None),
    ({"json": {"messages": []}}, 400, MISSING, "model"),
    ({"json": {"model": "m"}}, 400, MISSING, "messages"),
    ({"json": {"model": 1, "messages": []}}, 400, "invalid_type", "model"),
    ({"json": {"model": "m", "messages": []}}, 400, "invalid_value", "messages"),
    ({"json": {"model": "m", "messages": [{}]}}, 400, MISSING, "messages[0].role"),
    ({"json": {**ASK, "n": 9}}, 400, "over_limit", "n"),
    ({"json": {**ASK, "n": 0}}, 400, "invalid_value", "n"),
    ({"json": {**ASK, "stream": "yes"}}, 400, "invalid_type", "stream"),
    ({"json": {**ASK, "stop": ["x"] * 17}}, 400, "over_limit", "stop"),
    ({"json": {**ASK, "tools": [{}] * 129}}, 400, "over_limit", "tools"),
    ({"json": {**ASK, "stream_options": {}}}, 400, "invalid_value", "stream_options"),
    ({"json": {**ASK, "model": "nothing-like-it"}}, 404, "model_not_found", "model"),
    ({"json": {**ASK, "model": "org/model"}}, 404, "model_not_found", "model"),
    ({"content": b"a=b", "headers": {"content-type": "text/plain"}}, 415, MEDIA, None),
    ({"json": ASK, "headers": {"content-encoding": "gzip"}}, 415, MEDIA, None),
]  # fmt: skip


@pytest.mark.parametrize(("how", "status", "code", "param"), BAD)
async def test_bad_input(
    http: httpx.AsyncClient, how: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    headers = {"content-type": "application/json", **how.pop("headers", {})}
    answer = await http.post(CHAT, headers=headers, **how)
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["param"]) == (status, code, param), found
    assert found["message"].endswith((".", "?", ")"))
    assert answer.headers["x-request-id"].startswith("req_")
    assert "x-should-retry" not in answer.headers


async def test_near_matches_are_named(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json={**ASK, "model": "org/modelx"})
    assert "`org/model-x`" in answer.json()["error"]["message"]


async def test_keys(
    http: httpx.AsyncClient, server: Roundhouse, upstream: ScriptedUpstream
) -> None:
    async with httpx.AsyncClient(base_url=server.url) as anonymous:
        missing = await anonymous.post(CHAT, json=ASK)
        assert missing.status_code == 401
        assert missing.headers["www-authenticate"] == "Bearer"
        wrong = await anonymous.post(
            CHAT, json=ASK, headers={"authorization": "Bearer sk-proj-abcdefghijklmnop"}
        )
        assert wrong.status_code == 401
        assert "OpenAI" in wrong.json()["error"]["message"]
        assert "sk-proj-abc" not in wrong.text
        narrow = {"authorization": f"Bearer {KEY[::-1]}"}
        refused = await anonymous.post(CHAT, json=ASK, headers=narrow)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        listed = await anonymous.get("/v1/models", headers=narrow)
        assert [m["id"] for m in listed.json()["data"]] == ["org/model-x"]
    assert upstream.requests == []


async def test_provider_slash_any_model(
    http: httpx.AsyncClient, server: Roundhouse, upstream: ScriptedUpstream
) -> None:
    upstream.queue(chat_answer())
    answer = await http.post(CHAT, json={**ASK, "model": "up/some/new-model"})
    assert answer.status_code == 200
    assert upstream.requests[0].json()["model"] == "some/new-model"
    # The client's word is no label.
    assert (
        await count(server, "roundhouse_attempts_total", model="other", target="up/*", outcome="ok")
        == 1
    )


async def test_fallback(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(500, error("boom")))
    second.queue(chat_stream(["from the second"]))
    answer = await http.post(CHAT, json={**ASK, "model": "both", "stream": True})
    assert b"from the second" in answer.content
    assert answer.headers["x-roundhouse-target"] == "second/b"
    assert answer.headers["x-roundhouse-fallback-from"] == "up/a"
    assert answer.headers["x-roundhouse-attempts"] == "2"


async def test_last_error_is_true(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(500, error("boom")), answer_json(503, error("inner details")))
    second.queue(answer_json(502, error("inner details of the host")))
    answer = await http.post(CHAT, json={**ASK, "model": "both"})
    assert answer.status_code == 503  # the third attempt, at the first target again
    assert "inner details" not in answer.text
    assert answer.headers["x-should-retry"] == "false"


async def test_upstream_400_is_the_clients(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(400, error("too long", "BadRequestError", 400, "input_tokens")))
    answer = await http.post(CHAT, json={**ASK, "model": "both"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "too long"
    assert answer.json()["error"]["param"] == "input_tokens"
    assert second.requests == []


async def test_provider_credentials_are_not_the_clients(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(401, error("Incorrect API key provided: up-k***")))
    answer = await http.post(CHAT, json=ASK)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_refused_credentials"
    assert "up-k" not in answer.text


async def test_rate_limit_keeps_its_retry_after(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(429, error("slow down"), {"retry-after": "7"}))
    answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_client_gone_closes_the_upstream(
    server: Roundhouse, upstream: ScriptedUpstream, stream: bool
) -> None:
    gate = Gate(3)
    upstream.queue(chat_stream(["a"] * 50, gate=gate) if stream else hang_before_head())
    client = RawClient(port=port_of(server))
    await client.connect()
    await client.post(CHAT, {**ASK, "stream": stream}, list(AUTH.items()))
    exchange = await upstream.next_request()
    if stream:
        await client.read_head()
        await client.read_event()
    loop = asyncio.get_running_loop()
    left = loop.time()
    client.close()
    await asyncio.wait_for(exchange.disconnected.wait(), 5)
    assert exchange.disconnected_at is not None
    assert exchange.disconnected_at - left < 1.0
    while server.services.open:
        await asyncio.sleep(0)
    assert (
        await count(
            server,
            "roundhouse_attempts_total",
            model="m",
            target="up/upstream-m",
            outcome="client_gone",
        )
        == 1
    )
    assert (
        await count(server, "roundhouse_requests_total", endpoint="chat", model="m", status="499")
        == 1
    )
    assert server.services.budget.held == 0


async def test_slow_reader_is_cut_off_and_memory_stays_flat(
    serve: Serve, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"write": "300ms"}}))
    upstream.queue(chat_stream(["x" * 8192] * 4000))
    async with RawClient(port=port_of(server), rcvbuf=4096) as client:
        await client.post(CHAT, {**ASK, "stream": True})
        exchange = await upstream.next_request()
        await client.read_head()
        client.pause()
        await asyncio.wait_for(exchange.disconnected.wait(), 10)
        # Held back at the source: far from all of the 33 MB had been taken.
        assert exchange.written < 16 * 2**20
    assert await count(server, "roundhouse_shed_total", reason="slow_client") == 1
    assert await count(server, "roundhouse_stream_end_total", model="m", reason="slow_client") == 1
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


async def test_bodies_are_budgeted(serve: Serve, upstream: ScriptedUpstream) -> None:
    limits = {"body": "64KiB", "all_bodies": "80KiB"}
    server = await serve(config_of(upstream, server={"limits": limits}))
    big = {**ASK, "user": "x" * 50_000}
    async with httpx.AsyncClient(base_url=server.url) as http:
        over = await http.post(CHAT, json={**ASK, "user": "x" * 70_000})
        assert (over.status_code, over.json()["error"]["code"]) == (413, "payload_too_large")
        upstream.queue(hang_before_head())
        async with RawClient(port=port_of(server)) as first:
            await first.post(CHAT, big)
            await upstream.next_request()
            shed = await http.post(CHAT, json=big)
            assert (shed.status_code, shed.json()["error"]["code"]) == (503, "overloaded")
            assert shed.headers["retry-after"] == "1"
        await upstream.disconnected()
        while server.services.open:
            await asyncio.sleep(0)
        assert server.services.budget.held == 0


async def test_chunked_body_over_the_cap(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"limits": {"body": "64KiB"}}))

    async def parts() -> Any:
        for _ in range(20):
            yield b"x" * 8192

    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(
            CHAT, content=parts(), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 413
    assert server.services.budget.held == 0


async def test_slow_body(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"body": "100ms"}}))
    async with RawClient(port=port_of(server)) as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        head = await client.read_head()
    assert head.status == 408
    assert await count(server, "roundhouse_shed_total", reason="slow_body") == 1


async def test_internal_fault_is_named_and_hidden(
    http: httpx.AsyncClient, server: Roundhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("a secret path /etc/x")

    monkeypatch.setattr(server.services.dispatcher, "run", broken)
    answer = await http.post(CHAT, json=ASK)
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "secret" not in answer.text
