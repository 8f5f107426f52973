"""The event loop's own health: how late it is for its timers."""

from __future__ import annotations

import asyncio
import time

from server.telemetry.instruments import Histogram

#: Seconds between two looks.
EVERY = 0.25


async def watch(lag: Histogram) -> None:
    """Observe the loop's lateness until cancelled."""
    observe = lag.labels().observe
    while True:
        due = time.monotonic() + EVERY
        await asyncio.sleep(EVERY)
        # uvloop counts milliseconds and may be up to one early.
        observe(max(0.0, time.monotonic() - due))
