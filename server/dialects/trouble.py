"""What an upstream's refusal is about, where that decides who may answer instead. Pure."""

from __future__ import annotations

import enum
import re
from typing import Final


class Trouble(enum.StrEnum):
    """A client's own error that another model may not have."""

    #: The prompt, or prompt and answer together, are longer than the model's context window.
    CONTEXT_LENGTH = "context_length"
    #: The provider will not answer such a prompt.
    CONTENT_POLICY = "content_policy"


_STATUSES: Final = frozenset({400, 403, 413, 422})
_CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_CONTENT_CODES: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "moderation_blocked",
        "invalid_prompt",
        "responsibleaipolicyviolation",
    }
)
#: As vLLM, llama.cpp, OpenAI, Anthropic, Mistral, Cohere, DeepSeek and Hugging Face say it.
_CONTEXT: Final = re.compile(
    r"max(imum)? (context|model|sequence|prompt|input) len(gth)?|context (length|window|size)"
    r"|prompt (is|was) too long|too many (input )?tokens|input (is )?too long"
    r"|exceeds? the (model'?s )?(maximum|available) (context|number of tokens|length)"
    r"|`?inputs`? tokens \+ `?max_new_tokens`?",
    re.IGNORECASE,
)
_CONTENT: Final = re.compile(
    r"content (management |moderation )?(policy|filter)|content exists risk|safety (system|policy)"
    r"|flagged (as|for|by)|usage polic(y|ies)",
    re.IGNORECASE,
)
_FLAGGED: Final = re.compile(
    r"\b(input|prompt|content|message)s? (was|were|is|has been) (flagged|blocked|rejected)",
    re.IGNORECASE,
)


def trouble_of(status: int, code: object, message: object) -> Trouble | None:
    """By the code where it has one that is known, else by its words."""
    if status not in _STATUSES:
        return None
    if isinstance(code, str):
        if code.lower() in _CONTEXT_CODES:
            return Trouble.CONTEXT_LENGTH
        if code.lower() in _CONTENT_CODES:
            return Trouble.CONTENT_POLICY
    if not isinstance(message, str):
        return None
    if status == 403:  # which speaks of our account, unless its words leave no doubt
        return Trouble.CONTENT_POLICY if _FLAGGED.search(message) else None
    if _CONTEXT.search(message):
        return Trouble.CONTEXT_LENGTH
    return Trouble.CONTENT_POLICY if _CONTENT.search(message) else None
