"""Calls that a model's type is not for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.kinds import Kinds
from server.config.resolve import resolve_models
from server.config.schema import Config
from server.protocol.envelope import Surface
from server.serving import Roundhouse
from tests.api.conftest import ASK, Serve
from tests.fakes.catalog import catalog
from tests.fakes.upstream import ScriptedUpstream, answer_json

CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASK["messages"]},
    "/v1/completions": {"prompt": "a"},
    "/v1/embeddings": {"input": "a"},
    "/v1/rerank": {"query": "a", "documents": ["a"]},
}
CHAT, TEXT, EMBED, RANK = CALLS
CARDS: dict[str, Any] = {
    "provider": "lab",
    "sources": {},
    "defaults": {"access_method": "both", "description": "Made up for tests."},
    "models": [
        {"model_id": "talk", "name": "Talk", "type": "chat", "aliases": ["talk-1"]},
        {"model_id": "vectors", "name": "Vectors", "type": "embedding"},
        {"model_id": "order", "name": "Order", "type": "rerank"},
        {"model_id": "paint", "name": "Paint", "type": "image"},
        {
            "model_id": "guessed",
            "name": "Guessed",
            "type": "chat",
            "exceptions": {"type": "The list does not say what it does; chat is assumed."},
        },
    ],
}


@pytest.fixture
async def typed(serve: Serve, tmp_path: Path, upstream: ScriptedUpstream) -> Roundhouse:
    """Models of each kind at one provider, and the same under names of the config's."""
    (tmp_path / "lab.json").write_text(json.dumps(CARDS))
    upstream.default = answer_json(200, {"id": "x", "model": "m", "results": [], "data": []})
    lab = {"dialect": "openai", "base_url": f"{upstream.url}/v1", "api_key": "k"}
    return await serve(
        {
            "version": 1,
            "server": {"port": 0, "timeouts": {"drain": "5s"}},
            "providers": {"lab": lab},
            "cards": ["lab.json"],
            "catalog": "auto",
            "models": {
                "mine": {"targets": [{"provider": "lab", "model": "order"}]},
                "also-mine": {"alias": "mine"},
                "said": {"targets": [{"provider": "lab", "model": "talk"}], "type": "embedding"},
                "unknown": {"targets": [{"provider": "lab", "model": "never-heard-of"}]},
            },
        }
    )


async def call(server: Roundhouse, path: str, model: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url) as client:
        return await client.post(path, json={"model": model, **CALLS[path]})


@pytest.mark.parametrize(
    ("model", "kind", "wrong"),
    [
        ("talk", "chat", (EMBED, RANK)),
        ("talk-1", "chat", (EMBED, RANK)),
        ("lab/talk", "chat", (EMBED, RANK)),
        ("vectors", "embedding", (CHAT, TEXT)),
        ("order", "rerank", (CHAT, TEXT, EMBED)),
        ("lab/order", "rerank", (CHAT, TEXT, EMBED)),
        ("also-mine", "rerank", (CHAT, TEXT, EMBED)),
        ("said", "embedding", (CHAT, TEXT)),
        ("paint", "image", ()),
        ("guessed", "chat", ()),
        ("lab/guessed", "chat", ()),
        ("unknown", "", ()),
        ("lab/never-heard-of", "", ()),
    ],
)
async def test_a_call_that_the_type_is_not_for(
    typed: Roundhouse,
    upstream: ScriptedUpstream,
    model: str,
    kind: str,
    wrong: tuple[str, ...],
) -> None:
    if model == "paint":
        model = "lab/paint"  # no call here is for its type, so it is not offered by its id
    for path in CALLS:
        answer = await call(typed, path, model)
        assert answer.status_code == (400 if path in wrong else 200), (path, answer.text)
        if path in wrong:
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("model", "unsupported_endpoint")
            assert f"`{model}` is of the type `{kind}`" in error["message"]
            assert path in error["message"]
    assert len(upstream.requests) == len(CALLS) - len(wrong)


async def test_models_that_the_call_is_for_are_named(typed: Roundhouse) -> None:
    said = (await call(typed, RANK, "talk")).json()["error"]["message"]
    assert said.endswith("Models that are: mine, also-mine, order.")


def test_engines_that_make_something_else_of_their_weights_may_be_anything() -> None:
    weights = "acme/Small-1B"  # whose card says: for chats
    engines: dict[str, Any] = {
        "plain": {"weights": weights},
        "turned": {"weights": weights, "args": {"runner": "pooling"}},
        "theirs": {"runtime": "external", "urls": ["http://127.0.0.1:1"], "model": weights},
        "own": {"runtime": "command", "cmd": "s --embeddings ${PORT}", "weights": weights},
    }
    models: dict[str, Any] = {name: {"targets": [{"engine": name}]} for name in engines}
    models["said"] = {"targets": [{"engine": "turned"}], "type": "embedding"}
    kinds = kinds_of(engines=engines, models=models)
    embeds = {name: kinds.refusal(name, Surface.EMBEDDINGS, list) is None for name in models}
    assert embeds == {"plain": False, "turned": True, "theirs": True, "own": True, "said": True}
    assert kinds.refusal("said", Surface.CHAT, list) is not None
    for surface in (Surface.TOKENIZE, Surface.DETOKENIZE):
        assert all(kinds.refusal(name, surface, list) is None for name in models)


def test_names_that_clients_make_up_are_not_kept_without_end() -> None:
    kinds = kinds_of(providers={"openai": {"api_key": "k"}})
    for n in range(600):
        assert kinds.refusal(f"openai/{n}", Surface.RERANK, list) is None
    assert kinds.refusal("openai/gpt-big", Surface.RERANK, list) is not None
    assert kinds.refusal("nobody", Surface.RERANK, list) is None
    assert len(kinds._unlisted) == 512


def kinds_of(**config: Any) -> Kinds:
    checked, cards = Config.model_validate({"version": 1, **config}), catalog()
    return Kinds(checked, resolve_models(checked, cards), cards)
