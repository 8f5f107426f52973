"""docs/metrics.md from the code: `python -m scripts.metrics_page [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from server.telemetry.metrics import Metrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

_HEAD = """\
# Metrics

Roundhouse's own metrics are at `/metrics` on the admin listener (`http://127.0.0.1:8001/metrics`),
in Prometheus' text format or OpenMetrics, whichever the scraper asks for. The engines' own metrics
(vLLM's, prefix `vllm:`) are at `/metrics/engines`, each series with the label `roundhouse_engine`.

Label sets are closed: models, targets, engines and keys are names of the config, everything else is
an enum of the code. A model that is not in the config is counted as `other`, an id reached as
`provider/any-id` as the target `provider/*`. When a reload removes a name, its series go too.

Beside these stand the process's own, as every Prometheus client has them:
`process_resident_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_cpu_seconds_total`,
`process_start_time_seconds`.

This page is made from the code by `make docs`; a test holds the two together.

| metric | type | labels | meaning |
|---|---|---|---|
"""

_TAIL = """
## Queries to begin with

| question | query |
|---|---|
| requests per second | `sum by (model) (rate(roundhouse_requests_total[5m]))` |
| server errors per second | `sum(rate(roundhouse_requests_total{status=~"5.."}[5m]))` |
| p95 time to first token | `histogram_quantile(0.95, \
sum by (le, model) (rate(roundhouse_time_to_first_token_seconds_bucket[5m])))` |
| tokens per second | `sum by (model, kind) (rate(roundhouse_tokens_total[5m]))` |
| dollars per hour | `sum by (model) (rate(roundhouse_cost_usd_total[1h])) * 3600` |
| how streams end | `sum by (reason) (rate(roundhouse_stream_end_total[5m]))` |
| fallbacks and why | `sum by (model, reason) (rate(roundhouse_fallbacks_total[5m]))` |
| targets that are out | `roundhouse_breaker_state{state=~"open\\|half_open"} == 1` |
| who was refused, and why | `sum by (reason) (rate(roundhouse_shed_total[5m]))` |
| requests that wait for a place | `roundhouse_queue_depth > 0` |
| engines that are not ready | `roundhouse_engine_state{state!="ready"} == 1` |
| requests on the engines | `sum by (roundhouse_engine) (vllm:num_requests_running)` |

More for [routing](routing.md#metrics). In these tables `\\|` stands for `|`.
"""


def page() -> str:
    """The whole page."""
    rows = []
    for name, kind, labels, text in Metrics().describe():
        suffix = "_total" if kind == "counter" else ""
        shown = ", ".join(f"`{label}`" for label in labels) or "–"
        rows.append(f"| `{name}{suffix}` | {kind} | {shown} | {text} |")
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


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
