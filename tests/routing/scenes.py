"""A breaker on a stage: what its tests share."""

from __future__ import annotations

from collections.abc import Callable

from server.routing.breaker import Breaker, BreakerSettings, State

DEFAULT = BreakerSettings(jitter=0.0)
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
RAMP, RESTING = State.RAMP, State.RESTING


class Scene:
    """A breaker, and a clock that only this test turns."""

    def __init__(
        self,
        settings: BreakerSettings = DEFAULT,
        jitter: Callable[[], float] = lambda: 0.0,
        *,
        credential: bool = False,
    ) -> None:
        self.breaker = Breaker(jitter, settings, credential=credential)
        self.now = 1000.0

    @property
    def state(self) -> State:
        return self.breaker.state(self.now)

    @property
    def said(self) -> str:
        return self.breaker.explain(self.now)

    def allow(self, draw: float = 0.999, *, panic: bool = False) -> bool:
        return self.breaker.allow(self.now, draw, panic=panic)

    def begin(self, count: int = 1) -> list[int]:
        return [self.breaker.began(self.now) for _ in range(count)]

    def end(self, ticket: int, outcome: str, retry_after: float | None = None) -> bool:
        return self.breaker.ended(self.now, ticket, outcome, retry_after)

    def attempt(self, outcome: str, retry_after: float | None = None) -> bool:
        return self.end(self.begin()[0], outcome, retry_after)

    def attempts(self, *outcomes: str) -> list[bool]:
        return [self.attempt(outcome) for outcome in outcomes]

    def tripped(self) -> Scene:
        assert self.attempts(*["reset"] * 5) == [False] * 4 + [True]
        assert self.state is OPEN
        return self

    def half_open(self) -> Scene:
        self.tripped().now += self.breaker.wait(self.now)
        assert self.state is HALF_OPEN
        return self

    def ramping(self) -> Scene:
        self.half_open().attempt("ok")
        assert self.state is RAMP
        return self
