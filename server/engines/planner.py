"""Which engine goes where, and which has to make room. Pure: no I/O, no clock, no dice.

A plan is made anew from the whole world at each change, and when the last plan said so. Nothing is
remembered between two plans; that they go on with what was begun comes of this: memory that is
coming free is promised to the same wish again, since wishes stand in the same line.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from server.engines.ledger import Ledger, Units, free_cores
from server.engines.placement import (
    LEAVING,
    MOVING,
    OWN,
    Action,
    Drain,
    Engine,
    Evict,
    Option,
    Phase,
    Plan,
    Refuse,
    Running,
    Sleep,
    Start,
    Wait,
    Wake,
    Wish,
    World,
)
from server.engines.victims import (
    Standing,
    Victim,
    choose,
    possible,
    refusal,
    spared,
    standing_of,
)


def plan(world: World, now: float) -> Plan:
    """What to do now. The same world and time make the same plan."""
    return _Planner(world, now).plan()


@dataclass(frozen=True, slots=True)
class _Place:
    """A way to serve a wish: where, and who has to go. `wakes`: the instance that sleeps there."""

    option: Option
    devices: tuple[str, ...]
    need: Units
    victims: tuple[Victim, ...] = ()
    wakes: Running | None = None
    rank: tuple[float, ...] = field(default=(), compare=False)


class _Planner:
    def __init__(self, world: World, now: float) -> None:
        self.world, self.now = world, now
        self.ledger = Ledger(world)
        self.actions: list[Action] = []
        self.times: list[float] = []
        self.running = sorted(world.running, key=lambda one: one.key)
        self.line = self._line()
        self.wished = {wish.engine for wish in world.wishes}
        #: Told to go in this plan; spoken for, to go when they may; brought back.
        self.told: set[tuple[str, int]] = set()
        self.claimed: set[tuple[str, int]] = set()
        self.kept: set[tuple[str, int]] = set()
        self.begun: list[Running] = []

    def plan(self) -> Plan:
        self._tidy()
        for wish, pinned in self.line:
            self._serve(wish, pinned)
        self._end_drains()
        self._replicate()
        ahead = [time for time in self.times if self.now < time < math.inf]
        return Plan(tuple(self.actions), min(ahead, default=None))

    def _line(self) -> list[tuple[Wish, bool]]:
        """Who is served first: what is pinned; then who has waited too long, the oldest first;
        then by priority and age. One wish for each engine."""
        merged: dict[str, Wish] = {}
        for wish in self.world.wishes:
            old = merged.get(wish.engine, wish)
            merged[wish.engine] = Wish(
                wish.engine, min(old.since, wish.since), max(old.priority, wish.priority)
            )
        alive = {one.engine for one in self.running if one.phase not in LEAVING}
        for engine in self.world.engines.values():
            if engine.pinned and engine.name not in alive:
                merged.setdefault(engine.name, Wish(engine.name, self.now))
        pinned = {engine.name for engine in self.world.engines.values() if engine.pinned}

        def order(wish: Wish) -> tuple[bool, bool, int, float, str]:
            starves = self._starves(wish)
            priority = 0 if starves else -wish.priority
            return wish.engine not in pinned, not starves, priority, wish.since, wish.engine

        return [(wish, wish.engine in pinned) for wish in sorted(merged.values(), key=order)]

    def _starves(self, wish: Wish) -> bool:
        return self.now >= wish.since + self.world.policy.starvation

    # --- what goes by itself ------------------------------------------------------------------

    def _tidy(self) -> None:
        """Whose time is over ends; idle ones sleep or end."""
        policy = self.world.policy
        for one in self.running:
            engine = self.world.engines.get(one.engine)
            if one.phase is Phase.DRAINING:
                end = one.changed + policy.drain
                self.times.append(end)
                if one.in_flight and self.now >= end:
                    self._evict(one, f"its requests had {policy.drain:g} s to end")
            elif one.phase is Phase.ASLEEP and one.engine not in self.wished:
                end = one.changed + policy.forget
                self.times.append(end)
                if engine is None or self.now >= end:
                    self._evict(one, f"it slept for {self.now - one.changed:.0f} s")
            elif one.phase is Phase.READY and one.in_flight == 0:
                self._if_idle(one, engine)

    def _if_idle(self, one: Running, engine: Engine | None) -> None:
        if engine is None:
            self._evict(one, "it is not wanted any more")
            return
        if engine.pinned or one.engine in self.wished:
            return
        # Replicas go together: as long as one is used, the engine is.
        own = [other for other in self.running if other.engine == one.engine]
        if any(other.in_flight for other in own):
            return
        end = max(standing_of(other, engine, self.now, wished=False).idle_end for other in own)
        self.times.append(end)
        if self.now >= end:
            why = f"it was idle for {self.now - one.last_used:.0f} s"
            if self._can_sleep(one):
                self._sleep(one, why)
            else:
                self._evict(one, why)

    def _end_drains(self) -> None:
        """Drained ones sleep where that is left free by all who wait, or end."""
        for one in self.running:
            if one.phase is Phase.DRAINING and one.in_flight == 0:
                why = "its requests have ended"
                units = self.ledger.asleep(one)
                room = all(count <= self.ledger.later[name] for name, count in units.items())
                if room and self._can_sleep(one):
                    self._sleep(one, why)
                else:
                    self._evict(one, why)

    # --- wishes -------------------------------------------------------------------------------

    def _serve(self, wish: Wish, pinned: bool) -> None:
        engine = self.world.engines.get(wish.engine)
        if engine is None:
            self.actions.append(Refuse(wish.engine, "There is no such engine."))
            return
        own = [one for one in self.running if one.engine == wish.engine]
        if any(one.phase is Phase.READY and one.key not in self.told for one in own):
            return
        for one in own:
            if one.phase in MOVING or one.phase is Phase.DRAINING or one.key in self.told:
                self._wait(wish, OWN[one.phase])
                if one.phase in LEAVING or one.key in self.told:
                    self._hold(wish, engine, pinned)
                return
        sleeper = next((one for one in own if one.phase is Phase.ASLEEP), None)
        if not possible(self.ledger, engine):
            self.actions.append(Refuse(wish.engine, refusal(self.world, engine)))
        elif sleeper is not None and not possible(self.ledger, engine, sleeper):
            self._evict(sleeper, "it can never wake where it sleeps")
            self._wait(wish, OWN[Phase.STOPPING])
        elif places := list(self._places(engine, sleeper)):
            self._go(wish, engine, min(places, key=_rank), pinned)
        else:
            self._wait(wish, "others that wait come first")

    def _hold(self, wish: Wish, engine: Engine, pinned: bool) -> None:
        """Its last process is on its way out. Its place in line is kept all the same."""
        places = list(self._places(engine, None))
        if places and (pinned or self._starves(wish)):
            self.ledger.promise(min(places, key=_rank).need)

    def _go(self, wish: Wish, engine: Engine, place: _Place, pinned: bool) -> None:
        """As far as it goes now: begin, make room, or wait."""
        urgent = pinned or self._starves(wish)
        self.times.append(wish.since + self.world.policy.starvation)
        victims = place.victims
        free = all(victim.standing is Standing.FREE for victim in victims)
        if self.now < engine.not_before:
            if not victims:
                self.ledger.promise(place.need)
            self._wait(wish, "it died, and starts again after a pause", engine.not_before)
            return
        if not victims:
            if self.ledger.begins(place.need):
                self._begin(engine.name, place)
            else:
                self.ledger.promise(place.need)
                self._wait(wish, "memory is coming free")
            return
        if not free and not urgent:
            self._wait_for(wish, victims)
            return
        asleep = self._sleepers(place) if free else set()
        for victim in victims:
            self._ask_to_go(victim, wish.engine, asleep)
        self.ledger.promise(place.need)
        held = [victim for victim in victims if victim.standing is Standing.HELD]
        if held:
            self._wait_for(wish, held)
        else:
            self._wait(wish, f"{_names(victims)} makes room")

    def _ask_to_go(self, victim: Victim, by: str, asleep: set[tuple[str, int]]) -> None:
        one = victim.one
        if victim.standing is Standing.HELD:
            # It goes when it may; what it holds is spoken for from now on.
            self.ledger.leaves(one)
            self.claimed.add(one.key)
        elif victim.standing is Standing.BUSY:
            self.actions.append(
                Drain(one.engine, f"{by} has waited longer than it should", one.replica)
            )
            self.ledger.leaves(one)
            self.told.add(one.key)
        elif one.key in asleep:
            self._sleep(one, f"it makes room for {by}")
        else:
            self._evict(one, f"it makes room for {by}")

    def _begin(self, name: str, place: _Place, replica: int = 0) -> None:
        self.ledger.take(place.need)
        if place.wakes is not None:
            self.kept.add(place.wakes.key)
            self.actions.append(Wake(name, place.wakes.replica))
            return
        cores: tuple[int, ...] = ()
        if place.option.cores:
            device = self.ledger.devices[place.devices[0]]
            cores = free_cores(device, [*self.running, *self.begun], place.option.cores)
        start = Start(name, place.option, place.devices, replica, cores)
        self.begun.append(
            Running(name, Phase.STARTING, place.option, place.devices, replica, cores)
        )
        self.actions.append(start)

    def _wait_for(self, wish: Wish, victims: Iterable[Victim]) -> None:
        blocking = [victim for victim in victims if victim.standing is not Standing.FREE]
        ends = [victim.until for victim in blocking]
        self.times.extend(ends)
        busy = [victim for victim in blocking if victim.standing is Standing.BUSY]
        if busy:
            until = wish.since + self.world.policy.starvation
            self._wait(wish, f"{_names(busy)} is busy", until)
        else:
            until = max(ends)
            moves = "is starting, waking or falling asleep"
            why = f"{_names(blocking)} {moves if until == math.inf else 'was loaded a moment ago'}"
            self._wait(wish, why, until if until < math.inf else None)

    def _wait(self, wish: Wish, why: str, until: float | None = None) -> None:
        if until is not None:
            self.times.append(until)
            until = until if until > self.now else None
        self.actions.append(Wait(wish.engine, why, until))

    # --- places -------------------------------------------------------------------------------

    def _places(self, engine: Engine, sleeper: Running | None) -> Iterator[_Place]:
        """The best place of every option, with who has to go for it. What is promised to others is
        not to be had now."""
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

    def _place(
        self, option: Option, devices: tuple[str, ...], need: Units, number: int,
        sleeper: Running | None = None,
    ) -> _Place | None:  # fmt: skip
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
        return _Place(option, devices, need, victims, rank=rank)

    def _others(self, sleeper: Running | None) -> list[Victim]:
        """Who might have to go, in the order in which they should."""
        found = []
        taken = self.told | self.claimed | self.kept
        for one in self.running:
            other = self.world.engines.get(one.engine)
            if one is sleeper or one.key in taken or one.phase in LEAVING:
                continue
            if other is None or not other.pinned:
                wished = one.engine in self.wished
                found.append(standing_of(one, other, self.now, wished=wished))
        return sorted(found, key=lambda victim: victim.order)

    # --- going --------------------------------------------------------------------------------

    def _evict(self, one: Running, why: str) -> None:
        if one.phase not in LEAVING:
            self.ledger.leaves(one)
        self.told.add(one.key)
        self.actions.append(Evict(one.engine, why, one.replica))

    def _sleep(self, one: Running, why: str) -> None:
        self.ledger.falls_asleep(one)
        self.told.add(one.key)
        self.actions.append(Sleep(one.engine, why, one.replica))

    def _can_sleep(self, one: Running) -> bool:
        """Does its device know how, and has the host room for its weights?"""
        if one.phase not in (Phase.READY, Phase.DRAINING) or one.option.asleep is None:
            return False
        if not all(self.ledger.devices[name].sleeps for name in one.devices
                   if name in self.ledger.devices):  # fmt: skip
            return False
        more = self.ledger.asleep(one) - self.ledger.held(one)
        return self.ledger.begins(more)

    def _sleepers(self, place: _Place) -> set[tuple[str, int]]:
        """Of the victims, those that may sleep and the place is free all the same; the one that was
        used last is the first to be spared."""
        return spared(
            self.ledger, place.need, [victim.one for victim in place.victims], self._can_sleep
        )

    # --- replicas -----------------------------------------------------------------------------

    def _replicate(self) -> None:
        """More instances of what runs, where memory is free that nobody waits for."""
        for name in sorted(self.world.engines):
            engine = self.world.engines[name]
            own = [one for one in self.running if one.engine == name]
            if any(one.phase is not Phase.READY or one.key in self.told for one in own):
                continue  # one at a time
            if not 0 < len(own) < engine.replicas or self.now < engine.not_before or engine.groups:
                continue
            used = {one.replica for one in own}
            number = next(n for n in range(engine.replicas) if n not in used)
            places = [
                place
                for place in self._places(engine, None)
                if not place.victims and self.ledger.begins(place.need)
            ]
            if places:
                self._begin(name, min(places, key=_rank), number)


def _rank(place: _Place) -> tuple[float, ...]:
    return place.rank


def _names(victims: Iterable[Victim]) -> str:
    return " and ".join(sorted({victim.one.engine for victim in victims}))
