"""Bodies: what is refused before a decoder makes something of it."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import InvalidRequest
from server.protocol import envelope, text
from server.protocol.envelope import Surface
from server.protocol.text import Pieces, check

TEXT = st.text(st.one_of(st.sampled_from('[]{}"\\/u\n'), st.characters(codec="utf-8")), max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=25,
)


# --- depth and text


def slow_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((slow_depth(child) for child in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((slow_depth(child) for child in value), default=0)
    return 0


def passes(body: bytes, depth: int) -> bool:
    """Is the body let through? Whatever else is wrong with it comes out."""
    try:
        check(body, depth=depth)
    except InvalidRequest as error:
        if error.code != "nested_too_deeply":
            raise
        return False
    return True


@given(VALUES, st.booleans())
@example(['"]', "[[[[", '\\"[', "\\\\"], True)
@example({"a\\": [["}"]]}, False)
def test_depth_agrees_with_a_walk(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    deep = slow_depth(value)
    assert envelope.depth_of(value) == deep
    assert passes(body, deep)
    if deep:
        assert not passes(body, deep - 1)


@pytest.mark.parametrize("body", [b"[" * 100, b"{" * 100, b'{"a":' * 100 + b"1" + b"}" * 100])
def test_too_deep(body: bytes) -> None:
    assert not passes(body, 64)
    assert passes(body, 100)


@pytest.mark.parametrize("body", [b"]" * 100 + b"[" * 100, b"[[]" * 80, b'["[[[[[[[[[['])
def test_broken_bodies_do_not_confuse_the_walk(body: bytes) -> None:
    passes(body, 64)
    with pytest.raises(InvalidRequest):
        envelope.decode(Surface.CHAT, body)


def test_wide_is_not_deep() -> None:
    assert passes(b"[" + b"[],{}," * 200_000 + b"[]]", 2)


UNITS = st.sampled_from(
    ["\\ud83d", "\\ude82", "\\uD83D", "\\uDE82", "\\\\", "\\u0041", '\\"', "ud800", "x", "\\uE000"]
)


@given(st.lists(UNITS, max_size=8).map("".join))
@example("\\ud83d\\\\\\ude82")
@example("\\ud83d\\ud83d\\ude82\\ude82")
@example("\\\\ud800")
def test_lone_surrogates_agree_with_the_standard_library(text: str) -> None:
    body = f'{{"a":"{text}"}}'.encode()
    whole = not re.search("[\ud800-\udfff]", json.loads(body)["a"])
    if whole:
        check(body, depth=4)
    else:
        with pytest.raises(InvalidRequest, match="surrogate") as caught:
            check(body, depth=4)
        assert caught.value.code == "invalid_json"


def test_text_must_be_utf8() -> None:
    check('{"a": "é🚂"}'.encode(), depth=4)
    with pytest.raises(InvalidRequest, match=r"not valid UTF-8 \(byte 3\)"):
        check(b'{"a\xff": 1}', depth=4)


@pytest.mark.parametrize("comb", [1, 2, 5, 30, 63])
def test_depth_of_large_bodies(comb: int) -> None:
    """Any mixture of broad and deep is measured right."""
    tooth = b"[" * comb + b"]" * comb
    body = b"[" + b",".join([tooth] * (400_000 // comb)) + b"]"
    check(body, depth=comb + 1)
    with pytest.raises(InvalidRequest, match="more than"):
        check(body, depth=comb)


@given(VALUES, st.integers(0, 8))
def test_opening_a_value_finds_the_same_depth(value: Any, depth: int) -> None:
    """Large values are opened level by level: the answer is that of the walk."""
    body = json.dumps(value).encode()
    before, text._OPENED = text._OPENED, 0  # type: ignore[misc]
    try:
        assert text._deeper(body, depth, 6) is (slow_depth(value) > depth)
    finally:
        text._OPENED = before  # type: ignore[misc]


@pytest.mark.parametrize("deep_first", [True, False])
def test_a_repeated_name_hides_no_depth(deep_first: bool) -> None:
    deep = b'"a":' + b"[" * 200 + b"]" * 200
    flat = b'"a":"' + b"x" * 200_000 + b'"'
    body = b"{" + b",".join([deep, flat] if deep_first else [flat, deep]) + b"}"
    with pytest.raises(InvalidRequest, match="more than"):
        check(body, depth=64)


def test_brackets_in_a_long_text_are_no_depth() -> None:
    messages = [{"role": "user", "content": "[{" * 500_000}, {"role": "user", "content": [[["x"]]]}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    check(body, depth=6)
    with pytest.raises(InvalidRequest, match="more than"):
        check(body, depth=5)


# --- in pieces


def fed(body: bytes, cuts: list[int]) -> Pieces:
    pieces, start = Pieces(), 0
    for cut in [*sorted(cuts), len(body)]:
        pieces.feed(body[start:cut])
        start = max(start, cut)
    pieces.end()
    return pieces


@given(TEXT, st.lists(st.integers(0, 60), max_size=6))
def test_pieces_see_what_the_whole_has(said: str, cuts: list[int]) -> None:
    body = json.dumps({"a": said}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert fed(body, cuts).escapes is (b"\\u" in body)


@given(st.binary(max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_pieces_find_the_same_wrong_byte(body: bytes, cuts: list[int]) -> None:
    assert utf8_error(lambda: fed(body, cuts)) == utf8_error(lambda: check(body, depth=64))


def utf8_error(look: Callable[[], object]) -> str | None:
    try:
        look()
    except InvalidRequest as error:
        return error.message if "UTF-8" in error.message else None
    return None


@pytest.mark.parametrize(
    "tail",
    [b"0," * 500_000 + b"0", b",".join([b"[" + b"0," * 40_000 + b"0]"] * 10)],
    ids=["one list", "lists"],
)
def test_a_long_list_is_not_opened(tail: bytes) -> None:
    """It would be an object of the decoder's for each of its numbers: megabytes for each one."""
    body = b'{"model":"m","x":[' + b"[]," * 70 + tail + b"]}"
    tracemalloc.start()
    try:
        check(body, depth=64)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5 * len(body)
