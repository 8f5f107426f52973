"""What is read in answers, and must be the same: by OpenAI's SDK in ours, by the provider's own SDK
in the recorded one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import anthropic
import httpx2
import huggingface_hub
import openai
from cohere.core.api_error import ApiError
from huggingface_hub.errors import HfHubHTTPError
from mistralai.client.errors import MistralError
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.dialects import mistral_reading
from tests.dialects.anthropic import helpers as anthropic_sdk
from tests.dialects.anthropic import reading as anthropic_reading
from tests.dialects.cohere import reading as cohere_reading
from tests.dialects.replay import CANNED, HELLO, own_citations, reads, tokens
from tests.replay.exchanges import Exchange

Meaning = dict[str, Any]

# --- ours


def of_answer(completion: ChatCompletion) -> Meaning:
    """What a whole answer of ours means."""
    (choice,) = completion.choices
    message: Any = choice.message
    return {
        "text": message.content or "",
        "thinking": getattr(message, "reasoning_content", None) or "",
        "details": _blocks(getattr(message, "reasoning_details", None) or []),
        "citations": own_citations(message, 0),
        "calls": [
            [call.id, call.function.name, call.function.arguments]
            for call in message.tool_calls or []
            if call.type == "function"
        ],
        "finish": choice.finish_reason,
        "usage": tokens(completion.usage) if completion.usage else None,
        "thought": _thought(completion.usage),
    }


def of_chunks(chunks: Iterable[ChatCompletionChunk], *, strict: bool = True) -> Meaning:
    """What a stream means. `strict`: by the rules of ours: one role, one reason to finish, one
    usage in a chunk of its own, a call's id and name once, one name for everything."""
    out: Meaning = {"text": "", "thinking": "", "details": [], "citations": [], "calls": []}
    roles, reasons, usages, names = [], [], [], set()
    for chunk in chunks:
        names.add((chunk.id, chunk.created, chunk.model))
        if chunk.usage is not None:
            assert not (strict and chunk.choices)
            usages.append(chunk.usage)
        for choice in chunk.choices:
            delta: Any = choice.delta
            roles += [delta.role] if delta.role else []
            reasons += [choice.finish_reason] if choice.finish_reason else []
            out["text"] += delta.content or ""
            out["thinking"] += getattr(delta, "reasoning_content", None) or ""
            out["details"] += getattr(delta, "reasoning_details", None) or []
            out["citations"] += own_citations(delta, len(out["citations"]))
            for call in delta.tool_calls or []:
                if call.index == len(out["calls"]):
                    assert call.type == "function"
                    out["calls"].append([call.id, call.function.name, ""])
                elif strict:
                    assert call.id is None
                    assert not call.function.name
                out["calls"][call.index][2] += call.function.arguments or ""
    if strict:
        assert roles == ["assistant"]
        assert len(reasons) == len(usages) == len(names) == 1
    out["details"] = _blocks(out["details"])
    out["finish"] = reasons[-1]
    out["usage"] = tokens(usages[-1])
    out["thought"] = _thought(usages[-1])
    return out


def _blocks(details: list[Meaning]) -> list[Meaning]:
    """The provider's own blocks; `index` and `after` are ours, and say where they stood."""
    assert [detail["index"] for detail in details] == list(range(len(details)))
    return [
        {name: value for name, value in detail.items() if name not in ("index", "after")}
        for detail in details
    ]


def _thought(usage: Any) -> int:
    """The tokens of reasoning."""
    details = usage.completion_tokens_details if usage else None
    return (details.reasoning_tokens or 0) if details else 0


# --- theirs


def theirs(one: Exchange) -> Meaning:
    """What a recorded chat's answer means to the provider's own SDK. `finish` is `error` where the
    provider gave up in the midst of a stream."""
    return {
        "details": [],
        "citations": [],
        "thinking": "",
        "thought": 0,
        **_READERS[one.provider](one),
    }


def _openai(one: Exchange) -> Meaning:
    """Their SDK and DeepSeek's, in the mode that people use."""
    found = as_openai_reads(one)
    return of_answer(found) if not one.streamed else of_chunks(found, strict=False)


def as_openai_reads(one: Exchange) -> Any:
    """A completion, the list of chunks, or embeddings."""
    client = reads(one.status, one.body, one.kind, strict=False)
    if one.path.endswith("/embeddings"):
        return client.embeddings.create(model="m", input="a", encoding_format="base64")
    ask: dict[str, Any] = {"model": "m", "messages": HELLO, "stream": one.streamed}
    found: Any = client.chat.completions.create(**ask)
    return list(found) if one.streamed else found


def _huggingface(one: Exchange) -> Meaning:
    found: Any = _hub(one).chat_completion(HELLO, model="m", stream=one.streamed)
    if not one.streamed:
        (choice,) = found.choices
        message = choice.message
        return {
            "text": message.content or "",
            "calls": [
                [call.id, call.function.name, call.function.arguments]
                for call in message.tool_calls or []
            ],
            "finish": choice.finish_reason,
            "usage": _hub_tokens(found.usage),
        }
    chunks = list(found)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert not any(choice.delta.tool_calls for choice in choices)
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "calls": [],
        "finish": next(choice.finish_reason for choice in choices if choice.finish_reason),
        "usage": _hub_tokens(next(chunk.usage for chunk in chunks if chunk.usage)),
    }


def _hub(one: Exchange) -> huggingface_hub.InferenceClient:
    """Its client, whose next request gets this answer."""
    CANNED.answer = one.status, one.body, one.kind
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=CANNED))
    return huggingface_hub.InferenceClient(base_url="http://127.0.0.1/v1", api_key="k")


def _hub_tokens(usage: Any) -> tuple[int, int, int]:
    details = getattr(usage, "prompt_tokens_details", None) or {}
    cached = details.get("cached_tokens") or getattr(usage, "cached_tokens", None) or 0
    return usage.prompt_tokens, usage.completion_tokens, cached


def _mistral(one: Exchange) -> Meaning:
    if one.streamed:
        return mistral_reading.streamed(one.body.decode())
    return mistral_reading.whole(one.body.decode(), one.status)


def _cohere(one: Exchange) -> Meaning:
    return (cohere_reading.streamed if one.streamed else cohere_reading.whole)(one.data)


def _anthropic(one: Exchange) -> Meaning:
    said = anthropic_sdk.theirs(one.body, stream=one.streamed, status=one.status)
    found = anthropic_reading.meaning(said)
    return {
        "text": found["text"],
        "thinking": found["thinking"],
        "details": found["details"],
        "citations": found["citations"],
        "calls": [[identity, name, json.dumps(given)] for identity, name, given in found["calls"]],
        "finish": found["finish"],
        "usage": (found["prompt"], found["completion"], found["cached"]),
        "thought": found["thought"],
    }


_READERS: dict[str, Callable[[Exchange], Meaning]] = {
    "anthropic": _anthropic,
    "cohere": _cohere,
    "deepseek": _openai,
    "huggingface": _huggingface,
    "mistral": _mistral,
    "openai": _openai,
}


# --- errors

#: What the providers' SDKs call otherwise than OpenAI's; "": for any status, or for many.
_CLASSES = {
    "ApiError": "",
    "ContentTooLargeError": "APIStatusError",
    "ForbiddenError": "PermissionDeniedError",
    "GatewayTimeoutError": "InternalServerError",
    "HTTPValidationError": "UnprocessableEntityError",
    "HfHubHTTPError": "",
    "OverloadedError": "InternalServerError",
    "RequestTimeoutError": "APIStatusError",
    "SDKError": "",
    "ServiceUnavailableError": "InternalServerError",
    "TooManyRequestsError": "RateLimitError",
    "UnauthorizedError": "AuthenticationError",
}


class Raised(NamedTuple):
    """What the provider's own SDK raises. `kind`: OpenAI's class of that sense; "": its SDK has
    none. `words` are None where they stand nowhere by themselves."""

    kind: str
    status: int
    words: str | None = None


def raised(one: Exchange) -> Raised:
    """What the provider's own SDK makes of an answer that is an error."""
    try:
        _READERS[one.provider](one)
    except anthropic.APIStatusError as error:
        return _named(error, error.status_code, error.api_message)
    except (ApiError, openai.APIStatusError) as error:
        body: Any = error.body
        return _named(error, error.status_code, body["message"])
    except MistralError as error:
        return _named(error, error.status_code)
    except HfHubHTTPError as error:
        return _named(error, error.response.status_code)
    raise AssertionError(f"{one.place} raises nothing")


def _named(error: Exception, status: int | None, words: str | None = None) -> Raised:
    name = type(error).__name__
    assert status is not None
    return Raised(_CLASSES.get(name, name), status, words)
