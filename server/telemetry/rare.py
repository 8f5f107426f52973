"""Rare events are counted from 0 on: in a series that begins with its first event Prometheus sees
no rise, and the first of them is often the one that matters."""

from __future__ import annotations

from typing import Final

from server.telemetry.metrics import Metrics

#: Of an engine that the server runs, by the counter's attribute, with the values of its last label.
_MANAGED: Final = {
    "engine_starts": ("ready", "failed", "cancelled"),
    "engine_restarts": ("exit", "killed", "hang", "timeout", "start", "sleep", "wake"),
    "engine_loads": ("start", "wake"),
    "engine_evictions": ("room", "idle", "asleep", "operator", "config"),
}
_CHANGES: Final = ("added", "removed", "lost", "returned")


def managed_engine(metrics: Metrics, name: str) -> None:
    """An engine that the server runs is there from now on."""
    for counter, values in _MANAGED.items():
        for value in values:
            getattr(metrics, counter).labels(name, value)
    metrics.engine_swaps.labels(name)


def external_engine(metrics: Metrics, name: str) -> None:
    """An engine of replicas that others run is there from now on."""
    for change in _CHANGES:
        metrics.replica_changes.labels(name, change)
