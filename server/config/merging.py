"""Additions under a config: the same checks and the same words as for the config itself.

The config is good before anything is added, so that whatever is wrong then is the additions', and
no error names a line of its file. `${…}` in them is no variable: who may load a model need not see
the server's environment.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.config import paths
from server.config.additions import FILE, Additions
from server.config.draft import Draft
from server.config.places import ConfigErrors, Place, Places, Problem, refuse
from server.config.resolve import loose_engines
from server.config.schema import Config
from server.config.validation import validate
from server.config.yamltext import MAX_DEPTH
from server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Merged:
    """A config with additions in it. `left_out`: a sentence for each that is not in force."""

    config: Config
    places: Places
    additions: Additions
    left_out: tuple[str, ...] = ()


def add(draft: Draft, config: Config, additions: Additions) -> Merged:
    """All of them, or ConfigError."""
    refuse(
        Problem(path, f"{why}, which wins.", hint=_way_out(path))
        for path, why in _overruled(draft, config, additions).items()
    )
    return _together(draft, config, additions)


def merge(draft: Draft, config: Config, wanted: Additions) -> Merged:
    """Those that can be. Never raises."""
    overruled = _overruled(draft, config, wanted)
    out = {**_of_others(wanted, overruled), **overruled}
    left_out = [f"{_name(path)} is left out: {why}." for path, why in out.items()]
    waiting = [path for path in wanted.paths() if path not in out]
    found, wrong = _grow(draft, config, wanted, waiting)
    file = draft.home / FILE
    left_out += [f"{_name(path)} is left out: {text} ({file})" for path, text in wrong.items()]
    return Merged(found.config, found.places, found.additions, tuple(left_out))


def _grow(
    draft: Draft, config: Config, wanted: Additions, waiting: list[tuple[str, ...]]
) -> tuple[Merged, dict[tuple[str, ...], str]]:
    """As many as go together, in their order; and what is wrong with the others. One may need
    another that comes after it."""
    whole = Additions()
    for path in waiting:
        whole = wanted.only(path).over(whole)
    found = Merged(config, draft.places, Additions())
    if not whole:
        return found, {}
    try:
        return _together(draft, config, whole), {}
    except ConfigError:
        pass
    while True:
        wrong: dict[tuple[str, ...], str] = {}
        for path in waiting:
            try:
                found = _together(draft, config, wanted.only(path).over(found.additions))
            except ConfigError as error:
                wrong[path] = str(error)
        if len(wrong) in (0, len(waiting)):
            return found, wrong
        waiting = list(wrong)


def _overruled(draft: Draft, config: Config, wanted: Additions) -> dict[tuple[str, ...], str]:
    """Path → what the config has in its stead."""
    found: dict[tuple[str, ...], str] = {}
    engines = {name.lower(): name for name in config.engines}
    for name in wanted.engines:
        if (own := engines.get(name.lower())) is not None:
            found["engines", name] = f"the config has an engine `{own}`"
    loose = loose_engines(config)
    for name in wanted.models:
        if name in config.models:
            found["models", name] = f"the config has a model `{name}`"
        elif name in loose:
            found["models", name] = f"the config has an engine `{name}`, which is a model"
    if wanted.default is not None and config.default is not None:
        found["default",] = f"{draft.places.of(('default',))} says `{config.default}`"
    return found


def _of_others(
    wanted: Additions, overruled: Mapping[tuple[str, ...], str]
) -> dict[tuple[str, ...], str]:
    """Models of engines that are the config's now, with whatever weights those have."""
    found: dict[tuple[str, ...], str] = {}
    for name, model in wanted.models.items():
        targets = model.get("targets")
        for target in targets if isinstance(targets, list | tuple) else ():
            engine = target.get("engine") if isinstance(target, Mapping) else None
            if isinstance(engine, str) and ("engines", engine) in overruled:
                found["models", name] = f"its engine `{engine}` is the config's now"
    return found


def _together(draft: Draft, config: Config, additions: Additions) -> Merged:
    """Raises ConfigError that names no file."""
    places = Places(draft.places.source, dict(draft.places.found), dict(draft.places.scalars))
    for path in additions.paths():
        places.move(path, Place(str(draft.home / FILE)))
    tree = dict(draft.tree)
    more: dict[str, Any] = {}
    for section, entries in (("engines", additions.engines), ("models", additions.models)):
        deep = (name for name, one in entries.items() if _too_deep(one))
        refuse(Problem((section, name), "is nested too deeply.") for name in deep)
        if entries:
            more[section] = {name: copy.deepcopy(dict(one)) for name, one in entries.items()}
            tree[section] = {**(tree.get(section) or {}), **more[section]}
    if additions.default is not None:
        tree["default"] = additions.default
    faults = paths.take_out(more, places)
    try:
        made = validate(tree, places, draft.catalog, draft.folder, faults)
        refuse(_lost(config, made, additions))
    except ConfigError as error:
        several = error.errors if isinstance(error, ConfigErrors) else (error,)
        refuse(ConfigError(one.message, key=one.key, hint=one.hint) for one in several)
        raise
    return Merged(made, places, additions)


def _too_deep(value: Any) -> bool:
    """As a file may not be either. Others go through it level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, Mapping) else one for one in level]
        level = [one for some in inner for one in some if isinstance(one, Mapping | list | tuple)]
    return bool(level)


def _lost(config: Config, made: Config, additions: Additions) -> list[ConfigError]:
    """An engine of the config is a model of its own name until a model has it as a target."""
    lost = set(loose_engines(config)) - set(loose_engines(made))
    return [
        Problem(
            ("models", name, "targets"),
            f"has the engine `{target.engine}`, which would be no model of its own name any more.",
            hint="Write the model in the config.",
        )
        for name in additions.models
        for target in made.models[name].targets
        if target.engine in lost
    ]


def _name(path: tuple[str, ...]) -> str:
    if path == ("default",):
        return "The default, chosen while the server ran,"
    return f"{path[0][:-1].capitalize()} `{path[1]}`, loaded while the server ran,"


def _way_out(path: tuple[str, ...]) -> str:
    if path == ("default",):
        return "Change it there."
    return "Take another name, or change it in the config."
