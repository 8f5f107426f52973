"""Which bytes are exactly one chunk."""

from __future__ import annotations

import pytest

from server.transport.answer import one_chunk


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"1\r\nx\r\n", b"x"),
        (b"a\r\n0123456789\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n", b"0123456789"),
        (b"4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
        (b"0\r\n\r\n", None),
        (b"01\r\nx\r\n", None),
        (b"0x1\r\nx\r\n", None),
        (b"+1\r\nx\r\n", None),
        (b"1 \r\nx\r\n", None),
        (b"1_0\r\n0123456789abcdef\r\n", None),
        (b"1;a=b\r\nx\r\n", None),
        (b"1\r\nxy\r\n", None),
        (b"2\r\nx\r\n", None),
        (b"1\r\nx\r\n1\r\ny\r\n", None),
        (b"1\nx\r\n", None),
        (b"1\r\nx\n", None),
        (b"\r\n", None),
        (b"", None),
    ],
)
def test_what_is_one_whole_chunk(data: bytes, inside: bytes | None) -> None:
    assert one_chunk(data) == inside
