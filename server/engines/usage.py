"""Memory of engines and devices, planned against used, as metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import psutil
import structlog

from server.engines import guard, world
from server.engines.crew import Crew
from server.engines.placement import Cause, Device, Running
from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Seconds between two looks at what is used.
EVERY: Final = 10.0


class Usage:
    """`crews` tells the engines that run or may run."""

    def __init__(self, crews: Callable[[], Iterable[Crew]], metrics: Metrics) -> None:
        self._crews, self._metrics = crews, metrics
        self._planned: dict[tuple[str, str], int] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._devices: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None

    # --- planned ------------------------------------------------------------------------------

    def plan(self, devices: Sequence[Device], running: Iterable[Running], host: str | None) -> None:
        """What is set aside at this moment."""
        planned: Counter[tuple[str, str]] = Counter()
        for instance in running:
            for device, size in world.planned(instance, host).items():
                planned[instance.engine, device] += size
        self._devices = tuple(one.id for one in devices)
        gauge = self._metrics.device_memory
        for one in devices:
            gauge.labels(one.id, "total").set(max(0, one.total - one.reserved))
        self._show("planned", self._planned, planned)
        self._planned = dict(planned)
        if self._task is None and planned:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="usage")

    def _show(
        self, kind: str, old: Mapping[tuple[str, str], int], new: Mapping[tuple[str, str], int]
    ) -> None:
        names = {crew.name for crew in self._crews()}
        for engine, device in {*old, *new}:
            if engine not in names:
                continue  # removed: its series are, too
            size = new.get((engine, device), 0)
            self._metrics.engine_memory.labels(engine, device, kind).set(size)
        for name in self._devices:
            total = sum(size for (_, device), size in new.items() if device == name)
            self._metrics.device_memory.labels(name, kind).set(total)

    def evicted(self, engine: str, cause: Cause) -> None:
        self._metrics.engine_evictions.labels(engine, cause).inc()

    # --- used ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self) -> None:
        """As long as something runs."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.look()
            except Exception:  # a metric less, and no more than that
                log.exception("usage_failed")
            if not self._planned and not self._used:
                self._task = None
                return

    async def look(self) -> None:
        """See what is used now."""
        groups = {
            (crew.name, unit.pid): unit.devices
            for crew in self._crews()
            for unit in crew.units.values()
            if unit.pid is not None
        }
        found = await asyncio.to_thread(_used, groups)
        self._show("used", self._used, found)
        self._used = found
        for crew in self._crews():
            sizes = [size for (engine, _), size in found.items() if engine == crew.name]
            crew.used = sum(sizes) if sizes else None
            crew.publish()


def _used(groups: Mapping[tuple[str, int], tuple[str, ...]]) -> dict[tuple[str, str], int]:
    """Bytes by engine and device. In a thread: it reads /proc."""
    found: Counter[tuple[str, str]] = Counter()
    for (engine, pid), devices in groups.items():
        host = next((device for device in devices if not device.startswith("cuda")), "cpu")
        found[engine, host] += sum(_resident(member) for member in guard.members(pid))
    return dict(found)


def _resident(pid: int) -> int:
    """What a process has in memory, its share of what it shares."""
    try:
        process = psutil.Process(pid)
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):
            return int(process.memory_info().rss)
    except psutil.Error:
        return 0
