"""The hierarchy: complete, drawn, and each class with all that a renderer needs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from server import errors
from server.errors import (
    BindError,
    ConfigError,
    ConnectFailed,
    EngineError,
    EngineNotReady,
    InvalidRequest,
    MethodNotAllowed,
    NotAuthenticated,
    Overloaded,
    RateLimited,
    RoundhouseError,
    StartError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)

TYPES = {
    "server_error",
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
}


def classes(base: type[RoundhouseError] = RoundhouseError) -> Iterator[type[RoundhouseError]]:
    for child in base.__subclasses__():
        if child.__module__ == "server.errors":
            yield child
            yield from classes(child)


CLASSES = sorted(set(classes()), key=lambda one: one.__name__)


def tree() -> dict[str, tuple[int, str]]:
    """Name → (depth, status) as the docstring draws them."""
    rows = re.findall(r"^ {4}([│ ]*)(?:├── |└── )(\w+) +(\d{3}|any)?", errors.__doc__ or "", re.M)
    return {name: (len(bars) // 4 + 1, status) for bars, name, status in rows}


def test_the_tree_names_every_class() -> None:
    assert set(tree()) == {one.__name__ for one in CLASSES}


@pytest.mark.parametrize("one", CLASSES)
def test_the_tree_is_true(one: type[RoundhouseError]) -> None:
    depth, status = tree()[one.__name__]
    assert depth == len(one.__mro__) - RoundhouseError.__mro__.__len__()
    if status.isdigit():
        assert one.status == int(status)


@pytest.mark.parametrize("one", CLASSES)
def test_every_class_is_complete(one: type[RoundhouseError]) -> None:
    assert 400 <= one.status <= 599
    assert one.type in TYPES
    assert re.fullmatch(r"[a-z_]+", one.code)
    assert inspect.signature(one.__init__).parameters["message"].name == "message" or (
        one is UpstreamStatus
    )
    if issubclass(one, UpstreamError):
        assert re.fullmatch(r"[a-z_0-9]+", one.outcome)


def test_codes_are_told_apart() -> None:
    leaves = [one for one in CLASSES if not one.__subclasses__() and one is not UpstreamStatus]
    codes = [one.code for one in leaves]
    assert len(codes) == len(set(codes))


def test_body_and_headers() -> None:
    error = InvalidRequest("No.", param="n", retry_after=1.2, detail="secret")
    assert error.body() == {
        "error": {
            "message": "No.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_value",
        }
    }
    assert error.headers() == {"retry-after": "2"}
    assert InvalidRequest("No.").headers() == {}
    assert InvalidRequest("No.", retry_after=0).headers() == {"retry-after": "1"}
    assert InvalidRequest("No.", code="other").code == "other"
    assert InvalidRequest.code == "invalid_value"


def test_what_passes_says_when() -> None:
    assert EngineNotReady("No.").headers() == {"retry-after": "5"}
    assert Overloaded("No.", retry_after=17).headers() == {"retry-after": "17"}


def test_a_limit_says_when_or_that_waiting_is_of_no_use() -> None:
    standings = {"x-ratelimit-limit-requests": "3"}
    passing = RateLimited("No.", standings=standings, retry_after=0.2)
    assert passing.headers() == {"retry-after": "1", **standings}
    final = RateLimited("No.", standings=standings, code="request_too_large")
    assert final.headers() == {**standings, "x-should-retry": "false"}
    assert (passing.code, final.code) == ("rate_limit_exceeded", "request_too_large")


def test_headers_of_their_own() -> None:
    assert NotAuthenticated("No.").headers() == {"www-authenticate": "Bearer"}
    assert MethodNotAllowed("No.", allow=("GET", "POST")).headers() == {"allow": "GET, POST"}


@pytest.mark.parametrize("one", [ConnectFailed, UpstreamTimeout])
def test_outcomes_are_closed(one: Any) -> None:
    for outcome in one.OUTCOMES:
        assert one("No.", outcome=outcome).outcome == outcome
    with pytest.raises(ValueError, match="else"):
        one("No.", outcome="else")


@pytest.mark.parametrize(
    ("upstream", "status", "outcome", "retryable", "kind"),
    [
        (400, 400, "http_4xx", False, "invalid_request_error"),
        (401, 502, "http_auth", True, "server_error"),
        (402, 502, "http_auth", True, "server_error"),
        (403, 502, "http_auth", True, "server_error"),
        (404, 404, "http_4xx", False, "invalid_request_error"),
        (408, 408, "http_4xx", True, "invalid_request_error"),
        (413, 413, "http_4xx", False, "invalid_request_error"),
        (422, 422, "http_4xx", False, "invalid_request_error"),
        (429, 429, "http_429", True, "rate_limit_error"),
        (500, 500, "http_5xx", True, "server_error"),
        (503, 503, "http_5xx", True, "server_error"),
        (529, 503, "http_5xx", True, "server_error"),
        (204, 502, "protocol", True, "server_error"),
        (307, 502, "protocol", True, "server_error"),
        (999, 502, "protocol", True, "server_error"),
    ],
)
def test_statuses(upstream: int, status: int, outcome: str, retryable: bool, kind: str) -> None:
    error = UpstreamStatus(upstream, message="No.")
    found = (error.status, error.outcome, error.retryable, error.type)
    assert found == (status, outcome, retryable, kind)
    assert error.upstream_status == upstream


def test_a_type_of_the_upstreams_own() -> None:
    assert UpstreamStatus(400, message="No.", type="odd_error").type == "odd_error"


def test_config_errors_are_one_paragraph() -> None:
    error = ConfigError("Odd.", file="a.yaml", line=3, key="models.x", hint="Do so.")
    assert str(error) == "a.yaml:3: models.x: Odd. Do so."
    assert str(ConfigError("Odd.", file="a.yaml")) == "a.yaml: Odd."
    assert str(ConfigError("Odd.")) == "Odd."


def test_exit_codes_are_told_apart() -> None:
    codes = [one.exit_code for one in (StartError, ConfigError, BindError, EngineError)]
    assert len(set(codes)) == 4
    error = EngineError("Gone.", reason="memory", terminal=True, log_tail=("a",), detail="d")
    assert (error.reason, error.terminal, error.log_tail, error.detail) == (
        "memory",
        True,
        ("a",),
        "d",
    )
