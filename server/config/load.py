"""A config from a file, the environment and flags: read whole, checked whole, or refused whole.

What wins: flags, then the environment, then `.env` beside the file, then the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from server.config import beside, card_files, explain, links, paths, yamltext
from server.config.places import Path, Places, Problem, refuse
from server.config.schema import Config
from server.config.variables import Expander, apply_twins, dot_env
from server.errors import ConfigError
from server.registry import overlay
from server.registry.catalog import Catalog, builtin

FILE_NAME: Final = "roundhouse.yaml"
HOME: Final = "~/.roundhouse"
#: What `serve` runs when it is given nothing: the same text as configs/quickstart.yaml.
QUICKSTART: Final = FilePath(__file__).with_name("quickstart.yaml")

_NO_FILE: Final = (
    "`roundhouse serve` without a file serves the embedded model, and the models of the providers "
    "whose keys are in the environment."
)
_SECTIONS: Final = (
    *("server", "log", "routing", "placement", "weights"),
    *("runtimes", "providers", "engines", "models"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config that passed every check, and where it came from.

    `path` is None when there is no file of the user's own. Paths in the config are relative to
    `folder`. `digest` changes with anything that was read. `sources` names the files, variables and
    flags that had a say; `files` are those to watch. `advice` is for the log, a sentence each.
    `catalog` has the cards: the built-in ones, and over them those of the config's files.
    `by_variable`: provider → the variable that its key is from, where the file says none.
    """

    config: Config
    path: FilePath | None
    folder: FilePath
    home: FilePath
    digest: str
    sources: tuple[str, ...]
    files: tuple[FilePath, ...] = ()
    advice: tuple[str, ...] = ()
    catalog: Catalog = field(default_factory=builtin, repr=False, compare=False)
    by_variable: Mapping[str, str] = field(default_factory=dict, compare=False)
    _again: Callable[[], Loaded] | None = field(default=None, repr=False, compare=False)

    def again(self) -> Loaded:
        """Read everything anew, with the same environment and flags. Raises ConfigError."""
        return self if self._again is None else self._again()


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


def load(
    path: str | FilePath,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: FilePath | None = None,
    catalog: Catalog | None = None,
) -> Loaded:
    """The config in a file. Raises ConfigError, with all that is wrong in one."""
    file, given = FilePath(path), around(environ, overrides, cwd, catalog)

    def read() -> Loaded:
        source = str(path)
        data = _read(file, source, _NO_FILE)
        tree, places = yamltext.parse(data, source)
        return _assemble(tree, places, data, file.parent, given, file=file, again=read)

    return read()


def load_quickstart(
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: FilePath | None = None,
) -> Loaded:
    """The built-in config: the embedded model. Raises ConfigError (from variables and flags)."""
    given = around(environ, overrides, cwd)
    data = QUICKSTART.read_bytes()
    tree, places = yamltext.parse(data, "the built-in config")
    return _assemble(tree, places, data, given.cwd, given, by_key=True)


def from_keys(
    *,
    embedded: bool,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: FilePath | None = None,
    catalog: Catalog | None = None,
) -> Loaded:
    """A config without a file: the providers whose keys are in the environment or in `.env`, every
    model of theirs by its id, and the embedded one, too, if asked for. Raises ConfigError."""
    given = around(environ, overrides, cwd, catalog)
    tree: dict[str, Any] = {"version": 1}
    if embedded:
        tree, _ = yamltext.parse(QUICKSTART.read_bytes(), "the built-in config")
    tree["catalog"] = "auto"
    places = Places("the built-in config" if embedded else "the environment")
    return _assemble(tree, places, json.dumps(tree).encode(), given.cwd, given)


def providers_with_key(
    environ: Mapping[str, str] | None = None, cwd: FilePath | None = None
) -> list[str]:
    """Those that need nothing but a key, which is in the environment or in the working directory's
    `.env`. Raises ConfigError."""
    given = around(environ, cwd=cwd)
    return beside.with_key({**_dot_env(given.cwd / ".env"), **given.environ})


def from_models(
    names: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: FilePath | None = None,
) -> Loaded:
    """A config without a file: an engine and a model for each hub id, folder or `embedded:…`."""
    given = around(environ, overrides, cwd)
    tree: dict[str, Any] = {"version": 1, "engines": {}, "models": {}}
    for weights in names:
        model = _free(_model_name(weights, given.cwd), tree["models"])
        engine = _free(_engine_name(model), tree["engines"])
        tree["engines"][engine] = {"weights": weights}
        tree["models"][model] = {"targets": [{"engine": engine}]}
    places = Places("the command line")
    return _assemble(tree, places, json.dumps(tree).encode(), given.cwd, given)


def find(environ: Mapping[str, str], cwd: FilePath) -> FilePath | None:
    """The file to use when none is named: ROUNDHOUSE_CONFIG, else ./roundhouse.yaml, else None.
    Raises ConfigError where that variable holds no path."""
    if named := environ.get("ROUNDHOUSE_CONFIG"):
        if (wrong := paths.fault(named)) is not None:
            raise ConfigError(wrong[0], file="ROUNDHOUSE_CONFIG", hint=wrong[1])
        return cwd / FilePath(named).expanduser()
    here = cwd / FILE_NAME
    return here if here.is_file() else None


def _read(file: FilePath, source: str, missing: str | None = None) -> bytes:
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


# --- names for models without a file ----------------------------------------------------------


def _model_name(weights: str, cwd: FilePath) -> str:
    if weights.startswith("embedded:"):
        return weights.removeprefix("embedded:") or "embedded"
    if paths.fault(weights) is not None:  # told of later, as all faults of paths
        return "model"
    folder = cwd / FilePath(weights).expanduser()
    if weights.startswith((".", "/", "~")) or folder.is_dir():
        weights = folder.resolve().name
    return re.sub(r"[^A-Za-z0-9._:@/+-]", "-", weights).lstrip("._:@/+-")[:200] or "model"


def _engine_name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", model.rpartition("/")[2]).lower()
    return name.lstrip("._-")[:60] or "engine"


def _free(name: str, taken: Mapping[str, object]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


# --- from the parts to a config ---------------------------------------------------------------


def _assemble(
    tree: Any,
    places: Places,
    data: bytes,
    folder: FilePath,
    given: Around,
    *,
    file: FilePath | None = None,
    again: Callable[[], Loaded] | None = None,
    by_key: bool = False,
) -> Loaded:
    """`by_key`: nobody said what to serve, and so it is what there are keys for."""
    if not isinstance(tree, dict | None):
        raise places.error((), "A config is a mapping.", "Begin with the line `version: 1`.")
    tree = _without_empty(tree or {})
    env_file = folder / ".env"
    in_env_file = _dot_env(env_file)
    variables = {**in_env_file, **given.environ}
    expander = Expander(variables, places)
    tree = expander.expand(tree)
    sources = [places.source, *([str(env_file)] if in_env_file else [])]
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
        keys_data = _read(keys_file, str(keys_file))
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
    config = _validate(tree, places, faults, catalog, folder)
    parts = [
        data,
        repr(sorted(in_env_file.items())).encode(),
        keys_data,
        *(d for _, d in card_data),
    ]
    watched = (file, env_file if file else None, keys_file, *(path for path, _ in card_data))
    return Loaded(
        config=config,
        path=file,
        folder=folder.absolute(),
        home=home,
        digest=hashlib.sha256(b"\0".join(parts)).hexdigest(),
        sources=tuple(sources),
        files=tuple(path for path in watched if path is not None),
        advice=(
            *links.advice(config, places, catalog),
            *(beside.kept_keys(tree, variables) if kept else ()),
            *synced.left_out,
        ),
        catalog=catalog,
        by_variable=by_variable,
        _again=again,
    )


def _validate(
    tree: Any, places: Places, faults: list[Problem], catalog: Catalog, folder: FilePath
) -> Config:
    """Raises all that is wrong. Unknown keys are taken out to see what else there is."""
    faults = list(faults)
    known = {fault.path for fault in faults}
    config = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        found = explain.problems(error, tree, places)
        faults += [fault for fault in found if fault.path not in known]
        unknown = {d["loc"] for d in error.errors() if d["type"] == "extra_forbidden"}
        if unknown:
            try:
                config = Config.model_validate(_without(tree, unknown))
            except ValidationError:
                config = None
    if config is not None:
        found = links.check(config, places, catalog, folder)
        faults += [fault for fault in found if fault.path not in known]
    refuse(faults)
    assert config is not None
    return config


def _without(value: Any, paths: set[Path], at: Path = ()) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(inner, paths, (*at, key))
            for key, inner in value.items()
            if (*at, key) not in paths
        }
    if isinstance(value, list):
        return [_without(inner, paths, (*at, n)) for n, inner in enumerate(value)]
    return value


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """A section whose lines are all commented out, or `openai:` with nothing after it, is empty,
    not null."""
    kept = {k: v for k, v in tree.items() if v is not None or k not in _SECTIONS}
    for name in ("providers", "models"):
        if isinstance(section := kept.get(name), dict):
            kept[name] = {k: {} if v is None else v for k, v in section.items()}
    return kept


def _dot_env(file: FilePath) -> dict[str, str]:
    try:
        return dot_env(file)
    except UnicodeDecodeError:
        raise ConfigError("The file is not UTF-8 text.", file=str(file)) from None
    except OSError as error:
        raise ConfigError(f"Cannot be read: {error.strerror}.", file=str(file)) from None


def _card_files(tree: dict[str, Any], folder: FilePath) -> list[tuple[FilePath, bytes]]:
    named = tree.get("cards")
    paths = [folder / FilePath(one).expanduser() for one in named or () if isinstance(one, str)]
    return [(path, _read(path, str(path))) for path in paths] if isinstance(named, list) else []


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
