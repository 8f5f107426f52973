"""The dialects by their names, what they lack, and what they are told of a request."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from server.dialects.base import Asked, Dialect, asked
from server.dialects.table import DIALECTS, dialect_of
from server.errors import InvalidRequest
from server.protocol import envelope
from server.protocol.envelope import Surface
from server.routing.abilities import PARAMETERS, Needs
from tests.dialects.replay import request_of, sent

TOOLS = [{"type": "function", "function": {"name": "f"}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def says(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]}


SOUND = says({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})
#: Bodies that need an ability, by the member that says so.
NEEDING: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tools": [("tools", {"tools": TOOLS}), ("functions", {"functions": [{"name": "f"}]})],
    "json_schema": [("response_format", {"response_format": SCHEMA})],
    "logprobs": [("logprobs", {"logprobs": True}), ("prompt_logprobs", {"prompt_logprobs": 1})],
    "n": [("n", {"n": 2})],
    "vision": [("messages", says({"type": "image_url", "image_url": {"url": "https://a/b.png"}}))],
    "audio": [
        ("modalities", {"modalities": ["text", "audio"]}),
        ("audio", {"audio": {"voice": "alloy", "format": "mp3"}}),
        ("messages", SOUND),
        ("messages", says({"type": "audio_url", "audio_url": {"url": "https://a/b.wav"}})),
    ],
}
MORE = {"max_tokens": 100}
LACKS = [
    pytest.param(dialect, param, body, ability, id=f"{dialect.name}-{ability}-{index}")
    for dialect in DIALECTS.values()
    for ability in sorted(dialect.lacks)
    for index, (param, body) in enumerate(NEEDING[ability])
]


def test_names() -> None:
    assert sorted(DIALECTS) == ["anthropic", "cohere", "deepseek", "huggingface", "mistral"]
    for name, dialect in DIALECTS.items():
        assert dialect_of(name) is dialect
        assert dialect.name == name
    assert dialect_of("openai") is None
    with pytest.raises(KeyError):
        dialect_of("gopher")


def test_what_is_lacking_is_an_ability() -> None:
    assert NEEDING.keys() == PARAMETERS.keys()
    for dialect in DIALECTS.values():
        assert dialect.lacks <= PARAMETERS.keys()


@pytest.mark.parametrize(("dialect", "param", "body", "ability"), LACKS)
def test_what_a_dialect_lacks_it_refuses(
    dialect: Dialect, param: str, body: dict[str, Any], ability: str
) -> None:
    """Routing skips the target for the very requests that would be refused."""
    needs = Needs(envelope.members(json.dumps(body).encode()), Surface.CHAT)
    assert needs.needs(ability)
    with pytest.raises(InvalidRequest) as caught:
        sent(dialect, {**MORE, **body})
    assert (caught.value.param or "").startswith(param)
    if param in PARAMETERS[ability]:
        assert sent(dialect, {**MORE, **body}, drop=[param]).dropped == (param,)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
@pytest.mark.parametrize("ability", ["tools", "vision"])
def test_what_a_dialect_has_it_sends(dialect: Dialect, ability: str) -> None:
    assert ability not in dialect.lacks
    _, body = NEEDING[ability][0]
    assert sent(dialect, {**MORE, **body}).dropped == ()


# --- what an answer needs of the request


@pytest.mark.parametrize(
    ("surface", "identity"),
    [
        (Surface.CHAT, "chatcmpl-1"),
        (Surface.COMPLETIONS, "cmpl-1"),
        (Surface.EMBEDDINGS, "embd-1"),
        (Surface.TOKENIZE, "tokenize-1"),
    ],
)
def test_an_answer_has_the_requests_id(surface: Surface, identity: str) -> None:
    found = asked(request_of({}, surface), created=7)
    assert found == Asked(surface, "m", identity, 7, wants_usage=True)


@pytest.mark.parametrize(
    ("said", "packed"), [({}, False), ({"encoding_format": "float"}, False), (None, True)]
)
def test_embeddings_in_base64(said: dict[str, Any] | None, packed: bool) -> None:
    body = {"encoding_format": "base64"} if said is None else said
    assert asked(request_of(body, Surface.EMBEDDINGS), created=7).base64 is packed


def test_a_dialect_is_imported_when_it_is_asked_for() -> None:
    """And none of them imports a provider's own library."""
    code = (
        "import sys; from server.dialects.table import DIALECTS; print(*sys.modules)\n"
        "list(DIALECTS.values()); print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    before, after = (set(line.split()) for line in found.stdout.splitlines())
    rooms = {f"server.dialects.{name}" for name in DIALECTS}
    assert before.isdisjoint(rooms)
    assert after >= rooms
    assert after.isdisjoint({"anthropic", "cohere", "mistralai", "openai", "httpx", "asyncio"})
