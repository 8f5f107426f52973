"""Real traffic: our reading, through the OpenAI SDK's strict types, is the official SDK's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.dialects.anthropic.helpers import (
    ASKED,
    DIALECT,
    gathered,
    read,
    strict,
    strict_chunks,
    theirs,
)
from tests.dialects.anthropic.reading import meaning, ours


@pytest.fixture(scope="module")
def recordings(recordings_dir: Path) -> list[dict[str, Any]]:
    with (recordings_dir / "anthropic.jsonl").open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [one for one in found if one["path"] == "/v1/messages"]


def test_whole_answers(recordings: list[dict[str, Any]]) -> None:
    seen = 0
    for one in recordings:
        if one["status"] != 200 or one["request"].get("stream"):
            continue
        body = one["body"].encode()
        made, facts = DIALECT.answer_in(body, ASKED)
        completion = strict(made)
        expected = meaning(theirs(body))
        assert ours(completion) == expected, one["source"]
        assert facts.usage is not None
        assert facts.usage.prompt == expected["prompt"]
        assert not facts.usage.partly
        seen += 1
    assert seen > 100


def test_streams(recordings: list[dict[str, Any]]) -> None:
    seen = 0
    for seed, one in enumerate(recordings):
        if one["status"] != 200 or not one["request"].get("stream"):
            continue
        body = one["body"].encode()
        made, reader = read(body, seed=seed)
        expected = meaning(theirs(body, stream=True))
        completion = gathered(made)
        # Gathered by the SDK, calls carry what was parsed of them, too.
        assert ours(completion) == expected, one["source"]
        assert reader.done
        assert reader.usage is not None
        assert (reader.usage.prompt, reader.usage.completion, reader.usage.cached) == (
            expected["prompt"],
            expected["completion"],
            expected["cached"],
        )
        _is_well_formed(made)
        seen += 1
    assert seen >= 10


def _is_well_formed(made: bytes) -> None:
    """What clients of ours need of a stream."""
    chunks = strict_chunks(made)
    assert made.endswith(b"data: [DONE]\n\n")
    assert made.count(b"[DONE]") == 1
    assert {(c.id, c.created, c.model) for c in chunks} == {(ASKED.id, ASKED.created, ASKED.model)}
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [bool(choice.delta.role) for choice in choices] == [True] + [False] * (len(choices) - 1)
    assert sum(choice.finish_reason is not None for choice in choices) == 1
    assert choices[-1].finish_reason is not None
    assert [i for i, chunk in enumerate(chunks) if chunk.usage] == [len(chunks) - 1]
    assert not chunks[-1].choices


def test_errors(recordings: list[dict[str, Any]]) -> None:
    failed = [one for one in recordings if one["status"] != 200]
    assert failed
    for one in failed:
        body = one["body"].encode()
        error = DIALECT.error_in(one["status"], body)
        with pytest.raises(anthropic.APIStatusError) as said:
            theirs(body, status=one["status"])
        with pytest.raises(openai.APIStatusError) as told:
            strict(json.dumps(error.body()).encode(), status=error.status)
        assert type(told.value).__name__ == type(said.value).__name__
        assert told.value.status_code == said.value.status_code
        assert told.value.body["message"] == said.value.api_message  # type: ignore[index]
