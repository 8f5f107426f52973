"""How providers write what they allow: their headers, and what is to be read from them."""

from __future__ import annotations

from typing import Any

#: Of the answers, where a time of day stands in them.
DATE = "Fri, 21 Nov 2025 12:00:00 GMT"

SPELLINGS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    (
        "openai",
        {
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "30000000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-remaining-tokens": "29999973",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        {"requests": (10000, 9999, 0.006), "tokens": (30000000, 29999973, 360)},
    ),
    (
        "openai, a project's",
        {
            "x-ratelimit-limit-project-tokens": "800",
            "x-ratelimit-remaining-project-tokens": "700",
            "x-ratelimit-reset-project-tokens": "1s",
        },
        {"project_tokens": (800, 700, 1)},
    ),
    (
        "groq",
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-reset-tokens": "7.66s",
        },
        {"requests": (14400, 14370, 179.56), "tokens": (18000, 17997, 7.66)},
    ),
    (
        "azure",
        {"x-ratelimit-remaining-requests": "49", "x-ratelimit-remaining-tokens": "-1"},
        {"requests": (None, 49, None)},
    ),
    (
        "azure, in full",
        {
            "x-ratelimit-limit-tokens": "50000",
            "x-ratelimit-remaining-tokens": "49984",
            "x-ratelimit-reset-tokens": "0",
        },
        {"tokens": (50000, 49984, 0)},
    ),
    (
        "together",
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2968",
        },
        {"requests": (10, 9, 1), "tokens": (3000, 2968, None)},
    ),
    (
        "fireworks",
        {
            "x-ratelimit-limit-requests": "600",
            "x-ratelimit-remaining-requests": "599",
            "x-ratelimit-limit-tokens-prompt": "7200000",
            "x-ratelimit-remaining-tokens-prompt": "7193993",
            "x-ratelimit-limit-tokens-cache-adjusted-prompt": "60000",
            "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "59000",
            "x-ratelimit-limit-tokens-generated": "72000",
            "x-ratelimit-remaining-tokens-generated": "69338",
            "x-ratelimit-over-limit": "no",
        },
        {
            "requests": (600, 599, None),
            "input_tokens": (7200000, 7193993, None),
            "uncached_input_tokens": (60000, 59000, None),
            "output_tokens": (72000, 69338, None),
        },
    ),
    (
        "openrouter",
        {
            "x-ratelimit-limit": "20",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": "1763726430500",
        },
        {"requests": (20, 0, 30.5)},
    ),
    (
        "cerebras",
        {
            "x-ratelimit-limit-requests-day": "1000",
            "x-ratelimit-remaining-requests-day": "999",
            "x-ratelimit-reset-requests-day": "33011.382867097855",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
            "x-ratelimit-reset-tokens-minute": "11.382867097854614",
        },
        {
            "requests_day": (1000, 999, 33011.382867097855),
            "tokens_minute": (60000, 59000, 11.382867097854614),
        },
    ),
    (
        "anthropic",
        {
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-requests-reset": "2025-11-21T12:00:51Z",
            "anthropic-ratelimit-tokens-limit": "480000",
            "anthropic-ratelimit-tokens-remaining": "478000",
            "anthropic-ratelimit-tokens-reset": "2025-11-21T13:00:00+01:00",
            "anthropic-ratelimit-input-tokens-limit": "400000",
            "anthropic-ratelimit-input-tokens-remaining": "399000",
            "anthropic-ratelimit-input-tokens-reset": "2025-11-21T11:59:00Z",
            "anthropic-ratelimit-output-tokens-limit": "80000",
            "anthropic-ratelimit-output-tokens-remaining": "79000",
            "anthropic-ratelimit-output-tokens-reset": "2025-11-21T12:01:00.5Z",
            "anthropic-priority-input-tokens-remaining": "5000",
        },
        {
            "requests": (4000, 3999, 51),
            "tokens": (480000, 478000, 0),
            "input_tokens": (400000, 399000, 0),
            "output_tokens": (80000, 79000, 60.5),
            "priority_input_tokens": (None, 5000, None),
        },
    ),
    (
        "mistral",
        {
            "x-ratelimit-limit-req-10-second": "60",
            "x-ratelimit-remaining-req-10-second": "59",
            "x-ratelimit-limit-req-minute": "720",
            "x-ratelimit-remaining-req-minute": "717",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-remaining-tokens-minute": "499990",
            "x-ratelimit-limit-tokens-5-minute": "937500",
            "x-ratelimit-limit-tokens-month": "10000000000",
            "x-ratelimit-remaining-tokens-month": "9999999000",
            "x-ratelimit-tokens-query-cost": "10",
        },
        {
            "requests_10_second": (60, 59, None),
            "requests_minute": (720, 717, None),
            "tokens_minute": (500000, 499990, None),
            "tokens_5_minute": (937500, None, None),
            "tokens_month": (10000000000, 9999999000, None),
        },
    ),
    (
        "mistral, by size",
        {
            "ratelimitbysize-limit": "500000",
            "ratelimitbysize-remaining": "499990",
            "ratelimitbysize-reset": "5",
            "ratelimitbysize-query-cost": "10",
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-remaining-minute": "499990",
            "x-ratelimitbysize-limit-month": "1000000000",
            "x-ratelimitbysize-remaining-month": "999999000",
        },
        {
            "tokens": (500000, 499990, 5),
            "tokens_minute": (500000, 499990, None),
            "tokens_month": (1000000000, 999999000, None),
        },
    ),
    (
        "cohere",
        {
            "x-trial-endpoint-call-limit": "40",
            "x-trial-endpoint-call-remaining": "39",
            "x-endpoint-monthly-call-limit": "1000",
        },
        {"requests_minute": (40, 39, None), "requests_month": (1000, None, None)},
    ),
    (
        "hugging face",
        {
            "ratelimit": '"api";r=489;t=160',
            "ratelimit-policy": '"fixed window";"api";q=500;w=300',
        },
        {"requests": (500, 489, 160)},
    ),
    (
        "a draft with two policies",
        {
            "ratelimit": '"day, all";r=900;t=3600, "burst"; r=3; t=1',
            "ratelimit-policy": '"burst";q=10;w=1,"day, all";q=1000;w=86400',
        },
        {"requests": (10, 3, 1)},
    ),
    ("a draft with no policy", {"ratelimit": '"default";r=50;t=30'}, {"requests": (None, 50, 30)}),
    (
        "a draft with another's policy",
        {"ratelimit": '"default";r=50', "ratelimit-policy": '"a";q=1,"b";q=2'},
        {"requests": (None, 50, None)},
    ),
    (
        "an older draft",
        {"ratelimit": "limit=100, remaining=50, reset=5", "ratelimit-policy": "100;w=60"},
        {"requests": (100, 50, 5)},
    ),
    (
        "an early draft",
        {
            "ratelimit-limit": "100, 100;w=60",
            "ratelimit-remaining": "50",
            "ratelimit-reset": "5",
            "ratelimit-policy": "100;w=60",
        },
        {"requests": (100, 50, 5)},
    ),
    (
        "the more telling is believed",
        {
            "x-ratelimit-limit": "1",
            "ratelimit": '"api";r=2',
            "ratelimit-limit": "3",
            "x-ratelimit-remaining-requests": "4",
        },
        {"requests": (None, 4, None)},
    ),
    (
        "unless it says nothing",
        {"x-ratelimit-limit": "1", "x-ratelimit-remaining-requests": "many"},
        {"requests": (1, None, None)},
    ),
]
