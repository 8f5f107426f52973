"""What a client may say of how its request is routed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.serving import Roundhouse
from tests.api.conftest import ASK, AUTH, KEY, Serve
from tests.fakes.faults import hang_before_head
from tests.fakes.upstream import (
    Gate,
    ScriptedUpstream,
    answer_json,
    answer_late,
    chat_answer,
    chat_stream,
    embeddings_answer,
    error,
)

CHAT = "/v1/chat/completions"
BOOM = answer_json(500, error("boom"))
ASK_A = {**ASK, "model": "a"}


def config(upstream: ScriptedUpstream, second: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """Model `a` at the first upstream falls back to `b` at the second, which has `c` and `d`, too;
    `b` falls back to `c`. `pair` has a target at each."""

    def at(provider: str, name: str, **said: Any) -> dict[str, Any]:
        return {"targets": [{"provider": provider, "model": name}], **said}

    keys = [
        {"name": "tests", "key": KEY},
        {"name": "narrow", "key": KEY[::-1], "models": ["a", "b"]},
    ]
    server = {"port": 0, "admin": "127.0.0.1:0", "keys": keys, "timeouts": {"drain": "5s"}}
    return {
        "version": 1,
        "server": {**server, **more.pop("server", {})},
        "providers": {
            "up": {"dialect": "openai", "base_url": f"{upstream.url}/v1"},
            "second": {"dialect": "openai", "base_url": f"{second.url}/v1"},
        },
        "routing": {"attempts": 2, **more.pop("routing", {})},
        "models": {
            "a": at("up", "a", fallbacks=["b"]),
            "b": at("second", "b", fallbacks=["c"]),
            "c": at("second", "c"),
            "d": at("second", "d"),
            "alias-of-a": {"alias": "a"},
            "alias-of-c": {"alias": "c"},
            "pair": {"targets": [{"provider": "up", "model": "p"}, *at("second", "q")["targets"]]},
            **more.pop("models", {}),
        },
        **more,
    }


@pytest.fixture
async def server(serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream) -> Roundhouse:
    upstream.default, second.default = BOOM, chat_answer()
    return await serve(config(upstream, second))


@pytest.fixture
async def http(server: Roundhouse) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10) as client:
        yield client
    for standing in server.services.dispatcher.standings:
        assert standing.in_flight == 0
    assert not server.services.open


async def refused(
    http: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str] | None = None
) -> tuple[int, str, str | None]:
    """Status, code and param of the error that this request gets."""
    answer = await http.post(CHAT, json=body, headers=headers)
    found = answer.json()["error"]
    assert found["message"].endswith((".", "?")), found
    assert "x-should-retry" not in answer.headers
    assert "x-roundhouse-attempts" not in answer.headers
    return answer.status_code, found["code"], found["param"]


# --- x-roundhouse-fallbacks


@pytest.mark.parametrize("word", ["off", "OFF"])
async def test_without_fallbacks(
    http: httpx.AsyncClient, second: ScriptedUpstream, word: str
) -> None:
    answer = await http.post(CHAT, json=ASK_A, headers={"x-roundhouse-fallbacks": word})
    assert answer.status_code == 500
    assert answer.headers["x-roundhouse-attempts"] == "2"  # at the same target again
    assert "x-roundhouse-fallback-from" not in answer.headers
    assert second.requests == []


async def test_a_models_own_targets_are_no_fallbacks(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        CHAT, json={**ASK, "model": "pair"}, headers={"x-roundhouse-fallbacks": "off"}
    )
    assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (200, "second/q")


async def test_with_fallbacks_as_without_a_word(http: httpx.AsyncClient) -> None:
    for headers in ({}, {"x-roundhouse-fallbacks": "on"}):
        answer = await http.post(CHAT, json=ASK_A, headers=headers)
        assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (200, "second/b")
        assert answer.headers["x-roundhouse-fallback-from"] == "up/a"


async def test_other_words_are_no_wish(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    for word in ("", "no", "false", "0", "off, on", "b"):
        found = await refused(http, ASK_A, {"x-roundhouse-fallbacks": word})
        assert found == (400, "invalid_value", "x-roundhouse-fallbacks"), word
    assert upstream.requests == []


# --- fallbacks in the body


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (["c"], "second/c"),
        (["d", "c"], "second/d"),
        (["alias-of-c"], "second/c"),
        (["a", "alias-of-a", "d"], "second/d"),
        (["c", "c", "alias-of-c"], "second/c"),
        (["second/some-other-id"], "second/*"),
        (None, "second/b"),
    ],
)
async def test_named_ones_take_the_place_of_the_configured(
    http: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    names: list[str] | None,
    target: str,
) -> None:
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": names})
    assert (answer.status_code, answer.headers["x-roundhouse-target"]) == (200, target)
    assert answer.headers["x-roundhouse-fallback-from"] == "up/a"
    # It is our word, and no upstream ever hears it.
    for sent in (upstream.requests[0], second.requests[0]):
        assert set(sent.json()) == {"model", "messages"}


async def test_a_stream_too(http: httpx.AsyncClient, second: ScriptedUpstream) -> None:
    second.default = chat_stream(["from c"])
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": ["c"], "stream": True})
    assert b"from c" in answer.content
    assert answer.headers["x-roundhouse-target"] == "second/c"
    assert "fallbacks" not in second.requests[0].json()


@pytest.mark.parametrize("names", [[], ["a"], ["alias-of-a"]])
async def test_none_at_all(
    http: httpx.AsyncClient, second: ScriptedUpstream, names: list[str]
) -> None:
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": names})
    assert (answer.status_code, second.requests) == (500, [])


async def test_only_those_named_and_not_theirs(
    http: httpx.AsyncClient, second: ScriptedUpstream
) -> None:
    """`b` has a fallback of its own, which the client did not name."""
    second.default = BOOM
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": ["b"]})
    assert answer.status_code == 500
    assert [sent.json()["model"] for sent in second.requests] == ["b"]


async def test_the_header_has_the_last_word(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    headers = {"x-roundhouse-fallbacks": "off"}
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": ["c"]}, headers=headers)
    assert (answer.status_code, second.requests) == (500, [])
    assert "fallbacks" not in upstream.requests[0].json()


async def test_where_none_is_needed_it_is_taken_out_all_the_same(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    upstream.default = embeddings_answer()
    body = {"model": "a", "input": "x", "fallbacks": ["c"]}
    assert (await http.post("/v1/embeddings", json=body)).status_code == 200
    upstream.default = answer_json(200, {"choices": [], "usage": None})
    other = {"model": "a", "prompt": "x", "fallbacks": None}
    assert (await http.post("/v1/completions", json=other)).status_code == 200
    assert [set(sent.json()) for sent in upstream.requests] == [
        {"model", "input"},
        {"model", "prompt"},
    ]


async def test_no_list_of_names(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    values: list[Any] = ["b", 1, True, {"models": ["b"]}, [1], [None], [["b"]], [{}], ["b", 1]]
    for value in values:
        found = await refused(http, {**ASK_A, "fallbacks": value})
        assert found == (400, "invalid_type", "fallbacks"), value
    assert upstream.requests == []


async def test_too_many(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    found = await refused(http, {**ASK_A, "fallbacks": ["b"] * 9})
    assert found == (400, "over_limit", "fallbacks")
    assert upstream.requests == []
    answer = await http.post(CHAT, json={**ASK_A, "fallbacks": ["c"] * 8})
    assert answer.status_code == 200


async def test_unknown_ones(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    """Also behind a good one, and before anything is sent."""
    for name in ("nobody", "", "nowhere/x", "x" * 5000, "a\x00b"):
        found = await refused(http, {**ASK_A, "fallbacks": ["c", name]})
        assert found == (404, "model_not_found", "fallbacks"), name
    assert upstream.requests == []


async def test_only_what_the_key_may_use(
    server: Roundhouse, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    headers = {"authorization": f"Bearer {KEY[::-1]}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10) as http:
        for name in ("c", "alias-of-c", "second/c"):
            found = await refused(http, {**ASK_A, "fallbacks": [name]})
            assert found == (403, "model_not_allowed", "fallbacks")
        assert upstream.requests == []
        answer = await http.post(CHAT, json={**ASK_A, "fallbacks": ["b"]})
        assert answer.headers["x-roundhouse-target"] == "second/b"


# --- x-roundhouse-timeout


NO_DURATIONS = (
    *("", "0", "0s", "0.0", "-5", "soon", "nan", "inf", "1e3", "5 parsecs", "30s!", "²"),
    "1" * 33,
)


async def test_no_duration(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    for said in NO_DURATIONS:
        answer = await http.post(CHAT, json=ASK_A, headers={b"x-roundhouse-timeout": said.encode()})
        found = answer.json()["error"]
        assert (answer.status_code, found["code"]) == (400, "invalid_value"), said
        assert found["param"] == "x-roundhouse-timeout"
    assert upstream.requests == []


@pytest.mark.parametrize("said", ["0.05", "50ms"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_in_a_hurry(
    http: httpx.AsyncClient,
    server: Roundhouse,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    said: str,
    stream: bool,
) -> None:
    upstream.default = hang_before_head()
    answer = await http.post(
        CHAT, json={**ASK_A, "stream": stream}, headers={"x-roundhouse-timeout": said}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert answer.headers["x-roundhouse-attempts"] == "1"
    # No time is left for others, and the target is not to blame.
    assert second.requests == []
    assert server.metrics.attempts.labels("a", "up/a", "deadline").value == 1
    await upstream.disconnected()


@pytest.mark.parametrize("said", ["1h", "99999999999d", "9" * 32])
async def test_nobody_has_more_time_than_the_server_gives(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, said: str
) -> None:
    upstream.default = hang_before_head()
    server = await serve(config(upstream, second, server={"timeouts": {"total": "60ms"}}))
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10) as http:
        answer = await http.post(CHAT, json=ASK_A, headers={"x-roundhouse-timeout": said})
    assert answer.status_code == 504
    await upstream.disconnected()


async def test_durations(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.default = chat_answer()
    for said in ("30", "30s", "2m", "1h30m", "500ms", "9 s", "9S"):
        answer = await http.post(CHAT, json=ASK_A, headers={"x-roundhouse-timeout": said})
        assert answer.status_code == 200, said
    assert upstream.requests[0].header("x-roundhouse-timeout") is None


async def test_waiting_for_a_place_is_part_of_it(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.default = answer_late(gate, chat_answer())
    narrow = {
        "narrow": {"targets": [{"provider": "up", "model": "n", "max_in_flight": 1}]},
        "small": {"targets": [{"provider": "up", "model": "s"}], "max_in_flight": 1},
    }
    server = await serve(config(upstream, second, models=narrow))
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10) as http:
        asks = [{**ASK, "model": name} for name in narrow]
        holders = [asyncio.create_task(http.post(CHAT, json=ask)) for ask in asks]
        for _ in holders:
            await upstream.next_request()
        for ask in asks:
            answer = await http.post(CHAT, json=ask, headers={"x-roundhouse-timeout": "30ms"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        assert [(await holder).status_code for holder in holders] == [200, 200]
    assert server.metrics.shed.labels("queue_timeout").value == 2


# --- x-roundhouse-session


def affine(count: int) -> dict[str, Any]:
    targets = [{"provider": "up", "model": f"t{n}"} for n in range(count)]
    return {"affine": {"targets": targets, "balance": "affinity"}}


async def test_a_session_stays_at_its_target(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    upstream.default = chat_answer()
    server = await serve(config(upstream, second, models=affine(4)))
    async with httpx.AsyncClient(base_url=server.url, headers=AUTH, timeout=10) as http:

        async def target(session: bytes, text: str) -> str:
            body = {"model": "affine", "messages": [{"role": "user", "content": text}]}
            answer = await http.post(CHAT, json=body, headers={b"x-roundhouse-session": session})
            assert answer.status_code == 200
            return answer.headers["x-roundhouse-target"]

        found = {}
        for number in range(24):
            session = b"session %d" % number
            found[session] = {await target(session, text) for text in ("one", "two", "three")}
        assert {len(targets) for targets in found.values()} == {1}
        assert len(set.union(*found.values())) == 4
        # Odd ones are no fault; of a long one the beginning counts.
        for session in (b"", "größe".encode(), b"\xff\xfe"):
            await target(session, "x")
        long = b"s" * 256
        texts = [f"text {number}" for number in range(8)]
        assert len({await target(long + text.encode(), text) for text in texts}) == 1
    assert upstream.requests[0].header("x-roundhouse-session") is None
    for standing in server.services.dispatcher.standings:
        assert standing.in_flight == 0
