"""Answers for the scripted upstream: JSON, event streams, chat streams as vLLM writes them.

An event stream is a list of items, sent in order:

- a dict (its JSON) or a string becomes one `data:` event,
- bytes go out as they are (`comment("keep-alive")` makes some),
- an `asyncio.Event` is waited for,
- an action (an async function of the exchange: `hang`, `reset`, `close`, `cut_chunk`, …) runs.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from tests.fakes.exchange import Exchange, Framing, Gate, Headers, Script, Step, compact

Action = Callable[[Exchange], Awaitable[None]]
Item = dict[str, Any] | str | bytes | asyncio.Event | Action
#: Where the usage goes. `auto`: as the request asks; `chunk`: a last chunk with `choices: []`;
#: `null`: the same, and `usage: null` on all others; `finish`: on the finish chunk;
#: `every`: on every chunk (vLLM's continuous_usage_stats), and a last chunk; `none`.
Usage = Literal["auto", "chunk", "null", "finish", "every", "none"]

done = "[DONE]"
#: What streams and answers say of themselves unless told otherwise.
ID, CREATED, MODEL = "chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9", 1795219200, "fake"


def error(
    message: str, type: str = "server_error", code: Any = None, param: str | None = None
) -> dict[str, Any]:
    """The OpenAI error object; vLLM's `code` is a number."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()


def answer_bytes(
    status: int,
    body: bytes,
    headers: Headers = (),
    *,
    content_type: str | None = "application/json",
    framing: Framing = "length",
    encoding: Literal["gzip"] | None = None,
    gate: Gate | None = None,
) -> Script:
    """`gate`: one byte of the body per ticket."""
    if encoding == "gzip":
        body = gzip.compress(body)

    async def script(exchange: Exchange) -> None:
        extra = [] if content_type is None else [("content-type", content_type)]
        if encoding:
            extra.append(("content-encoding", encoding))
        await exchange.head(status, [*extra, *pairs(headers)], framing=framing, length=len(body))
        if gate is None:
            await exchange.chunk(body)
        else:
            for at in range(len(body)):
                await exchange.wait(gate.pass_one())
                await exchange.chunk(body[at : at + 1])
                exchange.sent.add()

    return script


def answer_json(
    status: int = 200,
    obj: Any = None,
    headers: Headers = (),
    *,
    framing: Framing = "length",
    encoding: Literal["gzip"] | None = None,
    gate: Gate | None = None,
) -> Script:
    body = compact({} if obj is None else obj).encode()
    return answer_bytes(status, body, headers, framing=framing, encoding=encoding, gate=gate)


def redirect(location: str, status: int = 307) -> Script:
    return answer_bytes(status, b"", {"location": location}, content_type=None)


def interim(script: Script, status: int = 100, times: int = 1) -> Script:
    """`times` 1xx answers before the real one."""

    async def wrapped(exchange: Exchange) -> None:
        await exchange.write(f"HTTP/1.1 {status} Interim\r\n\r\n".encode() * times)
        await script(exchange)

    return wrapped


def answer_late(event: asyncio.Event | Gate, script: Script) -> Script:
    """Says nothing until the event is set (or the gate has a ticket)."""

    async def wrapped(exchange: Exchange) -> None:
        await exchange.wait(event.pass_one() if isinstance(event, Gate) else event)
        await script(exchange)

    return wrapped


def finish_connection(script: Script) -> Script:
    """Answers whole, as if to keep the connection, then closes it: a stale pool entry."""

    async def wrapped(exchange: Exchange) -> None:
        await script(exchange)
        await exchange.complete()
        exchange.close()

    return wrapped


def before_body(script: Script) -> Step:
    """Answers when the head is in, without reading the body."""

    async def wrapped(exchange: Exchange) -> None:
        await script(exchange)
        await exchange.complete()
        exchange.close()

    return Step(wrapped, at="head")


# --- event streams


def sse(
    items: Iterable[Item],
    *,
    status: int = 200,
    headers: Headers = (),
    framing: Framing = "chunked",
    separator: str = "\n",
    splits: random.Random | None = None,
    gate: Gate | None = None,
    byte_gate: Gate | None = None,
    encoding: Literal["gzip"] | None = None,
    after: int | None = None,
    then: Action | None = None,
) -> Script:
    """`gate`: one item per ticket (actions too); `byte_gate`: one byte per ticket, and `sent`
    counts bytes. `splits`: pieces cut at random byte positions, also inside a character.
    `then` runs after `after` data events, or after all; it may end the stream in its own way."""

    items = list(items)

    async def script(exchange: Exchange) -> None:
        extra = [("content-type", "text/event-stream; charset=utf-8")]
        if encoding:
            extra.append(("content-encoding", encoding))
        await exchange.head(status, [*extra, *pairs(headers)], framing=framing)
        squeeze = zlib.compressobj(wbits=31) if encoding else None
        events = 0
        for item in items:
            if events == after and then is not None:
                await then(exchange)
                return
            if gate is not None:
                await exchange.wait(gate.pass_one())
            if isinstance(item, asyncio.Event):
                await exchange.wait(item)
                continue
            if isinstance(item, (dict, str, bytes)):
                data = encode(item, separator)
                events += not isinstance(item, bytes)
                if squeeze is not None:
                    data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
                await _send(exchange, data, splits, byte_gate)
            else:
                await item(exchange)
        if squeeze is not None:
            await exchange.chunk(squeeze.flush())
        if then is not None:
            await then(exchange)

    return script


def encode(item: dict[str, Any] | str | bytes, separator: str = "\n") -> bytes:
    """The bytes of one item."""
    if isinstance(item, bytes):
        return item.replace(b"\n", separator.encode()) if item.startswith(b":") else item
    text = item if isinstance(item, str) else compact(item)
    return f"data: {text}{separator}{separator}".encode()


async def _send(
    exchange: Exchange, data: bytes, splits: random.Random | None, byte_gate: Gate | None
) -> None:
    if byte_gate is not None:
        for at in range(len(data)):
            await exchange.wait(byte_gate.pass_one())
            await exchange.chunk(data[at : at + 1])
            exchange.sent.add()
        return
    for piece in pieces(data, splits):
        await exchange.chunk(piece)
        if splits is not None:
            await asyncio.sleep(0)  # lets a peer on this loop read the piece by itself
    exchange.sent.add()


def pieces(data: bytes, splits: random.Random | None) -> Iterator[bytes]:
    """`data`, cut at up to 8 random places."""
    if splits is None or len(data) < 2:
        yield data
        return
    cuts = sorted(splits.sample(range(1, len(data)), k=min(splits.randint(1, 8), len(data) - 1)))
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[start:stop]


def pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers) if isinstance(headers, Sequence) else list(headers.items())
