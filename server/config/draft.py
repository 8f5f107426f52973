"""All that a config is made of, read and put together, and not judged yet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from server.config import beside, card_files, paths
from server.config.places import Places, Problem
from server.config.variables import Expander, apply_twins, dot_env
from server.errors import ConfigError
from server.registry import overlay
from server.registry.catalog import Catalog, builtin

HOME: Final = "~/.roundhouse"
_SECTIONS: Final = (
    *("server", "log", "routing", "placement", "weights"),
    *("runtimes", "providers", "engines", "models"),
)


@dataclass(frozen=True, slots=True)
class Around:
    """What a config is read with: the environment, the flags' values by dotted path
    (`server.port`), the folder that relative paths in those two start from, and the catalog that
    the config's own cards go over."""

    environ: Mapping[str, str]
    overrides: Mapping[str, Any]
    cwd: FilePath
    catalog: Catalog


def around(
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: FilePath | None = None,
    catalog: Catalog | None = None,
) -> Around:
    """The process's own environment and working directory, and the built-in catalog, unless told
    otherwise."""
    variables = dict(os.environ if environ is None else environ)
    below = builtin() if catalog is None else catalog
    return Around(variables, dict(overrides or {}), cwd or FilePath(), below)


@dataclass(frozen=True, slots=True)
class Draft:
    """A tree in the config's form, with the environment and the flags in it, and what was read for
    it. `faults`: what is wrong already. For the rest see `Loaded`."""

    tree: Mapping[str, Any]
    places: Places
    faults: tuple[Problem, ...]
    catalog: Catalog
    folder: FilePath
    home: FilePath
    digest: str
    sources: tuple[str, ...]
    path: FilePath | None
    files: tuple[FilePath, ...]
    advice: tuple[str, ...]
    by_variable: Mapping[str, str]


def assemble(
    tree: Any,
    places: Places,
    data: bytes,
    folder: FilePath,
    given: Around,
    *,
    file: FilePath | None = None,
    by_key: bool = False,
) -> Draft:
    """`data`: what was read, for the digest. `by_key`: nobody said what to serve, and so it is what
    there are keys for. Raises ConfigError where something cannot be read."""
    if not isinstance(tree, dict | None):
        raise places.error((), "A config is a mapping.", "Begin with the line `version: 1`.")
    tree = _without_empty(tree or {})
    beside_it = folder / ".env"
    in_env_file = env_file(beside_it)
    variables = {**in_env_file, **given.environ}
    expander = Expander(variables, places)
    tree = expander.expand(tree)
    sources = [places.source, *([str(beside_it)] if in_env_file else [])]
    twins = apply_twins(
        tree,
        places,
        environ=given.environ,
        beside=in_env_file,
        overrides=given.overrides,
        cwd=given.cwd,
    )
    sources += twins
    faults = [p for p in expander.problems if places.of(p.path).line is not None]
    faults += paths.take_out(tree, places)

    keys_file, keys_data = None, b""
    named = beside.section(tree, "server").get("keys_file")
    if isinstance(named, str) and named:
        keys_file = folder / FilePath(named).expanduser()
        keys_data = read_file(keys_file, str(keys_file))
        more = beside.add_keys_file(tree, places, keys_data, str(keys_file), variables)
        faults += more.problems
        expander.used |= more.used
        sources.append(str(keys_file))
    if beside.add_env_key(tree, places, variables, expander.used):
        sources.append("ROUNDHOUSE_API_KEY")
    if tree.get("catalog") == "auto":
        beside.add_providers(tree, variables)
    by_variable = beside.add_provider_keys(tree, places, variables)
    sources += dict.fromkeys(by_variable.values())
    kept = by_key or tree.get("catalog") == "auto"

    home = (folder / _home(tree)).absolute()
    synced = _synced(given.catalog, home)
    card_data = _card_files(tree, folder)
    catalog = card_files.overlay(synced.catalog, card_data)
    card_data += synced.files
    sources += [str(path) for path, _ in card_data]
    parts = [
        data,
        repr(sorted(in_env_file.items())).encode(),
        keys_data,
        *(d for _, d in card_data),
    ]
    watched = (file, beside_it if file else None, keys_file, *(path for path, _ in card_data))
    return Draft(
        tree=tree,
        places=places,
        faults=tuple(faults),
        catalog=catalog,
        folder=folder,
        home=home,
        digest=hashlib.sha256(b"\0".join(parts)).hexdigest(),
        sources=tuple(sources),
        path=file,
        files=tuple(path for path in watched if path is not None),
        advice=(*(beside.kept_keys(tree, variables) if kept else ()), *synced.left_out),
        by_variable=by_variable,
    )


def read_file(file: FilePath, source: str, missing: str | None = None) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ConfigError("There is no such file.", file=source, hint=missing) from None
    except IsADirectoryError:
        raise ConfigError("This is a folder, not a file.", file=source) from None
    except OSError as error:
        raise ConfigError(f"Cannot be read: {error.strerror}.", file=source) from None
    except ValueError:
        raise ConfigError("This is no file's name.", file=repr(source)) from None


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """A section whose lines are all commented out, or `openai:` with nothing after it, is empty,
    not null."""
    kept = {k: v for k, v in tree.items() if v is not None or k not in _SECTIONS}
    for name in ("providers", "models"):
        if isinstance(section := kept.get(name), dict):
            kept[name] = {k: {} if v is None else v for k, v in section.items()}
    return kept


def env_file(file: FilePath) -> dict[str, str]:
    try:
        return dot_env(file)
    except UnicodeDecodeError:
        raise ConfigError("The file is not UTF-8 text.", file=str(file)) from None
    except OSError as error:
        raise ConfigError(f"Cannot be read: {error.strerror}.", file=str(file)) from None


def _card_files(tree: dict[str, Any], folder: FilePath) -> list[tuple[FilePath, bytes]]:
    named = tree.get("cards")
    paths = [folder / FilePath(one).expanduser() for one in named or () if isinstance(one, str)]
    return [(path, read_file(path, str(path))) for path in paths] if isinstance(named, list) else []


def _synced(below: Catalog, home: FilePath) -> overlay.Stack:
    try:
        return overlay.stacked(below, home / overlay.FOLDER)
    except OSError as error:
        raise ConfigError(f"Cannot be read: {error.strerror}.", key="server.home") from None


def _home(tree: dict[str, Any]) -> FilePath:
    """Asked before the config is valid: what is no text here is refused a moment later."""
    named = beside.section(tree, "server").get("home")
    try:
        return FilePath(named if isinstance(named, str) and named else HOME).expanduser()
    except RuntimeError:
        raise ConfigError(
            "There is no home folder for engine logs and caches.",
            key="server.home",
            hint="Set ROUNDHOUSE_HOME to a folder that may be written.",
        ) from None
