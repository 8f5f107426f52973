"""What tests of dialects share: requests, streams cut at random places, and the OpenAI SDK, in its
strict mode, as the reader of what we make of them."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.dialects.base import Asked, Dialect, Outgoing, Reader
from server.protocol import envelope, sse
from server.protocol.envelope import Surface
from server.protocol.request import Request

ASKED = Asked(Surface.CHAT, "theirs", "chatcmpl-1", 1_700_000_000, wants_usage=True)
QUIET = Asked(Surface.CHAT, "theirs", "chatcmpl-1", 1_700_000_000)
HELLO = [{"role": "user", "content": "Hello"}]


def recorded(folder: Path, provider: str) -> list[dict[str, Any]]:
    """The exchanges with one provider."""
    with (folder / f"{provider}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


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
    dialect: Dialect,
    body: dict[str, Any],
    *,
    drop: Sequence[str] = (),
    model: str = "theirs",
    surface: Surface = Surface.CHAT,
    wants_usage: bool = True,
    **settings: Any,
) -> Outgoing:
    """What goes out for a client's body; a chat has `messages` unless the body has some."""
    if surface is Surface.CHAT:
        body = {"messages": HELLO, **body}
    request = request_of({"model": "m", **body}, surface)
    request.wants_usage = wants_usage
    return dialect.request_out(
        request, model=model, members=request.members, drop=frozenset(drop), settings=settings
    )


def cut(stream: bytes, seed: int) -> Iterator[bytes]:
    """A stream in pieces of 1 to 80 bytes, as no line, event or character wants it."""
    places, start = random.Random(seed), 0
    while start < len(stream):
        end = start + places.randint(1, 80)
        yield stream[start:end]
        start = end


def read(reader: Reader, stream: bytes, seed: int = 0) -> bytes:
    """The OpenAI stream that a reader makes of theirs."""
    splitter, made = sse.Splitter(1 << 20), b""
    for piece in cut(stream, seed):
        for event in sse.events(splitter.feed(piece)):
            payload = sse.data_of(event)
            if payload is None:
                assert sse.is_silent(event)
            else:
                made += b"".join(sse.event(chunk) for chunk in reader.feed(None, payload))
    assert not splitter.rest.strip()
    return made


def stream_of(*events: dict[str, Any] | str) -> bytes:
    """A stream of these payloads."""
    texts = (one if isinstance(one, str) else json.dumps(one) for one in events)
    return b"".join(b"data: %s\n\n" % text.encode() for text in texts)


def chunks(made: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream of ours, which ends as OpenAI's do."""
    payloads = [sse.data_of(event) for event in sse.events(made)]
    assert payloads[-1] == b"[DONE]"
    return [json.loads(payload or b"") for payload in payloads[:-1]]


# --- the OpenAI SDK


class Canned(httpx2.BaseTransport):
    """Answers with what `answer` was set to: status, body, content type. A client takes long to
    make, so that there is one for all answers."""

    answer: tuple[int, bytes, str] = (200, b"", "")

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        status, body, kind = self.answer
        return httpx2.Response(status, content=body, headers={"content-type": kind})


CANNED = Canned()


@functools.cache
def _client_of(*, strict: bool) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="k",
        http_client=httpx2.Client(transport=CANNED),
        max_retries=0,
        _strict_response_validation=strict,
    )


def reads(status: int, body: bytes, kind: str, *, strict: bool = True) -> openai.OpenAI:
    """OpenAI's SDK, whose next requests get this answer."""
    CANNED.answer = status, body, kind
    return _client_of(strict=strict)


def strict(body: bytes) -> ChatCompletion:
    """A whole answer of ours."""
    client = reads(200, body, "application/json")
    return client.chat.completions.create(model="m", messages=HELLO)  # type: ignore[arg-type]


def strict_embeddings(body: bytes) -> CreateEmbeddingResponse:
    client = reads(200, body, "application/json")
    return client.embeddings.create(model="m", input=["a"], encoding_format="float")


def unpacked_embeddings(body: bytes) -> CreateEmbeddingResponse:
    """As the SDK asks by itself: in base64. Its strict mode does not know its own way."""
    client = reads(200, body, "application/json", strict=False)
    return client.embeddings.create(model="m", input=["a"])


def strict_chunks(made: bytes) -> list[ChatCompletionChunk]:
    """The chunks of a stream of ours, each valid by itself."""
    ask: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": True}
    client = reads(200, made, "text/event-stream")
    return list(client.chat.completions.create(**ask))


def gathered(made: bytes) -> dict[str, Any]:
    """The meaning of a stream of ours: what a client puts together, by the rules of a client that
    is strict: one role, one reason to finish, one usage, one name for everything."""
    found = strict_chunks(made)
    assert len({(c.id, c.created, c.model) for c in found}) == 1
    out: dict[str, Any] = {"text": "", "thinking": "", "calls": [], "citations": []}
    roles, reasons, usages = [], [], []
    for chunk in found:
        if chunk.usage is not None:
            assert not chunk.choices
            usages.append(chunk.usage)
        for choice in chunk.choices:
            delta: Any = choice.delta
            roles += [delta.role] if delta.role else []
            reasons += [choice.finish_reason] if choice.finish_reason else []
            out["text"] += delta.content or ""
            out["thinking"] += getattr(delta, "reasoning_content", None) or ""
            out["citations"] += own_citations(delta, len(out["citations"]))
            for call in delta.tool_calls or []:
                if call.index == len(out["calls"]):
                    assert call.type == "function"
                    out["calls"].append([call.id, call.function.name, ""])
                else:
                    assert call.id is None
                    assert not call.function.name
                out["calls"][call.index][2] += call.function.arguments or ""
    assert roles == ["assistant"]
    assert len(usages) <= 1
    (out["finish"],) = reasons
    out["usage"] = tokens(usages[0]) if usages else None
    return out


def own_citations(said: Any, before: int) -> list[Any]:
    """As the provider wrote them. Ours is the `index`, without which the SDK loses them."""
    found = getattr(said, "citations", None) or []
    assert [one["index"] for one in found] == list(range(before, before + len(found)))
    return [{name: one[name] for name in one if name != "index"} for one in found]


def tokens(usage: Any) -> tuple[int, int, int]:
    """Prompt, completion, cached; the total is what it should be."""
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    details = usage.prompt_tokens_details
    return usage.prompt_tokens, usage.completion_tokens, (details.cached_tokens if details else 0)


def meaning(completion: ChatCompletion) -> dict[str, Any]:
    """The meaning of a whole answer of ours."""
    (choice,) = completion.choices
    message: Any = choice.message
    calls = [[c.id, c.function.name, c.function.arguments] for c in message.tool_calls or []]
    return {
        "text": message.content or "",
        "thinking": getattr(message, "reasoning_content", None) or "",
        "citations": own_citations(message, 0),
        "calls": calls,
        "finish": choice.finish_reason,
        "usage": tokens(completion.usage) if completion.usage else None,
    }


# --- answers in OpenAI's shape, as others send them

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    around = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**around, "choices": [choice], **more}


def answer(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, **more.pop("choice", {})}
    choice["message"] = {"role": "assistant", **message}
    around = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**around, "choices": [choice], "usage": USAGE, **more}).encode()


def plain(body: str) -> dict[str, Any]:
    """What stands in an answer, read without ceremony."""
    found = json.loads(body)
    (choice,) = found["choices"]
    message, usage = choice["message"], found["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return {
        "text": message["content"] or "",
        "thinking": message.get("reasoning_content") or "",
        "citations": [],
        "calls": [
            [call["id"], call["function"]["name"], call["function"]["arguments"]]
            for call in message.get("tool_calls") or []
        ],
        "finish": choice["finish_reason"],
        "usage": (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            details.get("cached_tokens", usage.get("cached_tokens", 0)),
        ),
    }


def plain_stream(body: str) -> dict[str, Any]:
    out: dict[str, Any] = {"text": "", "thinking": "", "citations": [], "calls": []}
    for line in body.splitlines():
        if not line.startswith("data: {"):
            continue
        found = json.loads(line[6:])
        for choice in found["choices"]:
            out["text"] += choice["delta"].get("content") or ""
            out["thinking"] += choice["delta"].get("reasoning_content") or ""
            out["finish"] = choice["finish_reason"] or out.get("finish")
        if usage := found.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens", 0)
            out["usage"] = usage["prompt_tokens"], usage["completion_tokens"], cached
    return out


def reads_as_it_stands(dialect: Dialect, recordings: Path) -> None:
    """Recorded traffic of a provider that speaks like OpenAI means what stands in its bytes: there
    is no SDK of theirs that reads more."""
    exchanges = recorded(recordings, dialect.name)
    assert exchanges
    streams = 0
    for one in exchanges:
        body = one["body"]
        if "event-stream" not in one["headers"]["content-type"]:
            assert meaning(strict(dialect.answer_in(body.encode(), ASKED)[0])) == plain(body)
            continue
        streams += 1
        for seed in range(5):
            reader = dialect.reader(ASKED)
            made = read(reader, body.encode(), seed)
            assert gathered(made) == plain_stream(body)
            assert len(strict_chunks(made)) >= 3
            assert reader.done
    assert streams == 1
