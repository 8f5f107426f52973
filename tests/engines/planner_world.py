"""A machine that does what plans say, with delays, and watches that nothing is broken by it."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace

from server.engines.placement import (
    NO_ROOM,
    Action,
    Device,
    Drain,
    Engine,
    Evict,
    Phase,
    Plan,
    Policy,
    Refuse,
    Running,
    Sleep,
    Start,
    Wait,
    Wake,
    Wish,
    World,
)
from server.engines.planner import plan

Key = tuple[str, int]


@dataclass(frozen=True)
class Delays:
    """The longest that each takes."""

    load: float = 8.0
    stop: float = 3.0
    sleep: float = 2.0
    wake: float = 2.0
    back_off: float = 2.0


@dataclass
class Waiting:
    since: float
    priority: int
    lasts: list[float] = field(default_factory=list)
    keep_alive: float | None = None
    crashes: int = 0
    #: Who may be served before it, once it has waited too long.
    ahead: int = 0


class Machine:
    """`bound`: no wish may wait longer. All that is checked is counted here anew, not asked of the
    planner's own ledger."""

    def __init__(
        self,
        devices: tuple[Device, ...],
        engines: tuple[Engine, ...],
        policy: Policy,
        *,
        seed: int = 0,
        delays: Delays | None = None,
    ) -> None:
        self.devices, self.policy = devices, policy
        self.engines = {engine.name: engine for engine in engines}
        self.delays = delays or Delays()
        self.dice = random.Random(seed)
        self.now = 100.0
        self.running: dict[Key, Running] = {}
        self.lives: Counter[Key] = Counter()
        self.waiting: dict[str, Waiting] = {}
        self.refused: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.done: list[Action] = []
        self.waits: dict[str, Wait] = {}
        self.crashes = 0
        self.last = Plan()
        self._events: list[tuple[float, int, str, Key, int]] = []
        self._count = 0

    # --- what happens to it -------------------------------------------------------------------

    def ask(
        self, name: str, lasts: float, *, priority: int = 0, keep_alive: float | None = None
    ) -> None:
        """A request. A ready engine begins with it at once, another one is wished for."""
        ready = [one for one in self.running.values()
                 if one.engine == name and one.phase is Phase.READY]  # fmt: skip
        if ready:
            self._begin(ready[0].key, lasts, keep_alive)
        else:
            if name not in self.waiting:
                self._line_up(name, priority)
            entry = self.waiting[name]
            entry.lasts.append(lasts)
            entry.keep_alive = keep_alive
        self.settle()

    def _line_up(self, name: str, priority: int) -> None:
        pinned = sum(engine.pinned for engine in self.engines.values())
        for other in self.waiting.values():
            other.ahead += other.since == self.now
        self.waiting[name] = Waiting(
            self.now, priority, crashes=self.crashes, ahead=len(self.waiting) + pinned
        )

    def crash(self, key: Key) -> None:
        """The process is gone at once."""
        one = self.running.pop(key)
        self.lives[key] += 1
        self.crashes += 1
        if one.phase is not Phase.STOPPING:
            later = self.now + self.delays.back_off
            self.engines[one.engine] = replace(self.engines[one.engine], not_before=later)
        self.settle()

    def advance(self, seconds: float) -> None:
        """Through all that happens until then; a plan is made at each event."""
        end = self.now + seconds
        self.settle()
        while True:
            due = self._events[0][0] if self._events else math.inf
            again = self.last.again if self.last.again is not None else math.inf
            if min(due, again) > end:
                break
            self.now = max(self.now, min(due, again))
            while self._events and self._events[0][0] <= self.now:
                self._happen(*heapq.heappop(self._events)[2:])
            self.settle()
        self.now = end
        self.settle()

    def _happen(self, what: str, key: Key, life: int) -> None:
        one = self.running.get(key)
        if one is None or self.lives[key] != life:
            return
        if what == "finish":
            if one.in_flight:
                self.running[key] = replace(one, in_flight=one.in_flight - 1, last_used=self.now)
        elif what == "gone":
            del self.running[key]
            self.lives[key] += 1
        elif what == "asleep":
            self._phase(key, Phase.ASLEEP)
        elif what == "ready":
            self._phase(key, Phase.READY)
            self.running[key] = replace(self.running[key], since=self.now)
            self.engines[key[0]] = replace(self.engines[key[0]], eager=False)
            if (entry := self.waiting.pop(key[0], None)) is not None:
                self._in_time(key[0], entry)
                self.served[key[0]] += 1
                for lasts in entry.lasts:
                    self._begin(key, lasts, entry.keep_alive)

    def _begin(self, key: Key, lasts: float, keep_alive: float | None) -> None:
        one = self.running[key]
        self.running[key] = replace(
            one, in_flight=one.in_flight + 1, last_used=self.now, keep_alive=keep_alive
        )
        self._later(lasts, "finish", key)

    def _phase(self, key: Key, phase: Phase) -> None:
        self.running[key] = replace(self.running[key], phase=phase, changed=self.now)

    def _later(self, seconds: float, what: str, key: Key) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, what, key, self.lives[key]))

    # --- plans --------------------------------------------------------------------------------

    def world(self) -> World:
        wishes = [Wish(name, entry.since, entry.priority) for name, entry in self.waiting.items()]
        running = list(self.running.values())
        self.dice.shuffle(wishes)
        self.dice.shuffle(running)
        return World(self.devices, self.engines, tuple(running), tuple(wishes), self.policy)

    def settle(self) -> None:
        """Plan, and do it, until a plan leaves nothing to do at once."""
        made = self.last
        for _ in range(30):
            made = plan(self.world(), self.now)
            assert made == plan(self.world(), self.now), "the same world, another plan"
            assert made.again is None or made.again > self.now
            self._complete(made)
            self.last = made
            for action in made.actions:
                self._do(action)
            self._check()
            if all(isinstance(action, Wait) for action in made.actions):
                return
        raise AssertionError(f"no end of plans: {made}")

    def _complete(self, made: Plan) -> None:
        """Each wish is answered, once; nothing is told twice."""
        told = Counter(action.engine for action in made.actions
                       if isinstance(action, Start | Wake | Wait | Refuse))  # fmt: skip
        for name in self.waiting:
            assert told[name] == 1, (name, made)
        self.waits = {action.engine: action for action in made.actions if isinstance(action, Wait)}
        goes = Counter((action.engine, action.replica) for action in made.actions
                       if isinstance(action, Sleep | Evict | Drain))  # fmt: skip
        assert all(count == 1 for count in goes.values()), made

    def _do(self, action: Action) -> None:
        if isinstance(action, Wait):
            assert action.why
            assert action.until is None or action.until > self.now
            if action.why == NO_ROOM:  # it waits for its first request
                self.engines[action.engine] = replace(self.engines[action.engine], eager=False)
            return
        self.done.append(action)
        if isinstance(action, Refuse):
            entry = self.waiting.pop(action.engine, None)
            engine = self.engines[action.engine]
            assert entry is not None or engine.pinned or engine.eager
            self.refused[action.engine] += 1
            assert not self.possible(action.engine), action
            # A pinned one would be asked for again in the same moment.
            self.engines[action.engine] = replace(engine, pinned=False, eager=False)
            return
        key = (action.engine, action.replica)
        if isinstance(action, Start):
            assert key not in self.running
            assert action.option in self.engines[action.engine].options
            kinds = {device.id: device.kind for device in self.devices}
            assert len(set(action.devices)) == action.option.devices
            assert all(kinds[name] == action.option.kind for name in action.devices)
            assert len(action.cores) == action.option.cores
            self.running[key] = Running(
                action.engine, Phase.STARTING, action.option, action.devices, action.replica,
                action.cores, changed=self.now,
            )  # fmt: skip
            self._later(self._takes(self.delays.load), "ready", key)
            return
        one = self.running[key]
        if isinstance(action, Wake):
            assert one.phase is Phase.ASLEEP
            self._phase(key, Phase.WAKING)
            self._later(self._takes(self.delays.wake), "ready", key)
            return
        self._may_go(one, action)
        if isinstance(action, Sleep):
            assert one.phase in (Phase.READY, Phase.DRAINING)
            assert one.option.asleep is not None
            self._phase(key, Phase.SLEEPING)
            self._later(self._takes(self.delays.sleep), "asleep", key)
        elif isinstance(action, Drain):
            assert one.phase is Phase.READY
            self._phase(key, Phase.DRAINING)
        else:
            self.running[key] = replace(one, slept=one.phase is Phase.ASLEEP)
            self._phase(key, Phase.STOPPING)
            self._later(self._takes(self.delays.stop), "gone", key)

    def _takes(self, longest: float) -> float:
        return longest * self.dice.choice([0.1, 0.5, 1.0])

    # --- what must never be -------------------------------------------------------------------

    def _may_go(self, one: Running, action: Sleep | Drain | Evict) -> None:
        engine = self.engines[one.engine]
        # Of a pinned engine one instance stays, as good as any other.
        assert not engine.pinned or any(
            other.engine == one.engine and other is not one and other.phase is Phase.READY
            for other in self.running.values()
        ), action
        assert one.phase in (Phase.READY, Phase.DRAINING, Phase.ASLEEP), (one, action)
        drained = one.phase is Phase.DRAINING and self.now >= one.changed + self.policy.drain
        if not isinstance(action, Drain):
            assert one.in_flight == 0 or drained, (one, action)
        if one.phase is not Phase.READY:
            return
        idle = one.keep_alive if one.keep_alive is not None else engine.idle
        rested = one.in_flight == 0 and self.now >= max(one.last_used, one.since) + idle
        assert rested or self.now >= one.since + engine.residency, (one, action)
        if isinstance(action, Drain):
            starving = any(self.now >= entry.since + self.policy.starvation
                           for entry in self.waiting.values())  # fmt: skip
            alive = {other.engine for other in self.running.values()}
            pinned = any(other.pinned for other in self.engines.values() if other.name not in alive)
            assert starving or pinned, action

    def _check(self) -> None:
        used: Counter[str] = Counter()
        for one in self.running.values():
            used.update(self.holds(one))
        for device in self.devices:
            assert used[device.id] <= device.total - device.reserved, (device, self.running)
        cores = [core for one in self.running.values() for core in one.cores]
        assert len(cores) == len(set(cores)), self.running
        together: dict[str, set[str]] = {}
        for one in self.running.values():
            for group in self.engines[one.engine].groups:
                together.setdefault(group, set()).add(one.engine)
        assert all(len(names) == 1 for names in together.values()), together
        for name, entry in self.waiting.items():
            self._in_time(name, entry)

    def holds(self, one: Running) -> Counter[str]:
        """Bytes by device, as the phase has them."""
        left, away = one.option.asleep or (0, 0)
        asleep = one.phase is Phase.ASLEEP or (one.phase is Phase.STOPPING and one.slept)
        units = Counter(dict.fromkeys(one.devices, left if asleep else one.option.each))
        if self.policy.host is not None:
            units[self.policy.host] += one.option.host
            if asleep or one.phase in (Phase.SLEEPING, Phase.WAKING):
                units[self.policy.host] += away
        return units

    @property
    def cycle(self) -> float:
        """A start, a residency, a drain, a sleep, an end: then the own start."""
        delays = self.delays
        residency = max((engine.residency for engine in self.engines.values()), default=0.0)
        moves = 2 * delays.load + delays.stop + delays.sleep + delays.wake
        return moves + residency + self.policy.drain

    @property
    def bound(self) -> float:
        """Of any wish."""
        return self.policy.starvation + (2 * len(self.engines) + 1) * self.cycle

    def _in_time(self, name: str, entry: Waiting) -> None:
        """Nobody is passed over for longer than `starvation`. Then those who have waited longer
        come first, each once. What crashes starts again, which may happen to each of them."""
        again = 1 + self.crashes - entry.crashes
        bound = (self.policy.starvation + (entry.ahead + 1) * self.cycle) * again
        assert self.now - entry.since <= bound, (name, self.now - entry.since, bound, self.running)

    def possible(self, name: str) -> bool:
        """Would it fit beside what is pinned and runs, if all else went?"""
        engine = self.engines[name]
        used: Counter[str] = Counter()
        cores: Counter[str] = Counter()
        stay: dict[str, Running] = {}
        for one in sorted(
            self.running.values(), key=lambda one: (one.phase is Phase.READY, -one.replica)
        ):
            if self.engines[one.engine].pinned and one.phase not in (
                Phase.STOPPING,
                Phase.DRAINING,
            ):
                stay[one.engine] = one  # the last one: ready, and of the smallest number
        for one in stay.values():
            if one.engine != name:
                if self.engines[one.engine].groups & engine.groups:
                    return False
                used.update(self.holds(one))
                if one.cores:
                    cores[one.devices[0]] += len(one.cores)
        for option in engine.options:
            fitting = []
            for device in self.devices:
                free = device.total - device.reserved - used[device.id]
                if device.id == self.policy.host:
                    free -= option.host
                free_cores = len(device.cores) - cores[device.id]
                if option.suits(device) and option.each <= free and option.cores <= free_cores:
                    fitting.append(device.id)
            host = next((device for device in self.devices if device.id == self.policy.host), None)
            enough = host is None or option.host <= host.total - host.reserved - used[host.id]
            if len(fitting) >= option.devices and enough:
                return True
        return False
