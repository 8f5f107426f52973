"""What the body of an error says, in whatever shape it comes. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

#: What comes up where bytes are read that are not what they should be: bad JSON or another shape,
#: too many brackets, bytes that are no text.
UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
#: Servers that load a model say so with 503: llama.cpp, another Roundhouse.
_LOADING: Final = re.compile(
    r"(the )?model is (being |currently )?load(ed|ing)|loading (the )?model"
)
#: The code of an upstream that loads the model.
LOADING: Final = "engine_loading"
#: Seconds until it makes sense to ask again, where one that loads does not say.
LOADS: Final = 5.0
#: Nobody comes back sooner, or waits longer.
_LEAST: Final = 1.0
_MOST: Final = 600.0
_SECONDS: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)s")


def decoded(body: bytes) -> Any:
    """The JSON that these bytes are; None: they are none that can be read, or no text at all."""
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return None


def body_of(error: Any) -> bytes:
    """The body of this error in OpenAI's shape. What lies too deep, or holds what JSON has no word
    for, is an error that says nothing."""
    try:
        return msgspec.json.encode({"error": error})
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        return b"{}"


def words(said: object) -> str:
    """As a text."""
    try:
        return str(said)
    except (RecursionError, ValueError):  # lists in lists, a number without an end
        return ""


def error_object(body: bytes) -> dict[str, Any]:
    """`{"error": {...}}`, `{"error": "text"}`, `{"message": ...}`, `{"detail": ...}`, where the
    detail may be a list, the first one of a list (Gemini's), or nothing."""
    found = decoded(body)
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    inner = found.get("error", found)
    if isinstance(inner, str):
        return {**found, "message": inner}
    if not isinstance(inner, dict):
        return {}
    detail = inner.get("detail")
    if "message" not in inner and isinstance(detail, str):
        return {**inner, "message": detail}
    if "message" not in inner and isinstance(detail, list) and detail:
        message, param = findings(detail)
        return {**inner, "message": message, "param": param}
    return inner


def findings(details: list[Any]) -> tuple[str, str | None]:
    """What pydantic says, without what was put in, and the place of the first."""
    texts, places = [], []
    for detail in details:
        if not isinstance(detail, dict):
            continue
        where = detail.get("loc")
        steps = where if isinstance(where, list) else []
        place = ".".join(words(step) for step in steps if step != "body")
        said = words(detail.get("msg"))
        texts.append(f"{place}: {said}" if place else said)
        places.append(place)
    return "; ".join(texts) or "The request was refused.", next(filter(None, places), None)


def loads(status: int, error: dict[str, Any]) -> bool:
    """Is this a server that loads the model?"""
    if status != 503:
        return False
    message = error.get("message")
    if error.get("code") == LOADING:
        return True
    return isinstance(message, str) and _LOADING.match(message.lower()) is not None


def pause(status: int, error: dict[str, Any]) -> float | None:
    """Seconds until it makes sense to ask again, by the body: Google's `retryDelay`, and a guess
    for one that loads."""
    details = error.get("details")
    for detail in details if status == 429 and isinstance(details, list) else ():
        said = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(said, str) and (found := _SECONDS.fullmatch(said)) is not None:
            return min(max(float(found[1]), _LEAST), _MOST)
    return LOADS if loads(status, error) else None
