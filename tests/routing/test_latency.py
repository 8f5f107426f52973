"""The decaying average, by hand and by properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routing.latency import FORGOTTEN, MOMENT, Latency


def test_nothing_is_known_at_first() -> None:
    latency = Latency()
    assert latency.value(5.0) is None
    assert latency.age(5.0) is None


def test_a_half_life_halves_what_a_measurement_counts() -> None:
    latency = Latency(half_life=10)
    latency.observe(100.0, 4.0)
    latency.observe(110.0, 1.0)
    assert latency.value(110.0) == pytest.approx((0.5 * 4 + 1) / 1.5)
    assert latency.age(117.0) == 7.0


def test_what_was_measured_in_one_moment_is_averaged() -> None:
    """A burst is not decided by its last measurement."""
    latency = Latency(half_life=10)
    for seconds in (1.0, 2.0, 9.0):
        latency.observe(50.0, seconds)
    assert latency.value(50.0) == pytest.approx(4.0)


def test_waiting_changes_no_value_until_it_is_forgotten() -> None:
    latency = Latency(half_life=10)
    latency.observe(0.0, 3.0)
    assert latency.value(10 * FORGOTTEN) == 3.0
    assert latency.value(10 * FORGOTTEN + 0.1) is None
    assert latency.age(1000.0) == 1000.0
    latency.observe(1000.0, 7.0)
    assert latency.value(1000.0) == 7.0


def test_a_moment_before_the_last_one() -> None:
    latency = Latency(half_life=10)
    latency.observe(20.0, 2.0)
    latency.observe(19.0, 4.0)
    assert latency.value(20.0) == pytest.approx(3.0)
    assert latency.age(19.0) == 0.0
    assert latency.age(21.0) == 1.0


def test_a_negative_duration_is_none() -> None:
    latency = Latency()
    latency.observe(0.0, -1.0)
    assert latency.value(0.0) == 0.0


@pytest.mark.parametrize("half_life", [0, -1])
def test_a_half_life_must_be_positive(half_life: float) -> None:
    with pytest.raises(ValueError, match="half-life"):
        Latency(half_life)


@given(
    st.lists(st.tuples(st.floats(0, 500), st.floats(0, 100)), min_size=1),
    st.floats(0.01, 1000),
)
def test_it_is_the_weighted_mean(steps: list[tuple[float, float]], half_life: float) -> None:
    """As the definition says, over all measurements since the last time all was forgotten; those
    within MOMENT of one another are of the first one's time."""
    latency, now, moment = Latency(half_life), 0.0, -1.0
    seen: list[tuple[float, float]] = []
    for step, seconds in steps:
        now += step
        if now >= moment + MOMENT:
            if seen and now - moment > FORGOTTEN * half_life:
                seen.clear()
            moment = now
        seen.append((moment, seconds))
        latency.observe(now, seconds)
    weights = [0.5 ** ((now - at) / half_life) for at, _ in seen]
    mean = sum(w * x for w, (_, x) in zip(weights, seen, strict=True)) / sum(weights)
    value = latency.value(now)
    assert value == pytest.approx(mean, rel=1e-6, abs=1e-9)
