"""How much of a request is decoded at most, found out before anything is built.

A decoder builds all of a value in one go, and nothing else runs in the process meanwhile, in no
other thread either. Texts and pictures cost little, however long they are; what counts is the
number of things.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from server.errors import InvalidRequest

#: Objects and lists in one member of a body, and commas between values.
MOST_OBJECTS: Final = 100_000
MOST_VALUES: Final = 1_000_000
#: A value of a list takes two bytes: itself or its end, and a comma or its beginning.
_LEAST: Final = 2
#: Opened and closed, and for each value a name at most.
_QUOTES: Final = 4


def check(member: Raw, name: str, objects: int = MOST_OBJECTS, values: int = MOST_VALUES) -> None:
    """Raises InvalidRequest where a member of the body has more objects and lists, or more values
    (and those nested in them), than these."""
    if len(memoryview(member)) <= _LEAST * min(objects, values):
        return
    text = bytes(member)
    if _within(text, objects, values):  # in texts, too, so that there may be less
        return
    if text.count(b'"') > text.count(b'\\"') + _QUOTES * (objects + values):
        raise _over(name, objects, values)
    if not _within(_without_texts(text), objects, values):
        raise _over(name, objects, values)


def _within(text: bytes, objects: int, values: int) -> bool:
    return text.count(b"{") + text.count(b"[") <= objects and text.count(b",") < values


def _without_texts(text: bytes) -> bytes:
    """What stands between the strings of some JSON."""
    unescaped = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(unescaped.split(b'"')[::2])


def _over(name: str, objects: int, values: int) -> InvalidRequest:
    return InvalidRequest(
        f"`{name}` holds more than {objects} objects and lists, or more than {values} values.",
        param=name,
        code="over_limit",
    )
