"""Those whose dialect is not OpenAI's, or not quite. See `rows`."""

from __future__ import annotations

from typing import Any, Final

from tests.fakes.messages import end, event, refusal, text_events
from tests.fakes.messages import start as begun
from tests.fakes.scripts import comment
from tests.providers.said import (
    ACCOUNT,
    HEL,
    LO,
    OPEN,
    OURS,
    REFUSED,
    STOP,
    Quirk,
    Reads,
    Row,
    Trouble,
    answer,
    chunk,
    error,
    stream,
    usage,
)


def _cohere(kind: str, **delta: Any) -> bytes:
    more: dict[str, Any] = {"delta": delta} if delta else {}
    return event(kind, index=0, **more)


TRANSLATED: Final[dict[str, Row]] = {
    "anthropic": Row(
        "https://api.anthropic.com/v1/messages",
        (
            Quirk(
                stream(
                    begun(),
                    event("ping"),
                    *text_events("Hel", "lo"),
                    event("a_kind_to_come", anything=1),
                    *end(),
                    ends=False,
                ),
                Reads(usage=(9, 3)),
            ),
        ),
        (
            Trouble(
                refusal(529, "overloaded_error", f"Overloaded, {OURS[2]}"),
                503,
                "upstream_error",
                "The upstream failed (529).",
            ),
        ),
        auth=("x-api-key", ""),
        said={"workspace": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ"},
        sent={
            "anthropic-workspace-id": "wrkspc_01JwQvzr7rXLA5AGx3HKfFUJ",
            "anthropic-version": "2023-06-01",
        },
    ),
    "deepseek": Row(
        "https://api.deepseek.com/v1/chat/completions",
        (
            Quirk(
                stream(
                    comment("keep-alive"),
                    OPEN,
                    comment("keep-alive"),
                    chunk({"reasoning_content": "Hm.", "content": None}),
                    HEL,
                    LO,
                    {**STOP, "usage": usage(prompt_cache_hit_tokens=0)},
                ),
                Reads(thoughts="Hm."),
            ),
        ),
        (
            Trouble(
                answer(
                    402,
                    error(
                        "Insufficient Balance",
                        type="unknown_error",
                        param=None,
                        code="invalid_request_error",
                    ),
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
        ),
    ),
    "mistral": Row(
        "https://api.mistral.ai/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": ""}, p="abcdef"),
                    chunk(
                        {
                            "content": [
                                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
                            ]
                        },
                        p="ab",
                    ),
                    chunk({"content": [{"type": "text", "text": "Hel"}]}),
                    {**LO, "p": "abcd"},
                    chunk({"content": ""}, "stop", usage=usage(), p="a"),
                ),
                Reads(thoughts="Hm."),
            ),
        ),
        (
            Trouble(
                answer(
                    422,
                    {
                        "object": "error",
                        "message": {
                            "detail": [
                                {
                                    "type": "extra_forbidden",
                                    "loc": ["body", "guardrails", "x"],
                                    "msg": "Extra inputs are not permitted",
                                    "input": "of the client",
                                }
                            ]
                        },
                        "type": "invalid_request_error",
                        "param": None,
                        "code": None,
                    },
                ),
                422,
                "upstream_error",
                "guardrails.x: Extra inputs are not permitted",
                param="guardrails.x",
            ),
        ),
    ),
    "cohere": Row(
        "https://api.cohere.com/v2/chat",
        (
            Quirk(
                stream(
                    event("message-start", id="c1", delta={"message": {"role": "assistant"}}),
                    _cohere(
                        "content-start", message={"content": {"type": "thinking", "thinking": ""}}
                    ),
                    _cohere("content-delta", message={"content": {"thinking": "Hm."}}),
                    _cohere("content-end"),
                    _cohere("content-start", message={"content": {"type": "text", "text": ""}}),
                    _cohere("content-delta", message={"content": {"text": "Hel"}}),
                    _cohere("content-delta", message={"content": {"text": "lo"}}),
                    _cohere("content-end"),
                    event(
                        "message-end",
                        delta={
                            "finish_reason": "COMPLETE",
                            "usage": {
                                "billed_units": {"input_tokens": 1.0, "output_tokens": 1.0},
                                "tokens": {"input_tokens": 7.0, "output_tokens": 2.0},
                            },
                        },
                    ),
                    ends=True,
                ),
                Reads(thoughts="Hm."),
            ),
        ),
        (
            Trouble(
                answer(
                    200,
                    {
                        "id": "c1",
                        "finish_reason": "ERROR",
                        "message": {"role": "assistant", "content": []},
                        "error": f"of {OURS[2]}",
                    },
                ),
                502,
                "upstream_aborted",
                "gave up on its answer",
            ),
        ),
    ),
    "huggingface": Row(
        "https://router.huggingface.co/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": "Hel", "token_id": 5}, seed=1),
                    chunk({"role": "assistant", "content": "lo"}),
                    chunk({"role": "assistant", "content": "", "token_id": None}, "eos_token"),
                    chunk(usage=usage(prompt_tokens_details=None)),
                )
            ),
        ),
        (
            Trouble(
                answer(
                    503,
                    {"error": f"Model {OURS[2]} is currently loading", "estimated_time": 19.4},
                ),
                503,
                "engine_loading",
                "The model is being loaded at the upstream.",
                retry_after="20",
            ),
            Trouble(
                answer(503, {"error": "Model is loading"}),
                503,
                "engine_loading",
                "The model is being loaded at the upstream.",
                retry_after="5",
            ),
        ),
        said={"organization": OURS[2]},
        sent={"x-hf-bill-to": OURS[2]},
    ),
}
