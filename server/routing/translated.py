"""Moving a stream of another dialect to the client, event by event, as OpenAI's.

The counterpart of `relay.StreamRelay`, with the same rules: the commit point, back-pressure, an
error that keeps its true status before it and is an event behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from server.dialects.base import Reader
from server.errors import RoundhouseError, UpstreamProtocol, UpstreamTimeout, UpstreamTruncated
from server.protocol import sse
from server.protocol.functions import answer_back
from server.protocol.request import Request
from server.routing.record import Record
from server.routing.relay import NO_TEXT, Sink, is_text
from server.transport import AttemptTimeouts, Response

#: Seconds that an opening which says nothing yet (the role) waits for what follows. Providers that
#: are overloaded say so right behind it, and until it is out another target may be asked.
HOLD: Final = 2.0


class TranslatedRelay:
    """One stream from one target. `run` returns when the client has it all."""

    def __init__(
        self,
        response: Response,
        reader: Reader,
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
        self._response, self._reader = response, reader
        self._request, self._sink, self._record = request, sink, record
        self._timeouts, self._write_timeout = timeouts, write_timeout
        self._splitter = sse.Splitter(event_limit)
        self._observe_gap, self._committing = observe_gap, committing
        #: When the last read came in, from the commit point on.
        self._last = 0.0
        #: What follows the opening, while that is held and until it is out.
        self._next: asyncio.Future[bytes] | None = None
        #: Good events that came in one read with the one that broke the stream.
        self.pending = b""

    async def run(self) -> None:
        """Raises UpstreamError (before or after the commit point: see the sink) or SlowClient."""
        try:
            first = await self._first()
            await self._sink.events(self._events(first), self._write_timeout)
        finally:
            self._record.usage = self._reader.usage
            if self._next is not None:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)
                self._next = None
        self._response.finish()

    # --- until the commit point ---------------------------------------------------------------

    async def _first(self) -> bytes:
        """What the client gets first. The stream is committed when this returns."""
        now = time.monotonic()
        self._response.expect(min(now + self._timeouts.first_byte, self._request.deadline))
        try:
            out = await self._more()
            if _opens(out) and not self._reader.done:
                self._next = asyncio.ensure_future(self._more())
                if (await asyncio.wait({self._next}, timeout=HOLD))[0]:
                    following, self._next = self._next, None
                    out += following.result()
        except UpstreamTimeout:
            late = time.monotonic() >= self._request.deadline
            raise UpstreamTimeout(
                "The upstream did not begin to answer in time.",
                outcome="deadline" if late else "first_byte_timeout",
            ) from None
        self._committing()
        self._sink.committed = True
        self._last = self._record.first_token = now = time.monotonic()
        self._response.expect(now + self._timeouts.inter_chunk, self._timeouts.inter_chunk)
        return out

    # --- from there on ------------------------------------------------------------------------

    async def _events(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        patience = self._timeouts.inter_chunk
        while not self._reader.done:
            self._response.expect(time.monotonic() + patience, patience)
            if self._next is None:
                yield await self._more()
            else:  # it was begun while the opening was held
                following, self._next = self._next, None
                yield await following

    async def _more(self) -> bytes:
        """The next events for the client. Signs of life alone are no answer for ever."""
        quiet = time.monotonic() + max(self._timeouts.first_byte, self._timeouts.inter_chunk)
        while True:
            data = await self._response.read()
            now = time.monotonic()
            if self._last:
                self._observe_gap(now - self._last)
                self._last = now
            if out := self._take(data):
                return out
            if now > quiet:
                raise UpstreamTimeout(
                    "The upstream says that it lives, and nothing else.", outcome="stall"
                )

    # --- bytes in, events out -----------------------------------------------------------------

    def _take(self, data: bytes) -> bytes:
        """The events for the client that one read from the target comes to."""
        if not data:
            raise UpstreamTruncated("The upstream's answer ended before it was complete.")
        block = self._splitter.feed(data)
        if not block:
            return b""
        reader, out = self._reader, []
        try:
            if not is_text(block):
                raise UpstreamProtocol(NO_TEXT)
            for event in sse.events(block):
                payload = sse.data_of(event)
                if payload is None:
                    if not sse.is_silent(event):
                        raise UpstreamProtocol("The upstream sent something that is no event.")
                    continue
                name = "error" if event.startswith(b"event: error") else None
                out += [sse.event(self._said(made)) for made in reader.feed(name, payload)]
                if reader.done:
                    break
        except RoundhouseError:
            self.pending = b"".join(out)
            raise
        if out == [sse.DONE] and not (self._sink.committed or self._last):
            raise UpstreamProtocol("The upstream ended the stream without an answer.")
        return b"".join(out)

    def _said(self, payload: bytes) -> bytes:
        if self._request.legacy_functions and payload != sse.LAST:
            return answer_back(payload)
        return payload


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None

    def says_nothing(self) -> bool:
        return not any(getattr(self, name) for name in self.__struct_fields__)


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    delta: _Delta | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk)


def _opens(events: bytes) -> bool:
    """Is this one chunk that says nothing but the role? Raises UpstreamProtocol where it is none:
    some readers pass what has no sign of anything special."""
    if events.count(b"\n\n") != 1:
        return False
    try:
        chunk = _chunk.decode(events.removeprefix(b"data: "))
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise UpstreamProtocol(
            "The upstream sent something that is no answer.", detail=str(error)
        ) from None
    return bool(chunk.choices) and all(
        not choice.finish_reason and (choice.delta is None or choice.delta.says_nothing())
        for choice in chunk.choices or ()
    )
