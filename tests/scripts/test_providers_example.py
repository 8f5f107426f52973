"""The example of docs/providers.md, run as it stands there: a row and a dialect that nobody had."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from scripts.providers_page import PAGE
from server.config.load import load
from server.config.providers_table import ROWS, SURFACES, Row
from server.dialects import table
from server.protocol.envelope import Surface
from server.serving import Roundhouse
from tests.fakes.upstream import Gate, ScriptedUpstream, answer_json, sse

ASK: dict[str, Any] = {
    "model": "acme/a-1",
    "messages": [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hello."}],
}
SAID = {"says": "Hello, jello.", "why": "full", "counted": {"in": 7, "out": 5}}
CHAT = "/v1/chat/completions"


def example(name: str) -> str:
    """A block of code from the page."""
    found = re.search(
        rf"<!-- example: {name} -->\n```python\n(.*?)```\n", PAGE.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def http(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has both, with Acme's key in its environment and no other word."""
    module = types.ModuleType("server.dialects.acme")
    exec(compile(example("module"), "acme.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(table._ROOMS, "acme", ("acme", "Acme"))
    monkeypatch.delitem(table.DIALECTS._made, "acme", raising=False)  # type: ignore[attr-defined]
    monkeypatch.setitem(SURFACES, "acme", frozenset({Surface.CHAT}))
    rows: dict[str, Row] = {}
    exec(example("row"), {"ROWS": rows, "Row": Row, "Surface": Surface})
    monkeypatch.setitem(ROWS, "acme", replace(rows["acme"], base_url=f"{upstream.url}/v1"))
    server = {"port": 0, "admin": None, "home": str(tmp_path / "home")}
    config = {"version": 1, "server": server, "providers": {"acme": {}}}
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config))
    loaded = load(path, environ={"ACME_API_KEY": "acme-key"})
    async with (
        Roundhouse(loaded) as running,
        httpx.AsyncClient(base_url=running.url, timeout=10) as client,
    ):
        yield client


async def test_a_whole_answer(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.queue(answer_json(200, SAID))
    answer = await http.post(CHAT, json={**ASK, "temperature": 1.5, "user": "u"})
    told = answer.json()
    assert told["choices"][0]["message"]["content"] == "Hello, jello."
    assert told["choices"][0]["finish_reason"] == "length"
    assert told["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    assert told["model"] == "acme/a-1"
    assert answer.headers["x-roundhouse-clamped"] == "temperature"
    assert answer.headers["x-roundhouse-dropped"] == "user"
    (sent,) = upstream.requests
    assert sent.path == "/v1/talk"
    assert sent.header("authorization") == "Bearer acme-key"
    assert sent.json() == {
        "engine": "a-1",
        "turns": [{"who": "system", "says": "Rhyme."}, {"who": "user", "says": "Hello."}],
        "live": False,
        "heat": 1,
    }


async def test_a_stream(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    pieces: list[Any] = [{"says": "Hello, "}, {"says": "jello."}, {**SAID, "says": ""}]
    upstream.queue(sse(pieces))
    async with openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text for text in texts if text) == "Hello, jello."
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12


async def test_what_it_has_no_word_for(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    answer = await http.post(CHAT, json={**ASK, "seed": 7})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "seed"
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    tools = [{"type": "function", "function": {"name": "look"}}]
    answer = await http.post(CHAT, json={**ASK, "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_ability"
    answer = await http.post("/v1/embeddings", json={"model": "acme/a-1", "input": "Hello."})
    assert answer.json()["error"]["code"] == "unsupported_endpoint"
    assert upstream.requests == []


async def test_a_refusal(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.queue(answer_json(422, {"error": "Too rude."}))
    answer = await http.post(CHAT, json=ASK)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, "Too rude.")


async def test_a_stream_that_breaks(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.queue(sse([{"says": "Hel"}, {"error": "Out of breath."}], gate=gate))
    gate.release(1)
    async with http.stream("POST", CHAT, json={**ASK, "stream": True}) as answer:
        events = (line async for line in answer.aiter_lines() if line)
        assert "Hel" in await anext(events)
        gate.release(1)
        (last,) = [event async for event in events]
    assert '"code":"upstream_error"' in last
