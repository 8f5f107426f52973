"""OpenAI, and the large ones that speak as it does. See `rows`."""

from __future__ import annotations

from typing import Any, Final

from tests.providers.said import (
    ACCOUNT,
    HEL,
    LO,
    OPEN,
    OURS,
    REFUSED,
    SECRET,
    STOP,
    USAGE,
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

_FILTERS: Final = {"hate": {"filtered": False, "severity": "safe"}}
#: Azure's, of the prompt, before the answer.
_PROMPT_FILTER: Final = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _FILTERS}],
}
#: Azure's, of what was said until then.
_ANSWER_FILTER: Final = {
    "choices": [
        {
            "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
            "content_filter_results": _FILTERS,
            "finish_reason": None,
            "index": 0,
        }
    ],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
}


def _gemini_call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    """It tells no index."""
    return {
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "function": {"name": name, "arguments": arguments},
        "id": identity,
        "type": "function",
    }


CLOUDS: Final[dict[str, Row]] = {
    "openai": Row(
        "https://api.openai.com/v1/chat/completions",
        (
            Quirk(
                stream(
                    {**OPEN, "service_tier": "default", "usage": None, "obfuscation": "aB"},
                    *({**one, "usage": None, "obfuscation": "c"} for one in (HEL, LO, STOP)),
                    {**USAGE, "obfuscation": ""},
                )
            ),
        ),
        (
            Trouble(
                answer(
                    401,
                    error(
                        f"Incorrect API key provided: {SECRET}. You can find your API key at "
                        "https://platform.openai.com/account/api-keys.",
                        type="invalid_request_error",
                        param=None,
                        code="invalid_api_key",
                    ),
                    {"www-authenticate": f'Bearer realm="{OURS[2]}"'},
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
            Trouble(
                answer(
                    429,
                    error(
                        f"Rate limit reached for gpt-6 in organization {OURS[1]} on tokens per min",
                        type="tokens",
                        param=None,
                        code="rate_limit_exceeded",
                    ),
                    {"retry-after-ms": "1500", "retry-after": "9"},
                ),
                429,
                "rate_limit_exceeded",
                "The upstream's rate limit is reached.",
                retry_after="2",
            ),
        ),
        said={"organization": OURS[1], "project": "proj_7Hs0PqW4eRt6Yu1I"},
        sent={"openai-organization": OURS[1], "openai-project": "proj_7Hs0PqW4eRt6Yu1I"},
    ),
    "google": Row(
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        (
            Quirk(
                stream(
                    chunk(
                        {"role": "assistant", "tool_calls": [_gemini_call("c1", "f", '{"a":1}')]}
                    ),
                    chunk({"tool_calls": [_gemini_call("c2", "g", "{}")]}),
                    chunk({"role": "assistant"}, "stop"),
                    USAGE,
                ),
                Reads(text="", calls=(("f", '{"a":1}'), ("g", "{}")), finish="tool_calls"),
            ),
        ),
        (
            Trouble(
                answer(
                    400,
                    [
                        {
                            "error": {
                                "code": 400,
                                "message": "API key not valid. Please pass a valid API key.",
                                "status": "INVALID_ARGUMENT",
                                "details": [{"reason": "API_KEY_INVALID", "domain": OURS[2]}],
                            }
                        }
                    ],
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
            Trouble(
                answer(
                    429,
                    [
                        {
                            "error": {
                                "code": 429,
                                "message": f"Quota exceeded of {OURS[2]}. Please retry in 16.4s.",
                                "status": "RESOURCE_EXHAUSTED",
                                "details": [
                                    {
                                        "@type": "type.googleapis.com/google.rpc.RetryInfo",
                                        "retryDelay": "16.4s",
                                    }
                                ],
                            }
                        }
                    ],
                ),
                429,
                "upstream_error",
                "The upstream's rate limit is reached.",
                retry_after="17",
            ),
        ),
    ),
    "xai": Row(
        "https://api.x.ai/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "reasoning_content": "Hm"}),
                    chunk({"reasoning_content": "."}),
                    HEL,
                    LO,
                    STOP,
                    chunk(usage=usage(num_sources_used=0, cost_in_usd_ticks=1), citations=[]),
                ),
                Reads(thoughts="Hm."),
            ),
        ),
        (
            Trouble(
                answer(
                    400,
                    {
                        "code": "Client specified an invalid argument",
                        "error": f"Incorrect API key provided: {SECRET}. You can obtain an API key "
                        "from https://console.x.ai.",
                    },
                ),
                502,
                REFUSED,
                ACCOUNT,
            ),
        ),
    ),
    "azure": Row(
        "https://NAME.openai.azure.com/openai/v1/chat/completions",
        (
            Quirk(
                stream(
                    _PROMPT_FILTER,
                    OPEN,
                    HEL,
                    _ANSWER_FILTER,
                    LO,
                    STOP,
                    USAGE,
                )
            ),
        ),
        (
            Trouble(
                answer(
                    400,
                    error(
                        "The response was filtered due to the prompt triggering Azure OpenAI's "
                        "content management policy.",
                        type=None,
                        param="prompt",
                        code="content_filter",
                        status=400,
                        innererror={"code": "ResponsibleAIPolicyViolation"},
                    ),
                ),
                400,
                "content_filter",
                "content management policy",
                param="prompt",
            ),
        ),
        auth=("api-key", ""),
    ),
}
