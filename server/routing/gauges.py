"""The gauges of routing, brought up to now before each scrape: breakers change with time alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from server.routing.breaker import State
from server.routing.standing import Standings
from server.telemetry.instruments import Gauge
from server.telemetry.metrics import Metrics

#: From well to out. An engine's replicas share one label, and the worst of them counts.
_WORSE: Final = (State.CLOSED, State.RAMP, State.RESTING, State.HALF_OPEN, State.OPEN)


def collect(standings: Standings, metrics: Metrics, fill: float, now: float) -> None:
    """`fill`: how much of the retry budget is used up."""
    metrics.retry_budget.labels().set(fill)
    targets = ((one.label, one.breaker.state(now)) for one in standings)
    _show(metrics.breaker_state, targets)
    accounts = ((provider, one.state(now)) for provider, one in standings.credentials())
    _show(metrics.credential_state, accounts)


def _show(gauge: Gauge, states: Iterable[tuple[str, State]]) -> None:
    worst: dict[str, State] = {}
    for name, state in states:
        worst[name] = max(worst.get(name, state), state, key=_WORSE.index)
    for name in {labels[0] for labels in gauge.series} - worst.keys():
        for state in State:
            gauge.remove(name, state)
    for name, found in worst.items():
        for state in State:
            gauge.labels(name, state).set(state is found)
