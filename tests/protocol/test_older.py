"""Names of other APIs, and what they are called here."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.dialects.openai import ENGINE_ONLY
from server.protocol import older
from server.protocol.envelope import Surface, members
from server.protocol.parameters import LONGEST, NOT_OPENAI

TAKEN = [Surface.CHAT, Surface.COMPLETIONS, Surface.EMBEDDINGS]


@pytest.mark.parametrize(
    ("name", "surface", "said"),
    [
        ("max_new_tokens", Surface.CHAT, "use `max_tokens`."),
        ("max_length", Surface.COMPLETIONS, "use `max_tokens`."),
        ("max_tokens_to_sample", Surface.CHAT, "use `max_tokens`."),
        ("num_predict", Surface.CHAT, "use `max_tokens`."),
        ("n_predict", Surface.COMPLETIONS, "use `max_tokens`."),
        ("do_sample", Surface.CHAT, "use `temperature`; 0 always takes the likeliest token."),
        ("num_return_sequences", Surface.CHAT, "use `n`."),
        ("stop_sequences", Surface.CHAT, "use `stop`."),
        ("stopping_criteria", Surface.CHAT, "use `stop`."),
        ("inputs", Surface.CHAT, "use `messages`."),
        ("inputs", Surface.COMPLETIONS, "use `prompt`."),
        ("inputs", Surface.EMBEDDINGS, "use `input`."),
        ("parameters", Surface.CHAT, "write what it holds at the top level, by OpenAI's names."),
        ("return_full_text", Surface.COMPLETIONS, "use `echo`."),
        ("return_full_text", Surface.CHAT, "leave it out: the prompt is not repeated here."),
        ("wait_for_model", Surface.CHAT, "leave it out: a request waits for its model"),
        ("use_cache", Surface.CHAT, "leave it out: answers are not kept"),
        ("options", Surface.CHAT, "leave it out, and write what it holds"),
        ("num_ctx", Surface.CHAT, "leave it out: the context window is the model's."),
    ],
)
def test_what_is_said(name: str, surface: Surface, said: str) -> None:
    error = older.refusal({"model": 1, name: 1}, surface)
    assert error is not None
    assert (error.status, error.param, error.code) == (400, name, "unsupported_parameter")
    assert f"`{name}` is no parameter of OpenAI's API: {said}" in error.message


@pytest.mark.parametrize("surface", TAKEN)
def test_every_name_has_its_word(surface: Surface) -> None:
    for name in older.NAMES:
        assert older.refusal({name: 1}, surface) is not None


def test_null_says_nothing() -> None:
    body = members(b'{"max_length": null, "options": null}')
    assert older.refusal(body, Surface.CHAT) is None
    error = older.refusal(members(b'{"options": null, "num_ctx": 0}'), Surface.CHAT)
    assert error is not None
    assert error.param == "num_ctx"


@pytest.mark.parametrize("surface", Surface)
def test_what_vllm_takes_passes(surface: Surface) -> None:
    known = ENGINE_ONLY | NOT_OPENAI | LONGEST
    more = {"temperature", "top_p", "n", "stop", "echo", "suffix", "best_of", "seed", "functions"}
    assert older.refusal(dict.fromkeys(known | more, 1), surface) is None
    assert older.refusal({}, surface) is None


def test_other_surfaces_are_let_be() -> None:
    assert older.refusal(dict.fromkeys(older.NAMES, 1), Surface.TOKENIZE) is None


def test_every_name_is_in_the_docs(repo_root: Path) -> None:
    text = (repo_root / "docs" / "errors.md").read_text()
    assert [name for name in sorted(older.NAMES) if f"`{name}`" not in text] == []
