"""An engine's output: read from its pipe, kept in a rotated file, its last lines in memory."""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 10 * 2**20
KEPT_FILES = 3
PENDING = 2**20
#: vLLM's three processes tell of one fault in 120 lines, and workers come on top.
TAIL = 400
LINE = 2000

_BREAK = re.compile(rb"[\r\n]+")


class LogFile:
    """`append` never blocks and never raises: a thread writes, and what a full or slow disk cannot
    take is dropped and counted, since a stalled log must stall neither the server nor the engine.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self.path = path
        self.dropped = 0
        self._max, self._kept = max_bytes, kept
        self._pending = bytearray()
        self._writing: asyncio.Future[None] | None = None
        self._lost = 0

    def append(self, data: bytes) -> None:
        if len(self._pending) + len(data) > PENDING:
            self._lose(len(data))
            return
        self._pending += data
        if self._writing is None:
            self._start()

    async def flush(self, timeout: float = 2.0) -> None:
        """Wait until all is written, or for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._writing is not None:
                    await asyncio.wait({self._writing})  # its error is `_done`'s
        except TimeoutError:
            return

    def _start(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        if self._lost:
            data += b"--- roundhouse: %d bytes of the log could not be written\n" % self._lost
            self._lost = 0
        loop = asyncio.get_running_loop()
        self._writing = future = loop.run_in_executor(None, self._write, data)
        future.add_done_callback(lambda done: self._done(done, len(data)))

    def _done(self, future: asyncio.Future[None], size: int) -> None:
        self._writing = None
        if future.cancelled() or future.exception() is not None:
            self._lose(size)
        if self._pending:
            self._start()

    def _lose(self, size: int) -> None:
        self._lost += size
        self.dropped += size

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            if os.fstat(fd).st_size + len(data) > self._max and os.fstat(fd).st_size:
                os.close(fd)
                fd = -1
                self._rotate()
                fd = os.open(self.path, flags, 0o600)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            if fd >= 0:
                os.close(fd)

    def _rotate(self) -> None:
        names = [self.path, *(numbered(self.path, n) for n in range(1, self._kept))]
        for older, newer in zip(reversed(names), list(reversed(names))[1:], strict=False):
            if newer.exists():
                newer.replace(older)


def numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def clean(line: bytes) -> str:
    """One line as printable text: no control characters, no terminal colours, bounded."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line[: LINE * 4].decode("utf-8", "replace"))
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text)[:LINE].rstrip()


class Output(asyncio.Protocol):
    """The read end of the engine's pipe: bytes go to the file as they are, lines to `on_line`."""

    def __init__(self, file: LogFile, on_line: Callable[[str], None]) -> None:
        self._file, self._on_line = file, on_line
        self._rest = b""
        self.lines: deque[str] = deque(maxlen=TAIL)
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._file.append(data)
        *whole, self._rest = _BREAK.split(self._rest + data)
        if len(self._rest) > LINE * 4:
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            self._take(line)

    def connection_lost(self, exc: Exception | None) -> None:
        self._take(self._rest)
        self._rest = b""
        if not self.closed.done():
            self.closed.set_result(None)

    def _take(self, line: bytes) -> None:
        if text := clean(line):
            self.lines.append(text)
            self._on_line(text)

    def tail(self, count: int = TAIL) -> tuple[str, ...]:
        """The last lines, without vLLM's list of routes that ends every start."""
        return tuple(line for line in self.lines if "] Route: /" not in line)[-count:]
