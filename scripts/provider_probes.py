"""What the dialects are asked for docs/providers.md: one request for each thing that a client of
OpenAI's API, or of vLLM, can say; and the words in which providers answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Probe:
    """A body with and one without what is asked about. `param`: the member that `drop` would name;
    `stream`: it means something in streams alone."""

    label: str
    with_it: JSON
    without: JSON = field(default_factory=dict)
    param: str | None = None
    stream: bool = False


def _one(name: str, value: Any, label: str | None = None, **given: Any) -> Probe:
    """One member; `given` are members that stand in both bodies."""
    return Probe(label or f"`{name}`", {**given, name: value}, given, name)


FUNCTION: Final = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
TOOLS: Final = [{"type": "function", "function": FUNCTION}]
_TWO: Final = [*TOOLS, {"type": "function", "function": {**FUNCTION, "name": "listen"}}]
_SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}}


def _format(**more: Any) -> JSON:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA, **more}}


_NAMED: Final = {"type": "function", "function": {"name": "look"}}
_ALLOWED: Final = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [_NAMED]}}
_MARKED: Final = {**TOOLS[0], "cache_control": {"type": "ephemeral"}}
_CUSTOM: Final = [{"type": "custom", "custom": {"name": "look"}}]

#: OpenAI's own parameters of a chat; a test holds the list against its SDK.
PARAMETERS: Final = (
    _one("max_completion_tokens", 77),
    _one("max_tokens", 77),
    _one("temperature", 0.5),
    _one("temperature", 1.5, "`temperature` over 1"),
    _one("top_p", 0.5),
    _one("top_p", 1, "`top_p: 1`"),
    _one("frequency_penalty", 0.5),
    _one("presence_penalty", 0.5),
    _one("presence_penalty", -0.5, "a penalty below 0"),
    _one("stop", ["END"]),
    _one("stop", [*"abcdef"], "`stop` with 6 texts"),
    _one("seed", 7),
    _one("n", 2, "`n` over 1"),
    _one("logit_bias", {"7": 5}),
    _one("logprobs", True),
    _one("top_logprobs", 2, logprobs=True),
    _one("tools", TOOLS),
    _one(
        "tools", [{"type": "function", "function": {**FUNCTION, "strict": True}}], "a strict tool"
    ),
    _one("tools", _CUSTOM, "a custom tool"),
    Probe("`cache_control` of a tool", {"tools": [_MARKED]}, {"tools": TOOLS}, "tools"),
    _one("tool_choice", "auto", "`tool_choice: auto`", tools=TOOLS),
    _one("tool_choice", "none", "`tool_choice: none`", tools=TOOLS),
    _one("tool_choice", "required", "`tool_choice: required`", tools=TOOLS),
    _one("tool_choice", _NAMED, "`tool_choice` of one tool", tools=_TWO),
    _one("tool_choice", _ALLOWED, "`tool_choice` of some tools", tools=_TWO),
    _one("parallel_tool_calls", False, "`parallel_tool_calls: false`", tools=TOOLS),
    _one("functions", [FUNCTION], "`functions` (older)"),
    _one("function_call", {"name": "look"}, "`function_call` (older)", functions=[FUNCTION]),
    _one("response_format", {"type": "json_object"}, "`response_format: json_object`"),
    _one("response_format", _format(), "`response_format: json_schema`"),
    Probe(
        "`description` of a schema",
        {"response_format": _format(description="A.")},
        {"response_format": _format()},
        "response_format",
    ),
    *(
        _one("reasoning_effort", effort, f"`reasoning_effort: {effort}`", max_tokens=8000)
        for effort in ("none", "minimal", "low", "xhigh")
    ),
    _one("verbosity", "low"),
    _one("modalities", ["text", "audio"]),
    _one("audio", {"voice": "alloy", "format": "mp3"}),
    _one("web_search_options", {}),
    _one("moderation", {"model": "m"}),
    _one("prediction", {"type": "content", "content": "As before."}),
    _one("service_tier", "default", "`service_tier: default`"),
    _one("service_tier", "flex", "`service_tier: flex`"),
    _one("user", "u-1"),
    _one("safety_identifier", "u-1"),
    _one("metadata", {"a": "b"}),
    _one("store", True),
    _one("prompt_cache_key", "k-1"),
    _one("prompt_cache_options", {"mode": "explicit"}),
    _one("prompt_cache_retention", "24h"),
    Probe(
        "`stream_options.include_usage`",
        {"stream_options": {"include_usage": True}},
        param="stream_options",
        stream=True,
    ),
)
#: Of vLLM, and of providers themselves.
EXTENSIONS: Final = (
    _one("top_k", 20),
    _one("top_k", 1000, "`top_k: 1000`"),
    _one("min_p", 0.1),
    _one("min_tokens", 7),
    _one("repetition_penalty", 1.1),
    _one("ignore_eos", True),
    _one("thinking", {"type": "disabled"}),
    _one("cache_control", {"type": "ephemeral"}),
    _one("documents", [{"data": {"text": "A roundhouse has a turntable."}}]),
    _one("citation_options", {"mode": "FAST"}),
    _one("safety_mode", "STRICT"),
    _one("safe_prompt", True),
    _one("prompt_mode", "reasoning"),
    _one("chat_template_kwargs", {"enable_thinking": False}),
    _one("frobnicate", True, "what nobody knows"),
)

_HELLO: Final = {"role": "user", "content": "Hello."}
_PNG: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()
_PDF: Final = base64.b64encode(b"%PDF-1.4\n" + bytes(24)).decode()
_CALL: Final = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at": "sky"}'},
}
_CALLED: Final = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
_RESULT: Final = {"role": "tool", "tool_call_id": "call12345", "content": "Blue."}
_SAID: Final = {"role": "assistant", "content": "Blue."}
_SIGNED: Final = {"type": "thinking", "thinking": "Up?", "signature": "c2ln", "index": 0}


def _user(part: JSON, label: str) -> Probe:
    text = {"type": "text", "text": "Look."}
    return _messages(
        label,
        [{"role": "user", "content": [text, part]}],
        [{"role": "user", "content": [text]}],
    )


def _messages(label: str, with_it: list[Any], without: list[Any]) -> Probe:
    return Probe(label, {"messages": with_it}, {"messages": without})


def _of_assistant(label: str, **more: Any) -> Probe:
    plain = [_HELLO, _SAID, _HELLO]
    return _messages(label, [_HELLO, {**_SAID, **more}, _HELLO], plain)


#: What may stand in messages.
MESSAGES: Final = (
    _messages(
        "system, at the beginning", [{"role": "system", "content": "Rhyme."}, _HELLO], [_HELLO]
    ),
    _messages("developer", [{"role": "developer", "content": "Rhyme."}, _HELLO], [_HELLO]),
    _messages(
        "system, later on",
        [_HELLO, _SAID, {"role": "system", "content": "Rhyme."}, _HELLO],
        [_HELLO, _SAID, _HELLO],
    ),
    _messages("`name` of a user", [{**_HELLO, "name": "ann"}], [_HELLO]),
    _user({"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, "picture by URL"),
    _user(
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}"}},
        "picture in base64",
    ),
    _messages(
        "`detail` of a picture",
        [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image_url",
                        "image_url": {"url": "https://x.example/a.png", "detail": "low"},
                    }
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}],
            }
        ],
    ),
    _user(
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{_PDF}"},
        },
        "PDF in base64",
    ),
    _user({"type": "file", "file": {"file_id": "file-1"}}, "file by its id"),
    _user({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, "sound"),
    _messages("calls of tools", [_HELLO, _CALLED, _RESULT], [_HELLO]),
    _messages(
        "picture as a tool's result",
        [
            _HELLO,
            _CALLED,
            {
                **_RESULT,
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}"}}
                ],
            },
        ],
        [_HELLO, _CALLED, {**_RESULT, "content": []}],
    ),
    _messages(
        "refusal of an assistant",
        [_HELLO, {"role": "assistant", "content": None, "refusal": "I will not."}, _HELLO],
        [_HELLO, {"role": "assistant", "content": "."}, _HELLO],
    ),
    _of_assistant("`reasoning_content`", reasoning_content="Up?"),
    _of_assistant("`reasoning_details`, signed", reasoning_details=[_SIGNED]),
    _of_assistant("`audio` of an assistant", audio={"id": "audio_1"}),
    _messages(
        "`tool_plan` beside calls",
        [_HELLO, {**_CALLED, "tool_plan": "I look up."}, _RESULT],
        [_HELLO, _CALLED, _RESULT],
    ),
    _of_assistant("`citations`", citations=[{"start": 0, "end": 4, "text": "Blue"}]),
    _messages(
        "`cache_control` of a part",
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}
                ],
            }
        ],
        [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
    ),
    _messages("what nobody knows", [{**_HELLO, "frobnicate": True}], [_HELLO]),
    _messages(
        "what nobody knows, in a part",
        [{"role": "user", "content": [{"type": "text", "text": "Hi.", "frobnicate": True}]}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
    ),
    _messages(
        "what nobody knows, in a call",
        [_HELLO, {**_CALLED, "tool_calls": [{**_CALL, "frobnicate": True}]}, _RESULT],
        [_HELLO, _CALLED, _RESULT],
    ),
)
#: Parameters of a ranking.
RERANK: Final = (
    _one("top_n", 2),
    _one("max_tokens_per_doc", 512),
    _one("return_documents", True),
    _one("relevant_spans", {"enabled": True}),
    Probe("documents with more than a `text`", {"documents": [{"text": "A.", "title": "B"}]}),
)
#: Parameters of embeddings.
EMBEDDINGS: Final = (
    _one("dimensions", 256),
    _one("encoding_format", "base64", "`encoding_format: base64`"),
    _one("user", "u-1"),
    _one("input_type", "search_query"),
    _one("truncate", "END"),
    _one("output_dtype", "int8"),
)
