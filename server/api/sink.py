"""The client's side of one exchange: heads, bodies, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Send

from server.api.cycle import Cycle
from server.routing.relay import SlowClient

JSON: Final = (b"content-type", b"application/json")
_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kin hold streams back without this.
    (b"x-accel-buffering", b"no"),
)
#: Seconds without an event after which a comment shows that the stream is alive.
_PING: Final = 15
#: Seconds. We own the signals and end streams ourselves: the library is to do nothing of its own.
_NEVER: Final = 7 * 24 * 3600


def _alive() -> ServerSentEvent:
    return ServerSentEvent(comment="waiting", sep="\n")


async def _nothing() -> Message:
    """That the client goes is heard elsewhere."""
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


class _Events(EventSourceResponse):
    """The library's, without a cancel scope and a timer for each event, which cost more than all
    else that it does with one: `_send` minds the time, where the client does not read."""

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        await send(message)


class ClientSink:
    """See `server.routing.relay.Sink`. `headers` is asked for once, when the head goes out."""

    __slots__ = ("_cycle", "_headers", "committed", "drain", "ended", "push", "started", "status")

    def __init__(self, cycle: Cycle, headers: Callable[[], list[tuple[bytes, bytes]]]) -> None:
        self._cycle = cycle
        self._headers = headers
        self.push = cycle.push
        self.drain = cycle.drain
        self.started = False
        self.committed = False
        self.ended = False
        self.status: int | None = None

    @property
    def flowing(self) -> bool:
        return not self._cycle.flow.write_paused

    def forget(self) -> None:
        """Nothing more is sent. Breaks the circle of this sink and whoever writes its headers."""
        self._headers = list

    def start_stream(self) -> None:
        self.started = True
        self.status = 200
        self._cycle.start(200, [*_STREAM, *self._headers()])

    def end(self) -> None:
        self.ended = True
        self._cycle.end()

    def whole(self, body: bytes) -> None:
        self.answer(200, body)

    async def events(self, source: AsyncIterator[bytes], patience: float) -> None:
        response = _Events(
            source,
            sep="\n",
            ping=_PING,
            ping_message_factory=_alive,
            shutdown_grace_period=_NEVER,
        )
        await response({"type": "http", "method": "POST"}, _nothing, partial(self._send, patience))

    async def _send(self, patience: float, message: Message) -> None:
        """What the library sends: the head is ours, and it may be out already."""
        if message["type"] == "http.response.start":
            if not self.started:
                self.start_stream()
        elif not message["more_body"]:
            self.end()
        elif not self.push(message["body"]):
            try:
                async with asyncio.timeout(patience):
                    await self.drain()
            except TimeoutError:
                raise SlowClient("The client does not read.") from None

    def answer(self, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send a whole JSON answer, an error too."""
        self.started = self.ended = True
        self.status = status
        self._cycle.start(status, [JSON, *self._headers(), *extra], body)
