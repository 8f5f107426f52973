"""Mistral: OpenAI's shape with rules of its own. A field that it does not know is refused (422).

Source: the request types of its SDK 3, and errors as clients report them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.dialects import members, openai, shapes
from server.dialects.base import Asked, Outgoing, Reader
from server.dialects.given import Given, wrong
from server.dialects.mistral_messages import NO_PARAMETERS, messages_out
from server.dialects.openai import Facts
from server.dialects.tidy import Calls, TidyReader, number_call, whole
from server.errors import InvalidRequest, UpstreamStatus
from server.protocol.envelope import Surface
from server.protocol.request import Request

_WHO: Final = "Mistral"
#: What Mistral has in OpenAI's words, or in its own that a client may send besides.
_CHAT: Final = (
    "frequency_penalty",
    "guardrails",
    "logprobs",
    "metadata",
    "min_tokens",
    "n",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_mode",
    "random_seed",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "safe_prompt",
    "stop",
    "temperature",
    "top_k",
    "top_logprobs",
    "top_p",
)
_EMBEDDINGS: Final = ("encoding_format", "input", "metadata", "output_dimension", "output_dtype")
_FINISHED: Final = {"model_length": "length"}


class Mistral:
    """See `dialects.base.Dialect`. It has no settings."""

    name = "mistral"
    lacks: frozenset[str] = frozenset()

    def request_out(
        self,
        request: Request,
        *,
        model: str,
        members: Mapping[str, object],
        drop: frozenset[str],
        settings: Mapping[str, object],
    ) -> Outgoing:
        given = Given(members, drop, _WHO)
        given.take("model")
        if request.surface is Surface.CHAT:
            body = _chat(given, model, stream=request.stream)
        elif request.surface is Surface.EMBEDDINGS:
            body = _embeddings(given, model)
        else:
            raise InvalidRequest(
                f"Mistral has no {request.surface.value}: use chat or embeddings.",
                param="model",
                code="unsupported_endpoint",
            )
        given.close()
        return Outgoing(
            openai.PATHS[request.surface],
            msgspec.json.encode(body),
            dropped=tuple(given.dropped),
            lowered=tuple(given.lowered),
        )

    def answer_in(self, payload: bytes, asked: Asked) -> tuple[bytes, Facts]:
        if asked.surface is Surface.CHAT:
            return whole(payload, _Fix(complete=True))
        return payload, openai.answer_in(payload)

    def reader(self, asked: Asked) -> Reader:
        return TidyReader(asked, _Fix(), signs=None, extra=_PADDING)

    def error_in(self, status: int, body: bytes) -> UpstreamStatus:
        return error_in(status, body)


# --- request out


def _chat(given: Given, model: str, *, stream: bool) -> dict[str, Any]:
    given.take("stream")
    given.stream_options()  # usage stands in every stream
    body: dict[str, Any] = {"model": model, "stream": stream}
    for name in _CHAT:
        if (value := given.keep(name)) is not None:
            body[name] = value
    if (seed := given.keep("seed")) is not None:
        body["random_seed"] = seed
    if (longest := given.longest()) is not None:
        body["max_tokens"] = longest[1]
    _tools(given, body)
    _hints(given, body)
    thinks = "magistral" in model or "prompt_mode" in body
    thinks |= body.get("reasoning_effort", "none") != "none"
    body["messages"] = messages_out(given, thinks=thinks)
    return body


def _tools(given: Given, body: dict[str, Any]) -> None:
    tools = given.take_as("tools", list) or []
    choice = given.take_as("tool_choice", str, dict)
    parallel = given.take_as("parallel_tool_calls", bool)
    if not tools:  # an empty list is refused, too
        if choice not in (None, "auto", "none"):
            raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return
    body["tools"] = [_tool(tool, f"tools[{index}]", given) for index, tool in enumerate(tools)]
    if isinstance(choice, dict) and choice.get("type", "function") != "function":
        raise given.lacks("tool_choice", "such `tool_choice`")
    if choice is not None:
        body["tool_choice"] = "any" if choice == "required" else choice
    if parallel is not None:
        body["parallel_tool_calls"] = parallel


def _tool(tool: Any, where: str, given: Given) -> Any:
    """A function; Mistral's own tools pass."""
    if not isinstance(tool, dict):
        raise wrong(where, "an object")
    if tool.get("type") == "custom":
        raise InvalidRequest(
            f"`{where}`: Mistral has no custom tools.", param=where, code="unsupported_parameter"
        )
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    given.leave(tool, ("type", "function"), where)
    given.leave(function, members.FUNCTION, f"{where}.function")
    told = {name: function[name] for name in members.FUNCTION if function.get(name) is not None}
    return {"type": "function", "function": {"parameters": NO_PARAMETERS, **told}}


def _hints(given: Given, body: dict[str, Any]) -> None:
    """What is the same at Mistral for some values alone."""
    tier = given.take("service_tier")
    if tier in ("auto", "standard_only"):
        body["service_tier"] = tier
    elif tier not in (None, "default"):
        raise given.lacks("service_tier", "such `service_tier`")
    prediction = given.take_as("prediction", dict) or {}
    given.leave(prediction, ("type", "content"), "prediction")
    content = prediction.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        for part in parts:
            given.leave(part, ("type", "text"), "prediction.content")
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if isinstance(content, str):
        body["prediction"] = {"type": "content", "content": content}


def _embeddings(given: Given, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model}
    for name in _EMBEDDINGS:
        if (value := given.keep(name)) is not None:
            body[name] = value
    if (dimensions := given.keep("dimensions")) is not None:
        body["output_dimension"] = dimensions
    return body


# --- answer and event in

#: What Mistral fills chunks up with, so that their length tells nothing.
_PADDING: Final = frozenset({"p"})


class _Fix:
    """Puts the choices of one answer or one stream right: a list of content parts is text and
    reasoning, and calls have what OpenAI's have."""

    __slots__ = ("_calls", "_complete", "_listed", "_written")

    def __init__(self, *, complete: bool = False) -> None:
        """`complete`: calls are whole, and have arguments that can be decoded."""
        self._complete = complete
        #: Of each choice.
        self._calls: dict[int, Calls] = {}
        #: And how many characters there were, and references and other parts.
        self._written: dict[int, int] = {}
        self._listed: dict[int, dict[str, int]] = {}

    def __call__(self, choice: dict[str, Any], part: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if reason in _FINISHED:
            choice["finish_reason"] = _FINISHED[reason]
        content, index = part.get("content"), choice["index"]
        if isinstance(content, list):
            self._split(content, part, index)
        elif isinstance(content, str):
            self._written[index] = self._written.get(index, 0) + len(content)
        calls = part.get("tool_calls")
        if isinstance(calls, list) and calls:
            known = self._calls.setdefault(index, Calls())
            for call in calls:
                if isinstance(call, dict):
                    number_call(call, known)
                    if self._complete and isinstance(call.get("function"), dict):
                        call["function"]["arguments"] = call["function"].get("arguments") or "{}"
        elif "tool_calls" in part:
            del part["tool_calls"]

    def _split(self, content: list[Any], part: dict[str, Any], index: int) -> None:
        """The text and the thoughts of a list of parts; the references, as `citations`, and what
        Mistral's own tools made, as `content_parts`, each with its place in the text."""
        texts: list[str] = []
        thoughts: list[str] = []
        found: dict[str, list[Any]] = {}
        written, listed = self._written.get(index, 0), self._listed.setdefault(index, {})
        for item in content:
            kind = item.get("type", "text") if isinstance(item, dict) else "text"
            if kind == "text":
                text = item if isinstance(item, str) else _text(item)
                texts.append(text)
                written += len(text)
            elif kind == "thinking":
                thoughts.append(_thought(item.get("thinking")))
            else:
                name = "citations" if kind == "reference" else "content_parts"
                place = {"index": listed.get(name, 0), "start": written, "end": written}
                listed[name] = place["index"] + 1
                found.setdefault(name, []).append({**item, **place})
        self._written[index] = written
        part.update(found)
        part["content"] = "".join(texts)
        if any(thoughts):
            part["reasoning_content"] = "".join(thoughts)


def _text(item: Any) -> str:
    text = item.get("text") if isinstance(item, dict) else None
    return text if isinstance(text, str) else ""


def _thought(thinking: Any) -> str:
    if isinstance(thinking, str):
        return thinking
    said = thinking if isinstance(thinking, list) else ()
    texts = [item.get("text") for item in said if isinstance(item, dict)]
    return "".join(text for text in texts if isinstance(text, str))


# --- error in


def error_in(status: int, body: bytes) -> UpstreamStatus:
    """`{"object": "error", "message": …}`, whose message may be a list or hold one, `{"message"}`
    or `{"detail": […]}`: what was found wrong, by place."""
    found = shapes.decoded(body)
    if not isinstance(found, dict):
        return openai.error_in(status, body)
    message = found.get("message", found.get("detail"))
    if isinstance(message, dict):
        message = message.get("detail", message.get("message"))
    param = found.get("param")
    if isinstance(message, list):
        message, param = shapes.findings(message)
    if not isinstance(message, str):
        return openai.error_in(status, body)
    inner = {"message": message, "type": found.get("type"), "param": param}
    if status == 429:  # Mistral's codes are numbers that mean nothing elsewhere
        inner["code"] = "rate_limit_exceeded"
    return openai.error_in(status, shapes.body_of(inner))
