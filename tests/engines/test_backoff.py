from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.backoff import Again, GiveUp, History, Policy, after_death

POLICY = Policy(jitter=0.0)


def die(
    history: History, now: float, ready_for: float | None = 1.0, policy: Policy = POLICY
) -> Again | GiveUp:
    return after_death(history, now=now, ready_for=ready_for, dice=0.5, policy=policy)


@pytest.mark.parametrize(
    ("times", "ready_for", "delays"),
    [
        ((0, 10, 20, 30, 40), 1.0, (1, 2, 4, 8, "died 5 times within 10 minutes")),
        # seldom: never five in ten minutes, so it goes on, at most every minute
        (tuple(range(0, 2400, 300)), 1.0, (1, 2, 4, 8, 16, 32, 60, 60)),
        # long ready in between: from the first delay again
        ((0, 400, 800), 90.0, (1, 1, 1)),
        # never ready, and slower than the window
        ((0, 900, 1800, 2700, 3600), None, (1, 2, 4, 8, "in each of 5 starts")),
    ],
)
def test_sequences(
    times: tuple[float, ...], ready_for: float | None, delays: tuple[float | str, ...]
) -> None:
    history = History()
    for now, expected in zip(times, delays, strict=True):
        decision = die(history, now, ready_for)
        if isinstance(expected, str):
            assert isinstance(decision, GiveUp)
            assert expected in decision.why
        else:
            assert isinstance(decision, Again)
            assert decision.delay == expected
            history = decision.history


@pytest.mark.parametrize(("dice", "delay"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_jitter(dice: float, delay: float) -> None:
    decision = after_death(History(), now=0, ready_for=None, dice=dice, policy=Policy())
    assert isinstance(decision, Again)
    assert decision.delay == pytest.approx(delay)


@settings(deadline=None)
@given(
    gaps=st.lists(st.floats(0, 2000), min_size=1, max_size=60),
    dice=st.floats(0, 1, exclude_max=True),
    ready=st.one_of(st.none(), st.floats(0, 2000)),
)
def test_delays_are_bounded_and_five_in_ten_minutes_end_it(
    gaps: list[float], dice: float, ready: float | None
) -> None:
    policy, history, now = Policy(), History(), 0.0
    deaths: list[float] = []
    for gap in gaps:
        now += gap
        deaths.append(now)
        decision = after_death(history, now=now, ready_for=ready, dice=dice, policy=policy)
        many = sum(now - at < policy.window for at in deaths) >= policy.limit
        if isinstance(decision, GiveUp):
            assert many or ready is None
            return
        assert not many
        assert 0 < decision.delay <= policy.cap
        assert len(decision.history.deaths) < policy.limit
        history = decision.history


def test_two_starts_that_were_not_ready_in_time_are_enough() -> None:
    """Each may take a quarter of an hour, or more."""
    policy = Policy(jitter=0)

    def die(history: History, now: float, *, timed_out: bool) -> Again | GiveUp:
        return after_death(
            history, now=now, ready_for=None, dice=0.5, policy=policy, timed_out=timed_out
        )

    first = die(History(), 900, timed_out=True)
    assert isinstance(first, Again)
    other = die(first.history, 910, timed_out=False)
    assert isinstance(other, Again)
    third = die(other.history, 1820, timed_out=True)
    assert isinstance(third, Again)
    fourth = die(third.history, 2740, timed_out=True)
    assert isinstance(fourth, GiveUp)
    assert fourth.why == "it was not ready in time in 2 starts in a row"
