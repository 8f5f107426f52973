"""What a URL and a secret must be to be of use."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from server.config.places import Path, Places, Problem


def readable(url: str) -> bool:
    """Does it name a host, and a port that can be?"""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


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
    if not secret:
        yield places.error(path, "is empty.", "Remove it where none is needed.")
    yield from header_value(path, secret, places)


def header_value(path: Path, secret: str, places: Places) -> Iterator[Problem]:
    if not secret.isascii() or not secret.isprintable() or secret != secret.strip():
        yield places.error(
            path,
            "holds a line break, a space at an end, or a sign that cannot stand in a header.",
            "Did the variable or the file end with a line break?",
        )
