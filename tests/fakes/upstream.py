"""A model server that does exactly what a test tells it, on a real socket.

::

    async with ScriptedUpstream() as upstream:
        upstream.queue(
            chat_stream(["Hel", "lo"], usage="chunk"),     # the first request
            answer_json(429, error("slow down"), {"retry-after": "7"}),
            reset_before_head(),                           # the third
        )
        ... point a client at upstream.url ("http://127.0.0.1:41234") ...
        first = upstream.requests[0]
        assert first.path == "/v1/chat/completions"
        assert first.json()["stream"] is True

A script is an async function of one `Exchange`, or a `Step` (the same with the moment at which it
takes over). Each request takes the next of the queue; then `routes[path]`, then `default`. A
request that finds none of them gets a 500, and leaving the `async with` fails, as it does for an
exception inside a script.

**Time belongs to the test.** Nothing here sleeps::

    gate = Gate()                                    # every item of the stream waits for a ticket
    upstream.queue(chat_stream(["a", "b", "c"], gate=gate))
    exchange = await upstream.next_request()         # the request has come in, whole
    gate.release(2)
    await exchange.sent.at_least(2)                  # two events are with the kernel
    ... close the client ...
    await exchange.disconnected.wait()               # or: await upstream.disconnected()

    async def mine(exchange: Exchange) -> None:      # or write the answer by hand
        await exchange.head(200, {"content-type": "text/event-stream"})
        await exchange.event({"choices": []})
        await exchange.wait(some_event)              # ends the script if the peer leaves
        exchange.reset()

Scripts: `tests.fakes.scripts` (answers) and `tests.fakes.faults`; both are importable from here.
`uds=path` listens on a Unix socket, `ssl=context` speaks TLS (`tests.fakes.tls`).
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.chat import (
    chat_answer,
    chat_events,
    chat_stream,
    completion_stream,
    embeddings_answer,
    models_answer,
    usage_of,
)
from tests.fakes.exchange import (
    MOMENTS,
    Counter,
    Exchange,
    Gate,
    Moment,
    Script,
    ScriptEnd,
    Step,
)
from tests.fakes.faults import (
    bad_chunk_size,
    bad_utf8,
    close,
    close_before_head,
    close_in_head,
    close_on_accept,
    closed_port,
    closed_socket,
    cut_chunk,
    endless_line,
    error_event,
    garbage,
    garbage_bytes,
    garbage_event,
    hang,
    hang_before_head,
    hang_in_head,
    hang_on_accept,
    huge_headers,
    never_read,
    no_answer_port,
    reset,
    reset_before_head,
    reset_in_head,
    reset_on_accept,
    short_body,
    slow_head,
)
from tests.fakes.http1 import (
    Connection,
    PeerGone,
)
from tests.fakes.scripts import (
    answer_bytes,
    answer_json,
    answer_late,
    before_body,
    comment,
    done,
    error,
    finish_connection,
    interim,
    redirect,
    sse,
)

__all__ = [
    "Connection",
    "Counter",
    "Exchange",
    "Gate",
    "PeerGone",
    "Script",
    "ScriptEnd",
    "ScriptedUpstream",
    "Step",
    "answer_bytes",
    "answer_json",
    "answer_late",
    "bad_chunk_size",
    "bad_utf8",
    "before_body",
    "chat_answer",
    "chat_events",
    "chat_stream",
    "close",
    "close_before_head",
    "close_in_head",
    "close_on_accept",
    "closed_port",
    "closed_socket",
    "comment",
    "completion_stream",
    "cut_chunk",
    "done",
    "embeddings_answer",
    "endless_line",
    "error",
    "error_event",
    "finish_connection",
    "garbage",
    "garbage_bytes",
    "garbage_event",
    "hang",
    "hang_before_head",
    "hang_in_head",
    "hang_on_accept",
    "huge_headers",
    "interim",
    "models_answer",
    "never_read",
    "no_answer_port",
    "redirect",
    "reset",
    "reset_before_head",
    "reset_in_head",
    "reset_on_accept",
    "short_body",
    "slow_head",
    "sse",
    "usage_of",
]


class ScriptedUpstream:
    """An async context manager; see the module's text.

    `sndbuf` makes the kernel's send buffer small, so that back-pressure shows after few bytes.
    """

    def __init__(
        self,
        default: Script | Step | None = None,
        *,
        routes: Mapping[str, Script | Step] | None = None,
        uds: str | Path | None = None,
        ssl: ssl_module.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        sndbuf: int | None = None,
    ) -> None:
        self.default = default
        #: By path without query, for what comes on its own, such as health probes.
        self.routes: dict[str, Script | Step] = dict(routes or {})
        self.uds = None if uds is None else str(uds)
        self.host = host
        self.port = port
        self._ssl = ssl
        self._sndbuf = sndbuf
        self._queue: deque[Script | Step] = deque()
        #: Every request whose head came in, in order.
        self.requests: list[Exchange] = []
        #: Every connection that was accepted, in order.
        self.connections: list[Connection] = []
        #: What went wrong inside scripts; leaving the context raises it.
        self.failures: list[BaseException] = []
        self._incoming: asyncio.Queue[Exchange] = asyncio.Queue()
        self._gone: asyncio.Queue[Exchange] = asyncio.Queue()
        self.accepted = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    # --- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if self.failures and exc is None:
            raise AssertionError("a script of the upstream failed") from self.failures[0]

    async def start(self) -> None:
        """Listen (again, on the same address after a `stop`)."""
        loop = asyncio.get_running_loop()
        if self.uds is not None:
            Path(self.uds).unlink(missing_ok=True)
            self._server = await loop.create_unix_server(self._accept, self.uds, ssl=self._ssl)
            return
        self._server = await loop.create_server(
            self._accept, self.host, self.port, ssl=self._ssl, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse new connections, reset the open ones, end their scripts."""
        if self._server is None:
            return
        self._server.close()
        for connection in self.connections:
            if not connection.lost.is_set():
                connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            await connection.lost.wait()
        await self._server.wait_closed()
        self._server = None
        if self.uds is not None:
            Path(self.uds).unlink(missing_ok=True)

    @property
    def url(self) -> str:
        """Without a trailing slash. Over a Unix socket the host means nothing."""
        if self.uds is not None:
            return "http://localhost"
        return f"{'https' if self._ssl else 'http'}://{self.host}:{self.port}"

    # --- what tests say and ask

    def queue(self, *scripts: Script | Step) -> None:
        """Answer the coming requests with these, one each."""
        self._queue.extend(scripts)

    @property
    def queued(self) -> int:
        """Scripts that no request has taken yet."""
        return len(self._queue)

    async def next_request(self) -> Exchange:
        """The next request that is in whole (with its body), in order; waits for it."""
        return await self._incoming.get()

    async def disconnected(self) -> Exchange:
        """The next request whose peer closed before its answer was complete; waits for it."""
        return await self._gone.get()

    @property
    def open_connections(self) -> int:
        return sum(not c.peer_closed.is_set() and not c.lost.is_set() for c in self.connections)

    # --- the work

    def _accept(self) -> Connection:
        return Connection(self._opened, self._sndbuf)

    def _opened(self, connection: Connection) -> None:
        connection.number = len(self.connections) + 1
        self.connections.append(connection)
        self.accepted.add()
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._one(connection, first=True)
            while not connection.ended:
                await self._one(connection, first=False)
        except PeerGone:
            if not connection.ended:
                connection.close()
        except Exception as failure:
            self.failures.append(failure)
            connection.reset()

    def _next(self, at: Moment, path: str | None = None) -> Step | None:
        """The script whose moment has come. A queued one for an earlier moment is taken, too: a
        fault meant for a new connection also hits a kept one."""
        route = None if path is None else self.routes.get(path)
        if route is None and self._queue:
            step = Step.of(self._queue[0])
            if MOMENTS.index(step.at) > MOMENTS.index(at):
                return None
            self._queue.popleft()
            return step
        script = route if route is not None else self.default
        if script is None or Step.of(script).at != at:
            return None
        return Step.of(script)

    async def _one(self, connection: Connection, first: bool) -> None:
        exchange = Exchange(connection, number=0)
        if first and (step := self._next("accept")) is not None:
            await self._run(step, exchange)
            return
        await exchange.read_request_head()
        self.requests.append(exchange)
        exchange.number = len(self.requests)
        step = self._next("head", exchange.path)
        if step is None:
            await exchange.read_body()
            step = self._next("request", exchange.path)
        self._incoming.put_nowait(exchange)
        if step is None:
            self.failures.append(
                AssertionError(f"no script for {exchange.method} {exchange.target}")
            )
            step = Step(answer_json(500, error("the fake has no script for this request")))
        await self._run(step, exchange)

    async def _run(self, step: Step, exchange: Exchange) -> None:
        watch = asyncio.get_running_loop().create_task(self._watch(exchange))
        try:
            await step.run(exchange)
            await exchange.complete()
        except ScriptEnd:
            pass
        finally:
            exchange.finished.set()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            self._settle(exchange)

    async def _watch(self, exchange: Exchange) -> None:
        """Notes a peer's going while the script is busy with something else."""
        await exchange.connection.peer_closed.wait()
        self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        connection = exchange.connection
        gone = connection.peer_closed.is_set() and not connection.ended
        if gone and not exchange.completed and not exchange.disconnected.is_set():
            exchange.disconnected_at = connection.peer_closed_at
            exchange.disconnected.set()
            self._gone.put_nowait(exchange)
