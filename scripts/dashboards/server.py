"""Rows about the server itself: its queues, and its process."""

from __future__ import annotations

from typing import Final

from scripts.dashboards.grafana import (
    Panel,
    Query,
    Row,
    per_second,
    quantile,
    quantiles,
    times,
)

HERE: Final = 'instance=~"$instance"'
MODEL: Final = f'{HERE}, model=~"$model"'

QUEUES: Final = Row(
    "Queues and limits",
    (
        Panel(
            "Waiting for a place",
            "Requests in the queues of the server, models, targets and accounts. One that grows "
            "needs more places, or another target.",
            (
                Query(
                    f"sum by (kind, name) (roundhouse_queue_depth{{{HERE}}})", "{{kind}} {{name}}"
                ),
            ),
        ),
        Panel(
            "Wait for a place, p95",
            "Of requests that got one; 0 without waiting.",
            (quantile("p95", "roundhouse_queue_wait_seconds", HERE, "kind"),),
            unit="s",
        ),
        Panel(
            "Shed",
            "Requests refused to protect the server, by why.",
            (per_second("roundhouse_shed_total", f'{HERE}, reason!~"key_.*"', "reason"),),
            unit="reqps", stack=True,
        ),
        Panel(
            "Over a key's limit",
            "Requests refused with 429 because their key had its share.",
            (per_second("roundhouse_shed_total", f'{HERE}, reason=~"key_.*"', "reason"),),
            unit="reqps", stack=True,
        ),
        Panel(
            "In flight",
            "Requests that are being served, by model.",
            (
                Query(
                    f"sum by (model) (roundhouse_requests_in_flight{{{MODEL}}})", "{{model}}"
                ),
            ),
            stack=True,
        ),
        Panel(
            "Met an engine that was loading",
            "Bridged: another model answered meanwhile.",
            (per_second("roundhouse_bridge_total", MODEL, "model", "outcome"),),
            unit="ops", stack=True,
        ),
    ),
)  # fmt: skip

_PROCESS = f"and on (instance, job) roundhouse_build_info{{{HERE}}}"
SERVER: Final = Row(
    "The server itself",
    (
        Panel(
            "Our own time",
            "From a request's last byte to its first attempt, without queues and loading.",
            quantiles("roundhouse_overhead_seconds", HERE),
            unit="s",
        ),
        Panel(
            "Lag of the event loop",
            "What every request and chunk may have to wait. Above 100 ms one process has too much "
            "to do: add a replica.",
            quantiles("roundhouse_event_loop_lag_seconds", HERE),
            unit="s",
        ),
        Panel(
            "Processor",
            "Cores in use. A server uses one at most, and a little.",
            (
                Query(
                    f"rate(process_cpu_seconds_total[$__rate_interval]) {_PROCESS}",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Memory",
            "Resident memory of each server.",
            (Query(f"process_resident_memory_bytes {_PROCESS}", "{{instance}}"),),
            unit="bytes",
        ),
        Panel(
            "File descriptors used",
            "Share of the limit. Near it requests are shed.",
            (Query(f"process_open_fds / process_max_fds {_PROCESS}", "{{instance}}"),),
            unit="percentunit", maximum=1,
        ),
        Panel(
            "Tasks",
            "Tasks of the event loop: a few for each open request. They must fall when it is calm.",
            (Query(f"roundhouse_tasks{{{HERE}}}", "{{instance}}"),),
        ),
        Panel(
            "Reloads of the config",
            "`rejected`: the file has an error, and the config before is still served.",
            (times("roundhouse_config_reloads_total", HERE, "result"),),
            bars=True,
        ),
        Panel(
            "Config accepted",
            "0: a server refused the last config that it read, and serves the one before.",
            (
                Query(f"roundhouse_config_last_reload_successful{{{HERE}}}", "{{instance}}"),
            ),
            maximum=1,
        ),
        Panel(
            "Age of the config",
            "Time since each server took its config. Servers of one release should agree.",
            (
                Query(
                    f"time() - roundhouse_config_last_reload_timestamp_seconds{{{HERE}}}",
                    "{{instance}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Draining",
            "Seconds that a server which is stopping has waited for its requests.",
            (Query(f"roundhouse_drain_seconds{{{HERE}}}", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            "Versions",
            "Servers by version. Two at a time is a roll-out.",
            (Query(f"count by (version) (roundhouse_build_info{{{HERE}}})", "{{version}}"),),
            stack=True,
        ),
    ),
)  # fmt: skip
