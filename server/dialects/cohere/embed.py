"""Embeddings: OpenAI's request as Cohere's (POST /v2/embed), and the answer back."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects.base import Asked, Outgoing
from server.dialects.cohere.answer import count
from server.dialects.given import Given, wrong
from server.dialects.openai import Facts, Usage
from server.dialects.shapes import UNREADABLE
from server.errors import InvalidRequest, UpstreamProtocol

EMBED_PATH: Final = "/embed"
#: What an embedding is for, where neither the client nor the account says so: Cohere wants to know.
INPUT_TYPE: Final = "search_document"


def embed_out(
    members: Mapping[str, object],
    *,
    model: str,
    drop: frozenset[str],
    settings: Mapping[str, object],
) -> Outgoing:
    """The body. `input_type` and `truncate` are the client's, else the account's."""
    given = Given(members, drop, "Cohere")
    given.take("model")
    input_type = given.take_as("input_type", str) or settings.get("input_type") or INPUT_TYPE
    body: dict[str, Any] = {
        "model": model,
        "texts": _texts(given),
        "input_type": input_type,
        "embedding_types": ["float"],
    }
    if (dimensions := given.whole("dimensions")) is not None:
        body["output_dimension"] = dimensions
    if truncate := given.take_as("truncate", str) or settings.get("truncate"):
        body["truncate"] = truncate
    if (given.take("encoding_format") or "float") not in ("float", "base64"):
        raise InvalidRequest(
            "`encoding_format` should be float or base64.", param="encoding_format"
        )
    given.close()
    return Outgoing(
        EMBED_PATH,
        msgspec.json.encode(body),
        dropped=tuple(given.dropped),
        lowered=tuple(given.lowered),
    )


def _texts(given: Given) -> list[str]:
    said = given.take_as("input", str, list)
    if said is None:
        raise InvalidRequest(
            "You must provide `input`.", param="input", code="missing_required_parameter"
        )
    if isinstance(said, str):
        return [said]
    if not all(isinstance(text, str) for text in said):
        if all(isinstance(item, int | list) for item in said):
            raise InvalidRequest(
                "`input` holds token ids; Cohere takes texts alone.",
                param="input",
                code="unsupported_parameter",
            )
        raise wrong("input", "a string or a list of strings")
    return list(said)


class _Embeddings(msgspec.Struct):
    float_: list[list[float]] = msgspec.field(name="float")


class _Billed(msgspec.Struct):
    input_tokens: Any = None


class _Meta(msgspec.Struct):
    billed_units: _Billed | None = None


class _Answer(msgspec.Struct):
    embeddings: _Embeddings
    meta: _Meta | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


def embed_in(payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
    """OpenAI's list of embeddings; Cohere counts what it bills."""
    try:
        answer = _answer.decode(payload)
    except UNREADABLE as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None
    vectors = answer.embeddings.float_
    billed = answer.meta.billed_units if answer.meta is not None else None
    tokens = count(billed.input_tokens) if billed is not None else None
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector) if asked.base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    out = {
        "object": "list",
        "data": data,
        "model": asked.model,
        "usage": {"prompt_tokens": tokens or 0, "total_tokens": tokens or 0},
    }
    usage = Usage(prompt=tokens or 0, partly=tokens is None)
    return msgspec.json.encode(out), Facts(usage=usage)


def _packed(vector: list[float]) -> str:
    """32-bit floats, little-endian, in base64: what OpenAI's SDKs ask for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
