"""The guide's questions are apart from its training text, and its folder is what it says it is."""

from __future__ import annotations

import json
import re
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.guide import calls
from scripts.guide.corpus import QUESTIONS, TOOLS, Maker, Sample, grams
from server import embedded

SAMPLES = 12_000
MOST_BYTES = 12_000_000
ALLOWED = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@cache
def samples() -> tuple[Sample, ...]:
    return tuple(Maker().stream(SAMPLES))


def fives(text: str) -> set[tuple[str, ...]]:
    """Written apart from the maker's own filter, so that one does not vouch for itself."""
    words = re.split(r"\W+", text.lower().strip())
    words = [word for word in words if word]
    return set(zip(*(words[at:] for at in range(5)), strict=False))


def test_sixty_questions_and_ten_tools() -> None:
    questions = lines(QUESTIONS)
    assert len(questions) == 60
    assert len({case["question"] for case in questions}) == 60
    for case in questions:
        assert set(case) == {"question", "patterns", "topic"}
        assert case["patterns"]
        for pattern in case["patterns"]:
            re.compile(pattern)
    assert len(lines(TOOLS)) == 10


def test_no_question_shares_five_words_with_the_training_text() -> None:
    seen: set[tuple[str, ...]] = set()
    for sample in samples():
        for text in sample.texts():
            seen |= fives(text)
    for case in lines(QUESTIONS) + lines(TOOLS):
        assert not fives(case["question"]) & seen, case["question"]


def test_no_question_is_a_training_question() -> None:
    asked = {
        tuple(re.findall(r"\w+", sample.messages[-1]["content"].lower()))
        for sample in samples()
        if sample.messages[-1]["role"] == "user"
    }
    for case in lines(QUESTIONS) + lines(TOOLS):
        assert tuple(re.findall(r"\w+", case["question"].lower())) not in asked


def test_tool_names_are_unseen() -> None:
    names = [case["tool"]["function"]["name"] for case in lines(TOOLS)]
    for sample in samples():
        for text in sample.texts():
            assert not any(name in text for name in names)


def test_the_text_is_the_same_each_time() -> None:
    first, second = (list(Maker(5).stream(300)) for _ in range(2))
    assert first == second
    assert list(Maker(6).stream(300)) != first


def test_the_filter_would_catch_a_question() -> None:
    maker = Maker()
    for case in lines(QUESTIONS) + lines(TOOLS):
        assert maker.held.touches(f"hello. {case['question']}") or len(grams(case["question"])) == 1
        assert maker.held.touches(case["question"])


def test_a_call_in_the_text_is_a_call() -> None:
    for sample in samples():
        if sample.kind == "call":
            body = json.loads(
                sample.answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
            )
            assert sample.tools is not None
            assert body["name"] in {tool["function"]["name"] for tool in sample.tools}
            assert sample.answer == calls.call_text(body["name"], body["arguments"])


def test_the_folder_holds_nothing_else() -> None:
    assert {found.name for found in embedded.path("guide").iterdir()} == ALLOWED


def test_the_weights_are_small_and_bf16() -> None:
    path = embedded.path("guide") / "model.safetensors"
    assert path.stat().st_size <= MOST_BYTES
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    assert header
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    ends = sorted(tensor["data_offsets"] for tensor in header.values())
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert 8 + length + ends[-1][1] == path.stat().st_size


def test_the_card_says_what_it_is() -> None:
    card = (embedded.path("guide") / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^license: apache-2\.0$", card, re.MULTILINE)
    for word in ("tiny", "scripts/guide", "Qwen/Qwen2.5-0.5B-Instruct", "cannot"):
        assert word in card


def test_a_name_nobody_knows_names_the_known_ones() -> None:
    assert "guide" in embedded.names()
    with pytest.raises(KeyError, match="guide"):
        embedded.path("nobody")
