"""What the engines do: their states, vLLM's own measures, their coming and going, their memory."""

from __future__ import annotations

from typing import Any, Final

from scripts.dashboards.grafana import (
    Panel,
    Query,
    Row,
    Variable,
    dashboard,
    per_second,
    quantile,
    quantiles,
    times,
)

HERE: Final = 'instance=~"$instance"'
ENGINE: Final = f'{HERE}, engine=~"$engine"'
#: vLLM's own label `engine` is the rank of a data-parallel replica, so that ours has another name.
#: Its series come through a server or from engines' pods, which are no servers' instances.
VLLM: Final = 'roundhouse_engine=~"$engine"'
BY: Final = "roundhouse_engine"
STATE: Final = {
    0: ("stopped", "text"),
    1: ("asleep", "semi-dark-blue"),
    2: ("ready", "green"),
    3: ("draining", "light-yellow"),
    4: ("starting", "yellow"),
    5: ("waiting", "orange"),
    6: ("backoff", "red"),
    7: ("failed", "dark-red"),
}


def _states() -> Query:
    series = " or ".join(
        f'roundhouse_engine_state{{{ENGINE}, state="{state}"}} * {value}'
        for value, (state, _) in STATE.items()
    )
    return Query(f"max by (instance, engine) ({series})", "{{engine}} {{instance}}")


def _gauge(metric: str, how: str = "sum") -> Query:
    return Query(f"{how} by ({BY}) ({metric}{{{VLLM}}})", f"{{{{{BY}}}}}")


def _vllm(metric: str, word: str = "p95") -> Query:
    return quantile(word, metric, VLLM, BY)


def _mean(metric: str, selector: str, *by: str) -> Query:
    """Of all since the servers started. A series begins with its first event, in which
    `increase` sees no rise, and starts are rare."""
    within = ", ".join(by)
    return Query(
        f"sum by ({within}) ({metric}_sum{{{selector}}})"
        f" / sum by ({within}) ({metric}_count{{{selector}}})",
        " ".join(f"{{{{{label}}}}}" for label in by),
    )


_HITS: Final = per_second("vllm:prefix_cache_hits_total", VLLM, BY)
_ASKED: Final = per_second("vllm:prefix_cache_queries_total", VLLM, BY)

_STATE = Row(
    "State",
    (
        Panel(
            "Engines",
            "The state of each engine that a server runs. Only one that is ready is sent requests; "
            "a failed one waits for an operator.",
            (_states(),),
            kind="state-timeline", states=STATE, width=16,
        ),
        Panel(
            "Replicas of external engines",
            "Well: asked. Ill: lost, or not yet found well. All servers look at the same ones: of "
            "what they found the most.",
            (
                Query(
                    f"max by (engine, state) (roundhouse_replicas{{{ENGINE}}})",
                    "{{engine}} {{state}}",
                ),
            ),
        ),
    ),
)  # fmt: skip

_WORK = Row(
    "vLLM: work",
    (
        Panel(
            "Running",
            "Requests in each engine's batches.",
            (_gauge("vllm:num_requests_running"),),
            stack=True,
        ),
        Panel(
            "Waiting in the engine",
            "Requests that vLLM has taken and not begun. `max_in_flight` of the engine keeps them "
            "in Roundhouse's queue, where they are fair between keys.",
            (_gauge("vllm:num_requests_waiting"),),
            stack=True,
        ),
        Panel(
            "KV cache used",
            "Near 100 % requests wait, or are thrown out and begun again.",
            (_gauge("vllm:kv_cache_usage_perc", "max"),),
            unit="percentunit", maximum=1,
        ),
        Panel(
            "Prefix hits",
            "Share of prompt tokens that were in the cache. `balance: affinity` raises it.",
            (
                Query(
                    f"{_HITS.expr} / ({_ASKED.expr} > 0)",
                    _HITS.legend,
                ),
            ),
            unit="percentunit", maximum=1,
        ),
        Panel(
            "Preempted",
            "Requests thrown out of the KV cache and begun again: it is too small for so many.",
            (per_second("vllm:num_preemptions_total", VLLM, BY),),
            unit="ops",
        ),
        Panel(
            "Ends",
            "Requests that ended, by why.",
            (per_second("vllm:request_success_total", VLLM, BY, "finished_reason"),),
            unit="ops", stack=True,
        ),
        Panel(
            "Prompt tokens",
            "A second, cached ones too.",
            (per_second("vllm:prompt_tokens_total", VLLM, BY),),
            unit="suffix: tokens/s", stack=True,
        ),
        Panel(
            "Generated tokens",
            "A second: what an engine is for.",
            (per_second("vllm:generation_tokens_total", VLLM, BY),),
            unit="suffix: tokens/s", stack=True,
        ),
    ),
)  # fmt: skip

_TIME = Row(
    "vLLM: time",
    (
        Panel(
            "Time to first token",
            "In the engine alone: its queue and the prompt.",
            (_vllm("vllm:time_to_first_token_seconds", "p50"),
             _vllm("vllm:time_to_first_token_seconds")),
            unit="s",
        ),
        Panel(
            "Between tokens",
            "What readers of a stream feel.",
            (_vllm("vllm:inter_token_latency_seconds", "p50"),
             _vllm("vllm:inter_token_latency_seconds")),
            unit="s",
        ),
        Panel(
            "In vLLM's queue, p95",
            "95 of 100 requests waited less before their prompt was begun.",
            (_vllm("vllm:request_queue_time_seconds"),),
            unit="s",
        ),
        Panel(
            "Whole requests, p95",
            "From vLLM's taking a request to its last token.",
            (_vllm("vllm:e2e_request_latency_seconds"),),
            unit="s",
        ),
    ),
)  # fmt: skip

_TURNS = Row(
    "Coming and going",
    (
        Panel(
            "Waiting for an engine to be ready",
            "Requests that wait while it starts or wakes.",
            (
                Query(
                    f"sum by (engine) (roundhouse_engine_waiting_requests{{{ENGINE}}})",
                    "{{engine}}",
                ),
            ),
        ),
        Panel(
            "Wait for an engine",
            "From the first wish for one that was not loaded until it was ready.",
            quantiles("roundhouse_engine_wait_seconds", ENGINE),
            unit="s",
        ),
        Panel(
            "A start's stages",
            "Seconds that each stage took on average, since the server started.",
            (_mean("roundhouse_engine_stage_seconds", ENGINE, "engine", "stage"),),
            kind="bargauge", unit="s",
        ),
        Panel(
            "A start",
            "Seconds from starting the process to the first 200 of /health, on average since the "
            "server started.",
            (_mean("roundhouse_engine_start_seconds", ENGINE, "engine"),),
            kind="bargauge", unit="s",
        ),
        Panel(
            "Starts",
            "Starts that ended, by how.",
            (times("roundhouse_engine_starts_total", ENGINE, "engine", "result"),),
            bars=True, stack=True,
        ),
        Panel(
            "Loads",
            "Times that an engine came to be ready: by a start, or by waking up.",
            (times("roundhouse_engine_loads_total", ENGINE, "engine", "how"),),
            bars=True, stack=True,
        ),
        Panel(
            "Swaps",
            "Loads for which others had to go. Many: the models do not fit together.",
            (times("roundhouse_engine_swaps_total", ENGINE, "engine"),),
            bars=True, stack=True,
        ),
        Panel(
            "Evictions",
            "Engines unloaded or put to sleep, by why.",
            (times("roundhouse_engine_evictions_total", ENGINE, "engine", "why"),),
            bars=True, stack=True,
        ),
        Panel(
            "Stayed ready for",
            "How long engines stayed on average, since the server started. Minutes mean that they "
            "push each other out.",
            (_mean("roundhouse_engine_residency_seconds", ENGINE, "engine"),),
            kind="bargauge", unit="s",
        ),
        Panel(
            "Deaths",
            "Of engines, that nobody asked for, by how.",
            (times("roundhouse_engine_restarts_total", ENGINE, "engine", "reason"),),
            bars=True, stack=True,
        ),
        Panel(
            "Suspects",
            "Requests that an engine may have died of. `guilty`: one that killed it twice.",
            (times("roundhouse_suspects_total", ENGINE, "engine", "event"),),
            bars=True, stack=True,
        ),
        Panel(
            "Changes of replicas",
            "Of external engines: added and removed, lost and returned, as the server says that "
            "saw most.",
            (times("roundhouse_replica_changes_total", ENGINE, "engine", "change", how="max"),),
            bars=True, stack=True,
        ),
    ),
)  # fmt: skip

_MEMORY = Row(
    "Memory and weights",
    (
        Panel(
            "Memory of devices",
            "Total: what engines may have. Planned: set aside. Used: as last seen.",
            (
                Query(
                    f"sum by (instance, device, kind) (roundhouse_device_memory_bytes{{{HERE}}})",
                    "{{device}} {{kind}}",
                ),
            ),
            unit="bytes",
        ),
        Panel(
            "Memory of engines",
            "Planned and used. One that uses more than planned may push others out of memory.",
            (
                Query(
                    "sum by (engine, device, kind) "
                    f"(roundhouse_engine_memory_bytes{{{ENGINE}}})",
                    "{{engine}} {{device}} {{kind}}",
                ),
            ),
            unit="bytes",
        ),
        Panel(
            "Weights from the hub",
            "Bytes a second that are pulled.",
            (
                Query(
                    f"sum(rate(roundhouse_pull_bytes_total{{{HERE}}}[$__rate_interval]))", "pulled"
                ),
            ),
            unit="Bps",
        ),
        Panel(
            "Pulls",
            "Pulls of weights that ended, by how.",
            (times("roundhouse_pulls_total", HERE, "outcome"),),
            bars=True, stack=True,
        ),
    ),
)  # fmt: skip


def made() -> dict[str, Any]:
    """The dashboard."""
    return dashboard(
        "roundhouse-engines",
        "Roundhouse: engines",
        "What the engines behind Roundhouse do, by its own measures and by vLLM's.",
        (
            Variable("instance", "Server", "label_values(roundhouse_build_info, instance)"),
            Variable(
                "engine",
                "Engine",
                "label_values(roundhouse_engine_state, engine)",
            ),
        ),
        (_STATE, _WORK, _TIME, _TURNS, _MEMORY),
    )
