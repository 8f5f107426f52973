"""docs/metrics.md from the code: `python -m scripts.metrics_page [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from server.telemetry.metrics import Metrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

#: Questions and the queries that answer them.
QUESTIONS: Final = (
    ("requests per second", "sum by (model) (rate(roundhouse_requests_total[5m]))"),
    ("server errors per second", 'sum(rate(roundhouse_requests_total{status=~"5.."}[5m]))'),
    (
        "p95 time to first token",
        (
            "histogram_quantile(0.95, sum by (le, model) "
            "(rate(roundhouse_time_to_first_token_seconds_bucket[5m])))"
        ),
    ),
    ("tokens per second", "sum by (model, kind) (rate(roundhouse_tokens_total[5m]))"),
    ("dollars per hour", "sum by (model) (rate(roundhouse_cost_usd_total[1h])) * 3600"),
    ("how streams end", "sum by (reason) (rate(roundhouse_stream_end_total[5m]))"),
    ("fallbacks and why", "sum by (model, reason) (rate(roundhouse_fallbacks_total[5m]))"),
    ("targets that are out", 'roundhouse_breaker_state{state=~"open|half_open"} == 1'),
    ("who was refused, and why", "sum by (reason) (rate(roundhouse_shed_total[5m]))"),
    ("queues that grew", "max_over_time(roundhouse_queue_depth[5m]) > 0"),
    ("engines that are not ready", 'roundhouse_engine_state{state!="ready"} == 1'),
    ("requests on the engines", "sum by (roundhouse_engine) (vllm:num_requests_running)"),
    (
        "share of prompts that was cached",
        (
            "sum by (roundhouse_engine) (rate(vllm:prefix_cache_hits_total[5m])) "
            "/ sum by (roundhouse_engine) (rate(vllm:prefix_cache_queries_total[5m]))"
        ),
    ),
)
#: Where the metric's type does not say how to ask for it.
_OWN: Final = {
    "roundhouse_breaker_state": 'max by (target) (roundhouse_breaker_state{state="open"})',
    "roundhouse_build_info": "count by (version) (roundhouse_build_info)",
    "roundhouse_config_last_reload_timestamp_seconds": (
        "time() - roundhouse_config_last_reload_timestamp_seconds"
    ),
    "roundhouse_config_reloads": "sum by (result) (increase(roundhouse_config_reloads_total[1h]))",
    "roundhouse_credential_state": (
        'max by (provider) (roundhouse_credential_state{state="open"})'
    ),
    "roundhouse_engine_memory_bytes": (
        "sum by (engine, device, kind) (roundhouse_engine_memory_bytes)"
    ),
    "roundhouse_engine_state": 'roundhouse_engine_state{state="ready"}',
    "roundhouse_provider_ratelimit_remaining": (
        "min by (provider, kind) "
        "(roundhouse_provider_ratelimit_remaining / roundhouse_provider_ratelimit_limit)"
    ),
    "roundhouse_replicas": 'max by (engine) (roundhouse_replicas{state="well"})',
}
#: Histograms of what is rare: their mean since the server started.
_RARE: Final = (
    "roundhouse_engine_start_seconds",
    "roundhouse_engine_stage_seconds",
    "roundhouse_engine_wait_seconds",
    "roundhouse_engine_residency_seconds",
)

_HEAD = """\
# Metrics

Roundhouse's own metrics are at `/metrics` on the admin listener (`http://127.0.0.1:8001/metrics`),
in Prometheus' text format or OpenMetrics, whichever the scraper asks for. The engines' own metrics
(vLLM's, prefix `vllm:`) are at `/metrics/engines`, each series with the labels `roundhouse_engine`
and `roundhouse_replica`, the number of one of its instances.

Label sets are closed: models, targets, engines and keys are names of the config, everything else is
an enum of the code. A model that is not in the config is counted as `other`, an id reached as
`provider/any-id` as the target `provider/*`. When a reload removes a name, its series go too.

Beside these stand the process's own, as every Prometheus client has them:
`process_resident_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_cpu_seconds_total`,
`process_start_time_seconds`.

This page is made from the code by `make docs`; a test holds the two together.

| metric | type | labels | meaning | a query |
|---|---|---|---|---|
"""

_BETWEEN = """
## Queries to begin with

The [dashboards](monitoring.md) draw these and more. In all tables here `\\|` stands for `|`.

| question | query |
|---|---|
"""

_TAIL = """
More for [routing](routing.md#metrics), and alerts in [monitoring](monitoring.md#alerts).
"""


def example(name: str, kind: str, labels: tuple[str, ...]) -> str:
    """A query to begin with, by the metric's type."""
    if name in _OWN:
        return _OWN[name]
    by = f" by ({', '.join(labels)})" if labels else ""
    if name in _RARE:
        return f"sum{by} ({name}_sum) / sum{by} ({name}_count)"
    if kind == "histogram":
        within = ", ".join(("le", *labels))
        return f"histogram_quantile(0.95, sum by ({within}) (rate({name}_bucket[5m])))"
    if kind == "counter":
        return f"sum{by} (rate({name}_total[5m]))"
    return f"sum{by} ({name})" if labels else name


def queries() -> list[tuple[str, str]]:
    """All queries of the page, by the metric or the question."""
    metrics = Metrics().describe()
    return [(name, example(name, kind, labels)) for name, kind, labels, _ in metrics] + list(
        QUESTIONS
    )


def page() -> str:
    """The whole page."""
    rows = []
    for name, kind, labels, text in Metrics().describe():
        suffix = "_total" if kind == "counter" else ""
        shown = ", ".join(f"`{label}`" for label in labels) or "–"
        query = _cell(example(name, kind, labels))
        rows.append(f"| `{name}{suffix}` | {kind} | {shown} | {text} | {query} |")
    asked = [f"| {question} | {_cell(query)} |" for question, query in QUESTIONS]
    return _HEAD + "\n".join(rows) + "\n" + _BETWEEN + "\n".join(asked) + "\n" + _TAIL


def _cell(query: str) -> str:
    return "`" + query.replace("|", "\\|") + "`"


def main() -> int:
    if "--check" in sys.argv:
        if PAGE.read_text() != page():
            print("docs/metrics.md is not what the code says: run `make docs`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
