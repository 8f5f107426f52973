"""From an ASGI request to a checked `Request`: byte caps first, then text, then fields."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from server.api.cycle import Cycle
from server.config.schema import Limits
from server.errors import (
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    RequestTimedOut,
    UnsupportedMedia,
)
from server.protocol import envelope, functions, older, rerank, text
from server.protocol.aside import aside
from server.protocol.envelope import Surface
from server.protocol.text import Pieces
from server.telemetry.metrics import Metrics

#: Bytes of a body that is parsed beside the event loop.
LARGE: Final = 2**20


class BodyBudget:
    """Bytes of request bodies held at one time, over all requests."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self.held = 0
        self.metrics = metrics

    def take(self, size: int) -> None:
        """Raises Overloaded when the server holds too much already."""
        if self.held + size > self.limit:
            self.metrics.shed.labels("bodies").inc()
            raise Overloaded(
                "The server holds too many large requests at the moment.", retry_after=1
            )
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


async def read_body(
    headers: Mapping[bytes, bytes],
    cycle: Cycle,
    *,
    limits: Limits,
    timeout: float,
    budget: BodyBudget,
) -> tuple[bytes, int, Pieces | None]:
    """The request's body, the bytes taken from the budget (to be given back by the caller), and
    what was seen of its text while it came in.

    Raises UnsupportedMedia, PayloadTooLarge, RequestTimedOut, Overloaded. The body is copied once
    at most, when it came in pieces.
    """
    _check_media(headers)
    complete = not cycle.more_body
    if complete:  # the usual case: it came with the head
        came = cycle.take()
        body = came[0] if len(came) == 1 else b"".join(came)
        if len(body) > limits.body:
            raise _too_large(limits.body)
        budget.take(len(body))
        return body, len(body), None
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limits.body:
        raise _too_large(limits.body)
    taken = 0
    parts: list[bytes] = []
    pieces = Pieces()

    def take() -> None:
        nonlocal taken
        for part in cycle.take():
            if taken + len(part) > limits.body:
                raise _too_large(limits.body)
            budget.take(len(part))
            taken += len(part)
            parts.append(part)
            pieces.feed(part)

    try:
        take()
        async with asyncio.timeout(timeout):
            while cycle.more_body:
                await cycle.more()
                take()
            pieces.end()
    except TimeoutError:
        budget.give_back(taken)
        budget.metrics.shed.labels("slow_body").inc()
        raise RequestTimedOut(
            f"The request's body did not arrive within {timeout:g} seconds."
        ) from None
    except BaseException:
        budget.give_back(taken)
        raise
    return (parts[0] if len(parts) == 1 else b"".join(parts)), taken, pieces


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request's body is larger than {limit} bytes.")


def _check_media(headers: Mapping[bytes, bytes]) -> None:
    said = headers.get(b"content-type", b"")
    if said != b"application/json":
        _check_kind(said.decode("latin-1").split(";")[0].strip().lower())
    if b"content-encoding" in headers:
        _check_coding(headers[b"content-encoding"].decode("latin-1").strip().lower())


def _check_kind(kind: str) -> None:
    if kind != "application/json" and not kind.endswith("+json"):
        said = f"not {kind[:80]}" if kind else "which is missing"
        raise UnsupportedMedia(
            f"Send the body as JSON with the header `content-type: application/json`, {said}."
        )


def _check_coding(coding: str) -> None:
    if coding != "identity":
        raise UnsupportedMedia(
            f"The body is encoded as {coding[:40]}; send it without content-encoding."
        )


def parse(
    surface: Surface,
    body: bytes,
    limits: Limits,
    pieces: Pieces | None = None,
    default: str | None = None,
) -> tuple[Any, dict[str, Raw], bool]:
    """(typed envelope, raw members, speaks legacy functions). Raises InvalidRequest. `default` is
    the model of a body that names none."""
    try:
        text.check(body, depth=limits.depth, pieces=pieces)
        return _parse(surface, body, limits, default)
    except msgspec.MsgspecError as error:  # what a look inside met: a number that is none for us
        raise envelope.invalid(error) from None


async def parse_aside(
    surface: Surface,
    body: bytes,
    limits: Limits,
    pieces: Pieces | None,
    default: str | None = None,
) -> tuple[Any, dict[str, Raw], bool]:
    """`parse` for a body over LARGE, which is not to hold up everybody else's requests."""
    return await aside(parse, surface, body, limits, pieces, default)


def _parse(
    surface: Surface, body: bytes, limits: Limits, default: str | None
) -> tuple[Any, dict[str, Raw], bool]:
    members = envelope.members(body)
    if (no := older.refusal(members, surface)) is not None:  # says more than what it lacks
        raise no
    fields = envelope.decode(surface, body)
    if not fields.model:
        if default is None:
            raise InvalidRequest(
                "You must provide `model`. GET /v1/models lists what there is.",
                param="model",
                code="missing_required_parameter",
            )
        fields.model = default
    if isinstance(fields, envelope.Envelope):
        _check_caps(fields, limits)
    if surface is Surface.CHAT:
        count = len(fields.messages)
        if count == 0:
            raise InvalidRequest("`messages` must not be empty.", param="messages")
        _cap(count, limits.messages, "messages", "messages")
    if surface is Surface.RERANK:
        rerank.check(fields)
        if (texts := rerank.as_texts(fields.documents)) is not None:
            members["documents"] = texts
    if surface is Surface.TOKENIZE and (fields.prompt is None) == (fields.messages is None):
        raise InvalidRequest("Give either `prompt` or `messages`.", param="prompt")
    legacy = surface is Surface.CHAT and functions.is_legacy(members)
    if legacy:
        members = functions.to_tools(members)
    return fields, members, legacy


def _cap(count: int, limit: int, param: str, what: str) -> None:
    if count > limit:
        raise InvalidRequest(
            f"`{param}` holds {count} {what}; this server allows {limit}.",
            param=param,
            code="over_limit",
        )


def _check_caps(fields: envelope.Envelope, limits: Limits) -> None:
    # Each look is at a field that is there: this runs for every request.
    for value, name in (
        (fields.n, "n"),
        (fields.max_tokens, "max_tokens"),
        (fields.max_completion_tokens, "max_completion_tokens"),
    ):
        if value is not None and value < 1:
            raise InvalidRequest(f"`{name}` must be at least 1.", param=name)
    if fields.n is not None and fields.n > limits.n:
        raise InvalidRequest(
            f"`n` is {fields.n}; this server allows {limits.n}.", param="n", code="over_limit"
        )
    if isinstance(fields.stop, list):
        _cap(len(fields.stop), limits.stop, "stop", "sequences")
    if fields.logit_bias is not None:
        _cap(len(fields.logit_bias), limits.logit_bias, "logit_bias", "tokens")
    if fields.tools:
        _check_tools(fields.tools, limits, "tools")
    if fields.functions:
        _check_tools(fields.functions, limits, "functions")
    if fields.response_format:
        _check_schema(fields.response_format, limits, "response_format")
    if fields.stream_options is not None and not fields.stream:
        raise InvalidRequest(
            "`stream_options` is only allowed when `stream` is true.", param="stream_options"
        )


def _check_tools(tools: list[Raw], limits: Limits, param: str) -> None:
    _cap(len(tools), limits.tools, param, "tools")
    for at, tool in enumerate(tools):
        _check_schema(tool, limits, f"{param}[{at}]")


def _check_schema(value: Raw, limits: Limits, param: str) -> None:
    """A JSON schema compiles into a grammar on the engine: big or deep ones cost it dearly."""
    schema = bytes(value)
    if len(schema) > limits.schema_size:
        raise InvalidRequest(
            f"`{param}` is {len(schema)} bytes; this server allows {limits.schema_size}.",
            param=param,
            code="over_limit",
        )
    if schema.count(b"{") + schema.count(b"[") <= limits.schema_depth + 2:
        return
    # The schema itself stands two levels down, in a tool as in a response format.
    deep = envelope.depth_of(msgspec.json.decode(schema)) - 2
    if deep > limits.schema_depth:
        raise InvalidRequest(
            f"`{param}` is nested {deep} levels deep; this server allows {limits.schema_depth}.",
            param=param,
            code="over_limit",
        )
