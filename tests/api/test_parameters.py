"""Defaults, ceilings and costs, from a card's file to the upstream and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.registry.catalog import Catalog
from server.serving import Roundhouse
from tests.api.conftest import ASK, Serve
from tests.fakes.catalog import HUB, OPENAI
from tests.fakes.upstream import (
    ScriptedUpstream,
    answer_json,
    chat_answer,
    chat_stream,
    embeddings_answer,
    error,
)

CHAT = "/v1/chat/completions"
MESSAGES = ASK["messages"]


async def serving(
    serve: Serve,
    folder: Path,
    models: dict[str, Any],
    upstream: ScriptedUpstream,
    second: ScriptedUpstream | None = None,
    **more: Any,
) -> Roundhouse:
    """In front of `openai` and `huggingface`, with the made-up cards."""
    for name, cards in (("openai", OPENAI), ("hub", HUB)):
        (folder / f"{name}.json").write_text(json.dumps(cards))
    providers: dict[str, Any] = {
        "openai": {"base_url": f"{upstream.url}/v1", "api_key": "k"},
        "lab": {"dialect": "openai", "base_url": f"{upstream.url}/v1"},
    }
    if second is not None:
        providers["lab"]["base_url"] = f"{second.url}/v1"
    return await serve(
        {
            "version": 1,
            "server": {
                "port": 0,
                "admin": "127.0.0.1:0",
                "timeouts": {"drain": "5s"},
                **more.pop("server", {}),
            },
            "providers": providers,
            "models": models,
            "cards": ["openai.json", "hub.json"],
            **more,
        }
    )


async def ask(server: Roundhouse, path: str = CHAT, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
        return await client.post(path, json=body)


def count(server: Roundhouse, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0.0


# --- defaults


async def test_a_card_fills_what_a_client_leaves_out(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    server = await serving(serve, tmp_path, {"gpt-big": {}}, upstream)
    upstream.default = chat_answer()
    await ask(server, model="gpt-big", messages=MESSAGES)
    await ask(server, model="gpt-big", messages=MESSAGES, temperature=0, max_tokens=5)
    await ask(server, model="openai/gpt-big", messages=MESSAGES)
    first, second, third = (request.json() for request in upstream.requests)
    told = {"model": "gpt-big", "messages": MESSAGES}
    assert first == {**told, "temperature": 0.9, "max_completion_tokens": 1000}
    assert second == {**told, "temperature": 0, "max_tokens": 5}
    assert third == told  # what is asked for by the provider's own id goes as it is


async def test_the_configs_defaults_win_and_engine_only_ones_stay_away_from_providers(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    entry = {
        "card": "acme/Small-1B",
        "targets": [{"provider": "lab", "model": "small"}],
        "defaults": {
            "top_p": 0.5,
            "temperature": None,
            "max_tokens": 7,
            "chat_template_kwargs": {"enable_thinking": False},
        },
    }
    server = await serving(serve, tmp_path, {"s": entry}, upstream)
    upstream.default = chat_answer()
    await ask(server, model="s", messages=MESSAGES)
    sent = upstream.requests[0].json()
    assert sent == {
        "model": "small",
        "messages": MESSAGES,
        "top_k": 20,
        "top_p": 0.5,
        "max_tokens": 7,
    }


async def test_a_fallback_has_its_own(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    models = {
        "s": {
            "targets": [{"provider": "lab", "model": "s"}],
            "fallbacks": ["gpt-big"],
            "defaults": {"seed": 1},
            "ceilings": {"temperature": 1},
            "over_ceiling": "clamp",
        },
        "gpt-big": {},
    }
    server = await serving(serve, tmp_path, models, upstream, second)
    second.queue(answer_json(500, error("boom")))
    upstream.queue(chat_answer())
    answer = await ask(server, model="s", messages=MESSAGES, temperature=1.5)
    assert answer.headers["x-roundhouse-target"] == "openai/gpt-big"
    assert "x-roundhouse-clamped" not in answer.headers
    assert second.requests[0].json() == {
        "model": "s",
        "messages": MESSAGES,
        "temperature": 1,
        "seed": 1,
    }
    assert upstream.requests[0].json() == {
        "model": "gpt-big",
        "messages": MESSAGES,
        "temperature": 1.5,
        "max_completion_tokens": 1000,
    }


# --- ceilings


@pytest.mark.parametrize("stream", [False, True])
async def test_clamped(
    stream: bool, serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    entry = {"ceilings": {"max_tokens": 10, "temperature": 1}, "over_ceiling": "clamp"}
    server = await serving(serve, tmp_path, {"gpt-big": entry}, upstream)
    upstream.default = chat_stream() if stream else chat_answer()
    body = {"model": "gpt-big", "messages": MESSAGES, "stream": stream}
    answer = await ask(server, **body, max_tokens=11, temperature=2)
    assert answer.status_code == 200
    assert answer.headers["x-roundhouse-clamped"] == "max_tokens,temperature"
    sent = upstream.requests[0].json()
    assert (sent["max_tokens"], sent["temperature"]) == (10, 1)
    answer = await ask(server, **body)
    assert "x-roundhouse-clamped" not in answer.headers
    sent = upstream.requests[1].json()
    assert (sent["max_completion_tokens"], sent["temperature"]) == (10, 0.9)


async def test_refused_before_any_attempt(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    models = {
        "gpt-big": {"ceilings": {"max_tokens": 10}, "fallbacks": ["free"]},
        "free": {"targets": [{"provider": "lab", "model": "free"}]},
        "same": {"alias": "gpt-big"},
    }
    server = await serving(serve, tmp_path, models, upstream)
    for name in ("gpt-big", "same"):
        answer = await ask(server, model=name, messages=MESSAGES, max_completion_tokens=11)
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "`max_completion_tokens` is 11; the limit of this model is 10.",
            "type": "invalid_request_error",
            "param": "max_completion_tokens",
            "code": "over_limit",
        }
    assert upstream.requests == []


async def test_a_fallback_over_its_ceiling_is_passed_over(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    models = {
        "s": {
            "targets": [{"provider": "lab", "model": "s"}],
            "fallbacks": ["gpt-big", "embed-1"],
        },
        "gpt-big": {"ceilings": {"max_tokens": 10}},
        "embed-1": {},
    }
    server = await serving(serve, tmp_path, models, upstream, second)
    second.queue(answer_json(500, error("boom")))
    upstream.queue(chat_answer())
    answer = await ask(server, model="s", messages=MESSAGES, max_tokens=11)
    assert answer.headers["x-roundhouse-target"] == "openai/embed-1"


# --- costs


async def test_what_a_whole_answer_costs(
    serve: Serve,
    tmp_path: Path,
    upstream: ScriptedUpstream,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from server.telemetry import logs

    server = await serving(serve, tmp_path, {"gpt-big": {}, "embed-1": {}}, upstream)
    logs.configure("info", "json")
    upstream.queue(chat_answer(prompt_tokens=1000, completion_tokens=100), embeddings_answer())
    answer = await ask(server, model="gpt-big", messages=MESSAGES)
    assert answer.headers["x-roundhouse-cost-usd"] == "0.0028"
    labels = {"model": "gpt-big", "target": "openai/gpt-big"}
    assert count(server, "roundhouse_cost_usd_total", **labels) == pytest.approx(0.0028)
    answer = await ask(server, "/v1/embeddings", model="embed-1", input="a")
    assert answer.headers["x-roundhouse-cost-usd"] == "0.0000001"
    logs.flush()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "req_" in line]
    assert [line["cost_usd"] for line in lines] == [0.0028, 1e-07]


async def test_a_streams_cost_is_in_the_books_only(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    entry = {"targets": [{"provider": "lab", "model": "x"}], "prices": {"input": 3, "output": 5}}
    server = await serving(serve, tmp_path, {"m": entry}, upstream)
    upstream.queue(chat_stream(["a", "b"], cached_tokens=3))
    answer = await ask(server, model="m", messages=MESSAGES, stream=True)
    assert "x-roundhouse-cost-usd" not in answer.headers
    cost = count(server, "roundhouse_cost_usd_total", model="m", target="lab/x")
    assert cost == pytest.approx((7 * 3 + 2 * 5) / 1e6)


async def test_the_cost_is_of_the_target_that_answered_or_unknown(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    models = {
        "gpt-big": {"targets": [{"provider": "openai"}, {"provider": "lab", "model": "gpt-big"}]}
    }
    server = await serving(serve, tmp_path, models, upstream, second)
    upstream.queue(answer_json(500, error("boom")))
    upstream.queue(chat_answer(prompt_tokens=100, completion_tokens=0))
    second.queue(chat_answer())
    answer = await ask(server, model="gpt-big", messages=MESSAGES)
    assert answer.headers["x-roundhouse-target"] == "lab/gpt-big"
    assert "x-roundhouse-cost-usd" not in answer.headers  # nobody says what the lab takes
    answer = await ask(server, model="openai/big", messages=MESSAGES)
    assert answer.headers["x-roundhouse-cost-usd"] == "0.0002"
    assert count(server, "roundhouse_cost_usd_total", model="other", target="openai/*") > 0


# --- names of other APIs


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": MESSAGES, "max_new_tokens": 5}, "max_new_tokens"),
        (CHAT, {"inputs": "hi"}, "inputs"),  # and not: `messages` is missing
        ("/v1/completions", {"prompt": "a", "parameters": {"do_sample": True}}, "parameters"),
        ("/v1/embeddings", {"inputs": "a"}, "inputs"),
    ],
)
async def test_older_names_are_told_of(
    path: str,
    body: dict[str, Any],
    param: str,
    serve: Serve,
    tmp_path: Path,
    upstream: ScriptedUpstream,
) -> None:
    server = await serving(serve, tmp_path, {"gpt-big": {}}, upstream)
    answer = await ask(server, path, model="gpt-big", **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert (error["code"], error["type"]) == ("unsupported_parameter", "invalid_request_error")
    assert upstream.requests == []


async def test_what_vllm_takes_goes_on(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    entry = {"targets": [{"provider": "lab", "model": "x"}]}
    server = await serving(serve, tmp_path, {"m": entry}, upstream)
    upstream.queue(chat_answer())
    more: dict[str, Any] = {"top_k": 5, "repetition_penalty": 1.1, "min_p": 0.1, "ignore_eos": True}
    await ask(server, model="m", messages=MESSAGES, **more)
    assert upstream.requests[0].json() == {"model": "x", "messages": MESSAGES, **more}


async def test_no_request_looks_for_a_card_again(
    serve: Serve, tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serving(serve, tmp_path, {"mine": {"card": "gpt-big"}}, upstream, catalog="auto")
    upstream.default = chat_answer()

    def find(self: Catalog, name: str) -> None:
        raise AssertionError(name)

    for name in ("openai/big", "openai/any"):  # names that the config does not have
        await ask(server, model=name, messages=MESSAGES)
    monkeypatch.setattr(Catalog, "find", find)
    for name in ("mine", "gpt-big", "big", "openai/big", "openai/any"):
        answer = await ask(server, model=name, messages=MESSAGES)
        assert answer.status_code == 200
