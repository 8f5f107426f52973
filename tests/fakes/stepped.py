"""An event loop that a test moves by hand: one round of callbacks at a time, and time by words."""

from __future__ import annotations

import asyncio


class SteppedLoop(asyncio.SelectorEventLoop):
    """Time stands still but for `now`, and nothing runs but in `step`."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def step(self, rounds: int = 1) -> None:
        """So many rounds of what is ready. A round runs no callback that it adds itself."""
        for _ in range(rounds):
            self.call_soon(self.stop)
            self.run_forever()
