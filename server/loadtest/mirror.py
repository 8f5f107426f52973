"""The client watches itself: a load client that is slow measures itself and blames the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from server.loadtest.figures import spread

#: Seconds between two looks at the event loop.
EVERY: Final = 0.01
CPU_LIMIT: Final = 0.9
LAG_LIMIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Strain:
    """`cpu_share`: CPU time of this process over time, 1.0 is one core. `lag`: p99 of the seconds
    by which the event loop came late to a timer, None when it was never looked at."""

    cpu_share: float
    lag: float | None

    def warning(self) -> str | None:
        """Was this client the bottleneck?"""
        found = []
        if self.cpu_share > CPU_LIMIT:
            found.append(f"it used {self.cpu_share:.0%} of a core")
        if self.lag is not None and self.lag > LAG_LIMIT:
            found.append(f"its event loop came {self.lag * 1000:.0f} ms late (p99)")
        if not found:
            return None
        return (
            f"This client was a bottleneck: {' and '.join(found)}. Some of the times above are its "
            "own: ask for less, or run it on a machine of its own."
        )

    def as_json(self) -> dict[str, float | None]:
        return {"cpu_share": self.cpu_share, "event_loop_lag_p99_seconds": self.lag}


@dataclass
class Mirror:
    """Use as an asynchronous context manager around what is measured; `strain` then says how it
    went. `cpu` gives the seconds of CPU that this process has used."""

    clock: Callable[[], float]
    cpu: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _lags: list[float] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None
    _began: tuple[float, float] = (0.0, 0.0)
    _ended: tuple[float, float] = (0.0, 0.0)

    async def __aenter__(self) -> Self:
        self._began = self.clock(), self.cpu()
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = self.clock(), self.cpu()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        while True:
            before = self.clock()
            await self.sleep(EVERY)
            self._lags.append(max(0.0, self.clock() - before - EVERY))

    @property
    def strain(self) -> Strain:
        """Of the time inside."""
        took = self._ended[0] - self._began[0]
        share = (self._ended[1] - self._began[1]) / took if took > 0 else 0.0
        lags = spread(self._lags)
        return Strain(share, None if lags is None else lags.p99)
