"""A mock upstream that obeys the plan in each prompt: numbered chunks at a pace, or a fault.

Below `/a/v1` it is faulty, below `/b/v1` it answers every plan as if it ordered no fault.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVarTuple, Unpack, cast

from benchmarks.soak.plans import Fault, Order, read_order
from benchmarks.upstream import event, framed

_Args = TypeVarTuple("_Args")

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_FIRST: Final = framed(event('{"role":"assistant","content":""}'))
_LAST: Final = framed(event("{}", '"stop"'))
#: As `include_usage` brings it, which a gateway may ask for; it is not for our clients.
_USAGE: Final = framed(
    b'data: {"id":"chatcmpl-mock","created":1700000000,"model":"mock",'
    b'"object":"chat.completion.chunk","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":32,"total_tokens":41}}\n\n'
)
_END: Final = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_GARBAGE: Final = {
    Fault.TEXT: framed(b"data: <html>502 from some proxy</html>\n\n"),
    Fault.UTF8: framed(b'data: {"choices":[{"delta":{"content":"\xff\xfe\xfd"}}]}\n\n'),
    Fault.FRAMING: b"this is no size of a chunk\r\n",
}


@dataclass
class Times:
    """Seconds that the faults take."""

    slow_first: float = 3.0
    pause: float = 3.0


@dataclass
class Faulty:
    """The mock and what it saw. `stalled` streams wait for the gateway to give them up."""

    times: Times = field(default_factory=Times)
    requests: int = 0
    faults: int = 0
    #: Plan number → the moment at which its client left, until its connection here closes.
    left: dict[int, float] = field(default_factory=dict)
    #: Seconds from a client's leaving to the end of its connection here.
    told: list[float] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)
    peers: set[_Peer] = field(default_factory=set)
    port: int = 0
    _server: asyncio.Server | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def client_left(self, number: int) -> None:
        """A client went away in the middle: from now on its plan's connection is on the clock."""
        if number in self.busy:
            self.left[number] = time.monotonic()

    def hang_up_idle(self) -> None:
        """Close the connections that wait for a request, as any upstream does in the end."""
        for peer in list(self.peers):
            if peer.number is None:
                peer.transport.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.transport.abort()
        await asyncio.sleep(0)


class _Peer(asyncio.Protocol):
    """One connection of the gateway's. It sends the next request after the last answer's end."""

    transport: asyncio.Transport

    def __init__(self, owner: Faulty) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.parts: list[bytes] = []
        self.have = 0
        self.need = 0  # bytes of head and body; 0: the head is not all here
        self.number: int | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.owner.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.peers.discard(self)
        self._over()

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self.have += len(data)
        if self.need == 0:
            whole = b"".join(self.parts)
            self.parts = [whole]
            end = whole.find(b"\r\n\r\n")
            if end < 0:
                return
            head = whole[:end].lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            self.need = end + 4 + int(length.split(b"\r\n")[0] or 0)
        if self.have < self.need:
            return
        whole = b"".join(self.parts)
        self.parts, self.have, self.need = [], 0, 0
        self._answer(whole)

    def _answer(self, whole: bytes) -> None:
        owner = self.owner
        owner.requests += 1
        found = read_order(whole)
        if found is None:
            body = b'{"error":{"message":"no plan","code":"no_plan"}}'
            self._json(418, body)
            return
        if whole.startswith(b"POST /b/"):
            found = Order(found.number, Fault.NONE, 0, found.chunks, found.rate)
        owner.faults += found.fault is not Fault.NONE
        self.number = found.number
        owner.busy.add(found.number)
        stream = b'"stream":true' in whole or b'"stream": true' in whole
        begin = self._begin_stream if stream else self._whole
        if found.fault is Fault.SLOW_FIRST:
            self._later(owner.times.slow_first, begin, found)
        elif found.fault is Fault.RESET_BEFORE:
            self._reset()
        elif found.fault is Fault.GARBAGE_BEFORE:
            self.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
            self.transport.close()
        elif found.fault in (Fault.STATUS_500, Fault.STATUS_429):
            # A limit that is over at once: it is this request's fault, not the others'.
            more = b"retry-after-ms: 0\r\n" if found.fault is Fault.STATUS_429 else b""
            body = b'{"error":{"message":"ordered","code":"ordered"}}'
            self._json(int(found.fault.value), body, more=more)
            self._over()
        else:
            begin(found)

    def _json(self, status: int, body: bytes, *, missing: int = 0, more: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 %d Ordered\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
            % (status, more, len(body) + missing)
            + body
        )

    def _whole(self, plan: Order) -> None:
        body = (
            '{"id":"chatcmpl-mock","object":"chat.completion","created":1700000000,"model":"mock",'
            '"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant",'
            f'"content":"{plan.number}.whole"}}}}],"usage":{{"prompt_tokens":9,'
            '"completion_tokens":32,"total_tokens":41}}'
        ).encode()
        fault = plan.fault
        if fault in (Fault.CUT, Fault.RESET, Fault.STALL):
            self._json(200, body[: len(body) // 2], missing=len(body) - len(body) // 2)
            if fault is Fault.CUT:
                self.transport.close()
            elif fault is Fault.RESET:
                self._reset()
            return
        if fault is Fault.TEXT:
            body = b"<html>from some proxy</html>"
        elif fault is Fault.UTF8:
            body = body.replace(b".whole", b"\xff\xfe.whole")
        self._json(200, body)
        self._over()

    def _begin_stream(self, plan: Order) -> None:
        self.transport.write(_STREAM_HEAD + _FIRST)
        if plan.rate == 0:
            self._at_once(plan)
            return
        self._tick_at(self.loop.time() + 1 / plan.rate, plan, 0)

    def _at_once(self, plan: Order) -> None:
        struck = plan.fault is not Fault.NONE and plan.fault is not Fault.SLOW_FIRST
        last = plan.at if struck else plan.chunks
        self.transport.write(b"".join(_chunk(plan, number) for number in range(last)))
        if not struck:
            self._finish()
        elif plan.fault is Fault.PAUSE:
            rest = b"".join(_chunk(plan, number) for number in range(last, plan.chunks))
            self._later(self.owner.times.pause, self._finish, rest)
        else:
            self._strike(plan)

    def _tick_at(self, due: float, plan: Order, number: int) -> None:
        # By the clock, not from tick to tick: a late one must not slow the stream down.
        self._later(max(0.0, due - self.loop.time()), self._tick, due, plan, number)

    def _tick(self, due: float, plan: Order, number: int) -> None:
        if number == plan.chunks:
            self._finish()
            return
        wait = 1 / plan.rate
        if number == plan.at and plan.fault is not Fault.NONE:
            if plan.fault is not Fault.PAUSE and plan.fault is not Fault.SLOW_FIRST:
                self._strike(plan)
                return
            wait += self.owner.times.pause if plan.fault is Fault.PAUSE else 0
        self.transport.write(_chunk(plan, number))
        self._tick_at(due + wait, plan, number + 1)

    def _strike(self, plan: Order) -> None:
        if plan.fault is Fault.CUT:
            following = _chunk(plan, plan.at)
            self.transport.write(following[: len(following) // 2])
            self.transport.close()
        elif plan.fault is Fault.RESET:
            self._reset()
        elif plan.fault is not Fault.STALL:
            self.transport.write(_GARBAGE[plan.fault])

    def _finish(self, rest: bytes = b"") -> None:
        self.transport.write(rest + _LAST + _USAGE + _END)
        self._over()

    def _reset(self) -> None:
        """Close with RST, not FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _later(self, seconds: float, call: Callable[[Unpack[_Args]], None], *args: *_Args) -> None:
        self.timer = self.loop.call_later(seconds, call, *args)

    def _over(self) -> None:
        """The answer is out, or can no longer be."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.number is not None:
            self.owner.busy.discard(self.number)
            left = self.owner.left.pop(self.number, None)
            if left is not None:
                self.owner.told.append(time.monotonic() - left)
            self.number = None


def _chunk(plan: Order, number: int) -> bytes:
    return framed(event(f'{{"content":"{plan.number}.{number}"}}'))
