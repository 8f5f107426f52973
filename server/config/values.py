"""What a URL and a secret must be to be of use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from server.config.places import Path, Places, Problem

_QUOTES: Final = "\"'"
_PORTS: Final = {"http": 80, "https": 443}


def readable(url: str) -> bool:
    """Does it name a host, and a port that can be?"""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def same_place(one: str, other: str) -> bool:
    """Are these one URL, written in two ways? Capitals of the host, the scheme's own port and a
    slash at the end make no difference; whatever else differs does."""
    return one == other or (readable(one) and readable(other) and _spelt(one) == _spelt(other))


def _spelt(url: str) -> tuple[object, ...]:
    """`hostname` is in small letters already. Who would be logged in is part of it."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    port = parts.port or _PORTS.get(parts.scheme)
    path = parts.path.rstrip("/")
    return parts.scheme, user, parts.hostname, port, path, parts.query, parts.fragment


def plain_url(path: Path, url: str, places: Places) -> Iterator[Problem]:
    """Nothing in it that a URL cannot hold, or that belongs elsewhere. No message repeats it."""
    if not readable(url) or any(sign in url for sign in " \\\n\t"):
        yield places.error(path, "is no URL.", "For example: http://127.0.0.1:8080/v1")
    elif "@" in urlsplit(url).netloc or urlsplit(url).query or urlsplit(url).fragment:
        yield places.error(
            path, "must not hold a password, a query or a fragment.", "Use `api_key`."
        )


def api_key(path: Path, secret: str, places: Places) -> Iterator[Problem]:
    """A key that is sent to somebody else."""
    wrong = list(header_value(path, secret, places))
    if not secret:
        yield places.error(path, "is empty.", "Remove it where none is needed.")
    elif wrong:
        yield from wrong
    elif secret[0] in _QUOTES or secret[-1] in _QUOTES:
        yield places.error(
            path,
            "has quotes in it, and they are sent as part of the key.",
            "Take them out: the shell takes quotes away, and other readers of variables do not.",
        )
    elif " " in secret:
        yield places.error(
            path, "has a space in it, which no key has.", "Give the key alone, without `Bearer`."
        )


def header_value(path: Path, secret: str, places: Places) -> Iterator[Problem]:
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        yield places.error(
            path,
            "holds a line break, a space at an end, or a sign that cannot stand in a header.",
            "Did the variable or the file end with a line break?",
        )
