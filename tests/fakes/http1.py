"""One connection of the scripted upstream: bytes in, bytes out, and when the peer went.

A protocol of our own instead of asyncio's streams, because the fake must see the peer's end while
nobody reads, must tell "handed to the kernel" from "buffered", and must be able to send a RST.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

MAX_HEAD = 1 << 20


class PeerGone(ConnectionError):
    """The peer closed while the script was waiting, reading or writing."""


class Connection(asyncio.Protocol):
    """`number` counts from 1 in the order of acceptance."""

    def __init__(self, on_open: Callable[[Connection], None], sndbuf: int | None) -> None:
        self.number = 0
        self._on_open = on_open
        self._sndbuf = sndbuf
        self._transport: Any = None
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        #: The peer has closed its side, or the connection is gone.
        self.peer_closed = asyncio.Event()
        #: The connection is gone, whoever ended it.
        self.lost = asyncio.Event()
        #: What ended it: None for a clean end, ConnectionResetError for a RST.
        self.lost_error: Exception | None = None
        #: Loop time at which `peer_closed` was set.
        self.peer_closed_at: float | None = None
        #: We have closed or reset it ourselves.
        self.ended = False

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # 0: `write` returns when the kernel has the bytes, so a test sees real back-pressure.
        # Under TLS asyncio looks at the limit again only when the peer speaks: that may be never.
        if transport.get_extra_info("ssl_object") is None:
            self._transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        if self._sndbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._sndbuf)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._news.set()

    def eof_received(self) -> bool:
        self._peer_left()
        # A plain socket stays open for writing: scripts may go on, and find out.
        return self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_error = exc
        self.lost.set()
        self._writable.set()
        self._peer_left()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _peer_left(self) -> None:
        if not self.peer_closed.is_set():
            if not self.ended:
                self.peer_closed_at = asyncio.get_running_loop().time()
            self.peer_closed.set()
        self._news.set()

    # --- for scripts

    async def _more(self) -> None:
        if self.peer_closed.is_set():
            raise PeerGone("the peer closed")
        self._news.clear()
        await self._news.wait()

    async def read_head(self) -> bytes:
        """A request's head with its blank line. Raises PeerGone at the end of the connection."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ValueError("a request head over 1 MiB")
            await self._more()
        return self._take(at + 4)

    async def read_line(self) -> bytes:
        while (at := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        return self._take(at + 2)

    async def read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    async def read_some(self, limit: int = 1 << 16) -> bytes:
        """What is there, at least a byte; `b""` when the peer has closed."""
        if not self._buffer:
            with contextlib.suppress(PeerGone):
                await self._more()
        return self._take(limit)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has taken the bytes. Raises PeerGone when nobody will."""
        if self.lost.is_set() or self._transport.is_closing():
            raise PeerGone("the connection is closed")
        self._transport.write(data)
        await self._writable.wait()
        if self.lost.is_set():
            raise PeerGone("the peer closed while bytes were waiting")

    def pause_reading(self) -> None:
        """Read nothing more: the peer's writes block. A closing peer goes unnoticed, too."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def half_close(self) -> None:
        """No more bytes from us; theirs are still read."""
        self._transport.write_eof()

    def close(self) -> None:
        """A clean end (FIN) once everything written is out."""
        self.ended = True
        self._transport.close()

    def reset(self) -> None:
        """Over TCP a RST. A Unix socket has none: its peer sees an end, or ECONNRESET if bytes of
        its own were never read."""
        self.ended = True
        sock = self._transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
