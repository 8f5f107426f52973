"""The gateways of a run: started once, idle (or stopped) while another has its turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import proc
from benchmarks.contenders.base import MODEL, Contender, Running
from benchmarks.load.wire import Place

DIRECT: Final = "direct"
OURS: Final = "roundhouse"
#: An idle gateway that burns more of the core than this is stopped between its turns.
IDLE: Final = 0.02
_QUIET: Final = 0.05
_LOOK: Final = 0.2
_SETTLE: Final = 1.0
_WATCH: Final = 3.0


@dataclass
class Gateway:
    """One that runs, or, without a pid, the mock itself."""

    name: str
    version: str
    place: Place
    pid: int | None = None
    start_seconds: float = 0.0
    rss_mb: float = 0.0
    idle: float = 0.0
    stopped_between: bool = False
    _tree: proc.Tree | None = None
    _asleep: list[proc.Process] = field(default_factory=list)

    def usage(self) -> proc.Usage:
        """CPU seconds never go back, also where a worker ends: one tree keeps the books."""
        if self.pid is None:
            return proc.Usage(0, 0.0, 0)
        if self._tree is None:
            self._tree = proc.Tree(self.pid)
        return self._tree.read()

    def alive(self) -> bool:
        return self.pid is None or bool(proc.tree(self.pid))

    def sleep(self) -> None:
        """SIGSTOP for the whole tree."""
        if self.pid is None or self._asleep:
            return
        self._asleep = proc.tree(self.pid)
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)
        self._asleep = []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._asleep:
            if process.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    async def quiet(self, longest: float) -> bool:
        """Wait until what a turn left behind is worked off. False: it was still busy then."""
        loop = asyncio.get_running_loop()
        end = loop.time() + longest
        while self.pid is not None:
            before = self.usage().cpu_seconds
            await asyncio.sleep(_LOOK)
            if self.usage().cpu_seconds - before < _QUIET * _LOOK:
                return True
            if loop.time() > end:
                return False
        return True

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "start_seconds": self.start_seconds,
            "rss_mb": self.rss_mb,
            "idle": self.idle,
            "stopped_between": self.stopped_between,
        }


class Gateways:
    """Those that could be started, `direct` among them, and why others could not.

    `async with`: leaving ends them all.
    """

    def __init__(
        self,
        contenders: Mapping[str, Contender],
        upstream: str,
        *,
        core: int,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.running: dict[str, Gateway] = {}
        self.failed: dict[str, str] = {}
        self._contenders, self._upstream = contenders, upstream
        self._core, self._folder, self._say = core, folder, say
        self._stack = ExitStack()

    async def __aenter__(self) -> Gateways:
        try:
            for name, contender in self._contenders.items():
                await self._start(name, contender)
            await self._look()
        except BaseException:
            self._close()
            raise
        place = Place.of(self._upstream, {}, MODEL)
        self.running[DIRECT] = Gateway(DIRECT, "", place)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        for gateway in self.running.values():
            gateway.wake()
        self._stack.close()

    async def _start(self, name: str, contender: Contender) -> None:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        context = contender.run(self._upstream, core=self._core, folder=folder)
        try:
            started = await self._enter(name, context)
        except Exception as error:  # noqa: BLE001 - whatever one peer has must not end the run
            self.failed[name] = f"{type(error).__name__}: {error}"
            self._say(f"{name} did not start: {self.failed[name]}")
            return
        self.running[name] = Gateway(
            name,
            started.version,
            Place.of(started.url, started.headers, started.model),
            started.pid,
            started.start_seconds,
        )
        self._say(f"{name} {started.version} started in {started.start_seconds:.1f} s")

    async def _enter(self, name: str, context: AbstractContextManager[Running]) -> Running:
        # In a thread, for a gateway that starts may ask this process's mock how it is.
        starting = asyncio.ensure_future(asyncio.to_thread(self._stack.enter_context, context))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be ended, and what it starts must be.
            self._say(f"{name} is still starting; it is ended then")
            await asyncio.wait([starting])
            raise

    async def _look(self) -> None:
        """Memory at rest, and which gateways burn CPU while they have nothing to do."""
        if not self.running:
            return
        await asyncio.sleep(_SETTLE)
        before = {name: gateway.usage().cpu_seconds for name, gateway in self.running.items()}
        await asyncio.sleep(_WATCH)
        for name, gateway in self.running.items():
            gateway.idle = (gateway.usage().cpu_seconds - before[name]) / _WATCH
            gateway.rss_mb = gateway.usage().rss_bytes / 1e6
            if gateway.idle >= IDLE:
                gateway.stopped_between = True
                gateway.sleep()
                self._say(f"{name} burns {gateway.idle:.1%} of the core idle: stopped between")
