"""How much of a request is decoded at most."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from server.dialects import bounds
from server.dialects.table import DIALECTS
from server.errors import InvalidRequest
from tests.dialects.replay import sent

OBJECTS, VALUES = bounds.MOST_OBJECTS, bounds.MOST_VALUES


def refused(text: str, objects: int = 10, values: int = 20) -> bool:
    try:
        bounds.check(Raw(text.encode()), "x", objects, values)
    except InvalidRequest as error:
        return (error.code, error.param) == ("over_limit", "x")
    return False


@pytest.mark.parametrize(
    ("text", "over"),
    [
        (json.dumps([[]] * 9), False),
        (json.dumps([[]] * 10), True),
        (json.dumps([{}] * 10), True),
        (json.dumps([1] * 20), False),
        (json.dumps([1] * 21), True),
        (json.dumps(["a"] * 20), False),
        (json.dumps(["a"] * 21), True),
        (json.dumps({f"k{i}": 1 for i in range(20)}), False),
        (json.dumps({f"k{i}": 1 for i in range(21)}), True),
        # What stands in texts is text.
        (json.dumps("[{," * 1000), False),
        (json.dumps(json.dumps([{"a": [1, 2]}] * 1000)), False),
        (json.dumps(json.dumps(json.dumps(["[", '"', "\\"] * 1000))), False),
        (json.dumps(["\\", "[" * 1000, '\\"', "{" * 1000, '"']), False),
        (json.dumps(["\\", '"', *([[]] * 10)]), True),
        (json.dumps(['"\\' * 1000, *([[]] * 10)]), True),
        (json.dumps(["\\"] * 21), True),
        (json.dumps([""] * 10_000), True),
    ],
)
def test_what_is_counted(text: str, over: bool) -> None:
    assert refused(text) is over


PARTS = "[" + ",".join(["[]"] * OBJECTS) + "]"
MANY = "[" + ",".join(["1"] * (VALUES + 1)) + "]"


def raw_body(dialect: str, **members: str) -> None:
    """A body whose members are JSON already."""
    body = {name: msgspec.Raw(text.encode()) for name, text in members.items()}
    sent(DIALECTS[dialect], json.loads(msgspec.json.encode({"model": "m", **body})))


@pytest.mark.no_cover
@pytest.mark.parametrize("dialect", ["anthropic", "cohere", "mistral", "deepseek", "huggingface"])
@pytest.mark.parametrize("content", [PARTS, MANY], ids=["objects", "values"])
def test_messages_with_too_much_in_them(dialect: str, content: str) -> None:
    # The first message has what two of these dialects look into messages for.
    messages = (
        '[{"role":"assistant","content":"a","reasoning":"b","tool_plan":"c"},'
        f'{{"role":"user","content":{content}}}]'
    )
    with pytest.raises(InvalidRequest) as caught:
        raw_body(dialect, messages=messages)
    assert (caught.value.code, caught.value.param) == ("over_limit", "messages")


@pytest.mark.no_cover
@pytest.mark.parametrize("dialect", ["anthropic", "cohere", "mistral"])
@pytest.mark.parametrize("name", ["tools", "prediction"])
def test_other_members_with_too_much_in_them(dialect: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        raw_body(
            dialect, messages='[{"role":"user","content":"a"}]', max_tokens="5", **{name: PARTS}
        )
    assert (caught.value.code, caught.value.param) == ("over_limit", name)


@pytest.mark.parametrize("name", ["response_format", "thinking", "tool_choice", "modalities"])
def test_what_deepseek_reads(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        raw_body("deepseek", messages='[{"role":"user","content":"a"}]', **{name: PARTS})
    assert (caught.value.code, caught.value.param) == ("over_limit", name)


@pytest.mark.parametrize("dialect", ["anthropic", "cohere", "mistral"])
def test_metadata(dialect: str) -> None:
    def body(members: int) -> dict[str, Any]:
        said = {f"k{number}": 'a, "b", [c]' * 10 for number in range(members)}
        return {"metadata": said, "max_tokens": 5}

    sent(DIALECTS[dialect], body(64))
    with pytest.raises(InvalidRequest) as caught:
        sent(DIALECTS[dialect], body(65))
    assert (caught.value.code, caught.value.param) == ("over_limit", "metadata")


def test_names_of_what_went_are_few() -> None:
    options = {"include_usage": True, **{f"o{number}": 1 for number in range(1000)}}
    dropped = sent(DIALECTS["cohere"], {"stream": True, "stream_options": options}).dropped
    assert len(dropped) == 33
    assert dropped[-1] == "stream_options.other"
