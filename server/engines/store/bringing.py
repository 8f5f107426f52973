"""The weights of an engine from the store, pulled now if they are not there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from server.engines import safetensors, weights
from server.engines.store import records
from server.engines.store.errors import DISK, NETWORK, StoreError
from server.engines.store.fetching import Patience
from server.engines.store.hub import Hub, offline
from server.engines.store.places import COMMIT, Place, store_folder
from server.engines.store.progress import Progress
from server.engines.store.pulling import Pull, Wanted, counted
from server.engines.store.words import stage_of
from server.engines.weights import StoreSettings, Weights
from server.errors import EngineError

if TYPE_CHECKING:
    from server.config.engine import Engine

log = structlog.get_logger("roundhouse")

#: Seconds between two notes of how far it is.
EVERY: Final = 1.0
#: With a hub that cuts and falters.
PATIENCE: Final = Patience()
#: The largest config.json that is looked into.
_MAX_CONFIG: Final = 4 << 20


def bring(
    repo: str,
    engine: Engine,
    store: StoreSettings,
    *,
    dummy: bool,
    note: Callable[[str], None],
    stop: threading.Event,
    environ: Mapping[str, str] = os.environ,
) -> Weights:
    """See `weights.ready`. The engine's own variables count: its hub, its token, its cache."""
    environ = {**environ, **engine.env}
    folder = store.folder or store_folder(None, environ)
    may_pull = store.pull and offline(environ) is None

    def not_verified() -> None:
        note("weights found in the cache, not verified")
        log.info("weights_not_verified", model=repo, hint=f"`roundhouse pull {repo}` verifies them")

    found = _here(
        folder, repo, engine, store, dummy=dummy, may_pull=may_pull, not_verified=not_verified
    )
    if found is not None:
        return found
    if dummy:  # it needs a config and a tokenizer only, which vLLM fetches itself
        return Weights(argument=repo)
    if not may_pull:
        raise _cannot_pull(repo, engine, folder, environ)
    _pull(repo, engine, store, folder, note=note, stop=stop, environ=environ)
    found = _here(folder, repo, engine, store, dummy=False, may_pull=False)
    if found is None:  # somebody removed it the moment it was there
        raise _terminal(f"{repo} is not in {folder} any more. Run `roundhouse pull {repo}`.")
    return found


def whereabouts(
    repo: str, engine: Engine, store: StoreSettings, environ: Mapping[str, str] = os.environ
) -> str:
    """For people: where a model of the hub is, or what will be done about it. Asks nobody. Raises
    EngineError where nothing will be."""
    environ = {**environ, **engine.env}
    folder = store.folder or store_folder(None, environ)
    may_pull = store.pull and offline(environ) is None
    found = _here(folder, repo, engine, store, dummy=False, may_pull=may_pull)
    if found is not None:
        return found.argument
    if not may_pull:
        raise _cannot_pull(repo, engine, folder, environ)
    return f"{repo}, pulled into {folder} before its first start"


def _cannot_pull(
    repo: str, engine: Engine, folder: Path, environ: Mapping[str, str]
) -> EngineError:
    how = f"roundhouse pull {repo}"
    how += f" --revision {engine.revision}" if engine.revision else ""
    if (name := offline(environ)) is not None:
        return _terminal(
            f"{repo} is not in {folder}, and {name} is set. Pull it where there is a network "
            f"(`{how}`), or unset {name}."
        )
    return _terminal(f"{repo} is not in {folder}, and `weights.pull` is false. Run `{how}`.")


def _here(
    folder: Path,
    repo: str,
    engine: Engine,
    store: StoreSettings,
    *,
    dummy: bool,
    may_pull: bool,
    not_verified: Callable[[], None] = lambda: None,
) -> Weights | None:
    snapshot = records.located(folder, repo, engine.revision)
    cached = None if snapshot is not None else _cached(folder, repo, engine.revision)
    where = snapshot or cached
    if where is None or (may_pull and _lacks_code(where, engine)):
        return None
    if cached is not None and may_pull and Place(folder, repo).partials():
        return None  # whoever began it has not ended: a pull takes what is there, and verifies it
    try:
        found = weights.resolve(
            str(where), base=folder, dummy=dummy, allow_pickle=store.allow_pickle
        )
    except EngineError as error:
        if cached is not None and may_pull:
            return None
        raise _terminal(
            f"{error.message} It is of {repo} in the store: `roundhouse rm {repo}` and "
            f"`roundhouse pull {repo}` bring it anew."
        ) from None
    if cached is not None:
        not_verified()
    return found


def _cached(folder: Path, repo: str, revision: str | None) -> Path | None:
    """A snapshot that somebody else has brought."""
    place = Place(folder, repo)
    asked = revision or "main"
    commit = asked if COMMIT.fullmatch(asked) else place.refs().get(asked, "")
    snapshot = place.snapshot(commit)
    return snapshot if COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def _lacks_code(snapshot: Path, engine: Engine) -> bool:
    """Was it pulled without the Python that the engine is to run?"""
    if not engine.trust_remote_code:
        return False
    try:
        classes = safetensors.read_json(snapshot / "config.json", _MAX_CONFIG).get("auto_map")
    except EngineError:
        return False
    modules = {
        str(name).partition(".")[0]
        for name in (classes.values() if isinstance(classes, dict) else ())
        if isinstance(name, str) and "--" not in name  # those are in another repository
    }
    return any(not (snapshot / f"{module}.py").is_file() for module in modules)


def _pull(
    repo: str,
    engine: Engine,
    store: StoreSettings,
    folder: Path,
    *,
    note: Callable[[str], None],
    stop: threading.Event,
    environ: Mapping[str, str],
) -> None:
    """Raises EngineError, Cancelled."""
    wanted = Wanted(
        repo,
        engine.revision or "main",
        asked_by="an engine of the server",
        allow_pickle=store.allow_pickle,
        allow_code=engine.trust_remote_code,
    )
    hub = Hub.of(environ, stall=store.stall_timeout)
    log.info("pull_begins", model=repo, revision=wanted.revision, store=str(folder))
    wrong = 0
    while True:
        progress = Progress()
        notes = Notes(repo, progress, note)
        pull = Pull(
            wanted,
            folder,
            hub,
            progress=progress,
            stop=stop,
            tick=notes.tick,
            workers=store.workers,
            patience=PATIENCE,
        )
        try:
            record = counted(pull, store.counted)
        except StoreError as error:
            wrong += error.reason == "hash"
            if wrong == 1 and error.reason == "hash":
                note("pulling weights: a file came with a wrong hash, once more")
                continue
            log.warning("pull_failed", model=repo, reason=error.reason, error=error.message)
            raise engine_error(error) from None
        log.info("pull_ends", model=repo, commit=record.commit, size=record.size)
        return


class Notes:
    """Tells how far a pull is: what it has to say at once, the rest once in a while."""

    def __init__(
        self,
        repo: str,
        progress: Progress,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repo, self._progress, self._note, self._clock = repo, progress, note, clock
        self._next = clock()
        self._said: set[str] = set()
        self._last = ""

    def tick(self) -> None:
        for line in self._progress.said():
            if line not in self._said:
                self._said.add(line)
                log.info("pull", model=self._repo, note=line)
                self._note(f"pulling weights: {line}")
            # While it waits it says so again and again, and figures that stand still say less.
            self._next = self._clock() + EVERY
        if self._clock() >= self._next and (text := stage_of(self._progress.look())) != self._last:
            self._note(text)
            self._last, self._next = text, self._clock() + EVERY


def engine_error(error: StoreError) -> EngineError:
    """What an engine's start says of it. What may pass is not terminal."""
    if error.reason in NETWORK | {"busy"}:
        return EngineError(error.message, reason="network", terminal=False)
    if error.reason in DISK:
        return EngineError(error.message, reason="disk", terminal=False)
    return _terminal(error.message)


def _terminal(message: str) -> EngineError:
    return EngineError(message, reason="weights", terminal=True)
