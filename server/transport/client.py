"""The client of the data path: requests out, answers in, over pooled connections of our own."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from server.errors import UpstreamTimeout
from server.transport.head import Address, address, request_head
from server.transport.pool import Pool
from server.transport.seam import AttemptTimeouts, Endpoint, Response
from server.transport.wire import Stage, Wire

if TYPE_CHECKING:
    from server.transport.library import LibraryTransport

#: Seconds that the end of a finished answer may take, for its connection to be kept.
LINGER: Final = 1.0
#: Addresses that are remembered; beyond, those without a connection are forgotten.
_POOLS: Final = 256


class WireResponse(Response):
    """An answer on one of our wires."""

    __slots__ = ("_over", "_turn", "_wire", "headers", "status")

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = wire.turn
        self._over = False
        self.status = wire.status
        self.headers = wire.headers

    def expect(self, by: float, patience: float | None = None, cap: float = math.inf) -> None:
        if not self._over:
            self._wire.expect(by, patience, cap)

    async def read(self) -> bytes:
        if self._over:
            return b""
        data = await self._wire.read()
        if not data:
            self._end()
        return data

    async def stream(self, consumer: Callable[[bytes], bool]) -> None:
        await self._wire.stream(consumer)

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
            self._wire.abort()


class Transport:
    """Pools of connections, one per address. Nothing is ever sent twice."""

    def __init__(self) -> None:
        self._pools: dict[Address, Pool] = {}
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

        Raises ConnectFailed (nothing was sent), UpstreamReset, UpstreamTimeout, UpstreamProtocol.
        Cancelling closes the connection.
        """
        due = time.monotonic() + timeouts.first_byte
        if deadline is not None and deadline < due:
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
            return await self._by_wire(endpoint, method, path, headers, body, timeouts, due)
        except UpstreamTimeout:
            if due == deadline:
                raise past_deadline() from None
            raise

    async def _by_wire(
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: AttemptTimeouts,
        due: float,
    ) -> Response:
        place = address(endpoint.base_url, endpoint.uds)[0]
        head = request_head(method, endpoint.base_url, endpoint.uds, path, headers, len(body))
        pool = self._pools.get(place) or self._pool(place)
        wire = pool.take() or await pool.connect(
            max(0.0, min(timeouts.connect, due - time.monotonic()))
        )
        wire.start(head, body, due)
        await wire.head()
        return WireResponse(wire)

    def _by_library(self) -> LibraryTransport:
        if self._library is None:
            # Its import takes a fifth of a second and 10 MB, which most servers never need.
            from server.transport.library import LibraryTransport

            self._library = LibraryTransport()
        return self._library

    def _pool(self, place: Address) -> Pool:
        if len(self._pools) >= _POOLS:
            for known in [known for known, pool in self._pools.items() if not len(pool)]:
                del self._pools[known]
        pool = self._pools[place] = Pool(place)
        return pool

    async def forget(self, uds: str) -> None:
        """Close the pool of a Unix socket whose engine is gone."""
        for place in [place for place in self._pools if place.uds == uds]:
            self._pools.pop(place).close()

    async def close(self) -> None:
        """Close every connection."""
        pools = list(self._pools.values())
        self._pools.clear()
        for pool in pools:
            pool.close()
        if self._library is not None:
            await self._library.close()
        await asyncio.sleep(0)  # asyncio tells the wires in its next turn


def past_deadline() -> UpstreamTimeout:
    """The request's one deadline is over."""
    return UpstreamTimeout(
        "The request's deadline passed before an answer was complete.", outcome="deadline"
    )
