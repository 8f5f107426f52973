"""Closed-loop load: each connection sends the next request when the last answer is complete.

Every answer is checked. Times are seconds from the request's write to the last byte of its answer,
and to the first byte of its body (streams: the first event).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from benchmarks.load.wire import BadAnswer, Checker, Place, request

_CONNECT: Final = 5.0
_AGAIN: Final = 0.05  # before a connection that was lost or refused is tried again
_POLL: Final = 0.01


@dataclass
class Closed:
    """What a run saw. `seconds` is the measured time, `errors` are those of that time, and
    `unfinished` are requests that were still without an answer some time after it."""

    seconds: float = 0.0
    total: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: int = 0
    first_error: str = ""
    unfinished: int = 0

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return len(self.total) / self.seconds if self.seconds else 0.0


def _why(error: OSError) -> str:
    return str(error) or type(error).__name__


class _Run:
    def __init__(self, place: Place, *, stream: bool, prompt: int, connections: int) -> None:
        self.place = place
        self.connections = connections
        self.bytes = request(place, stream=stream, prompt=prompt)
        self.checker = Checker(stream=stream)
        self.result = Closed()
        self.ended = 0  # answers and errors since the beginning
        self.waiting: list[_Client] = []  # those that have their first answer, until all have
        self.misses = 0
        self.greeted = asyncio.Event()
        self.measuring = False
        self.running = True
        self.open: set[_Client] = set()
        self.connecting: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()

    def count(self, sent: float, first: float, now: float) -> None:
        self.ended += 1
        if self.measuring:
            self.result.total.append(now - sent)
            self.result.first.append(first - sent)

    def error(self, text: str) -> None:
        self.ended += 1
        if self.measuring:
            self.result.errors += 1
        self.result.first_error = self.result.first_error or text

    def ready(self, client: _Client) -> None:
        """It has its first answer. A loop that is full accepts new connections one by one, so load
        begins when all are there; else some would wait for long at the door."""
        self.waiting.append(client)
        self._all_greeted()

    def missed(self, text: str) -> None:
        """A connection was refused or lost. Nobody waits for it to have its first answer."""
        self.error(text)
        self.misses += 1
        self._all_greeted()

    def _all_greeted(self) -> None:
        if len(self.waiting) + self.misses >= self.connections:
            self.greeted.set()

    async def greet(self, longest: float) -> None:
        for _ in range(self.connections):
            self.connect()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self.greeted.wait()
        self.greeted.set()
        for client in self.waiting:
            client.go_on()
        self.waiting = []

    def connect(self, after: float = 0.0) -> None:
        task = asyncio.ensure_future(self._connect(after))
        self.connecting.add(task)
        task.add_done_callback(self.connecting.discard)

    async def _connect(self, after: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(after)
            try:
                async with asyncio.timeout(_CONNECT):
                    await loop.create_connection(
                        lambda: _Client(self), self.place.host, self.place.port
                    )
            except OSError as error:  # TimeoutError is one
                self.missed(f"no connection: {_why(error)}")
                after = _AGAIN
            else:
                return

    async def until(self, seconds: float, answers: int, longest: float) -> None:
        """Wait `seconds`, and on until `answers` have come, `longest` at most."""
        begin = time.perf_counter()
        goal = self.ended + answers
        await asyncio.sleep(seconds)
        left = longest - (time.perf_counter() - begin)
        while self.ended < goal and left > 0:
            await asyncio.sleep(_POLL)
            left = longest - (time.perf_counter() - begin)

    def stop(self) -> None:
        """No new requests."""
        self.running = False
        for task in list(self.connecting):
            task.cancel()

    def end(self) -> None:
        self.stop()
        for client in list(self.open):
            client.transport.abort()


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.buffer = bytearray()
        self.size = 0  # of the whole answer; 0: not known; -1: chunked
        self.head = 0
        self.asked = False
        self.sent = self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.run.open.add(self)
        self._next()

    def _next(self) -> None:
        self.buffer = bytearray()
        self.size = 0
        self.first = 0.0
        self.asked = True
        self.sent = time.perf_counter()
        self.transport.write(self.run.bytes)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        if self.size == 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = end + 4
            self.size = size_of_answer(bytes(buffer[:end]).lower(), self.head)
        if self.first == 0.0 and len(buffer) > self.head:
            self.first = time.perf_counter()
        if len(buffer) >= self.size if self.size > 0 else buffer.endswith(b"0\r\n\r\n"):
            self._finished(bytes(buffer), time.perf_counter())

    def _finished(self, raw: bytes, now: float) -> None:
        run = self.run
        self.asked = False
        try:
            run.checker.check(raw, self.head)
        except BadAnswer as error:
            run.error(str(error))
        else:
            run.count(self.sent, self.first or now, now)
        closing = not run.running or b"connection: close" in raw[: self.head].lower()
        if closing:
            self.transport.close()
        if not run.greeted.is_set():
            run.ready(self)
        elif not closing:
            self._next()

    def go_on(self) -> None:
        if not self.transport.is_closing():
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        run = self.run
        run.open.discard(self)
        if run.running:
            if self.buffer and self.asked:
                run.missed(f"connection lost in mid-answer: {exc or 'closed'}")
            elif self.asked:
                run.missed(f"connection lost before the answer: {exc or 'closed'}")
            run.connect(_AGAIN if self.asked else 0.0)
        elif not run.open:
            run.idle.set()


def size_of_answer(head: bytes, end: int) -> int:
    """The bytes of a message whose head, in lower case, ends at `end`; -1 where it is chunked."""
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return -1
    stop = head.find(b"\r\n", at + 2)
    return end + int(head[at + 17 : stop if stop > 0 else None])


async def closed(
    place: Place,
    *,
    stream: bool,
    prompt: int,
    connections: int,
    warm_up: float,
    seconds: float,
    at_least: int = 0,
    longest: float = 5.0,
    window: Callable[[], None] | None = None,
    leave: float = 2.0,
) -> Closed:
    """One answer for each connection, then load: `warm_up` seconds uncounted, `seconds` counted.

    All three last `longest` at most, and the latter two on until `at_least` answers have come in
    each: the turn of a slow gateway would otherwise be over before its first answer. `window` is
    called at the beginning and at the end of the counted time.
    """
    run = _Run(place, stream=stream, prompt=prompt, connections=connections)
    try:
        await run.greet(longest)
        await run.until(warm_up, at_least, longest)
        run.measuring = True
        if window is not None:
            window()
        begin = time.perf_counter()
        await run.until(seconds, at_least, longest)
        run.measuring = False
        run.result.seconds = time.perf_counter() - begin
        if window is not None:
            window()
    except BaseException:
        run.end()
        raise
    await _leave(run, leave)
    return run.result


async def _leave(run: _Run, leave: float) -> None:
    """Half-answered requests get a moment to end, so that the next turn finds quiet sockets."""
    run.stop()
    if run.open:
        try:
            async with asyncio.timeout(leave):
                await run.idle.wait()
        except TimeoutError:
            run.result.unfinished = len(run.open)
    run.end()
    for _ in range(3):  # turns in which the connections close
        await asyncio.sleep(0)
