"""What a client of OpenAI's API asks, so that a recorded request goes out once more.

The way back from each provider's words to OpenAI's. A client cannot say everything that they can:
what it cannot say is taken out of the recorded request, by its name, and the rest must arrive.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.protocol.envelope import Surface
from tests.dialects.cohere.theirs import back as cohere_back
from tests.replay import anthropic_back

Body = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """A client's request, without its model. `arrives` is what the upstream must get for it, in the
    form that `formed` brings both into; `unsaid` names what OpenAI's API has no word for."""

    surface: Surface
    body: Body
    arrives: Body
    unsaid: tuple[str, ...] = ()


def asking(provider: str, path: str, request: Body) -> Asking:
    """What to ask for a recorded request."""
    request = copy.deepcopy(request)
    if path.endswith(("/embeddings", "/embed")):
        return _embeddings(provider, request)
    if path.endswith("/rerank"):
        said = _without_nulls(request)
        return Asking(Surface.RERANK, _without_model(said), said)
    return _CHATS[provider](request)


def formed(provider: str, body: Body) -> Body:
    """A body as it is to be compared: where a provider reads two spellings alike, in one."""
    return _FORMS.get(provider, copy.deepcopy)(body)


# --- OpenAI, and who speaks as it does


def _as_it_is(request: Body) -> Asking:
    return Asking(Surface.CHAT, _without_model(request), request)


def _huggingface(request: Body) -> Asking:
    """Its own client asks for no usage in streams, though it comes; a strict one does."""
    body = _without_model(request)
    if request.get("stream"):
        body["stream_options"] = {"include_usage": True}
        request = {**request, "stream_options": {"include_usage": True}}
    return Asking(Surface.CHAT, body, request)


# --- Mistral


def _mistral(request: Body) -> Asking:
    arrives = copy.deepcopy(request)
    body = _with_usage(_without_model(request))
    if body.get("tool_choice") == "any":
        body["tool_choice"] = "required"
    if "random_seed" in body:
        body["seed"] = body.pop("random_seed")
    for message in body["messages"]:
        message.pop("prefix", None)
        for part in _parts(message):
            if part["type"] == "document_url":
                part["file"] = {"file_data": part.pop("document_url")}
                part["type"] = "file"
            if part["type"] == "image_url" and isinstance(part["image_url"], str):
                part["image_url"] = {"url": part["image_url"]}
        for call in message.get("tool_calls") or []:
            call.setdefault("type", "function")
            call.pop("index", None)
        if message.get("content") == []:
            message["content"] = ""
    for tool in body.get("tools", []):
        tool.setdefault("type", "function")
    return Asking(Surface.CHAT, body, arrives)


def _mistral_form(body: Body) -> Body:
    """Without what says nothing, or nothing that is not so anyway."""
    body = _without_nulls(body)
    for name, idle in (("n", 1), ("stream", False), ("tools", [])):
        if body.get(name) == idle:
            del body[name]
    for message in body.get("messages", []):
        if message.get("prefix") is False:
            del message["prefix"]
        if message.get("content") == []:
            message["content"] = ""
        if message.get("tool_calls") == []:
            del message["tool_calls"]
        for part in _parts(message):
            if part["type"] == "image_url" and isinstance(part["image_url"], str):
                part["image_url"] = {"url": part["image_url"]}
        for call in message.get("tool_calls", []):
            call.pop("index", None)
            call.setdefault("type", "function")
    for tool in body.get("tools", []):
        tool.setdefault("type", "function")
    return body


# --- Cohere


def _cohere(request: Body) -> Asking:
    said = _without_nulls(request)
    body = _with_usage(_without_model(copy.deepcopy(said)))
    for theirs, ours in (("stop_sequences", "stop"), ("p", "top_p"), ("k", "top_k")):
        if theirs in body:
            body[ours] = body.pop(theirs)
    if "tool_choice" in body:
        body["tool_choice"] = {"REQUIRED": "required", "NONE": "none"}[body["tool_choice"]]
    if schema := body.get("response_format", {}).get("json_schema"):
        named = {"name": "answer", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    body["messages"] = cohere_back(body["messages"])
    return Asking(Surface.CHAT, body, said)


def _cohere_form(body: Body) -> Body:
    return dict(_bare(body))


def _bare(value: Any) -> Any:
    """Without what stands there and says nothing."""
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if item not in (None, [])}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _embeddings(provider: str, request: Body) -> Asking:
    """Of Cohere's, floats: the strict mode of OpenAI's SDK cannot read base64, which is tried in
    the tests of the dialect."""
    if provider != "cohere":
        return Asking(Surface.EMBEDDINGS, _without_model(request), request)
    said = _without_nulls(request)
    body = {
        "input": said["texts"],
        "encoding_format": "float",
        "input_type": said["input_type"],
        "truncate": said["truncate"],
    }
    if "output_dimension" in said:
        body["dimensions"] = said["output_dimension"]
    return Asking(Surface.EMBEDDINGS, body, said)


# --- Anthropic


def _anthropic(request: Body) -> Asking:
    said, unsaid = anthropic_back.sayable(request)
    body = _with_usage(_without_model(anthropic_back.back(said)))
    return Asking(Surface.CHAT, body, said, tuple(unsaid))


# --- all of them


def _without_model(body: Body) -> Body:
    return {name: value for name, value in body.items() if name != "model"}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _with_usage(body: Body) -> Body:
    """A stream's usage is asked for, since it is to be compared."""
    return {**body, "stream_options": {"include_usage": True}} if body.get("stream") else body


def _parts(message: Body) -> list[Body]:
    content = message.get("content")
    return content if isinstance(content, list) else []


_CHATS: dict[str, Callable[[Body], Asking]] = {
    "anthropic": _anthropic,
    "cohere": _cohere,
    "deepseek": _as_it_is,
    "huggingface": _huggingface,
    "mistral": _mistral,
    "openai": _as_it_is,
}
_FORMS: dict[str, Callable[[Body], Body]] = {
    "anthropic": anthropic_back.formed,
    "cohere": _cohere_form,
    "mistral": _mistral_form,
}
