"""What a refusal is about, by codes and by the words of real servers."""

from __future__ import annotations

import json

import pytest

from server.dialects import openai
from server.dialects.trouble import Trouble, trouble_of

CONTEXT = [
    # vLLM, llama.cpp, OpenAI, Anthropic, Mistral, Cohere, text-generation-inference.
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "The decoder prompt (length 9) is longer than the maximum model length of 8.",
    "the request exceeds the available context size, try increasing it",
    "Your input exceeds the context window of this model. Please adjust your input.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
]
CONTENT = [
    "Content Exists Risk",
    "The response was filtered: it triggered Azure OpenAI's content management policy.",
    "Your request was rejected as a result of our safety system.",
    "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
]
NEITHER = [
    "Unrecognized request argument supplied: foo",
    "'temperature' must be at most 2",
    "You must provide a model parameter",
    "Invalid schema for response_format",
    "max_tokens must be at least 1",
    "string too short",
]


@pytest.mark.parametrize("message", CONTEXT)
def test_too_long(message: str) -> None:
    assert trouble_of(400, None, message) is Trouble.CONTEXT_LENGTH


@pytest.mark.parametrize("message", CONTENT)
def test_refused_content(message: str) -> None:
    assert trouble_of(400, None, message) is Trouble.CONTENT_POLICY


@pytest.mark.parametrize("message", NEITHER)
def test_any_other_refusal(message: str) -> None:
    assert trouble_of(400, "invalid_value", message) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("context_length_exceeded", Trouble.CONTEXT_LENGTH),
        ("content_filter", Trouble.CONTENT_POLICY),
        ("content_policy_violation", Trouble.CONTENT_POLICY),
        ("ResponsibleAIPolicyViolation", Trouble.CONTENT_POLICY),
        ("invalid_value", None),
        (400, None),
        (None, None),
    ],
)
def test_by_the_code(code: object, expected: Trouble | None) -> None:
    assert trouble_of(400, code, None) is expected


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500, 503])
def test_other_statuses_are_about_something_else(status: int) -> None:
    assert trouble_of(status, "context_length_exceeded", CONTEXT[0]) is None


def test_403_speaks_of_the_account_unless_its_words_leave_no_doubt() -> None:
    flagged = "Your input was flagged by the moderation."
    assert trouble_of(403, None, flagged) is Trouble.CONTENT_POLICY
    assert trouble_of(403, None, "Your account has been flagged for abuse.") is None
    assert trouble_of(403, None, CONTEXT[0]) is None
    error = openai.error_in(403, b'{"error": {"message": "Your input was flagged."}}')
    assert (error.status, error.outcome, error.message) == (
        400,
        "http_4xx",
        "Your input was flagged.",
    )
    hidden = openai.error_in(403, b'{"error": {"message": "Your account was flagged."}}')
    assert (hidden.status, hidden.outcome) == (502, "http_auth")
    assert "account was" not in hidden.message


def test_the_dialects_error_knows() -> None:
    body = b'{"error": {"message": "no", "code": "context_length_exceeded"}}'
    assert openai.error_in(400, body).trouble == "context_length"
    assert openai.error_in(400, b'{"error": {"message": "no"}}').trouble is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 8 tokens.", "context_length_exceeded"),
        ("Content Exists Risk", "content_policy_violation"),
        ("`temperature` should be a number.", None),
    ],
)
def test_trouble_told_in_words_gets_its_code(message: str, code: str | None) -> None:
    body = json.dumps({"error": {"message": message, "code": 400}}).encode()
    assert openai.error_in(400, body).code == (code or "upstream_error")
    own = json.dumps({"error": {"message": message, "code": "their_own"}}).encode()
    assert openai.error_in(400, own).code == "their_own"
