"""Keeps credentials out of the log: by the name of a field, and by what a text looks like.

A net under careful code, not a licence to log keys: a secret of no known shape in a field of an
innocent name passes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "***"
#: A longer text keeps its first and last halves of this many characters.
LIMIT: Final = 16_384
_DEPTH: Final = 6

# `key` alone is the *name* of a key here, and counts of tokens are numbers: both stay.
_CREDENTIAL: Final = re.compile(
    r"authori[sz]ation|passw(?:or)?d|passphrase|secret|credential|cookie|api[_-]?key"
    r"|(?:^|[_-])(?:token|bearer|jwt)$|[_-]key$",
    re.IGNORECASE,
)

_TEXT: Final = re.compile(
    r"""
      (?P<scheme> \b(?:bearer|basic)\s+ ) [A-Za-z0-9._~+/=-]{6,}
    | (?P<prefix> \b(?:sk-|hf_) ) [A-Za-z0-9._-]{8,}
    | (?P<vendor> \b(?:gsk_|xai-|pplx-|r8_|gh[pousr]_|AIza|AKIA|eyJ) ) [A-Za-z0-9._]{16,}
    | (?P<user> ://[^\s:/@]{0,128}: ) [^\s/@]{1,512} (?=@)
    | (?P<name> (?:authorization|x-api-key|api[_-]?key|admin[_-]?key|password|secret|token)
        ["']? \s{0,4} [:=] \s{0,4} b?["']? )
      (?! bearer\s | basic\s | \*\*\* ) (?: token\s+ | key\s+ )? [^\s"',;&)}\]]{4,}
    """,
    re.IGNORECASE | re.VERBOSE,
)


@functools.lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Whether a field of this name holds a credential."""
    return _CREDENTIAL.search(name) is not None


def scrub(text: str) -> str:
    """The text with everything that looks like a credential masked, and with its middle cut out
    when it is very long."""
    if len(text) > LIMIT:
        half, cut = LIMIT // 2, len(text) - LIMIT
        text = f"{text[:half]} … ({cut} characters left out) … {text[-half:]}"
    return _TEXT.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    # One of the named groups always took part; it says what was there.
    return (match[match.lastgroup] if match.lastgroup else "") + MASK


def value(name: str, item: Any, depth: int = 0) -> Any:
    """A value fit for the log: plain JSON types, masked where `name` or the text asks for it."""
    if item is None or isinstance(item, (bool, int, float)):
        return item
    if is_credential(name):
        return MASK
    if isinstance(item, str):
        return scrub(item)
    if depth >= _DEPTH:
        return "…"
    if isinstance(item, Mapping):
        return {str(k): value(str(k), v, depth + 1) for k, v in item.items()}
    if isinstance(item, (list, tuple, set, frozenset)):
        return [value(name, v, depth + 1) for v in item]
    if isinstance(item, (bytes, bytearray)):
        return scrub(bytes(item[:LIMIT]).decode("utf-8", "backslashreplace"))
    if isinstance(item, BaseException):
        return scrub(f"{type(item).__name__}: {item}")
    return scrub(str(item))
