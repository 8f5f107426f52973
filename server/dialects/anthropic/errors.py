"""Error in: Anthropic's errors as OpenAI's. Pure.

Theirs are `{"type": "error", "error": {"type", "message", "details"}, "request_id"}`, with a status
or, in a stream, without one.
"""

from __future__ import annotations

from typing import Any, Final

from server.dialects import account, openai, shapes
from server.dialects.trouble import Trouble
from server.errors import UpstreamStatus

#: What an error's type stands for where there is no status.
STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def error_in(status: int, body: bytes) -> UpstreamStatus:
    """The error that an answer with this status stands for."""
    found = shapes.decoded(body)
    if not isinstance(found, dict) or not isinstance(found.get("error"), dict):
        return openai.error_in(status, body)
    return _error(status, found["error"], found.get("request_id"))


def error_of(found: Any) -> UpstreamStatus:
    """The error of an `error` event, or of one in an answer's clothes: status by its type."""
    error = found if isinstance(found, dict) else {"message": found}
    kind = error.get("type")
    return _error(STATUSES.get(kind, 500) if isinstance(kind, str) else 500, error, None)


def _error(status: int, error: dict[str, Any], request_id: Any) -> UpstreamStatus:
    kind, message, details = error.get("type"), error.get("message"), error.get("details")
    cause = details.get("error_code") if isinstance(details, dict) else None
    # The account's money, which is nothing for clients, comes with any status. No retry helps
    # there, but another account may.
    stands_for = account.NO_MONEY if kind == "billing_error" else status
    # In OpenAI's shape, so that its dialect judges what of it is for clients.
    said = {"message": message, "code": cause if isinstance(cause, str) else None}
    if status == 404 and isinstance(message, str) and message.startswith("model:"):
        said["code"] = "model_not_found"
    found = openai.error_in(stands_for, shapes.body_of(said))
    if found.trouble == Trouble.CONTEXT_LENGTH:
        found.code = "context_length_exceeded"
    if stands_for != status:
        found.detail = f"HTTP {status} as {found.detail}"
    if isinstance(request_id, str):
        found.detail = f"{found.detail} (request {account.noted(request_id)})"
    return found
