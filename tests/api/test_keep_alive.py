"""How long a client wishes a model's engine to stay loaded: a header, and a member of the body."""

from __future__ import annotations

import math

import httpx
import pytest
from msgspec import Raw

from server.api import wishes
from tests.api.conftest import ASK
from tests.api.test_wishes import ASK_A, CHAT, http, server
from tests.fakes.upstream import ScriptedUpstream, chat_answer, embeddings_answer

__all__ = ["http", "server"]

STAYS = "x-roundhouse-keep-alive"


@pytest.mark.parametrize(
    ("header", "member", "expected"),
    [
        (None, None, None),
        ("5m", None, 300.0),
        ("90", None, 90.0),
        ("0", None, 0.0),
        ("-1", None, math.inf),
        ("forever", None, math.inf),
        (None, b"300", 300.0),
        (None, b"1.5", 1.5),
        (None, b"0", 0.0),
        (None, b"-1", math.inf),
        (None, b'"10m"', 600.0),
        (None, b'"1h30m0s"', 5400.0),
        (None, b'"-1"', math.inf),
        (None, b'"-1m"', math.inf),
        (None, b"null", None),
        ("1m", b'"2m"', 60.0),
    ],
)
def test_how_long_an_engine_stays(
    header: str | None, member: bytes | None, expected: float | None
) -> None:
    raw = None if member is None else Raw(member)
    found = wishes.keep_alive_of(None if header is None else header.encode(), raw)
    assert found == expected


@pytest.mark.parametrize("said", ["", "soon", "nan", "inf", "--1", "1e9", "5m" * 20, "ü"])
async def test_a_header_that_names_no_time(http: httpx.AsyncClient, said: str) -> None:
    answer = await http.post(CHAT, json=ASK_A, headers={STAYS.encode(): said.encode()})
    error = answer.json()["error"]
    found = answer.status_code, error["code"], error["param"]
    assert found == (400, "invalid_value", STAYS)


@pytest.mark.parametrize("said", [b"true", b"[]", b'"soon"', b'""', b"{}", b"1e999", b"9" * 40])
async def test_a_member_that_names_no_time(http: httpx.AsyncClient, said: bytes) -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"keep_alive":%s}' % said
    answer = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    found = answer.status_code, error["code"], error["param"]
    assert found == (400, "invalid_value", "keep_alive")


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
async def test_no_target_sees_it(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, path: str
) -> None:
    upstream.queue(embeddings_answer() if path == "embeddings" else chat_answer())
    asks = {"embeddings": {"input": "x"}, "completions": {"prompt": "x"}}
    body = {"model": "a", **asks.get(path, {"messages": ASK["messages"]}), "keep_alive": "5m"}
    answer = await http.post(f"/v1/{path}", json=body, headers={STAYS: "1m"})
    assert answer.status_code == 200, answer.text
    assert "keep_alive" not in upstream.requests[0].json()
    assert upstream.requests[0].header(STAYS) is None
    assert "x-roundhouse-dropped" not in answer.headers
