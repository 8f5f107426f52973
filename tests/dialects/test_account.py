"""What an upstream says of our account is nothing for clients, whatever its status."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from server.dialects import account
from server.dialects.account import Scrubber
from server.dialects.base import Dialect
from server.dialects.plain import Plain
from server.dialects.table import DIALECTS
from server.errors import UpstreamStatus

ALL: Final[dict[str, Dialect]] = {"openai": Plain(), **DIALECTS}
KEY: Final = "sk-live-4f9aXb7Qp2Lm8Rt6"


def message_of(name: str, message: str) -> Any:
    """A refusal as each of them writes it."""
    return {"error": {"message": message}} if name == "anthropic" else {"message": message}


def error_of(name: str, status: int, body: Any) -> UpstreamStatus:
    return ALL[name].error_in(status, json.dumps(body).encode())


MONEY: Final[list[tuple[str, int, Any]]] = [
    (
        "openai",
        429,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan and billing.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
    ),
    ("openai", 429, {"error": {"message": "Pay.", "code": "billing_hard_limit_reached"}}),
    ("openai", 429, {"error": {"message": "Pay.", "type": "exceeded_current_quota_error"}}),
    ("openai", 412, {"error": "Account acme is suspended, possibly due to reaching the limit."}),
    ("deepseek", 402, {"error": {"message": "Insufficient Balance", "code": "invalid_request"}}),
    ("deepseek", 400, {"error": {"message": "Insufficient Balance", "code": "invalid_request"}}),
    ("huggingface", 402, {"error": "You have exceeded your monthly included credits."}),
    (
        "anthropic",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Over.",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
    ),
    (
        "anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the API.",
            },
        },
    ),
]
KEYS: Final[list[tuple[str, int, Any]]] = [
    # xAI, Gemini, OpenAI.
    ("openai", 400, {"code": "Bad argument", "error": f"Incorrect API key provided: {KEY}."}),
    (
        "openai",
        400,
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
    ),
    ("openai", 404, {"error": {"message": "Your organization must be verified to use `o3`."}}),
    ("openai", 400, {"error": {"message": "No.", "code": "invalid_api_key"}}),
    (
        "anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "No.",
                "details": {"error_code": "organization_on_hold"},
            },
        },
    ),
    ("huggingface", 401, {"error": "Invalid username or password."}),
    ("mistral", 401, {"detail": "Unauthorized"}),
    ("cohere", 401, {"message": "invalid api token"}),
]


@pytest.mark.parametrize(("name", "status", "body"), [*MONEY, *KEYS])
def test_what_is_said_of_the_account_is_not_the_clients(name: str, status: int, body: Any) -> None:
    error = error_of(name, status, body)
    assert error.upstream_status in UpstreamStatus.ACCOUNT
    assert (error.status, error.code) == (502, "upstream_refused_credentials")
    assert (error.retryable, error.outcome) == (True, "http_auth")
    assert error.message == "The upstream refused this server's credentials or account."
    assert (error.param, error.headers()) == (None, {})
    assert f"HTTP {status}" in (error.detail or "")  # the log has the true one
    assert KEY not in (error.detail or "")


@pytest.mark.parametrize(("name", "status", "body"), MONEY)
def test_want_of_money_is_402(name: str, status: int, body: Any) -> None:
    """Which rests no key: another request may cost less."""
    assert error_of(name, status, body).upstream_status == 402


@pytest.mark.parametrize(
    "message",
    [
        "Invalid tool: its description says 'Incorrect API key'.",
        "messages[0]: insufficient balance",
        "The account number is missing.",
        "organization is not a known role",
    ],
)
def test_a_clients_own_words_are_not_the_accounts(message: str) -> None:
    for name in ALL:
        error = error_of(name, 400, message_of(name, message))
        assert (error.status, error.message) == (400, message)


def test_a_team_is_not_told() -> None:
    team = "0f8fad5b-d9cb-469f-a165-70867728950e"
    said = {"error": f"The model grok-x does not exist or your team {team} has no access to it."}
    error = error_of("openai", 404, said)
    assert (error.code, team in error.message) == ("model_not_found", False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sk-proj-abc_123-def456ghi no", "… no"),
        ("sk-ant-ab********wxyz.", "…"),
        ("hf_AbCdEfGhIjKlMn0p", "…"),
        ("AIzaSyA1234567890abcdefghijk", "…"),
        ("Bearer abcdefghijklmnop", "…"),
        ("org-9Zk3LmQ8vBn2Xc7T,", "…,"),
        ("sk-4f9aXb7Qp2Lm8/Rt6+Wz==, no", "…, no"),
        ("ask us about req_011CaBcDeF123456.", "ask us about …."),
        *(
            (name, name)
            for name in (
                "hf-internal-testing/tiny-random-gpt2",
                "sk-learn-like-interfaces",
                "org-wide-settings-2026",
                "proj_management",
                "a task-1234567890123",
                "req_handler_2 and req_validate2",
            )
        ),
    ],
)
def test_what_looks_like_a_secret_and_what_does_not(text: str, told: str) -> None:
    assert error_of("openai", 400, {"error": text}).message == told


# --- what is told of a long text


@pytest.mark.parametrize("key", [KEY, "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY", "open,sesame!of+lab/7"])
def test_where_a_text_is_cut_no_key_is(key: str) -> None:
    """What nothing knows again, since its end is gone, goes as a whole."""
    for before in (*range(1960, 2001), *range(7960, 8001)):
        text = account.told("x" * (before - 1) + f" {key} is no key of ours")
        assert len(text) <= 2000
        assert key[:6] not in text or key in text
    for before in (*range(460, 501), *range(1960, 2001)):
        for body in (f"{'x' * (before - 1)} {key} no", f"{'x' * (before - 1)} {key} no".encode()):
            text = account.noted(body)
            assert len(text) <= 500
            assert key[:6] not in text or key in text


def test_what_is_short_is_told_as_it_is() -> None:
    assert account.told("m" * 2000) == "m" * 2000
    assert account.noted("caf\u00e9".encode("latin-1")) == "caf\ufffd"
    assert account.place("messages[0].content") == "messages[0].content"
    assert [account.place(odd) for odd in (None, 7, "", ["a"])] == [None] * 4


# --- what an account calls its own

OWN: Final = Scrubber(
    "http://lab-user-1:lab%20pass%201@gpu-box.lab.example:8000/v1/",
    (
        {"authorization": "Bearer open,sesame!of-the+lab/7", "x-title": "Lab"},
        {"openai-organization": "acme-research"},
    ),
    "http://proxy.lab.example:3128",
)


@pytest.mark.parametrize(
    ("said", "client", "log"),
    [
        ("key open,sesame!of-the+lab/7!", "key …!", "key …!"),
        ("OPEN,SESAME!OF-THE+LAB/7", "…", "…"),
        ("acme-research may not", "… may not", "… may not"),
        ("lab-user-1, lab%20pass%201, lab pass 1", "…, …, …", "…, …, …"),
        ("POST http://gpu-box.lab.example:8000/v1/chat", "POST …/chat", None),
        ("at gpu-box.lab.example:8000", "at …", None),
        ("no GPU-box.lab.example", "no …", None),
        ("through proxy.lab.example:3128", "through …", None),
        ("Lab is a word, and so is Bearer", None, None),
    ],
)
def test_an_accounts_own(said: str, client: str | None, log: str | None) -> None:
    """None: it stays. The log may tell addresses, which say where something broke."""
    error = UpstreamStatus(400, message=said, param=said, code="a_code", detail=said)
    OWN.clean(error)
    expected = said if client is None else client
    assert (error.message, error.param, str(error)) == (expected, expected, expected)
    assert error.detail == (said if log is None else log)
    assert (error.code, error.type) == ("a_code", "invalid_request_error")


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (500, "server_error")]
)
def test_words_to_choose_by_are_words(status: int, kind: str) -> None:
    error = UpstreamStatus(status, message="No.", code="acme-research", type="acme-research_error")
    OWN.clean(error)
    assert (error.code, error.type) == ("upstream_error", kind)


def test_an_account_without_anything_of_its_own() -> None:
    error = UpstreamStatus(400, message="No.", detail="HTTP 400")
    Scrubber("http://gpu/", ({"x-short": "word"},)).clean(error)
    assert (error.message, error.detail) == ("No.", "HTTP 400")
