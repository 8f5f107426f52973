"""Request out: OpenAI's chat completion as Anthropic's message. Pure.

Each member of a body is either said in Anthropic's words, or says nothing that is not so anyway
(`n: 1`), or only advises and is named, or is refused by its name. The target's `drop` takes
members out before that. See `server.dialects.given`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects.anthropic.messages import Conversation
from server.dialects.anthropic.settings import SAMPLING, Settings, effort_into, later_of
from server.dialects.base import Outgoing
from server.dialects.given import Given, wrong
from server.dialects.members import FUNCTION
from server.errors import InvalidRequest

PATH: Final = "/messages"
SAMPLING_PARAMETERS: Final = ("temperature", "top_p", "top_k")
#: Anthropic's own words of tools, which a client may send besides.
_OF_TOOLS: Final = ("cache_control", "eager_input_streaming", "input_examples")
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_HOTTEST: Final = 1
#: What is so anyway; and the least `top_p` with which a model that was told to think will answer.
_DEFAULTS: Final = {"temperature": 1, "top_p": 1}
_LEAST_TOP_P: Final = 0.95
_THINKING: Final = ("adaptive", "enabled")
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
    given = Given(members, drop, "Anthropic")
    for name in ("model", "stream"):  # known already
        given.take(name)
    later = settings.later_system or later_of(model)
    conversation = Conversation(given.take("messages"), inline=later == "inline")
    longest = _longest(given, settings)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": longest,
        "messages": conversation.turns,
    }
    if conversation.system:
        body["system"] = conversation.system
    if stream:
        body["stream"] = True
    _sampling(body, given, settings)
    _stop(body, given)
    _tools(body, given)
    _format(body, given)
    # Anthropic's own words, for which OpenAI's API has none.
    for name in ("cache_control", "thinking"):
        if (said := given.take_as(name, dict)) is not None:
            body[name] = said
    if (effort := given.take("reasoning_effort")) is not None and effort_into(
        body, effort, settings, model=model, longest=longest
    ):
        given.lower("reasoning_effort")
    _thinking(body, given)
    _user(body, given)
    _service(body, given)
    given.stream_options()
    given.close()
    for name in conversation.lost:
        given.drop(name)
    return Outgoing(
        path=PATH,
        body=_encode(body),
        headers={"anthropic-version": settings.version},
        dropped=tuple(given.dropped),
        lowered=tuple(given.lowered),
    )


def _longest(given: Given, settings: Settings) -> int:
    found = given.longest()
    if found is not None:
        name, longest = found
        if longest < 1:
            raise InvalidRequest(f"`{name}` must be a whole number over 0.", param=name)
        return longest
    if settings.max_tokens is None:
        raise InvalidRequest(
            "You must provide `max_completion_tokens`: this provider wants a number, and nothing "
            "says how long this model's answers can be.",
            param="max_completion_tokens",
            code="missing_required_parameter",
        )
    return settings.max_tokens


def _sampling(body: dict[str, Any], given: Given, settings: Settings) -> None:
    for name in SAMPLING_PARAMETERS:
        value = given.take_as(name, int, float)
        if value is None or (name == "top_k" and value <= 0):  # elsewhere the word for all
            continue
        if settings.version != SAMPLING:
            raise given.lacks(name, f"`{name}` in version {settings.version} of its API")
        if name == "temperature" and value > _HOTTEST:
            value = _HOTTEST
            given.lower(name)
        body[name] = value


def _thinking(body: dict[str, Any], given: Given) -> None:
    """A model that was told to think takes no other temperature than its own, and the like."""
    if body.get("thinking", {}).get("type") not in _THINKING:
        return
    for name in SAMPLING_PARAMETERS:
        if name not in body or body[name] == _DEFAULTS.get(name):
            continue
        if name != "top_p" or body[name] < _LEAST_TOP_P:
            raise given.lacks(name, f"such `{name}` while it thinks")


def _stop(body: dict[str, Any], given: Given) -> None:
    stop = given.take_as("stop", str, list) or []
    texts = [stop] if isinstance(stop, str) else stop
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("`stop` must hold strings.", param="stop", code="invalid_type")
    kept = [text for text in texts if text.strip()]  # the others are refused
    if kept:
        body["stop_sequences"] = kept
    if len(kept) < len(texts):
        given.lower("stop")


def _tools(body: dict[str, Any], given: Given) -> None:
    tools, choice = given.take_as("tools", list), given.take("tool_choice")
    parallel = given.take_as("parallel_tool_calls", bool)
    if not tools:
        if choice not in (None, "auto", "none"):
            raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return
    body["tools"] = [_tool(tool, f"tools[{index}]", given) for index, tool in enumerate(tools)]
    found = None if choice is None else _choice(choice, given)
    if parallel is False:
        found = found or {"type": "auto"}
        if found["type"] != "none":
            found["disable_parallel_tool_use"] = True
    if found is not None:
        body["tool_choice"] = found


def _tool(tool: Any, where: str, given: Given) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise InvalidRequest(
            f"`{where}` must be a function: this provider takes no other tools from OpenAI's API.",
            param=where,
        )
    given.leave(tool, ("type", "function", *_OF_TOOLS), where)
    given.leave(function, (*FUNCTION, *_OF_TOOLS), f"{where}.function")
    schema = function.get("parameters")
    if not isinstance(schema, dict | None):
        raise wrong(f"{where}.function.parameters", "an object")
    found = {
        "name": function.get("name"),
        "input_schema": schema
        if schema and "type" in schema
        else {"type": "object", "properties": {}, **(schema or {})},
    }
    for name in ("description", "strict"):
        if function.get(name) is not None:
            found[name] = function[name]
    for name in _OF_TOOLS:
        if (said := tool.get(name, function.get(name))) is not None:
            found[name] = said
    return found


def _choice(choice: Any, given: Given) -> dict[str, Any]:
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type", "function") == "function":
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            given.leave(choice, ("type", "function"), "tool_choice")
            given.leave(function, ("name",), "tool_choice.function")
            return {"type": "tool", "name": function["name"]}
    raise InvalidRequest(
        '`tool_choice` must be "auto", "none", "required" or one function.', param="tool_choice"
    )


def _format(body: dict[str, Any], given: Given) -> None:
    wanted = given.take_as("response_format", dict)
    if wanted is None:
        return
    kind = wanted.get("type")
    if kind == "text":
        given.leave(wanted, ("type",), "response_format")
        return
    if kind != "json_schema":
        raise InvalidRequest(
            "This provider has no `json_object`: give a schema, with type `json_schema`."
            if kind == "json_object"
            else "`response_format.type` is not known to this provider.",
            param="response_format",
        )
    schema = given.schema(wanted)
    body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}


def _user(body: dict[str, Any], given: Given) -> None:
    """The newer name wins, where both are there."""
    user, newer = given.take_as("user", str), given.take_as("safety_identifier", str)
    if user and newer and user != newer:
        given.drop("user")
    if newer or user:
        body["metadata"] = {"user_id": newer or user}


def _service(body: dict[str, Any], given: Given) -> None:
    tier = given.take("service_tier")
    if tier == "default":
        body["service_tier"] = "standard_only"
    elif tier not in (None, "auto"):
        raise given.lacks("service_tier", "such `service_tier`; it has `auto` and `default`")
