"""Paths that a config names: which text can be one, and where it leads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any, Final

from server.config.places import Path, Places, Problem

#: Every key whose value is a path, or may be one; `*` stands for any name or number.
KEYS: Final = (
    ("server", "keys_file"),
    ("server", "home"),
    ("weights", "folder"),
    ("runtimes", "*", "python"),
    ("providers", "*", "ca"),
    ("engines", "*", "weights"),
    ("cards", "*"),
)


def fault(said: str) -> tuple[str, str] | None:
    """Why this text leads nowhere, and what to do; None for one that may. Asks no disk but for
    whose home `~name` is."""
    if "\0" in said:
        return "holds a NUL sign, which no path can.", "Was the value cut out of binary data?"
    try:
        said.encode()
    except UnicodeEncodeError:
        return "holds half of a sign, which no path can.", "Write it as UTF-8 text."
    try:
        FilePath(said).expanduser()
    except RuntimeError:
        return f"{said} cannot be read: whose home folder is that?", "Write it without the ~."
    return None


def take_out(tree: dict[str, Any], places: Places) -> list[Problem]:
    """What is wrong with the paths of a tree that nobody has checked yet. Those are taken out, so
    that nobody looks for them."""
    found: list[Problem] = []
    for pattern in KEYS:
        bad = []
        for around, key, path in _all(tree, pattern):
            said = around[key]
            if isinstance(said, str) and (wrong := fault(said)) is not None:
                found.append(places.error(path, *wrong))
                bad.append((around, key))
        for around, key in reversed(bad):  # so that the numbers before it stay what they are
            if isinstance(around, list):
                del around[key]
            else:
                around[key] = None
    return found


def _all(tree: Any, pattern: Path, at: Path = ()) -> Iterator[tuple[Any, Any, Path]]:
    """(what it stands in, its key or number there, its path), in their order."""
    key, rest = pattern[0], pattern[1:]
    names: Iterable[str | int] = ()
    if isinstance(tree, dict):
        names = list(tree) if key == "*" else {key} & tree.keys()
    elif isinstance(tree, list) and key == "*":
        names = range(len(tree))
    for name in names:
        if rest:
            yield from _all(tree[name], rest, (*at, name))
        else:
            yield tree, name, (*at, name)
