"""OpenAI-shaped answers and chunks, as vLLM 0.32 writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.fakes.exchange import Exchange, Headers, Script
from tests.fakes.scripts import CREATED, ID, MODEL, Item, Usage, answer_json, done, sse


def usage_of(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    details = None if cached is None else {"cached_tokens": cached}
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": details,
    }


def chat_events(
    texts: Sequence[str] = ("Hel", "lo"),
    *,
    usage: Usage = "none",
    finish: str | None = "stop",
    model: str = MODEL,
    id: str = ID,
    prompt_tokens: int = 7,
    cached_tokens: int | None = None,
    reasoning: Sequence[str] = (),
    tools: Sequence[tuple[str, Sequence[str]]] = (),
    ends: bool = True,
) -> list[Item]:
    """Role chunk, one delta per text, finish chunk, usage chunk, `[DONE]`.

    `finish=None` leaves the finish chunk out, `ends=False` the `[DONE]`. `tools` are names with
    the pieces of their arguments. `auto` usage means none here: there is no request to look at.
    """
    completion = 0

    def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        made = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "choices": choices,
            **more,
        }
        if usage == "null":
            made.setdefault("usage", None)
        elif usage == "every":
            made["usage"] = usage_of(prompt_tokens, completion, cached_tokens)
        return made

    def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
        return {"index": 0, "delta": fields, "logprobs": None, "finish_reason": reason}

    events: list[Item] = [
        chunk([delta(role="assistant", content="")], prompt_token_ids=None),
    ]
    for text in reasoning:
        completion += 1
        events.append(chunk([delta(reasoning=text) | {"token_ids": None}]))
    for text in texts:
        completion += 1
        events.append(chunk([delta(content=text) | {"token_ids": None}]))
    for index, (name, fragments) in enumerate(tools):
        head = {
            "id": f"chatcmpl-tool-{index:032x}",
            "type": "function",
            "index": index,
            "function": {"name": name, "arguments": ""},
        }
        events.append(chunk([delta(tool_calls=[head])]))
        for fragment in fragments:
            completion += 1
            call = {"index": index, "function": {"arguments": fragment}}
            events.append(chunk([delta(tool_calls=[call])]))
    total = usage_of(prompt_tokens, completion, cached_tokens)
    if finish is not None:
        more = {"usage": total} if usage == "finish" else {}
        last = delta(finish, content="") | {"stop_reason": None, "token_ids": None}
        events.append(chunk([last], **more))
    if usage in ("chunk", "null", "every"):
        events.append(chunk([], usage=total))
    if ends:
        events.append(done)
    return events


def chat_stream(
    texts: Sequence[str] = ("Hel", "lo"),
    *,
    usage: Usage = "auto",
    finish: str | None = "stop",
    model: str = MODEL,
    id: str = ID,
    prompt_tokens: int = 7,
    cached_tokens: int | None = None,
    reasoning: Sequence[str] = (),
    tools: Sequence[tuple[str, Sequence[str]]] = (),
    ends: bool = True,
    before: Sequence[Item] = (),
    **how: Any,
) -> Script:
    """`chat_events` over `sse`, which takes the other keywords (`gate`, `splits`, `after`, `then`,
    `separator`, `framing`, `headers`, …). `before` is sent first (comments, an error event)."""

    async def script(exchange: Exchange) -> None:
        kind = usage
        if kind == "auto":
            asked = exchange.json() if exchange.body else {}
            kind = "chunk" if (asked.get("stream_options") or {}).get("include_usage") else "none"
        events = chat_events(
            texts,
            usage=kind,
            finish=finish,
            model=model,
            id=id,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            reasoning=reasoning,
            tools=tools,
            ends=ends,
        )
        await sse([*before, *events], **how)(exchange)

    return script


def completion_stream(
    texts: Sequence[str] = ("Hel", "lo"), *, finish: str = "stop", model: str = MODEL, **how: Any
) -> Script:
    """`/v1/completions` as a stream, without usage."""
    events: list[Item] = [
        {
            "id": ID.replace("chatcmpl", "cmpl"),
            "object": "text_completion",
            "created": CREATED,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "text": text,
                    "logprobs": None,
                    "finish_reason": finish if at == len(texts) - 1 else None,
                    "stop_reason": None,
                }
            ],
        }
        for at, text in enumerate(texts)
    ]
    return sse([*events, done], **how)


def chat_answer(
    text: str = "Hello",
    *,
    finish: str = "stop",
    model: str = MODEL,
    prompt_tokens: int = 7,
    completion_tokens: int = 2,
    tool_calls: Sequence[dict[str, Any]] = (),
    headers: Headers = (),
    **how: Any,
) -> Script:
    """A whole chat completion; `how` goes to `answer_json`."""
    message = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": list(tool_calls),
        "reasoning": None,
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": None,
        "token_ids": None,
    }
    answer = {
        "id": ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": usage_of(prompt_tokens, completion_tokens),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }
    return answer_json(200, answer, headers, **how)


def embeddings_answer(
    vectors: Sequence[Sequence[float]] = ((0.1, 0.2),), *, model: str = MODEL
) -> Script:
    data = [
        {"index": at, "object": "embedding", "embedding": list(vector)}
        for at, vector in enumerate(vectors)
    ]
    answer = {
        "id": "embd-0a1b2c3d",
        "object": "list",
        "created": CREATED,
        "model": model,
        "data": data,
        "usage": usage_of(len(data), 0),
    }
    return answer_json(200, answer)


def models_answer(*names: str) -> Script:
    data = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "vllm"} for name in names
    ]
    return answer_json(200, {"object": "list", "data": data})
