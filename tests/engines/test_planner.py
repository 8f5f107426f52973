"""Single plans, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from server.engines.placement import (
    FOREVER,
    Action,
    Device,
    Drain,
    Engine,
    Evict,
    Option,
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
from tests.engines.planner_world import Machine

NOW = 1000.0
GPU = Device("cuda:0", "cuda", 24, sleeps=True)
TWO = (GPU, Device("cuda:1", "cuda", 24, sleeps=True))
CPU = Device("cpu", "cpu", 64, cores=(0, 1, 2, 3))
LONG_AGO = 100.0


def engine(name: str, each: int = 16, **changes: Any) -> Engine:
    keys = {"devices", "host", "asleep", "cores", "kind"}
    option = Option(
        **{"kind": "cuda", **{k: v for k, v in changes.items() if k in keys}}, each=each
    )
    return Engine(name, (option,), **{k: v for k, v in changes.items() if k not in keys})


def ready(one: Engine, *devices: str, **changes: Any) -> Running:
    values: dict[str, Any] = {
        "since": LONG_AGO, "changed": LONG_AGO, "last_used": LONG_AGO, "phase": Phase.READY,
    }  # fmt: skip
    return Running(
        one.name, option=one.options[0], devices=devices or ("cuda:0",), **{**values, **changes}
    )


def planned(
    *engines: Engine,
    running: tuple[Running, ...] = (),
    wishes: tuple[str | Wish, ...] = (),
    devices: tuple[Device, ...] = (GPU, CPU),
    **policy: Any,
) -> Plan:
    asked = tuple(wish if isinstance(wish, Wish) else Wish(wish, NOW) for wish in wishes)
    world = World(
        devices, {one.name: one for one in engines}, running, asked,
        Policy(**{"host": "cpu", **policy}),
    )  # fmt: skip
    return plan(world, NOW)


def only(made: Plan) -> Action:
    (action,) = made.actions
    return action


def start(one: Engine, *devices: str, **changes: Any) -> Start:
    return Start(one.name, one.options[0], devices or ("cuda:0",), **changes)


def test_nothing_to_do() -> None:
    assert planned() == Plan()
    assert planned(engine("a")) == Plan()
    a = engine("a")
    assert planned(a, running=(ready(a),), wishes=("a",)) == Plan()


def test_it_fits() -> None:
    a = engine("a")
    assert only(planned(a, wishes=("a",))) == start(a)


def test_reserved_memory_is_nobodys() -> None:
    a = engine("a", 24)
    assert only(planned(a, wishes=("a",))) == start(a)
    made = planned(a, wishes=("a",), devices=(replace(GPU, reserved=1), CPU))
    assert only(made) == Refuse("a", "It does not fit on the devices that are here.")


def test_the_needs_own_error_is_told() -> None:
    a = engine("a", 25, refusal="It needs 1 GiB more.")
    assert only(planned(a, wishes=("a",))) == Refuse("a", "It needs 1 GiB more.")
    assert only(planned(wishes=("x",))) == Refuse("x", "There is no such engine.")


def test_small_ones_go_where_little_is_left() -> None:
    a, b = engine("a", 14), engine("b", 8)
    made = planned(a, b, running=(ready(a, "cuda:1"),), wishes=("b",), devices=TWO)
    assert only(made) == start(b, "cuda:1")


def test_several_devices() -> None:
    a = engine("a", 20, devices=2)
    assert only(planned(a, wishes=("a",), devices=TWO)) == start(a, "cuda:0", "cuda:1")
    assert isinstance(only(planned(a, wishes=("a",))), Refuse)


def test_another_option_before_another_engine() -> None:
    a = engine("a")
    b = Engine("b", (Option("cuda", 16), Option("cpu", 30)))
    made = planned(a, b, running=(ready(a),), wishes=("b",))
    assert only(made) == Start("b", b.options[1], ("cpu",))


def test_cores_are_disjoint() -> None:
    a, b, c = (engine(name, 4, kind="cpu", cores=2) for name in "abc")
    made = planned(a, b, wishes=("a", "b"))
    assert made.actions == (start(a, "cpu", cores=(0, 1)), start(b, "cpu", cores=(2, 3)))
    running = (ready(a, "cpu", cores=(0, 1)), ready(b, "cpu", cores=(2, 3), in_flight=1))
    made = planned(a, b, c, running=running, wishes=("c",))
    assert made.actions[0] == Evict("a", "it makes room for c")
    stopping = replace(running[0], phase=Phase.STOPPING)
    made = planned(a, b, c, running=(stopping, running[1]), wishes=("c",))
    assert only(made) == Wait("c", "memory is coming free")


# --- who goes -----------------------------------------------------------------------------------


def test_the_one_used_the_longest_ago_goes() -> None:
    a, b, c = (engine(name, 12) for name in "abc")
    running = (ready(a, last_used=300.0), ready(b, last_used=200.0))
    made = planned(a, b, c, running=running, wishes=("c",))
    assert made.actions == (Evict("b", "it makes room for c"), Wait("c", "b makes room"))


def test_no_more_go_than_must() -> None:
    a, b, c = engine("a", 4), engine("b", 20), engine("c", 16)
    running = (ready(a, last_used=200.0), ready(b, last_used=300.0))
    made = planned(a, b, c, running=running, wishes=("c",))
    assert made.actions[0] == Evict("b", "it makes room for c")
    assert len(made.actions) == 2


def test_memory_counts_until_it_is_gone() -> None:
    a, b = engine("a"), engine("b")
    for phase in (Phase.STOPPING, Phase.DRAINING):
        going = ready(a, phase=phase, in_flight=1, changed=NOW)
        made = planned(a, b, running=(going,), wishes=("b",))
        assert only(made) == Wait("b", "memory is coming free")


def test_memory_that_comes_free_is_promised() -> None:
    """c would fit into what is free now, but not beside b, which came first."""
    a, b, c = engine("a", 12), engine("b", 20), engine("c", 8)
    going = ready(a, phase=Phase.STOPPING)
    wishes = (Wish("b", NOW - 2), Wish("c", NOW - 1))
    made = planned(a, b, c, running=(going,), wishes=wishes)
    assert [type(action) for action in made.actions] == [Wait, Wait]
    small = engine("c", 4)
    made = planned(a, b, small, running=(going,), wishes=wishes)
    assert made.actions == (Wait("b", "memory is coming free"), start(small))


def test_pinned_ones_stay() -> None:
    a, b = engine("a", pinned=True), engine("b")
    refused = only(planned(a, b, running=(ready(a),), wishes=("b",)))
    assert refused == Refuse(
        "b", "It does not fit on the devices that are here beside what is pinned (a)."
    )
    c = engine("c", 8)
    made = planned(a, b, c, running=(ready(a), ready(c)), wishes=(Wish("b", 0.0),))
    assert isinstance(only(made), Refuse)
    d = engine("d", 8)
    made = planned(a, c, d, running=(ready(a), ready(c)), wishes=("d",))
    assert made.actions[0] == Evict("c", "it makes room for d")


def test_pinned_ones_come_first() -> None:
    a, b = engine("a", pinned=True), engine("b", 8)
    made = planned(a, b, wishes=(Wish("b", 0.0, priority=9),))
    assert made.actions == (start(a), start(b))


def test_busy_ones_stay_until_somebody_has_waited_too_long() -> None:
    a, b = engine("a"), engine("b")
    running = (ready(a, in_flight=1),)
    made = planned(a, b, running=running, wishes=(Wish("b", NOW - 10),), starvation=60)
    assert made == Plan((Wait("b", "a is busy", NOW + 50),), NOW + 50)
    made = planned(a, b, running=running, wishes=(Wish("b", NOW - 60),), starvation=60)
    assert made.actions[0] == Drain("a", "b has waited longer than it should")


def test_who_is_waited_for_counts_as_busy() -> None:
    a, b = engine("a"), engine("b")
    made = planned(a, b, running=(ready(a),), wishes=("a", "b"))
    assert only(made) == Wait("b", "a is busy", NOW + 60)


def test_a_drain_ends() -> None:
    a = engine("a")
    going = ready(a, phase=Phase.DRAINING, changed=NOW - 5, in_flight=1)
    assert planned(a, running=(going,), drain=30) == Plan((), NOW + 25)
    made = planned(a, running=(going,), drain=5)
    assert only(made) == Evict("a", "its requests had 5 s to end")
    made = planned(a, running=(replace(going, in_flight=0),), drain=30)
    assert only(made) == Evict("a", "its requests have ended")


def test_residency() -> None:
    a, b = engine("a", residency=30), engine("b")
    fresh = ready(a, since=NOW - 10, last_used=NOW - 10)
    for since in (NOW, NOW - 100):  # also for those who have waited too long
        made = planned(a, b, running=(fresh,), wishes=(Wish("b", since),))
        assert only(made) == Wait("b", "a was loaded a moment ago", NOW + 20)
    made = planned(a, b, running=(replace(fresh, keep_alive=5.0),), wishes=("b",))
    assert made.actions[0] == Evict("a", "it was idle for 10 s")


def test_those_who_wait_too_long_go_by_age() -> None:
    a, b = engine("a"), engine("b")
    made = planned(a, b, wishes=(Wish("a", NOW - 1, priority=5), Wish("b", NOW - 2)))
    assert made.actions == (start(a), Wait("b", "others that wait come first"))
    made = planned(a, b, wishes=(Wish("a", NOW - 70, priority=5), Wish("b", NOW - 80)))
    assert made.actions == (start(b), Wait("a", "others that wait come first"))


def test_groups_never_coexist() -> None:
    a, b = (engine(name, 2, groups=frozenset({"g"})) for name in "ab")
    made = planned(a, b, running=(ready(a),), wishes=("b",))
    assert made.actions[0] == Evict("a", "it makes room for b")
    made = planned(a, b, wishes=(Wish("a", NOW - 1), Wish("b", NOW)))
    assert made.actions == (start(a), Wait("b", "others that wait come first"))
    pinned = replace(a, pinned=True)
    assert isinstance(only(planned(pinned, b, running=(ready(a),), wishes=("b",))), Refuse)


# --- idle, asleep -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("idle", "keep_alive", "ends"),
    [(60, None, 60), (60, 300.0, 300), (60, 10.0, 10), (60, FOREVER, None), (FOREVER, None, None)],
)
def test_idle_ones_end(idle: float, keep_alive: float | None, ends: float | None) -> None:
    a = engine("a", idle=idle)
    one = ready(a, last_used=NOW - 1, keep_alive=keep_alive)
    again = None if ends is None else NOW - 1 + ends
    assert planned(a, running=(one,)) == Plan((), again)
    if ends is not None:
        made = planned(a, running=(replace(one, last_used=NOW - ends),))
        assert only(made) == Evict("a", f"it was idle for {ends} s")
        assert planned(a, running=(replace(one, last_used=0.0, in_flight=1),)) == Plan()
        assert planned(replace(a, pinned=True), running=(replace(one, last_used=0.0),)) == Plan()


def test_sleep_rather_than_end() -> None:
    a, b = engine("a", 16, idle=60, asleep=(1, 15)), engine("b", 20)
    assert only(planned(a, running=(ready(a),))) == Sleep("a", "it was idle for 900 s")
    kept = replace(a, idle=FOREVER)
    made = planned(kept, b, running=(ready(kept),), wishes=("b",))
    assert made.actions == (Sleep("a", "it makes room for b"), Wait("b", "a makes room"))


@pytest.mark.parametrize(
    "devices",
    [(replace(GPU, sleeps=False), CPU), (GPU, replace(CPU, total=14))],
    ids=["a device that cannot", "no room for its weights"],
)
def test_no_sleep(devices: tuple[Device, ...]) -> None:
    a, b = engine("a", 16, asleep=(1, 15)), engine("b", 20)
    made = planned(a, b, running=(ready(a),), wishes=("b",), devices=devices)
    assert made.actions[0] == Evict("a", "it makes room for b")


def test_two_sleep_only_where_both_have_room_now() -> None:
    """A process that still stops has 20 of the host's 40 bytes; weights of 11 come twice."""
    a, b = (engine(name, 12, asleep=(1, 11)) for name in "ab")
    c, old = engine("c", 20), engine("old", 20, kind="cpu")
    running = (ready(a), ready(b, last_used=300.0), ready(old, "cpu", phase=Phase.STOPPING))
    devices = (GPU, replace(CPU, total=40))
    made = planned(a, b, c, old, running=running, wishes=("c",), devices=devices)
    assert made.actions[:2] == (
        Evict("a", "it makes room for c"),
        Sleep("b", "it makes room for c"),
    )
    made = planned(a, b, c, running=running[:2], wishes=("c",), devices=devices)
    assert [type(action) for action in made.actions] == [Sleep, Sleep, Wait]


def test_what_stays_of_a_sleeper_may_be_too_much() -> None:
    a, b = engine("a", 16, asleep=(5, 11)), engine("b", 20)
    made = planned(a, b, running=(ready(a),), wishes=("b",))
    assert made.actions[0] == Evict("a", "it makes room for b")
    asleep = ready(a, phase=Phase.ASLEEP)
    made = planned(a, b, running=(asleep,), wishes=("b",))
    assert made.actions[0] == Evict("a", "it makes room for b")


def test_a_drained_one_sleeps_where_there_is_room() -> None:
    a, b = engine("a", 16, asleep=(1, 15)), engine("b", 20)
    going = ready(a, phase=Phase.DRAINING, changed=NOW - 1)
    made = planned(a, b, running=(going,), wishes=(Wish("b", 0.0),))
    assert Sleep("a", "its requests have ended") in made.actions
    made = planned(a, engine("b", 24), running=(going,), wishes=(Wish("b", 0.0),))
    assert Evict("a", "its requests have ended") in made.actions


def test_waking() -> None:
    a, b = engine("a", 16, asleep=(1, 15)), engine("b", 10)
    asleep = ready(a, phase=Phase.ASLEEP)
    assert only(planned(a, running=(asleep,), wishes=("a",))) == Wake("a")
    made = planned(a, b, running=(asleep, ready(b)), wishes=("a",))
    assert made.actions[0] == Evict("b", "it makes room for a")
    pinned = replace(b, pinned=True)
    made = planned(a, pinned, running=(asleep, ready(b)), wishes=("a",), devices=(*TWO, CPU))
    assert made.actions[0] == Evict("a", "it can never wake where it sleeps")


def test_weights_are_with_the_host_until_it_is_awake() -> None:
    a, b = engine("a", 16, asleep=(1, 15)), engine("b", 10, kind="cpu")
    devices = (GPU, replace(CPU, total=20))
    made = planned(a, b, running=(ready(a, phase=Phase.WAKING),), wishes=("b",), devices=devices)
    assert only(made) == Wait("b", "memory is coming free")
    made = planned(a, b, running=(ready(a, phase=Phase.SLEEPING),), wishes=("b",), devices=devices)
    assert only(made) == Wait("b", "a is starting, waking or falling asleep")


def test_a_sleeper_is_forgotten() -> None:
    a = engine("a", asleep=(1, 15))
    asleep = ready(a, phase=Phase.ASLEEP, changed=NOW - 50)
    assert planned(a, running=(asleep,), forget=60) == Plan((), NOW + 10)
    assert only(planned(a, running=(asleep,), forget=50)) == Evict("a", "it slept for 50 s")


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.WAKING, Phase.SLEEPING, Phase.STOPPING])
def test_what_is_on_its_way_is_waited_for(phase: Phase) -> None:
    a = engine("a", asleep=(1, 15))
    assert isinstance(only(planned(a, running=(ready(a, phase=phase),), wishes=("a",))), Wait)


def test_after_a_death_it_waits_and_keeps_its_place() -> None:
    a, b = engine("a", not_before=NOW + 5), engine("b", 20)
    made = planned(a, b, wishes=(Wish("a", NOW - 1), Wish("b", NOW)))
    assert made.actions[0] == Wait("a", "it died, and starts again after a pause", NOW + 5)
    assert isinstance(made.actions[1], Wait)
    assert made.again == NOW + 5


def test_what_is_not_in_the_config_goes_when_it_is_idle() -> None:
    a = engine("a")
    assert only(planned(running=(ready(a),))) == Evict("a", "it is not wanted any more")
    assert planned(running=(ready(a, in_flight=1),)) == Plan()


# --- replicas -----------------------------------------------------------------------------------


def test_replicas_where_memory_is_free() -> None:
    a, b = engine("a", 10, replicas=3), engine("b", 20)
    first = ready(a)
    assert only(planned(a, running=(first,))) == start(a, replica=1)
    second = ready(a, replica=1)
    assert planned(a, running=(first, second)) == Plan()  # no room for a third
    made = planned(a, b, running=(first,), wishes=("b",))
    assert made.actions == (Evict("a", "it makes room for b"), Wait("b", "a makes room"))


def test_replicas_go_together() -> None:
    a = engine("a", 10, replicas=2, idle=60)
    running = (ready(a, in_flight=1), ready(a, replica=1))
    assert planned(a, running=running).actions == ()
    idle = (ready(a), ready(a, replica=1))
    assert [type(action) for action in planned(a, running=idle).actions] == [Evict, Evict]


# --- for a while --------------------------------------------------------------------------------


def test_three_that_are_always_asked_and_two_that_fit() -> None:
    """Swaps under load: each is served again and again, and none too often."""
    engines = tuple(engine(name, 12, residency=10.0, asleep=(1, 11)) for name in "abc")
    machine = Machine((GPU, CPU), engines, Policy(starvation=15.0, drain=3.0, host="cpu"), seed=7)
    for _ in range(600):
        for one in engines:
            machine.ask(one.name, lasts=2.0)
        machine.advance(0.5)
    assert min(machine.served[one.name] for one in engines) >= 5
    swaps = sum(isinstance(action, Start | Wake) for action in machine.done)
    assert swaps <= 2 * 300 / 10  # two places, each kept for its residency
