"""Which engine goes where, and which has to make room. Pure: no I/O, no clock, no dice.

A plan is made anew from the whole world at each change, and when the last plan said so. Nothing is
remembered between two plans; that they go on with what was begun comes of this: memory that is
coming free is promised to the same wish again, since wishes stand in the same line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from server.engines.ledger import Ledger, free_cores
from server.engines.placement import (
    LEAVING,
    MOVING,
    NO_ROOM,
    OWN,
    Action,
    Cause,
    Drain,
    Engine,
    Evict,
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
from server.engines.places import Place, Places, best
from server.engines.victims import Standing, Victim, possible, refusal, standing_of


def plan(world: World, now: float) -> Plan:
    """What to do now. The same world and time make the same plan."""
    return _Planner(world, now).plan()


class _Planner:
    def __init__(self, world: World, now: float) -> None:
        self.world, self.now = world, now
        self.ledger = Ledger(world)
        self.actions: list[Action] = []
        self.times: list[float] = []
        self.running = sorted(world.running, key=lambda one: one.key)
        self.wished = {wish.engine for wish in world.wishes}
        self.line = self._line()
        self.places = Places(world, self.ledger, self.wished, now)
        self.told = self.places.told
        self.begun: list[Running] = []

    def plan(self) -> Plan:
        self._tidy()
        for wish, pinned in self.line:
            self._serve(wish, pinned)
        self._end_drains()
        self._load_eager()
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
                    why = f"it slept for {self.now - one.changed:.0f} s"
                    self._evict(one, why, "config" if engine is None else "asleep")
            elif one.phase is Phase.READY and one.in_flight == 0:
                self._if_idle(one, engine)

    def _if_idle(self, one: Running, engine: Engine | None) -> None:
        if engine is None:
            self._evict(one, "it is not wanted any more", "config")
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
            why = f"it was idle for {self.now - max(one.last_used, one.since):.0f} s"
            if self.places.can_sleep(one):
                self._sleep(one, why, "idle")
            else:
                self._evict(one, why, "idle")

    def _end_drains(self) -> None:
        """Drained ones sleep where that is left free by all who wait, or end."""
        for one in self.running:
            if one.phase is Phase.DRAINING and one.in_flight == 0:
                why = "its requests have ended"
                units = self.ledger.asleep(one)
                room = all(count <= self.ledger.later[name] for name, count in units.items())
                if room and self.places.can_sleep(one):
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
        elif places := list(self.places.of(engine, sleeper)):
            self._go(wish, engine, best(places), pinned)
        else:
            self._wait(wish, "others that wait come first")

    def _hold(self, wish: Wish, engine: Engine, pinned: bool) -> None:
        """Its last process is on its way out. Its place in line is kept all the same."""
        places = list(self.places.of(engine))
        if places and (pinned or self._starves(wish)):
            self.ledger.promise(best(places).need)

    def _go(self, wish: Wish, engine: Engine, place: Place, pinned: bool) -> None:
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
                self._begin(engine, place)
            else:
                self.ledger.promise(place.need)
                self._wait(wish, "memory is coming free")
            return
        if not free and not urgent:
            self._wait_for(wish, victims)
            return
        asleep = self.places.sleepers(place) if free else set()
        for victim in victims:
            self._ask_to_go(victim, wish.engine, asleep)
        self.ledger.promise(place.need)
        held = [victim for victim in victims if victim.standing is Standing.HELD]
        if held:
            self._wait_for(wish, held)
        else:
            self._wait(wish, f"{_names(victims)} makes room")

    def _begin(self, engine: Engine, place: Place) -> None:
        self.ledger.take(place.need)
        if place.wakes is not None:
            self.places.kept.add(place.wakes.key)
            self.actions.append(Wake(engine.name, place.wakes.replica))
            return
        cores: tuple[int, ...] = ()
        if place.option.cores:
            device = self.ledger.devices[place.devices[0]]
            cores = free_cores(device, [*self.running, *self.begun], place.option.cores)
        used = {one.replica for one in self.running if one.engine == engine.name}
        start = Start(engine.name, place.option, place.devices, engine.vacant(used) or 0, cores)
        self.begun.append(
            Running(
                engine.name, Phase.STARTING, place.option, place.devices, start.replica, cores
            )
        )  # fmt: skip
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

    # --- going --------------------------------------------------------------------------------

    def _ask_to_go(self, victim: Victim, by: str, asleep: set[tuple[str, int]]) -> None:
        one = victim.one
        if victim.standing is Standing.HELD:
            # It goes when it may; what it holds is spoken for from now on.
            self.ledger.leaves(one)
            self.places.claimed.add(one.key)
        elif victim.standing is Standing.BUSY:
            why = f"{by} has waited longer than it should"
            self.actions.append(Drain(one.engine, why, one.replica, by=by))
            self.ledger.leaves(one)
            self.told.add(one.key)
        elif one.key in asleep:
            self._sleep(one, f"it makes room for {by}", by=by)
        else:
            self._evict(one, f"it makes room for {by}", by=by)

    def _evict(
        self, one: Running, why: str, cause: Cause = "room", by: str | None = None
    ) -> None:  # fmt: skip
        if one.phase not in LEAVING:
            self.ledger.leaves(one)
        self.told.add(one.key)
        self.actions.append(Evict(one.engine, why, one.replica, cause=cause, by=by))

    def _sleep(
        self, one: Running, why: str, cause: Cause = "room", by: str | None = None
    ) -> None:  # fmt: skip
        self.ledger.falls_asleep(one)
        self.told.add(one.key)
        self.actions.append(Sleep(one.engine, why, one.replica, cause=cause, by=by))

    # --- what takes free memory only ----------------------------------------------------------

    def _load_eager(self) -> None:
        """What should be loaded though nobody asks for it yet, in the order of the engines."""
        for engine in self.world.engines.values():
            own = [one for one in self.running if one.engine == engine.name]
            if not engine.eager or engine.pinned or engine.name in self.wished:
                continue
            if any(one.phase not in LEAVING for one in own):
                continue
            wish = Wish(engine.name, self.now)
            if not possible(self.ledger, engine):
                self.actions.append(Refuse(engine.name, refusal(self.world, engine)))
            elif own:
                self._wait(wish, OWN[own[0].phase])
            elif not (places := list(self.places.empty(engine))):
                self._wait(wish, NO_ROOM)
            elif self.now < engine.not_before:
                self._wait(wish, "it died, and starts again after a pause", engine.not_before)
            elif self.ledger.begins(best(places).need):
                self._begin(engine, best(places))
            else:
                self.ledger.promise(best(places).need)
                self._wait(wish, "memory is coming free")

    def _replicate(self) -> None:
        """More instances of what runs, where memory is free that nobody waits for."""
        for name in sorted(self.world.engines):
            engine = self.world.engines[name]
            own = [one for one in self.running if one.engine == name]
            if any(one.phase is not Phase.READY or one.key in self.told for one in own):
                continue  # one at a time
            if not own or engine.groups or engine.vacant({one.replica for one in own}) is None:
                continue
            if self.now < engine.not_before:
                self.times.append(engine.not_before)
                continue
            places = [p for p in self.places.empty(engine) if self.ledger.begins(p.need)]
            if places:
                self._begin(engine, best(places))


def _names(victims: Iterable[Victim]) -> str:
    return " and ".join(sorted({victim.one.engine for victim in victims}))
