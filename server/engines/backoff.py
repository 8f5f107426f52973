"""When to start an engine again after it died, and when to give up. Pure: no clock, no dice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds. The wait doubles from `first` to `cap`, give or take `jitter` of it.

    An engine is given up after `limit` deaths within `window`, or after `limit` starts in a row
    that never got ready (a slow loader dies too seldom to be caught by the window), or after `slow`
    starts in a row that had all the time they were given: one that hung once may not hang again,
    one that hangs twice will. An engine that was ready for `stable` starts again from `first`.
    """

    first: float = 1.0
    cap: float = 60.0
    jitter: float = 0.2
    limit: int = 5
    slow: int = 2
    window: float = 600.0
    stable: float = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """Deaths so far: their times, deaths since it was last stable, starts never ready in a row, and
    how many of these, at the end, were not ready in time."""

    deaths: tuple[float, ...] = ()
    streak: int = 0
    never_ready: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Again:
    """Start again after `delay` seconds."""

    delay: float
    history: History = field(default=History())


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start again until an operator says so. `why` is a clause for people."""

    why: str


def after_death(
    history: History,
    *,
    now: float,
    ready_for: float | None,
    dice: float,
    policy: Policy,
    timed_out: bool = False,
) -> Again | GiveUp:
    """The decision after a death at `now`.

    `ready_for`: how long the engine had been ready, None if it never was. `timed_out`: it was
    killed because it was not ready in time. `dice` is in [0, 1).
    """
    recent = tuple(at for at in history.deaths if now - at < policy.window)
    stable = ready_for is not None and ready_for >= policy.stable
    grown = replace(
        history,
        deaths=(*recent, now),
        streak=1 if stable else history.streak + 1,
        never_ready=history.never_ready + 1 if ready_for is None else 0,
        slow=history.slow + 1 if timed_out else 0,
    )
    if len(grown.deaths) >= policy.limit:
        minutes = policy.window / 60
        return GiveUp(f"it died {len(grown.deaths)} times within {minutes:g} minutes")
    if grown.never_ready >= policy.limit:
        return GiveUp(f"it died in each of {grown.never_ready} starts in a row")
    if grown.slow >= policy.slow:
        return GiveUp(f"it was not ready in time in {grown.slow} starts in a row")
    # The exponent is bounded, so that a long life of crashes cannot overflow a float.
    delay = min(policy.cap, policy.first * 2.0 ** min(grown.streak - 1, 32))
    delay *= 1 + policy.jitter * (2 * dice - 1)
    return Again(min(delay, policy.cap), grown)
