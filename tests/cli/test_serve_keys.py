"""A whole server from keys alone, without vLLM: what it lists, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.cli.inside import Inside
from server.config import load
from server.config.cards import SERVED
from server.registry.cards import AccessMethod, ModelInfo, Status
from server.registry.catalog import builtin

KEYS = {
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "DEEPSEEK_API_KEY": "deepseek",
    "MISTRAL_API_KEY": "mistral",
    "HUGGINGFACE_API_KEY": "huggingface",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[httpx.Client]:
    environ = {**dict.fromkeys(KEYS, "sk-of-nobody"), "ROUNDHOUSE_HOME": str(tmp_path / "home")}
    loaded = load.from_keys(
        embedded=False,
        environ=environ,
        overrides={"server.port": 0, "server.admin": "off", "log.access": False},
        cwd=tmp_path,
    )
    with Inside(loaded) as inside, httpx.Client(base_url=inside.url) as client:
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
