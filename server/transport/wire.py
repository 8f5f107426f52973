"""One connection to an upstream, on httptools and an asyncio protocol.

A wire carries one request at a time. It never retries, follows or unpacks anything. Between two
requests it listens: whatever a peer says unasked closes it, or it would be taken for the answer
to the next request, which may be anybody's.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import httptools

from server.errors import UpstreamError, UpstreamReset, UpstreamTimeout, UpstreamTruncated
from server.transport.answer import HEAD_LIMIT, Answer, Stage, one_chunk
from server.transport.head import Framing, no_answer

if TYPE_CHECKING:
    from server.transport.pool import Pool

#: Bytes read ahead before the socket is paused.
READ_AHEAD: Final = 64 * 1024
#: A body up to this size goes out in one write with its head; copying a larger one costs more.
_JOINED: Final = 64 * 1024

_STALLED: Final = "The upstream stopped in the middle of the answer."
_LATE: Final = "The upstream did not answer in time."
_ENDED: Final = "The upstream's answer ended before it was complete."
_CLOSED: Final = "the connection was closed"
_never = math.inf
_now = time.monotonic


class Wire(Answer, asyncio.Protocol):
    """One connection. `pool` is told when it is free again and when it is gone."""

    __slots__ = (
        "__weakref__",
        "_armed",
        "_cap",
        "_consumer",
        "_eof",
        "_error",
        "_loop",
        "_patience",
        "_paused",
        "_poll",
        "_timer",
        "_tls",
        "_unsure",
        "_waiter",
        "idle_since",
        "pool",
        "transport",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_never)
        self.pool = pool
        self._loop = loop
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self._poll: select.poll | None = None
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._armed = _never
        self._waiter: asyncio.Future[None] | None = None
        self._consumer: Callable[[bytes], bool] | None = None
        self._error: UpstreamError | None = None
        self._patience: float | None = None
        self._cap = _never
        #: `_eof`: the peer said properly that it was done. `_unsure`: whether the body is out.
        self._paused = self._eof = self._tls = self._unsure = False

    # --- asyncio's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._tls = transport.get_extra_info("ssl_object") is not None
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
        if stage is Stage.BODY and self._framing == Framing.CLOSE and self._eof and exc is None:
            self._wake()  # that is how such an answer ends
        else:
            self._lost(stage, f"{type(exc).__name__}: {exc}" if exc else _CLOSED)
        del self._parser  # it holds this wire, and would until the next collection
        self.pool.gone(self, idle=stage is Stage.IDLE)

    def data_received(self, data: bytes) -> None:
        stage = self.stage
        if stage is Stage.HEAD:
            self._head_size += len(data)
        elif stage is not Stage.BODY:
            self.abort()  # nobody asked
            return
        elif self._between and (body := one_chunk(data)) is not None and not self._discard:
            self._head_size = 0
            waiter = self._waiter
            if waiter is not None and self._consumer is not None and not waiter.done():
                self._wind()
                self._hand_on(self._consumer, waiter, body)  # it takes all, so no parts are there
                return
            self._parts.append(body)
            self._size += len(body)
            self._deliver()
            return
        before = self._size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.stage is not Stage.ENDED:
                cause = error.__context__  # what a callback raised
                if not isinstance(cause, UpstreamError):
                    cause = no_answer(f"{type(error).__name__}: {error}")
                self._break(cause)
                return
            self._close_after = True  # the answer was good; what follows it is not ours
        self._parsed(stage, data, self._size != before)

    def _parsed(self, stage: int, data: bytes, grown: bool) -> None:
        """After a read that the parser saw; `grown`: there was some of the body in it."""
        if self._between:  # unless the parser has begun to read the next one's size
            self._between = data.endswith(b"\r\n")
        if grown:
            self._head_size = 0
        elif self.stage is Stage.HEAD:
            if self._head_size > HEAD_LIMIT:
                self._break(no_answer(f"a head of more than {HEAD_LIMIT} bytes"))
            return
        elif stage is Stage.BODY and not self._discard:
            # httptools gathers a trailer's line whole, and what is no body resets the clock.
            self._head_size += len(data)
            if self._head_size > 2 * HEAD_LIMIT:
                self._break(no_answer("chunk sizes or trailers without end"))
                return
        self._deliver()

    def eof_received(self) -> bool:
        """No more can come. It closes at once: asyncio would first send the rest of the body."""
        self._eof = True
        if self._tls:
            try:
                self.transport.get_extra_info("ssl_object").read(1)
            except OSError:  # not the peer's word, so somebody else may have cut it off
                self._eof = False
        self.transport.abort()
        return False

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
        self._discard = self._close_after = self._unsure = False
        self._headers_in = self._interim = self._between = False
        self._head_size = self._size = self._interims = 0
        self._expect(due)
        if len(body) <= _JOINED:
            self.transport.write(head + body)
        else:
            self._unsure = self._tls
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
                return self.take()
            if self._error is not None:
                raise self._error
            if self.stage is not Stage.BODY or self._discard:
                return b""
            await self._wait()

    async def stream(self, consumer: Callable[[bytes], bool]) -> None:
        """See `seam.Response.stream`: without a task's turn per read."""
        while True:
            if self._parts or self.stage is not Stage.BODY or self._error is not None:
                data = await self.read()  # which does not wait, then
                if not consumer(data) or not data:
                    return
                continue
            self._consumer = consumer
            try:
                await self._wait()
            finally:
                going_on = self._consumer is not None
                self._consumer = None
            if not going_on:
                return

    def take(self) -> bytes:
        """What has come in of the body and was not taken."""
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        self._size = 0
        if self._paused:
            self._resume()
        return data

    def _resume(self) -> None:
        self._paused = False
        if not self.transport.is_closing():  # asyncio's TLS cannot, then
            self.transport.resume_reading()

    async def _wait(self) -> None:
        if self._timer is None and self._due != _never:
            # Time ran out while nobody read. That was not the peer's: it gets its patience anew.
            due = max(self._due, _now() + (self._patience or 0.0))
            self._expect(min(due, self._cap))
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
            self._wind()
            if self._size > READ_AHEAD and self._consumer is None and not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self._discard and self.stage is Stage.ENDED:
            self.release()
            return
        consumer, waiter = self._consumer, self._waiter
        if consumer is None or not self._parts:
            self._wake()
            return
        if waiter is None or waiter.done():
            return  # it will ask again
        parts = self._parts
        self._parts = []
        self._size = 0
        self._hand_on(consumer, waiter, parts[0] if len(parts) == 1 else b"".join(parts))

    def _wind(self) -> None:
        """Bytes of the body have come in: the peer's patience begins anew."""
        if self._patience is not None:
            due = _now() + self._patience
            self._due = due if due < self._cap else self._cap
            if self._timer is None:
                self._expect(self._due)

    def _hand_on(
        self, consumer: Callable[[bytes], bool], waiter: asyncio.Future[None], data: bytes
    ) -> None:
        """To whom `stream` has been told of, who waits, in this very turn of the loop."""
        try:
            more = consumer(data)
        except BaseException as error:  # noqa: BLE001 - it comes out of `stream`
            self._consumer = None
            if not waiter.done():
                waiter.set_exception(error)
            return
        if not more:
            self._consumer = None
            self._wake()
        elif self.stage is not Stage.BODY or self._error is not None:
            self._wake()

    # --- its end ---------------------------------------------------------------------------

    def finish(self, linger: float) -> None:
        """Nothing more of this answer matters; its end may still come within `linger` seconds."""
        self._parts = []
        self._size = 0
        if self.stage is Stage.ENDED:
            self.release()
        elif self.stage is Stage.BODY:
            self._discard = True
            self._consumer = None
            self._wake()
            self._patience = None
            self._expect(_now() + linger)
            if self._paused:
                self._resume()

    def release(self) -> None:
        """The answer is over: to the pool, or closed where the connection is of no more use."""
        self._due = _never
        self._parts = []
        self._consumer = None
        if (
            self._close_after
            or self._paused
            or self.transport.is_closing()
            # It was answered before it had read it all. TLS does not tell, so a no is taken as one.
            or self.transport.get_write_buffer_size()
            or (self._unsure and self.status >= 300)
        ):
            self.stage = Stage.CLOSED
            self.transport.abort()  # `close` would wait for a peer to read the rest
            return
        self.stage = Stage.IDLE
        self.idle_since = _now()
        self.pool.free(self)

    def abort(self) -> None:
        """Close now."""
        self._lost(self.stage, _CLOSED)
        self.transport.abort()

    def _lost(self, stage: int, detail: str) -> None:
        if self._error is not None:
            self._wake()
        elif stage is Stage.HEAD:
            self._fail(UpstreamReset("The upstream closed the connection.", detail=detail))
        elif stage is Stage.BODY:
            self._fail(UpstreamTruncated(_ENDED, detail=detail))

    def _break(self, error: UpstreamError) -> None:
        self._between = False
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
        if self._due == _never or self.stage not in (Stage.HEAD, Stage.BODY):
            return
        if self._due - _now() > 0.001:  # uvloop's clock has steps of a millisecond
            self._expect(self._due)
            return
        if self.stage is Stage.HEAD:
            error = UpstreamTimeout(_LATE, outcome="first_byte_timeout")
        elif self._waiter is None and not self._discard:
            return  # it is the reader who is slow; `_wait` winds the clock up again
        else:
            error = UpstreamTimeout(_STALLED, outcome="stall")
        self._break(error)
