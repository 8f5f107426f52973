"""The OpenAI dialect's four pure functions."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.dialects import openai
from server.dialects.openai import Usage
from server.errors import UpstreamProtocol
from server.protocol import envelope
from server.protocol.envelope import Surface
from server.protocol.request import Request


def request_of(body: dict[str, Any], surface: Surface = Surface.CHAT) -> Request:
    options = body.get("stream_options") or {}
    return Request(
        id="req_1",
        surface=surface,
        model=body["model"],
        members=envelope.members(json.dumps(body).encode()),
        stream=bool(body.get("stream")),
        wants_usage=bool(options.get("include_usage")),
        legacy_functions=False,
        tenant=None,
        arrived=0.0,
        deadline=1.0,
    )


def out(request: Request, **how: Any) -> dict[str, Any]:
    how = {"model": "theirs", "tenant": None, **how}
    return dict(json.loads(openai.request_out(request, **how)))


ASK = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.5}

# --- request out


def test_only_the_model_changes() -> None:
    assert out(request_of(ASK)) == {**ASK, "model": "theirs"}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, {"include_usage": True, "x": 1}),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}),
    ],
)
def test_usage_is_always_asked_for(options: Any, sent: Any) -> None:
    body = {**ASK, "stream": True, "stream_options": options}
    assert out(request_of(body)) == {**body, "model": "theirs", "stream_options": sent}
    bare = {**ASK, "stream": True}
    assert out(request_of(bare))["stream_options"] == {"include_usage": True}


def test_other_stream_options_pass_as_they_are() -> None:
    request = request_of({**ASK, "stream": True})
    request.members["stream_options"] = msgspec.Raw(b'{"x":1e999}')
    sent = openai.request_out(request, model="theirs", tenant=None)
    assert b'"stream_options":{"x":1e999,"include_usage":true}' in sent


def test_usage_is_not_asked_where_there_is_no_stream() -> None:
    assert "stream_options" not in out(request_of({**ASK, "stream": False}))


def test_engine_only_fields_are_taken_out_and_named_once() -> None:
    body = {**ASK, **dict.fromkeys(openai.ENGINE_ONLY, 1)}
    request = request_of(body)
    for _ in range(2):
        assert out(request) == {**ASK, "model": "theirs"}
    assert sorted(request.dropped) == sorted(openai.ENGINE_ONLY)


def test_the_tenant_salts_the_cache() -> None:
    request = request_of({**ASK, "cache_salt": "mine"})
    assert out(request, tenant="t1")["cache_salt"] == "t1"
    embed = request_of({"model": "m", "input": "a"}, Surface.EMBEDDINGS)
    assert out(embed, tenant="t1") == {"model": "theirs", "input": "a"}


def test_values_pass_as_they_were_written() -> None:
    request = request_of(ASK)
    request.members["temperature"] = Raw(b"5.0e-1")
    assert b'"temperature":5.0e-1' in openai.request_out(request, model="x", tenant=None)


def test_every_surface_has_a_path_or_is_an_engines_own() -> None:
    assert set(Surface) - set(openai.PATHS) == {Surface.TOKENIZE, Surface.DETOKENIZE}


# --- answer in


def facts(**answer: Any) -> openai.Facts:
    return openai.answer_in(json.dumps(answer).encode())


def test_an_answer() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    found = facts(choices=[{"finish_reason": "stop", "message": {}}], usage=usage)
    assert found == openai.Facts(usage=Usage(7, 2, 3))
    assert openai.answer_in(b"\n\n {}") == openai.Facts()


@pytest.mark.parametrize(
    ("choices", "usage", "usage_only"),
    [
        ([], {"prompt_tokens": 1}, True),
        ([], {}, True),
        ([], None, False),
        ([], "none", False),
        (None, {"prompt_tokens": 1}, False),
        ([{}], {"prompt_tokens": 1}, False),
    ],
)
def test_which_event_is_usage_only(choices: Any, usage: Any, usage_only: bool) -> None:
    assert facts(choices=choices, usage=usage).usage_only is usage_only


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7.0, "completion_tokens": None}, Usage(7, 0, 0, partly=True)),
        ({"prompt_tokens": 7.0, "completion_tokens": 0}, Usage(7, 0, 0)),
        ({"prompt_tokens": "7", "completion_tokens": -1}, Usage(partly=True)),
        ({"prompt_tokens": 1e300, "completion_tokens": 3}, Usage(0, 3, partly=True)),
        ({"prompt_tokens": 2**53 - 1, "completion_tokens": 3}, Usage(0, 3, partly=True)),
        ({"prompt_tokens": 7, "completion_tokens": True}, Usage(7, partly=True)),
        ({"prompt_tokens_details": None}, Usage(partly=True)),
        ({"prompt_tokens_details": [1]}, Usage(partly=True)),
        ({"prompt_tokens_details": {"cached_tokens": None}}, Usage(partly=True)),
        ([], None),
    ],
)
def test_usage_in_nonsense_breaks_nothing(usage: Any, expected: Usage | None) -> None:
    assert facts(choices=[{}], usage=usage).usage == expected


@pytest.mark.parametrize("answer", [{"data": []}, {"results": []}])
def test_vectors_and_rankings_have_no_completion(answer: dict[str, Any]) -> None:
    for said in (
        {"prompt_tokens": 7},
        {"total_tokens": 7},
        {"prompt_tokens": 7, "total_tokens": 9},
    ):
        assert facts(**answer, usage=said).usage == Usage(7)
    odd: dict[str, Any] = {"prompt_tokens": 7, "completion_tokens": "many"}
    assert facts(**answer, usage=odd).usage == Usage(7, partly=True)
    odder = {"total_tokens": 7, "prompt_tokens_details": [1]}
    assert facts(**answer, usage=odder).usage == Usage(7)
    assert facts(**answer, usage={"total_tokens": "many"}).usage == Usage(partly=True)


def test_where_a_text_is_written_the_total_tells_nothing_of_the_prompt() -> None:
    assert facts(choices=[{}], usage={"total_tokens": 7}).usage == Usage(partly=True)
    said = {"total_tokens": 7, "completion_tokens": 2}
    assert facts(usage=said).usage == Usage(0, 2, partly=True)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_the_engine_gave_up(reason: str) -> None:
    assert facts(choices=[{"finish_reason": None}, {"finish_reason": reason}]).aborted
    assert not facts(choices=[{"finish_reason": "stop"}]).aborted


def test_an_error_inside() -> None:
    assert facts(error={"message": "x"}).error == {"message": "x"}
    assert facts(error=None, choices=[]).error is None


@pytest.mark.parametrize(
    "payload",
    [b"", b"oops", b"[]", b"1", b'"x"', b"{", b'{"choices":1}', b"[" * 100_000, b"\xff{}"],
)
def test_what_is_no_answer(payload: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        openai.answer_in(payload)


# --- error in


def error_in(status: int, body: Any = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return openai.error_in(status, raw)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "code": "ctx"}},
        {"error": "too long"},
        {"object": "error", "message": "too long"},
        {"detail": "too long"},
    ],
)
def test_messages_of_the_clients_own(body: Any) -> None:
    error = error_in(400, body)
    assert (error.status, error.message) == (400, "too long")
    assert error.detail == "HTTP 400"  # the words may quote a prompt, which is not for the log


@pytest.mark.parametrize("body", [None, [], b"<html>", b"", {"detail": []}, {"error": 7}, b"["])
def test_an_error_without_words(body: Any) -> None:
    assert error_in(422, body).message == "The upstream refused the request (422)."


def test_an_error_keeps_what_a_client_can_use() -> None:
    said = {"message": "m " * 1500, "type": "bad_error", "code": "c", "param": "p"}
    error = error_in(400, {"error": said})
    found = (error.type, error.code, error.param, len(error.message))
    assert found == ("bad_error", "c", "p", 2000)
    odd = error_in(400, {"error": {"message": "m", "type": "BadRequest", "code": 400, "param": 1}})
    assert (odd.type, odd.code, odd.param) == ("invalid_request_error", "upstream_error", None)


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503, 529, 307, 101])
def test_what_an_upstream_says_of_itself_stays_here(status: int) -> None:
    said = {"message": "key sk-secret", "code": "secret", "type": "x_error", "param": "secret"}
    error = error_in(status, {"error": said})
    shown = json.dumps(error.body())
    assert "sk-secret" not in shown
    assert "sk-secret" in error.detail
    if status != 429:
        assert "secret" not in shown


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        ({"message": "x", "code": 429}, 429, "http_429"),
        ({"message": "x", "code": 400}, 400, "http_4xx"),
        ({"message": "x", "code": "server_error"}, 500, "http_5xx"),
        ({"message": "x", "code": 200}, 500, "http_5xx"),
        ("text", 500, "http_5xx"),
        (True, 500, "http_5xx"),
    ],
)
def test_errors_in_a_stream(error: Any, status: int, outcome: str) -> None:
    found = openai.error_of_event(error)
    assert (found.status, found.outcome) == (status, outcome)
