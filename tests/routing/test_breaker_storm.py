"""Breakers, retry budget and panic together, used as the attempt loop will, in storms of 500s."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from server.routing.breaker import Breaker, State, in_panic
from server.routing.budget import RetryBudget

RATE = 100
SECONDS = 60
OFFERED = RATE * SECONDS


@dataclass(eq=False)
class Request:
    tried: list[str] = field(default_factory=list)
    ticket: int | None = None


class Storm:
    """A minute of requests along one plan. `broken` targets answer 500 until they are well."""

    def __init__(
        self,
        targets: str,
        broken: str,
        *,
        well: float = SECONDS * 2.0,
        latency: float = 0.2,
        panics: bool = True,
    ) -> None:
        self.dice = random.Random(7).random
        self.broken, self.well, self.panics = broken, well, panics
        self.breakers = {label: Breaker(self.dice) for label in targets}
        self.budget = RetryBudget()
        self.attempts: Counter[str] = Counter()
        #: ok, error (the last target's own), refused (no target was tried).
        self.ends: Counter[str] = Counter()
        self.most_probes = 0
        order = itertools.count()
        events = [(index / RATE, next(order), Request()) for index in range(OFFERED)]
        while events:
            now, _, request = heapq.heappop(events)
            end = self.turn(now, request)
            if end is None:
                heapq.heappush(events, (now + latency, next(order), request))
            else:
                self.ends[end] += 1
        assert self.ends.total() == OFFERED
        assert not any(breaker.under_way for breaker in self.breakers.values())

    def turn(self, now: float, request: Request) -> str | None:
        """Ends the request's attempt and begins its next. How the request ended, if it did."""
        if request.ticket is None:
            self.budget.offer(now)
        else:
            label = request.tried[-1]
            outcome = "http_5xx" if label in self.broken and now < self.well else "ok"
            self.breakers[label].ended(now, request.ticket, outcome)
            if outcome == "ok":
                return "ok"
        chosen = self.choose(now, request)
        if chosen is None:
            return "error" if request.tried else "refused"
        if request.tried:
            if not self.budget.may_retry(now):
                return "error"
            self.budget.spend(now)
        request.tried.append(chosen)
        self.attempts[chosen] += 1
        breaker = self.breakers[chosen]
        request.ticket = breaker.began(now)
        if not self.panics and breaker.state(now) is State.HALF_OPEN:
            self.most_probes = max(self.most_probes, breaker.under_way)
        return None

    def choose(self, now: float, request: Request) -> str | None:
        states = [breaker.state(now) for breaker in self.breakers.values()]
        panic, draw = self.panics and in_panic(states), self.dice()
        for label, breaker in self.breakers.items():
            if label not in request.tried and breaker.allow(now, draw, panic=panic):
                return label
        return None


@pytest.mark.parametrize("latency", [0.0, 0.2, 2.0])
def test_one_of_two_fails_and_nobody_notices(latency: float) -> None:
    storm = Storm("ab", "a", latency=latency)
    # Those under way when it tripped go to the other, as far as the budget goes.
    assert storm.ends["ok"] >= OFFERED - latency * RATE
    assert storm.attempts["a"] <= 5 + latency * RATE + 10
    assert storm.attempts["b"] >= storm.ends["ok"]


@pytest.mark.parametrize("targets", ["a", "ab", "abc"])
def test_all_fail_and_the_load_on_them_stays_within_a_fifth_more(targets: str) -> None:
    storm = Storm(targets, targets)
    assert storm.attempts.total() <= 1.2 * OFFERED + 10
    # In a panic nobody is refused: the error is a target's own.
    assert storm.ends == {"error": OFFERED}


def test_without_panic_those_that_all_fail_see_only_probes() -> None:
    storm = Storm("ab", "ab", panics=False)
    assert storm.attempts.total() < 100
    assert storm.most_probes == 1
    assert storm.ends["refused"] > 0.99 * OFFERED


def test_the_preferred_target_has_all_of_its_requests_back_soon_after_it_is_well() -> None:
    storm = Storm("ab", "a", well=20.0)
    assert storm.ends["ok"] >= OFFERED - 20
    # At worst a probe failed just before, and 20 s were to pass until the next, and 15 s of ramp.
    assert storm.attempts["a"] > (SECONDS - 20 - 20 - 15) * RATE
    assert storm.breakers["a"].explain(SECONDS + 1.0) == "closed"
