"""Every row of the table of providers, from OpenAI's SDK through the server to a socket."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from server.config.providers_table import ROWS as TABLE
from server.serving import Roundhouse
from tests.fakes.upstream import ScriptedUpstream
from tests.providers.conftest import Sdk
from tests.providers.house import HELLO, KEY, Serve, start
from tests.providers.rows import ROWS
from tests.providers.said import OURS, SECRET, TELLING, Quirk, Reads, Row, Trouble

QUIRKS = [(name, at) for name, row in ROWS.items() for at in range(len(row.quirks))]
TROUBLES = [(name, at) for name, row in ROWS.items() for at in range(len(row.troubles))]
#: What every request has.
FRAME = {"host", "user-agent", "content-type", "content-length", "accept-encoding"}
#: Headers of ours on answers.
ANSWERED = {
    *("content-type", "content-length", "date", "cache-control", "x-accel-buffering"),
    *("transfer-encoding", "connection", "retry-after", "x-should-retry", "x-request-id"),
    *("openai-processing-ms", "x-roundhouse-target", "x-roundhouse-attempts"),
    "x-roundhouse-waited-ms",
}


def test_every_row_has_a_case_with_its_true_url() -> None:
    paths = {"anthropic": "/messages", "cohere": "/chat"}
    found = {
        name: f"{row.base_url or row.example}{paths.get(row.dialect, '/chat/completions')}"
        for name, row in TABLE.items()
    }
    assert found == {name: row.url for name, row in ROWS.items()}


async def house(serve: Serve, upstream: ScriptedUpstream, name: str) -> Roundhouse:
    """In front of the upstream in the provider's place, at the provider's own path."""
    row, known = ROWS[name], TABLE[name]
    path = urlsplit(str(known.base_url or known.example)).path
    provider = {"base_url": f"{upstream.url}{path}", **row.said}
    if row.auth is not None:
        provider["api_key"] = SECRET
    models = {"m": {"targets": [{"provider": name, "model": "theirs"}]}}
    return await serve({name: provider}, models=models, routing={"attempts": 1})


async def told(client: openai.AsyncOpenAI, *, stream: bool) -> tuple[Any, Reads]:
    """The answer's headers, and what the SDK reads in it."""
    create: Any = client.chat.completions.with_raw_response.create
    if not stream:
        raw = await create(model="m", messages=HELLO)
        answer = raw.parse()
        (choice,) = answer.choices
        message = choice.message
        return raw.headers, Reads(
            message.content or "",
            getattr(message, "reasoning_content", None) or "",
            tuple((c.function.name, c.function.arguments) for c in message.tool_calls or []),
            choice.finish_reason,
            _counts(answer.usage),
        )
    options = {"include_usage": True}
    raw = await create(model="m", messages=HELLO, stream=True, stream_options=options)
    text, thoughts, finish, usage = "", "", "", None
    calls: dict[int, list[str]] = {}
    async for chunk in raw.parse():
        usage = _counts(chunk.usage) or usage
        for choice in chunk.choices:
            delta: Any = choice.delta
            text += delta.content or ""
            thoughts += getattr(delta, "reasoning_content", None) or ""
            thoughts += getattr(delta, "reasoning", None) or ""
            finish = choice.finish_reason or finish
            for call in delta.tool_calls or []:
                known = calls.setdefault(call.index, ["", ""])
                known[0] += call.function.name or ""
                known[1] += call.function.arguments or ""
    made = tuple((name, arguments) for name, arguments in calls.values())
    return raw.headers, Reads(text, thoughts, made, finish, usage)


def _counts(usage: Any) -> tuple[int, int] | None:
    return None if usage is None else (usage.prompt_tokens, usage.completion_tokens)


def nothing_is_told(headers: Any, text: str = "") -> None:
    """Of the account, of their house, and of the way there."""
    for secret in (SECRET, *OURS, TELLING["set-cookie"], "their-inside", "their-bridge"):
        assert secret not in text
        assert all(secret not in value for value in headers.values()), secret
    assert {name.lower() for name in headers} <= ANSWERED


@pytest.mark.parametrize("name", ROWS)
async def test_where_it_goes_and_with_what(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream, name: str
) -> None:
    row: Row = ROWS[name]
    server = await house(serve, upstream, name)
    upstream.queue(row.quirks[0].script)
    await told(sdk(server, strict=False), stream=row.quirks[0].stream)
    (sent,) = upstream.requests
    assert (sent.method, sent.target) == ("POST", urlsplit(row.url).path)
    found = {header.lower(): value for header, value in sent.headers}
    assert len(found) == len(sent.headers), "one stands twice"
    wanted = dict(row.sent)
    if row.auth is not None:
        wanted[row.auth[0]] = row.auth[1] + SECRET
    assert {name: found[name] for name in found.keys() - FRAME} == wanted
    assert found["host"] == f"127.0.0.1:{upstream.port}"
    assert found["content-type"] == "application/json"
    assert (found["accept-encoding"], found["user-agent"]) == ("identity", "roundhouse")
    assert KEY.encode() not in sent.body
    assert sent.json()["model"] == "theirs"


@pytest.mark.parametrize(("name", "at"), QUIRKS)
async def test_a_quirk_of_its_answers(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream, name: str, at: int
) -> None:
    quirk: Quirk = ROWS[name].quirks[at]
    server = await house(serve, upstream, name)
    upstream.queue(quirk.script)
    headers, found = await told(sdk(server), stream=quirk.stream)
    assert found == quirk.reads
    nothing_is_told(headers)
    assert headers["x-roundhouse-target"] == f"{name}/theirs"
    assert headers["x-roundhouse-attempts"] == "1"


@pytest.mark.parametrize(("name", "at"), TROUBLES)
async def test_an_error_of_its_own(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream, name: str, at: int
) -> None:
    trouble: Trouble = ROWS[name].troubles[at]
    server = await house(serve, upstream, name)
    upstream.queue(trouble.script)
    with pytest.raises(openai.APIStatusError) as caught:
        await told(sdk(server), stream=trouble.stream)
    found = caught.value
    assert type(found) is raised(trouble.status)
    body: Any = found.body
    assert (found.status_code, body["code"]) == (trouble.status, trouble.code)
    assert body["param"] == trouble.param
    assert trouble.words in body["message"]
    assert body["type"]
    headers = found.response.headers
    nothing_is_told(headers, found.response.text)
    assert "of the client" not in found.response.text
    assert headers.get("retry-after") == trouble.retry_after
    # By the SDK's own lights it would be tried again.
    again = trouble.status in (408, 409, 429) or trouble.status >= 500
    final = again and trouble.retry_after is None
    assert headers.get("x-should-retry") == ("false" if final else None)


def raised(status: int) -> type[openai.APIStatusError]:
    """What the SDK makes of a status."""
    known: dict[int, type[openai.APIStatusError]] = {
        400: openai.BadRequestError,
        404: openai.NotFoundError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
    }
    if status >= 500:
        return openai.InternalServerError
    return known.get(status, openai.APIStatusError)


async def test_what_google_wants_back_goes_back(
    serve: Serve, sdk: Sdk, upstream: ScriptedUpstream
) -> None:
    """The signature of a thought stands beside its call, and is refused where it is missing."""
    server = await house(serve, upstream, "google")
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **signed}
    upstream.queue(ROWS["google"].quirks[0].script)
    create: Any = sdk(server).chat.completions.create
    found = [chunk async for chunk in await create(model="m", messages=HELLO, stream=True)]
    calls = [c for chunk in found for c in chunk.choices[0].delta.tool_calls or []]
    assert [one.model_extra for one in calls] == [signed, signed]
    upstream.queue(ROWS["xai"].quirks[0].script)
    history: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    await create(model="m", messages=history, stream=True)
    assert upstream.requests[1].json()["messages"] == history


@pytest.mark.parametrize(("name", "at"), TROUBLES)
async def test_no_key_is_in_the_log(
    upstream: ScriptedUpstream,
    sdk: Sdk,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    name: str,
    at: int,
) -> None:
    trouble: Trouble = ROWS[name].troubles[at]
    upstream.queue(trouble.script)

    async def serve(providers: Any, **more: Any) -> Roundhouse:
        return await stack.enter_async_context(start(tmp_path, providers, **more))

    async with AsyncExitStack() as stack:
        server = await house(serve, upstream, name)
        with pytest.raises(openai.APIStatusError):
            await told(sdk(server), stream=trouble.stream)
    said = capfd.readouterr()
    assert f"{name}/theirs" in said.out + said.err
    for secret in (SECRET, KEY):
        assert secret not in said.out + said.err
