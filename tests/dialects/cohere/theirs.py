"""Cohere's own SDK as the judge of what we send."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable
from typing import Any

import pydantic
from cohere.v2.client import V2Client
from pydantic import TypeAdapter

from server.dialects.base import Outgoing
from server.dialects.cohere import Cohere
from server.protocol.envelope import Surface
from tests.dialects.replay import sent

DIALECT = Cohere()
#: The methods that have these bodies' members as parameters.
_METHODS: dict[str, Callable[..., Any]] = {
    "/chat": V2Client.chat,
    "/embed": V2Client.embed,
    "/rerank": V2Client.rerank,
}


def checked(outgoing: Outgoing) -> dict[str, Any]:
    """The body, once every member of it is a parameter of the SDK's method, and of its type."""
    body: dict[str, Any] = json.loads(outgoing.body)
    method = _METHODS[outgoing.path]
    kinds = typing.get_type_hints(method)
    known = inspect.signature(method).parameters
    for name, value in body.items():
        if name == "stream":
            assert isinstance(value, bool)
            continue
        assert name in known, name
        _known_inside(TypeAdapter(kinds[name]).validate_python(value))
    needed = {
        name
        for name, one in known.items()
        if name != "self" and one.default is inspect.Parameter.empty
    }
    assert needed <= body.keys()
    return body


def _known_inside(value: Any) -> None:
    """No model in this value has members that its type does not know: they allow them all."""
    if isinstance(value, pydantic.BaseModel):
        assert not value.model_extra, (type(value), value.model_extra)
        for name in type(value).model_fields:
            _known_inside(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            _known_inside(item)


def out(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    """The body that goes out for a client's, and that Cohere's SDK would have sent as well."""
    return checked(sent(DIALECT, body, **how))


def embedded(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    """The same of embeddings."""
    return out({"input": "a", **body}, surface=Surface.EMBEDDINGS, **how)


def back(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI's conversation of Cohere's."""
    out = []
    for message in messages:
        one = dict(message)
        if plan := one.pop("tool_plan", None):
            one["reasoning_content"] = plan
        content = one.get("content")
        if one["role"] == "assistant" and isinstance(content, list):
            thoughts = [part["thinking"] for part in content if part["type"] == "thinking"]
            if thoughts:
                one["reasoning_content"] = "".join(thoughts)
                one["content"] = [part for part in content if part["type"] != "thinking"]
        out.append(one)
    return out
