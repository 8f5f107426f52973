"""The OpenAI dialect: request out, answer in, event in, error in.

Bytes pass through here: an answer and an event are looked into, never rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from server.dialects import account, shapes
from server.dialects.trouble import Trouble, trouble_of
from server.errors import UpstreamProtocol, UpstreamStatus
from server.protocol.envelope import Surface, emit, raw
from server.protocol.parameters import Fill
from server.protocol.request import Request

#: Paths under a base URL that ends with /v1.
PATHS: Final = {
    Surface.CHAT: "/chat/completions",
    Surface.COMPLETIONS: "/completions",
    Surface.EMBEDDINGS: "/embeddings",
    # Not of OpenAI: of those that speak as it does. vLLM has it under /v1, too.
    Surface.RERANK: "/rerank",
}
#: Fields that only an engine's owner may set: they reach into scheduling, caches, templates or
#: the engine's network. Source: vLLM 0.32's request models.
ENGINE_ONLY: Final = frozenset(
    {
        "bootstrap_host",
        "bootstrap_port",
        "bootstrap_room",
        "cache_salt",
        "chat_template",
        "chat_template_kwargs",
        "data_parallel_rank",
        "kv_transfer_params",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "priority",
        "prompt_embeds",
        "request_id",
        "session_id",
        "vllm_xargs",
    }
)
#: Without these there is nothing to rank; a chat may do without documents.
_RANKED: Final = frozenset({"query", "documents"})
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
#: No answer has so many tokens.
_MOST: Final = 2**32
_COUNTS: Final = ("prompt", "completion", "total")
_GAVE_UP: Final = ("abort", "error")
#: Our codes for what an upstream gives none.
_TROUBLES: Final = {
    Trouble.CONTEXT_LENGTH: "context_length_exceeded",
    Trouble.CONTENT_POLICY: "content_policy_violation",
}
_CODES: Final = {413: "payload_too_large"}
_WORD: Final = re.compile(r"[\w.-]{1,64}")
#: That there is no such model, as Cohere, DeepSeek, Ollama, OpenAI, vLLM; Mistral; OpenRouter say.
_MISSING: Final = frozenset({400, 404})
_MISSING_MODEL: Final = re.compile(
    r"(the |this )?(requested )?model:? (\S{1,200} )?(is |was |does )?"
    r"(not (found|exist)|no longer available|removed)"
    r"|invalid model: |\S{1,200} is not a valid model",
    re.IGNORECASE,
)
#: Where an error in a stream has its status, and the words that stand for one.
_STATUS_MEMBERS: Final = ("http_status_code", "status", "code", "type", "error_type")
_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "timeout_error": 504,
}
_STREAMING: Final = frozenset({Surface.CHAT, Surface.COMPLETIONS})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the target counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    #: A count that belongs here is missing or makes no sense, and stands as 0.
    partly: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the relay must know of an answer or of one event."""

    usage: Usage | None = None
    #: `choices` is empty and `usage` is an object: the event that `include_usage` asks for.
    usage_only: bool = False
    #: The engine gave up: `finish_reason` is `abort` or `error`.
    aborted: bool = False
    #: The error object of an event that is an error.
    error: Any = None


def request_out(
    request: Request,
    *,
    model: str,
    tenant: str | None,
    fill: Fill | None = None,
    drop: frozenset[str] = frozenset(),
    members: Mapping[str, Any] | None = None,
) -> bytes:
    """The body for the upstream: its own model id, usage asked for, engine-only fields and those
    of `drop` taken out, and what the operator fills in or lowers. `members`: in place of the
    request's own.

    The names of fields taken out are in `request.dropped`, those lowered in `request.clamped`.
    `tenant` becomes the engine's cache salt.
    """
    out: dict[str, Any] = dict(request.members if members is None else members)
    if request.surface is Surface.RERANK:
        drop = drop - _RANKED
    if ENGINE_ONLY.isdisjoint(out) and (not drop or drop.isdisjoint(out)):
        request.dropped = ()
    else:
        gone = [name for name in out if name in ENGINE_ONLY or name in drop]
        for name in gone:
            del out[name]
        request.dropped = tuple(gone)
    if fill is not None:
        request.clamped = fill.into(out, request.surface)
    elif request.clamped:  # by the attempt before
        request.clamped = ()
    out["model"] = model
    if request.stream and not request.wants_usage and request.surface in _STREAMING:
        options = out.get("stream_options")
        known = _options.decode(options) if options is not None else None
        out["stream_options"] = raw({**(known or {}), "include_usage": True})
    if tenant is not None and request.surface in _STREAMING:
        out["cache_salt"] = tenant
    return emit(out)


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


class _OddAnswer(_Answer):
    usage: Any = None


_answer = msgspec.json.Decoder(_Answer)
_odd_answer = msgspec.json.Decoder(_OddAnswer)


def answer_in(payload: bytes) -> Facts:
    """What a whole answer, or the payload of one event, says.

    Raises UpstreamProtocol when it is no JSON object of this dialect.
    """
    try:
        answer = _decoded(payload)
    except shapes.UNREADABLE as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None
    usage = None
    if (said := answer.usage) is not None:
        details, prompt = said.prompt_tokens_details, said.prompt_tokens
        unwritten = answer.choices is None and said.completion_tokens is None
        if unwritten and prompt is None:  # then all that was counted is the prompt
            prompt = said.total_tokens
        usage = Usage(
            _count(prompt),
            _count(said.completion_tokens),
            _count(details.cached_tokens) if details is not None else 0,
            # Vectors and rankings have no completion.
            partly=not (_counted(prompt) and (unwritten or _counted(said.completion_tokens))),
        )
    aborted = False
    if choices := answer.choices:
        for choice in choices:
            aborted |= choice.finish_reason in _GAVE_UP
    return Facts(
        usage=usage,
        usage_only=usage is not None and choices is not None and not choices,
        aborted=aborted,
        error=answer.error,
    )


def _decoded(payload: bytes) -> _Answer:
    try:
        return _answer.decode(payload)
    except msgspec.ValidationError:
        # `usage` may be anything: an upstream that counts in nonsense is no reason to break an
        # answer. What else is wrong is wrong here too.
        answer = _odd_answer.decode(payload)
        said = answer.usage
        if not isinstance(said, dict):
            return _Answer(answer.choices, None, answer.error)
        details = said.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        prompt, completion, total = (said.get(f"{of}_tokens") for of in _COUNTS)
        usage = _Usage(prompt, completion, total, _Details(cached))
        return _Answer(answer.choices, usage, answer.error)


event_in = answer_in


def _counted(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST


def _count(value: Any) -> int:
    return int(value) if _counted(value) else 0


def error_in(status: int, body: bytes) -> UpstreamStatus:
    """The error that an upstream's answer stands for.

    The message is the upstream's own only where the client caused it (4xx): what an upstream says
    of its inner life or of our account is not for clients.
    """
    found = shapes.error_object(body)
    code, kind, message, param = (found.get(n) for n in ("code", "type", "message", "param"))
    if code == kind:  # some write it twice, and it is no code
        code = None
    trouble = trouble_of(status, code, message)
    said = status
    if trouble is None:
        status = account.status_of(status, code, kind, message)
    else:
        code = code if _is_word(code) else _TROUBLES[trouble]
        if status == 403:  # of the prompt, and not of our account
            status = 400
    if _is_missing_model(status, message):
        status, code = 404, "model_not_found"
    detail = f"HTTP {said}"
    if status not in UpstreamStatus.CLIENT_OWN:
        # What is the client's own is for the client, and may quote the prompt.
        detail += f": {account.noted(body)}"
    own = 400 <= status < 500 and status not in UpstreamStatus.ACCOUNT
    code = code if own and _is_word(code) else _CODES.get(status)
    text = _text(status, message)
    if shapes.loads(status, found):
        text, code = "The model is being loaded at the upstream.", shapes.LOADING
    named = own and status != 429 and isinstance(kind, str) and _is_word(kind)
    error = UpstreamStatus(
        status,
        message=text,
        type=kind if named and str(kind).endswith("_error") else None,
        code=code,
        param=account.place(param) if own else None,
        retry_after=shapes.pause(status, found),
        detail=detail,
    )
    error.trouble = trouble
    return error


def _text(status: int, message: object) -> str:
    """What the client reads."""
    if status in UpstreamStatus.ACCOUNT:
        return "The upstream refused this server's credentials or account."
    if status == 429:
        return "The upstream's rate limit is reached."
    if 400 <= status < 500:
        text = account.told(shapes.words(message)) if message else ""
        return text or f"The upstream refused the request ({status})."
    if status >= 500:
        return f"The upstream failed ({status})."
    return f"The upstream sent status {status}, which is no answer."


def _is_word(code: object) -> bool:
    """Some write a sentence, and some what they were given."""
    if not isinstance(code, str) or _WORD.fullmatch(code) is None:
        return False
    return account.told(code) == code


def _is_missing_model(status: int, message: object) -> bool:
    """That the upstream has no such model, where its code may not say so."""
    if status not in _MISSING or not isinstance(message, str):
        return False
    return _MISSING_MODEL.match(message) is not None


def error_of_event(error: Any) -> UpstreamStatus:
    """The error that an `error` member in a stream stands for (status from its code, or from what
    it calls itself, else 500)."""
    found = error if isinstance(error, dict) else {"message": error}
    status = next(filter(None, map(_status_in, map(found.get, _STATUS_MEMBERS))), 500)
    return error_in(status, shapes.body_of(found))


def _status_in(said: Any) -> int | None:
    if isinstance(said, str):
        said = int(said) if said.isdecimal() and len(said) == 3 else _STATUSES.get(said.lower())
    if isinstance(said, bool) or not isinstance(said, int):
        return None
    return said if 400 <= said < 600 else None
