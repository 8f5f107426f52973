"""Rerank: a query and the documents to be put in order by it, as Cohere, Jina and vLLM have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest
from server.protocol.envelope import raw

#: The most documents of one request. Cohere's own advice; an engine runs the model once for each.
DOCUMENTS: Final = 1000
_TEXT: Final = {"text"}
_string: Final = msgspec.json.Decoder(str)


def check(fields: Any) -> None:
    """Raises InvalidRequest for what nobody can answer. `fields`: the envelope of a rerank."""
    if fields.stream:
        raise InvalidRequest(
            "`stream`: a ranking comes whole; leave it out.",
            param="stream",
            code="unsupported_parameter",
        )
    count = len(fields.documents)
    if count == 0:
        raise InvalidRequest("`documents` must not be empty.", param="documents")
    if count > DOCUMENTS:
        raise InvalidRequest(
            f"`documents` holds {count} documents; this server allows {DOCUMENTS}.",
            param="documents",
            code="over_limit",
        )
    for name in ("top_n", "max_tokens_per_doc"):
        value = getattr(fields, name)
        if value is not None and value < 0:
            raise InvalidRequest(f"`{name}` must be at least 0.", param=name)


def as_texts(documents: Sequence[str | dict[str, Raw]]) -> Raw | None:
    """The documents, with a text in place of an object that holds a `text` and nothing else: Jina
    and Cohere's first version take both, vLLM and Cohere's second no such object. None: there is
    none of them."""
    found = [_text(one) for one in documents]
    if all(text is None for text in found):
        return None
    return raw([one if text is None else text for one, text in zip(documents, found, strict=True)])


def _text(document: str | dict[str, Raw]) -> str | None:
    if isinstance(document, str) or document.keys() != _TEXT:
        return None
    try:
        return _string.decode(document["text"])
    except msgspec.ValidationError:  # no text: the target says what it thinks of it
        return None
