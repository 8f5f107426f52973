"""Of all that the official SDKs know of answers nothing is passed over but what docs/providers.md
says is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from anthropic.types import Message
from cohere import EmbedByTypeResponse, V2ChatResponse
from mistralai.client.models import ChatCompletionResponse, EmbeddingResponse

from scripts.provider_passed_over import PASSED_OVER
from server.dialects.base import Asked
from server.dialects.table import DIALECTS
from server.errors import UpstreamError
from server.protocol.envelope import Surface
from tests.dialects.replay import ASKED
from tests.dialects.walking import Path, Walk

WALK: Final = Walk(
    values={
        ("arguments",): ('{"zq": 1}', '{"zq": 2}'),
        ("finish_reason",): ("COMPLETE", "MAX_TOKENS"),
        ("stop_reason",): ("refusal", "tool_use"),
    },
    required=frozenset[Path](
        {
            *(
                ("stop_reason",),
                ("stop_details", "explanation"),
                ("usage", "input_tokens"),
                ("usage", "output_tokens"),
            ),
            *(("tool_calls", "id"), ("tool_calls", "function"), ("function", "name")),
            *(("logprobs", "text"), ("logprobs", "logprobs")),
            *(("usage", "tokens"), ("tokens", "input_tokens"), ("tokens", "output_tokens")),
            *(("embeddings", "float"), ("meta", "billed_units"), ("billed_units", "input_tokens")),
            *(("choices", "message"), ("message", "content")),
        }
    ),
    typed=True,
)
EMBED: Final = Asked(Surface.EMBEDDINGS, "theirs", "embd-1", 1)
TYPES: Final[dict[str, Any]] = {
    "anthropic": Message,
    "cohere": V2ChatResponse,
    "cohere, embeddings": EmbedByTypeResponse,
    "mistral": ChatCompletionResponse,
    "mistral, embeddings": EmbeddingResponse,
}
EVERYTHING: Final = {name: list(WALK.said(kind)) for name, kind in TYPES.items()}


def made(name: str, whole: Any) -> Any:
    """Our answer, or the error that it is."""
    try:
        dialect, _, surface = name.partition(", ")
        asked = EMBED if surface else ASKED
        return json.loads(DIALECTS[dialect].answer_in(json.dumps(whole).encode(), asked)[0])
    except UpstreamError as error:
        return error.code, error.message


def unread(name: str) -> Iterator[str]:
    """Places at which something can be said that makes no difference to us."""
    for one in EVERYTHING[name]:
        if made(name, one.whole) == made(name, one.without):
            yield one.place


def is_listed(name: str, place: str) -> bool:
    return any(f"{place}.".startswith((f"{known}.", f"{known}[")) for known in PASSED_OVER[name])


@pytest.mark.parametrize("name", TYPES)
def test_what_is_passed_over_stands_on_the_page(name: str) -> None:
    places = list(unread(name))
    assert [place for place in places if not is_listed(name, place)] == []


@pytest.mark.parametrize("name", TYPES)
def test_nothing_on_the_page_is_read_after_all(name: str) -> None:
    places = list(unread(name))
    for known in PASSED_OVER[name]:
        assert any(place.startswith(known) for place in places), known
