"""One client's connection: uvicorn's httptools protocol with deadlines, caps, and our `Cycle`."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Sized
from typing import Any, Final
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.api.cycle import Cycle
from server.errors import (
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    RequestTimedOut,
    RoundhouseError,
)
from server.telemetry.metrics import Metrics

#: Bytes of a body from which the parser is spared it.
_LARGE: Final = 64 * 1024
_never: Final = math.inf
_PLAIN_URL: Final = re.compile(rb"/[A-Za-z0-9._/-]*")
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_REASONS: Final = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large"}
#: Requests that may wait for their turn before no more are read.
_QUEUED: Final = 8


class _Flow(FlowControl):
    """uvicorn's reads on after every answer, and so much at once that its queue grows for ever."""

    def __init__(self, transport: asyncio.Transport, queue: Sized) -> None:
        super().__init__(transport)
        self.queue = queue

    def resume_reading(self) -> None:
        if self.read_paused and len(self.queue) <= _QUEUED:
            super().resume_reading()


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with deadlines and caps on a request's head."""

    # Set by `Listener.limit` on a subclass per listener.
    header_timeout: float
    header_limit: int
    connection_limit: int
    write_timeout: float
    metrics: Metrics
    #: Answers tell clients to leave; no more are let in; seconds that an idle one stays.
    parting, stopping, linger = False, False, 0.0

    _head_timer: asyncio.TimerHandle | None = None
    #: When it was made, or the last answer was complete; infinite while there is a request.
    _idle_since = math.inf
    _head_size = 0
    _head_done = False
    _flush_timer: asyncio.TimerHandle | None = None
    #: Whose answer is under way; `cycle` is the newest, which may have to wait for its turn.
    _running: Cycle | None = None
    cycle: Cycle | None  # type: ignore[assignment]
    #: Bytes of the body: by content-length, come in, and still to come past the parser.
    _announced = 0
    _body_in = 0
    _raw_left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if len(self.connections) > self.connection_limit:
            self.metrics.shed.labels("connections").inc()
            self._refuse(Overloaded("Too many connections are open.", retry_after=1))
            return
        self._idle_since = time.monotonic()
        self._arm()
        if self.stopping:  # it was let in at the last moment
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        self._unwatch_flush()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells only the newest
            self._running.message_event.set()
            if self._running.on_gone is not None:
                self._running.on_gone()
        super().connection_lost(exc)
        self.pipeline.clear()  # those in it hold it

    def data_received(self, data: bytes) -> None:
        if self._raw_left:
            data = self._take_raw(data)
            if not data:
                return
        # Not uvicorn's own, which stops the idle clock for any byte: `on_message_begin` does.
        while not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")
            else:
                if not self._head_done:
                    if self._head_timer is None:
                        self._arm()
                elif self._announced > _LARGE:
                    self._go_raw()
                return

    def _go_raw(self) -> None:
        if self._body_in < self._announced:
            self._raw_left = self._announced - self._body_in
            self._announced = 0

    def _take_raw(self, data: bytes) -> bytes:
        """The rest of a large body goes past the parser, which would copy every byte of it.
        Returns what came behind the body."""
        size = min(self._raw_left, len(data))
        self._raw_left -= size
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.add(data if size == len(data) else data[:size])
        if not self._raw_left:
            self._new_parser()
            self._message_complete()
        return data[size:]

    def _new_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _without_upgrade(self) -> bytes:
        """The head just read, less its wish for another protocol.

        We may ignore the wish (Java's client has it for HTTP/2, with every request), but the
        parser then takes the body for that other protocol: a fresh one reads the head again.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self._new_parser()
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        self._idle_since = _never
        self._head_size, self._head_done = 0, False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._announced = self._body_in = 0

    def on_url(self, url: bytes) -> None:
        self._grow(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + 4)
        if self._head_done:  # a trailer, which must not pass for a header
            return
        name = name.lower()
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"content-length" and value.isdigit():
            self._announced = int(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._disarm()
        self._head_done = True
        self._idle_since = _never  # again: the answer before may have ended within this head
        if self.transport.is_closing():
            return
        parser = self.parser
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                self.send_400_response("")
            return
        before = self.cycle
        self.cycle = cycle = self._cycle_of(parser)
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _cycle_of(self, parser: httptools.HttpRequestParser) -> Cycle:
        version = parser.get_http_version()
        raw_path, query = self.url, b""
        if _PLAIN_URL.fullmatch(raw_path) is None:
            url = httptools.parse_url(raw_path)
            raw_path, query = url.path, url.query or b""
        path = raw_path.decode("ascii")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": "http",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "server": self.server,
            "client": self.client,
            "state": {},
        }
        cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive() and not self.parting,
            on_response=self.on_response_complete,
        )
        scope["roundhouse.cycle"] = cycle
        return cycle

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        assert isinstance(cycle, Cycle)
        self._running = cycle
        cycle.task = self.loop.create_task(self._run(cycle))
        self.tasks.add(cycle.task)

    async def _run(self, cycle: Cycle) -> None:
        try:
            await cycle.run_asgi(self.app)
        finally:  # sooner and cheaper than a callback when it is done
            assert cycle.task is not None
            self.tasks.discard(cycle.task)
            # No circles, or every request is work for the garbage collector.
            cycle.task = None
            cycle.scope = None  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        self._body_in += len(body)
        if cycle is not None and not cycle.response_complete:
            cycle.add(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._message_complete()

    def _message_complete(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        # Not uvicorn's own, which sets a timer per answer.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._watch_flush()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = time.monotonic()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def _watch_idle(self, seconds: float, again: bool = False) -> None:
        look = self.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(seconds, look, again)

    def timeout_keep_alive_handler(self, again: bool = False) -> None:
        # One lazy timer per connection: it looks how long the client has been idle by now.
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - time.monotonic()
        if left == _never or self.transport.is_closing():
            return  # the next answer's end sets it again
        if left > 0.002:
            self._watch_idle(left)
        elif not again:  # a busy loop is late for its timers, and reads what has come after them
            self._watch_idle(0.002, True)
        else:
            self.transport.close()
            self._watch_flush()

    def part(self) -> None:
        """The answer under way, if it has no head yet, tells the client to leave after it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        # Not uvicorn's own, which closes in the face of a client whose request is on its way.
        self.part()
        self.timeout_keep_alive = self.linger  # type: ignore[assignment]
        self._unset_keepalive_if_required()
        if self._idle_since != _never:
            self._watch_idle(max(0.0, self._idle_since + self.linger - time.monotonic()))

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
