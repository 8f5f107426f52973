"""Any fleet under any wishes: memory, pins, residency and patience hold at every moment."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from server.engines.placement import FOREVER, Device, Engine, Option, Phase, Policy
from tests.engines.planner_world import Machine


@st.composite
def fleets(draw: st.DrawFn) -> Machine:
    gpus = draw(st.lists(st.integers(16, 40), min_size=1, max_size=3))
    sleeps = draw(st.booleans())
    devices = [Device(f"cuda:{n}", "cuda", size, reserved=draw(st.integers(0, 2)), sleeps=sleeps)
               for n, size in enumerate(gpus)]  # fmt: skip
    cores = tuple(range(draw(st.integers(0, 6))))
    devices.append(Device("cpu", "cpu", draw(st.integers(20, 120)), cores=cores))
    engines = [draw(engine(f"e{n}")) for n in range(draw(st.integers(2, 7)))]
    policy = Policy(
        starvation=draw(st.sampled_from([0.0, 5.0, 20.0])),
        drain=draw(st.sampled_from([0.0, 1.0, 10.0])),
        forget=draw(st.sampled_from([FOREVER, 30.0])),
        host=draw(st.sampled_from(["cpu", None])),
    )
    return Machine(tuple(devices), tuple(engines), policy, seed=draw(st.integers(0, 99)))


@st.composite
def engine(draw: st.DrawFn, name: str) -> Engine:
    options = tuple(draw(st.lists(option(), min_size=1, max_size=2)))
    return Engine(
        name,
        options,
        pinned=draw(st.sampled_from([False, False, False, False, True])),
        idle=draw(st.sampled_from([FOREVER, FOREVER, 0.0, 5.0, 30.0])),
        residency=draw(st.sampled_from([0.0, 3.0, 10.0])),
        groups=frozenset(draw(st.sampled_from(["", "", "", "a", "b", "ab"]))),
        replicas=draw(st.sampled_from([1, 1, 1, 3])),
        refusal=draw(st.sampled_from([None, "It needs more."])),
        eager=draw(st.sampled_from([False, False, True])),
    )


@st.composite
def option(draw: st.DrawFn) -> Option:
    each = draw(st.integers(3, 24))
    if draw(st.sampled_from([False, False, True])):
        return Option("cpu", each, cores=draw(st.integers(0, 2)))
    asleep = draw(st.sampled_from([None, (1, each - 1), (2, each - 1)]))
    host = draw(st.sampled_from([0, 2]))
    return Option("cuda", each, draw(st.sampled_from([1, 1, 2])), host=host, asleep=asleep)


class Anything(RuleBasedStateMachine):
    machine: Machine

    @initialize(machine=fleets())
    def begin(self, machine: Machine) -> None:
        self.machine = machine
        machine.settle()

    @rule(
        number=st.integers(0, 6),
        lasts=st.sampled_from([0.0, 1.0, 7.0, 60.0, 500.0]),
        priority=st.integers(0, 2),
        keep_alive=st.sampled_from([None, None, 0.0, 3.0, FOREVER]),
    )
    def ask(self, number: int, lasts: float, priority: int, keep_alive: float | None) -> None:
        names = sorted(self.machine.engines)
        name = names[number % len(names)]
        self.machine.ask(name, lasts, priority=priority, keep_alive=keep_alive)

    @rule(seconds=st.sampled_from([0.3, 2.0, 6.0, 25.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.machine.advance(seconds)

    @precondition(lambda self: self.machine.running and self.machine.crashes < 3)
    @rule(number=st.integers(0, 9))
    def crash(self, number: int) -> None:
        keys = sorted(self.machine.running)
        self.machine.crash(keys[number % len(keys)])

    def teardown(self) -> None:
        """Nobody new comes: all that can be served is, though nothing that runs ends early."""
        machine: Any = getattr(self, "machine", None)
        if machine is None:
            return
        machine.advance(machine.bound * (1 + machine.crashes))
        assert not machine.waiting, (machine.waiting, machine.last)
        for name, one in machine.engines.items():
            if one.pinned:
                assert any(
                    other.engine == name and other.phase is not Phase.STOPPING
                    for other in machine.running.values()
                ), name


TestAnything = pytest.mark.no_cover(Anything.TestCase)
TestAnything.settings = settings(
    max_examples=150, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
