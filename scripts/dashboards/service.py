"""What clients get: requests, errors and time first; then tokens and money, targets, and what
`server` has."""

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
)
from scripts.dashboards.server import HERE, MODEL, QUEUES, SERVER

BROKEN: Final = 'reason!~"done|client_gone|slow_client"'
#: Worst last: a breaker that is open hides those of other servers that are closed.
BREAKER: Final = {
    0: ("closed", "green"),
    1: ("resting", "blue"),
    2: ("ramp", "yellow"),
    3: ("half open", "orange"),
    4: ("open", "red"),
}


def _breakers(metric: str, label: str) -> Query:
    states = [text.replace(" ", "_") for text, _ in BREAKER.values()]
    series = " or ".join(
        f'{metric}{{{HERE}, state="{state}"}} * {value}' for value, state in enumerate(states)
    )
    return Query(f"max by ({label}) ({series})", f"{{{{{label}}}}}")


def _requests(status: str = "") -> str:
    more = f', status=~"{status}"' if status else ""
    return f"sum by (model) (rate(roundhouse_requests_total{{{MODEL}{more}}}[$__rate_interval]))"


#: Server errors and streams that broke, by model; 0 where there were requests and neither.
_FAILED = (
    f'(sum by (model) (rate(roundhouse_requests_total{{{MODEL}, status=~"5.."}}[$__rate_interval])'
    f" or rate(roundhouse_stream_end_total{{{MODEL}, {BROKEN}}}[$__rate_interval]))"
    f" or 0 * {_requests()})"
)

_TOTALS = Row(
    "Now",
    (
        Panel(
            "Requests",
            "Requests a second that ended, of the chosen models.",
            (Query(f"sum({_requests()})", "requests"),),
            kind="stat", unit="reqps", width=4, height=4,
        ),
        Panel(
            "Failed",
            "Share of requests that the server failed: status 5xx, or a stream that broke after it "
            "had begun. What clients did wrong (4xx) is not counted at all.",
            (Query(f"sum({_FAILED}) / sum({_requests('[^4]..')})", "failed"),),
            kind="stat", unit="percentunit", width=4, height=4, warn=(0.001, 0.01),
        ),
        Panel(
            "Time, p95",
            "95 of 100 requests took less, from their head to the end of their answer.",
            (quantile("p95", "roundhouse_request_duration_seconds", MODEL),),
            kind="stat", unit="s", width=4, height=4,
        ),
        Panel(
            "First token, p95",
            "95 of 100 streams began sooner.",
            (quantile("p95", "roundhouse_time_to_first_token_seconds", MODEL),),
            kind="stat", unit="s", width=4, height=4,
        ),
        Panel(
            "In flight",
            "Requests that are being served now.",
            (Query(f"sum(roundhouse_requests_in_flight{{{MODEL}}})", "in flight"),),
            kind="stat", width=4, height=4,
        ),
        Panel(
            "Breakers open",
            "Targets that a server leaves alone because they failed.",
            (
                Query(
                    f'sum(max by (target) (roundhouse_breaker_state{{{HERE}, state="open"}}))',
                    "open",
                ),
            ),
            kind="stat", width=4, height=4, warn=(1, 3),
        ),
    ),
)  # fmt: skip

_RED = Row(
    "Requests, errors, time",
    (
        Panel(
            "Requests",
            "Requests a second that ended, by model. `other` is a name that no model has.",
            (Query(_requests(), "{{model}}"),),
            unit="reqps", stack=True,
        ),
        Panel(
            "Failed",
            "Share of each model's requests that the server failed: status 5xx, or a stream that "
            "broke. The alert on the error budget counts the same.",
            (Query(f"{_FAILED} / {_requests('[^4]..')}", "{{model}}"),),
            unit="percentunit",
        ),
        Panel(
            "Time",
            "From a request's head to the end of its answer; long answers take long.",
            quantiles("roundhouse_request_duration_seconds", MODEL),
            unit="s",
        ),
        Panel(
            "Time by model, p95",
            "95 of 100 of each model's requests took less.",
            (quantile("p95", "roundhouse_request_duration_seconds", MODEL, "model"),),
            unit="s",
        ),
        Panel(
            "Answers other than 200",
            "By status: 4xx is what clients sent, 429 a limit, 5xx our failure.",
            (per_second("roundhouse_requests_total", f'{MODEL}, status!~"2.."', "status"),),
            unit="reqps", stack=True,
        ),
        Panel(
            "How streams end",
            "`done` is well; `client_gone` is the client's choice; all else was cut.",
            (per_second("roundhouse_stream_end_total", MODEL, "reason"),),
            unit="ops", stack=True,
        ),
    ),
)  # fmt: skip

_TOKENS = Row(
    "Tokens and money",
    (
        Panel(
            "Time to first token",
            "Streams: from a request's head to the first event for the client. It grows with "
            "queues, long prompts and engines that load.",
            quantiles("roundhouse_time_to_first_token_seconds", MODEL),
            unit="s",
        ),
        Panel(
            "Time to first token by model, p95",
            "95 of 100 of each model's streams began sooner.",
            (quantile("p95", "roundhouse_time_to_first_token_seconds", MODEL, "model"),),
            unit="s",
        ),
        Panel(
            "Between chunks",
            "Streams: time between two reads from the target, about that of a token.",
            quantiles("roundhouse_inter_chunk_seconds", MODEL),
            unit="s",
        ),
        Panel(
            "Tokens",
            "Tokens a second as targets count them. Cached ones are prompt tokens, too.",
            (per_second("roundhouse_tokens_total", MODEL, "kind"),),
            unit="suffix: tokens/s",
        ),
        Panel(
            "Answers' tokens by model",
            "Completion tokens a second.",
            (per_second("roundhouse_tokens_total", f'{MODEL}, kind="completion"', "model"),),
            unit="suffix: tokens/s", stack=True,
        ),
        Panel(
            "Cost an hour",
            "US dollars an hour by target, for answers whose price is known.",
            (
                Query(
                    "sum by (target) "
                    f"(rate(roundhouse_cost_usd_total{{{MODEL}}}[$__rate_interval])) * 3600",
                    "{{target}}",
                ),
            ),
            unit="currencyUSD", stack=True,
        ),
    ),
)  # fmt: skip

_TARGETS = Row(
    "Targets",
    (
        Panel(
            "Breakers",
            "Each target's breaker, the worst of all servers. Open: it failed and is left alone; "
            "resting: it said that we ask too much.",
            (_breakers("roundhouse_breaker_state", "target"),),
            kind="state-timeline", states=BREAKER, width=12,
        ),
        Panel(
            "Credentials",
            "Open: the provider refuses the account's key.",
            (_breakers("roundhouse_credential_state", "provider"),),
            kind="state-timeline", states=BREAKER, width=12,
        ),
        Panel(
            "Attempts that failed",
            "By target and how. A request may have several attempts and still go well.",
            (
                per_second(
                    "roundhouse_attempts_total",
                    f'{MODEL}, outcome!~"ok|client_gone"',
                    "target",
                    "outcome",
                ),
            ),
            unit="ops", stack=True,
        ),
        Panel(
            "Fallbacks",
            "Requests that another target than the first had to answer, by why.",
            (per_second("roundhouse_fallbacks_total", MODEL, "model", "reason"),),
            unit="ops", stack=True,
        ),
        Panel(
            "Retries",
            "Attempts after the first. `refused`: the retry budget was used up, as in an outage.",
            (per_second("roundhouse_retries_total", HERE, "result"),),
            unit="ops", stack=True,
        ),
        Panel(
            "Retry budget used",
            "At 100 % no more attempts are made for requests that failed.",
            (Query(f"max(roundhouse_retry_budget_used_ratio{{{HERE}}})", "used"),),
            unit="percentunit", maximum=1,
        ),
        Panel(
            "Left of providers' limits",
            "Share of what a provider allows that was left, by its last answer.",
            (
                Query(
                    f"min by (provider, kind) (roundhouse_provider_ratelimit_remaining{{{HERE}}}"
                    f" / roundhouse_provider_ratelimit_limit{{{HERE}}})",
                    "{{provider}} {{kind}}",
                ),
            ),
            unit="percentunit", maximum=1,
        ),
        Panel(
            "Providers' limits are whole again in",
            "Seconds until a provider allows all of it again.",
            (
                Query(
                    "max by (provider, kind) "
                    f"(roundhouse_provider_ratelimit_reset_seconds{{{HERE}}})",
                    "{{provider}} {{kind}}",
                ),
            ),
            unit="s",
        ),
    ),
)  # fmt: skip


def made() -> dict[str, Any]:
    """The dashboard."""
    return dashboard(
        "roundhouse-service",
        "Roundhouse: service",
        "What clients of Roundhouse get, and what it takes to give it to them.",
        (
            Variable("instance", "Server", "label_values(roundhouse_build_info, instance)"),
            Variable("model", "Model", "label_values(roundhouse_requests_total, model)"),
        ),
        (_TOTALS, _RED, _TOKENS, _TARGETS, QUEUES, SERVER),
    )
