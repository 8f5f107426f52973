"""Moving an answer from a target to the client: back-pressure, the commit point, the ending.

A stream's bytes pass in blocks of whole events. A block without a sign of anything special goes
on as it is; only one with a sign is cut into events and looked into.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple, Protocol

from server.dialects import openai
from server.dialects.base import Asked, Dialect
from server.errors import (
    RoundhouseError,
    UpstreamAborted,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamTruncated,
)
from server.protocol import sse
from server.protocol.aside import LONG, aside
from server.protocol.functions import answer_back
from server.protocol.request import Request
from server.routing.record import Record
from server.transport import AttemptTimeouts, Response, past_deadline


class SlowClient(RoundhouseError):
    """The client read nothing for too long; its connection is to be closed without a word."""

    status = 499
    code = "slow_client"


class Reading(NamedTuple):
    """How answers that are not in OpenAI's dialect are read."""

    dialect: Dialect
    asked: Asked


NO_TEXT: Final = "The upstream sent bytes that are no text."


class Sink(Protocol):
    """The client's side of one exchange. What is sent while the client does not read piles up:
    `drain` first where `flowing` is false."""

    #: The response's head is out.
    started: bool
    #: The first `data:` event is out: no second attempt from here on.
    committed: bool

    @property
    def flowing(self) -> bool:
        """The client reads."""

    async def drain(self) -> None:
        """Until the client has read most of what was sent, or has gone."""

    def push(self, data: bytes) -> bool:
        """Send bytes of a started stream. False: the client does not read; `drain` first."""

    def start_stream(self) -> None:
        """Send the head of a stream: 200, text/event-stream."""

    def end(self) -> None:
        """End a started stream."""

    def whole(self, body: bytes) -> None:
        """Send a whole answer, 200 and JSON."""

    async def events(self, source: AsyncIterator[bytes], patience: float) -> None:
        """Send whole events as they come, and the head first if it is not out; then end. What
        `source` raises comes out here, without an end; SlowClient when the client reads nothing
        for `patience` seconds."""


async def whole(
    response: Response,
    request: Request,
    record: Record,
    *,
    timeouts: AttemptTimeouts,
    limit: int,
    reading: Reading | None = None,
) -> bytes:
    """Read a non-stream answer to its end and check that it is one. Returns its bytes, with
    `reading` those of OpenAI's answer that it comes to."""
    payload = response.complete()
    if payload is None:
        payload = await _read(response, request, timeouts, limit)
    if request.surface in ("tokenize", "detokenize"):
        return payload
    if not is_text(payload):
        raise UpstreamProtocol(NO_TEXT)
    if reading is None:
        facts = openai.answer_in(payload)
    else:
        payload, facts = await _read_as(reading, payload)
    if facts.error is not None:
        raise openai.error_of_event(facts.error)
    if facts.aborted:
        raise UpstreamAborted("The engine gave the request up.")
    record.usage = facts.usage
    return answer_back(payload) if request.legacy_functions else payload


async def _read_as(reading: Reading, payload: bytes) -> tuple[bytes, openai.Facts]:
    read = reading.dialect.answer_in
    if len(payload) < LONG:
        return read(payload, reading.asked)
    return await aside(read, payload, reading.asked)


async def _read(
    response: Response, request: Request, timeouts: AttemptTimeouts, limit: int
) -> bytes:
    patience, cap = timeouts.inter_chunk, request.deadline
    response.expect(time.monotonic() + timeouts.first_byte, patience, cap=cap)
    try:
        # After each read anew: what had come in with the head moved no clock.
        return await response.read_all(
            limit,
            progress=lambda: response.expect(time.monotonic() + patience, patience, cap=cap),
        )
    except UpstreamTimeout:
        if time.monotonic() >= request.deadline:
            raise past_deadline() from None
        raise


def is_text(data: bytes) -> bool:
    """Is it UTF-8?"""
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_NO_USAGE: Final = b'"usage":null'
#: An event of its own, not the last line of one.
_THEN_DONE: Final = b"\n\n" + sse.DONE


def _plain(block: bytes) -> int:
    """The length of the block's beginning that passes as it is: whole events, each one line of
    `data: {`, without a sign of an error, an end or a count of tokens."""
    if not is_text(block) or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return 0
    end = len(block)
    if block.endswith(_THEN_DONE):
        end -= len(sse.DONE)
    # As many lines as events that begin with an object, and their blank lines: then no event has
    # any line besides.
    begin = b"\n\r\ndata: {" if b"\r" in block else b"\n\ndata: {"
    events = block.count(begin, 0, end) + block.startswith(b"data: {", 0, end)
    if not events or block.count(b"\n", 0, end) != 2 * events:
        return 0
    first = end
    for sign in (b'"error"', b'"abort"'):
        if (at := block.find(sign, 0, first)) >= 0:
            first = at
    at = block.find(b'"usage"', 0, first)
    while at >= 0:
        if not block.startswith(_NO_USAGE, at):
            first = at
            break
        at = block.find(b'"usage"', at + 12, first)
    if first == end:
        return end
    # Only what begins with the event of the first sign is looked into; with CRLF all of it.
    before = -1 if b"\r" in block else block.rfind(b"\n\n", 0, first)
    return before + 2 if before >= 0 else 0


class StreamRelay:
    """One stream from one target. `run` returns when the client has it all."""

    def __init__(
        self,
        response: Response,
        request: Request,
        sink: Sink,
        record: Record,
        *,
        timeouts: AttemptTimeouts,
        write_timeout: float,
        event_limit: int,
        observe_gap: Callable[[float], None],
        committing: Callable[[], None],
    ) -> None:
        self._response = response
        self._request = request
        self._sink = sink
        self._record = record
        self._timeouts = timeouts
        self._write_timeout = write_timeout
        self._splitter = sse.Splitter(event_limit)
        self._observe_gap = observe_gap
        self._committing = committing
        self._done = False
        #: When the last read came in, from the commit point on.
        self._last = 0.0
        #: The client does not read what it was sent.
        self._full = False
        #: Every event is decoded and written anew.
        self._rewrites = request.legacy_functions
        #: The block now at hand holds a `data:` event for the client.
        self._has_data = False
        #: Good events that came in one read with the one that broke the stream.
        self.pending = b""

    async def run(self) -> None:
        """Raises UpstreamError (before or after the commit point: see the sink) or SlowClient."""
        response, sink, patience = self._response, self._sink, self._timeouts.inter_chunk
        now = time.monotonic()
        begin_by = min(now + self._timeouts.first_byte, self._request.deadline)
        response.expect(begin_by)
        try:
            while not self._done:
                await response.stream(self._take)
                if self._full:
                    self._full = False
                    await self._drain()
                if sink.committed:
                    response.expect(time.monotonic() + patience, patience)
        except UpstreamTimeout:
            if sink.committed:
                raise
            late = time.monotonic() >= self._request.deadline
            raise UpstreamTimeout(
                "The upstream did not begin to answer in time.",
                outcome="deadline" if late else "first_byte_timeout",
            ) from None
        response.finish()
        if not sink.flowing:
            await self._drain()
        sink.end()

    def _take(self, data: bytes) -> bool:
        """One read from the target, sent on at once. False to be asked again from `run`."""
        if not data:
            raise UpstreamTruncated("The upstream's answer ended before it was complete.")
        sink = self._sink
        if self._last:
            read_at = time.monotonic()
            self._observe_gap(read_at - self._last)
            self._last = read_at
            find = data.find
            if (
                # One event without any sign, as nearly all are. Every call saved counts here:
                # `find` costs half of what `in` does.
                find(b"\n") == len(data) - 2
                and data.startswith(b"data: {")
                and data.endswith(b"\n")
                and not self._splitter.rest
                and data.isascii()
                and find(b"\r") < 0
                and find(b'"error"') < 0
                and find(b'"abort"') < 0
                and (find(b'"usage"') < 0 or data.count(b'"usage"') == data.count(_NO_USAGE))
                and not self._rewrites
            ):
                return sink.push(data) or self._blocked()
        block = self._splitter.feed(data)
        if not block or not (out := self._inspect(block)):
            return not self._done
        if sink.committed:
            return (sink.push(out) or self._blocked()) and not self._done
        if self._has_data:
            self._commit()
        if not sink.started:
            sink.start_stream()
        sink.push(out)
        return False  # from the commit point on `run` has another clock

    def _blocked(self) -> bool:
        self._full = True
        return False

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._write_timeout):
                await self._sink.drain()
        except TimeoutError:
            raise SlowClient("The client does not read.") from None

    def _commit(self) -> None:
        self._committing()
        self._sink.committed = True
        self._last = self._record.first_token = time.monotonic()

    def _inspect(self, block: bytes) -> bytes:
        """The bytes of the block that are for the client."""
        plain = 0 if self._rewrites else _plain(block)
        if not plain:
            return self._look_into(block, b"")
        if plain == len(block):
            self._has_data = True
            return block
        before = block[:plain]
        # There may be comments alone before the first sign.
        self._has_data |= before.startswith(b"data:") or b"\ndata:" in before
        return self._look_into(block[plain:], before)

    def _without_data(self, event: bytes, out: list[bytes]) -> None:
        """A comment or an empty event: for a client that already reads, a sign of life."""
        if not sse.is_silent(event):
            self.pending = b"".join(out)
            raise UpstreamProtocol("The upstream sent something that is no event.")
        if self._sink.started or self._has_data:
            out.append(event)

    def _look_into(self, block: bytes, before: bytes) -> bytes:
        """`before`: what of the same read is for the client already."""
        out = [before]
        for event in sse.events(block):
            if not is_text(event):
                self.pending = b"".join(out)
                raise UpstreamProtocol(NO_TEXT)
            payload = sse.data_of(event)
            if payload is None:
                self._without_data(event, out)
                continue
            if payload.strip() == sse.LAST:
                if not (self._sink.committed or self._has_data):
                    raise UpstreamProtocol("The upstream ended the stream without an answer.")
                self._done = True
                out.append(event)
                break
            try:
                facts = openai.event_in(payload)
                if facts.error is not None:
                    raise openai.error_of_event(facts.error)
                if facts.aborted:
                    raise UpstreamAborted("The engine gave the request up.")
                said = sse.event(answer_back(payload)) if self._rewrites else event
            except RoundhouseError:
                # What came before the bad event in this block is good, and was sent for.
                self.pending = b"".join(out)
                raise
            if facts.usage is not None:
                self._record.usage = facts.usage
            if facts.usage_only and not self._request.wants_usage:
                continue
            self._has_data = True
            out.append(said)
        return b"".join(out)
