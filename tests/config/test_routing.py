"""The section `routing`, and the limits of keys and of the server."""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest

from server.config.cards import ABILITIES
from server.config.load import Loaded
from server.config.model import Model, ModelAbilities
from server.config.parts import NEVER_DROPPED
from server.config.routing import Breakers, Routing
from server.routing import abilities
from server.routing.breaker import BreakerSettings
from server.routing.budget import BudgetSettings
from server.routing.policies import Policy

Good = Callable[..., Loaded]
Faults = Callable[..., list[str]]


def test_the_defaults_are_those_of_the_parts_that_they_set() -> None:
    breaker, budget = BreakerSettings(), BudgetSettings()
    for name in Breakers.model_fields:
        assert getattr(Breakers(), name) == getattr(breaker, name), name
    routing = Routing()
    assert (routing.retry_budget, routing.retry_floor) == (budget.ratio, budget.floor)


def test_what_the_schema_lets_through_the_breaker_takes() -> None:
    least = Breakers(failures=1, rate=0.01, volume=1, window=0.1, open_first=0.1, open_cap=0.1)
    assert BreakerSettings(**least.model_dump()).failures == 1


def test_the_policies_are_those_that_there_are() -> None:
    words = typing.get_args(Model.model_fields["balance"].annotation)
    assert words == tuple(Policy)


def test_what_cannot_be_dropped_is_what_routing_keeps() -> None:
    assert NEVER_DROPPED == abilities.KEPT


def test_every_ability_that_routing_looks_for_can_be_told() -> None:
    assert set(abilities.PARAMETERS) <= set(ModelAbilities.model_fields)
    assert set(ABILITIES) == set(ModelAbilities.model_fields)


def test_a_section_that_says_something(good: Good) -> None:
    text = """\
version: 1
server:
  keys: [{name: a, key: x, rpm: 60, tpm: "${T}", max_in_flight: 2}, {name: b, key: y}]
  limits: {in_flight: 100, waiting: 0}
  timeouts: {queue: 2m, drain: 0, waiting: 0, unready: 0}
routing: {attempts: 1, retry_budget: 0, breaker: {failures: 2, open_cap: 5m}}
"""
    config = good(text, {"T": "9000"}).config
    first, second = config.server.keys
    assert (first.rpm, first.tpm, first.max_in_flight) == (60, 9000, 2)
    assert (second.rpm, second.tpm, second.max_in_flight) == (None, None, None)
    assert (config.server.limits.in_flight, config.server.limits.waiting) == (100, 0)
    assert config.server.timeouts.queue == 120
    assert (config.routing.attempts, config.routing.retry_budget) == (1, 0)
    assert (config.routing.breaker.failures, config.routing.breaker.open_cap) == (2, 300)
    assert good("version: 1\nrouting:\n").config.routing == Routing()


CASES = {
    "routing: {attempts: 0}": "routing.attempts: should be greater than or equal to 1.",
    "routing: {attempts: 4}": "routing.attempts: should be less than or equal to 3.",
    "routing: {retry_budget: 2}": "routing.retry_budget: should be less than or equal to 1.",
    "routing: {retry_floor: -1}": "routing.retry_floor: should be greater than or equal to 0.",
    "routing: {panic: 1.5}": "routing.panic: should be less than or equal to 1.",
    "routing: {breaker: {failures: 0}}": "routing.breaker.failures: should be greater than",
    "routing: {breaker: {rate: 0}}": "routing.breaker.rate: should be greater than 0.",
    "routing: {breaker: {volume: 0}}": "routing.breaker.volume: should be greater than or equal",
    "routing: {breaker: {window: 0}}": "routing.breaker.window: should be greater than or equal",
    "routing: {breaker: {open_first: 0}}": "routing.breaker.open_first: should be greater than",
    "routing: {breaker: {open_first: 2m}}": "`open_first` is longer than `open_cap`.",
    "routing: {failures: 3}": "`failures` stands under `routing.breaker`.",
    "server: {attempts: 3}": "`attempts` stands under `routing`.",
    "num_retries: 3": "num_retries: is not a known key. Write `attempts` under `routing`.",
    "server: {keys: [{name: a, key: x, rpm: 0}]}": "server.keys[0].rpm: should be greater than",
    "server: {keys: [{name: a, key: x, tpm: 0}]}": "server.keys[0].tpm: should be greater than",
    "server: {keys: [{name: a, key: x, max_in_flight: 0}]}": "max_in_flight: should be greater",
    "server: {keys: [{name: a, key: x, rpm_limit: 1}]}": "is not a known key. Write `rpm`.",
    "server: {timeouts: {total: 0}}": "server.timeouts.total: should be greater than 0.",
    "server: {timeouts: {first_byte: 0s}}": "server.timeouts.first_byte: should be greater than",
    "providers: {p: {dialect: openai, base_url: 'http://x.org/v1', timeouts: {connect: 0}}}": (
        "providers.p.timeouts.connect: should be greater than 0."
    ),
    "server: {limits: {in_flight: 0}}": "server.limits.in_flight: should be greater than or equal",
    "server: {limits: {waiting: -1}}": "server.limits.waiting: should be greater than or equal",
}


@pytest.mark.parametrize("text", CASES)
def test_what_is_refused(text: str, faults: Faults) -> None:
    found = faults(f"version: 1\n{text}")
    assert len(found) == 1, found
    assert CASES[text] in found[0]
