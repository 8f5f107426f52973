"""One line on a terminal that says how far a step is. In a pipe there is nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from server.loadtest.drive import Tally
from server.loadtest.plan import Ends

#: Seconds between two drawings; each costs the event loop that measures about a millisecond.
EVERY: Final = 0.5


@dataclass
class Shown:
    """What the line speaks of: `label` names the step, `tally` is None before it begins."""

    label: str
    ends: Ends
    tally: Tally | None = None

    def follow(self, tally: Tally) -> None:
        """The step has begun."""
        self.tally = tally

    def text(self, now: float) -> str:
        """`8 at a time: 120 done, 8 in flight, 3.97 req/s, 254 tok/s, 0 failed, about 12 s left`"""
        tally = self.tally
        if tally is None:
            return f"{self.label}: warming up"
        took = max(now - tally.start, 1e-9)
        done = len(tally.samples)
        text = (
            f"{self.label}: {done} done, {tally.in_flight} in flight, "
            f"{(done - tally.failed) / took:.3g} req/s, {tally.tokens / took:.0f} tok/s, "
            f"{tally.failed} failed"
        )
        left = self._left(took, done)
        return text if left is None else f"{text}, about {left:.0f} s left"

    def _left(self, took: float, done: int) -> float | None:
        """Seconds until the first of the ends, as far as one can know."""
        found = []
        if self.ends.seconds is not None:
            found.append(max(0.0, self.ends.seconds - took))
        if self.ends.requests is not None and done:
            found.append(max(0.0, (self.ends.requests - done) * took / done))
        return min(found, default=None)


@contextlib.asynccontextmanager
async def line(
    shown: Shown,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[None]:
    """Draws `shown` on the standard error while inside, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        return Text(shown.text(clock()), no_wrap=True, overflow="ellipsis")

    # A thread that draws would take the interpreter from the loop at any time.
    with Live(text(), console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        async def draw() -> None:
            while True:
                await sleep(EVERY)
                live.update(text(), refresh=True)

        task = asyncio.create_task(draw())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
