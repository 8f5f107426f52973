"""Framing of server-sent events: cutting a byte stream into whole events, and what is in one.

A whole event ends with a blank line, whatever the line ends are (LF, CRLF, CR). Bytes are handed
on untouched; nothing here decodes JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from server.errors import UpstreamProtocol, UpstreamTooLarge

#: The payload of a stream's last event, and the event.
LAST = b"[DONE]"
DONE = b"data: [DONE]\n\n"

# A blank line after any mixture of line ends. `\r\n` must not count as two ends.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINES = re.compile(rb"\r\n|\n|\r")
# The beginning of an event that holds an object.
_OBJECT = re.compile(rb"(?:(?:event|id):[^\r\n]{0,200}[\r\n]{1,2})*data: ?\{")


class Splitter:
    """Cuts a stream into blocks of whole events and keeps the rest for the next feed.

    `limit` caps the bytes of one unfinished event. Over it UpstreamTooLarge is raised, or
    UpstreamProtocol where it is no event with an object, once the whole events before it have been
    handed out.
    """

    __slots__ = ("_limit", "rest")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: The unfinished event at the end of what came in.
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """All whole events that are in now, as one block; `b""` when there is none."""
        if self.rest:
            data = self.rest + data
        if b"\r" in data:
            end = 0
            # A CR at the very end may be the first half of a CRLF: wait for the next bytes, but
            # not where lines end with CR alone.
            known = len(data) - (data.endswith(b"\r") and not data.endswith(b"\r\r"))
            for match in _BLANK.finditer(data):
                if match.end() <= known:
                    end = match.end()
        else:
            end = data.rfind(b"\n\n") + 2
            if end == 1:
                end = 0
        if end == len(data):
            self.rest = b""
            return data
        self.rest = data[end:]
        if not end and len(self.rest) > self._limit:
            kind = UpstreamTooLarge if _OBJECT.match(self.rest) else UpstreamProtocol
            raise kind(
                "The upstream sent an event that is too long.",
                detail=f"an event of more than {self._limit} bytes",
            )
        return data[:end]


def events(block: bytes) -> Iterator[bytes]:
    """The events of a block of whole events, each with its blank line."""
    start = 0
    if b"\r" not in block:
        while (end := block.find(b"\n\n", start)) >= 0:
            yield block[start : end + 2]
            start = end + 2
        return
    for match in _BLANK.finditer(block):
        yield block[start : match.end()]
        start = match.end()


def data_of(event: bytes) -> bytes | None:
    """The payload of an event: its `data:` lines joined by newlines; None without any."""
    # Nearly all are one line of data, some with their name before it.
    start = event.find(b"\n") + 1 if event.startswith(b"event: ") else 0
    if event.startswith(b"data: ", start) and event.endswith(b"\n\n") and b"\r" not in event:
        payload = event[start + 6 : -2]
        if b"\n" not in payload:
            return payload
    found: list[bytes] = []
    for line in _LINES.split(event):
        if line.startswith(b"data:"):
            value = line[5:]
            found.append(value.removeprefix(b" "))
    return b"\n".join(found) if found else None


def is_silent(event: bytes) -> bool:
    """Is an event without data a proper one: comments, or fields that say nothing by themselves?
    What is neither is no SSE, though clients pass over it: something was lost there."""
    return all(not line or line.startswith(_SILENT) for line in _LINES.split(event))


_SILENT = (b":", b"event", b"id", b"retry")


def event(payload: bytes) -> bytes:
    """One event with this payload, which must be free of line ends (as JSON is)."""
    return b"data: " + payload + b"\n\n"


def comment(text: str) -> bytes:
    """A comment, which clients skip and proxies take for life."""
    return f": {text}\n\n".encode()


def dumps(value: Any) -> bytes:
    """A value as JSON on one line, fit for `event`."""
    return msgspec.json.encode(value)
