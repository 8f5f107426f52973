"""Connections to the gateway: one request at a time, each read to its end or left as planned."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from benchmarks.soak.answers import Answer, End
from benchmarks.soak.plans import Leave, request

#: Seconds from sending half a body to leaving.
_IN_BODY: Final = 0.05


class Connection(asyncio.Protocol):
    """One keep-alive connection. `lost` says why it is of no more use."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.lost: str | None = None
        self._answer: Answer | None = None
        self._end: asyncio.Future[tuple[End, str]] | None = None
        self._leave_at = -1

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(cls, host, port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = str(exc or "closed by the server")
        self._over(End.LOST, self.lost)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return  # after leaving
        try:
            answer.feed(data)
        except ValueError as error:
            self._over(End.LOST, f"no HTTP: {error}")
            self.close()
            return
        if answer.complete:
            self._over(End.COMPLETE)
        elif 0 <= self._leave_at <= answer.chunks:
            self._go()

    def _over(self, end: End, detail: str = "") -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result((end, detail))

    def _go(self) -> None:
        """Leave now: as a killed process (RST) or a cancelled request (FIN), in turns."""
        answer, self._answer = self._answer, None
        if answer is not None and answer.plan.number % 2:
            self.transport.abort()
        else:
            self.transport.close()
        self._over(End.LEFT)

    async def ask(self, answer: Answer, host: str, before_first: float) -> tuple[End, str]:
        """Send the request of the answer's plan and read the answer; how it ended, and what the
        transport said. `before_first`: seconds after which one leaves who leaves before the first
        byte."""
        plan = answer.plan
        self._answer = answer
        self._leave_at = plan.at if plan.leave is Leave.IN_STREAM else -1
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        if self.lost is not None:
            return End.LOST, self.lost
        data = request(plan, host)
        timers = [loop.call_later(plan.longest, self._over, End.LATE)]
        if plan.leave is Leave.IN_BODY:
            data = data[: len(data) - 20]
            timers.append(loop.call_later(_IN_BODY, self._go))
        elif plan.leave is Leave.BEFORE_FIRST:
            timers.append(loop.call_later(before_first, self._go))
        self.transport.write(data)
        try:
            return await self._end
        finally:
            for timer in timers:
                timer.cancel()
            self._answer = None

    @property
    def usable(self) -> bool:
        return self.lost is None and not self.transport.is_closing()

    def close(self) -> None:
        self.transport.close()
