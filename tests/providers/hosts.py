"""Those that run other people's models and speak like OpenAI. See `rows`."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.fakes.scripts import comment
from tests.providers.said import (
    ACCOUNT,
    HEL,
    LO,
    OPEN,
    OURS,
    REFUSED,
    STOP,
    USAGE,
    Quirk,
    Row,
    Trouble,
    answer,
    chunk,
    error,
    loose,
    stream,
    usage,
    whole,
)

#: OpenRouter's, while it waits.
_PADDING: Final = b"\n         \n\n  "


def _groq(usage: Any) -> dict[str, Any]:
    return {"x_groq": {"id": "req_01k0", "usage": usage}}


HOSTS: Final[dict[str, Row]] = {
    "groq": Row(
        "https://api.groq.com/openai/v1/chat/completions",
        (
            Quirk(
                stream(
                    {**OPEN, "x_groq": {"id": "req_01k0"}},
                    HEL,
                    LO,
                    {**STOP, **_groq(usage(queue_time=0.05, total_time=0.1))},
                    {**USAGE, "service_tier": "on_demand", "usage_breakdown": None},
                )
            ),
            Quirk(
                answer(
                    200,
                    whole(
                        service_tier="on_demand",
                        x_groq={"id": "req_01k0"},
                        usage=usage(queue_time=0.05, prompt_time=0.01),
                        usage_breakdown=None,
                    ),
                ),
                stream=False,
            ),
        ),
        (
            Trouble(
                answer(
                    413,
                    error(
                        f"Request too large for model `llama` in organization `{OURS[0]}` on "
                        "tokens per minute (TPM): Limit 6000, Requested 12328",
                        type="tokens",
                        code="rate_limit_exceeded",
                    ),
                ),
                413,
                "rate_limit_exceeded",
                "Request too large for model `llama` in organization `…`",
            ),
        ),
    ),
    "together": Row(
        "https://api.together.ai/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": "Hel", "token_id": 9906}, seed=None),
                    chunk({"role": "assistant", "content": "lo", "token_id": 1}, warnings=[]),
                    chunk({"role": "assistant", "content": ""}, "eos", usage=usage()),
                )
            ),
            Quirk(answer(200, whole("eos", {"tool_calls": []}, prompt=[])), stream=False),
        ),
        (
            Trouble(
                answer(
                    422,
                    {
                        "id": "o7",
                        **error(
                            "Input validation error: `max_tokens` must be > 0",
                            type="invalid_request_error",
                            param="max_tokens",
                            code=None,
                        ),
                    },
                ),
                422,
                "upstream_error",
                "`max_tokens` must be > 0",
                param="max_tokens",
            ),
        ),
    ),
    "fireworks": Row(
        "https://api.fireworks.ai/inference/v1/chat/completions",
        (
            Quirk(
                stream(
                    OPEN,
                    HEL,
                    LO,
                    {**STOP, "usage": usage(), "perf_metrics": {"prompt-tokens": 7}},
                )
            ),
        ),
        (
            Trouble(
                answer(
                    412,
                    error(
                        f"Account {OURS[2]} is suspended, possibly due to reaching the monthly "
                        "spending limit.",
                        object="error",
                        type="precondition_failed",
                        code="PRECONDITION_FAILED",
                    ),
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
            Trouble(
                answer(
                    404,
                    error(
                        "Model not found, inaccessible, and/or not deployed",
                        object="error",
                        type="invalid_request_error",
                        code="NOT_FOUND",
                    ),
                ),
                404,
                "model_not_found",
                "Model not found",
            ),
        ),
    ),
    "openrouter": Row(
        "https://openrouter.ai/api/v1/chat/completions",
        (
            Quirk(
                stream(
                    *[comment("OPENROUTER PROCESSING")] * 2,
                    {**OPEN, "provider": "Theirs"},
                    comment("OPENROUTER PROCESSING"),
                    HEL,
                    LO,
                    {**STOP, "native_finish_reason": "STOP"},
                    chunk(usage=usage(cost=0.001, is_byok=False, cost_details={})),
                )
            ),
            Quirk(
                loose(b"\n         \n\n  " + json.dumps(whole(provider="Theirs")).encode()),
                stream=False,
            ),
        ),
        (
            Trouble(
                stream(
                    comment("OPENROUTER PROCESSING"),
                    {
                        **chunk({"content": ""}, "error", provider="Theirs"),
                        **error(f"Provider {OURS[2]} disconnected", code=502),
                    },
                    ends=False,
                ),
                502,
                "upstream_error",
                "The upstream failed (502).",
                stream=True,
            ),
            Trouble(
                answer(
                    200,
                    {
                        **error(f"Insufficient credits of {OURS[2]}", code=402),
                        "user_id": OURS[0],
                    },
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
        ),
        said={"headers": {"HTTP-Referer": "https://house.example", "X-Title": "House"}},
        sent={"http-referer": "https://house.example", "x-title": "House"},
    ),
}
