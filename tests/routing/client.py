"""A client in memory, for requests that come by no socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from server.routing.relay import SlowClient
from tests.fakes.upstream import Counter


class MemorySink:
    """A client that keeps what it is sent; `gate` makes it slow."""

    def __init__(self) -> None:
        self.started = False
        self.committed = False
        self.ended = 0
        self.writes: list[bytes] = []
        self.answer: bytes | None = None
        self.written = Counter()
        #: Cleared: the client does not read.
        self.reads = asyncio.Event()
        self.reads.set()

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)

    @property
    def flowing(self) -> bool:
        return self.reads.is_set()

    async def drain(self) -> None:
        await self.reads.wait()

    def start_stream(self) -> None:
        assert not self.started
        self.started = True

    def push(self, data: bytes) -> bool:
        assert self.started
        assert not self.ended
        assert data
        self.writes.append(data)
        self.written.add()
        return self.flowing

    def end(self) -> None:
        assert self.started
        self.ended += 1

    def whole(self, body: bytes) -> None:
        assert not self.started
        self.started = True
        self.ended += 1
        self.answer = body

    async def events(self, source: AsyncIterator[bytes], patience: float) -> None:
        if not self.started:
            self.start_stream()
        async for event in source:
            if not self.push(event):
                try:
                    async with asyncio.timeout(patience):
                        await self.drain()
                except TimeoutError:
                    raise SlowClient("The client does not read.") from None
        self.end()
