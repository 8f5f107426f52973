"""Parameters of other APIs: what they are called in OpenAI's, instead of doing nothing in silence.

An upstream passes over what it does not know, so that `max_new_tokens` would not limit anything.
`null` says nothing, and passes.
Fields that vLLM takes beside OpenAI's (`top_k`, `min_tokens`, `ignore_eos`, …) are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from server.errors import InvalidRequest
from server.protocol.envelope import Surface
from server.protocol.parameters import given

#: What to use, by the older name.
_USE: Final = {
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_tokens_to_sample": "max_tokens",
    "num_predict": "max_tokens",
    "n_predict": "max_tokens",  # llama.cpp's; there it would win over `max_tokens`
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens",
    "num_return_sequences": "n",
    "stop_sequences": "stop",
    "stopping_criteria": "stop",
}
#: What else to do about it: a sentence's end.
_INSTEAD: Final = {
    "do_sample": "use `temperature`; 0 always takes the likeliest token",
    "num_ctx": "leave it out: the context window is the model's",
    "num_beams": "leave it out: answers are sampled; `n` asks for several",
    "early_stopping": "leave it out: it belongs to beam search",
    "wait_for_model": "leave it out: a request waits for its model in any case",
    "use_cache": "leave it out: answers are not kept, and prefixes are cached in any case",
    "options": "leave it out, and write what it holds at the top level by OpenAI's names",
    "parameters": "write what it holds at the top level, by OpenAI's names",
}
_INPUT: Final = {
    Surface.CHAT: "messages",
    Surface.COMPLETIONS: "prompt",
    Surface.EMBEDDINGS: "input",
}
NAMES: Final = frozenset({*_USE, *_INSTEAD, "inputs", "return_full_text"})


def refusal(members: Mapping[str, Any], surface: Surface) -> InvalidRequest | None:
    """The error for the first such name of a body; None for nearly every body."""
    if NAMES.isdisjoint(members) or surface not in _INPUT:
        return None
    name = next((n for n in members if n in NAMES and given(members, n) is not None), None)
    if name is None:
        return None
    return InvalidRequest(
        f"`{name}` is no parameter of OpenAI's API: {instead(name, surface)}.",
        param=name,
        code="unsupported_parameter",
    )


def instead(name: str, surface: Surface) -> str:
    """What to do about one of NAMES."""
    if name == "inputs":
        return f"use `{_INPUT[surface]}`"
    if name == "return_full_text":
        echo = surface is Surface.COMPLETIONS
        return "use `echo`" if echo else "leave it out: the prompt is not repeated here"
    return f"use `{_USE[name]}`" if name in _USE else _INSTEAD[name]
