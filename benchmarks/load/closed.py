"""Closed-loop load: each connection sends the next request when the last answer is complete.

Every answer is checked. Times are seconds from the request's write to the last byte of its answer,
and to the first byte of its body (streams: the first event).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from benchmarks.load.wire import BadAnswer, Place, check, request


@dataclass
class Closed:
    """What a run saw. `seconds` is the measured time."""

    seconds: float = 0.0
    total: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.total) / self.seconds


class _Run:
    def __init__(self, place: Place, *, stream: bool, prompt: int) -> None:
        self.place, self.stream = place, stream
        self.bytes = request(place, stream=stream, prompt=prompt)
        self.result = Closed()
        self.measuring = False
        self.running = True
        self.open: set[_Client] = set()
        self.idle = asyncio.Event()

    def count(self, sent: float, first: float, now: float) -> None:
        if self.measuring:
            self.result.total.append(now - sent)
            self.result.first.append(first - sent)

    def error(self, text: str) -> None:
        self.result.errors += 1
        self.result.first_error = self.result.first_error or text


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.buffer = bytearray()
        self.size = 0  # of the whole answer; 0: not known; -1: chunked
        self.sent = self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.run.open.add(self)
        self._next()

    def _next(self) -> None:
        self.buffer = bytearray()
        self.size = 0
        self.first = 0.0
        self.sent = time.perf_counter()
        self.transport.write(self.run.bytes)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        if self.size == 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(buffer[:end]).lower()
            at = head.find(b"\r\ncontent-length:")
            if at >= 0:
                stop = head.find(b"\r\n", at + 2)
                length = int(head[at + 17 : stop if stop > 0 else None])
                self.size = end + 4 + length
            else:
                self.size = -1
            self.head = end + 4
        if self.first == 0.0 and len(buffer) > self.head:
            self.first = time.perf_counter()
        if self.size > 0:
            complete = len(buffer) >= self.size
        else:
            complete = buffer.endswith(b"0\r\n\r\n")
        if complete:
            now = time.perf_counter()
            self._finished(bytes(buffer), now)

    def _finished(self, raw: bytes, now: float) -> None:
        run = self.run
        sent, first = self.sent, self.first or now
        if run.running:
            try:
                check(raw, stream=run.stream)
            except (BadAnswer, ValueError) as error:
                run.error(str(error))
            else:
                run.count(sent, first, now)
            if b"connection: close" in raw[: self.head].lower():
                self.transport.close()
            else:
                self._next()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        run = self.run
        run.open.discard(self)
        if run.running:
            if self.buffer or exc is not None:
                run.error(f"connection lost in mid-answer: {exc}")
            task = asyncio.ensure_future(_connect(run))
            task.add_done_callback(lambda t: t.exception() if not t.cancelled() else None)
        elif not run.open:
            run.idle.set()


async def _connect(run: _Run) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: _Client(run), run.place.host, run.place.port)


async def closed(
    place: Place,
    *,
    stream: bool,
    prompt: int,
    connections: int,
    warm_up: float,
    seconds: float,
) -> Closed:
    """Load for `warm_up` seconds uncounted and `seconds` counted."""
    run = _Run(place, stream=stream, prompt=prompt)
    for _ in range(connections):
        await _connect(run)
    await asyncio.sleep(warm_up)
    run.measuring = True
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    run.measuring = False
    run.result.seconds = time.perf_counter() - begin
    run.running = False
    # Half-answered requests get a moment to end, so that the next turn finds quiet sockets.
    try:
        async with asyncio.timeout(2):
            await run.idle.wait()
    except TimeoutError:
        for client in list(run.open):
            client.transport.abort()
    return run.result
