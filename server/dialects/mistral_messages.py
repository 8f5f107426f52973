"""Messages as Mistral takes them: no member that it does not know, and ids of its own form."""

from __future__ import annotations

import hashlib
import re
import string
from typing import Any, Final

from server.dialects.given import Given, wrong
from server.dialects.members import CALL, CALLED
from server.errors import InvalidRequest

Thing = dict[str, Any]

#: The schema of a tool that says nothing of its parameters; Mistral wants one.
NO_PARAMETERS: Final[Thing] = {"type": "object", "properties": {}}
_KNOWN: Final = {
    "assistant": ("content", "tool_calls", "prefix"),
    "system": ("content",),
    "tool": ("content", "tool_call_id", "name"),
    "user": ("content",),
}
#: Understood, and told in other words.
_UNDERSTOOD: Final = frozenset({"role", "reasoning", "reasoning_content", "refusal"})
#: OpenAI's parts, and what of the object in each is taken. What sounds are, Mistral hears itself.
_PARTS: Final[dict[str, tuple[str, ...]]] = {
    "file": (),
    "image_url": ("url", "detail"),
    "input_audio": ("data", "format"),
    "refusal": (),
    "text": (),
}
_IDENTITY: Final = re.compile(r"[a-zA-Z0-9]{9}")
_LETTERS: Final = string.ascii_letters + string.digits


def messages_out(given: Given, *, thinks: bool) -> list[Thing]:
    """The messages. `thinks`: this model takes thoughts of earlier turns; others refuse them, and
    they are let go."""
    messages = given.take_as("messages", list)
    if messages is None:
        raise InvalidRequest(
            "You must provide `messages`.", param="messages", code="missing_required_parameter"
        )
    return [_message(m, f"messages[{i}]", given, thinks) for i, m in enumerate(messages)]


def _message(message: Any, where: str, given: Given, thinks: bool) -> Thing:
    if not isinstance(message, dict):
        raise wrong(where, "an object")
    role = message.get("role")
    if role == "developer":
        role = "system"
    if not isinstance(role, str) or role not in _KNOWN:
        raise InvalidRequest(f"`{where}.role` is not known.", param=f"{where}.role")
    known = _KNOWN[role]
    given.leave(message, {*known, *_UNDERSTOOD}, where)
    out: Thing = {"role": role}
    for name in known:
        if message.get(name) is not None:
            out[name] = message[name]
    content = out.get("content")
    if isinstance(content, list):
        out["content"] = [_part(p, f"{where}.content[{i}]", given) for i, p in enumerate(content)]
    if "tool_call_id" in out:
        out["tool_call_id"] = identity(out["tool_call_id"], f"{where}.tool_call_id")
    if role == "assistant":
        _answer(out, message, where, given, thinks)
    return out


def _answer(out: Thing, message: Thing, where: str, given: Given, thinks: bool) -> None:
    calls = out.pop("tool_calls", None) or []
    if not isinstance(calls, list):
        raise wrong(f"{where}.tool_calls", "a list")
    if calls:
        out["tool_calls"] = [
            _call(c, f"{where}.tool_calls[{i}]", given) for i, c in enumerate(calls)
        ]
    refusal = message.get("refusal")
    if not out.get("content"):
        out["content"] = refusal if isinstance(refusal, str) else ""
    elif refusal:
        given.drop("messages.refusal")  # what the model had said until then stands
    other = message.get("reasoning")
    thought = message.get("reasoning_content") or other
    if other and other != thought:
        given.drop("messages.reasoning")
    if not isinstance(thought, str) or not thought:
        return
    if not thinks:
        given.drop("messages.reasoning_content")
        return
    texts = [{"type": "text", "text": thought}]
    content = out["content"]
    rest = content if isinstance(content, list) else [{"type": "text", "text": content}]
    out["content"] = [
        {"type": "thinking", "thinking": texts, "closed": True},
        *(part for part in rest if part.get("text") != ""),
    ]


def _call(call: Any, place: str, given: Given) -> Thing:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise InvalidRequest(
            f"`{place}`: Mistral has no calls but those of functions.",
            param=place,
            code="unsupported_parameter",
        )
    given.leave(call, CALL, place)
    given.leave(function, CALLED, f"{place}.function")
    return {
        "id": identity(call.get("id"), f"{place}.id"),
        "type": "function",
        "function": {
            "name": function.get("name"),
            "arguments": function.get("arguments") or "{}",
        },
    }


def identity(said: Any, where: str) -> str:
    """An id that Mistral takes: nine letters or digits. Another one comes to the same nine each
    time, so that a call and its result still meet."""
    if not isinstance(said, str):
        raise wrong(where, "a string")
    if _IDENTITY.fullmatch(said):
        return said
    digest = hashlib.blake2b(said.encode(), digest_size=9).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)


def _part(part: Any, place: str, given: Given) -> Any:
    """OpenAI's parts; Mistral's own ones pass."""
    if not isinstance(part, dict):
        raise wrong(place, "an object")
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS or (kind == "file" and "file" not in part):
        return part
    given.leave(part, ("type", kind), place)
    inner = part.get(kind)
    if kind in ("refusal", "text"):
        return {"type": "text", "text": inner}
    if isinstance(inner, dict):
        if kind == "file":
            return _file(inner, f"{place}.file", given)
        given.leave(inner, _PARTS[kind], f"{place}.{kind}")
        if kind == "input_audio":
            return {"type": kind, kind: inner.get("data")}
        inner = {name: inner[name] for name in _PARTS[kind] if inner.get(name) is not None}
    return {"type": kind, kind: inner}


def _file(file: Thing, where: str, given: Given) -> Thing:
    data, name = file.get("file_data"), file.get("filename")
    if isinstance(data, str):
        given.leave(file, ("file_data", "filename"), where)
        address = data if data.startswith(("data:", "https://", "http://")) else _PDF + data
        out = {"type": "document_url", "document_url": address}
        return {**out, "document_name": name} if isinstance(name, str) else out
    if isinstance(file.get("file_id"), str):
        given.leave(file, ("file_id",), where)
        return {"type": "file", "file_id": file["file_id"]}
    raise wrong(where, "an object with `file_data`")


_PDF: Final = "data:application/pdf;base64,"
