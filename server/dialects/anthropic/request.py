"""Request out: OpenAI's chat completion as Anthropic's message. Pure.

Each member of a body is either said in Anthropic's words, or says nothing that is not so anyway
(`n: 1`), or is refused by its name. The target's `drop` takes members out before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.dialects.anthropic.messages import Conversation
from server.dialects.anthropic.settings import SAMPLING, Settings, effort_into
from server.dialects.base import Outgoing
from server.dialects.openai import ENGINE_ONLY
from server.errors import InvalidRequest

PATH: Final = "/messages"
#: Members that have a place in Anthropic's request, or tell how to read the answer.
TAKEN: Final = frozenset(
    "cache_control max_completion_tokens max_tokens messages model parallel_tool_calls "
    "reasoning_effort response_format safety_identifier service_tier stop stream stream_options "
    "temperature thinking tool_choice tools top_k top_p user".split()
)
SAMPLING_PARAMETERS: Final = ("temperature", "top_p", "top_k")
#: They advise and change no answer: let go without leave, and named.
ADVICE: Final = frozenset({"prompt_cache_key", "prompt_cache_retention"})
#: Values that ask for what Anthropic does anyway.
SAME: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "include_reasoning": (True,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
#: Of `stream_options`: the first is ours to keep, the second pads events against listeners.
_STREAM_OPTIONS: Final = frozenset({"include_usage", "include_obfuscation"})
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_HOTTEST: Final = 1
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def request_out(
    members: Mapping[str, object],
    *,
    model: str,
    stream: bool,
    drop: frozenset[str],
    settings: Settings,
) -> Outgoing:
    """The request for `POST /v1/messages`. Raises InvalidRequest, with `param`."""
    said, dropped = _said(members, drop)
    conversation = Conversation(said.get("messages"))
    longest = _longest(said, settings)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": longest,
        "messages": conversation.turns,
    }
    if conversation.system:
        body["system"] = conversation.system
    if stream:
        body["stream"] = True
    lowered = [*_sampling(body, said, settings), *_stop(body, said)]
    _tools(body, said)
    _format(body, said)
    if (thinking := said.get("thinking")) is not None:
        _object(thinking, "thinking")
        body["thinking"] = thinking
    if (effort := said.get("reasoning_effort")) is not None and effort_into(
        body, effort, settings, model=model, longest=longest
    ):
        lowered.append("reasoning_effort")
    dropped += _user(body, said)
    _service(body, said)
    _check_stream_options(said)
    if (mark := said.get("cache_control")) is not None:
        body["cache_control"] = mark
    return Outgoing(
        path=PATH,
        body=_encode(body),
        headers={"anthropic-version": settings.version},
        dropped=(*dropped, *conversation.lost),
        lowered=tuple(lowered),
    )


def _said(members: Mapping[str, object], drop: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """What the body says, decoded; and the names of what is let go."""
    said, dropped = {}, []
    for name, member in members.items():
        value = _decode(member) if isinstance(member, Raw) else member
        if value is None:
            continue
        if name in drop or name in ENGINE_ONLY or name in ADVICE:
            dropped.append(name)
        elif name in TAKEN:
            said[name] = value
        elif value not in SAME.get(name, ()):
            raise InvalidRequest(
                f"This provider has no `{name}`. Leave it out; the operator can have it dropped "
                "with `drop`.",
                param=name,
                code="unsupported_parameter",
            )
    return said, dropped


def _longest(said: Mapping[str, Any], settings: Settings) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = said.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidRequest(f"`{name}` must be a whole number over 0.", param=name)
        return value
    if settings.max_tokens is None:
        raise InvalidRequest(
            "You must provide `max_completion_tokens`: this provider wants a number, and nothing "
            "says how long this model's answers can be.",
            param="max_completion_tokens",
            code="missing_required_parameter",
        )
    return settings.max_tokens


def _sampling(body: dict[str, Any], said: Mapping[str, Any], settings: Settings) -> list[str]:
    lowered: list[str] = []
    for name in SAMPLING_PARAMETERS:
        value = said.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"`{name}` must be a number.", param=name, code="invalid_type")
        if name == "top_k" and value <= 0:  # elsewhere the word for all
            continue
        if settings.version != SAMPLING:
            raise InvalidRequest(
                f"Version {settings.version} of this provider's API has no `{name}`. Leave it "
                "out; the operator can have it dropped with `drop`.",
                param=name,
                code="unsupported_parameter",
            )
        if name == "temperature" and value > _HOTTEST:
            value = _HOTTEST
            lowered.append(name)
        body[name] = value
    return lowered


def _stop(body: dict[str, Any], said: Mapping[str, Any]) -> list[str]:
    stop = said.get("stop")
    if stop is None:
        return []
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(
            "`stop` must be a string or a list of them.", param="stop", code="invalid_type"
        )
    kept = [text for text in texts if text.strip()]  # the others are refused
    if kept:
        body["stop_sequences"] = kept
    return [] if len(kept) == len(texts) else ["stop"]


def _tools(body: dict[str, Any], said: Mapping[str, Any]) -> None:
    tools, choice = said.get("tools"), said.get("tool_choice")
    if not isinstance(tools, list | None):
        raise InvalidRequest("`tools` must be a list.", param="tools", code="invalid_type")
    if not tools:
        if choice not in (None, "auto", "none"):
            raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return
    body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    found = None if choice is None else _choice(choice)
    if said.get("parallel_tool_calls") is False:
        found = found or {"type": "auto"}
        if found["type"] != "none":
            found["disable_parallel_tool_use"] = True
    if found is not None:
        body["tool_choice"] = found


def _tool(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise InvalidRequest(
            f"`{where}` must be a function: this provider takes no other tools from OpenAI's API.",
            param=where,
        )
    schema = function.get("parameters")
    if schema is not None:
        _object(schema, f"{where}.function.parameters")
    found = {
        "name": function.get("name"),
        "input_schema": schema
        if schema and "type" in schema
        else {"type": "object", "properties": {}, **(schema or {})},
    }
    for name in ("description", "strict"):
        if function.get(name) is not None:
            found[name] = function[name]
    mark = tool.get("cache_control") or function.get("cache_control")
    if mark is not None:
        found["cache_control"] = mark
    return found


def _choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type", "function") == "function":
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "tool", "name": function["name"]}
    raise InvalidRequest(
        '`tool_choice` must be "auto", "none", "required" or one function.', param="tool_choice"
    )


def _format(body: dict[str, Any], said: Mapping[str, Any]) -> None:
    wanted = said.get("response_format")
    if wanted is None:
        return
    _object(wanted, "response_format")
    kind = wanted.get("type")
    if kind == "text":
        return
    if kind != "json_schema":
        raise InvalidRequest(
            "This provider has no `json_object`: give a schema, with type `json_schema`."
            if kind == "json_object"
            else "`response_format.type` is not known to this provider.",
            param="response_format",
        )
    outer = wanted.get("json_schema")
    if not isinstance(outer, dict) or not isinstance(schema := outer.get("schema"), dict):
        raise InvalidRequest(
            "You must provide `response_format.json_schema.schema`.",
            param="response_format.json_schema.schema",
            code="missing_required_parameter",
        )
    about = outer.get("description")
    if isinstance(about, str) and "description" not in schema:
        schema = {**schema, "description": about}
    body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}


def _user(body: dict[str, Any], said: Mapping[str, Any]) -> list[str]:
    """The newer name wins, where both are there."""
    names = [name for name in ("safety_identifier", "user") if said.get(name)]
    if not names:
        return []
    if not isinstance(said[names[0]], str):
        raise InvalidRequest(f"`{names[0]}` must be a string.", param=names[0], code="invalid_type")
    body["metadata"] = {"user_id": said[names[0]]}
    return names[1:] if said[names[-1]] != said[names[0]] else []


def _service(body: dict[str, Any], said: Mapping[str, Any]) -> None:
    tier = said.get("service_tier")
    if tier == "default":
        body["service_tier"] = "standard_only"
    elif tier not in (None, "auto"):
        raise InvalidRequest(
            "`service_tier` must be `auto` or `default` with this provider.",
            param="service_tier",
        )


def _check_stream_options(said: Mapping[str, Any]) -> None:
    options = said.get("stream_options")
    if not isinstance(options, dict):
        return
    for name in options.keys() - _STREAM_OPTIONS:
        if options[name]:
            raise InvalidRequest(
                "Of `stream_options` this provider has `include_usage` alone.",
                param="stream_options",
                code="unsupported_parameter",
            )


def _object(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise InvalidRequest(f"`{where}` must be an object.", param=where, code="invalid_type")
