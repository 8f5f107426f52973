"""Pulling a model: ask, choose, see that it fits, fetch, verify, link, record; in this order.

Until the last file is verified nobody sees the model: there is no snapshot of it. What ends a pull,
be it a cut, a full disk or Ctrl-C, leaves the parts of files, from which the next one goes on.
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from server.engines import weights
from server.engines.devices import GIB
from server.engines.store import records
from server.engines.store.beside import beside
from server.engines.store.choice import Choice, Remote, choose
from server.engines.store.errors import NETWORK, Cancelled, StoreError
from server.engines.store.fetching import FULL, Fetch, Patience, Source
from server.engines.store.hub import Hub, Repository, visit
from server.engines.store.lines import Lines
from server.engines.store.locks import held
from server.engines.store.places import PARTIAL, Place, checked_id, checked_revision
from server.engines.store.progress import Progress
from server.engines.store.records import Kept, Record
from server.errors import EngineError
from server.files import write_whole

#: So much of what is to come, and no less or more than these bytes, stays free on the disk.
MARGIN = 0.05
MARGIN_BYTES = (64 << 20, 5 * GIB)
#: Seconds that the threads have to end. One that is still connecting ends later, and writes
#: nothing then.
LAST = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to pull, and what the operator allows. `asked_by`: for the record.

    `allow_pickle` is the config's `weights.allow_pickle`, `allow_code` an engine's
    `trust_remote_code`.
    """

    repo: str
    revision: str = "main"
    asked_by: str = ""
    allow_pickle: bool = False
    allow_code: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """`store` is the config's `weights.folder`, or `places.store_folder`'s. `tick` is called from
    the thread of `run`, several times a second; what it raises ends the pull."""

    wanted: Wanted
    store: Path
    hub: Hub
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    tick: Callable[[], None] = lambda: None
    wait: bool = True
    workers: int = 4
    patience: Patience = field(default_factory=Patience)
    free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free

    def run(self) -> Record:
        """All of it: afterwards the model is in the store. Raises StoreError, Cancelled."""
        with visit():
            return self._run()

    def _run(self) -> Record:
        repo = checked_id(self.wanted.repo)
        revision = checked_revision(self.wanted.revision)
        place = Place(self.store, repo)
        found = self._look(place)
        choice = choose(
            repo,
            found.files,
            allow_pickle=self.wanted.allow_pickle,
            allow_code=self.wanted.allow_code,
        )
        self.progress.plan(len(choice.files), choice.size)
        if choice.left:
            self.progress.say(
                f"{repo} brings Python of its own ({choice.left[0].path}), which is left out; "
                "if the engine is to run it: --allow-code, or `trust_remote_code: true` at the "
                "engine."
            )
        try:
            place.make()
            with held(place.lock, repo, self._waiting if self.wait else None):
                return self._within(place, found, choice, revision)
        except OSError as error:
            if error.errno in FULL:
                raise StoreError(
                    f"The disk with {self.store} is full. Make room (`roundhouse du` shows what "
                    "is here), then pull again to go on.",
                    reason="disk",
                ) from None
            raise StoreError(
                f"{self.store} cannot be used ({error.strerror or type(error).__name__}). "
                "Choose another folder: --store, `weights.folder`, HF_HUB_CACHE or HF_HOME.",
                reason="store",
            ) from None

    def _look(self, place: Place) -> Repository:
        try:
            ask = functools.partial(self.hub.look, place.repo, self.wanted.revision)
            return beside(ask, self.stop, self.tick, name="pull-look")
        except StoreError as error:
            here = records.located(self.store, place.repo, self.wanted.revision)
            if error.reason in NETWORK and here is not None:
                raise StoreError(
                    f"{error} It is here as it was when it was pulled last, commit "
                    f"{here.name[:12]}, and can be served.",
                    reason=error.reason,
                ) from None
            raise

    def _waiting(self, holder: str) -> None:
        if not self.stop.is_set():
            who = "Another pull here" if holder == str(os.getpid()) else f"Process {holder}"
            self.progress.say(f"{who} is at this model; waiting until it is done.")
        self.tick()
        if self.stop.wait(0.2):
            raise Cancelled

    def _within(self, place: Place, found: Repository, choice: Choice, revision: str) -> Record:
        self._fits(place, choice)
        files = {file.blob: file for file in choice.files}
        known = records.of(place, found.commit)
        trusted = {file.blob for file in known.files} if known is not None else set()
        missing = [file for file in files.values() if not self._is_here(place, file, trusted)]
        lines = Lines()
        source = functools.partial(self.hub.open, found.repo, found.commit, lines)
        self._fetch(missing, source, lines, place)
        for file in choice.files:
            place.link(found.commit, file.path, file.blob)
        if revision != found.commit:
            ref = place.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_whole(ref, found.commit)
        record = Record(
            name=found.repo,
            commit=found.commit,
            revision=revision,
            endpoint=self.hub.endpoint,
            files=tuple(Kept(f.path, f.size, f.sha256, f.git) for f in choice.files),
            when=records.now(),
            asked_by=self.wanted.asked_by,
            licence=found.licence,
            pickled=choice.pickled,
        )
        records.write(record, place.records / f"{found.commit}.json")
        if not choice.pickled:
            try:
                weights.resolve(str(place.snapshot(found.commit)), base=self.store)
            except EngineError as error:
                self.progress.say(f"All of it is here, but no engine can serve it: {error.message}")
        return record

    def _fits(self, place: Place, choice: Choice) -> None:
        """Before the first byte: is there room for all that is to come?"""
        need = 0
        for file in {file.blob: file for file in choice.files}.values():
            blob = place.blobs / file.blob
            partial = place.blobs / f"{file.blob}{PARTIAL}"
            if not blob.exists():
                here = partial.stat().st_size if partial.is_file() else 0
                need += max(file.size - here, 0)
        margin = min(max(int(need * MARGIN), MARGIN_BYTES[0]), MARGIN_BYTES[1]) if need else 0
        free = self.free(place.folder)
        if need + margin > free:
            raise StoreError(
                f"{place.repo} needs {_gib(need)} more here, and {_gib(margin)} to spare; the disk "
                f"with {self.store} has {_gib(free)} free. Make room (`roundhouse du` shows what "
                "is here), or choose another disk: --store, `weights.folder`, HF_HUB_CACHE "
                "or HF_HOME.",
                reason="space",
            )

    def _is_here(self, place: Place, file: Remote, trusted: set[str]) -> bool:
        """One that we verified before is not read again; it may have been cut since."""
        blob = place.blobs / file.blob
        if file.blob not in trusted or not blob.is_file() or blob.stat().st_size != file.size:
            return False
        self.progress.found(file.size)
        self.progress.file_done()
        return True

    def _fetch(self, files: Sequence[Remote], source: Source, lines: Lines, place: Place) -> None:
        """In threads that nobody waits for when the process ends: a silent hub must not hold it."""
        # The largest first: the last one is then not alone for long.
        waiting = sorted(files, key=lambda file: file.size)
        errors: list[BaseException] = []
        turn = threading.Lock()
        stop = threading.Event()
        ended = threading.Semaphore(0)

        def work() -> None:
            try:
                while not stop.is_set():
                    with turn:
                        if not waiting:
                            return
                        file = waiting.pop()
                    Fetch(
                        source,
                        file,
                        place.blobs,
                        progress=self.progress,
                        stop=stop,
                        patience=self.patience,
                    ).run()
                    self.progress.file_done()
            except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
                errors.append(error)
                stop.set()
            finally:
                ended.release()

        threads = [
            threading.Thread(target=work, name=f"pull-{number}", daemon=True)
            for number in range(min(self.workers, len(files)))
        ]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                if ended.acquire(timeout=0.2):
                    running -= 1
                elif self.stop.is_set():
                    raise Cancelled
                self.tick()
        finally:
            stop.set()
            lines.cut()
            until = time.monotonic() + LAST
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0))
        if errors:
            raise next((one for one in errors if not isinstance(one, Cancelled)), errors[0])


def counted(pull: Pull, count: Callable[[str | None, int], None]) -> Record:
    """Run it. `count` is told of bytes as they come, and once of the outcome."""
    told = 0
    tick = pull.tick

    def tell() -> None:
        nonlocal told
        came = pull.progress.received
        if came > told:
            count(None, came - told)
            told = came

    def both() -> None:
        tell()
        tick()

    outcome = "stopped"
    try:
        record = replace(pull, tick=both).run()
        outcome = "ok"
        return record
    except StoreError as error:
        outcome = error.reason
        raise
    finally:
        tell()
        count(outcome, 0)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
