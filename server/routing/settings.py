"""The settings of routing as the loop takes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.config.schema import Config
from server.routing.breaker import BreakerSettings
from server.routing.budget import Backoff, BudgetSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """See `config.routing`; seconds. `queue`: how long a request waits for a free place. `backoff`:
    the pause before the same target is tried again."""

    attempts: int = 3
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    panic: float = 0.5
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    queue: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(0.25, 2.0))

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Those of a checked config."""
        said, breaker = config.routing, config.routing.breaker
        return cls(
            attempts=said.attempts,
            budget=BudgetSettings(ratio=said.retry_budget, floor=said.retry_floor),
            panic=said.panic,
            breaker=BreakerSettings(
                failures=breaker.failures,
                rate=breaker.rate,
                volume=breaker.volume,
                window=breaker.window,
                open_first=breaker.open_first,
                open_cap=breaker.open_cap,
            ),
            queue=config.server.timeouts.queue,
        )
