"""The section `routing`: how often, and for how long, a place that fails is tried again."""

from __future__ import annotations

from pydantic import Field, model_validator

from server.config.parts import Strict
from server.config.units import Duration


class Breakers(Strict):
    """When a target that fails is left alone, and for how long. Each target has its own count."""

    failures: int = Field(5, ge=1, description="So many failures in a row open it.")
    rate: float = Field(
        0.5, gt=0, le=1, description="Or this share of the attempts in `window` that failed."
    )
    volume: int = Field(
        20, ge=1, description="Attempts in `window` from which on that share is looked at."
    )
    window: Duration = Field(30, ge=0.1, description="How far back the share looks.")
    open_first: Duration = Field(
        5, ge=0.1, description="How long it stays open at first; each time twice as long."
    )
    open_cap: Duration = Field(60, ge=0.1, description="How long at most.")

    @model_validator(mode="after")
    def _in_order(self) -> Breakers:
        if self.open_first > self.open_cap:
            raise ValueError("`open_first` is longer than `open_cap`")
        return self


class Routing(Strict):
    """What a request may cost before its error is the answer."""

    attempts: int = Field(
        3,
        ge=1,
        le=3,
        description="Attempts that one request has at most, at whatever targets; the same one "
        "again only when no other is left.",
    )
    retry_budget: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Attempts after the first, of all requests together, as a share of the "
        "requests; so that a storm of errors is not made worse.",
    )
    retry_floor: int = Field(
        10, ge=0, description="So many of those are always allowed, in the budget's window."
    )
    panic: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With more than this share of a request's targets out, breakers are ignored.",
    )
    breaker: Breakers = Field(Breakers(), description="When a target that fails is left alone.")
