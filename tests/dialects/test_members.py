"""What becomes of members of nested objects: the same in every dialect that translates."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from server.dialects import table
from server.dialects.base import Outgoing
from server.errors import InvalidRequest
from tests.dialects.replay import HELLO, sent

NAMES = ["anthropic", "cohere", "mistral"]
TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MARK = {"type": "ephemeral"}
SCHEMA = {"name": "s", "schema": {"type": "object"}}


def out(name: str, **body: Any) -> Outgoing:
    settings: Any = {"max_tokens": 99} if name == "anthropic" else {}
    return sent(table.DIALECTS[name], body, **settings)


def said(**message: Any) -> list[dict[str, Any]]:
    return [*HELLO, {"role": "assistant", "content": "a", **message}, *HELLO]


def part(**members: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "a", **members}]}]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("messages", "lost"),
    [
        (said(mood="grim"), "messages.mood"),
        (said(annotations=[{"type": "url_citation"}]), "messages.annotations"),
        (part(mood="grim"), "messages.mood"),
        (part(mood=False), "messages.mood"),
        (part(prompt_cache_breakpoint={}, mood=None), None),
        (
            said(tool_calls=[{**CALL, "extra_content": {"google": {"a": 1}}}]),
            "messages.extra_content",
        ),
        (said(tool_calls=[{**CALL, "index": 0}]), None),
        (
            said(tool_calls=[{**CALL, "function": {**CALL["function"], "mood": 1}}]),  # type: ignore[dict-item]
            "messages.mood",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "https://x.example/a.png", "mood": 1},
                        }
                    ],
                }
            ],
            "messages.mood",
        ),
        (said(prefix=False, partial=False), None),
    ],
)
def test_history_is_let_go_and_named(name: str, messages: Any, lost: str | None) -> None:
    assert out(name, messages=messages).dropped == (() if lost is None else (lost,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": said(function_call={"name": "f"})}, "messages[1].function_call"),
        ({"messages": said(partial=True)}, "messages[1].partial"),
        ({"tools": [{**TOOL, "mood": 1}]}, "tools[0].mood"),
        (
            {"tools": [{**TOOL, "function": {"name": "f", "mood": False}}]},
            "tools[0].function.mood",
        ),
        (
            {"tools": [{**TOOL, "function": {"name": "f", "a b": 1}}]},
            "tools[0].function.other",
        ),
    ],
)
def test_orders_are_refused_by_their_place(name: str, body: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        out(name, **body)
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    assert param in refused.value.message


@pytest.mark.parametrize("name", ["anthropic", "cohere"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {**SCHEMA, "mood": 1}}},
            "response_format.json_schema.mood",
        ),
        ({"response_format": {"type": "text", "mood": 1}}, "response_format.mood"),
        (
            {"tools": [TOOL], "tool_choice": {**TOOL, "mood": 1}},
            "tool_choice.mood",
        ),
    ],
)
def test_orders_of_other_objects(name: str, body: Any, param: str) -> None:
    """Mistral has these as OpenAI has them: they pass, and it judges them itself."""
    with pytest.raises(InvalidRequest) as refused:
        out(name, **body)
    assert refused.value.param == param
    assert "mood" in out("mistral", **body).body.decode()


@pytest.mark.parametrize("name", NAMES)
def test_marks_of_tools_are_advice(name: str) -> None:
    outgoing = out(name, tools=[{**TOOL, "cache_control": MARK}])
    has_it = "cache_control" in outgoing.body.decode()
    assert has_it is (name == "anthropic")
    assert outgoing.dropped == (() if has_it else ("tools.cache_control",))


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_to_be_gone_on_with(name: str) -> None:
    """Anthropic goes on with whatever comes last; Mistral has the word."""
    last = [*HELLO, {"role": "assistant", "content": "a", "prefix": True}]
    if name == "cohere":
        with pytest.raises(InvalidRequest, match=re.escape("messages[1].prefix")):
            out(name, messages=last)
    else:
        assert out(name, messages=last).dropped == ()
    if name == "anthropic":
        with pytest.raises(InvalidRequest, match=re.escape("messages[1].prefix")):
            out(name, messages=[*last, *HELLO])


@pytest.mark.parametrize("name", NAMES)
def test_names_are_fit_for_a_header(name: str) -> None:
    odd = {"a\r\nset-cookie: b": 1, "☃": 1, "a,b": 1, "x" * 65: 1, "x" * 64: 1}
    assert out(name, messages=part(**odd)).dropped == ("messages.other", f"messages.{'x' * 64}")


@pytest.mark.parametrize("name", NAMES)
def test_there_are_not_too_many_names(name: str) -> None:
    dropped = out(name, messages=part(**{f"m{i}": i for i in range(1, 500)}), store=True).dropped
    assert len(dropped) < 40
    assert "messages.other" in dropped
    assert "store" in dropped


@pytest.mark.parametrize("name", NAMES)
def test_options_of_streams(name: str) -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    assert out(name, stream=True, stream_options=options).dropped == ()
    options["include_obfuscation"] = True
    named = out(name, stream=True, stream_options=options).dropped
    assert named == ("stream_options.include_obfuscation",)


def test_a_description_of_a_schema() -> None:
    """It is the schema's own where that has none."""
    for about, lost in ((None, ()), ("A.", ()), ("B.", ("response_format.description",))):
        schema = {"type": "object", **({} if about is None else {"description": about})}
        named = {"name": "s", "schema": schema, "description": "A."}
        wanted = {"type": "json_schema", "json_schema": named}
        outgoing = out("cohere", response_format=wanted)
        said = json.loads(outgoing.body)["response_format"]["json_schema"]["description"]
        assert (said, outgoing.dropped) == (about or "A.", lost)


def test_anthropic_s_own_words() -> None:
    tool = {**TOOL, "input_examples": [{"a": 1}], "eager_input_streaming": True}
    found = json.loads(out("anthropic", tools=[tool]).body)["tools"][0]
    assert found["input_examples"] == [{"a": 1}]
    assert found["eager_input_streaming"] is True


def test_mistral_s_parts() -> None:
    file = {"type": "file", "file": {"file_id": "f", "filename": "a.pdf"}, "cache_control": MARK}
    outgoing = out("mistral", messages=[{"role": "user", "content": [file]}])
    assert set(outgoing.dropped) == {"messages.filename", "messages.cache_control"}
    own = [
        {"type": "file", "file_id": "f"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "image_url", "image_url": "https://x.example/a.png"},
    ]
    outgoing = out("mistral", messages=[{"role": "user", "content": own}])
    assert json.loads(outgoing.body)["messages"][0]["content"] == own
    assert outgoing.dropped == ()
    tool = {"type": "image_generation"}
    assert json.loads(out("mistral", tools=[tool]).body)["tools"] == [tool]


def test_what_a_model_refused_with_beside_what_it_had_said() -> None:
    for name in NAMES:
        outgoing = out(name, messages=said(refusal="No."))
        assert outgoing.dropped == (() if name == "anthropic" else ("messages.refusal",))


def test_citations_go_back_to_where_they_came_from() -> None:
    own = {"start": 0, "end": 1, "text": "a", "sources": []}
    foreign = [{"cited_text": "x", "start": 0, "end": 1}, {"reference_ids": [1], "start": 0}]
    for citations, named in (
        ([{**own, "index": 0}], ()),
        ([{**own, "index": 0}, *foreign], ("messages.citations",)),
        ([{**own, "index": 0}, "odd"], ("messages.citations",)),
    ):
        outgoing = out("cohere", messages=said(citations=citations))
        assert json.loads(outgoing.body)["messages"][1]["citations"] == [own]
        assert outgoing.dropped == named
    for name in ("anthropic", "mistral", "deepseek", "huggingface"):
        for member in ("citations", "content_parts"):
            outgoing = out(name, messages=said(**{member: [{**own, "index": 0}]}))
            assert outgoing.dropped == (f"messages.{member}",)


def test_strictness_is_of_all_tools_or_of_none() -> None:
    strict = {"type": "function", "function": {"name": "g", "strict": True}}
    assert out("cohere", tools=[strict]).dropped == ()
    assert out("cohere", tools=[strict, TOOL]).dropped == ("tools.strict",)
    assert out("cohere", tools=[strict], strict_tools=False).dropped == ("tools.strict",)
    assert out("cohere", tools=[strict], strict_tools=True).dropped == ()
