"""Open streams whose chunks the mock sends at a steady pace: how late they come, and whether all do."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Final, cast

from benchmarks.load.wire import Place, request

#: `number.due.sent` as the mock writes it, whatever a gateway wrote around it.
_CHUNK: Final = re.compile(rb'"(\d{5})\.(\d{16})\.(\d{16})"')


@dataclass
class Paced:
    """Seconds. `late`: arrival less the moment it was due; `added`: less the moment it was sent."""

    seconds: float = 0.0
    late: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    chunks: int = 0
    lost: int = 0
    doubled: int = 0
    errors: int = 0
    ended: int = 0
    first_error: str = ""


class _Run:
    def __init__(self, place: Place, prompt: int) -> None:
        self.place = place
        self.bytes = request(place, stream=True, prompt=prompt)
        self.result = Paced()
        self.measuring = False
        self.stopping = False
        self.begun = 0
        self.all_begun = asyncio.Event()
        self.expected = 0


class _Stream(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.expected = 0
        self.tail = b""
        self.begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.transport.write(self.run.bytes)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        run = self.run
        if not self.begun:
            if not data.startswith(b"HTTP/1.1 200"):
                run.result.errors += 1
                run.result.first_error = run.result.first_error or repr(data[:200])
            self.begun = True
            run.begun += 1
            if run.begun == run.expected:
                run.all_begun.set()
        if self.tail:
            data = self.tail + data
        end = 0
        result = run.result
        for match in _CHUNK.finditer(data):
            end = match.end()
            number = int(match[1])
            if number > self.expected:
                result.lost += number - self.expected
            elif number < self.expected:
                result.doubled += 1
            self.expected = number + 1
            if run.measuring:
                result.chunks += 1
                result.late.append((now - int(match[2])) / 1e9)
                result.added.append((now - int(match[3])) / 1e9)
        # What may be the beginning of a chunk's stamp stays for the next read.
        self.tail = data[max(end, len(data) - 48) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.run.stopping:
            self.run.result.errors += 1
            self.run.result.first_error = self.run.result.first_error or f"ended early: {exc}"


async def paced(
    place: Place,
    *,
    streams: int,
    prompt: int,
    warm_up: float,
    seconds: float,
    begin_within: float = 30,
) -> Paced:
    """Open `streams` streams, wait until all have begun, then measure. The mock's pace must give
    them more chunks than the run lasts. The clients leave in mid-stream at the end."""
    run = _Run(place, prompt)
    run.expected = streams
    loop = asyncio.get_running_loop()
    opened = []
    for number in range(streams):
        transport, _ = await loop.create_connection(lambda: _Stream(run), place.host, place.port)
        opened.append(transport)
        if number % 20 == 19:  # a thundering herd is another measure
            await asyncio.sleep(0.01)
    try:
        async with asyncio.timeout(begin_within):
            await run.all_begun.wait()
    except TimeoutError:
        run.result.errors += streams - run.begun
        run.result.first_error = run.result.first_error or "not all streams began"
    await asyncio.sleep(warm_up)
    run.measuring = True
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    run.measuring = False
    run.result.seconds = time.perf_counter() - begin
    run.stopping = True
    for transport in opened:
        transport.abort()
    await asyncio.sleep(0.5)
    return run.result
