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

import httptools
import msgspec
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.errors import (
    BindError,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    RequestTimedOut,
    RoundhouseError,
)
from server.telemetry.metrics import Metrics

#: Seconds that a cut connection's task has to end by itself.
_PARTING: Final = 0.5
_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large"}


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with deadlines and caps on a request's head."""

    # Set by `Listener.limit` on a subclass per listener.
    header_timeout: float
    header_limit: int
    connection_limit: int
    write_timeout: float
    metrics: Metrics

    _head_timer: asyncio.TimerHandle | None = None
    _head_size = 0
    _head_done = False
    _flush_timer: asyncio.TimerHandle | None = None
    #: Whose answer is under way; `cycle` is the newest, which may have to wait for its turn.
    _running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.connection_limit:
            self.metrics.shed.labels("connections").inc()
            self._refuse(Overloaded("Too many connections are open.", retry_after=1))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        self._unwatch_flush()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells only the newest
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Not uvicorn's own, which stops the idle clock for any byte: `on_message_begin` does.
        while not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")

    def _without_upgrade(self) -> bytes:
        """The head just read, less its wish for another protocol.

        We may ignore the wish (Java's client has it for HTTP/2, with every request), but the
        parser then takes the body for that other protocol: a fresh one reads the head again.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._head_size, self._head_done = 0, False
        if self._head_timer is None:
            self._arm()
        # For a client that reads nothing: a plain close would wait for it.
        self.scope["roundhouse.abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + 4)
        if not self._head_done:  # else a trailer, which must not pass for a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        self._head_done = True
        if self.transport.is_closing():
            return
        if not self.parser.should_upgrade():
            self._unset_keepalive_if_required()
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            self.send_400_response("")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if self.cycle is not None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_flush()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_flush()

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest("This is no valid HTTP request.", code="invalid_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_flush(patience=2)  # an exchange has its own clock, which knows more

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unwatch_flush()

    def _watch_flush(self, patience: int = 1) -> None:
        """What is sent must be read, also when nobody waits for it: uvicorn, and a connection that
        is being closed, would wait for ever."""
        self._unwatch_flush()
        if left := self.transport.get_write_buffer_size():
            wait = self.write_timeout * patience
            self._flush_timer = self.loop.call_later(wait, self._flushed, left)

    def _unwatch_flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _flushed(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_flush()
            return
        self.metrics.shed.labels("slow_client").inc()
        self.transport.abort()

    def _answering(self) -> bool:
        """An answer is on its way out: nothing of ours may come between."""
        busy = bool(self.pipeline)
        if self._running is not None:
            busy |= self._running.response_started and not self._running.response_complete
        return busy

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
        if self._answering():  # the answer is not to suffer from a request sent too early
            self._arm()
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
        """Answer below ASGI, and close; only close in the middle of another answer."""
        self._disarm()
        if self._answering():
            self.transport.close()
            self._watch_flush()
            return
        body = msgspec.json.encode(error.body())
        reason = _REASONS.get(error.status, b"Service Unavailable")
        head = [
            b"HTTP/1.1 %d %s" % (error.status, reason),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            *(f"{k}: {v}".encode() for k, v in error.headers().items()),
        ]
        self.transport.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        self.transport.close()
        self._watch_flush()


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

    def __init__(self, sock: socket.socket, app: ASGIApp, server: _Server, backstop: float) -> None:
        self.socket, self.app = sock, app
        self._server, self._backstop = server, backstop
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
        protocol.write_timeout = bounds.write_timeout

    def stop_accepting(self) -> None:
        """Close the socket; idle connections end now, busy ones after their answer."""
        self._server.should_exit = True

    async def stopped(self) -> None:
        """Until every connection is gone; `backstop` seconds from now the last ones are cut."""
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=self._backstop)
        if not self._task.done():
            await self._cut()
        await self._task

    async def _cut(self) -> None:
        state = self._server.server_state
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if tasks := set(state.tasks):  # most of them end when they hear of it
            _, stuck = await asyncio.wait(tasks, timeout=_PARTING)
            for task in stuck:
                task.cancel()
        self._server.force_exit = True


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
    write_timeout: float


def listener(
    sock: socket.socket, app: ASGIApp, *, metrics: Metrics, bounds: Bounds, backstop: float
) -> Listener:
    """A listener for the app on a bound socket. `backstop` seconds after `stopped` is called what
    still runs is cut."""
    config = uvicorn.Config(
        app,
        http=type("ListenerProtocol", (Protocol,), {"metrics": metrics}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    made = Listener(sock, app, _Server(config), backstop)
    made.limit(bounds)
    return made
