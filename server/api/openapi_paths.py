"""Every documented path of the two listeners."""

from __future__ import annotations

from typing import Final

from server.api.openapi_engines import ENGINES
from server.api.openapi_parts import (
    HEALTH,
    SELF,
    Paths,
    inference,
    json_of,
    ok,
    one,
    operation,
    path,
    plain,
)
from server.api.openapi_plans import PLANS
from server.api.openapi_rerank import RERANK
from server.api.openapi_weights import WEIGHTS

_CHAT: Final = {
    "model": "qwen3-8b",
    "messages": [{"role": "user", "content": "What is a turntable?"}],
}
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CHAT_EXAMPLES: Final = {
    "plain": {"summary": "A question", "value": _CHAT},
    "stream": {
        "summary": "As a stream, with usage",
        "value": {**_CHAT, "stream": True, "stream_options": {"include_usage": True}},
    },
    "tools": {
        "summary": "With a tool",
        "value": {
            "model": "qwen3-8b",
            "messages": [{"role": "user", "content": "How is the weather in Swindon?"}],
            "tools": [_TOOL],
        },
    },
    "schema": {
        "summary": "An answer in a JSON schema",
        "value": {
            **_CHAT,
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "schema": {
                        "type": "object",
                        "properties": {"answer": {"type": "string"}},
                        "required": ["answer"],
                    },
                },
            },
        },
    },
}
_STREAM_EXAMPLE: Final = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795219200,'
    '"model":"qwen3-8b","choices":[{"index":0,"delta":{"role":"assistant","content":"A "},'
    '"finish_reason":null}]}\n\n'
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795219200,'
    '"model":"qwen3-8b","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
)


_USAGE: Final = {"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20}
_ANSWER: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795219200,
    "model": "qwen3-8b",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It turns locomotives around."},
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}
_CONTINUED: Final = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1795219200,
    "model": "qwen3-8b",
    "choices": [{"index": 0, "text": " where engines are kept.", "finish_reason": "stop"}],
    "usage": _USAGE,
}
_VECTORS: Final = {
    "object": "list",
    "model": "minilm",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.021, -0.047, 0.13]}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
_STREAMED: Final = plain("text/event-stream", _STREAM_EXAMPLE)
_QWEN: Final = {
    "id": "qwen3-8b",
    "object": "model",
    "created": 1795219200,
    "owned_by": "roundhouse",
    "roundhouse": {"card": "Qwen/Qwen3-8B", "type": "chat", "targets": ["engine/qwen"]},
}
PUBLIC: Final[Paths] = {
    "/v1/chat/completions": {
        "post": inference(
            "createChatCompletion",
            "Answer a conversation",
            json_of("ChatRequest", _CHAT_EXAMPLES),
            {**json_of("ChatCompletion", one(_ANSWER)), **_STREAMED},
            description="Other fields than these are passed on to the target.",
        )
    },
    "/v1/completions": {
        "post": inference(
            "createCompletion",
            "Continue a text",
            json_of("CompletionRequest", one({"model": "qwen3-8b", "prompt": "A roundhouse is"})),
            {
                **json_of("Completion", one(_CONTINUED)),
                **plain("text/event-stream", "data: {…}\n\ndata: [DONE]\n\n"),
            },
        )
    },
    "/v1/embeddings": {
        "post": inference(
            "createEmbedding",
            "Turn texts into vectors",
            json_of("EmbeddingRequest", one({"model": "minilm", "input": ["a turntable"]})),
            json_of("Embeddings", one(_VECTORS)),
        )
    },
    **RERANK,
    "/v1/models": {
        "get": operation(
            "models",
            "listModels",
            "The models that this key may use",
            ok(
                "In the config's order.",
                json_of("ModelList", one({"object": "list", "data": [_QWEN]})),
            ),
            fails=("401",),
        )
    },
    "/v1/models/{id}": {
        "get": operation(
            "models",
            "getModel",
            "One model",
            ok("It exists.", json_of("Model", one(_QWEN))),
            fails=("401", "403", "404"),
            parameters=(path("id", "The id as it is; it may hold slashes.", "Qwen/Qwen3-8B"),),
        )
    },
    "/v1/tokenize": {
        "post": inference(
            "tokenize",
            "Count and list the tokens of a text or a conversation",
            json_of("TokenizeRequest", one({"model": "qwen3-8b", "prompt": "Hello"})),
            json_of("Tokens", one({"count": 1, "max_model_len": 16384, "tokens": [9707]})),
            description="For models on vLLM engines.",
        )
    },
    "/v1/detokenize": {
        "post": inference(
            "detokenize",
            "The text of these tokens",
            json_of("DetokenizeRequest", one({"model": "qwen3-8b", "tokens": [9707]})),
            json_of("Detokenized", one({"prompt": "Hello"})),
            description="For models on vLLM engines.",
        )
    },
    **HEALTH,
    **SELF,
}

_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

ADMIN: Final[Paths] = {
    **ENGINES,
    **WEIGHTS,
    **PLANS,
    "/reload": {
        "post": operation(
            "config",
            "reload",
            "Read the config again, whole or not at all",
            ok(
                "The config in use.",
                json_of("Reload", one({"result": "ok", "changed": ["models"]})),
            ),
            fails=("400", "401", "403"),
        )
    },
    "/metrics": {
        "get": operation(
            "metrics",
            "metrics",
            "Roundhouse's own metrics",
            ok(
                "Prometheus text, or OpenMetrics if asked for.",
                plain(_PROMETHEUS, 'roundhouse_build_info{version="0.1.0"} 1.0\n'),
            ),
            fails=("401", "403"),
        )
    },
    "/metrics/engines": {
        "get": operation(
            "metrics",
            "engineMetrics",
            "The engines' own metrics, labelled `roundhouse_engine`",
            ok(
                "Prometheus text. Engines that did not answer are named in "
                "`x-roundhouse-left-out`.",
                plain(_PROMETHEUS, 'vllm:num_requests_running{roundhouse_engine="qwen"} 3.0\n'),
            ),
            fails=("401", "403"),
        )
    },
    **HEALTH,
    **SELF,
}
