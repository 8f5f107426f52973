"""uvicorn's cycle of one request and its answer, with ways past ASGI's messages.

The endpoints of the data path find it as `scope["roundhouse.cycle"]` and call it directly, where
ASGI has a message and often a task's turn. The other endpoints speak plain ASGI over the same.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: Bytes of a body that wait for the endpoint before the client is paused.
BODY_AHEAD: Final = 256 * 1024

_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}
#: All of them: an upstream's own status (Cloudflare's 520 to 530) is passed on.
STATUS: Final = {
    code: f"HTTP/1.1 {code} {_PHRASES.get(code, '')}\r\n".encode() for code in range(100, 600)
}


class Cycle(RequestResponseCycle):
    """One request and its answer on a connection."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        #: Called when the client goes before its answer is complete.
        self.on_gone: Callable[[], None] | None = None
        #: The body's pieces that nobody has taken, and their size.
        self.pieces: list[bytes] = []
        #: The task that serves it, once it runs.
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0

    # --- the body ------------------------------------------------------------------------

    def add(self, piece: bytes) -> None:
        """A piece of the body has come in."""
        self.pieces.append(piece)
        self.waiting += len(piece)
        if self.waiting > BODY_AHEAD:
            self.flow.pause_reading()
        self.message_event.set()

    def take(self) -> list[bytes]:
        """What has come in of the body since the last call; the client may go on sending."""
        pieces, self.pieces, self.waiting = self.pieces, [], 0
        self.flow.resume_reading()  # also behind a complete body, or its going would not be heard
        return pieces

    async def more(self) -> None:
        """Until there is more to take, or the body is complete, or the client has gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not (self.pieces or self.disconnected) and self.more_body:
            self.message_event.clear()
            await self.message_event.wait()

    async def receive(self) -> Any:
        """ASGI's; see uvicorn's."""
        message: Any = await super().receive()
        if message["type"] == "http.request":
            message["body"] = b"".join(self.take())
        return message

    # --- the answer ----------------------------------------------------------------------

    @property
    def flowing(self) -> bool:
        """The client reads: what is written now is not piled up."""
        return not self.flow.write_paused

    def push(self, data: bytes) -> bool:
        """A piece, not empty, of a started answer without a length. False: the client does not
        read, and what is sent piles up until `drain` returns."""
        if not (self.disconnected or self.response_complete):
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return not self.flow.write_paused

    async def drain(self) -> None:
        """Until the client has read most of what was written, or has gone."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()

    def start(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | None = None
    ) -> None:
        """The answer's head, and with `body` the whole of it. The headers are ours: no check of
        their letters, none of content-length, transfer-encoding or connection among them."""
        if self.disconnected:
            return
        lines = [STATUS[status]]
        for name, value in self.default_headers:  # the date, which uvicorn writes once a second
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.response_started = True
        self.waiting_for_100_continue = False
        if body is None:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n\r\n")
            self.transport.write(b"".join(lines))
            return
        self.chunked_encoding = False
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        lines.append(body)
        self.transport.write(b"".join(lines))
        self._complete()

    def abort(self) -> None:
        """Close the connection at once, without waiting for what the client has not read."""
        self.disconnected = True  # or uvicorn would complain of an answer cut short
        self.transport.abort()

    def end(self) -> None:
        """The end of a started answer without a length."""
        if self.disconnected or self.response_complete:
            return
        self.transport.write(b"0\r\n\r\n")
        self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
