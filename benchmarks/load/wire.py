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


def request(place: Place, *, stream: bool, prompt: int) -> bytes:
    """A whole chat request whose prompt has `prompt` bytes."""
    text = (_WORD * (prompt // len(_WORD) + 1))[:prompt]
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
    """The bytes inside a chunked body (all of it, trailers not looked at)."""
    out = []
    at = 0
    while True:
        line = data.index(b"\r\n", at)
        size = int(data[at:line].split(b";")[0], 16)
        if size == 0:
            return b"".join(out)
        start = line + 2
        out.append(data[start : start + size])
        at = start + size + 2


def split(raw: bytes) -> tuple[int, bytes]:
    """(status, body) of a complete raw answer."""
    end = raw.index(b"\r\n\r\n")
    status = int(raw[9:12])
    body = raw[end + 4 :]
    if b"transfer-encoding: chunked" in raw[:end].lower():
        body = unchunk(body)
    return status, body


def check(raw: bytes, *, stream: bool) -> None:
    """Raises BadAnswer unless it says what the mock said: the same bytes, or, from a gateway that
    writes answers anew, the same text."""
    status, body = split(raw)
    if status != 200:
        raise BadAnswer(f"status {status}: {body[:200]!r}")
    if body == (upstream.STREAM if stream else upstream.BODY):
        return
    said = _streamed_text(body) if stream else _text(body)
    if said != upstream.TEXT:
        raise BadAnswer(f"not what was sent: {body[:300]!r}")


def _text(body: bytes) -> str:
    try:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise BadAnswer(f"no chat completion: {body[:200]!r}") from None


def _streamed_text(body: bytes) -> str:
    said, done = [], False
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
