"""What the tests of this dialect share: requests, answers, and the SDKs as readers of bytes."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

import httpx2
import openai
from anthropic import Anthropic as Sdk
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from server.dialects.anthropic import Anthropic
from server.dialects.anthropic.request import SAMPLING_PARAMETERS
from server.dialects.base import Asked, Dialect, Outgoing, Reader
from server.protocol import envelope, sse
from server.protocol.envelope import Surface
from server.protocol.request import Request

DIALECT: Dialect = Anthropic()
ASKED = Asked(Surface.CHAT, "claude", "chatcmpl-1", 1_700_000_000, wants_usage=True)
MODEL = "claude-opus-4-6"
SETTINGS = {"max_tokens": 4096}
HELLO = [{"role": "user", "content": "Hello"}]
_WHOLE = TypeAdapter[Any](MessageCreateParamsNonStreaming)
_STREAM = TypeAdapter[Any](MessageCreateParamsStreaming)


def request_of(body: dict[str, Any], surface: Surface = Surface.CHAT) -> Request:
    return Request(
        id="req_1",
        surface=surface,
        model="m",
        members=envelope.members(json.dumps(body).encode()),
        stream=bool(body.get("stream")),
        wants_usage=True,
        legacy_functions=False,
        tenant=None,
        arrived=0.0,
        deadline=1.0,
    )


def sent(
    body: dict[str, Any],
    *,
    drop: Sequence[str] = (),
    model: str = MODEL,
    surface: Surface = Surface.CHAT,
    **settings: Any,
) -> Outgoing:
    """What goes out for a client's body; `messages` are there unless the body has some."""
    request = request_of({"model": "m", "messages": HELLO, **body}, surface)
    return DIALECT.request_out(
        request,
        model=model,
        members=request.members,
        drop=frozenset(drop),
        settings={**SETTINGS, **settings},
    )


def out(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    """The body that goes out, once the official SDK's types have found nothing wrong with it."""
    return checked(json.loads(sent(body, **how).body))


def checked(body: dict[str, Any]) -> dict[str, Any]:
    """The official SDK's request types take this body, and know every member of it. They are those
    of the later version, which has no sampling."""
    known = {name: value for name, value in body.items() if name not in SAMPLING_PARAMETERS}
    found = (_STREAM if body.get("stream") else _WHOLE).validate_python(known)
    assert _whole(found) == known
    return body


def _whole(value: Any) -> Any:
    """Lazy iterables, which validate as they are walked, as lists."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value]


def cut(stream: bytes, seed: int) -> Iterator[bytes]:
    """A stream in pieces of 1 to 60 bytes, as no line, event or character wants it."""
    places, start = random.Random(seed), 0
    while start < len(stream):
        end = start + places.randint(1, 60)
        yield stream[start:end]
        start = end


def read(stream: bytes, asked: Asked = ASKED, seed: int = 0) -> tuple[bytes, Reader]:
    """The OpenAI stream that our reader makes of theirs, and the reader."""
    reader, splitter, made = DIALECT.reader(asked), sse.Splitter(1 << 20), b""
    for piece in cut(stream, seed):
        for event in sse.events(splitter.feed(piece)):
            if (payload := sse.data_of(event)) is not None:
                made += b"".join(sse.event(chunk) for chunk in reader.feed(None, payload))
    assert not splitter.rest.strip()
    return made, reader


def stream_of(*events: dict[str, Any]) -> bytes:
    """Their stream of these events."""
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in events
    )


class _Canned(httpx2.BaseTransport):
    """Answers with what `answer` was set to. A client takes long to make, so that there is one."""

    answer: tuple[int, bytes, str] = (200, b"", "")

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        status, body, kind = self.answer
        return httpx2.Response(status, content=body, headers={"content-type": kind})


_CANNED = _Canned()


@functools.cache
def _theirs() -> Sdk:
    return Sdk(api_key="k", http_client=httpx2.Client(transport=_CANNED), max_retries=0)


@functools.cache
def _openai() -> openai.OpenAI:
    http = httpx2.Client(transport=_CANNED)
    return openai.OpenAI(
        api_key="k", http_client=http, max_retries=0, _strict_response_validation=True
    )


def theirs(body: bytes, *, stream: bool = False, status: int = 200) -> Any:
    """What the official Anthropic SDK makes of an answer of theirs."""
    _CANNED.answer = (status, body, "text/event-stream" if stream else "application/json")
    ask: dict[str, Any] = {"model": "m", "max_tokens": 1, "messages": HELLO}
    if not stream:
        return _theirs().messages.create(**ask)
    with _theirs().messages.stream(**ask) as events:
        return events.get_final_message()


def strict(body: bytes, *, status: int = 200) -> ChatCompletion:
    """What the OpenAI SDK, in its strict mode, makes of an answer of ours."""
    _CANNED.answer = (status, body, "application/json")
    ask: dict[str, Any] = {"model": "m", "messages": HELLO}
    return cast("ChatCompletion", _openai().chat.completions.create(**ask))


def strict_chunks(body: bytes) -> list[ChatCompletionChunk]:
    """The same of a stream of ours."""
    _CANNED.answer = (200, body, "text/event-stream")
    ask: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": True}
    return list(_openai().chat.completions.create(**ask))


def gathered(body: bytes) -> ChatCompletion:
    """A stream of ours, put together by the OpenAI SDK."""
    _CANNED.answer = (200, body, "text/event-stream")
    ask: dict[str, Any] = {"model": "m", "messages": HELLO}
    with _openai().chat.completions.stream(**ask) as stream:
        return stream.get_final_completion()
