"""A whole server from keys alone, without vLLM: what it lists, and what it says of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from server.cli.inside import Inside
from server.config import load
from server.config.cards import SERVED
from server.config.providers_table import ROWS
from server.registry.cards import CHATTING, AccessMethod, ModelInfo, Status
from server.registry.catalog import builtin
from tests.fakes.chat import chat_answer
from tests.fakes.exchange import Script
from tests.fakes.messages import message_answer
from tests.fakes.upstream import ScriptedUpstream

KEYS = {
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "DEEPSEEK_API_KEY": "deepseek",
    "MISTRAL_API_KEY": "mistral",
    "HUGGINGFACE_API_KEY": "huggingface",
}


@contextmanager
def serving(folder: Path) -> Iterator[httpx.Client]:
    environ = {name: f"sk-{provider}" for name, provider in KEYS.items()}
    loaded = load.from_keys(
        embedded=False,
        environ={**environ, "ROUNDHOUSE_HOME": str(folder / "home")},
        overrides={"server.port": 0, "server.admin": "off", "log.access": False},
        cwd=folder,
    )
    with Inside(loaded) as inside, httpx.Client(base_url=inside.url) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(tmp_path) as client:
        yield client


def of(provider: str) -> list[ModelInfo]:
    return [
        card
        for card in builtin().values()
        if card.provider == provider
        and card.access_method is not AccessMethod.LOCAL
        and card.type in SERVED
        and card.status is not Status.RETIRED
    ]


def test_it_is_ready_and_lists_every_model_by_its_id(server: httpx.Client) -> None:
    assert server.get("/ready").status_code == 200
    listed = {model["id"]: model["owned_by"] for model in server.get("/v1/models").json()["data"]}
    for provider in KEYS.values():
        wanted = {card.model_id: provider for card in of(provider)}
        assert wanted
        assert wanted.items() <= listed.items()


def test_a_provider_without_a_key_is_told_with_its_variable_and_page(server: httpx.Client) -> None:
    body = {"model": of("cohere")[0].model_id, "messages": [{"role": "user", "content": "Hi"}]}
    answer = server.post("/v1/chat/completions", json=body)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "model_not_found"
    assert (
        "get a key at https://dashboard.cohere.com/api-keys and set COHERE_API_KEY for the server"
        in error["message"]
    )


@pytest.mark.parametrize(
    ("provider", "path", "answer"),
    [
        ("openai", "/v1/chat/completions", chat_answer("Hi!")),
        ("anthropic", "/v1/messages", message_answer("Hi!")),
        ("deepseek", "/v1/chat/completions", chat_answer("Hi!")),
        ("mistral", "/v1/chat/completions", chat_answer("Hi!")),
        ("huggingface", "/v1/chat/completions", chat_answer("Hi!")),
    ],
)
async def test_a_models_id_is_enough_to_be_answered(
    provider: str, path: str, answer: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = next(card for card in of(provider) if card.type in CHATTING)

    def ask() -> httpx.Response:
        with serving(tmp_path) as client:
            body = {"model": card.model_id, "messages": [{"role": "user", "content": "Hello"}]}
            return client.post("/v1/chat/completions", json=body)

    async with ScriptedUpstream(answer) as upstream:
        here = replace(ROWS[provider], base_url=f"{upstream.url}/v1")
        monkeypatch.setitem(ROWS, provider, here)
        response = await asyncio.to_thread(ask)
    assert response.json()["choices"][0]["message"]["content"] == "Hi!"
    (request,) = upstream.requests
    assert request.path == path
    key = f"sk-{provider}"
    if provider == "anthropic":
        assert request.header("x-api-key") == key
    else:
        assert request.header("authorization") == f"Bearer {key}"
    assert request.json()["model"] == card.model_id
