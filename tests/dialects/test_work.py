"""Work grows with a request and an answer, and not with their square; what may stand in them may be
anything. The sizes here would take minutes otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.dialects.anthropic.messages import Conversation
from server.dialects.anthropic.stream import AnthropicReader
from server.dialects.base import Dialect
from server.dialects.table import DIALECTS, dialect_of
from server.errors import InvalidRequest, UpstreamProtocol
from tests.dialects.replay import ASKED, answer, chunk, sent

TIDY = dialect_of("openai", {"answers": "tidy"})
assert TIDY is not None


class Tallied(str):
    """A text that counts the characters that are copied out of it and of its pieces."""

    __slots__ = ("copied",)
    copied: list[int]

    def __getitem__(self, key: Any) -> str:
        piece = tallied(super().__getitem__(key), self.copied)
        self.copied.append(len(piece))
        return piece


def tallied(text: str, copied: list[int]) -> Tallied:
    made = Tallied(text)
    made.copied = copied
    return made


def thought(text: int, calls: int = 0) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "t", "after": {"text": text, "calls": calls}}


def woven(content: Any, details: list[Any], calls: int = 0) -> list[Any]:
    function = {"name": "f", "arguments": ""}
    called = [{"id": f"c{number}", "function": function} for number in range(calls)]
    said = {"role": "assistant", "content": content, "reasoning_details": details}
    turns = Conversation([{"role": "user", "content": "q"}, {**said, "tool_calls": called}]).turns
    return [block.get("text") or block.get("id") or "*" for block in turns[-1]["content"]]


def test_thoughts_in_a_long_text_copy_it_once() -> None:
    copied: list[int] = []
    found = woven(tallied("x" * 100_000, copied), [thought(number) for number in range(1000)])
    assert found[-1] == "x" * (100_000 - 999)
    assert found.count("x") == 999
    assert sum(copied) == 100_000


@pytest.mark.parametrize(
    ("places", "blocks"),
    [
        ([(0, 0)], ["*", "abc", "def", "c0", "c1"]),
        ([(2, 0), (2, 0), (3, 0)], ["ab", "*", "*", "c", "*", "def", "c0", "c1"]),
        ([(4, 0)], ["abc", "d", "*", "ef", "c0", "c1"]),
        ([(6, 1)], ["abc", "def", "c0", "*", "c1"]),
        ([(1, 0), (5, 1), (2, 0), (9, 9)], ["a", "*", "bc", "de", "c0", "*", "*", "f", "c1", "*"]),
        ([(99, 0)], ["abc", "def", "*", "c0", "c1"]),
    ],
)
def test_thoughts_stand_where_they_stood(places: list[tuple[int, int]], blocks: list[str]) -> None:
    content = [{"type": "text", "text": "abc"}, {"type": "text", "text": "def"}]
    assert woven(content, [thought(*place) for place in places], calls=2) == blocks


def test_a_message_has_so_many_thoughts_at_most() -> None:
    assert len(woven("x", [thought(0)] * 1024)) == 1025
    with pytest.raises(InvalidRequest) as caught:
        woven("x", [thought(0)] * 1025)
    assert (caught.value.code, caught.value.param) == (
        "over_limit",
        "messages[1].reasoning_details",
    )


@pytest.mark.no_cover
def test_results_come_before_words() -> None:
    size = 300_000
    result = {"role": "tool", "tool_call_id": "a", "content": "r"}
    words = {"role": "user", "content": [{"type": "text", "text": "w"}] * size}
    turns = Conversation([result, words, *[result] * size]).turns
    assert [block["type"] for turn in turns for block in turn["content"]] == [
        *["tool_result"] * (size + 1),
        *["text"] * size,
    ]


@pytest.mark.no_cover
def test_an_answer_of_many_blocks() -> None:
    size = 200_000
    pair = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "", "signature": "s"}]
    said = {"type": "message", "content": pair * size, "stop_reason": "end_turn"}
    made, _ = DIALECTS["anthropic"].answer_in(json.dumps(said).encode(), ASKED)
    message = json.loads(made)["choices"][0]["message"]
    assert message["content"] == "a" * size
    assert [detail["after"]["text"] for detail in message["reasoning_details"]] == [
        *range(1, size + 1)
    ]


@pytest.mark.no_cover
def test_a_signature_in_many_pieces() -> None:
    """Its pieces are put together once: no string grows with each."""
    reader = AnthropicReader(ASKED)

    def feed(**event: Any) -> list[bytes]:
        return list(reader.feed(None, json.dumps({"index": 0, **event}).encode()))

    feed(type="content_block_start", content_block={"type": "thinking", "signature": ""})
    delta = {"type": "signature_delta", "signature": "s" * 2000}
    piece = json.dumps({"type": "content_block_delta", "index": 0, "delta": delta}).encode()
    for _ in range(40_000):
        reader.feed(None, piece)
    (_, made) = feed(type="content_block_stop")
    (detail,) = json.loads(made)["choices"][0]["delta"]["reasoning_details"]
    assert len(detail["signature"]) == 2000 * 40_000


def calls_of(*calls: dict[str, Any]) -> bytes:
    return json.dumps(chunk({"tool_calls": list(calls)})).encode()


@pytest.mark.no_cover
@pytest.mark.parametrize("dialect", [DIALECTS["mistral"], TIDY], ids=["mistral", "tidy"])
def test_many_calls_without_an_index(dialect: Dialect) -> None:
    size = 100_000
    begun = [{"id": f"i{n}", "function": {"name": "f", "arguments": ""}} for n in range(size)]
    more = [{"id": f"i{n}", "function": {"arguments": "{}"}} for n in range(size)]
    (made,) = dialect.reader(ASKED).feed(None, calls_of(*begun, *more))
    found = json.loads(made)["choices"][0]["delta"]["tool_calls"]
    assert [call["index"] for call in found] == [*range(size), *range(size)]


@pytest.mark.parametrize("dialect", [DIALECTS["mistral"], TIDY], ids=["mistral", "tidy"])
def test_calls_that_say_the_same_index(dialect: Dialect) -> None:
    """A call that goes on does so at its place, and a new one takes nobody's."""
    said = [(0, "a"), (5, "b"), (0, "c"), (0, "c"), (0, None), (None, "b"), (None, None), (0, 7)]
    calls = [
        {**({} if at is None else {"index": at}), **({} if one is None else {"id": one})}
        for at, one in said
    ]
    (made,) = dialect.reader(ASKED).feed(None, calls_of(*calls))
    found = json.loads(made)["choices"][0]["delta"]["tool_calls"]
    assert [call["index"] for call in found] == [0, 5, 6, 6, 0, 5, 6, 0]
    assert [call.get("id") for call in found] == ["a", "b", "c", *[None] * 5]


# --- values of any kind

ODD: list[Any] = [{"a": 1}, ["a"], 5, True, None, 1.5]


@pytest.mark.parametrize("odd", ODD)
def test_types_of_any_kind(odd: Any) -> None:
    said = [{"role": "developer", "content": "b"}, {"role": "user", "content": [{"type": odd}]}]
    assert json.loads(sent(DIALECTS["deepseek"], {"messages": said}).body)["messages"][1] == said[1]
    details = [{"type": odd}]
    history = [
        {"role": "assistant", "content": "b", "reasoning_details": details},
        {"role": "user", "content": "a"},
    ]
    found = sent(DIALECTS["anthropic"], {"messages": history, "max_tokens": 5})
    assert found.dropped == ("messages.reasoning_details",)


@pytest.mark.parametrize("odd", ODD)
def test_odd_parts_of_mistrals_answers(odd: Any) -> None:
    parts = [{"type": "thinking", "thinking": odd}, {"type": odd}, {"type": "reference"}]
    made, _ = DIALECTS["mistral"].answer_in(answer({"content": parts, "citations": odd}), ASKED)
    message = json.loads(made)["choices"][0]["message"]
    assert message["citations"] == [{"type": "reference", "index": 0, "start": 0, "end": 0}]


@pytest.mark.parametrize("odd", [{"a": 1}, ["a"], 5])
@pytest.mark.parametrize("dialect", [DIALECTS["mistral"], TIDY], ids=["mistral", "tidy"])
def test_odd_ids_of_calls(dialect: Dialect, odd: Any) -> None:
    (made,) = dialect.reader(ASKED).feed(None, calls_of({"id": odd}, {"id": odd}))
    found = json.loads(made)["choices"][0]["delta"]["tool_calls"]
    assert [(call["index"], "id" in call) for call in found] == [(0, False), (0, False)]


@pytest.mark.parametrize("dialect", [DIALECTS["mistral"], TIDY], ids=["mistral", "tidy"])
def test_what_is_no_call_among_calls(dialect: Dialect) -> None:
    """It takes no number, and an event of nothing is none."""
    reader = dialect.reader(ASKED)
    payload = chunk({"tool_calls": ["x", {"id": "a", "function": {"name": "f"}}]})
    (made,) = reader.feed(None, json.dumps(payload).encode())
    calls = json.loads(made)["choices"][0]["delta"]["tool_calls"]
    assert [call["index"] for call in calls if call != "x"] == [0]
    assert list(reader.feed(None, b"")) == []


# --- two thoughts in one message


@pytest.mark.parametrize("dialect", ["cohere", "deepseek", "mistral"])
def test_of_two_thoughts_the_second_is_named(dialect: str) -> None:
    def dropped(**thoughts: Any) -> bool:
        said = [{"role": "assistant", "content": "b", **thoughts}, {"role": "user", "content": "a"}]
        found = sent(DIALECTS[dialect], {"messages": said}, model="magistral")
        return "messages.reasoning" in found.dropped

    assert dropped(reasoning="one", reasoning_content="two")
    assert not dropped(reasoning="one", reasoning_content="one")
    assert not dropped(reasoning="one")
    assert not dropped(reasoning=None, reasoning_content="two")


# --- streams that are cut off


def readers() -> list[Any]:
    found = [pytest.param(DIALECTS[name], id=name) for name in ("deepseek", "huggingface")]
    for tags in ("split", "begun"):
        found.append(pytest.param(dialect_of("openai", {"think_tags": tags}), id=tags))
    return found


@pytest.mark.parametrize("dialect", readers())
@pytest.mark.parametrize("broken", ['{"choices":[{"delta":', "hello", "[]", '"}', "5"])
def test_what_is_no_object_does_not_pass(dialect: Dialect, broken: str) -> None:
    reader = dialect.reader(ASKED)
    for text in ("</think>a", "b"):
        assert reader.feed(None, json.dumps(chunk({"content": text})).encode())
    blank = b" " + json.dumps(chunk({"content": "c"})).encode() + b" "
    assert list(reader.feed(None, blank)) == [blank]
    with pytest.raises(UpstreamProtocol):
        reader.feed(None, broken.encode())
