"""Any valid conversation of OpenAI's API that Anthropic's has words for, as Hypothesis makes it."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

Body = dict[str, Any]

_letters = st.characters(exclude_categories=["Cs"])
words = st.one_of(
    st.text(_letters, max_size=12), st.sampled_from(["", " ", "\n\n", "Hello", "%s", "{}"])
)
said = st.text(_letters, min_size=1, max_size=12).filter(str.strip)
_plain = st.text("abcXYZ019_-", min_size=1, max_size=12)
_ids = st.one_of(
    _plain,
    st.sampled_from(["functions.f:0", "functions.f.0", "call é", "9"]),
)
_names = _plain
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
_objects = st.dictionaries(words, _json, max_size=3)
_schemas = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(_names, _objects, max_size=2)},
    optional={"required": st.lists(_names, max_size=2), "additionalProperties": st.just(False)},
)
_arguments = st.one_of(
    st.just(""),
    st.tuples(_objects, st.booleans(), st.sampled_from([None, 2])).map(
        lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1], indent=drawn[2])
    ),
)
_HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x24\x00\x00\x00WEBP")


def _data_url(head: bytes, rest: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(head + rest).decode()}"


_kinds = st.sampled_from(["image/png", "image/jpeg", "", "application/pdf"])
_text_parts = st.fixed_dictionaries({"type": st.just("text"), "text": words})
_said_parts = st.fixed_dictionaries({"type": st.just("text"), "text": said})
_refusal_parts = st.fixed_dictionaries({"type": st.just("refusal"), "refusal": words})
_urls = st.one_of(
    st.builds(_data_url, st.sampled_from(_HEADS), st.binary(min_size=24, max_size=40), _kinds),
    st.sampled_from(["https://example.com/a.png", "http://example.com/b"]),
)
_images = st.fixed_dictionaries(
    {
        "type": st.just("image_url"),
        "image_url": st.fixed_dictionaries(
            {"url": _urls}, optional={"detail": st.sampled_from(["auto", "low", "high"])}
        ),
    }
)
_files = st.fixed_dictionaries(
    {
        "type": st.just("file"),
        "file": st.fixed_dictionaries(
            {"file_data": st.builds(_data_url, st.just(b"%PDF-1.7"), st.binary(), _kinds)},
            optional={"filename": said},
        ),
    }
)
_user_parts = st.one_of(_text_parts, _images, _files)
#: Something has to be said.
_user_content = st.one_of(
    said,
    st.tuples(st.lists(_user_parts, max_size=2), st.one_of(_said_parts, _images, _files)).map(
        lambda drawn: [*drawn[0], drawn[1]]
    ),
)
_named = {"name": _names}
_system = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer"]),
        "content": st.one_of(words, st.lists(_text_parts, min_size=1, max_size=3)),
    },
    optional=_named,
)
_user = st.fixed_dictionaries({"role": st.just("user"), "content": _user_content}, optional=_named)
_details = st.lists(
    st.one_of(
        st.fixed_dictionaries({"type": st.just("thinking"), "thinking": words, "signature": _ids}),
        st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": _ids}),
        st.just({"type": "reasoning.text", "text": "another provider's"}),
    ),
    max_size=3,
).map(lambda blocks: [{"index": index, **block} for index, block in enumerate(blocks)])


def _identity(call: Any) -> str:
    return str(call["id"])


_calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": _ids,
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": _names, "arguments": _arguments}),
        }
    ),
    max_size=3,
    unique_by=_identity,
)
_answer = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.one_of(
            st.none(), words, st.lists(st.one_of(_text_parts, _refusal_parts), max_size=3)
        ),
    },
    optional={
        **_named,
        "tool_calls": _calls,
        "refusal": st.none() | words,
        "audio": st.none() | st.just({"id": "audio_1"}),
        "reasoning_content": words,
        "reasoning_details": _details,
    },
)
_tool_content = st.one_of(words, st.lists(st.one_of(_text_parts, _images), max_size=2))


@st.composite
def _exchanges(draw: st.DrawFn) -> list[Body]:
    """An answer, and what its calls gave; a user may put in a word."""
    answer: Body = draw(_answer)
    found: list[Body] = [answer]
    for call in answer.get("tool_calls") or []:
        content = draw(_tool_content)
        found.append({"role": "tool", "tool_call_id": call["id"], "content": content})
        if draw(st.integers(0, 4)) == 0:
            found.append(draw(st.one_of(_user, _system)))
    return found


messages = st.tuples(
    st.lists(_system, max_size=2),
    _user,
    st.lists(st.one_of(_user.map(lambda m: [m]), _system.map(lambda m: [m]), _exchanges())),
).map(lambda drawn: [*drawn[0], drawn[1], *(m for turn in drawn[2] for m in turn)])

_tool = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": _names},
            optional={
                "description": words,
                "parameters": st.one_of(_schemas, st.just({}), st.none()),
                "strict": st.none() | st.booleans(),
            },
        ),
    }
)
_choices = st.one_of(
    st.none(),
    st.sampled_from(["auto", "none", "required"]),
    st.builds(lambda name: {"type": "function", "function": {"name": name}}, _names),
)
_with_tools = st.fixed_dictionaries(
    {"tools": st.lists(_tool, min_size=1, max_size=2)},
    optional={"tool_choice": _choices, "parallel_tool_calls": st.none() | st.booleans()},
)
_format = st.one_of(
    st.just({"type": "text"}),
    st.builds(
        lambda schema, more: {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, **more},
        },
        _schemas,
        st.fixed_dictionaries({}, optional={"strict": st.booleans(), "description": said}),
    ),
)
_longest = st.integers(1, 64000)
_rest = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.none() | _longest,
        "max_completion_tokens": st.none() | _longest,
        "temperature": st.none() | st.floats(0, 2),
        "top_p": st.none() | st.floats(0, 1),
        "top_k": st.integers(-1, 100),
        "stop": st.one_of(st.none(), words, st.lists(words, max_size=4)),
        "user": words,
        "safety_identifier": words,
        "service_tier": st.sampled_from([None, "auto", "default"]),
        "response_format": st.none() | _format,
        "reasoning_effort": st.sampled_from(
            [None, "none", "minimal", "low", "medium", "high", "xhigh", "max"]
        ),
        "n": st.sampled_from([None, 1]),
        "seed": st.none(),
        "logprobs": st.sampled_from([None, False]),
        "stream": st.booleans(),
        "stream_options": st.sampled_from([None, {"include_usage": True}]),
        "prompt_cache_key": words,
    },
)
SAMPLING = frozenset({"temperature", "top_p", "top_k"})


def _thoughtful(body: dict[str, Any]) -> dict[str, Any]:
    """A model that is told to think is told nothing of sampling."""
    if body.get("reasoning_effort") in (None, "none"):
        return body
    return {name: value for name, value in body.items() if name not in SAMPLING}


bodies = st.builds(
    lambda said_, tools, rest: {"model": "m", "messages": said_, **tools, **rest},
    messages,
    st.one_of(st.just({}), _with_tools),
    _rest,
).map(_thoughtful)
