"""A wire on a transport that is a fake, so that a test can say when anything happens."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from server.transport.client import WireResponse
from server.transport.head import Address
from server.transport.pool import Pool
from server.transport.wire import Wire

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class FakeTransport(asyncio.Transport):
    """As strict as the strictest of the real ones: what is closed refuses everything."""

    def __init__(self) -> None:
        super().__init__()
        self.wire: Wire = None  # type: ignore[assignment]
        self.closed = False
        self.reading = True
        self.unsent = 0
        self.written: list[bytes] = []

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def _open(self) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: Any) -> None:
        self._open()
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        self._open()
        self.reading = False

    def resume_reading(self) -> None:
        self._open()
        self.reading = True

    def get_write_buffer_size(self) -> int:
        self._open()
        return self.unsent

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.wire.connection_lost, None)

    close = abort


def made() -> tuple[Wire, FakeTransport, Pool]:
    pool = Pool(Address("x", 1, False))
    wire = Wire(pool, asyncio.get_running_loop())
    transport = FakeTransport()
    transport.wire = wire
    wire.connection_made(transport)
    pool._all.add(wire)
    return wire, transport, pool


async def begun(*data: bytes) -> tuple[WireResponse, Wire, FakeTransport, Pool]:
    """An answer whose head is in, and these bytes."""
    wire, transport, pool = made()
    wire.start(b"head", b"body", time.monotonic() + 60)
    wire.data_received(HEAD)
    for piece in data:
        wire.data_received(piece)
    await wire.head()
    return WireResponse(wire), wire, transport, pool


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
