"""What each stage of a start takes. The clock is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Before there is a process.
CHECKING: Final = "checking"


class Stages:
    """From `checking`, or whatever comes first, through the stages that an engine's log tells."""

    def __init__(self, clock: Callable[[], float], name: str = CHECKING) -> None:
        self._clock = clock
        self.name = name
        self._begun = self._since = clock()
        self._took: dict[str, float] = {}

    def enter(self, text: str) -> None:
        """`text` may say how far it is, as in `loading weights (50%)`; that is no new stage."""
        name = text.partition(" (")[0]
        if name != self.name:
            self._close()
            self.name = name

    def end(self) -> dict[str, float]:
        """Seconds of each, in their order. The last one ends now."""
        self._close()
        return dict(self._took)

    def _close(self) -> None:
        now = self._clock()
        self._took[self.name] = self._took.get(self.name, 0.0) + now - self._since
        self._since = now

    @property
    def passed(self) -> float:
        """Seconds in the present stage so far."""
        return self._clock() - self._since

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._begun
