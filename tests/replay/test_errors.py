"""Errors that no recording holds, made in each provider's shape, through a server.

What the client's SDK raises is what the provider's own SDK raises, but for what speaks of this
server's account there, and for 529, which OpenAI's API does not have.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.dialects.replay import HELLO
from tests.fakes.exchange import Exchange as Asked
from tests.fakes.exchange import Script
from tests.replay.choose import PROVIDERS
from tests.replay.exchanges import Exchange
from tests.replay.reading import raised
from tests.replay.world import World, name_of, recorded, world_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = {
    "anthropic": "/v1/messages",
    "cohere": "/v2/chat",
    "deepseek": "/chat/completions",
}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
#: These speak of this server's account there, which is nothing of the client's.
ACCOUNT = (401, 402, 403)
WORDS = "So it said itself"


def body_of(provider: str, status: int) -> str:
    """An error in a provider's shape."""
    kind = TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"message": WORDS, "type": kind}
    if provider == "anthropic":
        return json.dumps({"type": "error", "error": error, "request_id": "req_1"})
    if provider == "cohere":
        return json.dumps({"id": "1", "message": WORDS})
    if provider == "mistral":
        if status == 422:
            error = {"loc": ["body", "n"], "msg": WORDS, "type": "value_error"}
            return json.dumps({"detail": [error]})
        return json.dumps({"object": "error", **error, "param": None, "code": "1300"})
    if provider == "huggingface":
        return json.dumps({"error": WORDS})
    return json.dumps({"error": {**error, "param": None, "code": None}})


def made(name: str, provider: str, status: int, body: str, **headers: str) -> Exchange:
    """An exchange with an account of its own, since errors let accounts and targets rest."""
    streamed = status == 200
    kind = "text/event-stream" if streamed else "application/json"
    data = {
        "provider": provider,
        "path": f"/{name}{PATHS.get(provider, '/v1/chat/completions')}",
        "request": {"model": "some-model", "stream": streamed},
        "status": status,
        "headers": {"content-type": kind, **headers},
        "body": body,
    }
    return Exchange(f"{provider}-{name}", data)


FAILED = [
    made(f"status-{status}", provider, status, body_of(provider, status))
    for provider in PROVIDERS
    for status in STATUSES
]
BUSY = [
    made(f"busy-{status}", provider, status, body_of(provider, status), **{"retry-after": "7"})
    for provider in PROVIDERS
    for status in (429, 503)
]

# --- streams that break


def stream(*events: dict[str, Any]) -> str:
    """The events, each by its name where it has one, as all of them write them."""
    return "".join(
        (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    )


def opening(provider: str) -> list[dict[str, Any]]:
    """An answer's beginning, without a word yet."""
    if provider == "anthropic":
        usage = {"input_tokens": 3, "output_tokens": 1}
        return [{"type": "message_start", "message": {"id": "m", "usage": usage}}]
    if provider == "cohere":
        message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
        return [{"type": "message-start", "id": "m", "delta": {"message": message}}]
    return [_chunk({"role": "assistant", "content": ""})]


def word(provider: str) -> list[dict[str, Any]]:
    """The beginning's first word."""
    if provider == "anthropic":
        block = {"type": "text", "text": ""}
        delta: dict[str, Any] = {"type": "text_delta", "text": "Hé"}
        return [
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
        ]
    if provider == "cohere":
        delta = {"message": {"content": {"text": "Hé"}}}
        return [{"type": "content-delta", "index": 0, "delta": delta}]
    return [_chunk({"content": "Hé"})]


def _chunk(delta: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    around = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "some-model"}
    return {**around, "choices": [choice]}


#: How each of them ends an answer that it cannot go on with, and the status of that.
ENDS: dict[str, tuple[dict[str, Any], int]] = {
    "anthropic": (
        {"type": "error", "error": {"type": "overloaded_error", "message": WORDS}},
        503,
    ),
    "cohere": ({"type": "message-end", "delta": {"finish_reason": "ERROR"}}, 502),
    "deepseek": (
        _chunk({}) | {"choices": [{"index": 0, "finish_reason": "insufficient_system_resource"}]},
        502,
    ),
    "huggingface": ({"error": {"message": WORDS, "type": "overloaded", "code": 503}}, 503),
    "mistral": ({"object": "error", "message": WORDS, "type": "x", "code": "3000"}, 500),
    "openai": ({"error": {"message": WORDS, "type": "server_error", "code": None}}, 500),
}
#: An error behind the opening: nothing was said yet, so that it keeps its status. What speaks
#: OpenAI's own dialect is not looked into, and has begun with its first event.
EARLY = [
    made("early", provider, 200, stream(*opening(provider)[provider == "openai" :], end))
    for provider, (end, _) in ENDS.items()
]
#: What comes behind the first word: an error, or nothing any more.
LATE = [
    *(made("late", provider, 200, stream(end)) for provider, (end, _) in ENDS.items()),
    *(made("cut", provider, 200, "") for provider in PROVIDERS),
]


def each(found: list[Exchange]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", found, ids=[one.place for one in found])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    every = [*FAILED, *BUSY, *EARLY, *LATE]
    async with world_of(tmp_path_factory.mktemp("errors"), every) as world:
        yield world


async def asked(one: Exchange, world: World, script: Script | None = None) -> Any:
    world.upstream.default = script or recorded(one)
    body: dict[str, Any] = {"messages": HELLO, "max_tokens": 9, "stream": one.streamed}
    return await world.strict.chat.completions.create(model=name_of(one), **body)


async def refused(one: Exchange, world: World) -> openai.APIStatusError:
    """What the client's SDK raises."""
    with pytest.raises(openai.APIStatusError) as told:
        await asked(one, world)
    return told.value


@each(FAILED)
async def test_an_error(one: Exchange, world: World) -> None:
    theirs, found = raised(one), await refused(one, world)
    assert theirs.status == one.status
    if one.status in ACCOUNT:
        assert (found.status_code, found.code) == (502, "upstream_refused_credentials")
        assert isinstance(found, openai.InternalServerError)
    else:
        assert found.status_code == (503 if one.status == 529 else one.status)
        assert type(found).__name__ == (theirs.kind or type(found).__name__)
    shown = one.status < 500 and one.status not in (*ACCOUNT, 429)
    assert (WORDS in found.message) is shown
    assert theirs.words is None or theirs.words == WORDS
    # What the SDK would try again by itself is of no use now, or not before a while has gone by.
    again = found.status_code in (408, 409, 429) or found.status_code >= 500
    headers = found.response.headers
    assert ("retry-after" in headers) is (found.status_code == 429)
    assert (headers.get("x-should-retry") == "false") is (again and "retry-after" not in headers)


@each(BUSY)
async def test_when_to_come_back(one: Exchange, world: World) -> None:
    found = await refused(one, world)
    assert found.status_code == one.status
    assert found.response.headers["retry-after"] == "7"
    assert "x-should-retry" not in found.response.headers


@each(EARLY)
async def test_an_error_before_the_first_word_has_a_status(one: Exchange, world: World) -> None:
    found = await refused(one, world)
    assert found.status_code == ENDS[one.provider][1]
    assert WORDS not in found.message


@each(LATE)
async def test_an_error_in_the_midst_of_a_stream(one: Exchange, world: World) -> None:
    """What was said is read, and then the SDK raises."""
    heard = asyncio.Event()

    async def script(exchange: Asked) -> None:
        await exchange.head(200, one.data["headers"])
        await exchange.chunk(stream(*opening(one.provider), *word(one.provider)).encode())
        await exchange.wait(heard)
        await exchange.chunk(one.body)

    chunks = await asked(one, world, script)
    async for chunk in chunks:
        if chunk.choices[0].delta.content == "Hé":
            break
    heard.set()
    with pytest.raises(openai.APIError) as told:
        await anext(chunks)
    assert WORDS not in told.value.message
    assert told.value.type == "server_error"
