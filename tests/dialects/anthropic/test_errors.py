"""Errors: every one of the official SDK's types, and what must not leak."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from server.dialects.anthropic.errors import STATUSES
from server.dialects.trouble import Trouble
from tests.dialects.anthropic.helpers import DIALECT, theirs


def body(kind: str, message: str = "words", /, **more: Any) -> bytes:
    error = {"type": kind, "message": message, **more}
    return json.dumps({"type": "error", "error": error, "request_id": "req_7"}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "ours", "type_", "code", "retryable"),
    [
        (400, "invalid_request_error", 400, "invalid_request_error", "upstream_error", False),
        (401, "authentication_error", 502, "server_error", "upstream_refused_credentials", True),
        (402, "billing_error", 502, "server_error", "upstream_refused_credentials", True),
        (403, "permission_error", 502, "server_error", "upstream_refused_credentials", True),
        (404, "not_found_error", 404, "invalid_request_error", "upstream_error", False),
        (408, "timeout_error", 408, "invalid_request_error", "upstream_error", True),
        (409, "conflict_error", 409, "invalid_request_error", "upstream_error", False),
        (413, "request_too_large", 413, "invalid_request_error", "payload_too_large", False),
        (422, "invalid_request_error", 422, "invalid_request_error", "upstream_error", False),
        (429, "rate_limit_error", 429, "rate_limit_error", "upstream_error", True),
        (500, "api_error", 500, "server_error", "upstream_error", True),
        (503, "api_error", 503, "server_error", "upstream_error", True),
        (504, "timeout_error", 504, "server_error", "upstream_error", True),
        (529, "overloaded_error", 503, "server_error", "upstream_error", True),
    ],
)
def test_errors(status: int, kind: str, ours: int, type_: str, code: str, retryable: bool) -> None:
    error = DIALECT.error_in(status, body(kind))
    assert (error.upstream_status, error.status) == (status, ours)
    assert (error.type, error.code, error.retryable) == (type_, code, retryable)
    assert error.param is None
    assert "req_7" in (error.detail or "")
    assert ("words" in error.message) is (ours < 500 and status != 429)
    with pytest.raises(anthropic.APIStatusError) as said:  # their SDK knows this one
        theirs(body(kind), status=status)
    assert said.value.type == kind


def test_the_statuses_of_their_types() -> None:
    for kind, status in STATUSES.items():
        assert DIALECT.error_in(status, body(kind)).upstream_status == status


def test_a_model_that_they_do_not_have() -> None:
    error = DIALECT.error_in(404, body("not_found_error", "model: claude-x"))
    assert (error.status, error.code, error.message) == (404, "model_not_found", "model: claude-x")


def test_a_prompt_that_is_too_long() -> None:
    said = "prompt is too long: 210000 tokens > 200000 maximum"
    error = DIALECT.error_in(400, body("invalid_request_error", said))
    assert error.trouble == Trouble.CONTEXT_LENGTH
    assert error.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("status", "said", "more"),
    [
        (403, "Pay first.", {"type": "billing_error"}),
        (400, "Pay first.", {"type": "billing_error"}),
        (
            400,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans.",
            {},
        ),
        (
            400,
            "You have reached your API usage limits. You will regain access on 2026-12-01.",
            {},
        ),
        (429, "Over.", {"details": {"error_code": "enforced_spend_limit_reached"}}),
    ],
)
def test_the_accounts_money_is_not_the_clients(status: int, said: str, more: Any) -> None:
    """Another target may answer; this one is not asked again at once."""
    error = DIALECT.error_in(status, body("invalid_request_error", said, **more))
    assert (error.status, error.code) == (502, "upstream_refused_credentials")
    assert (error.retryable, error.outcome) == (True, "http_auth")
    assert said not in error.message
    assert said[:20] in (error.detail or "")
    assert str(status) in (error.detail or "")


def test_the_cause_has_a_name_where_it_is_the_clients_own() -> None:
    details = {"error_code": "request_body_encoding_invalid"}
    error = DIALECT.error_in(400, body("invalid_request_error", details=details))
    assert error.code == "request_body_encoding_invalid"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"[]",
        b'"text"',
        b'{"error": "text"}',
        b'{"message": "text"}',
        b'{"error": {"type": 7, "message": 7, "details": 7}, "request_id": 7}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [400, 401, 502])
def test_any_body_is_some_error(said: bytes, status: int) -> None:
    error = DIALECT.error_in(status, said)
    assert error.upstream_status == status
    assert isinstance(error.message, str)
    assert error.message
