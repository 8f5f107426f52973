"""The envelope: the few fields of a body that routing and the caps need, and the rest untouched.

A body is decoded twice by msgspec, both times without building the objects inside: once into the
typed fields of its surface, once into its raw members. A rewrite changes members and re-emits the
object; it never splices bytes, so a duplicate key can never mean one thing here and another
upstream.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest


class Surface(enum.StrEnum):
    """The inbound APIs: OpenAI's and their kin. The value is the metric label `endpoint`."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"


class _Message(msgspec.Struct):
    role: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Envelope(msgspec.Struct):
    """What every surface has. `model` may be missing only where a default exists."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[Raw] | None = None
    functions: list[Raw] | None = None
    #: As JSON; empty when it is missing (msgspec has no optional `Raw`).
    response_format: Raw = Raw()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Chat(Envelope, kw_only=True):
    messages: list[_Message]


class _Completion(Envelope, kw_only=True):
    prompt: Raw


class _Embedding(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: Raw


class _Rerank(msgspec.Struct, kw_only=True):
    """As Cohere, Jina and vLLM have it. What is no text is for models that can see."""

    model: str | None = None
    query: str | dict[str, Raw]
    documents: list[str | dict[str, Raw]]
    top_n: int | None = None
    max_tokens_per_doc: int | None = None
    return_documents: bool | None = None
    stream: bool | None = None


class _Tokenize(msgspec.Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[_Message] | None = None


class _Detokenize(msgspec.Struct, kw_only=True):
    model: str | None = None
    tokens: list[int]


_DECODERS: Final[dict[Surface, msgspec.json.Decoder[Any]]] = {
    Surface.CHAT: msgspec.json.Decoder(_Chat),
    Surface.COMPLETIONS: msgspec.json.Decoder(_Completion),
    Surface.EMBEDDINGS: msgspec.json.Decoder(_Embedding),
    Surface.RERANK: msgspec.json.Decoder(_Rerank),
    Surface.TOKENIZE: msgspec.json.Decoder(_Tokenize),
    Surface.DETOKENIZE: msgspec.json.Decoder(_Detokenize),
}
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode

_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def members(body: bytes) -> dict[str, Raw]:
    """The members of a JSON object, still as JSON. The last of duplicate keys counts."""
    try:
        return _MEMBERS.decode(body)
    except msgspec.MsgspecError as error:
        raise invalid(error) from None


def emit(fields: Mapping[str, Any]) -> bytes:
    """The JSON object of these members, `Raw` or plain values."""
    return _encode(fields)


def raw(value: Any) -> Raw:
    """A plain value as a raw member."""
    return Raw(_encode(value))


def decode(surface: Surface, body: bytes) -> Any:
    """The typed fields of a body. Raises InvalidRequest with `param` where something is wrong."""
    try:
        return _DECODERS[surface].decode(body)
    except msgspec.MsgspecError as error:
        raise invalid(error) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="nested_too_deeply") from None


def depth_of(value: Any) -> int:
    """Nesting of a decoded JSON value: 0 for a scalar, 1 for a flat list or object."""
    deepest, stack = 0, [(value, 0)]
    while stack:
        item, level = stack.pop()
        if isinstance(item, dict):
            children: list[Any] = list(item.values())
        elif isinstance(item, list):
            children = item
        else:
            continue
        deepest = max(deepest, level + 1)
        stack.extend((child, level + 1) for child in children)
    return deepest


def invalid(error: msgspec.MsgspecError) -> InvalidRequest:
    """An error that says in the client's words what is wrong where."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        if "empty" in text or "truncated" in text:
            text = "it ends too early" if "truncated" in text else "it is empty"
        return InvalidRequest(f"The body is not valid JSON: {text}.", code="invalid_json")
    place = _PLACE.search(text)
    if place:
        text = text[: place.start()]
    param = place.group(1) if place and place.group(1) else None
    if missing := re.match(r"Object missing required field `(\w+)`", text):
        name = missing.group(1)
        param = f"{param}.{name}" if param else name
        return InvalidRequest(
            f"You must provide `{param}`.", param=param, code="missing_required_parameter"
        )
    where = f" for `{param}`" if param else ": the body must be a JSON object"
    return InvalidRequest(f"{text}{where}.", param=param, code="invalid_type")
