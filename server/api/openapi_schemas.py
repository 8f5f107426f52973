"""The schemas of the OpenAPI pages: the main fields of OpenAI's API, open to all others.

Bodies pass through to the target, so what a target understands beyond these fields works, too:
request schemas say `additionalProperties: true` and answers promise no more than they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from server.errors import RoundhouseError, StartError

Schema = dict[str, Any]

#: Codes that single places give instead of their class's own.
MORE_CODES: Final = (
    "admin_key_needed",
    "ambiguous_name",
    "content_policy_violation",
    "context_length_exceeded",
    "cross_origin",
    "disk_full",
    "engine_failed",
    "engine_loading",
    "engine_not_found",
    "engine_stopped",
    "headers_too_large",
    "invalid_config",
    "invalid_http",
    "invalid_json",
    "invalid_type",
    "malformed_api_key",
    "missing_api_key",
    "missing_required_parameter",
    "nested_too_deeply",
    "no_replica",
    "no_target_left",
    "out_of_descriptors",
    "over_limit",
    "pull_failed",
    "pull_not_found",
    "pull_stopped",
    "request_crashed_engine",
    "request_too_large",
    "set_in_config",
    "state_unwritable",
    "store_unusable",
    "unsafe_weights",
    "unsupported_ability",
    "unsupported_endpoint",
    "unsupported_parameter",
    "upstream_rate_limited",
    "weights_gated",
    "weights_in_use",
    "weights_not_found",
)


def _classes(top: type[RoundhouseError]) -> Iterator[type[RoundhouseError]]:
    if not issubclass(top, StartError):
        yield top
        for sub in top.__subclasses__():
            yield from _classes(sub)


def error_codes() -> tuple[str, ...]:
    """Every `code` of ours that a client may see; a target's own codes pass through besides."""
    own = {cls.code for cls in _classes(RoundhouseError)}
    return tuple(sorted((own | set(MORE_CODES)) - {"client_gone"}))


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def whole(description: str = "", **more: Any) -> Schema:
    return {**text(description), "type": "integer", **more}


def number(description: str = "", **more: Any) -> Schema:
    return {**text(description), "type": "number", **more}


def flag(description: str = "", **more: Any) -> Schema:
    return {**text(description), "type": "boolean", **more}


def either(*kinds: Schema, description: str = "") -> Schema:
    return {"anyOf": list(kinds), **({"description": description} if description else {})}


def many(items: Schema, description: str = "", **more: Any) -> Schema:
    about = {"description": description} if description else {}
    return {"type": "array", "items": items, **about, **more}


def thing(
    properties: dict[str, Schema], *required: str, description: str = "", **more: Any
) -> Schema:
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(required)
    if description:
        made["description"] = description
    return {**made, "additionalProperties": True, **more}


NULL: Final[Schema] = {"type": "null"}
MODEL: Final = text(
    "A name from `GET /v1/models`, or `provider/any-upstream-id`. Needed, unless the server has a "
    "model named `default`.",
    examples=["qwen3-8b"],
)
STREAM: Final[dict[str, Schema]] = {
    "stream": flag("Answer as server-sent events, ended by `data: [DONE]`.", default=False),
    "stream_options": thing(
        {"include_usage": flag("Send a last chunk with `usage` and empty `choices`.")}
    ),
}
SAMPLING: Final[dict[str, Schema]] = {
    "temperature": number(minimum=0, maximum=2),
    "top_p": number(minimum=0, maximum=1),
    "n": whole("How many choices. The server has a cap.", minimum=1),
    "stop": either(text(), many(text()), description="Up to 16 texts that end the answer."),
    "seed": whole(),
    "presence_penalty": number(minimum=-2, maximum=2),
    "frequency_penalty": number(minimum=-2, maximum=2),
    "logit_bias": {"type": "object", "additionalProperties": {"type": "number"}},
    "user": text(),
}

TOOL_CALL: Final = thing(
    {
        "id": text(),
        "type": text(enum=["function"]),
        "function": thing({"name": text(), "arguments": text("JSON, as text.")}),
        "index": whole("In streams: which call this piece belongs to."),
    }
)

#: For this server, which passes it on to nobody.
_OURS: Final = {
    "keep_alive": either(
        number(),
        text(examples=["5m", "-1"]),
        NULL,
        description="How long the model's engine stays loaded after this request: seconds or a "
        "duration, -1 for ever. The header `x-roundhouse-keep-alive` says the same, and comes "
        "first.",
    )
}

SCHEMAS: Final[dict[str, Schema]] = {
    "Message": thing(
        {
            "role": text(examples=["user"]),
            "content": either(
                text(),
                many(thing({"type": text()}, "type"), "Parts: text, image_url, …"),
                NULL,
            ),
            "name": text(),
            "tool_calls": many(TOOL_CALL),
            "tool_call_id": text(),
        },
        "role",
        description="`system`, `developer`, `user`, `assistant` or `tool`.",
    ),
    "Tool": thing(
        {
            "type": text(enum=["function"]),
            "function": thing(
                {
                    "name": text(),
                    "description": text(),
                    "parameters": {"type": "object", "description": "A JSON schema."},
                    "strict": flag(),
                },
                "name",
            ),
        },
        "type",
        "function",
    ),
    "ChatRequest": thing(
        {
            "model": MODEL,
            "messages": many(ref("Message"), minItems=1),
            "max_completion_tokens": whole("Most tokens to make.", minimum=1),
            "max_tokens": whole("The older name of `max_completion_tokens`.", minimum=1),
            **STREAM,
            **SAMPLING,
            "tools": many(ref("Tool")),
            "tool_choice": either(text(enum=["none", "auto", "required"]), {"type": "object"}),
            "parallel_tool_calls": flag(),
            "response_format": thing(
                {
                    "type": text(enum=["text", "json_object", "json_schema"]),
                    "json_schema": thing({"name": text(), "schema": {"type": "object"}}),
                },
                "type",
            ),
            "logprobs": flag(),
            "top_logprobs": whole(minimum=0, maximum=20),
            "reasoning_effort": text(examples=["low", "medium", "high"]),
            **_OURS,
        },
        "messages",
    ),
    "Usage": thing(
        {
            "prompt_tokens": whole(),
            "completion_tokens": whole(),
            "total_tokens": whole(),
            "prompt_tokens_details": either(thing({"cached_tokens": whole()}), NULL),
        },
        "prompt_tokens",
        "total_tokens",
    ),
    "ChatChoice": thing(
        {
            "index": whole(),
            "message": ref("Message"),
            "finish_reason": either(text(examples=["stop"]), NULL),
            "logprobs": either({"type": "object"}, NULL),
        },
        *("index", "message", "finish_reason"),
    ),
    "ChatCompletion": thing(
        {
            "id": text(),
            "object": text(enum=["chat.completion"]),
            "created": whole("Unix seconds."),
            "model": text(),
            "choices": many(ref("ChatChoice")),
            "usage": ref("Usage"),
        },
        *("id", "object", "created", "model", "choices"),
    ),
    "ChatChunk": thing(
        {
            "id": text(),
            "object": text(enum=["chat.completion.chunk"]),
            "created": whole(),
            "model": text(),
            "choices": many(
                thing(
                    {
                        "index": whole(),
                        "delta": {"type": "object", "additionalProperties": True},
                        "finish_reason": either(text(), NULL),
                    },
                    *("index", "delta"),
                )
            ),
            "usage": either(ref("Usage"), NULL),
        },
        *("id", "object", "created", "model", "choices"),
        description="The payload of one `data:` event of a stream.",
    ),
    "CompletionRequest": thing(
        {
            "model": MODEL,
            "prompt": either(
                text(),
                many(text()),
                many(whole()),
                many(many(whole())),
                description="Text, several texts, or tokens.",
            ),
            "max_tokens": whole(minimum=1),
            **STREAM,
            **SAMPLING,
            "suffix": either(text(), NULL),
            "echo": flag(),
            "logprobs": either(whole(minimum=0), NULL),
            **_OURS,
        },
        "prompt",
    ),
    "Completion": thing(
        {
            "id": text(),
            "object": text(enum=["text_completion"]),
            "created": whole(),
            "model": text(),
            "choices": many(
                thing(
                    {
                        "index": whole(),
                        "text": text(),
                        "finish_reason": either(text(), NULL),
                        "logprobs": either({"type": "object"}, NULL),
                    },
                    *("index", "text"),
                )
            ),
            "usage": either(ref("Usage"), NULL),
        },
        *("id", "object", "created", "model", "choices"),
    ),
    "EmbeddingRequest": thing(
        {
            "model": MODEL,
            "input": either(text(), many(text()), many(whole()), many(many(whole()))),
            "dimensions": whole(minimum=1),
            "encoding_format": text(enum=["float", "base64"], default="float"),
            "user": text(),
            **_OURS,
        },
        "input",
    ),
    "Embeddings": thing(
        {
            "object": text(enum=["list"]),
            "model": text(),
            "data": many(
                thing(
                    {
                        "object": text(enum=["embedding"]),
                        "index": whole(),
                        "embedding": either(
                            many(number()), text("base64 of little-endian 32-bit floats")
                        ),
                    },
                    *("index", "embedding"),
                )
            ),
            "usage": ref("Usage"),
        },
        *("object", "data"),
    ),
    "ModelList": thing(
        {"object": text(enum=["list"]), "data": many(ref("Model"))}, "object", "data"
    ),
    "TokenizeRequest": thing(
        {
            "model": MODEL,
            "prompt": text("Either this or `messages`."),
            "messages": many(ref("Message")),
            "add_special_tokens": flag(default=True),
            "return_token_strs": flag(default=False),
        }
    ),
    "Tokens": thing(
        {
            "count": whole(),
            "max_model_len": whole(),
            "tokens": many(whole()),
            "token_strs": either(many(text()), NULL),
        },
        *("count", "tokens"),
    ),
    "DetokenizeRequest": thing({"model": MODEL, "tokens": many(whole())}, "tokens"),
    "Detokenized": thing({"prompt": text()}, "prompt"),
    "Status": thing({"status": text()}, "status"),
    "Error": thing(
        {
            "error": thing(
                {
                    "message": text("For people; may change."),
                    "type": text(
                        examples=["invalid_request_error", "rate_limit_error", "server_error"]
                    ),
                    "param": either(text(), NULL, description="The field it is about."),
                    "code": either(
                        text(examples=list(error_codes())),
                        whole(),
                        NULL,
                        description="For programs. Ours: "
                        + ", ".join(f"`{code}`" for code in error_codes())
                        + ". A target's own codes pass through.",
                    ),
                },
                *("message", "type", "param", "code"),
            )
        },
        "error",
        description="OpenAI's error object. In a stream it is the payload of the last `data:` "
        "event, and no `[DONE]` follows.",
    ),
}
