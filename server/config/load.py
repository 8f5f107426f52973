"""A config from a file, the environment and flags: read whole, checked whole, or refused whole.

What wins: flags, then the environment, then `.env` beside the file, then the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

from server.config import beside, paths, yamltext
from server.config.draft import HOME as HOME
from server.config.draft import Around as Around
from server.config.draft import Draft, around, assemble, env_file, read_file
from server.config.loaded import Loaded as Loaded
from server.config.loaded import finish
from server.config.places import Places
from server.errors import ConfigError
from server.registry.catalog import Catalog

FILE_NAME: Final = "roundhouse.yaml"
#: What `serve` runs when it is given nothing: the same text as configs/quickstart.yaml.
QUICKSTART: Final = FilePath(__file__).with_name("quickstart.yaml")

_NO_FILE: Final = (
    "`roundhouse serve` without a file serves the embedded model, and the models of the providers "
    "whose keys are in the environment."
)


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

    def read() -> Draft:
        source = str(path)
        data = read_file(file, source, _NO_FILE)
        tree, places = yamltext.parse(data, source)
        return assemble(tree, places, data, file.parent, given, file=file)

    return finish(read(), read)


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
    return finish(assemble(tree, places, data, given.cwd, given, by_key=True))


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
    return finish(assemble(tree, places, json.dumps(tree).encode(), given.cwd, given))


def providers_with_key(
    environ: Mapping[str, str] | None = None, cwd: FilePath | None = None
) -> list[str]:
    """Those that need nothing but a key, which is in the environment or in the working directory's
    `.env`. Raises ConfigError."""
    given = around(environ, cwd=cwd)
    return beside.with_key({**env_file(given.cwd / ".env"), **given.environ})


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
    return finish(assemble(tree, places, json.dumps(tree).encode(), given.cwd, given))


def find(environ: Mapping[str, str], cwd: FilePath) -> FilePath | None:
    """The file to use when none is named: ROUNDHOUSE_CONFIG, else ./roundhouse.yaml, else None.
    Raises ConfigError where that variable holds no path."""
    if named := environ.get("ROUNDHOUSE_CONFIG"):
        if (wrong := paths.fault(named)) is not None:
            raise ConfigError(wrong[0], file="ROUNDHOUSE_CONFIG", hint=wrong[1])
        return cwd / FilePath(named).expanduser()
    here = cwd / FILE_NAME
    return here if here.is_file() else None


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
