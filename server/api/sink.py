"""The client's side of one exchange: heads, bodies, streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from server.api.cycle import Cycle

JSON: Final = (b"content-type", b"application/json")
_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kin hold streams back without this.
    (b"x-accel-buffering", b"no"),
)


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

    def answer(self, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send a whole JSON answer, an error too."""
        self.started = self.ended = True
        self.status = status
        self._cycle.start(status, [JSON, *self._headers(), *extra], body)
