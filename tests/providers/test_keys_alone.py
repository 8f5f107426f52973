"""A server without a config: keys in the environment are enough."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from server.config import load
from server.config.cards import SERVED
from server.config.providers_table import ROWS as TABLE
from server.protocol.envelope import Surface
from server.registry.cards import AccessMethod, ModelInfo, ModelType, Status
from server.registry.catalog import builtin
from server.serving import Roundhouse
from tests.fakes.messages import message_answer
from tests.fakes.upstream import ScriptedUpstream, answer_json, chat_answer, error
from tests.providers.house import CHAT, ask, client_of, start
from tests.providers.rows import ROWS
from tests.providers.said import SECRET
from tests.providers.test_parameters import good

VARIABLES = [
    (name, variable)
    for name, row in TABLE.items()
    if row.base_url is not None
    for variable in row.variables
]
Alone = Callable[[dict[str, str]], AbstractAsyncContextManager[Roundhouse]]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, upstream: ScriptedUpstream, tmp_path: Path) -> Alone:
    """Starts a server from an environment; the upstream is at every provider's place."""
    for name, row in TABLE.items():
        if row.base_url is not None:
            there = f"{upstream.url}{urlsplit(row.base_url).path}"
            monkeypatch.setitem(TABLE, name, replace(row, base_url=there))

    @asynccontextmanager
    async def started(environ: dict[str, str]) -> AsyncIterator[Roundhouse]:
        loaded = load.from_keys(
            embedded=False,
            environ={**environ, "ROUNDHOUSE_HOME": str(tmp_path / "home")},
            overrides={"server.port": 0, "server.admin": "off"},
            cwd=tmp_path,
        )
        async with Roundhouse(loaded) as server:
            yield server

    return started


def of(provider: str) -> list[ModelInfo]:
    """The cards of its models that are served."""
    return [
        card
        for card in builtin().values()
        if card.provider == provider
        and card.access_method is not AccessMethod.LOCAL
        and card.type in SERVED
        and card.status is not Status.RETIRED
    ]


def a_chat(provider: str) -> str:
    kinds = (ModelType.CHAT, ModelType.MULTIMODAL)
    return next(card.model_id for card in of(provider) if card.type in kinds)


async def test_every_model_of_both_by_its_id(alone: Alone, upstream: ScriptedUpstream) -> None:
    async with (
        alone({"OPENAI_API_KEY": SECRET, "ANTHROPIC_API_KEY": "sk-ant-1"}) as server,
        bare(server) as http,
    ):
        listed = {
            one["id"]: one["owned_by"] for one in (await http.get("/v1/models")).json()["data"]
        }
        for provider in ("openai", "anthropic"):
            wanted = {card.model_id: provider for card in of(provider)}
            assert wanted
            assert wanted.items() <= listed.items()
        assert set(listed.values()) == {"openai", "anthropic"}
        upstream.default = message_answer("Hello")
        model = a_chat("anthropic")
        answer = await http.post(CHAT, json=ask(model))
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
        upstream.default = chat_answer()
        model = a_chat("openai")
        answer = await http.post(CHAT, json=ask(model))
        assert answer.status_code == 200, answer.text
    first, second = upstream.requests
    assert (first.target, first.header("x-api-key")) == ("/v1/messages", "sk-ant-1")
    assert second.target == "/v1/chat/completions"
    assert second.header("authorization") == f"Bearer {SECRET}"


def bare(server: Roundhouse) -> httpx.AsyncClient:
    """A client without a key: none is asked for."""
    return httpx.AsyncClient(base_url=server.url, timeout=10)


@pytest.mark.parametrize(("name", "variable"), VARIABLES)
async def test_each_variable_is_its_providers_key(
    alone: Alone, upstream: ScriptedUpstream, name: str, variable: str
) -> None:
    row = ROWS[name]
    upstream.default = good(TABLE[name].dialect)
    async with alone({variable: SECRET}) as server, bare(server) as http:
        answer = await http.post(CHAT, json=ask(f"{name}/any-id"))
        assert answer.status_code == 200, answer.text
    (sent,) = upstream.requests
    assert sent.target == urlsplit(row.url).path
    assert row.auth is not None
    assert sent.header(row.auth[0]) == row.auth[1] + SECRET


async def test_azure_needs_a_base_url_besides(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.default = chat_answer()
    azure = {"base_url": f"{upstream.url}/openai/v1"}
    environ = {"AZURE_OPENAI_API_KEY": SECRET}
    async with start(tmp_path, {"azure": azure}, environ) as server, client_of(server) as http:
        assert (await http.post(CHAT, json=ask("azure/deployed"))).status_code == 200
    assert upstream.requests[0].header("api-key") == SECRET


async def test_a_key_goes_to_no_other_address(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.default = chat_answer()
    environ = {"OPENAI_API_KEY": SECRET}
    elsewhere = {"openai": {"base_url": f"{upstream.url}/v1"}}
    async with start(tmp_path, elsewhere, environ) as server, client_of(server) as http:
        assert (await http.post(CHAT, json=ask("openai/some"))).status_code == 200
    assert upstream.requests[0].header("authorization") is None


PATHS: dict[tuple[str, Surface], str] = {
    ("anthropic", Surface.CHAT): "/messages",
    ("cohere", Surface.CHAT): "/chat",
    ("cohere", Surface.EMBEDDINGS): "/embed",
    ("cohere", Surface.RERANK): "/rerank",
}
USUAL = {
    Surface.CHAT: "/chat/completions",
    Surface.COMPLETIONS: "/completions",
    Surface.EMBEDDINGS: "/embeddings",
    Surface.RERANK: "/rerank",
}
BODIES: dict[Surface, dict[str, Any]] = {
    Surface.CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    Surface.COMPLETIONS: {"prompt": "Hello"},
    Surface.EMBEDDINGS: {"input": "Hello"},
    Surface.RERANK: {"query": "Hello", "documents": ["Hello", "Bye"]},
}


async def test_each_call_goes_where_its_row_has_it_or_nowhere(
    alone: Alone, upstream: ScriptedUpstream
) -> None:
    upstream.default = answer_json(418, error("not now"))
    environ = {row.variables[0]: SECRET for row in TABLE.values() if row.variables}
    async with alone(environ) as server, bare(server) as http:
        for name, row in TABLE.items():
            if row.base_url is None or not row.variables:
                continue
            for surface, body in BODIES.items():
                seen = len(upstream.requests)
                model = f"{name}/{surface}"
                answer = await http.post(f"/v1{USUAL[surface]}", json={"model": model, **body})
                if surface in row.surfaces:
                    assert answer.status_code == 418, (name, surface, answer.text)
                    path = PATHS.get((row.dialect, surface), USUAL[surface])
                    targets = {sent.target for sent in upstream.requests[seen:]}
                    assert targets == {urlsplit(row.base_url).path + path}
                else:
                    assert answer.status_code == 400, (name, surface)
                    assert answer.json()["error"]["code"] == "unsupported_endpoint"
                    assert len(upstream.requests) == seen
