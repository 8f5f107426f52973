"""Reading the config again: whole or not at all, and what is being served goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from server.config.additions import Additions, prepare
from server.config.load import Loaded
from server.errors import StartError
from server.telemetry.metrics import Metrics

log = structlog.get_logger("roundhouse.config")

#: Seconds between two looks at the files.
INTERVAL: Final = 1.0
#: Settings of `server` that take effect with the next start only.
RESTART: Final = ("host", "port", "admin", "home", "docs")

Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """How a reload ended. `changed`: what is different now (`models.fast`, `server.keys`);
    `error`: why it was rejected, one line for each fault."""

    result: Literal["ok", "unchanged", "rejected"]
    changed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


class Watcher:
    """Reloads when a file changes or somebody asks.

    A changed file is read once it has looked the same for one interval, so that it is never read
    half-written. `apply` swaps a checked config in; a StartError from it rejects the config, too.
    `sleep` is `asyncio.sleep` outside of tests.
    """

    def __init__(
        self,
        loaded: Loaded,
        apply: Callable[[Loaded], Awaitable[None]],
        metrics: Metrics,
        *,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._loaded = loaded
        #: A new `server.home` takes effect with the next start.
        self._home = loaded.home
        self._apply = apply
        self._metrics = metrics
        metrics.config_good.set(1)
        self._sleep = sleep
        self._asked = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        #: The files as they were when they were last read, accepted or not.
        self._read = signature(loaded)

    @property
    def loaded(self) -> Loaded:
        """The config that is in force."""
        return self._loaded

    def trigger(self) -> None:
        """Reload soon, whether or not a file has changed. For signal handlers."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        before = self._read
        while True:
            await self._tick()
            if self._asked.is_set():
                self._asked.clear()
                await self.reload()
                before = self._read
                continue
            now = signature(self._loaded)
            if now != self._read and now == before:
                await self.reload()
            before = now

    async def _tick(self) -> None:
        """One interval, or less when somebody asks."""
        asked = asyncio.ensure_future(self._asked.wait())
        slept = asyncio.ensure_future(self._sleep(INTERVAL))
        try:
            await asyncio.wait({asked, slept}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asked, slept):
                task.cancel()
            await asyncio.gather(asked, slept, return_exceptions=True)

    async def reload(self) -> ReloadReport:
        """Read, check and apply now. Never raises because of what the files hold."""
        async with self._one_at_a_time:
            report = await self._reload()
        self._metrics.config_reloads.labels(report.result).inc()
        self._metrics.config_good.set(report.error is None)
        if report.error is not None:
            log.error("config rejected; the last good one stays", error=report.error)
        elif report.result == "ok":
            log.info("config reloaded", changed=report.changed)
        for warning in report.warnings:
            log.warning(warning)
        return report

    async def add(self, additions: Additions) -> Loaded:
        """Serve these besides the config from now on, instead of those that are in force, and keep
        them for the next start.

        Raises StartError, in words for who asked: what is wrong with them, that they cannot be kept
        (KeepError) or cannot be applied; nothing has changed then, or it says so."""
        async with self._one_at_a_time:
            return await self._keep(await asyncio.to_thread(self._loaded.with_additions, additions))

    async def forget(self, kept: Additions) -> Loaded:
        """Keep these alone for the next start, in force or not, and serve those that can be. Raises
        as `add` does."""
        async with self._one_at_a_time:
            return await self._keep(await asyncio.to_thread(self._loaded.keeping, kept))

    async def _keep(self, loaded: Loaded) -> Loaded:
        pending = await asyncio.to_thread(prepare, self._home, loaded.kept)
        try:
            await self._apply(loaded)
            changed = differences(self._loaded, loaded)
            self._loaded = loaded
            pending.commit()
        finally:
            pending.discard()
        log.info("config added to", changed=changed)
        return loaded

    async def _reload(self) -> ReloadReport:
        try:
            loaded = await self._stable()
            if loaded.digest == self._loaded.digest:
                return ReloadReport("unchanged")
            changed = differences(self._loaded, loaded)
            await self._apply(loaded)
        except StartError as error:
            return ReloadReport("rejected", error=str(error))
        except Exception:  # a fault of ours must not end the watch
            log.exception("config could not be applied")
            return ReloadReport(
                "rejected", error="The config could not be applied; the server's log says why."
            )
        warnings = [*_restarts(changed), *loaded.advice]
        self._loaded = loaded
        # A new config may name a new keys file, which counts as read.
        self._read = signature(loaded)
        return ReloadReport("ok", changed, warnings)

    async def _stable(self) -> Loaded:
        """A fault in a file that is being written right now is not the last word."""
        for last in (False, False, True):
            self._read = signature(self._loaded)
            try:
                loaded = await asyncio.to_thread(self._loaded.again)
            except StartError:
                if last or signature(self._loaded) == self._read:
                    raise
            else:
                if last or signature(self._loaded) == self._read:
                    return loaded
            await self._sleep(INTERVAL)
        raise AssertionError("unreachable")


def signature(loaded: Loaded) -> Signature:
    """What changes when one of the files does, also by a swap of the symlink to it."""
    return tuple(_stat(file) for file in loaded.files)


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def differences(old: Loaded, new: Loaded) -> list[str]:
    """What a reload changes: settings of the sections that have some, other sections by name."""
    found = []
    for section in ("server", "log", "routing", "placement", "weights"):
        before, after = getattr(old.config, section), getattr(new.config, section)
        found += [
            f"{section}.{name}"
            for name in type(after).model_fields
            if getattr(before, name) != getattr(after, name)
        ]
    for section in ("runtimes", "providers", "engines", "models"):
        was, now = getattr(old.config, section), getattr(new.config, section)
        found += [f"{section}.{n}" for n in {**was, **now} if was.get(n) != now.get(n)]
    for name in ("default", "catalog"):
        if getattr(old.config, name) != getattr(new.config, name):
            found.append(name)
    return found if dict(old.catalog) == dict(new.catalog) else [*found, "cards"]


def _restarts(changed: list[str]) -> list[str]:
    waiting = [name for name in (f"server.{setting}" for setting in RESTART) if name in changed]
    if not waiting:
        return []
    return [f"{', '.join(waiting)}: in force after the next start of the server."]
