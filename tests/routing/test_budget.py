"""The retry budget and the pause between attempts, as tables and against a plain model."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.routing.budget import Backoff, BudgetSettings, RetryBudget, Window

DEFAULT = BudgetSettings()


def offered(count: int, settings: BudgetSettings = DEFAULT, at: float = 100.0) -> RetryBudget:
    budget = RetryBudget(settings)
    for _ in range(count):
        budget.offer(at)
    return budget


def spend_all(budget: RetryBudget, now: float) -> int:
    spent = 0
    while budget.may_retry(now):
        budget.spend(now)
        spent += 1
    return spent


@pytest.mark.parametrize(
    ("requests", "settings", "extra"),
    [
        (0, DEFAULT, 10),
        (1, DEFAULT, 10),
        (50, DEFAULT, 10),
        (54, DEFAULT, 10),
        (55, DEFAULT, 11),
        (1000, DEFAULT, 200),
        (0, BudgetSettings(floor=0), 0),
        (4, BudgetSettings(floor=0), 0),
        (5, BudgetSettings(floor=0), 1),
        (1000, BudgetSettings(ratio=0), 10),
        (1000, BudgetSettings(ratio=0, floor=0), 0),
        (10, BudgetSettings(ratio=2, floor=0), 20),
        (100, BudgetSettings(ratio=0.29, floor=0), 29),
    ],
)
def test_so_many_extra_attempts(requests: int, settings: BudgetSettings, extra: int) -> None:
    budget = offered(requests, settings)
    assert spend_all(budget, 100.0) == extra
    assert budget.fill(100.0) == 1.0


def test_what_reached_nobody_is_free() -> None:
    budget = RetryBudget(BudgetSettings(floor=1))
    for _ in range(100):
        assert budget.may_retry(5.0, sent=False)
        budget.spend(5.0, sent=False)
    assert budget.fill(5.0) == 0
    assert spend_all(budget, 5.0) == 1
    assert budget.may_retry(5.0, sent=False)


def test_the_gauge_goes_from_nothing_to_all() -> None:
    budget = offered(100)
    seen = [budget.fill(100.0)]
    while budget.may_retry(100.0):
        budget.spend(100.0)
        seen.append(budget.fill(100.0))
    assert seen == [pytest.approx(count / 20) for count in range(21)]
    budget.spend(100.0)  # by somebody who did not ask
    assert budget.fill(100.0) == 1


def test_it_fills_again_when_the_window_has_passed() -> None:
    budget = offered(100)
    assert spend_all(budget, 100.0) == 20
    assert not budget.may_retry(109.4)
    assert spend_all(budget, 110.0) == 10
    assert budget.fill(10_000_000.0) == 0


@pytest.mark.parametrize("rate", [10, 100, 1000])
@pytest.mark.parametrize("latency", [0.0, 0.3, 20.0])
def test_a_storm_of_500s_stays_within_a_fifth(rate: int, latency: float) -> None:
    """Every attempt fails after `latency`, and every request would try three times."""
    seconds, budget, attempts = 60, RetryBudget(), 0
    starts = [(index / rate, index, 0) for index in range(rate * seconds)]
    count = len(starts)
    while starts:
        now, index, extra = heapq.heappop(starts)
        if extra == 0:
            budget.offer(now)
        elif budget.may_retry(now):
            budget.spend(now)
        else:
            continue
        attempts += 1
        if extra < 2:
            heapq.heappush(starts, (now + latency, index, extra + 1))
    assert attempts > 1.1 * count
    windows = 1 if rate >= 50 else (seconds + 2 * latency) / DEFAULT.window + 1
    assert attempts <= 1.2 * count + DEFAULT.floor * windows


# --- the window --------------------------------------------------------------------------------


def test_a_window_forgets_bucket_by_bucket() -> None:
    window = Window(10.0, buckets=5)
    for second in range(10):
        window.add(second)
    assert window.total(9.9) == 10
    assert [window.total(10 + second) for second in range(11)] == [8, 8, 6, 6, 4, 4, 2, 2, 0, 0, 0]


def test_a_window_survives_a_long_silence_and_a_clock_that_lags() -> None:
    window = Window(10.0)
    window.add(1e9)
    window.add(1e9 - 50)
    assert window.total(1e9 - 500) == 2
    assert window.total(2e9) == 0
    window.add(2e9)
    assert window.total(2e9) == 1
    window.clear()
    assert window.total(2e9) == 0


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.5, 20), st.integers(1, 30))
def test_a_window_is_right_to_one_bucket(steps: list[float], span: float, buckets: int) -> None:
    window, times, now = Window(span, buckets), [], 50.0
    for step in steps:
        now += step
        window.add(now)
        times.append(now)
        total = window.total(now)
        hair = 1e-9
        assert total <= sum(time > now - span - hair for time in times)
        assert total >= sum(time > now - span + span / buckets + hair for time in times)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Window(0),
        lambda: Window(1, buckets=0),
        lambda: BudgetSettings(ratio=-0.1),
        lambda: BudgetSettings(ratio=math.nan),
        lambda: BudgetSettings(floor=-1),
        lambda: replace(DEFAULT, window=0),
        lambda: Backoff(first=-1),
        lambda: Backoff(first=2, cap=1),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"window|budget|pause"):
        make()


# --- the pause ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "draw", "left", "pause"),
    [
        (1, 0.0, 100, 0.0),
        (1, 0.5, 100, 0.025),
        (2, 0.5, 100, 0.05),
        (3, 0.5, 100, 0.1),
        (6, 0.5, 100, 0.5),
        (10**9, 0.5, 100, 0.5),
        (6, 0.5, 0.2, 0.2),
        (6, 0.5, 0.0, 0.0),
        (6, 0.5, -3.0, 0.0),
    ],
)
def test_pause(extra: int, draw: float, left: float, pause: float) -> None:
    found = Backoff().pause(extra, draw, now=7.0, deadline=7.0 + left)
    assert found == pytest.approx(pause)


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(-10, 10))
def test_a_pause_is_short_and_before_the_deadline(extra: int, draw: float, left: float) -> None:
    pause = Backoff().pause(extra, draw, now=0.0, deadline=left)
    assert 0 <= pause <= 1.0
    assert pause <= max(0.0, left)


# --- any order of events -----------------------------------------------------------------------


class Budgets(RuleBasedStateMachine):
    """A budget beside lists of all that ever happened, counted by the same buckets."""

    SETTINGS = BudgetSettings(ratio=0.2, floor=2, window=10.0)
    WIDTH = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.budget = RetryBudget(self.SETTINGS)
        self.offers: list[float] = []
        self.spends: list[float] = []

    def recent(self, times: list[float]) -> int:
        oldest = math.floor(self.now / self.WIDTH) - 20
        return sum(math.floor(time / self.WIDTH) > oldest for time in times)

    def allowed(self) -> int:
        return max(self.SETTINGS.floor, self.recent(self.offers) // 5)

    @rule(step=st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.7, 9.9, 10.0, 35.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(count=st.sampled_from([1, 3, 40]))
    def requests_come(self, count: int) -> None:
        for _ in range(count):
            self.budget.offer(self.now)
        self.offers += [self.now] * count

    @rule(count=st.integers(1, 12))
    def attempts_fail(self, count: int) -> None:
        for _ in range(count):
            expected = self.recent(self.spends) < self.allowed()
            assert self.budget.may_retry(self.now) is expected
            if expected:
                self.budget.spend(self.now)
                self.spends.append(self.now)

    @rule()
    def attempts_fail_unsent(self) -> None:
        assert self.budget.may_retry(self.now, sent=False)
        self.budget.spend(self.now, sent=False)

    @precondition(lambda self: self.spends)
    @rule()
    def silence_gives_all_of_it_back(self) -> None:
        self.now += self.SETTINGS.window
        assert self.budget.fill(self.now) == 0

    @invariant()
    def the_gauge_is_the_share_spent(self) -> None:
        fill = self.budget.fill(self.now)
        assert fill == pytest.approx(min(1, self.recent(self.spends) / self.allowed()))

    @invariant()
    def no_window_holds_more_than_its_share(self) -> None:
        """By true time, where the oldest bucket may have been forgotten early."""
        start = self.now - self.SETTINGS.window
        spent = sum(time > start + self.WIDTH for time in self.spends)
        known = sum(time > start - self.SETTINGS.window for time in self.offers)
        assert spent <= max(self.SETTINGS.floor, self.SETTINGS.ratio * known)

    @invariant()
    def all_in_all_it_is_a_fifth_and_the_floors(self) -> None:
        buckets = math.floor(self.now / self.WIDTH) - math.floor(1000.0 / self.WIDTH) + 1
        windows = math.ceil(buckets / 20)
        most = self.SETTINGS.ratio * len(self.offers) + self.SETTINGS.floor * windows
        assert len(self.spends) <= most + 1e-9


TestBudgets = pytest.mark.no_cover(Budgets.TestCase)
