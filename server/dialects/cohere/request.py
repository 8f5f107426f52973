"""A chat request in Cohere's words (POST /v2/chat).

Source: reference of the API v2 and the request types of its SDK 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects.base import Outgoing
from server.dialects.cohere.messages import NO_PARAMETERS, Thing, messages_out
from server.dialects.given import Given, wrong
from server.dialects.members import FUNCTION
from server.errors import InvalidRequest

WHO: Final = "Cohere"
CHAT_PATH: Final = "/chat"
#: Cohere's own fields, which a client may send in the body besides OpenAI's.
EXTENSIONS: Final[dict[str, type]] = {
    "citation_options": dict,
    "documents": list,
    "safety_mode": str,
    "strict_tools": bool,
}
_MOST_STOPS: Final = 5
#: OpenAI's word for how much to think → tokens. What is not here thinks as long as it likes.
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_EFFORTS: Final = frozenset({"none", "xhigh", "max", *_BUDGETS})
_CHOICES: Final = {"none": "NONE", "required": "REQUIRED"}


def chat_out(
    members: Mapping[str, object], *, model: str, stream: bool, drop: frozenset[str]
) -> Outgoing:
    """The body of a chat. Raises InvalidRequest for what Cohere has no word for and `drop` does not
    name."""
    given = Given(members, drop, WHO)
    given.take("model")
    given.take("stream")
    given.stream_options()  # usage stands in every answer
    body: Thing = {"model": model, "stream": stream, "messages": messages_out(given)}
    for name, kind in EXTENSIONS.items():
        if (value := given.take_as(name, kind)) is not None and value != []:
            body[name] = value
    _sampling(given, body)
    longest = given.longest()
    if longest is not None:
        body["max_tokens"] = longest[1]
    _tools(given, body)
    _format(given, body)
    _thinking(given, body)
    given.close()
    return Outgoing(
        CHAT_PATH,
        msgspec.json.encode(body),
        dropped=tuple(given.dropped),
        lowered=tuple(given.lowered),
    )


def _sampling(given: Given, body: Thing) -> None:
    said = {
        "temperature": given.take_as("temperature", int, float),
        "seed": given.whole("seed"),
        "p": given.within("top_p", 0.01, 0.99),
        "k": _top_k(given),
        "frequency_penalty": given.within("frequency_penalty", 0, 1),
        "presence_penalty": given.within("presence_penalty", 0, 1),
        "stop_sequences": _stops(given),
        "logprobs": given.take_as("logprobs", bool) or None,
    }
    body.update((name, value) for name, value in said.items() if value is not None)


def _top_k(given: Given) -> int | None:
    """0 and what is below it stand for every token, and so does 0 at Cohere."""
    value = given.whole("top_k")
    if value is not None and value > 500:
        given.lower("top_k")
        return 500
    return None if value is None else max(0, value)


def _stops(given: Given) -> list[str] | None:
    stop = given.take_as("stop", str, list)
    stops = [stop] if isinstance(stop, str) else stop
    if not stops or stops == [""]:
        return None
    if not all(isinstance(text, str) for text in stops):
        raise wrong("stop", "a string or a list of strings")
    if len(stops) > _MOST_STOPS:
        raise InvalidRequest(
            f"`stop` has {len(stops)} texts; Cohere takes {_MOST_STOPS} at most.", param="stop"
        )
    return stops


# --- tools


def _tools(given: Given, body: Thing) -> None:
    tools = given.take_as("tools", list) or []
    choice = given.take_as("tool_choice", str, dict)
    parallel = given.take_as("parallel_tool_calls", bool)
    if not tools:
        if choice not in (None, "auto", "none"):
            raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return
    if parallel is False:
        raise given.lacks("parallel_tool_calls", "way to keep calls single (`parallel_tool_calls`)")
    found = [_tool(tool, f"tools[{index}]", given) for index, tool in enumerate(tools)]
    word, names = _choice(choice, given)
    if names is not None:
        known = {tool["function"]["name"] for tool, _ in found}
        if missing := sorted(names - known):
            raise InvalidRequest(
                f"`tool_choice` names `{missing[0]}`, which is not in `tools`.",
                param="tool_choice",
            )
        found = [pair for pair in found if pair[0]["function"]["name"] in names]
    body["tools"] = [tool for tool, _ in found]
    if word is not None:
        body["tool_choice"] = word
    if any(strict for _, strict in found) and not body.get("strict_tools"):
        # Cohere is strict with all of them or with none.
        if "strict_tools" not in body and all(strict for _, strict in found):
            body["strict_tools"] = True
        else:
            given.drop("tools.strict")


def _tool(tool: Any, place: str, given: Given) -> tuple[Thing, bool]:
    """A tool, and whether its calls must keep to its schema."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise InvalidRequest(
            f"`{place}`: Cohere has no tools but functions.",
            param=place,
            code="unsupported_parameter",
        )
    given.leave(tool, ("type", "function"), place)
    given.leave(function, FUNCTION, f"{place}.function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str):
        raise wrong(f"{place}.function.name", "a string")
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong(f"{place}.function.parameters", "an object")
    out: Thing = {"name": name, "parameters": parameters or NO_PARAMETERS}
    if isinstance(function.get("description"), str):
        out["description"] = function["description"]
    return {"type": "function", "function": out}, function.get("strict") is True


def _choice(choice: Any, given: Given) -> tuple[str | None, frozenset[str] | None]:
    """Cohere's word, and the only tools that may be called; None: any. A tool by its name is the
    only one, which must be called."""
    if choice is None or choice == "auto":
        return None, None
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise InvalidRequest(
                "`tool_choice` should be auto, none, required or a function.", param="tool_choice"
            )
        return _CHOICES[choice], None
    function, allowed = choice.get("function"), choice.get("allowed_tools")
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        given.leave(choice, ("type", "function"), "tool_choice")
        given.leave(function, ("name",), "tool_choice.function")
        return "REQUIRED", frozenset({function["name"]})
    if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
        given.leave(choice, ("type", "allowed_tools"), "tool_choice")
        given.leave(allowed, ("mode", "tools"), "tool_choice.allowed_tools")
        names = [_name_of(tool) for tool in allowed["tools"]]
        if None not in names and names:
            word = "REQUIRED" if allowed.get("mode") == "required" else None
            return word, frozenset(name for name in names if name is not None)
    raise given.lacks("tool_choice", "such `tool_choice`")


def _name_of(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


# --- the answer's form


def _format(given: Given, body: Thing) -> None:
    said = given.take_as("response_format", dict)
    if said is None:
        return
    if said.get("type") == "text":
        given.leave(said, ("type",), "response_format")
        return
    if said.get("type") not in ("json_object", "json_schema"):
        raise given.lacks("response_format", "such `response_format`")
    clash = next((name for name in ("tools", "documents") if name in body), None)
    if clash is not None:
        raise InvalidRequest(
            f"Cohere takes no `response_format` together with `{clash}`.",
            param="response_format",
            code="unsupported_parameter",
        )
    body["response_format"] = {"type": "json_object"}
    if said["type"] == "json_object":
        given.leave(said, ("type",), "response_format")
        return
    body["response_format"]["json_schema"] = given.schema(said)


def _thinking(given: Given, body: Thing) -> None:
    """`thinking` as it is, in Cohere's words or in Anthropic's, or what `reasoning_effort` means.
    Without either the model does as it likes: those that can, think."""
    said = given.take_as("thinking", dict)
    effort = given.take_as("reasoning_effort", str)
    if said is not None:
        if effort is not None:
            given.drop("reasoning_effort")  # the other one says it more closely
        given.leave(said, ("type", "token_budget", "budget_tokens"), "thinking")
        budget = said.get("token_budget", said.get("budget_tokens"))
        if said.get("type") not in ("enabled", "disabled"):
            raise InvalidRequest(
                "`thinking.type` should be enabled or disabled.", param="thinking.type"
            )
        if budget is not None and (not isinstance(budget, int) or budget < 1):
            raise InvalidRequest(
                "`thinking.token_budget` should be a number over 0.", param="thinking.token_budget"
            )
        body["thinking"] = _thought(said["type"], budget)
    elif effort is not None:
        if effort not in _EFFORTS:
            raise InvalidRequest(
                f"`reasoning_effort` should be one of {', '.join(sorted(_EFFORTS))}.",
                param="reasoning_effort",
            )
        budget = _BUDGETS.get(effort)
        if budget is not None and "max_tokens" in body:
            # A quarter at least is for the answer.
            budget = max(1, min(budget, body["max_tokens"] * 3 // 4))
        body["thinking"] = _thought("disabled" if effort == "none" else "enabled", budget)


def _thought(kind: str, budget: int | None) -> Thing:
    return {"type": kind} if budget is None else {"type": kind, "token_budget": budget}
