"""What the model list says, and what is said of a model that is not on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server.api.facts import facts
from server.config.cards import About, Prices, about
from server.config.resolve import ResolvedModel, ResolvedTarget, ResolvedTimeouts
from tests.api.conftest import KEY, Serve, config_of
from tests.api.test_parameters import MESSAGES, ask, serving
from tests.fakes.catalog import OPENAI, catalog
from tests.fakes.upstream import ScriptedUpstream, chat_answer

CATALOG = catalog()
TIMES = ResolvedTimeouts(1, 1, 1)
ENGINE = ResolvedTarget("e", None, None, TIMES)


def holds_null(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(
            holds_null(one) for one in (value.values() if isinstance(value, dict) else value)
        )
    return value is None


# --- facts


def test_what_is_known_of_a_model() -> None:
    target = ResolvedTarget(None, "openai", "gpt-big", TIMES, Prices(2.0, None, 8.0))
    model = ResolvedModel("m", (ENGINE, target), alias_of="x", about=about(CATALOG["gpt-big"]))
    assert facts(model) == {
        "card": "gpt-big",
        "provider": "openai",
        "type": "chat",
        "context_window": 128000,
        "max_output": 4096,
        "abilities": {"tools": True, "audio": False},
        "licence": {"id": "proprietary", "kind": "proprietary"},
        "status": "current",
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "alias_of": "x",
        "targets": ["engine/e", "openai/gpt-big"],
    }
    assert facts(ResolvedModel("m", (target,)))["prices"] == {"input": 2.0, "output": 8.0}


def test_what_is_not_known_is_left_out() -> None:
    assert facts(ResolvedModel("e", (ENGINE,))) == {"targets": ["engine/e"]}
    small = facts(ResolvedModel("e", (ENGINE,), about=about(CATALOG["acme/Small-1B"])))
    assert small["size_class"] == "small"
    retired = facts(ResolvedModel("e", (ENGINE,), about=about(CATALOG["gpt-old"])))
    assert (retired["status"], retired["retires"]) == ("retired", "2026-03-01")
    assert retired["replaced_by"] == "gpt-mid"


@pytest.mark.parametrize("card", CATALOG.values(), ids=lambda card: card.model_id)
def test_nothing_is_null(card: Any) -> None:
    for known in (about(card), About(card=card), About()):
        assert not holds_null(facts(ResolvedModel("m", (ENGINE,), about=known)))


# --- the list


async def test_the_list(serve: Serve, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    entry = {
        "card": "gpt-big",
        "owned_by": "us",
        "context_window": 9,
        "abilities": {"vision": True},
        "prices": {"input": 0},
    }
    models = {"mine": entry, "same": {"alias": "mine"}}
    server = await serving(serve, tmp_path, models, upstream, catalog="auto", default="same")
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        listed = {model.id: model async for model in client.models.list()}
        alias = await client.models.retrieve("gpt-big-2026-01-01")
        upstreams = await client.models.retrieve("openai/big")
        unheard = await client.models.retrieve("openai/unheard")
    # Those of the built-in catalog are there, too, between and after the made-up ones.
    made_up = ["mine", "same", "default", "gpt-big", "gpt-mid", "embed-1"]
    assert [name for name in listed if name in made_up] == made_up
    assert list(listed)[:3] == made_up[:3]
    extra = {name: dict(model.model_extra or {})["roundhouse"] for name, model in listed.items()}
    assert extra["mine"]["context_window"] == 9
    assert extra["mine"]["abilities"] == {"tools": True, "audio": False, "vision": True}
    assert extra["mine"]["prices"] == {"input": 0}
    assert extra["default"] == extra["same"] == {**extra["mine"], "alias_of": "mine"}
    assert extra["gpt-big"]["prices"] == {"input": 2.0, "cached_input": 0.5, "output": 8.0}
    assert [listed[name].owned_by for name in made_up] == [
        *("us", "roundhouse", "roundhouse", "openai", "openai", "openai")
    ]
    assert dict(alias.model_extra or {})["roundhouse"] == {
        **extra["gpt-big"],
        "alias_of": "gpt-big",
    }
    assert dict(upstreams.model_extra or {})["roundhouse"]["card"] == "gpt-big"
    assert dict(unheard.model_extra or {})["roundhouse"] == {
        "provider": "openai",
        "targets": ["openai/unheard"],
    }
    assert all(model.created > 0 for model in listed.values())


# --- what is not on it


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "gpt-old",
            (
                "since 2026-03-01: openai answers no more for it. Its successor is `gpt-big`. This "
                "server has that as `mine`."
            ),
        ),
        (
            "embed-1",
            (
                "The registry knows it at openai, where this server has an account: keys that may "
                "use `openai/*` can ask for `openai/embed-1`."
            ),
        ),
        ("openai/gpt-mid", None),
        ("GPT-BIG", "This server has it as `mine`."),
        ("acme/Small-1B", "at huggingface: get a key at https://huggingface.co/settings"),
        ("acme/Weights-7B", "an engine with `weights: acme/Weights-7B`."),
        ("paint-1", "this server serves no image."),
        ("mein", "The model `mein` does not exist. Did you mean `mine`?"),
        ("zzzzzz", "The model `zzzzzz` does not exist. GET /v1/models lists"),
    ],
)
async def test_what_is_said_of_a_model_that_is_not_here(
    name: str, said: str | None, serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    server = await serving(serve, tmp_path, {"mine": {"card": "gpt-big"}}, upstream)
    upstream.default = chat_answer()
    answer = await ask(server, model=name, messages=MESSAGES)
    if said is None:  # it is one of `provider/any-upstream-id`
        assert len(upstream.requests) == 1
        return
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert said in error["message"]


async def test_a_successor_that_the_key_may_not_use_is_not_had(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    keys = [{"name": "narrow", "key": KEY, "models": ["other"]}]
    more = {"keys": keys}
    server = await serving(serve, tmp_path, {"mine": {"card": "gpt-big"}}, upstream, server=more)
    async with httpx.AsyncClient(headers={"x-api-key": KEY}, base_url=server.url) as client:
        answer = await client.post(
            "/v1/chat/completions", json={"model": "gpt-old", "messages": MESSAGES}
        )
    assert answer.json()["error"]["message"].endswith("This server does not have that.")


async def test_a_reload_makes_the_list_anew(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    server = await serve(config_of(upstream))
    async with httpx.AsyncClient(base_url=server.url) as client:
        first = (await client.get("/v1/models")).json()["data"]
    text = (tmp_path / "roundhouse.yaml").read_text()
    (tmp_path / "roundhouse.yaml").write_text(text.replace("upstream-m", "upstream-n"))
    assert (await server.reload()).result == "ok"
    async with httpx.AsyncClient(base_url=server.url) as client:
        second = (await client.get("/v1/models")).json()["data"]
    assert [model["roundhouse"]["targets"] for model in (first[0], second[0])] == [
        ["up/upstream-m"],
        ["up/upstream-n"],
    ]


# --- keys and names


async def test_a_key_for_an_alias_of_the_catalog_sees_that_alias(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    keys = [
        {"name": "dated", "key": KEY, "models": ["gpt-big-2026*"]},
        {"name": "both", "key": KEY[::-1], "models": ["gpt-big*"]},
    ]
    server = await serving(
        serve, tmp_path, {}, upstream, catalog="auto", server={"keys": keys}, default="openai/x"
    )
    upstream.default = chat_answer()
    listed = {}
    for key in (KEY, KEY[::-1]):
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            listed[key] = [m["id"] for m in (await client.get("/v1/models")).json()["data"]]
            by_own = await client.post(
                "/v1/chat/completions", json={"model": "gpt-big", "messages": MESSAGES}
            )
            assert by_own.status_code == (403 if key == KEY else 200)
    assert listed == {KEY: ["gpt-big-2026-01-01"], KEY[::-1]: ["gpt-big"]}


async def test_a_default_at_a_provider_has_its_card(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    server = await serving(serve, tmp_path, {}, upstream, default="openai/gpt-big")
    async with httpx.AsyncClient(base_url=server.url) as client:
        found = (await client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in found] == ["openai/gpt-big", "default"]
    assert [model["roundhouse"]["card"] for model in found] == ["gpt-big", "gpt-big"]


async def test_an_id_beats_an_alias_in_what_a_provider_route_costs(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    first = {
        "model_id": "other",
        "name": "Other",
        "type": "chat",
        "aliases": ["gpt-big"],
        "cost": {"input": 1000.0, "output": 1000.0},
    }
    own = {**OPENAI, "models": [first]}
    (tmp_path / "first.json").write_text(json.dumps(own))
    server = await serving(
        serve, tmp_path, {}, upstream, cards=["first.json", "openai.json", "hub.json"]
    )
    upstream.default = chat_answer()
    answer = await ask(server, model="openai/gpt-big", messages=MESSAGES)
    assert 0 < float(answer.headers["x-roundhouse-cost-usd"]) < 0.001
