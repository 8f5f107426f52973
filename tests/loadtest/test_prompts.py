from __future__ import annotations

import re

import pytest

from server.loadtest.prompts import WORDS, Listed, Synthetic, parse


def test_synthetic_prompts_differ_from_their_first_words_on() -> None:
    made = Synthetic(200, seed=1)
    texts = [made.messages(index)[0]["content"] for index in range(50)]
    assert {len(text.split()) for text in texts} == {200}
    assert len({tuple(text.split()[:8]) for text in texts}) == 50
    assert texts[3] == Synthetic(200, seed=1).messages(3)[0]["content"]
    assert texts[3] != Synthetic(200, seed=2).messages(3)[0]["content"]
    assert not made.repeats(10_000)


def test_the_same_prompt_on_request() -> None:
    made = Synthetic(20, seed=1, same=True)
    assert made.messages(0) == made.messages(7)
    assert made.repeats(2)
    assert not made.repeats(1)


def test_the_words_are_plain() -> None:
    assert len(WORDS) == len(set(WORDS)) > 300
    assert all(word.isascii() and word.islower() and word.isalpha() for word in WORDS)


def test_a_file_of_prompts() -> None:
    found = parse(
        'What is a fallback?\n\n{"prompt": "Hé"}\n'
        '  {"messages": [{"role": "system", "content": "s"}, {"role": "user"}]}\r\n',
        "mine.jsonl",
    )
    asked = [found.messages(index) for index in range(4)]
    assert asked[0] == ({"role": "user", "content": "What is a fallback?"},)
    assert asked[1] == ({"role": "user", "content": "Hé"},)
    assert [message["role"] for message in asked[2]] == ["system", "user"]
    assert asked[3] == asked[0]
    assert not found.repeats(3)
    assert found.repeats(4)
    assert found.as_json() == {"source": "file", "file": "mine.jsonl", "count": 3}
    assert isinstance(found, Listed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no prompt in it: write one on each line"),
        (" \n\n", "there is no prompt in it"),
        ("ok\n{broken", 'line 2: begins with { but is no JSON; write {"prompt": "…"}'),
        ("{" * 100_000, "line 1: begins with { but is no JSON"),
        ("{}", "line 1: holds nothing; write either"),
        ('{"prompt": ""}', "line 1: holds prompt; write either"),
        ('{"prompt": "a", "max_tokens": 5}', "line 1: holds max_tokens, prompt; write either"),
        ('{"messages": []}', "line 1: holds messages; write either"),
    ],
)
def test_what_is_no_prompt(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(text)
