"""The client of the data path: requests out, answers in, over pooled connections of our own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from server.errors import ConnectFailed, UpstreamTimeout, UpstreamTruncated
from server.transport import descriptors
from server.transport.answer import Stage
from server.transport.head import Address, address, request_head
from server.transport.names import Names
from server.transport.pool import Pool
from server.transport.seam import AttemptTimeouts, Endpoint, Response
from server.transport.wire import Wire

if TYPE_CHECKING:
    from server.transport.library import LibraryTransport

#: Seconds that the end of a finished answer may take, for its connection to be kept.
LINGER: Final = 1.0
#: Addresses that are remembered; beyond, those without a connection are forgotten.
_POOLS: Final = 256
#: Turns of the loop in which closed connections tell that they are.
_TURNS: Final = 20


class WireResponse(Response):
    """An answer on one of our wires."""

    __slots__ = ("_dropped", "_over", "_turn", "_wire", "headers", "status")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = wire.turn
        self._over = self._dropped = False
        self.status = wire.status
        self.headers = wire.headers

    def expect(self, by: float, patience: float | None = None, cap: float = math.inf) -> None:
        if not self._over and self._wire.stage is Stage.BODY:
            self._wire.expect(by, patience, cap)

    async def read(self) -> bytes:
        if self._over:
            if self._dropped:
                raise UpstreamTruncated(
                    "The upstream's answer was not read to its end.", detail="its reader closed it"
                )
            return b""
        data = await self._wire.read()
        if not data:
            self._end()
        return data

    async def stream(self, consumer: Callable[[bytes], bool]) -> None:
        if self._over:  # the wire may carry another answer by now
            await super().stream(consumer)
        else:
            await self._wire.stream(consumer)

    def complete(self) -> bytes | None:
        wire = self._wire
        if self._over or wire.stage is not Stage.ENDED:
            return None
        data = wire.take()
        self._end()
        return data

    def _end(self) -> None:
        self._over = True
        wire = self._wire
        if wire.stage is Stage.ENDED and wire.turn == self._turn:
            wire.release()

    def finish(self) -> None:
        if not self._over:
            self._over = True
            self._wire.finish(LINGER)

    def close(self) -> None:
        if self._over:
            return
        self._over = True
        if self._wire.stage is Stage.ENDED:
            self._wire.release()
        else:
            self._dropped = True
            self._wire.abort()


class Transport:
    """Pools of connections, one per address. Nothing is ever sent twice."""

    def __init__(self) -> None:
        self._pools: dict[Address, Pool] = {}
        self._names = Names()
        self._closed = False
        self._library: LibraryTransport | None = None

    async def send(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: AttemptTimeouts,
        deadline: float | None = None,
    ) -> Response:
        """Send one request and wait for the answer's head. `deadline`: `time.monotonic()` seconds.

        Raises ConnectFailed (nothing was sent), UpstreamReset, UpstreamTimeout, UpstreamProtocol;
        Overloaded (`out_of_descriptors`) when there are too few of ours for another connection.
        Cancelling closes the connection.
        """
        now = time.monotonic()
        due = now + timeouts.first_byte
        if deadline is not None and deadline < due:
            if deadline <= now:
                raise past_deadline()
            due = deadline
        try:
            if endpoint.proxy is not None:
                return await self._by_library().send(
                    endpoint,
                    method,
                    path,
                    headers=headers,
                    body=body,
                    timeouts=timeouts,
                    due=due,
                )
            place = address(endpoint.base_url, endpoint.uds, endpoint.ca)[0]
            head = request_head(method, endpoint.base_url, endpoint.uds, path, headers, len(body))
            pool = self._pools.get(place)
            if pool is None:  # not `or`: a pool without a connection has learnt something
                pool = self._pool(place)
            wire = pool.take() or await self._connect(pool, min(timeouts.connect, due - now))
            wire.start(head, body, due)
            await wire.head()
            return WireResponse(wire)
        except UpstreamTimeout:
            if due == deadline:
                raise past_deadline() from None
            raise
        except ConnectFailed as error:
            late = due == deadline and time.monotonic() >= due - 0.002  # loops count milliseconds
            if late and error.outcome == "connect_timeout":
                raise past_deadline() from None
            raise

    async def _connect(self, pool: Pool, seconds: float) -> Wire:
        if not descriptors.spare():
            dropped = sum(each.drop_idle() for each in self._pools.values())
            for _ in range(_TURNS if dropped else 0):
                await asyncio.sleep(0)
                if descriptors.spare():
                    break
            else:
                raise descriptors.out_of()
        return await pool.connect(seconds)

    def _by_library(self) -> LibraryTransport:
        if self._closed:
            raise closed()
        if self._library is None:
            # Its import takes a fifth of a second and 10 MB, which most servers never need.
            from server.transport.library import LibraryTransport

            self._library = LibraryTransport()
        return self._library

    def _pool(self, place: Address) -> Pool:
        if self._closed:
            raise closed()
        if len(self._pools) >= _POOLS:
            for known in [known for known, pool in self._pools.items() if not len(pool)]:
                del self._pools[known]
        pool = self._pools[place] = Pool(place, self._names)
        return pool

    async def forget(self, uds: str) -> None:
        """Close the pool of a Unix socket whose engine is gone."""
        for place in [place for place in self._pools if place.uds == uds]:
            self._pools.pop(place).close()

    async def close(self) -> None:
        """Close every connection. What is sent from now on fails."""
        self._closed = True
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            pool.close()
        if self._library is not None:
            await self._library.close()
        for _ in range(_TURNS):
            if not any(map(len, pools)):
                break
            await asyncio.sleep(0)


def closed() -> ConnectFailed:
    """The client was closed before."""
    return ConnectFailed(
        "The upstream could not be reached.", outcome="refused", detail="the client is closed"
    )


def past_deadline() -> UpstreamTimeout:
    """The request's one deadline is over."""
    return UpstreamTimeout(
        "The request's deadline passed before an answer was complete.", outcome="deadline"
    )
