"""Framing: whole events out of bytes cut anywhere, whatever the line ends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import UpstreamProtocol, UpstreamTooLarge
from server.protocol import sse

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
TEXT = st.text(st.sampled_from('ab{}[]":é🚂 \t\\'), max_size=12)
LINES = st.one_of(
    TEXT.map("data: {}".format),
    TEXT.map("data:{}".format),
    TEXT.map(": {}".format),
    st.sampled_from(["event: x", "id: 7", "", "data"]),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Whole events of mixed lines, each line with an end of its own."""
    text = ""
    for lines in draw(st.lists(st.lists(LINES, min_size=1, max_size=4), max_size=5)):
        for line in [*lines, ""]:
            text += line + draw(LINE_ENDS)
    return text.encode()


@st.composite
def cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = draw(streams())
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return data, [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def slow_payloads(data: bytes) -> list[bytes]:
    """What a browser makes of the stream, line by line."""
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", data)[:-1]:
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif not line:
            if lines:
                found.append(b"\n".join(lines))
            lines = []
    return found


def payloads(blocks: list[bytes]) -> list[bytes]:
    found = (sse.data_of(event) for block in blocks for event in sse.events(block))
    return [payload for payload in found if payload is not None]


@given(cut())
def test_cuts_never_change_the_events(case: tuple[bytes, list[bytes]]) -> None:
    data, pieces = case
    splitter = sse.Splitter(1 << 20)
    blocks = [splitter.feed(piece) for piece in pieces]
    blocks.append(splitter.feed(b":"))  # a lone CR at the end may be half of a CRLF
    assert b"".join(blocks) + splitter.rest == data + b":"
    assert payloads(blocks) == slow_payloads(data)


@given(streams())
def test_events_of_one_block_are_all_of_it(data: bytes) -> None:
    block = sse.Splitter(1 << 20).feed(data)
    assert data.startswith(block)
    cut = b"".join(sse.events(block))
    assert block.startswith(cut)
    assert block[len(cut) :].strip(b"\r\n") == b""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_is_whole_with_its_blank_line(end: str) -> None:
    data = f"data: 1{end}{end}".encode()
    splitter = sse.Splitter(100)
    assert [splitter.feed(data[i : i + 1]) for i in range(len(data))][-1] == data
    assert splitter.rest == b""


def test_half_a_crlf_is_no_blank_line() -> None:
    splitter = sse.Splitter(100)
    assert splitter.feed(b"data: 1\r") == b""
    assert splitter.feed(b"\ndata: 2\r\n\r") == b""
    assert splitter.feed(b"\n") == b"data: 1\r\ndata: 2\r\n\r\n"


def test_the_limit_holds_for_the_unfinished_event_only() -> None:
    splitter = sse.Splitter(16)
    long = b"data: " + b"x" * 100 + b"\n\n"
    assert splitter.feed(long) == long
    assert splitter.feed(b"data: " + b"x" * 10) == b""
    with pytest.raises(UpstreamProtocol):
        splitter.feed(b"x")


def test_whole_events_come_out_before_the_limit_is_told() -> None:
    splitter = sse.Splitter(16)
    assert splitter.feed(b"data: 1\n\ndata: " + b"x" * 100) == b"data: 1\n\n"
    with pytest.raises(UpstreamProtocol, match="too long"):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    "begin",
    [
        b"data: {",
        b"data:{",
        b"event: x\ndata: {",
        b"id: 1\r\nevent: x\r\ndata: {",
        b"id:1\rdata: {",
    ],
)
def test_an_object_over_the_limit_is_no_garbage(begin: bytes) -> None:
    splitter = sse.Splitter(64)
    assert splitter.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert splitter.feed(begin) == b""
    with pytest.raises(UpstreamTooLarge, match="too long"):
        splitter.feed(b'"' + b"x" * 64)


@pytest.mark.parametrize("begin", [b"{", b"data: x", b"<html>", b"event: data: {", b"\0"])
def test_garbage_over_the_limit_is_garbage(begin: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="too long"):
        sse.Splitter(64).feed(begin + b"x" * 64)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  {}\n\n", b" {}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\rdata: b\n\n", b"a\nb"),
        (b"data: a\r\n\r\n", b"a"),
        (b"event: x\ndata: a\nid: 1\n\n", b"a"),
        (b"\ndata: a\n\n", b"a"),
        (b"data:\n\n", b""),
        (b": comment\n\n", None),
        (b"\n\n", None),
        (b"datum: a\n\n", None),
    ],
)
def test_payloads(event: bytes, payload: bytes | None) -> None:
    assert sse.data_of(event) == payload


def test_events_made_here_are_read_here() -> None:
    made = sse.event(sse.dumps({"text": "a\n\r\u2028é"}))
    assert list(sse.events(made)) == [made]
    assert sse.data_of(made) == '{"text":"a\\n\\r\u2028é"}'.encode()
    assert sse.comment("waiting") == b": waiting\n\n"
    assert sse.data_of(sse.DONE) == b"[DONE]"
