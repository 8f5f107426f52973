"""Limits of keys and rooms of models through the whole server: what is counted, and given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
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
    answer_late,
    chat_answer,
    chat_stream,
    error,
    hang_before_head,
    sse,
)

CHAT = "/v1/chat/completions"
OTHER = KEY[::-1]
BOOM = answer_json(500, error("boom"))


def of_key(**limits: Any) -> dict[str, Any]:
    """One key with these limits, and one without any."""
    keys = [{"name": "tests", "key": KEY, **limits}, {"name": "other", "key": OTHER}]
    return {"server": {"keys": keys}, "routing": {"attempts": 1}}


@contextlib.asynccontextmanager
async def client(server: Roundhouse, key: str = KEY) -> AsyncIterator[httpx.AsyncClient]:
    """When it is done nothing is under way, and all that was reserved has come to an end."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http:
        yield http
    while server.services.open:
        await asyncio.sleep(0)
    services = server.services
    limiter = services.admission.limiter
    assert limiter.in_flight("tests") == limiter.in_flight("other") == 0
    assert limiter.reserved == limiter.settled + limiter.released
    assert all((room.inside, room.depth) == (0, 0) for room in services.admission.rooms.all())
    assert all(standing.in_flight == 0 for standing in services.dispatcher.standings)


def left(answer: httpx.Response) -> tuple[int, int]:
    """Requests and tokens that the key still has, as the answer says it."""
    kinds = ("requests", "tokens")
    requests, tokens = (int(answer.headers[f"x-ratelimit-remaining-{kind}"]) for kind in kinds)
    return requests, tokens


def shed(server: Roundhouse) -> dict[str, int]:
    series = server.metrics.shed.series
    return {reason: int(child.value) for (reason,), child in series.items() if child.value}


# --- tokens and requests per minute


@pytest.mark.parametrize("stream", [True, False])
async def test_headers_tell_what_is_left(
    serve: Serve, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.default = chat_stream(usage="auto") if stream else chat_answer()
    server = await serve(config_of(upstream, **of_key(rpm=6000, tpm=600_000)))
    async with client(server) as http:
        answers = [
            await http.post(CHAT, json={**ASK, "max_tokens": 1000, "stream": stream})
            for _ in range(2)
        ]
        names = {name for name in answers[0].headers if name.startswith("x-ratelimit")}
        assert names == {
            f"x-ratelimit-{what}-{kind}"
            for what in ("limit", "remaining", "reset")
            for kind in ("requests", "tokens")
        }
        assert answers[0].headers["x-ratelimit-limit-requests"] == "6000"
        assert answers[0].headers["x-ratelimit-limit-tokens"] == "600000"
        assert answers[0].headers["x-ratelimit-reset-requests"] == "10ms"
        # As it stood with the reservation; when the next one came only what it took was gone.
        assert left(answers[0])[0] == 5999
        assert 598_000 < left(answers[0])[1] < 599_000
        assert 598_000 < left(answers[1])[1] < 599_100
    limiter = server.services.admission.limiter
    assert limiter.used == 2 * 9
    async with client(server, OTHER) as http:
        answer = await http.post(CHAT, json=ASK)
        assert not any(name.startswith("x-ratelimit") for name in answer.headers)


async def test_what_failed_gives_its_tokens_back_and_stays_a_request(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.queue(BOOM, answer_json(400, error("no")))
    server = await serve(config_of(upstream, **of_key(rpm=2, tpm=1000)))
    async with client(server) as http:
        for status in (500, 400):
            answer = await http.post(CHAT, json={**ASK, "max_tokens": 900})
            assert answer.status_code == status
            assert left(answer)[1] < 100
        limiter = server.services.admission.limiter
        assert limiter.released > 1800
        assert (limiter.settled, limiter.used) == (0, 0)
        answer = await http.post(CHAT, json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "requests per minute" in answer.json()["error"]["message"]
    assert shed(server) == {"key_requests": 1}


async def test_what_is_wrong_from_the_start_costs_nothing(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = chat_answer()
    server = await serve(config_of(upstream, **of_key(rpm=1, tpm=1000)))
    bad: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"model": "m"}, {}),
        ({**ASK, "model": "nobody"}, {}),
        ({**ASK, "fallbacks": ["nobody"]}, {}),
        (ASK, {"x-roundhouse-timeout": "soon"}),
        (ASK, {"x-roundhouse-fallbacks": "maybe"}),
    ]
    async with client(server) as http:
        for body, headers in bad:
            answer = await http.post(CHAT, json=body, headers=headers)
            assert 400 <= answer.status_code < 429
            assert not any(name.startswith("x-ratelimit") for name in answer.headers)
        assert (await http.post(CHAT, json=ASK)).status_code == 200


async def test_too_many_tokens_for_this_minute(serve: Serve, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    server = await serve(config_of(upstream, **of_key(tpm=1000)))
    async with client(server) as http:
        holder = asyncio.create_task(http.post(CHAT, json={**ASK, "max_tokens": 900}))
        await upstream.next_request()
        answer = await http.post(CHAT, json={**ASK, "max_tokens": 500})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert "tokens per minute" in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "x-should-retry" not in answer.headers
        assert "x-ratelimit-remaining-requests" not in answer.headers
        gate.open()
        assert (await holder).status_code == 200
        # It used 9 of the 900: there is room now.
        assert (await http.post(CHAT, json={**ASK, "max_tokens": 500})).status_code == 200
    assert shed(server) == {"key_tokens": 1}


ENDS: list[tuple[Any, bool]] = [
    (chat_stream(usage="none"), True),  # it does not count
    (sse([{"choices": [{"index": 0, "delta": {"content": "a"}}]}]), True),  # and breaks off
    (answer_json(200, {"choices": []}), False),
]


@pytest.mark.parametrize(("script", "stream"), ENDS)
async def test_what_nobody_counted_is_what_was_reserved(
    serve: Serve, upstream: ScriptedUpstream, script: Any, stream: bool
) -> None:
    """Also of an answer that broke off: it was written, for all we know."""
    upstream.default = script
    server = await serve(config_of(upstream, **of_key(tpm=100_000)))
    async with client(server) as http:
        answer = await http.post(CHAT, json={**ASK, "max_tokens": 900, "stream": stream})
        assert answer.status_code == 200
    limiter = server.services.admission.limiter
    assert limiter.used == limiter.settled == limiter.reserved > 900
    assert limiter.released == 0


async def test_a_longer_answer_than_reserved_is_a_debt(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.default = chat_answer(completion_tokens=5000)
    server = await serve(config_of(upstream, **of_key(tpm=1000)))
    async with client(server) as http:
        assert (await http.post(CHAT, json={**ASK, "max_tokens": 10})).status_code == 200
        answer = await http.post(CHAT, json={**ASK, "max_tokens": 10})
        assert answer.status_code == 429
        assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
        assert int(answer.headers["retry-after"]) > 200


# --- in flight


async def test_requests_of_a_key_at_one_time(serve: Serve, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    server = await serve(config_of(upstream, **of_key(max_in_flight=2)))
    async with client(server) as http, client(server, OTHER) as other:
        held = [asyncio.create_task(http.post(CHAT, json=ASK)) for _ in range(2)]
        for _ in held:
            await upstream.next_request()
        answer = await http.post(CHAT, json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "1"
        assert "in flight" in answer.json()["error"]["message"]
        # Other keys are not held to it.
        free = asyncio.create_task(other.post(CHAT, json=ASK))
        await upstream.next_request()
        gate.open()
        assert {(await one).status_code for one in (*held, free)} == {200}
        assert (await http.post(CHAT, json=ASK)).status_code == 200
    assert shed(server) == {"key_in_flight": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_gives_back_what_it_had(
    serve: Serve, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.queue(chat_stream(gate=Gate(2)) if stream else hang_before_head())
    server = await serve(config_of(upstream, **of_key(max_in_flight=1, tpm=100_000)))
    async with client(server) as http:
        async with RawClient(port=port_of(server)) as raw:
            await raw.post(CHAT, {**ASK, "stream": stream}, list(AUTH.items()))
            exchange = await upstream.next_request()
            if stream:
                await raw.read_head()
                await raw.read_event()
        await exchange.disconnected.wait()
        while server.services.open:
            await asyncio.sleep(0)
        # Nobody knows what the target has written, or goes on to write.
        limiter = server.services.admission.limiter
        assert limiter.used == limiter.settled == limiter.reserved > 0
        upstream.queue(chat_answer())
        assert (await http.post(CHAT, json=ASK)).status_code == 200


async def test_no_tokens_are_free_for_those_who_do_not_wait(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    upstream.queue(hang_before_head())
    server = await serve(config_of(upstream, **of_key(tpm=1000)))
    async with client(server) as http:
        ask, soon = {**ASK, "max_tokens": 900}, {"x-roundhouse-timeout": "50ms"}
        answer = await http.post(CHAT, json=ask, headers=soon)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        answer = await http.post(CHAT, json=ask)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    limiter = server.services.admission.limiter
    assert limiter.used == limiter.settled > 900


async def test_who_goes_before_a_target_had_the_request_pays_no_tokens(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    config = config_of(upstream, **of_key(tpm=100_000))
    config["models"]["m"]["targets"][0].update(max_in_flight=1, max_waiting=1)
    server = await serve(config)
    async with client(server) as http:
        holder = asyncio.create_task(http.post(CHAT, json=ASK))
        await upstream.next_request()
        async with RawClient(port=port_of(server)) as raw:
            await raw.post(CHAT, ASK, list(AUTH.items()))
            (room,) = server.services.dispatcher.rooms.all()
            while not room.depth:
                await asyncio.sleep(0)
        while room.depth:
            await asyncio.sleep(0)
        gate.open()
        assert (await holder).status_code == 200
    limiter = server.services.admission.limiter
    assert limiter.used == 9
    assert limiter.released > 0


# --- rooms of models and of the server


def narrow(upstream: ScriptedUpstream, second: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    config = config_of(upstream, second, **more)
    target = {"provider": "up", "model": "s"}
    config["models"]["small"] = {
        "targets": [target],
        "fallbacks": ["spare"],
        "max_in_flight": 1,
        "max_waiting": 1,
    }
    config["models"]["alias-of-small"] = {"alias": "small"}
    config["models"]["spare"] = {"targets": [{"provider": "second", "model": "t"}]}
    return config


async def test_a_models_places_are_the_same_by_all_its_names(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    server = await serve(narrow(upstream, second, **of_key(rpm=100)))
    small, alias = {**ASK, "model": "small"}, {**ASK, "model": "alias-of-small"}
    async with client(server) as http:
        held = [asyncio.create_task(http.post(CHAT, json=small))]
        await upstream.next_request()
        held.append(asyncio.create_task(http.post(CHAT, json=alias)))
        (room,) = server.services.admission.rooms.all()
        while not room.depth:
            await asyncio.sleep(0)
        assert (room.kind, room.name, room.inside) == ("model", "small", 1)
        for body in (small, alias):
            answer = await http.post(CHAT, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert "retry-after" in answer.headers
            assert "x-should-retry" not in answer.headers
        # Another model has places of its own, if any.
        other = asyncio.create_task(http.post(CHAT, json=ASK))
        await upstream.next_request()
        gate.open()
        assert {(await one).status_code for one in (*held, other)} == {200}
        assert second.requests == []
        # Whom the server turned away made no request of the key's minute.
        answer = await http.post(CHAT, json=small)
        assert int(answer.headers["x-ratelimit-remaining-requests"]) >= 100 - 4
    assert shed(server) == {"model_queue": 2}


async def test_a_target_that_is_full_is_no_request_of_the_minute_either(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    config = config_of(upstream, **of_key(rpm=100, tpm=100_000))
    config["models"]["m"]["targets"][0].update(max_in_flight=1, max_waiting=0)
    server = await serve(config)
    async with client(server) as http:
        holder = asyncio.create_task(http.post(CHAT, json=ASK))
        await upstream.next_request()
        for _ in range(5):
            answer = await http.post(CHAT, json=ASK)
            assert answer.status_code == 503
            assert int(answer.headers["x-ratelimit-remaining-requests"]) >= 98
        gate.open()
        assert (await holder).status_code == 200
    assert shed(server) == {"target_queue": 5}
    assert server.services.admission.limiter.used == 9


async def test_leaving_the_line_of_a_model(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    server = await serve(narrow(upstream, second, **of_key(max_in_flight=2)))
    small = {**ASK, "model": "small"}
    async with client(server) as http:
        holder = asyncio.create_task(http.post(CHAT, json=small))
        await upstream.next_request()
        (room,) = server.services.admission.rooms.all()
        async with RawClient(port=port_of(server)) as raw:
            await raw.post(CHAT, small, list(AUTH.items()))
            while not room.depth:
                await asyncio.sleep(0)
        while room.depth:
            await asyncio.sleep(0)
        after = asyncio.create_task(http.post(CHAT, json=small))
        while not room.depth:
            await asyncio.sleep(0)
        gate.open()
        assert [(await one).status_code for one in (holder, after)] == [200, 200]
    assert len(upstream.requests) == 2
    assert shed(server) == {}


async def test_the_narrow_door_comes_first(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    """Who waits for a small model holds no place of the server."""
    gate = Gate()
    upstream.default, second.default = answer_late(gate, chat_answer()), chat_answer()
    said = of_key()
    said["server"]["limits"] = {"in_flight": 2, "waiting": 0}
    server = await serve(narrow(upstream, second, **said))
    async with client(server) as http:
        held = [asyncio.create_task(http.post(CHAT, json={**ASK, "model": "small"}))]
        await upstream.next_request()
        held.append(asyncio.create_task(http.post(CHAT, json={**ASK, "model": "small"})))
        rooms = {room.kind: room for room in server.services.admission.rooms.all()}
        while not rooms["model"].depth:
            await asyncio.sleep(0)
        assert rooms["server"].inside == 1
        assert (await http.post(CHAT, json={**ASK, "model": "spare"})).status_code == 200
        gate.open()
        assert [(await one).status_code for one in held] == [200, 200]
    assert shed(server) == {}
