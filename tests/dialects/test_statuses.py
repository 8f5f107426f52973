"""What every status of every provider becomes, in the shapes that each of them sends.

One table for all: our status, the code, whether another target may be tried, and the outcome that
the breakers and the metrics are told. What speaks of the account is 502 to a client.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final, NamedTuple

import pytest

from server.dialects.base import Dialect
from server.dialects.plain import Plain
from server.dialects.table import DIALECTS
from server.dialects.trouble import Trouble
from server.errors import UpstreamAborted, UpstreamError, UpstreamStatus
from tests.dialects.replay import ASKED, chunk

ALL: Final[dict[str, Dialect]] = {"openai": Plain(), **DIALECTS}
ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
KEY: Final = "sk-live-4f9aXb7Qp2Lm8Rt6"
SECRETS: Final = (KEY, "org-9Zk3LmQ8vBn2Xc7T", "proj_7Hs0PqW4eRt6Yu1I", "api.example.com")
#: What no client must read, in the words of a refusal.
WORDS: Final = (
    f"Incorrect credentials {KEY} of {SECRETS[1]} in {SECRETS[2]} for POST https://api.example.com"
)
#: Where a client reads the words themselves, which may name keys and organisations, but no address.
SHOWN: Final = WORDS.removesuffix(" for POST https://api.example.com")


def body_of(name: str, status: int, message: str) -> Any:
    """An error as this provider writes it."""
    if name == "anthropic":
        error = {"type": ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return {"type": "error", "error": error, "request_id": "req_1"}
    if name == "cohere":
        return {"id": "7c1a", "message": message}
    if name == "mistral":
        if status == 401:
            return {"detail": message}
        if status == 422:
            detail = {"loc": ["body", "x"], "msg": message, "type": "extra_forbidden", "input": 1}
            return {"object": "error", "message": {"detail": [detail]}, "type": "invalid_request"}
        return {"object": "error", "message": message, "type": "x", "param": None, "code": "1300"}
    if name == "huggingface":
        return {"error": message}
    # DeepSeek's code is its type once more.
    code = "invalid_request_error" if name == "deepseek" else None
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_of(name: str, status: int, body: Any) -> UpstreamStatus:
    return ALL[name].error_in(status, json.dumps(body).encode())


class Row(NamedTuple):
    """What a status becomes."""

    ours: int
    type: str
    code: str
    retryable: bool
    outcome: str


OWN, ACCOUNT = "upstream_error", "upstream_refused_credentials"
TABLE: Final = {
    400: Row(400, "invalid_request_error", OWN, False, "http_4xx"),
    401: Row(502, "server_error", ACCOUNT, True, "http_auth"),
    402: Row(502, "server_error", ACCOUNT, True, "http_auth"),
    403: Row(502, "server_error", ACCOUNT, True, "http_auth"),
    404: Row(404, "invalid_request_error", OWN, False, "http_4xx"),
    408: Row(408, "invalid_request_error", OWN, True, "http_4xx"),
    409: Row(409, "invalid_request_error", OWN, False, "http_4xx"),
    413: Row(413, "invalid_request_error", "payload_too_large", False, "http_4xx"),
    422: Row(422, "invalid_request_error", OWN, False, "http_4xx"),
    429: Row(429, "rate_limit_error", OWN, True, "http_429"),
    499: Row(499, "invalid_request_error", OWN, True, "http_4xx"),
    500: Row(500, "server_error", OWN, True, "http_5xx"),
    501: Row(501, "server_error", OWN, True, "http_5xx"),
    502: Row(502, "server_error", OWN, True, "http_5xx"),
    503: Row(503, "server_error", OWN, True, "http_5xx"),
    504: Row(504, "server_error", OWN, True, "http_5xx"),
    529: Row(503, "server_error", OWN, True, "http_5xx"),
}
#: Where a provider means something else by a status.
ODD: Final = {
    # Its own codes are numbers.
    ("mistral", 429): TABLE[429]._replace(code="rate_limit_exceeded"),
    # That the caller hung up: we did not.
    ("cohere", 499): TABLE[502],
    # A word that it denies.
    ("cohere", 498): TABLE[400]._replace(code="content_policy_violation"),
}
ROWS: Final = [
    pytest.param(name, status, ODD.get((name, status), row), id=f"{name}-{status}")
    for name in ALL
    for status, row in [*TABLE.items(), *((s, r) for (n, s), r in ODD.items() if n == name)]
    if (name, status) not in ODD or row is not TABLE.get(status)
]


@pytest.mark.parametrize(("name", "status", "row"), ROWS)
def test_a_status(name: str, status: int, row: Row) -> None:
    shown = row.ours < 500 and status not in (429, 498)
    error = error_of(name, status, body_of(name, status, SHOWN if shown else WORDS))
    found = Row(error.status, error.type, error.code, error.retryable, error.outcome)
    assert found == row
    assert error.retry_after is None  # a head says it, and routing reads that
    told = json.dumps([error.body(), error.headers()])
    for secret in SECRETS:
        assert secret not in told
        assert secret == "api.example.com" or secret not in (error.detail or "")
    assert ("Incorrect credentials" in error.message) is shown


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("status", TABLE)
def test_a_proxy_in_between_says_the_same(name: str, status: int) -> None:
    """An error page is none of the provider's shapes."""
    error = ALL[name].error_in(status, b"<html><h1>Go away</h1></html>")
    row = ODD.get((name, status), TABLE[status])
    if (name, status) == ("mistral", 429):
        row = TABLE[429]
    assert Row(error.status, error.type, error.code, error.retryable, error.outcome) == row
    assert "Go away" not in error.message


# --- a model that is not there

MISSING: Final[list[tuple[str, int, Any]]] = [
    ("openai", 404, {"error": {"message": "Gone.", "code": "model_not_found"}}),
    ("openai", 404, {"error": {"message": "The model `x` does not exist.", "code": 404}}),
    ("openai", 404, {"error": {"message": 'model "x" not found, try pulling it first'}}),
    ("openai", 400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}),
    ("deepseek", 400, body_of("deepseek", 400, "Model Not Exist")),
    ("mistral", 400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model"}),
    ("cohere", 404, {"message": "model 'x' not found, make sure the correct ID was used."}),
    ("cohere", 404, {"message": "model 'x' was removed on September 15, 2025."}),
    ("anthropic", 404, body_of("anthropic", 404, "model: claude-x")),
    ("huggingface", 404, {"error": "Model x/y does not exist"}),
]


@pytest.mark.parametrize(("name", "status", "body"), MISSING)
def test_a_model_that_is_not_there(name: str, status: int, body: Any) -> None:
    error = error_of(name, status, body)
    assert (error.status, error.code, error.retryable) == (404, "model_not_found", False)


@pytest.mark.parametrize(
    "message",
    ["model: Field required", "Model x does not support tools", "The file model.py was not found"],
)
def test_a_model_that_is_there(message: str) -> None:
    for name in ALL:
        error = error_of(name, 400, body_of(name, 400, message))
        assert (error.status, error.code) == (400, "upstream_error")


# --- what of the client's own words is left

TROUBLES: Final = [
    (400, "This model's maximum context length is 8 tokens.", Trouble.CONTEXT_LENGTH),
    (413, "prompt is too long: 9 tokens > 8 maximum", Trouble.CONTEXT_LENGTH),
    (400, "Content Exists Risk", Trouble.CONTENT_POLICY),
    (422, "Your input was flagged by our safety system.", Trouble.CONTENT_POLICY),
]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("status", "message", "trouble"), TROUBLES)
def test_a_trouble_that_another_model_may_not_have(
    name: str, status: int, message: str, trouble: Trouble
) -> None:
    error = error_of(name, status, body_of(name, status, message))
    assert error.trouble == trouble
    assert (error.status, error.retryable) == (status, False)


def test_a_code_is_a_word() -> None:
    said = {"code": "Client specified an invalid argument", "error": "No."}
    assert error_of("openai", 400, said).code == "upstream_error"


# --- in the middle of a stream

RATE: Final = {"message": WORDS, "type": "rate_limit_error"}
EVENTS: Final[list[tuple[str, str | None, Any, int]]] = [
    ("openai", None, {"error": {"message": WORDS, "code": 429}}, 429),
    ("openai", None, {"error": {"message": WORDS, "code": "503"}}, 503),
    ("openai", None, {"error": RATE}, 429),
    ("openai", None, {"error": {"message": WORDS, "type": "server_error", "code": None}}, 500),
    ("openai", None, {"error": WORDS}, 500),
    ("openai", "error", {"message": WORDS, "code": 529}, 529),
    ("openai", None, {"error": {"message": WORDS, "code": "insufficient_quota"}}, 402),
    ("openai", None, {"error": {"message": WORDS, "code": True, "status": 7}}, 500),
    ("deepseek", None, {"error": {"message": WORDS, "type": "overloaded_error"}}, 503),
    ("deepseek", "error", {"message": WORDS}, 500),
    ("mistral", None, {"object": "error", "message": WORDS, "type": "rate_limited"}, 429),
    ("mistral", None, {"error": {"message": WORDS, "code": "3505"}}, 500),
    ("huggingface", None, {"error": {"message": WORDS, "http_status_code": 503}}, 503),
    ("huggingface", None, {"error": WORDS}, 500),
    ("anthropic", "error", body_of("anthropic", 529, WORDS), 529),
    ("anthropic", "error", body_of("anthropic", 500, WORDS), 500),
    ("anthropic", "error", body_of("anthropic", 429, WORDS), 429),
    ("anthropic", "error", body_of("anthropic", 402, WORDS), 402),
]
BEFORE: Final = {
    "anthropic": [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}
    ],
    "cohere": [{"type": "message-start", "delta": {"message": {"role": "assistant"}}}],
}


@pytest.mark.parametrize("wants", [True, False])
@pytest.mark.parametrize(("name", "event", "payload", "status"), EVENTS)
def test_an_error_in_the_middle_of_a_stream(
    name: str, event: str | None, payload: Any, status: int, wants: bool
) -> None:
    reader = ALL[name].reader(replace(ASKED, wants_usage=wants))
    for before in BEFORE.get(name, [chunk({"role": "assistant", "content": "a"})]):
        reader.feed(None, json.dumps(before).encode())
    with pytest.raises(UpstreamError) as caught:
        reader.feed(event, json.dumps(payload).encode())
    error = caught.value
    assert isinstance(error, UpstreamStatus)
    assert error.upstream_status == status
    assert error.retryable
    assert not reader.done
    told = json.dumps(error.body())
    for secret in SECRETS:
        assert secret not in told


@pytest.mark.parametrize("name", ["openai", "deepseek", "mistral", "huggingface"])
@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_end_that_is_an_error(name: str, reason: str) -> None:
    with pytest.raises(UpstreamAborted):
        ALL[name].reader(ASKED).feed(None, json.dumps(chunk({}, reason)).encode())


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_an_end_of_coheres_that_is_an_error(reason: str) -> None:
    delta = {"finish_reason": reason, "error": WORDS}
    payload = json.dumps({"type": "message-end", "delta": delta}).encode()
    with pytest.raises(UpstreamError) as caught:
        ALL["cohere"].reader(ASKED).feed(None, payload)
    assert caught.value.status == (504 if reason == "TIMEOUT" else 502)
    assert KEY not in json.dumps(caught.value.body())
