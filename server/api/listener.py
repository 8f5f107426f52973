"""A listening socket and uvicorn's server on it, with the limits that uvicorn itself lacks.

A head that comes too slowly, is too large or is no HTTP gets an answer in OpenAI's shape and its
connection is closed; so does a connection over the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from server.api.connection import Protocol
from server.errors import (
    BindError,
)
from server.telemetry.metrics import Metrics

#: Seconds that a cut connection's task has to end by itself.
_PARTING: Final = 0.5
#: Seconds after which a server that stops looks whether anybody is left.
_LOOK: Final = 0.01


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, since the app owns the signals, and without its naps of
    0.1 seconds: an idle server wakes once a second, for the date, and one that stops does so."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up, self.leaving = asyncio.Event(), asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        while not self.leaving.is_set():
            await self.on_tick(0)  # the tick that writes the date
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.leaving.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # `Listener.stop_accepting` has closed the servers, and told the connections.
        for sock in sockets or []:
            sock.close()
        state = self.server_state
        await asyncio.sleep(_LOOK)  # who was just let in is known by then
        # uvicorn's sets tell nobody when they are empty.
        while (state.connections or state.tasks) and not self.force_exit:
            await self.on_tick(0)  # a drain may last, and its answers have dates, too
            await asyncio.sleep(_LOOK)
        for server in self.servers:
            await server.wait_closed()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """One address and the app behind it."""

    def __init__(self, sock: socket.socket, app: ASGIApp, server: _Server, backstop: float) -> None:
        self.socket, self.app = sock, app
        self._server, self._backstop = server, backstop
        self._bound = self.address
        #: When it stopped, everybody who was let in before is known; infinite while it has not.
        self._known = math.inf
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound (the port is real even when 0 was asked for)."""
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        """`http://host:port`, as a person on this machine would write it."""
        host, port = self._bound
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Accept connections."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self.socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait({up, self._task}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()

    def limit(self, bounds: Bounds) -> None:
        """Set what new connections are held to."""
        config = self._server.config
        config.timeout_keep_alive = int(bounds.keep_alive)
        protocol = self._protocol
        protocol.header_timeout = bounds.header_timeout
        protocol.header_limit = bounds.header_limit
        protocol.connection_limit = bounds.connection_limit
        protocol.write_timeout = bounds.write_timeout

    def part(self) -> None:
        """From now on every answer tells its client that the connection ends with it."""
        self._protocol.parting = True
        for connection in self._connections():
            connection.part()

    def stop_accepting(self) -> None:
        """Close the socket. Connections end after their answer, idle ones now, or once they have
        been idle for as long as the listener's are to linger: they may bring one request more."""
        self._protocol.parting = self._protocol.stopping = True
        self._known = time.monotonic() + _LOOK
        for server in self._server.servers:
            server.close()
        for connection in self._connections():
            connection.shutdown()
        self._server.leaving.set()

    @property
    def expecting(self) -> bool:
        """Is there a connection on which something may still be asked or answered, or one that has
        been taken and is not known yet?"""
        if time.monotonic() < self._known:
            return True
        return any(not connection.transport.is_closing() for connection in self._connections())

    @property
    def _protocol(self) -> type[Protocol]:
        protocol: Any = self._server.config.http
        return protocol  # type: ignore[no-any-return]

    def _connections(self) -> list[Protocol]:
        connections: Any = self._server.server_state.connections
        return list(connections)

    async def stopped(self, *, hurry: bool = False) -> None:
        """Until every connection is gone; `backstop` seconds from now the last ones are cut, and in
        a hurry idle ones end now."""
        if self._task is None:
            return
        if hurry:
            self._protocol.linger = 0.0
            for connection in self._connections():
                connection.shutdown()
        await asyncio.wait({self._task}, timeout=self._backstop)
        if not self._task.done():
            await self._cut()
        await self._task

    async def _cut(self) -> None:
        for connection in self._connections():
            if connection.transport is not None:
                connection.transport.abort()
        if tasks := set(self._server.server_state.tasks):  # most of them end when they hear of it
            _, stuck = await asyncio.wait(tasks, timeout=_PARTING)
            for task in stuck:
                task.cancel()
        self._server.force_exit = True


def bind(host: str, port: int, *, what: str = "The server") -> socket.socket:
    """A bound TCP socket. Raises BindError with the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named by its protocol, so that asyncio's own loop sends small pieces at once, as uvloop does.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except (OSError, OverflowError) as error:
        sock.close()
        raise _bind_error(error, host, port, what) from None
    sock.setblocking(False)
    return sock


def _bind_error(error: Exception, host: str, port: int, what: str) -> BindError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        why = (
            f"port {port} on {host} is taken by another program. Stop it (`ss -ltnp 'sport = "
            f":{port}'` shows which it is), or choose another port"
        )
    elif number == errno.EACCES:
        why = f"port {port} needs more rights. Choose a port above 1023"
    elif number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        why = f"{host} is no address of this machine. Use 127.0.0.1, or 0.0.0.0 for all"
    else:
        why = f"{host}:{port} cannot be used ({error})"
    return BindError(f"{what} cannot listen: {why}.")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener puts up with: seconds, bytes, connections."""

    header_timeout: float
    header_limit: int
    connection_limit: int
    keep_alive: float
    write_timeout: float


def listener(
    sock: socket.socket,
    app: ASGIApp,
    *,
    metrics: Metrics,
    bounds: Bounds,
    backstop: float,
    linger: float = 0.0,
) -> Listener:
    """A listener for the app on a bound socket. `backstop` seconds after `stopped` is called what
    still runs is cut. `linger`: seconds that idle connections stay when it stops accepting."""
    config = uvicorn.Config(
        app,
        http=type("ListenerProtocol", (Protocol,), {"metrics": metrics, "linger": linger}),
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    made = Listener(sock, app, _Server(config), backstop)
    made.limit(bounds)
    return made
