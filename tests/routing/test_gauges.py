"""The gauges of routing, as a scrape would find them."""

from __future__ import annotations

import pytest

from server.routing import gauges
from server.routing.breaker import State
from server.routing.standing import Standing, Standings
from server.telemetry.metrics import Metrics


@pytest.fixture
def standings() -> Standings:
    return Standings(lambda: 0.0)


def shown(standings: Standings, now: float = 0.0, metrics: Metrics | None = None) -> dict[str, str]:
    """Each target's and each provider's state; every one of them in exactly one."""
    metrics = metrics or Metrics()
    gauges.collect(standings, metrics, 0.25, now)
    found: dict[str, str] = {}
    for gauge in (metrics.breaker_state, metrics.credential_state):
        states: dict[str, list[str]] = {}
        for (name, state), value in gauge.series.items():
            assert value.value in (0, 1)
            states.setdefault(name, []).extend([state] * int(value.value))
        for name in {labels[0] for labels in gauge.series}:
            (found[name],) = states[name]
            assert {s for n, s in gauge.series if n == name} == set(State)
    return found


def attempt(standing: Standing, outcome: str, retry_after: float | None = None) -> None:
    standing.ended(0, standing.began(0), outcome, retry_after)


def test_states_by_time(standings: Standings) -> None:
    one = standings.of("lab/a", ("lab", "key"))
    for _ in range(5):
        attempt(one, "reset")
    standings.of("lab/b", ("lab", "key"))
    assert shown(standings) == {"lab/a": "open", "lab/b": "closed", "lab": "closed"}
    assert shown(standings, 5.0)["lab/a"] == "half_open"
    one.ended(5, one.began(5), "ok")
    assert shown(standings, 6.0)["lab/a"] == "ramp"
    assert shown(standings, 20.0)["lab/a"] == "closed"


def test_a_targets_own_state_and_not_its_credentials(standings: Standings) -> None:
    attempt(standings.of("lab/a", ("lab", "key")), "http_auth")
    assert shown(standings) == {"lab/a": "closed", "lab": "open"}


def test_the_worst_of_an_engines_replicas(standings: Standings) -> None:
    for number in range(3):
        standings.of(f"engine/e@10.0.0.{number}:8000", label="engine/e")
    attempt(standings.of("engine/e@10.0.0.1:8000", label="engine/e"), "http_429", 9)
    assert shown(standings) == {"engine/e": "resting"}
    for _ in range(5):
        attempt(standings.of("engine/e@10.0.0.2:8000", label="engine/e"), "reset")
    assert shown(standings) == {"engine/e": "open"}


def test_the_worst_of_a_providers_credentials(standings: Standings) -> None:
    attempt(standings.of("lab/a", ("lab", "old")), "http_auth")
    standings.of("lab/b", ("lab", "new"))
    assert shown(standings)["lab"] == "open"


def test_what_is_gone_is_not_shown(standings: Standings) -> None:
    metrics = Metrics()
    standings.of("lab/a", ("lab", "key"))
    standings.of("engine/e@10.0.0.1:8000", label="engine/e")
    assert set(shown(standings, metrics=metrics)) == {"lab/a", "lab", "engine/e"}
    standings.retain({"engine/e@10.0.0.1:8000"})
    assert set(shown(standings, metrics=metrics)) == {"engine/e"}
    standings.forget(["engine/e@10.0.0.1:8000"])
    assert shown(standings, metrics=metrics) == {}


def test_the_retry_budget(standings: Standings) -> None:
    metrics = Metrics()
    gauges.collect(standings, metrics, 0.25, 0)
    assert metrics.registry.get_sample_value("roundhouse_retry_budget_used_ratio") == 0.25
