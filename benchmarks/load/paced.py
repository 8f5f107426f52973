"""Open streams whose chunks the mock sends at a steady pace: how late they come, do all come."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from benchmarks.load.wire import BadAnswer, Place, Unchunker, request

#: `number.due.sent` as the mock writes it, whatever a gateway wrote around it.
_CHUNK: Final = re.compile(rb'"(\d{5})\.(\d{16})\.(\d{16})"')
_STAMP: Final = 48  # more than the bytes of one
_CONNECT: Final = 5.0


@dataclass
class Paced:
    """Seconds. `late`: arrival less the moment it was due; `added`: less the moment it was sent.

    `lost` and `doubled` are chunks, counted from each stream's first chunk on. `silent` are streams
    of which nothing came at the end of the run, `errors` those that did not begin or that ended.
    """

    seconds: float = 0.0
    late: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    chunks: int = 0
    lost: int = 0
    doubled: int = 0
    errors: int = 0
    begun: int = 0
    silent: int = 0
    first_error: str = ""


class _Run:
    def __init__(self, place: Place, streams: int, prompt: int) -> None:
        self.bytes = request(place, stream=True, prompt=prompt)
        self.result = Paced()
        self.measuring = False
        self.stopping = False
        self.streams = streams
        self.settled = 0  # streams that began or failed
        self.all_settled = asyncio.Event()

    def settle(self, error: str = "") -> None:
        self.settled += 1
        if error:
            self.error(error)
        else:
            self.result.begun += 1
        if self.settled == self.streams:
            self.all_settled.set()

    def error(self, text: str) -> None:
        self.result.errors += 1
        self.result.first_error = self.result.first_error or text


class _Stream(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.expected = 0
        self.head = b""
        self.tail = b""
        self.chunks: Unchunker | None = None
        self.begun = self.failed = False
        self.latest = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.transport.write(self.run.bytes)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if self.run.stopping or self.failed:
            return
        if not self.begun:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self.head[end + 4 :]
            head = self.head[: end + 4]
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(f"{head[9:12].decode(errors='replace')}: {data[:200]!r}")
                return
            self.begun = True
            if b"transfer-encoding: chunked" in head.lower():
                self.chunks = Unchunker()
            self.run.settle()
        try:
            self._read(data, now)
        except BadAnswer as error:
            self._fail(str(error))

    def _read(self, data: bytes, now: int) -> None:
        ended = False
        if self.chunks is not None:
            data = self.chunks.feed(data)
            ended = self.chunks.ended
        if self.tail:
            data = self.tail + data
        result = self.run.result
        end = 0
        for match in _CHUNK.finditer(data):
            end = match.end()
            number = int(match[1])
            if number < self.expected:
                result.doubled += 1
            else:
                result.lost += number - self.expected
                self.expected = number + 1
            self.latest = now
            if self.run.measuring:
                result.chunks += 1
                result.late.append((now - int(match[2])) / 1e9)
                result.added.append((now - int(match[3])) / 1e9)
        # What may be the beginning of a chunk's stamp stays for the next read.
        self.tail = data[max(end, len(data) - _STAMP) :]
        if ended:
            self._fail(f"the stream ended early: {data[-200:]!r}")

    def _fail(self, error: str) -> None:
        self.failed = True
        if self.begun:
            self.run.error(error)
        else:
            self.begun = True
            self.run.settle(error)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.run.stopping and not self.failed:
            self._fail(f"connection lost: {exc or 'closed'}")


async def paced(
    place: Place,
    *,
    streams: int,
    prompt: int,
    warm_up: float,
    seconds: float,
    begin_within: float = 30,
    silence: float = 1.0,
    window: Callable[[], None] | None = None,
) -> Paced:
    """Open `streams` streams, wait until all have begun, then measure. The mock's pace must give
    them more chunks than the run lasts. The clients leave in mid-stream at the end. `window` is
    called at the beginning and at the end of the counted time."""
    run = _Run(place, streams, prompt)
    opened: list[_Stream] = []
    try:
        await _open(run, place, opened, begin_within)
        await asyncio.sleep(warm_up)
        run.measuring = True
        if window is not None:
            window()
        begin = time.perf_counter()
        await asyncio.sleep(seconds)
        run.measuring = False
        run.result.seconds = time.perf_counter() - begin
        if window is not None:
            window()
    finally:
        run.stopping = True
        quiet = time.monotonic_ns() - silence * 1e9
        for stream in opened:
            if stream.begun and not stream.failed and stream.latest < quiet:
                run.result.silent += 1
            stream.transport.abort()
    await asyncio.sleep(0)
    return run.result


async def _open(run: _Run, place: Place, opened: list[_Stream], begin_within: float) -> None:
    loop = asyncio.get_running_loop()
    for number in range(run.streams):
        try:
            async with asyncio.timeout(_CONNECT):
                _, stream = await loop.create_connection(
                    lambda: _Stream(run), place.host, place.port
                )
        except OSError as error:  # TimeoutError is one
            run.settle(f"no connection: {str(error) or type(error).__name__}")
        else:
            opened.append(stream)
        if number % 20 == 19:  # a thundering herd is another measure
            await asyncio.sleep(0.01)
    try:
        async with asyncio.timeout(begin_within):
            await run.all_settled.wait()
    except TimeoutError:
        missing = run.streams - run.settled
        run.result.errors += missing
        run.result.first_error = run.result.first_error or f"{missing} streams did not begin"
