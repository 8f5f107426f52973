"""What is wrong with the entries under `engines` and `runtimes`, and what is odd about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from server.config import listeners, values
from server.config.engine import EXTERNAL, EXTERNAL_KEYS, LOCAL_KEYS, Engine
from server.config.model_checks import missing
from server.config.places import Path, Places, Problem
from server.config.schema import Config

#: Built in; may be refined under `runtimes`.
RUNTIMES: Final = frozenset({"vllm"})
_ELSEWHERE: Final = "It is started elsewhere: say it there, and remove it here."
_HINTS: Final = {
    "weights": "The replicas have them; `model` is the name that they go by there.",
    "device": "The replicas have theirs; remove it.",
    "load": "The replicas run all the time; remove it.",
    "model": "An engine of ours has `weights`; names for clients stand under `models`.",
    "api_key": "Engines of ours need none; clients' keys stand under `server.keys`.",
}


def check(config: Config, places: Places) -> Iterator[Problem]:
    """All that keeps an engine from being started, or from being found."""
    known = {*RUNTIMES, EXTERNAL, *config.runtimes}
    if EXTERNAL in config.runtimes:
        yield places.error(
            ("runtimes", EXTERNAL),
            "the name `external` is taken.",
            "It stands for engines that somebody else runs. Choose another name.",
        )
    for name, engine in config.engines.items():
        path: Path = ("engines", name)
        if engine.runtime not in known:
            yield places.error((*path, "runtime"), *missing("runtime", engine.runtime, known))
        yield from (_external if engine.external else _local)(path, engine, config, places)


def _given(engine: Engine, keys: frozenset[str]) -> list[str]:
    """Those of `keys` that say something here, in the order of the schema."""
    names = (name for name in type(engine).model_fields if name in keys)
    return [n for n in names if n in engine.model_fields_set and getattr(engine, n) is not None]


def _local(path: Path, engine: Engine, config: Config, places: Places) -> Iterator[Problem]:
    elsewhere = _given(engine, EXTERNAL_KEYS)
    if engine.weights is not None:
        hint = "Remove it, or write `runtime: external` and no `weights`."
        for key in elsewhere:
            text = "is for engines with `runtime: external` only."
            yield places.error((*path, key), text, _HINTS.get(key, hint))
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
    """One sentence for each engine whose key can be read on its way."""
    for name, engine in config.engines.items():
        if engine.api_key is None:
            continue
        plain = [url for url in engine.urls if url.startswith("http://")]
        hosts = [urlsplit(url).hostname or "" for url in (*plain, engine.discover or "")]
        far = [host for host in hosts if host and not listeners.is_loopback(host)]
        if far:
            yield f"Engine `{name}`: its key travels to {far[0]} without TLS."
