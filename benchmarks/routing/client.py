"""One streamed request on a connection of its own, timed and judged."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.engine import answers
from benchmarks.engine.answers import Expected, Raw

#: Seconds that an answer may take.
PATIENCE_S: Final = 120.0
_TARGET: Final = b"x-roundhouse-target: "


@dataclass(frozen=True, slots=True)
class Door:
    """The server's port and a key."""

    port: int
    key: str


@dataclass(frozen=True, slots=True)
class Answered:
    """Seconds to the first token and to the end. `problem` is empty when all was as expected."""

    first_s: float
    whole_s: float
    target: str
    problem: str = ""


def body(model: str, messages: Sequence[dict[str, str]], tokens: int) -> bytes:
    """`ignore_eos` makes every answer exactly `tokens` long."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


async def ask(door: Door, model: str, messages: Sequence[dict[str, str]], tokens: int) -> Answered:
    """Ask, and read to the end. Never raises for what the server does."""
    content = body(model, messages, tokens)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{door.port}\r\n"
        f"authorization: Bearer {door.key}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    raw = Raw(time.monotonic_ns())
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            try:
                writer.write(head.encode() + content)
                while data := await reader.read(65536):
                    raw.add(time.monotonic_ns(), data)
            finally:
                writer.close()
    except (TimeoutError, OSError) as error:
        raw.broken = f"{type(error).__name__}: {error}"
    ended = time.monotonic_ns()
    answer = answers.read(raw, Expected(tokens))
    first = answer.events_ns[0] if answer.events_ns else ended
    return Answered(
        (first - raw.sent_ns) / 1e9,
        (ended - raw.sent_ns) / 1e9,
        _target(b"".join(raw.parts[:1])),
        answer.problem,
    )


def _target(head: bytes) -> str:
    """Who answered, by the answer's head."""
    return head.partition(_TARGET)[2].partition(b"\r\n")[0].decode("latin-1")
