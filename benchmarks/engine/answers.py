"""A streamed answer, read after the turn: was it whole, how many tokens, when did each event come.

Nothing is parsed while the load runs: on two cores that would slow down what is measured. The
client only notes when it read how many bytes.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Raw:
    """An answer as it came. `reads`: (ns of CLOCK_MONOTONIC, bytes so far) of each read."""

    sent_ns: int
    parts: list[bytes] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    broken: str = ""

    def add(self, now_ns: int, data: bytes) -> None:
        before = self.reads[-1][1] if self.reads else 0
        self.parts.append(data)
        self.reads.append((now_ns, before + len(data)))


@dataclass(frozen=True, slots=True)
class Expected:
    """What every stream must be. `counted`: its usage event must say how many tokens."""

    tokens: int
    finish: str = "length"
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """`events_ns`: when each event that may carry a token came, the role's event left out.
    `problem` is empty when it was what was expected."""

    sent_ns: int
    events_ns: tuple[int, ...] = ()
    tokens: int = 0
    characters: int = 0
    problem: str = ""

    @property
    def weight(self) -> float:
        """Tokens per event: vLLM joins tokens for a reader that falls behind."""
        return self.tokens / len(self.events_ns) if self.events_ns else 0.0


class _Bad(Exception):
    """Not what was expected. The message says how."""


def read(raw: Raw, expected: Expected) -> Answer:
    """The answer, judged."""
    try:
        if raw.broken:
            raise _Bad(raw.broken)
        body, chunks = _body(b"".join(raw.parts))
        times, tokens, characters = _events(body, chunks, raw.reads, expected)
    except _Bad as error:
        return Answer(raw.sent_ns, problem=str(error))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return Answer(raw.sent_ns, problem=f"cannot be read: {error!r}")
    return Answer(raw.sent_ns, tuple(times), tokens, characters)


def _body(data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The body and, for each of its chunks, (end in the body, end in the raw bytes)."""
    end = data.index(b"\r\n\r\n")
    if not data.startswith(b"HTTP/1.1 200 "):
        raise _Bad(f"status {data[9:12].decode(errors='replace')}: {data[end + 4 :][:300]!r}")
    if b"transfer-encoding: chunked" not in data[:end].lower():
        raise _Bad("not a chunked answer")
    at, length = end + 4, 0
    parts: list[bytes] = []
    chunks: list[tuple[int, int]] = []
    while True:
        line = data.index(b"\r\n", at)
        size = int(data[at:line].split(b";")[0], 16)
        if size == 0:
            if data[line + 2 :] != b"\r\n":
                raise _Bad(f"bytes after the end: {data[line + 2 :][:80]!r}")
            return b"".join(parts), chunks
        start = line + 2
        parts.append(data[start : start + size])
        length += size
        chunks.append((length, start + size))
        at = start + size + 2


def _payloads(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Each event's JSON and where in the body the event ends. The last must be [DONE]."""
    done = False
    at = 0
    while at < len(body):
        end = body.find(b"\n\n", at)
        if end < 0:
            raise _Bad(f"ends within an event: {body[at:][:80]!r}")
        block, at = body[at:end], end + 2
        if block.startswith(b":"):
            continue  # a comment, as servers send them to keep a connection open
        if done or not block.startswith(b"data: "):
            raise _Bad("an event after [DONE]" if done else f"not an event: {block[:80]!r}")
        if block == b"data: [DONE]":
            done = True
        else:
            yield block[6:], at
    if not done:
        raise _Bad("the stream has no [DONE]")


def _events(
    body: bytes, chunks: list[tuple[int, int]], reads: list[tuple[int, int]], expected: Expected
) -> tuple[list[int], int, int]:
    clock = _Clock(chunks, reads)
    times: list[int] = []
    characters = 0
    finish: str | None = None
    usage: int | None = None
    for payload, end in _payloads(body):
        event: dict[str, Any] = json.loads(payload)
        if "error" in event:
            raise _Bad(f"error event: {payload[:300]!r}")
        if event.get("usage"):
            usage = int(event["usage"]["completion_tokens"])
        for choice in event["choices"]:
            if finish is not None:
                raise _Bad("an event after the finish reason")
            finish = choice.get("finish_reason")
            delta = choice["delta"]
            characters += len(delta.get("content") or "")
            if "role" not in delta and (finish is None or delta.get("content")):
                times.append(clock.came(end))
    if finish != expected.finish:
        raise _Bad(f"finish reason {finish!r}, not {expected.finish!r}")
    tokens = usage if expected.counted else len(times)
    if tokens != expected.tokens or not times:
        raise _Bad(f"{tokens} tokens in {len(times)} events, not {expected.tokens} tokens")
    return times, tokens, characters


class _Clock:
    """When a byte of the body had come."""

    def __init__(self, chunks: list[tuple[int, int]], reads: list[tuple[int, int]]) -> None:
        self.chunks, self.reads = chunks, reads
        self.chunk_ends = [end for end, _ in chunks]
        self.read_ends = [end for _, end in reads]

    def came(self, end: int) -> int:
        """`end`: how many bytes of the body must have come."""
        body_end, raw_end = self.chunks[bisect_left(self.chunk_ends, end)]
        return self.reads[bisect_left(self.read_ends, raw_end - (body_end - end))][0]
