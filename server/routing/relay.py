"""Moving an answer from a target to the client: back-pressure, the commit point, the ending.

A stream's bytes pass in blocks of whole events. A block without a sign of anything special goes
on as it is; only one with a sign is cut into events and looked into.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from server.dialects import openai
from server.errors import (
    RoundhouseError,
    UpstreamAborted,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamTruncated,
)
from server.protocol import sse
from server.protocol.functions import answer_back
from server.protocol.request import Request
from server.routing.record import Record
from server.transport import AttemptTimeouts, Response


class SlowClient(RoundhouseError):
    """The client read nothing for too long; its connection is to be closed without a word."""

    status = 499
    code = "slow_client"


_STALLED: Final = "The upstream stopped in the middle of the answer."
_NO_TEXT: Final = "The upstream sent bytes that are no text."


class Sink(Protocol):
    """The client's side of one exchange."""

    #: The response's head is out.
    started: bool
    #: The first `data:` event is out: no second attempt from here on.
    committed: bool

    async def start_stream(self) -> None:
        """Send the head of a stream: 200, text/event-stream."""

    async def write(self, data: bytes) -> None:
        """Send bytes of a started stream; waits while the client does not read."""

    async def end(self) -> None:
        """End a started stream."""

    async def whole(self, body: bytes) -> None:
        """Send a whole answer, 200 and JSON."""


async def whole(
    response: Response,
    request: Request,
    record: Record,
    *,
    timeouts: AttemptTimeouts,
    limit: int,
) -> bytes:
    """Read a non-stream answer to its end and check that it is one. Returns its bytes."""
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(timeouts.first_byte) as guard:
            payload = await response.read_all(
                limit, progress=lambda: guard.reschedule(clock() + timeouts.inter_chunk)
            )
    except TimeoutError:
        raise UpstreamTimeout(_STALLED, outcome="stall") from None
    if request.surface in ("tokenize", "detokenize"):
        return payload
    if not _is_text(payload):
        raise UpstreamProtocol(_NO_TEXT)
    facts = openai.answer_in(payload)
    if facts.error is not None:
        raise openai.error_of_event(facts.error)
    if facts.aborted:
        raise UpstreamAborted("The engine gave the request up.")
    record.usage = facts.usage
    return answer_back(payload) if request.legacy_functions else payload


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
        self._writing = False
        self._done = False
        #: The block now at hand holds a `data:` event for the client.
        self._has_data = False
        #: Good events that came in one read with the one that broke the stream.
        self.pending = b""

    async def run(self) -> None:
        """Raises UpstreamError (before or after the commit point: see the sink) or SlowClient."""
        try:
            async with asyncio.timeout(None) as guard:
                await self._pump(guard)
        except TimeoutError:
            if self._writing:
                raise SlowClient("The client does not read.") from None
            if self._sink.committed:
                raise UpstreamTimeout(_STALLED, outcome="stall") from None
            late = time.monotonic() >= self._request.deadline
            raise UpstreamTimeout(
                "The upstream did not begin to answer in time.",
                outcome="deadline" if late else "first_byte_timeout",
            ) from None

    async def _pump(self, guard: asyncio.Timeout) -> None:
        # The guard keeps the loop's clock, whose origin and steps are the loop's own business.
        clock = asyncio.get_running_loop().time
        sink, splitter, now = self._sink, self._splitter, time.monotonic
        last = 0.0
        begin_by = clock() + min(self._timeouts.first_byte, self._request.deadline - now())
        guard.reschedule(begin_by)
        while not self._done:
            data = await self._response.read()
            if not data:
                raise UpstreamTruncated("The upstream's answer ended before it was complete.")
            read_at = now()
            if last:
                self._observe_gap(read_at - last)
            block = splitter.feed(data)
            if block and (out := self._inspect(block)):
                self._writing = True
                guard.reschedule(clock() + self._write_timeout)
                if self._has_data and not sink.committed:
                    self._commit()
                if not sink.started:
                    await sink.start_stream()
                await sink.write(out)
                self._writing = False
                if not sink.committed:
                    guard.reschedule(begin_by)
            if sink.committed:
                last = read_at
                guard.reschedule(clock() + self._timeouts.inter_chunk)
        self._response.finish()
        self._writing = True
        guard.reschedule(clock() + self._write_timeout)
        await sink.end()

    def _commit(self) -> None:
        self._committing()
        self._sink.committed = True
        self._record.first_token = time.monotonic()

    def _inspect(self, block: bytes) -> bytes:
        """The bytes of the block that are for the client."""
        lines = block.count(b"\ndata:") + block.startswith(b"data:")
        objects = block.count(b"\ndata: {") + block.startswith(b"data: {")
        if (
            lines == objects > 0
            and _is_text(block)
            and (b"\r" not in block or block.count(b"\r") == block.count(b"\r\n"))
            and b'"error"' not in block
            and b'"abort"' not in block
            and block.count(b'"usage"') == block.count(b'"usage":null')
            and not self._request.legacy_functions
        ):
            self._has_data = True
            return block
        return self._look_into(block)

    def _look_into(self, block: bytes) -> bytes:
        out: list[bytes] = []
        for event in sse.events(block):
            if not _is_text(event):
                self.pending = b"".join(out)
                raise UpstreamProtocol(_NO_TEXT)
            payload = sse.data_of(event)
            if payload is None:
                # A comment or an empty event: for a client that already reads, a sign of life.
                if self._sink.started:
                    out.append(event)
                continue
            if payload.strip() == b"[DONE]":
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
                said = sse.event(answer_back(payload)) if self._request.legacy_functions else event
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
