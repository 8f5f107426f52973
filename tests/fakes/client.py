"""A raw HTTP/1.1 client for tests on loopback: it reads as slowly as told, and leaves rudely.

::

    async with RawClient(port=8000) as client:
        await client.post("/v1/chat/completions", {"model": "m", "stream": True, …})
        head = await client.read_head()                  # head.status, head.header("content-type")
        first = await client.read_event()                # b'data: {…}'
        client.pause()                                   # read nothing more: back-pressure
        client.abort()                                   # RST; close() is polite

Leaving the context resets whatever is still open. `rcvbuf` makes the kernel's buffer small, so
that a paused reader fills it after few bytes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl as ssl_module
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.fakes.http1 import Connection, PeerGone


@dataclass(frozen=True)
class Head:
    status: int
    reason: str
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [v for k, v in self.headers if k.lower() == name.lower()]


class RawClient:
    """One connection. Reads raise `PeerGone` when the server has closed too early."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        uds: str | None = None,
        ssl: ssl_module.SSLContext | None = None,
        rcvbuf: int | None = None,
    ) -> None:
        self.host, self.port, self.uds = host, port, uds
        self._ssl = ssl
        self._rcvbuf = rcvbuf
        self.connection = Connection(lambda _: None, None)
        self._left: int | None = None
        self._chunked = False
        self._body_over = True
        self._lines = bytearray()
        #: Body bytes handed out so far.
        self.received = 0

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.connection.lost.is_set():
            self.connection.reset()
            await self.connection.lost.wait()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        if self.uds is not None:
            await loop.create_unix_connection(lambda: self.connection, self.uds)
            return
        sock = socket.socket()
        sock.setblocking(False)
        if self._rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._rcvbuf)
        try:
            await loop.sock_connect(sock, (self.host, self.port))
        except BaseException:
            sock.close()
            raise
        name = self.host if self._ssl else None
        await loop.create_connection(
            lambda: self.connection, sock=sock, ssl=self._ssl, server_hostname=name
        )

    # --- out

    async def send(self, data: bytes) -> None:
        """Raw bytes; returns when the kernel has them."""
        await self.connection.write(data)

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
    ) -> None:
        """Head and body; `host` and `content-length` are added unless `headers` names them."""
        given = list(headers)
        named = {name.lower() for name, _ in given}
        if "host" not in named:
            given.insert(0, ("host", f"{self.host}:{self.port or 80}"))
        if body is not None and not named & {"content-length", "transfer-encoding"}:
            given.append(("content-length", str(len(body))))
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in given), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + (body or b""))

    async def get(self, target: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        await self.request("GET", target, headers)

    async def post(
        self, target: str, payload: Any, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """`payload` is sent as JSON, bytes as they are."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self.request("POST", target, [("content-type", "application/json"), *headers], body)

    # --- in

    async def read_head(self) -> Head:
        """The next head, also that of a 1xx."""
        first, *lines = (await self.connection.read_head()).decode("latin-1").split("\r\n")[:-2]
        _, status, reason = [*first.split(" ", 2), ""][:3]
        headers = [(k, v.strip()) for k, _, v in (line.partition(":") for line in lines)]
        head = Head(int(status), reason, headers)
        self._chunked = (head.header("transfer-encoding") or "").lower() == "chunked"
        length = head.header("content-length")
        self._left = None if self._chunked or length is None else int(length)
        self._body_over = self._left == 0 or head.status in (204, 304) or head.status < 200
        self._lines.clear()
        return head

    async def read_chunk(self) -> bytes:
        """The next piece of the body as the server framed it; `b""` at its clean end."""
        if self._body_over:
            return b""
        if self._chunked:
            data = await self._read_chunk()
        elif self._left is None:
            data = await self.connection.read_some()
            self._body_over = not data
        else:
            data = await self.connection.read_some(self._left)
            if not data:
                raise PeerGone(f"the body ended {self._left} bytes early")
            self._left -= len(data)
            self._body_over = self._left == 0
        self.received += len(data)
        return data

    async def _read_chunk(self) -> bytes:
        size = int((await self.connection.read_line()).partition(b";")[0], 16)
        if size:
            data = await self.connection.read_exactly(size)
            await self.connection.read_exactly(2)
            return data
        while await self.connection.read_line() != b"\r\n":
            pass
        self._body_over = True
        return b""

    async def read_body(self) -> bytes:
        """All that is left of it."""
        parts = [bytes(self._lines)]
        self._lines.clear()
        while data := await self.read_chunk():
            parts.append(data)
        return b"".join(parts)

    async def read_event(self) -> bytes:
        """The next SSE event (or comment) without its blank line; `b""` at the end of the body."""
        while True:
            for blank in (b"\n\n", b"\r\n\r\n"):
                if (at := self._lines.find(blank)) >= 0:
                    event = bytes(self._lines[:at])
                    del self._lines[: at + len(blank)]
                    return event
            if not (data := await self.read_chunk()):
                rest = bytes(self._lines)
                self._lines.clear()
                return rest
            self._lines += data

    async def closed(self) -> None:
        """Waits until the server has closed the connection."""
        await self.connection.peer_closed.wait()

    # --- manners

    def pause(self) -> None:
        """Take nothing more from the socket. A closing server goes unnoticed meanwhile."""
        self.connection.pause_reading()

    def resume(self) -> None:
        self.connection.resume_reading()

    def half_close(self) -> None:
        """FIN, but go on reading."""
        self.connection.half_close()

    def close(self) -> None:
        """FIN (the kernel makes it a RST if bytes were left unread)."""
        self.connection.close()

    def abort(self) -> None:
        """RST."""
        self.connection.reset()


def rst_on_close(sock: socket.socket) -> None:
    """Makes closing this socket send a RST; for clients that are not this one."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
