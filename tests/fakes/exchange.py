"""One request at the scripted upstream: the record of it, and the pen to answer it with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from tests.fakes.http1 import Connection, PeerGone

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
Framing = Literal["chunked", "length", "close", "both", "none"]
Moment = Literal["accept", "head", "request"]
MOMENTS: tuple[Moment, ...] = ("accept", "head", "request")

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}


class ScriptEnd(Exception):
    """Ends a script at once; what it wrote stands, nothing is added."""


Script = Callable[["Exchange"], Awaitable[None]]


@dataclass(frozen=True)
class Step:
    """A script and the moment it takes over.

    `accept`: as soon as a new connection is there (or, on a kept one, the next request's head).
    `head`: the request's head is in, its body unread. `request`: all of it is in.
    """

    run: Script
    at: Moment = "request"

    @classmethod
    def of(cls, script: Script | Step) -> Step:
        return script if isinstance(script, Step) else cls(script)


class Counter:
    """Counts up; tests wait for a value instead of sleeping."""

    def __init__(self) -> None:
        self.count = 0
        self._news = asyncio.Event()

    def add(self, n: int = 1) -> None:
        self.count += n
        self._news.set()
        self._news = asyncio.Event()

    async def at_least(self, count: int) -> None:
        while self.count < count:
            await self._news.wait()


class Gate:
    """Tickets: a script takes one before each item, a test hands them out."""

    def __init__(self, tickets: int = 0) -> None:
        self._tickets = asyncio.Semaphore(tickets)
        self._open = False

    def release(self, n: int = 1) -> None:
        for _ in range(n):
            self._tickets.release()

    def open(self) -> None:
        """Let everything through from now on."""
        self._open = True
        self._tickets.release()

    async def pass_one(self) -> None:
        if not self._open:
            await self._tickets.acquire()
        if self._open:  # wakes the next waiter, if there is one
            self._tickets.release()


class Exchange:
    """What came in, and what goes out.

    Record: `number` (from 1), `connection.number`, `method`, `target` (as sent, with query),
    `path`, `headers` (a list, as sent), `body`. `disconnected` is set when the peer closes before
    the answer is complete, `disconnected_at` says when (loop time). `sent` counts the events (or
    chunks) that the kernel has taken, `finished` is set when the script is over.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.method = ""
        self.target = ""
        self.version = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.sent = Counter()
        self.disconnected = asyncio.Event()
        self.disconnected_at: float | None = None
        self.finished = asyncio.Event()
        #: The whole answer has been sent.
        self.completed = False
        #: Bytes of the answer that the kernel has taken.
        self.written = 0
        self._framing: Framing | None = None

    def __repr__(self) -> str:
        return f"<Exchange {self.number} {self.method} {self.target}>"

    # --- the request

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)

    async def read_request_head(self) -> None:
        raw = await self.connection.read_head()
        first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        self.method, self.target, self.version = first.split(" ")
        for line in lines:
            name, _, value = line.partition(":")
            self.headers.append((name, value.strip()))

    async def read_body(self) -> bytes:
        """For scripts that run at the head: sends `100 Continue` if it was asked for."""
        if (self.header("expect") or "").lower() == "100-continue":
            await self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (self.header("transfer-encoding") or "").lower() == "chunked":
            parts = []
            while size := int((await self.connection.read_line()).partition(b";")[0], 16):
                parts.append(await self.connection.read_exactly(size))
                await self.connection.read_exactly(2)
            while await self.connection.read_line() != b"\r\n":
                pass
            self.body = b"".join(parts)
        elif length := int(self.header("content-length") or 0):
            self.body = await self.connection.read_exactly(length)
        return self.body

    # --- the answer

    async def write(self, data: bytes) -> None:
        """Raw bytes, past all framing. Returns when the kernel has them."""
        await self.connection.write(data)
        self.written += len(data)

    async def head(
        self,
        status: int = 200,
        headers: Headers = (),
        *,
        framing: Framing = "chunked",
        length: int | None = None,
    ) -> None:
        """Status line and headers; `framing` decides how `chunk` and `complete` write.

        `both` sends content-length and transfer-encoding, and writes chunks; `close` ends the body
        by closing; `none` adds no framing header and leaves the body to you.
        """
        items = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        if framing in ("length", "both"):
            items.append(("content-length", str(length if length is not None else 0)))
        if framing in ("chunked", "both"):
            items.append(("transfer-encoding", "chunked"))
        if framing == "close":
            items.append(("connection", "close"))
        reason = REASONS.get(status, "Status")
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in items)]
        self._framing = framing
        await self.write("\r\n".join([*lines, "", ""]).encode("utf-8"))

    async def chunk(self, data: bytes) -> None:
        """A piece of the body, framed as the head said."""
        if not data:
            return
        if self._framing in ("chunked", "both"):
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self.write(data)

    async def event(self, payload: Any, separator: str = "\n") -> None:
        """One `data:` event in one chunk, counted in `sent`; JSON unless it is a string."""
        text = payload if isinstance(payload, str) else compact(payload)
        await self.chunk(f"data: {text}{separator}{separator}".encode())
        self.sent.add()

    async def complete(self) -> None:
        """The clean end of the body. The server calls it when a script returns."""
        if self.completed or self.connection.ended:
            return
        if self._framing in ("chunked", "both"):
            await self.write(b"0\r\n\r\n")
        self.completed = True
        if self._framing == "close" or (self.header("connection") or "").lower() == "close":
            self.connection.close()

    # --- time and ends

    async def wait(self, event: asyncio.Event | Awaitable[Any]) -> None:
        """Until the event is set; PeerGone, which ends the script, if the peer leaves first."""
        waiting = asyncio.ensure_future(event.wait() if isinstance(event, asyncio.Event) else event)
        gone = asyncio.ensure_future(self.connection.peer_closed.wait())
        try:
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise PeerGone("the peer closed while the script waited")
            waiting.result()
        finally:
            waiting.cancel()
            gone.cancel()
            await asyncio.gather(waiting, gone, return_exceptions=True)

    async def hang(self) -> NoReturn:
        """Say nothing more until the peer leaves or the upstream stops."""
        await self.connection.peer_closed.wait()
        raise PeerGone("the peer closed while the script hung")

    def reset(self) -> NoReturn:
        """A RST, now."""
        self.connection.reset()
        raise ScriptEnd

    def close(self) -> NoReturn:
        """Close cleanly, now, whatever the framing had promised."""
        self.connection.close()
        raise ScriptEnd


def compact(payload: Any) -> str:
    """JSON as vLLM writes it: no spaces, UTF-8 as it is."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
