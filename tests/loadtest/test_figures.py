from __future__ import annotations

import pytest

from server.loadtest.figures import Spread, nearest_rank, spread


@pytest.mark.parametrize(
    ("count", "p50", "p90", "p99", "p99_is_maximum"),
    [
        (1, 1, 1, 1, True),
        (2, 1, 2, 2, True),
        (10, 5, 9, 10, True),
        (99, 50, 90, 99, True),
        (100, 50, 90, 99, False),
        (101, 51, 91, 100, False),
        (1000, 500, 900, 990, False),
    ],
)
def test_nearest_rank(count: int, p50: int, p90: int, p99: int, p99_is_maximum: bool) -> None:
    values = [float(n) for n in range(count, 0, -1)]
    found = spread(values)
    assert found is not None
    assert (found.at(50), found.at(90), found.at(99)) == (p50, p90, p99)
    assert found.is_maximum(99) is p99_is_maximum
    assert (found.count, found.low, found.high) == (count, 1, count)
    assert found.mean == (count + 1) / 2


def test_it_is_always_a_value_that_was_measured() -> None:
    assert nearest_rank([1.0, 100.0], 50) == 1.0
    with pytest.raises(ValueError, match="no values"):
        nearest_rank([], 50)


def test_what_was_not_measured_does_not_count() -> None:
    assert spread([]) is None
    assert spread([None, None]) is None
    assert spread([None, 2.0]) == Spread(1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)


def test_json_says_when_p99_is_the_maximum() -> None:
    found = spread([1.0, 2.0, 4.0])
    assert found is not None
    assert found.as_json() == {
        "count": 3,
        "p50": 2.0,
        "p90": 4.0,
        "p99": 4.0,
        "p99_is_maximum": True,
        "mean": 7 / 3,
        "min": 1.0,
        "max": 4.0,
    }
