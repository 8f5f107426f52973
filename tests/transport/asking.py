"""Requests as the tests of the transport send them, and a peer that says any bytes at all."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from server.errors import UpstreamError
from server.transport import AttemptTimeouts, Endpoint, Response, Transport
from server.transport.wire import Wire
from tests.fakes.upstream import ScriptedUpstream

TIMES = AttemptTimeouts(connect=5, first_byte=5, inter_chunk=5)
#: The outcomes that a metric knows.
OUTCOMES = {
    "refused",
    "dns",
    "tls",
    "connect_timeout",
    "reset",
    "first_byte_timeout",
    "stall",
    "deadline",
    "protocol",
    "truncated",
}


async def ask(
    transport: Transport,
    where: ScriptedUpstream | str,
    body: bytes = b"{}",
    *,
    times: AttemptTimeouts = TIMES,
    path: str = "/v1/x",
    deadline: float | None = None,
) -> Response:
    if isinstance(where, ScriptedUpstream):
        endpoint = Endpoint(where.url, where.uds)
    else:
        endpoint = Endpoint(where)
    headers = {"content-type": "application/json", "x-one": "1"}
    return await transport.send(
        endpoint, "POST", path, headers=headers, body=body, timeouts=times, deadline=deadline
    )


async def whole(
    transport: Transport,
    where: ScriptedUpstream | str,
    body: bytes = b"{}",
    *,
    times: AttemptTimeouts = TIMES,
) -> bytes:
    response = await ask(transport, where, body, times=times)
    try:
        response.expect(time.monotonic() + times.inter_chunk, times.inter_chunk)
        return await response.read_all(1 << 30)
    finally:
        response.close()


async def rest_of(response: Response) -> tuple[bytes, UpstreamError]:
    """What still comes of an answer that breaks."""
    data = b""
    while True:
        try:
            piece = await response.read()
        except UpstreamError as error:
            response.close()
            return data, error
        assert piece, "the answer ended properly"
        data += piece


def upstream_wires(transport: Transport) -> list[Wire]:
    return [wire for pool in transport._pools.values() for wire in pool._all]


#: Bytes to send, or: a turn of the loop, an end of some kind, silence until the client goes.
Act = bytes | Literal["turn", "close", "reset", "half", "hang"]


class RawPeer(asyncio.Protocol):
    """One connection: each request takes the next script of its server."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.number = 0
        self.gone = asyncio.Event()
        #: All of a script was played, but for a `hang` at its end.
        self.said = asyncio.Event()
        self._held = b""
        self._transport: Any = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.server.peers.append(self)
        self.number = len(self.server.peers)
        if self.server.first is not None:
            script, self.server.first = self.server.first, None
            self._task = asyncio.get_running_loop().create_task(self._play(script))

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, rest = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(rest) < size:
            return
        self._held = rest[size:]
        self.server.requests.append((self.number, rest[:size]))
        script = self.server.scripts.pop(0) if self.server.scripts else self.server.default
        self._task = asyncio.get_running_loop().create_task(self._play(script))

    def eof_received(self) -> bool:
        self.gone.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    async def _play(self, script: Sequence[Act]) -> None:
        try:
            for act in script:
                if self._transport.is_closing():
                    return
                await self._do(act)
        finally:
            self.said.set()

    async def _do(self, act: Act) -> None:
        if isinstance(act, bytes):
            self._transport.write(act)
        elif act == "turn":
            for _ in range(3):
                await asyncio.sleep(0)
        elif act == "close":
            self._transport.close()
        elif act == "reset":
            self.reset()
        elif act == "half":
            self._transport.write_eof()
        else:
            self.said.set()
            await self.gone.wait()

    @property
    def asked(self) -> bool:
        """A request has come in whole."""
        return self._task is not None

    def say(self, data: bytes) -> None:
        """Speak unasked."""
        self._transport.write(data)

    def reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def cut(self) -> None:
        """Close the socket; under TLS without a word."""
        self._transport.abort()


class RawServer:
    """`scripts` answer the coming requests, `default` the others; `first` a new connection."""

    def __init__(self, scripts: Sequence[Sequence[Act]], default: Sequence[Act]) -> None:
        self.scripts = list(scripts)
        self.default = default
        self.first: Sequence[Act] | None = None
        self.peers: list[RawPeer] = []
        #: (the connection's number, the body) of each request that came in whole.
        self.requests: list[tuple[int, bytes]] = []
        self.url = ""
        self.port = 0


def answer(body: bytes, *extra: bytes) -> bytes:
    """A plain answer with a length."""
    lines = b"".join(line + b"\r\n" for line in extra)
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(body), body)


@asynccontextmanager
async def raw(
    *scripts: Sequence[Act],
    default: Sequence[Act] = (answer(b"own"),),
    ssl: ssl_module.SSLContext | None = None,
) -> AsyncIterator[RawServer]:
    """A server that plays these scripts, one a request."""
    server = RawServer(scripts, default)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: RawPeer(server), "127.0.0.1", 0, ssl=ssl)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https://localhost' if ssl else 'http://127.0.0.1'}:{server.port}"
    try:
        yield server
    finally:
        listening.close()
        for peer in server.peers:
            peer._transport.abort()
        for peer in server.peers:
            await peer.gone.wait()
            if peer._task is not None:
                peer._task.cancel()
                await asyncio.gather(peer._task, return_exceptions=True)
