"""The section `placement`: who waits how long for whom, and how much of a device engines take."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from server.config.parts import Strict
from server.config.units import Duration, Size

#: The host's memory, that of each GPU, or that of one.
DEVICE = r"^(cpu|cuda(:\d{1,3})?)$"


class Placement(Strict):
    """Which engines are loaded when not all of them fit."""

    starvation: Duration = Field(
        60,
        description="So long requests for an engine may be passed over by others; then room is "
        "made for it.",
    )
    drain: Duration = Field(
        30, description="So long requests of an engine that must go may take to end."
    )
    forget: Duration | None = Field(
        None,
        description="An engine asleep for so long is ended. Default: when others need the room.",
    )
    keep_alive_least: Duration = Field(
        0,
        description="A request that wishes its engine to go sooner after it (`keep_alive`) gets so "
        "much. More than 0 where clients share engines: who comes next waits for a whole start.",
    )
    keep_alive_most: Duration = Field(
        86400, description="A request that wishes its engine to stay longer gets so much."
    )
    memory: dict[Annotated[str, Field(pattern=DEVICE)], Size] = Field(
        default_factory=dict,
        description="The most that engines may take of a device: `cpu`, `cuda` (of each GPU) or "
        "`cuda:0`. Default: what is free there when the server starts.",
    )

    def heeded(self, keep_alive: float, idle: float | None) -> float:
        """The seconds that a request's wish comes to at an engine with this `idle`. The bounds hold
        nobody back from what the engine does without a wish, and the least is the stronger one."""
        usual = math.inf if idle is None else idle
        found = min(keep_alive, max(self.keep_alive_most, usual))
        return max(found, min(self.keep_alive_least, usual))
