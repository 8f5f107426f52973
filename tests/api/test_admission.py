"""Limits and queues as a client meets them: 429 for its key's, 503 for ours."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from server.serving import Roundhouse
from tests.api.conftest import ASK, AUTH, KEY, Serve, config_of
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_late, chat_answer


def client(server: Roundhouse) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10)


def limited(**limits: Any) -> dict[str, Any]:
    return {"keys": [{"name": "tests", "key": KEY, **limits}]}


async def test_requests_per_minute(serve: Serve, upstream: ScriptedUpstream) -> None:
    upstream.queue(chat_answer(), chat_answer())
    server = await serve(config_of(upstream, server=limited(rpm=2, tpm=100_000)))
    async with client(server) as http:
        good = [await http.post("/v1/chat/completions", json=ASK) for _ in range(2)]
        error = await http.post("/v1/chat/completions", json=ASK)
    assert [answer.status_code for answer in (*good, error)] == [200, 200, 429]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in (*good, error)]
    assert left == ["1", "0", "0"]
    assert error.json()["error"]["code"] == "rate_limit_exceeded"
    assert error.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(error.headers["retry-after"]) <= 30
    assert "x-should-retry" not in error.headers
    assert error.headers["x-ratelimit-limit-tokens"] == "100000"
    assert server.metrics.shed.labels("key_requests").value == 1


async def test_what_never_fits_is_not_tried_again(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server=limited(tpm=100)))
    long = {**ASK, "messages": [{"role": "user", "content": "word " * 200}]}
    async with client(server) as http:
        error = await http.post("/v1/chat/completions", json=long)
    assert (error.status_code, error.json()["error"]["code"]) == (429, "request_too_large")
    assert "retry-after" not in error.headers
    assert error.headers["x-should-retry"] == "false"


async def test_tokens_are_settled_by_what_the_target_counted(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.queue(chat_answer())
    server = await serve(config_of(upstream, server=limited(tpm=100_000)))
    async with client(server) as http:
        answer = await http.post("/v1/chat/completions", json={**ASK, "max_tokens": 90_000})
    usage = answer.json()["usage"]["total_tokens"]
    limiter = server.services.admission.limiter
    assert limiter.reserved == limiter.settled > 90_000
    assert limiter.used == usage
    assert limiter.in_flight("tests") == 0


async def test_more_than_may_wait_get_503_at_once(serve: Serve, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.queue(*[answer_late(gate, chat_answer())] * 7)
    limits = {"in_flight": 3, "waiting": 4}
    server = await serve(config_of(upstream, server={**limited(), "limits": limits}))
    async with client(server) as http:
        tasks = [
            asyncio.create_task(http.post("/v1/chat/completions", json=ASK)) for _ in range(20)
        ]
        refused: set[asyncio.Task[httpx.Response]] = set()
        waiting = set(tasks)
        while len(refused) < 13:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused |= done
        for answer in (task.result() for task in refused):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert "x-should-retry" not in answer.headers
        server.services.admission.collect()
        assert server.metrics.queue_depth.labels("server", "server").value == 4
        gate.open()
        assert [(await task).status_code for task in waiting] == [200] * 7
    assert len(upstream.requests) == 7
    assert server.metrics.shed.labels("server_queue").value == 13
    (room,) = server.services.admission.rooms.all()
    assert (room.inside, room.depth, room.ended) == (0, 0, 7)
