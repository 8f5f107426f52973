"""benchmarks.stats against values that are known."""

from __future__ import annotations

import math

import pytest

from benchmarks.stats import mean_interval, median, quantile, ratio_interval, t95

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 201)], 0.99, 198.0),
        ([5.0], 0.99, 5.0),
        ([5.0], 0.0, 5.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_of_nothing_there_is_no_number() -> None:
    assert math.isnan(quantile([], 0.5))
    assert math.isnan(median([]))
    assert math.isnan(median([NAN]))
    assert mean_interval([]).count == 0
    assert math.isnan(ratio_interval([], []).middle)


def test_median_leaves_out_what_is_no_number() -> None:
    assert median([NAN, 1.0, 3.0]) == 2.0


def test_mean_interval_is_students() -> None:
    # R: t.test(c(5.1, 4.9, 5.6, 5.0, 5.4))$conf.int
    found = mean_interval([5.1, 4.9, 5.6, 5.0, 5.4])
    assert found.middle == pytest.approx(5.2)
    assert found.low == pytest.approx(4.838, abs=2e-3)
    assert found.high == pytest.approx(5.562, abs=2e-3)
    assert found.around(5.0)
    assert not found.around(4.0)


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0]])
def test_too_few_values_have_no_interval(values: list[float]) -> None:
    found = mean_interval(values)
    assert (found.low, found.high) == (None, None)
    assert not found.around(found.middle)


def test_ratio_is_as_far_from_one_either_way() -> None:
    there = ratio_interval([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    back = ratio_interval([1.0, 1.0, 1.0], [2.0, 4.0, 8.0])
    assert there.middle == pytest.approx(4.0)
    assert back.middle == pytest.approx(0.25)
    assert there.low is not None
    assert back.high is not None
    assert there.low == pytest.approx(1 / back.high)
    # Logarithms log 2, 2 log 2, 3 log 2: half = 4.303 log 2 / sqrt 3.
    assert there.low == pytest.approx(4.0 / 2 ** (4.303 / math.sqrt(3)))


def test_ratio_leaves_out_pairs_without_one() -> None:
    found = ratio_interval([2.0, NAN, 0.0, 2.0, -1.0], [1.0, 1.0, 1.0, 0.0, 1.0])
    assert (found.middle, found.count) == (2.0, 1)


def test_t_beyond_the_table_is_careful() -> None:
    assert t95(1) == 12.706
    assert t95(4) == 2.776
    assert t95(500) == t95(30) > 1.96
