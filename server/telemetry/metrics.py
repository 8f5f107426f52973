"""All of Roundhouse's own metrics, each declared once here, with closed label sets.

Label values come from the config (model, engine, target and key names) or from the enums of the
code, never from a client's bytes: an unknown model is `other`. `forget()` drops the series of
names that a reload removed. Buckets are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector

from server.telemetry.instruments import AnyInstrument, Counter, Gauge, Histogram

OTHER: Final = "other"

_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_CHUNK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_START = (1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 3600)

_STAGE = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_STAY = (1, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class Metrics:
    """The instruments, on a registry of their own (one per app, so tests never share counts)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._models: frozenset[str] = frozenset()
        self._all: list[AnyInstrument] = []

        self.requests = self._add(
            Counter,
            "roundhouse_requests",
            "Requests ended, by final status.",
            ("endpoint", "model", "status"),
        )
        self.duration = self._add(
            Histogram,
            "roundhouse_request_duration_seconds",
            "From the request's head to the end of its answer.",
            ("endpoint", "model"),
            buckets=_REQUEST,
        )
        self.first_token = self._add(
            Histogram,
            "roundhouse_time_to_first_token_seconds",
            "Streams: from the request's head to the first event sent to the client.",
            ("endpoint", "model"),
            buckets=_FIRST,
        )
        self.inter_chunk = self._add(
            Histogram,
            "roundhouse_inter_chunk_seconds",
            "Streams: between two reads from the target.",
            ("model",),
            buckets=_CHUNK,
        )
        self.tokens = self._add(
            Counter,
            "roundhouse_tokens",
            "Tokens as counted by the target; kind is prompt, cached or completion.",
            ("model", "kind"),
        )
        self.cost = self._add(
            Counter,
            "roundhouse_cost_usd",
            "US dollars for the tokens of answers whose price is known.",
            ("model", "target"),
        )
        self.in_flight = self._add(
            Gauge,
            "roundhouse_requests_in_flight",
            "Requests being served now.",
            ("endpoint", "model"),
        )
        self.stream_end = self._add(
            Counter,
            "roundhouse_stream_end",
            "How streams ended: done, client_gone, stall, protocol, too_large, truncated, reset, "
            "aborted, upstream_error, slow_client, shutdown, internal.",
            ("model", "reason"),
        )
        self.attempts = self._add(
            Counter,
            "roundhouse_attempts",
            "Attempts at targets: ok, client_gone, or how they failed.",
            ("model", "target", "outcome"),
        )
        self.fallbacks = self._add(
            Counter,
            "roundhouse_fallbacks",
            "Requests answered by another target than the plan's first, by why the one before "
            "could not.",
            ("model", "reason"),
        )
        self.retries = self._add(
            Counter,
            "roundhouse_retries",
            "Attempts after a request's first: spent on the retry budget, free because nothing had "
            "reached the target before, or refused by the budget.",
            ("result",),
        )
        self.retry_budget = self._add(
            Gauge,
            "roundhouse_retry_budget_used_ratio",
            "How much of the retry budget is used up, 0 to 1.",
            (),
        )
        self.breaker_state = self._add(
            Gauge,
            "roundhouse_breaker_state",
            "1 for the state that the target's breaker is in, 0 for the others: closed, open, "
            "half_open, ramp, resting. Of an external engine's replicas the worst.",
            ("target", "state"),
        )
        self.credential_state = self._add(
            Gauge,
            "roundhouse_credential_state",
            "1 for the state that the breaker of the provider's credential is in, 0 for the "
            "others; as roundhouse_breaker_state.",
            ("provider", "state"),
        )
        self.ratelimit_limit = self._add(
            Gauge,
            "roundhouse_provider_ratelimit_limit",
            "What a provider allows, by the last answer that said so, of each kind: requests, "
            "tokens, input_tokens and so on, with a window where it names one (requests_minute). "
            "key is the number of the provider's key. A provider that limits each model speaks of "
            "the model asked last; after 10 minutes without a word nothing is shown.",
            ("provider", "key", "kind"),
        )
        self.ratelimit_remaining = self._add(
            Gauge,
            "roundhouse_provider_ratelimit_remaining",
            "How much of roundhouse_provider_ratelimit_limit was left, by the same answer.",
            ("provider", "key", "kind"),
        )
        self.ratelimit_reset = self._add(
            Gauge,
            "roundhouse_provider_ratelimit_reset_seconds",
            "Seconds from now until all of it is there again, by the same answer; 0 when that "
            "time is over.",
            ("provider", "key", "kind"),
        )
        self.bridge = self._add(
            Counter,
            "roundhouse_bridge",
            "Requests that met an engine that was loading: bridged by another model, waited, or "
            "refused.",
            ("model", "outcome"),
        )
        self.overhead = self._add(
            Histogram,
            "roundhouse_overhead_seconds",
            "Our own time: from a request's last byte to the first attempt, without the time spent "
            "in queues and on engines that load.",
            ("endpoint",),
            buckets=_LAG,
        )
        self.shed = self._add(
            Counter,
            "roundhouse_shed",
            "Requests refused to protect the server: bodies, connections, engine_queue, "
            "slow_client, slow_body, draining; server_queue, model_queue, target_queue, "
            "provider_queue, queue_timeout; fd: too few file descriptors; by a limit of the key: "
            "key_requests, key_tokens, key_in_flight.",
            ("reason",),
        )
        self.queue_depth = self._add(
            Gauge,
            "roundhouse_queue_depth",
            "Requests that wait for a free place of the server, a model, a target or an account "
            "(provider).",
            ("kind", "name"),
        )
        self.queue_wait = self._add(
            Histogram,
            "roundhouse_queue_wait_seconds",
            "How long requests waited that got a place; 0 without waiting.",
            ("kind",),
            buckets=_REQUEST,
        )
        self.engine_state = self._add(
            Gauge,
            "roundhouse_engine_state",
            "1 for the state that the engine is in, 0 for the others.",
            ("engine", "state"),
        )
        self.engine_starts = self._add(
            Counter,
            "roundhouse_engine_starts",
            "Starts of an engine, by result: ready, failed, cancelled.",
            ("engine", "result"),
        )
        self.engine_restarts = self._add(
            Counter,
            "roundhouse_engine_restarts",
            "Deaths of an engine that nobody asked for, each followed by a restart or by giving "
            "up: exit, killed, hang, timeout, start, sleep, wake.",
            ("engine", "reason"),
        )
        self.engine_start_seconds = self._add(
            Histogram,
            "roundhouse_engine_start_seconds",
            "From starting the process to the first 200 of /health.",
            ("engine",),
            buckets=_START,
        )
        self.engine_waiting = self._add(
            Gauge,
            "roundhouse_engine_waiting_requests",
            "Requests waiting for the engine to be ready.",
            ("engine",),
        )
        self.engine_loads = self._add(
            Counter,
            "roundhouse_engine_loads",
            "Times that an engine became ready: by a start of its process, or by waking up.",
            ("engine", "how"),
        )
        self.engine_swaps = self._add(
            Counter,
            "roundhouse_engine_swaps",
            "Loads of an engine for which others had to go.",
            ("engine",),
        )
        self.engine_evictions = self._add(
            Counter,
            "roundhouse_engine_evictions",
            "Engines unloaded or put to sleep, by why: room (for another), idle, asleep (for too "
            "long), operator, config (changed or removed).",
            ("engine", "why"),
        )
        self.engine_wait = self._add(
            Histogram,
            "roundhouse_engine_wait_seconds",
            "From the first wish for an engine that was not loaded until it was ready.",
            ("engine",),
            buckets=_START,
        )
        self.engine_residency = self._add(
            Histogram,
            "roundhouse_engine_residency_seconds",
            "How long an engine stayed ready.",
            ("engine",),
            buckets=_STAY,
        )
        self.engine_stage_seconds = self._add(
            Histogram,
            "roundhouse_engine_stage_seconds",
            "Of starts that came to be ready: what each stage took, as the engine's log tells them "
            "apart.",
            ("engine", "stage"),
            buckets=_STAGE,
        )
        self.engine_memory = self._add(
            Gauge,
            "roundhouse_engine_memory_bytes",
            "Memory of an engine on a device: planned (set aside for it), used (as last seen).",
            ("engine", "device", "kind"),
        )
        self.device_memory = self._add(
            Gauge,
            "roundhouse_device_memory_bytes",
            "Memory of a device: total (what engines may have), planned (set aside for those that "
            "run), used (by engines, as last seen).",
            ("device", "kind"),
        )
        self.suspects = self._add(
            Counter,
            "roundhouse_suspects",
            "Requests that an engine may have died of: remembered, in flight at a death; "
            "suspected, at two or more; cleared, answered afterwards; guilty, alone in the last of "
            "two or more; refused, sent again while they were.",
            ("engine", "event"),
        )
        self.pulls = self._add(
            Counter,
            "roundhouse_pulls",
            "Pulls of weights, for engines and by the admin API: ok, stopped, or why they failed.",
            ("outcome",),
        )
        self.pull_bytes = self._add(
            Counter, "roundhouse_pull_bytes", "Bytes of weights that came from the hub.", ()
        )
        self.pulls.labels("ok")
        self.pull_bytes.labels()
        self.replicas = self._add(
            Gauge,
            "roundhouse_replicas",
            "Replicas of an external engine: well, and so sent requests, or ill, which those are "
            "too that no check has found well yet.",
            ("engine", "state"),
        )
        self.replica_changes = self._add(
            Counter,
            "roundhouse_replica_changes",
            "Changes of an external engine's replicas: added and removed, by the config or by DNS; "
            "lost and returned, by their health checks.",
            ("engine", "change"),
        )
        self.drain = self._add(
            Gauge,
            "roundhouse_drain_seconds",
            "Seconds since the server was told to stop, until its requests have finished; 0 while "
            "it serves.",
            (),
        )
        self.config_reloads = self._add(
            Counter,
            "roundhouse_config_reloads",
            "Reloads by result: ok, unchanged, rejected.",
            ("result",),
        )
        for result in ("ok", "unchanged", "rejected"):
            self.config_reloads.labels(result)
        self.config_good = self._add(
            Gauge,
            "roundhouse_config_last_reload_successful",
            "1 if the last config that was read was accepted, 0 if it was rejected and the one "
            "before is served.",
            (),
        )
        self.config_loaded = self._add(
            Gauge,
            "roundhouse_config_last_reload_timestamp_seconds",
            "Unix time of the last config that was accepted.",
            (),
        )
        self.loop_lag = self._add(
            Histogram,
            "roundhouse_event_loop_lag_seconds",
            "How late the event loop was for a timer, looked at four times a second: what every "
            "request and chunk may have to wait.",
            (),
            buckets=_LAG,
        )
        self.tasks = self._add(
            Gauge, "roundhouse_tasks", "Tasks of the event loop, at the time of the scrape.", ()
        )
        ProcessCollector(registry=self.registry)
        self.build_info = self._add(
            Gauge, "roundhouse_build_info", "1, labelled with the version.", ("version",)
        )

    def _add(
        self,
        kind: type[Any],
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...] | None = None,
    ) -> Any:
        extra = {} if buckets is None else {"buckets": buckets}
        metric = kind(name, text, labels, **extra)
        self.registry.register(metric)
        self._all.append(metric)
        return metric

    def describe(self) -> list[tuple[str, str, tuple[str, ...], str]]:
        """(name, type, labels, text) of every metric, for docs and completeness tests."""
        return [(metric.name, metric.kind, metric.label_names, metric.text) for metric in self._all]

    def set_models(self, names: Iterable[str]) -> None:
        """The names that may appear as `model`; anything else is counted as `other`."""
        self._models = frozenset(names)

    def model(self, name: str | None) -> str:
        """The label for a model's name."""
        return name if name in self._models else OTHER

    def forget(self, label: str, names: Iterable[str]) -> None:
        """Drop all series whose `label` is one of `names` (removed by a reload)."""
        gone = set(names)
        if not gone:
            return
        for metric in self._all:
            if label not in metric.label_names:
                continue
            at = metric.label_names.index(label)
            for values in [v for v in metric.series if v[at] in gone]:
                metric.remove(*values)
