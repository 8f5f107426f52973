"""A whole Roundhouse in front of one vLLM that it takes for three providers: of OpenAI's dialect,
of Anthropic's and of Cohere's. The official OpenAI SDK, strict, hears the same from all three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest
import yaml
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from server.config.load import load
from server.serving import Roundhouse
from tests.integration.second import BEARER, CONTEXT, KEY, MODEL, Heard, Second, heard_in, heard_of
from tests.integration.test_second_dialects import PARIS, SAME, WEATHER, WHAT, call, full, result

THREE: Final = ("plain", "claude", "command")
#: Beyond OpenAI's own parameters.
_EXTRA: Final = frozenset({"top_k"})


@pytest.fixture
async def client(second: Second, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    providers = {
        "plain": {"dialect": "openai", "base_url": f"{second.url}/v1", "api_key": KEY},
        # To vLLM a key is a bearer's, whatever the dialect.
        "claude": {"dialect": "anthropic", "base_url": f"{second.url}/v1", "headers": BEARER},
        "command": {"dialect": "cohere", "base_url": f"{second.url}/cohere/v2", "api_key": KEY},
    }
    config = {
        "version": 1,
        "server": {"port": 0, "admin": "127.0.0.1:0", "home": str(tmp_path / "home")},
        "providers": providers,
        "models": {name: {"targets": [{"provider": name, "model": MODEL}]} for name in THREE},
    }
    path = tmp_path / "roundhouse.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    async with (
        Roundhouse(load(path, environ={})) as server,
        AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="-",
            max_retries=0,
            _strict_response_validation=True,
        ) as client,
    ):
        yield client


async def ask(client: AsyncOpenAI, model: str, body: dict[str, Any]) -> tuple[Heard, Any]:
    """What is heard, and the headers of the answer."""
    known: Any = {name: value for name, value in body.items() if name not in _EXTRA}
    if body.get("stream"):
        known["stream_options"] = {"include_usage": True}
    raw = await client.chat.completions.with_raw_response.create(
        model=model, **known, extra_body={n: v for n, v in body.items() if n in _EXTRA}
    )
    said: Any = raw.parse()
    if not body.get("stream"):
        return heard_of(said.model_dump()), raw.headers
    found: list[ChatCompletionChunk] = [chunk async for chunk in said]
    assert {chunk.id for chunk in found} == {found[0].id}
    return heard_in([chunk.model_dump() for chunk in found]), raw.headers


@pytest.mark.parametrize("name", SAME)
async def test_the_client_hears_the_same(client: AsyncOpenAI, name: str) -> None:
    for stream in (False, True):
        body = full(SAME[name], stream=stream)
        heard = []
        for model in THREE:
            said, headers = await ask(client, model, body)
            heard.append(said)
            assert headers["x-roundhouse-target"] == f"{model}/{MODEL}"
            assert headers["x-roundhouse-attempts"] == "1"
            assert "x-roundhouse-dropped" not in headers
            assert "x-roundhouse-clamped" not in headers
        plain, *others = heard
        assert others == [plain, plain]


@pytest.mark.parametrize("model", THREE)
async def test_a_call_and_its_result(client: AsyncOpenAI, model: str) -> None:
    """One conversation that goes on from dialect to dialect."""
    asks = {"messages": [PARIS], "tools": [WEATHER]}
    first, _ = await ask(client, model, full(asks, stream=True))
    (identity,) = first.ids
    told = {"role": "assistant", "content": None, "tool_calls": [call(identity, "Paris")]}
    body = full({**asks, "messages": [PARIS, told, result(identity, "snow")]})
    said = [(await ask(client, other, body))[0] for other in THREE]
    assert "snow" in said[0].text
    assert said[1:] == [said[0], said[0]]


@pytest.mark.parametrize("model", THREE)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_errors(client: AsyncOpenAI, model: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        await ask(client, model, full({"messages": [WHAT]}, stream=stream, temperature=-1))
    assert "non-negative" in wrong.value.message
    long = {"role": "user", "content": "word " * 2 * CONTEXT}
    with pytest.raises(openai.BadRequestError) as too_long:
        await ask(client, model, full({"messages": [long]}, stream=stream))
    assert str(CONTEXT) in too_long.value.message
    with pytest.raises(openai.NotFoundError) as unknown:
        await ask(client, f"{model}/nobody", full({"messages": [WHAT]}, stream=stream))
    assert "`nobody`" in unknown.value.message


@pytest.mark.parametrize("model", ["claude", "command"])
async def test_what_a_dialect_lacks(client: AsyncOpenAI, model: str) -> None:
    body = full({"messages": [WHAT]}, logit_bias={"1": 5})
    with pytest.raises(openai.BadRequestError) as lacks:
        await ask(client, model, body)
    assert (lacks.value.param, lacks.value.code) == ("logit_bias", "unsupported_parameter")
    assert (await ask(client, "plain", body))[0].text
