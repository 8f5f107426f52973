"""The project's part of the recordings: small, complete, made anew at will, and free to be kept."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.replay.choose import ROOM, chosen, lines_of, payloads_of
from tests.replay.exchanges import OUT_OF_SCOPE, Exchange, exchanges, in_scope
from tests.replay.folders import PART, folders

EVERY = exchanges()
IN_PART = [one for one in EVERY if "-part-" in one.place]
#: Keys and tokens as providers, clouds and code hosts write them; of base64 no part looks so.
SECRETS = re.compile(
    r"sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,}(?![A-Za-z0-9/+=_-])"
    r"|(?<![A-Za-z0-9/+])(?:hf_[A-Za-z]{30,}|AKIA[A-Z0-9]{16}|gh[ps]_[A-Za-z0-9]{36})"
    r"|(?<![A-Za-z0-9/+])(?:AIza[A-Za-z0-9_-]{35}|xox[bp]-[A-Za-z0-9-]{20,})"
    r"|[Bb]earer [A-Za-z0-9._-]{16,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:x-api-key|set-cookie|authorization)\"?:"
)
#: The only headers that are kept.
HEADERS = re.compile(
    r"content-type|retry-after|(?:x-)?request-id|openai-processing-ms"
    r"|(?:anthropic-ratelimit|x-ratelimit)-[a-z-]+|x-(?:trial-)?endpoint-[a-z-]+"
)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in PART.iterdir()) <= 2_000_000
    assert sum(line.size for line in lines_of(PART)) <= ROOM


def test_it_is_what_would_be_chosen_again() -> None:
    everything = folders().get("all")
    if everything is None:
        assert {line.text for line in chosen(lines_of(PART))} == {
            line.text for line in lines_of(PART)
        }
        return
    again = [line.text for line in chosen(lines_of(everything))]
    assert again == [line.text for line in lines_of(PART)]


@pytest.mark.parametrize(
    ("provider", "members"),
    [
        ("anthropic", "whole stream 404"),
        ("cohere", "whole stream 404"),
        ("deepseek", "whole stream"),
        ("huggingface", "whole stream"),
        ("mistral", "whole stream"),
        ("openai", "whole stream 400 404"),
    ],
)
def test_it_has_every_kind_of_answer(provider: str, members: str) -> None:
    found = {_kind(one) for one in IN_PART if one.provider == provider}
    assert found == set(members.split())


def _kind(one: Exchange) -> str:
    if one.status != 200:
        return str(one.status)
    return "stream" if one.data["request"] and one.streamed else "whole"


def _said(one: Exchange) -> str:
    """All that stands in the answer, each value by its member's name."""
    return " ".join(_walked(list(payloads_of(one.body.decode()))))


def _asked(one: Exchange) -> str:
    return " ".join(_walked(one.data["request"]))


def _walked(value: Any, name: str = "") -> list[str]:
    if isinstance(value, dict):
        return [text for inner, item in value.items() for text in _walked(item, inner)]
    if isinstance(value, list):
        return [f"{name}[{len(value)}]"] + [text for item in value for text in _walked(item, name)]
    return [f"{name}={str(value)[:40]}"]


@pytest.mark.parametrize(
    ("provider", "word"),
    [
        ("anthropic", "stop_reason=end_turn"),
        ("anthropic", "stop_reason=tool_use"),
        ("anthropic", "stop_reason=stop_sequence"),
        ("anthropic", "type=thinking"),
        ("anthropic", "type=redacted_thinking"),
        ("anthropic", "type=signature_delta"),
        ("anthropic", "type=input_json_delta"),
        ("anthropic", "type=server_tool_use"),
        ("anthropic", "type=web_search_result_location"),
        ("anthropic", "type=not_found_error"),
        ("cohere", "finish_reason=COMPLETE"),
        ("cohere", "finish_reason=STOP_SEQUENCE"),
        ("cohere", "finish_reason=TOOL_CALL"),
        ("cohere", "finish_reason=ERROR"),
        ("cohere", "type=tool-plan-delta"),
        ("cohere", "type=TEXT_CONTENT"),
        ("cohere", "relevance_score="),
        ("cohere", "float["),
        ("deepseek", "reasoning_content="),
        ("deepseek", "finish_reason=tool_calls"),
        ("deepseek", "tool_calls[2]"),
        ("huggingface", "content=<think>"),
        ("huggingface", "finish_reason=length"),
        ("huggingface", "ttft_ms="),
        ("mistral", "finish_reason=tool_calls"),
        ("mistral", "num_cached_tokens="),
        ("openai", "finish_reason=tool_calls"),
        ("openai", "tool_calls[2]"),
        ("openai", "code=model_not_found"),
        ("openai", "code=unsupported_value"),
        ("openai", "code=invalid_value"),
    ],
)
def test_it_has_every_kind_of_word(provider: str, word: str) -> None:
    assert any(word in _said(one) for one in IN_PART if one.provider == provider)


@pytest.mark.parametrize(
    ("provider", "word"),
    [
        ("anthropic", "type=any"),
        ("anthropic", "type=json_schema"),
        ("anthropic", "type=image"),
        ("anthropic", "type=document"),
        ("anthropic", "signature="),
        ("anthropic", "type=tool_result"),
        ("cohere", "tool_choice=REQUIRED"),
        ("cohere", "documents["),
        ("cohere", "type=json_object"),
        ("huggingface", "tool_choice=required"),
        ("huggingface", "type=image_url"),
        ("mistral", "type=image_url"),
        ("mistral", "type=document_url"),
        ("openai", "tool_choice=required"),
        ("openai", "type=json_schema"),
        ("openai", "type=image_url"),
        ("openai", "type=file"),
        ("openai", "type=input_audio"),
        ("openai", "role=developer"),
    ],
)
def test_it_has_every_kind_of_request(provider: str, word: str) -> None:
    assert any(word in _asked(one) for one in IN_PART if one.provider == provider)


def test_no_key_stands_in_it() -> None:
    for line in lines_of(PART):
        found = SECRETS.search(line.text)
        assert found is None, (line.provider, line.number, found)
    for one in IN_PART:
        assert all(HEADERS.fullmatch(name) for name in one.data["headers"])


@pytest.mark.parametrize(
    "said",
    [
        '"sk-ant-api03-abcdefghijklmnopqrst"',
        '"Authorization": "x"',
        "Bearer abcdefghijklmnop1234",
        '"hf_' + "a" * 34 + '"',
        '"AKIAABCDEFGHIJKLMNOP"',
    ],
)
def test_a_key_would_be_found(said: str) -> None:
    assert SECRETS.search(said)


def test_every_project_has_its_licence() -> None:
    about = (PART / "README.md").read_text("utf-8")
    projects = {(one.source.partition(":")[0], one.data["licence"]) for one in IN_PART}
    assert len(projects) == 3
    for name, licence in projects:
        text = (PART / f"LICENSE-{name}").read_text("utf-8")
        assert {"MIT": "MIT License", "Apache-2.0": "Apache License"}[licence] in text
        assert f"{licence}: `LICENSE-{name}`" in about


def test_what_is_not_replayed_is_known() -> None:
    """Everything else is; of what is not, all of it is there."""
    outside = {f"{one.provider} {one.path}" for one in EVERY if not in_scope(one)}
    if "all" in folders():
        assert outside == OUT_OF_SCOPE.keys()
    assert {one.path for one in IN_PART if not in_scope(one)} == {"/v1/models/command-a-03-2025"}
