"""One answer as httptools reads it: its head, the pieces of its body, and where it ends.

`Answer` is the reading half of a `Wire`, in a file of its own: the parser calls its methods.
"""

from __future__ import annotations

import math
import re
from typing import Final

import httptools

from server.transport.head import Framing, framing, no_answer

#: Bytes of an answer's head, and half of those of its trailers.
HEAD_LIMIT: Final = 64 * 1024
#: Interim answers before it.
_INTERIM_LIMIT: Final = 16


class Stage:
    """Where a wire is in its request. No enum: looking at a member takes three times as long."""

    IDLE: Final = 0
    HEAD: Final = 1
    BODY: Final = 2
    #: The answer is in, its reader has not been told yet, or has not asked.
    ENDED: Final = 3
    CLOSED: Final = 4


def one_chunk(data: bytes) -> bytes | None:
    """The bytes inside, when these are exactly one chunk as nearly everybody writes them.

    For the parser such a chunk is as if it had not been: it stands between two before and after.
    """
    end = data.find(b"\r\n", 0, 10)
    if end < 1 or not data.endswith(b"\r\n"):
        return None
    line = data[:end]
    size = _sizes.get(line)
    if size is None:
        if not _SIZE.fullmatch(line):
            return None
        size = int(line, 16)
        if len(_sizes) < _SIZES:
            _sizes[line] = size
    return data[end + 2 : -2] if size == len(data) - end - 4 else None


_SIZE: Final = re.compile(rb"[1-9a-fA-F][0-9a-fA-F]{0,6}")
#: Sizes that were met; an answer's chunks have few.
_SIZES: Final = 4096
_sizes: dict[bytes, int] = {}


class Answer:
    """What the parser found. Its callbacks raise UpstreamProtocol, which breaks the wire."""

    __slots__ = (
        "_between",
        "_close_after",
        "_discard",
        "_due",
        "_fields",
        "_framing",
        "_head_size",
        "_headers_in",
        "_interim",
        "_interims",
        "_parser",
        "_parts",
        "_size",
        "headers",
        "stage",
        "status",
        "turn",
    )

    def __init__(self, due: float) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.stage: int = Stage.IDLE
        #: Counts requests, so that an old answer cannot reach into a new one's.
        self.turn = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        #: When the peer must have said more, `time.monotonic()` seconds.
        self._due = due
        self._parts: list[bytes] = []
        self._size = 0
        self._discard = self._close_after = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._framing = 0
        self._headers_in = self._interim = False
        #: The parser stands between two chunks: a whole one needs no parser.
        self._between = False
        #: Bytes since the last one of a body: of a head, of chunks' sizes, of trailers.
        self._head_size = self._interims = 0

    def on_message_begin(self) -> None:
        if self._headers_in and not self._interim:
            raise no_answer("more than one answer")
        self._headers_in = False
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headers_in:
            self._fields.append((name.lower(), value))
            return
        self._head_size += len(name) + len(value)  # a trailer, of no use to anybody
        if self._head_size > 2 * HEAD_LIMIT:
            raise no_answer("trailers without end")

    def on_headers_complete(self) -> None:
        parser, fields = self._parser, self._fields
        status = parser.get_status_code()
        self._headers_in = True
        if status < 200:
            self._skip(status)
            return
        self._interim = False
        if self._head_size > HEAD_LIMIT and sum(len(n) + len(v) for n, v in fields) > HEAD_LIMIT:
            raise no_answer(f"a head of more than {HEAD_LIMIT} bytes")
        self._framing = framing(status, fields)
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in fields}
        keep = parser.should_keep_alive()
        if not keep or "connection" in headers:  # else it is HTTP/1.1
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise no_answer(f"HTTP/{version}")
            if version == "1.0" and self._framing == Framing.CHUNKED:
                keep = False  # something on the way did not know what it passed on
        self._close_after = self._framing == Framing.CLOSE or not keep
        self.headers = headers
        self.status = status
        self._head_size = 0
        self._due = math.inf
        self.stage = Stage.BODY

    def _skip(self, status: int) -> None:
        """An interim answer: nothing for anybody."""
        if status < 100:
            raise no_answer(f"status {status}")
        if status == 101:
            raise no_answer("another protocol than HTTP/1.1")
        self._interim = True
        self._interims += 1
        if self._interims > _INTERIM_LIMIT:
            raise no_answer("interim answers without end")

    def on_body(self, body: bytes) -> None:
        if not self._discard:
            self._parts.append(body)
            self._size += len(body)

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        self._between = False
        if not self._interim:
            self.stage = Stage.ENDED
