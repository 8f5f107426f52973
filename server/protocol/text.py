"""Is a body text, and shallow enough? Asked before its fields are looked at.

All of it is passes of C code over the bytes: a body may be megabytes, and its sender waits.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

import msgspec
from msgspec import Raw

from server.errors import InvalidRequest

#: One bracket pair in so many bytes makes it cheaper to take a level away than to walk.
_WORTH: Final = 16
_RUN: Final = re.compile(rb"(\[+)\]*")
_STRING: Final = re.compile(rb'"[^"]*"')
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}'))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")

#: Bytes of a value that is opened level by level, and the levels for which that is quicker.
_OPENED: Final = 64 * 1024
_LEVELS: Final = 6
#: A body with a comma in fewer bytes than this is not opened but walked.
_SPARSE: Final = 16
_object: Final = msgspec.json.Decoder(dict[str, Raw])
_list: Final = msgspec.json.Decoder(list[Raw])


class Pieces:
    """The part of the check that needs no whole body, done while its pieces come in."""

    __slots__ = ("_decoder", "_last", "_size", "escapes")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._size = 0
        self._last = b""
        #: There may be `\\u` in it.
        self.escapes = False

    def feed(self, piece: bytes) -> None:
        """Raises InvalidRequest where the body is not UTF-8."""
        self._decode(piece)
        self._size += len(piece)
        if not self.escapes:
            self.escapes = b"\\u" in piece or (self._last == b"\\" and piece.startswith(b"u"))
            self._last = piece[-1:]

    def end(self) -> None:
        """The last piece was fed."""
        self._decode(b"", final=True)

    def _decode(self, piece: bytes, *, final: bool = False) -> None:
        try:
            self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            held = len(error.object) - len(piece)  # of the piece before
            raise _not_utf8(self._size - held + error.start) from None


def check(body: bytes, *, depth: int, pieces: Pieces | None = None) -> None:
    """Raises InvalidRequest unless the body is UTF-8 without lone surrogates, and shallow enough.

    `pieces` has seen all of it already. Runs before any decoder makes something of the body.
    """
    if pieces is None:
        if not body.isascii():
            try:
                body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(error.start) from None
        escapes = b"\\" in body and b"\\u" in body
    else:
        escapes = pieces.escapes
    if escapes:
        _check_surrogates(body)
    if _brackets(body, depth) > depth and (
        # Opened, a list of 32 MiB of zeros would be 16 million objects.
        _walked(body, depth)
        if body.count(b",") * _SPARSE > len(body)
        else _deeper(body, depth, _LEVELS)
    ):
        raise InvalidRequest(
            f"The body is nested more than {depth} levels deep.", code="nested_too_deeply"
        )


def _not_utf8(at: int) -> InvalidRequest:
    return InvalidRequest(f"The body is not valid UTF-8 (byte {at}).", code="invalid_json")


def _check_surrogates(body: bytes) -> None:
    # Spaces stand for what is taken out, so that its neighbours cannot make a pair.
    unescaped = body.replace(b"\\\\", b" ")
    if (b"\\ud" in unescaped or b"\\uD" in unescaped) and _SURROGATE.search(
        _PAIR.sub(b" ", unescaped)
    ):
        raise InvalidRequest(
            "The body holds half of a surrogate pair (\\ud800 to \\udfff), which is no character.",
            code="invalid_json",
        )


def _brackets(body: bytes, enough: int) -> int:
    """How many brackets open, in strings too; no more than `enough` + 1 are counted."""
    count = 0
    for bracket in (b"[", b"{"):
        at = body.find(bracket)
        while at >= 0 and count <= enough:
            count += 1
            at = body.find(bracket, at + 1)
    return count


def _deeper(value: bytes | Raw, depth: int, levels: int) -> bool:
    """Is this JSON value nested more than `depth` levels deep?

    A large one is opened for a few levels, so that the long strings of a chat are left out
    without looking for their ends in Python. Where it is no JSON, the decoder says so later.
    """
    with memoryview(value) as view:
        size, first = len(view), bytes(view[:1])
        if first == b'"':
            return False
        if size <= _OPENED or not levels or first not in (b"{", b"["):
            return _walked(bytes(value), depth)
        if depth == 0:
            return True
        is_object = first == b"{"
    try:
        children = _members(value, size, depth) if is_object else _list.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        children = None
    if children is None:
        return _walked(bytes(value), depth)
    return any(_deeper(child, depth - 1, levels - 1) for child in children)


def _members(value: bytes | Raw, size: int, depth: int) -> list[Raw] | None:
    """The values of an object; None when a name that stands twice may hide one that is too deep.

    A level takes two bytes, so what is neither name nor value must have too few for that.
    """
    fields = _object.decode(value)
    shown = sum(len(name) + len(memoryview(child)) for name, child in fields.items())
    return list(fields.values()) if (size - shown) // 2 <= depth else None


def _walked(body: bytes, depth: int) -> bool:
    if _brackets(body, depth) <= depth:
        return False
    structure = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURE)
    nest = _STRING.sub(b"", structure).translate(_BRACKETS)
    left = depth
    # Each round takes the innermost level away, while that takes much away.
    while left > 0 and nest.count(b"[]") * _WORTH > len(nest):
        nest, left = nest.replace(b"[]", b""), left - 1
    return _height(nest) > left


def _height(nest: bytes) -> int:
    """The deepest level of `[` and `]`. Where they do not match, the decoder says so."""
    level = height = 0
    for run in _RUN.finditer(nest):
        level += run.end(1) - run.start(1)
        height = max(height, level)
        level -= run.end() - run.end(1)
    return height
