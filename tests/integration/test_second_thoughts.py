"""Reasoning in our Anthropic and Cohere dialects, spoken to vLLM's own APIs of those names.

What stands for reasoning is made by `thoughts.py`, which vLLM runs; blocks, signatures and events
are vLLM's.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.integration.second import SPEAKERS, Second, Speaker
from tests.integration.test_second_dialects import WHAT, either_way, full

AGAIN: Final = {"role": "user", "content": "Which port does it use?"}


def thoughtful(**more: Any) -> dict[str, Any]:
    """Without a temperature: Anthropic takes none beside reasoning, and the model's own is 0."""
    body = full({"messages": [WHAT]}, reasoning_effort="low", **more)
    del body["temperature"]
    return body


@pytest.fixture(params=list(SPEAKERS))
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return SPEAKERS[request.param]


@either_way
@pytest.mark.parametrize("more", [{}, {"max_tokens": 6}, {"max_tokens": 24}])
def test_thoughts_are_heard_apart(
    second: Second, speaker: Speaker, more: dict[str, Any], stream: bool
) -> None:
    """Also of an answer that is cut short, before its text begins or after that."""
    body = thoughtful(stream=stream, **more)
    said = second.says(body)
    assert said.thoughts
    assert ":" not in said.text
    assert bool(said.text) is (more != {"max_tokens": 6})
    assert second.says_as(speaker, body) == said


@either_way
def test_no_thoughts_where_none_are_wanted(second: Second, speaker: Speaker, stream: bool) -> None:
    body = full({"messages": [WHAT]}, stream=stream, reasoning_effort="none")
    said = second.says_as(speaker, body)
    assert (said.thoughts, said.details) == ("", [])
    assert said == second.says(body)


@either_way
def test_signed_thoughts_go_back_as_they_came(second: Second, stream: bool) -> None:
    anthropic = SPEAKERS["anthropic"]
    body = thoughtful(stream=stream)
    first = second.says_as(anthropic, body)
    (detail,) = first.details
    assert (detail["type"], detail["thinking"], detail["index"]) == ("thinking", first.thoughts, 0)
    assert detail["signature"]
    told = {"role": "assistant", "content": first.text, "reasoning_content": first.thoughts}
    body["messages"] = [WHAT, {**told, "reasoning_details": first.details}, AGAIN]
    said = second.says({**body, "messages": [WHAT, told, AGAIN]})
    assert "8000" in said.thoughts + said.text
    assert second.says_as(anthropic, body) == said


@either_way
def test_cohere_takes_thoughts_back(second: Second, stream: bool) -> None:
    cohere = SPEAKERS["cohere"]
    body = thoughtful(stream=stream)
    first = second.says_as(cohere, body)
    told = {"role": "assistant", "content": first.text, "reasoning_content": first.thoughts}
    body["messages"] = [WHAT, told, AGAIN]
    assert second.says_as(cohere, body) == second.says(body)
