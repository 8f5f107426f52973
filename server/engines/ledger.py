"""Who holds how much of what, now and once those that leave have left. Pure.

Memory, cores and membership in a group are all counted alike, as a resource that has so many units:
bytes of a device, cores of a CPU, the one place of a group whose engines never coexist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from server.engines.placement import LEAVING, Device, Engine, Option, Phase, Running, World

Units = Mapping[str, int]


class Ledger:
    """`now` is what is free at this moment. `later` is what will be free when everything that
    leaves has left, less what is promised to wishes that come first. What is to be begun at once
    must fit both."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.devices = {device.id: device for device in world.devices}
        self.capacity = _capacity(world)
        #: What `stays` has found, which is asked again and again.
        self._stays: dict[int, Counter[str]] = {}
        self.now: Counter[str] = Counter(self.capacity)
        self.later: Counter[str] = Counter(self.capacity)
        for one in world.running:
            self.now.subtract(self.held(one))
            self.later.subtract(self.stays(one))

    # --- what things take ---------------------------------------------------------------------

    def awake(self, name: str, option: Option, devices: Iterable[str]) -> Counter[str]:
        """What an engine takes, placed so."""
        units: Counter[str] = Counter()
        for device in devices:
            units[device] += option.each
            if option.cores:
                units[cores_of(device)] += option.cores
        self._host(units, option.host)
        units.update(groups_of(self.world.engines.get(name)))
        return units

    def asleep(self, one: Running) -> Counter[str]:
        """What an instance takes while it sleeps; the groups' places stay taken."""
        left, host = one.option.asleep or (one.option.each, 0)
        units: Counter[str] = Counter()
        for device in one.devices:
            units[device] += left
        self._host(units, one.option.host + host)
        units.update(groups_of(self.world.engines.get(one.engine)))
        return units

    def held(self, one: Running) -> Counter[str]:
        """What an instance holds at this moment, at the most."""
        if one.phase is Phase.ASLEEP or (one.phase is Phase.STOPPING and one.slept):
            return self.asleep(one)
        units = self.awake(one.engine, one.option, one.devices)
        if one.between or one.phase in (Phase.SLEEPING, Phase.WAKING):
            units |= self.asleep(one)
        return units

    def stays(self, one: Running) -> Units:
        """What it will hold, by what it does now."""
        found = self._stays.get(id(one))
        if found is None:
            found = self._stays[id(one)] = self._will_hold(one)
        return found

    def _will_hold(self, one: Running) -> Counter[str]:
        if one.phase in LEAVING:
            return Counter()
        if one.phase in (Phase.ASLEEP, Phase.SLEEPING):
            return self.asleep(one)
        return self.awake(one.engine, one.option, one.devices)

    def _host(self, units: Counter[str], size: int) -> None:
        host = self.world.policy.host
        if host is not None and size:
            units[host] += size

    # --- what is free -------------------------------------------------------------------------

    def lacking(self, need: Units) -> dict[str, int]:
        """What is missing later, by resource."""
        return {
            name: units - self.later[name]
            for name, units in need.items()
            if units > self.later[name]
        }

    def begins(self, need: Units) -> bool:
        """Could it begin at once?"""
        return all(units <= min(self.now[name], self.later[name]) for name, units in need.items())

    def take(self, need: Units) -> None:
        """Something begins at once."""
        self.now.subtract(need)
        self.later.subtract(need)

    def promise(self, need: Units) -> None:
        """Something will begin; nobody who comes after it may have this."""
        self.later.subtract(need)

    def leaves(self, one: Running) -> None:
        """An instance is told to go. What it holds is not free now, but will be."""
        self.later.update(self.stays(one))

    def falls_asleep(self, one: Running) -> None:
        """Until it sleeps, it holds what it has in both memories."""
        self.now.subtract(self.asleep(one) - self.held(one))
        self.later.update(self.stays(one))
        self.later.subtract(self.asleep(one))


def cores_of(device: str) -> str:
    return f"{device} cores"


def groups_of(engine: Engine | None) -> dict[str, int]:
    return {} if engine is None else {f"group {name}": 1 for name in engine.groups}


def _capacity(world: World) -> Counter[str]:
    capacity: Counter[str] = Counter()
    for device in world.devices:
        capacity[device.id] = max(0, device.total - device.reserved)
        capacity[cores_of(device.id)] = len(device.cores)
    for engine in world.engines.values():
        capacity.update(dict.fromkeys(groups_of(engine), 0))
    for name in capacity:
        if name.startswith("group "):
            capacity[name] = 1
    return capacity


def free_cores(device: Device, running: Iterable[Running], count: int) -> tuple[int, ...]:
    """The first cores of a CPU that nobody has, those of engines on their way out included."""
    taken = {core for one in running if device.id in one.devices for core in one.cores}
    return tuple(core for core in device.cores if core not in taken)[:count]
