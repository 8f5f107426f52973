"""A listening socket and uvicorn's server on it, with the limits that uvicorn itself lacks.

A head that comes too slowly, is too large or is no HTTP gets an answer in OpenAI's shape and its
connection is closed; so does a connection over the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import (
    BindError,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    RequestTimedOut,
    RoundhouseError,
)
from server.telemetry.metrics import Metrics

_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large"}


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with deadlines and caps on a request's head."""

    # Set by `listener_protocol` on a subclass per listener.
    header_timeout: float
    header_limit: int
    connection_limit: int
    metrics: Metrics

    _head_timer: asyncio.TimerHandle | None = None
    _head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connection_limit:
            self.metrics.shed.labels("connections").inc()
            self._refuse(Overloaded("Too many connections are open.", retry_after=1))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_size = 0
        if self._head_timer is None:
            self._arm()
        # For a client that reads nothing: a plain close would wait for it.
        self.scope["roundhouse.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("This is no valid HTTP request.", code="invalid_http"))

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.header_timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        self.metrics.shed.labels("slow_client").inc()
        self._refuse(
            RequestTimedOut(
                f"The request's head did not arrive within {self.header_timeout:g} seconds."
            )
        )

    def _grow(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self.header_limit and not self.transport.is_closing():
            self._refuse(
                PayloadTooLarge(
                    f"The request's headers are larger than {self.header_limit} bytes.",
                    code="headers_too_large",
                )
            )

    def _refuse(self, error: RoundhouseError) -> None:
        """Answer below ASGI, and close."""
        body = msgspec.json.encode(error.body())
        reason = _REASONS.get(error.status, b"Service Unavailable")
        head = [
            b"HTTP/1.1 %d %s" % (error.status, reason),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            *(f"{k}: {v}".encode() for k, v in error.headers().items()),
        ]
        self._disarm()
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the app owns the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """One address and the app behind it."""

    def __init__(self, sock: socket.socket, app: ASGIApp, server: _Server) -> None:
        self.socket, self.app = sock, app
        self._server = server
        self._bound = self.address
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
        protocol: Any = config.http
        protocol.header_timeout = bounds.header_timeout
        protocol.header_limit = bounds.header_limit
        protocol.connection_limit = bounds.connection_limit

    def stop_accepting(self) -> None:
        """Close the socket; idle connections end now, busy ones after their answer."""
        self._server.should_exit = True

    async def stopped(self) -> None:
        """Until every connection is gone (uvicorn's own backstop cuts what outlives the drain)."""
        if self._task is not None:
            await self._task


def bind(host: str, port: int, *, what: str = "The server") -> socket.socket:
    """A bound TCP socket. Raises BindError with the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
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


def listener(
    sock: socket.socket, app: ASGIApp, *, metrics: Metrics, bounds: Bounds, backstop: float
) -> Listener:
    """A listener for the app on a bound socket. `backstop` seconds after `stop_accepting` what
    still runs is cancelled."""
    config = uvicorn.Config(
        app,
        http=type("ListenerProtocol", (Protocol,), {"metrics": metrics}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(backstop) + 1,
    )
    made = Listener(sock, app, _Server(config))
    made.limit(bounds)
    return made
