"""Reading an answer: when its first token came, and whether it is whole. No clock, no sockets."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from server.errors import UpstreamError
from server.loadtest.sample import Failure
from server.protocol import sse

EVENT_LIMIT: Final = 8 * 2**20
#: Finish reasons that say that the engine gave up.
BROKEN: Final = frozenset({"abort", "error"})
_TEXT: Final = 300


class _Delta(msgspec.Struct):
    # `Any`: some servers stream parts where others stream text. Only "is there something?" counts.
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None

    @property
    def says_something(self) -> bool:
        return bool(
            self.content
            or self.reasoning
            or self.reasoning_content
            or self.tool_calls
            or self.refusal
            or self.function_call
        )


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class Reading:
    """An answer as it comes in: `feed` a stream's bytes or hand over the `whole` body, then ask for
    the `failure`."""

    __slots__ = (
        "_last",
        "_splitter",
        "cached_tokens",
        "chunks",
        "done",
        "failed",
        "finish",
        "first",
        "gaps",
        "output_tokens",
        "prompt_tokens",
    )

    def __init__(self) -> None:
        self._splitter = sse.Splitter(EVENT_LIMIT)
        self._last = 0.0
        #: When the first chunk with content came, and the seconds between the later ones.
        self.first: float | None = None
        self.gaps: array[float] = array("d")
        self.chunks = 0
        self.output_tokens: int | None = None
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.finish: str | None = None
        #: `[DONE]` was there, or the whole body.
        self.done = False
        self.failed: Failure | None = None

    @property
    def over(self) -> bool:
        """Nothing that comes now can matter."""
        return self.done or self.failed is not None

    def feed(self, data: bytes, now: float) -> None:
        """Bytes of a stream that were read at `now`. Any bytes: what is no stream is a failure."""
        try:
            block = self._splitter.feed(data)
        except UpstreamError as error:
            self.failed = Failure("no chat stream", f"{error.message} ({error.detail})")
            return
        for event in sse.events(block):
            if self.over:
                return
            payload = sse.data_of(event)
            if payload == b"[DONE]":
                self.done = True
            elif payload:
                self._chunk(payload, now)

    def _chunk(self, payload: bytes, now: float) -> None:
        chunk = self._decoded(payload, "no chat stream")
        if chunk is None:
            return
        for choice in chunk.choices or ():
            if choice.delta is not None and choice.delta.says_something:
                if self.first is None:
                    self.first = now
                else:
                    self.gaps.append(now - self._last)
                self._last = now
                self.chunks += 1
            if choice.finish_reason is not None:
                self.finish = choice.finish_reason

    def whole(self, body: bytes) -> None:
        """The whole body of an answer that is no stream."""
        answer = self._decoded(body, "no chat completion")
        if answer is None:
            return
        self.done = True
        for choice in answer.choices or ():
            self.finish = choice.finish_reason

    def _decoded(self, payload: bytes, otherwise: str) -> _Answer | None:
        """Also notes usage and an error object."""
        try:
            answer = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.failed = Failure(otherwise, f"The server sent: {shown(payload)}")
            return None
        if answer.error:
            code, text = error_parts({"error": answer.error})
            self.failed = Failure(f"error event {code}".rstrip(), text or shown(payload))
            return None
        if (usage := answer.usage) is not None:
            self.output_tokens = usage.completion_tokens
            self.prompt_tokens = usage.prompt_tokens
            if usage.prompt_tokens_details is not None:
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens
        return answer

    def failure(self) -> Failure | None:
        """Once the answer has ended: why it does not count, None when it is whole."""
        if self.failed is not None:
            return self.failed
        # Clients take the last event without its blank line, too.
        if not self.done and self._splitter.rest.strip() != b"data: [DONE]":
            return Failure("truncated", "The stream ended without [DONE].")
        if self.finish is None:
            return Failure("no finish_reason", "The answer ended without a finish_reason.")
        if self.finish in BROKEN:
            return Failure(f"finish_reason {self.finish}", "The server gave the answer up.")
        return None


def status_failure(status: int, body: bytes) -> Failure:
    """The failure that an answer with an error status is: `HTTP 429 rate_limit_exceeded`."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        answer = None
    code, text = error_parts(answer)
    kind = f"HTTP {status}" if code in ("", str(status)) else f"HTTP {status} {code}"
    return Failure(kind, text or shown(body) or "The answer has no body.")


def error_parts(answer: Any) -> tuple[str, str]:
    """Code (else type) and message of an OpenAI-shaped error object; "" for what it lacks."""
    error = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(error, Mapping):
        return "", shown(error.encode()) if isinstance(error, str) else ""
    # vLLM's code is the status once more. A kind is a label to count by: nobody's prose.
    said = (error.get("code"), error.get("type"))
    named = next((s for s in said if isinstance(s, str) and re.fullmatch(r"[\w.-]{1,64}", s)), "")
    message = error.get("message")
    return named, shown(message.encode("utf-8", "replace")) if isinstance(message, str) else ""


def shown(raw: bytes) -> str:
    """The beginning of foreign bytes, fit for a terminal and one line."""
    text = " ".join(raw[: 4 * _TEXT].decode("utf-8", "replace").split())
    text = "".join(sign for sign in text if sign.isprintable())
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
