"""What a running server was told to serve besides its config, and the file that keeps it.

`roundhouse load` and `roundhouse default` make these. They stand in `state.json` in the server's
home, as they were given, and come back with the next `serve`. The config wins over them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from server.errors import ConfigError
from server.files import prepare_whole

FILE: Final = "state.json"
DAMAGED: Final = ".damaged"
VERSION: Final = 1
MAX_BYTES: Final = 2**20
#: The file may hold keys of engines, and says what runs here.
MODE: Final = 0o600


class KeepError(ConfigError):
    """What the server was told cannot be kept: its disk's fault, or its file's, and not that of who
    asked."""


@dataclass(frozen=True, slots=True)
class Additions:
    """Entries for the config's `engines` and `models`, by name and in its own words, and for its
    `default`."""

    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    default: str | None = None

    def __bool__(self) -> bool:
        return bool(self.engines or self.models or self.default is not None)

    def without(self, less: Additions) -> Additions:
        """What is not in `less`, by name."""
        return Additions(
            {name: one for name, one in self.engines.items() if name not in less.engines},
            {name: one for name, one in self.models.items() if name not in less.models},
            None if less.default is not None else self.default,
        )

    def over(self, below: Additions) -> Additions:
        """These, and what only `below` has."""
        default = below.default if self.default is None else self.default
        engines, models = {**below.engines, **self.engines}, {**below.models, **self.models}
        return Additions(engines, models, default)

    def paths(self) -> tuple[tuple[str, ...], ...]:
        """The config's keys that they stand for, those that others may name first."""
        engines = (("engines", name) for name in self.engines)
        models = (("models", name) for name in self.models)
        return (*engines, *models, *((("default",),) if self.default is not None else ()))

    def only(self, path: tuple[str, ...]) -> Additions:
        """The one of that path."""
        if path == ("default",):
            return Additions(default=self.default)
        section, name = path
        one = {name: getattr(self, section)[name]}
        return Additions(engines=one) if section == "engines" else Additions(models=one)


NONE: Final = Additions()


@dataclass(frozen=True, slots=True)
class Found:
    """What a home holds. `notes`: what is wrong with its file, a sentence each."""

    additions: Additions = NONE
    notes: tuple[str, ...] = ()


def read(home: Path) -> Found:
    """Never raises. A damaged file is set aside, and is as good as none; one that cannot be read,
    or that a newer version wrote, stays as it is."""
    path = home / FILE
    try:
        return Found(_read(path))
    except FileNotFoundError:
        return Found()
    except _DamagedError as error:
        return Found(notes=(_set_aside(path, str(error)),))
    except _NewerError as error:
        return Found(notes=(f"{path} {error}: what was loaded then is not served.",))
    except OSError as error:
        return Found(notes=(f"{path} cannot be read ({error.strerror}): nothing of it is served.",))


class Pending:
    """A state file that is written, and not yet in its place."""

    def __init__(self, path: Path, temporary: Path) -> None:
        self._path, self._temporary = path, temporary

    def commit(self) -> None:
        """Put it there. Raises KeepError."""
        try:
            self._temporary.replace(self._path)
        except OSError as error:
            raise KeepError(
                f"Cannot be written ({error.strerror}): what was changed is in force, and lost "
                "with the next start.",
                file=str(self._path),
            ) from None

    def discard(self) -> None:
        """Does nothing after `commit`."""
        self._temporary.unlink(missing_ok=True)


def prepare(home: Path, additions: Additions) -> Pending:
    """Write all but the last step, so that what cannot be kept is known before it is applied.
    Raises KeepError, in words for who asked; nothing has changed then."""
    path, text = home / FILE, _text(additions)
    if len(text) > MAX_BYTES:  # all ASCII; it could not be read again
        raise KeepError(
            f"Would be larger than {MAX_BYTES} bytes, so that nothing was changed.",
            file=str(path),
            hint="Unload what is needed no more, or write what is large into the config.",
        )
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        _keep_what_is_there(path)
        return Pending(path, prepare_whole(path, text, mode=MODE))
    except OSError as error:
        raise KeepError(
            f"Cannot be written ({error.strerror}), so that nothing was changed.",
            file=str(path),
            hint="Make the folder writable, or set `server.home` to one that is.",
        ) from None


def write(home: Path, additions: Additions) -> None:
    """The file whole, or not at all. Raises KeepError."""
    pending = prepare(home, additions)
    try:
        pending.commit()
    finally:
        pending.discard()


def _text(additions: Additions) -> str:
    made: dict[str, Any] = {
        "version": VERSION,
        "engines": {name: dict(one) for name, one in additions.engines.items()},
        "models": {name: dict(one) for name, one in additions.models.items()},
        "default": additions.default,
    }
    return json.dumps(made, indent=2) + "\n"


# --- reading ------------------------------------------------------------------------------------


class _DamagedError(Exception):
    pass


class _NewerError(Exception):
    pass


def _read(path: Path) -> Additions:
    if not path.is_file() and path.exists():
        raise OSError(0, "it is no file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _DamagedError(f"is larger than {MAX_BYTES} bytes")
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise _DamagedError("is no JSON") from None
    version = tree.get("version") if isinstance(tree, dict) else None
    if type(version) is not int or version < 1:
        raise _DamagedError("has no version")
    if version > VERSION:
        raise _NewerError(f"is of version {version}, from a newer Roundhouse")
    engines, models = _entries(tree, "engines"), _entries(tree, "models")
    default = tree.get("default")
    if not isinstance(default, str | None):
        raise _DamagedError("has no text as `default`")
    return Additions(engines, models, default)


def _entries(tree: dict[str, Any], section: str) -> dict[str, dict[str, Any]]:
    found = tree.get(section, {})
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise _DamagedError(f"has no entries under `{section}`")
    return found


def _set_aside(path: Path, why: str) -> str:
    aside = path.with_name(path.name + DAMAGED)
    lost = f"{path} {why}: nothing of it is served."
    try:
        path.replace(aside)
    except OSError as error:
        return f"{lost} It cannot be set aside ({error.strerror})."
    return f"{lost} It is kept as {aside.name}."


def _keep_what_is_there(path: Path) -> None:
    """Nothing is written over what could not be read. Raises KeepError, OSError."""
    try:
        _read(path)
    except FileNotFoundError:
        return
    except _DamagedError as error:
        _set_aside(path, str(error))
    except _NewerError as error:
        raise KeepError(
            f"The file {error}, so that nothing was changed.",
            file=str(path),
            hint="Run that version, or move the file away.",
        ) from None
