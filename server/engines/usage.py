"""Memory of engines and devices, planned against used, as metrics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

import structlog

from server.engines import devices, world
from server.engines.crew import Crew
from server.engines.patience import Patience
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
        self._patience: Patience[dict[tuple[str, str], int]] = Patience("usage")
        self._task: asyncio.Task[None] | None = None

    # --- planned ------------------------------------------------------------------------------

    def plan(self, machine: Sequence[Device], running: Iterable[Running], host: str | None) -> None:
        """What is set aside at this moment."""
        planned: Counter[tuple[str, str]] = Counter()
        for instance in running:
            for device, size in world.planned(instance, host).items():
                planned[instance.engine, device] += size
        self._devices = tuple(one.id for one in machine)
        gauge = self._metrics.device_memory
        for one in machine:
            gauge.labels(one.id, "total").set(max(0, one.total - one.reserved))
        self._show("planned", self._planned, planned)
        self._planned = dict(planned)
        self._gone({engine for engine, _ in planned})
        if self._task is None and planned:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="usage")

    def _gone(self, alive: Set[str]) -> None:
        """Of what is gone nothing is used, though nobody has looked again."""
        left = {key: size for key, size in self._used.items() if key[0] in alive}
        if len(left) < len(self._used):
            self._show("used", self._used, left)
            self._used = left

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
        leaders: dict[str, set[int]] = {}
        for crew in self._crews():
            pids = {unit.pid for unit in crew.units.values() if unit.pid is not None}
            leaders[crew.name] = leaders.get(crew.name, set()) | pids
        alive = {name: ids for name, ids in leaders.items() if ids}
        known = self._patience.late
        try:
            found = await self._patience.ask(lambda: _used(alive))
        except TimeoutError:  # as it was, as far as anybody knows
            if not known:
                log.warning("usage_not_known", error="the devices do not answer")
            return
        self._show("used", self._used, found)
        self._used = found
        self._gone({engine for engine, _ in self._planned})  # while it was looked for
        for crew in self._crews():
            own = {device for unit in crew.units.values() for device in unit.devices}
            sizes = [size for (name, device), size in found.items()
                     if name == crew.name and device in own]  # fmt: skip
            crew.used = sum(sizes) if sizes else None
            crew.publish()


def _used(leaders: Mapping[str, set[int]]) -> dict[tuple[str, str], int]:
    """Bytes by engine and device. In a thread: it reads /proc, and asks the GPUs."""
    groups = devices.groups(pid for pids in leaders.values() for pid in pids)
    who = {name: set().union(*(groups[pid] for pid in pids)) for name, pids in leaders.items()}
    found = devices.used_by(who, devices.probe())
    return {(name, device): size for name, sizes in found.items() for device, size in sizes.items()}
