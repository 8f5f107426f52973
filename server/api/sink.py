"""The client's side of one exchange, over ASGI: heads, bodies, streams, and its going."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from server.errors import ClientGone

JSON: Final = (b"content-type", b"application/json")
_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kin hold streams back without this.
    (b"x-accel-buffering", b"no"),
)
_MORE: Final[dict[str, Any]] = {"type": "http.response.body", "more_body": True}


class AsgiSink:
    """See `server.routing.relay.Sink`. `headers` is asked for once, when the head goes out."""

    __slots__ = ("_headers", "_send", "committed", "ended", "started", "status")

    def __init__(self, send: Send, headers: Callable[[], list[tuple[bytes, bytes]]]) -> None:
        self._send = send
        self._headers = headers
        self.started = False
        self.committed = False
        self.ended = False
        self.status: int | None = None

    async def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def start_stream(self) -> None:
        await self.head(200, [*_STREAM, *self._headers()])

    async def write(self, data: bytes) -> None:
        await self._send({**_MORE, "body": data})

    async def end(self) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(self, body: bytes) -> None:
        await self.answer(200, body)

    async def answer(
        self, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """Send a whole JSON answer, an error too."""
        length = (b"content-length", str(len(body)).encode())
        await self.head(status, [JSON, length, *self._headers(), *extra])
        self.ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


class ClientWatch:
    """Ends the block when the client leaves: it is cancelled and ClientGone comes out.

    Works like `asyncio.timeout`, with the client's disconnect in the place of the clock. Enter it
    after the request's body has been read: from then on `receive` only tells of the going. Once
    `answered`, a going is nobody's loss: uvicorn tells of one after every complete answer.
    """

    def __init__(self, receive: Receive, answered: Callable[[], bool]) -> None:
        self._receive = receive
        self._answered = answered
        self._gone = False

    async def __aenter__(self) -> ClientWatch:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._answered():
            self._gone = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._gone:
            self._watcher.cancel()
            return
        mine = self._task.uncancel() <= self._cancelling
        if mine and isinstance(error, asyncio.CancelledError):
            raise ClientGone("The client closed the connection.") from error


async def abort(scope: Scope) -> None:
    """Close the client's connection at once, without waiting for what it has not read."""
    if cut := scope.get("roundhouse.abort"):
        cut()
        await asyncio.sleep(0)  # uvicorn hears of it, or it would complain of an answer cut short
