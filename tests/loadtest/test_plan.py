from __future__ import annotations

import itertools
from random import Random

import pytest

from server.loadtest import arrivals, plan
from server.loadtest.plan import Load


@pytest.mark.parametrize(
    ("text", "found"), [("8", (8,)), ("1,8, 64", (1, 8, 64)), ("20000", (20000,))]
)
def test_concurrencies(text: str, found: tuple[int, ...]) -> None:
    assert plan.concurrencies(text) == found


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "1,,2", "20001", "²"])
def test_what_is_no_concurrency(text: str) -> None:
    with pytest.raises(ValueError, match="write 8, or 1,8,64 for a sweep"):
        plan.concurrencies(text)


@pytest.mark.parametrize(("text", "found"), [("4", (4.0,)), ("0.5,1, 2e1", (0.5, 1.0, 20.0))])
def test_rates(text: str, found: tuple[float, ...]) -> None:
    assert plan.rates(text) == found


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "fast", "1,", "1e9"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="write requests a second"):
        plan.rates(text)


@pytest.mark.parametrize(
    ("users", "rate", "labels"),
    [
        ((1, 8), (), ["1 at a time", "8 at a time"]),
        ((), (0.5, 2), ["0.5/s", "2/s"]),
        ((4,), (2,), ["2/s, at most 4 at a time"]),
    ],
)
def test_steps(users: tuple[int, ...], rate: tuple[float, ...], labels: list[str]) -> None:
    assert [step.label for step in plan.steps(users, rate)] == labels


def test_two_sweeps_at_a_time_are_none() -> None:
    assert plan.steps((4,), (1, 2)) == (Load(1, 4), Load(2, 4))
    with pytest.raises(ValueError, match="give one number, or leave --rate away"):
        plan.steps((1, 8), (1,))


def test_arrivals_are_poisson_and_repeatable() -> None:
    first = list(itertools.islice(arrivals.poisson(4, Random(7)), 20_000))
    assert first == list(itertools.islice(arrivals.poisson(4, Random(7)), 20_000))
    assert first[:5] != list(itertools.islice(arrivals.poisson(4, Random(8)), 5))
    gaps = [after - before for before, after in itertools.pairwise([0.0, *first])]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert min(gaps) > 0
    assert mean == pytest.approx(1 / 4, rel=0.05)
    assert variance == pytest.approx(1 / 16, rel=0.1)  # of an exponential: the mean squared
    with pytest.raises(ValueError, match="above 0"):
        next(arrivals.poisson(0, Random(1)))
