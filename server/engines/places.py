"""Where an engine could go, and who would have to make room for it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from server.engines.ledger import Ledger, Units
from server.engines.placement import LEAVING, Engine, Option, Phase, Running, World
from server.engines.victims import (
    Standing,
    Victim,
    choose,
    first_of,
    spared,
    standing_of,
    stays_for_good,
)


@dataclass(frozen=True, slots=True)
class Place:
    """A way to serve a wish: where, and who has to go. `wakes`: the instance that sleeps there."""

    option: Option
    devices: tuple[str, ...]
    need: Units
    victims: tuple[Victim, ...] = ()
    wakes: Running | None = None
    rank: tuple[float, ...] = field(default=(), compare=False)


def best(places: Iterable[Place]) -> Place:
    """The first in rank; there must be one."""
    return min(places, key=lambda place: place.rank)


class Places:
    """Of one plan under way. The planner says who is `told` to go in it, who is spoken for, to go
    when he may (`claimed`), and who is brought back (`kept`)."""

    def __init__(self, world: World, ledger: Ledger, wished: set[str], now: float) -> None:
        self.world, self.ledger, self.wished, self.now = world, ledger, wished, now
        self.running = sorted(world.running, key=lambda one: one.key)
        self.pinned = stays_for_good(world)
        self.told: set[tuple[str, int]] = set()
        self.claimed: set[tuple[str, int]] = set()
        self.kept: set[tuple[str, int]] = set()
        #: Who might have to go, as of so many told, claimed and kept.
        self._victims: list[Victim] = []
        self._seen: tuple[int, int, int] | None = None

    def of(self, engine: Engine, sleeper: Running | None = None) -> Iterator[Place]:
        """The best place of every option, with who has to go for it; of a sleeper the one where it
        sleeps. What is promised to others is not to be had now."""
        if sleeper is not None:
            awake = self.ledger.awake(engine.name, sleeper.option, sleeper.devices)
            more = Counter(awake - self.ledger.asleep(sleeper))
            found = self._place(sleeper.option, sleeper.devices, more, 0, sleeper)
            if found is not None:
                yield replace(found, wakes=sleeper)
            return
        for number, option in enumerate(engine.options):
            ranked = sorted(
                (place.rank, place.devices)
                for device in self.world.devices
                if option.suits(device)
                for need in [self.ledger.awake(engine.name, option, [device.id])]
                if (place := self._place(option, (device.id,), need, number)) is not None
            )
            if len(ranked) < option.devices:
                continue
            devices = tuple(sorted(name for _, (name,) in ranked[: option.devices]))
            need = self.ledger.awake(engine.name, option, devices)
            if (place := self._place(option, devices, need, number)) is not None:
                yield place

    def empty(self, engine: Engine) -> Iterator[Place]:
        """Those for which nobody has to go; what leaves may have to leave first."""
        return (place for place in self.of(engine) if not place.victims)

    def _place(
        self, option: Option, devices: tuple[str, ...], need: Units, number: int,
        sleeper: Running | None = None,
    ) -> Place | None:  # fmt: skip
        """None: not even if all others went, but those that are pinned."""
        victims = choose(self.ledger, need, self._others(sleeper))
        if victims is None:
            return None
        busy = [victim for victim in victims if victim.standing is Standing.BUSY]
        held = [victim for victim in victims if victim.standing is Standing.HELD]
        gone: Counter[str] = Counter()
        for victim in victims:
            gone.update(self.ledger.stays(victim.one))
        left = sum(self.ledger.later[name] + gone[name] - need.get(name, 0) for name in devices)
        rank = (
            max((victim.until for victim in held), default=0.0), len(busy), len(victims),
            0.0 if self.ledger.begins(need) else 1.0, number, left,
        )  # fmt: skip
        return Place(option, devices, need, victims, rank=rank)

    def _others(self, sleeper: Running | None) -> list[Victim]:
        """Who might have to go, in the order in which they should."""
        seen = len(self.told), len(self.claimed), len(self.kept)  # they only grow
        if seen != self._seen:
            self._seen, self._victims = seen, self._all()
        return [victim for victim in self._victims if victim.one is not sleeper]

    def _all(self) -> list[Victim]:
        found = []
        taken = self.told | self.claimed | self.kept
        there = [one for one in self.running if one.key not in taken and one.phase not in LEAVING]
        firsts = {name: first_of(there, name) for name in {one.engine for one in there}}
        for one in there:
            if one.key in self.pinned:
                continue
            first = firsts[one.engine]
            spare = first is not None and first is not one and first.phase is Phase.READY
            found.append(replace(self._standing(one), spare=spare))
        return sorted(found, key=lambda victim: victim.order)

    def _standing(self, one: Running) -> Victim:
        other, wished = self.world.engines.get(one.engine), one.engine in self.wished
        return standing_of(one, other, self.now, wished=wished)

    # --- sleep --------------------------------------------------------------------------------

    def can_sleep(self, one: Running) -> bool:
        """Does its device know how, and has the host room for its weights?"""
        if one.phase not in (Phase.READY, Phase.DRAINING) or one.option.asleep is None:
            return False
        devices = (self.ledger.devices.get(name) for name in one.devices)
        if not all(device is None or device.sleeps for device in devices):
            return False
        more = self.ledger.asleep(one) - self.ledger.held(one)
        return self.ledger.begins(more)

    def sleepers(self, place: Place) -> set[tuple[str, int]]:
        """Of the victims, those that may sleep and the place is free all the same; the one that was
        used last is the first to be spared."""
        return spared(
            self.ledger, place.need, [victim.one for victim in place.victims], self.can_sleep
        )
