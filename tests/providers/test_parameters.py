"""Parameters that a provider has no word for: refused by name, dropped by leave, or sent to another
target that has it."""

from __future__ import annotations

from typing import Any, Final

import openai
import pytest

from server.serving import Roundhouse
from tests.fakes.exchange import Script
from tests.fakes.messages import message_answer, message_stream
from tests.fakes.scripts import answer_json
from tests.fakes.upstream import ScriptedUpstream, chat_answer, chat_stream
from tests.providers.conftest import Sdk
from tests.providers.house import CHAT, HELLO, Serve, ask, client_of
from tests.providers.rows import ROWS

SCHEMA: Final = {"name": "s", "schema": {"type": "object", "properties": {}}}
#: Dialect, a member that it lacks, and which param a refusal names.
LACKS: Final = [
    ("anthropic", "seed", 1),
    ("anthropic", "logit_bias", {"5": 1}),
    ("anthropic", "presence_penalty", 0.5),
    ("anthropic", "min_p", 0.1),
    ("cohere", "logit_bias", {"5": 1}),
    ("cohere", "verbosity", "low"),
    ("mistral", "logit_bias", {"5": 1}),
    ("mistral", "min_p", 0.1),
    ("deepseek", "response_format", {"type": "json_schema", "json_schema": SCHEMA}),
    ("anthropic", "n", 2),
    ("cohere", "n", 2),
    ("deepseek", "n", 2),
    ("anthropic", "logprobs", True),
]
COHERE: Final = {
    "id": "c1",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
    "usage": {"tokens": {"input_tokens": 7, "output_tokens": 2}},
}


def good(dialect: str, *, stream: bool = False) -> Script:
    """An answer of theirs."""
    if dialect == "cohere":
        return ROWS["cohere"].quirks[0].script if stream else answer_json(200, COHERE)
    if dialect == "anthropic":
        return message_stream(["Hello"]) if stream else message_answer("Hello")
    return chat_stream() if stream else chat_answer()


async def house(
    serve: Serve,
    dialect: str,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    *,
    drop: str | None = None,
    at: str = "",
) -> Roundhouse:
    """`m` is one target; `both` has one that speaks like OpenAI behind it. `at`: who drops."""
    version = "v2" if dialect == "cohere" else "v1"
    account: dict[str, Any] = {"dialect": dialect, "base_url": f"{upstream.url}/{version}"}
    target: dict[str, Any] = {"provider": "lab", "model": "theirs"}
    if drop is not None:
        (account if at == "provider" else target)["drop"] = [drop]
    other = {"provider": "other", "model": "theirs"}
    return await serve(
        {"lab": account, "other": {"dialect": "openai", "base_url": f"{second.url}/v1"}},
        models={"m": {"targets": [target]}, "both": {"targets": [target, other]}},
    )


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("dialect", "name", "value"), LACKS)
async def test_refused_by_name(
    serve: Serve,
    sdk: Sdk,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    dialect: str,
    name: str,
    value: Any,
    stream: bool,
) -> None:
    server = await house(serve, dialect, upstream, second)
    create: Any = sdk(server).chat.completions.create
    with pytest.raises(openai.BadRequestError) as caught:
        await create(model="m", messages=HELLO, stream=stream, extra_body={name: value})
    found: Any = caught.value.body
    assert found["param"] == name
    assert found["code"] in ("unsupported_parameter", "unsupported_ability")
    assert found["type"] == "invalid_request_error"
    assert "x-should-retry" not in caught.value.response.headers
    assert upstream.requests == []


@pytest.mark.parametrize("at", ["provider", "target"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("dialect", "name", "value"), LACKS)
async def test_dropped_by_leave(
    serve: Serve,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    dialect: str,
    name: str,
    value: Any,
    stream: bool,
    at: str,
) -> None:
    upstream.queue(good(dialect, stream=stream))
    server = await house(serve, dialect, upstream, second, drop=name, at=at)
    async with client_of(server) as http:
        answer = await http.post(CHAT, json=ask(stream=stream, **{name: value}))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-roundhouse-dropped"] == name
    assert "x-roundhouse-clamped" not in answer.headers
    assert name not in upstream.requests[0].json()


async def test_a_providers_list_is_for_ids_that_no_entry_names_too(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    server = await house(serve, "anthropic", upstream, second, drop="seed", at="provider")
    upstream.queue(good("anthropic"))
    async with client_of(server) as http:
        answer = await http.post(CHAT, json=ask("lab/any-id", seed=1))
    assert (answer.status_code, answer.headers["x-roundhouse-dropped"]) == (200, "seed")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("dialect", "name", "value"), LACKS)
async def test_another_target_has_a_word_for_it(
    serve: Serve,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    dialect: str,
    name: str,
    value: Any,
    stream: bool,
) -> None:
    second.queue(good("openai", stream=stream))
    server = await house(serve, dialect, upstream, second)
    async with client_of(server) as http:
        answer = await http.post(CHAT, json=ask("both", stream=stream, **{name: value}))
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-roundhouse-target"] == "other/theirs"
        assert answer.headers["x-roundhouse-attempts"] == "1"
        assert answer.headers["x-roundhouse-fallback-from"] == "lab/theirs"
        assert "x-roundhouse-dropped" not in answer.headers
        assert second.requests[0].json()[name] == value
        assert upstream.requests == []
        # Who does not ask for it is asked where the order says.
        upstream.queue(good(dialect))
        answer = await http.post(CHAT, json=ask("both"))
        assert answer.headers["x-roundhouse-target"] == "lab/theirs"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("dialect", "name", "value", "sent"),
    [
        ("anthropic", "temperature", 1.5, {"temperature": 1}),
        ("cohere", "top_p", 1, {"p": 0.99}),
        ("cohere", "presence_penalty", -0.5, {"presence_penalty": 0}),
        ("cohere", "top_k", 1000, {"k": 500}),
    ],
)
async def test_brought_into_their_range(
    serve: Serve,
    upstream: ScriptedUpstream,
    second: ScriptedUpstream,
    dialect: str,
    name: str,
    value: Any,
    sent: dict[str, Any],
    stream: bool,
) -> None:
    upstream.queue(good(dialect, stream=stream))
    server = await house(serve, dialect, upstream, second)
    async with client_of(server) as http:
        answer = await http.post(CHAT, json=ask(stream=stream, **{name: value}))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-roundhouse-clamped"] == name
    assert "x-roundhouse-dropped" not in answer.headers
    assert sent.items() <= upstream.requests[0].json().items()


@pytest.mark.parametrize(
    "dialect", ["openai", "anthropic", "cohere", "deepseek", "huggingface", "mistral"]
)
async def test_what_only_an_engines_owner_may_set_goes_nowhere(
    serve: Serve, upstream: ScriptedUpstream, second: ScriptedUpstream, dialect: str
) -> None:
    """And is named; so is what merely advises, where it has no word."""
    upstream.queue(good(dialect))
    server = await house(serve, dialect, upstream, second)
    async with client_of(server) as http:
        answer = await http.post(CHAT, json=ask(cache_salt="s", store=True))
    assert answer.status_code == 200, answer.text
    dropped = set(answer.headers["x-roundhouse-dropped"].split(","))
    said = upstream.requests[0].json()
    assert "cache_salt" in dropped
    assert "cache_salt" not in said
    assert ("store" in dropped) is ("store" not in said)
