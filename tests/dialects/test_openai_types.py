"""Of all that OpenAI's SDK can say in a chat, at every depth, nothing is lost in silence: it is in
what goes out, or it is named, or refused by its place. So is what the SDK does not know.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from scripts.provider_matrix import NAMES, Asking
from server.dialects.base import Outgoing
from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from tests.dialects.walking import Path, Said, Walk, hints

HELLO: Final = {"role": "user", "content": "Hello."}
PDF: Final = base64.b64encode(b"%PDF-1.4\n" + bytes(24)).decode()
PDFS: Final = (f"data:application/pdf;base64,{PDF}", f"data:application/pdf;base64,{PDF[:24]}")
SCHEMA: Final = {"type": "object", "properties": {"zq": {"type": "string"}}}
#: Two values where not any two will do, by the end of a path.
VALUES: Final[Mapping[Path, tuple[Any, Any]]] = {
    ("arguments",): ('{"zq": 1}', '{"zq": 2}'),
    ("content",): ("zq text", "qz text"),
    ("data",): ("enE=", "cXo="),
    ("file_data",): PDFS,
    ("frequency_penalty",): (0.5, 0.25),
    ("include_obfuscation",): (True, False),
    ("logprobs",): (True, False),
    ("parallel_tool_calls",): (False, True),
    ("parameters",): (SCHEMA, {"type": "object"}),
    ("presence_penalty",): (0.5, 0.25),
    ("schema",): (SCHEMA, {"type": "object"}),
    ("store",): (True, False),
    ("strict",): (True, False),
    ("temperature",): (0.5, 0.25),
    ("allowed_tools", "tools"): ({"type": "function", "function": {"name": "zq"}},) * 2,
    ("top_p",): (0.5, 0.25),
    ("url",): ("https://zq.example/a.png", "https://qz.example/a.png"),
}
#: What is needed besides what the types say is required.
REQUIRED: Final = frozenset({("file", "file_data"), ("json_schema", "schema")})
TOOLS: Final = [{"type": "function", "function": {"name": name}} for name in ("zq", "qz")]
#: What a parameter makes no sense without.
NEEDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "function_call": {"functions": [tool["function"] for tool in TOOLS]},
    "parallel_tool_calls": {"tools": TOOLS},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": TOOLS},
    "top_logprobs": {"logprobs": True},
}
#: These say what everybody does who is asked at all, or what every provider does anyway.
SAYS_NOTHING: Final[Mapping[tuple[str, Any], str]] = {
    ("function_call", "auto"): "as if it were not said",
    ("messages.content.image_url.detail", "auto"): "as if it were not said",
    ("messages.content.input_audio.format", "wav"): "the sound itself says it",
    ("modalities", '["text"]'): "answers are texts",
    ("response_format", "text"): "answers are texts",
    ("response_format.json_schema.name", "zq"): "everybody has to give one",
    ("response_format.json_schema.strict", True): "schemas are always held to",
    ("service_tier", "auto"): "as if it were not said",
    ("service_tier", "default"): "as if it were not said",
    ("stream_options.include_usage", True): "the relay sees to it",
    ("tool_choice", "auto"): "as if it were not said",
    ("verbosity", "medium"): "as if it were not said",
}
#: Members without which there is nothing to compare with.
AROUND: Final = frozenset({"model", "stream"})


def around(body: dict[str, Any], root: str) -> dict[str, Any]:
    if root == "messages":
        return {**body, "model": "m", "messages": [HELLO, *body["messages"], HELLO]}
    return {**NEEDS.get(root, {}), **body, "messages": [HELLO], "model": "m"}


def sent(name: str, one: Said, body: dict[str, Any]) -> Outgoing | InvalidRequest:
    root = one.path[0]
    # The server itself says it for clients that speak of functions, and leaves it out.
    body = around(body, root)
    drop = frozenset({"parallel_tool_calls"} if "functions" in body else ())
    try:
        return Asking.of(name).send(Surface.CHAT, body, root == "stream_options", drop)
    except InvalidRequest as refusal:
        return refusal


def names(param: str | None, path: Path) -> bool:
    """Does the name of what is refused tell of this place? It may be the whole that it is in, or
    the kind of that."""
    if param is None:
        return False
    steps = tuple(re.sub(r"\[\d+\]", "", param).split("."))
    if path[0] == "functions":  # which are sent as tools
        path = ("tools", "function", *path[1:])
    if steps[-1] in ("type", "role"):
        steps = steps[:-1]
    shorter = min(len(steps), len(path))
    return steps[:shorter] == path[:shorter]


def is_told(name: str, one: Said, **more: Any) -> bool:
    found = sent(name, one, {**one.whole, **more})
    if isinstance(found, InvalidRequest):
        return names(found.param, one.path) or found.param in NEEDS.get(one.path[0], ())
    root = one.path[0]
    named = {root, *(f"{root}.{step}" for step in one.path[1:])}
    if named & {*found.dropped, *found.lowered}:
        return True
    without = sent(name, one, {**one.without, **more})
    if isinstance(without, InvalidRequest):
        return one.value in list(_leaves(json.loads(found.body)))
    return json.loads(found.body) != json.loads(without.body)


def _leaves(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)


WALK: Final = Walk(VALUES, REQUIRED, AROUND, unknown=True)
EVERYTHING: Final = list(WALK.said(CompletionCreateParamsBase))


def asks_for(one: Said) -> tuple[str, Any]:
    value = one.value
    if isinstance(value, dict):
        value = value.get("type")
    elif isinstance(value, list):
        value = json.dumps(value)
    return one.place, value


def test_the_types_are_walked_through() -> None:
    places = {one.place for one in EVERYTHING}
    assert hints(CompletionCreateParamsBase).keys() - AROUND <= places
    assert {
        "messages.content.file.file_data",
        "messages.content.frobnicate",
        "messages.tool_calls.function.arguments",
        "tools.function.strict",
        "web_search_options.user_location.approximate.city",
    } <= places


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_openai_s_sdk_can_say_is_lost_in_silence(name: str) -> None:
    lost = {
        (one.place, str(one.value))
        for one in EVERYTHING
        if one.value != {} and asks_for(one) not in SAYS_NOTHING and not is_told(name, one)
    }
    assert sorted(lost) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_with_the_older_functions(name: str) -> None:
    """Which have messages of their own."""
    lost = {
        (one.place, str(one.value))
        for one in EVERYTHING
        if one.path[0] == "messages"
        and asks_for(one) not in SAYS_NOTHING
        and not is_told(name, one, functions=[TOOLS[0]["function"]])
    }
    assert sorted(lost) == []


def test_what_says_nothing_is_taken_for_more_by_nobody_but_those_who_pass_it_on() -> None:
    """Each exception is needed."""
    lost = {asks_for(one) for one in EVERYTHING for name in NAMES if not is_told(name, one)}
    assert lost - {("stream_options", None)} == SAYS_NOTHING.keys()
