"""A proxy on loopback that does what a test says: forwards, tunnels, refuses, or cuts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """`heads` holds what came in. `refuse` answers everything with a status; `cut` closes each
    connection once so many bytes of an answer (in a tunnel: TLS and all) have gone to the client.
    """

    refuse: int | None = None
    cut: int | None = None
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._one(reader, writer)
        except asyncio.CancelledError:  # asyncio would complain of it in 3.11
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if self.refuse is not None:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % self.refuse)
            await writer.drain()
            await reader.read()
            return
        place = target.decode() if method == b"CONNECT" else urlsplit(target.decode()).netloc
        host, _, port = place.rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        try:
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                up_writer.write(head.replace(b"http://" + place.encode(), b"", 1))
            ways = [
                asyncio.ensure_future(_pipe(reader, up_writer, None)),
                asyncio.ensure_future(_pipe(up_reader, writer, self.cut)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            up_writer.close()


async def _pipe(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None
) -> None:
    sent = 0
    while data := await reader.read(1 << 16):
        if most is not None:
            data = data[: most - sent]
        writer.write(data)
        sent += len(data)
        await writer.drain()
        if sent == most:
            return


@asynccontextmanager
async def proxy(*, refuse: int | None = None, cut: int | None = None) -> AsyncIterator[Proxy]:
    """A proxy that runs."""
    made = Proxy(refuse, cut)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
