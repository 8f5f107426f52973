"""Bodies that are odd, or large."""

from __future__ import annotations

import asyncio
import difflib
import json
import time
import tracemalloc
from collections.abc import Collection
from typing import Any, cast

import httpx
import pytest

from server.api import unknown
from server.api.cycle import Cycle
from server.api.intake import BodyBudget, parse, read_body
from server.config.schema import Limits
from server.errors import ConfigError
from server.protocol import envelope
from server.protocol.envelope import Surface
from server.telemetry.metrics import Metrics
from tests.api.conftest import ASK, Serve, config_of
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "fields",
    [
        b'"functions":[{"name":"f","x":1e999}]',
        b'"functions":[{"name":"f","x":%s}]' % (b"9" * 5000),
        b'"tools":[%s1e999%s]' % (b'{"a":' * 20, b"}" * 20),
    ],
)
async def test_numbers_beyond_all_bounds(http: httpx.AsyncClient, fields: bytes) -> None:
    body = json.dumps(ASK).encode()[:-1] + b"," + fields + b"}"
    answer = await http.post(CHAT, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_type")


async def test_a_large_body_holds_up_nobody(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is parsed beside the event loop, and comes out as it went in."""
    upstream.default = chat_answer()
    seen: list[bool] = []

    def check(body: bytes, **more: object) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            seen.append(True)
        else:
            seen.append(False)

    monkeypatch.setattr("server.protocol.text.check", check)
    for text in ("x", "x" * 2**20):
        ask = {**ASK, "messages": [{"role": "user", "content": text}]}
        assert (await http.post(CHAT, json=ask)).status_code == 200
        assert upstream.requests[-1].json()["messages"] == ask["messages"]
    assert seen == [False, True]


def test_a_name_of_megabytes_is_like_none() -> None:
    began = time.perf_counter()
    assert unknown.near_matches("ab" * 2**22, ["ab", "m"]) == []
    assert time.perf_counter() - began < 5


def test_of_thousands_of_names_only_the_likeliest_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    ours = difflib.get_close_matches

    def counted(word: str, known: Collection[str], **how: Any) -> list[str]:
        compared.append(len(known))
        return ours(word, known, **how)

    monkeypatch.setattr("difflib.get_close_matches", counted)
    known = [f"vendor-{n}/model-{n % 7}b-chat" for n in range(9000)]
    found = unknown.near_matches("qwem/Qwen3-8b", [*known, "Qwen/Qwen3-8B"])
    assert found[0] == "Qwen/Qwen3-8B"
    assert unknown.near_matches("gtp", ["gpt", "m"]) == ["gpt"]
    assert compared == [256, 2]


async def test_counts_of_tokens_beyond_all_bounds(
    http: httpx.AsyncClient, admin: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    """They are no reason to lose the request's line in the books."""
    usage = {"prompt_tokens": 10**400, "completion_tokens": 3}
    upstream.queue(answer_json(200, {"choices": [], "usage": usage}))
    assert (await http.post(CHAT, json=ASK)).status_code == 200
    text = (await admin.get("/metrics")).text
    assert 'roundhouse_requests_total{endpoint="chat",model="m",status="200"} 1.0' in text
    assert 'roundhouse_tokens_total{kind="completion",model="m"} 3.0' in text


async def test_a_providers_model_id_may_hold_any_sign(
    serve: Serve, upstream: ScriptedUpstream
) -> None:
    config = config_of(upstream)
    config["models"]["m"]["targets"][0]["model"] = "ein Modell\n"
    with pytest.raises(ConfigError, match="targets"):
        await serve(config)
    config["models"]["m"]["targets"][0]["model"] = "ein Modell é"
    server = await serve(config)
    upstream.queue(chat_answer())
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.post(CHAT, json=ASK)
    assert answer.headers["x-roundhouse-target"] == "up/ein Modell %C3%A9"
    assert upstream.requests[0].json()["model"] == "ein Modell é"


class Arriving:
    """A cycle whose body comes in pieces, one for each `more`."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.coming = pieces[::-1]
        self.here: list[bytes] = []

    @property
    def more_body(self) -> bool:
        return bool(self.coming)

    def take(self) -> list[bytes]:
        here, self.here = self.here, []
        return here

    async def more(self) -> None:
        self.here.append(self.coming.pop())


async def test_a_large_body_is_copied_twice_and_made_into_no_objects() -> None:
    size = 4 << 20
    ask = {**ASK, "messages": [{"role": "user", "content": 'grüße [{"' * (size // 11)}]}
    body = json.dumps(ask, ensure_ascii=False).encode()
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    limits = Limits()
    budget = BodyBudget(1 << 30, Metrics())
    headers = {b"content-type": b"application/json"}
    tracemalloc.start()
    try:
        cycle = cast(Cycle, Arriving(pieces))
        whole, _, seen = await read_body(headers, cycle, limits=limits, timeout=5, budget=budget)
        assert whole == body
        _, members, _ = parse(Surface.CHAT, whole, limits, seen)
        out = envelope.emit(members)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(out) > size * 0.9
    # The pieces put together, and the object written anew, with the half more that msgspec's
    # buffer grows by; a third copy would not fit.
    assert peak < 2.7 * len(body)
