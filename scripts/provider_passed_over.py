"""What the official SDKs know of answers and ours do not have: its place, and why. A test holds it
against their types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

_OWN_TOOLS: Final = "of Anthropic's own tools, which no request here has"
_ACCOUNT: Final = "the account's affair"
_FLOATS: Final = "floats are asked for"
_THOUGHTS: Final = "of thoughts the texts are told"
PASSED_OVER: Final[Mapping[str, Mapping[str, str]]] = {
    "anthropic": {
        "id": "the answer's id is ours",
        "model": "the name that the client asked for stands there",
        "container": _OWN_TOOLS,
        "content[bash_code_execution_tool_result]": _OWN_TOOLS,
        "content[code_execution_tool_result]": _OWN_TOOLS,
        "content[container_upload]": _OWN_TOOLS,
        "content[server_tool_use]": _OWN_TOOLS,
        "content[text_editor_code_execution_tool_result]": _OWN_TOOLS,
        "content[tool_search_tool_result]": _OWN_TOOLS,
        "content[tool_use].caller": _OWN_TOOLS,
        "content[tool_use].toolset_name": _OWN_TOOLS,
        "content[web_fetch_tool_result]": _OWN_TOOLS,
        "content[web_search_tool_result]": _OWN_TOOLS,
        "usage.server_tool_use": _OWN_TOOLS,
        "diagnostics": "comes where it is asked for, and no request here can",
        "stop_details[refusal].category": "`refusal` has it where nothing explains more",
        "usage.cache_creation": "`cache_write_tokens` is the sum of it",
        "usage.inference_geo": _ACCOUNT,
        "usage.service_tier": "`batch`, which no request here is",
        "usage.speed": "comes where it is asked for, and no request here can",
    },
    "cohere": {
        "id": "the answer's id is ours",
        "logprobs.token_ids": "OpenAI's log probabilities have none",
        "usage.billed_units": "the tokens that the model had are told",
    },
    "cohere, embeddings": {
        "id": "OpenAI's lists of embeddings have none",
        "response_type": _FLOATS,
        "embeddings.base64": _FLOATS,
        "embeddings.binary": _FLOATS,
        "embeddings.int8": _FLOATS,
        "embeddings.ubinary": _FLOATS,
        "embeddings.uint8": _FLOATS,
        "images": "texts are sent alone",
        "texts": "the client's own",
        "meta.api_version": _ACCOUNT,
        "meta.warnings": _ACCOUNT,
        "meta.billed_units": "`input_tokens` are told, as they are billed",
        "meta.cached_tokens": "`input_tokens` are told, as they are billed",
        "meta.tokens": "`input_tokens` are told, as they are billed",
    },
    "mistral": {
        "choices.message.content[thinking].closed": "thoughts are whole",
        "choices.message.content[thinking].signature": "thoughts go back as texts",
        "choices.message.content[thinking].thinking[reference]": _THOUGHTS,
        "choices.message.content[thinking].thinking[tool_reference]": _THOUGHTS,
        "choices.message.tool_calls.type": "calls are those of functions",
    },
    "mistral, embeddings": {},
}


def passed_over() -> Iterator[tuple[str, str, str]]:
    """Provider, places and the reason that they have in common."""
    for name, places in PASSED_OVER.items():
        by_reason: dict[str, list[str]] = {}
        for place, reason in places.items():
            by_reason.setdefault(reason, []).append(f"`{place}`")
        for reason, shown in by_reason.items():
            yield name, ", ".join(shown), reason
