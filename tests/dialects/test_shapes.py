"""Errors in whatever shape: what was found wrong, and when to come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.openai import error_in


def heard(status: int, body: Any) -> tuple[int, str, str, str | None, float | None]:
    found = error_in(status, json.dumps(body).encode())
    return found.status, found.code, found.message, found.param, found.retry_after


def test_a_list_of_findings_is_told_without_what_was_put_in() -> None:
    """As FastAPI refuses a body."""
    finding = {"loc": ["body", "n"], "msg": "Input should be valid", "input": "of the prompt"}
    found = heard(422, {"detail": [finding, "odd", {"msg": "No"}]})
    assert found == (422, "upstream_error", "n: Input should be valid; No", "n", None)


@pytest.mark.parametrize("detail", [[], {}, None, 5])
def test_details_that_say_nothing(detail: Any) -> None:
    assert heard(422, {"detail": detail})[2] == "The upstream refused the request (422)."


@pytest.mark.parametrize(
    "error",
    [
        {"message": "Loading model", "type": "unavailable_error", "code": 503},
        {"message": "The model is loading.", "code": "engine_loading"},
        {"message": "Model is currently loading"},
        {"message": "x", "code": "engine_loading"},
    ],
)
def test_a_model_that_loads_is_worth_waiting_for(error: dict[str, Any]) -> None:
    text = "The model is being loaded at the upstream."
    assert heard(503, {"error": error}) == (503, "engine_loading", text, None, 5.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, {"message": "Loading model"}),
        (503, {"message": "Overloaded", "code": "overloaded"}),
        (503, {"message": ["Loading model"]}),
        (503, {"message": "No, the model is loading."}),
    ],
)
def test_what_only_sounds_like_loading(status: int, error: dict[str, Any]) -> None:
    text = f"The upstream failed ({status})."
    assert heard(status, {"error": error}) == (status, "upstream_error", text, None, None)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("16.4s", 16.4),
        ("0s", 1.0),
        ("5000s", 600.0),
        ("59.123456789s", 59.123456789),
        ("16.4", None),
        ("-1s", None),
        ("1m", None),
        ("9999999s", None),
        (5, None),
        (None, None),
    ],
)
def test_google_says_in_the_body_when_to_come_back(said: Any, seconds: float | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, 7, {"retryDelay": said}]
    error = {"code": 429, "message": "Quota exceeded", "details": details}
    assert heard(429, [{"error": error}])[4] == seconds
    assert heard(400, [{"error": error}])[4] is None
    assert heard(429, {"error": {**error, "details": {"retryDelay": said}}})[4] is None
