"""One connection to an upstream, on httptools and an asyncio protocol.

A wire carries one request at a time. It never retries, follows or unpacks anything. Between two
requests it listens: whatever a peer says unasked closes it, or it would be taken for the answer
to the next request, which may be anybody's.
"""

from __future__ import annotations

import asyncio
import enum
import math
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from server.errors import UpstreamError, UpstreamReset, UpstreamTimeout, UpstreamTruncated
from server.transport.head import Framing, framing, no_answer

if TYPE_CHECKING:
    from server.transport.pool import Pool

#: Bytes read ahead before the socket is paused.
READ_AHEAD: Final = 64 * 1024
#: Bytes of an answer's head, and of its trailers; the number of interim answers before it.
HEAD_LIMIT: Final = 64 * 1024
_INTERIM_LIMIT: Final = 16
#: A body up to this size goes out in one write with its head; copying a larger one costs more.
_JOINED: Final = 64 * 1024

_STALLED: Final = "The upstream stopped in the middle of the answer."
_LATE: Final = "The upstream did not answer in time."
_ENDED: Final = "The upstream's answer ended before it was complete."
_CLOSED: Final = "the connection was closed"
_never = math.inf
_now = time.monotonic


class Stage(enum.IntEnum):
    """Where a wire is in its request."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    #: The answer is in, its reader has not been told yet, or has not asked.
    ENDED = 3
    CLOSED = 4


class Wire(asyncio.Protocol):
    """One connection. `pool` is told when it is free again and when it is gone."""

    __slots__ = (
        "_armed",
        "_cap",
        "_close_after",
        "_consumer",
        "_discard",
        "_due",
        "_error",
        "_fields",
        "_framing",
        "_head_size",
        "_headers_in",
        "_interim",
        "_loop",
        "_parser",
        "_parts",
        "_patience",
        "_paused",
        "_poll",
        "_size",
        "_spoken",
        "_timer",
        "_waiter",
        "headers",
        "idle_since",
        "pool",
        "stage",
        "status",
        "transport",
        "turn",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self._loop = loop
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._parser = httptools.HttpResponseParser(self)
        self._poll: select.poll | None = None
        self.stage = Stage.IDLE
        #: Counts requests, so that an old answer cannot reach into a new one's.
        self.turn = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._armed = _never
        self._due = _never
        self._waiter: asyncio.Future[None] | None = None
        self._consumer: Callable[[bytes], bool] | None = None
        self._error: UpstreamError | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._patience: float | None = None
        self._cap = _never
        self._paused = self._discard = self._close_after = self._spoken = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._framing = 0
        self._headers_in = self._interim = False
        self._head_size = 0

    # --- asyncio's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        stage = self.stage
        self.stage = Stage.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if stage is Stage.BODY and self._framing == Framing.CLOSE and exc is None:
            self._wake()  # that is how such an answer ends
        else:
            self._lost(stage, f"{type(exc).__name__}: {exc}" if exc else _CLOSED)
        self.pool.gone(self, idle=stage is Stage.IDLE)

    def data_received(self, data: bytes) -> None:
        stage = self.stage
        if stage is Stage.HEAD:
            self._spoken = True
            self._head_size += len(data)
        elif stage is not Stage.BODY:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.stage is Stage.ENDED:
                self._close_after = True  # the answer was good; what follows it is not ours
            else:
                cause = error.__context__  # what a callback raised
                if not isinstance(cause, UpstreamError):
                    cause = no_answer(f"{type(error).__name__}: {error}")
                self._break(cause)
        if self.stage is Stage.HEAD:
            if self._head_size > HEAD_LIMIT:
                self._break(no_answer(f"a head of more than {HEAD_LIMIT} bytes"))
            return
        self._deliver()

    def eof_received(self) -> bool:
        return False  # close

    # --- httptools' side -------------------------------------------------------------------

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
        if 100 <= status < 200:
            if status == 101:
                raise no_answer("another protocol than HTTP/1.1")
            self._interim = True
            self._head_size += HEAD_LIMIT // _INTERIM_LIMIT
            return
        self._interim = False
        if self._head_size > HEAD_LIMIT and sum(len(n) + len(v) for n, v in fields) > HEAD_LIMIT:
            raise no_answer(f"a head of more than {HEAD_LIMIT} bytes")
        self._framing = framing(status, fields)
        self._close_after = self._framing == Framing.CLOSE or not parser.should_keep_alive()
        self.status = status
        self.headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in fields}
        self._due = _never
        self.stage = Stage.BODY

    def on_body(self, body: bytes) -> None:
        if not self._discard:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if not self._interim:
            self.stage = Stage.ENDED

    # --- a request -------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Idle, open, and silent: not even unread bytes (or an end) are waiting at the socket."""
        return (
            self.stage is Stage.IDLE
            and not self.transport.is_closing()
            and (self._poll is None or not self._poll.poll(0))
        )

    def start(self, head: bytes, body: bytes, due: float) -> None:
        """Write a request. The answer's head must be in by `due`, `time.monotonic()` seconds."""
        self.stage = Stage.HEAD
        self.turn += 1
        self.status = 0
        self._error = None
        self._patience = None
        self._discard = self._spoken = self._close_after = False
        self._headers_in = self._interim = False
        self._head_size = self._size = 0
        self._expect(due)
        if len(body) <= _JOINED:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    async def head(self) -> None:
        """Until the answer's head is in. Raises UpstreamReset, UpstreamProtocol, UpstreamTimeout.
        Cancelling closes the connection."""
        if self.stage is Stage.HEAD:
            try:
                await self._wait()
            except asyncio.CancelledError:
                self.abort()
                raise
        if self.status == 0:
            raise self._error or UpstreamReset("The upstream closed the connection.")

    async def read(self) -> bytes:
        """See `seam.Response.read`."""
        while True:
            if self._parts:
                return self._take()
            if self._error is not None:
                raise self._error
            if self.stage is not Stage.BODY:
                return b""
            await self._wait()

    async def stream(self, consumer: Callable[[bytes], bool]) -> None:
        """See `seam.Response.stream`: without a task's turn per read."""
        while True:
            data = await self.read()
            if not consumer(data) or not data:
                return
            if self.stage is not Stage.BODY or self._parts:
                continue
            self._consumer = consumer
            try:
                await self._wait()
            finally:
                going_on = self._consumer is not None
                self._consumer = None
            if not going_on:
                return

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._size = 0
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        return data

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _deliver(self) -> None:
        """Hand on what one read brought."""
        if self.stage is Stage.BODY:
            if self._patience is not None:
                self._due = min(_now() + self._patience, self._cap)
                if self._timer is None:
                    self._expect(self._due)
            if self._size > READ_AHEAD and self._consumer is None and not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self._discard and self.stage is Stage.ENDED:
            self.release()
            return
        consumer = self._consumer
        if consumer is None or not self._parts:
            self._wake()
            return
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # it will ask again
        parts = self._parts
        self._parts = []
        self._size = 0
        try:
            more = consumer(parts[0] if len(parts) == 1 else b"".join(parts))
        except BaseException as error:  # noqa: BLE001 - it comes out of `stream`
            waiter.set_exception(error)
            return
        if not more:
            self._consumer = None
            waiter.set_result(None)
        elif self.stage is not Stage.BODY or self._error is not None:
            waiter.set_result(None)

    # --- its end ---------------------------------------------------------------------------

    def finish(self, linger: float) -> None:
        """Nothing more of this answer matters; its end may still come within `linger` seconds."""
        self._parts = []
        if self.stage is Stage.ENDED:
            self.release()
        elif self.stage is Stage.BODY:
            self._discard = True
            self._patience = None
            self._expect(_now() + linger)
            if self._paused:
                self._paused = False
                self.transport.resume_reading()

    def release(self) -> None:
        """The answer is over: to the pool, or closed where the connection is of no more use."""
        self._due = _never
        self._parts = []
        if (
            self._close_after
            or self.transport.is_closing()
            or self.transport.get_write_buffer_size()  # answered before it had read it all
        ):
            self.stage = Stage.CLOSED
            self.transport.close()
            return
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self.stage = Stage.IDLE
        self.idle_since = _now()
        self.pool.free(self)

    def abort(self) -> None:
        """Close now."""
        self._lost(self.stage, _CLOSED)
        self.transport.abort()

    def _lost(self, stage: Stage, detail: str) -> None:
        if self._error is not None:
            self._wake()
        elif stage is Stage.HEAD:
            self._fail(UpstreamReset("The upstream closed the connection.", detail=detail))
        elif stage is Stage.BODY:
            self._fail(UpstreamTruncated(_ENDED, detail=detail))

    def _break(self, error: UpstreamError) -> None:
        self._fail(error)
        self.abort()

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    # --- time ------------------------------------------------------------------------------

    def expect(self, by: float, patience: float | None, cap: float) -> None:
        """See `seam.Response.expect`."""
        self._patience, self._cap = patience, cap
        self._expect(by if by < cap else cap)

    def _expect(self, due: float) -> None:
        """One lazy timer: a later time is only noted, and found when the timer fires."""
        self._due = due
        if due < self._armed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed = due
            self._timer = self._loop.call_later(max(0.0, due - _now()), self._ring)

    def _ring(self) -> None:
        self._timer, self._armed = None, _never
        if self._due == _never or self.stage in (Stage.IDLE, Stage.CLOSED, Stage.ENDED):
            return
        if self._due - _now() > 0.001:  # uvloop's clock has steps of a millisecond
            self._expect(self._due)
            return
        if self.stage is Stage.HEAD:
            error = UpstreamTimeout(_LATE, outcome="first_byte_timeout")
        elif self._waiter is None and not self._discard:
            self._expect(_now() + (self._patience or 1.0))  # it is the reader who is slow
            return
        else:
            error = UpstreamTimeout(_STALLED, outcome="stall")
        self._break(error)
