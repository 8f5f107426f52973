"""What answers say of the way that they took: headers on good answers and on bad ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.serving import Roundhouse
from tests.api.conftest import ASK, KEY, Serve
from tests.engines.replica_house import a_replica, address
from tests.fakes.faults import closed_port
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    error,
)

CHAT = "/v1/chat/completions"
BOOM = answer_json(500, error("boom"))
OURS = {
    "x-request-id",
    "x-roundhouse-attempts",
    "x-roundhouse-bridge",
    "x-roundhouse-dropped",
    "x-roundhouse-fallback-from",
    "x-roundhouse-target",
    "x-roundhouse-waited-ms",
    "openai-processing-ms",
    "x-should-retry",
    "retry-after",
}
ALWAYS = {"x-request-id"}
SENT = {*ALWAYS, "x-roundhouse-attempts", "x-roundhouse-target", "openai-processing-ms"}


def ours(answer: httpx.Response) -> set[str]:
    """Names of our headers that it has."""
    return {name for name in answer.headers if name in OURS or name.startswith("x-ratelimit")}


def config(
    upstream: ScriptedUpstream, second: ScriptedUpstream, *replicas: str, **models: Any
) -> dict[str, Any]:
    """Model `a` at the first upstream falls back to `b` at the second; `e` has an engine whose
    replicas these are, and `b` as its bridge."""
    engines = {"ext": {"runtime": "external", "urls": [f"http://{name}" for name in replicas]}}
    if not replicas:
        engines = {}
    else:
        engine = {"targets": [{"engine": "ext"}], "bridge": "b"}
        models = {"e": engine, "refusing": {**engine, "bridge": None, "while_loading": "refuse"}}
    return {
        "version": 1,
        "server": {
            "port": 0,
            "admin": "127.0.0.1:0",
            "keys": [
                {"name": "tests", "key": KEY},
                {"name": "narrow", "key": KEY[::-1], "models": ["a", "plain", "b"]},
            ],
            "timeouts": {"drain": "5s"},
        },
        "providers": {
            "up": {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": "up-key"},
            "second": {"dialect": "openai", "base_url": f"{second.url}/v1"},
        },
        "engines": engines,
        "models": {
            "a": {"targets": [{"provider": "up", "model": "a"}], "fallbacks": ["b"]},
            "b": {"targets": [{"provider": "second", "model": "b"}]},
            **models,
        },
    }


@contextlib.asynccontextmanager
async def client(server: Roundhouse, key: str = KEY) -> AsyncIterator[httpx.AsyncClient]:
    """Whatever it asked for, nothing of it is left behind."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http:
        yield http
    dispatcher = server.services.dispatcher
    assert not server.services.open
    assert all(standing.in_flight == 0 for standing in dispatcher.standings)
    assert all((room.inside, room.depth) == (0, 0) for room in dispatcher.rooms.all())


@pytest.fixture
async def http(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> AsyncIterator[httpx.AsyncClient]:
    async with client(await serve(config(upstream, second))) as http:
        yield http


def ask(model: str = "a", **more: Any) -> dict[str, Any]:
    return {**ASK, "model": model, **more}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_plain_answer(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.default = chat_stream() if stream else chat_answer()
    answers = [await http.post(CHAT, json=ask(stream=stream)) for _ in range(2)]
    for answer in answers:
        assert ours(answer) == SENT
        assert answer.headers["x-roundhouse-target"] == "up/a"
        assert answer.headers["x-roundhouse-attempts"] == "1"
        assert answer.headers["openai-processing-ms"].isdigit()
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fallback(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream, stream: bool
) -> None:
    upstream.queue(BOOM)
    second.queue(chat_stream() if stream else chat_answer())
    answer = await http.post(CHAT, json=ask(stream=stream))
    assert ours(answer) == {*SENT, "x-roundhouse-fallback-from"}
    assert answer.headers["x-roundhouse-target"] == "second/b"
    assert answer.headers["x-roundhouse-attempts"] == "2"
    assert answer.headers["x-roundhouse-fallback-from"] == "up/a"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_last_true_error_is_not_to_be_tried_again(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream, stream: bool
) -> None:
    upstream.default = second.default = BOOM
    answer = await http.post(CHAT, json=ask(stream=stream))
    assert answer.status_code == 500
    # The pause before the first target's second chance is waiting, too.
    assert ours(answer) - {"x-roundhouse-waited-ms"} == {*SENT, "x-should-retry"}
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-roundhouse-attempts"] == "3"
    assert answer.headers["content-type"] == "application/json"


async def test_an_error_that_names_a_time_may_be_tried_again(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(429, error("x"), {"retry-after-ms": "6500"}))
    second.queue(answer_json(429, error("x"), {"retry-after": "30"}))
    answer = await http.post(CHAT, json=ask())
    assert answer.status_code == 429
    assert ours(answer) == {*SENT, "retry-after"}
    # Both rest now: nobody is asked, and who comes back first says when.
    answer = await http.post(CHAT, json=ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert ours(answer) == {*ALWAYS, "retry-after"}
    assert 5 <= int(answer.headers["retry-after"]) <= 7
    assert len(upstream.requests) == len(second.requests) == 1


async def test_a_clients_own_error_has_only_who_it_was(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(answer_json(400, error("no")))
    answer = await http.post(CHAT, json=ask())
    assert (answer.status_code, ours(answer)) == (400, SENT)
    for bad in ({"model": "a"}, {**ASK, "model": "nobody"}, {**ASK, "n": 0}):
        answer = await http.post(CHAT, json=bad)
        assert 400 <= answer.status_code < 500
        assert ours(answer) == ALWAYS


async def test_a_refused_credential(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """It is passed over from then on; without anybody else the client hears so, and when."""
    upstream.queue(answer_json(401, error("bad key up-key")))
    second.default = chat_answer()
    first = await http.post(CHAT, json=ask())
    assert first.headers["x-roundhouse-attempts"] == "2"
    after = await http.post(CHAT, json=ask())
    assert (after.status_code, after.headers["x-roundhouse-attempts"]) == (200, "1")
    assert after.headers["x-roundhouse-fallback-from"] == "up/a"
    alone = await http.post(CHAT, json=ask(fallbacks=[]))
    assert alone.status_code == 502
    assert alone.json()["error"]["code"] == "upstream_refused_credentials"
    assert ours(alone) == {*ALWAYS, "retry-after"}
    assert 20 <= int(alone.headers["retry-after"]) <= 30
    # Another id at the same account is kept back with it.
    other = await http.post(CHAT, json=ask("up/any-other"))
    assert (other.status_code, len(upstream.requests)) == (502, 1)


async def test_an_id_that_the_account_may_not_use_keeps_nobody_else_back(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.queue(*[answer_json(403, error("no access to this model"))] * 3)
    for _ in range(3):
        answer = await http.post(CHAT, json=ask("up/secret-model"))
        assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (502, "up/*")
    upstream.default = chat_answer()
    for model in ("a", "up/another"):
        answer = await http.post(CHAT, json=ask(model))
        assert answer.status_code == 200, model


# --- waiting


async def test_how_long_it_waited(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    narrow = {"targets": [{"provider": "up", "model": "n", "max_in_flight": 1, "max_waiting": 1}]}
    server = await serve(config(upstream, second, narrow={**narrow, "fallbacks": ["b"]}))
    async with client(server) as http:
        holder = asyncio.create_task(http.post(CHAT, json=ask("narrow")))
        await upstream.next_request()
        waits = asyncio.create_task(http.post(CHAT, json=ask("narrow")))
        (room,) = server.services.dispatcher.rooms.all()
        while not room.depth:
            await asyncio.sleep(0)
        shed = await http.post(CHAT, json=ask("narrow"))
        assert (shed.status_code, shed.json()["error"]["code"]) == (503, "overloaded")
        assert ours(shed) == {*ALWAYS, "retry-after"}
        asyncio.get_running_loop().call_later(0.005, gate.open)
        assert ours(await holder) == SENT
        waited = await waits
    assert ours(waited) == {*SENT, "x-roundhouse-waited-ms"}
    assert int(waited.headers["x-roundhouse-waited-ms"]) >= 1
    assert second.requests == []
    assert server.metrics.shed.labels("target_queue").value == 1


async def test_over_the_bridge_until_the_engine_is_there(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    second.default = chat_answer("from the bridge")
    replica = a_replica()
    async with replica:
        pass  # it has a port, and does not listen there yet
    server = await serve(config(upstream, second, address(replica)))
    async with client(server) as http:
        answer = await http.post(CHAT, json=ask("e"))
        assert ours(answer) == {*SENT, "x-roundhouse-bridge", "x-roundhouse-fallback-from"}
        assert answer.headers["x-roundhouse-bridge"] == "b"
        assert answer.headers["x-roundhouse-target"] == "second/b"
        assert answer.headers["x-roundhouse-fallback-from"] == "engine/ext"
        assert server.metrics.bridge.labels("e", "bridged").value == 1
        refused = await http.post(CHAT, json=ask("refusing"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_loading")
        assert ours(refused) == {*ALWAYS, "retry-after"}
        assert server.metrics.bridge.labels("refusing", "refused").value == 1
        async with replica:
            replica.default = chat_answer("from the engine")
            await server.fleet.wait_ready("ext", 5)
            for model in ("e", "refusing"):
                answer = await http.post(CHAT, json=ask(model))
                assert ours(answer) == SENT
                assert answer.headers["x-roundhouse-target"] == "engine/ext"
    assert server.metrics.bridge.labels("e", "bridged").value == 1


async def test_without_fallbacks_there_is_no_bridge(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    with closed_port() as port:
        server = await serve(config(upstream, second, f"127.0.0.1:{port}"))
        async with client(server) as http:
            headers = {"x-roundhouse-fallbacks": "off", "x-roundhouse-timeout": "50ms"}
            answer = await http.post(CHAT, json=ask("e"), headers=headers)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert second.requests == []


# --- abilities


async def test_what_a_target_is_spared_is_named(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    target = {"provider": "up", "model": "x", "drop": ["logprobs", "seed"]}
    spared = {"targets": [target], "abilities": {"logprobs": False}, "fallbacks": ["b"]}
    server = await serve(config(upstream, second, spared=spared))
    async with client(server) as http:
        upstream.queue(chat_answer(), BOOM)
        second.queue(chat_answer())
        body = ask("spared", logprobs=True, top_logprobs=2, seed=1, user="u")
        answer = await http.post(CHAT, json=body)
        assert ours(answer) == {*SENT, "x-roundhouse-dropped"}
        dropped = set(answer.headers["x-roundhouse-dropped"].split(","))
        assert dropped == {"logprobs", "top_logprobs", "seed"}
        assert set(upstream.requests[0].json()) == {"model", "messages", "user"}
        # The one that answers instead is not spared.
        answer = await http.post(CHAT, json=body)
        assert answer.headers["x-roundhouse-target"] == "second/b"
        assert "x-roundhouse-dropped" not in answer.headers
        assert "logprobs" in second.requests[0].json()


async def test_an_ability_that_is_lacking_is_named_with_models_that_have_it(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    def model(**abilities: bool) -> dict[str, Any]:
        return {"targets": [{"provider": "up", "model": "x"}], "abilities": abilities}

    models = {
        "plain": model(tools=False, n=False),
        "able": model(tools=True),
        "gifted": model(tools=True),
        "alias": {"alias": "able"},
    }
    server = await serve(config(upstream, second, **models))
    body = ask("plain", tools=[{"type": "function", "function": {"name": "f"}}])
    async with client(server) as http:
        answer = await http.post(CHAT, json=body)
        found = answer.json()["error"]
        assert (answer.status_code, found["code"]) == (400, "unsupported_ability")
        assert found["param"] == "tools"
        assert "`able`, `gifted`" in found["message"]
        assert ours(answer) == ALWAYS
        # A fallback that has it is asked.
        upstream.queue(chat_answer())
        answer = await http.post(CHAT, json={**body, "fallbacks": ["able"]})
        assert answer.status_code == 200
    async with client(server, KEY[::-1]) as http:  # which may use none of these
        answer = await http.post(CHAT, json=body)
        assert answer.status_code == 400
        assert "able`" not in answer.json()["error"]["message"]
    assert len(upstream.requests) == 1
