"""The legacy `functions` / `function_call` of chat completions, translated to tools and back.

Every upstream of today speaks tools; a client that speaks functions is answered in kind. Pure
functions over decoded JSON: the request out, the answer in, the event in.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest, UpstreamProtocol
from server.protocol.envelope import raw

_decode = msgspec.json.decode


def is_legacy(members: dict[str, Raw]) -> bool:
    """Does this body speak functions?"""
    return "functions" in members or "function_call" in members


def to_tools(members: dict[str, Raw]) -> dict[str, Raw]:
    """The same request with tools. Calls are single: functions never came in parallel."""
    if "tools" in members or "tool_choice" in members:
        raise InvalidRequest(
            "Use either `tools` and `tool_choice`, or the older `functions` and "
            "`function_call`, not both.",
            param="functions",
        )
    out = {k: v for k, v in members.items() if k not in ("functions", "function_call")}
    functions = _decode(members["functions"]) if "functions" in members else None
    if functions is not None:
        if not isinstance(functions, list) or not all(isinstance(f, dict) for f in functions):
            raise InvalidRequest("`functions` must be a list of objects.", param="functions")
        if functions:
            out["tools"] = raw([{"type": "function", "function": f} for f in functions])
            out["parallel_tool_calls"] = raw(False)
    choice = _decode(members["function_call"]) if "function_call" in members else None
    if choice is not None:
        if not functions:
            raise InvalidRequest("`function_call` needs `functions`.", param="function_call")
        out["tool_choice"] = raw(_choice(choice))
    elif functions:
        out["tool_choice"] = raw("auto")
    if "messages" in members:
        out["messages"] = raw(_messages(_decode(members["messages"])))
    return out


def _choice(choice: Any) -> Any:
    if choice in ("auto", "none"):
        return choice
    if isinstance(choice, dict) and isinstance(choice.get("name"), str):
        if other := next((name for name in choice if name != "name"), None):
            raise InvalidRequest(
                "`function_call` takes a `name` alone.",
                param=f"function_call.{other}",
                code="unsupported_parameter",
            )
        return {"type": "function", "function": {"name": choice["name"]}}
    raise InvalidRequest(
        '`function_call` must be "auto", "none" or {"name": "..."}.', param="function_call"
    )


def _messages(messages: list[Any]) -> list[Any]:
    """Calls get ids, and each `function` message the id of the call before it."""
    out: list[Any] = []
    last: dict[str, str] = {}
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            out.append(message)
        elif isinstance(call := message.get("function_call"), dict):
            identity = f"call_{index}"
            last[str(call.get("name"))] = identity
            rest = {k: v for k, v in message.items() if k != "function_call"}
            rest.setdefault("content", None)
            out.append(
                {**rest, "tool_calls": [{"id": identity, "type": "function", "function": call}]}
            )
        elif message.get("role") == "function":
            name = str(message.get("name"))
            rest = {k: v for k, v in message.items() if k != "name"}
            rest.setdefault("content", None)
            out.append({**rest, "role": "tool", "tool_call_id": last.get(name, f"call_{name}")})
        else:
            out.append(message)
    return out


def _in_kind(holder: dict[str, Any]) -> None:
    """Replace `tool_calls` of a message or delta by the one `function_call`."""
    calls = holder.pop("tool_calls", None)
    if not calls:
        return
    if not isinstance(calls, list):
        return
    found = (c for c in calls if isinstance(c, dict) and c.get("index", 0) == 0)
    first = next(found, None)
    if first and isinstance(function := first.get("function"), dict):
        holder["function_call"] = {
            k: function[k] for k in ("name", "arguments") if function.get(k) is not None
        }


def answer_back(payload: bytes) -> bytes:
    """An answer, or one chunk of a stream, with `function_call` where it had tool calls.

    Raises UpstreamProtocol for what cannot be decoded as a whole, and for choices that are none.
    """
    try:
        answer = _decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise _no_answer(str(error)) from None
    if not isinstance(answer, dict):
        return payload
    choices = answer.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise _no_answer("choices")
    for choice in choices:
        for part in ("message", "delta"):
            if isinstance(choice.get(part), dict):
                _in_kind(choice[part])
        if choice.get("finish_reason") == "tool_calls":
            choice["finish_reason"] = "function_call"
    try:
        return msgspec.json.encode(answer)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        raise _no_answer(str(error)) from None


def _no_answer(detail: str) -> UpstreamProtocol:
    return UpstreamProtocol("The upstream sent something that is no answer.", detail=detail)
