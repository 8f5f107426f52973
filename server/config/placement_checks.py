"""What is wrong with, and what is odd about, who stays loaded, and who makes room for whom."""

from __future__ import annotations

from collections.abc import Iterator

from server.config.engine import Engine
from server.config.places import Path, Places, Problem
from server.config.schema import Config


def check(config: Config, places: Places) -> Iterator[Problem]:
    bounds, groups = config.placement, _groups(config)
    if bounds.keep_alive_least > bounds.keep_alive_most:
        yield places.error(
            ("placement", "keep_alive_least"),
            "is longer than `keep_alive_most`.",
            "Write it the other way round.",
        )
    for name, engine in config.engines.items():
        path: Path = ("engines", name)
        if engine.pinned:
            yield from _pinned(path, name, engine, groups, places)
        if engine.replicas > 1 and engine.groups:
            yield places.error(
                (*path, "replicas"),
                "is more than 1, and an engine in a group is loaded once.",
                "Remove `replicas`, or take it out of its `groups`.",
            )


def _groups(config: Config) -> dict[str, list[str]]:
    """Group → the engines in it. Those of others are in none: their groups are refused."""
    found: dict[str, list[str]] = {}
    for name, engine in config.engines.items():
        for group in dict.fromkeys(() if engine.external else engine.groups):
            found.setdefault(group, []).append(name)
    return found


def _pinned(
    path: Path, name: str, engine: Engine, groups: dict[str, list[str]], places: Places
) -> Iterator[Problem]:
    if engine.load == "request":
        yield places.error(
            (*path, "load"),
            "is `request`, and a pinned engine is loaded with the server.",
            "Remove it, or `pinned`.",
        )
    if engine.idle is not None:
        yield places.error(
            (*path, "idle"),
            "would unload it, and a pinned engine is never unloaded.",
            "Remove it, or `pinned`.",
        )
    others = dict.fromkeys(o for g in engine.groups for o in groups.get(g, ()) if o != name)
    if others:
        those = ", ".join(f"`{other}`" for other in others)
        yield places.error(
            (*path, "groups"),
            f"has {those} in it, too, which could never be loaded: this one is pinned.",
            "Remove `pinned`, or take one of them out of the group.",
        )


def advice(config: Config) -> Iterator[str]:
    """What has no effect, or not the one that was meant: one sentence each."""
    groups = _groups(config)
    for group, members in groups.items():
        if len(members) == 1:
            yield f"Engine `{members[0]}`: nobody else is in the group `{group}`: no effect."
        early = [name for name in members if config.engines[name].load == "startup"]
        if len(early) > 1:
            those = " and ".join(f"`{name}`" for name in early)
            yield (
                f"Group `{group}`: {those} are loaded at startup, but only one of the group can be "
                "at a time. Write `load: request` for the others."
            )
    for name, engine in config.engines.items():
        if engine.sleep and engine.device == "cpu":
            yield (
                f"Engine `{name}`: `sleep` has no effect on a CPU: its weights are in the host's "
                "memory already."
            )
        if engine.sleep and engine.pinned:
            yield f"Engine `{name}`: `sleep` has no effect: it is pinned and never makes room."
        if engine.concurrency is not None and engine.kv_cache is not None:
            yield f"Engine `{name}`: `concurrency` has no effect beside `kv_cache`, which wins."
