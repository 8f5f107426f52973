"""/plans of the admin listener: what is explained, for whom, and what it is told when it is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.requests import Request as HttpRequest

from server.api.plans import PlanEndpoints
from server.errors import ClientGone
from server.serving import Roundhouse
from tests.api.conftest import AUTH, KEY, Serve, config_of
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, error

Plan = dict[str, Any]
HI = {"messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


async def plan(admin: httpx.AsyncClient, path: str, body: Any = None, **headers: str) -> Plan:
    answer = await admin.post(f"/plans/{path}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: Plan = answer.json()
    return found


def steps(found: Plan) -> list[tuple[str, str, str]]:
    return [(entry["target"], entry["group"], entry["action"]) for entry in found["targets"]]


async def refused(
    admin: httpx.AsyncClient, path: str, content: bytes = b""
) -> tuple[int, str, str]:
    answer = await admin.post(f"/plans/{path}", content=content)
    said = answer.json()["error"]
    return answer.status_code, said["code"], said["message"]


async def admin_of(server: Roundhouse) -> httpx.AsyncClient:
    assert server.admin_url is not None
    return httpx.AsyncClient(base_url=server.admin_url, timeout=10)


async def test_a_plan(admin: httpx.AsyncClient) -> None:
    found = await plan(admin, "both", HI)
    assert steps(found) == [("up/a", "own", "send"), ("second/b", "own", "send")]
    assert (found["name"], found["model"], found["policy"]) == ("both", "both", "ordered")
    assert found["answer"] is None
    assert found["server"] == {"panic": False, "retry_budget": 0.0, "attempts": 3}
    first, second = found["targets"]
    assert first["reason"] == "place 1 of the order"
    assert first["breaker"] == {"state": "closed", "words": "closed"}
    assert first["credential"] == first["breaker"]
    assert second["credential"] is None  # it sends no key


async def test_names_with_slashes_aliases_and_what_no_entry_names(
    admin: httpx.AsyncClient,
) -> None:
    assert steps(await plan(admin, "org/model-x")) == [("up/x", "own", "send")]
    found = await plan(admin, "alias-of-m", HI)
    assert (found["name"], found["model"]) == ("alias-of-m", "m")
    assert steps(await plan(admin, "up/any-id/at-all")) == [("up/*", "own", "send")]
    assert steps(await plan(admin, "up/upstream-m")) == [("up/upstream-m", "own", "send")]


@pytest.mark.parametrize(
    ("query", "body", "surface"),
    [
        ("", None, "chat"),
        ("", {}, "chat"),
        ("", {"model": "another"}, "chat"),
        ("", HI, "chat"),
        ("", {"prompt": "hi"}, "completions"),
        ("", {"input": "hi"}, "embeddings"),
        ("?surface=embeddings", None, "embeddings"),
        ("?surface=tokenize", HI, "tokenize"),
    ],
)
async def test_the_surface(admin: httpx.AsyncClient, query: str, body: Any, surface: str) -> None:
    assert (await plan(admin, f"m{query}", body))["request"]["surface"] == surface


async def test_what_the_body_says(admin: httpx.AsyncClient) -> None:
    asked = (await plan(admin, "m", {**HI, "stream": True, "max_tokens": 7, "tools": [TOOL]}))[
        "request"
    ]
    assert (asked["stream"], asked["output_tokens"], asked["needs"]) == (True, 7, ["tools"])
    assert asked["prompt_tokens"] > 0
    assert asked["affinity_key"] is True
    asked = (await plan(admin, "m", None))["request"]
    assert (asked["stream"], asked["affinity_key"], asked["needs"]) == (False, False, [])
    session = await plan(admin, "m", None, **{"x-roundhouse-session": "a"})
    assert session["request"]["affinity_key"] is True


async def test_the_clients_own_wishes(admin: httpx.AsyncClient) -> None:
    named = {**HI, "fallbacks": ["both", "m"]}
    assert steps(await plan(admin, "m", named))[1:] == [
        ("up/a", "fallback", "send"),
        ("second/b", "fallback", "send"),
    ]
    alone = await plan(admin, "m", named, **{"x-roundhouse-fallbacks": "off"})
    assert len(steps(alone)) == 1


async def test_a_wish_that_makes_no_sense(admin: httpx.AsyncClient) -> None:
    for name, said in (("x-roundhouse-timeout", "soon"), ("x-roundhouse-fallbacks", "perhaps")):
        answer = await admin.post("/plans/m", json=HI, headers={name: said})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    await plan(admin, "m", HI, **{"x-roundhouse-timeout": "2s"})


@pytest.mark.parametrize("longest", [10**400, 10**30, 1])
async def test_an_answer_of_any_length_has_a_price(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, longest: int
) -> None:
    config = config_of(upstream, second)
    config["models"]["both"] |= {"balance": "cheapest", "prices": {"input": 1, "output": 2}}
    server = await serve(config)
    ask = {"model": "both", **HI, "max_tokens": longest}
    async with await admin_of(server) as admin, httpx.AsyncClient(base_url=server.url) as http:
        found = await plan(admin, "both", ask)
        assert found["request"]["output_tokens"] == min(longest, 10**9)
        assert "$" in found["targets"][0]["reason"]
        upstream.queue(chat_answer())
        answer = await http.post("/v1/chat/completions", json=ask)
        assert answer.headers["x-roundhouse-target"] == "up/a"


async def test_as_a_key(admin: httpx.AsyncClient) -> None:
    assert (await plan(admin, "org/model-x?key=narrow"))["request"]["key"] == "narrow"
    assert (await refused(admin, "m?key=narrow"))[:2] == (403, "model_not_allowed")
    status, code, said = await refused(admin, "m?key=nobody")
    assert (status, code) == (400, "invalid_value")
    assert said == "There is no key `nobody`. Keys: tests, narrow."


@pytest.mark.parametrize(
    ("path", "content", "status", "code", "said"),
    [
        ("bot", b"", 404, "model_not_found", "Did you mean `both`?"),
        ("m", b'{"messages": 1}', 400, "invalid_type", "`messages`"),
        ("m", b'{"tools": []}', 400, "missing_required_parameter", "`messages`"),
        ("m", b"{", 400, "invalid_json", "not valid JSON"),
        ("m", b"[" * 100, 400, "nested_too_deeply", "64 levels"),
        ("m", b"\xff", 400, "invalid_json", "UTF-8"),
        ("m?surface=images", b"", 400, "invalid_value", "`images` is no surface"),
        ("m", b'{"messages": [], "fallbacks": 1}', 400, "invalid_value", "`messages`"),
    ],
)
async def test_what_is_not_explained(
    admin: httpx.AsyncClient, path: str, content: bytes, status: int, code: str, said: str
) -> None:
    found = await refused(admin, path, content)
    assert found[:2] == (status, code)
    assert said in found[2]


async def test_bodies_have_the_public_apis_cap(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"limits": {"body": 3 * 2**20}}))
    async with await admin_of(server) as admin:
        long = {"messages": [{"role": "user", "content": "x" * 2 * 2**20}]}
        assert (await plan(admin, "m", long))["request"]["prompt_tokens"] > 2**18
        found = await refused(admin, "m", b" " * (3 * 2**20 + 1))
        assert found[:2] == (413, "payload_too_large")


async def test_a_tripped_credential_is_seen_and_stays_as_it_is(
    admin: httpx.AsyncClient, http: httpx.AsyncClient, upstream: ScriptedUpstream,
    second: ScriptedUpstream,
) -> None:  # fmt: skip
    upstream.queue(answer_json(401, error("no such key")))
    second.queue(chat_answer())
    answer = await http.post("/v1/chat/completions", json={"model": "both", **HI})
    assert answer.headers["x-roundhouse-target"] == "second/b"
    for _ in range(2):
        found = await plan(admin, "both", HI)
        assert steps(found) == [("second/b", "own", "send"), ("up/a", "own", "skip")]
        passed = found["targets"][1]
        assert passed["credential"]["state"] == "open"
        assert "its credential is open for" in passed["reason"]
        assert passed["policy"] == "place 1 of the order"
    lines = {one["model"]: one for one in (await admin.get("/plans")).json()["plans"]}
    states = [target["state"] for target in lines["both"]["targets"]]
    assert states == ["open", "ready"]
    answer = (await plan(admin, "m", HI))["answer"]
    assert (answer["status"], answer["code"]) == (502, "upstream_refused_credentials")


async def test_all_plans(admin: httpx.AsyncClient) -> None:
    found = (await admin.get("/plans")).json()["plans"]
    assert [(one["model"], one["aliases"]) for one in found] == [
        ("m", ["alias-of-m"]),
        ("org/model-x", []),
        ("both", []),
    ]
    assert found[0] == {
        "model": "m",
        "aliases": ["alias-of-m"],
        "policy": "ordered",
        "while_loading": "fallback",
        "offered": False,
        "targets": [
            {
                "target": "up/upstream-m",
                "replica": None,
                "model": "m",
                "group": "own",
                "state": "ready",
            }
        ],
    }


async def test_a_server_without_keys_knows_none(serve: Serve, upstream: ScriptedUpstream) -> None:
    async with await admin_of(await serve(config_of(upstream))) as admin:
        assert (await refused(admin, "m?key=a"))[2] == "There is no key `a`. Keys: none."
        assert (await plan(admin, "m"))["request"]["key"] == "anonymous"


async def test_no_secret_is_told(admin: httpx.AsyncClient) -> None:
    everything = json.dumps([await plan(admin, "both", HI), (await admin.get("/plans")).json()])
    for secret in ("up-key", KEY, AUTH["authorization"]):
        assert secret not in everything


@pytest.mark.parametrize("balance", ["ordered", "weighted", "cheapest", "affinity", "least_busy"])
async def test_the_next_request_goes_where_the_plan_says(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, balance: str
) -> None:
    config = config_of(upstream, second)
    config["models"]["both"]["balance"] = balance
    for place, weight in zip(config["models"]["both"]["targets"], (1, 3), strict=True):
        place["weight"] = weight
    server = await serve(config)
    went = []
    async with await admin_of(server) as admin, httpx.AsyncClient(base_url=server.url) as http:
        for turn in range(6):
            ask = {"messages": [{"role": "user", "content": f"hi {turn}"}]}
            told = [await plan(admin, "both", ask) for _ in range(2)]
            assert steps(told[0]) == steps(told[1])
            first = told[0]["targets"][0]["target"]
            (upstream if first == "up/a" else second).queue(chat_answer())
            answer = await http.post("/v1/chat/completions", json={"model": "both", **ask})
            assert answer.headers["x-roundhouse-target"] == first
            went.append(first)
    if balance == "weighted":
        assert set(went) == {"up/a", "second/b"}


async def test_a_body_that_does_not_come(serve: Serve, upstream: ScriptedUpstream) -> None:
    server = await serve(config_of(upstream, server={"timeouts": {"body": "50ms"}}))
    assert server.admin_url is not None
    host, _, port = server.admin_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /plans/m HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_before_its_body_is_in(server: Roundhouse) -> None:
    pieces = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> dict[str, Any]:
        return next(pieces, {"type": "http.disconnect"})

    scope = {"type": "http", "path_params": {"model": "m"}, "query_string": b"", "headers": []}
    with pytest.raises(ClientGone):
        await PlanEndpoints(server.services).one(HttpRequest(scope, receive))
