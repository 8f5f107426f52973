"""What people run themselves. See `rows`."""

from __future__ import annotations

from typing import Final

from tests.fakes.scripts import comment
from tests.providers.said import (
    HEL,
    LO,
    OPEN,
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
    whole,
)

SERVERS: Final[dict[str, Row]] = {
    "ollama": Row(
        "http://127.0.0.1:11434/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": "Hel"}, system_fingerprint="fp_ollama"),
                    chunk({"role": "assistant", "content": "lo"}),
                    chunk({"role": "assistant", "content": ""}, "stop"),
                ),
                Reads(usage=None),
            ),
        ),
        (
            Trouble(
                answer(404, {"error": "model 'llama9' not found"}),
                404,
                "model_not_found",
                "model 'llama9' not found",
            ),
        ),
        auth=None,
    ),
    "llamacpp": Row(
        "http://127.0.0.1:8080/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": None}),
                    HEL,
                    LO,
                    STOP,
                    chunk(usage=usage(), timings={"prompt_n": 7, "predicted_per_second": 80.1}),
                )
            ),
        ),
        (
            Trouble(
                answer(503, error("Loading model", type="unavailable_error", code=503)),
                503,
                "engine_loading",
                "The model is being loaded at the upstream.",
                retry_after="5",
            ),
        ),
        auth=None,
    ),
    "textgen": Row(
        "http://127.0.0.1:5000/v1/chat/completions",
        (
            Quirk(
                stream(
                    chunk({"role": "assistant", "content": ""}),
                    chunk({"role": "assistant", "content": "Hel"}),
                    comment("ping - 2026-11-21 12:00:00.000000+00:00"),
                    chunk({"role": "assistant", "content": "lo"}),
                    chunk({"role": "assistant", "content": ""}, "stop", usage=usage()),
                )
            ),
        ),
        (
            Trouble(
                answer(
                    422,
                    {
                        "detail": [
                            {
                                "type": "int_parsing",
                                "loc": ["body", "max_tokens"],
                                "msg": "Input should be a valid integer",
                                "input": "of the client",
                            }
                        ]
                    },
                ),
                422,
                "upstream_error",
                "max_tokens: Input should be a valid integer",
                param="max_tokens",
            ),
        ),
        auth=None,
    ),
    "vllm": Row(
        "http://gpu-box:8000/v1/chat/completions",
        (
            Quirk(
                stream(
                    OPEN,
                    chunk({"reasoning": "Hm."}),
                    HEL,
                    LO,
                    STOP,
                    USAGE,
                ),
                Reads(thoughts="Hm."),
            ),
        ),
        (
            Trouble(
                answer(
                    400,
                    error(
                        "The model does not support the `documents` parameter.",
                        type="BadRequestError",
                        param="documents",
                        code=400,
                    ),
                ),
                400,
                "upstream_error",
                "does not support the `documents`",
                param="documents",
            ),
        ),
        auth=None,
    ),
    "roundhouse": Row(
        "https://roundhouse.example/v1/chat/completions",
        (
            Quirk(
                answer(
                    200,
                    whole(),
                    {
                        "x-roundhouse-target": "engine/their-inside",
                        "x-roundhouse-attempts": "7",
                        "x-roundhouse-dropped": "seed",
                        "x-roundhouse-bridge": "their-bridge",
                    },
                ),
                stream=False,
            ),
        ),
        (
            Trouble(
                answer(
                    503,
                    error("The model is loading.", type="server_error", code="engine_loading"),
                    {"retry-after": "12", "x-roundhouse-target": "engine/their-inside"},
                ),
                503,
                "engine_loading",
                "The model is being loaded at the upstream.",
                retry_after="12",
            ),
        ),
        auth=None,
    ),
}
