"""From a tree to a config, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from server.config import explain, links
from server.config.places import Path, Places, Problem, refuse
from server.config.schema import Config
from server.registry.catalog import Catalog


def validate(
    tree: Mapping[str, Any],
    places: Places,
    catalog: Catalog,
    folder: FilePath,
    faults: Iterable[Problem] = (),
) -> Config:
    """The config that it is. Raises ConfigError with all that is wrong, `faults` among it. Unknown
    keys are taken out to see what else there is."""
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
