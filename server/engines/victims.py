"""Who has to go for somebody else, and when he may. Pure."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from server.engines.ledger import Ledger, Units
from server.engines.placement import LEAVING, MOVING, Engine, Phase, Running, World


class Standing(enum.IntEnum):
    """In the order in which engines go."""

    FREE = 0  # may go at once
    BUSY = 1  # has requests: goes when it has none, or by a drain
    HELD = 2  # has just been loaded, or is on its way


@dataclass(frozen=True, slots=True)
class Victim:
    """`until`: when it may go by time alone; infinite when something has to happen first. `spare`:
    another instance of its engine is ready."""

    one: Running
    standing: Standing
    until: float
    idle_end: float
    spare: bool = False

    @property
    def order(self) -> tuple[Standing, bool, bool, float, float, tuple[str, int]]:
        """Sleepers before others, then spare ones, then who was used the longest ago."""
        awake = self.one.phase is not Phase.ASLEEP
        until = self.until if self.standing is Standing.HELD else 0.0
        return self.standing, awake, not self.spare, until, self.one.last_used, self.one.key


def first_of(running: Iterable[Running], name: str) -> Running | None:
    """The instance that counts as the engine itself: a ready one before others, then by number."""
    own = (one for one in running if one.engine == name and one.phase not in LEAVING)
    return min(own, key=lambda one: (one.phase is not Phase.READY, one.replica), default=None)


def stays_for_good(world: World) -> set[tuple[str, int]]:
    """Of each pinned engine the one instance that is never in anybody's way."""
    pinned = [engine.name for engine in world.engines.values() if engine.pinned]
    first = (first_of(world.running, name) for name in pinned)
    return {one.key for one in first if one is not None}


def standing_of(one: Running, engine: Engine | None, now: float, *, wished: bool) -> Victim:
    """How it stands with an instance. `wished`: requests for it are about to come."""
    idle = one.keep_alive if one.keep_alive is not None else (engine.idle if engine else 0.0)
    # A clock that asks for nothing: the idle time runs from its last request, or from its loading.
    idle_end = max(one.last_used, one.since) + idle
    if one.phase is Phase.ASLEEP:
        return Victim(one, Standing.FREE, now, idle_end)
    if one.phase in MOVING:
        return Victim(one, Standing.HELD, math.inf, idle_end)
    busy = one.in_flight > 0 or wished
    stays = one.since + (engine.residency if engine else 0.0)
    if now < stays and (busy or now < idle_end):
        return Victim(one, Standing.HELD, stays if busy else min(stays, idle_end), idle_end)
    return Victim(one, Standing.BUSY if busy else Standing.FREE, now, idle_end)


def choose(ledger: Ledger, need: Units, others: Iterable[Victim]) -> tuple[Victim, ...] | None:
    """The first of them whose going is enough, and none that could stay; None when all are not."""
    lacking = ledger.lacking(need)
    chosen: list[Victim] = []
    for victim in others:
        if not lacking:
            break
        units = ledger.stays(victim.one)
        if any(units[name] > 0 for name in lacking):
            chosen.append(victim)
            lacking = {
                name: left - units[name] for name, left in lacking.items() if left > units[name]
            }
    if lacking:
        return None
    # The last ones may have made an earlier one's going needless; the dearest is spared first.
    for victim in reversed(chosen[:]):
        rest = [other for other in chosen if other is not victim]
        if _enough(ledger, need, rest):
            chosen = rest
    return tuple(chosen)


def _enough(ledger: Ledger, need: Units, victims: Sequence[Victim]) -> bool:
    lacking = ledger.lacking(need)
    for victim in victims:
        units = ledger.stays(victim.one)
        lacking = {name: left - units[name] for name, left in lacking.items()}
    return all(left <= 0 for left in lacking.values())


def spared(
    ledger: Ledger, need: Units, victims: Sequence[Running], can_sleep: Callable[[Running], bool]
) -> set[tuple[str, int]]:
    """Those that may fall asleep instead of ending, and the need is met all the same."""
    asleep: list[Running] = []
    for one in sorted(victims, key=lambda one: (-one.last_used, one.key)):
        if can_sleep(one) and _met(ledger, need, victims, [*asleep, one]):
            asleep.append(one)
    return {one.key for one in asleep}


def _met(ledger: Ledger, need: Units, victims: Sequence[Running], asleep: list[Running]) -> bool:
    """Is there enough later, and for all that fall asleep now?"""
    later, now = ledger.later.copy(), ledger.now.copy()
    for one in victims:
        later.update(ledger.stays(one))
    for one in asleep:
        later.subtract(ledger.asleep(one))
        now.subtract(ledger.asleep(one) - ledger.held(one))
    later.subtract(need)
    touched = {name for one in asleep for name in ledger.asleep(one)} | set(need)
    return all(later[name] >= 0 for name in touched) and all(now[name] >= 0 for name in touched)


# --- what can never be --------------------------------------------------------------------------


def possible(ledger: Ledger, engine: Engine, sleeper: Running | None = None) -> bool:
    """Would it fit if all went but what is pinned? For a sleeper: there where it sleeps."""
    bare = Counter(ledger.capacity)
    pinned = stays_for_good(ledger.world)
    for one in ledger.world.running:
        if one.key in pinned and one.engine != engine.name:
            bare.subtract(ledger.stays(one))

    def fits(need: Units) -> bool:
        return all(units <= bare[name] for name, units in need.items())

    if sleeper is not None:
        return fits(ledger.awake(engine.name, sleeper.option, sleeper.devices))
    for option in engine.options:
        devices = [
            device.id
            for device in ledger.world.devices
            if option.suits(device) and fits(ledger.awake(engine.name, option, [device.id]))
        ][: option.devices]
        if len(devices) == option.devices and fits(ledger.awake(engine.name, option, devices)):
            return True
    return False


def refusal(world: World, engine: Engine) -> str:
    """Why it can never be served, for people."""
    if engine.refusal is not None:
        return engine.refusal
    pinned = sorted(
        other.name for other in world.engines.values() if other.pinned and other.name != engine.name
    )
    beside = f" beside what is pinned ({', '.join(pinned)})" if pinned else ""
    return f"It does not fit on the devices that are here{beside}."
