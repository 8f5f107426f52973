"""What comes back: answers of each provider, with one word in each part, and where it is found; how
answers end; and what its errors become.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scripts.provider_matrix import NAMES
from server.dialects import openai
from server.dialects.base import Asked
from server.dialects.table import DIALECTS
from server.errors import UpstreamError, UpstreamStatus
from server.protocol.envelope import Surface

_ASKED: Final = Asked(Surface.CHAT, "m", "chatcmpl-1", 1)
#: What to look for, by what it is.
_WORDS: Final = {
    "text": "the-text",
    "thoughts": "the-thought",
    "signed thoughts": "the-signature",
    "calls of tools": "the-tool",
    "plan before calls": "the-plan",
    "citations": "the-source",
    "log probabilities": -0.125,
    "refusal": "the-refusal",
    "tokens of the prompt": 1009,
    "tokens of the answer": 2003,
    "of them cached": 31,
    "of them thoughts": 37,
    "of the prompt written to a cache": 41,
    "which text of `stop` ended it": "the-end",
    "how it was served": "priority",
}
_USAGE: Final = {
    "prompt_tokens": 1009,
    "completion_tokens": 2003,
    "total_tokens": 3012,
    "prompt_tokens_details": {"cached_tokens": 31},
    "completion_tokens_details": {"reasoning_tokens": 37},
}
_CALL: Final = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "the-tool", "arguments": "{}"},
}


def _like_openai(
    usage: Mapping[str, Any] = _USAGE, around: Mapping[str, Any] | None = None, **message: Any
) -> Mapping[str, Any]:
    said = {"role": "assistant", "content": "the-text", "tool_calls": [_CALL], **message}
    choice = {
        "index": 0,
        "message": said,
        "finish_reason": "stop",
        "logprobs": {"content": [{"token": "a", "logprob": -0.125, "top_logprobs": []}]},
    }
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "x"}
    return {**about, "choices": [choice], "usage": usage, **(around or {})}


#: As rich as the provider's own answers are.
ANSWERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "openai": _like_openai(
        around={"service_tier": "priority"},
        refusal="the-refusal",
        reasoning_content="the-thought",
    ),
    "anthropic": {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "the-thought", "signature": "the-signature"},
            {
                "type": "text",
                "text": "the-text",
                "citations": [{"type": "char_location", "cited_text": "the-source"}],
            },
            {"type": "tool_use", "id": "toolu_1", "name": "the-tool", "input": {}},
        ],
        "stop_reason": "refusal",
        "stop_sequence": "the-end",
        "stop_details": {"type": "refusal", "explanation": "the-refusal"},
        "usage": {
            "input_tokens": 937,
            "cache_creation_input_tokens": 41,
            "service_tier": "priority",
            "cache_read_input_tokens": 31,
            "output_tokens": 2003,
            "output_tokens_details": {"thinking_tokens": 37},
        },
    },
    "cohere": {
        "id": "1",
        "message": {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "the-thought"},
                {"type": "text", "text": "the-text"},
            ],
            "tool_plan": "the-plan",
            "tool_calls": [_CALL],
            "citations": [{"start": 0, "end": 3, "text": "the-source"}],
        },
        "finish_reason": "COMPLETE",
        "usage": {
            "tokens": {"input_tokens": 1009, "output_tokens": 2003},
            "cached_tokens": 31,
        },
        "logprobs": [{"text": "a", "token_ids": [1], "logprobs": [-0.125]}],
    },
    "deepseek": _like_openai(
        {
            "prompt_tokens": 1009,
            "completion_tokens": 2003,
            "total_tokens": 3012,
            "prompt_tokens_details": {"cached_tokens": 31},
            "prompt_cache_hit_tokens": 31,
            "completion_tokens_details": {"reasoning_tokens": 37},
        },
        reasoning_content="the-thought",
    ),
    "huggingface": _like_openai(reasoning_content="the-thought"),
    "mistral": _like_openai(
        {
            "prompt_tokens": 1009,
            "completion_tokens": 2003,
            "num_cached_tokens": 31,
            "service_tier": "priority",
        },
        content=[
            {"type": "thinking", "thinking": [{"type": "text", "text": "the-thought"}]},
            {"type": "text", "text": "the-text"},
            {"type": "reference", "reference_ids": ["the-source"]},
        ],
    ),
}


def found() -> Iterator[tuple[str, list[str]]]:
    """Of each part the member that it is in, provider by provider; – where it has no such part."""
    told = {name: list(_leaves(_answer(name, ANSWERS[name]))) for name in NAMES}
    given = {name: [value for _, value in _leaves(ANSWERS[name])] for name in NAMES}
    for part, word in _WORDS.items():
        row = []
        for name in NAMES:
            paths = [path for path, value in told[name] if _is(value, word)]
            had = any(_is(value, word) for value in given[name]) or part == "tokens of the prompt"
            row.append(", ".join(f"`{path}`" for path in paths) or ("not read" if had else "–"))
        yield part, row


def _is(value: Any, word: Any) -> bool:
    return word in value if isinstance(value, str) and isinstance(word, str) else value == word


def _answer(name: str, said: Mapping[str, Any]) -> Any:
    payload = json.dumps(said).encode()
    if name == "openai":  # untouched
        return said
    return json.loads(DIALECTS[name].answer_in(payload, _ASKED)[0])


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            inside = path.removeprefix("choices.").removeprefix("message.")
            yield from _leaves(inner, f"{inside}.{key}" if inside else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, path)
    else:
        yield path.removeprefix("choices.").removeprefix("message."), value


# --- how answers end

_ENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": (
        *("end_turn", "stop_sequence", "pause_turn", "max_tokens"),
        *("model_context_window_exceeded", "tool_use", "refusal"),
    ),
    "cohere": ("COMPLETE", "STOP_SEQUENCE", "MAX_TOKENS", "TOOL_CALL", "ERROR", "TIMEOUT"),
    "deepseek": (
        *("stop", "length", "tool_calls", "content_filter"),
        "insufficient_system_resource",
    ),
    "huggingface": ("stop", "length", "tool_calls", "eos", "eos_token", "stop_sequence"),
    "mistral": ("stop", "length", "model_length", "tool_calls", "error"),
}


def ends() -> Iterator[tuple[str, str, str]]:
    """Provider, its word, and ours; or the error that it is."""
    for name, words in _ENDS.items():
        for word in words:
            yield name, word, _end(name, word)


def _end(name: str, word: str) -> str:
    said = json.loads(json.dumps(ANSWERS[name]))
    if "choices" in said:
        said["choices"][0]["finish_reason"] = word
    else:
        said["stop_reason" if name == "anthropic" else "finish_reason"] = word
    try:
        answer = _answer(name, said)
    except UpstreamError as error:
        return f"{error.status} `{error.code}`"
    return f"`{answer['choices'][0]['finish_reason']}`"


# --- errors

STATUSES: Final = (
    *(400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 498, 499),
    *(500, 502, 503, 504, 529),
)
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def errors() -> Iterator[tuple[int, str, bool, Mapping[str, str]]]:
    """Status of the provider; what most make of it; whether another target may try; and who makes
    of it something else."""
    for status in STATUSES:
        by_name = {name: error_of(name, status) for name in NAMES}
        shown = {name: f"{e.status} `{e.code}`" for name, e in by_name.items()}
        usual = max(shown.values(), key=list(shown.values()).count)
        others = {name: word for name, word in shown.items() if word != usual}
        retryable = {by_name[name].retryable for name in NAMES if name not in others}
        yield status, usual, retryable == {True}, others


def error_of(name: str, status: int) -> UpstreamStatus:
    """The error that an answer with this status is, in words that tell nothing more."""
    bodies: Mapping[str, Any] = {
        "anthropic": {"type": "error", "error": {"type": _TYPES.get(status, "api_error")}},
        "cohere": {"id": "1", "message": "No."},
        "huggingface": {"error": "No."},
        "mistral": {"object": "error", "message": "No.", "type": "x", "code": "1"},
    }
    return _error(name, status, json.dumps(bodies.get(name, _said("No."))).encode())


def _error(name: str, status: int, body: bytes) -> UpstreamStatus:
    if name == "openai":
        return openai.error_in(status, body)
    return DIALECTS[name].error_in(status, body)


def _said(message: str, **more: Any) -> Mapping[str, Any]:
    return {"error": {"message": message, **more}}


#: Dialect, who says so, status, words.
WORDS: Final[Sequence[tuple[str, str, int, Any]]] = (
    (
        "openai",
        "OpenAI",
        400,
        _said(
            "This model's maximum context length is 8192 tokens.",
            type="invalid_request_error",
            code="context_length_exceeded",
        ),
    ),
    (
        "openai",
        "Azure",
        400,
        _said("The prompt triggered the content management policy.", code="content_filter"),
    ),
    (
        "openai",
        "OpenAI",
        429,
        _said("You exceeded your current quota.", code="insufficient_quota"),
    ),
    (
        "openai",
        "Gemini",
        400,
        [_said("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT")],
    ),
    ("openai", "Ollama", 404, _said('model "x" not found, try pulling it first')),
    ("openai", "llama.cpp", 503, _said("Loading model", type="unavailable_error", code=503)),
    (
        "anthropic",
        "Anthropic",
        400,
        {
            "type": "error",
            **_said("prompt is too long: 9 tokens > 8", type="invalid_request_error"),
        },
    ),
    (
        "anthropic",
        "Anthropic",
        400,
        {
            "type": "error",
            **_said("Your credit balance is too low.", type="invalid_request_error"),
        },
    ),
    ("anthropic", "Anthropic", 404, {"type": "error", **_said("model: x", type="not_found_error")}),
    (
        "anthropic",
        "Anthropic",
        529,
        {"type": "error", **_said("Overloaded", type="overloaded_error")},
    ),
    ("cohere", "Cohere", 400, {"id": "1", "message": "too many tokens: total tokens must be less"}),
    ("cohere", "Cohere", 404, {"id": "1", "message": "model 'x' not found"}),
    ("mistral", "Mistral", 422, {"detail": [{"loc": ["body", "n"], "msg": "Input should be 1"}]}),
    ("mistral", "Mistral", 400, {"object": "error", "message": "Invalid model: x", "code": "1500"}),
    ("deepseek", "DeepSeek", 400, _said("Content Exists Risk", type="invalid_request_error")),
    ("deepseek", "DeepSeek", 402, _said("Insufficient Balance", type="unknown_error")),
    (
        "huggingface",
        "Hugging Face",
        503,
        {"error": "Model x is currently loading", "estimated_time": 20.0},
    ),
    (
        "huggingface",
        "Hugging Face",
        400,
        _said("The requested model 'x' is not supported.", code="model_not_supported"),
    ),
    (
        "huggingface",
        "Hugging Face",
        402,
        {"error": "You have exceeded your monthly included credits."},
    ),
)


def words() -> Iterator[tuple[str, int, str, UpstreamStatus]]:
    """Who says what with which status, and the error that it is."""
    for name, who, status, said in WORDS:
        yield who, status, _message(said), _error(name, status, json.dumps(said).encode())


def _message(said: Any) -> str:
    """The words themselves, out of whatever they are in."""
    if isinstance(said, list):
        return _message(said[0])
    if isinstance(said, str):
        return said
    inner = next(said[name] for name in ("error", "message", "msg", "detail") if name in said)
    return _message(inner)
