"""Messages: OpenAI's as Cohere's, and nothing lost without a name.

A `tool_plan`, `citations` and parts of the type `document` are Cohere's own; answers of ours carry
them as extension fields, and a client that sends its history back sends them, too.
"""

from __future__ import annotations

from typing import Any, Final

from server.dialects.given import Given, wrong
from server.dialects.members import CALL, CALLED
from server.errors import InvalidRequest

Thing = dict[str, Any]

#: The schema of a tool that says nothing of its parameters; Cohere wants one.
NO_PARAMETERS: Final[Thing] = {"type": "object", "properties": {}}
#: What Anthropic's citations have, and Mistral's.
_FOREIGN: Final = frozenset({"cited_text", "reference_ids"})
_ROLES: Final = frozenset({"assistant", "developer", "system", "tool", "user"})
#: What may stand in a message of each role. The rest is let go and named as `messages.<name>`.
_KNOWN: Final = {
    "assistant": frozenset(
        "role content tool_calls reasoning reasoning_content refusal tool_plan citations".split()
    ),
    "system": frozenset({"role", "content"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "user": frozenset({"role", "content"}),
}


def messages_out(given: Given) -> list[Thing]:
    """The messages as Cohere has them: what the system says in front, as one message."""
    messages = given.take_as("messages", list)
    if messages is None:
        raise InvalidRequest(
            "You must provide `messages`.", param="messages", code="missing_required_parameter"
        )
    system: list[Any] = []
    others: list[Thing] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong(where, "an object")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidRequest(f"`{where}.role` is not known.", param=f"{where}.role")
        kind = "system" if role == "developer" else role
        given.leave(message, _KNOWN[kind], where)
        if kind == "system":
            content = _content(message.get("content"), f"{where}.content", _TEXT, given)
            system.append(content)
        elif kind == "user":
            content = _content(message.get("content"), f"{where}.content", _USER, given)
            others.append({"role": "user", "content": content})
        elif kind == "assistant":
            others.append(_assistant(message, where, given))
        else:
            others.append(_tool(message, where, given))
    return [{"role": "system", "content": _joined(system)}, *others] if system else others


def _joined(system: list[Any]) -> Any:
    """One message of the system keeps its content; several are joined, a line to each."""
    if len(system) == 1:
        return system[0]
    texts = [
        content if isinstance(content, str) else "\n".join(part["text"] for part in content)
        for content in system
    ]
    return "\n".join(texts)


_TEXT: Final = frozenset({"text"})
_USER: Final = frozenset({"text", "image_url"})
_IMAGE: Final = ("url", "detail")
_TOOL: Final = frozenset({"text", "document"})


def _content(content: Any, where: str, kinds: frozenset[str], given: Given) -> Any:
    """A string, or parts of these kinds."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(where, "a string or a list")
    parts = []
    for index, part in enumerate(content):
        place = f"{where}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise InvalidRequest(
                f"`{place}`: Cohere takes no part of type {_shown(kind)} here.",
                param=place,
                code="unsupported_parameter",
            )
        given.leave(part, ("type", kind), place)
        parts.append({"type": kind, kind: _inside(part, kind, place, given)})
    return parts


def _inside(part: Thing, kind: str, place: str, given: Given) -> Any:
    inner = part.get(kind)
    if kind == "text":
        if not isinstance(inner, str):
            raise wrong(f"{place}.text", "a string")
        return inner
    if kind == "image_url" and isinstance(inner, str):
        return {"url": inner}
    if not isinstance(inner, dict):
        raise wrong(f"{place}.{kind}", "an object")
    if kind == "image_url":
        if not isinstance(inner.get("url"), str):
            raise wrong(f"{place}.image_url.url", "a string")
        given.leave(inner, _IMAGE, f"{place}.image_url")
        return {name: inner[name] for name in _IMAGE if inner.get(name) is not None}
    return inner


def _shown(kind: Any) -> str:
    return f"`{kind}`" if isinstance(kind, str) and len(kind) < 40 else "that is not known"


def _assistant(message: Thing, where: str, given: Given) -> Thing:
    out: Thing = {"role": "assistant"}
    if calls := _calls(message.get("tool_calls"), f"{where}.tool_calls", given):
        out["tool_calls"] = calls
    plan, thought = _thoughts(message, where, given)
    if plan:
        out["tool_plan"] = plan
    content = _said(message, f"{where}.content", given)
    if thought:
        texts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts = [{"type": "thinking", "thinking": thought}, *texts]
        out["content"] = [part for part in parts if part.get("text") != ""]
    elif content or not calls:
        out["content"] = content
    if citations := _citations(message, given):
        out["citations"] = citations
    return out


def _citations(message: Thing, given: Given) -> list[Thing]:
    """Cohere's own; those of other providers are let go. The `index` is ours."""
    said = message.get("citations") or []
    found = [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []
    own = [one for one in found if _FOREIGN.isdisjoint(one)]
    if not isinstance(said, list) or len(own) < len(said):
        given.drop("messages.citations")
    return [{name: one[name] for name in one if name != "index"} for one in own]


def _thoughts(message: Thing, where: str, given: Given) -> tuple[str, str]:
    """The plan and what was thought besides. Thoughts before calls are a plan; a plan that the
    client has apart from them stands at their end as well, for so our answers have it."""
    other = message.get("reasoning")
    thought = message.get("reasoning_content") or other or ""
    if other and other != thought:
        given.drop("messages.reasoning")
    plan = message.get("tool_plan") or ""
    if not isinstance(thought, str):
        raise wrong(f"{where}.reasoning_content", "a string")
    if not isinstance(plan, str):
        raise wrong(f"{where}.tool_plan", "a string")
    if not message.get("tool_calls"):
        if plan:
            given.drop("messages.tool_plan")
        return "", thought
    return (plan, thought.removesuffix(plan)) if plan else (thought, "")


def _said(message: Thing, where: str, given: Given) -> Any:
    """The content; a string where it has none. What a model refused with is its content."""
    content, refusal = message.get("content"), message.get("refusal")
    if content and refusal:
        given.drop("messages.refusal")  # what the model had said until then stands
    if isinstance(content, list):
        return _content(_without_refusals(content), where, _TEXT, given)
    if content is not None and not isinstance(content, str):
        raise wrong(where, "a string or a list")
    return content or (refusal if isinstance(refusal, str) else "")


def _without_refusals(content: list[Any]) -> list[Any]:
    """What a model refused with is a text to the next one."""
    return [
        {**{k: v for k, v in part.items() if k != "refusal"}, **_as_text(part)}
        if isinstance(part, dict) and part.get("type") == "refusal"
        else part
        for part in content
    ]


def _as_text(part: Thing) -> Thing:
    return {"type": "text", "text": part.get("refusal")}


def _calls(calls: Any, where: str, given: Given) -> list[Thing]:
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise wrong(where, "a list")
    return [_call(call, f"{where}[{index}]", given) for index, call in enumerate(calls)]


def _call(call: Any, place: str, given: Given) -> Thing:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise InvalidRequest(
            f"`{place}`: Cohere has no calls but those of functions.",
            param=place,
            code="unsupported_parameter",
        )
    given.leave(call, CALL, place)
    given.leave(function, CALLED, f"{place}.function")
    identity, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
    if not isinstance(identity, str):
        raise wrong(f"{place}.id", "a string")
    if not isinstance(name, str):
        raise wrong(f"{place}.function.name", "a string")
    if arguments is not None and not isinstance(arguments, str):
        raise wrong(f"{place}.function.arguments", "a string")
    return {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": arguments or "{}"},
    }


def _tool(message: Thing, where: str, given: Given) -> Thing:
    identity = message.get("tool_call_id")
    if not isinstance(identity, str):
        raise wrong(f"{where}.tool_call_id", "a string")
    content = _content(message.get("content"), f"{where}.content", _TOOL, given)
    return {"role": "tool", "tool_call_id": identity, "content": content}
