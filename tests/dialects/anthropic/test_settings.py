"""What account and card say, and how each model is told to think."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from server.errors import InvalidRequest
from tests.dialects.anthropic.helpers import out, sent
from tests.dialects.anthropic.test_request import BARE, format_of


def test_settings_are_known_ones() -> None:
    with pytest.raises(msgspec.ValidationError):
        sent({}, version="2024-01-01")
    with pytest.raises(msgspec.ValidationError):
        sent({}, verzion="2023-06-01")


@pytest.mark.parametrize(
    ("effort", "told"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "xhigh"),
        ("max", "max"),
    ],
)
@pytest.mark.parametrize(
    "model",
    ["claude-opus-4-6", "claude-sonnet-5", "claude-fable-5-2", "claude-mythos-preview", "other"],
)
def test_newer_models_are_told_an_effort(model: str, effort: str, told: str) -> None:
    assert out({"reasoning_effort": effort}, model=model) == {
        **BARE,
        "model": model,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": told},
    }


@pytest.mark.parametrize(
    ("effort", "longest", "budget"),
    [
        ("minimal", 4096, 1024),
        ("low", 4096, 1024),
        ("medium", 64000, 8192),
        ("high", 64000, 24576),
        ("xhigh", 64000, 32768),
        ("max", 128000, 65536),
        ("high", 4096, 3072),
        ("high", 1100, 1024),
        ("low", 1025, 1024),
    ],
)
@pytest.mark.parametrize(
    "model", ["claude-sonnet-4-5-20250929", "claude-3-7-sonnet-20250219", "claude-opus-4-1"]
)
def test_older_models_are_told_a_budget(model: str, effort: str, longest: int, budget: int) -> None:
    assert out({"reasoning_effort": effort, "max_tokens": longest}, model=model) == {
        **BARE,
        "model": model,
        "max_tokens": longest,
        "thinking": {"type": "enabled", "budget_tokens": budget},
    }


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"reasoning_effort": "low", "max_tokens": 1024}, "claude-sonnet-4-5"),  # no room
        ({"reasoning_effort": "low"}, "claude-3-5-haiku-20241022"),  # never learnt it
        ({"reasoning_effort": "low"}, "claude-3-opus-20240229"),
        ({"reasoning_effort": "low"}, "claude-2.1"),
    ],
)
def test_who_cannot_think_is_not_asked_to(body: dict[str, Any], model: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(body, model=model)
    assert refused.value.param == "reasoning_effort"
    outgoing = sent(body, model=model, drop=["reasoning_effort"])
    assert outgoing.dropped == ("reasoning_effort",)
    assert "thinking" not in json.loads(outgoing.body)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("claude-opus-4-6", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-4-5", {}),  # these do not, unless they are told
        ("claude-3-haiku-20240307", {}),
    ],
)
def test_no_effort(model: str, told: dict[str, Any]) -> None:
    assert out({"reasoning_effort": "none"}, model=model) == {**BARE, "model": model, **told}


def test_a_setting_knows_better_than_the_id() -> None:
    body = {"reasoning_effort": "low"}
    assert out(body, thinking="budget")["thinking"]["type"] == "enabled"
    assert out(body, model="claude-3-haiku", thinking="adaptive")["thinking"]["type"] == "adaptive"
    with pytest.raises(InvalidRequest):
        sent(body, thinking="none")


@pytest.mark.parametrize("thinking", ["adaptive", "budget"])
def test_thinking_can_be_shown(thinking: str) -> None:
    told = out({"reasoning_effort": "low"}, thinking=thinking, thinking_display="summarized")
    assert told["thinking"]["display"] == "summarized"


def test_a_client_may_say_it_in_their_words() -> None:
    said = {"type": "enabled", "budget_tokens": 2000}
    told = out({"thinking": said, "reasoning_effort": "high"})
    assert told["thinking"] == said
    assert told["output_config"] == {"effort": "high"}
    schema = out({"reasoning_effort": "high", "response_format": format_of()})
    assert schema["output_config"].keys() == {"effort", "format"}
