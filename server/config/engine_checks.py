"""What is wrong with the entries under `engines` and `runtimes`, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from server.config import command_checks, listeners, placement_checks, values
from server.config.engine import (
    COMMAND,
    COMMAND_KEYS,
    EXTERNAL,
    EXTERNAL_KEYS,
    LOCAL_KEYS,
    VLLM_KEYS,
    Engine,
)
from server.config.model_checks import missing
from server.config.places import Path, Places, Problem
from server.config.schema import Config

#: Words that stand for other ways than a Python with vLLM.
_TAKEN: Final = {
    COMMAND: "It stands for engines that a command of yours starts. Choose another name.",
    EXTERNAL: "It stands for engines that somebody else runs. Choose another name.",
}
#: Built in; may be refined under `runtimes`.
RUNTIMES: Final = frozenset({"vllm"})
_ELSEWHERE: Final = "It is started elsewhere: say it there, and remove it here."
_ALWAYS: Final = "The replicas run all the time; remove it."
_HINTS: Final = {
    "weights": "The replicas have them; `model` is the name that they go by there.",
    "device": "The replicas have theirs; remove it.",
    "load": _ALWAYS,
    "pinned": _ALWAYS,
    "idle": _ALWAYS,
    "residency": _ALWAYS,
    "groups": _ALWAYS,
    "sleep": _ALWAYS,
    "replicas": "It has as many as `urls` lists, or as `discover` finds; remove it.",
    "memory": "What the replicas take is no concern here; remove it.",
    "model": "An engine of ours has `weights`; names for clients stand under `models`.",
    "cmd": "Write `runtime: command` where it is to be started here.",
    "health": "Replicas are asked at /health; remove it.",
    "api_key": "Engines of ours need none; clients' keys stand under `server.keys`.",
}


def check(config: Config, places: Places) -> Iterator[Problem]:
    """All that keeps an engine from being started, or from being found."""
    known = {*RUNTIMES, *_TAKEN, *config.runtimes}
    for name in _TAKEN.keys() & config.runtimes.keys():
        yield places.error(("runtimes", name), f"the name `{name}` is taken.", _TAKEN[name])
    for name, engine in config.engines.items():
        path: Path = ("engines", name)
        if engine.runtime not in known:
            yield places.error((*path, "runtime"), *missing("runtime", engine.runtime, known))
        kind = _external if engine.external else _command if engine.command else _local
        yield from kind(path, engine, config, places)
    yield from placement_checks.check(config, places)


def _given(engine: Engine, keys: frozenset[str]) -> list[str]:
    """Those of `keys` that say something here, in the order of the schema."""
    names = (name for name in type(engine).model_fields if name in keys)
    return [n for n in names if n in engine.model_fields_set and getattr(engine, n) is not None]


def _local(path: Path, engine: Engine, config: Config, places: Places) -> Iterator[Problem]:
    elsewhere, commands = _given(engine, EXTERNAL_KEYS), _given(engine, COMMAND_KEYS)
    if engine.weights is not None:
        yield from _not_ours(path, elsewhere, places)
        hint = "Remove it, or write `runtime: command`."
        for key in commands:
            text = "is for engines with `runtime: command` only."
            yield places.error((*path, key), text, hint)
    elif "cmd" in commands:
        yield places.error(
            path,
            "has neither `weights` nor `runtime: command`.",
            "Add `runtime: command` where `cmd` is what starts it.",
        )
    elif {"urls", "discover"} & set(elsewhere):
        yield places.error(
            path,
            "has neither `weights` nor `runtime: external`.",
            "Add `runtime: external` for replicas that somebody else runs.",
        )
    elif "weights" in engine.model_fields_set:
        yield places.error((*path, "weights"), "has no value.", "Give it one, or remove the line.")
    else:
        yield places.error((*path, "weights"), "is missing.")


def _not_ours(path: Path, keys: list[str], places: Places) -> Iterator[Problem]:
    hint = "Remove it, or write `runtime: external` and no `weights`."
    for key in keys:
        text = "is for engines with `runtime: external` only."
        yield places.error((*path, key), text, _HINTS.get(key, hint))


def _command(path: Path, engine: Engine, config: Config, places: Places) -> Iterator[Problem]:
    yield from _not_ours(path, _given(engine, EXTERNAL_KEYS - {"model"}), places)
    for key in _given(engine, VLLM_KEYS):
        yield places.error((*path, key), *command_checks.for_vllm(key))
    yield from command_checks.check(path, engine, places)


def _external(path: Path, engine: Engine, config: Config, places: Places) -> Iterator[Problem]:
    for key in _given(engine, LOCAL_KEYS):
        text = "is not for an engine with `runtime: external`."
        yield places.error((*path, key), text, _HINTS.get(key, _ELSEWHERE))
    if engine.urls and engine.discover is not None:
        yield places.error((*path, "discover"), "stands beside `urls`.", "Keep one of the two.")
    elif not engine.urls and engine.discover is None:
        yield places.error(
            path,
            "has no replicas.",
            'Give `urls: ["http://10.0.0.3:8000"]` or `discover: "dns://host:port"`.',
        )
    taken: set[tuple[str | None, int | None]] = set()
    for at, url in enumerate(engine.urls):
        here = (*path, "urls", at)
        wrong = list(_url(here, url, config, places))
        yield from wrong
        if not wrong:
            place = (urlsplit(url).hostname, _port(url))
            if place in taken:
                yield places.error(here, "stands here twice.", "Take one out.")
            taken.add(place)
    if engine.discover is not None and listeners.is_own(engine.discover, config):
        yield places.error((*path, "discover"), *_ROUND)
    if engine.api_key is not None:
        yield from values.api_key((*path, "api_key"), engine.api_key.get_secret_value(), places)


_ROUND: Final = (
    "is this server itself, so requests would go round in circles.",
    "Give the replicas' own address.",
)


def _url(path: Path, url: str, config: Config, places: Places) -> Iterator[Problem]:
    wrong = list(values.plain_url(path, url, places))
    yield from wrong
    if wrong:
        return
    if urlsplit(url).path:
        yield places.error(path, "goes too far.", "Stop after the port, or at the /v1 after it.")
    elif listeners.is_own(url, config):
        yield places.error(path, *_ROUND)


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def advice(config: Config) -> Iterator[str]:
    """What is allowed, but probably not meant, one sentence each."""
    yield from placement_checks.advice(config)
    for name, engine in config.engines.items():
        if engine.command:
            yield from command_checks.advice(name, engine)
        if engine.api_key is None:
            continue
        plain = [url for url in engine.urls if url.startswith("http://")]
        hosts = [urlsplit(url).hostname or "" for url in (*plain, engine.discover or "")]
        far = [host for host in hosts if host and not listeners.is_loopback(host)]
        if far:
            yield f"Engine `{name}`: its key travels to {far[0]} without TLS."
