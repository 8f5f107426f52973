"""Where each value of a config came from, and errors that say so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from server.errors import ConfigError

#: Keys and list positions from the top of the file: ("server", "keys", 0, "name").
Path = tuple[str | int, ...]

#: Fields whose values are never repeated in a message.
SECRETS: Final = frozenset(
    {"key", "api_key", "api_keys", "admin_key", "metrics_key", "headers", "proxy"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """A file and a line in it, or the name of a variable or flag (then `line` is None)."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(slots=True)
class Places:
    """The place of every key and list item that was read; `scalars` holds their text as written
    where YAML made something else than a string of it."""

    source: str
    found: dict[Path, Place] = field(default_factory=dict)
    scalars: dict[Path, str] = field(default_factory=dict)

    def of(self, path: Path) -> Place:
        """The place of `path`, or of the nearest thing around it."""
        for end in range(len(path), -1, -1):
            if place := self.found.get(path[:end]):
                return place
        return Place(self.source)

    def move(self, path: Path, place: Place) -> None:
        """`path` and what is under it now comes from `place` (an environment variable, a flag)."""
        for old in [known for known in self.found if known[: len(path)] == path]:
            del self.found[old]
        for old in [known for known in self.scalars if known[: len(path)] == path]:
            del self.scalars[old]
        self.found[path] = place

    def graft(self, path: Path, other: Places) -> None:
        """`other` describes what now stands under `path`."""
        self.found.update({path + key: place for key, place in other.found.items()})
        self.scalars.update({path + key: text for key, text in other.scalars.items()})

    def inside(self, path: Path) -> Places:
        """What is known of `path` and what is under it, as if it were the top."""
        depth = len(path)
        found = {key[depth:]: place for key, place in self.found.items() if key[:depth] == path}
        texts = {key[depth:]: text for key, text in self.scalars.items() if key[:depth] == path}
        return Places(self.source, found, texts)

    def error(self, path: Path, message: str, hint: str | None = None) -> Problem:
        """A ConfigError about `path`, which names its place."""
        place = self.of(path)
        return Problem(path, message, file=place.source, line=place.line, hint=hint)


class Problem(ConfigError):
    """A ConfigError that knows its path."""

    def __init__(
        self,
        path: Path,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, file=file, line=line, key=dotted(path) or None, hint=hint)
        self.path = path


class ConfigErrors(ConfigError):
    """Several errors of one config; `str()` has one a line."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))

    def __str__(self) -> str:
        return self.message

    def __iter__(self) -> Iterator[ConfigError]:
        return iter(self.errors)


def refuse(errors: Iterable[ConfigError]) -> None:
    """Raises the one error, or all of them as `ConfigErrors`; returns when there is none."""
    found = sorted(errors, key=lambda error: (error.file or "", error.line or 0))
    if len(found) == 1:
        raise found[0]
    if found:
        raise ConfigErrors(found)


def dotted(path: Path) -> str:
    """`server.keys[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
