"""The store in a running server: what is in it, and the pulls that clients of the admin API ask
for. One pull of a model serves all who ask; it goes on when they leave, and ends with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from server.config.load import Loaded
from server.engines.store.errors import Cancelled, StoreError
from server.engines.store.hub import Hub
from server.engines.store.places import store_folder
from server.engines.store.progress import Look, Progress
from server.engines.store.pulling import Pull, Wanted, counted
from server.engines.store.records import Record
from server.engines.weights import StoreSettings
from server.errors import Draining, Overloaded
from server.telemetry.metrics import Metrics

log = structlog.get_logger("roundhouse")

#: Pulls at one time; over it they are refused.
MOST: Final = 8
#: Ended ones that are still told.
KEPT: Final = 16
#: Notes of one pull that are kept: a hub that falters for days has a lot to say.
NOTES: Final = 100
#: Seconds between two looks at a pull.
EVERY: Final = 0.5
#: Seconds that pulls have to end when the server stops.
LAST: Final = 2.0


def counting(metrics: Metrics) -> Callable[[str | None, int], None]:
    """What StoreSettings calls from its threads: counts in the loop that runs now."""
    loop = asyncio.get_running_loop()

    def count(outcome: str | None, size: int) -> None:
        if size:
            metrics.pull_bytes.labels().inc(size)
        if outcome is not None:
            metrics.pulls.labels(outcome).inc()

    def told(outcome: str | None, size: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(count, outcome, size)

    return told


@dataclass
class Shared:
    """One pull. `state`: running, done, failed or stopped. `begun` in monotonic seconds; `notes`
    are what it had to say, each once."""

    id: str
    wanted: Wanted
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    state: str = "running"
    notes: list[str] = field(default_factory=list)
    record: Record | None = None
    error: StoreError | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self) -> None:
        """From the pull's thread."""
        new = [line for line in self.progress.said() if line not in self.notes]
        self.notes += new[: NOTES - len(self.notes)]

    def facts(self) -> dict[str, Any]:
        """For the admin API."""
        return {
            "id": self.id,
            "model": self.wanted.repo,
            "revision": self.wanted.revision,
            "state": self.state,
            "since_s": round(time.monotonic() - self.begun, 1),
            **facts_of(self.progress.look()),
            "commit": self.record.commit if self.record else None,
            "error": self.error.message if self.error else None,
            "reason": self.error.reason if self.error else None,
        }

    async def follow(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """`note` and `progress` until it has ended, all notes from the first on."""
        told, last = 0, None
        while True:
            over = self.ended.is_set()
            for line in self.notes[told:]:
                told += 1
                yield "note", {"message": line}
            if (look := self.progress.look()).size and (look.done, look.files_done) != last:
                last = (look.done, look.files_done)
                yield "progress", facts_of(look)
            if over:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), EVERY)


def facts_of(look: Look) -> dict[str, Any]:
    return {
        "files": look.files,
        "files_done": look.files_done,
        "size": look.size,
        "done": look.done,
        "rate": None if look.rate is None else round(look.rate),
        "seconds_left": None if look.left is None else round(look.left),
    }


class StoreService:
    """Made once by the server, in its loop. `settings` are for engines, too; `home` is where
    registered folders are recorded, `base` the folder of the config, which its engines' folders are
    relative to."""

    def __init__(self, loaded: Loaded, metrics: Metrics) -> None:
        self._count = counting(metrics)
        self.apply(loaded)
        self._pulls: dict[str, Shared] = {}
        self._ids = itertools.count(1)
        self._closed = False

    def apply(self, loaded: Loaded) -> None:
        """A new config. Pulls under way stay as they are."""
        self.settings = StoreSettings.of(loaded.config.weights, loaded.folder, self._count)
        self.home, self.base = loaded.home, loaded.folder

    @property
    def folder(self) -> Path:
        return self.settings.folder or store_folder(None, os.environ)

    @property
    def pulls(self) -> tuple[Shared, ...]:
        """Those under way and the last that ended, the oldest first."""
        return tuple(self._pulls.values())

    def pull(self, repo: str, revision: str, *, allow_code: bool, asked_by: str) -> Shared:
        """Begin it, or join the one under way. Raises Overloaded, Draining."""
        wanted = Wanted(repo, revision, asked_by, self.settings.allow_pickle, allow_code)
        running = [one for one in self.pulls if one.state == "running"]
        for one in running:
            same = (one.wanted.repo, one.wanted.revision, one.wanted.allow_code)
            if same == (wanted.repo, wanted.revision, wanted.allow_code) and not one.stop.is_set():
                return one
        if self._closed:
            raise Draining("The server is shutting down.")
        if len(running) >= MOST:
            raise Overloaded(
                f"{len(running)} pulls are under way, which is as many as there may be."
            )
        shared = Shared(f"pull-{next(self._ids)}", wanted)
        self._pulls[shared.id] = shared
        for old in [one for one in self.pulls if one.state != "running"][:-KEPT]:
            del self._pulls[old.id]
        self._begin(shared)
        return shared

    def _begin(self, shared: Shared) -> None:
        loop, settings = asyncio.get_running_loop(), self.settings
        pull = Pull(
            shared.wanted,
            self.folder,
            Hub.of(stall=settings.stall_timeout),
            progress=shared.progress,
            stop=shared.stop,
            tick=shared.tick,
            workers=settings.workers,
        )

        def work() -> None:
            result: Record | BaseException
            try:
                result = counted(pull, settings.counted)
            except BaseException as error:  # noqa: BLE001 - it is told in the loop
                result = error
            shared.tick()
            with contextlib.suppress(RuntimeError):  # the loop did not wait so long
                loop.call_soon_threadsafe(_end, shared, result)

        log.info("pull_begins", model=shared.wanted.repo, revision=shared.wanted.revision)
        threading.Thread(target=work, name=shared.id, daemon=True).start()

    async def close(self) -> None:
        """End all of them; what has come is kept."""
        self._closed = True
        running = [one for one in self.pulls if one.state == "running"]
        for one in running:
            one.stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                for one in running:
                    await one.ended.wait()


def _end(shared: Shared, result: Record | BaseException) -> None:
    told = {"model": shared.wanted.repo, "id": shared.id}
    if isinstance(result, Record):
        shared.state, shared.record = "done", result
        log.info("pull_ends", **told, commit=result.commit, size=result.size)
    elif isinstance(result, Cancelled):
        shared.state = "stopped"
        log.info("pull_stopped", **told)
    else:
        if not isinstance(result, StoreError):
            log.error("pull failed inside", **told, exc_info=result)
            result = StoreError(
                f"Roundhouse failed while it pulled {shared.wanted.repo}; the server's log has "
                "the details.",
                reason="store",
            )
        shared.state, shared.error = "failed", result
        log.warning("pull_failed", **told, reason=result.reason, error=result.message)
    shared.ended.set()
