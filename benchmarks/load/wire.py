"""Requests as bytes, and answers checked: whole, in order, nothing lost and nothing doubled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from benchmarks import upstream

_WORD: Final = "lorem ipsum dolor sit amet "


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...]
    model: str

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], model: str) -> Place:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port, tuple(headers.items()), model)


def request(place: Place, *, stream: bool, prompt: int, opening: str = "") -> bytes:
    """A whole chat request whose prompt has `prompt` bytes and begins with `opening`."""
    text = (opening + _WORD * (prompt // len(_WORD) + 1))[:prompt]
    fields = {"model": place.model, "messages": [{"role": "user", "content": text}]}
    body = json.dumps({**fields, "stream": stream}, separators=(",", ":")).encode()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {place.host}:{place.port}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in place.headers),
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class BadAnswer(Exception):
    """An answer that is not what the mock sent. The message says how."""


def unchunk(data: bytes) -> bytes:
    """The bytes inside a whole chunked body (trailers not looked at)."""
    chunks = Unchunker()
    inside = chunks.feed(data)
    if not chunks.ended:
        raise BadAnswer("the chunked coding ends in the middle")
    return inside


class Unchunker:
    """Takes the chunked coding off a body that comes in pieces: a gateway may put the seam of two
    chunks anywhere, also into the middle of an event."""

    __slots__ = ("ended", "held", "missing")

    def __init__(self) -> None:
        self.held = b""
        self.missing = 0  # of the current chunk, with the line end behind it
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """The bytes inside that this piece brings."""
        if self.held:
            data = self.held + data
            self.held = b""
        out: list[bytes] = []
        at = 0
        while at < len(data) and not self.ended:
            if self.missing == 0:
                line = data.find(b"\r\n", at)
                if line < 0:
                    self.held = data[at:]
                    break
                size = _size(data[at:line])
                at = line + 2
                self.ended = size == 0
                self.missing = size + 2 if size else 0
                continue
            taken = data[at : at + self.missing]
            out.append(taken[: max(0, self.missing - 2)])  # less what is line end of it
            self.missing -= len(taken)
            at += len(taken)
        return out[0] if len(out) == 1 else b"".join(out)


def _size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise BadAnswer(f"no size of a chunk: {line[:60]!r}") from None


def split(raw: bytes) -> tuple[int, bytes]:
    """(status, body) of a complete raw answer."""
    end = raw.index(b"\r\n\r\n")
    status = int(raw[9:12])
    body = raw[end + 4 :]
    if b"transfer-encoding: chunked" in raw[:end].lower():
        body = unchunk(body)
    return status, body


class Checker:
    """Checks answers. Bodies that passed are remembered, for most of them are alike to the byte and
    the load's core must not be the one that is full."""

    __slots__ = ("passed", "stream")

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.passed: set[bytes] = set()

    def check(self, raw: bytes, head: int) -> None:
        """`head`: where the body of this whole answer begins. Raises BadAnswer."""
        body = raw[head:]
        if raw[9:12] == b"200" and body in self.passed:
            return
        check(raw, stream=self.stream)
        if len(self.passed) < 64:
            self.passed.add(body)


def check(raw: bytes, *, stream: bool) -> None:
    """Raises BadAnswer unless it says what the mock said: the same bytes, or, from a gateway that
    writes answers anew, the same text."""
    try:
        status, body = split(raw)
    except ValueError:
        raise BadAnswer(f"no HTTP answer: {raw[:100]!r}") from None
    if status != 200:
        raise BadAnswer(f"status {status}: {body[:200]!r}")
    if body == (upstream.STREAM if stream else upstream.BODY):
        return
    said = streamed_text(body) if stream else whole_text(body)
    if said != upstream.TEXT:
        raise BadAnswer(f"not what was sent: {body[:300]!r}")


def whole_text(body: bytes) -> str:
    """What a whole answer says. Raises BadAnswer."""
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise BadAnswer(f"no chat completion: {body[:200]!r}") from None


def streamed_text(body: bytes) -> str:
    """What a stream says, its chunked coding taken off. Raises BadAnswer."""
    said: list[str] = []
    done = False
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        payload = block.removeprefix(b"data:").strip()
        if not block.startswith(b"data:"):
            continue
        if payload == b"[DONE]":
            done = True
            continue
        try:
            choices = json.loads(payload)["choices"]
        except (ValueError, KeyError, TypeError):
            raise BadAnswer(f"no chunk: {payload[:200]!r}") from None
        said += [choice["delta"].get("content") or "" for choice in choices]
    if not done:
        raise BadAnswer("the stream has no [DONE]")
    return "".join(said)
